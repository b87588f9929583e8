"""`Report`: entries with their references and errors, notes, and the way to JSON, CSV and back."""

import csv
import html
import io
import json
import math
import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tightframe import ClassStatistics, DecisionCounts, Report
from tightframe.errors import ChoiceError, EmptyClassError
from tightframe.metrics import METRICS, Evidence, Setting, closeness, evaluate, levels
from tightframe.report import Entry
from tightframe.report.facts import Facts
from tightframe.report.findings import CoverageRow, Distances
from tightframe.sections import short

Make = Callable[..., Evidence]
SHARES = {"ncc_mismatch", "ncc_agreement", "ncc_accuracy", "classifier_accuracy"}


def strictly(text: str) -> Any:
    """JSON as the standard has it: Python's own NaN and Infinity are errors."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def same(a: object, b: object) -> bool:
    return a == b or (isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b))


def assert_same_entries(report: Report, expected: Report) -> None:
    assert len(report.entries) == len(expected.entries)
    for mine, theirs in zip(report.entries, expected.entries, strict=True):
        for field, value in asdict(theirs).items():
            assert same(getattr(mine, field), value), (theirs.key, field)


# ---------------------------------------------------------------------------------------------- entries


def test_an_entry_says_what_its_level_and_closeness_are(full_report: Report, make_evidence: Make) -> None:
    evidence = make_evidence()
    known, setting = levels(evidence), Setting.of(evidence)
    assert setting is not None
    for entry in full_report:
        if entry.split == "test":
            continue
        level = known.get(entry.name)
        assert (entry.shuffled, entry.shuffled_spread, entry.level) == (
            (None, None, "") if level is None else (level.value, level.spread, level.kind)
        ), entry.key
        found = closeness(METRICS[entry.name], entry.value, level, setting)
        assert (entry.closeness, entry.remark) == (found.times, found.remark), entry.key
    without = {entry.name for entry in full_report if entry.shuffled is None and entry.split != "test"}
    assert without == {"numerical_rank", "bias_collapse"}  # which don't depend on labels
    kinds = {entry.level for entry in full_report}
    assert kinds == {"shuffled", "random", ""}
    assert full_report["classifier_equinorm"].level == "random"


def test_words_beside_a_value(make_evidence: Make) -> None:
    """Real class means are nearer the target than shuffled ones; where labels have no part they aren't."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 4
    noise = torch.randn(200, 6, generator=generator, dtype=torch.float64)
    apart = 30 * torch.eye(4, 6, dtype=torch.float64)[labels] + noise
    report = Report.from_evidence(Evidence(ClassStatistics.from_features(apart, labels, 4)))
    nc1 = report["nc1"]
    assert nc1.shuffled is not None and nc1.shuffled > 1000 * nc1.value
    assert nc1.closeness is not None and nc1.closeness > 100
    assert nc1.remark.endswith("× nearer")
    mixed = Report.from_evidence(Evidence(ClassStatistics.from_features(noise, labels, 4)))["nc1"]
    assert mixed.remark == "no better than shuffled labels"
    assert mixed.closeness == pytest.approx(1, abs=0.8)


def test_values_are_the_metrics(full_report: Report, make_evidence: Make) -> None:
    expected = {name: float(value) for name, value in evaluate(make_evidence()).items()}
    train = {key: value for key, value in full_report.values.items() if not key.startswith("test/")}
    assert train == expected


def test_every_entry_says_what_its_metric_is(full_report: Report) -> None:
    for entry in full_report:
        metric = METRICS[entry.name]
        assert (entry.label, entry.family, entry.convention, entry.source, entry.headline) == (
            metric.label, metric.family, metric.convention, metric.source, metric.headline,
        )  # fmt: skip


def test_keys(full_report: Report) -> None:
    keys = [entry.key for entry in full_report]
    assert len(set(keys)) == len(keys)
    assert [key for key in keys if key.startswith("test/")] == [
        "test/ncc_mismatch", "test/ncc_accuracy", "test/classifier_accuracy", "test/balanced_accuracy",
    ]  # fmt: skip
    assert full_report["ood_orthogonality"].split == "ood"
    assert full_report["test/ncc_mismatch"].split == "test"
    assert full_report["test/ncc_mismatch"].name == "ncc_mismatch"
    assert {entry.split for entry in full_report if "/" not in entry.key} == {"train", "ood"}
    for entry in full_report:
        assert full_report[entry.key] is entry


def test_families_stand_together(full_report: Report) -> None:
    families = [entry.family for entry in full_report]
    assert families == sorted(families, key=families.index)


def test_families_stand_together_with_conventions(crowded_report: Report) -> None:
    metrics = [entry for entry in crowded_report if entry.name in METRICS]
    families = [entry.family for entry in metrics]
    assert families == sorted(families, key=families.index)  # held-out rows beside the metric's, before conventions


def test_an_unknown_key_is_answered_with_those_there_are(full_report: Report) -> None:
    with pytest.raises(KeyError, match=r"no measure 'nc9'; did you mean .*'nc1'"):
        full_report["nc9"]
    with pytest.raises(KeyError, match="no measure '§'; there are: ") as caught:
        full_report["§"]
    assert all(entry.key in str(caught.value) for entry in full_report)
    assert "nc9" not in full_report and full_report.get("nc9") is None and math.isnan(full_report.value("nc9"))
    assert "nc1" in full_report and full_report.get("nc1") is full_report["nc1"]
    assert dict(full_report) == {entry.key: entry for entry in full_report}


def test_targets_and_floors_beside_every_value(full_report: Report, make_evidence: Make) -> None:
    setting = Setting.of(make_evidence())
    assert setting is not None
    for entry in full_report:
        metric = METRICS[entry.name]
        assert (entry.target, entry.floor) == (metric.target_in(setting), metric.floor_in(setting)), entry.key
        assert entry.classes == 4
    assert (full_report["nc1"].target, full_report["nc3_cosine"].target) == (0, 1)
    assert all(entry.floor is None for entry in full_report)


def test_shares_with_shuffled_labels(full_report: Report) -> None:
    """A sample that sits in its class's mean is nearest to it more often than to one of four that it has no part in."""
    assert full_report["ncc_accuracy"].shuffled > 1 / 4 + 0.05
    held_out = full_report["test/ncc_accuracy"]
    assert held_out.shuffled == pytest.approx(1 / 4, abs=0.12)  # 19 of 25 are of one class, which are 4
    assert 0 < full_report["test/classifier_accuracy"].shuffled < 0.5
    assert 1 / 2 < full_report["ncc_mismatch"].shuffled < 1
    assert held_out.level == "shuffled"


def test_floors_and_a_remark_where_the_classes_do_not_fit(crowded_report: Report) -> None:
    """K = 9 classes with samples, D = 4: the rank is 4 of 8, so sqrt(2 - 2 sqrt(4/8)) is the least ETF error."""
    least = math.sqrt(2 - math.sqrt(2))
    for name in ("etf_error", "etf_distance", "self_duality_error"):
        assert crowded_report[name].floor == pytest.approx(least, rel=1e-12)
        assert crowded_report[name].value >= least
    assert crowded_report["nc1"].floor is None
    crowded = {remark.name: remark.sentence for remark in crowded_report.oddities}["crowded"]
    assert crowded == "9 classes cannot form a simplex ETF in 4 dimensions; NC2 has a floor."


def test_no_floor_for_some_of_the_models_classes(make_evidence: Make) -> None:
    """Of ten classes, nine have samples: a bound on all ten says nothing of these nine."""
    report = Report.from_evidence(make_evidence((5,) * 8 + (0, 7), 4))
    assert all(entry.floor is None for entry in report)


def test_no_floor_where_a_simplex_just_fits(make_evidence: Make) -> None:
    report = Report.from_evidence(make_evidence((5,) * 5, 4))
    assert all(entry.floor is None for entry in report)
    assert not report.notes


def test_the_standard_error_of_a_share_is_binomial(
    full_report: Report, make_evidence: Make, held_out: Callable[[Evidence], Evidence]
) -> None:
    seen = {}
    for entry in full_report:
        if entry.name in SHARES:
            samples = 25 if entry.split == "test" else 46
            expected = math.sqrt(entry.value * (1 - entry.value) / samples)
            assert entry.standard_error == pytest.approx(expected, rel=1e-12, abs=0), entry.key
            seen[entry.key] = expected
        elif entry.name == "balanced_accuracy":
            decisions = (held_out(make_evidence()) if entry.split == "test" else make_evidence()).decisions
            assert decisions is not None and decisions.totals.classifier_correct is not None
            shares = decisions.totals.classifier_correct.double() / decisions.totals.counts
            strata = float((shares * (1 - shares) / decisions.totals.counts).sum().sqrt()) / 4
            assert entry.standard_error == pytest.approx(strata, rel=1e-12), entry.key
        else:
            assert entry.standard_error is None, entry.key  # no folds
    assert len(seen) == 7  # each on the training samples, three of them held out too
    assert sum(error > 0 for error in seen.values()) >= 4


def test_without_classifier(make_evidence: Make) -> None:
    whole = make_evidence()
    decisions = DecisionCounts(whole.statistics)
    decisions.update(torch.randn(20, 6, dtype=torch.float64), torch.arange(20) % 4)
    report = Report.from_evidence(Evidence(whole.statistics, decisions=decisions), test=Evidence(decisions=decisions))
    nc4 = {entry.key for entry in report if entry.family in ("NC4", "accuracy")}
    assert nc4 == {"ncc_accuracy", "test/ncc_accuracy"}
    assert not [entry for entry in report if entry.family == "NC3"]


def test_chosen_names_in_their_order(make_evidence: Make) -> None:
    assert list(Report.from_evidence(make_evidence(), metrics=["cdnv", METRICS["nc1"]]).values) == ["cdnv", "nc1"]
    with pytest.raises(ChoiceError, match=r"metric must be a name in .* got 'nc9'"):
        Report.from_evidence(make_evidence(), metrics=["nc9"])


def test_fewer_than_two_classes_are_no_report(make_evidence: Make) -> None:
    evidence = make_evidence()
    assert evidence.statistics is not None
    with pytest.raises(EmptyClassError, match="at least two classes"):
        Report.from_evidence(Evidence(evidence.statistics.select([1])))
    with pytest.raises(EmptyClassError):
        Report.from_evidence(Evidence())


def test_printed_as_text(full_report: Report) -> None:
    """What a shell shows: the verdict, and a line with its value for each card."""
    text = repr(full_report)
    assert str(full_report) == text and not text.endswith("\n")
    first, second, *lines = text.splitlines()
    assert first == "tightframe report · epoch 3 · 46 samples · 4 classes · 6 dimensions"
    assert second.startswith(full_report.verdict.word)
    assert [card.label for card in full_report.cards] == ["NC1", "NC2", "NC3", "NC4", "NC5"]
    for card in full_report.cards:
        (line,) = [line for line in lines if line.startswith(f"{card.label} ")]
        for value in (card.value, card.target, card.shuffled):
            assert short(value) in line.split(), (card.label, value)
        assert card.key in line.split()
        assert card.value == full_report[card.key].value


# ---------------------------------------------------------------------------------------------- context and notes


def test_facts_have_the_sizes_and_the_coverage(make_evidence: Make) -> None:
    """A caller's own words can't pass for what was measured."""
    report = Report.from_evidence(
        make_evidence((60, 0, 10, 2), 5), context={"epoch": 2, "samples": "mine", "layer": "mine", "lr": 0.1}
    )
    assert [each.what for each in report.distances] == ["class means", "classifier rows"]
    assert [(row.min_count, row.classes, row.samples) for row in report.coverage] == [(1, 3, 72), (10, 2, 70)]
    assert report.facts == Facts(
        samples=72, classes=4, dimension=5, coverage={"1": 3, "2": 3, "10": 2, "50": 1}, smallest_class=2,
        largest_class=60, epoch=2,
    )  # fmt: skip
    assert report.context == {"samples": "mine", "layer": "mine", "lr": 0.1}


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["ant", "bee"], {"0": "ant", "1": "bee"}),
        (("ant", "bee"), {"0": "ant", "1": "bee"}),
        ({0: "ant", 3: "bee"}, {"0": "ant", "3": "bee"}),
        ({"3": 7}, {"3": "7"}),
    ],
)
def test_names_of_classes_in_any_form(make_evidence: Make, given: Any, names: dict[str, str]) -> None:
    report = Report.from_evidence(make_evidence(), metrics=["nc1"], context={"class_names": given})
    assert report.facts.class_names == names
    assert Report.from_dict(strictly(report.to_json())).facts.class_names == names
    assert report.facts.names_of([0, 3]) == [names.get("0", "0"), names.get("3", "3")]


def test_the_phrases_say_what_was_measured(full_report: Report) -> None:
    document = full_report.document()
    assert document.facts == ("epoch 3", "46 samples", "4 classes", "6 dimensions")
    footer = dict(document.footer)
    assert footer["layer"] == "input of fc"
    assert footer["samples per class"] == "9 to 15"
    facts = replace(
        full_report.facts, samples=60_000, classes=21_843, epoch=2.5, session=3, mode="eval", data="<digits>",
        measuring_seconds=1.26, title="mine",
    )  # fmt: skip
    described = {"command": "demo", "arguments": {"seed": 7}, "versions": {"tightframe": "1", "torch": "2"}}
    document = replace(full_report, facts=facts, run=described, context={"lr": 0.1, "odd": [1]}).document()
    assert document.title == "mine"
    assert document.facts == ("session 3", "epoch 2.5", "60,000 samples", "21,843 classes", "6 dimensions")
    footer = dict(document.footer)
    assert {name: footer[name] for name in ("command", "seed", "mode", "data", "measuring", "lr", "versions")} == {
        "command": "demo", "seed": "7", "mode": "eval", "data": "<digits>", "measuring": "1.3 s", "lr": "0.1",
        "versions": "tightframe 1, torch 2",
    }  # fmt: skip
    assert "odd" not in footer


def test_nothing_to_note(full_report: Report) -> None:
    assert full_report.notes == ()


def test_empty_classes_are_noted_by_label(make_evidence: Make) -> None:
    report = Report.from_evidence(make_evidence((9, 0, 8, 0, 7), 6))
    assert report.notes == ("2 of 5 classes have no samples and are left out: 1, 3.",)


def test_an_empty_class_in_a_selection_is_left_out_by_its_label(make_evidence: Make) -> None:
    statistics = make_evidence((9, 5, 0, 8, 7), 6, per_class=True).statistics
    assert statistics is not None
    report = Report.from_evidence(Evidence(statistics.select([0, 2, 3, 4])))
    assert report.notes == ("1 of 4 classes have no samples and are left out: 2.",)
    expected = Report.from_evidence(Evidence(statistics.select([0, 3, 4])))
    assert report.values == expected.values


def test_a_long_list_of_classes_is_cut_after_ten(make_evidence: Make) -> None:
    report = Report.from_evidence(make_evidence((5, 6) + (0,) * 12, 6))
    start, _, listed = report.notes[0].partition(": ")
    assert start == "12 of 14 classes have no samples and are left out"
    assert listed.startswith("2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ...")
    assert "12" not in listed


def test_single_samples_are_noted(make_evidence: Make) -> None:
    report = Report.from_evidence(make_evidence((9, 1, 8, 1), 6))
    assert any("2 classes have a single sample" in note and "1, 3" in note for note in report.notes)


def test_one_single_sample_is_noted_in_the_singular(make_evidence: Make) -> None:
    report = Report.from_evidence(make_evidence((9, 1, 8, 5), 6))
    assert any("1 class has a single sample" in note for note in report.notes)


def test_coincident_classes_are_a_note_and_no_warning() -> None:
    means = torch.eye(4, dtype=torch.float64)
    means[2] = means[1]
    counts = torch.full((4,), 5)
    spread = torch.ones(4, dtype=torch.float64)
    statistics = ClassStatistics(counts, means, spread, torch.eye(4, dtype=torch.float64))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = Report.from_evidence(Evidence(statistics))
    pairs, rank = report.notes  # though several metrics meet them
    assert "coincide" in pairs and pairs.endswith(": 1, 2.")
    assert "span 2 of 3 possible dimensions" in rank and rank.endswith("coincide: 1, 2.")
    assert math.isfinite(report["nc1"].value)


def test_other_warnings_of_metrics_reach_the_caller(make_evidence: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def loud(statistics: ClassStatistics) -> torch.Tensor:
        warnings.warn("mine", RuntimeWarning, stacklevel=1)
        return torch.tensor(1.0)

    monkeypatch.setitem(METRICS, "nc1", replace(METRICS["nc1"], function=loud))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = Report.from_evidence(make_evidence(), metrics=["nc1"])
    assert [(w.category, str(w.message)) for w in caught] == [(RuntimeWarning, "mine")]
    assert report.notes == ()


# ---------------------------------------------------------------------------------------------- JSON and CSV


@pytest.mark.parametrize("kind", ["full_report", "crowded_report", "awkward_report"])
def test_through_json_and_back(kind: str, request: pytest.FixtureRequest) -> None:
    report: Report = request.getfixturevalue(kind)
    back = Report.from_dict(strictly(report.to_json()))
    assert_same_entries(back, report)
    assert (back.facts, back.context, back.notes) == (report.facts, report.context, report.notes)
    assert repr((back.coverage, back.distances, back.class_errors)) == repr(
        (report.coverage, report.distances, report.class_errors)
    )
    assert repr(back.class_accuracies) == repr(report.class_accuracies)
    assert back.evidence is None
    assert_same_entries(Report.from_dict(report.to_dict()), report)


def test_what_is_undefined_comes_back_wherever_it_stands(full_report: Report) -> None:
    nan, inf = math.nan, math.inf
    report = replace(
        full_report,
        coverage=(CoverageRow(1, 4, 46, {"nc1": nan, "cdnv": inf}),),
        distances=(Distances("class means", {"a": nan, "inf": inf}, "a", "inf", nan, -inf, nan, inf),),
        class_errors={"norm": [nan, 1.0], "variance": [inf, 2.0]},
        class_accuracies={"0": nan, "3": 0.5},
        facts=replace(full_report.facts, normalisation_gap=nan, epoch=inf, title="nan", layer="inf", data="-inf"),
    )
    back = Report.from_dict(strictly(report.to_json()))
    for name in ("coverage", "distances", "class_errors", "class_accuracies", "facts"):
        assert repr(getattr(back, name)) == repr(getattr(report, name)), name


def test_json_keeps_every_digit(full_report: Report) -> None:
    back = Report.from_dict(strictly(full_report.to_json()))
    assert back.values == full_report.values


def test_undefined_values_in_the_context_are_still_json(full_report: Report) -> None:
    report = replace(full_report, context={**full_report.context, "loss": float("nan")})
    assert strictly(report.to_json())["context"] == {"loss": "nan"}


def test_a_report_that_an_earlier_version_saved_opens(full_report: Report) -> None:
    """What it knew besides is left out; what it didn't know is unknown."""
    data = json.loads(full_report.to_json())
    new = ("shuffled", "shuffled_spread", "level", "closeness", "remark", "classes")
    for entry in data["entries"]:
        for name in new:
            del entry[name]
        entry |= {"null": 23.0, "random": None, "position": 0.99}
    data["entries"].append({**data["entries"][0], "name": "nc1_undivided", "label": "NC1  tr(Σ_W Σ_B⁺)"})
    back = Report.from_dict(data)
    assert back.values == {**full_report.values, "nc1_undivided": full_report["nc1"].value}
    for entry in back:
        assert [getattr(entry, name) for name in new] == [None, None, "", None, "", None]
    assert html.escape("NC1  tr(Σ_W Σ_B⁺)") in back.to_html()
    assert back.section("measures").table.rows[-1][0] == "NC1  tr(Σ_W Σ_B⁺)"
    back.to_terminal(everything=True)
    assert Report.from_dict(back.to_dict()).values == back.values


@pytest.mark.parametrize("kind", ["full_report", "awkward_report"])
def test_csv_has_every_field(kind: str, request: pytest.FixtureRequest) -> None:
    report: Report = request.getfixturevalue(kind)
    rows = list(csv.DictReader(io.StringIO(report.to_csv())))
    assert len(rows) == len(report.entries)
    for row, entry in zip(rows, report, strict=True):
        assert list(row) == [*Entry.__dataclass_fields__]
        for field in ("value", "target", "floor", "shuffled", "shuffled_spread", "standard_error", "closeness"):
            expected = getattr(entry, field)
            assert row[field] == "" if expected is None else same(float(row[field]), expected), (entry.key, field)
        for field in ("name", "split", "label", "family", "convention", "source", "level", "remark"):
            assert row[field] == getattr(entry, field)
        assert row["headline"] == str(entry.headline)


@pytest.mark.parametrize("form", ["json", "csv", "html", "markdown"])
def test_files_hold_the_text_returned(full_report: Report, tmp_path: Path, form: str) -> None:
    path = tmp_path / f"report.{form}"
    text = getattr(full_report, f"to_{form}")(path)
    assert path.read_bytes().decode("utf-8") == text
    assert text == getattr(full_report, f"to_{form}")()


def test_to_terminal_prints_as_much_as_is_asked_for(full_report: Report, capsys: pytest.CaptureFixture[str]) -> None:
    printed = {}
    for options in ({}, {"classes": True}, {"everything": True}):
        full_report.to_terminal(**options)
        printed[next(iter(options), "")] = capsys.readouterr().out
    for text in printed.values():
        assert full_report.verdict.word in text and "samples sit at their class mean" in text
    label = METRICS["riesz_kernel"].label
    assert [label in text for text in printed.values()] == [False, False, True]
    assert ["Nearest pairs of classes" in text for text in printed.values()] == [False, True, True]
    assert len(printed[""].splitlines()) <= 24


def test_numbers_of_numpy_and_torch_in_the_context_become_pythons(full_report: Report) -> None:
    context = {
        "rate": np.float32(0.5),
        "step": np.int64(3),
        "loss": torch.tensor(2.5, requires_grad=True),
        "undefined": {"of numpy": np.float64("nan"), "of torch": [torch.tensor(-torch.inf)]},
        "counts": torch.tensor([[1, 2]]),
        "flag": np.bool_(True),
    }
    report = replace(full_report, context=context)
    read = json.loads(report.to_json())["context"]
    assert read == {
        "rate": 0.5,
        "step": 3,
        "loss": 2.5,
        "undefined": {"of numpy": "nan", "of torch": ["-inf"]},
        "counts": [[1, 2]],
        "flag": True,
    }
