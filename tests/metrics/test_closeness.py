"""Closeness: on which scale, in words, and for any number of samples."""

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits

from thinned import beyond
from tightframe import metrics
from tightframe.decisions import DecisionCounts
from tightframe.metrics import METRICS, Evidence, Level, Metric, Setting, closeness, evaluate, levels
from tightframe.statistics import ClassStatistics

pytestmark = pytest.mark.levels

BALANCED = Setting(torch.full((10,), 50), 64, 10)


@pytest.mark.parametrize(
    ("metric", "ratio"),
    [
        (metrics.trace_ratio, 1.0),
        (metrics.cdnv, 1.0),
        (metrics.directional_cdnv, 64.0),
        (metrics.nc1, 10 / 9),
        (metrics.nc1.having("n", divided=False), 1 / 9),
    ],
)
def test_ratios_are_compared_by_their_share(metric: Metric[Any], ratio: float) -> None:
    share: Callable[[float], float] = lambda value: ratio * value / (1 + ratio * value)  # noqa: E731
    found = closeness(metric, 0.01, Level(50.0, 1.0), BALANCED)
    assert found.times == pytest.approx(share(50.0) / share(0.01), rel=1e-12)
    assert closeness(metric, 0.01, Level(math.inf, 1.0), BALANCED).times == pytest.approx(1 / share(0.01), rel=1e-12)


def test_other_metrics_are_compared_as_they_are() -> None:
    assert closeness(metrics.etf_error, 0.1, Level(0.6, 0.01), BALANCED) == metrics.Closeness(
        pytest.approx(6.0), "6.0× nearer"
    )
    angle = metrics.minimum_angle.best_in(BALANCED)
    assert angle is not None
    found = closeness(metrics.minimum_angle, angle - 1, Level(angle - 30, 1.0), BALANCED)
    assert found.times == pytest.approx(30) and found.remark == "30× nearer"
    dist4 = metrics.cdnv.having("dist4", distance_exponent=4)
    assert closeness(dist4, 1.0, Level(9.0, 0.1), BALANCED).times == pytest.approx(9.0)  # it has a unit


def test_closeness_in_words() -> None:
    level = Level(0.6, 0.02)
    assert closeness(metrics.etf_error, 0.0, level, BALANCED) == metrics.Closeness(math.inf, "at target")
    crowded = Setting(torch.full((100,), 5), 16, 100)
    floor = metrics.etf_error.floor_in(crowded)
    assert floor is not None
    assert closeness(metrics.etf_error, floor, Level(1.3, 0.01), crowded).remark == "at floor"
    for value in (0.57, 0.6, 0.63, 0.9):  # within two spreads, and beyond
        assert closeness(metrics.etf_error, value, level, BALANCED).remark == "no better than shuffled labels", value
    assert closeness(metrics.etf_error, 0.55, level, BALANCED).remark == "1.1× nearer"
    random = replace(level, kind="random")
    assert closeness(metrics.classifier_etf_error, 0.6, random, BALANCED).remark == "no better than random directions"
    assert closeness(metrics.nc1, 0.0014, Level(49.0, 2.0), BALANCED).remark == "630× nearer"
    assert closeness(metrics.etf_error, 1e-5, level, BALANCED).remark == "60,000× nearer"


def test_where_shuffled_labels_do_as_well_there_is_no_closeness() -> None:
    pair = Setting(torch.tensor([50, 50]), 64, 2)
    found = closeness(metrics.equinorm, 0.0, Level(0.0, 0.0), pair)
    assert found == metrics.Closeness(None, "shuffled labels do as well")
    assert closeness(metrics.etf_error, 0.01, Level(0.02, 0.011), BALANCED).times is None


def test_without_best_value_or_level_there_is_no_closeness() -> None:
    for metric, value, level in (
        (metrics.between_trace, 1.0, Level(2.0, 0.1)),
        (metrics.nc1, 1.0, None),
        (metrics.nc1, math.nan, Level(2.0, 0.1)),
    ):
        assert closeness(metric, value, level, BALANCED) == metrics.Closeness(None, "")


def test_an_infinite_value_is_no_better_than_shuffled_labels() -> None:
    assert closeness(metrics.cdnv, math.inf, Level(50.0, 1.0), BALANCED).remark == "no better than shuffled labels"


# ---------------------------------------------------------------------- closeness and the number of samples


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Fifty digits of every class, pixels in [0, 1]."""
    pixels, labels = load_digits(return_X_y=True)
    rows = torch.cat([torch.as_tensor(labels == k).nonzero().flatten()[:50] for k in range(10)])
    return torch.as_tensor(pixels, dtype=torch.float32)[rows] / 16, torch.as_tensor(labels)[rows]


def network(steps: int) -> torch.nn.Sequential:
    """A small network, trained so long on these digits."""
    torch.manual_seed(0)
    layers = [
        torch.nn.Linear(64, 64),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 32),
        torch.nn.ReLU(),
        torch.nn.Linear(32, 10),
    ]
    model = torch.nn.Sequential(*layers)
    optimiser = torch.optim.AdamW(model.parameters(), 5e-3)
    pixels, labels = digits()
    for _ in range(steps):
        loss = torch.nn.functional.cross_entropy(model(pixels), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model


@pytest.mark.parametrize("steps", beyond(1, [80, 0, None]))
def test_closeness_does_not_depend_on_the_number_of_samples(steps: int | None) -> None:
    """Every sample ten times over: the values are the same to the last digits, the levels of ratios ten times as large.

    Of a network after so many steps, or of pixels. But for two: nearest-centre accuracy and VCI are nearer their
    targets on few samples, with any labels. There a value on other samples grows with its level.
    """
    pixels, labels = digits()
    model = network(steps or 0)
    features = pixels if steps is None else model[:-1](pixels).detach()
    head = None if steps is None else model[-1].weight.detach()
    once, often = {}, {}
    for found, times in ((once, 1), (often, 10)):
        rows, classes = features.double().repeat(times, 1), labels.repeat(times)
        statistics = ClassStatistics.from_features(rows, classes, 10, per_class=True)
        evidence = Evidence(statistics, head, None, None, None)
        if head is not None:
            decisions = DecisionCounts(statistics, head, model[-1].bias.detach())
            decisions.update(rows, classes)
            evidence = replace(evidence, decisions=decisions)
        where = Setting.of(evidence)
        assert where is not None
        drawn = levels(evidence, draws=200)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = evaluate(evidence)
        for name, value in values.items():
            found[name] = float(value), closeness(METRICS[name], float(value), drawn.get(name), where).times
    compared = 0
    for name, (value, times) in once.items():
        other, many = often[name]
        assert other == pytest.approx(value, rel=1e-6, abs=1e-9)
        if times is None or many is None or math.isinf(times) or name in ("ncc_accuracy", "vci", "h_score", "unc3"):
            continue
        compared += 1
        assert abs(many / times - 1) < 0.1, name
    assert compared >= (16 if steps is None else 28)
