"""CDNV pair by pair, and without the pairs of coincident means."""

import numpy as np
import pytest
import torch

from laws.scenarios import SCENARIOS, draw, statistics_of
from metrics.coincident import coincident
from tightframe import metrics
from tightframe.errors import GeometryWarning
from variants import VARIANTS


def close(value: torch.Tensor, expected: object, tolerance: float = 1e-10) -> None:
    np.testing.assert_allclose(value.numpy(), expected, rtol=tolerance)


@pytest.mark.parametrize("exponent", [2.0, 4.0, 1.0])
@pytest.mark.parametrize("name", SCENARIOS)
def test_cdnv_of_each_pair(name: str, exponent: float) -> None:
    statistics = statistics_of(draw(SCENARIOS[name]))
    means, variances = (part[statistics.present].numpy() for part in (statistics.means, statistics.variances))
    K = len(means)
    grid = metrics.cdnv_grid(statistics, distance_exponent=exponent)
    expected = np.full((K, K), np.nan)
    for i in range(K):
        for j in range(K):
            if i != j:
                distance = np.linalg.norm(means[i] - means[j])
                expected[i, j] = (variances[i] + variances[j]) / (2 * distance**exponent)
    close(grid, expected)
    close(metrics.cdnv_per_class(statistics, distance_exponent=exponent), np.nanmean(expected, axis=1))
    close(metrics.cdnv(statistics, distance_exponent=exponent), np.nanmean(expected))
    close(metrics.cdnv_per_class(statistics, distance_exponent=exponent).mean(), np.nanmean(expected))


def test_coincident_means_make_their_pair_infinite_and_no_other() -> None:
    statistics = statistics_of(coincident((1, 4)))
    infinite = metrics.cdnv_grid(statistics).isinf()
    assert infinite.nonzero().tolist() == [[1, 4], [4, 1]]
    rest = metrics.cdnv_grid(statistics).nan_to_num(posinf=0.0)
    close(metrics.cdnv_per_class(statistics), rest.sum(1) / torch.tensor([5, 4, 5, 5, 4, 5]))
    with pytest.warns(GeometryWarning, match=r"leave out 1 pairs: 1, 4\.$"):
        close(metrics.cdnv(statistics), rest.sum() / 28)
    with pytest.warns(GeometryWarning, match=r"leave out 1 pairs: 1, 4\.$"):
        assert metrics.cdnv(statistics, exact=True).isinf()
    with pytest.warns(GeometryWarning, match=r"leave out 1 pairs: 1, 4\.$"):
        value = metrics.directional_cdnv(statistics)
    means, covariances = statistics.means, statistics.class_within / statistics.counts[:, None, None]
    lines = [
        (
            (means[i] - means[j])
            @ (covariances[i] + covariances[j])
            @ (means[i] - means[j])
            / (2 * (means[i] - means[j]).square().sum() ** 2)
        ).item()
        for i in range(6)
        for j in range(i)
        if (j, i) != (1, 4)
    ]
    close(value, np.mean(lines))


def test_without_distinct_means_there_is_no_pair() -> None:
    statistics = statistics_of(coincident((0, 1, 2, 3, 4, 5)))
    for function in (metrics.cdnv, VARIANTS["cdnv_dist4"], metrics.directional_cdnv):
        with pytest.warns(GeometryWarning, match=r"leave out 15 pairs: 0, 1, 2, 3, 4, 5\.$"):
            assert function(statistics).isnan()
    with pytest.warns(GeometryWarning, match="leave out 15 pairs"):
        assert metrics.cdnv(statistics, exact=True).isinf()
    assert metrics.cdnv_per_class(statistics).isnan().all()
