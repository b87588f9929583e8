"""Every metric equals its looped oracle: wherever the classes lie, however narrow they are, however data arrive."""

from functools import cache

import numpy as np
import pytest
import torch

from laws.scenarios import (
    COUNTED,
    SCENARIOS,
    Scenario,
    batches,
    draw,
    evidence_of,
    repeated,
    statistics_of,
    tensors,
    truth,
    wrong,
)
from oracle import ORACLE, Sample, statistics
from thinned import thinned
from tightframe import ClassStatistics, StatisticsAccumulator
from tightframe.metrics import evaluate
from tightframe.metrics.table import pairwise
from variants import VARIANTS

OFFSETS, SPREADS = (0.0, 1e2, 1e4), (1e-1, 1e-3)
DTYPES = {"float64": np.float64, "float32": np.float32}
TOLERANCE = {"float64": 1e-10, "float32": 1e-5}
PAIRWISE = {name: metric for name, metric in VARIANTS.items() if metric.pairs is not None}
COPIES = 16  # of every row: no other metric than those of `COUNTED` changes, and the rows fill many groups
pytestmark = [
    pytest.mark.filterwarnings("ignore:debiased measures leave out:tightframe.errors.GeometryWarning"),
    pytest.mark.filterwarnings("ignore:.*are by chance:tightframe.errors.GeometryWarning"),
]


def every_metric(sample: Sample, value: ClassStatistics) -> dict[str, float]:
    evidence = evidence_of(sample, value)
    return {name: metric.of(evidence).item() for name, metric in VARIANTS.items()}


def streamed(sample: Sample, copies: int, validate: bool | None = None) -> ClassStatistics:
    """The sample's rows in order, then the other copies shuffled, through an accumulator."""
    features, labels = tensors(sample)
    order = torch.cat([torch.arange(len(labels)), torch.randperm(len(labels) * (copies - 1)) % len(labels)])
    accumulator = StatisticsAccumulator(sample.num_classes, features.shape[1], per_class=True)
    for rows, classes in batches(features[order], labels[order]):
        accumulator.update(rows, classes, validate=validate)
    return accumulator.compute()


def test_every_metric_has_an_oracle() -> None:
    assert set(VARIANTS) <= set(truth(draw(SCENARIOS["balanced"])))


@pytest.mark.parametrize(("name", "offset", "spread", "dtype"), thinned(3, SCENARIOS, OFFSETS, SPREADS, DTYPES))
def test_every_metric_equals_its_oracle(name: str, offset: float, spread: float, dtype: str) -> None:
    sample = draw(SCENARIOS[name], offset=offset, spread=spread, dtype=DTYPES[dtype])
    expected = truth(sample)
    failures = wrong(every_metric(sample, statistics_of(sample)), expected, 1e-10)  # two passes in float64
    many = repeated(sample, COPIES)
    expected |= {name: ORACLE[name](many) for name in COUNTED}
    for validate in (True, False):
        values = every_metric(sample, streamed(sample, COPIES, validate))
        failures += [f"validate={validate} {line}" for line in wrong(values, expected, TOLERANCE[dtype])]
    assert not failures, "\n".join(failures)


@cache
def with_outliers(name: str, offset: float, spread: float, dtype: str) -> tuple[Sample, dict[str, float]]:
    """A longer sample of a scenario whose first row of every class lies 1000 spreads away, and its metrics."""
    few = SCENARIOS[name]
    times = 800 // sum(few.counts)
    scenario = Scenario(tuple(count if count == 1 else times * count for count in few.counts), few.dim)
    sample = draw(scenario, offset=offset, spread=spread, dtype=DTYPES[dtype], outliers=True)
    return sample, truth(sample)


@pytest.mark.parametrize(
    ("name", "offset", "spread", "dtype", "validate"), thinned(5, SCENARIOS, OFFSETS, SPREADS, DTYPES, (True, False))
)
def test_an_outlier_as_first_sample_costs_nothing(
    name: str, offset: float, spread: float, dtype: str, validate: bool
) -> None:
    sample, expected = with_outliers(name, offset, spread, dtype)
    failures = wrong(every_metric(sample, streamed(sample, 1, validate)), expected, TOLERANCE[dtype])
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize(("offset", "dtype", "outliers"), thinned(2, (0.0, 1e4), DTYPES, (False, True)))
def test_rare_classes_in_a_long_stream(offset: float, dtype: str, outliers: bool) -> None:
    """Classes of 1, 2, 3 and 4 samples beside long ones, and no row twice."""
    scenario = Scenario((700, 1, 250, 2, 90, 3, 4, 30), 5)
    sample = draw(scenario, offset=offset, spread=1e-2, dtype=DTYPES[dtype], outliers=outliers)
    expected = truth(sample)
    failures = []
    for validate in (True, False):
        values = every_metric(sample, streamed(sample, 1, validate))
        failures += [f"validate={validate} {line}" for line in wrong(values, expected, TOLERANCE[dtype])]
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("offset", OFFSETS)
def test_every_field_equals_its_oracle(offset: float, dtype: str, validate: bool) -> None:
    sample = draw(Scenario((900, 300, 0, 40, 1), 6), offset=offset, spread=1e-3, dtype=DTYPES[dtype])
    expected = statistics(sample)
    value = streamed(sample, 1, validate)
    rtol = TOLERANCE[dtype]
    assert value.counts.tolist() == expected["counts"].tolist()
    np.testing.assert_allclose(value.means, expected["means"], rtol=1e-10, equal_nan=True)
    np.testing.assert_allclose(value.spread, expected["spread"], rtol=0, atol=rtol * expected["spread"].max())
    scale = np.abs(expected["within"]).max()
    np.testing.assert_allclose(value.within, expected["within"], rtol=0, atol=rtol * scale)
    np.testing.assert_allclose(value.class_within.sum(0), expected["within"], rtol=0, atol=rtol * scale)


@pytest.mark.parametrize("tile_size", [1, 2, 3, 5, 15, 512])
def test_tile_size_changes_nothing(tile_size: int) -> None:
    """Sixteen classes leave a last tile of one class at 3, 5 and 15."""
    value = statistics_of(draw(Scenario((3,) * 16, 7)))
    assert len(PAIRWISE) >= 14
    for name, metric in PAIRWISE.items():
        tiled = metric(value, tile_size=tile_size)
        torch.testing.assert_close(tiled, metric(value), rtol=1e-12, atol=1e-14, msg=name)


def test_pairwise_and_evaluate_equal_the_functions() -> None:
    for name, scenario in SCENARIOS.items():
        sample = draw(scenario)
        evidence = evidence_of(sample)
        alone = {variant: VARIANTS[variant].of(evidence) for variant in VARIANTS}
        together = evaluate(evidence, VARIANTS.values())
        assert list(together) == list(VARIANTS)
        shared = dict(zip(PAIRWISE, pairwise(evidence.statistics, list(PAIRWISE.values())), strict=True))
        for variant, value in (*together.items(), *shared.items()):
            torch.testing.assert_close(
                value, alone[variant], rtol=1e-12, atol=0, equal_nan=True, msg=f"{name}: {variant}"
            )
