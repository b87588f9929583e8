"""`metric_guided`: prototypes whose distances follow the costs between classes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from tightframe.checks import Array
from tightframe.codes.search.anneal import by_autograd
from tightframe.codes.search.sphere import descend
from tightframe.codes.sizes import require_dim
from tightframe.errors import ChoiceError, CostMatrixError, RangeError
from tightframe.hierarchy import Hierarchy, cost_of, require_cost
from tightframe.numerics import float64_device, unit_rows
from tightframe.prototypes.aim import Aim
from tightframe.prototypes.construction import Facts, construction
from tightframe.prototypes.distortions import optimal_scale, optimal_squared_scale, pairs_of
from tightframe.prototypes.ranking import rank_cross_entropy, triplets_for
from tightframe.prototypes.value import Prototypes

_SOURCE = "Sainte Fare Garnot & Landrieu 2021"
_AIM = Aim("costs", "distances proportional to the costs", "value", "squared distortion", 0)
_START_ENTRIES = 200_000  # maximum entries of the K x K matrices of all starts, by default
_MAJORISATIONS = 100  # steps of all starts
_POLISHED = 4  # maximum number of best starts, and at most a fifth of all, for precise descent
_SOFTNESSES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-6, 1e-8)  # smooth |x| as sqrt(x^2 + softness^2) and maxima, in stages
_STEPS = 300  # of descent, for each softness
_FLAT = 1e-14

Objective = Literal["squared", "absolute", "rank"]
"""What `metric_guided` minimises: squared or absolute scale-free distortion, or the rank loss."""


@construction(_SOURCE, aim=_AIM)
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
) -> tuple[Tensor, Facts]:
    """Prototypes whose distances are proportional to the costs between classes, as far as `dim` allows.

    The result is centred and multiplied by its optimal scale, so that distances approximate costs.
    On the sphere vectors have unit length and distances are chords. Costs are then rescaled to the mean square
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

    >>> import torch
    >>> from tightframe.prototypes import metric_guided
    >>> from tightframe.hierarchy import absolute_difference_cost
    >>> line = metric_guided(absolute_difference_cost(4), 2)
    >>> round(torch.dist(line.vectors[0], line.vectors[3]).item(), 9)
    3.0
    """
    if objective not in ("squared", "absolute", "rank"):
        raise ChoiceError(f'objective must be "squared", "absolute" or "rank"; got {objective!r}.')
    if not 0 <= separation < math.inf or (separation and not spherical):
        raise RangeError(
            f"separation must be a finite weight >= 0, and 0 unless spherical, since cosines depend on the origin; "
            f"got {separation} with spherical={spherical}."
        )
    if starts is not None and starts < 1:
        raise RangeError(f"starts must be at least 1; got {starts}.")
    dim, cost = require_dim(dim), cost_of(cost)
    cost = require_cost(cost.to(float64_device(cost.device)), metric=metric)
    num = len(cost)
    if num < 2:
        raise CostMatrixError(f"cost must have at least two classes; got {num}.")
    if objective == "rank" and num < 3:
        raise CostMatrixError(f"cost must have at least three classes to rank; got {num}.")
    cost_of_sphere = cost * math.sqrt(2 * num / (num - 1)) / pairs_of(cost).square().mean().sqrt()
    target = cost_of_sphere if spherical else cost / pairs_of(cost).mean()  # mean 1, since tolerances are absolute
    loss = _loss_of(cost, target, objective, spherical, separation, seed)

    def exact(points: Tensor) -> float:
        value = loss(points, softness=0.0).item()
        return value if math.isfinite(value) else math.inf

    width = min(dim, num if spherical else num - 1)  # more can't help
    number = starts or max(2, min(64, _START_ENTRIES // num**2))
    candidates = _majorise(_first_points(target, width, number, seed), target, spherical)
    promising = sorted(candidates, key=exact)[: max(1, min(_POLISHED, number // 5))]
    if separation or exact(promising[0]) >= _FLAT:  # else the costs are met; further descent gives nothing
        smooth = objective != "absolute" and not separation
        lowered = torch.stack(promising)
        for softness in (0.0,) if smooth else _SOFTNESSES:
            bent = by_autograd(partial(loss, softness=softness))
            lowered = descend(lowered, bent, steps=_STEPS, tolerance=1e-13, memory=20, flat=not spherical)
        promising += lowered
    points = min(promising, key=exact)
    if spherical:
        vectors = unit_rows(points)
    else:
        points = points - points.mean(0)
        best_scale = optimal_scale if objective == "absolute" else optimal_squared_scale
        vectors = points * best_scale(points, cost)
        points = points * best_scale(points, target)
    return vectors, {"value": exact(points), "aim": asdict(_aim(objective, separation))}


def _aim(objective: Objective, separation: float) -> Aim:
    """The aim with the objective that the provenance's value measures."""
    aim = _AIM
    if objective == "absolute":
        aim = replace(aim, caption="absolute distortion")
    elif objective == "rank":
        aim = replace(aim, goal="distances in the order of the costs", caption="rank loss", ideal=None)
    return replace(aim, caption=f"{aim.caption} with the separation term", ideal=None) if separation else aim


def metric_guided_nodes(hierarchy: Hierarchy, dim: int, **options: Any) -> Prototypes:
    """`metric_guided` over all M nodes of a tree: prototypes for the classes and for inner nodes.

    Row m is node m: the first K are classes (`nodes[:K]`, also guided by the inner nodes), the rest are inner nodes;
    the provenance has `names`. Options, errors and source: as for `metric_guided`.

    Returns: (M, dim) vectors.

    >>> from tightframe.hierarchy import Hierarchy
    >>> from tightframe.prototypes import metric_guided_nodes
    >>> tree = Hierarchy.from_nested({"all": {"pet": ["cat", "dog"], "tool": ["saw"]}})
    >>> nodes = metric_guided_nodes(tree, 3, starts=1)
    >>> nodes.vectors.shape, nodes.provenance["names"][:3]
    (torch.Size([6, 3]), ['cat', 'dog', 'saw'])
    """
    nodes = metric_guided(hierarchy.distances("all"), dim, **options)
    named = {"constructor": "metric_guided_nodes", "num_classes": hierarchy.num_classes, "names": hierarchy.names}
    return Prototypes(nodes.vectors, {**nodes.provenance, **named})


def _loss_of(
    cost: Tensor, target: Tensor, objective: Objective, spherical: bool, separation: float, seed: int
) -> Callable[..., Tensor]:
    """The objective as a function of points (..., K, width) of any length, and of the softness of absolute values."""
    off_diagonal = 1 - torch.eye(len(target), dtype=target.dtype, device=target.device)
    weights = off_diagonal / off_diagonal.sum()
    if objective == "rank":
        triplets = triplets_for(len(cost), seed).to(cost.device)
    size = target.sum() / cost.sum()  # size of a unit of cost on the sphere

    def loss(points: Tensor, softness: float) -> Tensor:
        vectors = unit_rows(points) if spherical else points
        if objective == "rank":
            distances = torch.cdist(vectors, vectors)
            ratios = distances / (cost + 1 - off_diagonal)
            unit = 1 / size if spherical else (ratios.sum((-2, -1)) / ratios.square().sum((-2, -1)))[..., None, None]
            value = rank_cross_entropy(unit * distances, cost, triplets)
        else:
            # off the sphere the size of points is free, so this is scale-free
            error = torch.cdist(vectors, vectors) / (target + 1 - off_diagonal) - off_diagonal
            bent = error.square() if objective == "squared" else torch.hypot(error, error.new_tensor(softness))
            value = (weights * bent).sum((-2, -1))
        if separation:
            cosines = vectors @ vectors.mT - 2 * (1 - off_diagonal)
            largest = softness * (cosines / softness).logsumexp(-1) if softness else cosines.amax(-1)
            value = value + separation * largest.mean(-1)
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
