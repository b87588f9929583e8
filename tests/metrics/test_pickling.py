"""Metrics are pickled like functions, by name; variants by what differs from their metric."""

import copy
import io
import multiprocessing
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
import torch

from laws.scenarios import SCENARIOS, draw, evidence_of
from tightframe import ClassStatistics, Report, metrics
from tightframe.metrics import CONVENTIONS, METRICS, Metric
from tightframe.options import Measuring
from variants import VARIANTS

FULL = evidence_of(draw(SCENARIOS["balanced"]))


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


def saved(value: Any) -> Any:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def spawned(value: Any) -> Any:
    """The value after a way to a spawned process and back."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(copy.copy, (value,))


@metrics.metric("mean variance", "scale", target=lambda setting: 0.0)
def mean_variance(statistics: ClassStatistics, *, root: bool = False) -> torch.Tensor:
    """Of the classes."""
    value = statistics.populated().variances.mean()
    return value.sqrt() if root else value


def unnamed(statistics: ClassStatistics) -> torch.Tensor:
    """Of the classes."""
    return statistics.populated().variances.mean()


OTHER = metrics.metric("mean variance", "scale", name="other")(unnamed)


@pytest.mark.parametrize("way", [pickled, saved, spawned])
def test_metrics_of_a_module_are_themselves(way: Callable[[Any], Any]) -> None:
    own = (*METRICS.values(), metrics.few_shot_accuracy, mean_variance)
    assert all(one is other for one, other in zip(way(own), own, strict=True))


@pytest.mark.parametrize("way", [pickled, saved, spawned])
def test_variants_keep_all_that_differs(way: Callable[[Any], Any]) -> None:
    own = [each for name, each in VARIANTS.items() if name not in METRICS]
    own += [each.metric for each in CONVENTIONS.values()]
    own += [mean_variance.having("rooted", root=True), OTHER, metrics.nc1.having("again", label="NC1 again")]
    for one, other in zip(way(own), own, strict=True):
        assert all(getattr(one, each.name) == getattr(other, each.name) for each in fields(Metric))
        assert torch.equal(one.of(FULL), other.of(FULL))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_metric_is_pickled_by_name(protocol: int) -> None:
    content = pickle.dumps(metrics.nc1, protocol)
    assert len(content) < 80
    assert pickle.loads(content) is metrics.nc1


def test_copies_are_the_metric_itself() -> None:
    for metric in (metrics.nc1, metrics.nc1.having("half", divided=False), OTHER):
        assert copy.copy(metric) is metric
        assert copy.deepcopy({"metric": metric})["metric"] is metric


def test_local_metrics_fail_as_local_functions_do() -> None:
    @metrics.metric("mean variance", "scale")
    def local(statistics: ClassStatistics) -> torch.Tensor:
        """Of the classes."""
        return statistics.populated().variances.mean()

    for metric in (local, local.having("variant", label="variant")):
        with pytest.raises((AttributeError, pickle.PicklingError), match=r"local object '?.*<locals>\.local"):
            pickle.dumps(metric)
        assert copy.deepcopy(metric) is metric


def test_a_metric_of_the_main_module_reaches_a_spawned_process(tmp_path: Any) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing\n"
        "from tightframe import metrics\n"
        "@metrics.metric('mean variance', 'scale')\n"
        "def mine(statistics, *, root=False):\n"
        "    'Of the classes.'\n"
        "def name_of(metric):\n"
        "    return metric.name, metric.function is mine.function, dict(metric.options)\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.map(name_of, [mine, mine.having('rooted', root=True)]))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert done.stdout == "[('mine', True, {}), ('rooted', True, {'root': True})]\n"


@pytest.mark.parametrize("way", [pickled, saved, copy.deepcopy])
def test_conventions_options_and_reports_are_pickled(way: Callable[[Any], Any]) -> None:
    chosen = ["cdnv", metrics.nc1.having("half", divided=False), OTHER]
    report = Report.from_evidence(FULL, metrics=chosen, conventions={"wu-papyan-2024/cdnv": FULL})
    again = way(report)
    assert again.entries == report.entries
    assert again.to_json() == report.to_json()
    assert way(CONVENTIONS["papyan-2020/nc1"]) == CONVENTIONS["papyan-2020/nc1"]
    assert way(Measuring(metrics=["nc1"])).metrics == (metrics.nc1,)
