"""NC2 beyond the scalar laws: grids, the nearest simplex, structure errors, classifiers that don't fit."""

import math
from collections.abc import Callable
from operator import attrgetter

import numpy as np
import pytest
import torch

from laws.scenarios import SCENARIOS, draw, statistics_of
from oracle import Sample
from tightframe import ClassStatistics, metrics
from tightframe.errors import ChoiceError, DimensionError, EmptyClassError, GeometryWarning, ShapeError
from tightframe.evidence import Evidence
from tightframe.metrics.pairs import DISTANCE, LOG, NEAREST, OverPairs, over_pairs, reduce_vectors, riesz
from variants import VARIANTS

SHAPES = [
    metrics.equinorm,
    VARIANTS["equinorm_ddof0"],
    metrics.equiangularity,
    VARIANTS["equiangularity_ddof0"],
    metrics.maximal_angle_deviation,
    metrics.mean_cosine,
    metrics.minimum_angle,
    metrics.etf_error,
    metrics.etf_distance,
    metrics.participation_ratio,
    metrics.distance_kernel,
    VARIANTS["distance_kernel_cv"],
    metrics.log_kernel,
    VARIANTS["log_kernel_cv"],
    metrics.riesz_kernel,
    VARIANTS["riesz_kernel_cv"],
    VARIANTS["riesz2_kernel"],
]


def of_means(means: torch.Tensor) -> ClassStatistics:
    return ClassStatistics.from_features(means, torch.arange(len(means)), len(means))


@pytest.mark.parametrize("name", SCENARIOS)
def test_grids_are_the_products_of_the_centred_means(name: str) -> None:
    statistics = statistics_of(draw(SCENARIOS[name]))
    means = statistics.means[statistics.present].numpy()
    centred = means - means.mean(0)
    norms = np.linalg.norm(centred, axis=1)
    gram = centred @ centred.T
    np.testing.assert_allclose(metrics.mean_norms(statistics), norms, rtol=1e-12)
    np.testing.assert_allclose(metrics.interference_grid(statistics), gram, rtol=0, atol=1e-12)
    np.testing.assert_allclose(metrics.cosine_grid(statistics), gram / np.outer(norms, norms), rtol=0, atol=1e-12)


@pytest.mark.parametrize("function", SHAPES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", SCENARIOS)
def test_shape_ignores_rotation_translation_and_scale(
    name: str, function: Callable, rotation: Callable[[int], torch.Tensor]
) -> None:
    sample = draw(SCENARIOS[name])
    turn = rotation(SCENARIOS[name].dim).numpy()
    moved = Sample(7 * sample.features @ turn + 3, sample.labels, sample.num_classes)
    np.testing.assert_allclose(function(statistics_of(moved)), function(statistics_of(sample)), rtol=1e-10)


@pytest.mark.parametrize(("a", "b"), [((5, 3), (5, 4)), ((5, 3), (4, 3)), ((1, 3), (1, 3)), ((5,), (5,))])
def test_structure_error_needs_two_equal_shapes(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"K >= 2; got \("):
        metrics.structure_error(torch.ones(a), torch.ones(b))


@pytest.mark.parametrize(("K", "D"), [(4, 9), (4, 3), (4, 2), (12, 3)])
def test_structure_error_by_its_definition(K: int, D: int) -> None:
    a, b = torch.randn(2, K, D, dtype=torch.float64)
    product = (b @ a.mT).numpy()
    ideal = (np.eye(K) - 1 / K) / math.sqrt(K - 1)
    expected = np.linalg.norm(product / np.linalg.norm(product) - ideal)
    np.testing.assert_allclose(metrics.structure_error(a, b), expected, rtol=1e-12)


def test_structure_error_of_dual_simplices_is_zero(
    simplex: Callable[..., ClassStatistics], rotation: Callable[[int], torch.Tensor]
) -> None:
    rows = simplex(5, 8).centred_means() @ rotation(8)
    assert metrics.structure_error(rows, 3 * rows) < 1e-14
    assert abs(metrics.structure_error(rows, -rows) - 2) < 1e-14


@pytest.mark.parametrize("D", [1, 2])
def test_a_simplex_needs_its_dimensions(D: int) -> None:
    with pytest.raises(DimensionError, match=f"4 classes needs at least 3 dimensions; got {D}"):
        metrics.nearest_etf(of_means(torch.randn(4, D, dtype=torch.float64)))


def test_the_simplex_is_its_own_nearest(simplex: Callable[..., ClassStatistics]) -> None:
    for K in (2, 3, 6):
        centred = simplex(K).centred_means()
        units = centred / torch.linalg.vector_norm(centred, dim=1, keepdim=True)
        torch.testing.assert_close(metrics.nearest_etf(simplex(K)), units, rtol=0, atol=1e-12)
        assert metrics.etf_distance(simplex(K)) < 1e-14
        assert metrics.etf_error(simplex(K)) < 1e-14


@pytest.mark.parametrize("step", [1e-3, 1e-6, 1e-9])
def test_near_the_simplex_errors_shrink_with_the_step(simplex: Callable[..., ClassStatistics], step: float) -> None:
    """The forms with a square root of a difference would stall at 1e-8."""
    noise = torch.randn(5, 5, dtype=torch.float64)
    near, tenth = (of_means(simplex(5).means + scale * noise) for scale in (step, step / 10))
    for function in (metrics.etf_error, metrics.etf_distance, metrics.equinorm, metrics.equiangularity):
        assert abs(function(near) / function(tenth) - 10) < 0.05, function.__name__


@pytest.mark.parametrize("step", [1e-4, 1e-7, 1e-10])
def test_small_angles_keep_their_digits(step: float) -> None:
    """Two means `step` apart seen from a centre at distance one, between two more that hold the centre."""
    means = torch.tensor([[1, step / 2, 0], [1, -step / 2, 0], [-1, 0, 1], [-1, 0, -1]], dtype=torch.float64)
    expected = math.degrees(2 * math.atan(step / 2))
    assert abs(metrics.minimum_angle(of_means(means)) / expected - 1) < 1e-6


def test_two_classes_are_always_a_simplex() -> None:
    statistics = of_means(torch.randn(2, 7, dtype=torch.float64))
    assert metrics.etf_error(statistics) < 1e-14
    assert metrics.etf_distance(statistics) < 1e-14
    assert abs(metrics.mean_cosine(statistics) + 1) < 1e-14
    assert abs(metrics.minimum_angle(statistics) - 180) < 1e-12
    assert metrics.equiangularity(statistics, ddof=0) == 0
    assert metrics.equiangularity(statistics).isnan()  # one pair has no spread about itself


def test_the_angle_of_two_classes_is_a_straight_one() -> None:
    """arccos of a cosine of -1 - 2e-16 is NaN, and of -1 + 2e-16 it is 1e-6 degrees off."""
    generator = torch.Generator().manual_seed(0)
    for trial in range(200):
        means = torch.randn(2, 1 + trial % 20, dtype=torch.float64, generator=generator)
        angle = metrics.minimum_angle(of_means(means)).item()
        assert angle == pytest.approx(180, rel=0, abs=1e-12)
        assert angle <= 180


@pytest.mark.parametrize("angle", [1e-9, 1e-3, 30.0, 90.0, 120.0, 179.0, 180 - 1e-3, 180 - 1e-7])
def test_the_smallest_angle_is_exact_in_all_of_its_range(angle: float) -> None:
    """Two vectors at that angle, seen through the kernel: centred means of three classes are never all so far apart."""
    half = math.radians(angle) / 2
    vectors = torch.tensor([[math.cos(half), math.sin(half)], [math.cos(half), -math.sin(half)]], dtype=torch.float64)
    if angle > 120:
        vectors = torch.tensor([[1.0, 0.0], [math.cos(2 * half), math.sin(2 * half)]], dtype=torch.float64)
    found = reduce_vectors(vectors, {"nearest": NEAREST})["nearest"].value.rad2deg().item()
    assert found == pytest.approx(angle, rel=1e-13 if angle > 1 else 1e-9, abs=0)


# ---------------------------------------------------------------------- kernels


@pytest.mark.parametrize("exponent", [-1.0, 0.5, 1.0, 2.0, 7.0])
def test_riesz_kernels_of_any_exponent(exponent: float) -> None:
    statistics = of_means(torch.randn(9, 4, dtype=torch.float64))
    units = statistics.centred_means()
    units = units / torch.linalg.vector_norm(units, dim=1, keepdim=True)
    values = torch.nn.functional.pdist(units) ** -exponent
    wanted = OverPairs(riesz(exponent), lambda kernel: kernel.log_mean)
    (log_mean,) = over_pairs(statistics, wanted, tile_size=4)
    torch.testing.assert_close(log_mean, values.mean().log(), rtol=1e-11, atol=1e-14)
    expected = {"mean": values.mean(), "variance": values.var(correction=0)}
    expected["cv"] = values.std(correction=0) / values.mean()
    for of, value in expected.items():
        for tile_size in (4, 512):
            found = metrics.riesz_kernel(statistics, of=of, exponent=exponent, tile_size=tile_size)
            torch.testing.assert_close(found, value, rtol=1e-10, atol=0)


def test_kernels_give_all_their_moments() -> None:
    statistics = of_means(torch.randn(9, 4, dtype=torch.float64))
    units = statistics.centred_means()
    distances = torch.nn.functional.pdist(units / torch.linalg.vector_norm(units, dim=1, keepdim=True))
    for kernel, function, values in (
        (DISTANCE, metrics.distance_kernel, distances),
        (LOG, metrics.log_kernel, -distances.log()),
    ):
        for of in ("mean", "variance", "cv"):
            (found,) = over_pairs(statistics, OverPairs(kernel, attrgetter(of)), tile_size=4)
            torch.testing.assert_close(function(statistics, of=of), found, rtol=1e-12, atol=0)
        (kernel,) = over_pairs(statistics, OverPairs(kernel, lambda moments: moments), tile_size=4)
        assert kernel.number == 36
        assert kernel.left_out == 0
        torch.testing.assert_close(kernel.mean, values.mean(), rtol=1e-11, atol=0)
        torch.testing.assert_close(kernel.variance, values.var(correction=0), rtol=1e-10, atol=0)
        for ddof in (0, 1):
            torch.testing.assert_close(kernel.standard_deviation(ddof), values.std(correction=ddof), rtol=1e-10, atol=0)
        torch.testing.assert_close(kernel.cv, values.std(correction=0) / values.mean().abs(), rtol=1e-10, atol=0)


@pytest.mark.filterwarnings("ignore:the means of these classes coincide")
def test_coincident_directions_have_infinite_energy() -> None:
    """And are left out of the mean, unless its exact definition is asked for."""
    statistics = of_means(torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64))
    assert metrics.log_kernel(statistics, exact=True) == math.inf
    assert metrics.riesz_kernel(statistics, exact=True) == math.inf
    for of in ("variance", "cv"):
        assert metrics.log_kernel(statistics, of=of, exact=True).isnan()
        assert metrics.riesz_kernel(statistics, of=of, exact=True).isnan()
    assert metrics.minimum_angle(statistics) == 0
    chords = torch.tensor([2 - math.sqrt(2), 2 + math.sqrt(2), 2 + math.sqrt(2), 2 + math.sqrt(2), 2 + math.sqrt(2)])
    chords = chords.double().sqrt()
    chords[0] = math.sqrt(2)  # of the two others
    torch.testing.assert_close(metrics.log_kernel(statistics), -chords.log().mean(), rtol=1e-7, atol=0)
    torch.testing.assert_close(metrics.riesz_kernel(statistics), (1 / chords).mean(), rtol=1e-7, atol=0)
    for of, value in (("variance", chords.log().var(correction=0)), ("mean", -chords.log().mean())):
        torch.testing.assert_close(metrics.log_kernel(statistics, of=of), value, rtol=1e-6, atol=0)


def test_directions_that_do_not_exist_are_left_out_and_named() -> None:
    """The class in the middle has no direction: its four pairs are left out, and the others are as without it."""
    means = torch.tensor([[1.0, 0], [-1, 0], [0, 0], [1, 2], [-1, -2]], dtype=torch.float64)
    statistics, others = of_means(means), of_means(means[[0, 1, 3, 4]])
    told = r"no direction; measures of directions leave out 4 pairs\. Classes: 2\.$"
    for name, metric in VARIANTS.items():
        if metric.pairs is None or "cdnv" in name:
            continue
        with pytest.warns(GeometryWarning, match=told):
            value = metric(statistics)
        expected = metric(others)
        if name == "maximal_angle_deviation":  # from the angle of five classes, not of four
            units = torch.nn.functional.normalize(means[[0, 1, 3, 4]], dim=1)
            i, j = torch.triu_indices(4, 4, 1)
            expected = ((units @ units.mT)[i, j] + 1 / 4).abs().mean()
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-15, msg=name)
        if name != "minimum_angle":
            with pytest.warns(GeometryWarning, match=told):
                assert metric(statistics, exact=True).isnan(), name
    torch.testing.assert_close(metrics.mean_cosine(statistics), metrics.mean_cosine(others))


@pytest.mark.parametrize("tile_size", [1, 2, 512])
def test_distinct_means_in_one_direction_are_left_out_and_counted(tile_size: int) -> None:
    means = torch.tensor([[1.0, 0], [3, 0], [-2, 1], [-2, -1]], dtype=torch.float64)
    statistics = of_means(means)
    units = torch.nn.functional.normalize(means, dim=1)
    values = -torch.nn.functional.pdist(units)[1:].log()
    with pytest.warns(GeometryWarning, match=r"^1 pairs of distinct class means have equal directions"):
        value = metrics.log_kernel(statistics, tile_size=tile_size)
    torch.testing.assert_close(value, values.mean(), rtol=1e-12, atol=0)
    with pytest.warns(GeometryWarning, match="equal directions"):
        assert metrics.log_kernel(statistics, exact=True, tile_size=tile_size) == math.inf
    for metric in (metrics.distance_kernel, metrics.equiangularity, metrics.minimum_angle):  # finite of them, too
        assert metric(statistics, tile_size=tile_size).isfinite()


def test_a_kernel_has_three_readings() -> None:
    for metric in (metrics.log_kernel, metrics.distance_kernel, metrics.riesz_kernel):
        with pytest.raises(ChoiceError, match='of must be "mean", "variance" or "cv"; got \'median\''):
            metric(of_means(torch.randn(3, 4)), of="median")


@pytest.mark.parametrize("function", SHAPES, ids=lambda f: f.__name__)
def test_one_class_has_no_shape(function: Callable) -> None:
    statistics = ClassStatistics.from_features(torch.randn(5, 2), torch.ones(5).long(), 3)
    with pytest.raises(EmptyClassError, match="1 of 3 has"):
        function(statistics)


# ---------------------------------------------------------------------- classifiers


ALONE = [metric for metric in VARIANTS.values() if metric.reads == ("classifier",)]
WITH_CLASSIFIER = [
    metrics.classifier_equinorm,
    metrics.classifier_equiangularity,
    metrics.classifier_etf_error,
    VARIANTS["classifier_equinorm_ddof0"],
    VARIANTS["classifier_equiangularity_ddof0"],
    metrics.classifier_mean_cosine,
    VARIANTS["classifier_mean_cosine_centred"],
    VARIANTS["classifier_etf_error_centred"],
    metrics.one_vs_rest_distance,
    metrics.classifier_seli_error,
    metrics.self_duality_distance,
    metrics.self_duality_error,
    metrics.nc3_cosine,
    metrics.bias_collapse,
]


@pytest.mark.parametrize("function", WITH_CLASSIFIER, ids=lambda f: f.__name__)
@pytest.mark.parametrize("shape", [(5, 10), (7, 10), (6, 9), (6,), (10, 6)])
def test_a_classifier_of_another_shape_is_refused(function: Callable, shape: tuple[int, ...]) -> None:
    statistics = statistics_of(draw(SCENARIOS["balanced"]))
    with pytest.raises(ShapeError, match=rf"= \(6, 10\); got \({str(shape)[1:-1]}\)"):
        function.of(Evidence(statistics, torch.ones(shape)))


@pytest.mark.parametrize("function", ALONE, ids=lambda f: f.__name__)
def test_a_classifier_alone_needs_rows(function: Callable) -> None:
    for shape in ((5,), (1, 5), (2, 3, 4)):
        with pytest.raises(ShapeError, match=r"classifier must be \(K, D\) with K >= 2 rows; got"):
            function(torch.ones(shape))


@pytest.mark.parametrize("function", WITH_CLASSIFIER, ids=lambda f: f.__name__)
def test_rows_of_absent_classes_do_not_count(function: Callable) -> None:
    sample = draw(SCENARIOS["empty classes"])
    statistics, weight = statistics_of(sample), torch.from_numpy(sample.weight)
    expected = function.of(Evidence(statistics, weight.clone()))
    weight[~statistics.present] = 1e6
    assert torch.equal(function.of(Evidence(statistics, weight)), expected)
    chosen = statistics.select([5, 3, 2, 0])
    for rows in (weight, weight[[5, 3, 2, 0]]):  # all original labels, or the selected ones in their order
        torch.testing.assert_close(function.of(Evidence(chosen, rows)), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("function", WITH_CLASSIFIER, ids=lambda f: f.__name__)
def test_a_float32_classifier_is_taken_as_it_is(function: Callable) -> None:
    sample = draw(SCENARIOS["balanced"])
    statistics, weight = statistics_of(sample), torch.from_numpy(sample.weight).float()
    value = function.of(Evidence(statistics, weight))
    assert torch.equal(value, function.of(Evidence(statistics, weight.double())))
    assert value.dtype is torch.float64
    if function.reads == ("classifier",):
        assert torch.equal(function(weight), value)
