"""`torchrun -m tightframe.cli measure`: processes that read a part each give one process's report."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest


def run(folder: Path, name: str, *launcher: str) -> str:
    command = [
        sys.executable,
        "-m",
        *launcher,
        "measure",
        "f.npz",
        "--weight",
        "w.npz",
        "--test",
        "t.npz",
        "--ood",
        "o.npy",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--json", name], cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout


def test_three_processes_give_the_report_of_one(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 4, 9000)
    features = 3 * draw.normal(size=(4, 6))[labels] + draw.normal(size=(9000, 6))
    np.savez(tmp_path / "f.npz", features=features, labels=labels)
    np.savez(tmp_path / "t.npz", features=features[:4100], labels=labels[:4100])  # parts for two of three processes
    np.savez(tmp_path / "w.npz", weight=draw.normal(size=(4, 6)), bias=draw.normal(size=4))
    np.save(tmp_path / "o.npy", draw.normal(size=(50, 6)))  # a part for one
    run(tmp_path, "one.json", "tightframe.cli")
    printed = run(
        tmp_path, "three.json", "torch.distributed.run", "--standalone", "--nproc-per-node=3", "-m", "tightframe.cli"
    )
    assert printed.count("wrote three.json") == 1  # one process speaks
    one, three = (json.loads((tmp_path / name).read_text()) for name in ("one.json", "three.json"))
    for report in (one, three):  # each process deals its own samples to groups
        assert len(report["context"].pop("class_errors")["variance"]) == 4
    assert one["context"] == three["context"] and one["context"]["samples"] == 9000
    for mine, theirs in zip(one["entries"], three["entries"], strict=True):
        assert mine["name"] == theirs["name"]
        assert float(mine["value"]) == pytest.approx(float(theirs["value"]), rel=1e-9, abs=1e-13, nan_ok=True)
