"""Class means as prototypes, and the ETF nearest to them against every other pose tried."""

import math

import pytest
import torch
from scipy.linalg import polar
from torch import Tensor
from torch.autograd import gradcheck
from torch.testing import assert_close

from tightframe import ClassStatistics
from tightframe.errors import (
    DimensionError,
    EmptyClassError,
    GeometryWarning,
    NonFiniteError,
    RangeError,
    ShapeError,
    ZeroVectorError,
)
from tightframe.prototypes import Prototypes
from tightframe.prototypes.empirical import class_means, guided, nearest_etf

SIZES = [(2, 1), (2, 4), (3, 2), (5, 4), (5, 5), (4, 9)]  # K = D + 1, K = D, K < D


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def centred(means: Tensor) -> Tensor:
    """Minus their mean, at unit Frobenius norm."""
    means = means - means.mean(0)
    return means / torch.linalg.matrix_norm(means)


def random_etf(classes: int, dim: int, seed: int) -> Tensor:
    """Any pose, reflections included: an ETF in K-1 dimensions by its Gram, then a random frame."""
    values, directions = torch.linalg.eigh((classes * torch.eye(classes, dtype=torch.float64) - 1) / (classes - 1))
    flat = directions[:, 1:] * values[1:].sqrt()
    return flat @ torch.linalg.qr(drawn(dim, classes - 1, seed=seed))[0].mT


def require_etf(vectors: Tensor, scale: float = 1.0) -> None:
    classes = len(vectors)
    expected = (classes * torch.eye(classes, dtype=torch.float64) - 1) / (classes - 1)
    assert_close(vectors @ vectors.mT, scale**2 * expected, rtol=0, atol=1e-12)


# ---------------------------------------------------------------------- class means


def test_class_means_by_loops() -> None:
    labels = torch.tensor([0, 1, 2, 2, 1, 0, 2])
    features = drawn(7, 3)
    prototypes = class_means(ClassStatistics.from_features(features, labels, 3))
    by_loops = torch.stack([features[labels == k].mean(0) for k in range(3)])
    assert_close(prototypes.vectors, by_loops)
    assert prototypes.provenance["centred"] is False
    moved = class_means(ClassStatistics.from_features(features, labels, 3), centred=True)
    assert_close(moved.vectors, by_loops - by_loops.mean(0))
    assert moved.provenance["centred"] is True


def test_classes_without_samples_are_named() -> None:
    labels = torch.tensor([0, 2, 2])
    statistics = ClassStatistics.from_features(drawn(3, 2), labels, 5)
    with pytest.raises(EmptyClassError, match=r"3 of 5 have none: 1, 3, 4\. Pass"):
        class_means(statistics)
    assert len(class_means(statistics.populated())) == 2
    with pytest.raises(EmptyClassError, match=r"1 of 2 have none: 3\."):
        class_means(statistics.select([3, 0]))
    with pytest.raises(EmptyClassError, match=r"0, 1, 2, 3, 4, 5, 6, 7, \.\.\."):
        class_means(ClassStatistics.empty(20, 2))


# ---------------------------------------------------------------------- the nearest ETF


@pytest.mark.parametrize(("classes", "dim"), SIZES)
def test_no_other_etf_is_nearer(classes: int, dim: int) -> None:
    means = drawn(classes, dim, seed=classes)
    prototypes = nearest_etf(means)
    require_etf(prototypes.vectors)
    nearest = torch.dist(centred(means), centred(prototypes.vectors))
    for seed in range(100):
        assert torch.dist(centred(means), centred(random_etf(classes, dim, seed))) >= nearest
        turn = torch.matrix_exp(1e-2 * (drawn(dim, dim, seed=seed) - drawn(dim, dim, seed=seed).mT))
        assert torch.dist(centred(means), centred(prototypes.vectors @ turn)) >= nearest - 1e-14


def test_nearest_among_all_poses_in_the_plane() -> None:
    means = drawn(3, 2, seed=4)
    base = random_etf(3, 2, 0)
    best = math.inf
    for step in range(3600):
        angle = math.radians(step / 10)
        for flip in (1.0, -1.0):
            turn = torch.tensor(
                [[math.cos(angle), -math.sin(angle)], [flip * math.sin(angle), flip * math.cos(angle)]]
            ).double()
            best = min(best, torch.dist(centred(means), centred(base @ turn)).item())
    assert torch.dist(centred(means), centred(nearest_etf(means).vectors)).item() == pytest.approx(best, abs=1e-6)


def test_an_etf_is_its_own_nearest_wherever_and_however_large() -> None:
    etf = random_etf(6, 7, 3)
    assert_close(nearest_etf(1e-3 * etf + 1e4).vectors, etf, rtol=0, atol=1e-8)
    assert_close(nearest_etf(5 * etf).vectors, etf, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("classes", "dim"), SIZES)
def test_gradient_of_the_nearest_etf(classes: int, dim: int) -> None:
    means = drawn(classes, dim, seed=1).requires_grad_()
    assert gradcheck(lambda rows: nearest_etf(rows).vectors, means)


def test_gradient_at_an_etf_where_singular_values_coincide() -> None:
    etf = random_etf(5, 6, 1).requires_grad_()
    assert gradcheck(lambda rows: nearest_etf(rows).vectors, etf)


# ---------------------------------------------------------------------- guiding


def cost(vectors: Tensor, means: Tensor, previous: Tensor, proximal: float) -> float:
    """What `guided` minimises, from its docstring: all through an explicit basis of contrasts."""
    classes = len(means)
    basis = torch.linalg.qr(torch.eye(classes, dtype=torch.float64) - 1 / classes)[0][:, :-1]
    shrink = math.sqrt((classes - 1) / classes)
    stay = torch.dist(basis.mT @ vectors * shrink, basis.mT @ previous * shrink) ** 2
    return (torch.dist(centred(means), vectors / math.sqrt(classes)) ** 2 + proximal / 2 * stay).item()


@pytest.mark.parametrize(("classes", "dim"), SIZES)
@pytest.mark.parametrize("proximal", [0.0, 1e-3, 0.7])
def test_no_other_etf_costs_less(classes: int, dim: int, proximal: float) -> None:
    means, previous = drawn(classes, dim, seed=2), random_etf(classes, dim, 7)
    vectors = guided(Prototypes(previous), means, proximal=proximal).vectors
    require_etf(vectors)
    least = cost(vectors, means, previous, proximal)
    for seed in range(60):
        assert cost(random_etf(classes, dim, seed), means, previous, proximal) >= least
        turn = torch.matrix_exp(1e-2 * (drawn(dim, dim, seed=seed) - drawn(dim, dim, seed=seed).mT))
        assert cost(vectors @ turn, means, previous, proximal) >= least - 1e-14
    if proximal == 0:
        assert_close(vectors, nearest_etf(means).vectors, rtol=0, atol=1e-12)


def test_the_published_form() -> None:
    """The polar factor of 2 / sqrt(K-1) Y P + delta X, where X's unused direction is orthogonal to all others."""
    classes, dim, delta = 4, 9, 0.3
    means = drawn(classes, dim, seed=3) * torch.tensor([1.0] * 8 + [0.0]).double()
    frame = torch.linalg.qr(drawn(8, classes - 1, seed=4))[0]
    frame = torch.cat([frame, torch.zeros(1, classes - 1, dtype=torch.float64)])
    unused = torch.eye(dim, dtype=torch.float64)[:, -1:]
    centring = torch.eye(classes, dtype=torch.float64) - 1 / classes
    contrasts = torch.linalg.qr(centring)[0][:, :-1]
    previous = frame @ contrasts.mT + unused / math.sqrt(classes)  # (D, K), orthonormal columns
    assert_close(previous.mT @ previous, torch.eye(classes, dtype=torch.float64))
    matrix = 2 / math.sqrt(classes - 1) * centred(means).mT @ centring + delta * previous
    factor = torch.from_numpy(polar(matrix.numpy())[0])
    published = math.sqrt(classes / (classes - 1)) * (factor @ centring).mT
    before = Prototypes(math.sqrt(classes / (classes - 1)) * (previous @ centring).mT)
    assert_close(guided(before, means, proximal=delta).vectors, published, rtol=0, atol=1e-12)


def test_guiding_moves_little_by_little_and_keeps_the_length() -> None:
    means, previous = drawn(5, 6, seed=5), Prototypes(4 * random_etf(5, 6, 2))
    far = [torch.dist(guided(previous, means, proximal=weight).vectors, previous.vectors) for weight in (0, 1, 9, 1e6)]
    assert far == sorted(far, reverse=True)
    assert far[-1] < 1e-4
    require_etf(guided(previous, means, proximal=1.0).vectors, 4.0)
    same = Prototypes(random_etf(5, 6, 2), {"constructor": "given"})
    assert guided(same, means).provenance["proximal"] == 1e-3
    assert guided(same.to(torch.float32), means).vectors.dtype is torch.float64


def test_gradient_of_guiding() -> None:
    previous = Prototypes(random_etf(4, 5, 2))
    means = drawn(4, 5, seed=6).requires_grad_()
    assert gradcheck(lambda rows: guided(previous, rows, proximal=0.4).vectors, means)
    assert gradcheck(lambda rows: guided(previous, rows, proximal=0.4).vectors, (previous.vectors + 1).requires_grad_())


def test_coincident_means_leave_a_choice_that_the_previous_etf_makes() -> None:
    means = drawn(4, 5)
    means[1] = means[0]
    with pytest.warns(GeometryWarning, match="span 2 of 3 dimensions"):
        vectors = nearest_etf(means).vectors
    require_etf(vectors)
    require_etf(guided(Prototypes(random_etf(4, 5, 0)), means).vectors)  # without a warning


def test_what_they_refuse() -> None:
    previous = Prototypes(random_etf(4, 5, 0))
    means = drawn(4, 5)
    means[2, 1] = math.nan
    for call in (nearest_etf, lambda means: guided(previous, means)):
        with pytest.raises(DimensionError, match="4 vectors needs 3 dimensions; got 2"):
            call(drawn(4, 2))
        with pytest.raises(ShapeError, match=r"K >= 2; got \(1, 5\)"):
            call(drawn(1, 5))
        with pytest.raises(ZeroVectorError, match="class means must differ to have a nearest ETF"):
            call(torch.ones(4, 5, dtype=torch.float64))
        with pytest.raises(NonFiniteError, match="row 2 holds nan in column 1"):
            call(means)
    with pytest.raises(ShapeError, match=r"means' shape, \(4, 6\); got \(4, 5\)"):
        guided(previous, drawn(4, 6))
    for proximal in (-1.0, math.nan, math.inf):
        with pytest.raises(RangeError, match="proximal weight must be finite and >= 0"):
            guided(previous, drawn(4, 5), proximal=proximal)
