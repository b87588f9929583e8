"""Labelled data for the laws: sizes of classes, their width, their distance from the origin, outliers."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations, cycle

import numpy as np
import torch
from torch import Tensor

from oracle import ORACLE, Sample
from tightframe import ClassStatistics, DecisionCounts
from tightframe.evidence import Evidence

COUNTED = ("cdnv_debiased", "between_trace_debiased", "trace_ratio_debiased", "log_me", "h_score_ledoit_wolf")
COUNTED += ("few_shot_error", "few_shot_error_1")
_SIZES = (1, 7, 130, 600, 33, 513, 2, 64, 700, 1, 512)  # batches of one, just above and below a group of rows, long


@dataclass(frozen=True)
class Scenario:
    """How many samples each class has, and of how many dimensions."""

    counts: tuple[int, ...]
    dim: int


SCENARIOS = {
    "balanced": Scenario((10,) * 6, 10),
    "zipf": Scenario((48, 24, 16, 12, 9, 8, 7, 6), 12),
    "more classes than dimensions": Scenario((9,) * 9, 4),
    "empty classes": Scenario((9, 0, 8, 12, 0, 7), 8),
    "single samples": Scenario((1, 14, 1, 9, 12), 9),
}


def draw(
    scenario: Scenario,
    *,
    offset: float = 0.0,
    spread: float = 0.1,
    dtype: type[np.floating] = np.float64,
    outliers: bool = False,
    seed: int = 0,
) -> Sample:
    """Normal classes about means of unit variance at `offset`; the first sample of each class stands first.

    With `outliers`, that first sample lies 1000 spreads away from the mean of its class.
    """
    rng = np.random.default_rng(seed)
    classes, dim = len(scenario.counts), scenario.dim
    labels = np.repeat(np.arange(classes), scenario.counts)
    _, first = np.unique(labels, return_index=True)
    rest = rng.permutation(np.setdiff1d(np.arange(len(labels)), first))
    labels = labels[np.concatenate([first, rest])]
    deviations = rng.normal(size=(len(labels), dim))
    if outliers:
        deviations[: len(first)] *= 1000 / np.linalg.norm(deviations[: len(first)], axis=1, keepdims=True)
    features = offset + rng.normal(size=(classes, dim))[labels] + spread * deviations
    weight = rng.normal(size=(classes, dim))
    bias = rng.normal(size=classes) - weight.sum(1) * offset  # otherwise the offset alone would decide
    outside = offset + rng.normal(size=(17, dim))
    return Sample(features.astype(dtype), labels, classes, weight, bias, outside.astype(dtype))


def repeated(sample: Sample, copies: int) -> Sample:
    """Every row so many times."""
    return replace(sample, features=np.tile(sample.features, (copies, 1)), labels=np.tile(sample.labels, copies))


def truth(sample: Sample) -> dict[str, float]:
    """The oracle's value of every metric, and of its variants."""
    values = {name: evaluate(sample) for name, evaluate in ORACLE.items()}
    present = np.unique(sample.labels)
    return values | {"one_vs_rest_distance": _one_vs_rest_distance(tuple(map(tuple, sample.weight[present].tolist())))}


@cache
def _one_vs_rest_distance(rows: tuple[tuple[float, ...], ...]) -> float:
    """Smallest distance of a unit row to the convex hull of the others, by trying every face of that hull."""
    units = [np.array(row) / np.linalg.norm(row) for row in rows]
    smallest = np.inf
    for k, unit in enumerate(units):
        rest = [other for j, other in enumerate(units) if j != k]
        for size in range(1, min(len(rest), len(unit) + 1) + 1):
            for corners in combinations(rest, size):
                edges = np.array(corners[1:]).reshape(size - 1, len(unit)) - corners[0]
                steps = np.linalg.lstsq(edges.T, unit - corners[0])[0]
                if (steps >= 0).all() and steps.sum() <= 1:  # the foot of the perpendicular lies on this face
                    smallest = min(smallest, np.linalg.norm(unit - corners[0] - steps @ edges))
    return float(smallest)


def tensors(sample: Sample) -> tuple[Tensor, Tensor]:
    """Features and labels for the package."""
    return torch.from_numpy(sample.features), torch.from_numpy(sample.labels)


def statistics_of(sample: Sample, per_class: bool = True) -> ClassStatistics:
    return ClassStatistics.from_features(*tensors(sample), sample.num_classes, per_class=per_class)


def projected(statistics: ClassStatistics) -> ClassStatistics:
    """The same samples in an orthonormal basis of the span of the centred means, the whole spread kept."""
    centred = statistics.centred_means()
    basis = torch.linalg.svd(centred, full_matrices=False).Vh[: torch.linalg.matrix_rank(centred)].mT
    means = (statistics.means - statistics.global_mean()) @ basis
    within = basis.mT @ statistics.require_within("projecting") @ basis
    return ClassStatistics(statistics.counts, means, statistics.spread, within)


def evidence_of(sample: Sample, statistics: ClassStatistics | None = None) -> Evidence:
    """All that metrics may use; decisions and out-of-distribution mean come from `statistics` too."""
    statistics = statistics_of(sample) if statistics is None else statistics
    weight, bias = torch.from_numpy(sample.weight), torch.from_numpy(sample.bias)
    decisions = DecisionCounts(statistics, weight, bias)
    decisions.update(*tensors(sample))
    outside = torch.from_numpy(sample.outside)
    nowhere = torch.zeros(len(outside), dtype=torch.int64)
    return Evidence(statistics, weight, bias, decisions, ClassStatistics.from_features(outside, nowhere, 1))


def batches(features: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The rows in order, in batches of all sizes."""
    start = 0
    for size in cycle(_SIZES):
        yield features[start : start + size], labels[start : start + size]
        start += size
        if start >= len(labels):
            return


def wrong(values: dict[str, float], expected: dict[str, float], rtol: float, atol: float = 1e-12) -> list[str]:
    """A line for each value that is neither within `rtol` of what was expected, relatively, nor within `atol`."""
    lines = []
    for name, value in values.items():
        if np.isnan(value) and np.isnan(expected[name]):
            continue  # undefined, as it should be
        error = abs(value - expected[name])
        if not (error <= atol or error <= rtol * abs(expected[name])):
            lines.append(f"{name}: {value!r}, expected {expected[name]!r}, off by {error / abs(expected[name]):.1e}")
    return lines


def assert_fields_close(value: ClassStatistics, expected: ClassStatistics, tolerance: float) -> None:
    """Every field within `tolerance` of the expected one, relative to the largest entry of that field."""
    assert torch.equal(value.counts, expected.counts)
    assert torch.equal(value.class_ids, expected.class_ids)
    for name in ("means", "spread", "within", "class_within"):
        mine, theirs = getattr(value, name), getattr(expected, name)
        assert (mine is None) == (theirs is None), name
        if theirs is not None:
            scale = theirs.nan_to_num().abs().max().item()
            torch.testing.assert_close(
                mine, theirs, rtol=0, atol=tolerance * scale, equal_nan=True, msg=lambda text, n=name: f"{n}: {text}"
            )


def assert_fields_equal(value: ClassStatistics, expected: ClassStatistics) -> None:
    """Every field equal, digit for digit; NaN equals NaN."""
    for name in ("counts", "class_ids", "means", "spread", "within", "class_within"):
        mine, theirs = getattr(value, name), getattr(expected, name)
        assert (mine is None) == (theirs is None), name
        if theirs is not None:
            assert mine.dtype is theirs.dtype, name
            torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True, msg=name)
