"""`ClassStatistics`: everything the moments of a labelled data set say, as one frozen, mergeable value."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tightframe import checks
from tightframe.errors import (
    DtypeError,
    EmptyClassError,
    LabelError,
    MergeError,
    ScatterError,
    ShapeError,
    StateError,
    WeightingError,
)
from tightframe.numerics import float64_device, rounding_of
from tightframe.statistics.distributed import reduce_statistics, withdraw

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

Weighting = Literal["class", "sample"]
"""How classes are weighted in a mean over them: equally, or by their number of samples."""

_FORMAT = "tightframe.ClassStatistics/1"
_GAP_ROWS = 4096  # rows of class means that are merged in one product
_RECENTRED = "statistics about given centres can't be merged; merge first, then call about()."


@dataclass(frozen=True, eq=False)
class ClassStatistics:
    """Counts, means and scatter of K classes of D-dimensional features; float64 throughout.

    `merge` is exact and associative up to rounding, `empty` is its identity and `subtract` its inverse.
    Classes without samples are absent: their means are NaN and no metric counts them.

    Attributes:
        counts: (K,) int64, samples of each class.
        means: (K, D), mean feature of each class; NaN where the count is zero.
        spread: (K,), sum of squared distances to the class mean.
        within: (D, D) sum over all samples of (x - mean)(x - mean)^T, or None where it was not kept.
        class_within: (K, D, D), the same sum for each class alone, or None where it was not kept.
        class_ids: (K,) int64, the label of each row; 0..K-1 unless the value comes from `select`.
        num_labels: number of labels that the original data could have.
        recentred: whether spread and scatter are about given centres (`about`) instead of the class means.
        rounding: of the features, in their units along any direction (`numerics.rounding_of` times their size); 0 for
            exact ones. Directions in which class means differ by no more aren't real.
    """

    counts: Tensor
    means: Tensor
    spread: Tensor
    within: Tensor | None = None
    class_within: Tensor | None = None
    class_ids: Tensor | None = None
    num_labels: int | None = None
    recentred: bool = False
    rounding: float = 0.0

    def __post_init__(self) -> None:
        if self.class_ids is None:
            object.__setattr__(self, "class_ids", torch.arange(len(self.counts), device=self.counts.device))
        if self.num_labels is None:
            object.__setattr__(self, "num_labels", len(self.counts))
        classes, dim = self.means.shape if self.means.ndim == 2 else (-1, -1)
        expected = {
            "counts": (classes,),
            "means": (classes, dim),
            "spread": (classes,),
            "within": (dim, dim),
            "class_within": (classes, dim, dim),
            "class_ids": (classes,),
        }
        for name, shape in expected.items():
            tensor = getattr(self, name)
            if tensor is not None and tuple(tensor.shape) != shape:
                raise ShapeError(f"{name} must have shape {shape}; got {tuple(tensor.shape)}.")

    # ------------------------------------------------------------------ making one

    @classmethod
    def from_features(
        cls,
        features: Tensor,
        labels: Tensor,
        num_classes: int,
        *,
        covariance: bool = True,
        per_class: bool = False,
        class_dim: int = -1,
        ignore_index: int | None = None,
    ) -> ClassStatistics:
        """Statistics of features held in memory, in two float64 passes that keep the autograd graph.

        Args:
            features: (..., D), any float dtype; with `class_dim` naming another dimension, e.g. 1 for (N, D, H, W).
            labels: the features' shape without `class_dim`, any integer dtype, values in [0, num_classes).
            covariance: keep the pooled (D, D) scatter; without it memory is O(K D).
            per_class: keep a (D, D) scatter for every class too.
            ignore_index: a label whose rows are dropped.

        Raises: DtypeError, ShapeError, EmptyBatchError, LabelError, NonFiniteError.
        """
        epsilon = torch.finfo(features.dtype).eps if features.dtype.is_floating_point else 0.0
        rows, labels = checks.as_rows(features, labels, class_dim=class_dim, ignore_index=ignore_index)
        checks.require_labels(labels, num_classes)
        checks.require_finite(rows.detach())
        home = float64_device(rows.device)
        rows, labels = rows.to(home, torch.float64), labels.to(home)
        dim = rows.shape[1]
        counts = torch.bincount(labels, minlength=num_classes)
        origin = rows[:1].detach() if len(rows) else rows.new_zeros(1, dim)  # far origins would cost digits
        shifted = rows - origin
        sums = shifted.new_zeros(num_classes, dim).index_add(0, labels, shifted)
        offsets = sums / counts[:, None]
        deviations = shifted - offsets[labels]
        spread = deviations.new_zeros(num_classes).index_add(0, labels, deviations.square().sum(1))
        within = class_within = None
        if per_class:
            members = [deviations[labels == k] for k in range(num_classes)]
            class_within = torch.stack([member.mT @ member for member in members])
        if covariance:
            within = deviations.mT @ deviations
        value = cls(counts, origin + offsets, spread, within, class_within)
        return value.rounded(epsilon)

    def rounded(self, epsilon: float) -> ClassStatistics:
        """The same value, known to come from features stored with a machine epsilon."""
        size = float((self.mean_square / self.num_features).sqrt())
        return replace(self, rounding=size * rounding_of(epsilon, self.num_features) if size > 0 else 0.0)

    @classmethod
    def empty(
        cls,
        num_classes: int,
        num_features: int,
        *,
        covariance: bool = True,
        per_class: bool = False,
        device: torch.device | str | None = None,
    ) -> ClassStatistics:
        """The statistics of no samples: the identity of `merge`."""

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=float64_device(device))

        return cls(
            zeros(num_classes).long(),
            zeros(num_classes, num_features) * float("nan"),
            zeros(num_classes),
            zeros(num_features, num_features) if covariance else None,
            zeros(num_classes, num_features, num_features) if per_class else None,
        )

    # ------------------------------------------------------------------ reading it

    @property
    def num_classes(self) -> int:
        """K, the number of rows, empty classes included."""
        return self.means.shape[0]

    @property
    def num_features(self) -> int:
        """D, the dimension of the features."""
        return self.means.shape[1]

    @property
    def num_samples(self) -> Tensor:
        """0-d int64, samples over all classes."""
        return self.counts.sum()

    @cached_property
    def present(self) -> Tensor:
        """(K,) bool, which classes have samples."""
        return self.counts > 0

    @property
    def variances(self) -> Tensor:
        """(K,), mean squared distance to the class mean, E|x - mean|^2 (ddof 0); NaN for empty classes."""
        return self.spread / self.counts

    @property
    def mean_square(self) -> Tensor:
        """0-d, mean squared length of the samples, without a graph; NaN without samples."""
        known = torch.where(self.present[:, None], self.means.detach(), 0.0).square().sum(1)
        return (self.counts * known + self.spread.detach()).sum() / self.num_samples

    def coverage(self, thresholds: Sequence[int] = (1, 2, 10, 50)) -> dict[int, int]:
        """How many classes have at least so many samples: {threshold: classes}."""
        return {threshold: int((self.counts >= threshold).sum()) for threshold in thresholds}

    def class_weights(self, by: Weighting) -> Tensor:
        """(K,) weights that sum to one: equal over the present classes, or proportional to the counts.

        Raises: WeightingError for other weightings.
        """
        if by not in ("class", "sample"):
            raise WeightingError(f'classes are weighted by "class" or by "sample"; got {by!r}.')
        mass = self.present if by == "class" else self.counts
        return mass.to(torch.float64) / mass.sum()

    def global_mean(self, by: Weighting = "class") -> Tensor:
        """(D,), the mean of the class means (`by="class"`) or of all samples (`by="sample"`)."""
        weights = self.class_weights(by)[self.present]
        return weights @ self.means[self.present]

    def within_covariance(self, by: Weighting = "sample") -> Tensor:
        """(D, D), covariance about the class means, pooled over samples or averaged over classes.

        Raises ScatterError where the scatter it needs was not kept.
        """
        if by == "sample":
            return self.require_within("the within-class covariance") / self.num_samples
        scatter = self.require_class_within("the class-balanced within-class covariance")
        weights = self.class_weights("class") / self.counts
        return torch.einsum("k,kij->ij", weights[self.present], scatter[self.present])

    def between_covariance(self, by: Weighting = "class", centre: Weighting | None = None) -> Tensor:
        """(D, D), covariance of the class means about the global mean; `centre` (default `by`) picks that mean."""
        centred = self.centred_means(centre or by)
        weights = self.class_weights(by)[self.present]
        return centred.mT @ (weights[:, None] * centred)

    def total_covariance(self, by: Weighting = "sample") -> Tensor:
        """(D, D), within plus between under one weighting: with "sample", the covariance of all samples."""
        return self.within_covariance(by) + self.between_covariance(by)

    def centred_means(self, by: Weighting = "class") -> Tensor:
        """(K present, D), means of the classes that have samples, minus the global mean."""
        # About one class mean first: with means far from the origin the global mean itself is inexact.
        means = self.means if self._number_present == self.num_classes else self.means[self.present]
        near = means - means[:1].detach()
        return near - (near.mean(0) if by == "class" else self.class_weights(by)[self.present] @ near)

    def require_within(self, what: str) -> Tensor:
        """The pooled scatter (D, D), or ScatterError saying how to keep it."""
        if self.within is not None:
            return self.within
        if self.class_within is not None:
            return self.class_within.sum(0)
        raise ScatterError(
            f"{what} needs the within-class scatter, which these statistics lack. Accumulate with "
            "covariance=True, or, for a subset of the classes, with per_class=True."
        )

    def require_class_within(self, what: str) -> Tensor:
        """The scatter of each class (K, D, D), or ScatterError saying how to keep it."""
        if self.class_within is None:
            raise ScatterError(
                f"{what} needs the scatter of each class, which these statistics lack. Accumulate with per_class=True."
            )
        return self.class_within

    # ------------------------------------------------------------------ new values from it

    def populated(self) -> ClassStatistics:
        """Only the classes with samples; raises EmptyClassError where there are fewer than two."""
        number = self._number_present
        if number < 2:
            raise EmptyClassError(
                f"at least two classes must have samples; {number} of {self.num_classes} "
                f"{'has' if number == 1 else 'have'}."
            )
        return self if number == self.num_classes else self.select(self._ids[self.present])

    def select(
        self,
        classes: Tensor | Sequence[int] | None = None,
        *,
        min_count: int | None = None,
        max_count: int | None = None,
    ) -> ClassStatistics:
        """The statistics of some classes, by label and by number of samples (bounds included).

        The pooled scatter serves a subset only if all classes with samples are in it; otherwise it is summed from
        the per-class scatter, or None without that.

        Raises: LabelError for a class that is not there.
        """
        rows = all_rows = torch.arange(self.num_classes, device=self.counts.device)
        if classes is not None:
            wanted = torch.as_tensor(classes, device=self.counts.device).reshape(-1)
            if wanted.numel() and (wanted.dtype.is_floating_point or wanted.dtype is torch.bool):
                raise DtypeError(f"classes must be chosen by integer labels; got {wanted.dtype}.")
            wanted = wanted.to(torch.int64)
            position = torch.full((int(self.num_labels or 0),), -1, device=self.counts.device)
            position[self._ids] = all_rows
            checks.require_labels(wanted, len(position))
            rows = position[wanted]
            if (rows < 0).any():
                missing = wanted[rows < 0]
                raise LabelError(f"class {int(missing[0])} was left out by an earlier selection.")
        if min_count is not None:
            rows = rows[self.counts[rows] >= min_count]
        if max_count is not None:
            rows = rows[self.counts[rows] <= max_count]
        if torch.equal(rows, all_rows):
            return self
        chosen = torch.bincount(rows, minlength=self.num_classes)
        complete = bool(((chosen == 1) | (self.counts == 0)).all())
        return replace(
            self,
            counts=self.counts[rows],
            means=self.means[rows],
            spread=self.spread[rows],
            within=self.within if complete else None,
            class_within=None if self.class_within is None else self.class_within[rows],
            class_ids=self._ids[rows],
        )

    def merge(self, other: ClassStatistics) -> ClassStatistics:
        """The statistics of both sets of samples together; exact, in any order and grouping.

        Raises: MergeError if the two describe different classes, features or kinds of scatter.
        """
        self._require_same_kind(other)
        return self._combine(other, 1)

    @classmethod
    def merge_all(cls, values: Sequence[ClassStatistics]) -> ClassStatistics:
        """The statistics of several sets of samples together: `merge` of at least one, in one step.

        Raises: MergeError as `merge`.
        """
        first, *others = values
        for other in values:
            first._require_same_kind(other)
        if not others:
            return first
        each = torch.stack([value.counts for value in values])
        counts, here = each.sum(0), (each > 0)[:, :, None]
        exact = each.to(torch.float64)[:, :, None]
        shares, roots = exact / counts[:, None], exact.sqrt()
        together = max(1, _GAP_ROWS // max(1, first.num_classes))
        parts = [slice(start, start + together) for start in range(0, len(values), together)]
        means = torch.zeros_like(first.means)
        for part in parts:
            stacked = torch.stack([value.means for value in values[part]])
            means = means + torch.where(here[part], stacked * shares[part], 0.0).sum(0)
        spread = torch.stack([value.spread for value in values]).sum(0)
        within, class_within = (None if kept is None else kept.clone() for kept in (first.within, first.class_within))
        for value in others:
            within = None if within is None or value.within is None else within.add_(value.within)
            if class_within is not None and value.class_within is not None:
                class_within.add_(value.class_within)
        for part in parts:
            stacked = torch.stack([value.means for value in values[part]])
            gaps = roots[part] * torch.where(here[part], stacked - means, 0.0)
            spread = spread + gaps.square().sum((0, 2))
            flat = gaps.flatten(0, 1)
            within = None if within is None else within.addmm_(flat.mT, flat)
            if class_within is not None:
                class_within.add_(torch.einsum("pki,pkj->kij", gaps, gaps))
        return replace(
            first,
            counts=counts,
            means=torch.where(counts[:, None] > 0, means, float("nan")),
            spread=spread,
            within=within,
            class_within=class_within,
            rounding=max(value.rounding for value in values),
        )

    def all_reduce(self, group: ProcessGroup | None = None) -> ClassStatistics:
        """The statistics of the samples of all processes together, bit for bit the same in each of them; no graph.

        A collective call of `torch.distributed`: every process of the group (default: all) must make it. Beside its
        result it needs next to no memory. Alone, or where nothing was initialised, a process gets `self` back.

        Raises: MergeError, in every process, if the values describe different classes, features or kinds of scatter,
        or are about given centres; DistributedError if another process died or didn't call within the group's timeout.
        """
        if self.recentred:
            withdraw("class statistics", MergeError(_RECENTRED), group)
        return reduce_statistics(self, group)

    def subtract(self, other: ClassStatistics) -> ClassStatistics:
        """What is left when the samples of `other`, all of which are in `self`, are taken away.

        Raises: MergeError also if `other` has more samples of a class than `self`.
        """
        self._require_same_kind(other)
        short = other.counts > self.counts
        if short.any():
            row = int(short.nonzero()[0])
            raise MergeError(
                f"can't take {int(other.counts[row])} samples of class {int(self._ids[row])} away "
                f"from {int(self.counts[row])}."
            )
        return self._combine(other, -1)

    def about(self, centres: Tensor) -> ClassStatistics:
        """The same samples seen from other centres: means become `centres`, spread and scatter are about them.

        With the training means as centres of test statistics, variability metrics measure whether test features
        collapse to the *training* means (strong test collapse, Hui et al. 2022). The result can't be merged.

        Args:
            centres: (K, D) or (D,).
        """
        centres = centres.to(self.means).expand_as(self.means)
        shift = torch.where(self.present[:, None], self.means - centres, 0.0)
        weighted = self.counts[:, None] * shift
        within, class_within = self.within, self.class_within
        return replace(
            self,
            means=torch.where(self.present[:, None], centres, float("nan")),
            spread=self.spread + (weighted * shift).sum(1),
            within=None if within is None else within + weighted.mT @ shift,
            class_within=None if class_within is None else class_within + weighted[:, :, None] * shift[:, None, :],
            recentred=True,
        )

    def to(self, device: torch.device | str) -> ClassStatistics:
        """The same value on another device (on the CPU where that device lacks float64)."""
        home = float64_device(device)
        return self._map(lambda tensor: tensor.to(home))

    def detach(self) -> ClassStatistics:
        """The same value without its autograd graph."""
        return self._map(Tensor.detach)

    # ------------------------------------------------------------------ files

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the value to a safetensors file."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self._tensors().items()}
        metadata = {
            "format": _FORMAT,
            "num_labels": str(self.num_labels),
            "recentred": str(int(self.recentred)),
            "rounding": repr(self.rounding),
        }
        save_file(tensors, os.fspath(path), metadata=metadata)

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: torch.device | str = "cpu") -> ClassStatistics:
        """Read a value that `save` wrote. Raises StateError for any other file."""
        try:
            with safe_open(os.fspath(path), framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
        except SafetensorError as error:
            raise StateError(f"{os.fspath(path)} is not a safetensors file: {error}") from None
        if metadata.get("format") != _FORMAT:
            raise StateError(f"{os.fspath(path)} holds no class statistics (format {metadata.get('format')!r}).")
        value = cls(
            **tensors,
            num_labels=int(metadata["num_labels"]),
            recentred=bool(int(metadata["recentred"])),
            rounding=float(metadata.get("rounding", 0.0)),
        )
        return value.to(device)

    # ------------------------------------------------------------------ inside

    @cached_property
    def _number_present(self) -> int:
        return int(self.present.sum())

    @property
    def _ids(self) -> Tensor:
        assert self.class_ids is not None  # __post_init__ filled it
        return self.class_ids

    def _map(self, function: Callable[[Tensor], Tensor]) -> ClassStatistics:
        changed: dict[str, Any] = {name: function(tensor) for name, tensor in self._tensors().items()}
        return replace(self, **changed)

    def _tensors(self) -> dict[str, Tensor]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def _require_same_kind(self, other: ClassStatistics) -> None:
        if self.recentred or other.recentred:
            raise MergeError(_RECENTRED)
        if self.means.shape != other.means.shape or not torch.equal(self._ids, other._ids):
            raise MergeError(
                f"the two statistics describe different classes or features: shapes {tuple(self.means.shape)} "
                f"and {tuple(other.means.shape)}."
            )
        for name in ("within", "class_within"):
            if (getattr(self, name) is None) != (getattr(other, name) is None):
                raise MergeError(f"one of the two statistics has {name}, the other hasn't.")

    def _combine(self, other: ClassStatistics, sign: Literal[1, -1]) -> ClassStatistics:
        """Chan's pairwise update about common means, and with sign -1 its inverse."""
        counts = self.counts + sign * other.counts
        both = (self.counts > 0) & (other.counts > 0)
        gap = torch.where(both[:, None], other.means - self.means, 0.0)
        share = torch.where(counts > 0, sign * other.counts.to(torch.float64) / counts, 0.0)
        means = torch.where(self.present[:, None], self.means + share[:, None] * gap, other.means)
        means = torch.where(counts[:, None] > 0, means, float("nan"))
        weighted = (share * self.counts)[:, None] * gap
        alone = counts <= 1  # one sample has no spread, whatever rounding says
        spread = self.spread + sign * other.spread + (weighted * gap).sum(1)
        class_within = None
        if self.class_within is not None and other.class_within is not None:
            class_within = self.class_within + sign * other.class_within
            class_within = class_within + weighted[:, :, None] * gap[:, None, :]
            class_within = torch.where(alone[:, None, None], 0.0, class_within)
        within = None
        if self.within is not None and other.within is not None:
            within = self.within + sign * other.within + weighted.mT @ gap
        return replace(
            self,
            counts=counts,
            means=means,
            spread=torch.where(alone, 0.0, spread),
            within=within,
            class_within=class_within,
            rounding=max(self.rounding, other.rounding),
        )
