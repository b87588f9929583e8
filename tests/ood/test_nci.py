import pytest
import torch
from streams import D, K, features, streamed

from tightframe import ClassStatistics
from tightframe.errors import ClassifierError, EmptyClassError, RangeError
from tightframe.ood import Nci

ROWS, LABELS = features(400, 0)
NEW, _ = features(60, 1)
DRAWS = torch.Generator().manual_seed(8)
WEIGHT, BIAS = torch.randn(K, D, generator=DRAWS).double(), 9 * torch.randn(K, generator=DRAWS).double()


@pytest.mark.parametrize("alpha", [0.0, 1e-4, 0.3])
def test_by_loops(alpha: float) -> None:
    mean = sum(ROWS) / len(ROWS)
    expected = []
    for row in NEW:
        logits = [float(w @ row + b) for w, b in zip(WEIGHT, BIAS, strict=True)]
        centred = row - mean
        length = float(centred.square().sum()) ** 0.5
        product = float(WEIGHT[logits.index(max(logits))] @ centred)
        expected.append(product / length + alpha * sum(abs(float(value)) for value in row))
    scores = Nci.fit(streamed(ROWS, LABELS), WEIGHT, BIAS, alpha=alpha).scores(NEW)
    torch.testing.assert_close(scores, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-10)


def test_scale_and_means_alone() -> None:
    """Without the length, a common scale cancels; the scatter is not read."""
    means = ClassStatistics.from_features(10 * ROWS, LABELS, K, covariance=False)
    scores = Nci.fit(means, WEIGHT / 10, BIAS, alpha=0.0).scores(10 * NEW)
    expected = Nci.fit(streamed(ROWS, LABELS), WEIGHT, BIAS, alpha=0.0).scores(NEW) / 10
    torch.testing.assert_close(scores, expected, rtol=1e-10, atol=1e-12)


def test_the_mean_itself_has_no_score() -> None:
    detector = Nci.fit(streamed(ROWS, LABELS), WEIGHT, BIAS)
    scores = detector.scores(torch.stack([detector.mean, NEW[0]]))
    assert scores.isnan().tolist() == [True, False]


def test_what_cannot_be_fitted() -> None:
    with pytest.raises(ClassifierError, match=rf"must be \(K, {D}\) to fit"):
        Nci.fit(streamed(ROWS, LABELS), WEIGHT[:, 1:])
    with pytest.raises(RangeError, match=r"alpha must be in \[0, inf\); got -1"):
        Nci.fit(streamed(ROWS, LABELS), WEIGHT, alpha=-1)
    with pytest.raises(EmptyClassError):
        Nci.fit(ClassStatistics.empty(K, D), WEIGHT)
