"""The command line as a user meets it, in this process: arguments in, exit status and both streams out."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tightframe.cli import main


@dataclass(frozen=True)
class Outcome:
    """What a command left; `plain` and `complaint` are its streams with every run of white space as one space."""

    status: int
    out: str
    err: str

    @property
    def plain(self) -> str:
        return " ".join(self.out.split())

    @property
    def complaint(self) -> str:
        return " ".join(self.err.split())


Command = Callable[..., Outcome]


@pytest.fixture
def tightframe(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `tightframe ARGUMENTS...`; a terminal 200 columns wide, so that nothing has to be wrapped."""

    def run(*arguments: str | Path, width: int = 200) -> Outcome:
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setattr(sys, "argv", ["tightframe", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        streams = capsys.readouterr()
        return Outcome(int(ended.value.code or 0), streams.out, streams.err)

    return run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, so that names of files are short."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@dataclass(frozen=True)
class Arrays:
    """Features, labels and a classifier; other samples of both kinds."""

    features: np.ndarray
    labels: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    test_features: np.ndarray
    test_labels: np.ndarray
    outside: np.ndarray


@pytest.fixture
def arrays() -> Arrays:
    """60 samples of 4 classes in 6 dimensions, float32."""
    rng = np.random.default_rng(0)
    means = 2 * rng.normal(size=(4, 6))

    def draw(rows: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(rows) % 4
        return (means[labels] + rng.normal(size=(rows, 6))).astype(np.float32), labels

    features, labels = draw(60)
    test_features, test_labels = draw(30)
    weight, bias = (means + 0.3 * rng.normal(size=(4, 6))).astype(np.float32), rng.normal(size=4).astype(np.float32)
    outside = rng.normal(size=(17, 6)).astype(np.float32)
    return Arrays(features, labels, weight, bias, test_features, test_labels, outside)
