"""`best` takes the strongest route and says which."""

import math

import pytest
import torch

from tightframe import prototypes
from tightframe.errors import DimensionError, RangeError, ShapeError
from tightframe.prototypes import best


@pytest.mark.parametrize(
    ("K", "D", "code", "cosine"),
    [
        (7, 6, "simplex", -1 / 6),
        (3, 40, "simplex", -1 / 2),
        (8, 6, "orthoplex", 0),
        (12, 6, "orthoplex", 0),
        (9, 2, "polygon", math.cos(2 * math.pi / 9)),
        (12, 3, "icosahedron", 5**-0.5),
        (24, 4, "24-cell", 1 / 2),
        (100, 22, "higman-sims", 1 / 11),
        (288, 16, "kerdock-16", 1 / 4),
        (10_000, 128, "gold-127", 15 / 127),
    ],
)
def test_routes_without_a_search(K: int, D: int, code: str, cosine: float) -> None:
    found = best(K, D)
    assert found.vectors.shape == (K, D)
    assert found.provenance["constructor"] == "best"
    assert found.provenance["code"] == code
    assert prototypes.Prototypes(found.vectors[:2000]).certificate.max_cosine == pytest.approx(cosine, abs=1e-12)
    assert found.provenance["reason"] and "rounds" not in found.provenance


@pytest.mark.usefixtures("few_draws")
def test_a_search_where_no_code_is_as_good() -> None:
    found = best(44, 3, rounds=2)
    assert found.certificate.max_cosine <= best(44, 3, rounds=0).certificate.max_cosine
    assert found.provenance["rounds"] == 2


@pytest.mark.usefixtures("few_draws")
def test_a_part_of_a_code_where_the_search_finds_no_better() -> None:
    found = best(23, 4, rounds=2)  # no 23 vectors are known to beat the 24-cell without one
    assert found.certificate.max_cosine <= 0.5 + 1e-9
    assert "found nothing better" in found.provenance["reason"]


@pytest.mark.usefixtures("few_draws")
@pytest.mark.parametrize(
    ("K", "D"), [(20, 4), (30, 3), *(pytest.param(*size, marks=pytest.mark.slow) for size in ((30, 7), (40, 17)))]
)
def test_a_search_never_ends_above_what_is_built(K: int, D: int) -> None:
    without = best(K, D, rounds=0).certificate.max_cosine
    assert best(K, D, time=0.2).certificate.max_cosine <= without + 1e-15
    assert best(K, D, rounds=1).certificate.max_cosine <= without + 1e-15


@pytest.mark.usefixtures("few_draws")
def test_a_warm_start_is_one_more_start() -> None:
    good = best(33, 5, rounds=1, seed=1).vectors
    again = best(33, 5, rounds=1, seed=2, warm_start=good)
    assert again.certificate.max_cosine <= prototypes.Prototypes(good).certificate.max_cosine + 1e-12
    assert again.provenance["warm_start"] is True


def test_bad_requests() -> None:
    for K, D in ((1, 3), (4, 0), (3, 1)):
        with pytest.raises(DimensionError):
            best(K, D)
    with pytest.raises(ShapeError, match=r"warm_start must be \(13, 3\); got \(13, 4\)"):
        best(13, 3, warm_start=torch.ones(13, 4))


@pytest.mark.parametrize(("K", "D"), [(3, 3), (6, 4), (240, 8), (13, 3)])
def test_bad_budgets_on_every_route(K: int, D: int) -> None:
    with pytest.raises(RangeError, match="time must be a positive number of seconds; got 0"):
        best(K, D, time=0)
    with pytest.raises(RangeError, match="rounds must be at least 0; got -1"):
        best(K, D, rounds=-1)
