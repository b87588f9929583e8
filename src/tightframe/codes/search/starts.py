"""Starts of a search: points without symmetry, with opposites, or under a group of rotations."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from tightframe.codes.search.orbits import (
    POLYHEDRAL,
    Antipodal,
    Array,
    Free,
    Group,
    GroupOrbits,
    Orbits,
    OrbitShape,
    fitting_shapes,
    groups,
    random_representation,
    random_shapes,
)
from tightframe.numerics import unit_rows

_COSINES = 1 << 19  # maximum cosines in one evaluation of a batch; more make a round longer, not better
_LARGEST_BATCH, _LARGEST_SYMMETRIC_BATCH = 64, 16
_TINY = 1 << 16  # number of cosines that take hardly longer than one
_SECONDS_PER_COSINE = 1e-8
_LARGEST_GROUP = 256
_MOST_ORBITS = 40  # approximate maximum number of orbits; with more, a symmetric start is as slow as others
_REMEMBERED = 4


@dataclass(frozen=True)
class Start:
    """A batch of representatives (R, M, D) with the symmetry that generates K points from each.

    `lowest` and `highest` bound the recommended first exponents, in units: the result of a start depends on them, and
    no exponent is always best.
    """

    representatives: Tensor
    orbits: Orbits
    name: str
    lowest: float = 1.0
    highest: float = 60.0
    names: tuple[str, ...] = ()
    """Name of each member, if they differ."""


def free(num_points: int, dim: int, generator: torch.Generator, seconds: float = math.inf) -> Start:
    """Uniform random points."""
    batch = batch_size(num_points * num_points, seconds)
    return Start(_random(batch, num_points, dim, generator), Free(), "free")


def antipodal(num_points: int, dim: int, generator: torch.Generator, seconds: float = math.inf) -> Start:
    """Uniform random points and their opposites; K must be even."""
    batch = batch_size(num_points * num_points // 2, seconds)
    return Start(_random(batch, num_points // 2, dim, generator), Antipodal(), "antipodal")


@dataclass
class Symmetric:
    """Orbits of random groups; successful groups and orbit shapes are drawn again."""

    num_points: int
    dim: int
    generator: torch.Generator
    _successes: list[tuple[float, Group, Array, list[OrbitShape]]] = field(default_factory=list)

    def draw(self) -> tuple[Start, Callable[[float], None]] | None:
        """A start, and a function to call with its score; None if no group fits."""
        chance = np.random.default_rng(int(torch.randint(1 << 31, (1,), generator=self.generator)))
        for _ in range(100):
            if self._successes and chance.random() < 0.25:
                _, group, maps, shapes = self._successes[chance.integers(len(self._successes))]
                if chance.random() < 0.5:
                    return self._realised(group, maps, shapes)
            else:
                group = self._any_group(chance)
            if (drawn := random_representation(group, self.dim, chance)) is None:
                continue
            if (orbits := random_shapes(fitting_shapes(group, drawn), self.num_points, chance)) is not None:
                return self._realised(group, drawn, orbits)
        return None

    def _any_group(self, chance: np.random.Generator) -> Group:
        """A group with few orbits from a random family; within it, log-uniform in the order."""
        fewest = min(self.num_points / _MOST_ORBITS, _LARGEST_GROUP / 2)
        every = groups(min(_LARGEST_GROUP, self.num_points))
        if self.dim <= 3:  # only these act there
            every = [*every[:2], list(POLYHEDRAL), list(POLYHEDRAL)]
        large = [[group for group in family if group.order >= fewest] for family in every]
        families = [family for family in large if family]
        family = families[chance.integers(len(families))]
        sizes = np.log([group.order for group in family])
        away = np.abs(sizes - chance.uniform(sizes.min(), sizes.max()))
        return family[int(chance.choice(np.flatnonzero(away <= max(0.3, away.min()))))]

    def _realised(self, group: Group, maps: Array, shapes: list[OrbitShape]) -> tuple[Start, Callable[[float], None]]:
        batch = min(batch_size(len(shapes) * self.num_points), _LARGEST_SYMMETRIC_BATCH)
        orbits = GroupOrbits(torch.from_numpy(maps), shapes)
        points = unit_rows(orbits.project(_random(batch, len(shapes), self.dim, self.generator)))
        sizes = sorted({len(shape.transversal) for shape in shapes}, reverse=True)
        start = Start(points, orbits, f"{group}, orbits of {' and '.join(map(str, sizes))}")
        return start, partial(self._remember, group, maps, shapes)

    def _remember(self, group: Group, maps: Array, shapes: list[OrbitShape], score: float) -> None:
        self._successes.append((score, group, maps, shapes))
        self._successes.sort(key=lambda success: success[0])
        del self._successes[_REMEMBERED:]


def batch_size(cosines: int, seconds: float = math.inf, fewest: int = 8) -> int:
    """Number of problems per batch, from the number of cosines of one evaluation.

    Up to 64 tiny ones take hardly longer than one; otherwise at most `fewest`. An anneal of about 2,000 evaluations
    should fit in the seconds, by a rough estimate.
    """
    affordable = seconds / (2000 * _SECONDS_PER_COSINE * max(cosines, 1))
    tiny = min(_LARGEST_BATCH, _TINY // max(cosines, 1))
    return int(max(1, min(max(fewest, tiny), _COSINES // max(cosines, 1), affordable)))


def _random(batch: int, points: int, dim: int, generator: torch.Generator) -> Tensor:
    return unit_rows(torch.randn(batch, points, dim, dtype=torch.float64, generator=generator))
