"""Layers as rows and points, and what short forms say of them."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from tightframe import Report
from tightframe.metrics import Evidence
from tightframe.report import Entry
from tightframe.report.profile import Profile
from tightframe.sections import Curves, Series

Make = Callable[..., Evidence]


def entry(name: str, value: float, split: str = "train", target: float = 0.0) -> Entry:
    return Entry(name, split, name, "NC1", value, target, None, None, None, "", "", True)


def layer(
    name: str | None, dim: int, accuracy: float, nc1: float, held_out: float = math.nan, **facts: float
) -> Report:
    entries = (
        entry("nc1", nc1),
        entry("ncc_accuracy", accuracy, target=1.0),
        entry("ncc_accuracy", held_out, "test", 1.0),
        entry("numerical_rank", dim / 2, target=3.0),
    )
    return Report(entries).extended(facts={"layer": name, "dimension": dim, **facts})


def measured(epoch: float | None, nc1: tuple[float, float, float]) -> Report:
    *before, last = (
        layer(name, dim, accuracy, value, held_out, epoch=epoch)
        for name, dim, accuracy, held_out, value in zip(
            ("conv", "block", "input of fc"), (64, 32, 8), (0.5, 0.995, 1.0), (0.4, 0.9, 0.95), nc1, strict=True
        )
    )
    return replace(last, layers=tuple(before))


def figures(report: Report) -> dict[str, Curves]:
    section = report.section("depth")
    assert section is not None
    return {figure.title: figure for figure in section.figures if isinstance(figure, Curves)}


def measured_curves(report: Report) -> list[Series]:
    """The curves of NC1 without the line of equi-separation."""
    return [curve for curve in figures(report)["NC1"].series if curve.name != "equi-separation"]


def test_a_row_for_each_layer() -> None:
    section = measured(3, (5.0, 0.5, 0.0)).section("depth")
    assert section is not None and section.table is not None
    assert [column.heading for column in section.table.columns] == [
        "layer", "D", "NC1", "nearest-centre accuracy", "held out", "rank",
    ]  # fmt: skip
    assert section.table.rows == (
        ("conv", 64, 5.0, 0.5, 0.4, 32.0),
        ("block", 32, 0.5, 0.995, 0.9, 16.0),
        ("input of fc", 8, 0.0, 1.0, 0.95, 4.0),
    )  # fmt: skip


def test_what_a_layer_lacks_is_left_out() -> None:
    report = measured(3, (5.0, 0.5, 0.0))
    first = replace(report.layers[0], entries=report.layers[0].entries[1:])
    section = replace(report, layers=(first, *report.layers[1:])).section("depth")
    assert section is not None and section.table is not None
    assert [row[2] for row in section.table.rows] == [None, 0.5, 0.0]
    nc1 = figures(replace(report, layers=(first, *report.layers[1:])))["NC1"].series[0]
    assert math.isnan(nc1.y[0]) and nc1.y[1:] == (0.5, 0.0)


def test_a_figure_for_each_measure() -> None:
    found = figures(measured(3, (5.0, 0.5, 0.0)))
    assert list(found) == ["NC1", "nearest-centre accuracy", "numerical rank of Σ_T"]
    assert [(figure.log_y, figure.target) for figure in found.values()] == [(True, 0.0), (False, 1.0), (False, 3.0)]
    assert all(figure.categories == ("conv", "block", "input of fc") for figure in found.values())
    now, held_out = found["nearest-centre accuracy"].series
    assert (now.name, now.role, now.x, now.y) == ("epoch 3", "main", (0.0, 1.0, 2.0), (0.5, 0.995, 1.0))
    assert (held_out.name, held_out.role, held_out.y) == ("held out", "held-out", (0.4, 0.9, 0.95))
    (nc1,) = found["NC1"].series
    assert nc1.y == (5.0, 0.5, 0.0)


def test_layers_without_a_name_are_numbered() -> None:
    unnamed = layer(None, 4, 1.0, 0.1)
    assert figures(replace(unnamed, layers=(unnamed,)))["NC1"].categories == ("1", "2")


@pytest.mark.parametrize(
    ("epochs", "shown"),
    [([7], [7]), ([1, 7], [7, 1]), ([1, 2, 3, 4, 5, 6, 7, 8, 9], [9, 7, 5, 3, 1]), ([None, None], ["now", "now"])],
)
def test_earlier_measurements_are_drawn_for_comparison(epochs: list[float | None], shown: list[float | str]) -> None:
    *history, last = (measured(epoch, (5.0, place, 0.1)) for place, epoch in enumerate(epochs))
    curves = measured_curves(replace(last, history=tuple(history)))
    assert [each.name for each in curves] == [each if isinstance(each, str) else f"epoch {each}" for each in shown]
    assert [each.role for each in curves] == ["main", *["reference"] * (len(shown) - 1)]
    if None not in epochs:
        assert [each.y[1] for each in curves] == [epochs.index(epoch) for epoch in shown]


def test_sessions_are_named() -> None:
    first, last = (measured(60 * session, (5.0, 0.5, 0.1)).extended(facts={"session": session}) for session in (1, 2))
    curves = measured_curves(replace(last, history=(first,)))
    assert [each.name for each in curves] == ["session 2", "session 1"]


def test_measurements_of_other_layers_are_left_out() -> None:
    report = measured(7, (5.0, 0.5, 0.1))
    one = replace(measured(1, (5.0, 0.5, 0.1)), layers=())
    assert [each.name for each in measured_curves(replace(report, history=(one,)))] == ["epoch 7"]


def test_the_effective_depth_in_a_line() -> None:
    report = measured(3, (5.0, 0.5, 0.0))
    section = report.section("depth")
    assert section is not None
    assert section.sentences[1:] == (
        "Effective depth 2 of 3: block is the first layer with a nearest-centre error of 0.01 or less.",
        "The tunnel begins at block (2 of 3): its nearest-centre accuracy is at least 95% of the last layer's.",
    )
    (brief,) = [each.brief for each in report.document(()).sections]
    assert brief == section.sentences[1]


def test_the_law_of_equi_separation_in_a_sentence_and_a_line() -> None:
    report = measured(3, (8.0, 1.0, 0.5))
    slope = math.log(0.5 / 8) / 2  # of three points, the middle one does not turn the line
    law = Profile.of(report).separation()
    assert law.rate == pytest.approx(math.exp(slope), rel=1e-12) == pytest.approx(0.25)
    assert law.worst == 1
    section = report.section("depth")
    assert section is not None
    assert section.sentences[3] == (
        "Equi-separation: NC1 changes by a factor of 0.25 per layer; its logarithm has the correlation −0.96 with "
        "depth, and block lies farthest from the line."
    )
    line = figures(report)["NC1"].series[-1]
    assert (line.name, line.role) == ("equi-separation", "reference")
    middle = (8.0 * 1.0 * 0.5) ** (1 / 3)
    assert line.y == pytest.approx((middle / 0.25, middle, middle * 0.25), rel=1e-12)
    assert "equi-separation" not in [each.name for each in figures(measured(3, (8.0, 1.0, 0.0)))["NC1"].series]


def test_the_law_is_of_the_convention_where_layers_have_it() -> None:
    report = measured(3, (8.0, 1.0, 0.5))
    own = [
        replace(each, entries=(*each.entries, entry("he-su-2023/separation", value)))
        for each, value in zip((*report.layers, report), (9.0, 3.0, 1.0), strict=True)
    ]
    assert Profile.of(replace(own[-1], layers=tuple(own[:-1]))).separation().rate == pytest.approx(1 / 3)
    some = replace(own[-1], layers=report.layers)
    assert Profile.of(some).separation().rate == pytest.approx(0.25)  # one layer lacks it


def parted(train: tuple[float, ...], test: tuple[float, ...], error: float | None = 0.01) -> Report:
    reports = [
        replace(each, entries=tuple(replace(one, standard_error=error) for one in each.entries))
        for a, b in zip(train, test, strict=True)
        for each in [layer("conv", 8, a, 1.0, b)]
    ]
    return replace(reports[-1], layers=tuple(reports[:-1]))


def test_where_training_and_held_out_samples_part_ways() -> None:
    assert Profile.of(parted((0.5, 0.9, 1.0), (0.5, 0.85, 0.9))).parting() == 2
    assert Profile.of(parted((0.5, 0.9, 1.0), (0.4, 0.88, 0.9))).parting() == 3  # the second is within two errors
    assert Profile.of(parted((0.9, 0.9), (0.5, 0.9))).parting() is None
    assert Profile.of(parted((0.5, 1.0), (0.4, 0.9), error=None)).parting() is None
    section = parted((0.5, 1.0), (0.5, 0.9)).section("depth")
    assert section is not None
    assert section.sentences[-1] == (
        "Training and held-out samples part ways at conv (2 of 2): from there on, nearest-centre accuracy is higher in "
        "training (1.000) than on held-out samples (0.900)."
    )


def test_one_layer_has_no_depth(make_evidence: Make) -> None:
    report = Report.from_evidence(make_evidence(), metrics=["nc1", "ncc_accuracy"])
    assert report.section("depth") is None
    assert report.document(()).sections == ()
