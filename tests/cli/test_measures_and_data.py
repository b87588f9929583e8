"""`tightframe measure` on files: measures that the data don't allow, kinds of files, and folders among files."""

import csv
import shlex
from io import StringIO
from pathlib import Path

import numpy as np
import pytest

from cli.conftest import Arrays, Command

USES = {
    "measure ok.npz --metric ood_orthogonality": "--metric ood_orthogonality needs --ood.",
    "measure ok.npz --convention ammar-2024/nc5": "--convention ammar-2024/nc5 needs --ood.",
    "measure ok.npz --metric self_duality_error": "--metric self_duality_error needs --weight.",
    "measure ok.npz --metric classifier_accuracy": "--metric classifier_accuracy needs --weight.",
    "measure ok.npz --convention papyan-2020/nc3": "--convention papyan-2020/nc3 needs --weight.",
    "measure ok.npz --convention papyan-2020/nc4": "--convention papyan-2020/nc4 needs --weight.",
    "measure ok.npz --metric principal_angle": "--metric principal_angle needs --weight.",
    "measure ok.npz --metric directional_cdnv": "--metric directional_cdnv needs --per-class.",
    "measure ok.npz --convention papyan-2020/nc1 --no-covariance": "--convention papyan-2020/nc1 needs --covariance.",
    "measure ok.npz --metric ncc_accuracy --decisions 0": "--metric ncc_accuracy needs --decisions above 0.",
    "measure ok.npz --weight-decay 1e-3": "--weight-decay needs --weight.",
    "measure ok.npz --task regression --metric nc1": "--metric nc1 is a measure of classes; --task regression",
    "measure ok.npz --task regression --convention papyan-2020/nc1": "--convention papyan-2020/nc1 is a measure of",
    "measure one two": "give one folder, or files; got 2, one among them.",
    "measure ok.npz one": "give one folder, or files; got 2, one among them.",
    "measure ok.npz ok.npz": "several files must be .npy, .safetensors or .parquet; got ok.npz. A .npz, .pt or .pth",
    "measure ok.npz --labels y.npy --labels y.npy": "give one file of labels for ok.npz; got 2.",
}


@pytest.fixture
def folder(here: Path, arrays: Arrays) -> Path:
    np.savez(here / "ok.npz", features=arrays.features, labels=arrays.labels)
    np.savez(here / "weight.npz", weight=arrays.weight, bias=arrays.bias)
    np.save(here / "y.npy", arrays.labels)
    for name in ("one", "two"):
        (here / name).mkdir()
    return here


@pytest.mark.parametrize("use", USES)
def test_refused_in_a_line(tightframe: Command, folder: Path, use: str) -> None:
    outcome = tightframe(*shlex.split(use))
    assert outcome.status == 2
    assert len(outcome.err.splitlines()) == 1
    assert USES[use] in outcome.complaint


@pytest.mark.parametrize(
    "flags",
    [
        "--metric ncc_accuracy",  # needs no classifier
        "--metric self_duality_error --weight weight.npz",
        "--convention papyan-2020/nc4 --weight weight.npz",
        "--weight-decay 1e-3 --weight weight.npz",
    ],
)
def test_measures_that_the_data_allow(tightframe: Command, folder: Path, flags: str) -> None:
    outcome = tightframe("measure", "ok.npz", *flags.split())
    assert outcome.status == 0, outcome.err


def test_one_parquet_file(tightframe: Command, here: Path, arrays: Arrays) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {"features": list(arrays.features), "labels": arrays.labels}
    parquet.write_table(pa.table(columns), here / "ok.parquet")
    np.savez(here / "ok.npz", features=arrays.features, labels=arrays.labels)
    values = []
    for file in ("ok.parquet", "ok.npz"):
        outcome = tightframe("measure", file, "--metric", "nc1", "--csv", "-")
        assert outcome.status == 0, outcome.err
        values.append(float(next(csv.DictReader(StringIO(outcome.out)))["value"]))
    assert values[0] == pytest.approx(values[1], rel=1e-5)
