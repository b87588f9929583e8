"""Pages made of the project's files, and insertions into pages: what stands elsewhere isn't typed again."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import site_numbers

ROOT = Path(__file__).parents[2]
PROJECT = {
    "README.md": ("Overview", "project/readme.md"),
    "ARCHITECTURE.md": ("Architecture", "project/architecture.md"),
    "CONTRIBUTING.md": ("Contributing", "project/contributing.md"),
    "CHANGELOG.md": ("Changelog", "project/changelog.md"),
}
"""Files of the repository that are pages: title and path."""
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
_INSERTION = re.compile(r"^<!-- insert: (?P<name>[\w-]+)(?: (?P<argument>.+?))? -->$", flags=re.M)
_LINK = re.compile(r"(!?\[[^\]]*\])\(([^)#\s]+)(#[^)]*)?\)")


def project_page(name: str) -> str:
    """A file of the repository, with its links to other files turned to their pages or to the repository."""
    text = (ROOT / name).read_text(encoding="utf-8")

    def turned(found: re.Match[str]) -> str:
        label, target, anchor = found[1], found[2], found[3] or ""
        if target in PROJECT:
            return f"{label}({Path(PROJECT[target][1]).name}{anchor})"
        if target.startswith("docs/"):
            return f"{label}(../{target.removeprefix('docs/')}{anchor})"
        return f"{label}({REPOSITORY}/blob/main/{target}{anchor})" if (ROOT / target).is_file() else found[0]

    return _LINK.sub(turned, text)


def pages() -> dict[str, str]:
    return {path: project_page(name) for name, (_, path) in PROJECT.items()}


def navigation() -> list[Any]:
    return [{title: path} for title, path in PROJECT.values()]


# ---------------------------------------------------------------------- insertions


def from_readme(after: str) -> str:
    """The first fenced block of the README after a text."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    start = text.index(after)
    found = re.search(r"^```.*?^```$", text[start:], flags=re.M | re.S)
    if found is None:
        raise ValueError(f"the README has no block after {after!r}.")
    return found[0].replace("```\n", "```text\n", 1)


def example(path: str) -> str:
    """What a user writes, in a test of an extension."""
    text = (ROOT / path).read_text(encoding="utf-8")
    found = re.search(r"^# -+ what a user writes\n(.*?)^# -+ ", text, flags=re.M | re.S)
    if found is None:
        raise ValueError(f"{path} has no part that a user writes.")
    return f"```python\n{found[1].strip()}\n```"


INSERTIONS: dict[str, Callable[[str], str]] = {
    "readme": from_readme,
    "example": example,
    "conventions": site_numbers.convention_table,
    "papers": site_numbers.paper_table,
    "spread": site_numbers.spread_sentence,
}


def completed(markdown: str, *, only: Collection[str] = tuple(INSERTIONS), marks: bool = False) -> str:
    """A page with its insertions, or some of them; without the marks that tests read behind fences, unless kept."""

    def insert(found: re.Match[str]) -> str:
        name, argument = found["name"], found["argument"] or ""
        return INSERTIONS[name](argument) if name in only else found[0]

    text = _INSERTION.sub(insert, markdown)
    if marks:
        return text
    text = text.replace("\n```text output\n", '\n```text title="prints"\n')
    return re.sub(r"^```python .*$", "```python", text, flags=re.M)
