"""NC2 beyond the scalar laws: grids, the nearest simplex, structure errors, classifiers that don't fit."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from laws.scenarios import SCENARIOS, draw, statistics_of
from oracle import Sample
from tightframe import ClassStatistics, metrics
from tightframe.errors import DimensionError, EmptyClassError, ShapeError

SHAPES = [
    metrics.equinorm,
    metrics.equinorm_ddof0,
    metrics.equiangularity,
    metrics.equiangularity_ddof0,
    metrics.maximal_angle_deviation,
    metrics.mean_cosine,
    metrics.minimum_angle,
    metrics.etf_error,
    metrics.etf_distance,
    metrics.participation_ratio,
    metrics.distance_mean,
    metrics.distance_cv,
    metrics.log_kernel_mean,
    metrics.log_kernel_cv,
    metrics.riesz_mean,
    metrics.riesz_cv,
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
    with pytest.raises(ShapeError, match=r"K >= 2 expected; got \("):
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
    with pytest.raises(DimensionError, match=f"4 classes needs 3 dimensions; got {D}"):
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
    assert abs(metrics.minimum_angle(statistics) - 180) < 1e-5
    assert metrics.equiangularity_ddof0(statistics) == 0
    assert metrics.equiangularity(statistics).isnan()  # one pair has no spread about itself


# ---------------------------------------------------------------------- kernels


@pytest.mark.parametrize("exponent", [-1.0, 0.5, 1.0, 2.0, 7.0])
def test_riesz_kernels_of_any_exponent(exponent: float) -> None:
    statistics = of_means(torch.randn(9, 4, dtype=torch.float64))
    units = statistics.centred_means()
    units = units / torch.linalg.vector_norm(units, dim=1, keepdim=True)
    values = torch.nn.functional.pdist(units) ** -exponent
    kernel = metrics.riesz_kernel_moments(statistics, exponent, tile_size=4)
    torch.testing.assert_close(kernel.mean, values.mean(), rtol=1e-11, atol=0)
    torch.testing.assert_close(kernel.log_mean, values.mean().log(), rtol=1e-11, atol=1e-14)
    torch.testing.assert_close(kernel.cv, values.std(correction=0) / values.mean(), rtol=1e-10, atol=0)
    torch.testing.assert_close(metrics.riesz_mean(statistics, exponent), values.mean(), rtol=1e-11, atol=0)
    torch.testing.assert_close(metrics.riesz_cv(statistics, exponent), kernel.cv, rtol=1e-12, atol=0)


def test_kernels_give_all_their_moments() -> None:
    statistics = of_means(torch.randn(9, 4, dtype=torch.float64))
    units = statistics.centred_means()
    distances = torch.nn.functional.pdist(units / torch.linalg.vector_norm(units, dim=1, keepdim=True))
    for kernel, values in (
        (metrics.distance_kernel(statistics, tile_size=4), distances),
        (metrics.log_kernel(statistics, tile_size=4), -distances.log()),
    ):
        assert kernel.number == 36
        torch.testing.assert_close(kernel.mean, values.mean(), rtol=1e-11, atol=0)
        torch.testing.assert_close(kernel.variance, values.var(correction=0), rtol=1e-10, atol=0)
        for ddof in (0, 1):
            torch.testing.assert_close(kernel.standard_deviation(ddof), values.std(correction=ddof), rtol=1e-10, atol=0)
        torch.testing.assert_close(kernel.cv, values.std(correction=0) / values.mean().abs(), rtol=1e-10, atol=0)


@pytest.mark.filterwarnings("ignore:the means of these classes coincide")
def test_coincident_directions_have_infinite_energy() -> None:
    statistics = of_means(torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64))
    assert metrics.log_kernel_mean(statistics) == math.inf
    assert metrics.riesz_mean(statistics) == math.inf
    assert metrics.minimum_angle(statistics) == 0


@pytest.mark.parametrize("function", SHAPES, ids=lambda f: f.__name__)
def test_one_class_has_no_shape(function: Callable) -> None:
    statistics = ClassStatistics.from_features(torch.randn(5, 2), torch.ones(5).long(), 3)
    with pytest.raises(EmptyClassError, match="1 of 3 has"):
        function(statistics)


# ---------------------------------------------------------------------- classifiers


WITH_CLASSIFIER = [
    metrics.classifier_equinorm,
    metrics.classifier_equiangularity,
    metrics.classifier_etf_error,
    metrics.classifier_etf_error_centred,
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
        function(statistics, torch.ones(shape))


@pytest.mark.parametrize("function", WITH_CLASSIFIER, ids=lambda f: f.__name__)
def test_rows_of_absent_classes_do_not_count(function: Callable) -> None:
    sample = draw(SCENARIOS["empty classes"])
    statistics, weight = statistics_of(sample), torch.from_numpy(sample.weight)
    expected = function(statistics, weight)
    weight[~statistics.present] = 1e6
    assert torch.equal(function(statistics, weight), expected)
    chosen = statistics.select([5, 3, 2, 0])
    for rows in (weight, weight[[5, 3, 2, 0]]):  # all original labels, or the selected ones in their order
        torch.testing.assert_close(function(chosen, rows), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("function", WITH_CLASSIFIER, ids=lambda f: f.__name__)
def test_a_float32_classifier_is_taken_as_it_is(function: Callable) -> None:
    sample = draw(SCENARIOS["balanced"])
    statistics, weight = statistics_of(sample), torch.from_numpy(sample.weight).float()
    assert torch.equal(function(statistics, weight), function(statistics, weight.double()))
    assert function(statistics, weight).dtype is torch.float64
