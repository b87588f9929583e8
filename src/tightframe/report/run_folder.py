"""`RunFolder`: what a run leaves on disk, shared by the demo, the monitor and the report commands.

run.json                    what ran: versions, arguments, seed, data
series.jsonl                one line a measurement, `Report.to_dict()`
statistics/NNNNNN.safetensors   the statistics of each measurement, in the same order
model.safetensors           the trained weights
report.html                 the page
"""

from __future__ import annotations

import json
import os
import platform
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tightframe.errors import StateError
from tightframe.hooks import bare_model, clean_name
from tightframe.metrics import Evidence
from tightframe.report.report import Report
from tightframe.statistics import ClassStatistics
from tightframe.version import __version__

_HALF_SAVED = ".tmp??????"  # safetensors writes to such a file first


class RunFolder:
    """A folder that holds one run; files are written whole, the series line by line, so a killed run leaves a folder
    that can be read and gone on with.

    Args:
        path: the folder; made by `create`.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)

    @classmethod
    def create(cls, path: str | os.PathLike[str], description: dict[str, Any]) -> RunFolder:
        """Start a run: makes the folder, empties an older run's series in it, writes run.json.

        `description` says what runs (arguments, seed, data); versions are added.
        """
        folder = cls(path)
        (folder.path / "statistics").mkdir(parents=True, exist_ok=True)
        (folder.path / "run.json").unlink(missing_ok=True)  # first: from here to the end a crash leaves no run
        folder.series_path.write_text("", encoding="utf-8")
        for old in (*folder.path.glob("statistics/*.safetensors"), folder._model_path, folder.report_path):
            old.unlink(missing_ok=True)
        folder._sweep()
        versions = {
            "tightframe": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        }
        text = json.dumps({**description, "versions": versions}, indent=1, default=str)
        _replace(folder.path / "run.json", lambda path: path.write_text(text, encoding="utf-8"))
        return folder

    @classmethod
    def resume(cls, path: str | os.PathLike[str], description: dict[str, Any]) -> RunFolder:
        """Go on with the run in a folder, or start one where there is none."""
        folder = cls(path)
        if not (folder.path / "run.json").exists():
            return cls.create(path, description)
        folder._sweep()
        return folder

    def _sweep(self) -> None:
        """Remove what saves that were killed left behind."""
        for left in self.path.rglob(_HALF_SAVED):
            left.unlink()

    @property
    def series_path(self) -> Path:
        """The file of measurements."""
        return self.path / "series.jsonl"

    @property
    def report_path(self) -> Path:
        """The file of the HTML page."""
        return self.path / "report.html"

    def append(self, report: Report) -> None:
        """Add a measurement, its statistics first: every line of the series has its file."""
        written = self.series_path.read_bytes() if self.series_path.exists() else b""
        number = written.count(b"\n")
        path = self._statistics_path(number)
        path.unlink(missing_ok=True)  # of a measurement whose line was lost
        if report.evidence is not None and report.evidence.statistics is not None:
            path.parent.mkdir(exist_ok=True)
            report.evidence.statistics.save(path)
        with self.series_path.open("ab") as file:
            file.truncate(written.rfind(b"\n") + 1)  # what a crash left of a line
            file.write(_line(report).encode())

    def replace_series(self, reports: Sequence[Report]) -> None:
        """Make these the measurements, of which the first keep their statistics: after a run was taken back."""
        lines = "".join(_line(report) for report in reports)
        _replace(self.series_path, lambda path: path.write_text(lines, encoding="utf-8"))
        for old in self.path.glob("statistics/*.safetensors"):
            if old.name >= self._statistics_path(len(reports)).name:
                old.unlink()

    def save_model(self, model: nn.Module) -> None:
        """Write the weights of the model that was measured last; tied weights are written once each."""
        tensors = bare_model(model).state_dict()
        state = {clean_name(name): tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        measured = {"measurement": self._last_measurement()}
        _replace(self._model_path, lambda path: save_file(state, path, metadata=measured))

    def load_weights(self) -> dict[str, Tensor]:
        """The weights that `save_model` wrote."""
        return load_file(self._model_path)

    @property
    def description(self) -> dict[str, Any]:
        """What run.json says. Raises StateError if this is no run folder."""
        try:
            return dict(json.loads((self.path / "run.json").read_text(encoding="utf-8")))
        except (OSError, json.JSONDecodeError) as error:
            raise StateError(f"{self.path} is not a run folder: {error}") from None

    def series(self) -> list[Report]:
        """All measurements; a last line cut short by a crash is left out."""
        _ = self.description
        reports = []
        written = self.series_path.read_bytes() if self.series_path.exists() else b""
        for line in written.split(b"\n")[:-1]:
            try:
                reports.append(Report.from_dict(json.loads(line)))
            except (ValueError, KeyError, TypeError) as error:
                raise StateError(f"{self.series_path} is damaged in line {len(reports) + 1}: {error!r}") from None
        return reports

    def report(self) -> Report:
        """The last measurement, with its statistics and the earlier ones as its history.

        Raises: StateError if nothing was measured.
        """
        series = self.series()
        if not series:
            raise StateError(f"{self.path} holds no measurement.")
        last = series[-1]
        path = self._statistics_path(len(series) - 1)
        evidence = None
        if path.exists():
            evidence = Evidence(ClassStatistics.load(path), *self._classifier(last.context.get("classifier")))
        return replace(last, evidence=evidence, history=tuple(series[:-1]))

    def write_html(self, report: Report | None = None) -> Path:
        """Write report.html and return its path."""
        page = (report or self.report()).to_html()
        _replace(self.report_path, lambda path: path.write_text(page, encoding="utf-8"))
        return self.report_path

    @property
    def _model_path(self) -> Path:
        return self.path / "model.safetensors"

    def _classifier(self, name: str | None) -> tuple[Tensor | None, Tensor | None]:
        """The measured classifier's rows and bias, if the run has saved its model since."""
        if name is None or not self._model_path.exists():
            return None, None
        with safe_open(self._model_path, framework="pt") as file:
            if (file.metadata() or {}).get("measurement") != self._last_measurement():
                return None, None
        state, prefix = self.load_weights(), f"{name}." if name else ""
        weight, bias = state.get(f"{prefix}weight"), state.get(f"{prefix}bias")
        if weight is None:
            return None, None
        return weight.flatten(1).to(torch.float64), None if bias is None else bias.to(torch.float64)

    def _last_measurement(self) -> str:
        """What tells the last line of the series from others."""
        lines = self.series_path.read_bytes().split(b"\n") if self.series_path.exists() else []
        return str(zlib.crc32(lines[-2])) if len(lines) > 1 else ""

    def _statistics_path(self, number: int) -> Path:
        return self.path / "statistics" / f"{number:06d}.safetensors"


def _line(report: Report) -> str:
    return json.dumps(report.to_dict(), ensure_ascii=False, allow_nan=False) + "\n"


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that a crash leaves the old one or the new one."""
    temporary = path.with_suffix(path.suffix + ".new")
    write(temporary)
    temporary.replace(path)
