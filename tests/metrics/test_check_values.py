"""Every value that the formula sheet states in sections A1 to A6, cited by section; six digits unless it has fewer."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tightframe import ClassStatistics, DecisionCounts, StatisticsAccumulator, metrics
from tightframe.errors import GeometryWarning
from tightframe.evidence import Evidence
from tightframe.metrics import METRICS, Setting, levels
from tightframe.metrics.kernels import LOG
from tightframe.metrics.pairs import OverPairs, over_pairs
from variants import VARIANTS

TOLERANCE = 1e-6


def check(value: Tensor | float, expected: float, tolerance: float = TOLERANCE) -> None:
    assert abs(float(value) - expected) <= tolerance, f"{float(value)!r} instead of {expected!r}"


# ---------------------------------------------------------------------- A1, Example A


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nc1", 1 / 24),
        ("nc1", 0.0416667),
        ("nc1_undivided", 0.125),
        ("nc1_sample_centred", 1 / 24),
        ("nc1_discriminant", 1 / 24),
        ("nc1_class_balanced", 1 / 24),
        ("trace_ratio", 0.0625),
        ("cdnv", 1 / 48),
        ("cdnv", 0.0208333),
        ("cdnv_dist4", 0.25 / 144),
        ("cdnv_dist4", 0.00173611),
        ("directional_cdnv", 0.125 / 12),
        ("vci", 1 - 2 / 2.125),
        ("vci", 0.0588235),
        ("within_trace", 0.25),
        ("between_trace", 4.0),
        ("equinorm", 0.0),
        ("equinorm_ddof0", 0.0),
        ("equiangularity", 0.0),
        ("equiangularity_ddof0", 0.0),
        ("maximal_angle_deviation", 0.0),
        ("etf_error", 0.0),
        ("etf_distance", 0.0),
    ],
)
def test_a1_example_a(example_a: ClassStatistics, name: str, expected: float) -> None:
    check(VARIANTS[name].of(Evidence(example_a)), expected)


def test_a1_example_a_covariances(example_a: ClassStatistics) -> None:
    eye = torch.eye(2, dtype=torch.float64)
    torch.testing.assert_close(example_a.within_covariance(), 0.125 * eye, rtol=0, atol=1e-12)
    torch.testing.assert_close(example_a.between_covariance(), 2 * eye, rtol=0, atol=1e-12)


@pytest.mark.parametrize("offset", [100.0, 1000.0])
def test_a1_variance_does_not_cancel(offset: float) -> None:
    """Section A1, edge cases: float32, true variance 1e-6, where E|h|^2 - |mu|^2 gives 9.8e-4 at 100 and 0 at 1000."""
    deviations = 1e-3 * torch.tensor([1.0, -1.0]).repeat(300)
    features = (offset + deviations)[:, None]
    true = features.double().var(correction=0).item()
    naive = (features.square().mean() - features.mean().square()).item()
    assert abs(naive - true) > 0.5 * true
    accumulator = StatisticsAccumulator(1, 1)
    for rows in features.split(60):
        accumulator.update(rows, torch.zeros(len(rows), dtype=torch.int64))
    check(accumulator.compute().variances, true, 1e-6 * true)


def test_a1_one_sample_has_no_variance(simplex: Callable[..., ClassStatistics]) -> None:
    assert simplex(4).variances.tolist() == [0.0] * 4
    check(metrics.cdnv(simplex(4)), 0.0, 0.0)


def test_a1_an_empty_class_leaves_the_mean_of_means(example_a: ClassStatistics) -> None:
    padded = ClassStatistics(
        torch.cat([example_a.counts, torch.tensor([0])]),
        torch.cat([example_a.means, torch.full((1, 2), torch.nan, dtype=torch.float64)]),
        torch.cat([example_a.spread, torch.zeros(1, dtype=torch.float64)]),
        example_a.within,
    )
    check(metrics.nc1(padded), 1 / 24, 1e-12)
    torch.testing.assert_close(padded.global_mean(), torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-15)


def test_a1_coincident_means_are_infinitely_variable_for_their_distance() -> None:
    """And are left out of the mean, unless its exact definition is asked for."""
    features = torch.tensor([[0.0], [1.0], [0.0], [1.0], [5.0], [6.0]])
    statistics = ClassStatistics.from_features(features, torch.tensor([0, 0, 1, 1, 2, 2]), 3)
    told = r"coincide up to rounding of the features; measures over pairs leave out 1 pairs: 0, 1\.$"
    with pytest.warns(GeometryWarning, match=told):
        check(metrics.cdnv(statistics), 0.25 / 25, 1e-15)
    with pytest.warns(GeometryWarning, match=told):
        assert metrics.cdnv(statistics, exact=True).item() == math.inf


def test_a1_division_by_K_stays_where_the_rank_is_lower() -> None:
    """K > D + 1: five means on a line have S_B of rank one, and "/K" still divides by five."""
    means = torch.tensor([[-2.0], [-1.0], [0.0], [1.0], [2.0]], dtype=torch.float64)
    features = torch.cat([means - 0.1, means + 0.1])
    statistics = ClassStatistics.from_features(features, torch.arange(5).repeat(2), 5)
    check(metrics.nc1(statistics), 0.01 / 2 / 5, 1e-12)


def unrelated(counts: list[int], D: int) -> Evidence:
    """Isotropic features, of classes that have nothing to do with them."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    features = torch.randn(len(labels), D, dtype=torch.float64, generator=generator)
    return Evidence(ClassStatistics.from_features(features, labels, len(counts)))


@pytest.mark.parametrize(("name", "expected"), [("nc1", 2.321), ("trace_ratio", 54.4), ("cdnv", 24.5)])
def test_a1_null_levels(name: str, expected: float) -> None:
    """K=10, n=50, D=200: no class structure."""
    level = levels(unrelated([50] * 10, 200), [name], draws=200)[name]
    check(level.value, expected, 0.02 * expected)
    assert level.kind == "shuffled"


# ---------------------------------------------------------------------- A2, Example B


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("equinorm_ddof0", 0.197453),
        ("equinorm", 0.241830),
        ("equiangularity_ddof0", 0.228052),
        ("equiangularity", 0.279306),
        ("maximal_angle_deviation", 0.222515),
        ("mean_cosine", (-0.8 - 2 * 0.316228) / 3),
        ("participation_ratio", 1.6),
        ("etf_error", 0.459506),
        ("etf_distance", 0.261052),
        ("log_kernel", -0.536128),
        ("log_kernel_cv", 0.137614),
    ],
)
def test_a2_example_b(example_b: ClassStatistics, name: str, expected: float) -> None:
    check(VARIANTS[name].of(Evidence(example_b)), expected)


def test_a2_example_b_lengths_and_angles(example_b: ClassStatistics) -> None:
    lengths = torch.tensor([5**0.5, 5**0.5, 2**0.5], dtype=torch.float64) / 3
    torch.testing.assert_close(metrics.mean_norms(example_b), lengths, rtol=0, atol=1e-12)
    grid = metrics.cosine_grid(example_b)
    cosines = [grid[0, 1].item(), grid[0, 2].item(), grid[1, 2].item()]
    for value, expected in zip(cosines, (-0.8, -0.316228, -0.316228), strict=True):
        check(value, expected)
    check(max(abs(cosine + 0.5) for cosine in cosines), 0.3)
    check(metrics.minimum_angle(example_b), 108.435, 1e-3 / 2)
    check(metrics.minimum_angle(example_b), math.degrees(math.acos(-(0.1**0.5))), 1e-11)


def test_a2_example_b_log_kernel_with_ddof_1(example_b: ClassStatistics) -> None:
    wanted = OverPairs(LOG, lambda kernel: kernel.standard_deviation(1) / kernel.mean.abs())
    check(over_pairs(example_b, wanted)[0], 0.168542)


@pytest.mark.parametrize("K", [2, 3, 7])
def test_a2_identity_with_the_participation_ratio(K: int) -> None:
    means = torch.randn(K, 9, dtype=torch.float64)
    statistics = ClassStatistics.from_features(means, torch.arange(K), K)
    ratio = metrics.participation_ratio(statistics).item()
    check(metrics.etf_error(statistics) ** 2, 2 - 2 * math.sqrt(ratio / (K - 1)), 1e-12)


@pytest.mark.parametrize("K", [3, 5, 10])
@pytest.mark.parametrize("D", [1, 2, 12])
def test_a2_means_on_a_line_attain_the_top(K: int, D: int) -> None:
    means = torch.randn(K, 1, dtype=torch.float64) @ torch.randn(1, D, dtype=torch.float64)
    statistics = ClassStatistics.from_features(means, torch.arange(K), K)
    for value in (metrics.etf_error(statistics), metrics.etf_distance(statistics)):
        check(value, math.sqrt(2 - 2 / math.sqrt(K - 1)), 1e-9)


def harmonic_frame(K: int, D: int) -> ClassStatistics:
    """A centred tight frame: every frequency up to D/2, its cosine and sine over the K classes."""
    phases = 2 * math.pi / K * torch.outer(torch.arange(K), torch.arange(1, D // 2 + 1)).double()
    means = torch.cat([phases.cos(), phases.sin()], 1)
    return ClassStatistics.from_features(means, torch.arange(K), K, covariance=False)


@pytest.mark.parametrize(("K", "D", "expected"), [(100, 64, 0.6261), (3001, 104, 1.2758)])
def test_a2_floor_where_the_simplex_does_not_fit(K: int, D: int, expected: float) -> None:
    frame, exact = harmonic_frame(K, D), math.sqrt(2 - 2 * math.sqrt(D / (K - 1)))
    for name in ("etf_error", "etf_distance"):
        check(METRICS[name].of(Evidence(frame)), exact, 1e-10)
        check(METRICS[name].floor_in(setting(K, D)), exact, 1e-12)
    check(exact, expected, 5e-5)


def setting(K: int, D: int) -> Setting:
    return Setting(torch.ones(K, dtype=torch.int64), D, K)


def test_a2_floor_of_a_vocabulary() -> None:
    check(metrics.etf_error.floor_in(setting(29233, 1024)), 1.2750, 5e-5)


@pytest.mark.levels
@pytest.mark.parametrize(
    ("K", "D", "expected", "tolerance"),
    [
        (100, 64, 0.864, 5e-3),
        pytest.param(29233, 1024, 1.2775, 1e-4, marks=pytest.mark.slow),
        (10, 512, 0.13, 5e-3),
    ],
)
def test_a2_null_level_of_random_means(K: int, D: int, expected: float, tolerance: float) -> None:
    """Of classes whose means are as good as independent: there are far more samples than dimensions."""
    counts, nothing = torch.full((K,), 5000), torch.zeros(K, D, dtype=torch.float64)
    statistics = ClassStatistics(counts, nothing, counts.to(torch.float64))
    draws = 1 if K > 10_000 else None  # the more classes, the less they differ
    check(levels(Evidence(statistics), ["etf_error"], draws=draws)["etf_error"].value, expected, tolerance)


@pytest.mark.parametrize(("K", "D"), [(3, 2), (5, 5), (6, 9)])
def test_a2_the_nearest_simplex_is_the_nearest(K: int, D: int) -> None:
    means = torch.randn(K, D, dtype=torch.float64)
    statistics = ClassStatistics.from_features(means, torch.arange(K), K)
    centred = means - means.mean(0)
    ours = centred / torch.linalg.matrix_norm(centred)
    nearest = metrics.nearest_etf(statistics)
    target = torch.full((K, K), -1 / (K - 1), dtype=torch.float64).fill_diagonal_(1)
    torch.testing.assert_close(nearest @ nearest.mT, target, rtol=0, atol=1e-12)
    distance = torch.linalg.matrix_norm(ours - nearest / K**0.5)
    check(metrics.etf_distance(statistics), distance.item(), 1e-12)
    nuclear = torch.linalg.matrix_norm(ours, "nuc").item()
    check(distance, math.sqrt(2 - 2 * nuclear / math.sqrt(K - 1)), 1e-10)
    for _ in range(50):  # any other simplex, however little turned, is further away
        turn = torch.linalg.matrix_exp(0.1 * (skew := torch.randn(D, D, dtype=torch.float64)) - 0.1 * skew.mT)
        assert torch.linalg.matrix_norm(ours - nearest @ turn / K**0.5) > distance


# ---------------------------------------------------------------------- A3


def test_a3_example_b_with_the_means_as_classifier(example_b: ClassStatistics) -> None:
    weight = example_b.means
    check(metrics.self_duality_distance(example_b, weight), 0.367007)
    check(metrics.self_duality_distance(example_b, weight, squared=False), math.sqrt(0.367007))
    check(metrics.self_duality_error(example_b, weight), 0.605811)


def test_a3_bias_collapse(example_b: ClassStatistics) -> None:
    """|W mu_G + b| with mu_G = (1/3, 1/3) and W the uncentred means: |(1/3, 1/3, 0) + b|."""
    check(metrics.bias_collapse(example_b, example_b.means), 2**0.5 / 3, 1e-12)
    bias = torch.tensor([-1 / 3, -1 / 3, 2.0], dtype=torch.float64)
    check(metrics.bias_collapse(example_b, example_b.means, bias), 2.0, 1e-12)


def test_a3_cosines(example_a: ClassStatistics) -> None:
    check(metrics.nc3_cosine(example_a, 5 * example_a.means), 1.0, 1e-12)
    check(metrics.nc3_cosine(example_a, 5 * example_a.means, complement=True), 0.0, 1e-12)
    check(metrics.unc3(example_a, 5 * example_a.means), 0.0, 1e-12)
    check(metrics.nc3_cosine(example_a, -example_a.means), -1.0, 1e-12)
    check(metrics.self_duality_distance(example_a, -example_a.means), 4.0, 1e-12)


# ---------------------------------------------------------------------- A4


def test_a4_mismatch_is_per_sample_and_ties_go_to_the_lowest_class() -> None:
    statistics = ClassStatistics.from_features(torch.tensor([[1.0, 0], [-1, 0]]), torch.arange(2), 2)
    decisions = DecisionCounts(statistics, torch.tensor([[1.0, 0], [-1, 0]]), torch.tensor([0.0, 1.0]))
    rows = torch.tensor(
        [[0.25, 0], [2.0, 0], [0.0, 0], [0.5, 0], [-1.0, 0]]
    )  # centre: 0 0 0 0 1; classifier: 1 0 1 0 1
    decisions.update(rows, torch.tensor([0, 0, 0, 0, 1]))
    check(metrics.ncc_mismatch(decisions), 0.4, 1e-15)
    check(metrics.ncc_agreement(decisions), 0.6, 1e-15)
    check(metrics.ncc_agreement(decisions, weighting="class"), (0.5 + 1) / 2, 1e-15)
    check(metrics.ncc_accuracy(decisions), 1.0, 1e-15)
    check(metrics.classifier_accuracy(decisions), 0.6, 1e-15)


# ---------------------------------------------------------------------- A5


def test_a5_orthogonality_takes_raw_means() -> None:
    """The projection check of section A5, (3, 4) on e1 -> 0.6, as a cosine with an uncentred class mean."""
    means = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 7.0]], dtype=torch.float64)
    statistics = ClassStatistics.from_features(means, torch.arange(2), 2)
    outside = torch.tensor([3.0, 4.0, 0.0], dtype=torch.float64)
    assert [round(c, 12) for c in metrics.ood_cosines(statistics, outside).tolist()] == [0.6, 0.0]
    check(metrics.ood_orthogonality(statistics, outside), 0.3, 1e-12)
    check(metrics.ood_orthogonality(statistics, -outside), 0.3, 1e-12)


# ---------------------------------------------------------------------- A6


@pytest.mark.parametrize(("K", "expected"), [(2, -0.693147), (3, -0.549306), (10, -0.399254), (100, -0.351599)])
def test_a6_log_kernel_of_the_simplex(simplex: Callable[..., ClassStatistics], K: int, expected: float) -> None:
    check(metrics.log_kernel(simplex(K)), expected)
    check(metrics.log_kernel(simplex(K)), -math.log(2 * K / (K - 1)) / 2, 1e-12)
    check(metrics.distance_kernel(simplex(K)), math.sqrt(2 * K / (K - 1)), 1e-12)
    check(metrics.riesz_kernel(simplex(K)), math.sqrt((K - 1) / (2 * K)), 1e-12)
    check(metrics.log_kernel(simplex(K), of="variance"), 0.0, 1e-20)
    check(metrics.log_kernel.target_in(setting(K, K)), expected)
    for name in ("log_kernel", "distance_kernel", "riesz_kernel", "riesz2_kernel"):
        check(VARIANTS[name](simplex(K)), VARIANTS[name].target_in(setting(K, K)), 1e-12)


def test_a6_log_kernel_of_many_classes(simplex: Callable[..., ClassStatistics]) -> None:
    K = 1200
    value = metrics.log_kernel(simplex(K)).item()
    check(value + math.log(K / (K - 1)) / 2, -0.346574)
    check(metrics.log_kernel.target_in(setting(10**6, 2)), -0.346574)


@pytest.mark.parametrize(("K", "D"), [(3, 2), (6, 2), (20, 4), (9, 30)])
def test_a6_the_simplex_value_is_a_lower_bound(K: int, D: int) -> None:
    for _ in range(20):
        means = torch.randn(K, D, dtype=torch.float64)
        value = metrics.log_kernel(ClassStatistics.from_features(means, torch.arange(K), K))
        assert value > -math.log(2 * K / (K - 1)) / 2


@pytest.mark.parametrize("D", [64, 1024])
def test_a6_null_level_of_random_directions(D: int) -> None:
    """-0.346574 + 1/(4D) of the sheet, and the next term of the series of E[-log|u - v|]."""
    K = 2000  # centring takes 1/(K-1) off each cosine
    counts, nothing = torch.full((K,), 50), torch.zeros(K, D, dtype=torch.float64)
    statistics = ClassStatistics(counts, nothing, counts.to(torch.float64))
    level = levels(Evidence(statistics), ["log_kernel"], draws=2)["log_kernel"]
    assert level.kind == "isotropic"
    check(level.value, -0.346574 + 1 / (4 * D) + 3 / (8 * D * (D + 2)) - 1 / (2 * (K - 1)), 1e-4)


# ---------------------------------------------------------------------- one-vs-rest distance (A7)


@pytest.mark.parametrize("K", [2, 3, 6])
def test_a7_simplex(simplex: Callable[..., ClassStatistics], K: int) -> None:
    rows = simplex(K).centred_means()
    check(metrics.one_vs_rest_distance(rows), K / (K - 1), 1e-12)


@pytest.mark.parametrize(("K", "expected"), [(3, 1.5), (4, 1.0), (8, 0.292893)])
def test_a7_circle(K: int, expected: float) -> None:
    angles = 2 * math.pi / K * torch.arange(K, dtype=torch.float64)
    rows = 3 * torch.stack([angles.cos(), angles.sin()], 1)  # scaled: the metric takes unit rows
    check(metrics.one_vs_rest_distance(rows), expected)
    check(metrics.one_vs_rest_distance(rows), 1 - math.cos(2 * math.pi / K), 1e-12)


def test_a7_orthoplex_and_icosahedron() -> None:
    eye = torch.eye(4, dtype=torch.float64)
    check(metrics.one_vs_rest_distance(torch.cat([eye, -eye])), 1.0, 1e-12)
    golden = (1 + 5**0.5) / 2
    half = torch.tensor([[0, 1, golden], [0, -1, golden]], dtype=torch.float64)
    rows = torch.cat([half.roll(shift, 1) for shift in range(3)])
    check(metrics.one_vs_rest_distance(torch.cat([rows, -rows])), 0.552786)
