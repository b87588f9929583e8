"""Certificates as documents: each quantity beside its reference, the verdict, and the nearest pairs."""

import json
import math
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from rich.cells import cell_len

from tightframe.codes import Certificate, certify
from tightframe.codes.pairs import nearest_pairs, pair_sections
from tightframe.codes.random_vectors import random_cosine
from tightframe.prototypes import code
from tightframe.prototypes.polytopes import hypercube, orthoplex, polygon
from tightframe.prototypes.simplex import simplex
from tightframe.render.terminal import render


def table(certificate: Certificate) -> dict[str, list[tuple[str, str, str]]]:
    """Values, references and what these are, by quantity."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    name = ""
    for quantity, value, reference, what in certificate.rows():
        name = quantity or name
        found.setdefault(name, []).append((value, reference, what))
    return found


def test_every_quantity_beside_its_reference() -> None:
    vectors = code("petersen").vectors.clone()
    vectors[0, 0] += 0.05
    certificate = certify(vectors)
    rows = table(certificate)
    bound, known = certificate.bound, certificate.best_listed
    assert known is not None
    assert rows["lengths"] == [
        (f"{certificate.min_norm:.5g} – {certificate.max_norm:.5g}", "equal", "")
    ]
    assert rows["largest cosine"] == [
        (f"{certificate.max_cosine:.9f}", f"{bound.value:.9f}", f"{bound.name} bound"),
        ("", f"{known.cosine:.9f}", f"best listed: {known}"),
        ("", f"{random_cosine(10, 4):.9f}", "median of random vectors"),
    ]
    angles = [math.degrees(math.acos(cosine)) for cosine in (bound.value, known.cosine)]
    assert rows["smallest angle"] == [
        (f"{certificate.min_angle:.6f}°", f"{angles[0]:.6f}°", f"{bound.name} bound"),
        ("", f"{angles[1]:.6f}°", f"best listed: {known}"),
    ]
    assert rows["gap in cosine"][0][0] == f"{certificate.max_cosine - bound.value:.3g}"
    assert rows["gap in angle"][0][0] == f"{angles[0] - certificate.min_angle:.3g}°"
    assert rows["mean of row maxima"] == [
        (f"{certificate.mean_max_cosine:.9f}", f"{certificate.max_cosine:.9f}", "the largest cosine")
    ]
    assert rows["largest |cosine|"][0][:2] == (f"{certificate.coherence:.9f}", f"{certificate.line_bound.value:.9f}")
    assert rows["one-vs-rest distance"][0][0] == f"{certificate.one_vs_rest:.9f}"
    assert "Gram residual" not in rows  # of a code that isn't these vectors'
    exact = certify(code("petersen").vectors)
    assert table(exact)["Gram residual"] == [(f"{exact.gram_residual:.3g}", "0", exact.gram_of)]
    sources = certificate.document().sections[-1]
    assert sources.key == "sources" and any(bound.source in line for line in sources.sentences)
    assert any(known.source in line for line in sources.sentences)


def test_a_simplex_has_its_own_references() -> None:
    certificate = certify(simplex(4, 3).vectors)
    assert certificate.reason.startswith("The largest cosine meets the Rankin bound, −0.333333333;")
    rows = table(certificate)
    assert rows["lengths"][0][0] == "1"
    assert rows["largest cosine"][0][:2] == ("−0.333333333", "−0.333333333")
    assert rows["mean of row maxima"] == [("−0.333333333", "−0.333333333", "simplex")]
    assert rows["one-vs-rest distance"][0][1:] == ("1.333333333", "bound by the simplex ETF")


def test_no_minus_before_a_zero() -> None:
    rows = table(certify(orthoplex(6, 3).vectors))
    assert rows["largest cosine"][0][:2] == ("0.000000000", "0.000000000")


def test_what_was_skipped_is_a_note_and_no_row() -> None:
    certificate = certify(polygon(5).vectors, one_vs_rest=False)
    assert "one-vs-rest distance" not in table(certificate)
    document = certificate.document()
    assert document.notes == certificate.skipped == ("The one-vs-rest distance was skipped on request.",)
    assert "Note" not in document.to("terminal") and "The one-vs-rest distance was skipped" in document.to("terminal")


@pytest.mark.parametrize(
    ("vectors", "word", "tone"),
    [
        (code("icosahedron").vectors, "OPTIMAL", "good"),
        (hypercube(12, 6).vectors, "NOT OPTIMAL", "bad"),
        (code("24-cell", dim=5).vectors[:5].repeat(2, 1), "VECTORS COINCIDE", "bad"),
    ],
)
@pytest.mark.parametrize("renderer", ["terminal", "page", "markdown"])
def test_the_verdict(vectors: torch.Tensor, word: str, tone: str, renderer: str) -> None:
    certificate = certify(vectors, one_vs_rest=False)
    verdict = certificate.verdict
    assert (verdict.word, verdict.tone, verdict.sentence) == (word, tone, certificate.reason)
    assert word in certificate.document().to(renderer)
    text = " ".join(repr(certificate).split())
    assert text.startswith(f"{len(vectors):,} vectors in {vectors.shape[1]} dimensions · largest cosine ")
    for number in (f"{certificate.max_cosine:.9f}", f"{certificate.bound.value:.9f}", f"{certificate.min_angle:.6f}°"):
        assert number in text
    assert f"° {word} " in text


@pytest.mark.parametrize("width", [80, 120])
def test_both_tables_of_vectors_with_a_common_direction_are_tables(width: int) -> None:
    vectors = torch.randn(10, 6, generator=torch.Generator().manual_seed(0)) + 1.5
    certificate = certify(vectors)
    assert certificate.word == "COMMON DIRECTION" and certificate.centred is not None
    lines = render(certificate.document(), width=width).splitlines()
    assert max(map(cell_len, lines)) <= width
    for each in (certificate, certificate.centred):
        cells = f"{each.max_cosine:.9f}", f"{each.bound.value:.9f}", f"{each.bound.name} bound"
        (line,) = [line for line in lines if line.startswith("largest cosine") and cells[0] in line]
        assert line.split() == " ".join(("largest cosine", *cells)).split()
    assert sum(line.split() == ["quantity", "value", "reference", "name"] for line in lines) == 2
    assert sum(line.startswith("one-vs-rest distance ") for line in lines) == 1  # no name is folded


def test_fields_by_name() -> None:
    certificate = certify(code("petersen").vectors)
    assert dict(certificate) == {each.name: getattr(certificate, each.name) for each in fields(certificate)}
    assert certificate["max_cosine"] == certificate.max_cosine
    with pytest.raises(KeyError, match="no field 'max_cosin'; did you mean 'max_cosine'"):
        certificate["max_cosin"]
    with pytest.raises(KeyError, match="no field 'xyz'; there are: num_vectors, dim, "):
        certificate["xyz"]


@pytest.mark.parametrize(("form", "renderer"), [("html", "page"), ("markdown", "markdown")])
def test_files_hold_the_text_returned(form: str, renderer: str, tmp_path: Path) -> None:
    certificate = certify(polygon(5).vectors)
    text = getattr(certificate, f"to_{form}")(tmp_path / "file")
    assert (tmp_path / "file").read_bytes().decode("utf-8") == text == getattr(certificate, f"to_{form}")()
    assert text == certificate.document().to(renderer)


@pytest.mark.parametrize("vectors", [polygon(5).vectors, code("petersen").vectors])
def test_json_holds_the_verdict_and_every_field(vectors: torch.Tensor, tmp_path: Path) -> None:
    certificate = certify(vectors)
    text = certificate.to_json(tmp_path / "certificate.json")
    assert (tmp_path / "certificate.json").read_text(encoding="utf-8") == text
    data = json.loads(text)
    assert list(data) == ["verdict", *certificate.keys()]
    assert data["verdict"]["word"] == certificate.verdict.word
    assert data["bound"]["value"] == certificate.bound.value
    assert data["max_cosine"] == certificate.max_cosine and data["skipped"] == list(certificate.skipped)


def test_lengths_and_nearest_pairs() -> None:
    angles = torch.tensor([0.0, 10.0, 35.0, 90.0]).double().deg2rad()
    scale = torch.tensor([1.0, 2.0, 3.0, 0.5]).double()
    lengths, pairs = pair_sections(scale[:, None] * torch.stack([angles.cos(), angles.sin()], dim=1))
    assert lengths.table is not None and pairs.table is not None
    assert lengths.table.rows == (("0", "1"), ("1", "2"), ("2", "3"), ("3", "0.5"))
    expected = [(0, 1, 10), (1, 2, 25), (0, 2, 35), (2, 3, 55), (1, 3, 80), (0, 3, 90)]
    assert pairs.table.rows == tuple(
        (f"{i} {j}", f"{math.cos(math.radians(angle)) + 0.0:.9f}", f"{angle:.6f}°") for i, j, angle in expected
    )
    assert lengths.sentences == pairs.sentences == ()


def test_of_many_forty_and_the_rest_is_counted() -> None:
    lengths, pairs = pair_sections(polygon(50).vectors)
    assert lengths.table is not None and pairs.table is not None
    assert (len(lengths.table.rows), len(pairs.table.rows)) == (40, 40)
    assert lengths.sentences == ("10 more vectors.",)
    assert pairs.sentences == ("1,185 more pairs, with larger angles.",)  # 50 * 49 / 2 - 40
    assert {row[2] for row in pairs.table.rows} == {"7.200000°"}


def test_the_nearest_pairs_are_those_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where cosines are held a few rows at a time."""
    vectors = torch.randn(60, 4, generator=torch.Generator().manual_seed(0)).double()
    unit = vectors / vectors.norm(dim=1, keepdim=True)
    cosines = {(i, j): float(unit[i] @ unit[j]) for i in range(60) for j in range(i + 1, 60)}
    expected = sorted(cosines, key=lambda pair: -cosines[pair])[:25]
    for tile in (1 << 22, 100):
        monkeypatch.setattr("tightframe.codes.pairs._TILE", tile)
        pairs, found = nearest_pairs(vectors, 25)
        assert [tuple(pair) for pair in pairs.tolist()] == expected
        wanted = [math.degrees(math.acos(cosines[pair])) for pair in expected]
        assert found.tolist() == pytest.approx(wanted, abs=1e-6)
