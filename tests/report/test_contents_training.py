"""Curves over training: the series of each measure, zeros and gaps as they are."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from tightframe import Report
from tightframe.metrics import Evidence
from tightframe.report.contents.training import sentences
from tightframe.sections import Curves, Series

Make = Callable[..., Evidence]


def figures(report: Report) -> dict[str, Curves]:
    section = report.section("training")
    assert section is not None
    return {figure.title.partition(":")[0]: figure for figure in section.figures if isinstance(figure, Curves)}


def shown(report: Report) -> dict[str, Series]:
    return {each.name: each for figure in figures(report).values() for each in figure.series}


def test_curves_show_the_series(series: Report) -> None:
    curves, compared = shown(series), 0
    for entry in series:
        if entry.title in curves:
            curve = curves[entry.title]
            assert curve.x == (1, 2, 5, 9)
            values = [report.value(entry.key) for report in (*series.history, series)]
            np.testing.assert_array_equal(curve.y, values)
            compared += 1
    assert compared == len(curves) >= 10


def test_a_figure_for_each_phenomenon(series: Report) -> None:
    found = figures(series)
    assert list(found) == ["NC1", "NC2", "NC3", "NC4", "NC5", "accuracy"]
    assert [figure.log_y for figure in found.values()] == [True, True, False, True, True, False]
    assert all(figure.log_x and figure.x_label == "epoch" for figure in found.values())
    for label, key in (("NC1", "nc1"), ("NC2", "etf_error"), ("NC3", "nc3_cosine"), ("NC4", "ncc_mismatch")):
        entry, figure = series[key], found[label]
        assert figure.title == f"{label}: {entry.label.removeprefix('NC1').strip()}"
        assert figure.series[0].name == entry.label and figure.series[0].role == "main"
        assert (figure.target, figure.shuffled) == (entry.target, entry.shuffled)


def test_the_floor_is_the_target_where_classes_do_not_fit(crowded_report: Report) -> None:
    figure = figures(replace(crowded_report, history=(crowded_report,)))["NC2"]
    assert figure.target == crowded_report["etf_error"].floor == pytest.approx(math.sqrt(2 - math.sqrt(2)))


def test_variants_go_to_the_same_end(series: Report) -> None:
    for label, figure in figures(series).items():
        main, *others = figure.series
        if label != "accuracy":
            keys = {entry.title: entry for entry in series}
            assert {each.role for each in others} <= {"variant"}
            for each in others:
                assert (keys[each.name].target == 0) == (keys[main.name].target == 0), each.name
                assert keys[each.name].family == label


def test_held_out_data_have_a_curve_of_their_own(full_report: Report) -> None:
    report = replace(full_report, history=(full_report,))
    main, held_out, *_ = figures(report)["NC4"].series
    assert main.y == (full_report["ncc_mismatch"].value,) * 2
    assert (held_out.name, held_out.role) == ("held out", "held-out")
    assert held_out.y == (full_report["test/ncc_mismatch"].value,) * 2
    accuracies = {each.name: (each.role, each.y[-1]) for each in figures(report)["accuracy"].series}
    for key, role in (
        ("classifier_accuracy", "main"), ("test/classifier_accuracy", "held-out"),
        ("ncc_accuracy", "variant"), ("test/ncc_accuracy", "variant"), ("balanced_accuracy", "variant"),
    ):  # fmt: skip
        entry = full_report[key]
        assert accuracies[entry.title] == (role, entry.value), key


def test_without_a_classifier_the_nearest_mean_decides(full_report: Report) -> None:
    nearest = tuple(entry for entry in full_report if entry.name in ("nc1", "ncc_accuracy"))
    report = replace(full_report, entries=nearest)
    found = figures(replace(report, history=(report,)))["accuracy"]
    assert [(each.name, each.role) for each in found.series] == [
        (report["ncc_accuracy"].title, "main"), (report["test/ncc_accuracy"].title, "held-out"),
    ]  # fmt: skip


def test_an_exact_zero_is_kept(series: Report) -> None:
    curve = figures(series)["NC4"].series[0]
    assert curve.y[1] == 0
    assert all(value > 0 for place, value in enumerate(curve.y) if place != 1)


def test_undefined_and_missing_values_are_gaps(series: Report) -> None:
    curves = shown(series)
    for key, index in (("cdnv", 0), ("vci", 1)):
        curve = curves[series[key].title]
        assert math.isnan(curve.y[index])
        assert sum(math.isfinite(value) for value in curve.y) == 3


def test_a_curve_without_any_value_is_left_out(series: Report) -> None:
    def without(report: Report) -> Report:
        changed = [replace(e, value=math.nan) if e.key == "cdnv" else e for e in report]
        return replace(report, entries=tuple(changed))

    report = replace(without(series), history=tuple(map(without, series.history)))
    assert series["cdnv"].title in shown(series)
    assert series["cdnv"].title not in shown(report)


def test_measurements_without_epoch_are_numbered(make_evidence: Make) -> None:
    report = Report.from_evidence(make_evidence())
    report = replace(report, history=(report, report))
    for figure in figures(report).values():
        assert (figure.x_label, figure.log_x, figure.marks) == ("measurement", False, ())
        assert all(each.x == (1, 2, 3) for each in figure.series)
    assert sentences(report) == []


def test_an_epoch_zero_is_shown(make_evidence: Make) -> None:
    """No logarithm has a place for it."""
    first, second = (Report.from_evidence(make_evidence(seed=e), context={"epoch": e}) for e in (0, 1))
    for figure in figures(replace(second, history=(first,))).values():
        assert not figure.log_x
        assert figure.series[0].x == (0, 1)


def test_sessions_are_no_epochs(make_evidence: Make) -> None:
    """Also where both are known, as in the demo."""
    for epochs in ({1: None, 2: None}, {1: 60, 2: 120}):
        first, second = (
            Report.from_evidence(make_evidence(seed=session), context={"session": session, "epoch": epoch})
            for session, epoch in epochs.items()
        )
        for figure in figures(replace(second, history=(first,))).values():
            assert (figure.x_label, figure.log_x, figure.marks) == ("session", False, ())
            assert all(each.x == (1, 2) for each in figure.series)


def test_the_terminal_phase_is_marked(series: Report) -> None:
    def perfect(report: Report) -> Report:
        changed = [replace(e, value=1.0) if e.key == "classifier_accuracy" else e for e in report]
        return replace(report, entries=tuple(changed))

    first, second, third = series.history
    begun = replace(perfect(series), history=(first, second, perfect(third)))
    assert all(figure.marks == ((5, "terminal phase"),) for figure in figures(begun).values())
    assert sentences(begun)[0].startswith("The terminal phase began at epoch 5,")
    assert all(figure.marks == () for figure in figures(series).values())


def test_no_section_where_nothing_has_a_curve(make_evidence: Make) -> None:
    report = Report.from_evidence(make_evidence(), metrics=["mean_cosine"], context={"epoch": 2})
    assert report.section("training") is None  # no history
    assert "Collapse over training" not in replace(report, history=(report,)).to_html()
