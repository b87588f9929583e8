"""Floors, the SELI geometry and the minority-collapse threshold, at values checked by hand or by simulation."""

import math

import pytest
import torch

from tightframe import ClassStatistics, theory
from tightframe.errors import ClassifierError, EmptyClassError, RangeError


def cosines(gram: torch.Tensor) -> torch.Tensor:
    lengths = gram.diagonal().sqrt()
    return gram / lengths / lengths[:, None]


@pytest.mark.parametrize(("scale", "value"), [(1.0, 1.376935), (10.0, 1.345e-4)])
def test_the_floor_of_cross_entropy(scale: float, value: float) -> None:
    assert theory.cross_entropy_floor(10, scale) == pytest.approx(value, rel=1e-3 if scale == 10 else 1e-6)


def test_no_unit_vectors_of_balanced_classes_go_below_the_floor() -> None:
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        p, z = (torch.nn.functional.normalize(torch.randn(6, 7, generator=generator).double()) for _ in range(2))
        for embeddings in (z, p):
            loss = torch.nn.functional.cross_entropy(3 * embeddings @ p.T, torch.arange(6))
            assert loss > theory.cross_entropy_floor(6, 3.0)


def test_bad_floors() -> None:
    with pytest.raises(RangeError, match="at least two classes; got 1"):
        theory.cross_entropy_floor(1, 1.0)
    with pytest.raises(RangeError, match="the scale must be finite and > 0; got 0"):
        theory.cross_entropy_floor(3, 0.0)


@pytest.mark.parametrize("K", [4, 6, 10])
def test_seli_at_ratio_seven_has_orthogonal_minority_classifiers(K: int) -> None:
    gram = cosines(theory.seli([7] * (K // 2) + [1] * (K // 2)).classifiers)
    assert abs(gram[-1, -2].item()) < 1e-12


def test_seli_of_equal_counts_is_the_simplex() -> None:
    geometry = theory.seli([5] * 4)
    simplex = torch.full((4, 4), -1 / 3, dtype=torch.float64).fill_diagonal_(1)
    torch.testing.assert_close(cosines(geometry.classifiers), simplex, rtol=0, atol=1e-12)
    torch.testing.assert_close(cosines(geometry.means), simplex, rtol=0, atol=1e-12)


def test_seli_check_values() -> None:
    geometry = theory.seli([10] * 5 + [1] * 5)
    gram = cosines(geometry.classifiers)
    assert [gram[9, 8].item(), gram[0, 1].item(), gram[0, 9].item()] == pytest.approx(
        [0.033369, -0.14395, -0.13868], abs=1e-5
    )
    means = cosines(geometry.means)
    assert [means[9, 8].item(), means[0, 1].item(), means[0, 9].item()] == pytest.approx(
        [-0.186746, -0.069702, -0.08543], abs=1e-5
    )
    lengths = geometry.classifiers.diagonal().sqrt()
    assert (lengths[0] / lengths[9]).item() == pytest.approx(1.634656, abs=1e-6)
    for ratio, value in ((100, 0.338026), (1000, 0.670748)):
        assert cosines(theory.seli([ratio] * 5 + [1] * 5).classifiers)[9, 8].item() == pytest.approx(value, abs=1e-6)
    uneven = theory.seli([4, 1, 1])
    assert cosines(uneven.classifiers)[1, 2].item() == pytest.approx(math.sqrt(3) - 2, abs=1e-12)
    assert uneven.classifiers.diagonal().tolist() == pytest.approx([1.154701, 0.788675, 0.788675], abs=1e-6)
    assert cosines(uneven.means)[1, 2].item() == pytest.approx(-0.677219, abs=1e-6)


def test_seli_logits_are_the_simplex_s() -> None:
    geometry = theory.seli([9, 4, 2, 1])
    centring = torch.eye(4, dtype=torch.float64) - 0.25
    torch.testing.assert_close(geometry.classifiers @ geometry.means, centring, rtol=0, atol=1e-12)


@pytest.mark.parametrize("counts", [[5], [3, 0], [[1, 2]]])
def test_seli_needs_classes_with_samples(counts: list[int]) -> None:
    with pytest.raises(EmptyClassError, match="at least two, all with samples"):
        theory.seli(counts)


def test_the_threshold_of_minority_collapse() -> None:
    """Checked by training unconstrained features: counts 20, 20, 20 and three of 4 merge, of 5 don't."""
    assert theory.minority_collapse_threshold(72, 0.0295, 0.0295) == pytest.approx(4.51, abs=5e-3)
    assert theory.minority_collapse_threshold(75, 0.0295, 0.0295) == pytest.approx(4.89, abs=1e-2)
    with pytest.raises(RangeError, match=r"-0\.1"):
        theory.minority_collapse_threshold(72, -0.1, 0.1)


def test_the_estimated_feature_decay_balances_both_penalties() -> None:
    features, labels = 3 + torch.randn(50, 4, dtype=torch.float64), torch.arange(50) % 3
    weight = torch.randn(3, 4, dtype=torch.float64)
    statistics = ClassStatistics.from_features(features, labels, 3)
    decay = theory.estimated_feature_decay(statistics, weight, 0.01)
    assert (decay * features.square().sum()).item() == pytest.approx(0.01 * weight.square().sum().item(), rel=1e-12)
    with pytest.raises(ClassifierError, match=r"\(K, 4\); got \(3, 5\)"):
        theory.estimated_feature_decay(statistics, torch.zeros(3, 5), 0.01)
