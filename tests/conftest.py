"""One thread and the same draws in every run; a clock of searches; a byte-for-byte picture of an accumulator."""

import multiprocessing
import sys
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from hypothesis import settings

from fake_clock import Clock
from few_draws import DRAWS, levels
from tightframe import StatisticsAccumulator, measure
from tightframe.codes.search import energy, running

# what processes of a fork server start with, so that each test's processes start at once
PRELOADED = ["few_draws", "tightframe.monitor", "tightframe.report", "sklearn.datasets", "torch._dynamo"]
multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)

torch.set_num_threads(1)  # the workers share the cores
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None, max_examples=60)
settings.load_profile("repeatable")

Picture = dict[str, tuple[torch.dtype, tuple[int, ...], bytes]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A slow test counts as hanging later: on a busy machine it may take many times as long."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _all_draws(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many draws as users get, where a test says that they are what it tests."""
    if request.node.get_closest_marker("levels"):
        monkeypatch.setattr(levels, "DRAWS", DRAWS)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of searches, the same on every machine."""
    made = Clock()
    monkeypatch.setattr(running, "time", SimpleNamespace(monotonic=made))
    monkeypatch.setattr(energy, "monotonic", made)
    return made


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Complete layers are looked for in 20 caps and sections of a code instead of 1000."""
    monkeypatch.setattr(sys.modules["tightframe.codes.search.from_codes"], "_DRAWS", (10, 20))


@pytest.fixture
def quick_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demonstration measures without standard errors and detectors, which take most of its time."""
    monkeypatch.setattr("tightframe.demo.run.measure", partial(measure, folds=None, detectors=False))


@pytest.fixture(scope="session")
def picture() -> Callable[[StatisticsAccumulator], Picture]:
    """Every buffer and the extra state of an accumulator, as dtype, shape and bytes."""

    def take(accumulator: StatisticsAccumulator) -> Picture:
        tensors = dict(accumulator.named_buffers())
        for name, part in accumulator.named_modules():
            if not isinstance(part, torch.nn.ModuleList):
                tensors[f"extra {name}"] = part.get_extra_state()
        return {name: (t.dtype, tuple(t.shape), t.numpy().tobytes()) for name, t in tensors.items()}

    return take
