"""What every row of `PROTOTYPES` owes: a value with provenance, length, dtype and file, and the same one again."""

import json
from pathlib import Path

import pytest
import torch

from tightframe import ClassStatistics, Prototypes
from tightframe.errors import DimensionError, RangeError
from tightframe.prototypes import PROTOTYPES

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
SCALED = sorted(
    set(PROTOTYPES) - {"class-means", "guided", "gram-matching", "metric-guided"}
)  # lengths are their matter


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


@pytest.mark.parametrize("name", SCALED)
def test_scale_is_the_length(name: str) -> None:
    made = build(name, scale=3.0)
    lengths = made.vectors.norm(dim=1)
    if name == "nearest-etf":
        lengths = lengths / lengths.mean() * 3  # of its own size first
    torch.testing.assert_close(lengths, torch.full_like(lengths, 3.0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", sorted(set(PROTOTYPES) - {"class-means", "nearest-etf", "guided"}))
def test_dtype_is_as_asked(name: str) -> None:
    assert build(name, dtype=torch.float32).vectors.dtype is torch.float32


@pytest.mark.parametrize("name", [name for name, row in PROTOTYPES.items() if row.needs == "sizes"])
@pytest.mark.parametrize("sizes", [(1, 0), (0, 3), (3, 0)])
def test_impossible_sizes_raise(name: str, sizes: tuple[int, int]) -> None:
    with pytest.raises((DimensionError, RangeError)):
        PROTOTYPES[name].build(*sizes)
