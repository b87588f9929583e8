"""The simplex equiangular tight frame: K unit vectors with every cosine -1/(K - 1), for every 2 <= K <= D + 1."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tightframe.choices import require_choice
from tightframe.prototypes.embedding import embedded, require_room
from tightframe.prototypes.value import Prototypes

SOURCES = {
    "canonical": "Kasarla et al. 2022, Maximum class separation as inductive bias in one matrix",
    "centred": "Papyan, Han & Donoho 2020, Prevalence of neural collapse",
    "haar": "Mezzadri 2007, How to generate random matrices from the classical compact groups",
}


def simplex(
    num_classes: int,
    dim: int | None = None,
    *,
    pose: str = "canonical",
    seed: int = 0,
    scale: float = 1.0,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float64,
) -> Prototypes:
    """K vectors of length `scale` with all cosines -1/(K - 1), the least largest cosine there is for K <= D + 1.

    Poses, which differ by an orthogonal map only:
        canonical: lower triangular; the first vector is e_1, the last two differ in coordinate K - 1 only.
        centred:   the rows of sqrt(K/(K - 1)) (I - 11'/K); needs dim >= K.
        haar:      canonical, turned by a random orthogonal map, uniform (Haar) and fixed by `seed`.

    `dim` is K - 1 by default (K for the centred pose); a larger one is padded with zeros, or filled by the turn.
    Raises: DimensionError unless 2 <= num_classes <= dim + 1 (dim for centred), ChoiceError for another pose,
    RangeError unless scale is positive and finite.

    >>> from tightframe.prototypes.simplex import simplex
    >>> simplex(3).vectors[0].tolist()
    [1.0, 0.0]
    """
    require_choice(pose, SOURCES, "pose")
    centred = pose == "centred"
    if dim is None:
        dim = max(num_classes if centred else num_classes - 1, 1)
    if centred:
        require_room("a centred simplex", num_classes, dim, dim, "dim")
        vectors = torch.full(
            (num_classes, num_classes), -1 / math.sqrt(num_classes * (num_classes - 1)), dtype=torch.float64
        )
        vectors.fill_diagonal_(math.sqrt((num_classes - 1) / num_classes))
    else:
        require_room("a simplex", num_classes, dim, dim + 1, "dim + 1")
        vectors = _canonical(num_classes) if pose == "canonical" else _turned(num_classes, dim, seed)
    provenance = {"constructor": "simplex", "num_classes": num_classes, "dim": dim, "pose": pose, "scale": scale}
    if pose == "haar":
        provenance["seed"] = seed
    return Prototypes(
        embedded(vectors, dim, scale=scale, device=device, dtype=dtype), {**provenance, "source": SOURCES[pose]}
    )


def _columns(num_classes: int) -> tuple[Tensor, Tensor]:
    """What column j of the canonical pose holds on its diagonal, and everywhere below: both (K - 1,).

    Kasarla's recursion scales column j by sqrt(1 - 1/m^2) for m = K - 1, ..., K - j; the product telescopes.
    """
    left = torch.arange(num_classes - 1, 0, -1, dtype=torch.float64)  # vectors that are still equal after column j
    diagonal = (num_classes * left / ((num_classes - 1) * (left + 1))).sqrt()
    return diagonal, -diagonal / left


def _canonical(num_classes: int) -> Tensor:
    diagonal, below = _columns(num_classes)
    vectors = below.repeat(num_classes, 1).tril_(-1)
    vectors.diagonal().copy_(diagonal)
    return vectors


def _turned(num_classes: int, dim: int, seed: int) -> Tensor:
    """The canonical pose times K - 1 rows of a Haar-random orthogonal matrix: running sums, as columns are constant."""
    generator = torch.Generator().manual_seed(seed)
    gaussian = torch.randn(dim, num_classes - 1, generator=generator, dtype=torch.float64)
    basis, triangle = torch.linalg.qr(gaussian)
    rows = (basis * triangle.diagonal().sign()).T  # without the signs LAPACK's convention would bias the rotation
    diagonal, below = _columns(num_classes)
    vectors = torch.zeros(num_classes, dim, dtype=torch.float64)
    torch.cumsum(below[:, None] * rows, dim=0, out=vectors[1:])
    vectors[:-1] += diagonal[:, None] * rows
    return vectors
