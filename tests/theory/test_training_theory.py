"""Floors and the minority-collapse threshold, at values checked by hand or by simulation."""

import pytest
import torch

from tightframe import ClassStatistics, theory
from tightframe.errors import ClassifierError, RangeError


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
