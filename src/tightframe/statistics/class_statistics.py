"""`ClassStatistics`: the moments of a labelled data set as one frozen, mergeable value."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
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
from tightframe.memory import require_memory
from tightframe.numerics import EPS, first_of_coincident, float64_device, norms, rounding_of
from tightframe.processes import all_reduce, require_same, withdraw, world_size
from tightframe.reading import failures_of, read_safetensors
from tightframe.sharing import once
from tightframe.statistics.scatter import Scatter, common_means
from tightframe.writing import write_tensors

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

Weighting = Literal["class", "sample"]
"""Weighting of classes in a mean: equal ("class"), or by number of samples ("sample")."""

_FORMAT = "tightframe.ClassStatistics/2"
_DENSE_FORMAT = "tightframe.ClassStatistics/1"  # rows also for classes without samples; one rounding for all
_PER_CLASS = frozenset({"counts", "means", "spread", "class_within", "rounding"})
_RECENTRED = "statistics about given centres can't be merged; merge first, then call about()."


@dataclass(frozen=True, eq=False, repr=False)
class ClassStatistics:
    """Counts, means and scatter of K classes of D-dimensional features, in float64.

    `merge` is exact and associative up to rounding, `empty` is its identity and `subtract` its inverse.
    Classes without samples have NaN means; metrics ignore them.

    Attributes:
        counts: (K,) int64, number of samples per class.
        means: (K, D), class means; NaN for classes without samples.
        spread: (K,), sum of squared distances to the class mean.
        within: (D, D), sum over all samples of (x - mean)(x - mean)^T, or None if not kept.
        class_within: (K, D, D), the same sum per class, or None if not kept.
        class_ids: (K,) int64, label of each row; 0..K-1 unless the value comes from `select`.
        num_labels: number of labels of the original data.
        recentred: whether spread and scatter are about given centres (`about`) instead of the class means.
        rounding: (K,), largest displacement of a sample by rounding along any direction, in feature units
            (`numerics.rounding_of` times the features' size); 0 for exact features. Class means that differ by less
            coincide.
        product_epsilon: machine epsilon of the products summed in `within`, 0 for exact products. Parts of the scatter
            below this share of its largest entries are not resolved.

    >>> import torch
    >>> from tightframe import ClassStatistics
    >>> features, labels = torch.tensor([[0.0], [2.0], [10.0]]), torch.tensor([0, 0, 1])
    >>> statistics = ClassStatistics.from_features(features, labels, 2)
    >>> statistics.counts.tolist(), statistics.means.tolist(), statistics.spread.tolist()
    ([2, 1], [[1.0], [10.0]], [2.0, 0.0])
    >>> both = statistics.merge(ClassStatistics.from_features(torch.tensor([[4.0]]), torch.tensor([1]), 2))
    >>> both.means.tolist()  # class 1: 10 and 4
    [[1.0], [7.0]]
    """

    counts: Tensor
    means: Tensor
    spread: Tensor
    within: Tensor | None = None
    class_within: Tensor | None = None
    class_ids: Tensor = None  # type: ignore[assignment]  # __post_init__ fills these three
    num_labels: int = None  # type: ignore[assignment]
    recentred: bool = False
    rounding: Tensor = None  # type: ignore[assignment]
    product_epsilon: float = 0.0

    def __repr__(self) -> str:
        size = f"{int(self.counts.sum()):,} samples, {self.num_classes:,} classes, {self.num_features:,} dimensions"
        parts = ["scatter"] if self.within is not None else []
        parts += ["scatter per class"] if self.class_within is not None else []
        return f"ClassStatistics({', '.join([size, *parts])})"

    def __post_init__(self) -> None:
        if self.class_ids is None:
            object.__setattr__(self, "class_ids", torch.arange(len(self.counts), device=self.counts.device))
        if self.num_labels is None:
            object.__setattr__(self, "num_labels", len(self.counts))
        if self.rounding is None:
            object.__setattr__(self, "rounding", torch.zeros_like(self.counts, dtype=torch.float64))
        classes, dim = self.means.shape if self.means.ndim == 2 else (-1, -1)
        expected = {
            "counts": (classes,),
            "means": (classes, dim),
            "spread": (classes,),
            "within": (dim, dim),
            "class_within": (classes, dim, dim),
            "class_ids": (classes,),
            "rounding": (classes,),
        }
        for name, shape in expected.items():
            tensor = getattr(self, name)
            if tensor is not None and tuple(tensor.shape) != shape:
                raise ShapeError(f"{name} must have shape {shape}; got {tuple(tensor.shape)}.")

    # ------------------------------------------------------------------ construction

    @classmethod
    def from_features(
        cls,
        features: checks.Array,
        labels: checks.Array,
        num_classes: int,
        *,
        covariance: bool = True,
        per_class: bool = False,
        class_dim: int = -1,
        ignore_index: int | None = None,
    ) -> ClassStatistics:
        """Statistics of features in memory, in two float64 passes; keeps the autograd graph.

        Args:
            features: (..., D), or D at `class_dim` (1 for (N, D, H, W)), any float dtype, a tensor or numpy array.
            labels: shape of the features without `class_dim`, any integer dtype, in [0, num_classes).
            covariance: keep the pooled (D, D) scatter; without it, memory is O(K D).
            per_class: also keep a (D, D) scatter per class.
            ignore_index: label whose rows are dropped.

        Raises: DtypeError, ShapeError, EmptyBatchError, LabelError, NonFiniteError.
        """
        features, labels = checks.as_tensor(features, "features"), checks.as_tensor(labels, "labels")
        epsilon = torch.finfo(features.dtype).eps if features.dtype.is_floating_point else 0.0
        rows, labels = checks.as_rows(features, labels, class_dim=class_dim, ignore_index=ignore_index)
        checks.require_labels(labels, num_classes)
        checks.require_finite(rows.detach())
        sizes = f"a value of {num_classes:,} classes and {rows.shape[1]:,} features"
        squares = num_classes * per_class + covariance
        require_memory(8 * rows.shape[1] * (3 * num_classes + rows.shape[1] * squares), sizes, rows.device)
        home = float64_device(rows.device)
        rows, labels = rows.to(home, torch.float64), labels.to(home)
        counts = torch.bincount(labels, minlength=num_classes)
        centres = class_means(rows.detach(), labels, counts)
        deviations = rows - centres[labels]
        gaps = deviations.new_zeros(centres.shape).index_add(0, labels, deviations) / counts[:, None]
        sums = Scatter(deviations.new_zeros(num_classes).index_add(0, labels, deviations.square().sum(1)))
        if per_class:
            members = [deviations[labels == k] for k in range(num_classes)]
            sums.class_within = torch.stack([member.mT @ member for member in members])
        if covariance:
            sums.within = deviations.mT @ deviations
        sums.recentre(counts[None], [gaps], sign=-1)
        return cls.about_means(counts, centres + gaps, sums, product_epsilon=EPS).rounded(epsilon)

    @classmethod
    def about_means(cls, counts: Tensor, means: Tensor, sums: Scatter, **fields: Any) -> ClassStatistics:
        """Statistics from counts (K,), means (K, D) and sums about the means, which are overwritten; other `fields`."""
        sums.settle(counts)
        absent = counts[:, None] == 0
        means = means.masked_fill(absent, torch.nan) if means.requires_grad else means.masked_fill_(absent, torch.nan)
        return cls(counts, means, sums.spread, sums.within, sums.class_within, **fields)

    def rounded(self, epsilon: float) -> ClassStatistics:
        """The same value with the `rounding` of features stored with machine epsilon `epsilon`."""
        squares = self._mean_squares / self.num_features
        computed = max(epsilon, 4 * EPS)  # sums over many samples round too
        return replace(self, rounding=squares.sqrt() * rounding_of(computed, self.num_features))

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

    # ------------------------------------------------------------------ properties

    @property
    def num_classes(self) -> int:
        """K, the number of rows, including classes without samples."""
        return self.means.shape[0]

    @property
    def num_features(self) -> int:
        """D, the dimension of the features."""
        return self.means.shape[1]

    @property
    def num_samples(self) -> Tensor:
        """0-d int64, number of samples of all classes."""
        return self.counts.sum()

    @cached_property
    def present(self) -> Tensor:
        """(K,) bool, whether each class has samples."""
        return self.counts > 0

    @property
    def variances(self) -> Tensor:
        """(K,), mean squared distance to the class mean, E|x - mean|^2 (ddof 0); NaN for classes without samples."""
        return self.spread / self.counts

    @property
    def mean_square(self) -> Tensor:
        """0-d, mean squared length of the samples, without a graph; NaN without samples."""
        return (self.counts * self._mean_squares).sum() / self.num_samples

    def coverage(self, thresholds: Sequence[int] = (1, 2, 10, 50)) -> dict[int, int]:
        """Number of classes with at least `threshold` samples: {threshold: number}.

        >>> import torch
        >>> from tightframe import ClassStatistics
        >>> ClassStatistics.from_features(torch.zeros(4, 1), torch.tensor([0, 0, 0, 1]), 3).coverage((1, 2))
        {1: 2, 2: 1}
        """
        return {threshold: int((self.counts >= threshold).sum()) for threshold in thresholds}

    def class_weights(self, by: Weighting) -> Tensor:
        """(K,) weights with sum 1: equal for classes with samples, or proportional to the counts.

        Raises: WeightingError for unknown weightings.
        """
        if by not in ("class", "sample"):
            raise WeightingError(f'the weighting must be "class" or "sample"; got {by!r}.')
        mass = self.present if by == "class" else self.counts
        return mass.to(torch.float64) / mass.sum()

    def global_mean(self, by: Weighting = "class") -> Tensor:
        """(D,), the mean of the class means (`by="class"`) or of all samples (`by="sample"`)."""
        weights = self.class_weights(by)[self.present]
        return weights @ self.means[self.present]

    def within_covariance(self, by: Weighting = "sample") -> Tensor:
        """(D, D), covariance about the class means, pooled over samples or averaged over classes.

        Raises: ScatterError if the scatter was not kept.
        """
        if by == "sample":
            return self.require_within("the within-class covariance") / self.num_samples
        scatter = self.require_class_within("the class-balanced within-class covariance")
        weights = self.class_weights("class") / self.counts
        return torch.einsum("k,kij->ij", weights[self.present], scatter[self.present])

    def between_covariance(self, by: Weighting = "sample", centre: Weighting | None = None) -> Tensor:
        """(D, D), covariance of the class means about the global mean; `centre` (default: `by`) selects that mean."""
        centred = self.centred_means(centre or by)
        weights = self.class_weights(by)[self.present]
        return centred.mT @ (weights[:, None] * centred)

    def total_covariance(self, by: Weighting = "sample") -> Tensor:
        """(D, D), within- plus between-class covariance; with "sample" the covariance of all samples."""
        return self.within_covariance(by) + self.between_covariance(by)

    def centred_means(self, by: Weighting = "class") -> Tensor:
        """(K present, D), class means minus the global mean; 0 below the rounding of the features."""
        return once(self, f"centred by {by}", lambda: self._centred_means(by), self.means)

    def _centred_means(self, by: Weighting) -> Tensor:
        # relative to one class mean first, because the global mean is inexact far from the origin
        means = self.means if self._number_present == self.num_classes else self.means[self.present]
        near = means - means[:1].detach()
        centred = near - (near.mean(0) if by == "class" else self.class_weights(by)[self.present] @ near)
        nothing = norms(centred.detach()) <= self.rounding[self.present] / 2  # half of a distance between two means
        return torch.where(nothing[:, None], 0.0, centred) if nothing.any() else centred

    def coincident(self, times: float = 1.0) -> list[list[int]]:
        """Sets of labels whose class means are within `times` their rounding; empty without coincident means.

        Each class of a set is that near to another class of the set.
        """
        rows = self.present.nonzero().flatten()
        first = first_of_coincident(self.means.detach()[rows], times * self.rounding[rows])
        sets: dict[int, list[int]] = {}
        for label, one in zip(self.class_ids[rows].tolist(), first.tolist(), strict=True):
            sets.setdefault(one, []).append(label)
        return sorted(sorted(labels) for labels in sets.values() if len(labels) > 1)

    def require_within(self, what: str) -> Tensor:
        """The pooled scatter (D, D). Raises: ScatterError naming the option that keeps it."""
        if self.within is not None:
            return self.within
        if self.class_within is not None:
            return self.class_within.sum(0)
        raise ScatterError(
            f"{what} needs the within-class scatter, but these statistics have none. Accumulate with covariance=True; "
            "for a subset of the classes, with per_class=True."
        )

    def require_class_within(self, what: str) -> Tensor:
        """The scatter per class (K, D, D). Raises: ScatterError naming the option that keeps it."""
        if self.class_within is None:
            raise ScatterError(
                f"{what} needs the scatter per class, but these statistics have none. Accumulate with per_class=True."
            )
        return self.class_within

    # ------------------------------------------------------------------ derived values

    def populated(self) -> ClassStatistics:
        """The statistics of the classes with samples. Raises: EmptyClassError for fewer than two."""
        number = self._number_present
        if number < 2:
            raise EmptyClassError(
                f"at least two classes must have samples; {number} of {self.num_classes} "
                f"{'has' if number == 1 else 'have'}."
            )
        if number == self.num_classes:
            return self
        return once(self, "populated", lambda: self.select(self.class_ids[self.present]), *self._tensors().values())

    def with_at_least(self, min_count: int) -> ClassStatistics:
        """The statistics of the classes with at least `min_count` samples.

        Raises: EmptyClassError for fewer than two; the message gives the size of the largest class.
        """
        number = int((self.counts >= min_count).sum())
        if number < 2:
            most = int(self.counts.max()) if len(self.counts) else 0
            raise EmptyClassError(
                f"at least two classes must have min_count={min_count} samples; {number} of {self.num_classes} "
                f"{'has' if number == 1 else 'have'}, and the largest class has {most}."
            )
        return self.select(min_count=min_count)

    def select(
        self,
        classes: Tensor | Sequence[int] | None = None,
        *,
        min_count: int | None = None,
        max_count: int | None = None,
    ) -> ClassStatistics:
        """The statistics of a subset of the classes, by label and by number of samples (inclusive bounds).

        The pooled scatter is kept only if the subset contains all classes with samples; otherwise it is summed from the
        scatter per class, or None without it.

        Args:
            classes: (S,) labels, in the order of the result's rows. Default: all.

        Raises: LabelError for a class that is not in the statistics; DtypeError for labels that are not integers.

        >>> import torch
        >>> from tightframe import ClassStatistics
        >>> features, labels = torch.tensor([[0.0], [2.0], [10.0]]), torch.tensor([0, 0, 2])
        >>> statistics = ClassStatistics.from_features(features, labels, 3)
        >>> statistics.select(min_count=1).class_ids.tolist(), statistics.select([2]).means.tolist()
        ([0, 2], [[10.0]])
        """
        rows = all_rows = torch.arange(self.num_classes, device=self.counts.device)
        if classes is not None:
            subset = torch.as_tensor(classes, device=self.counts.device).reshape(-1)
            if subset.numel() and (subset.dtype.is_floating_point or subset.dtype is torch.bool):
                raise DtypeError(f"classes must be integer labels; got {subset.dtype}.")
            subset = subset.to(torch.int64)
            position = torch.full((self.num_labels,), -1, device=self.counts.device)
            position[self.class_ids] = all_rows
            checks.require_labels(subset, len(position))
            rows = position[subset]
            if (rows < 0).any():
                missing = subset[rows < 0]
                raise LabelError(f"class {int(missing[0])} is not in these statistics; an earlier select() removed it.")
        if min_count is not None:
            rows = rows[self.counts[rows] >= min_count]
        if max_count is not None:
            rows = rows[self.counts[rows] <= max_count]
        if torch.equal(rows, all_rows):
            return self
        times = torch.bincount(rows, minlength=self.num_classes)
        complete = bool(((times == 1) | (self.counts == 0)).all())
        return replace(
            self,
            counts=self.counts[rows],
            means=self.means[rows],
            spread=self.spread[rows],
            within=self.within if complete else None,
            class_within=None if self.class_within is None else self.class_within[rows],
            class_ids=self.class_ids[rows],
            rounding=self.rounding[rows],
        )

    def merge(self, other: ClassStatistics) -> ClassStatistics:
        """The statistics of both sets of samples together; exact, in any order and grouping.

        Raises: MergeError if classes, features or scatter differ.
        """
        return self.merge_all([self, other])

    @classmethod
    def merge_all(
        cls, values: Sequence[ClassStatistics], offsets: tuple[Tensor, Sequence[Tensor]] | None = None
    ) -> ClassStatistics:
        """The statistics of several sets of samples together, at least one, in one step.

        Args:
            offsets: an origin (K, D) and the means of each value minus the origin, if known. They give the differences
                of means more exactly, because means far from zero are rounded.

        Raises: as `merge`.
        """
        first, *others = values
        for other in values:
            first._require_same_kind(other)
        if not others:
            return first
        counts = torch.stack([value.counts for value in values])
        origin, parts = (0.0, [value.means for value in values]) if offsets is None else offsets
        means = common_means(counts, parts)
        sums = first._scatter.map(Tensor.clone)
        for other in others:
            sums.add(other._scatter)
        sums.recentre(counts, parts, means)
        squares = (counts * torch.stack([value.rounding for value in values]).square()).sum(0)
        return first._of(counts.sum(0), means + origin, sums, squares, max(value.product_epsilon for value in values))

    def all_reduce(self, group: ProcessGroup | None = None) -> ClassStatistics:
        """The statistics of the samples of all processes, bit for bit equal in all processes; no graph.

        A collective call of `torch.distributed`: every process of the group (default: all) must make it. Needs little
        memory in addition to the result. Returns `self` for a single process.

        Raises: MergeError, in every process, if classes, features or scatter differ, or the statistics are about given
        centres; DistributedError if another process died or did not make the call within the group's timeout.
        """
        if self.recentred:
            withdraw("class statistics", MergeError(_RECENTRED), group)
        if world_size(group) == 1:
            return self
        require_same("class statistics", self._kind(), group)
        with torch.no_grad():
            counts = all_reduce(self.counts.clone(), "the classes' counts", group)
            means = (self.means * (self.counts.to(torch.float64) / counts)[:, None]).contiguous()
            means = all_reduce(means.masked_fill_(~self.present[:, None], 0.0), "the class means", group)
            sums = self._scatter.map(lambda each: each.clone(memory_format=torch.contiguous_format))
            sums.recentre(self.counts[None], [self.means], means)
            sums = sums.map(lambda each: all_reduce(each, "the scatter", group))
            squares = all_reduce(self.counts * self.rounding.square(), "the features' rounding", group)
            epsilon = all_reduce(torch.tensor([self.product_epsilon]), "the products' precision", group, "MAX")
            return self._of(counts, means, sums, squares, epsilon.item())

    def subtract(self, other: ClassStatistics) -> ClassStatistics:
        """The statistics without the samples of `other`, all of which must be in `self`.

        Exact up to the rounding of `self`, which may exceed the result.

        Raises: as `merge`; MergeError if `other` has more samples of a class than `self`.

        >>> import torch
        >>> from tightframe import ClassStatistics
        >>> features, labels = torch.tensor([[0.0], [2.0], [7.0]]), torch.tensor([0, 0, 0])
        >>> both, part = (ClassStatistics.from_features(features[:n], labels[:n], 1) for n in (3, 2))
        >>> both.subtract(part).means.tolist()
        [[7.0]]
        """
        self._require_same_kind(other)
        short = other.counts > self.counts
        if short.any():
            row = int(short.nonzero()[0])
            raise MergeError(
                f"can't subtract {int(other.counts[row])} samples of class {int(self.class_ids[row])} from "
                f"{int(self.counts[row])} samples."
            )
        counts = self.counts - other.counts
        shares = (other.counts.to(self.means.dtype) / counts)[:, None]
        step = torch.where(other.counts[:, None] > 0, (self.means - other.means) * shares, 0.0)
        means = self.means + step
        removed, sums = other._scatter.map(Tensor.clone), self._scatter.map(Tensor.clone)
        removed.recentre(other.counts[None], [other.means], self.means)  # both about the same centres
        sums.add(removed, sign=-1)
        sums.recentre(counts[None], [means], self.means, sign=-1)
        squares = self.counts * self.rounding.square() - other.counts * other.rounding.square()
        return self._of(counts, means, sums, squares.clamp(min=0), max(self.product_epsilon, other.product_epsilon))

    def about(self, centres: Tensor) -> ClassStatistics:
        """The same samples about given centres: means become `centres`; spread and scatter are about them.

        With training means as centres of test statistics, variability metrics measure whether test features collapse to
        the *training* means (strong test collapse, Hui et al. 2022). The result can't be merged.

        Args:
            centres: (K, D) or (D,).

        >>> import torch
        >>> from tightframe import ClassStatistics
        >>> statistics = ClassStatistics.from_features(torch.tensor([[0.0], [2.0]]), torch.tensor([0, 0]), 1)
        >>> round(statistics.about(torch.tensor([3.0])).spread.item(), 6)  # 9 + 1; about the mean 1 + 1
        10.0
        """
        centres = centres.to(self.means).expand_as(self.means)
        sums = self._scatter.map(Tensor.clone)
        sums.recentre(self.counts[None], [self.means], centres)
        means = torch.where(self.present[:, None], centres, torch.nan)
        return replace(
            self, means=means, spread=sums.spread, within=sums.within, class_within=sums.class_within, recentred=True
        )

    def to(self, device: torch.device | str) -> ClassStatistics:
        """The same value on another device (on the CPU if that device has no float64)."""
        home = float64_device(device)
        return self._map(lambda tensor: tensor.to(home))

    def detach(self) -> ClassStatistics:
        """The same value without its autograd graph."""
        return self._map(Tensor.detach)

    # ------------------------------------------------------------------ files

    def save(self, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
        """Write the value to a safetensors file; a class without samples takes a few bytes, for any D.

        `metadata` is stored beside it in the file's header.
        """
        rows = self.present.nonzero().flatten()
        tensors = {name: tensor[rows] if name in _PER_CLASS else tensor for name, tensor in self._tensors().items()}
        metadata = {
            **(metadata or {}),
            "format": _FORMAT,
            "num_labels": str(self.num_labels),
            "recentred": str(int(self.recentred)),
            "product_epsilon": repr(self.product_epsilon),
        }
        write_tensors(path, {**tensors, "rows": rows}, metadata)

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: torch.device | str = "cpu") -> ClassStatistics:
        """Read a file of `save`. Raises: StateError for other files."""
        path = Path(path)
        tensors, metadata = read_safetensors(path)
        if metadata.get("format") not in (_FORMAT, _DENSE_FORMAT):
            raise StateError(f"{path} must be a file of ClassStatistics.save(); got format {metadata.get('format')!r}.")
        with failures_of(path, "as class statistics"):
            return cls._of_file(dict(tensors), metadata).to(device)

    @classmethod
    def _of_file(cls, tensors: dict[str, Tensor], metadata: Mapping[str, str]) -> ClassStatistics:
        """The value from a file's arrays and metadata. Raises: any error for invalid content."""
        if metadata["format"] == _DENSE_FORMAT:
            tensors["rounding"] = torch.full_like(tensors["spread"], float(metadata.get("rounding", 0.0)))
        else:
            rows, classes = tensors.pop("rows"), len(tensors["class_ids"])
            features = tensors["means"].shape[1]
            require_memory(8 * classes * features, f"a value of {classes:,} classes and {features:,} features")
            for name in _PER_CLASS & tensors.keys():
                some = tensors[name]
                every = some.new_full((classes, *some.shape[1:]), torch.nan if name == "means" else 0)
                tensors[name] = every.index_copy_(0, rows, some)
        for name, tensor in tensors.items():
            expected = torch.int64 if name in ("counts", "class_ids") else torch.float64
            if tensor.dtype is not expected:
                raise ValueError(f"the array {name!r} must be {expected}; it is {tensor.dtype}")
        num_labels, ids, counts = int(metadata["num_labels"]), tensors["class_ids"], tensors["counts"]
        if not bool(((ids >= 0) & (ids < num_labels)).all()) or bool((counts < 0).any()):
            raise ValueError(f"class_ids must lie in [0, {num_labels}) and counts must not be negative")
        return cls(
            **tensors,
            num_labels=num_labels,
            recentred=bool(int(metadata["recentred"])),
            product_epsilon=float(metadata.get("product_epsilon", 0.0)),
        )

    # ------------------------------------------------------------------ private

    @cached_property
    def _number_present(self) -> int:
        return int(self.present.sum())

    def _map(self, function: Callable[[Tensor], Tensor]) -> ClassStatistics:
        changed: dict[str, Any] = {name: function(tensor) for name, tensor in self._tensors().items()}
        return replace(self, **changed)

    def _tensors(self) -> dict[str, Tensor]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def _require_same_kind(self, other: ClassStatistics) -> None:
        if self.recentred or other.recentred:
            raise MergeError(_RECENTRED)
        if self.means.shape != other.means.shape or not torch.equal(self.class_ids, other.class_ids):
            raise MergeError(
                f"statistics must have the same classes and features to be merged; got means of shapes "
                f"{tuple(self.means.shape)} and {tuple(other.means.shape)}."
            )
        for name in ("within", "class_within"):
            if (getattr(self, name) is None) != (getattr(other, name) is None):
                raise MergeError(f"both statistics must have {name}, or neither; only one has it.")

    def _kind(self) -> dict[str, int]:
        """Numbers that must be equal in all processes for a merge."""
        return {
            "num_classes": self.num_classes,
            "num_features": self.num_features,
            "within": int(self.within is not None),
            "class_within": int(self.class_within is not None),
            "num_labels": self.num_labels,
            "class_ids (by checksum)": zlib.crc32(self.class_ids.cpu().numpy().tobytes()),
        }

    @property
    def _scatter(self) -> Scatter:
        return Scatter(self.spread, self.within, self.class_within)

    @property
    def _mean_squares(self) -> Tensor:
        """(K,) mean squared length of the samples per class, without a graph; 0 for classes without samples."""
        squares = norms(self.means.detach()).square() + self.spread.detach() / self.counts  # no second (K, D)
        return torch.where(self.present, squares, 0.0)

    def _of(
        self, counts: Tensor, means: Tensor, sums: Scatter, squares: Tensor, product_epsilon: float
    ) -> ClassStatistics:
        """Statistics of the same classes for other samples; squares: (K,) squared rounding, summed over samples."""
        rounding = torch.where(counts > 0, squares / counts, 0.0).sqrt()
        shared = {"class_ids": self.class_ids, "num_labels": self.num_labels}
        return self.about_means(counts, means, sums, rounding=rounding, product_epsilon=product_epsilon, **shared)


def class_means(rows: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """(K, D) means of float64 rows (N, D), computed relative to one row of each class, for precision."""
    classes = len(counts)
    first = labels.new_full((classes,), len(labels)).scatter_reduce_(
        0, labels, torch.arange(len(labels), device=labels.device), "amin"
    )
    anchors = torch.zeros(classes, rows.shape[1], dtype=rows.dtype, device=rows.device)
    present = first < len(labels)
    anchors[present] = rows[first[present]]
    sums = torch.zeros_like(anchors).index_add_(0, labels, rows - anchors[labels])
    return anchors + sums / counts.clamp(min=1)[:, None]
