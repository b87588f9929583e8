"""`--html`, `--json`, `--csv`, `--md` and `--figures`: where a command writes what it shows; "-" is the standard
output."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tightframe.errors import OptionError

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

    Raises: OptionError for a file that can't be written, of another kind, or for two that are the standard output.
    """

    def __init__(self, given: Mapping[str, Path | None], figures: Path | None = None):
        self._paths = {flag: path for flag, path in given.items() if path is not None}
        piped = [flag for flag, path in self._paths.items() if str(path) == "-"]
        if len(piped) > 1:
            raise OptionError(f"only one of {' and '.join(piped)} can be -, the standard output.")
        self.piped = bool(piped)
        for flag, path in self._paths.items():
            if str(path) == "-":
                continue
            require_writable(flag, path, SUFFIXES[flag])
        if figures is not None:
            require_folder("--figures", figures)

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


def require_writable(flag: str, path: Path, suffixes: Sequence[str]) -> None:
    """Raise OptionError unless the file that a flag names can be written, and has one of the suffixes."""
    if path.suffix.lower() not in suffixes:
        raise OptionError(f"{flag} writes {' or '.join(suffixes)} files; got {path}.")
    if not path.resolve().parent.is_dir():
        raise OptionError(f"{flag} {path}: there is no folder {path.parent}.")
    if path.exists() and not path.is_file():
        raise OptionError(f"{flag} {path}: that is a {'folder' if path.is_dir() else 'device or pipe'}.")
    _require_permission(flag, path, path if path.exists() else path.parent)


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
