"""Samples of every class dealt out evenly to groups, in one pass: what a delete-a-group jackknife needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tightframe import checks
from tightframe.errors import MergeError, RangeError, StateError
from tightframe.numerics import full_precision, large_zeros
from tightframe.statistics.accumulator import StatisticsAccumulator
from tightframe.statistics.class_statistics import ClassStatistics
from tightframe.statistics.distributed import rank, require_same, withdraw, world_size

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

GROUPS = 16
"""Groups unless the caller says otherwise: the standard error then has 15 degrees of freedom."""

_DEAL_ROWS = 8192  # rows dealt out together: with 16 groups each gets 512, as many as products are fast with
_ADD_ROWS = 4096  # rows of a group added at a time, as many as an accumulator's scratch memory holds
_LEFT_OUT = -1  # the label of rows that don't count


@dataclass(frozen=True, eq=False)
class GroupedStatistics:
    """`ClassStatistics` of all samples and of each of G groups, to which the samples of every class were dealt evenly.

    Attributes:
        total: of all samples.
        parts: of each group's samples; together they are the total.

    >>> features, labels = torch.randn(60, 5), torch.arange(60) % 3
    >>> grouped = GroupedStatistics.from_features(features, labels, 3, groups=4)
    >>> grouped.total.counts.tolist(), grouped.without(0).counts.tolist()
    ([20, 20, 20], [15, 15, 15])
    """

    total: ClassStatistics
    parts: tuple[ClassStatistics, ...]

    @classmethod
    def from_features(
        cls, features: Tensor, labels: Tensor, num_classes: int, *, groups: int = GROUPS, **options: Any
    ) -> GroupedStatistics:
        """Group features held in memory; features, labels and options are those of `ClassStatistics.from_features`.

        Raises: as that, and RangeError for fewer than two groups.
        """
        _require_groups(groups)
        total = ClassStatistics.from_features(features, labels, num_classes, **options)
        rows, flat = checks.as_rows(
            features, labels, class_dim=options.pop("class_dim", -1), ignore_index=options.pop("ignore_index", None)
        )
        group = deal(flat, torch.zeros(num_classes, dtype=torch.int64, device=flat.device), groups)
        nothing = ClassStatistics.empty(num_classes, total.num_features, **options, device=rows.device)
        parts = [
            ClassStatistics.from_features(rows[group == g], flat[group == g], num_classes, **options)
            if bool((group == g).any())
            else nothing
            for g in range(groups)
        ]
        return cls(total, tuple(parts))

    @classmethod
    def from_parts(cls, parts: Sequence[ClassStatistics]) -> GroupedStatistics:
        """Groups given by their statistics. Raises: RangeError for fewer than two; MergeError if they don't fit."""
        _require_groups(len(parts))
        return cls(ClassStatistics.merge_all(parts), tuple(parts))

    @property
    def groups(self) -> int:
        """G, the number of groups."""
        return len(self.parts)

    def without(self, group: int) -> ClassStatistics:
        """The statistics of the samples of all groups but one."""
        return ClassStatistics.merge_all([part for g, part in enumerate(self.parts) if g != group % self.groups])

    @property
    def without_scatter(self) -> GroupedStatistics:
        """The same without D x D matrices, which `without` needn't merge for functions of means and spreads alone."""

        def lean(value: ClassStatistics) -> ClassStatistics:
            return replace(value, within=None, class_within=None)

        return GroupedStatistics(lean(self.total), tuple(map(lean, self.parts)))

    @property
    def undivided(self) -> Tensor:
        """Labels of classes whose samples are all in one group, as single samples are: without it they vanish."""
        counts = torch.stack([part.counts for part in self.parts])
        assert self.total.class_ids is not None
        return self.total.class_ids[(counts > 0).sum(0) == 1]

    def merge(self, other: GroupedStatistics) -> GroupedStatistics:
        """Both sets of samples together, group by group.

        Raises: MergeError for another number of groups, other classes, features or kinds of scatter.
        """
        if self.groups != other.groups:
            raise MergeError(f"can't merge {other.groups} groups into {self.groups}; use the same groups= everywhere.")
        both = [mine.merge(theirs) for mine, theirs in zip(self.parts, other.parts, strict=True)]
        return GroupedStatistics(self.total.merge(other.total), tuple(both))

    def all_reduce(self, group: ProcessGroup | None = None) -> GroupedStatistics:
        """The samples of all processes together, group by group; a collective call, as `ClassStatistics.all_reduce`.

        Raises: as that, and MergeError in every process if they have different numbers of groups.
        """
        if world_size(group) == 1:
            return self
        require_same("grouped statistics", {"groups": self.groups}, group)
        return GroupedStatistics.from_parts([part.all_reduce(group) for part in self.parts])

    def select(
        self,
        classes: Tensor | Sequence[int] | None = None,
        *,
        min_count: int | None = None,
        max_count: int | None = None,
    ) -> GroupedStatistics:
        """Some classes only, by label and by their number of samples in total, as `ClassStatistics.select`."""
        total = self.total.select(classes, min_count=min_count, max_count=max_count)
        parts = [part.select(total.class_ids) for part in self.parts]
        if total.within is None:  # though a group may happen to have no samples of the classes left out
            parts = [replace(part, within=None) for part in parts]
        return GroupedStatistics(total, tuple(parts))

    def to(self, device: torch.device | str) -> GroupedStatistics:
        """The same value on another device (on the CPU where that device lacks float64)."""
        return GroupedStatistics(self.total.to(device), tuple(part.to(device) for part in self.parts))


def deal(labels: Tensor, dealt: Tensor, groups: int) -> Tensor:
    """(N,) the group of each sample: the i-th of class k goes to group (i + k) mod G, however samples are batched.

    Starting each class at another group keeps the groups alike where classes have few samples.

    Args:
        labels: (N,) int64.
        dealt: (K,) int64, how many samples of each class went before.
        groups: G.
    """
    order = labels.argsort(stable=True)
    group = torch.empty_like(labels)
    group[order] = _groups_in_order(labels[order], dealt, groups)
    return group


def _groups_in_order(labels: Tensor, dealt: Tensor, groups: int) -> Tensor:
    """`deal` for labels in ascending order."""
    counts = torch.bincount(labels, minlength=len(dealt))
    offsets = dealt + torch.arange(len(dealt), device=labels.device) - (counts.cumsum(0) - counts)
    return (torch.arange(len(labels), device=labels.device) + offsets[labels]) % groups


def _require_groups(groups: int) -> None:
    if groups < 2:
        raise RangeError(f"a standard error needs at least two groups; got {groups}.")


class GroupedAccumulator(nn.Module):
    """Streams (features, labels) batches into `GroupedStatistics`, in one pass.

    Rows wait until some thousand are together. These are dealt out at once and each group's are added to an accumulator
    of its own as one product, so that the groups cost little time, and what comes out doesn't depend on the batches.
    Memory is G times that of `StatisticsAccumulator` (`memory`).

    The state survives `state_dict` / `load_state_dict` bit for bit.

    Args:
        num_classes: K.
        num_features: D.
        groups: G, at least two.
        options: of `StatisticsAccumulator`: covariance, per_class, class_dim, ignore_index, device.

    Raises: RangeError for fewer than two groups.

    >>> accumulator = GroupedAccumulator(3, 5, groups=4)
    >>> accumulator.update(torch.randn(60, 5), torch.arange(60) % 3)
    >>> [int(part.num_samples) for part in accumulator.compute().parts]
    [15, 15, 15, 15]
    """

    def __init__(self, num_classes: int, num_features: int, *, groups: int = GROUPS, **options: Any):
        super().__init__()
        _require_groups(groups)
        self.num_classes, self.num_features, self.groups = num_classes, num_features, groups
        self.members = nn.ModuleList(StatisticsAccumulator(num_classes, num_features, **options) for _ in range(groups))
        self.reset()

    @staticmethod
    def memory(num_classes: int, num_features: int, *, groups: int = GROUPS, covariance: bool = True) -> int:
        """About the bytes that accumulating takes, results included: G times O(K D), and O(D^2) for the scatter."""
        # each group's sums, anchors and means; the total's means, what merging needs, and the rows that wait
        moments = num_classes * (groups * (8 + 4 + 8) + 3 * 8) + 2 * _DEAL_ROWS * 4
        # each group's product, pending product and result, the total's, and those without one group
        scatter = groups * (8 + 4 + 8) + 3 * 8 if covariance else 0
        return num_features * (moments + num_features * scatter)

    def reset(self) -> None:
        """Forget every sample."""
        scratch: dict[tuple[torch.dtype, int], Tensor] = {}
        for member in self._members:
            member.reset()
            member._make_room(0)
            member._scratch = scratch
        self._first._make_room(_DEAL_ROWS)
        if self._first.covariance:
            products, pending = self._scatter(torch.float64), self._scatter(torch.float32)
            for g, member in enumerate(self._members):
                member.product, member.pending = products[g], pending[g]

    def _scatter(self, dtype: torch.dtype) -> Tensor:
        """(G, D, D) zeros, in one piece: touched first, it takes a quarter of the time that G pieces take."""
        D = self.num_features
        return large_zeros(self.groups, D, D, dtype=dtype, device=self._first._device)

    def update(self, features: Tensor, labels: Tensor, *, validate: bool | None = None) -> None:
        """Add a batch; the features are detached.

        Args:
            features: (..., D) of any float dtype, or D at `class_dim`.
            labels: the features' shape without that dimension, any integer dtype, in [0, K).
            validate: check the values before anything changes (the default on the CPU). Without it something is read
                back from the device only when rows are dealt out, once in some thousand: a batch with a bad value is
                left out as a whole and reported by the next validated `update`, `compute` or `state_dict`.

        Raises: DtypeError, ShapeError, EmptyBatchError, LabelError, NonFiniteError. The accumulator is then what
        it was before, byte for byte.
        """
        first = self._first
        if validate is None:
            validate = first._device.type == "cpu"
        rows, labels = first._admit(features, labels, validate)
        with full_precision(first._device.type):
            if not validate:
                labels = torch.where(first._judge_batch(rows, labels), labels, _LEFT_OUT)
            while len(labels):
                space = _DEAL_ROWS - first._rows_waiting
                if space == _DEAL_ROWS <= len(labels):
                    self._deal(rows[:space], labels[:space])
                else:
                    first._wait(rows[:space], labels[:space])
                    if first._rows_waiting == _DEAL_ROWS:
                        self._deal_waiting()
                rows, labels = rows[space:], labels[space:]

    forward = update

    def _deal_waiting(self) -> None:
        first = self._first
        rows, first._rows_waiting = first._rows_waiting, 0
        if rows:
            self._deal(first.waiting[:rows], first.waiting_labels[:rows])

    def _deal(self, rows: Tensor, labels: Tensor) -> None:
        """Add (N, D) rows, each to the accumulator of its group."""
        order = torch.arange(len(labels), device=labels.device)
        if self._first._batches:  # some batches weren't validated, and bad ones left out
            order = (labels != _LEFT_OUT).nonzero().flatten()
            labels = labels.index_select(0, order)
        dealt = torch.stack([member.counts for member in self._members]).sum(0)
        group = deal(labels, dealt, self.groups)
        by_group = group.argsort(stable=True)
        order, labels = order.index_select(0, by_group), labels.index_select(0, by_group)
        sizes = torch.bincount(group, minlength=self.groups).tolist()
        start, before = 0, self._members[-1]
        for member, size in zip(self._members, sizes, strict=True):
            if rows.dtype is torch.float64:
                member._widen()
            member._adopt_anchors(before)
            for first in range(start, start + size, _ADD_ROWS):
                part = slice(first, min(first + _ADD_ROWS, start + size))
                space = member._workspace(rows.dtype, _ADD_ROWS + 1)[: part.stop - part.start]
                torch.index_select(rows, 0, order[part], out=space)
                member._add(space, labels[part])
            start, before = start + size, member

    def compute(self) -> GroupedStatistics:
        """The statistics of everything added so far; the accumulator can go on.

        Raises: LabelError or NonFiniteError if an unvalidated batch was bad.
        """
        self._first._require_none_rejected()
        with full_precision(self._first._device.type):
            self._deal_waiting()
        epsilon = self._first._epsilon
        with torch.inference_mode(False):  # as in `StatisticsAccumulator.compute`
            spaces = self._scatter(torch.float64) if self._first.covariance else [None] * self.groups
            parts = [member._added(space) for member, space in zip(self._members, spaces, strict=True)]
            value = GroupedStatistics.from_parts(parts)
            rounding = value.total.rounded(epsilon).rounding
            total, *parts = (replace(each, rounding=rounding) for each in (value.total, *value.parts))
            return GroupedStatistics(total, tuple(parts))

    def compute_all(self, group: ProcessGroup | None = None) -> GroupedStatistics:
        """The statistics of what all processes of the group (default: all) have seen; this one's stay its own.

        Each process starts dealing at another group, so that a class of which each has a single sample isn't in one.

        Raises: as `GroupedStatistics.all_reduce`.
        """
        try:
            mine = self.compute()
        except Exception as error:
            withdraw("grouped statistics", error, group)
        turn = rank(group) * self.groups // world_size(group) % self.groups if world_size(group) > 1 else 0
        turned = (*mine.parts[self.groups - turn :], *mine.parts[: self.groups - turn])
        return GroupedStatistics(mine.total, turned).all_reduce(group)

    def merge(self, other: GroupedAccumulator) -> None:
        """Add everything another accumulator has seen, group by group; classes and features must agree (MergeError)."""
        if self.groups != other.groups:
            raise MergeError(f"can't merge {other.groups} groups into {self.groups}; use the same groups= everywhere.")
        for each in (self, other):
            each._first._require_none_rejected()
            with full_precision(each._first._device.type):
                each._deal_waiting()
        for mine, theirs in zip(self._members, other._members, strict=True):
            mine.merge(theirs)

    @property
    def _members(self) -> list[StatisticsAccumulator]:
        """The accumulators of the groups."""
        return list(self.members)  # type: ignore[arg-type]

    @property
    def _first(self) -> StatisticsAccumulator:
        """The one that also holds the rows that wait to be dealt out, and judges batches."""
        return self.members[0]  # type: ignore[return-value]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        saved = sum(name.startswith(f"{prefix}members.") and name.endswith(".counts") for name in state_dict)
        if saved != self.groups:
            raise StateError(f"the saved accumulator has {saved} groups, this one {self.groups}; use the same groups=.")
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        return f"num_classes={self.num_classes}, num_features={self.num_features}, groups={self.groups}"
