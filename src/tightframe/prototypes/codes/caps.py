"""Caps: the points of an exact code nearest to a direction, as starts for other numbers of vectors."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from tightframe.errors import DimensionError
from tightframe.prototypes.codes.table import Code

_ENTRIES = 2**25  # of a code in memory, 256 MiB; of a larger code a first part is cut, which is a code as good
_TILT = 1e-3  # of a direction by another: less than the gaps between cosines, so that it only breaks ties
_TRIALS = 32  # random directions, of which the one farthest from the code stands for a deep hole


def cap(vectors: Tensor, direction: Tensor, num_classes: int) -> Tensor:
    """The `num_classes` rows of (N, D) unit vectors nearest to a direction (D,), nearest first; ties by row.

    Raises: DimensionError if there are fewer rows than that.
    """
    if num_classes > len(vectors):
        raise DimensionError(f"a cap of {len(vectors)} vectors can't have num_classes={num_classes}.")
    return vectors[(vectors @ direction).sort(descending=True, stable=True).indices[:num_classes]]


def cap_starts(code: Code, num_classes: int, seed: int, count: int) -> Iterator[Tensor]:
    """Caps of a code, (K, D) each, about directions of different kinds; the same ones for the same seed.

    In turn: a point of the code; the centre of the s nearest to a point, s = 2, 3, 4, then D; a sum of a few coordinate
    axes; a random direction; one that is far from all points. Ties at the rim of a cap are broken by a second such
    direction, so that cuts through a layer of the code are symmetric too. Memory is bounded, whatever the code's size.
    Raises: DimensionError if the code has fewer than `num_classes` vectors.
    """
    if num_classes > code.K:
        raise DimensionError(f"the code {code.name!r} has {code.K} vectors; got num_classes={num_classes}.")
    vectors = code.build(min(code.K, max(num_classes, _ENTRIES // code.D)))
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.nn.functional.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)

    def below(limit: int) -> int:
        return int(torch.randint(limit, (), generator=generator))

    def centre(size: int) -> Tensor:
        return cap(vectors, vectors[below(len(vectors))] + _TILT * noise(code.D), size).mean(dim=0)

    def axes() -> Tensor:
        few = torch.randperm(code.D, generator=generator)[: 1 + below(code.D)]
        return torch.zeros(code.D, dtype=torch.float64).index_fill_(0, few, 1) * noise(code.D).sign()

    def hole() -> Tensor:
        trials = noise(_TRIALS, code.D)
        return trials[(vectors @ trials.T).amax(dim=0).argmin()]

    def direction(kind: int) -> Tensor:
        if kind < 5:
            towards = centre(min((1, 2, 3, 4, code.D)[kind], len(vectors)))
        else:
            towards = (axes, lambda: noise(code.D), hole)[kind - 5]()
        return towards / towards.norm()

    for turn in range(count):
        tilted = direction(turn % 8) + _TILT * direction(below(8)) + _TILT**2 * noise(code.D)
        yield cap(vectors, tilted, num_classes)


def section_starts(code: Code, num_classes: int, dim: int, seed: int, count: int) -> Iterator[Tensor]:
    """Sections of a code of more dimensions, (K, D) each: its points nearest to a plane, projected onto it.

    The plane is orthogonal to one pole for every dimension too many: sums of one to three points of the code. It goes
    through the origin, or through a point of the code, so that whole layers are taken. The same ones for the same seed.
    Raises: DimensionError if the code has fewer than `num_classes` vectors or fewer than dim + 1 dimensions.
    """
    if num_classes > code.K or dim >= code.D:
        raise DimensionError(
            f"the code {code.name!r} has {code.K} vectors in {code.D} dimensions; wanted: {num_classes} in {dim}."
        )
    vectors = code.build(min(code.K, max(num_classes, _ENTRIES // code.D)))
    generator = torch.Generator().manual_seed(seed)

    def pick(number: int) -> Tensor:
        return vectors[torch.randint(len(vectors), (number,), generator=generator)]

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    for turn in range(count):
        poles = [pick(1 + int(torch.randint(3, (), generator=generator))).sum(dim=0) for _ in range(code.D - dim)]
        basis = torch.linalg.qr(
            torch.cat([torch.stack(poles), noise(dim, code.D)]).T + _TILT**4 * noise(code.D, code.D)
        )
        axes, plane = basis.Q[:, : code.D - dim], basis.Q[:, code.D - dim :]
        heights = vectors @ axes
        level = heights[:1] * 0 if turn % 2 == 0 else pick(1) @ axes
        distances = (heights - level).norm(dim=1) + _TILT**2 * noise(len(vectors)).abs()
        at_pole = heights.norm(dim=1) > 1 - _TILT  # such a point has no direction in the plane
        nearest = distances.masked_fill(at_pole, torch.inf).sort(stable=True).indices[:num_classes]
        yield torch.nn.functional.normalize(vectors[nearest] @ plane + _TILT**2 * noise(num_classes, dim), dim=1)
