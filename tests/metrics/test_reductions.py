"""Reductions over pairs that merge, with and without pairs that have no value."""

import math

import pytest
import torch

from tightframe.metrics.reductions import LogMoments, Moments, Smallest


@pytest.mark.parametrize("cut", [1, 7, 19])
def test_moments_merge(cut: int) -> None:
    values = torch.randn(20, dtype=torch.float64) + 1e6
    merged = Moments.of(values[:cut]).merge(Moments.of(values[cut:]))
    assert merged.number == 20
    torch.testing.assert_close(merged.mean, values.mean(), rtol=1e-15, atol=0)
    for ddof in (0, 1, 19):
        torch.testing.assert_close(merged.standard_deviation(ddof), values.std(correction=ddof), rtol=1e-9, atol=0)
    assert merged.standard_deviation(20).isnan()

UNDEFINED = [math.inf, math.nan]


@pytest.mark.parametrize("undefined", UNDEFINED)
@pytest.mark.parametrize("where", [[0], [3, 17], list(range(5, 20)), list(range(19)), list(range(20))])
@pytest.mark.parametrize("cut", [1, 7, 19])
def test_moments_leave_out_pairs_without_a_value(cut: int, where: list[int], undefined: float) -> None:
    values = torch.randn(20, dtype=torch.float64) + 10
    values[where] = undefined
    merged = Moments.of(values[:cut]).merge(Moments.of(values[cut:]))
    for moments in (merged.result, Moments.of(values).result):
        assert moments.number == 20 - len(where)
        assert moments.left_out == len(where)
        rest = values[values.isfinite()]
        torch.testing.assert_close(moments.mean, rest.mean(), rtol=1e-14, atol=0, equal_nan=True)
        variance = rest.var(correction=0) if len(rest) else rest.sum() * math.nan
        torch.testing.assert_close(moments.variance, variance, rtol=1e-10, atol=1e-20, equal_nan=True)
        torch.testing.assert_close(moments.exact.mean, values.sum(), equal_nan=True)  # infinite or NaN
        assert moments.exact.variance.isnan()


@pytest.mark.parametrize("undefined", UNDEFINED)
@pytest.mark.parametrize("where", [[0], [3, 17], list(range(5, 20)), list(range(19)), list(range(20))])
@pytest.mark.parametrize("cut", [1, 7, 19])
@pytest.mark.parametrize("size", [1.0, -9000.0, 9000.0])
def test_moments_of_logarithms_leave_out_pairs_without_a_value(
    cut: int, where: list[int], undefined: float, size: float
) -> None:
    """A part without any value has no scale: it takes nothing off one whose numbers are tiny."""
    logs = size + torch.randn(20, dtype=torch.float64)
    logs[where] = undefined
    merged = LogMoments.of(logs[:cut]).merge(LogMoments.of(logs[cut:]))
    rest = logs[logs.isfinite()]
    for kernel in (merged.result, LogMoments.of(logs).result):
        if not len(rest):
            assert kernel.mean.isnan() and kernel.cv.isnan() and kernel.variance.isnan()
        else:
            expected = rest.logsumexp(0) - math.log(len(rest))
            torch.testing.assert_close(kernel.log_mean, expected, rtol=1e-12, atol=1e-12)
            values = (rest - rest.max()).exp()
            torch.testing.assert_close(kernel.cv, values.std(correction=0) / values.mean(), rtol=1e-10, atol=1e-14)
        assert kernel.exact.mean.isinf() if math.isinf(undefined) else kernel.exact.mean.isnan()
        assert kernel.exact.cv.isnan()


@pytest.mark.parametrize("cut", [1, 7, 19])
@pytest.mark.parametrize("size", [1.0, 5000.0])
def test_moments_of_logarithms_merge(cut: int, size: float) -> None:
    logs = size * torch.randn(20, dtype=torch.float64)
    merged = LogMoments.of(logs[:cut]).merge(LogMoments.of(logs[cut:]))
    torch.testing.assert_close(merged.log_mean, logs.logsumexp(0) - math.log(20), rtol=1e-12, atol=1e-12)
    values = (logs - logs.max()).exp()
    torch.testing.assert_close(merged.cv, values.std(correction=0) / values.mean(), rtol=1e-10, atol=0)


def test_the_smallest_merges() -> None:
    values = torch.rand(20)
    merged = Smallest.of(values[:9]).merge(Smallest.of(values[9:]))
    assert merged.value == values.min()


@pytest.mark.parametrize("where", [[0], list(range(12)), list(range(20))])
def test_the_smallest_leaves_out_pairs_without_a_value(where: list[int]) -> None:
    values = torch.rand(20)
    values[where] = math.nan
    merged = Smallest.of(values[:9]).merge(Smallest.of(values[9:])).result
    rest = values[~values.isnan()]
    assert merged.value == rest.min() if len(rest) else merged.value.isnan()
