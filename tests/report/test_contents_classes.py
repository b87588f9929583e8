"""Rows for every class and for the nearest pairs, and the bars of accuracies."""

import math
from dataclasses import replace

import pytest
import torch

from tightframe import ClassStatistics, Report
from tightframe.metrics import Evidence, class_table, jackknife, mean_norms, pair_table
from tightframe.report.contents.classes import PAIRS
from tightframe.sections import Bars, Cell, Section
from tightframe.statistics import FoldedStatistics
from tightframe.theory import Training, cross_entropy_optimum

NAMES = ["ant", "bee", "cat", "dog", "eel", "5"]


def folded(counts: tuple[int, ...], dim: int = 6) -> FoldedStatistics:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    means = 3 * torch.randn(len(counts), dim, generator=generator).double()
    features = means[labels] + torch.randn(len(labels), dim, generator=generator)
    return FoldedStatistics.from_features(features, labels, len(counts), folds=4)


@pytest.fixture(scope="module")
def report() -> Report:
    folds = folded((20, 20, 20, 5, 0, 5))
    weight = torch.randn(6, 6, generator=torch.Generator().manual_seed(1)).double()
    evidence = Evidence(folds.total, weight, folds=folds)
    return Report.from_evidence(evidence, training=Training(1e-3, 1e-3), context={"class_names": NAMES[:5]})


def columns_of(section: Section | None) -> dict[str, list[Cell]]:
    assert section is not None and section.table is not None
    head = [column.heading for column in section.table.columns]
    assert len(set(head)) == len(head)
    return dict(zip(head, map(list, zip(*section.table.rows, strict=True)), strict=True))


def test_classes(report: Report) -> None:
    columns = columns_of(report.section("classes"))
    evidence = report.evidence
    assert evidence is not None and evidence.statistics is not None and evidence.folds is not None
    table = class_table(evidence.statistics, evidence.weight)
    assert columns["class"] == ["ant", "bee", "cat", "dog", "5"]
    assert columns["samples"] == [20, 20, 20, 5, 5]
    assert columns["‖μ − μ_G‖"] == table.mean_norms.tolist()
    assert columns["variance"] == table.variances.tolist()
    assert columns["cosine"] == table.nearest_cosines.tolist()
    assert columns["nearest by angle"] == [NAMES[k] for k in table.nearest_by_angle.tolist()]
    assert columns["nearest by distance"] == [NAMES[k] for k in table.nearest_by_distance.tolist()]
    assert columns["distance"] == table.nearest_distances.tolist()
    assert table.classifier_norms is not None and table.classifier_cosines is not None
    assert columns["‖w‖"] == table.classifier_norms.tolist()
    assert columns["cos(w, μ)"] == table.classifier_cosines.tolist()
    errors = jackknife(mean_norms, evidence.folds).standard_error
    assert columns["± ‖μ − μ_G‖"] == pytest.approx(errors.tolist(), rel=1e-9)
    assert columns["± variance"] == report.class_errors["variance"]
    assert len(columns) == 12


def test_spectra_of_classes_with_scatter_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    statistics = ClassStatistics.from_features(torch.randn(40, 5), torch.arange(40) % 2, 2, per_class=True)
    section = Report.from_evidence(Evidence(statistics)).section("classes")
    columns, table = columns_of(section), class_table(statistics)
    assert columns["effective rank"] == table.effective_ranks.tolist()
    assert columns["participation ratio"] == table.participation_ratios.tolist()
    assert columns["α-ReQ"] == table.alphas.tolist()
    assert section is not None and "α-ReQ is the exponent" in section.sentences[1]
    monkeypatch.setattr("tightframe.report.contents.classes._SPECTRA", 2 * 5**3 - 1)
    assert "effective rank" not in columns_of(Report.from_evidence(Evidence(statistics)).section("classes"))


def test_errors_of_classes_whose_samples_are_in_one_fold_are_unknown() -> None:
    folds = folded((20, 20, 1))
    columns = columns_of(Report.from_evidence(Evidence(folds.total, folds=folds)).section("classes"))
    for heading in ("± ‖μ − μ_G‖", "± variance"):
        assert [math.isnan(error) for error in columns[heading]] == [False, False, True]


def test_pairs(report: Report) -> None:
    columns = columns_of(report.section("pairs"))
    evidence = report.evidence
    assert evidence is not None and evidence.statistics is not None
    optimum = cross_entropy_optimum([20, 20, 20, 5, 5], 1e-3, 1e-3)
    centring = torch.eye(5).double() - 1 / 5  # features at the optimum needn't have mean zero
    centred = centring @ optimum.means @ centring
    table = pair_table(evidence.statistics.populated(), limit=PAIRS, predicted=centred)
    assert len(columns["pair"]) == 10
    assert columns["pair"] == [f"{NAMES[i]} – {NAMES[j]}" for i, j in table.labels.tolist()]
    assert columns["cos(μ, μ′)"] == table.cosines.tolist()
    assert columns["angle °"] == table.angles.tolist()
    assert columns["distance"] == table.distances.tolist()
    assert columns["CDNV"] == table.cdnv.tolist()
    assert table.predicted_cosines is not None
    assert columns["predicted"] == pytest.approx(table.predicted_cosines.tolist(), abs=1e-12)
    assert not {"merged", "to merge"} & columns.keys()  # at these decays N²λ_Wλ_H = 0.0049


def test_cosines_of_classifier_rows_beside_predicted_ones(report: Report) -> None:
    columns = columns_of(report.section("pairs"))
    evidence = report.evidence
    assert evidence is not None and evidence.statistics is not None and evidence.weight is not None
    kept = [0, 1, 2, 3, 5]
    rows = evidence.weight[kept] - evidence.weight[kept].mean(0)
    optimum = cross_entropy_optimum([20, 20, 20, 5, 5], 1e-3, 1e-3).classifiers
    centring = torch.eye(5).double() - 1 / 5
    ideal = centring @ optimum @ centring
    names = [NAMES[k] for k in kept]
    for place, pair in enumerate(columns["pair"]):
        i, j = (names.index(name) for name in str(pair).split(" – "))
        cosine = float(rows[i] @ rows[j] / rows[i].norm() / rows[j].norm())
        assert columns["cos(w, w′)"][place] == pytest.approx(cosine, abs=1e-12)
        expected = float(ideal[i, j] / (ideal[i, i] * ideal[j, j]).sqrt())
        assert columns["predicted w"][place] == pytest.approx(expected, abs=1e-9)


def test_what_is_predicted_to_merge_and_has(report: Report) -> None:
    evidence = report.evidence
    assert evidence is not None and evidence.weight is not None
    weight = evidence.weight.clone()
    weight[5] = weight[3]
    merged = Report.from_evidence(replace(evidence, weight=weight), training=Training(0.05, 0.05))
    columns = columns_of(merged.section("pairs"))
    said = dict(zip(columns["pair"], zip(columns["merged"], columns["to merge"], strict=True), strict=True))
    assert said["3 – 5"] == ("yes", "yes")  # N²λ_Wλ_H = 12.25
    assert said["0 – 1"] == ("", "")


def test_two_classes_are_one_pair() -> None:
    folds = folded((20, 20))
    section = Report.from_evidence(Evidence(folds.total, folds=folds)).section("pairs")
    assert section is not None and section.sentences[0] == (
        "The pair of classes with the smallest angle between centred means. A classifier is likely to confuse them."
    )


def test_without_classifier_or_folds(report: Report) -> None:
    assert report.evidence is not None
    bare = Report.from_evidence(Evidence(report.evidence.statistics))
    assert not {"‖w‖", "± variance"} & columns_of(bare.section("classes")).keys()
    assert not {"merged", "cos(w, w′)"} & columns_of(bare.section("pairs")).keys()
    assert bare.without_evidence().section("classes") is None
    assert bare.without_evidence().section("pairs") is None


def many(counts: list[int]) -> tuple[Report, torch.Tensor]:
    """A report on classes of random scatter."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.rand(len(counts), generator=generator).double()
    means = torch.randn(len(counts), 8, generator=generator).double()
    statistics = ClassStatistics(torch.tensor(counts), means, spread)
    return Report.from_evidence(Evidence(statistics), metrics=["trace_ratio"]), spread


def test_of_many_classes_those_that_scatter_most() -> None:
    report, spread = many([5] * 300)
    section = report.section("classes")
    assert columns_of(section)["class"] == [str(k) for k in spread.argsort(descending=True)[:20].tolist()]
    assert section is not None
    assert section.sentences[1] == "The table shows 20 of 300 classes: those with the largest variance."
    assert len(columns_of(report.section("pairs"))["pair"]) == PAIRS


@pytest.mark.parametrize(
    ("enough", "rows", "said"),
    [
        (30, range(30), "The table shows the 30 classes with at least 10 samples."),
        (210, None, "The table shows 20 of 210 classes with at least 10 samples: those with the largest variance."),
    ],
)
def test_of_many_classes_those_with_enough_samples(enough: int, rows: range | None, said: str) -> None:
    """Scatter over few samples is noise."""
    report, spread = many([10] * enough + [5] * (300 - enough))
    section = report.section("classes")
    widest = spread[:enough].argsort(descending=True)[:20].tolist()
    assert columns_of(section)["class"] == [str(k) for k in rows or widest]
    assert section is not None and section.sentences[1] == said
    pairs = report.section("pairs")
    assert pairs is not None and "pairs of classes with at least 10 samples" in pairs.sentences[0]
    assert all(int(label) < enough for pair in columns_of(pairs)["pair"] for label in str(pair).split(" – "))


@pytest.mark.parametrize(("classes", "rows", "folded"), [(20, 20, False), (21, 21, True), (200, 200, True)])
def test_up_to_two_hundred_classes_all_are_shown(classes: int, rows: int, folded: bool) -> None:
    section = many([5] * classes)[0].section("classes")
    assert section is not None and section.table is not None
    assert (len(section.table.rows), section.folded, len(section.sentences)) == (rows, folded, 1)


# ---------------------------------------------------------------------------------------------- accuracies


def bars_of(section: Section | None) -> Bars:
    assert section is not None
    (bars,) = section.figures
    assert isinstance(bars, Bars)
    return bars


def test_the_accuracy_of_each_class(report: Report) -> None:
    shares = {"0": 1.0, "1": 0.5, "3": 0.25, "4": math.nan, "5": 0.75}
    section = replace(report, class_accuracies=shares).section("accuracies")
    bars = bars_of(section)
    assert bars.names == ("ant", "bee", "dog", "5")
    assert bars.values == (1.0, 0.5, 0.25, 0.75)
    assert bars.notes == ("20", "20", "5", "5")
    assert bars.most == 1.0
    assert section is not None and section.sentences[1] == "Class dog has the lowest accuracy: 25.0 %."


def test_training_samples_below_names_are_a_matter_of_pictures(report: Report) -> None:
    section = replace(report, class_accuracies={"0": 0.5, "1": 0.25}).section("accuracies")
    assert section is not None
    assert bars_of(section).note == "The number after each name counts the class's training samples."
    assert section.sentences[0] == "Accuracy of the classifier on the held-out samples of each class."


def test_accuracies_without_counts_have_no_notes(report: Report) -> None:
    bare = replace(report.without_evidence(), class_accuracies={"0": 0.0, "2": 1.0})
    assert bars_of(bare.section("accuracies")) == Bars("accuracy on held-out data", ("ant", "cat"), (0.0, 1.0))


def test_the_accuracy_of_one_class_is_no_section(report: Report) -> None:
    assert report.section("accuracies") is None
    assert replace(report, class_accuracies={"0": 0.5, "1": math.nan}).section("accuracies") is None
