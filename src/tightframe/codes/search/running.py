"""A search that runs: the outer loop of every searching construction."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable
from dataclasses import fields, replace
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from tightframe.checks import as_tensor, require_directions
from tightframe.errors import RangeError, ShapeError
from tightframe.numerics import unit_rows
from tightframe.search import Progress, Search

P = ParamSpec("P")
R = TypeVar("R")


def warm_directions(search: Search, num_classes: int, dim: int) -> Tensor | None:
    """The warm start at unit length. Raises: ShapeError, DtypeError, NonFiniteError or ZeroVectorError."""
    if search.warm_start is None:
        return None
    rows = as_tensor(search.warm_start, "warm_start")
    if rows.shape != (num_classes, dim):
        raise ShapeError(f"warm_start must be ({num_classes}, {dim}); got {tuple(rows.shape)}.")
    require_directions(rows, "warm_start")
    return unit_rows(rows.detach().to(search.device or "cpu", torch.float64)).contiguous()


def generator_of(search: Search, round: int) -> torch.Generator:
    """The random numbers of a round."""
    return torch.Generator().manual_seed((search.seed << 20) + round & (1 << 64) - 1)


def searching(build: Callable[P, R]) -> Callable[..., R]:
    """Let a construction with a parameter `search` take a Search's fields, too: best(100, 16, time=60).

    >>> from tightframe.codes import Search, searching
    >>> @searching
    ... def limit(number: int, *, search: Search) -> float:
    ...     return number * search.last_round
    >>> limit(2, rounds=5), limit(2, search=Search(rounds=3))
    (10, 6)
    """
    names = [each.name for each in fields(Search)]
    run: Callable[..., R] = build

    @wraps(build)
    def call(*args: Any, search: Search | None = None, **options: Any) -> R:
        given = {name: options.pop(name) for name in names if name in options}
        value = Search() if search is None else search
        if not isinstance(value, Search):
            raise TypeError(f"search must be a Search; got {type(value).__name__}.")
        return run(*args, search=replace(value, **given) if given else value, **options)

    declared = inspect.signature(build)
    own = [
        inspect.Parameter(each.name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=each.type)
        for each in fields(Search)
    ]
    last = declared.parameters["search"].replace(default=None)
    others = [each for name, each in declared.parameters.items() if name != "search"]
    call.__signature__ = declared.replace(parameters=[*others, last, *own])  # type: ignore[attr-defined]
    return call


class Running:
    """A search that runs: stores the points with the lowest score, and decides when to stop.

    Ctrl-C ends a search like its limits: the best points so far are the result.
    """

    def __init__(
        self, score: Callable[[Tensor], float], search: Search, sizes: tuple[int, int], optimum: float = -math.inf
    ):
        """For points of these `sizes`, (K, D); `optimum` is a score that can't be improved, up to rounding.

        Raises: RangeError for 0 rounds; the errors of `warm_directions`.
        """
        if search.rounds == 0:
            raise RangeError("rounds must be at least 1 for a search; got 0.")
        self.warm_start = warm_directions(search, *sizes)
        self._score, self.search, self.sizes = score, search, sizes
        self._target = max(optimum, -math.inf if search.target is None else search.target)
        self._begin, self._reserved = time.monotonic(), 0.0
        self.points: Tensor | None = None
        self.best = math.inf
        self.start = "none"
        self.remark = ""  # on the scores, for the provenance
        self.round = 0
        self.interrupted = False

    @property
    def facts(self) -> dict[str, Any]:
        """Facts for the provenance; without seconds, so that equal searches have equal provenances."""
        return {"rounds": self.round, "interrupted": self.interrupted, "start": self.start + self.remark}

    @property
    def seconds(self) -> float:
        """Seconds since the search began."""
        return time.monotonic() - self._begin

    @property
    def remaining(self) -> float:
        """Seconds left; infinite without a limit."""
        return self.search.seconds - self._reserved - self.seconds

    def reserve(self, seconds: float) -> None:
        """Leave seconds of the search's time to work after it."""
        self._reserved = seconds

    def stopped(self) -> bool:
        """Whether time has run out or the target is reached."""
        return self.remaining <= 0 or self.best <= self._target

    def offer(self, points: Tensor, start: str) -> float:
        """Score points (K, D), and store them if they are the best and finite; returns their score."""
        score = self._score(points)
        if score < self.best and bool(torch.isfinite(points).all()):
            self.points, self.best, self.start = points.detach().clone(), score, start
        if self.search.progress is not None and self.points is not None:
            self.search.progress(Progress(self.seconds, self.round, self.best, self.start))
        return score

    def run(self, play: Callable[[int], None]) -> Tensor:
        """Run rounds 0, 1, 2, ... until a limit is reached; returns the best points."""
        try:
            while self.round < self.search.last_round and not (self.round and self.stopped()):
                play(self.round)
                self.round += 1
        except KeyboardInterrupt:
            if self.points is None:
                raise
            self.interrupted = True
        if self.points is None:
            raise RangeError("no start has a finite score; scale the arguments.")
        return self.points
