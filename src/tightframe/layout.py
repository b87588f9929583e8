"""Where features lie in a tensor: last in (N, D) and (N, T, D), second in (N, D, H, W), as in torch's own layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tightframe.checks import can_look, require_integers, require_labels
from tightframe.errors import DtypeError, ShapeError


def features_last(features: Tensor, num_features: int, what: str = "features") -> Tensor:
    """(N, D), (N, T, D) or (N, D, H, W) as (..., D); a view.

    Raises: ShapeError for another width or fewer than two dimensions, DtypeError unless floating point.
    """
    if features.ndim < 2:
        raise ShapeError(f"{what} must be (N, D), (N, T, D) or (N, D, H, W); got shape {tuple(features.shape)}.")
    if not features.dtype.is_floating_point:
        raise DtypeError(f"{what} must be floating point; got {features.dtype}. Convert them with .float().")
    last = rows_of(features)
    if last.shape[-1] != num_features:
        where = "second" if features.ndim > 3 else "last"
        raise ShapeError(
            f"{what} must have {num_features} entries in their {where} dimension; got shape {tuple(features.shape)}."
        )
    return last


def rows_of(features: Tensor) -> Tensor:
    """The same view without a look at dtype and width."""
    return features.movedim(1, -1) if features.ndim > 3 else features


def like_features(values: Tensor) -> Tensor:
    """The inverse: (..., K) values back in the layout of the features."""
    return values.movedim(-1, 1) if values.ndim > 3 else values


def labels_at(labels: Tensor, shape: Sequence[int]) -> Tensor | None:
    """Labels (N, ...) at the positions of features of another resolution: (N, H, W) labels on an (N, h, w) grid, (N, T)
    on (N, t) where t divides T. Each cell has the label nearest to its centre. None where shapes don't correspond.
    """
    if tuple(labels.shape) == tuple(shape):
        return labels
    if labels.ndim != len(shape) or labels.ndim < 2 or labels.shape[0] != shape[0]:
        return None
    if labels.ndim == 2 and labels.shape[1] % shape[1]:
        return None  # two sequences of other lengths are a mistake more often than a stride
    for dim, (size, wanted) in enumerate(zip(labels.shape[1:], shape[1:], strict=True), start=1):
        if size != wanted:
            cells = torch.arange(wanted, device=labels.device)
            labels = labels.index_select(dim, ((2 * cells + 1) * size) // (2 * wanted))
    return labels


def labelled_rows(
    inputs: Tensor, labels: Tensor, num_features: int, num_classes: int, ignore_index: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs (N, C), (N, T, C) or (N, C, H, W) and labels without C as rows (M, C), labels (M,) and which count (M,).

    Nothing is dropped, so shapes don't depend on values; the labels of rows that don't count are 0.
    Raises: as `features_last`; ShapeError, DtypeError; LabelError where values can be looked at.
    """
    last = features_last(inputs, num_features, "inputs")
    require_integers(labels)
    if labels.shape != last.shape[:-1]:
        raise ShapeError(
            f"labels must have the inputs' shape without the classes or features, {tuple(last.shape[:-1])}; "
            f"got {tuple(labels.shape)}."
        )
    flat = labels.reshape(-1).to(torch.int64)  # where an unsigned label can't equal -100
    kept = flat != ignore_index
    if can_look(flat):
        require_labels(flat[kept], num_classes)
    return last.reshape(-1, num_features), torch.where(kept, flat, 0), kept
