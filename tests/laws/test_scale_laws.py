"""Laws of the statistics: a common scale changes no unitless measure; a class however large leaves the others alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from laws.statistics_oracle import RECORD, ROUTES, SCREENED, Rows, may_be_left_out, measure_error, measures
from tightframe import ClassStatistics, StatisticsAccumulator
from tightframe.errors import RangeError

SLOW = pytest.mark.slow
QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck), "phases": [Phase.generate]}  # shrinking is slow
SINGLE, DOUBLE = 1e-6, 1e-12  # relative

# ---------------------------------------------------------------------- 2. scale

POWERS = {"within_trace": 2, "between_trace": 2, "between_trace_debiased": 2, "cdnv_dist4": -2, "unc3_of_products": 2}
POWERS |= {"bias_collapse": 1, "bias_collapse_sample_centred": 1}  # without a bias
NO_POWER = {"equinorm_logarithmic"}  # of the scale


@dataclass(frozen=True)
class ScalePlan:
    """Normal classes, rounded so that multiplying by 2^exponent is exact."""

    seed: int
    classes: int
    dim: int
    items: int
    dtype: torch.dtype
    offset: float
    width: float
    outlier: bool
    exponent: int


def scale_plans() -> st.SearchStrategy[ScalePlan]:
    wide, narrow = st.sampled_from([torch.float32, torch.bfloat16]), st.just(torch.float16)

    def plan(dtypes: st.SearchStrategy[torch.dtype], largest: int) -> st.SearchStrategy[ScalePlan]:
        return st.builds(
            ScalePlan,
            seed=st.integers(0, 2**32 - 1),
            classes=st.integers(2, 12),
            dim=st.integers(1, 40),
            items=st.one_of(st.integers(30, 120), st.integers(30, 700), st.integers(30, 700), st.integers(4000, 5000)),
            dtype=dtypes,
            offset=st.sampled_from([0.0, 0.0, 10.0]),
            width=st.sampled_from([0.1, 0.3, 1.0]),
            outlier=st.booleans(),
            exponent=st.integers(-largest, largest),
        )

    return st.one_of(plan(wide, 100), plan(wide, 100), plan(wide, 100), plan(narrow, 8))


def scaled_rows(plan: ScalePlan) -> tuple[Rows, Rows]:
    """The rows, and the same times 2^exponent."""
    rng = np.random.default_rng(plan.seed)
    items = max(plan.items, 2 * (plan.classes + plan.dim))  # with fewer than D some measures are degenerate, see there
    labels = np.concatenate([np.arange(plan.classes), rng.integers(plan.classes, size=items - plan.classes)])
    rng.shuffle(labels)
    deviations = plan.width * rng.normal(size=(items, plan.dim))
    if plan.outlier:
        deviations[rng.integers(items)] *= 30  # its square is far above the median
    means = rng.normal(size=(plan.classes, plan.dim))
    if plan.dim < 3:  # where they might lie close together
        means += 3 * np.arange(plan.classes)[:, None]
    features = plan.offset + means[labels] + deviations
    features = torch.from_numpy(np.round(features * 2.0**16) / 2.0**16).to(plan.dtype)
    scaled = (features.double() * 2.0**plan.exponent).to(plan.dtype)
    assert torch.equal(scaled.double(), features.double() * 2.0**plan.exponent)
    rows = Rows(features, torch.from_numpy(labels), plan.classes)
    return rows, replace(rows, features=scaled)


def check_scale(plan: ScalePlan) -> None:
    assert not (wrong := wrong_scales(plan)), "\n".join(wrong)


def wrong_scales(plan: ScalePlan) -> list[str]:
    """A line for each route by which the scaled rows have other measures."""
    rows, scaled = scaled_rows(plan)
    weight = torch.from_numpy(np.random.default_rng(plan.seed + 1).normal(size=(plan.classes, plan.dim)))
    expected = measures(rows.whole(), weight)
    wrong = []
    for route, follow in ROUTES.items():
        rng = np.random.default_rng(plan.seed + 2)
        try:
            value = follow(scaled, rng)
        except RangeError:
            assert route in SCREENED and may_be_left_out(scaled.features), f"{route} refused the rows"
            RECORD["2. scale"].add(0.0, "")
            continue
        worst, where = 0.0, ""
        if not ((value.spread >= 0).all() and value.within.trace() >= 0):
            worst, where = np.inf, f"{route}: a negative trace"
        for name, it in measures(value, weight).items():
            if name in NO_POWER:
                continue
            it, want = it / 2.0 ** (POWERS.get(name, 0) * plan.exponent), expected[name]
            error = measure_error(name, it, want, expected)
            if not error <= worst:
                worst, where = error, f"{route}, {name}: {it!r} for {want!r}"
        RECORD["2. scale"].add(worst, f"{where}, {plan}")
        if not worst <= 2 * SINGLE:
            wrong.append(f"{where}, off by {worst:.2g}")
    return wrong


@pytest.mark.filterwarnings("ignore::tightframe.errors.GeometryWarning")
@settings(max_examples=12, **QUIET)
@given(plan=scale_plans())
def test_scale_changes_no_unitless_measure(plan: ScalePlan) -> None:
    check_scale(plan)


@SLOW
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore::tightframe.errors.GeometryWarning")
@settings(max_examples=220, **QUIET)
@given(plan=scale_plans())
def test_scale_changes_no_unitless_measure_at_length(plan: ScalePlan) -> None:
    check_scale(plan)


@pytest.mark.parametrize("exponent", [-100, -60, 60, 100])
def test_batches_of_extreme_size_are_left_out_whole_and_told(exponent: int) -> None:
    """Every third of twelve unvalidated batches; what the others gave stays, and validated batches are right after."""
    generator = torch.Generator().manual_seed(0)
    labels, features = torch.arange(12_000) % 3, torch.randn(12_000, 8, generator=generator)
    batches = list(zip(features.split(1000), labels.split(1000), strict=True))
    accumulator = StatisticsAccumulator(3, 8)
    for number, (rows, own) in enumerate(batches):
        extreme = number % 3 == 0
        accumulator.update(rows * 2.0**exponent if extreme else rows, own, validate=False)
    for _ in range(2):
        with pytest.raises(RangeError, match=r"^4 unvalidated batch\(es\) were left out"):
            accumulator.compute()
    state = dict(accumulator.named_buffers())
    added = torch.arange(8192)  # in two steps of 4,096 rows; the rest still waits
    added = added[(added // 1000) % 3 != 0]
    expected = ClassStatistics.from_features(features[added], labels[added], 3)
    assert torch.equal(state["whole.counts"], expected.counts)
    means = state["whole.anchors"] + state["whole.sums"] / state["whole.counts"][:, None]
    torch.testing.assert_close(means, expected.means, rtol=1e-12, atol=1e-12)
    accumulator.reset()
    accumulator.update(features * 2.0**exponent, labels, validate=True)
    expected = ClassStatistics.from_features(features, labels, 3)
    torch.testing.assert_close(accumulator.compute().spread / 4.0**exponent, expected.spread, rtol=SINGLE, atol=0)


# ---------------------------------------------------------------------- 3. neighbours


@dataclass(frozen=True)
class NeighbourPlan:
    """Normal classes, each at a size of its own, and one more whose rows are as large as 10^large."""

    seed: int
    classes: int
    dim: int
    items: int
    dtype: torch.dtype
    offset: float
    small: tuple[int, ...]  # a class's rows are 10^ one of these in size
    large: int
    place: str
    tight: bool  # whether the large rows lie close to each other


def neighbour_plans() -> st.SearchStrategy[NeighbourPlan]:
    def plan(
        dtype: torch.dtype, small: list[tuple[int, ...]], large: list[int], offset: list[float]
    ) -> st.SearchStrategy[NeighbourPlan]:
        return st.builds(
            NeighbourPlan,
            seed=st.integers(0, 2**32 - 1),
            classes=st.integers(2, 12),
            dim=st.one_of(st.integers(1, 8), st.integers(9, 40), st.integers(9, 40)),
            items=st.one_of(st.integers(30, 700), st.integers(30, 700), st.integers(4000, 5000)),
            dtype=st.just(dtype),
            offset=st.sampled_from(offset),
            small=st.sampled_from(small),
            large=st.sampled_from(large),
            place=st.sampled_from(["all", "first", "last", "spread"]),
            tight=st.booleans(),
        )

    sizes = [(0,), (0,), (-10,), (-20, 0, 10), (-25,), (-30, -15, 0)]
    return st.one_of(
        plan(torch.float32, sizes, [3, 6, 9, 14, 20, 30], [0.0, 0.0, 10.0, 1e3]),
        plan(torch.float64, [(0,), (0,), (-50,), (-100, 0, 50)], [3, 16, 50, 100], [0.0, 0.0, 10.0]),  # merging rounds
    )


def neighbouring_rows(plan: NeighbourPlan) -> tuple[Rows, int]:
    """The rows, and the class that has the large ones."""
    rng = np.random.default_rng(plan.seed)
    labels = rng.integers(plan.classes, size=plan.items)
    large = int(rng.integers(plan.classes))
    sizes = 10.0 ** rng.choice(plan.small, size=plan.classes)
    deviations = rng.choice([0.01, 0.1, 1.0], size=plan.classes)[labels, None] * rng.normal(size=(plan.items, plan.dim))
    features = sizes[labels, None] * (plan.offset + rng.normal(size=(plan.classes, plan.dim))[labels] + deviations)
    where = {"first": np.array([0]), "last": np.array([-1]), "spread": rng.integers(plan.items, size=4)}
    where = np.flatnonzero(labels == large) if plan.place == "all" else where[plan.place]
    labels[where] = large
    extremes = rng.normal(size=(len(where), plan.dim))
    if plan.tight:
        extremes = 3 + 1e-3 * extremes
    features[where] = 10.0**plan.large * extremes
    return Rows(torch.from_numpy(features).to(plan.dtype), torch.from_numpy(labels), plan.classes), large


def changes(value: ClassStatistics, expected: ClassStatistics) -> dict[str, float]:
    """By how much the fields of the classes that are in `expected` differ, relatively."""
    there = expected.present
    if not torch.equal(value.counts[there], expected.counts[there]):
        return {"counts": np.inf}
    length = (expected.means.square().sum(1) + expected.variances).sqrt()
    gaps = (value.means - expected.means).norm(dim=1)
    scatter = (value.class_within - expected.class_within).abs().amax((1, 2))
    pairs = {
        "means": (gaps, length),
        "spread": ((value.spread - expected.spread).abs(), expected.spread),
        "class_within": (scatter, expected.class_within.abs().amax((1, 2))),
    }
    return {name: torch.where(a == 0, a, a / b)[there].max().item() for name, (a, b) in pairs.items()}


def check_neighbours(plan: NeighbourPlan) -> None:
    assert not (wrong := wrong_neighbours(plan)), "\n".join(wrong)


def wrong_neighbours(plan: NeighbourPlan) -> list[str]:
    """A line for each route by which the large rows change another class."""
    rows, large = neighbouring_rows(plan)
    others = rows[rows.labels != large]
    if not len(others):
        return []
    expected, wrong = others.whole(), []
    bound = DOUBLE if plan.dtype is torch.float64 else 3 * SINGLE  # thousands of float32 products are no better
    for route, follow in ROUTES.items():
        try:
            value = follow(rows, np.random.default_rng(plan.seed + 2))
        except RangeError:
            assert route in SCREENED and may_be_left_out(rows.features), f"{route} refused the rows"
            RECORD["3. neighbours, " + str(plan.dtype)].add(0.0, "")
            continue
        off = changes(value, expected)
        wrong += [f"{route}: {name} off by {error:.2g}" for name, error in off.items() if not error <= bound]
        name = max(off, key=off.__getitem__)
        RECORD["3. neighbours, " + str(plan.dtype)].add(off[name], f"{route}, {name}, {plan}")
    return wrong


@settings(max_examples=12, **QUIET)
@given(plan=neighbour_plans())
def test_a_class_however_large_leaves_the_others_alone(plan: NeighbourPlan) -> None:
    check_neighbours(plan)


@SLOW
@pytest.mark.timeout(1800)
@settings(max_examples=700, **QUIET)
@given(plan=neighbour_plans())
def test_a_class_however_large_leaves_the_others_alone_at_length(plan: NeighbourPlan) -> None:
    check_neighbours(plan)
