"""`Search`: the limits, the seed and the start of a search."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING

from tightframe.errors import RangeError
from tightframe.flags import option

if TYPE_CHECKING:  # the command line lists these options without importing torch
    import torch

    from tightframe.checks import Array

ROUNDS, SECONDS = 8, 10.0  # limits of a search without any


@dataclass(frozen=True, kw_only=True, eq=False)
class Search:
    """How a construction searches. Every searching construction takes one as `search`, or its fields as arguments.

    The first limit reached ends the search; without `time` and `rounds` it ends after 8 rounds or 10 seconds. The same
    seed, rounds and machine give the same vectors, unless time ends the search.

    Attributes:
        time: limit in seconds.
        rounds: limit in rounds of starts. 0, for `best` only: no search.
        seed: seed of the random number generator, in [-2^63, 2^63).
        target: score at which the search stops. The construction minimises the score: for `separated` and `best` the
            largest cosine.
        warm_start: vectors (K, D) to start from, in addition to other starts.
        progress: function called with a `Progress` during the search.
        device: device of the search and of the vectors. Default: the CPU.

    Raises: RangeError unless time is a number > 0, target a number, rounds an integer >= 0 and the seed an integer in
        its range.

    >>> from tightframe.codes import Search
    >>> from tightframe.prototypes import best
    >>> search = Search(rounds=1, seed=3)
    >>> round(best(4, 3, search=search).certificate.max_cosine, 6)
    -0.333333
    """

    time: float | None = option(
        None,
        f"Stop the search after this many seconds; Ctrl-C stops it earlier. Default: without --rounds {SECONDS:g} s or "
        f"{ROUNDS} rounds, whichever ends first.",
        type=float,
    )
    rounds: int | None = option(
        None,
        "Stop the search after this many rounds; the result is then reproducible. 0, for best only: no search.",
        type=int,
    )
    seed: int = option(0, "Seed for the random number generator.")
    target: float | None = option(
        None,
        "Stop the search once the score is at most this; for best and separated the score is the largest cosine.",
        type=float,
    )
    warm_start: Array | None = option(
        None, "Start the search from the vectors (K, D) in this file, in addition to other starts.", type=Path
    )
    progress: Callable[[Progress], None] | None = option(None, "", flag="")
    device: torch.device | str | None = option(None, "", flag="")

    def __post_init__(self) -> None:
        if self.time is not None and not (_is_number(self.time) and self.time > 0):
            raise RangeError(f"time must be a positive number of seconds; got {self.time}.")
        if self.target is not None and not _is_number(self.target):
            raise RangeError(f"target must be a number; got {self.target!r}.")
        for name in ("rounds", "seed"):
            value = getattr(self, name)
            if isinstance(value, Integral) and not isinstance(value, bool):
                object.__setattr__(self, name, int(value))
            elif value is not None or name == "seed":
                raise RangeError(f"{name} must be an integer; got {value!r}.")
        if self.rounds is not None and self.rounds < 0:
            raise RangeError(f"rounds must be at least 0; got {self.rounds}.")
        if not -(1 << 63) <= self.seed < 1 << 63:
            raise RangeError(f"seed must be an integer, at least -2^63 and below 2^63; got {self.seed}.")

    @property
    def seconds(self) -> float:
        """The limit in seconds; infinite if only rounds limit the search."""
        if self.time is not None:
            return self.time
        return SECONDS if self.rounds is None else math.inf

    @property
    def last_round(self) -> float:
        """The limit in rounds; infinite if only time limits the search."""
        if self.rounds is not None:
            return self.rounds
        return ROUNDS if self.time is None else math.inf


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and not math.isnan(value)


@dataclass(frozen=True)
class Progress:
    """State of a search: seconds since its start, finished rounds, the best score and its start."""

    seconds: float
    round: int
    score: float
    start: str
