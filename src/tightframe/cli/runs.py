"""Run folders that commands are given, and those near where one is missing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tightframe.errors import OptionError

_NAMED = 5  # run folders that a message names


def require_runs(paths: Iterable[Path]) -> None:
    """Raises: OptionError for a path that is no run folder; it names the run folders nearby."""
    for path in paths:
        if not _is_run(path):
            near = runs_near(path)
            more = f" and {len(near) - _NAMED} more" if len(near) > _NAMED else ""
            here = f"; runs here: {', '.join(map(str, near[:_NAMED]))}{more}" if near else ""
            raise OptionError(f"no run folder at {str(path)!r}{here}.")


def runs_near(path: Path) -> list[Path]:
    """The run folders in the current folder, in its runs, and beside a path or above it; each once."""
    found: dict[Path, Path] = {}
    for folder in (Path(), Path("runs"), path.parent):
        for each in (folder, *_folders(folder)):
            if _is_run(each):
                found.setdefault(each.resolve(), each)
    return list(found.values())


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:  # no folder, or a closed one
        return []


def _is_run(path: Path) -> bool:
    try:
        return (path / "run.json").is_file()
    except OSError:
        return False
