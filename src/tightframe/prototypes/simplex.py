"""The simplex equiangular tight frame: K unit vectors with every cosine -1/(K - 1), for every 2 <= K <= D + 1."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tightframe.choices import require_choice
from tightframe.codes.exact import polytopes
from tightframe.prototypes.construction import Facts, construction, require_room

SOURCES = {
    "canonical": "Kasarla et al. 2022, Maximum class separation as inductive bias in one matrix",
    "centred": "Papyan, Han & Donoho 2020, Prevalence of neural collapse",
    "haar": "Mezzadri 2007, How to generate random matrices from the classical compact groups",
}


@construction(SOURCES["canonical"])
def simplex(
    num_classes: int, dim: int | None = None, *, pose: str = "canonical", seed: int = 0
) -> tuple[Tensor, Facts]:
    """K unit vectors with all cosines -1/(K - 1), the smallest possible largest cosine for K <= D + 1.

    Poses differ only by an orthogonal map:
        canonical: lower triangular; the first vector is e_1, the last two differ in coordinate K - 1 only.
        centred:   the rows of sqrt(K/(K - 1)) (I - 11'/K); needs dim >= K.
        haar:      canonical, rotated by a random orthogonal map, uniform (Haar) and fixed by `seed`.

    `dim` is K - 1 by default (K for the centred pose); additional dimensions are zero, or filled by the rotation.
    Returns: (K, dim) unit vectors.
    Raises: DimensionError unless 2 <= num_classes <= dim + 1 (dim for centred), ChoiceError for an unknown pose.

    >>> from tightframe.prototypes.simplex import simplex
    >>> simplex(3).vectors[0].tolist()
    [1.0, 0.0]
    """
    require_choice(pose, SOURCES, "pose")
    centred = pose == "centred"
    if dim is None:
        dim = max(num_classes if centred else num_classes - 1, 1)
    if centred:
        require_room("a centred simplex", num_classes, dim, dim, "D")
        off_diagonal = -1 / math.sqrt(num_classes * (num_classes - 1))
        vectors = torch.full((num_classes, num_classes), off_diagonal, dtype=torch.float64)
        vectors.fill_diagonal_(math.sqrt((num_classes - 1) / num_classes))
    else:
        require_room("a simplex", num_classes, dim, dim + 1, "D + 1")
        vectors = polytopes.simplex(num_classes) if pose == "canonical" else _turned(num_classes, dim, seed)
    return vectors, {"source": SOURCES[pose]}


def _turned(num_classes: int, dim: int, seed: int) -> Tensor:
    """The canonical pose times K - 1 rows of a Haar-random orthogonal matrix: running sums, as columns are constant."""
    generator = torch.Generator().manual_seed(seed)
    gaussian = torch.randn(dim, num_classes - 1, generator=generator, dtype=torch.float64)
    basis, triangle = torch.linalg.qr(gaussian)
    rows = (basis * triangle.diagonal().sign()).T  # the signs remove the bias of LAPACK's convention
    diagonal, below = polytopes.simplex_columns(num_classes)
    vectors = torch.zeros(num_classes, dim, dtype=torch.float64)
    torch.cumsum(below[:, None] * rows, dim=0, out=vectors[1:])
    vectors[:-1] += diagonal[:, None] * rows
    return vectors
