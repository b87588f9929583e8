"""`Intake`: checks batches before anything changes, and puts small ones together."""

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

_LEFT_OUT = -1  # the label of rows that don't count
_SIZES = (1e-12, 1e15)  # of float32 entries whose squares, and sums of these, float32 holds
_REASONS: tuple[tuple[type[LabelError] | type[NonFiniteError] | type[RangeError], str], ...] = (
    (LabelError, "a label outside [0, {num_classes})"),
    (NonFiniteError, f"a NaN, an infinity or a value above {checks.LARGEST:g}"),
    (
        RangeError,
        f"float32 values all below {_SIZES[0]:g}, or one above {_SIZES[1]:g}, whose squares float32 can't hold",
    ),
)


class Step(NamedTuple):
    """Rows to be added together.

    Attributes:
        rows: (N, D).
        labels: (N,) int64 in [0, K).
        tags: (N,) numbers on the CPU, as they were put in, or None.
        counted: (N,) bool, which rows count; None for all, which the host may look into.
    """

    rows: Tensor
    labels: Tensor
    tags: Tensor | None
    counted: Tensor | None


@dataclass
class _Queue:
    """What the host knows of the rows that wait: their tags, how many they are, whether some weren't validated."""

    tags: Tensor
    used: int = 0
    unseen: bool = False


class Intake(DeviceState):
    """The way of batches into statistics: checked, cleared of ignored rows, small ones put together.

    Batches that aren't validated are judged on the device: a bad one is left out as a whole and reported later.

    Args:
        num_classes: K.
        num_features: D.
        rows: of a step, however many rows batches have: steps of few rows would cost more than their arithmetic.
        class_dim: the features' dimension that holds the D entries.
        ignore_index: a label whose rows are dropped.
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
        """Forget every row and every batch that was left out."""
        with torch.inference_mode(False):
            waiting = large_zeros(self._rows, self.num_features, dtype=torch.float32, device=self.device)
            self.register_buffer("waiting", waiting)
            self.register_buffer("waiting_labels", torch.zeros(self._rows, dtype=torch.int64, device=self.device))
            self.register_buffer("rejected", torch.zeros(2, dtype=torch.int64, device=self.device))
        self._queue = _Queue(torch.zeros(self._rows, dtype=torch.int64))
        self._judged = 0  # batches that weren't validated
        self.epsilon = EPS  # of the coarsest features seen

    # ------------------------------------------------------------------ checking

    def admit(self, features: Tensor, labels: Tensor, validate: bool) -> tuple[Tensor, Tensor]:
        """A batch as (N, D) rows and (N,) labels on this device. Nothing has changed if it isn't valid.

        Validated, rows with the ignored label are dropped; unvalidated, rows that don't count have the label -1.

        Raises: as `StatisticsAccumulator.update`.
        """
        rows, flat = checks.as_rows(
            features.detach(),
            labels,
            num_features=self.num_features,
            class_dim=self.class_dim,
            ignore_index=self.ignore_index if validate else None,  # dropping rows reads how many are left
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

    def kept(self, labels: Tensor, validate: bool) -> Tensor | None:
        """Which rows of labels (...) `admit` doesn't drop, (N,) bool on the CPU; None for all."""
        if self.ignore_index is None or not validate:
            return None
        return (labels.to(torch.int64) != self.ignore_index).flatten().cpu()

    def _judge(self, rows: Tensor, labels: Tensor) -> Tensor:
        """(N,) which rows of an unvalidated batch count: none of a bad one, which is noted, on the device."""
        ignored = torch.zeros_like(labels, dtype=torch.bool)
        if self.ignore_index is not None:
            ignored = labels == self.ignore_index
        sizes = rows.abs().masked_fill_(ignored[:, None], 0.0)
        largest = sizes.amax()  # NaN if there is one
        known = (((labels >= 0) & (labels < self.num_classes)) | ignored).all()
        reason = torch.where(known, torch.where(largest <= checks.largest(rows.dtype), 0, 2), 1)
        if rows.dtype is not torch.float64:
            held = (largest == 0) | ((largest >= _SIZES[0]) & (largest <= _SIZES[1]))
            reason = torch.where((reason == 0) & ~held, 3, reason)
        self.rejected[0] = torch.where(self.rejected[0] == 0, reason, self.rejected[0])
        self.rejected[1] += reason != 0
        self._judged += 1
        return (reason == 0) & ~ignored

    def require_none_rejected(self) -> None:
        """Raise what an unvalidated batch was left out for: LabelError, NonFiniteError or RangeError."""
        if self._judged == 0:
            return
        reason, batches = self.rejected.tolist()
        if reason:
            error, what = _REASONS[reason - 1]
            what = what.format(num_classes=self.num_classes)
            raise error(
                f"{batches} unvalidated batch(es) were left out; the first held {what}. Call reset(), then "
                "update(validate=True), which names the row and takes values of any size."
            )

    # ------------------------------------------------------------------ putting together

    def put(self, rows: Tensor, labels: Tensor, tags: Tensor | None, *, seen: bool) -> Iterator[Step]:
        """The steps that an admitted batch completes; the rest of it waits.

        Args:
            tags: (N,) numbers on the CPU that go with the rows.
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
        """A step of the rows that wait, if there are any."""
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
        """Hold rows in float64 from the first float64 features on."""
        if self.waiting.dtype is not torch.float64:
            with torch.inference_mode(False):
                self.waiting = self.waiting.to(torch.float64)

    # ------------------------------------------------------------------ module behaviour

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        self.require_none_rejected()
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def get_extra_state(self) -> Tensor:
        """How many rows wait, whether unvalidated ones are among them, the number of unvalidated batches, the bits of
        the coarsest features, and the waiting rows' tags."""
        bits = -round(math.log2(self.epsilon))
        queue = self._queue
        return torch.cat([torch.tensor([queue.used, queue.unseen, self._judged, bits]), queue.tags])

    def set_extra_state(self, state: Tensor) -> None:
        """Inverse of `get_extra_state`."""
        used, unseen, self._judged, bits = state[:4].tolist()
        self._queue, self.epsilon = _Queue(state[4:].cpu().clone(), used, bool(unseen)), 2.0**-bits
