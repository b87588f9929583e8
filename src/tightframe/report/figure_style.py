"""How the figures of a page look, in one place."""

from __future__ import annotations

from typing import Any

COLOURS = (
    "#2563eb",
    "#d97706",
    "#059669",
    "#db2777",
    "#7c3aed",
    "#0891b2",
    "#65a30d",
    "#78716c",
    "#b91c1c",
    "#1e3a8a",
)
MARK_COLOUR = "#94a3b8"  # of lines that mark a place or a target
GRID = "#e5e7eb"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"


def panel_layout(title: str, *, height: int = 400) -> dict[str, Any]:
    """The layout of one of several panels side by side, its legend below."""
    return {
        "template": "plotly_white",
        "title": {"text": title, "x": 0.02, "font": {"size": 15}},
        "font": {"family": FONT, "size": 12},
        "height": height,
        "margin": {"l": 55, "r": 15, "t": 45, "b": 40},
        "showlegend": True,
        "legend": {"orientation": "h", "y": -0.3, "yanchor": "top", "x": 0, "font": {"size": 11}},
    }
