"""The extension of the package's reader that rewrites every docstring before it is parsed."""

from __future__ import annotations

from typing import Any

import griffe

from site_docstrings import METRICS, as_markdown, with_facts


class Docstrings(griffe.Extension):
    """Docstrings as Markdown, with the declarations of metrics."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is None:
            return
        parts = obj.path.split(".")
        text = as_markdown(obj.docstring.value, parts[1] if len(parts) > 1 else "")
        if (metric := METRICS.get(obj.path)) is not None:
            text = with_facts(text, metric)
        obj.docstring.value = text
