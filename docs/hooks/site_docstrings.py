"""Docstrings as Markdown: fields in bold, examples in fences, names as links, and a metric's declaration as a table."""

from __future__ import annotations

import re
from types import ModuleType
from typing import Any

import site_reference
from tightframe import metrics

FIELDS = "Shape|Shapes|Range|Misleads|Raises|Warns|Returns|Source|Limits|Args"
_FIELD = re.compile(rf"(?:^|(?<=\. ))({FIELDS}):[ \t]+(?=\S)", flags=re.M)
_ERROR = re.compile(r"(?<![`\[\w.])([A-Z]\w+(?:Error|Warning))s?\b(?![\w`])")
_EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", flags=re.M)
_TOGETHER = re.compile(r"^( +)(\w+(?:, \w+)+): (.*(?:\n\1 +\S.*)*)$", flags=re.M)  # arguments described together
_LIST = re.compile(r"^([A-Z]\w* [^\n:]*):\n((?: {4,}\S.*\n?)+)", flags=re.M)  # a sentence and indented lines
_LITERAL = re.compile(r"(^ +\w+: |[\])])(>|_)", flags=re.M)  # what Markdown would read as a quotation or emphasis
_NAME = re.compile(r"(?<![`\[\w])`([A-Za-z_][\w.]*)`(?!`)")


def linked(text: str, module: str) -> str:
    """Public names in backticks as links; `module` is the part of the package that they are looked up in first."""

    def target(found: re.Match[str]) -> str:
        identifier = identifier_of(found[1], module)
        return f"[`{found[1]}`][{identifier}]" if identifier else found[0]

    def error(found: re.Match[str]) -> str:
        place = site_reference.places().get(f"errors.{found[1]}")
        return f"[{found[0]}][{place.identifier}]" if place else found[0]

    return _ERROR.sub(error, _NAME.sub(target, text))


def identifier_of(name: str, module: str) -> str | None:
    """The anchor of a public name, or of a documented member of a public class; None for other names.

    A module is meant by its full name only: `prototypes` alone is mostly an argument or an attribute.
    """
    places = site_reference.places()
    full = name.removeprefix("tightframe.")
    keys = [f"{module}.{name}", f"metrics.{name}" if name in metrics.METRICS else name]
    for key in [full] if full != name else keys:
        if key in places and (full != name or not isinstance(site_reference.value_of(key), ModuleType | str)):
            return places[key].identifier
    alike = {place.identifier for key, place in places.items() if key.endswith(f".{name}")}
    if name[:1].isupper() and len(alike) == 1:  # a class of any module
        return alike.pop()
    owner, _, member = name.rpartition(".")
    for key in (f"{module}.{owner}", owner):
        if key in places:
            value = site_reference.value_of(key)
            own = vars(value).get(member) if isinstance(value, type) else None
            return f"{places[key].identifier}.{member}" if own is not None and own.__doc__ else None
    return None


def as_markdown(text: str, module: str) -> str:
    """A docstring of the package as Markdown."""
    examples: list[str] = []

    def keep(found: re.Match[str]) -> str:
        examples.append(found[0])
        return f"\0{len(examples) - 1}\0"

    def apart(found: re.Match[str]) -> str:
        return "\n".join(f"{found[1]}{name}: {found[3]}" for name in found[2].split(", "))

    def listed(found: re.Match[str]) -> str:
        return f"{found[1]}:\n\n" + "\n".join(f"* {line.strip()}" for line in found[2].splitlines()) + "\n"

    text = _LIST.sub(listed, _TOGETHER.sub(apart, _EXAMPLE.sub(keep, text)))
    text = _LITERAL.sub(r"\1\\\2", text)
    text = _FIELD.sub(r"\n**\1:** ", linked(text, module))
    return re.sub(r"\0(\d+)\0", lambda found: f"\n```pycon\n{examples[int(found[1])]}\n```", text)


def with_facts(text: str, metric: metrics.Metric[Any]) -> str:
    """A metric's docstring with its declaration below the first paragraph."""
    head, _, rest = text.partition("\n\n")
    facts = site_reference.facts_of(metric)
    return f"{head}\n\n{site_reference.table(('declared', ''), facts)}\n{rest}"


METRICS = {f"{each.function.__module__}.{each.name}": each for each in metrics.METRICS.values()}
