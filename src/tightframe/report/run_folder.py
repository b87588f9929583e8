"""`RunFolder`: what a run leaves on disk, shared by the demo, the monitor and the report commands.

run.json                    what ran: versions, arguments, seed, data
series.jsonl                one line a measurement, `Report.to_dict()`
statistics/NNNNNN.safetensors   the statistics of each measurement, in the same order
model.safetensors           the trained weights
report.html                 the page
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import zlib
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tightframe.errors import StateError
from tightframe.evidence import Evidence
from tightframe.hooks import bare_model, clean_name
from tightframe.plain import json_text
from tightframe.report.facts import Facts
from tightframe.report.findings import Findings
from tightframe.report.report import Report
from tightframe.statistics import ClassStatistics
from tightframe.version import __version__

_HALF_SAVED = ".tmp" + 6 * "[0-9A-Za-z]"  # safetensors writes to such a file first
_DAMAGED = (ValueError, KeyError, TypeError, AttributeError)  # what a line that isn't a report's raises
_MEASUREMENT = "measurement"  # in the metadata of weights that a run folder wrote


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
        """Start a run: makes the folder, removes an older run from it, writes run.json. Files that no run wrote stay,
        among them a model.safetensors of the user's, and a report.html where there was no run.

        `description` says what runs (arguments, seed, data); versions are added. What JSON lacks becomes text, but for
        dataclasses and what argparse parsed, which become objects.

        Raises: TypeError or ValueError for a description that isn't JSON even so, before anything is changed.
        """
        folder = cls(path)
        versions = {
            "tightframe": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        }
        text = json.dumps({**description, "versions": versions}, indent=1, default=_as_json)
        (folder.path / "statistics").mkdir(parents=True, exist_ok=True)
        if folder._description_path.exists():  # first: from here to the end a crash leaves no run
            folder._description_path.replace(folder._replaced_path)
        was_run = folder._replaced_path.exists() or folder._holds_measurements()
        folder.series_path.write_text("", encoding="utf-8")
        if was_run:
            for old in (*folder._statistics().values(), folder.report_path):
                old.unlink(missing_ok=True)
            folder._sweep()
        if folder._weights_of() is not None:
            folder._model_path.unlink()
        _replace(folder._description_path, lambda path: path.write_text(text, encoding="utf-8"))
        folder._replaced_path.unlink(missing_ok=True)
        return folder

    @classmethod
    def resume(cls, path: str | os.PathLike[str], description: dict[str, Any]) -> RunFolder:
        """Go on with the run in a folder, or start one where there is none.

        Raises: StateError where there are measurements, but run.json is lost; as `create`.
        """
        folder = cls(path)
        if folder._description_path.exists():
            folder._replaced_path.unlink(missing_ok=True)
            folder._sweep()
            return folder
        if folder._holds_measurements() and not folder._replaced_path.exists():
            raise StateError(
                f"{folder.path} holds measurements, but its run.json is lost. Put it back, or write {{}} into it, to "
                "go on with them; start without resume to remove them."
            )
        return cls.create(path, description)

    def _sweep(self) -> None:
        """Remove what saves that were killed left behind."""
        for folder in (self.path, self.path / "statistics"):
            for left in folder.glob(_HALF_SAVED):
                if left.is_file():
                    left.unlink()

    def _holds_measurements(self) -> bool:
        return self.series_path.exists() and self.series_path.stat().st_size > 0

    def _weights_of(self) -> str | None:
        """The measurement whose weights `save_model` wrote; None where there are none, or something else's."""
        try:
            with safe_open(self._model_path, framework="pt") as file:
                return (file.metadata() or {}).get(_MEASUREMENT)
        except (OSError, SafetensorError):
            return None

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
        """Make these the measurements, after a run was taken back. Those that were there already keep their lines and
        statistics, up to the first that is another one."""
        kept = self._shared_lines(reports)
        lines = [*kept, *(_line(report) for report in reports[len(kept) :])]
        statistics = self._statistics()
        # no crash may leave statistics beside another's line: what lines replace goes before them, the rest after
        for number in statistics.keys() & set(range(len(kept), len(lines))):
            statistics[number].unlink()
        _replace(self.series_path, lambda path: path.write_text("".join(lines), encoding="utf-8"))
        for number in statistics.keys() - set(range(len(lines))):
            statistics[number].unlink()

    def save_model(self, model: nn.Module) -> None:
        """Write the weights of the model that was measured last; tied weights are written once each.

        Raises: StateError where the folder has a model.safetensors that something else wrote.
        """
        if self._model_path.exists() and self._weights_of() is None:
            raise StateError(f"{self._model_path} was not written by a run folder; move it, or take another folder.")
        state = {
            clean_name(name): value.detach().cpu().contiguous().clone()
            for name, value in bare_model(model).state_dict().items()
            if isinstance(value, Tensor)  # extra state can be anything
        }
        measured = {_MEASUREMENT: self._last_measurement()}
        _replace(self._model_path, lambda path: save_file(state, path, metadata=measured))

    def load_weights(self) -> dict[str, Tensor]:
        """The weights that `save_model` wrote. Raises StateError if they are damaged."""
        try:
            return load_file(self._model_path)
        except SafetensorError as error:
            raise StateError(f"{self._model_path} is not a safetensors file: {error}") from None

    @property
    def description(self) -> dict[str, Any]:
        """What run.json says. Raises StateError if this is no run folder."""
        try:
            found = json.loads(self._description_path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StateError(f"{self.path} is not a run folder: {error}") from None
        if not isinstance(found, dict):
            raise StateError(f"{self.path} is not a run folder: its run.json holds no object, but {found!r:.40}.")
        return found

    def series(self) -> list[Report]:
        """All measurements; a last line cut short by a crash is left out."""
        _ = self.description
        reports: list[Report] = []
        for line in self._lines():
            try:
                reports.append(_parsed(line))
            except _DAMAGED as error:
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
            evidence = Evidence(ClassStatistics.load(path), *self._classifier(last.facts.classifier))
        return replace(last, evidence=evidence, history=tuple(series[:-1]), run=self.description)

    def write_html(self, report: Report | None = None) -> Path:
        """Write report.html and return its path."""
        page = (report or self.report()).to_html()
        _replace(self.report_path, lambda path: path.write_text(page, encoding="utf-8"))
        return self.report_path

    @property
    def _description_path(self) -> Path:
        return self.path / "run.json"

    @property
    def _replaced_path(self) -> Path:
        """Where run.json is while a run takes the place of an older one: it says that what else is there is a run's."""
        return self.path / "run.json.replaced"

    @property
    def _model_path(self) -> Path:
        return self.path / "model.safetensors"

    def _classifier(self, name: str | None) -> tuple[Tensor | None, Tensor | None]:
        """The measured classifier's rows and bias, if the run has saved its model since, and that can be read."""
        if name is None or self._weights_of() != self._last_measurement():
            return None, None
        state, prefix = self.load_weights(), f"{name}." if name else ""
        weight, bias = state.get(f"{prefix}weight"), state.get(f"{prefix}bias")
        if weight is None:
            return None, None
        return weight.flatten(1).to(torch.float64), None if bias is None else bias.to(torch.float64)

    def _last_measurement(self) -> str:
        """What tells the last line of the series from others."""
        lines = self._lines()
        return str(zlib.crc32(lines[-1])) if lines else ""

    def _lines(self) -> list[bytes]:
        """The series, without a last line cut short."""
        written = self.series_path.read_bytes() if self.series_path.exists() else b""
        return written.split(b"\n")[:-1]

    def _shared_lines(self, reports: Sequence[Report]) -> list[str]:
        """The lines of the series up to the first that isn't of these reports."""
        kept = []
        for line, report in zip(self._lines(), reports, strict=False):
            try:
                known = Findings.to_dict(_parsed(line))
            except _DAMAGED:
                break
            if known != Findings.to_dict(report):  # whatever the order of keys, which checkpoints may sort
                break
            kept.append(f"{line.decode()}\n")
        return kept

    def _statistics_path(self, number: int) -> Path:
        return self.path / "statistics" / f"{number:06d}.safetensors"

    def _statistics(self) -> dict[int, Path]:
        """The files of statistics by number."""
        numbers = (int(path.stem) for path in self.path.glob("statistics/*.safetensors") if path.stem.isdecimal())
        return {number: path for number in numbers if (path := self._statistics_path(number)).exists()}


def _line(report: Report) -> str:
    return json_text(Findings.to_dict(report)) + "\n"


def _parsed(line: bytes) -> Report:
    report = Report.from_dict(json.loads(line))
    if any(each.facts == Facts() for each in (report, *report.layers)):
        raise ValueError("no facts")
    return report


def _as_json(value: Any) -> Any:
    """What run.json says of a value that JSON lacks."""
    if isinstance(value, argparse.Namespace):
        return vars(value)
    if is_dataclass(value) and not isinstance(value, type):
        if callable(own := getattr(value, "to_dict", None)):  # may hide secrets, as that of transformers' arguments
            return own()
        return {field.name: getattr(value, field.name) for field in fields(value) if field.repr}
    return str(value)


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that a crash leaves the old one or the new one."""
    temporary = path.with_suffix(path.suffix + ".new")
    write(temporary)
    temporary.replace(path)
