"""Runs `tightframe demo` and writes an excerpt of what it prints into the README: `python scripts/readme.py`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"
MARKED = re.compile(
    r"(?<=^<!-- demo: written by scripts/readme\.py -->\n).*?(?=^<!-- end of demo -->$)", flags=re.M | re.S
)
LEFT_OUT = ("detection", "note", "page", "more")
"""First words of the lines that the excerpt leaves out."""


def demo() -> str:
    """What `tightframe demo` prints."""
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run(
            [sys.executable, "-m", "tightframe", "demo"],
            cwd=folder,
            env={**os.environ, "COLUMNS": "100"},
            stdout=subprocess.PIPE,
            encoding="utf-8",
            check=True,
        ).stdout


def excerpt(printed: str) -> str:
    """From the report's first line on, without the lines that are left out at the end."""
    report = printed[printed.index("tightframe · digits · epoch") :].splitlines()
    shown = [line.rstrip() for line in report if not line.startswith(LEFT_OUT)]
    return "\n".join([*shown, "…"])


def with_excerpt(readme: str, printed: str) -> str:
    """The README with the excerpt between its marks."""
    text, places = MARKED.subn(lambda _: f"```\n{excerpt(printed)}\n```\n", readme)
    if places != 1:
        raise ValueError(f"README.md must have the two marks of the demo once; got {places}.")
    return text


def shown(readme: str) -> str:
    """The excerpt in the README."""
    found = MARKED.search(readme)
    if found is None:
        raise ValueError("README.md lacks the two marks of the demo.")
    return found[0].strip().removeprefix("```\n").removesuffix("```")


def main() -> None:
    README.write_text(with_excerpt(README.read_text(encoding="utf-8"), demo()), encoding="utf-8")


if __name__ == "__main__":
    main()
