"""Very many classes: what is computed without forming pairs, or left out, as it would take hours."""

import sys

import pytest
import torch

from tightframe.evidence import Evidence
from tightframe.metrics import classifier_equiangularity, geometry, standard_errors
from tightframe.statistics import FoldedStatistics


@pytest.mark.parametrize("common", [0.0, 1.0, 30.0])
@pytest.mark.parametrize("ddof", [0, 1])
def test_the_spread_of_cosines_without_pairs(monkeypatch: pytest.MonkeyPatch, common: float, ddof: int) -> None:
    rows = torch.randn(60, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + common
    over_pairs = classifier_equiangularity(rows, ddof=ddof)
    monkeypatch.setattr(geometry, "_MANY_ROWS", 10)
    calls: list[int] = []
    tiled = geometry.reduce_vectors
    monkeypatch.setattr(geometry, "reduce_vectors", lambda *given: calls.append(1) or tiled(*given))
    assert float(classifier_equiangularity(rows, ddof=ddof)) == pytest.approx(float(over_pairs), rel=1e-6)
    assert not calls


def test_cosines_that_are_nearly_equal_are_taken_over_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.ones(60, 7, dtype=torch.float64) + 1e-4 * torch.eye(60, 7, dtype=torch.float64)
    expected = classifier_equiangularity(rows)
    monkeypatch.setattr(geometry, "_MANY_ROWS", 10)
    assert float(classifier_equiangularity(rows)) == float(expected) > 0


def test_measures_over_pairs_of_very_many_classes_have_no_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = torch.randn(120, 6, dtype=torch.float64), torch.arange(120) % 12
    folds = FoldedStatistics.from_features(features, labels, 12, folds=4)
    evidence = Evidence(folds.total, folds=folds)
    names = ["nc1", "etf_error", "equiangularity", "cdnv"]
    assert standard_errors(evidence, names).keys() == set(names)
    monkeypatch.setattr(sys.modules["tightframe.metrics.jackknife"], "MANY_PAIRED", 11)
    assert standard_errors(evidence, names).keys() == {"nc1", "etf_error"}
