"""A document in the terminal: every number whole, no line too long, nothing read as markup, whatever the width."""

import math
from dataclasses import replace

import pytest
from rich.cells import cell_len

from tightframe.render.terminal import render
from tightframe.sections import (
    Bars,
    Card,
    Column,
    Curves,
    Document,
    Matrix,
    Remark,
    Section,
    Series,
    Table,
    Verdict,
    error_text,
    short,
    times,
    written,
)

WIDTHS = (30, 40, 60, 80, 100, 150, 200)

CARDS = (
    Card(
        *("NC1", "samples sit at their class mean", "nc1", 0.00123456, 0.0001, 0.0, 0.987654),
        *(653.2, "650× nearer", 0.25),
    ),
    Card(
        *("NC2", "class means form a simplex ETF", "etf_error", 0.71, None, 0.0, 0.64),
        *(0.9, "no better than shuffled labels"),
    ),
    Card(
        *("NC3", "classifier rows = class means", "nc3_cosine", -0.361, 0.2, 1.0, -0.03),
        *(math.inf, "at target", math.nan),
    ),
    Card("NC4", "decides like the nearest centre", "ncc_mismatch", math.nan),
)
TABLE = Table(
    (
        *(Column("measure", "name"), Column("value", "number"), Column("± s.e.", "number"), Column("n", "count")),
        *(Column("remark"), Column("source", "source")),
    ),
    (
        ("NC1  tr(Σ_W Σ_B⁺)/K", 0.00012345, 0.5, 60_000, "at target", "Papyan, Han & Donoho 2020"),
        ("‖ŵ − μ̂‖, mean", -1.23456e-05, None, 7, "", "Wu & Papyan 2024"),
        ("[red]undefined[/red]", math.nan, math.inf, None, "[/]", "[link=x]"),
    ),
    {0: "NC1", 1: "NC3 [bold]"},
)  # fmt: skip
SECTION = Section("table", "All [i]measures", ("What is shown.", "What [b]is[/b] found."), TABLE)
DOCUMENT = Document(
    "title [/x]",
    ("epoch 3", "4 classes"),
    Verdict("COLLAPSED", "Samples sit at their class means [red].", "good", "Do nothing.", "held-out accuracy 8.0 %"),
    (Remark("crowded", "200 classes cannot form a simplex ETF.", "Use more dimensions."), Remark("other", "Odd [/b].")),
    CARDS,
    (SECTION,),
    ("beware of [/this]", "and of that"),
)


def lines_of(document: Document, width: int) -> list[str]:
    return render(document, width=width).splitlines()


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_exceeds_the_width(width: int) -> None:
    assert [line for line in lines_of(DOCUMENT, width) if cell_len(line) > width] == []


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_cut_and_nothing_is_markup(width: int) -> None:
    text = words(render(DOCUMENT, width=width))
    for part in (
        "title [/x] · epoch 3 · 4 classes", "200 classes cannot form a simplex ETF.", "Odd [/b].", "Beware of [/this]",
        "And of that", "All [i]measures", "What is shown. What [b]is[/b] found.", "NC3 [bold]",
        "held-out accuracy 8.0 %",
    ):  # fmt: skip
        assert all(word in text for word in part.split()), part
    assert "…" not in text


def test_the_verdict_its_advice_and_the_state() -> None:
    lines = lines_of(DOCUMENT, 100)
    assert lines[0] == "title [/x] · epoch 3 · 4 classes"
    assert lines[1].split("  ")[:2] == ["COLLAPSED", "Samples sit at their class means [red]. Do nothing."]
    assert lines[2].strip() == "held-out accuracy 8.0 %"
    assert lines[2].index("held-out") == lines[1].index("Samples")


# ---------------------------------------------------------------------------------------------- cards


def card_lines(width: int) -> list[str]:
    lines = lines_of(replace(DOCUMENT, sections=(), remarks=(), notes=()), width)
    return lines[next(place for place, line in enumerate(lines) if "now" in line.split()) :]


def test_a_line_for_each_card() -> None:
    heading, *lines = card_lines(120)
    assert heading.split("  ")[-1].strip() == "held out"
    assert heading.split() == ["measure", "now", "±", "s.e.", "target", "shuffled", "closer", "held", "out"]
    assert len(lines) == len(CARDS)
    for line, card in zip(lines, CARDS, strict=True):
        assert line.startswith(f"{card.label} {card.statement}  ")
        closer = "no" if card.remark.startswith("no better") else times(card.closeness)
        assert line.split(card.statement)[1].split() == [
            *(card.key, short(card.value), error_text(card.error), short(card.target), short(card.shuffled), closer),
            short(card.held_out),
        ]


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (103, ["measure", "now", "± s.e.", "target", "shuffled", "closer", "held out"]),
        (102, ["measure", "now", "target", "shuffled", "closer", "held out"]),
        (94, ["measure", "now", "target", "shuffled", "closer", "held out"]),
        (93, ["now", "target", "shuffled", "closer", "held out"]),
        (80, ["now", "target", "shuffled", "closer", "held out"]),
        (79, ["now", "target", "shuffled", "closer"]),
        (70, ["now", "target", "shuffled", "closer"]),
        (69, ["now", "shuffled", "closer"]),
        (62, ["now", "shuffled", "closer"]),
        (61, ["now", "closer"]),
        (30, ["now", "closer"]),
    ],
)
def test_columns_make_room_in_their_order(width: int, shown: list[str]) -> None:
    heading = card_lines(width)[0]
    assert [word.strip() for word in heading.split("  ") if word.strip()] == shown


@pytest.mark.parametrize("width", WIDTHS)
def test_value_and_closeness_are_whole_at_any_width(width: int) -> None:
    text = "\n".join(card_lines(width))
    for card in CARDS:
        line = next(line for line in text.splitlines() if line.startswith(f"{card.label} "))
        assert short(card.value) in line.split()
    assert [word for word in ("650×", "no", "exact", "–") if word not in text.split()] == []


def test_without_held_out_data_no_column_for_them() -> None:
    cards = tuple(replace(card, held_out=None) for card in CARDS)
    assert "held out" not in render(replace(DOCUMENT, cards=cards), width=200)


# ---------------------------------------------------------------------------------------------- what is odd, and notes


def many(count: int) -> Document:
    remarks = tuple(Remark(f"r{i}", f"Remark {i}.") for i in range(count))
    notes = tuple(f"note {i}." for i in range(count))
    return replace(DOCUMENT, remarks=remarks, notes=notes, sections=())


@pytest.mark.parametrize(("count", "shown"), [(0, 0), (1, 1), (4, 4), (5, 4), (7, 4)])
def test_of_what_is_odd_four_are_shown_and_the_rest_is_counted(count: int, shown: int) -> None:
    text = render(many(count), width=100)
    assert [f"Remark {i}." in text for i in range(count)] == [i < shown for i in range(count)]
    assert (f"and {count - shown} more." in text) is (count > shown)


def test_a_short_form_prints_one_short_note_or_counts_them() -> None:
    def notes_of(*notes: str) -> str:
        return render(replace(DOCUMENT, notes=notes, sections=()), width=100)

    where = "these numbers: --all on the command line, report.notes in Python."
    assert "Note 0." in notes_of("note 0.") and where not in notes_of("note 0.")
    assert f"2 notes qualify {where}" in notes_of("note 0.", "note 1.")
    assert "Note 0." not in notes_of("note 0.", "note 1.")
    assert f"1 note qualifies {where}" in notes_of(171 * "x")
    assert where not in notes_of(" ".join(34 * ["four"]))
    assert "note" not in notes_of()


def test_all_notes_where_all_is_shown() -> None:
    text = render(replace(many(7), sections=(SECTION,)), width=100)
    assert all(f"Note {i}." in text for i in range(7)) and "qualify" not in text


def test_a_label_is_said_once() -> None:
    lines = lines_of(replace(many(3), sections=(SECTION,)), 100)
    assert [line.split()[0] for line in lines if "Remark" in line] == ["odd", "Remark", "Remark"]
    assert [line.split()[0] for line in lines if "Note" in line] == ["note", "Note", "Note"]
    assert len({line.index("Remark") for line in lines if "Remark" in line}) == 1


def test_briefs_stand_for_sections_that_are_not_shown() -> None:
    hidden = replace(SECTION, shown=False, brief="In a line.")
    text = render(replace(DOCUMENT, sections=(hidden, replace(hidden, key="silent", brief=""))), width=100)
    (line,) = [line for line in text.splitlines() if "In a line." in line]
    assert line.split()[0] == "table"
    assert "All [i]measures" not in text and "silent" not in text
    shown = render(replace(DOCUMENT, sections=(replace(hidden, shown=True),)), width=100)
    assert "In a line." not in shown and "All [i]measures" in shown


# ---------------------------------------------------------------------------------------------- tables


NARROW = "A wider terminal"


def table_lines(width: int, table: Table = TABLE) -> list[str]:
    """The table's lines, without the one that says what was left out."""
    section = Section("table", "heading", (), table)
    lines = render(Document("title", sections=(section,)), width=width).splitlines()[3:]
    ends = [place for place, line in enumerate(lines) if line.startswith(NARROW)]
    return lines[: ends[0]] if ends else lines


def test_what_a_narrow_terminal_leaves_out_is_said() -> None:
    columns = (Column("name", "name"), *(Column(f"column {c}", "number", optional=c in "ac") for c in "abc"))
    section = Section("table", "heading", (), Table(columns, (("a" * 20, 1.0, 2.0, 3.0),)))
    for width, left_out in ((53, ""), (52, "column c"), (41, "column a, column c")):
        text = " ".join(render(Document("title", sections=(section,)), width=width).split())
        said = f"{NARROW} shows more columns: {left_out}."
        assert (said in text) if left_out else (NARROW not in text)


def test_a_table_with_room() -> None:
    heading, rule, *lines = table_lines(150)
    assert heading.split() == ["measure", "value", "±", "s.e.", "n", "remark", "source"]
    assert set(rule.strip()) == {"─"}
    assert [line.split("  ")[0].rstrip() for line in lines] == [
        "NC1", "NC1", "NC3 [bold]", "‖ŵ − μ̂‖, mean", "[red]undefined[/red]",
    ]  # fmt: skip
    for row in TABLE.rows:
        (line,) = [line for line in lines if line.startswith(str(row[0]))]
        shown = [written(cell, column.kind) for cell, column in zip(row[1:], TABLE.columns[1:], strict=True)]
        assert line.removeprefix(str(row[0])).split() == " ".join(shown).split()


@pytest.mark.parametrize("optional", [False, True])
@pytest.mark.parametrize("width", range(30, 120))
def test_no_cell_is_cut_at_any_width(width: int, optional: bool) -> None:
    """But a name, which may be folded."""
    columns = tuple(replace(column, optional=optional and column.heading == "± s.e.") for column in TABLE.columns)
    lines = table_lines(width, replace(TABLE, columns=columns))
    assert max(map(cell_len, lines)) <= width
    found = words("\n".join(lines)).split()
    for row in TABLE.rows:
        for cell, column in zip(row[1:], columns[1:], strict=True):
            text = written(cell, column.kind)
            shown = column.kind != "source" or any("source" in line for line in lines)
            if text != "–" and shown and (not column.optional or any(column.heading in line for line in lines)):
                assert [word for word in text.split() if word not in found] == []
    first = "".join("".join(line.split("   ")[0].split()) for line in lines)
    assert [row[0] for row in TABLE.rows if "".join(str(row[0]).split()) not in first] == []


def test_optional_columns_go_first_the_last_of_them_before_others() -> None:
    columns = (Column("name", "name"), *(Column(f"column {c}", "number", optional=c in "ac") for c in "abc"))
    table = Table(columns, (("a" * 20, 1.0, 2.0, 3.0),))

    def headings(width: int) -> list[str]:
        return [word for word in table_lines(width, table)[0].split() if word not in ("name", "column")]

    expected = {53: ["a", "b", "c"], 52: ["a", "b"], 42: ["a", "b"], 41: ["b"], 31: ["b"]}
    assert {width: headings(width) for width in expected} == expected
    folded = table_lines(29, table)
    assert folded[0].split() == ["name", "column", "b"]
    assert [line.split()[0] for line in folded[2:]] == [18 * "a", 2 * "a"]
    block = [line.rstrip() for line in table_lines(28, table)]
    assert block == [20 * "a", "column a 1 · column b 2 ·", "column c 3"]


def test_spare_columns_go_before_other_optional_ones() -> None:
    columns = (Column("name", "name"), *(Column(f"{c}", "number", True, spare=c == "±") for c in ("a", "±", "b", "±")))
    section = Section("table", "heading", (), Table(columns, (("n" * 10, 1.0, 2.0, 3.0, 4.0),)))
    for width, headings in ((26, ["a", "±", "b", "±"]), (25, ["a", "±", "b"]), (21, ["a", "b"]), (17, ["a"])):
        text = render(Document("title", sections=(section,)), width=width)
        assert text.splitlines()[3].split() == ["name", *headings]
        if len(headings) == 2:
            assert f"{NARROW} shows more columns: ±." in " ".join(text.split())


def test_a_last_column_of_text_is_folded_after_the_name() -> None:
    text = "the best code in the built-in table"
    table = Table((Column("name", "name"), Column("value", "number"), Column("remark")), (("a" * 20, 12.0, text),))
    for width, name in ((66, 20), (65, 19), (64, 18), (63, 18), (47, 18)):
        heading, _, *rows = table_lines(width, table)
        assert heading.split() == ["name", "value", "remark"]
        assert len(rows[0].split()[0]) == name
        remark = heading.index("remark")
        assert " ".join(row[remark:].strip() for row in rows).strip() == text
        assert len(rows) == (1 if width == 66 else 2)
    assert table_lines(46, table)[0].rstrip() == 20 * "a"


@pytest.mark.parametrize("width", [100, 150])
def test_numbers_end_in_their_columns(width: int) -> None:
    """Counted in cells: an accent over a letter takes none."""
    heading, _, *lines = table_lines(width)
    for place, column in enumerate(TABLE.columns):
        if column.numeric:
            end = cell_len(heading[: heading.index(column.heading) + len(column.heading)])
            for row in TABLE.rows:
                (line,) = [line for line in lines if line.startswith(str(row[0]))]
                cell = written(row[place], column.kind)
                starts = [start for start in range(len(line)) if line.startswith(f" {cell}", start)]
                assert end in [cell_len(line[: start + 1 + len(cell)]) for start in starts], (column.heading, cell)


def test_sources_are_the_first_to_go() -> None:
    narrower = table_lines(80)
    assert narrower[0].split() == ["measure", "value", "±", "s.e.", "n", "remark"]
    assert not any("Papyan" in line for line in narrower)
    assert any("60,000" in line for line in narrower)


def test_without_room_each_row_is_a_block() -> None:
    lines = table_lines(40)
    text = words("\n".join(lines))
    assert lines[:2] == ["NC1", "NC1  tr(Σ_W Σ_B⁺)/K"]
    assert "value 1.234e-04 · ± s.e. 0.5 · n 60,000 · remark at target · source Papyan, Han & Donoho 2020" in text
    assert "NC3 [bold] ‖ŵ − μ̂‖, mean value −1.235e-05 · n 7 · source Wu & Papyan 2024" in text
    assert "[red]undefined[/red] ± s.e. inf · remark [/] · source [link=x]" in text  # what isn't there isn't said
    assert max(map(cell_len, lines)) <= 40


def test_headings_are_no_markup() -> None:
    table = Table((Column("[/fc]", "name"), Column("[red]one", "number")), (("a", 1.0),))
    assert table_lines(100, table)[0].split() == ["[/fc]", "[red]one"]


def test_columns_of_one_heading_are_all_shown() -> None:
    """As the two standard errors of detectors."""
    columns = (Column("a", "name"), Column("±", "number"), Column("b", "number"), Column("±", "number"))
    table = Table(columns, (("x", 1.0, 2.0, 3.0),))
    assert table_lines(100, table)[2].split() == ["x", "1", "2", "3"]


def test_an_empty_table_prints_its_heading_alone() -> None:
    section = Section("table", "heading", ("hint",), Table(TABLE.columns, ()))
    assert render(Document("title", sections=(section,))).splitlines() == ["title", "", "heading", "hint"]


def test_figures_of_a_section_without_table_are_told() -> None:
    curve = Curves("NC1", "epoch", (Series("a", (1.0, 2.0, 3.0), (5.0, math.nan, 0.0)), Series("b", (1.0,), (9.0,))))
    figures = (
        Bars("bars", ("[ant]", "bee"), (0.5, None)), curve, Curves("empty", "epoch", ()),
        Matrix("matrix", ((1.0,),), ("a",), -1, 0, 1),
    )  # fmt: skip
    section = Section("figures", "heading", (), None, figures)
    lines = render(Document("title", sections=(section,))).splitlines()
    assert lines == ["title", "", "heading", "[ant] 0.5 · bee –", "NC1: 5 → 0"]
    with_table = replace(section, table=Table((Column("a", "name"),), (("x",),)))
    assert "[ant]" not in render(Document("title", sections=(with_table,)))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ((0.97, 0.99, None, 0.9535, 0.98, math.nan, 0.96, 1.0), "lowest: d 0.9535 · g 0.96 · a 0.97 · e 0.98 · b 0.99"),
        ((None,) * 8, None),
    ],
)
def test_of_many_bars_the_lowest_are_told(values: tuple[float | None, ...], told: str | None) -> None:
    bars = Bars("bars", tuple("abcdefgh"), values, note="Below: counts.")
    lines = render(Document("title", sections=(Section("bars", "heading", (), None, (bars,)),))).splitlines()
    assert lines == ["title", "", "heading", *([] if told is None else [told])]


def test_the_smallest_document() -> None:
    assert render(Document("title")).splitlines() == ["title"]


def test_where_the_rest_is() -> None:
    assert render(Document("title"), more="see [/page].html").splitlines() == ["title", "see [/page].html"]


def test_printed_it_takes_the_width_of_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert render(DOCUMENT, printed=True) == ""
    printed = capsys.readouterr().out
    assert printed == render(DOCUMENT, width=60)
