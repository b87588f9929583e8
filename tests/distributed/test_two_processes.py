"""Two processes that aren't alike: one is lost, raises or makes no call, or has other loaders than the other."""

import datetime
import importlib
import json
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from digits_in_parts import Batches, largest_difference, numbers
from torch import Tensor, distributed, nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import tightframe.monitor
from tightframe import Monitor, measure
from tightframe.errors import DistributedError, StateError
from tightframe.writing import WriteLock

K, D, ROWS = 4, 6, 240
SECONDS = 240  # the group's timeout, and twice what processes may take: nothing is found out by waiting
PATIENCE = 3  # the group's timeout where it is, as the second process never comes

pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="torch without distributed")

Outcome = dict[str, Any]


def model() -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(D, 16), nn.ReLU(), nn.Linear(16, K)).double()


def normalised_model(width: int = 16) -> nn.Module:
    """Batch normalisation whose averages are those of all samples."""
    torch.manual_seed(5)
    norm = nn.BatchNorm1d(width, momentum=1.0)
    made = nn.Sequential(nn.Linear(D, width), norm, nn.ReLU(), nn.Linear(width, K)).double()
    made(samples()[0])
    return made


def pixel_model() -> nn.Module:
    """A classifier of pixels, of whose two blocks the first has other positions."""
    torch.manual_seed(5)
    first = nn.Sequential(nn.Conv2d(1, 6, 2, stride=2), nn.ReLU())
    second = nn.Sequential(nn.ConvTranspose2d(6, 8, 2, stride=2), nn.ReLU())
    return nn.Sequential(first, second, nn.Conv2d(8, K, 1))


def samples() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(ROWS) % K
    noise = torch.randn(ROWS, D, generator=generator, dtype=torch.float64)
    return 2 * torch.eye(D, dtype=torch.float64)[labels] + noise, labels


def batches(start: int = 0, stop: int = ROWS) -> Batches:
    x, labels = samples()
    return list(zip(x[start:stop].split(16), labels[start:stop].split(16), strict=True))


def shuffled(start: int = 0, stop: int = ROWS) -> DataLoader[Any]:
    x, labels = samples()
    return DataLoader(TensorDataset(x[start:stop], labels[start:stop]), 16, shuffle=True)


# ---------------------------------------------------------------------- what the processes do


def process(rank: int, folder: str, what: str, patience: float) -> None:
    """Do something with the other process and write down what came of it and how long it took."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    importlib.import_module("few_draws")
    torch.set_num_threads(1)
    timeout = datetime.timedelta(seconds=patience)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    distributed.barrier()
    distributed.destroy_process_group()  # both are there: from now on waiting is the other's fault
    meeting = f"file://{folder}/second meeting"
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2, timeout=timeout)
    start = time.monotonic()
    try:
        outcome = globals()[what](rank)
    except Exception as error:
        outcome = {"error": type(error).__name__, "message": str(error)}
    told = Path(folder) / f"{rank}.new"
    told.write_text(json.dumps({**outcome, "seconds": time.monotonic() - start}), encoding="utf-8")
    told.replace(told.with_suffix(".json"))
    if "message" not in outcome:
        distributed.barrier()  # neither hangs up while the other still talks
    os._exit(0)  # a group that lost a process can't be taken down in order


def measured(*arguments: Any, **options: Any) -> Outcome:
    return {"report": measure(model(), *arguments, progress=False, **options).to_dict()}


def is_killed(rank: int) -> Outcome:
    def until_killed() -> Iterator[Any]:
        for number, batch in enumerate(batches()):
            if number == 3 and rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch

    return measured(until_killed())


def raises(rank: int) -> Outcome:
    x, labels = samples()
    return measured([(x, labels if rank == 0 else labels + 1)])


def makes_no_call(rank: int) -> Outcome:
    if rank == 1:
        time.sleep(SECONDS)
    return measured(batches())


def makes_no_call_with_averages(rank: int) -> Outcome:
    if rank == 1:
        time.sleep(SECONDS)
    return {"report": measure(normalised_model(), batches(), progress=False).to_dict()}


def makes_no_call_to_due(rank: int) -> Outcome:
    monitor = Monitor(model(), budget=0.5, progress=False)
    monitor.measure(batches())
    if rank == 1:
        time.sleep(SECONDS)
    return {"due": monitor.due()}


def has_other_features(rank: int) -> Outcome:
    other = nn.Sequential(nn.Linear(D, 8), nn.ReLU(), nn.Linear(8, K)).double()
    return {"report": measure(model() if rank == 0 else other, batches(), progress=False).to_dict()}


def has_other_averages(rank: int) -> Outcome:
    """As has_other_features, but found when buffers are exchanged, if not before."""
    other = normalised_model(16 if rank == 0 else 8)
    return {"report": measure(other, batches(), progress=False).to_dict()}


def has_few_samples(rank: int) -> Outcome:
    """Too few to tell the averages of batch normalisation from."""
    return {
        "report": measure(normalised_model(), batches(0, 237) if rank == 0 else batches(237), progress=False).to_dict()
    }


def has_its_own_classes(rank: int) -> Outcome:
    """Whose averages aren't those of all classes."""
    x, labels = samples()
    mine = (labels < 2) == (rank == 0)
    loader = list(zip(x[mine].split(16), labels[mine].split(16), strict=True))
    return {"report": measure(normalised_model(), loader, progress=False).to_dict()}


def has_other_classes(rank: int) -> Outcome:
    other = nn.Sequential(nn.Linear(D, 16), nn.ReLU(), nn.Linear(16, K + 1)).double()
    return {"report": measure(model() if rank == 0 else other, batches(), progress=False).to_dict()}


def has_held_out_samples(rank: int) -> Outcome:
    """The second process has a part of the training samples only; `test` and `ood` are left out there."""
    part = batches(0, 100) if rank == 0 else batches(100)
    return measured(part, **({"test": batches(40, 160), "ood": batches(10, 90)} if rank == 0 else {}))


def has_an_iterator(rank: int) -> Outcome:
    """Nothing fits: all must look twice; what the second process has, which is nothing, can't be run again."""
    return measured(batches() if rank == 0 else iter(()), buffer_bytes=0, covariance_bytes=400)


def has_nothing(rank: int) -> Outcome:
    """A layer is left out, as its positions aren't the labels'; a process without samples doesn't see that."""
    images, labels = torch.randn(12, 1, 4, 4, generator=torch.Generator().manual_seed(3)), torch.arange(192) % K
    loader = [(images, labels.view(12, 4, 4))] if rank == 0 else []
    return {"report": measure(pixel_model(), loader, layers="auto", progress=False).to_dict()}


def has_fewer_samples(rank: int) -> Outcome:
    """Fewer than are wanted, so that the second process, but not the first, has to choose."""
    monitor = Monitor(model(), samples=100, progress=False)
    return {"report": monitor.measure(shuffled(0, 40) if rank == 0 else shuffled(40)).to_dict()}


def has_a_part(rank: int) -> Outcome:
    """Both have more than are wanted of all together."""
    monitor = Monitor(model(), samples=60, progress=False)
    return {"report": monitor.measure(shuffled(0, 120) if rank == 0 else shuffled(120)).to_dict()}


def has_a_slower_clock(rank: int) -> Outcome:
    """By the first process's clock the budget allows 100 samples, by the second's all."""
    seconds = {"now": 0.0}
    tightframe.monitor.time = SimpleNamespace(perf_counter=lambda: seconds["now"])
    x, labels = samples()
    data = TensorDataset(x, labels)
    loader = DataLoader(data, 16, sampler=DistributedSampler(data, shuffle=False))

    def unpack(batch: Any) -> Any:
        seconds["now"] += 10.0  # measuring takes time
        return batch

    monitor = Monitor(model(), budget=0.5, every=1, progress=False)
    report = monitor.measure(loader, unpack=unpack)
    pace = report.facts.measuring_seconds / report.facts.samples
    seconds["now"] += pace * (100.5 if rank == 0 else 1000.0)
    return {"report": monitor.measure(loader).to_dict()}


def measures_alone(rank: int) -> Outcome:
    """The first process measures by itself now and then; the other never does."""
    if rank == 1:
        return {}
    monitor = Monitor(model(), samples=60, budget=0.9, distributed=False, progress=False)
    return {"report": monitor.measure(shuffled()).to_dict(), "due": monitor.due()}


def measures_alone_once(rank: int) -> Outcome:
    """The monitor is everybody's, this measurement isn't."""
    monitor = Monitor(model(), progress=False)
    return {} if rank == 1 else {"report": monitor.measure(batches(), distributed=False).to_dict()}


def has_folders_of_others(rank: int) -> Outcome:
    """Rank 0 finds a file in place of the folder, then a lock of another run."""
    refusals = []
    with tempfile.TemporaryDirectory() as folder:
        for options in ({}, {"resume": True}):
            with pytest.raises(StateError) as refused:
                Monitor(model(), folder=__file__, progress=False, **options)
            refusals.append(str(refused.value))
        monitor = Monitor(model(), folder=folder, progress=False)
        monitor.close()
        lock = WriteLock(Path(folder) / "run.lock")
        lock.acquire()
        with pytest.raises(StateError) as refused:
            monitor.measure(batches())
        refusals.append(str(refused.value).replace(folder, "it"))
    return {"refusals": refusals}


# ---------------------------------------------------------------------- and what is expected of it


def run(what: Callable[[int], Outcome], folder: Path, patience: float = SECONDS) -> tuple[list[Outcome], list[int]]:
    """What both processes wrote down ({} for one that wrote nothing), and their exit codes."""
    context = torch.multiprocessing.get_context("forkserver")
    pair = [context.Process(target=process, args=(r, str(folder), what.__name__, patience)) for r in (0, 1)]
    for each in pair:
        each.start()
    end = time.monotonic() + SECONDS / 2
    while time.monotonic() < end and pair[0].is_alive():  # the first one's word is what the tests want
        time.sleep(0.05)
    pair[1].join(0 if patience == PATIENCE else max(1.0, end - time.monotonic()))
    for each in pair:
        if each.is_alive():
            each.kill()
        each.join()
    told = [folder / f"{rank}.json" for rank in (0, 1)]
    outcomes = [json.loads(path.read_text(encoding="utf-8")) if path.exists() else {} for path in told]
    return outcomes, [int(each.exitcode or 0) for each in pair]


def assert_lost(outcome: Outcome, *parts: str) -> None:
    """A DistributedError that names the process and has these parts in its message."""
    assert outcome.get("error") == DistributedError.__name__, outcome
    for part in ("rank 0 of 2 lost the other processes", *parts):
        assert part in outcome["message"]


def reports_of(outcomes: list[Outcome]) -> list[dict[str, Any]]:
    """What was reported, in all processes or there is something wrong."""
    assert all("report" in outcome for outcome in outcomes), outcomes
    return [outcome["report"] for outcome in outcomes]


def assert_reports(outcomes: list[Outcome], expected: dict[str, Any]) -> None:
    """Both processes have one report, that of all samples."""
    first, second = reports_of(outcomes)
    worst, where = largest_difference(numbers(first), numbers(expected))
    assert worst < 1e-9, where
    assert second == first


def alone(loader: Any, **options: Any) -> dict[str, Any]:
    return measure(model(), loader, progress=False, **options).to_dict()


def test_a_killed_process_is_an_error_at_once(tmp_path: Path) -> None:
    (first, second), status = run(is_killed, tmp_path)
    assert (second, status[1]) == ({}, -signal.SIGKILL)
    assert_lost(first, "while synchronising", "a process died")


def test_a_process_that_raises_is_an_error_in_the_other(tmp_path: Path) -> None:
    (first, second), _ = run(raises, tmp_path)
    assert (second["error"], second["message"][:22]) == ("LabelError", "labels run from 1 to 4")
    assert_lost(first, "see the errors of the other processes")


@pytest.mark.parametrize("what", [makes_no_call, makes_no_call_with_averages])
def test_a_process_that_never_measures(what: Callable[[int], Outcome], tmp_path: Path) -> None:
    (first, _), _ = run(what, tmp_path, PATIENCE)
    assert_lost(first, "Every process must call measure()", "distributed=False", f"{PATIENCE}000ms")
    assert first["seconds"] > PATIENCE - 1


def test_a_process_that_never_asks_what_is_due(tmp_path: Path) -> None:
    (first, _), _ = run(makes_no_call_to_due, tmp_path, PATIENCE)
    assert_lost(first, f"{PATIENCE}000ms")
    assert first["seconds"] > PATIENCE - 1


def test_a_folder_that_rank_0_cant_write_is_an_error_in_both(tmp_path: Path) -> None:
    (first, second), status = run(has_folders_of_others, tmp_path)
    file = f"{__file__} is not a folder; choose another path."
    assert first["refusals"][:2] == [file, file]
    assert second["refusals"][:2] == [f"rank 0: {file}"] * 2
    assert first["refusals"][2].startswith("another run writes to it")
    assert second["refusals"][2].startswith("rank 0: another run writes to ")
    assert status == [0, 0]


def test_models_with_other_features(tmp_path: Path) -> None:
    outcomes, _ = run(has_other_features, tmp_path)
    for outcome in outcomes:
        assert outcome["error"] == "LayerError"
        assert "same layers and dimensions; got {'input of 2': 16} and {'input of 2': 8}" in outcome["message"]


def test_models_with_other_classes(tmp_path: Path) -> None:
    outcomes, _ = run(has_other_classes, tmp_path)
    for outcome in outcomes:
        assert outcome["error"] == "MergeError"
        assert f"same number of classes; got {K}, {K + 1}" in outcome["message"]


def test_models_with_other_averages(tmp_path: Path) -> None:
    outcomes, status = run(has_other_averages, tmp_path)
    assert status == [0, 0]  # not ended by the backend
    for outcome in outcomes:
        assert outcome["error"] == "LayerError"
        assert "models of all processes must have the same buffers" in outcome["message"]


@pytest.mark.parametrize("what", [has_few_samples, has_its_own_classes])
def test_a_blip_isnt_seen_in_what_one_process_has(what: Callable[[int], Outcome], tmp_path: Path) -> None:
    """Averages that fit all samples needn't fit every part of them."""
    expected = measure(normalised_model(), batches(), progress=False)
    assert expected.facts.normalisation_gap < 0.01
    for report in reports_of(run(what, tmp_path)[0]):
        assert not any("blip" in note for note in report["notes"]), report["notes"]


def test_held_out_samples_in_one_process(tmp_path: Path) -> None:
    outcomes, _ = run(has_held_out_samples, tmp_path)
    assert_reports(outcomes, alone(batches(), test=batches(40, 160), ood=batches(10, 90)))


def test_an_empty_iterator_in_one_process(tmp_path: Path) -> None:
    """Wide features aren't looked at again in any process, as one can't."""
    outcomes, _ = run(has_an_iterator, tmp_path)
    assert_reports(outcomes, alone(batches(), buffer_bytes=0, covariance_bytes=400, second_pass=False))


def test_a_process_without_samples_tells_what_was_left_out(tmp_path: Path) -> None:
    outcomes, _ = run(has_nothing, tmp_path)
    first, second = reports_of(outcomes)
    assert "0.1 has 2x2 positions and uses the nearest of 4x4 labels." in first["notes"]
    assert second == first


def test_a_monitor_on_fewer_samples_where_one_process_has_few(tmp_path: Path) -> None:
    outcomes, _ = run(has_fewer_samples, tmp_path)
    first, second = reports_of(outcomes)
    assert first["facts"]["samples"] == second["facts"]["samples"] <= 100
    assert first["notes"] == second["notes"]


def test_a_monitor_on_fewer_samples_than_the_parts_have_together(tmp_path: Path) -> None:
    outcomes, _ = run(has_a_part, tmp_path)
    for report in reports_of(outcomes):
        assert report["facts"]["samples"] == 60
        assert "measured on 60 of 240 samples." in report["notes"]


def test_a_monitor_by_clocks_that_disagree(tmp_path: Path) -> None:
    """The first process's budget is everybody's."""
    outcomes, _ = run(has_a_slower_clock, tmp_path)
    for report in reports_of(outcomes):
        assert report["facts"]["samples"] == 100


def test_a_monitor_of_one_process_alone(tmp_path: Path) -> None:
    (first, _), status = run(measures_alone, tmp_path)
    (report,) = reports_of([first])
    assert report["facts"]["samples"] == 60
    assert isinstance(first["due"], bool)
    assert status == [0, 0]


def test_a_measurement_of_one_process_alone(tmp_path: Path) -> None:
    (first, _), status = run(measures_alone_once, tmp_path)
    (report,) = reports_of([first])
    assert "processes" not in report["facts"]
    assert not largest_difference(numbers(report), numbers(alone(batches())))[0]
    assert status == [0, 0]
