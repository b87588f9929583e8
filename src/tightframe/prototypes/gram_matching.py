"""`gram_matching`: vectors with a Gram matrix nearest to a target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from tightframe.checks import Array, as_tensor
from tightframe.codes import Search, searching
from tightframe.codes.search.running import Running, generator_of
from tightframe.codes.search.sphere import descend
from tightframe.codes.search.starts import batch_size
from tightframe.codes.sizes import require_sizes
from tightframe.errors import DimensionError, NonFiniteError, RangeError, ShapeError
from tightframe.memory import require_memory
from tightframe.numerics import float64_device, unit_rows
from tightframe.prototypes.aim import Aim
from tightframe.prototypes.construction import Facts, construction

_NUDGES = (1e-8, 0.1, 0.3)  # noise added to the truncated rows before descent, since they may lie on a ridge
_SMALL = 300  # maximum number of classes for which all nudges are tried
_STEPS = 1000
_EXACT = 1e-12  # residual, relative to the target's norm, at which the search ends
_SYMMETRY = 1e-9
_RANK = 1e-6  # smaller eigenvalues, relative to the largest, are rounding of a target in single precision
_AIM = Aim("a Gram matrix", "a Gram matrix near a target", "residual", "Frobenius distance", 0)


@searching
@construction("Papyan, Han & Donoho 2020", aim=_AIM)
def gram_matching(
    num_classes: int | None = None,
    dim: int | None = None,
    *,
    gram: Array | None = None,
    fixed_norms: bool = True,
    search: Search,
) -> tuple[Tensor, Facts]:
    """K vectors in R^D whose Gram matrix is nearest to a target in the Frobenius norm.

    With `fixed_norms` the target's diagonal fixes the lengths of rows, and L-BFGS on the sphere starts from its leading
    eigenvectors, then from random rows; the result is the best local optimum. Otherwise lengths are free, and
    truncation to the D largest positive eigenvalues is the optimum (Eckart & Young 1936).

    For the simplex ETF's Gram matrix and K > D + 1 unit vectors, |G - T|_F is at least K sqrt(1/D - 1/(K-1)). Every
    centred tight frame attains this, even if two vectors coincide: the objective does not separate vectors.

    Args:
        num_classes: K. Default: the size of `gram`.
        dim: D. Default: the number of positive eigenvalues of the target, above 1e-6 of the largest.
        gram: the target, a (K, K) symmetric matrix with a positive diagonal, not necessarily a Gram matrix. Default:
            the simplex ETF's.
        search: limits, seed and warm start, or its fields as arguments. The score is the residual.

    Shape: target (K, K), dim D; vectors (K, D).
    Returns: (K, D) vectors with the target's lengths. Ctrl-C ends the search with the best result so far.
    Provenance: also `residual`, |V V^T - gram|_F, and `gram`: "simplex ETF" or "given".
    Raises: DimensionError if K < 2 or D < 1, or without `num_classes` and `gram`; ShapeError, NonFiniteError or
        RangeError that names the target's entry; RangeError without memory; the errors of `Search`.
    Source: Papyan, Han & Donoho 2020 for the ETF's Gram; Eckart & Young 1936 for the truncation.

    >>> from tightframe.prototypes import gram_matching
    >>> gram_matching(4, 3).provenance["residual"] < 1e-12
    True
    """
    given = None if gram is None else require_symmetric(gram, "gram")
    if num_classes is None:
        if given is None:
            raise DimensionError("gram matching needs num_classes=K, or gram=target of shape (K, K).")
        num_classes = len(given)
    K, D = require_sizes(num_classes, 1 if dim is None else dim, "num_classes")
    target = (_simplex_gram(K) if given is None else _require_gram(given, K)).to(float64_device(search.device))
    if dim is None:
        values = torch.linalg.eigvalsh(target)
        D = int((values > _RANK * values[-1]).sum())
    running = Running(partial(_residual, target), search, (K, D), _goal(target))
    warm = running.warm_start
    if not fixed_norms:
        running.search = replace(search, rounds=1)  # in closed form

    def play(index: int) -> None:
        if not fixed_norms:
            running.offer(truncation(target, D), "truncation")
        elif index == 0:
            running.offer(nearest_rows(target, D, search.seed, stop=running.stopped), "truncation")
            if warm is not None:
                running.offer(_best_descent(target, warm[None].to(target), running.stopped), "warm start")
        else:
            noise = torch.randn(
                batch_size(K * K), K, min(K, D), generator=generator_of(search, index), dtype=torch.float64
            )
            running.offer(_best_descent(target, noise.to(target), running.stopped), "random")

    vectors = running.run(play)
    named = {"gram": "simplex ETF"} if gram is None else {"gram": "given", "source": "Eckart & Young 1936"}
    return vectors, {**running.facts, "residual": running.best, **named}


def truncation(gram: Tensor, dim: int) -> Tensor:
    """Rows (K, min(K, dim)) with the Gram matrix of rank `dim` nearest to a symmetric (K, K): Eckart & Young 1936.

    These are the leading eigenvectors times the square roots of their eigenvalues; negative ones count as zero.
    """
    values, directions = torch.linalg.eigh(gram)
    return (directions * values.clamp(min=0).sqrt())[:, -dim:].flip(1).contiguous()


def nearest_rows(gram: Tensor, dim: int, seed: int, *, stop: Callable[[], bool] = lambda: False) -> Tensor:
    """Rows (K, min(K, dim)) of lengths sqrt(G_kk) at a local minimum of |V V^T - G|_F, from or near the truncation."""
    truncated = truncation(gram, dim)
    corrected = unit_rows(truncated) * gram.diagonal().sqrt()[:, None]
    if _residual(gram, corrected) <= _goal(gram):
        return corrected
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(truncated.shape, generator=generator, dtype=torch.float64).to(truncated)
    nudges = gram.new_tensor(_NUDGES if len(gram) <= _SMALL else _NUDGES[:1])
    return _best_descent(gram, truncated + nudges[:, None, None] * noise, stop)


def _best_descent(gram: Tensor, starts: Tensor, stop: Callable[[], bool]) -> Tensor:
    lengths = gram.diagonal().sqrt()[:, None]
    points = descend(unit_rows(starts), GramDistance(gram), steps=_STEPS, memory=20, stop=stop)
    return min(lengths * points, key=partial(_residual, gram))


class GramDistance:
    """|V V^T - G|_F^2 / |G|_F^2 for rows V of lengths sqrt(G_kk), as a function of their directions for `descend`."""

    def __init__(self, gram: Tensor):
        self.gram, self.lengths, self.size = gram, gram.diagonal().sqrt()[:, None], gram.square().sum()

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        rows = self.lengths * points
        errors = rows @ rows.mT - self.gram
        return errors.square().sum((1, 2)) / self.size, self.lengths * (errors @ rows) * (4 / self.size)


def require_symmetric(matrix: Array, what: str) -> Tensor:
    """An exactly symmetric float64 copy (K, K) of a finite matrix that is symmetric to 1e-9 of its largest entry.

    Raises: ShapeError, NonFiniteError or RangeError that names the entry.
    """
    matrix = as_tensor(matrix, what)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ShapeError(f"{what} must be square, (K, K); got shape {tuple(matrix.shape)}.")
    matrix = matrix.detach().to(float64_device(matrix.device), torch.float64)
    if not matrix.isfinite().all():
        i, j = (~matrix.isfinite()).nonzero()[0].tolist()
        raise NonFiniteError(f"{what} must be finite; entry ({i}, {j}) is {matrix[i, j].item()}.")
    uneven = (matrix - matrix.mT).abs() > _SYMMETRY * matrix.abs().max()
    if uneven.any():
        i, j = uneven.nonzero()[0].tolist()
        raise RangeError(
            f"{what} must be symmetric; entry ({i}, {j}) is {matrix[i, j]:g} and ({j}, {i}) is {matrix[j, i]:g}."
        )
    return (matrix + matrix.mT) / 2


def _require_gram(gram: Tensor, K: int) -> Tensor:
    if len(gram) != K:
        raise ShapeError(f"gram must be (K, K) = ({K}, {K}) for num_classes={K}; got {tuple(gram.shape)}.")
    if not (gram.diagonal() > 0).all():
        k = int((gram.diagonal() <= 0).nonzero()[0])
        raise RangeError(f"gram must have a positive diagonal (squared lengths); entry ({k}, {k}) is {gram[k, k]:g}.")
    return gram


def _simplex_gram(K: int) -> Tensor:
    require_memory(16 * K * K, f"a Gram matrix of {K:,} vectors", advice="Reduce num_classes.")
    return torch.full((K, K), -1 / (K - 1), dtype=torch.float64).fill_diagonal_(1)


def _goal(gram: Tensor) -> float:
    return _EXACT * float(torch.linalg.matrix_norm(gram))


def _residual(gram: Tensor, rows: Tensor) -> float:
    return float(torch.dist(rows @ rows.mT, gram))
