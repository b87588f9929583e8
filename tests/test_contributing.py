"""CONTRIBUTING shows lines of tests/extending as they stand: what a user writes, short and with public names only."""

import ast
import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

from release import ROOT

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXTENSIONS = {path.stem.removeprefix("test_"): path for path in (ROOT / "tests" / "extending").glob("test_*.py")}
LIMITS = {"metric": 15}
MOST = 25  # lines of anything else


def own_part(path: Path) -> str:
    """What a user writes, between the two rulers of a file."""
    _, own, _ = re.split(r"^# -{50,} .*$", path.read_text(encoding="utf-8"), maxsplit=2, flags=re.M)
    return own


def things(path: Path) -> dict[str, str]:
    """The source of each top-level statement of the own part, by its name."""
    own = own_part(path)
    lines = own.splitlines()
    found = {}
    for node in ast.parse(own).body:
        first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", []))])
        name = getattr(node, "name", "") or ast.unparse(node.targets[0])  # type: ignore[attr-defined]
        found[name] = "\n".join(lines[first - 1 : node.end_lineno])
    return found


@pytest.mark.parametrize("kind", EXTENSIONS)
def test_what_a_user_writes_is_short(kind: str) -> None:
    lines = [line for source in things(EXTENSIONS[kind]).values() for line in source.splitlines() if line.strip()]
    assert 0 < len(lines) <= LIMITS.get(kind, MOST)


def names_used(source: str, part: str) -> set[tuple[ModuleType, str]]:
    """Every name that a part of a source takes from tightframe, directly or as an attribute, with its module."""
    imported: dict[str, tuple[ModuleType, str]] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                module = node.module if isinstance(node, ast.ImportFrom) else alias.name
                if module and module.partition(".")[0] == "tightframe":
                    name = alias.name if isinstance(node, ast.ImportFrom) else ""
                    imported[alias.asname or alias.name] = (importlib.import_module(module), name)
    used = set()
    for node in ast.walk(ast.parse(part)):
        if isinstance(node, ast.Name) and node.id in imported and imported[node.id][1]:
            used.add(imported[node.id])
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in imported:
            module, name = imported[node.value.id]
            owner = getattr(module, name) if name else module
            if isinstance(owner, ModuleType):
                used.add((owner, node.attr))
    return used


@pytest.mark.parametrize("kind", EXTENSIONS)
def test_what_a_user_writes_uses_public_names_only(kind: str) -> None:
    used = names_used(EXTENSIONS[kind].read_text(encoding="utf-8"), own_part(EXTENSIONS[kind]))
    assert used or kind == "head"  # a head follows a protocol, and inherits nothing
    assert private(used) == []


def private(names: set[tuple[ModuleType, str]]) -> list[str]:
    """The names that their modules don't list."""
    return sorted(f"{module.__name__}.{name}" for module, name in names if not is_public(module, name))


def is_public(module: ModuleType, name: str) -> bool:
    listed = getattr(module, "__all__", None)
    return not name.startswith("_") and (hasattr(module, name) if listed is None else name in listed)


def sections() -> dict[str, str]:
    """The text under each heading of "Add a thing" that links an extension test."""
    parts = re.split(r"^### (.+)$", PAGE, flags=re.M)
    return {title: text for title, text in zip(parts[1::2], parts[2::2], strict=True) if "tests/extending/" in text}


@pytest.mark.parametrize("title", sections())
def test_lines_on_the_page_are_those_of_the_test(title: str) -> None:
    text = sections()[title]
    label, link = re.findall(r"^\[(.+)\]\((.+)\)$", text, flags=re.M)[0]
    assert label == link and (ROOT / link).is_file()
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    own = own_part(ROOT / link)
    assert blocks and all(f"\n{block}" in own for block in blocks)


def test_every_extension_is_on_the_page() -> None:
    assert set(re.findall(r"\]\(tests/extending/test_(\w+)\.py\)", PAGE)) == set(EXTENSIONS)
    assert {*["metric", "code", "loss", "head", "source", "section", "detector"]} == set(EXTENSIONS)


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "ARCHITECTURE.md", "README.md", "docs/releasing.md"])
def test_files_that_pages_name_exist(name: str) -> None:
    page = ROOT / name
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([\w./-]+\.\w+)\)", re.sub(r"```.*?```", "", text, flags=re.S))]
    assert [link for link in links if not (page.parent / link).is_file()] == []
    named = set(re.findall(r"`((?:tests|scripts|benchmarks|docs|src|\.ci)/[\w./-]+)`", text))
    assert [path for path in named if not (ROOT / path).exists()] == []
