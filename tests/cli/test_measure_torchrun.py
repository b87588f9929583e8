"""`torchrun -m tightframe.cli measure`: processes that read a part each give one process's report."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tightframe.cli.app import app

MEASURE = ("measure", "f.npz", "--weight", "w.npz", "--test", "t.npz", "--ood", "o.npy", "--json")


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_processes_give_the_report_of_one(processes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 4, 9000)
    features = 3 * draw.normal(size=(4, 6))[labels] + draw.normal(size=(9000, 6))
    np.savez("f.npz", features=features, labels=labels)
    np.savez("t.npz", features=features[:4100], labels=labels[:4100])  # parts for two of three processes
    np.savez("w.npz", weight=draw.normal(size=(4, 6)), bias=draw.normal(size=4))
    np.save("o.npy", draw.normal(size=(50, 6)))  # a part for one
    assert CliRunner().invoke(app, [*MEASURE, "one.json"]).exit_code == 0
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    done = subprocess.run(
        [*launcher, "tightframe.cli", *MEASURE, "all.json"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    assert done.stdout.count("wrote all.json") == 1  # one process speaks
    one, every = (json.loads(Path(name).read_text()) for name in ("one.json", "all.json"))
    for report in (one, every):  # each process deals its own samples to groups
        assert len(report["class_errors"]["variance"]) == 4
    assert every["facts"].pop("processes") == processes
    assert one["facts"] == every["facts"] and one["facts"]["samples"] == 9000
    assert one["context"] == every["context"]
    for mine, theirs in zip(one["entries"], every["entries"], strict=True):
        assert mine["name"] == theirs["name"]
        assert float(mine["value"]) == pytest.approx(float(theirs["value"]), rel=1e-9, abs=1e-13, nan_ok=True)


MODEL = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 5, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
"""


@pytest.mark.slow
def test_processes_run_a_model_on_their_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    draw = np.random.default_rng(0)
    (tmp_path / "network.py").write_text(MODEL)
    for place, name in enumerate("abc"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(9):  # 27 images: a sampler repeats one
            pixels = draw.integers(0, 90, (20, 20, 3)) + 80 * place
            Image.fromarray(pixels.astype(np.uint8)).save(f"images/{name}/{number}.png")
    command = ["--model", "network:build", "--images", "images", "--image-size", "20", "--device", "cpu"]
    one = CliRunner().invoke(app, ["measure", *command, "--json", "one.json"])
    assert one.exit_code == 0, one.output
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for arguments in (["extract", *command, "--out", "shards"], ["measure", "shards", "--json", "all.json"]):
        subprocess.run(
            [*launcher, "tightframe.cli", *arguments], env=environment, capture_output=True, timeout=240, check=True
        )
    reports = [json.loads(Path(name).read_text()) for name in ("one.json", "all.json")]
    assert reports[0]["facts"]["samples"] == reports[1]["facts"]["samples"] == 27
    for mine, theirs in zip(*(report["entries"] for report in reports), strict=True):
        assert mine["name"] == theirs["name"]
        assert float(mine["value"]) == pytest.approx(float(theirs["value"]), rel=1e-5, abs=1e-7, nan_ok=True)
