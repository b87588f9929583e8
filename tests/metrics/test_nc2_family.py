"""Laws of all measures of NC2 and GNC2: invariances of those of the means, classifiers that don't fit."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from laws.scenarios import SCENARIOS, draw, statistics_of
from oracle import Sample
from tightframe import ClassStatistics, metrics
from tightframe.errors import EmptyClassError, ShapeError
from tightframe.evidence import Evidence
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


@pytest.mark.parametrize("function", SHAPES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", SCENARIOS)
def test_shape_ignores_rotation_translation_and_scale(
    name: str, function: Callable, rotation: Callable[[int], torch.Tensor]
) -> None:
    sample = draw(SCENARIOS[name])
    turn = rotation(SCENARIOS[name].dim).numpy()
    moved = Sample(7 * sample.features @ turn + 3, sample.labels, sample.num_classes)
    np.testing.assert_allclose(function(statistics_of(moved)), function(statistics_of(sample)), rtol=1e-10)


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
