"""Hops between local minima: the best sets of points so far, changed at one place, as new starts.

Source: basin hopping, Wales & Doye 1997; moves like those of Lai, Yue, Hao, Glover & Lu 2023.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tightframe.numerics import unit_rows

_MEMBERS = 8
_FEWEST, _LARGEST = 4, 0.5  # minimum number and maximum share of the points in a changed cap
_SHAKEN = 0.5  # size of random displacements, in nearest distances
_TWIST = 1.0  # largest angle of a turned cap, in nearest distances
_MOVED = 3  # largest number of points that move into holes


class Minima:
    """The best minima so far, at most eight.

    Attributes:
        points: (P, K, D) in float64 on the CPU, the lowest energy first.
        names: of their starts.
        fruitless: changes drawn since the lowest energy fell.
        finished: whether each was polished, or lowered to the last exponent.
    """

    def __init__(self, generator: torch.Generator, same: float):
        self._generator, self._same = generator, same
        self._energies: list[float] = []
        self.points = torch.empty(0, dtype=torch.float64)
        self.names: list[str] = []
        self.finished: list[bool] = []
        self.fruitless = 0

    def admit(self, points: Tensor, energies: Tensor, names: list[str]) -> None:
        """Add minima (R, K, D) with their energies (R,); the best remain, if energies differ by `same`."""
        every = torch.cat([self.points.view(-1, *points.shape[1:]), unit_rows(points.double()).cpu()])
        values, all_names = [*self._energies, *energies.tolist()], self.names + names
        finished = self.finished + [False] * len(names)
        if self._energies and float(energies.min()) < self._energies[0] - self._same:
            self.fruitless = 0
        members: list[int] = []
        for index in sorted(range(len(values)), key=values.__getitem__):
            if members and values[index] < values[members[-1]] + self._same:
                finished[members[-1]] |= finished[index]
            elif len(members) < _MEMBERS:
                members.append(index)
        self.points, self._energies = every[members], [values[index] for index in members]
        self.names = [all_names[index] for index in members]
        self.finished = [finished[index] for index in members]

    def forget(self) -> None:
        """Begin again without members."""
        self.points, self._energies, self.names, self.finished, self.fruitless = self.points[:0], [], [], [], 0

    def unfinished(self, margin: float) -> int | None:
        """The first unfinished minimum whose energy exceeds the lowest by no more than a margin."""
        for index, (energy, finished) in enumerate(zip(self._energies, self.finished, strict=True)):
            if not finished and energy <= self._energies[0] + margin:
                return index
        return None

    def draw(self, batch: int) -> tuple[Tensor, list[str]] | None:
        """Changed minima (R, K, D) and their names: points moved into holes, a shaken cap or a turned cap."""
        if not self.names:
            return None
        self.fruitless += batch
        parents = torch.rand(batch, generator=self._generator).square().mul(len(self.names)).long()
        points = self.points[parents]
        kinds = torch.randint(3, (batch,), generator=self._generator)
        for kind, change in enumerate((self._moved, self._shaken, self._turned)):
            if len(rows := (kinds == kind).nonzero()[:, 0]):
                points[rows] = unit_rows(change(points[rows]))
        return points, [self.names[parent] for parent in parents]

    def _noise(self, *shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=self._generator)

    def _random(self, number: int) -> Tensor:
        return torch.rand(number, 1, 1, dtype=torch.float64, generator=self._generator)

    def _moved(self, points: Tensor) -> Tensor:
        """One to three points move into deep holes."""
        R, K, D = points.shape
        holes = unit_rows(self._noise(R, 2 * K, D))
        nearest = (holes @ points.mT).amax(2)
        every = torch.arange(R)
        numbers = torch.randint(1, _MOVED + 1, (R,), generator=self._generator)
        for turn in range(_MOVED):
            moving = torch.randint(K, (R,), generator=self._generator)
            hole = holes[every, nearest.argmin(1)]
            points[every, moving] = torch.where((turn < numbers)[:, None], hole, points[every, moving])
            nearest = torch.maximum(nearest, (holes @ hole[:, :, None])[:, :, 0])
        return points

    def _shaken(self, points: Tensor) -> Tensor:
        """The points of a random cap are displaced at random."""
        R, K, D = points.shape
        inside = self._inside(points @ unit_rows(self._noise(R, D)).unsqueeze(2))
        return points + inside * _SHAKEN * self._distance(points) / math.sqrt(D) * self._noise(R, K, D)

    def _turned(self, points: Tensor) -> Tensor:
        """The points of a random cap turn about its centre, in a random plane."""
        R, _, D = points.shape
        centre, one, other = torch.linalg.qr(self._noise(R, D, 3)).Q.split(1, dim=2)
        angle = _TWIST * self._distance(points) * self._random(R)
        x, y = points @ one, points @ other
        along, across = x * (angle.cos() - 1) - y * angle.sin(), y * (angle.cos() - 1) + x * angle.sin()
        return points + self._inside(points @ centre) * (along @ one.mT + across @ other.mT)

    def _inside(self, heights: Tensor) -> Tensor:
        """Whether points belong to a cap of a random number of them, log-uniform; heights (R, K, 1) are cosines."""
        R, K, _ = heights.shape
        fewest = min(_FEWEST, K)
        numbers = fewest * (max(K * _LARGEST / fewest, 1.0) ** self._random(R))
        return heights >= heights.sort(1, descending=True).values.gather(1, numbers.long() - 1)

    def _distance(self, points: Tensor) -> Tensor:
        """The smallest angle between points, about the same for all members; (1, 1, 1)."""
        cosines = (points[0] @ points[0].T).fill_diagonal_(-1)
        return cosines.max().clamp(-1, 1).acos()[None, None, None]
