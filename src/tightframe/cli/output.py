"""`--html`, `--json`, `--csv`, `--md` and `--figures`: where a command writes what it shows; "-" is the standard
output."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

from tightframe.errors import OptionError
from tightframe.sections import as_text

CREATOR = "tightframe report --figures"
"""The metadata of the figures, by which their files are known."""
SUFFIXES = {
    "--html": (".html", ".htm"),
    "--json": (".json",),
    "--csv": (".csv",),
    "--md": (".md", ".markdown"),
}


class Output:
    """The files that flags name, checked before anything is computed.

    Args:
        given: {flag: path or None}.
        figures: the folder of `--figures`, or None.
        inputs: files and folders that the command reads, which no output may replace.

    Raises: OptionError for a file that can't be written, of another kind, or that is an input; for a file that two
    flags name, and for two that are the standard output.
    """

    def __init__(self, given: Mapping[str, Path | None], figures: Path | None = None, *, inputs: Iterable[Path] = ()):
        self._paths = {flag: path for flag, path in given.items() if path is not None}
        piped = [flag for flag, path in self._paths.items() if str(path) == "-"]
        if len(piped) > 1:
            raise OptionError(f"only one of {' and '.join(piped)} can be -, the standard output.")
        self.piped = bool(piped)
        files = {flag: path.resolve() for flag, path in self._paths.items() if str(path) != "-"}
        if len(set(files.values())) < len(files):
            raise OptionError(f"{' and '.join(files)} must name different files.")
        inputs = list(inputs)
        for flag, path in self._paths.items():
            if str(path) == "-":
                continue
            require_writable(flag, path, SUFFIXES[flag])
            for each in inputs if path.exists() else ():
                if each.exists() and (path.samefile(each) or path.resolve().is_relative_to(each.resolve())):
                    raise OptionError(f"{flag} {path}: that file belongs to {each}; choose another.")
        if figures is not None:
            require_folder("--figures", figures)

    def alone(self) -> AbstractContextManager[object]:
        """A context in which nothing else is written to the standard output, if a file is: a model may print."""
        return redirect_stdout(sys.stderr) if self.piped else nullcontext()

    def write(self, formats: Mapping[str, Callable[[], Any]]) -> list[Path]:
        """Write each file that was asked for, whole or not at all; the files written.

        Args:
            formats: functions that return the text for a flag.

        Raises: OptionError for a full disk and the like.
        """
        from tightframe.writing import write_whole  # imports torch

        written = []
        for flag, path in self._paths.items():
            text = formats[flag]()
            if str(path) == "-":
                sys.stdout.write(text if text.endswith("\n") else f"{text}\n")
            else:
                try:
                    write_whole(path, [text.encode("utf-8", "replace")])
                except OSError as error:
                    raise OptionError(
                        f"{flag} {path}: {error.strerror or error}. What is printed above is complete; write the file "
                        f"elsewhere with another {flag}."
                    ) from None
                written.append(path)
        return written


def tell_written(path: Path) -> None:
    """Print which file was written, in one line: its name is text."""
    print(as_text(f"wrote {path}").replace("\n", "\N{REPLACEMENT CHARACTER}"))


def require_writable(flag: str, path: Path, suffixes: Sequence[str]) -> None:
    """Raise OptionError unless the file that a flag names can be written, and has one of the suffixes."""
    if path.suffix.lower() not in suffixes:
        raise OptionError(f"{flag} writes {' or '.join(suffixes)} files; got {path}.")
    if not path.resolve().parent.is_dir():
        raise OptionError(f"{flag} {path}: there is no folder {path.parent}.")
    if path.exists() and not path.is_file():
        raise OptionError(f"{flag} {path}: that is a {'folder' if path.is_dir() else 'device or pipe'}.")
    _require_permission(flag, path, path if path.exists() else path.parent)


def write_figures(figures: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write each figure as a PDF file; the files written. Raises: OptionError for a file that this did not write."""
    paths = {folder / f"{name}.pdf": figure for name, figure in figures.items()}
    for path in paths:
        if path.exists() and not (path.is_file() and CREATOR.encode() in path.read_bytes()):
            raise OptionError(
                f"--figures {folder}: {path.name} there is another file; move it, or name another folder."
            )
    folder.mkdir(parents=True, exist_ok=True)
    for path, figure in paths.items():
        figure.savefig(path, metadata={"Creator": CREATOR})
    return list(paths)


def require_folder(flag: str, path: Path) -> None:
    """Raise OptionError unless a path is, or can become, a folder in which files can be written."""
    there = next(each for each in (path, *path.parents) if each.exists())
    if not there.is_dir():
        raise OptionError(f"{flag} {path}: {there} is a file, not a folder.")
    _require_permission(flag, path, there)


def _require_permission(flag: str, path: Path, there: Path) -> None:
    """Raises: OptionError if the process may not write to what is there, a file or a folder."""
    if not os.access(there, os.W_OK | (os.X_OK if there.is_dir() else 0)):
        raise OptionError(f"{flag} {path}: no permission to write to {there}.")
