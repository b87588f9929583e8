"""`--html`, `--json`, `--csv` and `--md`: where a command writes what it shows; "-" is the standard output."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
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

    Args: given, {flag: path or None}.

    Raises: OptionError for a file that can't be written, of another kind, or for two that are the standard output.
    """

    def __init__(self, given: Mapping[str, Path | None]):
        self._paths = {flag: path for flag, path in given.items() if path is not None}
        piped = [flag for flag, path in self._paths.items() if str(path) == "-"]
        if len(piped) > 1:
            raise OptionError(f"only one of {' and '.join(piped)} can be -, the standard output.")
        self.piped = bool(piped)
        for flag, path in self._paths.items():
            if str(path) == "-":
                continue
            if path.suffix.lower() not in SUFFIXES[flag]:
                raise OptionError(f"{flag} writes {SUFFIXES[flag][0]} files; got {path}.")
            if not path.resolve().parent.is_dir():
                raise OptionError(f"{flag} {path}: there is no folder {path.parent}.")

    def write(self, formats: Mapping[str, Callable[[], Any]]) -> list[Path]:
        """Write each file that was asked for; the files written. `formats` give the text for a flag."""
        written = []
        for flag, path in self._paths.items():
            text = formats[flag]()
            if str(path) == "-":
                sys.stdout.write(text if text.endswith("\n") else f"{text}\n")
            else:
                path.write_text(text, encoding="utf-8")
                written.append(path)
        return written
