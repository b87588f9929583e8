"""An exact code and a construction of one's own, with public names only, count wherever the package's own do."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

import tightframe as tf
from tightframe import codes, prototypes
from tightframe.cli.tables import code_table

# ---------------------------------------------------------------------- what a user writes


def triangles(n: int) -> Tensor:
    """Two triangles in orthogonal planes, and two of the opposite vectors."""
    turns = torch.arange(3, dtype=torch.float64) * (2 * math.pi / 3)
    rim = torch.stack([turns.cos(), turns.sin()], dim=1)
    first = torch.nn.functional.pad(rim, (0, 2))
    return torch.cat([first, first.roll(2, 1), -first[:2]])[:n]


TRIANGLES = codes.Code("mine", 8, 4, 0.5, source="nobody 2026", inner_products=(-1, -0.5, 0, 0.5), build=triangles)


@prototypes.searching
@prototypes.construction("nobody 2026")
def turned(num_classes: int, dim: int, *, search: prototypes.Search) -> tuple[Tensor, dict[str, float]]:
    """Random directions."""
    generator = torch.Generator().manual_seed(search.seed)
    vectors = torch.randn(num_classes, dim, generator=generator, dtype=torch.float64)
    return vectors / vectors.norm(dim=1, keepdim=True), {"first": vectors[0, 0].item()}


# ---------------------------------------------------------------------- where it appears


@pytest.fixture
def added() -> Iterator[None]:
    dense = codes.Code("dense", 5000, 3, 0.99, source="nobody 2026", build=lambda n: torch.eye(3).double()[:n])
    codes.CODES.update({"mine": TRIANGLES, "dense": dense})
    prototypes.PROTOTYPES["turned"] = prototypes.Construction(turned, "sizes", "random directions")
    yield
    del codes.CODES["mine"], codes.CODES["dense"], prototypes.PROTOTYPES["turned"]


@pytest.mark.usefixtures("added")
def test_a_code() -> None:
    assert torch.equal(prototypes.code("mine", dim=6).vectors[:, :4], triangles(8))
    assert prototypes.code("mine").provenance["source"] == "nobody 2026"
    assert prototypes.code("mine").certificate.max_cosine == pytest.approx(0.5)
    assert any(row[0] == "mine" for row in code_table().sections[0].table.rows)
    assert codes.best_listed(4000, 3) is codes.CODES["dense"] is codes.best_built(4000, 3)
    assert tf.certify(torch.randn(4000, 3), one_vs_rest=False).best_listed == codes.CODES["dense"]
    assert TRIANGLES in codes.codes_for(8, 4)


@pytest.mark.usefixtures("added")
def test_a_construction(tmp_path: Path) -> None:
    made = turned(5, 3, seed=4)
    assert made == turned(5, 3, search=prototypes.Search(seed=4))
    assert dict(made.provenance) == {
        **{"constructor": "turned", "seed": 4, "num_classes": 5, "dim": 3, "source": "nobody 2026"},
        "first": made.provenance["first"],
    }
    made.save(tmp_path / "p.safetensors")
    assert prototypes.Prototypes.load(tmp_path / "p.safetensors") == made
    assert json.loads(made.certificate.to_json())["num_vectors"] == 5
    from tightframe.cli.prototypes import constructions

    assert constructions()["turned"] is turned
    assert tf.PrototypeHead(made, scale=2.0)(torch.randn(2, 3)).shape == (2, 5)
