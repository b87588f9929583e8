"""Arguments are checked here and nowhere else; every message names what was expected, what came, what to do."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tightframe.errors import (
    ClassifierError,
    DtypeError,
    EmptyBatchError,
    LabelError,
    NonFiniteError,
    RangeError,
    ShapeError,
    ZeroVectorError,
)

_INTEGERS = frozenset(
    {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64}
)
_CLASSES_PER_ROW, _CLASSES = 100, 1000  # the most classes that labels alone are believed to have
LARGEST = 1e140  # sums of squares of larger values could overflow float64

Array = Tensor | npt.NDArray[Any]
"""What public functions take for a tensor: see `as_tensor`."""

_SIGNED = {2: np.int32, 4: np.int64, 8: np.int64}  # of unsigned integers by bytes, for which torch lacks most functions


def as_tensor(values: Array, what: str = "values") -> Tensor:
    """A tensor as it is, a numpy array as a tensor: in the same memory, unless torch can't use that.

    Copied are arrays that are read-only (as memory maps of files are), in another byte order or with strides that torch
    doesn't know, and unsigned integers of more than a byte.
    Raises: DtypeError for anything else, for arrays of anything but numbers and bools, and for tensors that are
    sparse, quantised or on the meta device.
    """
    if isinstance(values, Tensor):
        require_dense(values, what)
        return values
    if not isinstance(values, np.ndarray):
        raise DtypeError(f"{what} must be a tensor or a numpy array; got {type(values).__name__}.")
    if isinstance(values, np.ma.MaskedArray):
        raise DtypeError(f"{what} must have no mask, which tensors lack; drop what is masked, or fill it.")
    kind, width = values.dtype.kind, values.dtype.itemsize
    if kind not in "biufc" or width > (16 if kind == "c" else 8):
        raise DtypeError(f"{what} must hold numbers that torch has; got an array of {values.dtype}.")
    dtype = np.dtype(_SIGNED[width]) if kind == "u" and width > 1 else values.dtype.newbyteorder("=")
    usable = values.flags.writeable and all(stride >= 0 and stride % width == 0 for stride in values.strides)
    return torch.from_numpy(values if usable and dtype == values.dtype else np.array(values, dtype, order="C"))


def as_array(values: Any, what: str) -> npt.NDArray[Any]:
    """Lists and other values as a numpy array. Raises: ShapeError for rows of different lengths."""
    try:
        return np.asarray(values)
    except (ValueError, TypeError):
        raise ShapeError(f"{what} must be rows of equal length.") from None


def require_dense(tensor: Tensor, what: str) -> None:
    """Raise DtypeError for a tensor whose values aren't a plain array in memory, naming the call that makes it one."""
    if tensor.layout is not torch.strided and tensor.layout is not torch.jagged:
        layout = str(tensor.layout).removeprefix("torch.")
        raise DtypeError(f"{what} must be dense; got the layout {layout}. Convert with .to_dense().")
    if tensor.is_quantized:
        raise DtypeError(f"{what} must not be quantised; got {tensor.dtype}. Convert with .dequantize().")
    if tensor.is_meta:
        raise DtypeError(f"{what} must have values; the tensor is on the meta device.")


def as_rows(
    features: Tensor,
    labels: Tensor,
    *,
    num_features: int | None = None,
    class_dim: int = -1,
    ignore_index: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Features (..., D) and labels (...) as (N, D) floats and (N,) int64, rows labelled `ignore_index` dropped.

    `class_dim` is the dimension that holds the D features: 1 for (N, D, H, W). Half precision becomes float32.
    Raises DtypeError, ShapeError or EmptyBatchError; labels' range is `require_labels`' business.
    """
    require_dense(features, "features")
    require_dense(labels, "labels")
    if not features.dtype.is_floating_point:
        raise DtypeError(f"features must be floating point; got {features.dtype}. Convert them with .float().")
    require_integers(labels)
    if features.ndim < 2 or not -features.ndim <= class_dim < features.ndim:
        raise ShapeError(
            f"features must have at least two dimensions and one at class_dim={class_dim}; "
            f"got shape {tuple(features.shape)}."
        )
    if class_dim not in (-1, features.ndim - 1):
        features = features.movedim(class_dim, -1)
    if num_features is not None and features.shape[-1] != num_features:
        raise ShapeError(
            f"features must have {num_features} entries along class_dim={class_dim}; got {features.shape[-1]}."
        )
    if labels.shape != features.shape[:-1]:
        raise ShapeError(
            f"labels must have the features' shape without class_dim, {tuple(features.shape[:-1])}; "
            f"got {tuple(labels.shape)}."
        )
    if labels.device != features.device:
        raise ShapeError(f"features are on {features.device} but labels on {labels.device}; move one of them.")
    if labels.numel() == 0:
        raise EmptyBatchError(f"the batch has no rows: features have shape {tuple(features.shape)}.")
    if features.ndim > 2:
        features, labels = features.reshape(-1, features.shape[-1]), labels.reshape(-1)
    if labels.dtype is not torch.int64:
        labels = labels.to(torch.int64)
    if ignore_index is not None:
        kept = labels != ignore_index
        if not kept.all():
            features, labels = features[kept], labels[kept]
    if features.dtype is not torch.float32 and features.dtype is not torch.float64:
        features = features.to(torch.float32)
    return features, labels


def require_features(features: Tensor, num_features: int) -> None:
    """Raise DtypeError, ShapeError or NonFiniteError unless features are finite (N, D) floats with D = num_features."""
    if not features.dtype.is_floating_point:
        raise DtypeError(f"features must be floating point; got {features.dtype}. Convert them with .float().")
    if features.ndim != 2 or features.shape[1] != num_features:
        raise ShapeError(f"features must have shape (N, {num_features}); got {tuple(features.shape)}.")
    require_finite(features.detach())


def listed(items: Sequence[object], most: int = 10) -> str:
    """The first of some items, separated by commas, with an ellipsis where there are more: for messages."""
    return ", ".join(map(str, items[:most])) + (", ..." if len(items) > most else "")


def can_look(tensor: Tensor) -> bool:
    """Whether values can be looked at for nothing: on the CPU, outside torch's compile, export and func."""
    if tensor.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    return not torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def is_integer(values: Tensor) -> bool:
    """Whether the dtype is one of integers, signed or not; bool isn't."""
    return values.dtype in _INTEGERS


def require_integers(labels: Tensor) -> None:
    """Raise DtypeError unless labels are integers."""
    if not is_integer(labels):
        raise DtypeError(f"labels must be integers; got {labels.dtype}.")


def require_labels(labels: Tensor, num_classes: int, what: str = "labels") -> None:
    """Raise LabelError unless all of (N,) int64 labels lie in [0, num_classes)."""
    if labels.numel() == 0:
        return
    smallest, largest = (int(value) for value in torch.aminmax(labels))
    if smallest >= 0 and largest < num_classes:
        return
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    first = int(wrong[0])
    rows = int((wrong == first).sum())
    others = rows < len(wrong)
    raise LabelError(labels_out_of_range(first, rows, num_classes, (smallest, largest), what, others=others))


def labels_out_of_range(
    label: int,
    rows: int,
    num_classes: int | None,
    extent: tuple[int, int],
    what: str = "labels",
    *,
    others: bool = False,
) -> str:
    """What to say of a label outside [0, num_classes).

    Args:
        num_classes: K, or None if it is told from the labels.
        rows: how many rows have it. extent: the smallest and the largest of all labels. others: whether there are
            different labels outside.
    """
    smallest, largest = extent
    if what != "labels":
        advice = ""
    elif (smallest, largest) == (1, num_classes):
        return f"labels run from 1 to {num_classes}; they must start at 0. Subtract 1."
    elif others and num_classes is not None:
        advice = f" They run from {smallest} to {largest}: are there more than {num_classes} classes?"
    else:
        advice = f" Pass ignore_index={label} to drop {'it' if rows == 1 else 'them'}."
    return (
        f"{what} must lie in [0, {num_classes or 'K'}); got {label} ({rows} {'row' if rows == 1 else 'rows'}).{advice}"
    )


def number_of_classes(smallest: int, largest: int, rows: int, ignore_index: int | None) -> int:
    """K, told from the labels that aren't ignored: the largest label + 1.

    Raises: LabelError for labels that start at 1, and for a label so large that it can't be an index of classes.
    """
    if smallest < 0:
        raise LabelError(f"labels must be at least 0; got {smallest}. Pass ignore_index={smallest} to drop it.")
    if smallest == 1 and ignore_index != 0:
        raise LabelError(
            f"labels run from 1 to {largest}; they must start at 0. Subtract 1, or pass num_classes={largest + 1} if "
            "class 0 has no samples."
        )
    if largest > (most := _CLASSES_PER_ROW * rows + _CLASSES):
        raise LabelError(
            f"labels run to {largest} in {rows} rows; they must number the classes 0, 1, 2, ... For more than {most} "
            "classes, pass num_classes."
        )
    return largest + 1


def require_positive(value: float, what: str) -> float:
    """The value, or RangeError unless it is finite and > 0."""
    if not 0 < value < math.inf:
        raise RangeError(f"{what} must be finite and > 0; got {value}.")
    return value


def require_non_negative(value: float, what: str) -> float:
    """The value, or RangeError unless it is finite and >= 0."""
    if not 0 <= value < math.inf:
        raise RangeError(f"{what} must be finite and >= 0; got {value}.")
    return value


def largest(dtype: torch.dtype) -> float:
    """The largest size of a value that is accepted in this dtype; infinity, in particular, is larger."""
    return min(LARGEST, torch.finfo(dtype).max)


def require_finite(rows: Tensor, what: str = "features") -> None:
    """Raise NonFiniteError unless all of (N, D) rows are finite and small enough to be squared in float64."""
    if rows.dtype is not torch.float64 and math.isfinite(rows.sum().item()):
        return  # one pass, no mask; a sum can also overflow, so only its finiteness proves something
    wrong = ~(rows.abs() <= largest(rows.dtype))
    bad = wrong.any(dim=1)
    if not bad.any():
        return
    row = int(bad.nonzero()[0])
    column = int(wrong[row].nonzero()[0])
    raise NonFiniteError(
        f"{what} must be finite and at most {LARGEST:g} in size; row {row} holds {rows[row, column].item()} "
        f"in column {column} ({int(bad.sum())} of {rows.shape[0]} rows affected)."
    )


def require_matrix(values: Tensor, what: str, axes: str) -> None:
    """Raise unless values are a finite two-dimensional float tensor with entries; `axes` names its dimensions."""
    if not values.dtype.is_floating_point:
        raise DtypeError(f"{what} must be floating point; got {values.dtype}. Convert it with .double().")
    if values.ndim != 2 or values.numel() == 0:
        raise ShapeError(f"{what} must have shape {axes}, neither empty; got {tuple(values.shape)}.")
    require_finite(values.detach(), what)


def require_directions(rows: Tensor, what: str = "vectors") -> None:
    """Raise unless all of (N, D) rows are finite floats and none is zero."""
    if not rows.dtype.is_floating_point:
        raise DtypeError(f"{what} must be floating point; got {rows.dtype}. Convert them with .double().")
    require_finite(rows.detach(), what)
    zero = (rows == 0).all(1).nonzero()
    if len(zero):
        raise ZeroVectorError(
            f"{what} must have a direction; row {int(zero[0])} is zero ({len(zero)} of {len(rows)} rows). Drop it."
        )


def require_classifier(weight: Tensor, bias: Tensor | None, num_classes: int, num_features: int) -> None:
    """Raise unless weight is a finite (K, D) float tensor and bias None or a finite (K,) one."""
    if not weight.dtype.is_floating_point:
        raise DtypeError(f"the classifier's weight must be floating point; got {weight.dtype}.")
    if weight.shape != (num_classes, num_features):
        raise ClassifierError(
            f"the classifier's weight must have shape (classes, features) = ({num_classes}, {num_features}); "
            f"got {tuple(weight.shape)}."
        )
    if bias is not None and bias.shape != (num_classes,):
        raise ClassifierError(f"the classifier's bias must have shape ({num_classes},); got {tuple(bias.shape)}.")
    require_finite(weight.detach(), "the classifier's weight")
    if bias is not None:
        require_finite(bias.detach().reshape(-1, 1), "the classifier's bias")
