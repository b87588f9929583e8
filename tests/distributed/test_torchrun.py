"""Real runs under torchrun: trained with DistributedDataParallel, and measured as one process measures all samples."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from digits_in_parts import (
    NARROW_BYTES,
    ONE_HOLDER,
    OPTIONS,
    SPLITS,
    everything,
    facts,
    largest_difference,
    network,
    numbers,
    padded,
    plain,
    split,
    without_ranks,
)
from torch.utils.data import DistributedSampler, TensorDataset
from torchrun_worker import EPOCHS

from tightframe import measure
from tightframe.report import RunFolder

WORKER = Path(__file__).with_name("torchrun_worker.py")
SECONDS = 240  # for a run that hangs
EXACT = 1e-9
SINGLE = 5e-6  # of float32 features, whose last digits depend on the batches; 4e-8 was seen, 1e-6 of spreads
AS_ALONE = ("padded", "plain", "one idle", "second pass", "one overflows")
AS_ALONE_WITH_LITTLE_MEMORY = ("wide", "one lacks memory")

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")


@dataclass(frozen=True)
class Run:
    """What a run of torchrun left.

    Attributes:
        world: the number of processes.
        folder: what they wrote.
        status, output: of torchrun.
    """

    world: int
    folder: Path
    status: int
    output: str

    def notes(self, rank: int) -> dict[str, Any]:
        path = self.folder / f"{rank}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def each(self, name: str) -> list[Any]:
        """What every process noted under a name."""
        found = [self.notes(rank).get(name) for rank in range(self.world)]
        assert None not in found, self.output[-2000:]
        return found


def torchrun(folder: Path, world: int, *arguments: str) -> Run:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TORCHELASTIC")}
    done = subprocess.run(
        [*command, str(WORKER), str(folder), *arguments],
        env=environment | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=SECONDS,
        check=False,
    )
    return Run(world, folder, done.returncode, done.stdout)


def once(folder: Path, world: int) -> Run:
    """A run that the first of pytest's own processes starts and the others wait for."""
    told = folder / "told.json"
    try:
        folder.mkdir()
    except FileExistsError:
        end = time.monotonic() + SECONDS
        while not told.exists() and time.monotonic() < end:
            time.sleep(0.2)
    else:
        status, output = -1, "torchrun didn't come to an end"
        try:
            run = torchrun(folder, world)
            status, output = run.status, run.output
        finally:
            new = told.with_suffix(".new")
            new.write_text(json.dumps([status, output]), encoding="utf-8")
            new.replace(told)
    return Run(world, folder, *json.loads(told.read_text(encoding="utf-8")))


NUMBERS = [pytest.param(number, marks=pytest.mark.slow) for number in (2, 4)]


@pytest.fixture(scope="module", params=NUMBERS, ids="{} processes".format)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    return once(shared / f"torchrun {request.param}", request.param)


@cache
def alone(folder: Path, dtype: torch.dtype, **options: Any) -> dict[str, Any]:
    """One process's measurement of all samples with the weights that the first process had."""
    model = network()
    model.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
    splits = {"test": everything("test", dtype), "ood": everything("ood", dtype)}
    return measure(model.to(dtype), everything("train", dtype), **splits, **OPTIONS, **options).to_dict()


def assert_as(report: dict[str, Any], expected: dict[str, Any], bound: float) -> float:
    """Every number, count and note; returns the largest relative difference."""
    assert facts(report) == facts(expected)
    worst, where = largest_difference(numbers(report), numbers(expected))
    assert worst <= bound, where
    return worst


def test_torchrun_ends_well(run: Run) -> None:
    assert run.status == 0, run.output[-4000:]
    assert [sorted(run.notes(rank)) for rank in range(run.world) if rank != 1] == [sorted(run.notes(0))] * (
        run.world - 1
    )


def test_the_parts_are_what_these_tests_need() -> None:
    """Parts that are filled up with repeated samples; plain ones of several sizes, with a class only one has."""
    for world in (2, 4):
        for name, size in SPLITS.items():
            images, labels = split(name)
            assert len(labels) == size
            sampler = DistributedSampler(TensorDataset(images), world, 0, shuffle=False)
            assert sampler.total_size > size
            parts = [plain(name, rank, world, torch.float64) for rank in range(world)]
            assert sum(len(y) for part in parts for _, y in part) == size
            assert len({sum(len(y) for _, y in part) for part in parts}) == world
            if name != "ood":
                holders = [any((y == ONE_HOLDER).any() for _, y in part) for part in parts]
                assert holders == [False] * (world - 1) + [True]
            idle = [plain(name, rank, world, torch.float64, idle=1) for rank in range(world)]
            assert idle[1] == []
            assert sum(len(y) for part in idle for _, y in part) == size
        assert len({len(plain("train", rank, world, torch.float64)) for rank in range(world)}) == world


def test_the_report_has_what_these_tests_compare(run: Run) -> None:
    """All layers, splits, conventions and accuracies; little memory leaves out what it should, and finds the rest."""
    full = alone(run.folder, torch.float64)
    assert [part["facts"]["layer"] for part in (*full["layers"], full)] == ["3", "6", "input of 10"]
    names = numbers(full)
    assert len(names) > 250
    for key in ("train/nc1", "train/vci", "test/ncc_mismatch", "test/classifier_accuracy", "ood/ood_orthogonality"):
        assert f"input of 10: {key} (value)" in names
    for key in OPTIONS["conventions"]:
        assert f"input of 10: train/{key} (value)" in names
    assert {f"{layer}: train/nc1 (value)" for layer in ("3", "6")} < names.keys()
    assert 0.5 < names["input of 10: test/classifier_accuracy (value)"] < 1  # some mistakes to count
    narrow = numbers(alone(run.folder, torch.float64, covariance_bytes=NARROW_BYTES))
    for layer in ("3", "6", "input of 10"):
        assert f"{layer}: train/vci (value)" in names.keys() - narrow.keys()
        key = f"{layer}: train/nc1 (value)"
        assert narrow[key] == pytest.approx(names[key], rel=1e-9)


@pytest.mark.parametrize("name", AS_ALONE)
def test_as_one_process_measures_all_samples(run: Run, name: str) -> None:
    expected = alone(run.folder, torch.float64)
    worst = [assert_as(report, expected, EXACT) for report in run.each(name)]
    print(f"{run.world} processes, float64, {name}: {max(worst):.1e}")


@pytest.mark.parametrize("name", AS_ALONE_WITH_LITTLE_MEMORY)
def test_wide_features_as_one_process_measures_them(run: Run, name: str) -> None:
    expected = alone(run.folder, torch.float64, covariance_bytes=NARROW_BYTES)
    worst = [assert_as(report, expected, EXACT) for report in run.each(name)]
    print(f"{run.world} processes, float64, {name}: {max(worst):.1e}")


def test_as_one_process_in_single_precision(run: Run) -> None:
    expected, ranks = without_ranks(alone(run.folder, torch.float32))
    worst = []
    for each in run.each("single precision"):
        report, others = without_ranks(each)
        worst.append(assert_as(report, expected, SINGLE))
        assert others == pytest.approx(ranks, rel=0, abs=2 / SPLITS["ood"])  # two samples of the fewest that are ranked
    print(f"{run.world} processes, float32: {max(worst):.1e}")


def test_straight_after_training(run: Run) -> None:
    """Batch normalisation's averages differ between processes until the next forward pass; the first one's count."""
    expected = alone(run.folder, torch.float64)
    for report in run.each("as trained"):
        assert_as(report, expected, EXACT)


@pytest.mark.parametrize("name", [*AS_ALONE, *AS_ALONE_WITH_LITTLE_MEMORY, "single precision", "as trained"])
def test_all_processes_have_the_same_numbers(run: Run, name: str) -> None:
    reports = run.each(name)
    assert all(report["facts"]["processes"] == run.world for report in reports)
    assert all(numbers(report) == numbers(reports[0]) for report in reports)
    assert all(facts(report) == facts(reports[0]) for report in reports)


@pytest.mark.parametrize("name", [*AS_ALONE, *AS_ALONE_WITH_LITTLE_MEMORY, "single precision"])
def test_all_processes_have_the_same_report(run: Run, name: str) -> None:
    """To the last character, and with a gap of batch normalisation even in a process without samples."""
    reports = run.each(name)
    assert all(report == reports[0] for report in reports)
    assert all("normalisation_gap" in report["facts"] for report in reports)


def test_one_process_alone(run: Run) -> None:
    """distributed=False measures this process's samples; the others, which don't measure, aren't waited for."""
    report = run.notes(1)["alone"]
    assert "alone" not in run.notes(0)
    assert "processes" not in report["facts"]
    model = network()
    model.load_state_dict(torch.load(run.folder / "weights.pt", weights_only=True))
    train, test, ood = (plain(name, 1, run.world, torch.float64) for name in SPLITS)
    expected = measure(model.double(), train, test=test, ood=ood, **OPTIONS).to_dict()
    assert_as(report, expected, EXACT)
    assert report["facts"]["samples"] == sum(len(labels) for _, labels in train) < SPLITS["train"]


def test_no_samples_in_any_process(run: Run) -> None:
    expected = "EmptyBatchError: there are no training samples in any process."
    assert run.each("empty everywhere") == [expected] * run.world


def test_all_processes_have_the_monitors_series(run: Run) -> None:
    for name, epochs in (("monitor", EPOCHS), ("resumed with", EPOCHS), ("resumed", EPOCHS)):
        every = run.each(name)
        assert [report["facts"]["epoch"] for report in every[0]] == list(range(1, epochs + 1))
        for series in every:
            assert [numbers(report) for report in series] == [numbers(report) for report in every[0]]
            assert [facts(report) for report in series] == [facts(report) for report in every[0]]
    assert len({report["entries"][0]["value"] for report in run.each("monitor")[0]}) == EPOCHS


def test_a_run_resumed(run: Run) -> None:
    """Every process goes on with the folder's series; a measurement at an epoch takes the place of the one there."""
    for rank in range(run.world):
        before, found, after = (run.notes(rank)[name] for name in ("monitor", "resumed with", "resumed"))
        assert found == run.notes(0)["monitor"]
        assert [numbers(report) for report in found] == [numbers(report) for report in before]
        assert after[:-1] == found[:-1]
        assert_as(after[-1], alone(run.folder, torch.float64), EXACT)


def test_the_first_process_alone_writes_the_run_folder(run: Run) -> None:
    assert run.each("has a folder") == [True] + [False] * (run.world - 1)
    first, *others = run.each("writes")
    assert {"open series.jsonl", "os.mkdir run"} <= set(first)
    assert any(event.startswith("os.rename ") for event in first)
    assert others == [[]] * (run.world - 1)
    folder = RunFolder(run.folder / "run")
    assert folder.description["data"] == "digits"
    series = folder.series()
    assert [report.to_dict() for report in series] == run.notes(0)["resumed"]
    last = folder.report()
    assert last.evidence is not None and last.evidence.statistics is not None
    assert int(last.evidence.statistics.num_samples) == SPLITS["train"]
    weights = torch.load(run.folder / "weights.pt", weights_only=True)
    assert torch.equal(last.evidence.weight, weights["10.weight"].double())
    assert sorted(path.name for path in (folder.path / "statistics").iterdir()) == [
        f"{number:06d}.safetensors" for number in range(EPOCHS)
    ]


def test_the_first_process_says_whether_a_measurement_is_due(run: Run) -> None:
    """Where its clock is slow and all others' are fast, and the other way round."""
    assert run.each("due") == [[[True, False], [True, True]]] * run.world


@pytest.mark.slow
def test_a_killed_process_ends_the_run(tmp_path: Path) -> None:
    """Before the processes' patience ends, which is longer than this test's."""
    run = torchrun(tmp_path, 2, "dies")
    assert "rank 1 is killed" in run.output
    assert run.status != 0
    assert "DistributedError on rank 0" in run.output or "(local_rank: 1)" in run.output
    assert "exitcode  : -9" in run.output


def test_parts_by_sampler_need_processes() -> None:
    """The worker's loaders ask torch for rank and number, as users' do."""
    with pytest.raises((RuntimeError, ValueError), match="process group"):
        padded("train", torch.float32, 64)
