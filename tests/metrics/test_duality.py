"""NC3 beyond the scalar laws: class by class, and its limits."""

import math

import numpy as np
import pytest
import torch

from laws.scenarios import SCENARIOS, draw, statistics_of
from tightframe import metrics
from tightframe.errors import ShapeError
from variants import VARIANTS


@pytest.mark.parametrize("name", SCENARIOS)
def test_class_by_class(name: str) -> None:
    sample = draw(SCENARIOS[name])
    statistics, weight = statistics_of(sample), torch.from_numpy(sample.weight)
    means = statistics.means[statistics.present].numpy()
    centred, rows = means - means.mean(0), sample.weight[statistics.present]
    products = [w @ m for w, m in zip(rows, centred, strict=True)]
    cosines = [p / np.linalg.norm(w) / np.linalg.norm(m) for p, w, m in zip(products, rows, centred, strict=True)]
    gaps = [np.linalg.norm(w - m) for w, m in zip(rows, centred, strict=True)]
    np.testing.assert_allclose(metrics.classifier_mean_products(statistics, weight), products, rtol=1e-11)
    np.testing.assert_allclose(metrics.classifier_mean_cosines(statistics, weight), cosines, rtol=1e-11)
    np.testing.assert_allclose(metrics.classifier_mean_distances(statistics, weight, unit=False), gaps, rtol=1e-11)
    units = metrics.classifier_mean_distances(statistics, weight)
    np.testing.assert_allclose(units, np.sqrt(2 - 2 * np.array(cosines)), rtol=1e-10)


@pytest.mark.parametrize("step", [1e-3, 1e-6, 1e-9])
def test_misalignment_does_not_cancel(step: float) -> None:
    """A classifier turned by a small angle: 1 - cos is half its square, which 1 - cos itself can't hold."""
    statistics = statistics_of(draw(SCENARIOS["balanced"]))
    centred = statistics.centred_means()
    units = centred / torch.linalg.vector_norm(centred, dim=1, keepdim=True)
    aside = torch.randn(6, 10, dtype=torch.float64)
    aside = aside - (aside * units).sum(1, keepdim=True) * units
    aside = aside / torch.linalg.vector_norm(aside, dim=1, keepdim=True)
    weight = units * math.cos(step) + aside * math.sin(step)
    expected = 2 * math.sin(step / 2) ** 2
    assert abs(metrics.nc3_cosine(statistics, weight, complement=True) / expected - 1) < 1e-5
    assert abs(metrics.duality_distance(statistics, weight) / (2 * math.sin(step / 2)) - 1) < 1e-5


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_the_classifiers_length_does_not_matter(scale: float) -> None:
    sample = draw(SCENARIOS["zipf"])
    statistics, weight = statistics_of(sample), torch.from_numpy(sample.weight)
    for function in (
        metrics.self_duality_distance,
        metrics.self_duality_error,
        metrics.nc3_cosine,
        metrics.unc3,
        VARIANTS["unc3_variance"],
        metrics.duality_distance,
    ):
        torch.testing.assert_close(
            function(statistics, scale * weight), function(statistics, weight), rtol=1e-12, atol=0
        )
    etf_error = metrics.classifier_etf_error
    torch.testing.assert_close(etf_error(scale * weight), etf_error(weight), rtol=1e-12, atol=0)
    products = VARIANTS["unc3_of_products"]
    expected = scale**2 * products(statistics, weight)
    torch.testing.assert_close(products(statistics, scale * weight), expected, rtol=1e-12, atol=0)


def test_a_spread_needs_more_classes_than_it_takes_degrees_of_freedom() -> None:
    statistics = statistics_of(draw(SCENARIOS["balanced"])).select([2, 4])
    for relative in (True, False):
        assert metrics.unc3(statistics, torch.eye(6, 10), relative=relative, ddof=1).isfinite()
        assert metrics.unc3(statistics, torch.eye(6, 10), relative=relative, ddof=2).isnan()


@pytest.mark.parametrize("by", ["class", "sample"])
def test_a_bias_can_cancel_the_mean(by: str) -> None:
    sample = draw(SCENARIOS["empty classes"])
    statistics, weight = statistics_of(sample), torch.from_numpy(sample.weight)
    bias = -weight @ statistics.global_mean(by)
    assert metrics.bias_collapse(statistics, weight, bias, centre=by) < 1e-14
    assert metrics.bias_collapse(statistics, weight, None, centre=by) > 0.1
    bias[1] = 1e9  # class 1 has no samples
    assert metrics.bias_collapse(statistics, weight, bias, centre=by) < 1e-14


def test_a_bias_of_another_length_is_refused() -> None:
    sample = draw(SCENARIOS["balanced"])
    with pytest.raises(ShapeError):
        metrics.bias_collapse(statistics_of(sample), torch.from_numpy(sample.weight), torch.zeros(5))
