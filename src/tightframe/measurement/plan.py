"""What is kept of each layer within a memory budget: scatter, folds, and their scatter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tightframe.statistics import StatisticsAccumulator

FREE_SHARE = 4  # of the free memory, one part in so many is for scatter unless the caller says otherwise
_FOLD_WORK = 1.3e10  # numbers multiplied for the metrics of all folds: above that fewer folds do


@dataclass(frozen=True)
class LayerPlan:
    """What all processes agree on about a layer: its name, D, which scatter is kept, pooled and of each class, how many
    folds samples are dealt to for standard errors (None for none), and whether the scatter of each fold is kept too."""

    name: str
    num_features: int
    covariance: bool
    per_class: bool = False
    folds: int | None = None
    fold_scatter: bool = True


def planned(
    widths: Mapping[str, int],
    num_classes: int,
    budget: float,
    last: str,
    *,
    covariance: bool,
    per_class: bool,
    folds: int | None,
) -> list[LayerPlan]:
    """What is kept of each layer, in order of depth: the D x D scatter that is asked for and fits into a budget of
    bytes, that of the classifier's input (`last`) before the others'; folds of that one alone, fewer of them where the
    budget is small, and then without their scatter."""
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
    return [plans[name] for name in sorted(widths, key=lambda name: name == last)]


def scatter_bytes(num_features: int) -> int:
    """About the memory of D x D scatter while it is accumulated."""
    memory = StatisticsAccumulator.memory
    return memory(0, num_features) - memory(0, num_features, covariance=False)


def _folded(plan: LayerPlan, folds: int | None, num_classes: int) -> Iterator[LayerPlan]:
    """The plan with folds, the best first: with their scatter, with fewer folds, with means and spreads alone.

    Where the metrics of one value take seconds there are fewer from the start.
    """
    halved = [folds >> halvings for halvings in range(3) if folds >> halvings >= 2] if folds else []
    D, K = plan.num_features, num_classes
    most = _FOLD_WORK / (K * D * min(K, D) + D**3 / 8)
    halved = [number for number in halved if number <= most] or halved[-1:]
    for scatter in (True, False):
        for number in halved:
            yield replace(plan, folds=number, fold_scatter=scatter)


def _fold_bytes(num_classes: int, plan: LayerPlan) -> int:
    """About what folds take beside the totals, of the training and of the held-out samples."""
    kept = {"covariance": plan.covariance, "per_class": plan.per_class}
    memory = StatisticsAccumulator.memory
    alone = memory(num_classes, plan.num_features, **kept)
    folded = memory(num_classes, plan.num_features, folds=plan.folds, fold_scatter=plan.fold_scatter, **kept)
    return 2 * (folded - alone)


def left_out(plans: Sequence[LayerPlan], *, per_class: bool, folds: int | None) -> list[str]:
    """Notes on what the budget doesn't hold."""
    names = [plan.name for plan in plans if per_class and not plan.per_class]
    notes = [f"the scatter of each class was beyond the memory budget at: {', '.join(names)}."] if names else []
    last = plans[-1]
    if folds is not None and last.folds is None:
        notes.append("no standard errors: even two folds of means and spreads are beyond the memory budget.")
    elif folds is not None and last.covariance and not last.fold_scatter:
        notes.append(
            f"standard errors are of means and spreads alone, from {last.folds} folds: the scatter of each fold is "
            "beyond the memory budget."
        )
    elif last.folds != folds:
        notes.append(f"standard errors are from {last.folds} folds: {folds} would take too much time or memory.")
    return notes
