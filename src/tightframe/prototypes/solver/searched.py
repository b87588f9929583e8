"""What the searches for published objectives share: sizes that make sense, a continuation, and their result."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tightframe.errors import DimensionError, RangeError
from tightframe.prototypes.embedding import embedded
from tightframe.prototypes.solver import starts
from tightframe.prototypes.solver.search import Search
from tightframe.prototypes.solver.sphere import Objective, descend
from tightframe.prototypes.value import Prototypes

_LOWEST, _HIGHEST, _LAST = 1.0, 60.0, 1e5  # exponents of the first stage, mixed in a batch, and of the last
_STAGES, _STEPS = 14, 80  # and steps of descent in each


def require_sizes(num_classes: int, dim: int, scale: float, *, distinct: bool = True) -> None:
    """Raise DimensionError where (distinct) unit vectors don't exist, RangeError unless 0 < scale < inf."""
    if num_classes < 2 or dim < 1:
        raise DimensionError(f"prototypes need at least 2 classes and 1 dimension; got {num_classes} and {dim}.")
    if distinct and dim == 1 and num_classes > 2:
        raise DimensionError(f"on a line there are two unit vectors; got num_classes={num_classes} with dim=1.")
    if not 0 < scale < math.inf:
        raise RangeError(f"scale must be positive and finite; got {scale}.")


def exponent_unit(bound: float) -> float:
    """What exponents scale with: how near to one a lower bound says the best cosine must be."""
    return 1 / (1 - min(bound, 1 - 1e-9))


def drawn(num_points: int, dim: int, seed: int, index: int) -> tuple[Tensor, str]:
    """The batch of starts (R, K, D) of a round, and its name: uniform, or with opposites in odd rounds for even K."""
    generator = torch.Generator().manual_seed((seed << 20) + index)
    kind = starts.antipodal if index % 2 and num_points % 2 == 0 else starts.free
    start = kind(num_points, dim, generator)
    return start.orbits.expand(start.representatives), start.name


def anneal(
    search: Search,
    points: Tensor,
    objective: Callable[[Tensor], Objective],
    name: str,
    *,
    unit: float,
) -> Tensor:
    """A batch of starts (R, M, D) lowered while the exponents of an objective rise; the best is offered every time.

    Args:
        objective: of exponents (R,), one a problem.
        unit: of the exponents. The first stage has 1 to 60 of them, each problem its own: where a start leads depends
            on it, and none is best everywhere.
    """
    if search.points is None:
        search.offer(points[0], name)  # for Ctrl-C in the first stage
    first = torch.logspace(math.log10(_LOWEST), math.log10(_HIGHEST), len(points) + 2, dtype=points.dtype)[1:-1]
    growth = (_LAST / first) ** (1 / (_STAGES - 1))
    for stage in range(_STAGES):
        exponents = (unit * first * growth**stage).to(points)
        smooth = objective(exponents)
        end = search.seconds + search.remaining / (_STAGES - stage)
        points = descend(
            points,
            smooth,
            steps=_STEPS,
            tolerance=1e-3 / exponents,
            stop=lambda end=end: search.seconds > end,  # type: ignore[misc]
        )
        search.offer(points[smooth(points)[0].argmin()], name)
        if search.remaining <= 0:
            break
    return points


def searched(
    vectors: Tensor,
    search: Search,
    arguments: dict[str, Any],
    *,
    device: torch.device | str | None,
    dtype: torch.dtype,
    source: str,
    **found: Any,
) -> Prototypes:
    """What a search found as Prototypes: `dim` and `scale` are among the arguments, which provenance repeats.

    Provenance also tells how the search went and what it found, but no seconds: equal searches give equal Prototypes.
    """
    told = {"rounds": search.round, "interrupted": search.interrupted, "start": search.start}
    return Prototypes(
        embedded(vectors, arguments["dim"], scale=arguments["scale"], device=device, dtype=dtype),
        {**arguments, **told, **found, "source": source},
    )
