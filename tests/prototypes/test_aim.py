"""The verdict on constructions with another aim than the smallest angle."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from tightframe import ClassStatistics
from tightframe import prototypes as made
from tightframe.codes import certify
from tightframe.hierarchy import Hierarchy
from tightframe.prototypes import PROTOTYPES, Aim, Prototypes, construction
from tightframe.prototypes.distortions import scale_free_distortion, squared_scale_free_distortion

TREE = Hierarchy.from_nested({"all": {"pet": ["cat", "dog", "rat"], "tool": ["saw", "awl"], "cup": ["mug"]}})
COSTS = TREE.distances()
MEASURED = ClassStatistics.from_features(torch.eye(6, 8).repeat(2, 1), torch.arange(6).repeat(2), 6)
INPUTS: dict[str, tuple[Any, ...]] = {
    "hierarchical": (TREE, 2),
    "metric-guided": (TREE, 2),
    "semantic": (-COSTS, 3),
    "gram-matching": (6, 3),
    "hyperspherical": (7, 3),
    "softmax-code": (7, 3),
    "equiangular": (7, 3),
    "poles": (2, 3),
    "orthonormal": (4, 5),
    "class-means": (MEASURED,),
}
SEPARATING = {"best", "simplex", "orthoplex", "hypercube", "polygon", "code", "separated", "nearest-etf", "guided"}


def built(name: str) -> Prototypes:
    row = PROTOTYPES[name]
    return row.build(*INPUTS[name], **({"rounds": 1} if row.searches else {}))


def test_every_construction_separates_or_has_an_aim() -> None:
    assert set(INPUTS) | SEPARATING == set(PROTOTYPES)


@pytest.mark.parametrize("name", INPUTS)
def test_the_aim_comes_first_and_separation_is_a_remark(name: str) -> None:
    vectors = built(name)
    plain, judged = certify(vectors.vectors), vectors.certificate
    aim = Aim(**vectors.provenance["aim"])
    assert judged.word == f"MADE FOR {aim.noun.upper()}"
    assert judged.reason.startswith(f"Made for {aim.goal}")
    assert judged.reason.endswith(f"as a spherical code: {plain.word}. {plain.reason}")
    assert (judged.optimal, judged.max_cosine, judged.bound) == (plain.optimal, plain.max_cosine, plain.bound)
    assert judged.word in repr(judged)
    if aim.measure:
        assert f": {aim.caption} {vectors.provenance[aim.measure]:.3g}" in judged.reason


@pytest.mark.parametrize("name", ["simplex", "orthoplex", "hypercube"])
def test_separating_constructions_are_judged_by_their_angles(name: str) -> None:
    vectors = PROTOTYPES[name].build(5, 6)
    assert "aim" not in vectors.provenance and vectors.certificate.word == certify(vectors.vectors).word


def test_the_distortions_of_metric_guided() -> None:
    for objective, words, measure in (
        ("squared", "squared distortion", squared_scale_free_distortion),
        ("absolute", "absolute distortion", scale_free_distortion),
    ):
        vectors = made.metric_guided(TREE, 2, objective=objective, starts=2)
        value = float(measure(vectors.vectors, COSTS))
        assert f": {words} {value:.3g} (0 is exact)." in vectors.certificate.reason
        assert vectors.certificate.tone == "unknown"
    ranked = made.metric_guided(TREE, 2, objective="rank", starts=2).certificate.reason
    assert "in the order of the costs: rank loss" in ranked and "is exact" not in ranked
    apart = made.metric_guided(TREE, 2, spherical=True, separation=0.1, starts=2).certificate.reason
    assert "squared distortion with the separation term" in apart and "is exact" not in apart


def test_an_aim_that_is_met_is_good() -> None:
    certificate = made.hierarchical(TREE).certificate
    assert certificate.tone == "good" and "(0 is exact)" in certificate.reason
    assert made.hierarchical(TREE, 2).certificate.tone == "unknown"


def test_a_part_has_no_measure_and_scaled_vectors_have_that_before() -> None:
    vectors = made.hierarchical(TREE, 2)
    part = vectors[:4].certificate
    assert part.reason.startswith("Made for cosines that fall with the costs. Separation")
    residual = vectors.provenance["residual"]
    assert f"matrix {residual:.3g} before scaling (0 is exact)" in vectors.scaled(3.0).certificate.reason


def test_files_keep_the_aim(tmp_path: Path) -> None:
    vectors = made.hierarchical(TREE, 2)
    vectors.save(tmp_path / "p.safetensors")
    assert Prototypes.load(tmp_path / "p.safetensors").certificate.reason == vectors.certificate.reason


def test_files_without_an_aim_are_judged_by_their_angles(tmp_path: Path) -> None:
    vectors = made.hierarchical(TREE, 2)
    without = {name: value for name, value in vectors.provenance.items() if name != "aim"}
    Prototypes(vectors.vectors, without).save(tmp_path / "p.safetensors")
    loaded = Prototypes.load(tmp_path / "p.safetensors")
    assert dict(loaded.provenance) == without
    assert loaded.certificate == certify(vectors.vectors)


@pytest.mark.parametrize("aim", [3, {}, {"noun": "x"}, {"noun": "x", "goal": "y", "measure": []}, {"other": 1}])
def test_a_damaged_aim_is_ignored(aim: Any) -> None:
    vectors = torch.eye(3)
    assert Prototypes(vectors, {"aim": aim}).certificate.word == certify(vectors).word


@pytest.mark.parametrize("value", [None, "0.1", math.inf])
def test_a_missing_or_wrong_measure_is_left_out(value: Any) -> None:
    aim = asdict(Aim("costs\x1b[2J", "low costs", "residual", "distance", 0))
    certificate = Prototypes(torch.eye(3), {"aim": aim, "residual": value}).certificate
    assert certificate.reason.startswith("Made for low costs. ") and "\x1b" not in certificate.word


def test_own_constructions_declare_their_aim() -> None:
    @construction("my paper", aim=Aim("symmetry", "a symmetric matrix"))
    def symmetric(classes: int) -> torch.Tensor:
        return torch.eye(classes)

    made = symmetric(3)
    assert made.certificate.reason.startswith("Made for a symmetric matrix. Separation")
    assert made[1:].provenance["classes"] == [1, 2]  # those of the selection, not the argument
