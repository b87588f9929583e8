"""The extension of the package's reader that rewrites every docstring before it is parsed."""

from __future__ import annotations

import inspect
from typing import Any

import griffe

from site_docstrings import METRICS, as_markdown, with_facts
from tightframe import prototypes

CONSTRUCTIONS = {
    f"{build.__module__}.{build.__name__}": build
    for build in (getattr(prototypes, name) for name in prototypes.__all__)
    if hasattr(build, "__signature__")
}
"""Functions whose decorators change their arguments and their result."""


def parameters(build: Any) -> griffe.Parameters:
    """The arguments that callers may pass."""
    return griffe.Parameters(
        *(
            griffe.Parameter(
                each.name,
                annotation=str(each.annotation),
                kind=griffe.ParameterKind[each.kind.name.lower()],
                default=None if each.default is each.empty else repr(each.default),
            )
            for each in inspect.signature(build).parameters.values()
        )
    )


class Docstrings(griffe.Extension):
    """Docstrings as Markdown, with the declarations of metrics; signatures of constructions as callers see them."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if isinstance(obj, griffe.Function) and (build := CONSTRUCTIONS.get(obj.path)) is not None:
            obj.parameters, obj.returns = parameters(build), "Prototypes"
        if obj.docstring is None:
            return
        parts = obj.path.split(".")
        text = as_markdown(obj.docstring.value, parts[1] if len(parts) > 1 else "")
        if (metric := METRICS.get(obj.path)) is not None:
            text = with_facts(text, metric)
        obj.docstring.value = text
