"""Each odd thing: said of a constructed case, not of its neighbour."""

import json
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import tightframe as tf
from tightframe import measure, prototypes, theory
from tightframe.metrics import METRICS
from tightframe.report import Entry, Facts
from tightframe.report.findings import Distances
from tightframe.report.verdict import ODDITIES, oddities

K, D = 6, 12
NAMES = [each.name for each in ODDITIES]


def samples(means: Tensor, each: int | list[int], spread: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features about the means, and labels."""
    counts = [each] * len(means) if isinstance(each, int) else each
    labels = torch.repeat_interleave(torch.arange(len(means)), torch.tensor(counts))
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(labels), means.shape[1], generator=generator, dtype=torch.float64)
    return means[labels] + spread * noise, labels


def report(
    means: Tensor | None = None,
    each: int | list[int] = 60,
    spread: float = 0.02,
    *,
    test_spread: float | None = None,
    **options: object,
) -> tf.Report:
    means = simplex() if means is None else means
    test = None if test_spread is None else samples(means, 40, test_spread, seed=1)
    features, labels = samples(means, each, spread)
    return measure(features, labels, test=test, progress=False, **options)


def simplex() -> Tensor:
    return prototypes.simplex(K, D).vectors.double()


def said(found: tf.Report) -> dict[str, str]:
    return {each.name: each.sentence for each in found.oddities}


def test_names_are_unique() -> None:
    assert len(set(NAMES)) == len(NAMES)


def test_nothing_is_odd_about_a_collapsed_network() -> None:
    found = report(test_spread=0.02, classifier=simplex().float())
    assert found.verdict.word == "COLLAPSED"
    assert found.oddities == ()


def test_held_out_data_that_are_far_less_collapsed() -> None:
    far, near = report(test_spread=0.2), report(test_spread=0.03)
    ratio = far["test/nc1"].value / far["nc1"].value
    assert said(far)["held-out"] == (
        f"NC1 is {ratio:,.0f} times larger on held-out data ({far['test/nc1'].value:.4g})."
    )
    assert 50 < ratio < 200 and "held-out" not in said(near)
    spread_out = report(spread=0.6, test_spread=6.0)  # not collapsed on the training data either
    assert "held-out" not in said(spread_out)


def test_nc2_lags_nc1() -> None:
    generator = torch.Generator().manual_seed(3)
    off = torch.randn(K, D, generator=generator, dtype=torch.float64)
    lags, close = report(simplex() + 0.1 * off), report(simplex() + 0.01 * off)
    assert lags.verdict.word == "COLLAPSING" and said(lags)["nc2-lags"].startswith("NC2 lags NC1: ")
    assert close.verdict.word == "COLLAPSED" and "nc2-lags" not in said(close)


def test_two_class_means_coincide() -> None:
    means = simplex()
    means[4] = means[1] + 1e-3 * means[0]
    names = ["ant", "bee", "cat", "dog", "eel", "fox"]
    found = report(means, context={"class_names": names})
    assert said(found)["coincident-means"] == (
        "The means of classes bee, eel coincide, where theory predicts separate means."
    )
    means[4] = means[1] + 0.3 * means[0]
    assert "coincident-means" not in said(report(means))


def test_coincident_means_that_theory_predicts() -> None:
    """At large weight decays rare classes merge: their optimum is measured."""
    counts = torch.tensor([60, 60, 60, 3, 3, 3])
    training = theory.Training(0.015, 0.015)
    optimum = training.optimum(counts, with_bias=False)
    assert list(map(list, optimum.merged)) == [[3, 4, 5]]
    values, vectors = torch.linalg.eigh(optimum.means)
    means = vectors * values.clamp(min=0).sqrt()
    rows_values, rows_vectors = torch.linalg.eigh(optimum.classifiers)
    rows = rows_vectors * rows_values.clamp(min=0).sqrt()
    found = report(means, counts.tolist(), 1e-3, classifier=rows, training=training)
    assert said(found)["coincident-means"] == "The means of classes 3, 4, 5 coincide, as theory predicts."
    assert said(found)["merged-rows"] == (
        "The classifier rows of rare classes 3, 4, 5 have merged, as theory predicts at these weight decays."
    )


def test_merged_rows_are_said_of_rare_classes_only() -> None:
    rows = simplex()
    rows[4] = rows[5]
    rare = report(each=[90, 90, 90, 90, 9, 9], classifier=rows)
    assert said(rare)["merged-rows"] == "The classifier rows of rare classes 4, 5 have merged."
    assert "merged-rows" not in said(report(each=[9, 90, 90, 90, 90, 90], classifier=rows))
    assert "merged-rows" not in said(report(each=[90, 90, 90, 90, 9, 9], classifier=simplex()))


@pytest.mark.parametrize(("gap", "odd"), [(0.021, True), (0.019, False), (None, False)])
def test_a_blip_of_batch_normalisation(gap: float | None, odd: bool) -> None:
    plain = report()
    found = replace(plain, facts=replace(plain.facts, normalisation_gap=gap))
    assert ("batch-normalisation" in said(found)) is odd
    if odd:
        assert "a correlation of 0.979, below 0.98" in said(found)["batch-normalisation"]


class Doubting(nn.Module):
    """Returns other decisions than its classifier for samples whose first feature is positive."""

    def __init__(self, doubts: bool):
        super().__init__()
        self.fc = nn.Linear(D, K, bias=False)
        self.fc.weight = nn.Parameter(simplex().float())
        self.doubts = doubts

    def forward(self, x: Tensor) -> Tensor:
        logits = self.fc(x)
        return torch.where(x[:, :1] > 0, logits.flip(1), logits) if self.doubts else logits


def test_a_classifier_that_does_not_decide() -> None:
    features, labels = samples(simplex(), 60, 0.02)
    for doubts in (True, False):
        found = measure(Doubting(doubts), (features.float(), labels), classifier="fc", progress=False)
        assert ("other-decisions" in said(found)) is doubts
    found = measure(Doubting(True), (features.float(), labels), classifier="fc", progress=False)
    assert "'fc'" in said(found)["other-decisions"] and f"{found.facts.agreement:.0%}" in said(found)["other-decisions"]


@pytest.mark.parametrize(("distance", "odd"), [(0.8, True), (0.79, False)])
def test_means_near_no_prediction(distance: float, odd: bool) -> None:
    near = Distances("class means", {"SELI": distance, "the simplex ETF": 0.9}, "SELI", "the simplex ETF",
                     0.9 - distance, None, 0.8, 0.01)  # fmt: skip
    found = replace(report(), distances=(near,))
    assert ("near-nothing" in said(found)) is odd


def test_more_classes_than_fit() -> None:
    found = report(prototypes.simplex(4, 3).vectors.double())
    assert "crowded" not in said(found)
    square = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]], dtype=torch.float64)
    assert said(report(square))["crowded"].startswith("4 classes cannot form a simplex ETF in 2 dimensions")


def test_a_measure_without_enough_samples() -> None:
    plain = report()
    entries = tuple(replace(entry, value=float("nan")) if entry.name == "vci" else entry for entry in plain)
    assert said(replace(plain, entries=entries))["undefined"] == f"This measure is undefined: {METRICS['vci'].label}."
    assert "undefined" not in said(plain)


def test_a_card_no_better_than_with_shuffled_labels() -> None:
    generator = torch.Generator().manual_seed(0)
    other = torch.randn(K, D, generator=generator, dtype=torch.float64)
    found = report(classifier=other)
    assert said(found)["like-shuffled"] == "NC3 and NC4 are no better than with shuffled labels."
    assert "like-shuffled" not in said(report(classifier=simplex()))


def test_oddities_of_bare_entries() -> None:
    """Reports of other tasks, and of old runs, have neither evidence nor all facts."""
    entry = Entry("nc1", "train", "NC1", "NC1", 0.1, 0.0, None, None, None, "", "", True)
    assert oddities(tf.Report((entry,), Facts())) == ()
    assert tf.Report((entry,), Facts()).verdict.word == "MEASURED"


def test_scatter_outside_the_span_of_the_means() -> None:
    """NC1 doesn't see it: with or without, NC1 says that the network has collapsed."""
    basis = torch.linalg.svd(simplex() - simplex().mean(0))[2][: K - 1]
    features, labels = samples(simplex(), 100, 0.0)
    noise = torch.randn(K, 100, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = (noise - noise.mean(1, keepdim=True)).flatten(0, 1)  # it moves no class mean
    along = noise @ basis.mT @ basis
    wide = measure(features + 0.01 * along + 1.0 * (noise - along), labels, progress=False)
    narrow = measure(features + 0.01 * noise, labels, progress=False)
    assert wide["nc1"].closeness > 1000 and wide.verdict.word == "NOT COLLAPSED"
    assert said(wide)["scatter"].endswith("outside the span of the class means, which NC1 does not see.")
    assert narrow.verdict.word == "COLLAPSED" and "scatter" not in said(narrow)


def test_coincident_means_that_make_nc1_large() -> None:
    means = simplex()
    means[4] = means[1]
    found = report(means)
    assert found.verdict.word == "NOT A SIMPLEX" and found["nc1"].closeness < 20
    assert said(found)["scatter"].endswith("some class means nearly coincide, which NC1 weighs heavily.")


def test_what_is_written_is_read_again() -> None:
    """Some odd things need statistics, which JSON doesn't hold."""
    means = simplex()
    means[4] = means[1]
    found = report(means)
    read = tf.Report.from_dict(json.loads(found.to_json()))
    assert read.evidence is None
    assert read.oddities == found.oddities and len(found.oddities) > 1
