"""`few_shot`: the forecast against draws of means and samples, of Gaussian classes and of a network's features."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from tightframe import ClassStatistics, theory
from tightframe.errors import EmptyClassError, GeometryWarning, RangeError, ScatterError
from tightframe.theory import few_shot, few_shot_pairs

SHOTS = (1, 5, 20)


def gaussian(
    seed: int, classes: int, dim: int, sizes: list[float], gap: float
) -> tuple[ClassStatistics, np.ndarray, list[np.ndarray]]:
    """Statistics with exactly these means and covariances: one shape, other sizes."""
    rng = np.random.default_rng(seed)
    means = gap * rng.normal(size=(classes, dim))
    turn = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    shape = turn @ np.diag(np.linspace(0.2, 2, dim)) @ turn.T
    covariances = [size * shape for size in sizes]
    free = 999
    return (
        ClassStatistics(
            torch.full((classes,), free + 1),
            torch.from_numpy(means),
            torch.tensor([free * np.trace(each) for each in covariances], dtype=torch.float64),
            torch.from_numpy(free * sum(covariances)),
            torch.from_numpy(free * np.stack(covariances)),
        ),
        means,
        covariances,
    )


def simulated(
    means: np.ndarray, covariances: list[np.ndarray], shots: int, repeats: int, seed: int = 0
) -> tuple[float, float, np.ndarray]:
    """Accuracy, its standard error, and errors of pairs (K, K), from draws of means and one sample of each class."""
    rng = np.random.default_rng(seed)
    classes, dim = means.shape
    roots = [np.linalg.cholesky(each).T for each in covariances]
    centres = [means[k] + rng.normal(size=(repeats, dim)) @ roots[k] / math.sqrt(shots) for k in range(classes)]
    right, pairs = [], np.full((classes, classes), np.nan)
    for k in range(classes):
        rows = means[k] + rng.normal(size=(repeats, dim)) @ roots[k]
        distances = np.stack([((rows - centre) ** 2).sum(1) for centre in centres], 1)
        right.append(distances.argmin(1) == k)
        for j in set(range(classes)) - {k}:
            pairs[k, j] = (distances[:, j] < distances[:, k]).mean()
    shares = np.mean(right, axis=0)
    return shares.mean(), shares.std() / math.sqrt(repeats), pairs


def test_check_values() -> None:
    """Equal covariances: a coin for equal means, else the formula in closed form."""
    d, within = 30, np.eye(30)
    means = np.zeros((2, d))
    statistics = two(means, within, within)
    errors = few_shot_pairs(statistics, SHOTS)
    assert errors.shape == (3, 2, 2) and errors.diagonal(dim1=1, dim2=2).isnan().all()
    torch.testing.assert_close(errors[:, 0, 1], torch.full((3,), 0.5, dtype=torch.float64))  # equal classes: a coin
    far = np.zeros((2, d))
    far[1, 0] = 3.0
    for m, error in zip(SHOTS, few_shot_pairs(two(far, within, within), SHOTS)[:, 0, 1].tolist(), strict=True):
        variance = 4 * 9 + 4 * 9 / m + 4 * d / m**2 + 8 * d / m
        assert error == pytest.approx(0.5 * math.erfc(9 / math.sqrt(2 * variance)), rel=1e-12)


def two(means: np.ndarray, first: np.ndarray, second: np.ndarray) -> ClassStatistics:
    own = 99 * np.stack([first, second])
    return ClassStatistics(
        torch.tensor([100, 100]),
        torch.from_numpy(means),
        torch.from_numpy(own.trace(axis1=1, axis2=2)),
        torch.from_numpy(own.sum(0)),
        torch.from_numpy(own),
    )


def test_pairs_of_unequal_scatter_are_near_their_simulation() -> None:
    """Two classes in 30 dimensions; with one shot, the wide class is nearer the other mean in two draws of three.

    The score is not normal: in 400,000 draws the errors were .6633, .3148, .1567 (wide) and .0667, .0617, .0456
    (narrow), below the formula by at most .003 and .010.
    """
    means = np.zeros((2, 30))
    means[1] = 3.6 / math.sqrt(30)
    wide, narrow = 1.9 * np.eye(30), np.eye(30)
    errors = few_shot_pairs(two(means, wide, narrow), SHOTS, per_class=True)
    assert errors[:, 0, 1].tolist() == pytest.approx([0.6648, 0.3170, 0.1587], abs=5e-5)
    assert errors[:, 1, 0].tolist() == pytest.approx([0.0756, 0.0683, 0.0491], abs=5e-5)
    for m, grid in zip(SHOTS, errors, strict=True):
        _, _, drawn_errors = simulated(means, [wide, narrow], m, 30_000)
        for (a, b), gap in (((0, 1), 0.003), ((1, 0), 0.010)):
            share = drawn_errors[a, b]
            assert abs(float(grid[a, b]) - share) < gap + 3 * math.sqrt(share * (1 - share) / 30_000)


def test_pairs_with_covariances_of_their_own_are_the_formula() -> None:
    rng = np.random.default_rng(0)
    first, second = (np.diag(rng.uniform(0.1, 3, 6)) for _ in range(2))
    means = rng.normal(size=(2, 6))
    errors = few_shot_pairs(two(means, first, second), SHOTS, per_class=True)
    for m, grid in zip(SHOTS, errors, strict=True):
        for a, b, one, other in ((0, 1, first, second), (1, 0, second, first)):
            d = means[a] - means[b]
            centre = d @ d + (np.trace(other) - np.trace(one)) / m
            variance = 4 * d @ one @ d + 4 * d @ other @ d / m + 2 * np.trace(other @ other) / m**2
            variance += 2 * np.trace(one @ one) / m**2 + 4 * np.trace(one @ other) / m + 4 * np.trace(one @ one) / m
            assert grid[a, b].item() == pytest.approx(0.5 * math.erfc(centre / math.sqrt(2 * variance)), rel=1e-10)


def test_forecast_of_gaussian_classes_is_near_their_simulation() -> None:
    statistics, means, covariances = gaussian(0, 5, 12, [1.0, 0.5, 2.0, 1.0, 1.5], 0.6)
    forecast = few_shot(statistics, SHOTS, draws=256)
    for place, m in enumerate(SHOTS):
        accuracy, error, pairs = simulated(means, covariances, m, 4000)
        allowed = 4 * math.hypot(error, float(forecast.draw_error[place]))
        assert abs(float(forecast.accuracy[place]) - accuracy) < allowed < 0.05
        assert np.nanmax(abs(pairs - forecast.pair_errors[place].numpy())) < 0.04


@pytest.mark.slow
@pytest.mark.parametrize("case", [(0, 5, 12, 0.6), (1, 10, 64, 0.35), (2, 3, 30, 0.2)])
def test_forecast_of_gaussian_classes_within_half_a_point(case: tuple[int, int, int, float]) -> None:
    seed, classes, dim, gap = case
    statistics, means, covariances = gaussian(seed, classes, dim, list(np.linspace(0.5, 2, classes)), gap)
    for per_class in (False, True):
        forecast = few_shot(statistics, SHOTS, draws=4000 if not per_class else 2000, per_class=per_class)
        for place, m in enumerate(SHOTS):
            accuracy, error, _ = simulated(means, covariances, m, 40_000)
            assert abs(float(forecast.accuracy[place]) - accuracy) < 0.005 + 2 * error
            assert float(forecast.draw_error[place]) < 0.002


def test_covariances_of_their_own_change_the_forecast() -> None:
    """One class is a needle along the direction of the other's mean; the pooled shape does not know."""
    needle, ball = np.diag([4.0, 0.01, 0.01, 0.01]), np.eye(4)
    means = np.array([[0.0, 0, 0, 0], [2.0, 0, 0, 0]])
    statistics = two(means, needle, ball)
    pooled, own = (few_shot(statistics, (5,), per_class=kind, draws=512) for kind in (False, True))
    accuracy, error, _ = simulated(means, [needle, ball], 5, 20_000)
    assert abs(float(own.accuracy[0]) - accuracy) < 4 * math.hypot(error, float(own.draw_error[0]))
    assert abs(float(pooled.accuracy[0]) - accuracy) > 0.01


def drawn(counts: list[int], dim: int, spread: float) -> ClassStatistics:
    """Classes with random diagonal covariances, whose logarithms have this standard deviation."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(counts)), counts)
    roots = np.exp(spread * rng.normal(size=(len(counts), dim)) / 2)
    features = rng.normal(size=(len(labels), dim)) * roots[labels] + rng.normal(size=(len(counts), dim))[labels]
    return ClassStatistics.from_features(features, labels, len(counts), per_class=True)


def test_covariances_of_few_samples_move_to_the_pooled_shape_by_their_noise() -> None:
    statistics = drawn([3, 12, 400, 1], 5, 1.0)
    traces, own = statistics.spread.tolist(), statistics.class_within.numpy()
    pooled = own.sum(0) / sum(traces)
    moved = []
    for k, count in enumerate(statistics.counts.tolist()):
        free = count - 1
        if free < 2:
            moved.append(traces[k] * pooled)
            continue
        shape = own[k] / traces[k]
        square = max(free**2 / ((free - 1) * (free + 2)) * ((shape**2).sum() - 1 / free), 1 / 5)
        noise = (1 + square) / free
        share = min(1.0, noise * (1 - traces[k] / sum(traces)) / ((shape - pooled) ** 2).sum())
        moved.append(traces[k] * ((1 - share) * shape + share * pooled))
    expected = dataclasses.replace(statistics, class_within=torch.from_numpy(np.stack(moved)))
    found = few_shot_pairs(statistics)
    torch.testing.assert_close(found, few_shot_pairs(expected, per_class=True), rtol=1e-10, atol=0, equal_nan=True)


def test_the_default_covariances_are_pooled_where_shapes_are_equal_and_own_where_samples_are_many() -> None:
    for statistics, near, far in ((drawn([20] * 5, 40, 0.0), False, True), (drawn([2000] * 5, 10, 2.0), True, False)):
        default, right, wrong = (few_shot_pairs(statistics, (1, 5), per_class=kind) for kind in (None, near, far))
        assert (default - right).abs().nansum() < 0.1 * (wrong - right).abs().nansum()


def test_seeds_draws_and_rotations() -> None:
    statistics, *_ = gaussian(3, 4, 6, [1.0] * 4, 0.8)
    first = few_shot(statistics, (2,), draws=64)
    assert torch.equal(first.accuracy, few_shot(statistics, (2,), draws=64).accuracy)
    other = few_shot(statistics, (2,), draws=64, seed=1)
    assert other.accuracy != first.accuracy
    assert abs(other.accuracy - first.accuracy) < 6 * first.draw_error
    nudged = ClassStatistics(
        statistics.counts, statistics.means + 1e-9, statistics.spread, statistics.within * (1 + 1e-12)
    )
    assert abs(few_shot(nudged, (2,), draws=64).accuracy - first.accuracy) < 1e-3  # draws are common


def test_collapsed_classes_are_certain() -> None:
    features = torch.eye(3, dtype=torch.float64).repeat(4, 1)
    for per_class in (False, True):
        statistics = ClassStatistics.from_features(features, torch.arange(12) % 3, 3, per_class=per_class)
        forecast = few_shot(statistics, draws=8)
        assert forecast.accuracy.tolist() == [1.0, 1.0, 1.0]
        assert forecast.pair_error.tolist() == [0.0, 0.0, 0.0]


def test_single_samples_say_nothing() -> None:
    single = ClassStatistics.from_features(torch.eye(3, dtype=torch.float64), torch.arange(3), 3)
    with pytest.warns(GeometryWarning, match="every class has a single sample"):
        forecast = few_shot(single)
    assert forecast.accuracy.isnan().all() and forecast.pair_error.isnan().all()
    mixed = ClassStatistics.from_features(torch.randn(9, 3, dtype=torch.float64), torch.tensor([0, 1] * 4 + [2]), 3)
    assert few_shot(mixed, (1,), draws=8).accuracy.isfinite()  # the third class gets the pooled variance


def test_what_is_wrong_is_named() -> None:
    statistics, *_ = gaussian(0, 3, 4, [1.0] * 3, 1.0)
    with pytest.raises(RangeError, match="shots must be whole numbers of at least 1; got 0"):
        few_shot(statistics, (5, 0))
    with pytest.raises(RangeError, match="shots must be whole numbers of at least 1; got inf"):
        few_shot(statistics, (math.inf,))
    with pytest.raises(RangeError, match="at least one number; got none"):
        few_shot_pairs(statistics, ())
    with pytest.raises(RangeError, match="draws must be at least 2; got 1"):
        few_shot(statistics, draws=1)
    with pytest.raises(ScatterError, match="per_class=True"):
        few_shot(
            ClassStatistics(statistics.counts, statistics.means, statistics.spread, statistics.within), per_class=True
        )
    with pytest.raises(EmptyClassError):
        few_shot(ClassStatistics.empty(3, 4))
    assert theory.few_shot is few_shot


# ---------------------------------------------------------------------- features of a network


def episodes(features: np.ndarray, labels: np.ndarray, shots: int, repeats: int) -> tuple[float, float]:
    """Accuracy on the other samples of the nearest mean of m samples of each class, and its standard error."""
    rng = np.random.default_rng(0)
    members = [np.flatnonzero(labels == k) for k in range(labels.max() + 1)]
    shares = []
    for _ in range(repeats):
        chosen = [rng.choice(each, shots, replace=False) for each in members]
        centres = np.stack([features[each].mean(0) for each in chosen])
        rest = np.setdiff1d(np.arange(len(labels)), np.concatenate(chosen))
        scores = features[rest] @ centres.T - (centres**2).sum(1) / 2
        right = scores.argmax(1) == labels[rest]
        shares.append(np.mean([right[labels[rest] == k].mean() for k in range(len(members))]))
    return float(np.mean(shares)), float(np.std(shares) / math.sqrt(repeats))


@pytest.mark.slow
def test_forecast_of_a_digits_network_is_within_two_points() -> None:
    pytest.importorskip("sklearn")
    from tightframe import datasets

    digits = datasets.load("digits")
    images, labels = digits.train_images.flatten(1), digits.train_labels
    torch.manual_seed(0)
    body = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 32), torch.nn.ReLU())
    model = torch.nn.Sequential(body, torch.nn.Linear(32, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(100):  # 98.5 % of the training samples are then right
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        features = body(images).double()
    statistics = ClassStatistics.from_features(features, labels, 10)
    forecast = few_shot(statistics, SHOTS, draws=2000)
    for place, m in enumerate(SHOTS):
        accuracy, error = episodes(features.numpy(), labels.numpy(), m, 500)
        off = abs(float(forecast.accuracy[place]) - accuracy)
        assert off < 0.02 + 2 * error, f"{m} shots"
