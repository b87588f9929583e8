"""Sharp codes from generalised quadrangles: the points of the elliptic quadric in five projective dimensions."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from tightframe.codes.exact.fields import Field


def elliptic_quadric(prime: int, degree: int) -> Tensor:
    """(q + 1)(q³ + 1) vectors in q (q² - q + 1) dimensions, q = p^m: cosine -1/q for points on a line, else 1/q².

    Collinearity is a strongly regular graph; its least eigenvalue's eigenspace, where these vectors lie, has the
    Gram matrix of the cosines for projector, up to a factor.
    Source: Cameron, Goethals & Seidel 1978; Levenshtein 1992 for the optimality.
    """
    field = Field(prime, degree)
    q = field.order
    points, collinear = _points_and_lines(field)
    gram = torch.full(collinear.shape, 1 / q**2, dtype=torch.float64).masked_fill_(collinear, -1 / q).fill_diagonal_(1)
    dim = q * (q**2 - q + 1)
    basis = torch.randn(len(points), dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for _ in range(3):  # again, because the condition of the random start costs digits
        basis = gram @ basis
        factor = torch.linalg.cholesky(basis.T @ basis)
        basis = torch.linalg.solve_triangular(factor, basis.T, upper=False).T.contiguous()
    return basis * math.sqrt(len(points) / dim)


def _points_and_lines(field: Field) -> tuple[Tensor, Tensor]:
    """The quadric's points (K, 6), first non-zero coordinate 1, and which pairs lie on one of its lines, (K, K)."""
    plus, times = field.plus, field.times
    elements = torch.arange(field.order)
    parabola = plus(times(elements, elements), elements)
    rootless = (plus(parabola[:, None], elements) != 0).all(dim=0)
    constant = rootless.nonzero()[0]  # t² + t + c has no root, so x4² + x4 x5 + c x5² vanishes at 0 only

    def form(coordinates: Iterable[Tensor]) -> Tensor:
        a, b, c, d, e, f = coordinates
        anisotropic = plus(plus(times(e, e), times(e, f)), times(constant, times(f, f)))
        return plus(plus(times(a, b), times(c, d)), anisotropic)

    space = torch.cartesian_prod(*[elements] * 6)
    leading = space.gather(1, (space != 0).int().argmax(dim=1, keepdim=True))[:, 0]
    points = space[(leading == 1) & (form(space.T) == 0)]
    sums = (plus(coordinate[:, None], coordinate) for coordinate in points.T)
    return points, form(sums) == 0
