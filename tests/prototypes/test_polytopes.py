"""Orthonormal frames, orthoplexes, hypercubes and polygons, for any number of their vertices."""

import itertools
import math

import mpmath
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tightframe.errors import DimensionError
from tightframe.prototypes.polytopes import hypercube, orthonormal, orthoplex, polygon


def largest_cosine(vectors: Tensor) -> float:
    return float((vectors @ vectors.T).fill_diagonal_(-2).max())


@pytest.mark.parametrize(("K", "dim"), [(2, None), (5, 5), (3, 8)])
def test_orthonormal(K: int, dim: int | None) -> None:
    vectors = orthonormal(K, dim).vectors
    assert vectors.shape == (K, dim or K)
    assert torch.equal(vectors @ vectors.T, torch.eye(K, dtype=torch.float64))


@pytest.mark.parametrize(("K", "dim"), [(2, None), (6, None), (7, None), (7, 6), (12, 6), (3, 5)])
def test_orthoplex(K: int, dim: int | None) -> None:
    vectors = orthoplex(K, dim).vectors
    assert vectors.shape == (K, dim or math.ceil(K / 2))
    gram = (vectors @ vectors.T).fill_diagonal_(0)
    assert set(gram.unique().tolist()) <= {0.0, -1.0}
    assert (gram == -1).sum() == 2 * max(0, K - vectors.shape[1])  # antipodes only once the axes are used up


@pytest.mark.parametrize("K", [2, 3, 5, 8, 16, 100])
def test_hypercube_of_least_dimension(K: int) -> None:
    vectors = hypercube(K).vectors
    dim = math.ceil(math.log2(K))
    assert vectors.shape == (K, dim)
    corners = {tuple(row) for row in (vectors * math.sqrt(dim)).round().tolist()}
    assert len(corners) == K and corners <= set(itertools.product((-1.0, 1.0), repeat=dim))


@pytest.mark.parametrize(
    ("K", "dim", "distance"),
    [(8, 7, 4), (16, 15, 8), (32, 16, 8), (100, 16, 6), (2048, 23, 8), (1000, 128, 56)],
)  # simplex codes, Reed and Muller's, distances of the Golay code and of the best linear [128, 10]
def test_hypercube_vertices_are_far_apart(K: int, dim: int, distance: int) -> None:
    vectors = hypercube(K, dim).vectors
    assert_close(vectors.norm(dim=1), torch.ones(K, dtype=torch.float64))
    assert largest_cosine(vectors) <= 1 - 2 * distance / dim + 1e-12


@pytest.mark.parametrize(("K", "dim"), [(9, 4), (17, 30), (33, 6), (500, 9)])
def test_hypercube_vertices_are_distinct(K: int, dim: int) -> None:
    assert largest_cosine(hypercube(K, dim).vectors) <= 1 - 2 / dim + 1e-12


@pytest.mark.parametrize("K", [2, 3, 4, 5, 7, 8, 12, 1000, 99_991])
def test_polygon_is_right_to_an_ulp(K: int) -> None:
    vectors = polygon(K).vectors
    for k in {0, 1, K // 3, K // 2, K - 1}:
        with mpmath.workdps(40):
            angle = 2 * mpmath.pi * k / K
            expected = [float(mpmath.cos(angle)), float(mpmath.sin(angle))]
        if 4 * k % K == 0:
            expected = [round(value) for value in expected]
        for ours, exact in zip(vectors[k].tolist(), expected, strict=True):
            assert abs(ours - exact) <= math.ulp(exact)


def test_polygon_with_spare_dimensions() -> None:
    vectors = polygon(6, 5).vectors
    assert vectors.shape == (6, 5) and not vectors[:, 2:].any()
    assert largest_cosine(vectors) == pytest.approx(0.5, abs=1e-15)


@pytest.mark.parametrize("construct", [orthonormal, orthoplex, hypercube, polygon])
def test_lengths_and_provenance(construct) -> None:
    made = construct(4, 5)
    assert made.vectors.dtype is torch.float64 and made.vectors.shape == (4, 5)
    assert_close(made.vectors.norm(dim=1), torch.ones(4, dtype=torch.float64))
    assert made.provenance["constructor"] == construct.__name__
    assert (made.provenance["num_classes"], made.provenance["dim"]) == (4, 5)
    assert "scale" not in made.provenance


@pytest.mark.parametrize(
    ("construct", "K", "dim", "message"),
    [
        (orthonormal, 4, 3, r"num_classes must be at most 3 \(D\) for an orthonormal frame .* 4\. Increase dim, or"),
        (orthoplex, 7, 3, r"num_classes must be at most 6 \(2 D\) for an orthoplex .* prototypes\.best\(7, 3\)"),
        (hypercube, 9, 3, r"num_classes must be at most 8 \(2\^D\) for a hypercube"),
        (hypercube, 3, -1, "dim must be at least 1; got -1"),
        (polygon, 4, 1, "dim must be at least 2 for a polygon; got 1"),
        (polygon, 1, 2, "num_classes must be at least 2; got 1"),
        (orthonormal, 1, None, "num_classes must be at least 2; got 1"),
        (orthoplex, 0, None, "num_classes must be at least 2; got 0"),
        (hypercube, 1, None, "num_classes must be at least 2; got 1"),
    ],
)
def test_impossible_requests(construct, K: int, dim: int | None, message: str) -> None:
    with pytest.raises(DimensionError, match=message):
        construct(K) if dim is None else construct(K, dim)
