"""Prototypes whose distances follow the costs between classes, and measures of their fit.

With distances d_ij of prototypes, costs D_ij and ratios r_ij = d_ij / D_ij, all measures use the pairs i < j.
Source: Sainte Fare Garnot & Landrieu 2021 (Leveraging Class Hierarchies with Metric-Guided Prototype Learning).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, pdist

from tightframe.checks import Array
from tightframe.errors import ChoiceError, CostMatrixError, DimensionError, RangeError, ShapeError
from tightframe.hierarchy import Hierarchy, cost_of, require_cost
from tightframe.numerics import float64_device, on_cpu, unit_rows
from tightframe.prototypes.descent import descend
from tightframe.prototypes.embedding import embedded
from tightframe.prototypes.value import Prototypes

_SOURCE = "Sainte Fare Garnot & Landrieu 2021"
_START_ENTRIES = 200_000  # maximum entries of the K x K matrices of all starts, by default
_MAJORISATIONS = 100  # steps of all starts
_POLISHED = 4  # maximum number of best starts, and at most a fifth of all, for precise descent
_SOFTNESSES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-6, 1e-8)  # smooth |x| as sqrt(x^2 + softness^2), in stages
_FLAT = 1e-14
MOST_TRIPLETS = 50_000  # ranks use all triplets, or this many random ones

Objective = Literal["squared", "absolute", "rank"]
"""What `metric_guided` minimises: squared or absolute scale-free distortion, or the rank loss."""


# ---------------------------------------------------------------------- measures


def distortion(vectors: Tensor, cost: Tensor) -> Tensor:
    """Mean over pairs of |d_ij - D_ij| / D_ij: relative error of the unscaled distances; 0-d, in [0, inf).

    Args:
        vectors: (K, D) prototypes, K >= 2.
        cost: (K, K), symmetric and positive off the diagonal; see `require_cost`, which is not called here.

    Raises: ShapeError, CostMatrixError if the shapes don't fit.
    """
    return (_ratios(vectors, cost) - 1).abs().mean()


def scale_free_distortion(vectors: Tensor, cost: Tensor) -> Tensor:
    """The smallest `distortion` over multiples of the vectors, min_s mean |s r_ij - 1|; 0-d, in [0, 1).

    Exact: the best scale is `optimal_scale`. Arguments and errors: as for `distortion`.
    """
    ratios = _ratios(vectors, cost)
    return (ratios * _absolute_scale(ratios) - 1).abs().mean()


def squared_scale_free_distortion(vectors: Tensor, cost: Tensor) -> Tensor:
    """min_s mean (s r_ij - 1)^2, which is CV^2 / (1 + CV^2) for the coefficient of variation of r; 0-d, in [0, 1).

    Its best scale is `optimal_squared_scale`. Arguments and errors: as for `distortion`.
    """
    ratios = _ratios(vectors, cost)
    return (ratios * _squared_scale(ratios) - 1).square().mean()  # 1 - (sum r)^2 / (P sum r^2) would cancel near 0


def optimal_scale(vectors: Tensor, cost: Tensor) -> Tensor:
    """The scale s > 0 that minimises mean |s r_ij - 1|: one over the median of r weighted by r; 0-d.

    Arguments and errors: as for `distortion`.
    """
    return _absolute_scale(_ratios(vectors, cost))


def optimal_squared_scale(vectors: Tensor, cost: Tensor) -> Tensor:
    """The scale s > 0 that minimises mean (s r_ij - 1)^2: sum r / sum r^2; 0-d.

    Arguments and errors: as for `distortion`.
    """
    return _squared_scale(_ratios(vectors, cost))


def rank_loss(vectors: Tensor, cost: Tensor, triplets: Tensor) -> Tensor:
    """RankNet on triplets (i, j, k): mean cross-entropy of sigmoid(d_ij - d_ik) against [D_ij > D_ik]; 0-d, > 0.

    If D_ij = D_ik the target is 1/2, as in RankNet (Burges et al. 2005): i should be as far from j as from k.
    (The paper's released code uses 0, which pulls j towards i.) The loss depends on the vectors' scale.

    Args:
        vectors, cost: as for `distortion`.
        triplets: (T, 3) integers from `all_triplets` or `random_triplets`.

    Raises: ShapeError, CostMatrixError if the shapes don't fit.
    """
    _require_fit(vectors, cost)
    if triplets.ndim != 2 or triplets.shape[1] != 3 or not len(triplets):
        raise ShapeError(f"triplets must be (T, 3) with T >= 1; got {tuple(triplets.shape)}.")
    vectors = vectors - vectors.detach().mean(0)  # cdist uses the Gram matrix, which would lose digits
    distances = torch.cdist(vectors, vectors)
    return rank_cross_entropy(distances, cost.to(distances), triplets)


def rank_cross_entropy(values: Tensor, order: Tensor, triplets: Tensor) -> Tensor:
    """RankNet on values (K, K): mean cross-entropy of sigmoid(v_ij - v_ik) against [order_ij > order_ik], ties 1/2."""
    i, j, k = triplets.mT
    target = (1 + (order[i, j] - order[i, k]).sign()) / 2
    return binary_cross_entropy_with_logits(values[i, j] - values[i, k], target.to(values))


def all_triplets(num_classes: int) -> Tensor:
    """(K (K-1) (K-2) / 2, 3) int64, every i with every j < k, all distinct."""
    j, k = torch.triu_indices(num_classes, num_classes, offset=1, device="cpu")
    i = torch.arange(num_classes, device="cpu").repeat_interleave(len(j))
    j, k = j.repeat(num_classes), k.repeat(num_classes)
    return torch.stack([i, j, k], dim=1)[(i != j) & (i != k)]


def has_few_triplets(num_classes: int) -> bool:
    """Whether there are at most `MOST_TRIPLETS` triplets, so that all are used."""
    return num_classes * (num_classes - 1) * (num_classes - 2) // 2 <= MOST_TRIPLETS


def chosen_triplets(num_classes: int, seed: int) -> Tensor:
    """(T, 3) int64: all triplets, or `MOST_TRIPLETS` random ones."""
    few = has_few_triplets(num_classes)
    return all_triplets(num_classes) if few else random_triplets(num_classes, MOST_TRIPLETS, seed=seed)


def random_triplets(num_classes: int, number: int, *, seed: int = 0) -> Tensor:
    """(number, 3) int64: independent draws of distinct (i, j, k)."""
    return drawn_triplets(num_classes, number, generator=torch.Generator().manual_seed(seed))


def drawn_triplets(
    num_classes: int, number: int, *, generator: torch.Generator | None = None, device: torch.device | None = None
) -> Tensor:
    """`random_triplets` from a generator, by default torch's own."""
    if num_classes < 3:
        raise RangeError(f"triplets need at least three classes; got {num_classes}.")
    i, j, k = (torch.randint(num_classes - gone, (number,), generator=generator, device=device) for gone in range(3))
    j = j + (j >= i)  # uniform on the classes without i, and then without i and j
    low, high = torch.minimum(i, j), torch.maximum(i, j)
    k = k + (k >= low)
    return torch.stack([i, j, k + (k >= high)], dim=1)


def _require_fit(vectors: Tensor, cost: Tensor) -> None:
    if vectors.ndim != 2 or len(vectors) < 2:
        raise ShapeError(f"vectors must be (K, D) with K >= 2; got {tuple(vectors.shape)}.")
    if cost.shape != (len(vectors), len(vectors)):
        raise CostMatrixError(
            f"costs must be (K, K) = ({len(vectors)}, {len(vectors)}) for {len(vectors)} vectors; "
            f"got {tuple(cost.shape)}."
        )


def _pairs(matrix: Tensor) -> Tensor:
    """The entries above the diagonal, (K, K) -> (P,), in the order of `pdist`."""
    i, j = torch.triu_indices(len(matrix), len(matrix), offset=1, device=matrix.device)
    return matrix[i, j]


def _ratios(vectors: Tensor, cost: Tensor) -> Tensor:
    _require_fit(vectors, cost)
    return pdist(vectors) / _pairs(cost).to(vectors)


def _squared_scale(ratios: Tensor) -> Tensor:
    return ratios.sum() / ratios.square().sum()


def _absolute_scale(ratios: Tensor) -> Tensor:
    # mean |s r - 1| = mean r |s - 1/r|, which is least if s is the median of 1/r weighted by r
    ordered = ratios.sort().values
    mass = ordered.detach().cumsum(0)
    return 1 / ordered[torch.searchsorted(mass, mass[-1:] / 2).clamp(max=len(mass) - 1)].squeeze(0)


# ---------------------------------------------------------------------- construction


@on_cpu
def metric_guided(
    cost: Array | Hierarchy,
    dim: int,
    *,
    objective: Objective = "squared",
    spherical: bool = False,
    separation: float = 0.0,
    starts: int | None = None,
    metric: bool = True,
    seed: int = 0,
    scale: float = 1.0,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float64,
) -> Prototypes:
    """Prototypes whose distances are proportional to the costs between classes, as far as `dim` allows.

    The result is centred and multiplied by its optimal scale (then by `scale`), so that distances approximate costs.
    On the sphere vectors have length `scale` and distances are chords. Costs are then rescaled to the mean square
    2K / (K-1) of chords between centred unit vectors; otherwise points would concentrate on a nearly flat cap.

    The search starts from classical scaling and from random points: majorisation (SMACOF, De Leeuw 1977) of all starts,
    then L-BFGS on the best few. The result is the best local optimum; for large K there are few starts.

    Args:
        cost: (K, K) costs between classes, or a tree, whose distances between leaves are the costs.
        objective: "squared" or "absolute" scale-free distortion, or the "rank" loss on distances in units of the costs
            (over all triplets, or 50,000 random ones).
        separation: weight of the mean over classes of the largest cosine to another class; on the sphere only.
        starts: number of starts. Default: at most 64 and at least 2, with starts * K^2 <= 200,000.
        metric: whether costs must satisfy the triangle inequality.

    Provenance: also `value`, the final objective (with the separation term), and `names` for a tree.
    Raises: CostMatrixError that names the entry, pair or triple; DimensionError for dim < 1, ChoiceError for the
    objective, RangeError for other invalid arguments.
    Source: Sainte Fare Garnot & Landrieu 2021.

    >>> from tightframe.hierarchy import absolute_difference_cost
    >>> line = metric_guided(absolute_difference_cost(4), 2)
    >>> round(torch.dist(line.vectors[0], line.vectors[3]).item(), 9)
    3.0
    """
    arguments: dict[str, Any] = {
        "dim": dim,
        "objective": objective,
        "spherical": spherical,
        "separation": separation,
        "starts": starts,
        "seed": seed,
    }
    costs = cost_of(cost)
    vectors, value = _embed(costs, metric=metric, **arguments)
    provenance = {"constructor": "metric_guided", "num_classes": len(vectors), **arguments, "scale": scale}
    if isinstance(cost, Hierarchy):
        provenance["names"] = cost.class_names
    provenance |= {"value": value, "source": _SOURCE}
    return Prototypes(embedded(vectors, dim, scale=scale, device=device, dtype=dtype), provenance)


@on_cpu
def metric_guided_nodes(hierarchy: Hierarchy, dim: int, **options: Any) -> Prototypes:
    """`metric_guided` over all M nodes of a tree: prototypes for the classes and for inner nodes.

    Row m is node m: the first K are classes (`nodes[:K]`, also guided by the inner nodes), the rest are inner nodes;
    the provenance has `names`. Options, errors and source: as for `metric_guided`.
    """
    nodes = metric_guided(hierarchy.distances("all"), dim, **options)
    named = {"constructor": "metric_guided_nodes", "num_classes": hierarchy.num_classes, "names": hierarchy.names}
    return Prototypes(nodes.vectors, {**nodes.provenance, **named})


def _embed(
    cost: Tensor,
    dim: int,
    *,
    objective: Objective,
    spherical: bool,
    separation: float,
    starts: int | None,
    seed: int,
    metric: bool,
) -> tuple[Tensor, float]:
    """Vectors (K, at most dim) and the objective's value there."""
    if objective not in ("squared", "absolute", "rank"):
        raise ChoiceError(f'objective must be "squared", "absolute" or "rank"; got {objective!r}.')
    if not 0 <= separation < math.inf or (separation and not spherical):
        raise RangeError(
            f"separation must be a finite weight >= 0, and 0 unless spherical, since cosines depend on the origin; "
            f"got {separation} with spherical={spherical}."
        )
    if starts is not None and starts < 1:
        raise RangeError(f"starts must be at least 1; got {starts}.")
    if dim < 1:
        raise DimensionError(f"prototypes need at least one dimension; got dim={dim}.")
    cost = require_cost(cost.to(float64_device(cost.device)), metric=metric)
    num = len(cost)
    if num < 2:
        raise CostMatrixError(f"prototypes are guided by the costs of at least two classes; got {num}.")
    if objective == "rank" and num < 3:
        raise CostMatrixError(f"ranks compare the costs of at least three classes; got {num}.")
    cost_of_sphere = cost * math.sqrt(2 * num / (num - 1)) / _pairs(cost).square().mean().sqrt()
    target = cost_of_sphere if spherical else cost / _pairs(cost).mean()  # mean 1, since tolerances are absolute
    loss = _loss_of(cost, target, objective, spherical, separation, seed)

    def exact(points: Tensor) -> float:
        value = loss(points, softness=0.0).item()
        return value if math.isfinite(value) else math.inf

    width = min(dim, num if spherical else num - 1)  # more can't help
    number = starts or max(2, min(64, _START_ENTRIES // num**2))
    candidates = _majorise(_first_points(target, width, number, seed), target, spherical)
    promising = sorted(candidates, key=exact)[: max(1, min(_POLISHED, number // 5))]
    softnesses = _SOFTNESSES if objective == "absolute" else (0.0,)
    most = 100 if objective == "absolute" else 300  # steps for each softness
    for place, points in enumerate(promising):
        if not separation and exact(points) < _FLAT:
            break  # the costs are met; further descent gives nothing
        for softness in softnesses:
            points = descend(partial(loss, softness=softness), points, most=most)
        promising[place] = min(promising[place], points, key=exact)
    points = min(promising, key=exact)
    if spherical:
        vectors = unit_rows(points)
    else:
        points = points - points.mean(0)
        best_scale = optimal_scale if objective == "absolute" else optimal_squared_scale
        vectors = points * best_scale(points, cost)
        points = points * best_scale(points, target)
    return vectors, exact(points)


def _loss_of(
    cost: Tensor, target: Tensor, objective: Objective, spherical: bool, separation: float, seed: int
) -> Callable[..., Tensor]:
    """The objective as a function of points (K, width) of any length, and of the softness of absolute values."""
    off_diagonal = 1 - torch.eye(len(target), dtype=target.dtype, device=target.device)
    weights = off_diagonal / off_diagonal.sum()
    if objective == "rank":
        triplets = chosen_triplets(len(cost), seed).to(cost.device)
    size = target.sum() / cost.sum()  # size of a unit of cost on the sphere

    def loss(points: Tensor, softness: float) -> Tensor:
        vectors = unit_rows(points) if spherical else points
        if objective == "rank":
            unit = 1 / size if spherical else optimal_squared_scale(vectors, cost)
            value = rank_loss(unit * vectors, cost, triplets)
        else:
            # off the sphere the size of points is free, so this is scale-free
            error = torch.cdist(vectors, vectors) / (target + 1 - off_diagonal) - off_diagonal
            bent = error.square() if objective == "squared" else torch.hypot(error, error.new_tensor(softness))
            value = (weights * bent).sum()
        if separation:
            cosines = vectors @ vectors.mT - 2 * (1 - off_diagonal)
            value = value + separation * cosines.amax(1).mean()
        return value

    return loss


def _first_points(target: Tensor, width: int, number: int, seed: int) -> Tensor:
    """(number, K, width): classical scaling (Torgerson 1952), then random points."""
    num = len(target)
    squares = target.square()
    centred = squares - squares.mean(0) - squares.mean(1, keepdim=True) + squares.mean()
    values, directions = torch.linalg.eigh(-centred / 2)
    scaling = (directions * values.clamp(min=0).sqrt())[:, -width:].flip(1)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(number, num, width, generator=generator, dtype=torch.float64).to(target)
    noise[0] = scaling
    return noise


def _majorise(points: Tensor, target: Tensor, spherical: bool) -> Tensor:
    """SMACOF steps on many starts (S, K, width) for the squared relative error of the distances."""
    num = len(target)
    diagonal = torch.eye(num, dtype=target.dtype, device=target.device)
    weights = 1 / (target + diagonal).square() - diagonal
    laplacian = torch.diag(weights.sum(1)) - weights
    inverse = torch.linalg.inv(laplacian + 1 / num)  # the pseudo-inverse, on centred points
    for _ in range(_MAJORISATIONS):
        distances = torch.cdist(points, points)
        pull = torch.where(distances > 0, weights * target / distances, 0.0)
        points = inverse @ (pull.sum(-1, keepdim=True) * points - pull @ points)
        if spherical:
            points = unit_rows(points)
    return points
