"""NC5: out-of-distribution features against class means, neither of them centred."""

import pytest
import torch

from laws.scenarios import SCENARIOS, draw, statistics_of
from tightframe import ClassStatistics, metrics
from tightframe.errors import ShapeError


@pytest.mark.parametrize("name", SCENARIOS)
def test_cosines_by_class(name: str) -> None:
    statistics = statistics_of(draw(SCENARIOS[name], offset=0.5))
    outside = torch.randn(SCENARIOS[name].dim, dtype=torch.float64)
    means = statistics.means[statistics.present]
    expected = torch.nn.functional.cosine_similarity(means, outside[None])
    torch.testing.assert_close(metrics.ood_cosines(statistics, outside), expected, rtol=1e-12, atol=1e-15)
    assert abs(metrics.ood_orthogonality(statistics, outside) - expected.abs().mean()) < 1e-15


def test_all_outside_samples_count_once_whatever_their_labels() -> None:
    statistics = statistics_of(draw(SCENARIOS["balanced"]))
    features = torch.randn(9, 10, dtype=torch.float64)
    labels = torch.tensor([0, 0, 0, 0, 0, 0, 3, 3, 4])
    expected = metrics.ood_cosines(statistics, features.mean(0))
    for classes in (5, 40):
        outside = ClassStatistics.from_features(features, labels, classes)
        torch.testing.assert_close(metrics.ood_cosines(statistics, outside), expected, rtol=1e-12, atol=1e-15)


def test_the_origin_matters() -> None:
    sample = draw(SCENARIOS["balanced"])
    outside = torch.from_numpy(sample.outside).mean(0)
    moved = ClassStatistics.from_features(torch.from_numpy(sample.features) + 5, torch.from_numpy(sample.labels), 6)
    assert (
        metrics.ood_orthogonality(moved, outside + 5) > 0.9 > metrics.ood_orthogonality(statistics_of(sample), outside)
    )


def test_another_dimension_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(10,\); got \(9,\)"):
        metrics.ood_cosines(statistics_of(draw(SCENARIOS["balanced"])), torch.ones(9))
