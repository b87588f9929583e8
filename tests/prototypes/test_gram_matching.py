"""Gram matching: exact where the Gram exists, closed forms where it doesn't, and targets that are none."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tightframe.codes.search.running import Progress
from tightframe.errors import DimensionError, NonFiniteError, RangeError, ShapeError
from tightframe.prototypes.gram_matching import GramDistance, gram_matching, nearest_rows, truncation


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def gram(vectors: Tensor) -> Tensor:
    return vectors @ vectors.mT


def distance_by_loops(vectors: Tensor, target: Tensor) -> float:
    num = len(vectors)
    return math.sqrt(sum(float(vectors[i] @ vectors[j] - target[i, j]) ** 2 for i in range(num) for j in range(num)))


def test_value_and_gradient_against_loops() -> None:
    target = gram(gaussian(6, 6))
    points = torch.nn.functional.normalize(gaussian(2, 6, 3, seed=1), dim=-1)
    values, gradients = GramDistance(target)(points)
    for r in range(2):
        leaf = points[r].clone().requires_grad_()
        rows = leaf * target.diagonal().sqrt()[:, None]
        expected = (gram(rows) - target).square().sum() / target.square().sum()
        (gradient,) = torch.autograd.grad(expected, leaf)
        assert_close(gradients[r], gradient, rtol=1e-12, atol=1e-14)
        size = distance_by_loops(torch.zeros_like(rows), target)
        assert float(values[r]) == pytest.approx((distance_by_loops(rows.detach(), target) / size) ** 2, rel=1e-12)


@pytest.mark.parametrize("fixed_norms", [True, False])
@pytest.mark.parametrize(("num_classes", "dim"), [(2, 1), (4, 3), (7, 6), (5, 9)])
def test_the_simplex(num_classes: int, dim: int, fixed_norms: bool) -> None:
    prototypes = gram_matching(num_classes, dim, fixed_norms=fixed_norms)
    assert prototypes.vectors.shape == (num_classes, dim)
    eye = torch.eye(num_classes, dtype=torch.float64)
    expected = (num_classes * eye - 1) / (num_classes - 1)
    assert_close(gram(prototypes.vectors), expected, rtol=0, atol=1e-12)
    assert prototypes.provenance["residual"] < 1e-12
    assert prototypes.provenance["gram"] == "simplex ETF" and prototypes.provenance["rounds"] == 1


@pytest.mark.parametrize(("num_classes", "dim"), [(12, 3), (9, 4), (20, 5)])
def test_more_classes_become_a_centred_tight_frame(num_classes: int, dim: int) -> None:
    prototypes = gram_matching(num_classes, dim, rounds=1)
    vectors = prototypes.vectors
    assert prototypes.provenance["residual"] == pytest.approx(
        num_classes * math.sqrt(1 / dim - 1 / (num_classes - 1)), abs=1e-12
    )
    assert_close(vectors.norm(dim=1), torch.ones(num_classes).double(), rtol=0, atol=1e-14)
    assert float(vectors.sum(0).norm()) < 1e-6
    frame = vectors.mT @ vectors
    assert_close(frame, num_classes / dim * torch.eye(dim, dtype=torch.float64), rtol=0, atol=1e-6)


@pytest.mark.parametrize("fixed_norms", [True, False])
def test_any_gram_matrix_of_low_rank_is_met_with_its_lengths(fixed_norms: bool) -> None:
    target = gram(gaussian(10, 4) * torch.linspace(0.2, 3, 10, dtype=torch.float64)[:, None])
    prototypes = gram_matching(10, 5, gram=target, fixed_norms=fixed_norms)
    assert_close(gram(prototypes.vectors), target, rtol=0, atol=1e-9)
    assert prototypes.vectors.shape == (10, 5) and prototypes.provenance["gram"] == "given"


def test_sizes_are_those_of_the_target() -> None:
    target = gram(gaussian(10, 4))
    assert gram_matching(gram=target) == gram_matching(10, 4, gram=target)
    assert gram_matching(gram=target.float()).dim == 4  # smaller eigenvalues are rounding
    assert gram_matching(4) == gram_matching(4, 3)
    with pytest.raises(DimensionError, match="needs num_classes=K, or gram=target"):
        gram_matching(dim=3)


def test_free_norms_are_eckart_and_young() -> None:
    target = gaussian(8, 8)
    target = target + target.mT + 6 * torch.eye(8, dtype=torch.float64)
    prototypes = gram_matching(8, 3, gram=target, fixed_norms=False, rounds=5)
    values = torch.linalg.eigvalsh(target)
    assert (values < 0).any() and (values[-3:] > 0).all()
    expected = float(values[:-3].norm())
    assert prototypes.provenance["residual"] == pytest.approx(expected, rel=1e-12)
    assert distance_by_loops(prototypes.vectors, target) == pytest.approx(expected, rel=1e-12)
    assert prototypes.provenance["rounds"] == 1
    assert truncation(target, 99).shape == (8, 8)


@pytest.mark.parametrize("seed", range(3))
def test_fixed_norms_are_a_minimum_with_the_lengths_of_the_diagonal(seed: int) -> None:
    target = gram(gaussian(7, 7, seed=seed))
    prototypes = gram_matching(7, 3, gram=target, rounds=2)
    vectors, residual = prototypes.vectors, prototypes.provenance["residual"]
    assert_close(vectors.square().sum(1), target.diagonal(), rtol=1e-12, atol=0)
    assert residual == pytest.approx(distance_by_loops(vectors, target), rel=1e-12)
    assert residual >= gram_matching(7, 3, gram=target, fixed_norms=False).provenance["residual"]
    lengths = target.diagonal().sqrt()[:, None]
    assert residual <= distance_by_loops(lengths * torch.nn.functional.normalize(truncation(target, 3)), target)
    for trial in range(100):
        near = lengths * torch.nn.functional.normalize(vectors / lengths + 1e-3 * gaussian(7, 3, seed=trial))
        assert distance_by_loops(near, target) > residual - 1e-9


def test_many_classes_start_from_the_truncation_alone() -> None:
    target = gram(gaussian(301, 6))
    assert_close(gram(nearest_rows(target, 6, seed=0)), target, rtol=0, atol=1e-9)


def test_seed_and_rounds_decide() -> None:
    target = gram(gaussian(9, 9))
    same = [gram_matching(9, 3, gram=target, rounds=2, seed=4) for _ in range(2)]
    assert same[0] == same[1]


def test_an_interrupted_search_returns_its_best() -> None:
    seen: list[Progress] = []

    def stop(step: Progress) -> None:
        seen.append(step)
        raise KeyboardInterrupt

    prototypes = gram_matching(9, 3, progress=stop)
    assert prototypes.provenance["interrupted"] is True and prototypes.provenance["rounds"] == 0
    assert prototypes.provenance["residual"] == seen[0].score and len(seen) == 1


def test_what_it_refuses() -> None:
    eye = torch.eye(3, dtype=torch.float64)
    with pytest.raises(ShapeError, match=r"gram must be square, \(K, K\); got shape \(3, 2\)"):
        gram_matching(3, 2, gram=eye[:, :2])
    with pytest.raises(ShapeError, match=r"gram must be \(K, K\) = \(4, 4\) for num_classes=4; got \(3, 3\)"):
        gram_matching(4, 2, gram=eye)
    broken = eye.clone()
    broken[1, 2] = 0.5
    with pytest.raises(RangeError, match=r"gram must be symmetric; entry \(1, 2\) is 0\.5 and \(2, 1\) is 0"):
        gram_matching(3, 2, gram=broken)
    broken[1, 2] = math.nan
    with pytest.raises(NonFiniteError, match=r"gram must be finite; entry \(1, 2\) is nan"):
        gram_matching(3, 2, gram=broken)
    with pytest.raises(RangeError, match=r"gram must have a positive diagonal .*; entry \(1, 1\) is 0"):
        gram_matching(3, 2, gram=torch.diag(torch.tensor([1.0, 0.0, 1.0])))
    with pytest.raises(DimensionError, match="num_classes must be at least 2; got 1"):
        gram_matching(1, 2)
    with pytest.raises(DimensionError, match="dim must be at least 1; got 0"):
        gram_matching(2, 0)
    with pytest.raises(RangeError, match="rounds must be at least 1"):
        gram_matching(3, 2, rounds=0, fixed_norms=False)
