"""The word for a fixed panel of features that nobody would confuse, the same at half and at twice the samples."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from thinned import thinned
from tightframe import ClassStatistics, Report, datasets, measure, prototypes
from tightframe.demo.network import network
from tightframe.evidence import Evidence
from tightframe.report.verdict import RULES

DATA = Path(__file__).parent / "data"
Sample = tuple[Tensor, Tensor, Tensor | None]
"""Features (N, D), labels (N,) and a classifier (K, D) or None."""


def recorded(name: str) -> Sample:
    panel = load_file(DATA / "panel.safetensors")
    features, labels, weight = (panel[f"{name}.{part}"] for part in ("features", "labels", "weight"))
    return features.float(), labels.long(), weight


def raw_pixels() -> Sample:
    data = datasets.load("digits", None)
    return data.train_images.flatten(1), data.train_labels, None


def untrained_network() -> Sample:
    data = datasets.load("digits", None)
    torch.manual_seed(0)
    model = network(data.image_shape, data.num_classes).eval()
    with torch.no_grad():
        features = model.get_submodule("features")(data.train_images).flatten(1)
    return features, data.train_labels, model.get_submodule("classifier").weight.detach()


def labels_of_other_samples() -> Sample:
    features, labels, _ = recorded("last epoch")
    return features, labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(3))], None


def about(means: Tensor, samples: int, spread: float) -> Sample:
    labels = torch.arange(samples) % len(means)
    noise = torch.randn(samples, means.shape[1], generator=torch.Generator().manual_seed(0))
    return means.float()[labels] + spread * noise, labels, means.float()


def best_code_of_many_classes() -> Sample:
    return about(prototypes.best(10, 4).vectors, 2000, 0.03)


def two_classes() -> Sample:
    return about(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), 2000, 0.03)


def fewer_samples_than_dimensions() -> Sample:
    means = torch.randn(10, 128, generator=torch.Generator().manual_seed(1))
    features, labels, _ = about(2 * means, 40, 1.0)
    return features, labels, None


PANEL = {
    "raw pixels": (raw_pixels, "NOT COLLAPSED"),
    "untrained network": (untrained_network, "NOT COLLAPSED"),
    "first epoch": (lambda: recorded("first epoch"), "NOT COLLAPSED"),
    "last epoch": (lambda: recorded("last epoch"), "COLLAPSED"),
    "noise labels, memorised": (lambda: recorded("noise labels"), "COLLAPSED"),
    "labels of other samples": (labels_of_other_samples, "NO BETTER THAN SHUFFLED"),
    "long tail": (lambda: recorded("long tail"), "NOT A SIMPLEX"),
    "fixed ETF head": (lambda: recorded("fixed ETF head"), "COLLAPSING"),
    "K > D + 1": (best_code_of_many_classes, "COLLAPSED"),
    "N <= D": (fewer_samples_than_dimensions, "TOO FEW SAMPLES"),
    "two classes": (two_classes, "COLLAPSED"),
}


def measured(sample: Sample, share: float) -> Report:
    """The report on a random part of the samples."""
    features, labels, weight = sample
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
    part = order[: round(share * len(labels))]
    return measure(features[part], labels[part], classifier=weight, decisions=None, progress=False)


@pytest.mark.parametrize("name", thinned(2, PANEL))
def test_the_word_is_the_same_at_half_and_at_twice_the_samples(name: str) -> None:
    make, word = PANEL[name]
    sample = make()
    assert [measured(sample, share).verdict.word for share in (0.25, 0.5, 1)] == 3 * [word]


def test_saved_statistics_of_a_language_model() -> None:
    """Of the last layer of a model of 135 million parameters on 16 to 64 thousand tokens of text: the tokens with 20
    samples or more, in 40 principal directions; no features, folds or classifier."""
    for part in ("half", "whole", "double"):
        statistics = ClassStatistics.load(DATA / f"language_model_{part}.safetensors")
        report = Report.from_evidence(Evidence(statistics))
        assert report.verdict.word == "NOT COLLAPSED", part
        assert report["nc1"].value < 0.5 * report["nc1"].shuffled


def test_thresholds_have_room_on_both_sides() -> None:
    """No panel case is within a fifth of a threshold that decides its word."""
    for name, (make, word) in PANEL.items():
        if word in ("TOO FEW SAMPLES", "NO BETTER THAN SHUFFLED"):
            continue
        report = measured(make(), 1)
        nc1, nc2 = report["trace_ratio"].least_closeness, report["etf_error"].least_closeness
        thresholds = {"COLLAPSED": (20, None), "NOT A SIMPLEX": (20, 2), "COLLAPSING": (5, None)}.get(word)
        if thresholds is None:
            assert nc1 < 5 / 1.2, name
        else:
            assert nc1 > 1.2 * thresholds[0], name
        if word == "NOT A SIMPLEX":
            assert nc2 < 2 / 1.2, name
        if word == "COLLAPSED" and name != "two classes":
            assert nc2 > 1.2 * 5, name
        if word == "COLLAPSING":
            assert nc1 < 20 / 1.2, name


def test_every_word_has_a_sentence_and_the_last_rule_holds_always() -> None:
    report = measured(recorded("last epoch"), 0.5)
    assert RULES[-1].holds(report)
    assert RULES[-1].word == "NOT COLLAPSED"
    verdict = report.verdict
    assert (verdict.word, verdict.tone) == ("COLLAPSED", "good")
    assert verdict.sentence == "Samples sit at their class means, which form a simplex ETF."


def test_two_standard_errors_count() -> None:
    """A value far beyond the threshold doesn't make the word if its error reaches back over it."""
    report = measured(recorded("last epoch"), 0.5)
    unsure = tuple(replace(each, least_closeness=19.9) if each.name == "trace_ratio" else each for each in report)
    assert replace(report, entries=unsure).verdict.word == "COLLAPSING"
    sure = tuple(replace(each, least_closeness=20.1) if each.name == "trace_ratio" else each for each in report)
    assert replace(report, entries=sure).verdict.word == "COLLAPSED"


def sixfold(spread: float = 0.02) -> tuple[Tensor, Tensor]:
    features, labels, _ = about(prototypes.simplex(6, 12).vectors, 360, spread)
    return features, labels


@pytest.mark.parametrize(
    ("metrics", "word"),
    [(["nc1"], "AT CLASS MEANS"), (["cdnv"], "AT CLASS MEANS"), (["etf_error"], "MEASURED"),
     (["nc1", "etf_error"], "COLLAPSED"), (None, "COLLAPSED")],
)  # fmt: skip
def test_nothing_is_said_of_what_was_not_measured(metrics: list[str] | None, word: str) -> None:
    verdict = measure(*sixfold(), metrics=metrics, progress=False).verdict
    assert verdict.word == word
    assert ("NC2 was not measured" in verdict.sentence) is (word == "AT CLASS MEANS")


def test_constant_features() -> None:
    features, labels = sixfold()
    assert measure(torch.ones_like(features), labels, progress=False).verdict.word == "CONSTANT FEATURES"


def test_means_in_one_dimension_form_no_simplex_that_shuffled_labels_do_not() -> None:
    _, labels = sixfold()
    three = (labels % 3)[:, None].double()
    noise = torch.randn(len(labels), 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    report = measure(three + 0.001 * noise, labels % 3, progress=False)
    assert report.verdict.word == "AT CLASS MEANS"
    assert report.verdict.sentence.endswith("NC2 is no better than with shuffled labels.")


def test_exact_collapse_is_said_to_be_exact() -> None:
    """Random means, without any scatter: the sentence has no infinite number of times."""
    means = torch.randn(10, 64, generator=torch.Generator().manual_seed(0))
    features, labels, _ = about(means, 400, 0.0)
    report = measure(features, labels, progress=False)
    assert report.verdict.word in ("NOT A SIMPLEX", "COLLAPSING")
    assert "inf" not in report.verdict.sentence and "exact " not in report.verdict.sentence


@pytest.mark.parametrize(("each", "word"), [(4, "TOO FEW SAMPLES"), (5, "COLLAPSED")])
def test_five_samples_a_class_are_enough(each: int, word: str) -> None:
    features, labels, _ = about(prototypes.simplex(6, 12).vectors, 6 * each, 1e-4)
    assert measure(features, labels, progress=False).verdict.word == word


def test_a_regression_has_no_word_of_collapse() -> None:
    generator = torch.Generator().manual_seed(0)
    features, targets = (torch.randn(60, n, generator=generator) for n in (8, 2))
    report = measure(features, targets, task="regression", progress=False)
    assert report.verdict.word == "MEASURED"
    assert [card.label for card in report.cards] == ["NRC1"]


def test_the_terminal_phase_is_said_while_it_lasts() -> None:
    features, labels, weight = recorded("last epoch")
    first, second = (
        measure(features, labels, classifier=weight, progress=False, context={"epoch": epoch}) for epoch in (3, 9)
    )
    assert first["classifier_accuracy"].value == 1
    series = replace(second, history=(first,))
    assert series.verdict.state == "terminal phase since epoch 3 · training accuracy 100.0 %"
    left = tuple(replace(each, value=0.99) if each.name == "classifier_accuracy" else each for each in second)
    assert replace(series, entries=left).verdict.state == "training accuracy 99.0 %"
