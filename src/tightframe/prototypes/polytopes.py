"""Orthonormal frames and the regular polytopes other than the simplex: orthoplex, hypercube, polygon."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tightframe.codes.exact import polytopes
from tightframe.prototypes.aim import Aim
from tightframe.prototypes.construction import construction, require_room

PERNICI = "Pernici et al. 2021, Regular polytope networks"


@construction(PERNICI, aim=Aim("orthogonality", "cosines 0 between all vectors"))
def orthonormal(num_classes: int, dim: int | None = None) -> Tensor:
    """The first K coordinate axes; all cosines are 0. `dim` is K by default.

    Returns: (K, dim) unit vectors.
    Raises: DimensionError unless 2 <= num_classes <= dim.
    Source: Pernici et al. 2021.

    >>> from tightframe.prototypes import orthonormal
    >>> orthonormal(2, 3).vectors.tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """
    dim = max(num_classes, 1) if dim is None else dim
    require_room("an orthonormal frame", num_classes, dim, dim, "D")
    return torch.eye(num_classes, dtype=torch.float64)


@construction(PERNICI)
def orthoplex(num_classes: int, dim: int | None = None) -> Tensor:
    """The first K of e_1, ..., e_D, -e_1, ..., -e_D: cosines 0 and -1, the best possible for K >= D + 2.

    `dim` is ceil(K / 2) by default.

    Returns: (K, dim) unit vectors.
    Raises: DimensionError unless 2 <= num_classes <= 2 dim.
    Source: Pernici et al. 2021; optimal by Rankin 1955.

    >>> from tightframe.prototypes import orthoplex
    >>> (orthoplex(4).vectors + 0.0).tolist()
    [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]
    """
    dim = max((num_classes + 1) // 2, 1) if dim is None else dim
    require_room("an orthoplex", num_classes, dim, 2 * dim, "2 D")
    return polytopes.orthoplex(num_classes, dim)


@construction(PERNICI)
def hypercube(num_classes: int, dim: int | None = None) -> Tensor:
    """K separated vertices (±1, ..., ±1)/sqrt(D) of the cube: cosines 1 - 2 Hamming distance / D.

    `dim` is ceil(log2 K) by default (Pernici's choice). For a larger `dim` the vertices are the first K words of a
    binary linear code; nothing is padded, and more coordinates give larger angles.

    Returns: (K, dim) unit vectors.
    Raises: DimensionError unless 2 <= num_classes <= 2^dim.
    Source: Pernici et al. 2021.

    >>> from tightframe.prototypes import hypercube
    >>> cube = hypercube(8)  # neighbours differ in one of three coordinates: cosine 1 - 2/3
    >>> cube.vectors.shape, round(cube.certificate.max_cosine, 6)
    (torch.Size([8, 3]), 0.333333)
    """
    dim = max(num_classes - 1, 1).bit_length() if dim is None else dim
    require_room("a hypercube", num_classes, dim, 2 ** max(min(dim, 63), 0), "2^D")
    return polytopes.hypercube(num_classes, dim)


@construction(PERNICI)
def polygon(num_classes: int, dim: int = 2) -> Tensor:
    """The corners of the regular K-gon, anticlockwise from e_1: largest cosine cos(2 pi / K), optimal.

    Coordinates are accurate to an ulp. For `dim` above 2 zeros are appended.

    Returns: (K, dim) unit vectors.
    Raises: DimensionError unless num_classes, dim >= 2.
    Source: Pernici et al. 2021.

    >>> from tightframe.prototypes import polygon
    >>> (polygon(4).vectors + 0.0).tolist()
    [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]
    """
    require_room("a polygon", num_classes, dim, math.inf, fewest=2)
    return polytopes.polygon(num_classes)
