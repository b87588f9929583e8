"""The span of the class means: the true rank of coincident means, and measures that read the scatter in the span."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from laws.scenarios import SCENARIOS, Scenario, draw, projected, statistics_of
from metrics.coincident import coincident
from tightframe import ClassStatistics, metrics
from tightframe.errors import GeometryWarning
from variants import VARIANTS

NC1 = [metrics.nc1, VARIANTS["nc1_undivided"], VARIANTS["nc1_sample_centred"], VARIANTS["nc1_discriminant"]]
IN_SPAN = [*NC1, metrics.within_in_mean_span]
BALANCED = VARIANTS["nc1_class_balanced"]


def close(value: torch.Tensor, expected: object, tolerance: float = 1e-10) -> None:
    np.testing.assert_allclose(value.numpy(), expected, rtol=tolerance)


@pytest.mark.parametrize("groups", [((1, 4),), ((0, 3, 5),), ((0, 2), (4, 1)), ((0, 1, 2, 3, 4),)])
@pytest.mark.parametrize("function", [*NC1, BALANCED])
def test_coincident_means_are_named_and_the_true_rank_is_used(function: Callable, groups: tuple) -> None:
    sample = coincident(*groups)
    statistics = statistics_of(sample)
    names = "; ".join(", ".join(map(str, sorted(group))) for group in sorted(groups))
    rank = 5 - sum(len(group) - 1 for group in groups)
    assert statistics.coincident() == sorted(sorted(group) for group in groups)
    with pytest.warns(GeometryWarning) as record:
        value = function(statistics)
    message = str(record[0].message)
    assert f"span {rank} of 5 possible dimensions" in message
    assert sorted(message.split("coincide: ")[1].rstrip(".").split("; ")) == sorted(names.split("; "))
    means = statistics.means.numpy()
    _, values, right = np.linalg.svd(means - means.mean(0), full_matrices=False)
    inverse = right[:rank].T @ np.diag(6 / values[:rank] ** 2) @ right[:rank]  # the rank is given, not guessed
    within = statistics.within.numpy() / 48
    expected = np.trace(within @ inverse) / (1 if function.name == "nc1_undivided" else 6)
    np.testing.assert_allclose(value, expected, rtol=1e-9)


def test_two_coincident_means_seen_with_numpy(recwarn: pytest.WarningsRecorder) -> None:
    """NC1 by `numpy.linalg.pinv` of S_B with a cut that keeps exactly the true rank."""
    statistics = statistics_of(coincident((2, 5)))
    with pytest.warns(GeometryWarning, match=r"the means of these classes coincide: 2, 5\.$"):
        value = metrics.nc1(statistics)
    between = statistics.between_covariance().numpy()
    eigenvalues = np.linalg.eigvalsh(between)[::-1]
    assert eigenvalues[4] < 1e-12 * eigenvalues[0] < eigenvalues[3]
    expected = np.trace(statistics.within.numpy() / 48 @ np.linalg.pinv(between, rtol=1e-12)) / 6
    np.testing.assert_allclose(value, expected, rtol=1e-9)


def test_distinct_means_are_not_called_coincident() -> None:
    for scenario in SCENARIOS.values():
        statistics = statistics_of(draw(scenario, offset=1e4, spread=1e-3))
        assert statistics.coincident() == []


def test_a_lower_rank_without_coincidence_is_reported_without_names() -> None:
    """Four means on a line in three dimensions."""
    means = torch.tensor([[0.0], [1.0], [2.0], [5.0]]) @ torch.tensor([[1.0, 2.0, 3.0]])
    features = torch.cat([means + torch.eye(3)[0], means - torch.eye(3)[0]])
    statistics = ClassStatistics.from_features(features, torch.arange(4).repeat(2), 4)
    with pytest.warns(GeometryWarning, match=r"span 1 of 3 possible dimensions\.$"):
        metrics.nc1(statistics)
    assert statistics.coincident() == []


@pytest.mark.parametrize("function", [*NC1, metrics.vci, BALANCED])
def test_without_any_distance_between_classes_nothing_has_collapsed(function: Callable) -> None:
    """All means in one place: S_B is zero and the ratio undefined, or infinite, but never 0, which says collapsed."""
    features = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 0.0]]).repeat(4, 1)
    statistics = ClassStatistics.from_features(features, torch.arange(4).repeat_interleave(3), 4, per_class=True)
    with pytest.warns(GeometryWarning, match="span 0 of.*0, 1, 2, 3"):
        value = function(statistics)
    assert not value.isfinite()


# ---------------------------------------------------------------------- features projected onto the span

SHAPES = {
    **SCENARIOS,
    "two classes": Scenario((9, 14), 20),
    "wide": Scenario((12, 5, 9, 30, 7), 200),
    "square": Scenario((8,) * 6, 5),  # K - 1 = D
    "ill-conditioned": Scenario((1000, 3, 3, 2), 3),
}


@pytest.mark.parametrize("function", IN_SPAN, ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", SHAPES)
def test_the_scatter_in_the_span_of_the_means_is_enough(name: str, function: Callable) -> None:
    for offset, spread in ((0.0, 0.5), (1e3, 1e-2)):
        whole = statistics_of(draw(SHAPES[name], offset=offset, spread=spread))
        part = projected(whole)
        assert part.num_features == min(whole.present.sum() - 1, whole.num_features)
        close(function(part), function(whole), 1e-12 if offset == 0 else 1e-10)


def test_projected_coincident_means() -> None:
    """The true rank is that of the basis: three dimensions for five classes."""
    whole = statistics_of(coincident((1, 4), (0, 2)))
    part = projected(whole)
    assert part.num_features == 3
    for function in IN_SPAN:
        with pytest.warns(GeometryWarning):
            expected = function(whole)
        close(function(part), expected, 1e-10)


def test_projected_means_that_all_coincide() -> None:
    """No dimension is left, but the spread is: infinitely variable, not collapsed."""
    nowhere = ClassStatistics(
        torch.tensor([3, 4]), torch.empty(2, 0).double(), torch.ones(2).double(), torch.empty(0, 0).double()
    )
    assert metrics.nc1(nowhere).isinf()
    assert metrics.within_in_mean_span(nowhere) == 0
