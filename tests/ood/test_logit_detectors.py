import math

import pytest
import torch
from torch import Tensor

from tightframe.errors import ClassifierError, NonFiniteError, RangeError
from tightframe.ood import Energy, GeneralizedEntropy, MaxLogit, MaxSoftmax
from tightframe.ood.logits import Logits

K, D = 7, 4
WEIGHT, BIAS = torch.randn(K, D, generator=torch.Generator().manual_seed(3)), torch.arange(K) / K
ROWS = torch.randn(30, D, generator=torch.Generator().manual_seed(4)) * 3


def logits(rows: Tensor, bias: Tensor | None = BIAS) -> list[list[float]]:
    offsets = torch.zeros(K) if bias is None else bias
    return [[sum(float(a) * float(b) for a, b in zip(w, x, strict=True)) + float(o)
             for w, o in zip(WEIGHT, offsets, strict=True)] for x in rows]  # fmt: skip


@pytest.mark.parametrize("bias", [BIAS, None])
def test_by_loops(bias: Tensor | None) -> None:
    expected = torch.tensor(logits(ROWS, bias), dtype=torch.float64)
    totals = torch.tensor([sum(value.exp() for value in row) for row in expected], dtype=torch.float64)
    largest = torch.tensor([max(row) for row in expected.tolist()], dtype=torch.float64)
    close = {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(MaxLogit.fit(WEIGHT, bias).scores(ROWS), largest, **close)
    torch.testing.assert_close(Energy.fit(WEIGHT, bias).scores(ROWS), totals.log(), **close)
    torch.testing.assert_close(MaxSoftmax.fit(WEIGHT, bias).scores(ROWS).exp(), largest.exp() / totals, **close)


@pytest.mark.parametrize(("gamma", "largest"), [(0.1, 100), (0.1, 3), (0.7, 1), (1.0, K)])
def test_generalised_entropy_by_loops(gamma: float, largest: int) -> None:
    expected = []
    for row in logits(ROWS / 3):
        exponentials = [math.exp(value) for value in row]
        shares = sorted((value / sum(exponentials) for value in exponentials), reverse=True)[:largest]
        expected.append(-sum((share * (1 - share)) ** gamma for share in shares))
    detector = GeneralizedEntropy.fit(WEIGHT, BIAS, gamma=gamma, largest=largest)
    scores = detector.scores(ROWS / 3)
    torch.testing.assert_close(scores, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=0)
    assert detector.settings == {"gamma": gamma, "largest": largest}
    assert bool(((scores < 0) & (scores >= -min(largest, K) / 4**gamma)).all())


def test_generalised_entropy_of_confident_samples() -> None:
    """(p (1 - p))^gamma of two classes is near exp(-gamma lead), also where p is 1 in float64."""
    leads = torch.tensor([[30.0], [40.0], [50.0], [300.0]])
    scores = GeneralizedEntropy.fit(torch.tensor([[1.0], [0.0]])).scores(leads)
    torch.testing.assert_close(scores, -2 * (-0.1 * leads[:, 0].double()).exp(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("temperature", [0.1, 2.5])
def test_energy_at_a_temperature(temperature: float) -> None:
    expected = [temperature * math.log(sum(math.exp(value / temperature) for value in row)) for row in logits(ROWS)]
    detector = Energy.fit(WEIGHT, BIAS, temperature=temperature)
    assert detector.settings == {"temperature": temperature}
    torch.testing.assert_close(detector.scores(ROWS), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)


def test_settings_out_of_range() -> None:
    with pytest.raises(RangeError, match="temperature"):
        Energy.fit(WEIGHT, temperature=0.0)
    for gamma in (0.0, 1.5, math.nan):
        with pytest.raises(RangeError, match=r"gamma must be in \(0, 1\]"):
            GeneralizedEntropy.fit(WEIGHT, gamma=gamma)
    with pytest.raises(RangeError, match="largest must be at least 1; got 0"):
        GeneralizedEntropy.fit(WEIGHT, largest=0)


def test_confident_samples_do_not_tie() -> None:
    """In float64 the probabilities of leads above 37 are all 1; their logarithms still rank."""
    leads = torch.tensor([[30.0], [40.0], [50.0], [300.0]])
    scores = MaxSoftmax.fit(torch.tensor([[1.0], [0.0]])).scores(leads)
    assert bool((scores.diff() > 0).all())
    torch.testing.assert_close(scores, -(-leads[:, 0].double()).exp().log1p(), rtol=1e-13, atol=0)


def test_equal_logits() -> None:
    scores = MaxSoftmax.fit(torch.zeros(K, D)).scores(ROWS)
    torch.testing.assert_close(scores, torch.full_like(scores, 1 / K).log(), rtol=1e-14, atol=0)


def test_half_precision_features_are_widened() -> None:
    rows = ROWS.bfloat16()
    assert torch.equal(Energy.fit(WEIGHT, BIAS).scores(rows), Energy.fit(WEIGHT, BIAS).scores(rows.double()))


def test_no_graph_is_kept() -> None:
    weight = WEIGHT.clone().requires_grad_()
    assert not Energy.fit(weight, BIAS).scores(ROWS.clone().requires_grad_()).requires_grad


@pytest.mark.parametrize("detector", [MaxSoftmax, MaxLogit, Energy, GeneralizedEntropy])
def test_what_is_no_classifier(detector: type[MaxSoftmax]) -> None:
    with pytest.raises(ClassifierError, match="detector needs logits"):
        detector.fit(None)
    with pytest.raises(ClassifierError, match=r"\(K, D\); got \(7,\)"):
        detector.fit(BIAS)
    with pytest.raises(ClassifierError, match="bias"):
        detector.fit(WEIGHT, BIAS[1:])
    with pytest.raises(NonFiniteError):
        detector.fit(WEIGHT / 0)
    assert isinstance(detector.fit(WEIGHT).logits, Logits)
