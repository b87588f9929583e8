"""Laws of all detectors in the table: dead units, few samples, scales, far samples, half precision."""

import math

import pytest
import torch
from streams import D, K, features
from torch import Tensor

from tightframe import ClassStatistics
from tightframe.metrics import Evidence
from tightframe.ood import DETECTORS, DetectorScores

ROWS, LABELS = features(400, 0)
NEW = torch.cat([features(60, 1)[0], 3 * torch.randn(40, D, generator=torch.Generator().manual_seed(2)).double()])
NAMES = sorted(DETECTORS)
WEIGHT = torch.stack([ROWS[LABELS.eq(k)].mean(0) for k in range(K)])
WEIGHT = (WEIGHT - WEIGHT.mean(0)) / 500
BIAS = torch.linspace(-1, 1, K).double()


def scores_of(name: str, rows: Tensor, labels: Tensor, weight: Tensor, new: Tensor) -> Tensor:
    statistics = ClassStatistics.from_features(rows, labels, K)
    return DETECTORS[name](Evidence(statistics, weight, BIAS)).scores(new)


@pytest.mark.parametrize("name", NAMES)
def test_dead_units_change_nothing(name: str) -> None:
    def padded(rows: Tensor) -> Tensor:
        return torch.cat([rows, torch.zeros(len(rows), 5).double()], 1)

    expected = scores_of(name, ROWS, LABELS, WEIGHT, NEW)
    scores = scores_of(name, padded(ROWS), LABELS, padded(WEIGHT), padded(NEW))
    torch.testing.assert_close(scores, expected, rtol=1e-8, atol=1e-8)
    alive = padded(NEW)
    alive[:, D + 1] = 50.0  # a unit that was dead in training
    assert bool(scores_of(name, padded(ROWS), LABELS, padded(WEIGHT), alive).isfinite().all())


@pytest.mark.parametrize("count", [8, 11])
@pytest.mark.parametrize("name", NAMES)
def test_fewer_samples_than_dimensions(name: str, count: int) -> None:
    labels = torch.arange(count) % K
    scores = scores_of(name, ROWS[:count], labels, WEIGHT, NEW)
    assert bool(scores.isfinite().all())
    assert len(scores.unique()) > 1


@pytest.mark.parametrize("scale", [1e-3, 1e3])
@pytest.mark.parametrize("name", NAMES)
def test_features_in_another_unit(name: str, scale: float) -> None:
    """Every detector but NCI ranks samples as before, if the classifier's rows are in the inverse unit."""
    scores = scores_of(name, ROWS * scale, LABELS, WEIGHT / scale, NEW * scale)
    assert bool(scores.isfinite().all())
    expected = scores_of(name, ROWS, LABELS, WEIGHT, NEW)
    if name != "nci":
        unit = scale if name in ("nearest_centre", "residual") else 1.0
        torch.testing.assert_close(scores / unit, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_units_of_different_size(name: str) -> None:
    sizes = 10 ** torch.linspace(-3, 3, D).double()
    assert bool(scores_of(name, ROWS * sizes, LABELS, WEIGHT / sizes, NEW * sizes).isfinite().all())


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_widened(name: str) -> None:
    rows = NEW.to(torch.bfloat16)
    statistics = ClassStatistics.from_features(ROWS, LABELS, K)
    detector = DETECTORS[name](Evidence(statistics, WEIGHT, BIAS))
    assert torch.equal(detector.scores(rows), detector.scores(rows.double()))
    assert detector.scores(rows).dtype is torch.float64
    assert not detector.scores(rows.float().requires_grad_()).requires_grad
    assert detector.scores(rows[:0]).shape == (0,)


def test_undefined_detectors_are_left_out_with_a_sentence() -> None:
    """Collapsed on one axis: no variation within classes, no residual; then logits that are never positive."""
    rows = torch.zeros(6, 4).double()
    rows[:, 0] = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0, -1.0])
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    statistics = ClassStatistics.from_features(rows, labels, 2)
    weight = torch.zeros(2, 4).double()
    weight[:, 0] = torch.tensor([1.0, -1.0])
    scores = DetectorScores(Evidence(statistics, weight))
    scores.add_inside(rows + 0.1)
    scores.add_outside(rows * 0 + 0.3)
    table = scores.table()
    assert {"mahalanobis", "relative_mahalanobis", "vim"}.isdisjoint(scores.detectors)
    assert all(not math.isnan(row.auroc) for row in table.rows)
    notes = " ".join(table.notes)
    assert "relative Mahalanobis is left out: the Mahalanobis distance is undefined" in notes
    assert "ViM is left out: ViM's scale is undefined: training features do not leave" in notes
    negative = DetectorScores(Evidence(ClassStatistics.from_features(ROWS, LABELS, K), 0 * WEIGHT, BIAS - 9))
    assert set(DETECTORS) - set(negative.detectors) == {"vim"}
