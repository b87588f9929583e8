"""The options of a measurement as options of a command, generated from `Measuring`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from tightframe.options import Measuring


def takes_measuring(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command with `**options` an option for each of `Measuring`'s."""
    own = [each for each in inspect.signature(command, eval_str=True).parameters.values() if each.name != "options"]
    added = []
    for flag, field in Measuring.flags():
        kind = field.metadata["type"] or type(field.default)
        default = field.default if isinstance(field.default, bool | int | float | str) else None
        annotation: Any = kind if default is not None else kind | None
        declared = typer.Option(_both(flag) if kind is bool else flag, help=field.metadata["help"])
        added.append(
            inspect.Parameter(
                field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[annotation, declared]
            )
        )
    parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own[1:]]
    signature = inspect.Signature([own[0], *parameters, *added])
    command.__signature__ = signature  # type: ignore[attr-defined]
    command.__annotations__ = {name: each.annotation for name, each in signature.parameters.items()}
    return command


def _both(flag: str) -> str:
    return f"{flag}/--no-{flag.removeprefix('--')}"


def given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, or have a default of their own, by name."""
    return {name: value for name, value in options.items() if value is not None and value != []}


def spread(arguments: Sequence[str], flag: str) -> list[str]:
    """Arguments with the flag repeated before each of several values, as shells write `x*.npy --labels y*.npy`.

    Values beyond the first belong to the flag where an argument without a dash came before it.
    """
    found: list[str] = []
    spreading = named = False
    for place, each in enumerate(arguments):
        if each.startswith("-"):
            spreading = each == flag and named
        elif spreading and arguments[place - 1] != flag:
            found.append(flag)
        else:
            named = named or (place > 1 and not arguments[place - 1].startswith("-"))
        found.append(each)
    return found
