"""Measured Gram matrices beside predicted ones, and what reports say of them unasked."""

import json

import pytest
import torch
from torch import Tensor, nn

from tightframe import ClassStatistics, Report, metrics
from tightframe.metrics import Evidence
from tightframe.report import RunFolder
from tightframe.report.predicted import LARGEST, measured, predicted, statements
from tightframe.theory import Training, cross_entropy_optimum, seli, squared_error_optimum

COUNTS = (20, 20, 20, 4, 4, 4)
DECAYS = Training(0.0295, 0.0295)


def rows_of(gram: Tensor) -> Tensor:
    """(K, K) vectors with these inner products."""
    values, vectors = torch.linalg.eigh(gram)
    return vectors * values.clamp(min=0).sqrt()


def evidence_of(means: Tensor, weight: Tensor | None, counts: tuple[int, ...] = COUNTS) -> Evidence:
    """Evidence of samples that lie about these means, evenly."""
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    noise = torch.randn(len(labels), means.shape[1], generator=torch.Generator().manual_seed(0)).double()
    for label in range(len(counts)):
        noise[labels == label] -= noise[labels == label].mean(0)
    return Evidence(ClassStatistics.from_features(means[labels] + 0.001 * noise, labels, len(counts)), weight)


def simplex(classes: int) -> Tensor:
    return torch.eye(classes, dtype=torch.float64) - 1 / classes


def report_of(kind: str, training: Training | None = None, counts: tuple[int, ...] = COUNTS) -> Report:
    """Means and classifier exactly those of a theory."""
    if kind == "SELI":
        geometry = seli(counts)
        evidence = evidence_of(rows_of(geometry.means), rows_of(geometry.classifiers), counts)
    elif kind == "simplex":
        evidence = evidence_of(simplex(len(counts)), simplex(len(counts)), counts)
    else:
        optimum = cross_entropy_optimum(counts, 0.0295, 0.0295)
        evidence = evidence_of(rows_of(optimum.means), rows_of(optimum.classifiers), counts)
    return Report.from_evidence(evidence, training=training)


def test_seli_is_told_from_the_simplex_unasked() -> None:
    report = report_of("SELI")
    assert report["seli_error"].value < 1e-6
    assert report["classifier_seli_error"].value < 1e-7
    evidence = report.evidence
    assert evidence is not None
    assert metrics.classifier_etf_error.having(centred=True).of(evidence) > 0.2
    first, means, classifier = statements(report)
    assert "4 to 20 samples" in first and "SELI" in first
    assert "classifier rows is nearest to SELI. Distances: " in classifier
    assert "class means is nearest to SELI" in means
    assert "; for rows in random directions the least distance is " in classifier
    assert "; with shuffled labels the least distance is " in means
    assert "the optimum" not in classifier


def test_the_simplex_is_told_from_seli() -> None:
    _, means, classifier = statements(report_of("simplex"))
    assert "classifier rows is nearest to the simplex ETF" in classifier
    assert "class means is nearest to the simplex ETF" in means


@pytest.mark.parametrize("counts", [(9, 9, 9, 9), (9, 10, 9, 9)])
def test_where_classes_are_alike_nothing_is_said(counts: tuple[int, ...]) -> None:
    assert statements(report_of("simplex", counts=counts)) == []


def test_at_known_decays_the_optimum_is_nearest() -> None:
    report = report_of("optimum", DECAYS)
    assert report["optimum_error"].value < 1e-6
    assert report["classifier_optimum_error"].value < 1e-7
    assert report["classifier_seli_error"].value > 0.1
    assert report["optimum_error"].target == 0.0
    _, means, classifier, merging = statements(report)
    assert "nearest to the optimum at the weight decays" in classifier
    assert "nearest to the optimum at the weight decays" in means
    assert merging.startswith(
        "At these weight decays, theory predicts that the classifier rows of equal-size classes with at most 4.51 "
        "samples merge: 3 here (3, 4, 5). "
    )
    assert "3 pairs of rows have a cosine of at least 0.99: 3–4, 3–5, 4–5." in merging
    assert "estimated" not in merging  # both decays were given


def test_merging_that_is_predicted_and_has_not_happened() -> None:
    merging = statements(report_of("SELI", DECAYS))[-1]
    assert "3 here (3, 4, 5)." in merging
    assert "No pair of rows has a cosine of 0.99 or more." in merging
    assert "merge: none here. No pair" in statements(report_of("SELI", Training(1e-4, 1e-4)))[-1]


def test_classes_that_merge_are_named() -> None:
    report = report_of("optimum", DECAYS).extended(facts={"class_names": dict(zip("012345", "uvwxyz", strict=True))})
    assert "3 here (x, y, z). 3 pairs of rows have a cosine of at least 0.99: x–y, x–z, y–z." in statements(report)[-1]


def test_a_decay_of_features_is_estimated_and_said_to_be() -> None:
    report = report_of("optimum", Training(0.0295))
    known = report.facts.training
    assert known is not None and report.facts.feature_decay_estimated
    assert known.feature_decay == pytest.approx(0.0295, rel=1e-3)  # at the optimum both penalties are equal
    assert "(λ_W = 0.0295; λ_H = 0.0295, estimated as λ_W‖W‖²/‖H‖².)" in statements(report)[-1]


def test_squared_error_predicts_another_optimum() -> None:
    training = Training(0.001, 0.001, loss="squared error")
    report = report_of("SELI", training)
    optimum = squared_error_optimum(COUNTS, 0.001, 0.001)
    last = predicted(report)[-1]
    assert last.classifiers is not None
    torch.testing.assert_close(last.classifiers, optimum.classifiers)
    assert not any("merge" in sentence for sentence in statements(report))


def test_a_bias_is_part_of_the_optimum() -> None:
    evidence = report_of("SELI").evidence
    assert evidence is not None
    free = Training(0.0295, 0.0295, bias_decay=0.0)
    with_bias = Evidence(evidence.statistics, evidence.weight, torch.zeros(6).double())
    report = Report.from_evidence(with_bias, training=free)
    last = predicted(report)[-1].classifiers
    assert last is not None
    torch.testing.assert_close(last, cross_entropy_optimum(COUNTS, 0.0295, 0.0295, 0.0).classifiers)


def test_decay_that_leaves_nothing_predicts_nothing() -> None:
    report = report_of("SELI", Training(1.0, 1.0))
    assert "optimum_error" not in report.values
    assert [geometry.name for geometry in predicted(report)] == ["the simplex ETF", "SELI"]


def test_geometries_hold_gram_matrices_of_what_was_measured() -> None:
    report = report_of("SELI")
    found, (etf, limit) = measured(report), predicted(report)
    assert found is not None and found.classifier_cosines is not None
    torch.testing.assert_close(found.classifier_cosines, limit.classifier_cosines, rtol=0, atol=1e-9)
    torch.testing.assert_close(etf.mean_cosines, torch.full((6, 6), -0.2).double().fill_diagonal_(1.0))
    torch.testing.assert_close(found.mean_cosines, limit.mean_cosines, rtol=0, atol=1e-6)


def test_too_many_classes_for_a_picture() -> None:
    counts = (2, *(1,) * LARGEST)
    evidence = evidence_of(
        torch.randn(len(counts), 3, generator=torch.Generator().manual_seed(1)).double(), None, counts
    )
    report = Report.from_evidence(evidence)
    assert measured(report) is None
    assert predicted(report) == []
    assert report.section("geometry") is None


def test_a_run_folder_keeps_what_was_predicted(tmp_path: object) -> None:
    report = report_of("optimum", DECAYS)
    assert report.evidence is not None and report.evidence.weight is not None
    model = nn.Sequential(nn.Linear(6, 6, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(report.evidence.weight)
    folder = RunFolder.create(f"{tmp_path}/run", {})
    folder.append(report.extended(facts={"classifier": "0"}))
    folder.save_model(model)
    again = folder.report()
    assert statements(again) == statements(report)
    assert [geometry.name for geometry in predicted(again)] == [geometry.name for geometry in predicted(report)]
    assert json.loads(again.to_json())["facts"]["training"]["weight_decay"] == 0.0295


@pytest.mark.parametrize(("kind", "training"), [("SELI", None), ("optimum", DECAYS)])
def test_predictions_are_drawn_beside_what_was_measured(kind: str, training: Training | None) -> None:
    report = report_of(kind, training)
    section = report.section("geometry")
    assert section is not None
    assert [figure.title for figure in section.figures] == [
        f"{before}{what}{after}"
        for what in ("class means", "classifier rows")
        for before, after in (("", ""), ("predicted, ", ""), ("", ": measured − predicted"))
    ]
    assert f"Predicted: {predicted(report)[-1].name}." in section.sentences[0]
    assert list(section.sentences[1:]) == statements(report)
    found, expected = measured(report), predicted(report)[-1]
    assert found is not None and found.classifier_cosines is not None and expected.classifier_cosines is not None
    for place, cosines in enumerate(
        (
            *(found.mean_cosines, expected.mean_cosines, found.mean_cosines - expected.mean_cosines),
            *(found.classifier_cosines, expected.classifier_cosines),
            found.classifier_cosines - expected.classifier_cosines,
        )
    ):
        drawn = torch.tensor(section.figures[place].values, dtype=torch.float64)  # type: ignore[union-attr]
        torch.testing.assert_close(drawn, cosines)
