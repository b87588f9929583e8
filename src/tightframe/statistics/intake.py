"""`Intake`: validates batches before the state changes, and concatenates small batches."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tightframe import checks
from tightframe.device_state import DeviceState
from tightframe.errors import LabelError, NonFiniteError, RangeError
from tightframe.numerics import EPS, large_zeros

_LEFT_OUT = -1  # label of ignored rows
_SIZES = (1e-12, 1e15)  # range of float32 entries with squares and sums of squares in the range of float32
_REASONS: tuple[tuple[type[LabelError] | type[NonFiniteError] | type[RangeError], str], ...] = (
    (LabelError, "a label outside [0, {num_classes})"),
    (NonFiniteError, f"a NaN, an infinity or a value above {checks.LARGEST:g}"),
    (
        RangeError,
        f"float32 values with a largest size outside [{_SIZES[0]:g}, {_SIZES[1]:g}], the range of exact squares",
    ),
)


class Step(NamedTuple):
    """Rows for one step of accumulation.

    Attributes:
        rows: (N, D).
        labels: (N,) int64 in [0, K).
        tags: (N,) numbers on the CPU, from `put`, or None.
        counted: (N,) bool, rows that count; None for validated rows, which all count.
    """

    rows: Tensor
    labels: Tensor
    tags: Tensor | None
    counted: Tensor | None


@dataclass
class _Queue:
    """Host data of the waiting rows: tags, number, and whether some are not validated."""

    tags: Tensor
    used: int = 0
    unseen: bool = False


class Intake(DeviceState):
    """Input of statistics: validates batches, drops ignored rows, concatenates small batches.

    Unvalidated batches are checked on the device: an invalid batch is left out completely and reported later.

    Args:
        num_classes: K.
        num_features: D.
        rows: rows per step, for batches of any size, because small steps have a large overhead.
        class_dim: dimension of the features that contains the D entries.
        ignore_index: label whose rows are dropped.
    """

    waiting: Tensor  # (rows, D), of small batches, in the dtype of the widest features seen
    waiting_labels: Tensor  # (rows,)
    rejected: Tensor  # (2,), reason (an index in `_REASONS`, from 1) and number of batches left out

    def __init__(
        self,
        num_classes: int,
        num_features: int,
        *,
        rows: int,
        class_dim: int = -1,
        ignore_index: int | None = None,
        device: torch.device | str | None = None,
    ):
        super().__init__(device)
        self.num_classes, self.num_features = num_classes, num_features
        self.class_dim, self.ignore_index = class_dim, ignore_index
        self._rows = rows
        self.reset()

    def reset(self) -> None:
        """Remove all rows and all records of invalid batches."""
        with torch.inference_mode(False):
            waiting = large_zeros(self._rows, self.num_features, dtype=torch.float32, device=self.device)
            self.register_buffer("waiting", waiting)
            self.register_buffer("waiting_labels", torch.zeros(self._rows, dtype=torch.int64, device=self.device))
            self.register_buffer("rejected", torch.zeros(2, dtype=torch.int64, device=self.device))
        self._queue = _Queue(torch.zeros(self._rows, dtype=torch.int64))
        self._judged = 0  # unvalidated batches
        self.epsilon = EPS  # machine epsilon of the coarsest features

    # ------------------------------------------------------------------ checking

    def admit(self, features: Tensor, labels: Tensor, validate: bool) -> tuple[Tensor, Tensor]:
        """A batch as rows (N, D) and labels (N,) on this device. The state does not change if the batch is invalid.

        With validation, rows with the ignored label are dropped; without, they have the label -1.

        Raises: as `StatisticsAccumulator.update`.
        """
        rows, flat = checks.as_rows(
            features.detach(),
            labels,
            num_features=self.num_features,
            class_dim=self.class_dim,
            ignore_index=self.ignore_index if validate else None,  # dropping rows reads their number from the device
        )
        if rows.device != self.device:
            rows, flat = rows.to(self.device), flat.to(self.device)
        if validate:
            self.require_none_rejected()
            checks.require_labels(flat, self.num_classes)
            checks.require_finite(rows)
        else:
            flat = torch.where(self._judge(rows, flat), flat, _LEFT_OUT)
        if rows.dtype is torch.float64:
            self.widen()
        self.epsilon = max(self.epsilon, torch.finfo(features.dtype).eps)
        return rows.to(self.waiting.dtype), flat

    def counted(self, labels: Tensor, validate: bool) -> Tensor | None:
        """(N,) bool on the CPU, the rows of labels (...) that `admit` does not drop; None for all."""
        if self.ignore_index is None or not validate:
            return None
        return (labels.to(torch.int64) != self.ignore_index).flatten().cpu()

    def _judge(self, rows: Tensor, labels: Tensor) -> Tensor:
        """(N,) bool, rows of an unvalidated batch that count; an invalid batch has none and is recorded."""
        ignored = torch.zeros_like(labels, dtype=torch.bool)
        if self.ignore_index is not None:
            ignored = labels == self.ignore_index
        sizes = rows.abs().masked_fill_(ignored[:, None], 0.0)
        largest = sizes.amax()  # NaN if there is one
        in_range = (((labels >= 0) & (labels < self.num_classes)) | ignored).all()
        reason = torch.where(in_range, torch.where(largest <= checks.largest(rows.dtype), 0, 2), 1)
        if rows.dtype is not torch.float64:
            held = (largest == 0) | ((largest >= _SIZES[0]) & (largest <= _SIZES[1]))
            reason = torch.where((reason == 0) & ~held, 3, reason)
        self.rejected[0] = torch.where(self.rejected[0] == 0, reason, self.rejected[0])
        self.rejected[1] += reason != 0
        self._judged += 1
        return (reason == 0) & ~ignored

    def require_none_rejected(self) -> None:
        """Raise LabelError, NonFiniteError or RangeError if an unvalidated batch was invalid."""
        if self._judged == 0:
            return
        reason, batches = self.rejected.tolist()
        if reason:
            error, what = _REASONS[reason - 1]
            what = what.format(num_classes=self.num_classes)
            raise error(
                f"{batches} unvalidated batch(es) were left out; the first one contained {what}. Call reset(), then "
                "update(validate=True), which names the row and accepts values of any size."
            )

    # ------------------------------------------------------------------ steps

    def put(self, rows: Tensor, labels: Tensor, tags: Tensor | None, *, seen: bool) -> Iterator[Step]:
        """Yield the complete steps after a batch; remaining rows wait for the next batch.

        Args:
            tags: (N,) numbers on the CPU that belong to the rows.
            seen: whether the batch was validated.
        """
        queue, start, end = self._queue, 0, len(labels)
        while start < end:
            some = slice(start, min(end, start + self._rows - queue.used))
            size, start = some.stop - start, some.stop
            if size == self._rows:
                yield self._step(rows[some], labels[some], None if tags is None else tags[some], not seen)
                continue
            place = slice(queue.used, queue.used + size)
            self.waiting[place].copy_(rows[some])
            self.waiting_labels[place].copy_(labels[some])
            if tags is not None:
                queue.tags[place] = tags[some]
            queue.used, queue.unseen = place.stop, queue.unseen or not seen
            if queue.used == self._rows:
                yield from self.rest()

    def rest(self) -> Iterator[Step]:
        """Yield a step with the waiting rows, if there are any."""
        queue = self._queue
        used, unseen, queue.used, queue.unseen = queue.used, queue.unseen, 0, False
        if used:
            yield self._step(self.waiting[:used], self.waiting_labels[:used], queue.tags[:used], unseen)

    def _step(self, rows: Tensor, labels: Tensor, tags: Tensor | None, unseen: bool) -> Step:
        if not unseen:
            return Step(rows, labels, tags, None)
        counted = labels != _LEFT_OUT
        return Step(rows, torch.where(counted, labels, 0), tags, counted)

    def widen(self) -> None:
        """Store rows in float64 after the first float64 features."""
        if self.waiting.dtype is not torch.float64:
            with torch.inference_mode(False):
                self.waiting = self.waiting.to(torch.float64)

    # ------------------------------------------------------------------ module behaviour

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        self.require_none_rejected()
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def get_extra_state(self) -> Tensor:
        """Number of waiting rows, whether some are not validated, number of unvalidated batches, bits of the coarsest
        features, and tags of the waiting rows."""
        bits = -round(math.log2(self.epsilon))
        queue = self._queue
        return torch.cat([torch.tensor([queue.used, queue.unseen, self._judged, bits]), queue.tags])

    def set_extra_state(self, state: Tensor) -> None:
        """Inverse of `get_extra_state`."""
        used, unseen, self._judged, bits = state[:4].tolist()
        self._queue, self.epsilon = _Queue(state[4:].cpu().clone(), used, bool(unseen)), 2.0**-bits
