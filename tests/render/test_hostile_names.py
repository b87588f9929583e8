"""Names are text in every format: no escape sequence, no markup, no change of the writing's direction gets through."""

import csv
import html
import io
from dataclasses import replace

import pytest
import torch

from tightframe import Report, measure
from tightframe.sections import Column, Document, Section, Table, as_text

NAMES = {
    "clipboard": "\x1b]52;c;aGk=\x07",
    "screen": "\x1b[2J\x1b[1;1H",
    "one byte": "\x9b31m",
    "bell": "a\x07b\x08c",
    "direction": "\u202egnp.exe\u202c \u2066x\u2069",
    "rich": "[bold red]x[/] [/nope] [link=https://x]y[/link]",
    "markup": "<script>alert(1)</script><a href='x'>&amp;",
    "wide": "w" * 400,
    "formula": '=HYPERLINK("x")',
    "surrogate": "a\udcffb",
    "markdown": "| a | **b** `c` \n# d",
}


def report(name: str) -> Report:
    labels = torch.arange(60) % 3
    features = torch.randn(60, 5, generator=torch.Generator().manual_seed(0)) + 3 * torch.eye(3, 5)[labels]
    context = {"title": name, "class_names": [name, "b", "c"], "data": name, "own": name}
    test, classifier = (features, labels), torch.eye(3, 5)
    made = measure(features, labels, test=test, classifier=classifier, progress=False, context=context)
    own = Section("own", name, (name,), Table((Column(name, "name"), Column("n", "number")), ((name, 1.0),)))
    return replace(made, notes=(name,)).with_sections(own)


def controls(text: str) -> list[str]:
    bad = [*range(9), *range(11, 32), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
    return [character for character in text if ord(character) in bad]


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_every_format(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    made = report(name)
    made.to_terminal(everything=True)
    printed = capsys.readouterr().out
    page = made.to_html()
    shown = replace(made.document(), downloads={}).to("page")  # the data to download have names as they are
    cells = [cell for row in csv.reader(io.StringIO(made.to_csv())) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "@"))]
    for text in (printed, repr(made), shown, made.to_csv(), made.to_markdown(), made._repr_html_()):
        assert controls(text) == []
    assert "<script>alert" not in page and "<a href='x'" not in page
    if name.isprintable():
        assert html.escape(name) in page or html.escape(name[:300]) in page
        assert "".join(name.split())[:60] in "".join(printed.split())


def test_cleaning_leaves_the_rest_as_it_is() -> None:
    document = Document("a\tb\nü µ 中", sections=(Section("k", "h", table=Table((Column("c"),), (("x",),), {0: "g"})),))
    assert as_text(document) == document
    assert as_text((1.0, float("inf"), None, "a\x1bb")) == (1.0, float("inf"), None, "a\N{REPLACEMENT CHARACTER}b")
