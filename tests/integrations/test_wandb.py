"""`WandbTracker`: what the offline run's file holds is the series."""

import json
import math
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
from wandb.proto.wandb_internal_pb2 import Record

from integrations.runs import EPOCHS, monitored
from tightframe.errors import StateError
from tightframe.integrations.wandb import WandbTracker

pytestmark = pytest.mark.integration

BLOCK, HEADER = 32768, 7  # bytes: of a block, of its parts' checksum, length and kind
WHOLE, LAST = 1, 4  # kinds of parts that end a record


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[wandb.Run]:
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    settings = wandb.Settings(console="off", silent=True, x_disable_meta=True, x_disable_stats=True)
    with wandb.init(project="tests", mode="offline", dir=tmp_path, settings=settings) as run:
        yield run


def records(folder: Path) -> list[Record]:
    """All records of the folder's only offline run, once it is on disk, shortly after the run was finished."""
    end = time.monotonic() + 120
    while True:
        (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
        found = list(read(path.read_bytes()))
        if any(record.WhichOneof("record_type") == "exit" for record in found):
            return found
        assert time.monotonic() < end, "the run was never finished"
        time.sleep(0.05)


def read(data: bytes) -> Iterator[Record]:
    """The records in a run's file, which is in LevelDB's log format."""
    assert data.startswith(b":W&B")
    parts, place = b"", HEADER
    while place + HEADER <= len(data):
        if BLOCK - place % BLOCK < HEADER:  # the rest of a block that is too short for a header
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        place += HEADER + length
        if place > len(data):
            return
        parts += data[place - length : place]
        if kind in (WHOLE, LAST):
            yield Record.FromString(parts)
            parts = b""


def history(folder: Path) -> list[dict[str, Any]]:
    return [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in records(folder)
        if record.WhichOneof("record_type") == "history"
    ]


def test_the_run_holds_the_series_along_epochs(run: wandb.Run, tmp_path: Path) -> None:
    run.log({"loss": 1.0})
    monitor = monitored(WandbTracker(run))
    run.log({"loss": 0.5})
    run.finish()
    rows = [row for row in history(tmp_path) if "tightframe/epoch" in row]
    assert [row["tightframe/epoch"] for row in rows] == list(EPOCHS)
    for row, report in zip(rows, monitor.series, strict=True):
        assert {key: row[f"tightframe/{key}"] for key in report.values} == report.values
        assert row["tightframe/0/nc1"] == report.layers[0].values["nc1"]
    axes = {m.name or m.glob_name: m.step_metric for m in (r.metric for r in records(tmp_path) if r.HasField("metric"))}
    assert axes["tightframe/*"] == "tightframe/epoch"


def test_the_run_in_progress_is_the_default_and_undefined_values_are_left_out(run: wandb.Run, tmp_path: Path) -> None:
    tracker = WandbTracker()
    assert tracker.run is run
    tracker({"nc1": 1.0, "vci": math.nan, "cdnv": math.inf}, 2.5)
    run.finish()
    (row,) = history(tmp_path)
    assert {key: value for key, value in row.items() if not key.startswith("_")} == {
        "tightframe/nc1": 1.0,
        "tightframe/epoch": 2.5,
    }


def test_without_a_run_it_says_so() -> None:
    with pytest.raises(StateError, match=r"call wandb.init\(\) first"):
        WandbTracker()
