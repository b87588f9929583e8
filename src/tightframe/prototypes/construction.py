"""The decorator that makes `Prototypes` from the vectors of a construction, and checks of sizes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from functools import wraps
from typing import Any, ParamSpec

import numpy as np
import torch
from torch import Tensor

from tightframe.codes import Search
from tightframe.codes.sizes import require_sizes
from tightframe.errors import DimensionError
from tightframe.hierarchy import Hierarchy
from tightframe.memory import require_memory
from tightframe.numerics import on_cpu
from tightframe.prototypes.aim import Aim
from tightframe.prototypes.value import Prototypes

P = ParamSpec("P")
Facts = dict[str, Any]


def construction(
    source: str, *, aim: Aim | None = None
) -> Callable[[Callable[P, Tensor | tuple[Tensor, Facts]]], Callable[P, Prototypes]]:
    """Make a construction of a function that returns vectors (K, d), or vectors and facts for their provenance.

    The provenance holds the function's name, its plain arguments, the facts, and the source and aim, which a fact may
    replace; an argument called `classes` is left out, since that entry is of a selection. The vectors are padded with
    zeros to the argument `dim`. The CPU is the default device.

    Args:
        source: the paper.
        aim: what the vectors are made for if that is not the largest smallest angle; their verdict begins with it.

    >>> import torch
    >>> from tightframe.prototypes import construction
    >>> @construction("my paper")
    ... def doubled(num_classes: int, dim: int) -> torch.Tensor:
    ...     return 2 * torch.eye(num_classes)
    >>> made = doubled(2, 3)
    >>> made.vectors.tolist(), made.provenance["source"]
    ([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]], 'my paper')
    """

    def decorate(build: Callable[P, Tensor | tuple[Tensor, Facts]]) -> Callable[P, Prototypes]:
        signature = inspect.signature(build)

        @wraps(build)
        def call(*args: P.args, **kwargs: P.kwargs) -> Prototypes:
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{build.__name__}() {error}.") from None
            bound.apply_defaults()
            for name, value in bound.arguments.items():
                if isinstance(value, np.generic) or (isinstance(value, Tensor) and value.ndim == 0):
                    bound.arguments[name] = value.item()
            differentiating = torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext()
            with differentiating:
                made = build(*bound.args, **bound.kwargs)
            vectors, facts = made if isinstance(made, tuple) else (made, {})
            dim = bound.arguments.get("dim") or vectors.shape[1]
            if dim > vectors.shape[1]:
                require_vectors_fit(len(vectors), dim)
                vectors = torch.nn.functional.pad(vectors, (0, dim - vectors.shape[1]))
            search = bound.arguments.get("search")
            if search is not None and search.device is not None:
                vectors = vectors.to(search.device)
            sizes = {"num_classes": len(vectors), "dim": dim}
            plain = {name: value for name, each in bound.arguments.items() for name, value in _plain(name, each)}
            declared = {"source": source} if aim is None else {"source": source, "aim": asdict(aim)}
            return Prototypes(vectors, {"constructor": build.__name__, **plain, **sizes, **declared, **facts})

        call.source = source  # type: ignore[attr-defined]
        call.__signature__ = signature.replace(return_annotation=Prototypes)  # type: ignore[attr-defined]
        return on_cpu(call)

    return decorate


def _plain(name: str, value: Any) -> list[tuple[str, Any]]:
    """The entries of an argument in a provenance; none for matrices and statistics."""
    if name == "classes":  # in a provenance, the classes of a selection
        return []
    if isinstance(value, Search):
        return [("seed", value.seed)] if value.warm_start is None else [("seed", value.seed), ("warm_start", True)]
    if isinstance(value, Hierarchy):
        return [("names", value.class_names)]
    return [(name, value)] if value is None or isinstance(value, (bool, int, float, str)) else []


def require_classes(num_classes: int, dim: int) -> tuple[int, int]:
    """K and D as int.

    Raises: DimensionError unless K distinct unit vectors in R^D exist, K >= 2 and D >= 1; RangeError without memory.
    """
    K, D = require_sizes(num_classes, dim, "num_classes", distinct=True)
    require_vectors_fit(K, D)
    return K, D


def require_room(
    construction: str, num_classes: int, dim: int, most: float, bound: str = "", *, fewest: int = 1
) -> None:
    """Raise DimensionError unless 2 <= num_classes <= most and dim >= fewest, and RangeError without memory.

    Args:
        bound: the formula of `most` in D, if it depends on D.
    """
    K, D = require_sizes(num_classes, dim, "num_classes")
    if fewest > D:
        raise DimensionError(f"dim must be at least {fewest} for {construction}; got {D}.")
    if most < K:
        limit, advice = (f"{most} ({bound}) for {construction} in {D} dimensions", "Increase dim, or use")
        if not bound:
            limit, advice = f"{most} for {construction}", "Use"
        raise DimensionError(
            f"num_classes must be at most {limit}; got {K}. {advice} prototypes.best({K}, {D}), which separates any "
            "number of vectors."
        )
    limit = f"{construction[:1].upper()}{construction[1:]} has at most {bound} vectors; "
    require_vectors_fit(K, D, f"{limit}prototypes.best({K}, D) separates any number." if bound else "")


def require_vectors_fit(num_classes: int, dim: int, advice: str = "") -> None:
    """Raise RangeError unless a matrix (K, D) and a copy fit in the free memory."""
    what = f"a matrix of {num_classes:,} vectors in {dim:,} dimensions"
    require_memory(16 * num_classes * dim, what, advice=f"Reduce num_classes or dim. {advice}".rstrip())
