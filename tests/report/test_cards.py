"""Cards: each phenomenon by the measure that tells it best, with what it should be and how it came about."""

import math
from dataclasses import replace

import pytest

from tightframe import Report
from tightframe.report import Entry
from tightframe.report.cards import PHENOMENA, entry_of, times_of, unit_of
from tightframe.report.facts import Facts


def entry(name: str, value: float, split: str = "train", target: float = 0.0) -> Entry:
    return Entry(name, split, name, "F", value, target, None, 1.0, None, "", "", True)


def test_a_card_says_what_its_entry_does(full_report: Report) -> None:
    keys = {card.label: card.key for card in full_report.cards}
    assert keys == {
        "NC1": "nc1", "NC2": "etf_error", "NC3": "nc3_cosine", "NC4": "ncc_mismatch", "NC5": "ood_orthogonality",
    }  # fmt: skip
    for card in full_report.cards:
        shown = full_report[card.key]
        assert (card.value, card.error, card.target, card.shuffled, card.closeness, card.remark) == (
            shown.value, shown.standard_error, shown.target, shown.shuffled, shown.closeness, shown.remark,
        )  # fmt: skip
        held_out = full_report.get(f"test/{card.key}")
        assert card.held_out == (None if held_out is None else held_out.value)
        assert card.history == ()
    assert full_report.cards[3].held_out == full_report["test/ncc_mismatch"].value


def test_where_classes_do_not_fit_the_floor_is_the_target(crowded_report: Report) -> None:
    nc1, nc2, *_ = crowded_report.cards
    assert nc2.target == crowded_report["etf_error"].floor == pytest.approx(math.sqrt(2 - math.sqrt(2)))
    assert nc2.statement == "means are as far apart as fits"
    assert (nc1.target, nc1.statement) == (0.0, "samples sit at their class mean")


@pytest.mark.parametrize(
    ("entries", "key"),
    [
        ((entry("nc1", 0.5), entry("trace_ratio", 0.25)), "nc1"),
        ((entry("cdnv", 0.5), entry("trace_ratio", 0.25)), "trace_ratio"),
        ((entry("nc1", math.nan), entry("cdnv", 0.25)), "cdnv"),
        ((entry("nc1", math.nan), entry("cdnv", math.nan)), "nc1"),
        ((entry("nc1", 0.0), entry("cdnv", 0.25)), "nc1"),
        ((entry("vci", 0.25),), None),
        ((entry("nc1", 0.5, split="test"),), None),
    ],
)
def test_the_first_measure_that_is_defined_is_shown(entries: tuple[Entry, ...], key: str | None) -> None:
    report = Report(entries)
    found = entry_of(report, "NC1")
    assert (None if found is None else found.key) == key
    assert [card.key for card in report.cards] == ([] if key is None else [key])


def test_every_phenomenon_has_a_card_of_its_own() -> None:
    report = Report(tuple(entry(each.keys[-1], 0.5) for each in PHENOMENA))
    assert [(card.label, card.key) for card in report.cards] == [(each.label, each.keys[-1]) for each in PHENOMENA]
    assert {card.label for card in report.cards if not card.log} == {"NC3"}


def test_the_history_of_a_card(series: Report) -> None:
    nc1, *_ = series.cards
    (curve,) = nc1.history
    assert (curve.name, curve.role, curve.x) == ("training", "main", (1.0, 2.0, 5.0, 9.0))
    assert curve.y == tuple(each["nc1"].value for each in series.series)
    held_out = replace(series, entries=(*series.entries, entry("nc1", 7.0, split="test")))
    first, second = held_out.cards[0].history
    assert first == curve
    assert (second.name, second.role, second.y[-1]) == ("held out", "held-out", 7.0)
    assert all(math.isnan(value) for value in second.y[:-1])


@pytest.mark.parametrize(
    ("facts", "unit", "times"),
    [
        ([{"epoch": 0}, {"epoch": 2.5}], "epoch", (0.0, 2.5)),
        ([{"session": 1}, {"session": 2}], "session", (1.0, 2.0)),
        ([{"session": 1, "epoch": 60}, {"session": 2, "epoch": 120}], "session", (1.0, 2.0)),
        ([{"epoch": 60}, {"session": 2, "epoch": 120}], "epoch", (60.0, 120.0)),
        ([{"epoch": 60}, {"session": 2}], "measurement", (1.0, 2.0)),
        ([{}, {"epoch": 5}], "measurement", (1.0, 2.0)),
    ],
)
def test_where_a_series_is_in_training(facts: list[dict[str, float]], unit: str, times: tuple[float, ...]) -> None:
    first, last = (Report((), Facts.of(each)) for each in facts)
    report = replace(last, history=(first,))
    assert (unit_of(report), times_of(report)) == (unit, times)
