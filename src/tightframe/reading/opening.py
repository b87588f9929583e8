"""Opening a file, and the one place that turns whatever a damaged file raises into one line."""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tightframe.errors import StateError, TightframeError

_TOLD = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError)  # whose texts tell the reason
_LONGEST = 300  # characters of another library's message


@contextmanager
def failures_of(path: Path, kind: str = "") -> Iterator[None]:
    """Raise every failure to read a file, but for this package's own errors, as a StateError of one line.

    Parsers of other libraries fail on damaged files with errors of any type, so that all of them are caught.

    Args:
        kind: the format that was expected, such as "as .npz".
    """
    try:
        yield
    except TightframeError:
        raise
    except Exception as error:
        if isinstance(error, FileNotFoundError):
            raise StateError(f"{path} doesn't exist.") from None
        reason = reason_of(error)
        raise StateError(f"can't read {path}{f' {kind}' if kind else ''}: {reason}") from None


def reason_of(error: Exception) -> str:
    """Why something could not be read, in one line."""
    if isinstance(error, TightframeError):
        return str(error)
    if isinstance(error, RecursionError):
        return "its values are nested too deeply"
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    if isinstance(error, OSError) and (error.strerror or str(error)):
        return error.strerror or str(error)
    if isinstance(error, UnicodeDecodeError) or not isinstance(error, (ValueError, *_TOLD)):
        return "it is damaged or of another format"
    text = " ".join(str(error).split())
    text = f"{text[:_LONGEST]}…" if len(text) > _LONGEST else text
    return text or "it is damaged or of another format"


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A regular file, opened to read bytes. Nothing else is waited for, such as a FIFO without a writer.

    Raises: StateError for a path that is missing, is no regular file, or may not be read.
    """
    with failures_of(path):
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise StateError(f"{path} is a {'folder' if stat.S_ISDIR(mode) else 'device or pipe'}, not a file.")
    with open(descriptor, "rb") as file:
        yield file


def require_file(path: Path) -> None:
    """Raise StateError unless the path is a regular file that may be read."""
    with opened(path):
        pass
