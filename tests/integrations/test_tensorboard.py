"""`TensorBoardTracker`: what TensorBoard reads in the event files is the series."""

import math
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from integrations.runs import EPOCHS, monitored
from tightframe.integrations.tensorboard import TensorBoardTracker

pytestmark = pytest.mark.integration


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values by name, as TensorBoard reads them."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


@pytest.mark.parametrize("steps_per_epoch", [1, 10])
def test_event_files_hold_the_series(tmp_path: Path, steps_per_epoch: int) -> None:
    tracker = TensorBoardTracker(tmp_path, steps_per_epoch=steps_per_epoch)
    monitor = monitored(tracker)
    found = read(tmp_path)  # before it is closed: on disk at once
    for key in monitor.series[0].values:
        wanted = [(round(e * steps_per_epoch), r.values[key]) for e, r in zip(EPOCHS, monitor.series, strict=True)]
        assert found[f"tightframe/{key}"] == [(step, pytest.approx(value, rel=1e-6)) for step, value in wanted], key
    nc1 = [report.layers[0].values["nc1"] for report in monitor.series]
    assert [value for _, value in found["tightframe/0/nc1"]] == pytest.approx(nc1, rel=1e-6)
    assert {"tightframe/nc1", "tightframe/test/nc1"} < set(found)
    tracker.close()


def test_undefined_values_are_left_out(tmp_path: Path) -> None:
    tracker = TensorBoardTracker(str(tmp_path))
    tracker({"nc1": 1.0, "vci": math.nan, "cdnv": math.inf}, 1)
    tracker({"nc1": 2.0, "vci": 3.0, "cdnv": -math.inf}, 2)
    tracker.close()
    assert read(tmp_path) == {"tightframe/nc1": [(1, 1.0), (2, 2.0)], "tightframe/vci": [(2, 3.0)]}


def test_a_writer_in_use_is_shared_and_left_open(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        tracker = TensorBoardTracker(writer)
        tracker({"nc1": 1.0}, 1)
        tracker.close()
        writer.add_scalar("loss", 4.0, 2)
    assert read(tmp_path) == {"tightframe/nc1": [(1, 1.0)], "loss": [(2, 4.0)]}
