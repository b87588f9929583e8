"""The value: its laws, its file, and that bad input is refused by name."""

import copy
import json
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tightframe import Prototypes
from tightframe.errors import DtypeError, NonFiniteError, RangeError, ShapeError, StateError


@pytest.fixture
def triangle() -> Prototypes:
    vectors = torch.tensor([[1.0, 0.0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]], dtype=torch.float64)
    return Prototypes(vectors, {"constructor": "by hand", "seed": 3})


def test_sizes(triangle: Prototypes) -> None:
    assert (len(triangle), triangle.num_classes, triangle.dim) == (3, 3, 2)
    assert repr(triangle) == "Prototypes(3 classes, 2 dimensions, by hand)"


def test_the_certificate_is_of_the_vectors(triangle: Prototypes) -> None:
    assert triangle.certificate.max_cosine == pytest.approx(-0.5, abs=1e-15)
    assert triangle.certificate.optimal is True


def test_indexing_selects_classes(triangle: Prototypes) -> None:
    assert torch.equal(triangle[1], triangle.vectors[1])
    assert torch.equal(triangle[-1], triangle.vectors[2])
    part = triangle[[2, 0]]
    assert isinstance(part, Prototypes)
    assert torch.equal(part.vectors, triangle.vectors[[2, 0]])
    assert part.provenance["classes"] == [2, 0] and part.provenance["seed"] == 3
    assert triangle[1:].provenance["classes"] == [1, 2]
    assert triangle[torch.tensor([True, False, True])].provenance["classes"] == [0, 2]
    with pytest.raises(ShapeError, match=r"vectors must be \(K, D\)"):
        triangle[torch.tensor([[0, 1], [1, 2]])]


def test_slices_of_slices_name_the_original_classes(triangle: Prototypes) -> None:
    assert triangle[1:][1:].provenance["classes"] == [2]


def test_names_of_classes_are_selected_too(triangle: Prototypes) -> None:
    named = Prototypes(triangle.vectors, {"classes": ["ant", "bee", "cat"]})
    assert named[[2, 0]].provenance["classes"] == ["cat", "ant"]


def test_equality(triangle: Prototypes) -> None:
    same = Prototypes(triangle.vectors.clone(), dict(triangle.provenance))
    assert triangle == same
    assert triangle != Prototypes(triangle.vectors, {"constructor": "by hand", "seed": 4})
    assert triangle != Prototypes(triangle.vectors + 1e-15, triangle.provenance)
    assert triangle != triangle.to(torch.float32)
    assert triangle != "prototypes"


@pytest.mark.parametrize("duplicate", [copy.deepcopy, copy.copy, lambda p: pickle.loads(pickle.dumps(p))])
def test_copies_are_equal(triangle: Prototypes, duplicate) -> None:
    assert duplicate(triangle) == triangle


def test_a_file_keeps_everything(triangle: Prototypes, tmp_path: Path) -> None:
    triangle.save(tmp_path / "p.safetensors")
    assert Prototypes.load(tmp_path / "p.safetensors") == triangle


def test_a_view_can_be_saved(triangle: Prototypes, tmp_path: Path) -> None:
    turned = Prototypes(triangle.vectors.T)
    turned.save(str(tmp_path / "p.safetensors"))
    assert torch.equal(Prototypes.load(str(tmp_path / "p.safetensors")).vectors, triangle.vectors.T)


def test_scaled_vectors_keep_their_directions(triangle: Prototypes) -> None:
    larger = triangle.scaled(3.0)
    assert torch.equal(larger.vectors, 3 * triangle.vectors)
    assert dict(larger.provenance) == {**triangle.provenance, "scale": 3.0}
    assert "scale" not in triangle.provenance
    again = larger.scaled(0.5)
    assert torch.equal(again.vectors, 1.5 * triangle.vectors) and again.provenance["scale"] == 1.5
    assert larger.vectors.dtype is torch.float64 and triangle.to(torch.float32).scaled(2).vectors.dtype is torch.float32
    assert larger.certificate.max_cosine == pytest.approx(-0.5, abs=1e-15)


@pytest.mark.parametrize("scale", [0, -1.0, math.inf, -math.inf, math.nan])
def test_impossible_scales(triangle: Prototypes, scale: float) -> None:
    with pytest.raises(RangeError, match=f"scale must be positive and finite; got {scale}"):
        triangle.scaled(scale)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_another_dtype(triangle: Prototypes, dtype: torch.dtype) -> None:
    moved = triangle.to(dtype)
    assert moved.vectors.dtype is dtype and torch.equal(moved.vectors, triangle.vectors.to(dtype))
    assert dict(moved.provenance) == dict(triangle.provenance)
    assert triangle.to("cpu", dtype=dtype) == moved
    assert triangle.vectors.dtype is torch.float64


def test_no_dtype_without_fractions(triangle: Prototypes) -> None:
    with pytest.raises(DtypeError, match=r"floating point; got torch\.int64"):
        triangle.to(torch.int64)


def test_other_files_are_refused(tmp_path: Path) -> None:
    save_file({"vectors": torch.eye(3)}, tmp_path / "other.safetensors")
    with pytest.raises(StateError, match=r"must have the format 'tightframe.prototypes'"):
        Prototypes.load(tmp_path / "other.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    with pytest.raises(StateError, match="is truncated: it has 7 bytes"):
        Prototypes.load(tmp_path / "broken.safetensors")
    with pytest.raises(StateError, match="doesn't exist"):
        Prototypes.load(tmp_path / "missing.safetensors")


@pytest.mark.parametrize(
    ("provenance", "message"),
    [
        ("abc", "the provenance must be a mapping; got str"),
        ([["seed", 3]], "the provenance must be a mapping; got list"),
        ({"classes": "abc"}, "'classes' must be a list of 3, one for each vector; got 'abc'"),
        ({"classes": 3}, "'classes' must be a list of 3, one for each vector; got 3"),
        ({"classes": [0, 1]}, r"'classes' must be a list of 3, one for each vector; got \[0, 1\]"),
    ],
)
def test_damaged_provenance(tmp_path: Path, provenance: Any, message: str) -> None:
    with pytest.raises(StateError, match=message):
        Prototypes(torch.eye(3), provenance)
    metadata = {"format": "tightframe.prototypes", "provenance": json.dumps(provenance)}
    save_file({"vectors": torch.eye(3)}, tmp_path / "p.safetensors", metadata)
    with pytest.raises(StateError, match=rf"p\.safetensors: .*{message}"):
        Prototypes.load(tmp_path / "p.safetensors")


def test_bad_vectors_in_a_file(tmp_path: Path) -> None:
    metadata = {"format": "tightframe.prototypes", "provenance": "{}"}
    save_file({"vectors": torch.ones(3)}, tmp_path / "p.safetensors", metadata)
    with pytest.raises(StateError, match=r"p\.safetensors: vectors must be \(K, D\)"):
        Prototypes.load(tmp_path / "p.safetensors")


def test_provenance_is_read_only_and_plain(triangle: Prototypes) -> None:
    with pytest.raises(TypeError):
        triangle.provenance["seed"] = 5  # type: ignore[index]
    with pytest.raises(StateError, match="JSON"):
        Prototypes(torch.eye(2), {"tensor": torch.eye(2)})
    circular: dict[str, Any] = {}
    circular["itself"] = circular
    with pytest.raises(StateError, match="JSON"):
        Prototypes(torch.eye(2), circular)


@pytest.mark.parametrize(
    ("vectors", "error"),
    [
        (torch.ones(3), ShapeError),
        (torch.ones(0, 3), ShapeError),
        (torch.ones(3, 0), ShapeError),
        (torch.ones(2, 3, dtype=torch.int64), DtypeError),
        (torch.tensor([[1.0, float("nan")]]), NonFiniteError),
    ],
)
def test_bad_vectors(vectors: torch.Tensor, error: type[Exception]) -> None:
    with pytest.raises(error):
        Prototypes(vectors)
