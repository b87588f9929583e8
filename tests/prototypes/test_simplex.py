"""The simplex in its poses: against Kasarla's recursion, the Gram matrix, and the uniform distribution of rotations."""

import math

import pytest
import torch
from scipy.stats import kstest
from torch import Tensor
from torch.testing import assert_close

from tightframe.errors import ChoiceError, DimensionError
from tightframe.prototypes.simplex import simplex

POSES = ("canonical", "centred", "haar")


def kasarla(k: int) -> Tensor:
    """P_k of the paper, k x (k + 1), by its recursion: the columns are the vectors."""
    matrix = torch.tensor([[1.0, -1.0]], dtype=torch.float64)
    for n in range(2, k + 1):
        top = torch.cat([torch.ones(1, 1), torch.full((1, n), -1 / n, dtype=torch.float64)], dim=1)
        below = torch.cat([torch.zeros(n - 1, 1), math.sqrt(1 - 1 / n**2) * matrix], dim=1)
        matrix = torch.cat([top, below])
    return matrix


def gram_error(vectors: Tensor, rows: Tensor) -> float:
    K = len(vectors)
    expected = torch.full((len(rows), K), -1 / (K - 1), dtype=torch.float64)
    expected[torch.arange(len(rows)), rows] = 1
    return float((vectors[rows] @ vectors.T - expected).abs().max())


def test_canonical_is_the_papers_second_matrix() -> None:
    half, root = 0.5, math.sqrt(3) / 2
    expected = torch.tensor([[1, 0], [-half, root], [-half, -root]], dtype=torch.float64)
    assert_close(simplex(3).vectors, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("K", [2, 3, 4, 10, 101])
def test_canonical_is_kasarlas_recursion(K: int) -> None:
    assert_close(simplex(K).vectors, kasarla(K - 1).T, rtol=0, atol=1e-13)


@pytest.mark.parametrize("pose", POSES)
@pytest.mark.parametrize("K", [2, 3, 7, 300])
@pytest.mark.parametrize("spare", [0, 5])
def test_every_cosine_is_that_of_the_simplex(pose: str, K: int, spare: int) -> None:
    dim = K - (pose != "centred") + spare
    vectors = simplex(K, dim, pose=pose, seed=3).vectors
    assert vectors.shape == (K, dim) and vectors.dtype is torch.float64
    assert gram_error(vectors, torch.arange(K)) < 1e-12
    if pose != "haar":
        assert not vectors[:, dim - spare :].any()  # padded, while the turn fills all dimensions


def test_centred_rows_are_the_centring_matrix() -> None:
    K = 6
    expected = math.sqrt(K / (K - 1)) * (torch.eye(K, dtype=torch.float64) - 1 / K)
    assert_close(simplex(K, pose="centred").vectors, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("pose", POSES)
@pytest.mark.parametrize("K", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_many_classes(K: int, pose: str) -> None:
    vectors = simplex(K, pose=pose).vectors
    assert gram_error(vectors, torch.tensor([0, 1, 777, K // 2, K - 3, K - 2, K - 1])) < 1e-12


def test_the_turn_is_uniform() -> None:
    first = torch.stack([simplex(3, pose="haar", seed=seed).vectors for seed in range(500)])
    angles = torch.atan2(first[:, 0, 1], first[:, 0, 0]) / (2 * math.pi) + 0.5
    assert kstest(angles.numpy(), "uniform").pvalue > 0.01
    orientation = (first[:, 0, 0] * first[:, 1, 1] - first[:, 0, 1] * first[:, 1, 0]).sign()
    assert abs(float(orientation.mean())) < 3 / math.sqrt(500)  # reflections are as likely


def test_the_turn_is_the_seeds() -> None:
    assert torch.equal(simplex(5, 9, pose="haar", seed=1).vectors, simplex(5, 9, pose="haar", seed=1).vectors)
    assert not torch.equal(simplex(5, 9, pose="haar", seed=1).vectors, simplex(5, 9, pose="haar", seed=2).vectors)


def test_provenance_rebuilds_the_simplex() -> None:
    made = simplex(4, 7, pose="haar", seed=11)
    assert made.provenance["constructor"] == "simplex" and made.provenance["seed"] == 11
    arguments = {key: value for key, value in made.provenance.items() if key not in ("constructor", "source")}
    assert simplex(**arguments) == made


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_classes": 5, "dim": 3}, DimensionError, r"num_classes must be at most 4 \(D \+ 1\) for a simplex"),
        ({"num_classes": 5, "dim": 4, "pose": "centred"}, DimensionError, r"at most 4 \(D\) for a centred simplex"),
        ({"num_classes": 1}, DimensionError, "num_classes must be at least 2; got 1"),
        ({"num_classes": 2, "dim": 0}, DimensionError, "dim must be at least 1; got 0"),
        ({"num_classes": 3, "pose": "lying"}, ChoiceError, "canonical, centred, haar; got 'lying'"),
    ],
)
def test_impossible_requests(arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        simplex(**arguments)
