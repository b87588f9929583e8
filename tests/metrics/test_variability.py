"""NC1 beyond the scalar laws: per class and per pair, degenerate means, and what its statistics must hold."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from laws.scenarios import SCENARIOS, Scenario, draw, projected, statistics_of
from oracle import Sample
from tightframe import ClassStatistics, metrics
from tightframe.errors import EmptyClassError, GeometryWarning, ScatterError
from variants import VARIANTS

POOLED = [
    metrics.nc1,
    VARIANTS["nc1_undivided"],
    VARIANTS["nc1_sample_centred"],
    VARIANTS["nc1_discriminant"],
    metrics.vci,
    metrics.within_in_mean_span,
]
IN_SPAN = [function for function in POOLED if function is not metrics.vci]
BALANCED = VARIANTS["nc1_class_balanced"]
OWN = [BALANCED, metrics.nc1_per_class, metrics.directional_cdnv]


def close(value: torch.Tensor, expected: object, tolerance: float = 1e-10) -> None:
    np.testing.assert_allclose(value.numpy(), expected, rtol=tolerance)


# ---------------------------------------------------------------------- per class and per pair


@pytest.mark.parametrize("name", SCENARIOS)
def test_nc1_of_each_class_averages_to_both_forms(name: str) -> None:
    statistics = statistics_of(draw(SCENARIOS[name])).populated()
    each = metrics.nc1_per_class(statistics)
    assert each.shape == (statistics.num_classes,)
    close(each.mean(), metrics.nc1(statistics, within="class"))
    close((each * statistics.counts).sum() / statistics.num_samples, metrics.nc1(statistics))
    centred = statistics.centred_means().numpy()
    between = np.linalg.pinv(centred.T @ centred / len(centred), rtol=1e-9)
    for k, own in enumerate(each):
        covariance = (statistics.class_within[k] / statistics.counts[k]).numpy()
        np.testing.assert_allclose(own, np.trace(covariance @ between) / len(centred), rtol=1e-8, atol=1e-20)


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


# ---------------------------------------------------------------------- coincident means


def coincident(*groups: tuple[int, ...]) -> Sample:
    """Six classes in ten dimensions, each row with its mirror image about the mean; some classes share their mean."""
    rng = np.random.default_rng(3)
    means = np.round(rng.normal(size=(6, 10)) * 64) / 64
    for group in groups:
        means[list(group)] = means[group[0]]
    steps = np.round(rng.normal(size=(6, 4, 10)) * 8) / 64
    features = np.concatenate([means[:, None] + steps, means[:, None] - steps], 1).reshape(48, 10)
    return Sample(features, np.repeat(np.arange(6), 8), 6)


@pytest.mark.parametrize("groups", [((1, 4),), ((0, 3, 5),), ((0, 2), (4, 1)), ((0, 1, 2, 3, 4),)])
@pytest.mark.parametrize("function", [*POOLED[:4], BALANCED])
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


@pytest.mark.parametrize("function", [*POOLED[:5], BALANCED])
def test_without_any_distance_between_classes_nothing_has_collapsed(function: Callable) -> None:
    """All means in one place: S_B is zero and the ratio undefined, or infinite, but never 0, which says collapsed."""
    features = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 0.0]]).repeat(4, 1)
    statistics = ClassStatistics.from_features(features, torch.arange(4).repeat_interleave(3), 4, per_class=True)
    with pytest.warns(GeometryWarning, match="span 0 of.*0, 1, 2, 3"):
        value = function(statistics)
    assert not value.isfinite()


# ---------------------------------------------------------------------- features projected onto the means' span


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


# ---------------------------------------------------------------------- what they need


@pytest.mark.parametrize("function", [*POOLED, *OWN], ids=lambda f: f.__name__)
def test_missing_scatter_is_asked_for(function: Callable) -> None:
    sample = draw(SCENARIOS["balanced"])
    features, labels = torch.from_numpy(sample.features), torch.from_numpy(sample.labels)
    bare = ClassStatistics.from_features(features, labels, 6, covariance=False)
    option = "per_class=True" if function in OWN else "covariance=True"
    with pytest.raises(ScatterError, match=option):
        function(bare)
    if function in OWN:
        with pytest.raises(ScatterError, match="per_class=True"):
            function(ClassStatistics.from_features(features, labels, 6))


@pytest.mark.parametrize("function", [metrics.trace_ratio, metrics.trace_share, metrics.cdnv, metrics.within_trace])
def test_traces_need_no_scatter(function: Callable) -> None:
    sample = draw(SCENARIOS["balanced"])
    features, labels = torch.from_numpy(sample.features), torch.from_numpy(sample.labels)
    bare = ClassStatistics.from_features(features, labels, 6, covariance=False)
    assert torch.equal(function(bare), function(statistics_of(sample)))


@pytest.mark.parametrize("function", [*POOLED, *OWN, metrics.cdnv, metrics.trace_ratio], ids=lambda f: f.__name__)
def test_one_class_has_nothing_between(function: Callable) -> None:
    statistics = ClassStatistics.from_features(torch.randn(5, 2), torch.ones(5).long(), 3, per_class=True)
    with pytest.raises(EmptyClassError, match="1 of 3 has"):
        function(statistics)


# ---------------------------------------------------------------------- invariances and limits


@pytest.mark.parametrize("name", SCENARIOS)
def test_ratios_ignore_rotation_translation_and_scale(name: str, rotation: Callable[[int], torch.Tensor]) -> None:
    sample = draw(SCENARIOS[name])
    turn = rotation(SCENARIOS[name].dim).numpy()
    moved = Sample(7 * sample.features @ turn + 3, sample.labels, sample.num_classes)
    one, other = statistics_of(sample), statistics_of(moved)
    for function in (*POOLED, *OWN, metrics.cdnv, metrics.trace_ratio, metrics.trace_share):
        np.testing.assert_allclose(function(other), function(one), rtol=1e-9, atol=1e-15)
    close(metrics.cdnv(other, distance_exponent=4), metrics.cdnv(one, distance_exponent=4) / 49, 1e-9)
    close(metrics.within_trace(other), 49 * metrics.within_trace(one), 1e-9)


def test_vci_ignores_any_invertible_map() -> None:
    sample = draw(SCENARIOS["zipf"])
    stretched = sample.features @ np.random.default_rng(1).normal(size=(12, 12))
    other = statistics_of(Sample(stretched, sample.labels, 8))
    close(metrics.vci(other), metrics.vci(statistics_of(sample)), 1e-9)


def test_test_features_about_training_means() -> None:
    """Strong test collapse: variability about the *training* means, by direct sums."""
    train, test = draw(SCENARIOS["balanced"]), draw(SCENARIOS["balanced"], spread=0.3)
    centres = statistics_of(train).means
    about = statistics_of(test).about(centres)
    gaps = test.features - centres.numpy()[test.labels]
    close(metrics.within_trace(about), (gaps**2).sum(1).mean())
    centred = (centres - centres.mean(0)).numpy()
    between = np.linalg.pinv(centred.T @ centred / 6, rtol=1e-9)
    close(metrics.nc1(about), np.trace(gaps.T @ gaps / len(gaps) @ between) / 6, 1e-9)


def test_perfect_collapse_is_exactly_zero() -> None:
    features = torch.randn(4, 5, dtype=torch.float64).repeat(6, 1)
    statistics = ClassStatistics.from_features(features, torch.arange(4).repeat(6), 4, per_class=True)
    exactly = ClassStatistics(
        statistics.counts, statistics.means, 0 * statistics.spread, 0 * statistics.within, 0 * statistics.class_within
    )
    for function in (*POOLED[:4], *OWN, metrics.cdnv, metrics.trace_ratio, metrics.trace_share):
        assert (function(exactly) == 0).all(), function.__name__
    assert metrics.within_in_mean_span(exactly).isnan()  # a share of nothing
    assert abs(metrics.vci(exactly)) < 1e-14
