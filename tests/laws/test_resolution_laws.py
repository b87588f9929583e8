"""Laws of resolution: a small scatter in the span of the class means, beside a large one, is right or called poor."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from laws.statistics_oracle import REAL, RECORD, ROUTES, Array, Rows
from tightframe import ClassStatistics, measure
from tightframe.errors import GeometryWarning, ResolutionWarning
from variants import VARIANTS

SLOW = pytest.mark.slow
QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck), "phases": [Phase.generate]}  # shrinking is slow
FUNCTIONS = {
    name: VARIANTS[name]
    for name in ("nc1", "nc1_sample_centred", "nc1_discriminant", "within_in_mean_span", "vci", "directional_cdnv")
}
RIGHT = 0.05  # relative, of a value without a warning
RIGHT_MEASURED = 1e-3  # float32 deviations, of outliers above all, leave means no more digits


@dataclass(frozen=True)
class ResolutionPlan:
    """Noise of std 1 across the span of the class means, of std 10^inside in it; `turned` mixes all features."""

    seed: int
    dtype: torch.dtype
    classes: int
    across: int  # dimensions outside the span
    each: int
    inside: float
    offset: float
    apart: float
    outlier: float
    balanced: bool


def resolution_plans(each: tuple[int, ...] = (20, 60, 200)) -> st.SearchStrategy[ResolutionPlan]:
    def plan(dtype: torch.dtype, inside: st.SearchStrategy[float]) -> st.SearchStrategy[ResolutionPlan]:
        return st.builds(
            ResolutionPlan,
            seed=st.integers(0, 2**32 - 1),
            dtype=st.just(dtype),
            classes=st.integers(2, 8),
            across=st.one_of(st.integers(1, 6), st.integers(7, 40), st.integers(7, 40)),
            each=st.sampled_from(each),
            inside=inside,
            offset=st.sampled_from([0.0, 0.0, 1.0, 10.0]),
            apart=st.sampled_from([1.0, 1.0, 10.0]),
            outlier=st.sampled_from([1.0, 1.0, 30.0, 1000.0]),
            balanced=st.booleans(),
        )

    single = plan(torch.float32, st.floats(-6, -1))
    return st.one_of(single, single, single, plan(torch.float64, st.one_of(st.just(-9.0), st.floats(-9, -3))))


def resolution_rows(plan: ResolutionPlan) -> Rows:
    rng = np.random.default_rng(plan.seed)
    span, dim = plan.classes - 1, plan.classes - 1 + plan.across
    labels = np.arange(plan.classes * plan.each) % plan.classes
    if not plan.balanced:
        labels = np.concatenate([labels, rng.choice(plan.classes // 2 + 1, size=len(labels))])
        rng.shuffle(labels)
    across = rng.normal(size=(len(labels), plan.across))
    across[rng.integers(len(labels))] *= plan.outlier
    for k in range(plan.classes):
        across[labels == k] -= across[labels == k].mean(0)  # class means stay in the span
    means = np.linalg.qr(rng.normal(size=(span, span)))[0] * rng.uniform(0.5, 2, size=span)
    means = plan.apart * np.concatenate([means, -0.5 * means.sum(0, keepdims=True)])
    inside = means[labels] + 10**plan.inside * rng.normal(size=(len(labels), span))
    turn = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    features = plan.offset + np.concatenate([inside, across], 1) @ turn
    return Rows(torch.from_numpy(features).to(plan.dtype), torch.from_numpy(labels), plan.classes)


# ---------------------------------------------------------------------- the truth


def resolution_truth(rows: Rows) -> dict[str, float]:
    """In an orthonormal basis of the span of the class means, in extended precision: nothing cancels there."""
    features, labels, classes = rows.features.double().numpy().astype(REAL), rows.labels.numpy(), rows.classes
    counts = np.bincount(labels, minlength=classes).astype(REAL)
    first = features[0]
    means = np.stack([(features[labels == k] - first).mean(0) for k in range(classes)])
    deviations = features - first - means[labels]
    centred = means - means.mean(0)
    basis = _orthonormal(centred[:-1])
    inside = deviations @ basis.T
    outside = deviations - inside @ basis
    rows_of = {
        "nc1": (centred @ basis.T) / np.sqrt(REAL(classes)),
        "nc1_sample_centred": ((means - counts @ means / counts.sum()) @ basis.T) / np.sqrt(REAL(classes)),
        "nc1_discriminant": (np.sqrt(counts / counts.sum())[:, None] * (means - counts @ means / counts.sum()))
        @ basis.T,
    }
    within = inside.T @ inside / counts.sum()
    values = {name: _trace_of_quotient(within, each.T @ each) / classes for name, each in rows_of.items()}
    values["within_in_mean_span"] = float((inside**2).sum() / (deviations**2).sum())
    values["directional_cdnv"] = _directional(deviations, labels, means, counts)
    values["vci"] = _vci(inside, outside, rows_of["nc1"].T @ rows_of["nc1"])
    return values


def _orthonormal(rows: Array) -> Array:
    """Gram-Schmidt, each row twice."""
    basis = np.zeros((0, rows.shape[1]), REAL)
    for row in rows:
        for _ in range(2):
            row = row - (basis @ row) @ basis
            row = row / np.sqrt((row * row).sum())
        basis = np.concatenate([basis, row[None]])
    return basis


def _trace_of_quotient(a: Array, b: Array) -> float:
    return float(np.trace(np.linalg.solve(b.astype(float), a.astype(float))))


def _directional(deviations: Array, labels: Array, means: Array, counts: Array) -> float:
    total, pairs = REAL(0), 0
    for i in range(len(means)):
        for j in range(i):
            gap = means[i] - means[j]
            along = (deviations @ gap) ** 2
            both = sum(along[labels == k].sum() / counts[k] for k in (i, j))
            total, pairs = total + both / 2 / (gap @ gap) ** 2, pairs + 1
    return float(total / pairs)


def _vci(inside: Array, outside: Array, between: Array) -> float:
    """tr((A + B)^-1 A) / rank, A what the scatter inside has that the scatter outside doesn't explain."""
    scale = np.sqrt((inside**2).mean())
    left, explaining = (inside / scale).astype(float), outside.astype(float)
    left = left - explaining @ np.linalg.lstsq(explaining, left, rcond=1e-8)[0]
    own = (left.T @ left / len(left)) * float(scale) ** 2
    return float(np.trace(np.linalg.solve(own + between.astype(float), own)) / len(own))


# ---------------------------------------------------------------------- 5. resolution


def resolved(name: str, value: ClassStatistics) -> tuple[float, float | None]:
    """A measure, and the largest resolution that a warning's digit may stand for, if there is one."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        it = FUNCTIONS[name](value).item()
    stated = [str(each.message) for each in told if each.category is ResolutionWarning]
    assert len(stated) + sum(each.category is GeometryWarning for each in told) == len(told)
    if not stated:
        return it, None
    found = re.search(r"its resolution of ([-+.e\d]+)", stated[0])
    assert found is not None
    stated_digit = float(found.group(1))
    return it, stated_digit + 0.5 * 10.0 ** np.floor(np.log10(stated_digit) + 1e-9)


def wrong_resolution(plan: ResolutionPlan) -> list[str]:
    """A line for each measure on a path that is wrong without a warning, or further off than the warning says."""
    rows = resolution_rows(plan)
    truth, rng, wrong = resolution_truth(rows), np.random.default_rng(plan.seed + 1), []
    for route, follow in ROUTES.items():
        value, lines, worst, where = follow(rows, rng), [], 0.0, ""
        for name, want in truth.items():
            it, resolution = resolved(name, value)
            if resolution is None:
                error = abs(it - want) / want
                fine = error <= RIGHT
                if not error <= worst:
                    worst, where = error, name
            else:
                fine = np.isnan(it) or abs(it - want) <= resolution
            if not fine or it < 0:
                lines.append(f"{route}: {name} is {it!r} for {want!r}, resolution {resolution}")
        RECORD["5. resolution, without a warning"].add(worst, f"{route}, {where}, {plan}")
        wrong += lines
    return wrong


@settings(max_examples=12, **QUIET)
@given(plan=resolution_plans())
def test_what_is_not_resolved_is_told(plan: ResolutionPlan) -> None:
    assert not (wrong := wrong_resolution(plan)), "\n".join(wrong)


@SLOW
@pytest.mark.timeout(1800)
@settings(max_examples=220, **QUIET)
@given(plan=st.one_of(resolution_plans(), resolution_plans(), resolution_plans((20, 60, 200, 1000))))
def test_what_is_not_resolved_is_told_at_length(plan: ResolutionPlan) -> None:
    assert not (wrong := wrong_resolution(plan)), "\n".join(wrong)


# ---------------------------------------------------------------------- 5. measure() looks a second time


def wrong_measured(plan: ResolutionPlan) -> list[str]:
    """A line if NC1 of `measure` isn't right, or comes with a warning."""
    rows = resolution_rows(plan)
    want = resolution_truth(rows)["nc1"]
    layer = torch.nn.Linear(rows.features.shape[1], rows.classes, dtype=plan.dtype)
    batches = list(zip(rows.features.split(100), rows.labels.split(100), strict=True))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        it = measure(layer, batches, metrics=["nc1"], progress=False).values["nc1"]
    error = abs(it - want) / want
    RECORD["5. NC1 of measure()"].add(error, str(plan))
    lines = [] if error <= RIGHT_MEASURED else [f"NC1 is {it!r} for {want!r}, off by {error:.2g}"]
    return lines + [f"warned: {each.message}" for each in told if each.category is ResolutionWarning]


@settings(max_examples=12, **QUIET)
@given(plan=resolution_plans())
def test_measure_resolves_what_lies_in_the_span_of_the_means(plan: ResolutionPlan) -> None:
    assert not (wrong := wrong_measured(plan)), "\n".join(wrong)


@SLOW
@pytest.mark.timeout(1800)
@settings(max_examples=60, **QUIET)
@given(plan=resolution_plans())
def test_measure_resolves_what_lies_in_the_span_of_the_means_at_length(plan: ResolutionPlan) -> None:
    assert not (wrong := wrong_measured(plan)), "\n".join(wrong)
