"""`tightframe rank`: files, run folders and models in, a table with ties out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cli.conftest import Command
from tightframe import measure
from tightframe.report import RunFolder


def write(path: Path, gap: float) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(240) % 4
    means, noise = rng.normal(size=(4, 6)), rng.normal(size=(240, 6))
    np.savez(path, features=gap * means[labels] + noise, labels=labels)


@pytest.fixture
def files(here: Path) -> Path:
    write(here / "near.npz", 0.4)
    write(here / "far.npz", 1.5)
    return here


def test_files_in_order(tightframe: Command, files: Path) -> None:
    done = tightframe("rank", "near.npz", "far.npz", "--shots", "5", "--json", "order.json")
    assert done.status == 0, done.err
    assert "far is the best by 5-shot accuracy." in done.plain
    data = json.loads((files / "order.json").read_text())
    assert [row["name"] for row in data["rows"]] == ["far", "near"]
    assert list(data["rows"][0]["scores"]) == ["5-shot", "log_me", "h_score"]


def test_standard_output_has_only_the_file(tightframe: Command, files: Path) -> None:
    done = tightframe("rank", "near.npz", "far.npz", "--shots", "1", "--by", "log_me", "--csv", "-")
    assert done.status == 0, done.err
    assert done.out.splitlines()[0].startswith("name,D,samples,classes,1-shot,")
    assert [line.split(",")[0] for line in done.out.splitlines()[1:]] == ["far", "near"]


def test_run_folders(tightframe: Command, files: Path) -> None:
    for name, gap in (("one", 0.5), ("two", 2.0)):
        write(files / f"{name}.npz", gap)
        arrays = np.load(files / f"{name}.npz")
        report = measure(torch.from_numpy(arrays["features"]), torch.from_numpy(arrays["labels"]), progress=False)
        RunFolder.create(files / name, {"command": "test"}).append(report)
    done = tightframe("rank", "one", "two", "far.npz", "--shots", "5")
    assert done.status == 0, done.err
    assert "two" in done.plain and "cannot be told apart" in done.plain  # run folders have no sample folds


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("near.npz",), "a ranking needs at least two encoders or layers; got one file"),
        (("near.npz", "near.npz"), "near.npz is given twice; name each subject once"),
        (("near.npz", "far.npz", "--by", "nonsense"), "--by must be one of 1-shot, 5-shot, 20-shot, log_me, h_score"),
        (("near.npz", "far.npz", "--shots", "0"), "--shots must be whole numbers of at least 1; got 0"),
        (("near.npz", "far.npz", "--data", "digits"), "--data needs a model: timm:NAME, hf:FOLDER or module:function"),
        (("near.npz", "timm:resnet18"), "the model timm:resnet18 needs --images or --data"),
        (("near.npz", "absent.npz"), "absent.npz"),
        (("near.npz", "nan.npz"), "error: nan.npz: features must be finite"),
        (("near.npz", "./one.npz"), "error: one.npz: at least two classes must have samples; 1 of 1 has"),
        (("near.npz", "short.npz"), "error: short.npz: the features have the shape (3, 2), but labels have (2,)"),
        (("near.npz", "./bare.npz"), "error: bare.npz has no labels"),
    ],
)
def test_wrong_uses_are_told(tightframe: Command, files: Path, arguments: tuple[str, ...], complaint: str) -> None:
    np.savez(files / "nan.npz", features=np.full((4, 2), np.nan), labels=[0, 0, 1, 1])
    np.savez(files / "one.npz", features=np.eye(3, 2), labels=[0, 0, 0])
    np.savez(files / "short.npz", features=np.eye(3, 2), labels=[0, 1])
    np.savez(files / "bare.npz", features=np.eye(3, 2))
    done = tightframe("rank", *arguments)
    assert done.status == 2
    assert complaint in done.complaint


NETWORKS = """
import torch
from torch import nn

def network(width):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 7))

def narrow():
    return network(2)

def wide():
    return network(48)
"""


@pytest.mark.slow
def test_models_on_a_data_set(tightframe: Command, here: Path) -> None:
    """Their classifiers, of other classes than the data, are taken out."""
    pytest.importorskip("sklearn")
    (here / "networks_to_rank.py").write_text(NETWORKS)
    models = ("networks_to_rank:narrow", "networks_to_rank:wide")
    done = tightframe("rank", *models, "--data", "digits", "--shots", "5", "--no-progress", "--json", "order.json")
    assert done.status == 0, done.err
    data = json.loads((here / "order.json").read_text())
    assert [(row["name"], row["dimension"], row["samples"]) for row in data["rows"]] == [
        ("networks_to_rank:wide", 48, 1400),
        ("networks_to_rank:narrow", 2, 1400),
    ]
    assert data["not_told_apart"] == []


def test_checkpoints_of_one_model(tightframe: Command, here: Path) -> None:
    """MODEL=FILE; also names of files with an = of their own. The second has a single useful feature."""
    pytest.importorskip("sklearn")
    (here / "checkpoints_to_rank.py").write_text(NETWORKS)
    namespace: dict[str, Any] = {}
    exec(NETWORKS, namespace)
    model = namespace["wide"]()
    torch.save(model.state_dict(), here / "epoch=9.pt")
    with torch.no_grad():
        model[1].weight[1:] = 0
        model[1].bias[1:] = 0
    torch.save(model.state_dict(), here / "one.pt")
    models = [f"checkpoints_to_rank:wide={name}" for name in ("one.pt", "epoch=9.pt")]
    options = ("--data", "digits", "--shots", "5", "--folds", "0", "--no-progress", "--json", "order.json")
    done = tightframe("rank", *models, *options)
    assert done.status == 0, done.err
    rows = json.loads((here / "order.json").read_text())["rows"]
    assert [row["name"] for row in rows] == models[::-1]
    low, high = (row["scores"]["5-shot"]["value"] for row in rows[::-1])
    assert low < 0.3 < 0.7 < high
    done = tightframe("rank", "checkpoints_to_rank:wide=absent.pt", models[0], *options)
    assert done.status == 2 and "absent.pt" in done.complaint
