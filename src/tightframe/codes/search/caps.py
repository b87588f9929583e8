"""Parts of exact codes as starts for other K and D: caps, sections, and the complete layers of both.

A cap contains the points nearest to a direction. A section contains the points nearest to a plane of fewer dimensions,
projected onto it. Points at equal distance form a layer. K points usually cut a layer; the complete layers before it
are a code, often with a smaller largest cosine, and the missing points fit into its holes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor
from torch.nn.functional import normalize

from tightframe.codes.code import Code

ENTRIES = 2**25  # maximum entries of a code in memory, 256 MiB; a larger code is replaced by its first part
_TILT = 1e-3  # tilt of a direction, smaller than the gaps between cosines, so that it only breaks ties
_TRIALS = 32  # random directions; the one farthest from the code stands for a deep hole
_SAME = 1e-6  # distances of one layer differ by less: rounding
SHARE = 4  # complete layers with less than a fourth of K vectors are no start


def cap(vectors: Tensor, direction: Tensor, num_classes: int) -> Tensor:
    """The `num_classes` rows of (N, D) unit vectors nearest to a direction (D,), nearest first; ties by row."""
    return vectors[(vectors @ direction).sort(descending=True, stable=True).indices[:num_classes]]


def cap_starts(code: Code, num_classes: int, seed: int, count: int) -> Iterator[Tensor]:
    """Caps of a code, (K, D) each, about directions of different kinds; the same ones for the same seed.

    In turn: a point of the code; the centre of the s nearest to a point, s = 2, 3, 4, then D; a sum of a few coordinate
    axes; a random direction; one that is far from all points. Ties at the rim of a cap are broken by a second such
    direction, so that cuts through a layer of the code are symmetric too. Memory is bounded, whatever the code's size.
    """
    for points, _ in islice(_caps(code, num_classes, seed), count):
        yield points


def section_starts(code: Code, num_classes: int, dim: int, seed: int, count: int) -> Iterator[Tensor]:
    """Sections of a code of more dimensions, (K, D) each: its points nearest to a plane, projected onto it.

    The plane is orthogonal to one pole for every dimension too many: sums of up to three points of the code. It goes
    through the origin, a point of the code, or the centre or sum of a few, so that whole layers are taken. The same
    ones for the same seed.
    """
    generator = torch.Generator().manual_seed(seed)
    for points, _ in islice(_sections(code, num_classes, dim, seed), count):
        shaken = points + _TILT**2 * torch.randn(points.shape, generator=generator, dtype=points.dtype)
        yield normalize(shaken, dim=1)


@dataclass(frozen=True)
class Layers:
    """Complete layers of a code's cap or section."""

    points: Tensor
    """(n, D) unit vectors."""
    cosine: float
    """The largest between two of them."""
    name: str


def complete_layers(
    code: Code, num_classes: int, dim: int, seed: int, draws: int, stop: Callable[[], bool] = lambda: False
) -> list[Layers]:
    """Complete layers with at most K vectors from a code's caps (dim = its D) or sections (dim < D).

    From `draws` caps or sections, layers are dropped if others have more vectors and no larger cosine. A code of at
    most K vectors in `dim` dimensions is returned whole. The same seed gives the same layers.
    Drawing ends early if `stop()` is true.
    """
    if dim == code.D and num_classes >= code.K:
        return [Layers(code.vectors(code.K), code.cosine, code.name)]
    most = min(code.K, num_classes + 1)  # one more tells where the last layer ends
    cuts = _caps(code, most, seed) if dim == code.D else _sections(code, most, dim, seed)
    layers: list[Layers] = []
    for points, distances in islice(cuts, draws):
        if stop():
            break
        rims = _rims(distances)
        rims = rims[(rims * SHARE >= num_classes) & (rims <= num_classes)]
        if not len(rims):
            continue
        inside = points[: int(rims[-1])].float()
        largest = (
            (inside @ inside.T).tril_(-1).amax(1).cummax(0).values[rims - 1]
        )  # zeros from the diagonal on: harmless
        name = f"layers of the {code.name}"
        layers += [
            Layers(points[:rim], cosine, name) for rim, cosine in zip(rims.tolist(), largest.tolist(), strict=True)
        ]
        layers = undominated(layers)
    return layers


def undominated(layers: list[Layers]) -> list[Layers]:
    """The layers without a better one (as many vectors and as small a cosine), sorted by cosine."""
    best: list[Layers] = []
    for each in sorted(layers, key=lambda layer: (round(layer.cosine, 9), -len(layer.points))):
        if not best or len(each.points) > len(best[-1].points):
            best.append(each)
    return best


def _caps(code: Code, most: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Caps without end: the nearest points (most, D), and their distances, minus the cosine with the direction."""
    vectors = code.vectors(min(code.K, max(most, ENTRIES // code.D)))
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)

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

    turn = 0
    while True:
        main = direction(turn % 8)
        points = cap(vectors, main + _TILT * direction(below(8)) + _TILT**2 * noise(code.D), most)
        yield points, -(points @ main)
        turn += 1


def _sections(code: Code, most: int, dim: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Sections without end: the points nearest to a plane, projected (most, dim), and their distances from it."""
    vectors = code.vectors(min(code.K, max(most, ENTRIES // code.D)))
    generator = torch.Generator().manual_seed(seed)

    def below(limit: int) -> int:
        return int(torch.randint(limit, (), generator=generator))

    def some(number: int) -> Tensor:
        return vectors[torch.randint(len(vectors), (number,), generator=generator)].sum(dim=0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    while True:
        largest = 1 + below(3)
        poles = [some(1 + below(largest)) for _ in range(code.D - dim)]
        basis = torch.linalg.qr(
            torch.cat([torch.stack(poles), noise(dim, code.D)]).T + _TILT**4 * noise(code.D, code.D)
        )
        axes, plane = basis.Q[:, : code.D - dim], basis.Q[:, code.D - dim :]
        heights = vectors @ axes
        number = below(5)  # 0: through the origin
        level = some(number) @ axes / (number if number and below(2) else 1)
        distances = (heights - level).norm(dim=1)
        distances.masked_fill_(heights.norm(dim=1) > 1 - _TILT, torch.inf)  # at a pole, without direction in the plane
        nearest = (distances + _TILT**2 * noise(len(vectors)).abs()).sort(stable=True).indices[:most]
        yield normalize(vectors[nearest] @ plane, dim=1), distances[nearest]


def _rims(distances: Tensor) -> Tensor:
    """After how many of the points, nearest first but for ties, a layer ends: all counts below len(distances)."""
    before, after = distances.cummax(0).values[:-1], distances.flip(0).cummin(0).values.flip(0)[1:]
    return (after > before + _SAME).nonzero()[:, 0] + 1
