"""Errors of usage in the words of this command line: a wrong number, a missing or unknown option, an extra argument."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from typing import Any

import typer


def integer(text: str) -> int:
    """The value of an option that takes integers. Raises: typer.BadParameter."""
    return _parsed(int, text, "an integer")


def decimal(text: str) -> float:
    """The value of an option that takes numbers. Raises: typer.BadParameter."""
    return _parsed(float, text, "a number")


PARSERS: dict[type, Callable[[str], Any]] = {int: integer, float: decimal}
"""By type of the option, what reads its text."""


def of_usage(error: Any) -> str:
    """The sentence for one of typer's errors of usage, which have no public types; it names the flag and what came."""
    context: Any = getattr(error, "ctx", None)
    message = str(error.format_message())
    if hasattr(error, "possibilities"):
        own = [name for each in context.command.params for name in (*each.opts, *each.secondary_opts)]
        sentence = f"there is no option {error.option_name}.{_nearest(error.option_name, own)}"
    elif hasattr(error, "option_name"):
        sentence = f"{error.option_name} {'takes no value' if 'not take' in message else 'needs a value'}."
    elif hasattr(error, "param_type"):
        sentence = f"{_name(error.param)} must be given."
    elif getattr(error, "param", None) is not None:
        return f"{_name(error.param)} {error.message}"
    elif match := re.match(r"No such command '(.*?)'\.", message):
        sentence = f"there is no command {match[1]!r}.{_nearest(match[1], context.command.commands)}"
    elif match := re.match(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)", message):
        sentence = f"unexpected argument: {match[1]}."
    else:
        sentence = f"{message.rstrip('.')}."
    return sentence if context is None else f"{sentence} See {context.command_path} --help."


def _parsed(kind: Callable[[str], Any], text: str, allowed: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise typer.BadParameter(f"must be {allowed}; got {text!r}.") from None


def _name(parameter: Any) -> str:
    """The long flag of an option, or the metavar of an argument."""
    if parameter.param_type_name == "argument":
        return str(parameter.metavar)
    return max(parameter.opts, key=len)


def _nearest(name: str, names: Iterable[str]) -> str:
    """The question whether the nearest of some names was meant; nothing if none is near."""
    by_word = {each.lstrip("-"): each for each in names}
    near = difflib.get_close_matches(name.lstrip("-").lower(), by_word, n=1)
    return f" Did you mean {by_word[near[0]]}?" if near else ""
