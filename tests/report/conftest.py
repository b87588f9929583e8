"""Evidence of known counts and dimension, and reports with every kind of value in them."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tightframe import ClassStatistics, DecisionCounts, Report
from tightframe.metrics import Evidence

Make = Callable[..., Evidence]


def draw(counts: tuple[int, ...], dim: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    means = torch.randn(len(counts), dim, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    noise = torch.randn(len(labels), dim, generator=generator, dtype=torch.float64)
    return means[labels] + noise, labels


def _make(
    counts: tuple[int, ...] = (12, 9, 15, 10), dim: int = 6, *, seed: int = 0, per_class: bool = False
) -> Evidence:
    generator = torch.Generator().manual_seed(seed)
    features, labels = draw(counts, dim, generator)
    weight = torch.randn(len(counts), dim, generator=generator, dtype=torch.float64)
    bias = torch.randn(len(counts), generator=generator, dtype=torch.float64)
    statistics = ClassStatistics.from_features(features, labels, len(counts), per_class=per_class)
    decisions = DecisionCounts(statistics, weight, bias)
    decisions.update(features, labels)
    outside = torch.randn(11, dim, generator=generator, dtype=torch.float64)
    alone = ClassStatistics.from_features(outside, torch.zeros(11, dtype=torch.int64), 1, covariance=False)
    return Evidence(statistics, weight, bias, decisions, alone)


@pytest.fixture(scope="session")
def make_evidence() -> Make:
    """All that metrics may use, for classes of the given sizes; the seed changes everything but the class means."""
    return _make


@pytest.fixture(scope="session")
def held_out() -> Callable[[Evidence], Evidence]:
    """Decisions on 25 other samples with the same class means and classifier."""

    def decide(evidence: Evidence) -> Evidence:
        statistics = evidence.statistics
        assert statistics is not None
        decisions = DecisionCounts(statistics, evidence.weight, evidence.bias)
        counts = (25 - 2 * (statistics.num_classes - 1), *(2,) * (statistics.num_classes - 1))
        decisions.update(*draw(counts, statistics.num_features, torch.Generator().manual_seed(5)))
        return Evidence(decisions=decisions)

    return decide


@pytest.fixture(scope="session")
def full_report(make_evidence: Make, held_out: Callable[[Evidence], Evidence]) -> Report:
    """Training, held-out and out-of-distribution entries of four classes in six dimensions."""
    evidence = make_evidence()
    return Report.from_evidence(evidence, test=held_out(evidence), facts={"epoch": 3, "layer": "input of fc"})


@pytest.fixture(scope="session")
def crowded_report(make_evidence: Make, held_out: Callable[[Evidence], Evidence]) -> Report:
    """Nine classes in four dimensions, so that there are floors; every measure, and two conventions."""
    evidence = make_evidence((5,) * 8 + (7,), 4, per_class=True)
    conventions = {"wu-papyan-2024/nc2-equiangularity": evidence, "haframe-2023/nc3": evidence}
    return Report.from_evidence(evidence, test=held_out(evidence), conventions=conventions)


@pytest.fixture
def awkward_report(full_report: Report) -> Report:
    """The full report with values that JSON lacks, and with the longest numbers that are printed.

    Small negative ones are real: with 50,000 classes the mean cosine and its target are -2.000e-05.
    """
    awkward = [float("nan"), float("inf"), -float("inf"), -1.23456e-05, 9.87654e-16, 0.0, 1234567.0]
    entries = [
        replace(entry, value=value, target=value, shuffled=value, shuffled_spread=value, floor=value)
        for entry, value in zip(full_report.entries, awkward, strict=False)
    ]
    return replace(full_report, entries=(*entries, *full_report.entries[len(awkward) :]))


@pytest.fixture
def series(make_evidence: Make) -> Report:
    """Four measurements; zeros, an undefined value and a missing one among the first three."""
    reports = [Report.from_evidence(make_evidence(seed=e), context={"epoch": e}) for e in (1, 2, 5, 9)]

    def change(report: Report, key: str, value: float | None) -> Report:
        entries = [replace(e, value=value) if e.key == key and value is not None else e for e in report]
        return replace(report, entries=tuple(e for e in entries if value is not None or e.key != key))

    reports[0] = change(reports[0], "cdnv", math.nan)
    reports[1] = change(change(reports[1], "ncc_mismatch", 0.0), "vci", None)
    return replace(reports[-1], history=tuple(reports[:-1]))
