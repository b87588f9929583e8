"""`seli`: the simplex-encoded-labels interpolation geometry, the limit of cross-entropy on imbalanced classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tightframe.numerics import rank_tolerance
from tightframe.theory.class_groups import Counts, require_counts


@dataclass(frozen=True, eq=False)
class Seli:
    """Gram matrices (K, K) float64 of classifier rows W and class means M, up to scale.

    Attributes:
        classifiers, means: W W^T and M M^T.
        logits: W M^T = P, the centring matrix, as for the simplex, for any counts; also classifiers @ means = P.
    """

    classifiers: Tensor
    means: Tensor
    logits: Tensor


def seli(counts: Counts) -> Seli:
    """The geometry for class counts n: W W^T = (P D P)^(1/2) and M M^T its pseudo-inverse, D = diag(n), P = I - 11^T/K.

    The limit of cross-entropy on unconstrained features as weight decay goes to zero, without bias; the simplex ETF for
    equal counts. Convergence is slow, logarithmic in the weight decay; see `cross_entropy_optimum`.
    Raises: EmptyClassError unless there are at least two counts, all positive.
    Source: Thrampoulidis et al. 2022 (Imbalance trouble), in compact form.

    >>> from tightframe.theory import seli
    >>> gram = seli([7, 7, 1, 1]).classifiers  # ratio 7: minority classifiers are orthogonal
    >>> bool(gram[2, 3].abs() < 1e-12)
    True
    """
    sizes = require_counts(counts)
    centring = torch.eye(len(sizes), dtype=torch.float64) - 1 / len(sizes)
    values, vectors = torch.linalg.eigh(centring @ torch.diag(sizes) @ centring)
    positive = values > rank_tolerance(vectors) * values[-1]  # the root would raise rounding to 1e-8
    roots = torch.where(positive, values, 1.0).sqrt()
    inverse = torch.where(positive, 1 / roots, 0.0)
    return Seli(
        vectors @ torch.diag(torch.where(positive, roots, 0.0)) @ vectors.mT,
        vectors @ torch.diag(inverse) @ vectors.mT,
        centring,
    )
