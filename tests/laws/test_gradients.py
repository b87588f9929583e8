"""Metrics are losses too: derivatives are right at generic points, and finite exactly at collapse."""

import math
from collections.abc import Callable, Collection
from typing import Any

import pytest
import torch
from torch import Tensor

from tightframe import ClassStatistics, metrics
from tightframe.evidence import Evidence
from variants import VARIANTS

pytestmark = pytest.mark.filterwarnings("ignore::tightframe.errors.ResolutionWarning")  # at collapse itself

COUNTS = {"numerical_rank"}
TABLE = {name: metric for name, metric in VARIANTS.items() if "decisions" not in metric.reads and name not in COUNTS}
PAIRWISE = {name: metric for name, metric in TABLE.items() if metric.pairs is not None}
Evaluate = Callable[[Evidence], Tensor]


def evidence_of(features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor, outside: Tensor) -> Evidence:
    statistics = ClassStatistics.from_features(features, labels, len(weight), per_class=True)
    return Evidence(statistics, weight, bias, None, outside)


SOURCES = (
    {"statistics"},
    {"weight", "classifier", "reader"},
    {"bias"},
    {"outside"},
)
"""Of features, weight, bias and outside mean, what a metric reads where it depends on them."""


def passes(evaluate: Evaluate, labels: Tensor, *inputs: Tensor, reads: Collection[str] = ("statistics",)) -> bool:
    """`gradcheck` with respect to features, weight, bias and outside mean, as far as the metric depends on them.

    Along one random direction, which takes a twentieth of the time of all entries, and at a hundredth of the usual
    tolerance: an entry that is off by 1 % is seen.
    """
    places = [place for place, sources in enumerate(SOURCES) if sources & set(reads)]

    def value(*tensors: Tensor) -> Tensor:
        given = list(inputs)
        for place, tensor in zip(places, tensors, strict=True):
            given[place] = tensor
        return evaluate(evidence_of(given[0], labels, *given[1:]))

    leaves = tuple(inputs[place].clone().requires_grad_() for place in places)
    return torch.autograd.gradcheck(value, leaves, atol=1e-8, rtol=1e-5, check_undefined_grad=False, fast_mode=True)


@pytest.mark.parametrize("name", TABLE)
def test_a_metric_has_gradients_of_what_it_reads_and_no_other(name: str) -> None:
    labels, *inputs = generic(4, 3)
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    value = TABLE[name].of(evidence_of(leaves[0], labels, *leaves[1:]))
    gradients = torch.autograd.grad(value, leaves, allow_unused=True)
    reached = [gradient is not None and bool(gradient.any()) for gradient in gradients]
    assert reached == [bool(sources & set(TABLE[name].reads)) for sources in SOURCES]


# ---------------------------------------------------------------------- generic points

GENERIC = {"K <= D": (3, 4), "D < K - 1": (5, 2), "D = K - 1": (4, 3)}


def generic(K: int, D: int) -> tuple[Tensor, ...]:
    torch.manual_seed(K)
    labels = torch.arange(K).repeat(3)
    features = torch.randn(K, D, dtype=torch.float64)[labels] + 0.3 * torch.randn(3 * K, D, dtype=torch.float64)
    weight, bias = torch.randn(K, D, dtype=torch.float64), torch.randn(K, dtype=torch.float64)
    return labels, features, weight, bias, torch.randn(D, dtype=torch.float64)


@pytest.mark.parametrize("shape", GENERIC)
@pytest.mark.parametrize("name", TABLE)
def test_derivatives_at_generic_points(name: str, shape: str) -> None:
    assert passes(TABLE[name].of, *generic(*GENERIC[shape]), reads=TABLE[name].reads)


@pytest.mark.parametrize("tile_size", [2, 3])
@pytest.mark.parametrize("name", PAIRWISE)
def test_derivatives_through_several_tiles(name: str, tile_size: int) -> None:
    """Tiles are recomputed in the backward pass; five classes leave a last tile of one at two, of two at three."""
    labels, *inputs = generic(5, 2)
    assert passes(lambda e: PAIRWISE[name](e.statistics, tile_size=tile_size), labels, *inputs)


def test_the_gradient_does_not_depend_on_tiles() -> None:
    labels, features, *_ = generic(5, 2)
    gradients = []
    for tile_size in (2, 3, 512):
        leaf = features.clone().requires_grad_()
        statistics = ClassStatistics.from_features(leaf, labels, 5)
        total = sum(metric(statistics, tile_size=tile_size) for metric in PAIRWISE.values())
        gradients.append(torch.autograd.grad(total, leaf)[0])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradients[2], gradients[0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in ("cdnv_per_class", "cdnv_grid", "nc1_per_class", "mean_norms", "cosine_grid")),
        *((name, {"debiased": True}) for name in ("cdnv_per_class", "cdnv_grid")),
        *((name, {"distance_exponent": 4.0}) for name in ("cdnv_per_class", "cdnv_grid")),
        ("interference_grid", {}),
    ],
)
def test_derivatives_of_tables_by_class(name: str, options: dict[str, Any]) -> None:
    labels, *inputs = generic(4, 3)
    function = getattr(metrics, name)
    assert passes(lambda e: function(e.statistics, **options).nan_to_num().sin().sum(), labels, *inputs)


def test_a_count_has_no_gradient() -> None:
    labels, features, *rest = generic(4, 3)
    for name in COUNTS:
        assert not VARIANTS[name].of(evidence_of(features.requires_grad_(), labels, *rest)).requires_grad


def test_an_empty_class_gets_no_gradient_and_spoils_none() -> None:
    labels, features, weight, bias, outside = generic(4, 3)
    wide = torch.cat([weight, torch.ones(2, 3, dtype=torch.float64)]).requires_grad_()
    long = torch.cat([bias, torch.ones(2, dtype=torch.float64)])
    for name, metric in TABLE.items():
        leaf, alone = features.clone().requires_grad_(), features.clone().requires_grad_()
        value = metric.of(evidence_of(leaf, labels, wide, long, outside))
        (gradient,) = torch.autograd.grad(value, leaf, retain_graph=True, allow_unused=True)
        expected = metric.of(evidence_of(alone, labels, weight.clone().requires_grad_(), bias, outside))
        (reference,) = torch.autograd.grad(expected, alone, allow_unused=True)
        if reference is not None:
            torch.testing.assert_close(gradient, reference, rtol=1e-9, atol=1e-12, msg=name)
        if {"weight", "classifier", "reader"} & set(metric.reads):
            (rows,) = torch.autograd.grad(value, wide)
            assert (rows[4:] == 0).all(), name


# ---------------------------------------------------------------------- exactly at the simplex


def collapsed(spread: float, K: int = 4) -> tuple[Tensor, ...]:
    """Means along the axes, so that four of them, centred, are a simplex exactly; pairs of samples about each mean.

    The classifier is the centred means and the bias cancels the global mean: every kink of NC2 and NC3 is here.
    """
    means = 2 * torch.eye(K, K + 1, dtype=torch.float64)
    steps = spread * torch.tensor([[1.0, -0.5, 0.25, 0.5, 1.0], [0.5, 1.0, -0.25, 0.125, -0.5]], dtype=torch.float64)
    features = torch.cat([means + sign * step[: K + 1] for step in steps for sign in (1, -1)])
    labels = torch.arange(K).repeat(4)
    weight = means - means.mean(0)
    bias = -weight @ means.mean(0)
    return labels, features, weight, bias, torch.ones(K + 1, dtype=torch.float64)


def value_of(name: str, power: int = 1) -> Evaluate:
    return lambda evidence: TABLE[name].of(evidence) ** power


SMOOTH: dict[str, Evaluate] = {
    name: value_of(name)
    for name in (
        "nc1",
        "nc1_undivided",
        "nc1_sample_centred",
        "nc1_discriminant",
        "nc1_separation",
        "nc1_class_balanced",
        "trace_ratio",
        "trace_share",
        "trace_ratio_debiased",
        "between_trace_debiased",
        "cdnv",
        "cdnv_debiased",
        "cdnv_dist4",
        "directional_cdnv",
        "vci",
        "within_trace",
        "between_trace",
        "within_in_mean_span",
        "participation_ratio",
        "log_kernel",
        "log_kernel_variance",
        "mean_cosine",
        "mean_cosine_uncentred",
        "classifier_mean_cosine",
        "classifier_mean_cosine_centred",
        "distance_kernel",
        "distance_kernel_variance",
        "riesz_kernel",
        "riesz_kernel_variance",
        "riesz2_kernel",
        "self_duality_distance",
        "nc3_cosine",
        "nc3_misalignment",
        "unc3_variance",
        "unc3_of_products",
    )
} | {
    f"{name} squared": value_of(name, 2)
    for name in (
        "etf_error",
        "etf_distance",
        "classifier_etf_error",
        "classifier_etf_error_centred",
        "self_duality_error",
        "self_duality_error_sample_centred",
        "self_duality_error_both_centred",
        "self_duality_distance_root",
        "equinorm",
        "equinorm_ddof0",
        "equiangularity",
        "equiangularity_ddof0",
        "distance_kernel_cv",
        "log_kernel_cv",
        "riesz_kernel_cv",
        "unc3",
        "bias_collapse",
        "bias_collapse_sample_centred",
    )
}


@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_forms_have_their_derivative_at_the_simplex(name: str) -> None:
    labels, *inputs = collapsed(spread=0.5)
    statistics = ClassStatistics.from_features(inputs[0], labels, 4)
    centred = statistics.centred_means()
    exact = torch.full((4, 4), -1.0, dtype=torch.float64).fill_diagonal_(3)
    assert torch.equal(centred @ centred.mT, exact)  # a simplex to the last digit, with singular values all equal
    assert passes(SMOOTH[name], labels, *inputs, reads=TABLE[name.removesuffix(" squared")].reads)


@pytest.mark.parametrize("name", TABLE)
def test_gradients_are_finite_at_the_simplex(name: str) -> None:
    labels, *inputs = collapsed(spread=0.5)
    assert_finite_gradients(TABLE[name].of, labels, inputs)


UNDEFINED = {"within_in_mean_span", "effective_rank_within", "participation_ratio_within", "log_me"}
"""Measures that are NaN or infinite without any spread."""


@pytest.mark.parametrize("name", sorted(set(TABLE) - UNDEFINED))
def test_gradients_are_finite_without_any_spread(name: str) -> None:
    labels, *inputs = collapsed(spread=0.0)
    statistics = ClassStatistics.from_features(inputs[0], labels, 4)
    assert statistics.spread.tolist() == [0.0] * 4
    assert_finite_gradients(TABLE[name].of, labels, inputs)


@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize("name", TABLE)
def test_gradients_are_finite_for_two_and_three_classes(name: str, K: int) -> None:
    if K == 2 and name in {"equiangularity", "classifier_equiangularity"}:
        return  # NaN: one pair has no spread about itself
    labels, *inputs = collapsed(spread=0.5, K=K)
    assert_finite_gradients(TABLE[name].of, labels, inputs)


def assert_finite_gradients(evaluate: Evaluate, labels: Tensor, inputs: list[Tensor]) -> None:
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    value = evaluate(evidence_of(leaves[0], labels, *leaves[1:]))
    assert value.isfinite()
    gradients = torch.autograd.grad(value, leaves, allow_unused=True)
    assert any(gradient is not None for gradient in gradients)
    for gradient in gradients:
        assert gradient is None or gradient.isfinite().all()


@pytest.mark.parametrize("name", ["etf_error", "etf_distance", "nc1", "cdnv", "trace_ratio"])
def test_descent_arrives_at_the_simplex(name: str) -> None:
    """A few hundred steps down the gradient from a generic point leave next to nothing of the metric."""
    labels, features, weight, bias, outside = generic(3, 4)
    leaf = features.clone().requires_grad_()
    optimizer = torch.optim.Adam([leaf], lr=0.02)
    first = math.nan
    for step in range(300):
        value = TABLE[name].of(evidence_of(leaf, labels, weight, bias, outside))
        first = value.item() if step == 0 else first
        if value.item() < 0.1 * first:
            return
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    pytest.fail(f"{value.item()} is left of {first}")


def test_statistics_without_a_graph_record_none() -> None:
    labels, features, weight, bias, outside = generic(4, 3)
    evidence = evidence_of(features, labels, weight, bias, outside)
    for name, metric in TABLE.items():
        assert not metric.of(evidence).requires_grad, name
    live = evidence_of(features.clone().requires_grad_(), labels, weight, bias, outside)
    with torch.no_grad():
        for name, metric in TABLE.items():
            assert not metric.of(live).requires_grad, name


# ---------------------------------------------------------------------- pairs that are left out


def with_undefined_pairs() -> dict[str, tuple[Tensor, Tensor]]:
    """Means of which two coincide; of which one is the mean of all; of which two lie on one ray."""
    steps = torch.tensor([[0.25, 0.5, 0.0], [-0.25, -0.5, 0.0], [0.0, 0.25, 0.5], [0.0, -0.25, -0.5]]).double()
    means = {
        "coincident": [[1, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3]],
        "nowhere": [[1, 0, 1], [-1, 0, -1], [0, 0, 0], [1, 1, 0], [-1, -1, 0]],
        "nowhere and near": [[1, 0, 1], [1, 0, 1 + 2**-10], [-2, 0, -2 - 2**-10], [0, 0, 0]],
        "on one ray": [[1, 0, 0], [3, 0, 0], [-2, 1, 0], [-2, -1, 0]],
    }
    found = {}
    for name, rows in means.items():
        features = torch.tensor(rows, dtype=torch.float64)[:, None] + steps
        found[name] = features.flatten(0, 1), torch.arange(len(rows)).repeat_interleave(len(steps))
    return found


@pytest.mark.filterwarnings("ignore::tightframe.errors.GeometryWarning")
@pytest.mark.parametrize("case", with_undefined_pairs())
@pytest.mark.parametrize("name", [*PAIRWISE, "directional_cdnv", "mean_cosine"])
def test_pairs_that_are_left_out_leave_the_gradient_finite(name: str, case: str) -> None:
    features, labels = with_undefined_pairs()[case]
    leaf = features.requires_grad_()
    value = TABLE[name](ClassStatistics.from_features(leaf, labels, int(labels.max()) + 1, per_class=True))
    (gradient,) = torch.autograd.grad(value, leaf)
    assert value.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.filterwarnings("ignore::tightframe.errors.GeometryWarning")
@pytest.mark.parametrize("options", [{}, {"debiased": True}, {"distance_exponent": 4.0}])
def test_pairs_that_are_left_out_leave_the_gradient_of_tables_finite(options: dict[str, Any]) -> None:
    features, labels = with_undefined_pairs()["coincident"]
    leaf = features.requires_grad_()
    statistics = ClassStatistics.from_features(leaf, labels, 4)
    for function in (metrics.cdnv_grid, metrics.cdnv_per_class):
        values = function(statistics, **options)
        (gradient,) = torch.autograd.grad(values[values.isfinite()].sum(), leaf, retain_graph=True)
        assert gradient.isfinite().all(), function.__name__
