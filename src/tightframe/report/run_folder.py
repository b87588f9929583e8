"""`RunFolder`: what a run leaves on disk, shared by the demo, the monitor and the report commands.

run.json                    what ran: versions, arguments, seed, data; and the run's identity
series.jsonl                one line a measurement, `Report.to_dict()`
statistics/NNNNNN.safetensors   the statistics of each measurement, in the same order
model.safetensors           the trained weights
report.html                 the page
run.lock                    empty; the run that writes to the folder holds a lock on it

A run replaces and deletes only what it wrote: tensors and pages bear its identity, and the series belongs to run.json.
A page without an identity that tightframe rendered counts as the run's. Runs of version 0.1 have the identity "", which
tensors of a run folder without an identity bear. Where run.json has no identity, that of the tensors counts, and the
first change writes it into run.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import secrets
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tightframe.errors import StateError
from tightframe.evidence import Evidence
from tightframe.hooks import bare_model, clean_name
from tightframe.plain import json_text
from tightframe.reading import failures_of, opened, read_json, read_safetensors, reason_of
from tightframe.reading.safetensors import safetensors_header
from tightframe.report.facts import Facts
from tightframe.report.findings import Findings
from tightframe.report.report import Report
from tightframe.sections import PAGE_START
from tightframe.statistics import ClassStatistics
from tightframe.version import __version__
from tightframe.writing import WriteLock, partials_in, write_tensors, write_whole

_IDENTITY = "run_folder"  # in run.json: the run's identity, then those of runs that it is replacing
_RUN, _MEASUREMENT = "run", "measurement"  # in the metadata of tensors that a run folder wrote
_DOCTYPE, _MARK = "<!doctype html>\n", "<!-- tightframe run {} -->\n"  # the beginning of a page that a run folder wrote


class RunFolder:
    """A folder that holds one run. Files are written whole, the series line by line, so a killed run leaves a folder
    that can be read and resumed.

    One run writes to a folder at a time: `create`, `resume` or the first change takes a lock, which `close`, garbage
    collection, the end of the process, or a change that raises StateError releases. Within a process, `resume` and
    `create` with `overwrite` take the lock from the run that holds it. Reading needs no lock. Files that the run did
    not write are neither replaced nor deleted, and symbolic links are not followed: StateError, before anything is
    changed.

    Args:
        path: the folder; made by `create`.

    >>> import tempfile
    >>> from tightframe.report import RunFolder
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = RunFolder.create(folder, {"arguments": {"seed": 3}})
    ...     print(run.description["arguments"], len(run.series()))
    ...     run.close()
    {'seed': 3} 0
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self._lock = WriteLock(self.path / "run.lock")
        self._run: str | None = None  # the identity, once this object has written

    @classmethod
    def create(cls, path: str | os.PathLike[str], description: dict[str, Any], *, overwrite: bool = False) -> RunFolder:
        """Start a run: make the folder, write run.json. An earlier run without measurements is replaced.

        Args:
            description: what runs (arguments, seed, data); versions are added. Values that JSON lacks become text,
                except dataclasses and arguments that argparse parsed, which become objects.
            overwrite: delete an earlier run's measurements, weights and page.

        Raises: StateError if the folder can't be written, another run writes to it, it holds measurements and
        `overwrite` is off, or a file of another origin is in the way; TypeError or ValueError for a description that
        isn't JSON. Nothing is changed then.
        """
        folder = cls(path)
        versions = {
            "tightframe": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        }
        content = {**description, "versions": versions, _IDENTITY: [secrets.token_hex(8)]}
        json.dumps(content, default=_as_json)
        with folder._starting(lambda: folder.require_startable(overwrite), take_over=overwrite):
            folder._describe({**content, _IDENTITY: [*content[_IDENTITY], *folder._identities()]})
            folder._require_current()
        return folder

    @classmethod
    def resume(cls, path: str | os.PathLike[str], description: dict[str, Any]) -> RunFolder:
        """Continue the run in a folder, or start one where there is none.

        Raises: StateError if a part of the run is lost or damaged, or a file of another origin is in its place; as
        `create`.
        """
        folder = cls(path)
        if not os.path.lexists(folder._description_path) and not folder._measurements():
            return cls.create(path, description)
        with folder._starting(folder._require_resumable, take_over=True):
            folder._require_current()
        return folder

    def claim(self) -> None:
        """Take the lock. Raises: StateError if another run holds it; OSError if the folder can't be written."""
        self._lock.acquire()

    def close(self) -> None:
        """Release the folder, so that another run can write to it; the next change takes it again."""
        self._lock.release()

    # ------------------------------------------------------------------ which files are the run's

    @contextmanager
    def _starting(self, require: Callable[[], None], *, take_over: bool) -> Iterator[None]:
        """Take the lock of a folder that passes a check, which changes nothing; release it if the start fails."""
        try:
            _require_no_link(self._lock.path)
            if not take_over:  # a live run is the first thing to say
                self._lock.acquire(create=False)
            require()
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(take_over=take_over)
            require()  # again: another run may have ended in between
            for folder in (self.path, self._statistics_folder):
                for partial in partials_in(folder):
                    partial.unlink()
            yield
        except OSError as error:
            self.close()
            raise StateError(
                f"{self.path} can't be written: {error.strerror or error}. Make it writable, or choose another folder."
            ) from None
        except BaseException:
            self.close()
            raise

    def require_startable(self, overwrite: bool) -> None:
        """Raise StateError unless a run may start here; change nothing."""
        self._require_folder()
        count = self._measurements()
        if count and not overwrite and self._identities():
            delete = "overwrite=True to delete them, " if self._wrote(self._description_path) else ""
            raise StateError(
                f"{self.path} holds {count} measurement{'s' * (count > 1)} of an earlier run. Pass {delete}resume=True "
                "to continue that run, or another folder."
            )
        self._require_own(self._description_path, self.series_path, self._statistics_folder)
        self._require_own(*self._statistics_files().values(), self._model_path, self.report_path)

    def _require_folder(self) -> None:
        """Raise StateError unless this is a folder that can be written, or can be made."""
        if self.path.exists() and not self.path.is_dir():
            raise StateError(f"{self.path} is not a folder; choose another path.")
        nearest = next(path for path in (self.path, *self.path.absolute().parents) if path.exists())
        if nearest.is_dir() and not os.access(nearest, os.W_OK):  # making a folder below a file says so itself
            raise StateError(
                f"{self.path} can't be written: {nearest} is read-only. Make it writable, or choose another folder."
            )

    def _require_resumable(self) -> None:
        """Raise StateError unless the run can be continued without touching the files of anything else."""
        self._require_folder()
        if not os.path.lexists(self._description_path):
            raise StateError(
                f"{self.path} holds measurements, but its run.json is lost. Put it back, or write {{}} into it, to "
                "continue the run; or choose another folder."
            )
        _require_no_link(self._description_path)
        described = bool(self._described_identities())
        if not self.series_path.exists() and self._measurements():
            delete = "; or pass overwrite=True to delete them" if described else ""
            raise StateError(
                f"{self.path} holds statistics, but its series.jsonl is lost. Put it back to continue the run{delete}."
            )
        if not described and not self.series():  # such a run is known by its measurements
            raise _foreign(self._description_path)
        first = len(self._lines()) if described else 0
        statistics = [path for number, path in self._statistics_files().items() if number >= first]
        self._require_own(self.series_path, self._statistics_folder, *statistics, self._model_path, self.report_path)

    @contextmanager
    def _changing(self) -> Iterator[str]:
        """Take the lock for a change; yields the run's identity. Releases it where the folder forbids the change, and
        after any failure if it was not held before."""
        held = self._lock.held
        try:
            yield self._require_current()
        except BaseException as error:
            if not held or isinstance(error, StateError):
                self.close()
            raise

    def _require_current(self) -> str:
        """Take the lock; returns the run's identity. Raises StateError if the folder now holds another run."""
        self._load_description()
        self._lock.acquire()
        identity, *replaced = self._identities()
        if self._run not in (None, identity):
            raise StateError(f"{self.path} now holds another run; choose another folder.")
        if self._described_identities() != [identity]:
            if replaced:  # this start, or one that was killed, has yet to delete their files
                for path in (self.series_path, *self._statistics_files().values(), self._model_path, self.report_path):
                    if self._wrote(path):
                        path.unlink()
            else:
                self._require_resumable()
            self._describe({**self._load_description(), _IDENTITY: [identity]})
        self._run = identity
        return identity

    def _describe(self, content: dict[str, Any]) -> None:
        write_whole(self._description_path, [json.dumps(content, indent=1, default=_as_json).encode()])

    def _identities(self) -> list[str]:
        """The run's identity, then those of runs that it is replacing; without a run.json there is none."""
        try:
            return self._described_identities() or [self._borne_identity()]
        except StateError:
            return []

    def _described_identities(self) -> list[str]:
        """The identities in run.json. Raises StateError without a run.json."""
        identities = self._load_description().get(_IDENTITY)
        if not isinstance(identities, list) or not all(_is_identity(each) for each in identities):
            return []
        return identities

    def _borne_identity(self) -> str:
        """The identity of the statistics or the weights."""
        tensors = (*self._statistics_files().values(), self._model_path)
        identities = (_metadata(path).get(_RUN) for path in tensors)
        return next((each for each in identities if each and _is_identity(each)), "")

    def _require_own(self, *paths: Path, advice: str = "choose another folder") -> None:
        """Raise StateError if a file at one of the paths was not written by this run, or is a link."""
        for path in paths:
            _require_no_link(path)
            if path.exists() and not self._wrote(path):
                raise _foreign(path, advice)

    def _wrote(self, path: Path) -> bool:
        """Whether this run, or one that it is replacing, wrote what is at the path."""
        identities = self._identities()
        if path == self._statistics_folder:
            return path.is_dir()
        if not path.is_file():
            return False
        if path == self._description_path:
            return bool(identities and self._described_identities())
        if path == self.report_path:
            starts = [PAGE_START, *(_DOCTYPE + _MARK.format(each) for each in identities)]
            with path.open("rb") as file:
                return file.read(len(PAGE_START)).startswith(tuple(start.encode() for start in starts))
        if path == self.series_path:
            return bool(identities)
        return _identity_in(_metadata(path)) in identities

    def _measurements(self) -> int:
        """Number of measurements in the folder; if the series is lost, at least the number of the last statistics."""
        return 0 if len(self._identities()) > 1 else max(len(self._lines()), *self._statistics_files(), 0)

    # ------------------------------------------------------------------ writing

    @property
    def series_path(self) -> Path:
        """The file of measurements."""
        return self.path / "series.jsonl"

    @property
    def report_path(self) -> Path:
        """The file of the HTML page."""
        return self.path / "report.html"

    def append(self, report: Report, number: int | None = None) -> None:
        """Add a measurement, its statistics first: every line of the series has its file.

        Raises: StateError if the folder doesn't hold `number` measurements before; OSError, which adds nothing.
        """
        with self._changing() as identity:
            self._append(report, number, identity)

    def _append(self, report: Report, number: int | None, identity: str) -> None:
        written = self._read_series()
        count, whole = written.count(b"\n"), written.rfind(b"\n") + 1  # a crash may have cut the last line short
        if number not in (None, count):
            raise StateError(
                f"{self.series_path} holds {count} measurements, but this run wrote {number}: something else changed "
                "it. Choose another folder."
            )
        path = self._statistics_path(count)
        self._require_own(self.series_path, self._statistics_folder, path)
        if report.evidence is not None and report.evidence.statistics is not None:
            self._statistics_folder.mkdir(exist_ok=True)
            report.evidence.statistics.save(path, {_RUN: identity})
        else:
            path.unlink(missing_ok=True)  # of a measurement whose line was lost
        with self.series_path.open("ab", buffering=0) as file:
            file.truncate(whole)
            line = _line(report)
            try:
                while line:
                    line = line[file.write(line) :]
                os.fsync(file.fileno())
            except OSError:
                file.truncate(whole)
                raise

    def replace_series(self, reports: Sequence[Report]) -> None:
        """Make these the measurements, after a run was taken back. Those that were there already keep their lines and
        statistics, up to the first that is another one."""
        with self._changing():
            self._replace_series(reports)

    def _replace_series(self, reports: Sequence[Report]) -> None:
        shared = self._shared_lines(reports)
        lines = [*shared, *(_line(report) for report in reports[len(shared) :])]
        statistics = self._statistics_files()
        replaced = [statistics[number] for number in statistics if len(shared) <= number < len(lines)]
        removed = [statistics[number] for number in statistics if number >= len(lines)]
        self._require_own(self.series_path, self._statistics_folder, *replaced, *removed)
        # no crash may leave statistics beside another's line: what lines replace goes before them, the rest after
        for path in replaced:
            path.unlink()
        write_whole(self.series_path, lines)
        for path in removed:
            path.unlink()

    def save_model(self, model: nn.Module) -> None:
        """Write the weights of the model that was measured last.

        Raises: StateError if the folder has a model.safetensors of another origin; DtypeError for a dtype that
        safetensors files lack.
        """
        with self._changing() as identity:
            self._require_own(self._model_path)
            state = {
                clean_name(name): value
                for name, value in bare_model(model).state_dict().items()
                if isinstance(value, Tensor)  # extra state can be anything
            }
            write_tensors(self._model_path, state, {_RUN: identity, _MEASUREMENT: self._last_measurement()})

    def write_html(self, report: Report | None = None) -> Path:
        """Write report.html and return its path.

        Raises: StateError if the folder has a report.html of another origin.
        """
        page = (self.report() if report is None else report).to_html()
        self._load_description()
        advice = "write the page elsewhere with --html (in Python: report.to_html(path))"
        self._require_own(self.report_path, advice=advice)
        marked = page.replace(_DOCTYPE, _DOCTYPE + _MARK.format(self._identities()[0]), 1)
        write_whole(self.report_path, [marked.encode()])
        return self.report_path

    # ------------------------------------------------------------------ reading

    def load_weights(self) -> dict[str, Tensor]:
        """The weights that `save_model` wrote, by name, in the shapes of the model.

        Raises: StateError if they are missing or damaged.
        """
        return read_safetensors(self._model_path)[0]

    @property
    def description(self) -> dict[str, Any]:
        """What run.json says of the run. Raises StateError if this is no run folder."""
        return {name: value for name, value in self._load_description().items() if name != _IDENTITY}

    def _load_description(self) -> dict[str, Any]:
        try:
            content = read_json(self._description_path)
        except StateError as error:
            raise StateError(f"{self.path} is not a run folder: {error}") from None
        if not isinstance(content, dict):
            raise StateError(f"{self.path} is not a run folder: its run.json holds no object, but {content!r:.40}.")
        return content

    def series(self) -> list[Report]:
        """All measurements; a last line cut short by a crash is left out."""
        _ = self.description
        reports: list[Report] = []
        for line in self._lines():
            try:
                reports.append(_parsed(line))
            except Exception as error:
                where = f"{self.series_path} is damaged in line {len(reports) + 1}"
                raise StateError(f"{where}: {reason_of(error)}") from None
        return reports

    def report(self) -> Report:
        """The last measurement, with its statistics and the earlier ones as its history.

        Raises: StateError if nothing was measured.
        """
        series = self.series()
        if not series:
            raise StateError(f"{self.path} holds no measurement.")
        last, statistics = series[-1], self.statistics(len(series) - 1)
        evidence = None if statistics is None else Evidence(statistics, *self._classifier(last.facts.classifier))
        return replace(last, evidence=evidence, history=tuple(series[:-1]), run=self.description)

    def statistics(self, number: int) -> ClassStatistics | None:
        """The statistics of a measurement, counted from 0; None if it has none. Raises StateError if damaged."""
        path = self._statistics_path(number)
        return ClassStatistics.load(path) if os.path.lexists(path) else None

    @property
    def _description_path(self) -> Path:
        return self.path / "run.json"

    @property
    def _model_path(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def _statistics_folder(self) -> Path:
        return self.path / "statistics"

    def _classifier(self, name: str | None) -> tuple[Tensor | None, Tensor | None]:
        """The measured classifier's rows and bias, if the run has saved its model since, and that can be read."""
        if name is None or _metadata(self._model_path).get(_MEASUREMENT) != self._last_measurement():
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
        """The series, without a last line cut short; empty while an earlier run's is being replaced."""
        return [] if len(self._identities()) > 1 else self._read_series().split(b"\n")[:-1]

    def _read_series(self) -> bytes:
        if not os.path.lexists(self.series_path):
            return b""
        with opened(self.series_path) as file, failures_of(self.series_path):
            return file.read()

    def _shared_lines(self, reports: Sequence[Report]) -> list[bytes]:
        """The lines of the series up to the first that isn't of these reports."""
        shared = []
        for line, report in zip(self._lines(), reports, strict=False):
            try:
                known = Findings.to_dict(_parsed(line))
            except Exception:  # a damaged line is none of these reports'
                break
            if known != Findings.to_dict(report):  # whatever the order of keys, which checkpoints may sort
                break
            shared.append(line + b"\n")
        return shared

    def _statistics_path(self, number: int) -> Path:
        return self._statistics_folder / f"{number:06d}.safetensors"

    def _statistics_files(self) -> dict[int, Path]:
        """The files of statistics by number."""
        numbers = (int(path.stem) for path in self.path.glob("statistics/*.safetensors") if path.stem.isdecimal())
        paths = {number: self._statistics_path(number) for number in numbers}
        return {number: path for number, path in paths.items() if os.path.lexists(path)}


def _line(report: Report) -> bytes:
    return json_text(Findings.to_dict(report)).encode("utf-8", "surrogatepass") + b"\n"


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


def _is_identity(value: Any) -> bool:
    """Whether this is an identity that `create` made, or that of version 0.1: it is written into pages."""
    return isinstance(value, str) and re.fullmatch("([0-9a-f]{16})?", value) is not None


def _identity_in(metadata: Mapping[str, str]) -> str | None:
    """The identity that tensors bear; None if no run folder wrote them."""
    of_run_folder = _MEASUREMENT in metadata or metadata.get("format", "").startswith("tightframe.")
    return metadata.get(_RUN, "" if of_run_folder else None)


def _metadata(path: Path) -> Mapping[str, str]:
    """The metadata of a safetensors file; empty for anything else."""
    try:
        return safetensors_header(path).metadata
    except StateError:
        return {}


def _foreign(path: Path, advice: str = "choose another folder") -> StateError:
    return StateError(f"{path} was not written by this run, and is in its way. Move it, or {advice}.")


def _require_no_link(path: Path) -> None:
    if path.is_symlink():
        raise StateError(f"{path} is a symbolic link, which a run doesn't follow. Remove it, or choose another folder.")
