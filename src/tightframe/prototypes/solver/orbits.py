"""Symmetric sets of points: K points as the orbits of a finite group that acts on the sphere by orthogonal maps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[np.float64]


class Orbits(Protocol):
    """K points given by M representatives. R is a batch: every member may have a group of its own.

    Attributes:
        own: (M,) place of each representative among the K points, or None for 0, 1, 2, ...
        sizes: (M,) points in each orbit, or None where all are equal.
    """

    own: Tensor | None
    sizes: Tensor | None

    def expand(self, representatives: Tensor) -> Tensor:
        """(R, M, D) -> all points (R, K, D)."""

    def project(self, rows: Tensor) -> Tensor:
        """(R, M, D) -> the same, in the subspaces that the representatives' stabilisers leave fixed."""

    def to(self, like: Tensor) -> Orbits:
        """The same orbits on the device and in the dtype of a tensor."""


class Free:
    """No symmetry: every point is its own representative."""

    own: Tensor | None = None
    sizes: Tensor | None = None

    def to(self, like: Tensor) -> Orbits:
        return self

    def expand(self, representatives: Tensor) -> Tensor:
        return representatives

    def project(self, rows: Tensor) -> Tensor:
        return rows


class Antipodal:
    """With every point its opposite: first the representatives, then their opposites."""

    own: Tensor | None = None
    sizes: Tensor | None = None

    def to(self, like: Tensor) -> Orbits:
        return self

    def expand(self, representatives: Tensor) -> Tensor:
        return torch.cat([representatives, -representatives], dim=-2)

    def project(self, rows: Tensor) -> Tensor:
        return rows


class GroupOrbits:
    """Orbits of a batch of representations, (R, G, D, D), of one finite group.

    `shapes` gives each orbit's stabiliser and transversal (one element a coset), as indices of group elements.
    """

    def __init__(self, representations: Tensor, shapes: list[OrbitShape]):
        self._maps, self._shapes = representations, shapes
        self._fixed = torch.stack([representations[:, shape.stabiliser].mean(1) for shape in shapes], 1)
        self.sizes: Tensor | None = representations.new_tensor([len(shape.transversal) for shape in shapes])
        self.own: Tensor | None = torch.tensor([0, *np.cumsum(self.sizes.tolist())[:-1]], dtype=torch.int64)
        self._element = torch.tensor([g for shape in shapes for g in shape.transversal])
        self._orbit = torch.tensor([orbit for orbit, shape in enumerate(shapes) for _ in shape.transversal])

    def to(self, like: Tensor) -> Orbits:
        return self if like.dtype == self._maps.dtype else GroupOrbits(self._maps.to(like), self._shapes)

    def expand(self, representatives: Tensor) -> Tensor:
        images = torch.einsum("rgde,roe->rgod", self._maps, representatives)
        return images[:, self._element, self._orbit]

    def project(self, rows: Tensor) -> Tensor:
        return torch.einsum("rode,roe->rod", self._fixed, rows)


@dataclass(frozen=True)
class OrbitShape:
    """The stabiliser of a point and one group element for each point of its orbit; the identity comes first."""

    stabiliser: list[int]
    transversal: list[int]


@dataclass(frozen=True)
class Group:
    """The maps x -> ax + b of the integers modulo `modulus`, a among the powers of `multiplier`.

    Cyclic for multiplier 1, dihedral for -1, else metacyclic (Frobenius groups such as 7:3 among them).
    """

    modulus: int
    multiplier: int

    def __str__(self) -> str:
        acting = self.order // self.modulus
        return f"Z{self.modulus}" + (f":{acting}" if acting > 1 else "")

    @property
    def order(self) -> int:
        return len(self.elements)

    @property
    def elements(self) -> list[tuple[int, int]]:
        """Pairs (a, b), the identity (1, 0) first."""
        powers = [1]
        while (following := powers[-1] * self.multiplier % self.modulus) != 1:
            powers.append(following)
        return [(a, b) for a in powers for b in range(self.modulus)]

    def _product(self, left: tuple[int, int], right: tuple[int, int]) -> tuple[int, int]:
        return left[0] * right[0] % self.modulus, (left[0] * right[1] + left[1]) % self.modulus

    @cache  # noqa: B019  (a few dozen small groups in all)
    def irreducible(self) -> list[Array]:
        """The irreducible real representations, each (G, d, d), one of each character."""
        elements = self.elements
        place = {element: index for index, element in enumerate(elements)}
        regular = np.zeros((len(elements),) * 3)
        for g, left in enumerate(elements):
            for h, right in enumerate(elements):
                regular[g, place[self._product(left, right)], h] = 1
        # a random symmetric map that commutes with the group has the irreducible subspaces as its eigenspaces
        draw = np.random.default_rng(0).normal(size=regular.shape[1:])
        commuting = np.einsum("gab,bc,gdc->ad", regular, draw + draw.T, regular, optimize=True) / len(elements)
        values, vectors = np.linalg.eigh(commuting)
        found: dict[tuple[float, ...], Array] = {}
        for space in np.split(vectors, 1 + np.flatnonzero(np.diff(values) > 1e-8), axis=1):
            representation = np.einsum("ia,gij,jb->gab", space, regular, space, optimize=True)
            found.setdefault(tuple(np.einsum("gaa->g", representation).round(6) + 0.0), representation)
        return list(found.values())

    @cache  # noqa: B019
    def shapes(self) -> list[OrbitShape]:
        """The orbits that a point can have: for every subgroup generated by at most two elements, its cosets."""
        elements = self.elements
        place = {element: index for index, element in enumerate(elements)}
        table = [[place[self._product(left, right)] for right in elements] for left in elements]

        def closure(generators: frozenset[int]) -> frozenset[int]:
            group, fresh = {0}, set(generators)
            while fresh - group:
                group |= fresh
                fresh = {table[g][h] for g in group for h in generators}
            return frozenset(group)

        cyclic = {closure(frozenset([g])) for g in range(len(elements))}
        subgroups = cyclic | {closure(one | other) for one in cyclic for other in cyclic}
        result = []
        for subgroup in sorted(subgroups, key=lambda group: (len(group), sorted(group))):
            cosets: dict[frozenset[int], int] = {}
            for g in range(len(elements)):
                cosets.setdefault(frozenset(table[g][h] for h in subgroup), g)
            result.append(OrbitShape(sorted(subgroup), list(cosets.values())))
        return result


@cache
def groups(largest: int) -> list[Group]:
    """All groups of this form with at most `largest` elements, but for the trivial one."""
    found: dict[tuple[int, frozenset[int]], Group] = {}
    for modulus in range(2, largest + 1):
        for multiplier in range(1, modulus):
            if math.gcd(multiplier, modulus) == 1:
                group = Group(modulus, multiplier)
                if group.order <= largest:
                    found.setdefault((modulus, frozenset(a for a, _ in group.elements)), group)
    return list(found.values())


def random_representation(group: Group, dim: int, generator: np.random.Generator) -> Array | None:
    """A representation (G, dim, dim) as a random sum of irreducible ones; None if the draw can't fill `dim`."""
    left, blocks = dim, []
    while left:
        fitting = [block for block in group.irreducible() if block.shape[1] <= left]
        if not fitting:
            return None
        weights = np.array([block.shape[1] for block in fitting], dtype=np.float64)  # large ones act faithfully
        blocks.append(fitting[generator.choice(len(fitting), p=weights / weights.sum())])
        left -= blocks[-1].shape[1]
    result = np.zeros((group.order, dim, dim))
    start = 0
    for block in blocks:
        stop = start + block.shape[1]
        result[:, start:stop, start:stop] = block
        start = stop
    return result


def random_shapes(group: Group, num_points: int, generator: np.random.Generator) -> list[OrbitShape] | None:
    """Orbits with `num_points` points in all: a few short ones, then free ones; None if the draw doesn't fit."""
    free, *short = group.shapes()
    left, chosen = num_points, []
    for _ in range(int(generator.integers(0, 6))):
        shape = short[generator.integers(len(short))]
        if len(shape.transversal) <= left:
            chosen.append(shape)
            left -= len(shape.transversal)
    chosen += [free] * (left // group.order)
    left %= group.order
    while left:
        fitting = [shape for shape in short if len(shape.transversal) <= left]
        chosen.append(fitting[generator.integers(len(fitting))])  # a fixed point always fits
        left -= len(chosen[-1].transversal)
    return chosen if len(chosen) <= num_points else None
