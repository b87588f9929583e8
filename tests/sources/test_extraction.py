"""What `extract` writes is what the source gave; killed and resumed, it is the same bit for bit."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import extraction_worker
import pytest
import torch
from extraction_worker import BATCH, ROWS, SHARD_BYTES, Slow, model, source
from safetensors.torch import load_file
from torch import Tensor

from tightframe import errors, measure
from tightframe.sources import ArraySource, Extraction, FeatureBatch, FeatureSource, ModelSource, ShardSource, extract

WORKER = Path(extraction_worker.__file__)
MARK = "train-00003.safetensors"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def joined(folder: Path, split: str, array: str) -> Tensor:
    return torch.cat([load_file(path)[array] for path in sorted(folder.glob(f"{split}-*.safetensors"))])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An extraction that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    extract(source(), folder, shard_bytes=SHARD_BYTES)
    return folder


class DiedError(Exception):
    """In place of a signal."""


class Recorded(ModelSource):
    """Counts the batches that the model is run on, and dies after some."""

    runs, deadline = 0, 10**9

    def _run(self, *arguments: Any, **options: Any) -> FeatureBatch:
        if self.runs == self.deadline:
            raise DiedError
        self.runs += 1
        return super()._run(*arguments, **options)


def recorded(deadline: int = 10**9, *, seed: int = 5) -> Recorded:
    made = Recorded(
        model(seed), Slow(1, 0), test=Slow(2, 0), ood=Slow(3, 0), options={"layers": ["2"], "progress": False}
    )
    made.deadline = deadline
    return made


# ---------------------------------------------------------------------- what is written


def test_shards_hold_what_the_source_gave(whole: Path) -> None:
    given = source()
    with given.opened():
        for split in ("train", "test", "ood"):
            batches = list(given.batches(split))
            for layer in ("2", "input of 5"):
                assert torch.equal(
                    joined(whole, split, f"features/{layer}"), torch.cat([each.features[layer] for each in batches])
                )
            if split != "ood":
                assert torch.equal(joined(whole, split, "labels"), torch.cat([each.labels for each in batches]))


def test_the_report_is_the_models(whole: Path) -> None:
    found = measure(ShardSource(whole), progress=False)
    loaders = {"test": Slow(2, 0), "ood": Slow(3, 0)}
    expected = measure(model(), Slow(1, 0), **loaders, layers=["2"], progress=False)  # type: ignore[arg-type]
    for mine, other in zip((*found.layers, found), (*expected.layers, expected), strict=True):
        assert mine.values.keys() == other.values.keys()
        for name in mine.values:
            assert mine[name].value == pytest.approx(other[name].value, rel=1e-9, nan_ok=True), name
        assert mine.facts.layer == other.facts.layer
    assert found.facts.classifier == expected.facts.classifier == "5"


def test_the_value(tmp_path: Path) -> None:
    done = extract(ArraySource(torch.randn(50, 4), torch.arange(50) % 3), tmp_path, shard_bytes=10 * 24)
    assert done == Extraction(tmp_path, {"train": 50}, 5, 5)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "manifest.json",
        *(f"train-{number:05d}.safetensors" for number in range(5)),
    ]


@pytest.mark.parametrize("size", [1, 23, 24, 24 * 7, 24 * 50, 10**6])
def test_any_size_of_shards_gives_the_same_rows(tmp_path: Path, size: int) -> None:
    features, labels = torch.randn(50, 4), torch.arange(50) % 3
    extract(ArraySource(features, labels), tmp_path, shard_bytes=size)
    assert torch.equal(joined(tmp_path, "train", "features/features"), features)
    assert torch.equal(joined(tmp_path, "train", "labels"), labels)


def test_another_dtype(tmp_path: Path) -> None:
    features, labels = torch.randn(50, 4), torch.arange(50) % 3
    extract(ArraySource(features, labels), tmp_path / "half", dtype=torch.float16)
    assert torch.equal(joined(tmp_path / "half", "train", "features/features"), features.half())
    features[7, 2] = 1e5
    with pytest.raises(errors.NonFiniteError, match=r"batch 0 of training samples has .* too large for torch.float16"):
        extract(ArraySource(features, labels), tmp_path / "over", dtype=torch.float16)
    with pytest.raises(errors.DtypeError, match=r"got torch\.int8"):
        extract(ArraySource(features, labels), tmp_path / "over", dtype=torch.int8)


class Positions(FeatureSource):
    """Sequences of other lengths in each batch, unless told otherwise."""

    num_classes = 3

    def __init__(self, lengths: tuple[int, ...] = (4, 6)):
        self.lengths = lengths

    def batches(self, split: str) -> Iterator[tuple[Tensor, Tensor]]:
        for length in self.lengths:
            features = torch.randn(10, length, 5, generator=torch.Generator().manual_seed(length))
            yield features, torch.arange(10 * length).view(10, length) % 3


def test_positions_stay_together(tmp_path: Path) -> None:
    extract(Positions((4, 4)), tmp_path)
    assert joined(tmp_path, "train", "features/features").shape == (20, 4, 5)
    mine, expected = (measure(each, progress=False) for each in (ShardSource(tmp_path), Positions((4, 4))))
    assert mine["nc1"].value == pytest.approx(expected["nc1"].value, rel=1e-12)
    assert mine["nc1"].standard_error == pytest.approx(expected["nc1"].standard_error, rel=1e-9)


def test_positions_that_vary(tmp_path: Path) -> None:
    with pytest.raises(
        errors.ShapeError, match=r"must be float32 \(N, 4, 5\) in every .*got float32 \(N, 6, 5\).*flatten=True"
    ):
        extract(Positions(), tmp_path)
    extract(Positions(), tmp_path, flatten=True, overwrite=True)
    assert joined(tmp_path, "train", "features/features").shape == (100, 5)
    mine, expected = (measure(each, progress=False) for each in (ShardSource(tmp_path), Positions()))
    assert mine["nc1"].value == pytest.approx(expected["nc1"].value, rel=1e-12)


def test_what_cant_be_extracted(tmp_path: Path) -> None:
    features, labels = torch.randn(50, 4), torch.arange(50) % 3
    held = ArraySource(features, labels)
    with pytest.raises(errors.ChoiceError, match="splits must be among train; got 'test'"):
        extract(held, tmp_path, splits=["train", "test"])
    with pytest.raises(errors.ChoiceError, match="must include 'train'"):
        extract(held, tmp_path, splits=[])
    with pytest.raises(errors.RangeError, match="shard_bytes"):
        extract(held, tmp_path, shard_bytes=0)
    with pytest.raises(errors.LabelError, match=r"labels must lie in \[0, 2\); got 2"):
        extract(ArraySource(features, labels, options={"num_classes": 2}), tmp_path)


def test_a_folder_of_other_things(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"mine")
    for overwrite in (False, True):
        with pytest.raises(errors.ShardError, match=r"holds model.safetensors, which no manifest lists"):
            extract(ArraySource(torch.randn(50, 4), torch.arange(50) % 3), tmp_path, overwrite=overwrite)
    assert (tmp_path / "model.safetensors").read_bytes() == b"mine"


# ---------------------------------------------------------------------- interrupted and resumed


@pytest.mark.parametrize("deadline", [0, 1, 2, 7, 19, 20, 30, 45, 56])
def test_resumed_output_is_the_same_and_finished_shards_arent_made_again(
    deadline: int, tmp_path: Path, whole: Path
) -> None:
    with pytest.raises(DiedError):
        extract(recorded(deadline), tmp_path, shard_bytes=SHARD_BYTES)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*-0*.safetensors")}
    again = recorded()
    extract(again, tmp_path, shard_bytes=SHARD_BYTES)
    assert contents(tmp_path) == contents(whole)
    assert all((tmp_path / name).stat().st_mtime_ns == time for name, time in before.items())
    batches = 3 * -(-ROWS // BATCH)
    assert again.runs <= batches - deadline + 2  # the first, to know the layers, and the one that was under way


def test_a_complete_extraction_runs_nothing(tmp_path: Path) -> None:
    first = extract(recorded(), tmp_path, shard_bytes=SHARD_BYTES)
    again = recorded()
    second = extract(again, tmp_path, shard_bytes=SHARD_BYTES)
    assert again.runs == 0 and (first.rows, first.shards) == (second.rows, second.shards)
    assert (first.new_shards, second.new_shards) == (first.shards, 0)


@pytest.mark.parametrize("batches", [1, 3])
def test_a_generator_is_resumed_too(batches: int, tmp_path: Path) -> None:
    features, labels = torch.randn(60, 4), torch.arange(60) % 3

    class Once(FeatureSource):
        num_classes, repeatable = 3, False

        def __init__(self, last: int = 6):
            self.stream = iter(list(zip(features.split(10), labels.split(10), strict=True))[:last])
            self.last = last

        def batches(self, split: str) -> Iterator[Any]:
            yield from self.stream
            if self.last < 6:
                raise DiedError

    with pytest.raises(DiedError):
        extract(Once(batches), tmp_path, shard_bytes=24 * 7)
    extract(Once(), tmp_path, shard_bytes=24 * 7)
    assert torch.equal(joined(tmp_path, "train", "features/features"), features)


def interrupted(folder: Path) -> Path:
    with pytest.raises(DiedError):
        extract(recorded(10), folder, shard_bytes=SHARD_BYTES)
    return folder


def test_another_model_or_other_options_are_refused(tmp_path: Path) -> None:
    folder = interrupted(tmp_path)
    for match, given, options in (
        ("weights=", source(seed=6), {}),
        (r"layers=\['2', 'input of 5'\]; this one has \['4', 'input of 5'\]", source(layers=["4"]), {}),
        ("shard_bytes=3000; this one has 6000", source(), {"shard_bytes": 6000}),
        ("dtype=None; this one has 'F16'", source(), {"dtype": torch.float16}),
        (r"splits=.*; this one has \['train'\]", source(), {"splits": ["train"]}),
        ("num_classes|ignore_index=None; this one has 2", source(ignore_index=2), {}),
        ("first batch must equal the one in .*train-00000.safetensors", source(data=7), {}),
    ):
        with pytest.raises(errors.ShardError, match=match):
            extract(given, folder, **{"shard_bytes": SHARD_BYTES, **options})


def test_overwriting(tmp_path: Path, whole: Path) -> None:
    folder = interrupted(tmp_path)
    extract(source(seed=6), folder, shard_bytes=SHARD_BYTES, overwrite=True)
    extract(source(), folder, shard_bytes=SHARD_BYTES, overwrite=True)
    assert contents(folder) == contents(whole)


def test_a_shard_lost_meanwhile(tmp_path: Path) -> None:
    folder = interrupted(tmp_path)
    (folder / "train-00000.safetensors").unlink()
    with pytest.raises(errors.ShardError, match=r"train-00000.safetensors is missing"):
        extract(source(), folder, shard_bytes=SHARD_BYTES)


def killed_at_random(folder: Path, whole: Path, seed: int, most: int) -> int:
    """Kill workers until one is done; how many died with some shards written."""
    moments, died = random.Random(seed), 0
    for _ in range(most):
        worker = subprocess.Popen([sys.executable, str(WORKER), str(folder), "0.02"])
        while worker.poll() is None and not (folder / "manifest.json").exists():
            time.sleep(0.005)  # importing takes longest
        if died < most - 1:
            try:
                worker.wait(1.2 + moments.uniform(0, 0.8) if died else moments.uniform(0, 0.4))
            except subprocess.TimeoutExpired:
                worker.send_signal(signal.SIGKILL)
        if worker.wait() == 0:
            break
        assert worker.returncode == -signal.SIGKILL
        died += 1
        for path in folder.glob("*.safetensors"):
            if path.name != "classifier.safetensors":
                assert path.read_bytes() == (whole / path.name).read_bytes()  # never half a shard
    assert contents(folder) == contents(whole)
    return died


@pytest.mark.slow
def test_killed_twice(tmp_path: Path, whole: Path) -> None:
    assert killed_at_random(tmp_path / "killed", whole, 0, 3) >= 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_killed_many_times(seed: int, tmp_path: Path, whole: Path) -> None:
    assert killed_at_random(tmp_path / "killed", whole, seed, 12) >= 1


@pytest.mark.parametrize("number", [1, 2, 5, 9, 30])
@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_killed_in_the_middle_of_writing(
    moment: str, number: int, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a file is on the disk, and before it has its name."""
    calls = 0
    places = {"fsync": (os, "fsync"), "replace": (Path, "replace")}
    owner, name = places[moment]
    real = getattr(owner, name)

    def dies(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            raise DiedError
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, dies)
        with pytest.raises(DiedError):
            extract(source(), tmp_path, shard_bytes=SHARD_BYTES)
    extract(source(), tmp_path, shard_bytes=SHARD_BYTES)
    assert contents(tmp_path) == contents(whole)


# ---------------------------------------------------------------------- processes


def process(rank: int, world: int, folder: str, deadline: int) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting{deadline}", rank=rank, world_size=world
    )
    features, labels = data()
    rows = slice(rank, None, world)
    classes = {"num_classes": int(labels.max()) + 1}  # a part of the labels may lack the first class
    held = Dying(features[rows], labels[rows], test=(features[:40][rows], labels[:40][rows]), options=classes)
    held.deadline = deadline
    try:
        done = extract(held, Path(folder, "shards"), shard_bytes=40 * 7)
    except DiedError:
        os._exit(0)
    Path(folder, f"{rank}.json").write_text(json.dumps([done.rows, done.shards]))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


class Dying(ArraySource):
    """Small batches, the last of which it may not live to see."""

    deadline = 10**9

    def batches(self, split: str) -> Iterator[FeatureBatch]:
        features, labels = self._splits[split]
        for number, (x, y) in enumerate(zip(features.split(9), labels.split(9), strict=True)):
            if number == self.deadline:
                raise DiedError
            yield FeatureBatch({"features": x}, y)


def data() -> tuple[Tensor, Tensor]:
    labels = torch.arange(203) % 4
    return torch.randn(203, 8, generator=torch.Generator().manual_seed(3)) + labels[:, None], labels


@pytest.mark.parametrize("world", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_write_their_own_samples(world: int, tmp_path: Path) -> None:
    for deadline in (4, 10**9):
        torch.multiprocessing.start_processes(
            process, (world, str(tmp_path), deadline), world, start_method="forkserver"
        )
    told = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(world)]
    folder = tmp_path / "shards"
    assert all(each == [{"train": 203, "test": 40}, len(list(folder.glob("*.safetensors")))] for each in told)
    assert len(list(folder.glob("manifest-*.json"))) == world
    features, labels = data()
    found = measure(ShardSource(folder), progress=False)
    expected = measure(features, labels, test=(features[:40], labels[:40]), progress=False)
    assert found.values.keys() == expected.values.keys()
    for name in found.values:
        assert found[name].value == pytest.approx(expected[name].value, rel=1e-9, nan_ok=True), name
    with pytest.raises(errors.ShardError, match=f"by {world} processes; this one has 1"):
        extract(ArraySource(features, labels), folder)
    next(folder.glob("manifest-1-*.json")).unlink()
    with pytest.raises(errors.ShardError, match=r"manifest-1-of-\d.json is missing"):
        ShardSource(folder)
