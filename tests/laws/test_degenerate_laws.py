"""Laws of degenerate data: what is zero, infinite or undefined is so on every path, and never a finite rounding error.

Means closer than the statistics' rounding coincide; means further apart have finite distances.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from laws.statistics_oracle import NAMES, RECORD, ROUTES, Draws, Rows, measure_error, measures, truth_of
from tightframe import ClassStatistics, DecisionCounts, metrics
from tightframe.errors import EmptyClassError, GeometryWarning, ResolutionWarning, TightframeError
from tightframe.evidence import Evidence
from tightframe.metrics.reductions import Moments
from variants import VARIANTS

SLOW = pytest.mark.slow
QUIET = {"deadline": None, "suppress_health_check": list(HealthCheck), "phases": [Phase.generate]}  # shrinking is slow

# ---------------------------------------------------------------------- 4. degenerate data

NC1S = ("nc1", "nc1_undivided", "nc1_sample_centred", "nc1_discriminant", "nc1_separation", "nc1_class_balanced")
LINES = ("principal_angle", "largest_principal_angle")
OF_MEANS = (
    *("equinorm", "equinorm_ddof0", "equiangularity", "equiangularity_ddof0", "maximal_angle_deviation", "mean_cosine"),
    *("minimum_angle", "etf_error", "etf_distance", "seli_error", "participation_ratio", *LINES),
    "effective_rank_between",
    *("log_kernel", "log_kernel_variance", "log_kernel_cv", "riesz_kernel", "riesz_kernel_variance", "riesz_kernel_cv"),
    *("riesz2_kernel", "distance_kernel", "distance_kernel_variance", "distance_kernel_cv"),
    *("nc3_cosine", "nc3_misalignment", "unc3_variance", "unc3", "duality_distance"),
    *("self_duality_distance", "self_duality_distance_root", "self_duality_error", "self_duality_error_sample_centred"),
    "self_duality_error_both_centred",
)
"""Measures of the centred class means, which don't exist where all means coincide."""


def _all(names: tuple[str, ...], value: float) -> dict[str, float]:
    return dict.fromkeys(names, value)


NAN, INF = float("nan"), float("inf")
COLLAPSED = _all((*NC1S, "trace_ratio", "trace_share", "cdnv", "cdnv_dist4", "directional_cdnv", "vci"), 0.0)
OF_WITHIN = ("effective_rank_within", "participation_ratio_within")
SHOTS = ("few_shot_error", "few_shot_error_1")
COLLAPSED |= _all(OF_WITHIN, NAN) | _all(SHOTS, 0.0)
COLLAPSED |= {"within_trace": 0.0, "within_in_mean_span": NAN, "cdnv exact": 0.0, "cdnv_dist4 exact": 0.0}
DEBIASED = ("trace_ratio_debiased", "cdnv_debiased")
CDNVS = ("cdnv", "cdnv_dist4", "cdnv_debiased", "directional_cdnv")
EXACT = {
    name: VARIANTS[name].having(f"{name} exact", exact=True)
    for name in (
        *("cdnv", "cdnv_dist4", "cdnv_debiased", "equiangularity", "equiangularity_ddof0", "maximal_angle_deviation"),
        *("log_kernel", "log_kernel_variance", "log_kernel_cv"),
        *("riesz_kernel", "riesz_kernel_variance", "riesz_kernel_cv", "riesz2_kernel"),
        *("distance_kernel", "distance_kernel_variance", "distance_kernel_cv"),
    )
}
"""Measures over pairs by their definition: infinite or NaN as soon as one pair is; without, such pairs are left out."""
ON_A_RAY = {"minimum_angle": 0.0} | _all(("log_kernel exact", "riesz_kernel exact", "riesz2_kernel exact"), INF)
ON_A_RAY |= {f"{name} exact": NAN for name in EXACT if name.endswith(("log_kernel_variance", "log_kernel_cv"))}
ON_A_RAY |= {f"{name} exact": NAN for name in EXACT if name.startswith("riesz_kernel_")}
TOGETHER = {"cdnv exact": INF, "cdnv_dist4 exact": INF, "cdnv_debiased exact": NAN} | ON_A_RAY
NOWHERE = _all(OF_MEANS, NAN) | {f"{name} exact": NAN for name in EXACT}
NOWHERE |= {"between_trace": 0.0, "vci": NAN, "trace_ratio_debiased": NAN} | _all(CDNVS, NAN)

EXPECTED: dict[str, dict[str, float]] = {
    "two coincide": TOGETHER,
    "all coincide": {
        **NOWHERE,
        **_all((*NC1S, "trace_ratio", "cdnv exact", "cdnv_dist4 exact"), INF),
        "trace_share": 1.0,
        "within_in_mean_span": 0.0,
    },
    "constant": {
        **NOWHERE,
        **_all((*NC1S, "trace_ratio", "trace_share"), NAN),
        **_all(("within_trace", "between_trace_debiased", "numerical_rank"), 0.0),
        "within_in_mean_span": NAN,
        **_all((*OF_WITHIN, *SHOTS, "effective_rank", "participation_ratio_total"), NAN),
        **_all(("h_score_shrunk", "h_score_ledoit_wolf"), NAN),
    },
    "collapsed": COLLAPSED | _all(DEBIASED, 0.0),
    "collapsed, two coincide": {
        **COLLAPSED,
        **ON_A_RAY,
        **_all(("cdnv exact", "cdnv_dist4 exact", "cdnv_debiased exact", *SHOTS), NAN),
        **_all(DEBIASED, 0.0),
    },
    "single samples": {name: value for name, value in COLLAPSED.items() if name != "vci"}
    | _all((*DEBIASED, *SHOTS, "between_trace_debiased", "cdnv_debiased exact"), NAN),
    "few samples": {"vci": NAN},  # which any so few samples would have at 0
    "one dimension": ON_A_RAY | {"within_in_mean_span": 1.0, "participation_ratio": 1.0} | _all(LINES, 0.0),
    "on a line": ON_A_RAY | {"participation_ratio": 1.0},
    "collapsed, on a line": COLLAPSED | ON_A_RAY | {"participation_ratio": 1.0} | _all(DEBIASED, 0.0),
    "on one ray": ON_A_RAY,
    "one class": {},
    "one sample": {},
}
"""What the definitions say, by kind of data; other measures are finite, and the same on all paths."""
WITHOUT_PAIRS = ("one class", "one sample")
COINCIDENT = {"two coincide": "0, 1", "collapsed, two coincide": "0, 1", "all coincide": "0, 1", "constant": "0, 1"}


@dataclass(frozen=True)
class DegeneratePlan:
    seed: int
    kind: str
    dtype: torch.dtype
    classes: int
    dim: int
    each: int  # samples of a class
    offset: float
    apart: int  # 2 leaves every other label without samples

    @property
    def names(self) -> str:
        return COINCIDENT.get(self.kind, "").replace("1", str(self.apart))


def degenerate_plans() -> st.SearchStrategy[DegeneratePlan]:
    return st.builds(
        DegeneratePlan,
        seed=st.integers(0, 2**32 - 1),
        kind=st.sampled_from(sorted(EXPECTED)),
        dtype=st.sampled_from([torch.float32, torch.float64]),
        classes=st.integers(3, 6),
        dim=st.integers(2, 20),
        each=st.one_of(st.integers(5, 60), st.integers(100, 250)),
        offset=st.sampled_from([0.0, 1.0, 10.0]),
        apart=st.sampled_from([1, 1, 2]),
    )


def degenerate_rows(plan: DegeneratePlan) -> Rows:
    rng = np.random.default_rng(plan.seed)
    kind, classes, dim = plan.kind, plan.classes, plan.dim
    if kind == "one dimension":
        dim = 1
    elif kind == "few samples":
        dim = 2 * classes + 20
    elif kind == "on one ray":
        classes = 4
    each = {"few samples": 2, "single samples": 1, "one sample": 1}.get(kind, max(plan.each, dim + 3))
    labels = np.arange(classes * each) % classes
    means, deviations = rng.normal(size=(classes, dim)), 0.1 * rng.normal(size=(len(labels), dim))
    same = 0.1 * rng.normal(size=(each, dim))
    if kind in ("constant", "all coincide"):
        means[:] = means[0]
    elif kind.endswith("two coincide"):
        means[1] = means[0]
    elif kind == "one dimension":
        means += 3 * np.arange(classes)[:, None]
    elif kind.endswith("on a line"):
        means = (np.arange(classes)[:, None] + 0.3 * rng.random((classes, 1))) * means[:1]
    elif kind == "on one ray":
        across = means[1] - means[0] * (means[1] @ means[0]) / (means[0] @ means[0])
        means = means[0] * np.array([1, 3, -2, -2])[:, None] + across * np.array([0, 0, 1, -1])[:, None]
    if kind == "constant" or kind.startswith("collapsed"):
        deviations[:] = 0
    elif kind in ("two coincide", "all coincide", "on a line", "on one ray"):  # the same noise: the means stay there
        for k in range(classes):
            deviations[labels == k] = same[rng.permutation(each)]
    if kind in WITHOUT_PAIRS:
        labels[:] = 0
    features = plan.offset + means[labels] + deviations
    if kind == "one sample":
        labels, features = labels[:1], features[:1]
    order = rng.permutation(len(labels))
    features, labels = torch.from_numpy(features[order]).to(plan.dtype), torch.from_numpy(plan.apart * labels[order])
    return Rows(features, labels, plan.apart * classes)


def _as_they_are(rows: Rows, weight: torch.Tensor, rng: Draws) -> tuple[Rows, torch.Tensor]:
    return rows, weight


def _permuted(rows: Rows, weight: torch.Tensor, rng: Draws) -> tuple[Rows, torch.Tensor]:
    return rows[rng.permutation(len(rows))], weight


def _rotated(rows: Rows, weight: torch.Tensor, rng: Draws) -> tuple[Rows, torch.Tensor]:
    turn = torch.from_numpy(np.linalg.qr(rng.normal(size=(rows.features.shape[1],) * 2))[0])
    distinct, place = rows.features.double().unique(dim=0, return_inverse=True)  # products needn't round rows alike
    return replace(rows, features=(distinct @ turn)[place].to(rows.features.dtype)), weight @ turn


COINCIDE = re.compile(r"coincide up to rounding of the features; .* over pairs leave out (\d+) pairs: (.*)\.$")
Views = Callable[[Rows, torch.Tensor, Draws], tuple[Rows, torch.Tensor]]
VIEWS: tuple[Views, ...] = (_as_they_are, _permuted, _rotated)
FREE = ("between_trace_debiased", "trace_ratio_debiased", "cdnv_debiased", "cdnv_debiased exact", "numerical_rank")
FREE += ("log_me",)
"""Thresholds lie between."""
OF_ROUNDING = ("alpha_req", "alpha_req_equal_weights", "alpha_req_range")
"""Logarithms of eigenvalues, which tell how a collapsed direction is rounded."""


def wrong_degenerate(plan: DegeneratePlan) -> list[str]:
    """A line for each measure on a path that isn't what the definitions say, or isn't that of `from_features`."""
    rows = degenerate_rows(plan)
    rng = np.random.default_rng(plan.seed + 1)
    weight = torch.from_numpy(rng.normal(size=(plan.apart * plan.classes, rows.features.shape[1])))[: rows.classes]
    weight = torch.cat([weight, weight.new_ones(rows.classes - len(weight), weight.shape[1])])
    if plan.kind in WITHOUT_PAIRS:
        return _wrong_without_pairs(plan, rows, rng)
    reference, _ = _measured(rows.whole(), weight)
    wrong = []
    for route, follow in ROUTES.items():
        view = VIEWS[rng.integers(len(VIEWS))]
        seen, turned = view(rows, weight, rng)
        values, told = _measured(follow(seen, rng), turned)
        name = f"{plan.kind}, {route}, {view.__name__[1:]}"
        lines, worst = _wrong_values(plan, name, values, reference, rotated=view is _rotated)
        if told != plan.names and not (plan.names and told.startswith(plan.names)):
            lines.append(f"{name}: the classes named as coincident are {told!r}")
        RECORD["4. degenerate data"].add(np.inf if lines else worst, f"{name}, {plan}")
        wrong += lines
    return wrong


def _measured(value: ClassStatistics, weight: torch.Tensor) -> tuple[dict[str, float], str]:
    """The measures, and the labels that warnings call coincident."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        values = measures(value, weight, EXACT.values())
    texts = [str(each.message) for each in told if each.category is GeometryWarning]
    found = {match.groups() for text in texts if (match := COINCIDE.search(text))}
    assert len(found) <= 1
    number, named = next(iter(found), ("0", ""))
    sets = [len(each.split(", ")) for each in named.split("; ")]
    assert int(number) == sum(size * (size - 1) // 2 for size in sets)  # of pairs
    return values, named


def _wrong_values(
    plan: DegeneratePlan, route: str, values: dict[str, float], reference: dict[str, float], *, rotated: bool
) -> tuple[list[str], float]:
    bound = (1e-3 if rotated else 1e-5) if plan.dtype is torch.float32 else 1e-8
    lines, worst = [], 0.0
    assert values.keys() == reference.keys()
    assert set(NAMES) | {each.name for each in EXACT.values()} == values.keys()
    for name, it in values.items():
        if name in OF_ROUNDING or (name == "log_me" and plan.kind.startswith("collapsed")):
            continue  # without scatter, the log evidence tells how the residual is rounded
        want = EXPECTED[plan.kind].get(name, reference[name])
        if name in EXPECTED[plan.kind]:
            exact = it == want or (np.isnan(it) and np.isnan(want))
            near = want not in (0.0, INF) and abs(it - want) <= 1e-9  # one, or an angle of zero
            if not exact and not near and not (name in LINES and abs(it) <= 1e-5):
                lines.append(f"{route}: {name} is {it!r}, not {want!r}")
        elif not np.isfinite(want):  # VCI of no more samples than dimensions, and the like
            if it != want and not (np.isnan(it) and np.isnan(want)) and name not in FREE:
                lines.append(f"{route}: {name} is {it!r}, not {want!r}")
        elif name not in FREE or np.isfinite(want) == np.isfinite(it) != (name == "numerical_rank"):
            error = measure_error(name.removesuffix(" exact"), it, want, reference)
            worst = max(worst, error)
            if not np.isfinite(it) or not error <= bound:
                lines.append(f"{route}: {name} is {it!r} for {want!r}, off by {error:.2g}")
    return lines, worst


def _wrong_without_pairs(plan: DegeneratePlan, rows: Rows, rng: Draws) -> list[str]:
    """Only the numerical rank is defined; all else says that classes lack samples."""
    wrong = []
    for route, follow in ROUTES.items():
        value = follow(_permuted(rows, rows.features, rng)[0], rng)
        lines = []
        for function in (
            metrics.nc1,
            metrics.cdnv,
            metrics.vci,
            metrics.trace_ratio,
            metrics.equinorm,
            metrics.within_trace,
        ):
            try:
                lines.append(f"{plan.kind}, {route}: {function.__name__} is {function(value).item()!r}, not an error")
            except EmptyClassError:
                continue
        rank = metrics.numerical_rank(value).item()
        if (plan.kind == "one sample") != (rank == 0):
            lines.append(f"{plan.kind}, {route}: numerical_rank is {rank!r}")
        RECORD["4. degenerate data"].add(np.inf if lines else 0.0, f"{plan.kind}, {route}, {plan}")
        wrong += lines
    return wrong


def check_degenerate(plan: DegeneratePlan) -> None:
    assert not (wrong := wrong_degenerate(plan)), "\n".join(wrong)


@settings(max_examples=12, **QUIET)
@given(plan=degenerate_plans())
def test_degenerate_data_are_what_they_are_on_every_path(plan: DegeneratePlan) -> None:
    check_degenerate(plan)


@SLOW
@pytest.mark.timeout(1800)
@settings(max_examples=250, **QUIET)
@given(plan=degenerate_plans())
def test_degenerate_data_are_what_they_are_on_every_path_at_length(plan: DegeneratePlan) -> None:
    check_degenerate(plan)


# ---------------------------------------------------------------------- 4. means so many roundings apart


@dataclass(frozen=True)
class NearPlan:
    """Two classes with means so many roundings apart, 10^apart, among others at a distance."""

    seed: int
    dtype: torch.dtype
    classes: int
    dim: int
    each: int
    offset: float
    width: float
    apart: float
    far: float


def near_plans() -> st.SearchStrategy[NearPlan]:
    return st.builds(
        NearPlan,
        seed=st.integers(0, 2**32 - 1),
        dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
        classes=st.integers(2, 5),
        dim=st.integers(1, 20),
        each=st.sampled_from([4, 50, 300]),
        offset=st.sampled_from([0.0, 1.0, 100.0]),
        width=st.sampled_from([0.0, 0.1, 1.0]),
        apart=st.one_of(st.floats(-2, -0.5), st.floats(0.3, 1.7), st.floats(2.4, 3.5)),
        far=st.sampled_from([3.0, 3.0, 30.0]),
    )


def near_rows(plan: NearPlan) -> Rows:
    rng = np.random.default_rng(plan.seed)

    def stored(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values).to(plan.dtype)

    labels = np.arange(plan.classes * plan.each) % plan.classes
    noise = plan.width * rng.normal(size=(len(labels), plan.dim))
    features = stored(plan.offset + plan.far * rng.normal(size=(plan.classes, plan.dim))[labels] + noise)
    first = stored(plan.offset + rng.normal(size=plan.dim) + noise[labels == 0])
    features[labels == 0] = first
    rows = Rows(features, torch.from_numpy(labels), plan.classes)
    direction = rng.normal(size=plan.dim)
    shift = float(rows.whole().rounding[0]) * 10**plan.apart * direction / np.linalg.norm(direction)
    features[labels == 1] = stored(first.double().numpy() + shift)[rng.permutation(plan.each)]
    return rows


def wrong_near(plan: NearPlan) -> list[str]:
    """A line for each path on which the distance isn't what it should be, or no warning says what it is."""
    rows = near_rows(plan)
    truth = truth_of(rows.features.double().numpy(), rows.labels.numpy(), rows.classes)
    distances = np.sqrt(((truth.means[:, None] - truth.means) ** 2).sum(-1))
    apart = float(distances[0, 1]) / float(rows.whole().rounding[:2].max())
    others = distances[np.triu_indices(plan.classes, 1)][1:]
    if (others < 2 * float(rows.whole().rounding.max())).any():
        return []  # others coincide by chance
    variances = truth.spread / truth.counts
    expected = _cdnv_of(truth.means, variances), _cdnv_of(truth.means, variances, skipped=1)
    nearest = float(others.min(initial=np.inf)) / float(rows.whole().rounding.max())
    rng = np.random.default_rng(plan.seed + 1)
    wrong = []
    for route, follow in ROUTES.items():
        lines, error = _wrong_pair(follow(rows, rng), apart, nearest, expected)
        lines = [f"{route}, {apart:.3g} roundings apart: {line}" for line in lines]
        RECORD["4. near means"].add(np.inf if lines else error, f"{route}, {plan}")
        wrong += lines
    return wrong


def _cdnv_of(means: np.ndarray, variances: np.ndarray, skipped: int = 0) -> float:
    """Of all pairs but the first so many; NaN of none."""
    i, j = (index[skipped:] for index in np.triu_indices(len(means), 1))
    if not len(i):
        return float("nan")
    with np.errstate(all="ignore"):
        return float(((variances[i] + variances[j]) / 2 / ((means[i] - means[j]) ** 2).sum(1)).mean())


def _wrong_pair(
    value: ClassStatistics, apart: float, nearest: float, expected: tuple[float, float]
) -> tuple[list[str], float]:
    """Of the CDNV of all pairs and of all but the first, which are `nearest` roundings apart at least."""
    whole, rest = expected
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        cdnv, directional = metrics.cdnv(value).item(), metrics.directional_cdnv(value).item()
        exact = metrics.cdnv(value, exact=True).item()
    texts = [str(each.message) for each in told if each.category is not ResolutionWarning]
    coincide, inexact = (
        any(key in text and f" {names}" in text for text in texts for names in ("0, 1;", "0, 1.", "0, 1,"))
        for key in ("coincide up to rounding of the features; measures over pairs leave out 1", "distances are inexact")
    )
    lines, error = [], 0.0
    if apart < 0.6:
        error = abs(cdnv - rest) / rest if rest else abs(cdnv)
        defined = np.isnan(cdnv) if np.isnan(rest) else error <= max(4 / nearest, 1e-5)
        if not defined or np.isnan(directional) != np.isnan(rest) or np.isfinite(exact):
            lines.append(f"CDNV is {cdnv!r} for {rest!r}, directional {directional!r}, exact {exact!r}")
        error = 0.0
        if not coincide:
            lines.append("no warning that the means coincide")
    elif apart > 1.6:
        error = abs(cdnv - whole) / whole if whole else abs(cdnv)
        if not error <= max(4 / apart, 1e-5) or not np.isfinite(directional) or cdnv != exact:
            lines.append(f"CDNV is {cdnv!r} for {whole!r}, directional {directional!r}, exact {exact!r}")
        if coincide or (not inexact and apart < 60) or (inexact and apart > 160):
            lines.append(f"the warning is {'coincide' if coincide else 'inexact' if inexact else 'none'}")
    return lines, error * min(1.0, apart / 100)


@settings(max_examples=12, **QUIET)
@given(plan=near_plans())
def test_means_no_further_apart_than_rounding_coincide(plan: NearPlan) -> None:
    assert not (wrong := wrong_near(plan)), "\n".join(wrong)


@SLOW
@pytest.mark.timeout(1800)
@settings(max_examples=300, **QUIET)
@given(plan=near_plans())
def test_means_no_further_apart_than_rounding_coincide_at_length(plan: NearPlan) -> None:
    assert not (wrong := wrong_near(plan)), "\n".join(wrong)


# ---------------------------------------------------------------------- 4. degenerate classifiers and class means


@cache
def degenerate_evidence(seed: int) -> Evidence:
    """Up to five classes, some without samples; random or integer values; zero rows, equal features, equal means."""
    generator = torch.Generator().manual_seed(seed)
    K, D, n, empty = (int(torch.randint(low, 5, (), generator=generator)) for low in (1, 1, 1, 0))
    labels = torch.arange(K).repeat(n)
    features = torch.randn(K * n, D, generator=generator, dtype=torch.float64)
    weight = torch.randn(K + empty, D, generator=generator, dtype=torch.float64)
    if seed % 2:
        features, weight = features.round(), weight.round()
    if seed % 3:
        weight[torch.rand(len(weight), generator=generator) < seed % 3 / 2] = 0
    if seed % 5 == 0:
        features = features[:1].expand(K * n, D)
    elif seed % 5 == 1:
        features = features[labels]  # collapsed
    elif seed % 5 == 2:
        features = features - torch.stack([features[labels == k].mean(0) for k in range(K)])[labels]
    statistics = ClassStatistics.from_features(features, labels, K + empty, per_class=True)
    decisions = None
    if K > 1:
        decisions = DecisionCounts(statistics, weight)
        decisions.update(features, labels)
    return Evidence(statistics, weight, weight[:, 0], decisions, features[0])


@pytest.mark.filterwarnings("ignore::tightframe.errors.GeometryWarning")
@pytest.mark.parametrize("name", VARIANTS)
def test_degenerate_evidence_gives_numbers_nan_or_typed_errors(name: str) -> None:
    """Infinity only where the stated range ends with it."""
    metric, values = VARIANTS[name], []
    for seed in range(60):
        evidence = degenerate_evidence(seed)
        with suppress(TightframeError):
            values.append(float(metric.of(evidence)) if metric.available(evidence) else NAN)
    stated = re.search(r"Range:[^\[(]*[\[(].*?inf([\])])", metric.__doc__, flags=re.S)
    if stated is None or stated[1] == ")":
        assert not np.isinf(values).any()
    assert np.isfinite(values).any()


@pytest.mark.parametrize("rows", [[[0.3, 0.7], [0, 0]], [[0, 0], [0, 0]], [[0, 0], [1, 0], [0, 0]]])
def test_mean_cosines_of_fewer_than_two_directions_do_not_exist(rows: list[list[float]]) -> None:
    assert metrics.classifier_mean_cosine(torch.tensor(rows)).isnan()


@pytest.mark.parametrize("rows", [[[1, 0], [0, 1], [0, 0]], [[0, 0], [1, 0]], [[0, 0], [0, 0]]])
def test_distances_of_rows_without_a_direction_do_not_exist(rows: list[list[float]]) -> None:
    assert metrics.one_vs_rest_distance(torch.tensor(rows)).isnan()


def test_coefficients_of_variation_about_zero_do_not_exist() -> None:
    statistics = ClassStatistics.from_features(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.arange(2), 2)
    assert metrics.unc3(statistics, torch.tensor([[1.0, 0.0], [1.0, 0.0]])).isnan()  # cosines 1 and -1
    assert Moments.of(torch.tensor([1.0, -1.0])).cv.isnan()
