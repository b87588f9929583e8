"""The Python blocks of a Markdown page, run in order in one namespace; what they print is compared with the page.

A block may have a mark after the word python: "slow", or "no-run: " and the reason. A text marked "output" that
follows is what the block prints. A line "…" stands for any lines; numbers agree to 2 %.
"""

import contextlib
import io
import re
from dataclasses import dataclass
from typing import Any

import pytest

_FENCE = re.compile(
    r"^```python(?P<mark>[^\n]*)\n(?P<code>.*?)^```$(?:\n+```text output\n(?P<output>.*?)^```$)?", flags=re.M | re.S
)
_NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:e[-+]?\d+)?")


@dataclass(frozen=True)
class Block:
    """A Python block: its code, its mark, what it prints (None: not said), and its first line in the page."""

    code: str
    mark: str
    output: str | None
    line: int

    @property
    def reason(self) -> str | None:
        """Why it is not run; None if it is."""
        return self.mark.removeprefix("no-run:").strip() if self.mark.startswith("no-run") else None


def blocks(text: str) -> list[Block]:
    """The Python blocks of a page."""
    return [
        Block(found["code"], found["mark"].strip(), found["output"], text.count("\n", 0, found.start("code")))
        for found in _FENCE.finditer(text)
    ]


def run(text: str, name: str) -> dict[str, Any]:
    """Run the blocks of a page in order; returns their namespace."""
    namespace: dict[str, Any] = {}
    for block in blocks(text):
        if block.reason is None:
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile("\n" * block.line + block.code, name, "exec"), namespace)
            if block.output is not None:
                require_same(printed.getvalue(), block.output)
    return namespace


def require_same(printed: str, shown: str, rel: float = 0.02, absolute: float = 1e-6) -> None:
    """Assert that the lines of a page are those that were printed, with numbers within a tolerance."""
    rest, anywhere = [line.rstrip() for line in printed.splitlines()], False
    for line in shown.splitlines():
        if line.strip() == "…":
            anywhere = True
            continue
        place = next((i for i, other in enumerate(rest) if same_line(other, line, rel, absolute)), None)
        assert place is not None and (anywhere or place == 0), f"the page shows {line!r}; printed was\n{printed}"
        rest, anywhere = rest[place + 1 :], False
    assert anywhere or not "".join(rest).strip(), f"the page shows less than was printed:\n{printed}"


def same_line(printed: str, shown: str, rel: float, absolute: float) -> bool:
    """Whether two lines have equal words, and numbers that agree."""
    if _NUMBER.sub("0", printed).split() != _NUMBER.sub("0", shown).split():
        return False
    numbers = [[float(each.replace(",", "")) for each in _NUMBER.findall(line)] for line in (printed, shown)]
    return numbers[0] == pytest.approx(numbers[1], rel=rel, abs=absolute)
