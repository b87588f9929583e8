"""The page: all of a document is on it, nothing else is asked for, and pictures show what the values are."""

import base64
import io
import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from itertools import combinations, pairwise

import numpy as np
import pytest
from PIL import Image

from tightframe.render import page
from tightframe.render.axes import Axis, axis
from tightframe.render.bars import bars_svg
from tightframe.render.curves import curves_svg, undrawn
from tightframe.render.matrices import BLUE, LEVELS, ORANGE, WHITE, levels, matrix_svg
from tightframe.render.names import shortened, width
from tightframe.render.png import png
from tightframe.render.styles import DARK, LIGHT, styles
from tightframe.sections import (
    Bars,
    Column,
    Curves,
    Document,
    Figure,
    Matrix,
    Section,
    Series,
    Table,
    number,
    times,
    written,
)

VOID = {"meta", "link", "input", "br", "hr", "img"}
NAN, INF = math.nan, math.inf


class Element:
    """An element of a page: its attributes, children and text."""

    def __init__(self, tag: str, attributes: dict[str, str]):
        self.tag, self.attributes = tag, attributes
        self.children: list[Element] = []
        self.texts: list[str] = []

    @property
    def classes(self) -> set[str]:
        return set(self.attributes.get("class", "").split())

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def all(self, tag: str = "", kind: str = "") -> list["Element"]:
        return [each for each in self._walk() if tag in ("", each.tag) and (not kind or kind in each.classes)]

    def one(self, tag: str = "", kind: str = "") -> "Element":
        (found,) = self.all(tag, kind)
        return found

    def _walk(self) -> Iterator["Element"]:
        for child in self.children:
            yield child
            yield from child._walk()


class Parser(HTMLParser):
    """Elements of a page; what isn't closed in its order is an error."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), (tag, names)
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        for element in self.open:
            element.texts.append(data)


def parsed(text: str) -> Element:
    parser = Parser()
    parser.feed(text)
    parser.close()
    assert parser.open == [parser.root]
    return parser.root


def drawn(figure: Figure) -> Element:
    draw: Callable[..., str] = (
        curves_svg if isinstance(figure, Curves) else bars_svg if isinstance(figure, Bars) else matrix_svg
    )
    return parsed(draw(figure)).one("svg")


@pytest.fixture(params=["document", "unusual", "empty"])
def any_document(request: pytest.FixtureRequest) -> Document:
    return Document("Empty") if request.param == "empty" else request.getfixturevalue(request.param)


def test_is_well_formed_with_unique_ids(any_document: Document) -> None:
    root = parsed(page.render(any_document))
    assert root.one("html").attributes["lang"] == "en"
    ids = [each.attributes["id"] for each in root.all() if "id" in each.attributes]
    assert len(set(ids)) == len(ids)
    for label in root.all("label"):
        assert label.attributes["for"] in ids
    assert root.one("a", "skip").attributes["href"][1:] in ids


def test_asks_for_nothing(any_document: Document) -> None:
    root = parsed(page.render(any_document))
    for each in root.all():
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            assert each.attributes.get(name, "#").startswith(("#", "data:")), (each.tag, each.attributes)
    policy = next(each for each in root.all("meta") if each.attributes.get("http-equiv") == "Content-Security-Policy")
    assert policy.attributes["content"].startswith("default-src 'none'")
    style = root.one("style").text
    assert not re.search(r"url\(|@import", style)
    script = next(each.text for each in root.all("script") if "type" not in each.attributes)
    assert set(re.findall(r"https?://[^\"']+", script)) == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert not re.search(r"fetch\(|XMLHttpRequest|import\(|WebSocket|eval\(|innerHTML", script)


def test_order(document: Document) -> None:
    text = page.render(document)
    marks = ("<h1>", 'class="facts"', 'class="verdict', 'class="remarks"', 'class="cards"', 'class="notes"')
    marks = (*marks, *(f'id="{section.key}"' for section in document.sections), "<footer>")
    places = [text.index(mark) for mark in marks]
    assert places == sorted(places)


def test_texts_of_a_document(document: Document) -> None:
    root = parsed(page.render(document))
    text = root.one("main").text
    assert document.verdict is not None
    assert root.one(kind="verdict").classes == {"verdict", "good"}
    for wanted in (
        *(document.title, " · ".join(document.facts), document.verdict.word, document.verdict.sentence),
        *(document.verdict.advice, document.remarks[0].sentence, document.remarks[0].advice, "batch-norm"),
        *document.notes,
        *(text for pair in document.footer for text in pair),
    ):
        assert wanted in text
    for section in document.sections:
        (element,) = (each for each in root.all("section") if each.attributes.get("id") == section.key)
        assert section.heading in element.one("h2").text
        assert all(sentence in element.text for sentence in section.sentences)
        assert [each.text for each in element.all("figcaption")] == [figure.title for figure in section.figures]


def test_cards(document: Document) -> None:
    found = parsed(page.render(document)).all(kind="card")
    assert len(found) == len(document.cards) == 5
    for element, card in zip(found, document.cards, strict=True):
        assert element.one(kind="value").text == number(card.value)
        assert element.one(kind="error").text == "± 0.00040"
        assert element.one(kind="closeness").text == "650×"
        assert element.one("p", "held-out").text == "held out 0.31"
        assert [each.text for each in element.all("dd")] == ["0", "8.1"]
        assert element.one("code").text == card.key
        assert card.statement in element.text and card.remark in element.text
        assert [each.classes for each in element.one("svg", "spark").all("path", "line")] == [
            {"line", "held-out"},
            {"line", "curve-0"},  # over the other
        ]
    bare = parsed(page.render(replace(document, cards=(replace(document.cards[0], held_out=None, history=()),))))
    assert not bare.all("svg", "spark") and "held out" not in bare.one(kind="card").text


def cells_of(table: Element) -> list[list[str]]:
    (body,) = table.all("tbody")
    return [[cell.text for cell in row.children] for row in body.all("tr") if "group" not in row.classes]


def test_cells(any_document: Document) -> None:
    root = parsed(page.render(any_document))
    sections = [section for section in any_document.sections if section.table is not None and section.table.rows]
    found = [table for table in root.all("table") if cells_of(table) != [["no rows"]]]
    for table, section in zip(found, sections, strict=True):
        data = section.table
        assert data is not None
        assert [each.text for each in table.one("thead").all("th")] == [column.heading for column in data.columns]
        assert cells_of(table) == [
            [written(cell, column.kind) for cell, column in zip(row, data.columns, strict=True)] for row in data.rows
        ]
        assert [each.text for each in table.all("tr", "group")] == list(data.groups.values())
        for row in table.all("tr")[1:]:
            if "group" not in row.classes:
                assert [("n" in cell.classes) for cell in row.children] == [column.numeric for column in data.columns]


def test_groups_begin_at_their_rows(document: Document) -> None:
    table = parsed(page.render(document)).all("table")[1]
    rows = table.one("tbody").all("tr")
    assert [place for place, row in enumerate(rows) if "group" in row.classes] == [0, 41]


def test_escaping(unusual: Document) -> None:
    text = page.render(unusual)
    root = parsed(text)
    scripts = root.all("script")
    assert [script.attributes.get("type") for script in scripts] == ["application/json", None]
    assert len(root.all("style")) == 1
    assert '<b>&"' not in text and "<script>alert" not in text
    hostile = unusual.title
    assert root.one("h1").text == hostile
    for kind in ("word", "sentence", "advice", "facts", "statement"):
        assert hostile in [each.text for each in root.all(kind=kind)]
    assert json.loads(scripts[0].text) == {name: text() for name, text in unusual.downloads.items()}
    many = next(each for each in root.all("svg", "curves") if each.children[0].text == "many")
    assert json.loads(many.attributes["data-values"])[3][0] == f"{hostile} 3"


def test_downloads_are_there_once(document: Document) -> None:
    text = page.render(document)
    content = next(each for each in parsed(text).all("script") if each.attributes.get("id") == "_files").text
    assert json.loads(content) == {name: text() for name, text in document.downloads.items()}
    assert text.count("nc1,0.0123") == 1
    names = [each.attributes["data-file"] for each in parsed(text).all("button")]
    assert names == list(document.downloads)


def test_no_other_format_writes_the_downloads(document: Document) -> None:
    def refuse() -> str:
        raise AssertionError

    unasked = replace(document, downloads={"report.json": refuse})
    for form in ("terminal", "markdown", "figures"):
        unasked.to(form)
    page.render(unasked, top=True)
    with pytest.raises(AssertionError):
        page.render(unasked)


def test_folds_filters_and_notes(document: Document) -> None:
    root = parsed(page.render(document))
    folded = [section.attributes["id"] for section in root.all("section") if section.all("details")]
    assert folded == ["conventions"]
    assert all("open" not in each.attributes for each in root.all("details"))
    (search,) = (each for each in root.all("input") if each.attributes["type"] == "search")
    assert "All measures" in search.attributes["aria-label"]
    output = root.one("output")
    assert (output.text, output.attributes["aria-live"]) == ("80 rows", "polite")
    assert root.one("details", "notes").one("summary").text == "3 notes"
    few = parsed(page.render(replace(document, notes=document.notes[:2])))
    assert not few.all("details", "notes") and document.notes[1] in few.one("div", "notes").text


def test_no_coordinate_is_undefined(any_document: Document) -> None:
    for svg in parsed(page.render(any_document)).all("svg"):
        for each in [svg, *svg.all()]:
            for name in ("d", "x", "y", "width", "height", "transform", "viewbox"):
                assert not re.search(r"nan|inf|None", each.attributes.get(name, "")), (name, each.attributes)


def test_pictures_have_a_title_and_a_description(any_document: Document) -> None:
    figures = [
        svg for svg in parsed(page.render(any_document)).all("svg") if svg.classes & {"curves", "bars", "matrix"}
    ]
    for svg in figures:
        assert svg.attributes["role"] == "img" and svg.attributes["tabindex"] == "0"
        assert svg.children[0].tag == "title" and svg.children[0].text
        assert svg.children[1].tag == "desc" and svg.children[1].text.startswith(svg.children[0].text)


def box_of(text: Element) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a line of text that isn't rotated."""
    x, y = float(text.attributes["x"]), float(text.attributes["y"])
    own = "".join(text.texts[1:] if text.all("title") else text.texts)
    size = 10 if text.classes & {"level-name", "mark-name"} else 9 if "value" in text.classes else 11
    long = width(own, size)
    left = x - (long if "end" in text.classes else long / 2 if "middle" in text.classes else 0)
    return left, y - 0.75 * size, left + long, y + 0.2 * size


def test_texts_are_inside_and_apart(any_document: Document) -> None:
    for svg in parsed(page.render(any_document)).all("svg"):
        if not svg.classes & {"curves", "bars"}:
            continue
        *_, wide, high = map(float, svg.attributes["viewbox"].split())
        flat = [text for text in svg.all("text") if "transform" not in text.attributes]
        boxes = {text: box_of(text) for text in flat}
        for text, (left, top, right, bottom) in boxes.items():
            assert left >= -1 and top >= -1 and right <= wide + 4 and bottom <= high + 1, (
                svg.children[0].text,
                text.text,
            )
        for text in svg.all("text"):
            if "transform" in text.attributes:  # at 45 degrees, ending at the tick
                x, y = map(float, re.findall(r"translate\(([\d.]+) ([\d.]+)", text.attributes["transform"])[0])
                reach = 0.71 * width("".join(text.texts[1:] if text.all("title") else text.texts), 11)
                assert x - reach >= -3 and y + reach <= high + 1, (svg.children[0].text, text.text)
        for one, other in combinations(flat, 2):
            a, b = boxes[one], boxes[other]
            across = min(a[2], b[2]) - max(a[0], b[0])
            down = min(a[3], b[3]) - max(a[1], b[1])
            assert across <= 1 or down <= 1, (svg.children[0].text, one.text, other.text)


def test_names_at_an_angle_are_apart() -> None:
    for count in (5, 12, 40, 60, 200):
        names = tuple(f"model.encoder.layers.{place}.attention" for place in range(count))
        series = Series("a", tuple(map(float, range(count))), (1.0,) * count)
        svg = drawn(Curves("t", "layer", (series,), categories=names))
        turned = [text for text in svg.all("text") if "transform" in text.attributes]
        across = [float(re.findall(r"translate\(([\d.]+)", text.attributes["transform"])[0]) for text in turned]
        assert len(across) >= 3
        assert min(after - before for before, after in pairwise(across)) >= 14.5
        longest = max(width("".join(text.texts[1:]), 11) for text in turned)
        assert across[0] - 0.71 * longest >= -3
        stride = math.ceil(count / len(turned))
        assert [text.one("title").text for text in turned] == list(names[::stride])


def test_short_names_are_unique() -> None:
    names = ["layer1.0.conv1.weight", "layer2.0.conv1.weight", "layer1.0.conv1.weight", "head"]
    short = shortened(names, 12)
    assert len(set(short)) == 4 and all(len(name) <= 12 for name in short) and short[3] == "head"
    assert shortened(["tench, Tinca tinca", "goldfish"], 8, beginnings=True) == ["tench, …", "goldfish"]
    assert shortened(["class number 10", "class number 11"], 8, beginnings=True) == ["…mber 10", "…mber 11"]


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([1.0, 300.0], ["10⁰", "10¹", "10²"]),
        ([1e-5, 8.0], ["10⁻⁴", "10⁻²", "10⁰"]),
        ([0.3, 3.0], ["0.2", "0.5", "1", "2", "5"]),
        ([1.3e-5, 9e-5], ["10⁻⁵", "2·10⁻⁵", "5·10⁻⁵", "10⁻⁴"]),
        ([0.0, 1.0, 300.0], ["0", "10⁰", "10¹", "10²"]),
        ([5.0], ["2", "5", "10"]),
    ],
)
def test_logarithmic_ticks(values: list[float], labels: list[str]) -> None:
    assert [label for _, label in axis(values, log=True).ticks] == labels


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0.0, 1.0], ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        ([-1.0, 1.0], ["−1.0", "−0.5", "0", "0.5", "1.0"]),
        ([0.0, 1e6], ["0", "2·10⁵", "4·10⁵", "6·10⁵", "8·10⁵", "10⁶"]),
        ([0.0, 5000.0], ["0", "1,000", "2,000", "3,000", "4,000", "5,000"]),
    ],
)
def test_linear_ticks(values: list[float], labels: list[str]) -> None:
    assert [label for _, label in axis(values).ticks] == labels


def test_zeros_have_a_ninth_of_a_logarithmic_axis() -> None:
    scale = axis([0.0, 1.0, 100.0], log=True)
    assert scale.share(0.0) == 0
    assert scale.share(100.0) - scale.share(1.0) == pytest.approx(0.89 / 1.08, rel=1e-9)
    assert scale.share(1.0) == pytest.approx(0.11 + 0.89 * 0.04 / 1.08, rel=1e-9)


def test_the_smallest_values_are_no_zeros() -> None:
    scale = axis([0.0, 1e-300, 1.0], log=True)
    assert scale.share(0.0) == scale.share(scale.ticks[0][0]) == 0
    assert scale.share(1e-300) > 0.11


def test_epochs_are_whole() -> None:
    assert [label for _, label in axis([1, 2, 3], whole=True).ticks] == ["1", "2", "3"]
    assert [label for _, label in axis([3], whole=True).ticks] == ["3"]


@pytest.mark.parametrize("log", [False, True])
def test_axes_of_any_range(log: bool) -> None:
    draw = np.random.default_rng(0)
    for _ in range(500):
        values = (10.0 ** draw.uniform(-12, 12, 2)).tolist()
        if not log:
            values[0] = -values[0]
        scale: Axis = axis(values, log=log)
        assert all(0 <= scale.share(value) <= 1 for value in values)
        shares = [scale.share(value) for value, _ in scale.ticks]
        assert 2 <= len(shares) <= 9 and shares == sorted(shares) and shares[0] >= -1e-6 and shares[-1] <= 1 + 1e-6
        assert min(after - before for before, after in pairwise(shares)) > 0.05
        assert len({label for _, label in scale.ticks}) == len(shares)
        middle = sum(values) / 2 if not log else math.sqrt(values[0] * values[1])
        assert scale.share(middle) == pytest.approx((scale.share(values[0]) + scale.share(values[1])) / 2, abs=1e-6)


def test_a_linear_curve_is_where_its_values_are() -> None:
    svg = drawn(Curves("t", "x", (Series("a", (0.0, 1.0, 2.0), (0.0, 5.0, 10.0)),)))
    name, xs, ys, places, values = json.loads(svg.attributes["data-values"])[0]
    assert (name, places, values) == ("a", ["0", "1", "2"], ["0", "5", "10"])
    assert xs[1] == pytest.approx((xs[0] + xs[2]) / 2, abs=0.1) and ys[1] == pytest.approx((ys[0] + ys[2]) / 2, abs=0.1)
    assert ys[0] > ys[2]
    path = svg.one("path", "line").attributes["d"]
    assert [float(each) for each in re.findall(r"[\d.]+", path)] == [
        c for pair in zip(xs, ys, strict=True) for c in pair
    ]
    ticks = {"".join(text.texts): float(text.attributes["y"]) for text in svg.all("text", "end")}
    assert ticks["0"] == pytest.approx(ys[0] + 3.8, abs=0.2) and ticks["10"] == pytest.approx(ys[2] + 3.8, abs=0.2)


def test_x_is_written_once_where_it_stays_the_same() -> None:
    short, long = (1.0, 2.0), (1.0, 2.0, 3.0)
    series = [Series("a", long, (1.0, 2.0, 3.0)), Series("b", long, (3.0, 2.0, 1.0)), Series("c", short, (1.0, 2.0))]
    values = json.loads(drawn(Curves("t", "x", tuple(series))).attributes["data-values"])
    assert [each[3] for each in values] == [["1", "2", "3"], None, ["1", "2"]]
    assert values[1][1] is None and values[2][1] == values[0][1][:2]
    crowded = (Series("a", (1.0, 1e6), (1.0, 2.0)), Series("b", (1.001, 1e6), (1.0, 2.0)))  # the same pixels
    values = json.loads(drawn(Curves("t", "x", crowded)).attributes["data-values"])
    assert [each[3] for each in values] == [["1", "1.000e+06"], ["1.001", "1.000e+06"]]


def test_gaps_break_lines() -> None:
    y = (1.0, 2.0, NAN, 3.0, NAN, 4.0, 5.0, INF)
    svg = drawn(Curves("t", "x", (Series("a", tuple(map(float, range(8))), y),)))
    assert svg.one("path", "line").attributes["d"].count("M") == 2
    assert svg.one("path", "dots").attributes["d"].count("M") == 5
    assert json.loads(svg.attributes["data-values"])[0][4] == ["1", "2", "3", "4", "5"]


def test_one_point_is_a_dot() -> None:
    svg = drawn(Curves("t", "x", (Series("a", (3.0,), (0.2,)),)))
    assert not svg.all("path", "line")
    assert svg.one("path", "dots").attributes["d"].count("M") == 1


def test_zeros_on_a_logarithmic_axis() -> None:
    svg = drawn(Curves("t", "x", (Series("a", (1.0, 2.0, 3.0), (1.0, 0.01, 0.0)),), log_y=True))
    assert svg.one("path", "zero").attributes["d"].count("M") == 1
    assert svg.one("path", "dots").attributes["d"].count("M") == 2
    axis_line = svg.all("path", "axis")[0].attributes["d"]
    bottom = float(re.findall(r"M[\d.]+ ([\d.]+)H", axis_line)[0])
    assert json.loads(svg.attributes["data-values"])[0][2][2] == bottom
    assert "0" in ["".join(text.texts) for text in svg.all("text", "tick")]
    none = drawn(Curves("t", "x", (Series("a", (1.0, 2.0), (1.0, 0.01)),), log_y=True))
    assert "0" not in ["".join(text.texts) for text in none.all("text", "tick") if "end" in text.classes]


def test_what_is_not_drawn_is_counted() -> None:
    figure = Curves("t", "x", (Series("a", (1.0, 2.0, 3.0, 4.0), (1.0, -1.0, INF, NAN)),), log_y=True)
    assert undrawn(figure) == "Not drawn: 1 infinite and 1 below 0 (logarithmic axis)."
    assert undrawn(replace(figure, log_y=False)) == "Not drawn: 1 infinite."
    assert undrawn(Curves("t", "x", (Series("a", (1.0,), (NAN,)),))) == ""


def test_levels_never_cover_each_other() -> None:
    for share in np.linspace(0, 1, 41):
        for away in (-0.3, -0.05, 0.0, 0.02, 0.1):
            target, shuffled = float(share), float(min(max(share + away, 0), 1))
            svg = drawn(Curves("t", "x", (Series("a", (0.0, 1.0), (0.0, 1.0)),), target=target, shuffled=shuffled))
            names = svg.all("text", "level-name")
            assert [text.text for text in names][::2] == ["target", "shuffled"]
            heights = sorted(float(text.attributes["y"]) for text in names)
            assert min(after - before for before, after in pairwise(heights)) >= 10
            assert len(svg.all("path", "level")) == 2


def test_marks_are_where_they_are() -> None:
    series = Series("a", (0.0, 10.0), (0.0, 1.0))
    svg = drawn(Curves("t", "x", (series,), marks=((5.0, "five"), (5.1, "next to it"), (99.0, "far"))))
    xs = json.loads(svg.attributes["data-values"])[0][1]
    lines = [float(re.findall(r"M([\d.]+)", line.attributes["d"])[0]) for line in svg.all("path", "mark")]
    assert lines[0] == pytest.approx((xs[0] + xs[1]) / 2, abs=0.1)
    assert (lines[2] - xs[0]) / (xs[1] - xs[0]) == pytest.approx(9.9, abs=0.05)
    assert {text.text for text in svg.all("text", "mark-name")} == {"five", "next to it", "far"}
    heights = {text.text: float(text.attributes["y"]) for text in svg.all("text", "mark-name")}
    assert heights["five"] != heights["next to it"]


def test_a_band_is_as_wide_as_the_error() -> None:
    svg = drawn(Curves("t", "x", (Series("a", (0.0, 1.0), (5.0, 5.0), error=(2.0, 1.0)),)))
    ys = [float(y) for y in re.findall(r" ([\d.]+)", svg.one("path", "band").attributes["d"])]
    ticks = {"".join(text.texts): float(text.attributes["y"]) for text in svg.all("text", "end")}
    unit = ticks["4"] - ticks["5"]
    assert abs(ys[0] - ys[3]) == pytest.approx(4 * unit, abs=0.3) and abs(ys[1] - ys[2]) == pytest.approx(
        2 * unit, abs=0.3
    )


def test_variants_are_hidden_first(document: Document) -> None:
    figure = parsed(page.render(document)).all("figure")[0]
    assert figure.one("input", "more").attributes["type"] == "checkbox"
    assert figure.one("label").text == "show variants (2)"
    names = [
        [values[0] for values in json.loads(figure.one(kind=part).one("svg", "curves").attributes["data-values"])]
        for part in ("brief", "full")
    ]
    assert names == [["trace ratio", "CDNV", "held out"], ["trace ratio", "CDNV", "held out", "VCI", "pooled"]]
    legends = [
        [item.text for item in figure.one(kind=part).one("ul", "legend").all("li")] for part in ("brief", "full")
    ]
    assert legends == [[*each, "exactly 0"] for each in names]


def test_curves_differ_by_more_than_colour() -> None:
    roles = ("main", "held-out", "variant", "reference")
    series = [Series(f"{role} {place}", (), (), role) for role in roles for place in range(5)]  # type: ignore[arg-type]
    looks = styles(series)
    drawn = [
        (look.dash, look.marker if each.role != "reference" else "") for look, each in zip(looks, series, strict=True)
    ]
    assert len(set(drawn)) == len(drawn)
    assert {look.colour for look, each in zip(looks, series, strict=True) if each.role == "held-out"} == {"held-out"}
    assert all(look.dash for look, each in zip(looks, series, strict=True) if each.role != "main")
    assert looks[0].dash == () and len({look.colour for look in looks[:5]}) == 5


def test_bars_are_as_high_as_their_values() -> None:
    svg = drawn(Bars("t", ("a", "b", "c", "d"), (1.0, 0.5, None, 0.0), ("n = 1", "n = 2", "n = 3", "n = 4")))
    _, xs, tops, names, values = json.loads(svg.attributes["data-values"])[0]
    base = tops[3]
    assert base - tops[0] == pytest.approx(2 * (base - tops[1]), abs=0.2) and base - tops[0] == pytest.approx(
        172, abs=0.2
    )
    assert names == ["a · n = 1", "b · n = 2", "c · n = 3", "d · n = 4"] and values == ["1", "0.5", "–", "0"]
    assert svg.one("path", "bar").attributes["d"].count("M") == 3
    labels = ["".join(text.texts) for text in svg.all("text")]
    assert {"a", "n = 4", "0.5", "–"} <= set(labels)
    assert xs == sorted(xs)


def test_many_bars_are_wider_than_a_panel() -> None:
    bars = Bars("t", tuple(f"class {place}" for place in range(300)), (0.5,) * 300)
    root = parsed(page.render(Document("t", sections=(Section("a", "A", figures=(bars,)),))))
    assert "wide" in root.one("figure").classes and root.one("figure").all("div", "scroll")
    svg = root.one("svg", "bars")
    assert float(svg.attributes["viewbox"].split()[2]) > 300 * 14
    assert len([text for text in svg.all("text") if "transform" in text.attributes]) == 300


def image_of(svg: Element) -> np.ndarray:
    """The pixels of a matrix's picture, read by another library."""
    address = svg.all("image")[0].attributes["href"]
    assert address.startswith("data:image/png;base64,")
    return np.array(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGBA"))


def test_pixels_of_a_matrix() -> None:
    pixels = image_of(
        drawn(Matrix("t", ((-2.0, 0.5, 3.0), (NAN, 9.0, -9.0), (1.0, 0.0, 0.5)), tuple("abc"), -2, 0.5, 3))
    )
    assert pixels.shape == (3, 3, 4)
    for place, colour in {
        (0, 0): ORANGE,
        (0, 1): WHITE,
        (0, 2): BLUE,
        (1, 1): BLUE,
        (1, 2): ORANGE,
        (2, 2): WHITE,
    }.items():
        assert tuple(pixels[place]) == (*colour, 255)
    assert pixels[1, 0, 3] == 0
    red, _, blue, _ = pixels[2, 0].astype(int)
    assert BLUE[0] < red < 255 and blue > red  # between neutral and blue
    red, _, blue, _ = pixels[2, 1].astype(int)
    assert ORANGE[2] < blue < 255 and red > blue


def test_a_png_is_what_was_written() -> None:
    rows = [bytes([1, 2, 3, 4]), bytes([4, 3, 2, 0])]
    colours = [(9, 9, 9), (1, 2, 3), (40, 50, 60), (255, 0, 128), (7, 8, 9)]
    image = Image.open(io.BytesIO(png(rows, colours)))
    image.load()
    assert image.size == (4, 2)
    found = np.array(image.convert("RGBA"))
    assert (found[..., :3] == np.array(colours)[np.array([list(row) for row in rows])]).all()
    assert found[..., 3].tolist() == [[255] * 4, [255, 255, 255, 0]]


def test_a_large_matrix_is_shown_by_blocks() -> None:
    count = 900
    values = np.zeros((count, count))
    values[:3, 3:6] = 1.0
    values[6:9, :3] = np.nan
    figure = Matrix("t", tuple(map(tuple, values.tolist())), tuple(map(str, range(count))), -1, 0, 1)
    shown = levels(figure)
    assert shown.shape == (300, 300)
    assert (shown[0, 1], shown[0, 0], shown[2, 0]) == (1 + 2 * LEVELS, 1 + LEVELS, 0)
    text = page.render(Document("t", sections=(Section("a", "A", figures=(figure,)),)))
    assert "Each point is the mean of 3 × 3 values." in text


def test_values_and_names_of_a_matrix() -> None:
    def square(count: int, value: float = 0.12345) -> Element:
        names = tuple(f"class {place}" for place in range(count))
        return drawn(Matrix("t", ((value,) * count,) * count, names, -1, 0, 1, outlined=((0, 1),)))

    svg = square(30)
    _, names, rows = json.loads(svg.attributes["data-values"])
    assert names[29] == "class 29" and rows == [[0.123] * 30] * 30
    assert sum("class 29" in text.text for text in svg.all("text")) == 2
    assert not [text for text in square(31).all("text") if "class" in text.text]
    assert json.loads(square(100).attributes["data-values"])[2] == [[0.123] * 100] * 100
    assert json.loads(square(101).attributes["data-values"]) == []
    assert json.loads(square(2, 1.2345e-5).attributes["data-values"])[2][0] == [1.23e-5] * 2
    left, top, side = map(float, json.loads(square(2).attributes["data-values"])[0])
    outline = square(2).one("path", "outline").attributes["d"]
    assert [float(each) for each in re.findall(r"M([\d.]+) ([\d.]+)h([\d.]+)", outline)[0]] == pytest.approx(
        [left + side / 2, top, side / 2], abs=0.1
    )


@pytest.mark.parametrize("figure", [Bars("t", ("a",), (0.5,)), Matrix("t", ((1.0,),), ("a",), -1, 0, 1)])
def test_how_to_read_a_picture_is_below_its_title(figure: Bars | Matrix) -> None:
    def drawn_with(note: str) -> Element:
        document = Document("t", sections=(Section("a", "A", figures=(replace(figure, note=note),)),))
        return parsed(page.render(document)).one("figure")

    shown = drawn_with("White: <none>.")
    assert shown.one("figcaption").text == "t" and shown.one("p", "undertitle").text == "White: <none>."
    assert [each.tag for each in shown.children[:2]] == ["figcaption", "p"]
    assert not drawn_with("").all("p", "undertitle")


def luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_contrast(colours: dict[str, str]) -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    for name, colour in colours.items():
        if name.startswith(("curve-", "held-out")):
            assert contrast(colour, colours["card"]) >= 3, name
        if name in ("ink", "soft", "link", "good", "near", "bad", "unknown", "held-out"):
            assert contrast(colour, colours["card"]) >= 4.5, name
        if name in ("ink", "soft", "link"):
            assert contrast(colour, colours["page"]) >= 4.5, name
    assert DARK.keys() == LIGHT.keys()


def test_the_style_names_colours_that_exist(document: Document) -> None:
    style = parsed(page.render(document)).one("style").text
    defined = set(re.findall(r"--([\w-]+):", style))
    assert set(re.findall(r"var\(--([\w-]+)\)", style)) <= defined
    assert "prefers-color-scheme:dark" in style and "@media print" in style


def test_sizes(document: Document) -> None:
    assert len(files("tightframe.render").joinpath("page.js").read_bytes()) <= 12 * 1024
    assert len(page.render(document).encode()) < 150_000
    columns = (Column("class", "name"), *(Column(f"column {place}", "number") for place in range(8)))
    rows = tuple((f"class {row}", *(row * 1.2345 + place for place in range(8))) for row in range(1000))
    table = Section("t", "T", table=Table(columns, rows), searchable=True)
    assert len(page.render(replace(document, sections=(*document.sections, table))).encode()) < 1_000_000


def test_five_thousand_rows() -> None:
    rows = tuple((f"class {row}", row) for row in range(5000))
    table = Table((Column("class", "name"), Column("samples", "count")), rows)
    root = parsed(page.render(Document("t", sections=(Section("t", "T", table=table, searchable=True),))))
    assert cells_of(root.one("table"))[4999] == ["class 4999", "4,999"]
    assert root.one("output").text == "5,000 rows"


def test_times_are_those_of_the_contract(document: Document) -> None:
    exact = replace(document.cards[0], closeness=INF)
    element = parsed(page.render(replace(document, cards=(exact,)))).one(kind="card")
    assert element.one(kind="closeness").text == times(INF) == "exact"
    undefined = replace(document.cards[0], closeness=None)
    assert not parsed(page.render(replace(document, cards=(undefined,)))).all(kind="closeness")
