"""Memory plan: which scatter and folds are kept per layer within a budget."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tightframe.errors import LayerError, RangeError
from tightframe.statistics import CrossAccumulator, StatisticsAccumulator

FREE_SHARE = 4  # by default scatter may use 1/4 of the free memory
_FOLD_WORK = 1.3e10  # multiplications for the metrics of all folds; more work means fewer folds


@dataclass(frozen=True)
class LayerPlan:
    """The plan for a layer, equal in all processes: name, D, whether the pooled scatter and the scatter per class are
    kept, number of folds for standard errors (None: no folds), and whether the scatter per fold is kept."""

    name: str
    num_features: int
    covariance: bool
    per_class: bool = False
    folds: int | None = None
    fold_scatter: bool = True


@dataclass(frozen=True)
class Keep:
    """What a ranking of layers keeps in addition: folds of all layers, and their scatter per class if it is small.

    Attributes:
        class_scatter: largest number of entries, K D^2, of the scatter per class that `Measuring.per_class` asks for.
    """

    class_scatter: float


def planned(
    widths: Mapping[str, int],
    num_classes: int,
    budget: float,
    last: str,
    *,
    covariance: bool,
    per_class: bool,
    folds: int | None,
    keep: Keep | None = None,
) -> list[LayerPlan]:
    """The plan of each layer, in order of depth, for a budget in bytes.

    The requested D x D scatter is kept if it fits, first for the classifier's input (`last`). Only that one has folds:
    fewer folds if the budget is small, then folds without scatter. With `keep`, all layers have folds with scatter, and
    scatter per class within its bound, if these fit together."""
    order = sorted(widths, key=lambda name: name == last)
    if keep is not None and covariance:
        for plans in _ranked(widths, num_classes, per_class=per_class, folds=folds, keep=keep):
            if sum(_bytes(num_classes, plan) for plan in plans.values()) <= budget:
                return [plans[name] for name in order]
        per_class = False
    plans = {}
    for name in sorted(widths, key=lambda name: name != last):
        pooled = covariance and scatter_bytes(widths[name]) <= budget
        budget -= scatter_bytes(widths[name]) if pooled else 0
        own = per_class and num_classes * scatter_bytes(widths[name]) <= budget
        budget -= num_classes * scatter_bytes(widths[name]) if own else 0
        plan = LayerPlan(name, widths[name], pooled, own)
        for choice in _folded(plan, folds, num_classes) if name == last else ():
            if (needed := _fold_bytes(num_classes, choice)) <= budget:
                budget -= needed
                plan = choice
                break
        plans[name] = plan
    return [plans[name] for name in order]


def _ranked(
    widths: Mapping[str, int], num_classes: int, *, per_class: bool, folds: int | None, keep: Keep
) -> Iterator[dict[str, LayerPlan]]:
    """Plans with folds with scatter for all layers, best first: with scatter per class, then without; fewer folds."""
    for own in (True, False) if per_class else (False,):
        plans = {
            name: LayerPlan(name, dim, True, own and num_classes * dim**2 <= keep.class_scatter)
            for name, dim in widths.items()
        }
        numbers: list[int | None] = [*_halved(folds, num_classes, max(widths.values()))]
        for number in numbers or [None]:
            yield {name: replace(plan, folds=number) for name, plan in plans.items()}


def _bytes(num_classes: int, plan: LayerPlan) -> int:
    """Approximate memory in bytes of the plan's scatter, beyond means and variances."""
    memory, size = StatisticsAccumulator.memory, (num_classes, plan.num_features)
    kept = memory(*size, covariance=plan.covariance, per_class=plan.per_class, folds=plan.folds)
    return kept - memory(*size, covariance=False)


def scatter_bytes(num_features: int) -> int:
    """Approximate memory in bytes of D x D scatter during accumulation."""
    memory = StatisticsAccumulator.memory
    return memory(0, num_features) - memory(0, num_features, covariance=False)


def _folded(plan: LayerPlan, folds: int | None, num_classes: int) -> Iterator[LayerPlan]:
    """Variants of the plan with folds, best first: with scatter, with fewer folds, with means and variances only.

    If metrics take seconds per fold, fewer folds from the start.
    """
    for scatter in (True, False):
        for number in _halved(folds, num_classes, plan.num_features):
            yield replace(plan, folds=number, fold_scatter=scatter)


def _halved(folds: int | None, num_classes: int, num_features: int) -> list[int]:
    """The number of folds, a half and a quarter of it; without those whose metrics take too long."""
    halved = [folds >> halvings for halvings in range(3) if folds >> halvings >= 2] if folds else []
    D, K = num_features, num_classes
    most = _FOLD_WORK / (K * D * min(K, D) + D**3 / 8)
    return [number for number in halved if number <= most] or halved[-1:]


def _fold_bytes(num_classes: int, plan: LayerPlan) -> int:
    """Approximate additional memory in bytes of folds, for training and held-out samples."""
    scatter = {"covariance": plan.covariance, "per_class": plan.per_class}
    memory = StatisticsAccumulator.memory
    total = memory(num_classes, plan.num_features, **scatter)
    folded = memory(num_classes, plan.num_features, folds=plan.folds, fold_scatter=plan.fold_scatter, **scatter)
    return 2 * (folded - total)


def similarity_plan(widths: Mapping[str, int], budget: float, folds: int | None) -> tuple[int | None, int]:
    """Number of folds for the similarity of layers, or None for no folds; and the memory in bytes of their products.

    Folds may use half of the budget: fewer folds if it is small. Raises: LayerError for a single layer; RangeError if
    the products of all pairs of layers exceed the budget.
    """
    if len(widths) < 2:
        raise LayerError(
            'similarity compares layers, but only one is measured. Pass layers="auto"; for a model of a single block, '
            "pass names of layers."
        )
    needed = CrossAccumulator.memory(list(widths.values()))
    if needed > budget:
        raise RangeError(
            f"similarity needs {needed / 1e9:,.2f} GB for the products of all pairs of {len(widths)} layers, but "
            f"covariance_bytes leaves {budget / 1e9:,.2f} GB. Measure fewer layers, or raise covariance_bytes."
        )
    for halvings in range(3):
        number = (folds or 0) >> halvings
        folded = CrossAccumulator.memory(list(widths.values()), folds=number)
        if number >= 2 and folded <= budget / 2:
            return number, folded
    return None, needed


def left_out(
    plans: Sequence[LayerPlan], num_classes: int, *, per_class: bool, folds: int | None, keep: Keep | None = None
) -> list[str]:
    """Notes on requested statistics that the budget does not allow."""
    bound = math.inf if keep is None else keep.class_scatter
    wanted = [plan for plan in plans if per_class and num_classes * plan.num_features**2 <= bound]
    names = [plan.name for plan in wanted if not plan.per_class]
    notes = [f"the scatter per class exceeds covariance_bytes at: {', '.join(names)}."] if names else []
    last = plans[-1]
    if folds is not None and last.folds is None:
        notes.append("there are no standard errors: two folds of means and variances exceed covariance_bytes.")
    elif folds is not None and last.covariance and not last.fold_scatter:
        notes.append(
            f"only measures of means and variances have standard errors, from {last.folds} folds: the scatter per fold "
            "exceeds covariance_bytes."
        )
    elif last.folds != folds:
        notes.append(f"standard errors are from {last.folds} folds: {folds} folds would take too much time or memory.")
    if keep is not None and folds is not None and (bare := [plan.name for plan in plans[:-1] if plan.folds is None]):
        notes.append(f"the scatter per fold of all layers exceeds covariance_bytes; no errors at: {', '.join(bare)}.")
    return notes
