"""`best` takes the strongest route and says which."""

import pytest
import torch

from tightframe import prototypes
from tightframe.errors import DimensionError, RangeError
from tightframe.prototypes import best


@pytest.mark.parametrize(
    ("K", "D", "constructor", "cosine"),
    [
        (7, 6, "simplex", -1 / 6),
        (3, 40, "simplex", -1 / 2),
        (8, 6, "orthoplex", 0),
        (12, 6, "orthoplex", 0),
        (12, 3, "code", 5**-0.5),
        (24, 4, "code", 1 / 2),
        (100, 22, "code", 1 / 11),
        (288, 16, "code", 1 / 4),
        (10_000, 128, "code", 15 / 127),
    ],
)
def test_routes_without_a_search(K: int, D: int, constructor: str, cosine: float) -> None:
    found = best(K, D)
    assert found.vectors.shape == (K, D)
    assert found.provenance["constructor"] == constructor
    assert prototypes.Prototypes(found.vectors[:2000]).certificate.max_cosine == pytest.approx(cosine, abs=1e-12)
    assert found.provenance["reason"]


def test_a_polygon_on_the_circle() -> None:
    assert best(9, 2).provenance["constructor"] == "polygon"
    assert best(9, 2).certificate.optimal is True


@pytest.mark.usefixtures("few_draws")
def test_a_search_where_no_code_is_as_good() -> None:
    found = best(10, 3, rounds=3)  # caps, filled layers and points at will
    assert found.provenance["constructor"] == "separated"
    assert "above the bound" in found.provenance["reason"]
    assert found.certificate.max_cosine == pytest.approx(0.404394325216758, abs=1e-9)  # Danzer 1986


@pytest.mark.usefixtures("few_draws")
def test_a_part_of_a_code_where_the_search_finds_no_better() -> None:
    found = best(23, 4, rounds=2)  # no 23 vectors are known to beat the 24-cell without one
    assert found.certificate.max_cosine == pytest.approx(0.5, abs=1e-9)
    assert "24-cell" in found.provenance["reason"]


def test_scale_and_dtype_reach_every_route() -> None:
    for K, D in ((3, 3), (6, 4), (5, 2), (12, 3), (13, 3)):
        found = best(K, D, rounds=1, scale=2.0, dtype=torch.float32)
        assert found.vectors.dtype is torch.float32
        torch.testing.assert_close(found.vectors.norm(dim=1), torch.full((K,), 2.0))


def test_bad_requests() -> None:
    for K, D in ((1, 3), (4, 0), (3, 1)):
        with pytest.raises(DimensionError):
            best(K, D)


@pytest.mark.parametrize(("K", "D"), [(3, 3), (6, 4), (240, 8), (13, 3)])
def test_bad_budgets_on_every_route(K: int, D: int) -> None:
    with pytest.raises(RangeError, match="time must be a positive number of seconds; got 0"):
        best(K, D, time=0)
    with pytest.raises(RangeError, match="rounds must be at least 1; got 0"):
        best(K, D, rounds=0)
