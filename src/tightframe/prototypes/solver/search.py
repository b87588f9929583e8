"""The outer loop of every search: rounds until a limit is reached, and the best points so far."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tightframe.errors import RangeError


@dataclass(frozen=True)
class Budget:
    """Limits of a search: `time` in seconds, `rounds`, or a score of at most `target`; the first one reached ends it.

    Results are reproducible if rounds or target end the search; with time alone the number of rounds depends on speed.
    Default: 8 rounds. Raises: RangeError unless limits are positive.
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
        """The number of rounds; infinite if only time limits the search."""
        if self.rounds is not None:
            return self.rounds
        return 8 if self.time is None else float("inf")


@dataclass(frozen=True)
class Progress:
    """State of a search: seconds since its start, finished rounds, the best score and its start."""

    seconds: float
    round: int
    score: float
    start: str


class Search:
    """Stores the points with the lowest score, and decides when to stop.

    Ctrl-C ends a search like its budget: the best points so far are the result.
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
        """Whether time has run out or the target is reached."""
        return self.remaining <= 0 or (self._budget.target is not None and self.best <= self._budget.target)

    def offer(self, points: Tensor, start: str) -> float:
        """Score points (K, D), and store them if they are the best and finite; returns their score."""
        score = self._score(points)
        if score < self.best and bool(torch.isfinite(points).all()):
            self.points, self.best, self.start = points.detach().clone(), score, start
        if self._progress is not None and self.points is not None:
            self._progress(Progress(self.seconds, self.round, self.best, self.start))
        return score

    def run(self, play: Callable[[int], None]) -> Tensor:
        """Run rounds 0, 1, 2, ... until the budget is spent; returns the best points."""
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
