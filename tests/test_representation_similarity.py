"""CKA, Procrustes distance and angles against slow oracles, released code and what is known in closed form."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import tightframe as tf
from released.released_data import DATA
from similarity_oracle import cka_by_grams, procrustes_by_rotations
from tightframe import similarity
from tightframe.errors import EmptyClassError, ShapeError
from tightframe.metrics import jackknife
from tightframe.similarity import ClassMeanSimilarity, LayerSimilarity, cka, shuffled_cka
from tightframe.statistics import ClassStatistics, CrossMoments, FoldedCrossMoments

F64 = torch.float64
RECORDED = json.loads((Path(__file__).parent / "released" / "recorded_similarity.json").read_text())["values"]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def close(ours: Any, expected: Any, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(
        torch.as_tensor(ours, dtype=F64), torch.as_tensor(expected, dtype=F64), rtol=0, atol=tolerance, equal_nan=True
    )


def statistics_of(means: Tensor, counts: int = 2, noise: float = 0.1) -> ClassStatistics:
    """Statistics whose class means are given."""
    classes, dim = means.shape
    steps = noise * normal(classes, dim)
    features = torch.cat([means + steps, means - steps] * (counts // 2))
    return ClassStatistics.from_features(features, torch.arange(classes).repeat(counts), classes)


def simplex(classes: int, dim: int) -> Tensor:
    vectors = torch.eye(classes, dtype=F64) - 1 / classes
    return vectors @ torch.linalg.qr(normal(max(classes, dim), classes, seed=5)).Q[:dim].mT


# ---------------------------------------------------------------------- samples


@pytest.mark.parametrize("debiased", [True, False])
@pytest.mark.parametrize("rows", [4, 5, 40])
def test_cka_is_that_of_the_gram_matrices(debiased: bool, rows: int) -> None:
    x = normal(rows, 3)
    features = {"x": x, "y": x @ normal(3, 6, seed=1) + normal(rows, 6, seed=2), "z": x.square() + 7}
    close(cka(CrossMoments.from_features(features), debiased=debiased), cka_by_grams(features, debiased))


def test_the_values_of_the_notebook_of_kornblith_et_al() -> None:
    """Their data, and the digits that their notebook shows."""
    stream = np.random.RandomState(1337)
    x = stream.randn(100, 10)
    y = stream.randn(100, 10) + x
    moments = CrossMoments.from_features({"x": x, "y": y})
    assert f"{cka(moments, debiased=False)[0, 1]:.5f}" == "0.55761"
    assert f"{cka(moments)[0, 1]:.5f}" == "0.51346"


def test_cka_ignores_rotation_translation_and_scale_only() -> None:
    x, y = normal(50, 4), normal(50, 3, seed=1)
    turned = 3 * x @ torch.linalg.qr(normal(4, 4, seed=2)).Q + 100
    stretched = x * torch.tensor([1.0, 2, 3, 4])
    grid = cka(CrossMoments.from_features({"x": x, "y": y, "turned": turned, "stretched": stretched}))
    close(grid[0, 2], 1.0)
    close(grid[1, 0], grid[1, 2])
    assert abs(grid[1, 0] - grid[1, 3]) > 1e-3


def test_unrelated_layers_have_debiased_cka_zero_and_biased_the_shuffled_level() -> None:
    """Means over draws, within five standard errors; 30 samples of 20 features."""
    draws = []
    for seed in range(300):
        moments = CrossMoments.from_features({"x": normal(30, 20, seed=seed), "y": normal(30, 9, seed=seed + 999)})
        biased, level = cka(moments, debiased=False)[0, 1], shuffled_cka(moments)[0, 1]
        assert level > 0.2  # where debiasing matters
        draws.append(torch.stack([cka(moments)[0, 1], biased - level]))
    means, spread = torch.stack(draws).mean(0), torch.stack(draws).std(0)
    assert (means.abs() < 5 * spread / 300**0.5).all()


def test_the_shuffled_level_is_the_mean_over_all_orders() -> None:
    x, y = normal(5, 3), normal(5, 2, seed=1)
    orders = [
        cka_by_grams({"x": x, "y": y[list(order)]}, debiased=False)[0, 1] for order in itertools.permutations(range(5))
    ]
    moments = CrossMoments.from_features({"x": x, "y": y})
    close(shuffled_cka(moments)[0, 1], torch.stack(orders).mean())
    debiased = [cka_by_grams({"x": x, "y": y[list(order)]})[0, 1] for order in itertools.permutations(range(5))]
    close(torch.stack(debiased).mean(), 0.0)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_too_few_samples_are_undefined(rows: int) -> None:
    moments = CrossMoments.from_features({"x": normal(rows, 3), "y": normal(rows, 2, seed=1)})
    assert bool(cka(moments).isnan().all())
    assert bool(cka(moments, debiased=False).isnan().all()) == (rows == 1)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_a_layer_without_differences_is_undefined(dtype: torch.dtype) -> None:
    """Also where it differs by rounding, and where distances between samples are all equal."""
    x, equal = normal(20, 3), torch.full((20, 2), 1e4 / 3)
    noise = equal.to(dtype) * (1 + torch.finfo(dtype).eps * torch.randint(-1, 2, (20, 2)))
    features = {"x": x, "equal": equal.to(dtype), "noise": noise}
    for debiased in (True, False):
        grid = cka(CrossMoments.from_features(features), debiased=debiased)
        assert bool(grid[1:].isnan().all()) and bool(grid[:, 1:].isnan().all())
        close(grid[0, 0], 1.0)
    assert bool(shuffled_cka(CrossMoments.from_features(features))[1:].isnan().all())
    grid = cka(CrossMoments.from_features({"x": x, "simplex": torch.eye(20, dtype=dtype)}))
    assert bool(grid[1].isnan().all())


def test_the_jackknife_error_is_the_spread_over_data_sets() -> None:
    """100 data sets of 200 samples: the mean of the estimated variances is the variance over data sets, within 40 %."""
    values, errors = [], []
    for seed in range(100):
        x = normal(200, 4, seed=seed)
        y = x[:, :3] + normal(200, 3, seed=seed + 5000)
        parts = [CrossMoments.from_features({"x": x[fold::10], "y": y[fold::10]}) for fold in range(10)]
        value, error = jackknife(cka, FoldedCrossMoments.from_parts(parts))
        values.append(value[0, 1])
        errors.append(error[0, 1])
    ratio = torch.stack(errors).square().mean() / torch.stack(values).var()
    assert 0.6 < float(ratio) < 1.67


def test_the_jackknife_is_that_of_the_samples_left_out() -> None:
    x, y = normal(60, 4), normal(60, 3, seed=1)
    parts = [CrossMoments.from_features({"x": x[fold::4], "y": y[fold::4]}) for fold in range(4)]
    left = torch.stack(
        [
            cka_by_grams({"x": x[rows], "y": y[rows]})[0, 1]
            for fold in range(4)
            for rows in [torch.arange(60) % 4 != fold]
        ]
    )
    _, error = jackknife(cka, FoldedCrossMoments.from_parts(parts))
    close(error[0, 1], ((left - left.mean()).square().sum() * 3 / 4).sqrt())
    alone = FoldedCrossMoments.from_parts([parts[0], CrossMoments.empty({"x": 4, "y": 3})])
    assert bool(jackknife(cka, alone).standard_error.isnan().all())


# ---------------------------------------------------------------------- class means


MEANS = [statistics_of(normal(6, 4)), statistics_of(normal(6, 9, seed=1)), statistics_of(normal(6, 5, seed=2))]


@pytest.mark.parametrize("debiased", [True, False])
def test_class_mean_cka_is_cka_of_the_means(debiased: bool) -> None:
    for first, second in itertools.product(MEANS, MEANS):
        expected = cka_by_grams({"x": first.means, "y": second.means}, debiased)[0, 1]
        close(similarity.class_mean_cka(first, second, debiased=debiased), expected)


@pytest.mark.parametrize("angular", [True, False])
def test_procrustes_distance_is_that_after_the_best_rotation(angular: bool) -> None:
    for first, second in itertools.product(MEANS, MEANS):
        expected = procrustes_by_rotations(first.means, second.means)
        expected = 2 * torch.arcsin(expected / 2) if angular else expected
        close(similarity.procrustes_distance(first, second, angular=angular), expected, 1e-7)


def test_class_means_as_released() -> None:
    """LinearCKA returns the arc cosine of CKA; Procrustes distance of rows scaled to length one."""
    first, second = (
        ClassStatistics.from_features(data.features, data.labels, 6) for data in (DATA["uneven"], DATA["even"])
    )
    recorded = RECORDED["class means"]
    close(similarity.class_mean_cka(first, second), math.cos(recorded["LinearCKA"]))
    close(similarity.procrustes_distance(first, second, angular=True), recorded["LinearMetric, angular"])
    close(similarity.procrustes_distance(first, second), recorded["LinearMetric, euclidean, unit"])
    close(similarity.class_mean_angles(first, second), RECORDED["scipy.linalg.subspace_angles"], 1e-7)
    x, y = DATA["uneven"].features[:48], DATA["even"].features[:, :5]
    grid = cka(CrossMoments.from_features({"x": x, "y": y}), debiased=False)
    close(grid[0, 1], math.cos(RECORDED["samples"]["LinearCKA"]))


def test_small_distances_and_angles_are_exact() -> None:
    means, step = simplex(6, 9), normal(6, 9, seed=3)
    step = step - step.mean(0)
    for size in (1e-6, 1e-9):
        first, second = statistics_of(means, noise=0.0), statistics_of(means + size * step, noise=0.0)
        distance, angles = similarity.procrustes_distance(first, second), similarity.class_mean_angles(first, second)
        assert 0.05 * size < float(distance) < 5 * size and float(similarity.procrustes_distance(first, first)) < 1e-14
        assert 0.05 * size < float(angles[-1]) < 20 * size


def test_distances_are_a_metric() -> None:
    for angular in (True, False):
        d = torch.stack(
            [
                torch.stack([similarity.procrustes_distance(a, b, angular=angular) for a in MEANS])
                for b in MEANS
            ]
        )
        close(d, d.mT, 1e-12)
        close(d.diagonal(), torch.zeros(3), 1e-7)
        for a, b, c in itertools.permutations(range(3)):
            assert d[a, c] <= d[a, b] + d[b, c] + 1e-12


def test_a_simplex_is_a_simplex_in_any_order() -> None:
    first, second = statistics_of(simplex(7, 9)), statistics_of(3 * simplex(7, 12).flip(0) + 5)
    moments = similarity.class_mean_moments(first, second)
    close(cka(moments, debiased=False)[0, 1], 1.0)
    close(shuffled_cka(moments)[0, 1], 1.0)
    close(similarity.procrustes_distance(first, second), 0.0, 1e-12)
    assert bool(similarity.class_mean_cka(first, second, debiased=True).isnan())


def test_angles_are_those_of_a_rotation_and_zero_in_the_whole_space() -> None:
    means = torch.zeros(3, 5, dtype=F64)
    means[1, 0], means[2, 1] = 1, 1
    turned = torch.zeros(3, 5, dtype=F64)
    turned[1, 0], turned[2, 1], turned[2, 2] = 1, math.cos(0.3), math.sin(0.3)
    close(similarity.class_mean_angles(statistics_of(means), statistics_of(turned)), [0.0, 0.3])
    line = torch.zeros(3, 5, dtype=F64)
    line[1, 1] = 2.0
    line[2, 1] = 1.0
    with pytest.warns(tf.errors.GeometryWarning):
        angles = similarity.class_mean_angles(statistics_of(turned), statistics_of(line))
    close(angles, [0.3])  # a line and a plane
    crowded = [statistics_of(normal(9, 4, seed=seed)) for seed in (0, 1)]
    assert similarity.class_mean_angles(*crowded).tolist() == [0.0] * 4


def test_classes_without_samples_in_one_are_left_out() -> None:
    features, labels = normal(60, 4), torch.arange(60) % 6
    first = ClassStatistics.from_features(features, labels, 6)
    few = labels > 1
    second = ClassStatistics.from_features(features[few].square(), labels[few], 8)
    expected = cka_by_grams({"x": first.means[2:], "y": second.means[2:6]}, debiased=False)[0, 1]
    close(similarity.class_mean_cka(first, second), expected)
    row = ClassMeanSimilarity.of(first, second, ("one", "two"))
    assert (row.first, row.second, row.classes) == ("one", "two", 4)
    close([row.cka, row.distance], [expected, procrustes_by_rotations(first.means[2:], second.means[2:6])])
    assert row.angle is not None
    with pytest.raises(EmptyClassError, match="at least two classes must have samples in both; 1 do"):
        similarity.class_mean_cka(first.select([2, 3]), second.select([3, 4]))


def test_coincident_means_are_undefined() -> None:
    first, second = statistics_of(normal(4, 3)), statistics_of(torch.ones(4, 3, dtype=F64))
    for value in (similarity.class_mean_cka(first, second), similarity.procrustes_distance(first, second)):
        assert bool(value.isnan())


def test_angles_need_one_space() -> None:
    with pytest.raises(ShapeError, match=r"got 4 and 9 dimensions\. Compare with class_mean_cka"):
        similarity.class_mean_angles(MEANS[0], MEANS[1])
    assert ClassMeanSimilarity.of(MEANS[0], MEANS[1], ("a", "b")).angle is None


def test_layer_similarity_is_plain_and_named() -> None:
    features = {"first": normal(40, 3), "second": normal(40, 3).square()}
    value = LayerSimilarity.of(CrossMoments.from_features(features))
    assert value["first", "second"] == value["second", "first"] == value.values[0][1]
    assert value.errors is None and value.folds is None and value.samples == 40
