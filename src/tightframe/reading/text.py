"""Text, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tightframe.errors import StateError
from tightframe.reading.opening import failures_of, opened


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, without a byte order mark. Raises: StateError."""
    with opened(path) as file:
        content = file.read()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise StateError(f"{path} isn't UTF-8 text: line {line} has the byte {content[error.start]:#x}.") from None


def read_json(path: Path, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """The value in a JSON file. Raises: StateError.

    Args:
        pairs: makes an object from its (key, value) pairs. Default: a dict.
    """
    text = read_text(path)
    with failures_of(path, "as JSON"):
        return json.loads(text, object_pairs_hook=pairs)


def read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """The rows of a CSV file that aren't blank: line number and fields, without spaces around them.

    Raises: StateError.
    """
    text = read_text(path)
    with failures_of(path, "as CSV"):
        reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
        rows = ((reader.line_num, [field.strip() for field in row]) for row in reader)
        return [(number, row) for number, row in rows if any(row)]
