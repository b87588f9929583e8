"""The outer loop of every search: rounds until time, rounds or wishes run out, and the best points found so far."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tightframe.errors import RangeError


@dataclass(frozen=True)
class Budget:
    """When a search ends: after so many seconds or rounds, or at a score as low as `target`; whichever comes first.

    Only a search that ends by rounds or target gives the same points on every machine; with time alone, the rounds
    it had time for. Without any of them: `rounds` = 8. Raises: RangeError for limits that aren't positive.
    """

    time: float | None = None
    rounds: int | None = None
    target: float | None = None

    def __post_init__(self) -> None:
        if self.time is not None and not self.time > 0:
            raise RangeError(f"time must be a positive number of seconds; got {self.time}.")
        if self.rounds is not None and self.rounds < 1:
            raise RangeError(f"rounds must be at least 1; got {self.rounds}.")

    @property
    def last_round(self) -> float:
        """The number of rounds to play; infinite where time decides."""
        if self.rounds is not None:
            return self.rounds
        return 8 if self.time is None else float("inf")


@dataclass(frozen=True)
class Progress:
    """How far a search is: seconds since its start, rounds finished, the best score and the start that led to it."""

    seconds: float
    round: int
    score: float
    start: str


class Search:
    """Keeps the best of all points offered, by the lowest score, and says when to stop.

    Ctrl-C ends a search like its budget would: the best points so far are its result.
    """

    def __init__(
        self, score: Callable[[Tensor], float], budget: Budget, progress: Callable[[Progress], None] | None = None
    ):
        self._score = score
        self._budget = budget
        self._progress = progress
        self._begin = time.monotonic()
        self.points: Tensor | None = None
        self.best = float("inf")
        self.start = "none"
        self.round = 0
        self.interrupted = False

    @property
    def seconds(self) -> float:
        """Seconds since the search began."""
        return time.monotonic() - self._begin

    @property
    def remaining(self) -> float:
        """Seconds left; infinite without a limit."""
        return float("inf") if self._budget.time is None else self._budget.time - self.seconds

    def stopped(self) -> bool:
        """Whether the time is over or the target reached."""
        return self.remaining <= 0 or (self._budget.target is not None and self.best <= self._budget.target)

    def offer(self, points: Tensor, start: str) -> float:
        """Score points (K, D), keep them if they are the best; their score. Points that aren't finite are ignored."""
        score = self._score(points)
        if score < self.best and bool(torch.isfinite(points).all()):
            self.points, self.best, self.start = points.detach().clone(), score, start
        if self._progress is not None and self.points is not None:
            self._progress(Progress(self.seconds, self.round, self.best, self.start))
        return score

    def run(self, play: Callable[[int], None]) -> Tensor:
        """Play rounds 0, 1, 2, ... until the budget is spent; the best points."""
        try:
            while self.round < self._budget.last_round and not (self.round and self.stopped()):
                play(self.round)
                self.round += 1
        except KeyboardInterrupt:
            if self.points is None:
                raise
            self.interrupted = True
        assert self.points is not None, "a round offers points"
        return self.points
