"""Semantic prototypes: the ranking term against loops, and how much order it adds to separation."""

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tightframe.codes.search.running import Progress
from tightframe.errors import DimensionError, GeometryWarning, NonFiniteError, RangeError, ShapeError, ZeroVectorError
from tightframe.prototypes.hyperspherical import hyperspherical
from tightframe.prototypes.ranking import all_triplets, rank_agreement, rank_cross_entropy
from tightframe.prototypes.semantic import semantic, similarity_of


def words(num: int, entries: int = 12, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    spread = torch.linspace(2, 0, entries, dtype=torch.float64)
    return torch.randn(num, entries, dtype=torch.float64, generator=generator) * spread


def triplets_by_loops(num: int) -> list[tuple[int, int, int]]:
    return [(i, j, k) for i in range(num) for j, k in itertools.combinations(range(num), 2) if i not in (j, k)]


def rank_loss_by_loops(points: Tensor, similarity: Tensor) -> Tensor:
    losses = []
    for i, j, k in triplets_by_loops(len(points)):
        chance = torch.sigmoid(points[i] @ points[j] - points[i] @ points[k])
        order = float(similarity[i, j] - similarity[i, k])
        target = 0.5 if order == 0 else float(order > 0)
        losses.append(-target * chance.log() - (1 - target) * (1 - chance).log())
    return torch.stack(losses).mean()


def test_rank_loss_and_gradient_against_loops() -> None:
    similarity = similarity_of(words(6))
    similarity[0, 1] = similarity[1, 0] = similarity[0, 2]  # a tie
    points = torch.nn.functional.normalize(words(12, 4, seed=3), dim=1).view(2, 6, 4)
    points.requires_grad_()
    values = rank_cross_entropy(points @ points.mT, similarity, all_triplets(6))
    (gradients,) = torch.autograd.grad(values.sum(), points)
    for r in range(2):
        leaf = points[r].detach().clone().requires_grad_()
        expected = rank_loss_by_loops(leaf, similarity)
        (gradient,) = torch.autograd.grad(expected, leaf)
        assert_close(values[r].detach(), expected.detach(), rtol=1e-12, atol=0)
        assert_close(gradients[r], gradient, rtol=1e-12, atol=1e-14)


def test_rank_agreement_against_loops() -> None:
    similarity = similarity_of(words(7))
    similarity[0, 1] = similarity[1, 0] = similarity[0, 2]
    points = words(7, 3, seed=5)
    cosines = similarity_of(points)
    votes = [
        (cosines[i, j] > cosines[i, k]) == (similarity[i, j] > similarity[i, k])
        for i, j, k in triplets_by_loops(7)
        if similarity[i, j] != similarity[i, k]
    ]
    assert len(votes) == 7 * 15 - 1
    assert float(rank_agreement(points, similarity)) == pytest.approx(sum(map(bool, votes)) / len(votes), abs=1e-14)
    assert float(rank_agreement(words(7), similarity_of(words(7)))) == 1
    assert float(rank_agreement(words(7), -similarity_of(words(7)))) == 0
    assert math.isnan(float(rank_agreement(points, torch.ones(7, 7))))


@pytest.mark.parametrize(("num", "dim", "least"), [(10, 5, 0.9), (12, 4, 0.7)])
def test_cosines_are_ordered_like_similarities(num: int, dim: int, least: float) -> None:
    similarity = similarity_of(words(num))
    apart = hyperspherical(num, dim, rounds=1)
    prototypes = semantic(similarity, dim, rounds=2)
    assert prototypes.vectors.shape == (num, dim)
    assert 0.3 < float(rank_agreement(apart.vectors, similarity)) < 0.7
    assert float(rank_agreement(prototypes.vectors, similarity)) > least
    assert prototypes.provenance["rank_agreement"] == float(rank_agreement(prototypes.vectors, similarity))
    # the order costs little separation
    assert prototypes.provenance["mean_max_cosine"] < apart.provenance["mean_max_cosine"] + 0.03


def test_value_is_the_exact_objective() -> None:
    similarity = similarity_of(words(8))
    prototypes = semantic(similarity, 4, weight=2.0, rounds=1)
    expected = prototypes.certificate.mean_max_cosine + 2 * float(rank_loss_by_loops(prototypes.vectors, similarity))
    assert prototypes.provenance["value"] == pytest.approx(expected, abs=1e-12)


def test_only_the_order_of_similarities_matters() -> None:
    similarity = similarity_of(words(7))
    assert semantic(similarity, 3, rounds=1) == semantic(5 * similarity.exp() - 9, 3, rounds=1)


def test_weight_is_a_trade() -> None:
    similarity = similarity_of(words(9))
    found = [semantic(similarity, 4, weight=weight, rounds=1).provenance for weight in (0.0, 3.0, 10.0)]
    assert found[0]["rank_agreement"] < found[1]["rank_agreement"] - 0.1
    assert found[0]["mean_max_cosine"] < found[1]["mean_max_cosine"] < found[2]["mean_max_cosine"]
    ranks = [
        (prov["value"] - prov["mean_max_cosine"]) / weight for prov, weight in zip(found[1:], (3, 10), strict=True)
    ]
    assert ranks[1] < ranks[0]


@pytest.mark.usefixtures("clock")
def test_many_classes_look_at_random_triplets() -> None:
    similarity = similarity_of(words(48))  # 48 * 47 * 46 / 2 = 51888 > 50000 triplets
    prototypes = semantic(similarity, 6, time=0.5, rounds=1)
    assert prototypes.provenance["rank_agreement"] != float(rank_agreement(prototypes.vectors, similarity))
    assert prototypes.provenance["rank_agreement"] == pytest.approx(
        float(rank_agreement(prototypes.vectors, similarity)), abs=0.02
    )


def test_equal_similarities_leave_only_separation() -> None:
    prototypes = semantic(torch.ones(4, 4), 3, rounds=1)
    assert prototypes.provenance["rank_agreement"] is None
    smoothing = math.log(3) / 7.5e4  # at the last exponent
    assert prototypes.provenance["mean_max_cosine"] == pytest.approx(-1 / 3, abs=smoothing)
    assert prototypes.provenance["value"] == pytest.approx(math.log(2) - 1 / 3, abs=smoothing)


def test_coinciding_classes_are_told() -> None:
    with pytest.warns(GeometryWarning, match="classes coincide") as record:
        semantic(torch.ones(7, 7), 2, rounds=4)
    assert record[0].filename == __file__


def test_seed_and_rounds_decide() -> None:
    similarity = similarity_of(words(6))
    assert semantic(similarity, 3, rounds=2, seed=5) == semantic(similarity, 3, rounds=2, seed=5)
    assert not torch.equal(semantic(similarity, 3, rounds=1, seed=5).vectors, semantic(similarity, 3, rounds=1).vectors)


def test_an_interrupted_search_returns_its_best() -> None:
    seen: list[Progress] = []

    def stop(step: Progress) -> None:
        seen.append(step)
        if len(seen) == 3:
            raise KeyboardInterrupt

    prototypes = semantic(similarity_of(words(6)), 3, progress=stop)
    assert prototypes.provenance["interrupted"] is True
    assert prototypes.provenance["value"] == seen[-1].score


def test_similarity_of_word_vectors() -> None:
    vectors = words(4, 3) * torch.tensor([[1.0], [1e-200], [1e100], [3.0]], dtype=torch.float64)
    similarity = similarity_of(vectors)
    for i, j in itertools.product(range(4), range(4)):
        x, y = words(4, 3)[i].tolist(), words(4, 3)[j].tolist()
        expected = sum(a * b for a, b in zip(x, y, strict=True)) / (math.hypot(*x) * math.hypot(*y))
        assert float(similarity[i, j]) == pytest.approx(expected, abs=1e-14)
    assert similarity_of(torch.ones(2, 3)).dtype is torch.float64


def test_what_it_refuses() -> None:
    similarity = similarity_of(words(4))
    with pytest.raises(ShapeError, match=r"similarity must be square, \(K, K\); got shape \(4, 3\)"):
        semantic(similarity[:, :3], 3)
    with pytest.raises(RangeError, match="at least three classes to rank; got 2"):
        semantic(similarity[:2, :2], 3)
    uneven = similarity.clone()
    uneven[0, 3] += 0.5
    with pytest.raises(RangeError, match=r"similarity must be symmetric; entry \(0, 3\)"):
        semantic(uneven, 3)
    uneven[0, 3] = math.inf
    with pytest.raises(NonFiniteError, match=r"similarity must be finite; entry \(0, 3\) is inf"):
        semantic(uneven, 3)
    for weight in (-1.0, math.inf, math.nan):
        with pytest.raises(RangeError, match="weight must be finite and >= 0"):
            semantic(similarity, 3, weight=weight)
    with pytest.raises(DimensionError, match=r"on a line; got 4 with dim=1\. Increase dim"):
        semantic(similarity, 1)
    with pytest.raises(RangeError, match="rounds must be at least 1"):
        semantic(similarity, 3, rounds=0)


def test_what_the_measures_refuse() -> None:
    with pytest.raises(
        ShapeError, match=r"similarity must be \(K, K\) for vectors \(K, D\); got \(3, 3\) for \(4, 12\)"
    ):
        rank_agreement(words(4), torch.ones(3, 3))
    with pytest.raises(ShapeError, match=r"word_vectors must be \(K, E\) with K, E >= 1; got \(3,\)"):
        similarity_of(torch.ones(3))
    with pytest.raises(NonFiniteError, match=r"word_vectors must be finite .* row 1 holds nan in column 0"):
        similarity_of(torch.tensor([[1.0], [math.nan]]))
    with pytest.raises(ZeroVectorError, match="word_vectors must be non-zero; class 1 has a zero vector"):
        similarity_of(torch.tensor([[1.0, 2.0], [0.0, 0.0]]))
