"""Kernels of directions: their moments, any exponent, coincident and missing directions."""

import math
from operator import attrgetter

import pytest
import torch

from tightframe import ClassStatistics, metrics
from tightframe.errors import ChoiceError, GeometryWarning
from tightframe.metrics.kernels import DISTANCE, LOG, riesz
from tightframe.metrics.pairs import OverPairs, over_pairs
from variants import VARIANTS


def of_means(means: torch.Tensor) -> ClassStatistics:
    return ClassStatistics.from_features(means, torch.arange(len(means)), len(means))


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
