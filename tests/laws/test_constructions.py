"""What every row of `PROTOTYPES` owes: a value with provenance, length and file, the same one again, and its search."""

import json
from pathlib import Path

import pytest
import torch

from tightframe import ClassStatistics, Prototypes
from tightframe.errors import DimensionError, RangeError, ShapeError
from tightframe.prototypes import PROTOTYPES, Search

COST = (torch.arange(6.0, dtype=torch.float64)[:, None] - torch.arange(6.0, dtype=torch.float64)).abs()
SIMILARITY = torch.exp(-COST)
DRAW = torch.randn(6, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
STATISTICS = ClassStatistics.from_features(DRAW, torch.arange(6), 6)

ARGUMENTS: dict[str, tuple] = {name: (6, 6) for name, row in PROTOTYPES.items() if row.needs == "sizes"} | {
    "polygon": (6, 2),
    "poles": (3, 4),
    "code": ("24-cell",),
    "semantic": (SIMILARITY, 4),
    "metric-guided": (COST, 2),
    "hierarchical": (COST, 4),
    "class-means": (STATISTICS,),
    "nearest-etf": (DRAW,),
    "guided": (PROTOTYPES["simplex"].build(6, 7), DRAW),
}
UNIT = sorted(set(PROTOTYPES) - {"class-means", "metric-guided"})  # lengths are these two's matter
SEARCHING = [name for name, row in PROTOTYPES.items() if row.searches]
SIZED = {"semantic": (6, 4)}  # sizes of the vectors of rows that take others


def build(name: str, **options: object) -> Prototypes:
    extra = {"rounds": 1} if PROTOTYPES[name].searches else {}
    return PROTOTYPES[name].build(*ARGUMENTS[name], **extra, **options)


def test_every_row_is_tried() -> None:
    assert set(ARGUMENTS) == set(PROTOTYPES)
    assert {row.needs for row in PROTOTYPES.values()} == {"sizes", "cost", "similarity", "statistics", "means", "name"}


@pytest.mark.parametrize("name", PROTOTYPES)
def test_the_value_says_where_it_comes_from(name: str) -> None:
    made = build(name)
    assert isinstance(made, Prototypes)
    assert made.vectors.dtype is torch.float64
    assert isinstance(made.provenance["constructor"], str) and made.provenance["source"]
    json.dumps(dict(made.provenance))
    assert -1 <= made.certificate.max_cosine <= 1
    assert made.certificate.max_cosine >= made.certificate.bound.value - 1e-9


@pytest.mark.parametrize("name", PROTOTYPES)
def test_the_same_arguments_give_the_same_value(name: str) -> None:
    assert build(name) == build(name)


@pytest.mark.parametrize("name", PROTOTYPES)
def test_the_default_device_does_not_matter(name: str) -> None:
    """As in models that are built `with torch.device("meta")`."""
    with torch.device("meta"):
        made = build(name)
    assert made == build(name)


@pytest.mark.parametrize("name", PROTOTYPES)
def test_files_keep_it(name: str, tmp_path: Path) -> None:
    made = build(name)
    made.save(tmp_path / "p.safetensors")
    assert Prototypes.load(tmp_path / "p.safetensors") == made


@pytest.mark.parametrize("name", UNIT)
def test_vectors_have_unit_length(name: str) -> None:
    lengths = build(name).vectors.norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", PROTOTYPES)
def test_the_provenance_has_the_sizes_and_a_scale_only_if_scaled(name: str) -> None:
    made = build(name)
    assert (made.provenance["num_classes"], made.provenance["dim"]) == tuple(made.vectors.shape)
    assert "scale" not in made.provenance
    assert made.scaled(2.0).provenance["scale"] == 2.0


@pytest.mark.parametrize("name", PROTOTYPES)
@pytest.mark.parametrize("option", ["scale", "dtype", "budget", "no_such_option"])
def test_unknown_options_raise(name: str, option: str) -> None:
    with pytest.raises(TypeError, match=option):
        build(name, **{option: 1})


# ---------------------------------------------------------------------- search


@pytest.mark.parametrize("name", SEARCHING)
def test_a_search_is_the_same_as_its_fields(name: str) -> None:
    row, arguments = PROTOTYPES[name], ARGUMENTS[name]
    made = row.build(*arguments, search=Search(rounds=1, seed=3))
    assert made == row.build(*arguments, rounds=1, seed=3)
    assert made == row.build(*arguments, search=Search(rounds=5, seed=3), rounds=1)  # fields replace the search's
    assert made.provenance["seed"] == 3


@pytest.mark.parametrize("name", SEARCHING)
@pytest.mark.parametrize("seed", [1 << 63, -(1 << 63) - 1])
def test_seeds_beyond_64_bits_raise(name: str, seed: int) -> None:
    with pytest.raises(RangeError, match="seed must be an integer, at least"):
        PROTOTYPES[name].build(*ARGUMENTS[name], rounds=1, seed=seed)


@pytest.mark.parametrize("name", SEARCHING)
@pytest.mark.parametrize("limits", [{"time": 0}, {"time": -1.0}, {"time": float("nan")}, {"rounds": -1}])
def test_impossible_limits_raise(name: str, limits: dict[str, float]) -> None:
    with pytest.raises(RangeError, match="must be"):
        PROTOTYPES[name].build(*ARGUMENTS[name], **limits)


@pytest.mark.parametrize("name", SEARCHING)
def test_a_warm_start_of_another_shape_raises(name: str) -> None:
    K, D = SIZED.get(name, ARGUMENTS[name])
    for shape in ((K + 1, D), (K, D + 1), (K,)):
        with pytest.raises(ShapeError, match=rf"warm_start must be \({K}, {D}\)"):
            build(name, warm_start=torch.ones(shape))


@pytest.mark.parametrize("name", SEARCHING)
def test_a_warm_start_is_in_the_provenance(name: str) -> None:
    K, D = SIZED.get(name, ARGUMENTS[name])
    start = torch.randn(K, D, generator=torch.Generator().manual_seed(1))
    assert build(name, warm_start=start).provenance["warm_start"] is True
    assert "warm_start" not in build(name).provenance


@pytest.mark.parametrize("name", [name for name, row in PROTOTYPES.items() if row.needs == "sizes"])
@pytest.mark.parametrize("sizes", [(1, 0), (0, 3), (3, 0)])
def test_impossible_sizes_raise(name: str, sizes: tuple[int, int]) -> None:
    with pytest.raises((DimensionError, RangeError)):
        PROTOTYPES[name].build(*sizes)
