import pytest
import torch
from torch import Tensor

from tightframe.errors import ClassifierError, NonFiniteError
from tightframe.ood import Energy, MaxLogit, MaxSoftmax
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


@pytest.mark.parametrize("detector", [MaxSoftmax, MaxLogit, Energy])
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
