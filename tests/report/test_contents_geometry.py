"""Gram matrices: as measured, as predicted, and what lies between."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from tightframe import ClassStatistics, Report
from tightframe.metrics import Evidence
from tightframe.sections import Matrix

Make = Callable[..., Evidence]


def matrices(report: Report) -> list[Matrix]:
    section = report.section("geometry")
    assert section is not None
    assert all(isinstance(figure, Matrix) for figure in section.figures)
    return [figure for figure in section.figures if isinstance(figure, Matrix)]


def cosines(rows: torch.Tensor) -> np.ndarray:
    n = len(rows)
    grid = [[float(rows[i] @ rows[j] / (rows[i].norm() * rows[j].norm())) for j in range(n)] for i in range(n)]
    return np.array(grid)


def test_gram_matrices_hold_cosines(make_evidence: Make) -> None:
    evidence = make_evidence((9, 0, 8, 7), 6)
    report = Report.from_evidence(evidence, context={"class_names": ["cat", "dog", "eel", "fox"]})
    assert evidence.statistics is not None and evidence.weight is not None
    kept = [0, 2, 3]
    means, rows = evidence.statistics.means[kept], evidence.weight[kept]
    first, second = cosines(means - means.mean(0)), cosines(rows - rows.mean(0))
    ideal = np.array([[1.0, -0.5, -0.5], [-0.5, 1.0, -0.5], [-0.5, -0.5, 1.0]])
    expected = {
        "class means": first,
        "predicted, the simplex ETF": ideal,
        "class means: measured − predicted": first - ideal,
        "classifier rows": second,
        "classifier rows: measured − predicted": second - ideal,
    }
    found = matrices(report)
    assert [figure.title for figure in found] == list(expected)
    for figure in found:
        np.testing.assert_allclose(np.array(figure.values), expected[figure.title], atol=1e-12)
        assert figure.names == ("cat", "eel", "fox")


def test_the_simplex_is_the_neutral_colour_and_all_cosines_have_one(make_evidence: Make) -> None:
    for figure in matrices(Report.from_evidence(make_evidence((9, 10, 8, 7), 6))):
        if "measured − predicted" in figure.title:
            largest = max(abs(value) for row in figure.values for value in row)
            assert (figure.low, figure.middle, figure.high) == (-largest, 0.0, largest)
        else:
            assert figure.middle == pytest.approx(-1 / 3)
            assert (figure.low, figure.high) == pytest.approx((-1 / 3 - 4 / 3, 1.0))


def test_the_pairs_farthest_from_the_prediction_are_outlined(make_evidence: Make) -> None:
    for figure in matrices(Report.from_evidence(make_evidence((9, 10, 8, 7, 9), 6))):
        if figure.title.startswith("predicted"):
            assert figure.outlined == ()
            continue
        ideal = 0 if "−" in figure.title else -1 / 4
        gaps = {(i, j): abs(figure.values[i][j] - ideal) for i in range(5) for j in range(i)}
        worst = sorted(gaps, key=lambda pair: -gaps[pair])[:3]
        assert set(figure.outlined) == {*worst, *((j, i) for i, j in worst)}


def test_the_pairs_farthest_from_the_prediction_are_named(make_evidence: Make) -> None:
    """What only pictures show is said with them alone."""
    evidence = make_evidence((9, 10, 8, 7, 9), 6)
    names = ["ant", "bee", "cat", "dog", "eel"]
    section = Report.from_evidence(evidence, context={"class_names": names}).section("geometry")
    assert section is not None
    means, _, gaps, rows, _ = section.figures

    def named(figure: object) -> str:
        assert isinstance(figure, Matrix)
        return ", ".join(f"{names[i]}–{names[j]}" for i, j in figure.outlined[::2])

    assert section.sentences[0].endswith(
        f" Farthest from the prediction: class means {named(means)}; classifier rows {named(rows)}."
    )
    assert not any(word in " ".join(section.sentences) for word in ("colour", "outlined", "White"))
    assert means.note == "White: the cosine of a simplex ETF. Outlined: the pairs farthest from the prediction."
    assert gaps.note == "White: no difference. Outlined: the pairs farthest from the prediction."
    alone = Report.from_evidence(Evidence(evidence.statistics)).section("geometry")
    assert alone is not None and alone.figures[0].outlined == means.outlined
    ends = ", ".join(f"{i}–{j}" for i, j in means.outlined[::2])
    assert alone.sentences[0].endswith(f" Farthest from the prediction: {ends}.")


def test_where_all_agree_no_pair_is_farthest() -> None:
    report = simplex(torch.tensor([2, 2, 2]))
    assert [figure.outlined for figure in matrices(report)] == [(), (), ()]
    section = report.section("geometry")
    assert section is not None and section.sentences[0].endswith(" Predicted: the simplex ETF.")
    assert matrices(report)[0].note == "White: the cosine of a simplex ETF."


def test_classes_without_names_are_called_by_their_labels(make_evidence: Make) -> None:
    for figure in matrices(Report.from_evidence(make_evidence((9, 0, 8, 7), 6))):
        assert figure.names == ("0", "2", "3")


def test_without_classifier_the_means_alone(make_evidence: Make) -> None:
    found = matrices(Report.from_evidence(Evidence(make_evidence((12, 9, 13, 10)).statistics)))
    assert [figure.title for figure in found] == [
        "class means", "predicted, class means", "class means: measured − predicted",
    ]  # fmt: skip
    assert found[0].names == ("0", "1", "2", "3")


def test_the_sentence_names_the_simplex_and_the_prediction(make_evidence: Make, full_report: Report) -> None:
    even = Report.from_evidence(make_evidence((9, 10, 8, 7), 6)).section("geometry")
    assert even is not None and "In a simplex ETF every pair has −0.3333 = −1/(K − 1)" in even.sentences[0]
    assert "Predicted: the simplex ETF." in even.sentences[0]
    uneven = full_report.section("geometry")
    assert uneven is not None and "Predicted: SELI." in uneven.sentences[0]
    assert [figure.title for figure in uneven.figures] == [
        "class means", "predicted, class means", "class means: measured − predicted",
        "classifier rows", "predicted, classifier rows", "classifier rows: measured − predicted",
    ]  # fmt: skip


def simplex(counts: torch.Tensor) -> Report:
    """Fixed statistics, for speed: an orthogonal frame, and a sample more than needed in every class."""
    classes = len(counts)
    means = torch.where(counts[:, None] > 0, torch.eye(classes, dtype=torch.float64), torch.nan)
    statistics = ClassStatistics(counts, means, torch.ones(classes, dtype=torch.float64))
    return Report.from_evidence(Evidence(statistics), metrics=["trace_ratio"])


@pytest.mark.parametrize(("classes", "pictures"), [(200, 3), (201, 0)])
def test_more_than_two_hundred_classes_have_no_picture(classes: int, pictures: int) -> None:
    report = simplex(torch.full((classes,), 2))
    section = report.section("geometry")
    assert (0 if section is None else len(section.figures)) == pictures
    assert ("Gram matrices" in report.to_html()) is bool(pictures)


def test_two_hundred_classes_with_samples_of_more_have_a_picture() -> None:
    counts = torch.full((250,), 2)
    counts[10:60] = 0
    assert [len(figure.values) for figure in matrices(simplex(counts))] == [200] * 3


def test_two_classes_have_pictures() -> None:
    first, *_ = matrices(simplex(torch.tensor([2, 3])))
    np.testing.assert_allclose(np.array(first.values), [[1, -1], [-1, 1]], atol=1e-12)


def test_coincident_means_have_no_cosines() -> None:
    """All means equal: a cosine is undefined, and so is its distance from the prediction."""
    statistics = ClassStatistics(torch.full((3,), 5), torch.ones(3, 4).double(), torch.ones(3).double())
    report = Report.from_evidence(Evidence(statistics), metrics=["trace_ratio"])
    means, _, gaps = matrices(report)
    assert all(math.isnan(value) for row in means.values for value in row)
    assert all(math.isnan(value) for row in gaps.values for value in row)
    assert gaps.high > 0
    report.to_html()
    report.to_terminal(everything=True)


def test_without_evidence_there_is_no_picture(full_report: Report) -> None:
    assert Report.from_dict(full_report.to_dict()).section("geometry") is None
