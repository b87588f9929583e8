"""Options of a command that are generated from a dataclass, such as `Measuring`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from tightframe.cli.usage import PARSERS

Flags = Sequence[tuple[str, Field[Any]]]
"""As `flags_of` a dataclass gives them."""


_METAVARS = {str: "TEXT", int: "NUMBER", float: "NUMBER", Path: "PATH"}  # what --help shows for a value


def takes(flags: Flags = ()) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command with `**options` an option for each of these fields, and all its options metavars of one style."""

    def extended(command: Callable[..., Any]) -> Callable[..., Any]:
        own = [each for each in inspect.signature(command, eval_str=True).parameters.values() if each.name != "options"]
        for each in own:
            shown = get_args(each.annotation)[1]
            shown.metavar = shown.metavar or _METAVARS.get(_element(each.annotation))
            shown.parser = PARSERS.get(_element(each.annotation))
        added = [_parameter(flag, field) for flag, field in flags]
        signature = inspect.Signature([each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in [*own, *added]])
        command.__signature__ = signature  # type: ignore[attr-defined]
        command.__annotations__ = {name: each.annotation for name, each in signature.parameters.items()}
        return command

    return extended


def _parameter(flag: str, field: Field[Any]) -> inspect.Parameter:
    kind = field.metadata["type"] or type(field.default)
    default = field.default if isinstance(field.default, bool | int | float | str) else None
    annotation: Any = kind if default is not None else kind | None
    option = typer.Option(
        _both(flag) if kind is bool else flag,
        help=field.metadata["help"],
        metavar=_METAVARS.get(_element(kind)),
        parser=PARSERS.get(_element(kind)),
    )
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[annotation, option]
    )


def _element(kind: Any) -> Any:
    """The type of one value of a type such as int, list[Path] | None or Annotated[float, ...]."""
    while arguments := get_args(kind):
        kind = arguments[0]
    return kind


def _both(flag: str) -> str:
    return f"{flag}/--no-{flag.removeprefix('--')}"


def given(options: Mapping[str, Any], flags: Flags) -> dict[str, Any]:
    """Of these fields, those that were given or have a default of their own, by name."""
    values = {field.name: options.get(field.name) for _, field in flags}
    return {name: value for name, value in values.items() if value is not None and value != []}


def changed(values: Mapping[str, Any], flags: Flags) -> list[str]:
    """The flags whose values aren't the default."""
    return [flag for flag, field in flags if values.get(field.name, field.default) not in (field.default, None, [], ())]


def spread(arguments: Sequence[str], flag: str, *, alone: bool = False) -> list[str]:
    """Arguments with the flag repeated before each of several values, as shells write `x*.npy --labels y*.npy`.

    Values beyond the first belong to the flag where an argument without a dash came before it, and in any case with
    `alone`, for a flag beside which a command takes no such argument.
    """
    found: list[str] = []
    spreading, named = False, alone
    for place, each in enumerate(arguments):
        if each.startswith("-"):
            spreading = each == flag and named
        elif spreading and arguments[place - 1] != flag:
            found.append(flag)
        else:
            named = named or (place > 1 and not arguments[place - 1].startswith("-"))
        found.append(each)
    return found


class Command(typer.core.TyperCommand):
    """A command whose help shows an argument by its metavar alone, as "RUN", without its type."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, then the options."""
        records = [(each.param_type_name, each.get_help_record(ctx)) for each in self.get_params(ctx)]
        for heading, kind in (("Arguments", "argument"), ("Options", "option")):
            rows = [record for name, record in records if name == kind and record is not None]
            if kind == "argument":
                rows = [(name.split(" <")[0], text) for name, text in rows]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)
