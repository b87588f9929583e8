"""Fields of a dataclass that are options of a command."""

from __future__ import annotations

from dataclasses import Field, field, fields
from typing import Any


def option(default: Any, help: str, *, flag: str | None = None, type: Any = None, of: str = "report") -> Any:
    """A dataclass field with its help text for the command line, from which flags are generated.

    Args:
        flag: the flag. Default: the field's name with dashes. "" for an option that only Python
            offers.
        type: type of the value on the command line. Default: the type of the default value.
        of: the part that reads the option: the model's run, any feature source, or the report.
    """
    return field(default=default, metadata={"help": help, "flag": flag, "type": type, "of": of})


def flags_of(declared: Any) -> list[tuple[str, Field[Any]]]:
    """(flag, field) of each option that the command line can set."""
    settable = [each for each in fields(declared) if each.metadata["flag"] != ""]
    return [(each.metadata["flag"] or f"--{each.name.replace('_', '-')}", each) for each in settable]
