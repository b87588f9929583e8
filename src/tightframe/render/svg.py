"""SVG as text."""

from __future__ import annotations

import html
import json
from typing import Any


def element(tag: str, *children: str, **attributes: str | float | None) -> str:
    """An element with SVG children. A trailing underscore in a name is dropped; others become dashes."""
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(coordinate(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    return f"<{tag}{written}>{''.join(children)}</{tag}>" if children else f"<{tag}{written}/>"


def text(content: str, x: float, y: float, *, full: str | None = None, **attributes: str | float | None) -> str:
    """A line of text; `full` appears under the pointer."""
    title = "" if full is None or full == content else f"<title>{html.escape(full)}</title>"
    return element("text", title + html.escape(content), x=x, y=y, **attributes)


def coordinate(value: str | float) -> str:
    """A coordinate to a tenth of a pixel, or unchanged text."""
    if isinstance(value, str):
        return value
    return f"{round(value, 1):g}"


def data(value: Any) -> str:
    """Plain values as JSON, for an attribute in single quotes."""
    encoded = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return encoded.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("'", "&#39;")


def drawing(
    parts: list[str],
    *,
    width: float,
    height: float,
    title: str,
    description: str,
    kind: str,
    values: Any,
    x_label: str = "",
) -> str:
    """A picture with a title, a description, and the values that page.js shows."""
    return (
        f'<svg class="{kind}" viewBox="0 0 {coordinate(width)} {coordinate(height)}" role="img" tabindex="0" '
        f'data-x="{html.escape(x_label)}" '
        f"data-values='{data(values)}'><title>{html.escape(title)}</title><desc>{html.escape(description)}</desc>"
        + "".join(parts)
        + "</svg>"
    )
