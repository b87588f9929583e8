"""A full disk: the result is shown, and nothing half-written is left; what took time to compute is saved elsewhere."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cli.conftest import Arrays, Command
from tightframe import Prototypes
from tightframe.report import RunFolder


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 40 KiB; skips where none can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", folder], capture_output=True)
    except OSError:
        pytest.skip("no mount command")
    if mounted.returncode:
        pytest.skip("mounting needs a privilege")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_report_is_printed_and_not_half_written(tightframe: Command, disk: Path, here: Path, arrays: Arrays) -> None:
    np.savez("a.npz", features=arrays.features, labels=arrays.labels)
    outcome = tightframe("measure", "a.npz", "--html", disk / "a.html")
    assert outcome.status == 2
    assert "NC1" in outcome.plain
    assert "a.html: No space left on device. What is printed above is complete; write" in outcome.complaint
    assert len(outcome.err.splitlines()) == 1
    assert list(disk.iterdir()) == []


def test_vectors_are_saved_elsewhere(tightframe: Command, disk: Path, here: Path) -> None:
    command = ("prototypes", "-k", "300", "-d", "60", "--objective", "separated", "--time", "1", "--no-one-vs-rest")
    outcome = tightframe(*command, "--out", disk / "p.safetensors")
    assert outcome.status == 0
    assert "could not write" in outcome.complaint
    written = Path(outcome.plain.partition("wrote ")[2].split()[0])
    assert Prototypes.load(written).vectors.shape == (300, 60)
    assert list(disk.iterdir()) == []


@pytest.mark.filterwarnings("default")
def test_a_run_is_saved_elsewhere(tightframe: Command, disk: Path, here: Path) -> None:
    outcome = tightframe("demo", "--epochs", "1", "--measurements", "2", "--out", disk / "run")
    assert outcome.status == 0
    assert "NC1" in outcome.plain
    assert "No space left on device" in outcome.complaint
    written = Path(outcome.plain.partition("page ")[2].split()[0]).parent
    assert disk not in written.parents
    assert RunFolder(written).report().value("nc1") > 0
    assert (written / "report.html").exists()
