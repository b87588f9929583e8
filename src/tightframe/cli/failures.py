"""Failures of a command: one line, in the words of the command line."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from tightframe.cli.options import Flags
from tightframe.cli.usage import of_usage
from tightframe.errors import OptionError, TightframeError
from tightframe.sections import as_text

INTERRUPTED = 130  # exit status after Ctrl-C, as of a shell
TRACEBACK = "TIGHTFRAME_TRACEBACK"
"""The environment variable that has defects shown with their traceback."""
_NO_WORD = r"(?![\w/'\"-]|\.\w)"  # what follows the name of an argument, unless it is part of a path or of another word
_COMMANDS = {
    "tightframe.metrics.METRICS": "the list that `tightframe metrics` prints",
    "tightframe.metrics.CONVENTIONS": "the list that `tightframe metrics` prints",
    "tightframe.codes.CODES": "the list that `tightframe codes` prints",
    "tightframe.sources.extract": "`tightframe extract`",
    " Pass metric=False if that is meant.": " Correct the costs.",
}
"""What the library names, and what stands for it on the command line."""
_TERMS = ("dim", "alpha", "gamma")  # arguments that are no English words


def is_mendable(error: Exception) -> bool:
    """Whether a failure is the user's to mend: a wrong option, a damaged file, a full disk. All others are defects."""
    return isinstance(error, TightframeError | OSError) or is_of_memory(error) or hasattr(error, "format_message")


def is_of_memory(error: Exception) -> bool:
    """Whether there was too little memory; torch says so with a RuntimeError on the CPU."""
    return isinstance(error, MemoryError) or "alloc_cpu" in str(error) or "OutOfMemory" in type(error).__name__


def one_line(error: Exception) -> str:
    """What to tell the user of a failure. Raises: a defect itself, if the variable TIGHTFRAME_TRACEBACK is set."""
    if hasattr(error, "format_message"):
        message = of_usage(error)
    elif isinstance(error, OSError) and not isinstance(error, TightframeError):
        message = of_system(error)
    elif is_of_memory(error):
        message = "there is not enough memory for this."
    elif is_mendable(error):
        message = str(error)
    elif TRACEBACK in os.environ:
        raise error
    else:
        message = (
            f"unexpected {type(error).__name__}: {error}. This is a defect of tightframe: please report it, with what "
            f"is printed if the variable {TRACEBACK}=1 is set."
        )
    return " ".join(as_text(message).split())


@contextmanager
def stopped(kept: str) -> Iterator[None]:
    """Say what is kept when Ctrl-C, a full disk or the like ends a command. Raises: OptionError for an OSError."""
    try:
        yield
    except KeyboardInterrupt:
        tell(f"stopped: {kept}")
        raise
    except OSError as error:
        if isinstance(error, TightframeError):
            raise
        raise OptionError(f"{of_system(error)} {kept[:1].upper()}{kept[1:]}") from None


def of_system(error: OSError) -> str:
    """The sentence for an error of the operating system."""
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    return f"{where}{error.strerror}." if error.strerror else f"{error}."


def tell(text: str) -> None:
    """Print one line on the standard error."""
    told.append(text)
    print(" ".join(as_text(text).split()), file=sys.stderr)


told: list[str] = []
"""What was told since the command began."""


def warn_in_a_line(message: Warning | str, *_: object) -> None:
    """Show a warning as one line, in place of `warnings.showwarning`."""
    print(" ".join(as_text(f"warning: {message}").split()), file=sys.stderr)


@contextmanager
def errors_in_flags(flags: Flags, *more: str, **other: str) -> Iterator[None]:
    """Name arguments in the library's errors as the flags that they are here: `classifier="f"` as `--classifier "f"`.

    Args:
        more: arguments whose flag is their name. other: flags by argument.
    """
    names = {field.name: flag for flag, field in flags} | {name: f"--{name.replace('_', '-')}" for name in more} | other
    try:
        yield
    except TightframeError as error:
        if "Layer(" not in str(error):  # an expression in Python, which the command line can't take
            error.args = (in_flags(str(error), names),)
        raise


def in_flags(message: str, names: dict[str, str]) -> str:
    """A message with flags for arguments.

    Args:
        names: flags by argument. An argument is recognised by "=" after it, by its name if that is no English word,
            or as the subject of a clause.
    """

    for name, command in _COMMANDS.items():
        message = message.replace(name, command)
    if "--objective" in names.values():
        message = re.sub(
            r"prototypes\.(\w+)\([^)]*\)", lambda match: f"--objective {match[1].replace('_', '-')}", message
        )
    flags = {flag.lstrip("-"): flag for flag in names.values()} | names
    subjects = [name for name in flags if name not in ("features", "labels")]
    words = [name for name in names if "_" in name or name in _TERMS]
    pattern = (
        rf"\b(?P<value>{_any_of(names)})=(?P<true>True\b)?(?=(?P<after>\S?))"
        rf"|(?:^|(?<=: ))(?P<subject>{_any_of(subjects)})(?= (?:must|needs|adds)\b)"
        rf"|(?<![\w./'\"-])(?P<word>{_any_of(words)}){_NO_WORD}"
    )

    def flag(match: re.Match[str]) -> str:
        blank = match["value"] and not match["true"] and match["after"] not in ("", ".", ",", ")")
        return flags[match["value"] or match["subject"] or match["word"]] + (" " if blank else "")

    return re.sub(pattern, flag, message)


def _any_of(words: Iterable[str]) -> str:
    """The pattern that matches one of some words; it matches nothing without words."""
    return "|".join(map(re.escape, words)) or "(?!)"
