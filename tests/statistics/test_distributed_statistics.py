"""Processes that sum their values have what one process has of all samples; failures are typed errors."""

import datetime
import json
import os
import signal
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed

from laws.scenarios import (
    SCENARIOS,
    Scenario,
    assert_fields_close,
    assert_fields_equal,
    draw,
    evidence_of,
    statistics_of,
    tensors,
    wrong,
)
from oracle import Sample
from tightframe import ClassStatistics, DecisionCounts, StatisticsAccumulator
from tightframe import processes as reduction
from tightframe.decisions import ConfusionCounts
from tightframe.decisions.decisions import DecisionTotals
from tightframe.errors import DistributedError, LabelError, MergeError, NonFiniteError, TightframeError
from tightframe.metrics import evaluate
from tightframe.numerics import EPS
from tightframe.similarity import cka
from tightframe.statistics import CrossAccumulator, CrossMoments
from variants import VARIANTS

pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="torch without distributed")

SECONDS = 60
PLACES = {"at the origin": (0.0, 0.1), "far and narrow": (1e4, 1e-3)}
SHARES = ("uneven", "one idle", "each lacks classes", "each class in one")
K, D = 4, 3


@cache
def sample_of(name: str, place: str) -> Sample:
    offset, width = PLACES[place]
    return draw(SCENARIOS[name], offset=offset, spread=width)


def owners(labels: Tensor, share: str, world: int) -> Tensor:
    """The process that has each row."""
    draws = torch.rand(len(labels), generator=torch.Generator().manual_seed(world), dtype=torch.float64)
    if share == "one idle":
        return (draws.sqrt() * (world - 1)).long()
    if share == "each lacks classes":
        return (labels + 1 + (draws * (world - 1)).long()) % world  # process r lacks class r
    return labels % world if share == "each class in one" else (draws.sqrt() * world).long()


def shard(sample: Sample, share: str, rank: int, world: int) -> tuple[Tensor, Tensor]:
    features, labels = tensors(sample)
    mine = owners(labels, share, world) == rank
    return features[mine], labels[mine]


def statistics_on(sample: Sample, share: str, rank: int, world: int, **options: bool) -> ClassStatistics:
    features, labels = shard(sample, share, rank, world)
    if len(labels) == 0:
        return ClassStatistics.empty(sample.num_classes, features.shape[1], **options)
    return ClassStatistics.from_features(features, labels, sample.num_classes, **options)


CASES = [
    (name, place, share)
    for name in SCENARIOS
    for place in PLACES
    for share in (SHARES if name == "zipf" else SHARES[1:3] if name == "empty classes" else SHARES[1:2])
]


MANY = draw(Scenario((1, 4) * 300, 3))  # more classes than are recentred at a time


def toy(classes: int = K, dim: int = D, **options: bool) -> ClassStatistics:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(8) % 3
    features = torch.randn(8, dim, generator=generator, dtype=torch.float64)
    return ClassStatistics.from_features(features, labels, classes, **options)


def totals(classes: int, classifier: bool) -> DecisionTotals:
    ones = torch.ones(classes, dtype=torch.int64)
    return DecisionTotals(ones, ones if classifier else None, ones, ones if classifier else None)


def unvalidated(value: float, label: int) -> StatisticsAccumulator:
    accumulator = StatisticsAccumulator(K, D)
    accumulator.update(torch.full((1, D), float(value)), torch.tensor([label]), validate=False)
    return accumulator


NOTHING = "another process failed before it had class statistics"
# what most processes have, what they are told, what process 1 has instead, what that is told
MISFITS: dict[str, tuple[Callable[[], Any], str, Callable[[], Any], str]] = {
    "num_classes": (toy, "num_classes 4 here, 4 to 5", lambda: toy(K + 1), "num_classes 5 here, 4 to 5"),
    "num_features": (toy, "num_features 3 here, 3 to 4", lambda: toy(dim=D + 1), "num_features 4 here, 3 to 4"),
    "within": (toy, "within 1 here, 0 to 1", lambda: toy(covariance=False), "within 0 here, 0 to 1"),
    "class_within": (toy, "class_within 0 here, 0 to 1", lambda: toy(per_class=True), "class_within 1 here, 0 to 1"),
    "num_labels": (toy, "num_labels 4 here, 4 to 5", lambda: toy(K + 1).select(range(K)), "num_labels 5 here, 4 to 5"),
    "class_ids": (toy, "class_ids (by checksum)", lambda: toy().select([1, 0, 2, 3]), "class_ids (by checksum)"),
    "recentred": (toy, NOTHING, lambda: toy().about(torch.zeros(D)), "about given centres can't be merged"),
    "another kind": (toy, "sums class statistics", lambda: ConfusionCounts.empty(K), "sums confusion counts"),
    "label": (lambda: unvalidated(0, 1), NOTHING, lambda: unvalidated(0, K), "outside [0, 4)"),
    "infinity": (lambda: unvalidated(0, 1), NOTHING, lambda: unvalidated(torch.inf, 1), "infinity"),
    "decided": (lambda: totals(K, True), "num_classes 4 here", lambda: totals(K + 1, True), "num_classes 5 here"),
    "classifier": (lambda: totals(K, True), "kinds 4 here, 2 to 4", lambda: totals(K, False), "kinds 2 here, 2 to 4"),
    "confused": (
        lambda: ConfusionCounts.empty(K),
        "num_classes 4 here",
        lambda: ConfusionCounts.empty(K + 1),
        "num_classes 5 here",
    ),
}
OWN = {"label": LabelError, "infinity": NonFiniteError}  # what process 1 raises, if not MergeError


# ---------------------------------------------------------------------- what the processes do


def meet(rank: int, world: int, folder: str) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    meeting, timeout = f"file://{folder}/meeting", datetime.timedelta(seconds=SECONDS)
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world, timeout=timeout)


def failure(call: Callable[[], object]) -> list[str]:
    try:
        call()
    except TightframeError as error:
        return [type(error).__name__, str(error)]
    return ["nothing", ""]


def work(rank: int, world: int, folder: str) -> None:
    """Sum everything with the other processes and write down what came out."""
    meet(rank, world, folder)

    def save(value: ClassStatistics, *name: str) -> None:
        value.save(Path(folder) / f"{' '.join(name)} {rank}.safetensors")

    for name, place, share in CASES:
        value = statistics_on(sample_of(name, place), share, rank, world, per_class=True)
        before = value.to("cpu")._map(Tensor.clone)
        save(value.all_reduce(), name, place, share)
        assert_fields_equal(value, before)

    sample = sample_of("zipf", "far and narrow")
    features, labels = shard(sample, "uneven", rank, world)
    save(statistics_on(sample, "uneven", rank, world, covariance=False).all_reduce(), "without covariance")
    chosen = ClassStatistics.from_features(features, labels, sample.num_classes, per_class=True).select([5, 2, 7])
    save(chosen.all_reduce(), "selected")
    many = statistics_on(MANY, "uneven", rank, world, per_class=True)
    if rank == 0:  # which holds its numbers in another order in memory
        many = many._map(lambda tensor: tensor.mT.contiguous().mT if tensor.ndim > 1 else tensor)
    save(many.all_reduce(), "many classes")
    graph = ClassStatistics.from_features(features.clone().requires_grad_(), labels, sample.num_classes).all_reduce()
    assert not graph.means.requires_grad and not graph.spread.requires_grad

    accumulator = StatisticsAccumulator(sample.num_classes, features.shape[1], per_class=True)
    accumulator.update(features, labels)
    accumulator.all_reduce()
    save(accumulator.compute(), "accumulated")
    accumulator.update(features, labels)  # goes on alone
    save(accumulator.compute(), "gone on")
    accumulator = StatisticsAccumulator(sample.num_classes, features.shape[1])
    accumulator.update(features.float(), labels, validate=False)
    with torch.inference_mode():
        accumulator.all_reduce()
    save(accumulator.compute(), "unvalidated")

    accumulator = StatisticsAccumulator(K, D)
    if rank == 0:  # the others have seen nothing, and so no precision
        accumulator.update(torch.ones(K, D, dtype=torch.bfloat16), torch.arange(K))
    accumulator.all_reduce()
    save(accumulator.compute(), "coarse in one")

    statistics = statistics_of(sample, False)
    counts = DecisionCounts(statistics, torch.from_numpy(sample.weight), torch.from_numpy(sample.bias))
    centres_only = DecisionCounts(statistics)
    for decisions in (counts, centres_only):
        decisions.update(features, labels)
        decisions.all_reduce()
    decided = (labels + 1) % sample.num_classes
    confusion = ConfusionCounts.from_predictions(decided, labels, sample.num_classes)
    if rank == 0:  # in another order in memory
        confusion = ConfusionCounts(confusion.counts.mT.contiguous().mT)
    kept = [counts.totals, centres_only.totals]
    torch.save([*(vars(total) for total in kept), confusion.all_reduce().counts], Path(folder) / f"counts {rank}.pt")

    failures = {}
    for name, (usual, _, odd, _) in MISFITS.items():
        failures[name] = failure((odd if rank == 1 else usual)().all_reduce)
    pair = distributed.new_group([0, world - 1])
    if rank in (0, world - 1):
        save(statistics_on(sample, "uneven", rank, world).all_reduce(pair), "pair")
    else:
        failures["not in the group"] = failure(lambda: toy().all_reduce(pair))
    (Path(folder) / f"failures {rank}.json").write_text(json.dumps(failures))
    distributed.barrier()  # nobody hangs up while others still talk
    distributed.destroy_process_group()


def lose(rank: int, world: int, folder: str, how: str) -> None:
    """Process 1 dies, or doesn't call, while the others sum; they write down how they failed and after what time."""
    meet(rank, world, folder)
    group = distributed.new_group(timeout=datetime.timedelta(seconds=2 if how == "waits" else SECONDS))
    told = Path(folder) / f"told {rank}.json"
    distributed.barrier()
    if rank == 1 and how == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    elif rank == 1:
        while not told.with_name("told 0.json").exists():
            time.sleep(0.1)
    else:
        start = time.monotonic()
        failed = failure(lambda: toy().all_reduce(group))
        told.write_text(json.dumps([*failed, time.monotonic() - start]))
    os._exit(0)  # the group can't be taken down in order any more


def launch(function: Callable[..., None], world: int, *arguments: str) -> list[int | None]:
    """Run a function in so many processes; their exit codes, once all are done or the time is up."""
    context = torch.multiprocessing.get_context("forkserver")
    processes = [context.Process(target=function, args=(rank, world, *arguments)) for rank in range(world)]
    end = time.monotonic() + SECONDS
    for process in processes:
        process.start()
    for process in processes:
        process.join(max(0.0, end - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode for process in processes]


# ---------------------------------------------------------------------- and what is expected of it


@pytest.fixture(scope="module", params=[2, 3, 4])
def met(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path]:
    """The number of processes, and the folder with what they wrote."""
    folder = tmp_path_factory.mktemp("processes")
    assert launch(work, request.param, str(folder)) == [0] * request.param
    return request.param, folder


def of_all(met: tuple[int, Path], *name: str, ranks: range | tuple[int, ...] | None = None) -> ClassStatistics:
    """What process 0 wrote, after a look that the others wrote the same bits."""
    world, folder = met
    first, *others = [
        ClassStatistics.load(folder / f"{' '.join(name)} {rank}.safetensors") for rank in ranks or range(world)
    ]
    assert others
    for other in others:
        assert_fields_equal(other, first)
    return first


def assert_as_alone(value: ClassStatistics, expected: ClassStatistics, place: str) -> None:
    """Counts equal; means to 1e-12; scatter too, but for what the rounding of class means far away costs it."""
    offset, width = PLACES[place]
    assert_fields_close(value, expected, 1e-12 + EPS * offset / width)
    torch.testing.assert_close(value.means, expected.means, rtol=1e-14, atol=1e-14, equal_nan=True)
    alone = expected.counts <= 1
    assert not value.spread[alone].any()
    assert value.class_within is None or not value.class_within[alone].any()


@cache
def metrics_alone(name: str, place: str) -> dict[str, float]:
    values = evaluate(evidence_of(sample_of(name, place)), VARIANTS.values())
    return {name: float(value) for name, value in values.items()}


@pytest.mark.filterwarnings("ignore:debiased measures leave out:tightframe.errors.GeometryWarning")
@pytest.mark.parametrize("place", PLACES)
def test_statistics_and_metrics_as_of_all_samples(place: str, met: tuple[int, Path]) -> None:
    for name, where, share in CASES:
        if where != place:
            continue
        sample, value = sample_of(name, place), of_all(met, name, place, share)
        assert_as_alone(value, statistics_of(sample), place)
        values = {name: float(each) for name, each in evaluate(evidence_of(sample, value), VARIANTS.values()).items()}
        assert len(values) > 60
        assert not wrong(values, metrics_alone(name, place), 1e-9, 1e-12), (name, share)


def test_the_shards_are_what_these_tests_need() -> None:
    sample = sample_of("zipf", "at the origin")
    for world in (2, 3, 4):
        sizes = {s: [statistics_on(sample, s, r, world).counts for r in range(world)] for s in SHARES}
        assert len({int(counts.sum()) for counts in sizes["uneven"]}) == world
        assert [int(counts.sum()) > 0 for counts in sizes["one idle"]] == [True] * (world - 1) + [False]
        assert all(counts[rank] == 0 and counts.any() for rank, counts in enumerate(sizes["each lacks classes"]))
        holders = sum((counts > 0).long() for counts in sizes["each class in one"])
        assert (holders == 1).all()


def test_a_class_that_one_process_has_stays_as_it_was(met: tuple[int, Path]) -> None:
    """Bit for bit, wherever the other classes lie: in means, spread and its own scatter."""
    world, _ = met
    for place in PLACES:
        sample = sample_of("zipf", place)
        value = of_all(met, "zipf", place, "each class in one")
        for rank in range(world):
            mine = statistics_on(sample, "each class in one", rank, world, per_class=True)
            here = mine.present
            assert torch.equal(value.means[here], mine.means[here])
            assert torch.equal(value.spread[here], mine.spread[here])
            assert torch.equal(value.class_within[here], mine.class_within[here])


def test_other_kinds_of_statistics(met: tuple[int, Path]) -> None:
    place = "far and narrow"
    sample = sample_of("zipf", place)
    features, labels = tensors(sample)
    bare = ClassStatistics.from_features(features, labels, sample.num_classes, covariance=False)
    assert_as_alone(of_all(met, "without covariance"), bare, place)
    value, expected = of_all(met, "selected"), statistics_of(sample).select([5, 2, 7])
    assert_as_alone(value, expected, place)
    assert value.num_labels == expected.num_labels
    assert_as_alone(of_all(met, "many classes"), statistics_of(MANY), "at the origin")


def test_accumulators_have_seen_everything_and_go_on_alone(met: tuple[int, Path]) -> None:
    world, folder = met
    place = "far and narrow"
    sample = sample_of("zipf", place)
    whole = statistics_of(sample)
    assert_as_alone(of_all(met, "accumulated"), whole, place)
    for rank in range(world):
        value = ClassStatistics.load(folder / f"gone on {rank}.safetensors")
        own = statistics_on(sample, "uneven", rank, world, per_class=True)
        assert_fields_close(value, whole.merge(own), 1e-8)
    features, labels = tensors(sample)
    expected = ClassStatistics.from_features(features.float(), labels, sample.num_classes)
    assert_fields_close(of_all(met, "unvalidated"), expected, 4e-7)  # sums of float32 squares
    for rank in range(world):
        rounding = ClassStatistics.load(folder / f"coarse in one {rank}.safetensors").rounding
        half = torch.full_like(rounding, 2.0**-8)  # of bfloat16's epsilon, for entries of size one
        torch.testing.assert_close(rounding, half, rtol=1e-14, atol=0)


def test_counts_of_decisions_and_confusion(met: tuple[int, Path]) -> None:
    world, folder = met
    sample = sample_of("zipf", "far and narrow")
    features, labels = tensors(sample)
    counts = DecisionCounts(
        statistics_of(sample, False), torch.from_numpy(sample.weight), torch.from_numpy(sample.bias)
    )
    counts.update(features, labels)
    decided = (labels + 1) % sample.num_classes
    confusion = ConfusionCounts.from_predictions(decided, labels, sample.num_classes)
    for rank in range(world):
        both, centres, confused = torch.load(folder / f"counts {rank}.pt", weights_only=True)
        for name, expected in vars(counts.totals).items():
            assert torch.equal(both[name], expected), name
        assert torch.equal(centres["centre_correct"], counts.totals.centre_correct)
        assert centres["agreement"] is None
        assert torch.equal(confused, confusion.counts)


def test_what_does_not_fit_raises_in_every_process(met: tuple[int, Path]) -> None:
    world, folder = met
    for rank in range(world):
        failures = json.loads((folder / f"failures {rank}.json").read_text())
        for name, (_, told, _, odd_told) in MISFITS.items():
            kind, message = failures[name]
            assert kind == (OWN.get(name, MergeError) if rank == 1 else MergeError).__name__, (name, message)
            assert (odd_told if rank == 1 else told) in message


def test_a_group_is_its_members(met: tuple[int, Path]) -> None:
    world, folder = met
    place = "far and narrow"
    sample = sample_of("zipf", place)
    first, last = (statistics_on(sample, "uneven", rank, world) for rank in (0, world - 1))
    assert_as_alone(of_all(met, "pair", ranks=(0, world - 1)), first.merge(last), place)
    for rank in range(1, world - 1):
        kind, message = json.loads((folder / f"failures {rank}.json").read_text())["not in the group"]
        assert kind == "DistributedError"
        assert f"(rank {rank}) is not in the group" in message


# ---------------------------------------------------------------------- failures, and being alone


def test_a_killed_process_is_an_error_in_the_others(tmp_path: Path) -> None:
    assert launch(lose, 3, str(tmp_path), "dies") == [0, -signal.SIGKILL, 0]
    for rank in (0, 2):
        kind, message, seconds = json.loads((tmp_path / f"told {rank}.json").read_text())
        assert kind == DistributedError.__name__
        assert f"rank {rank} of 3 lost the other processes while synchronising the shape of class statistics" in message
        assert "a process died" in message
        assert seconds < SECONDS / 4


def test_a_process_that_does_not_call_is_an_error_after_the_timeout(tmp_path: Path) -> None:
    assert launch(lose, 2, str(tmp_path), "waits") == [0, 0]
    kind, message, seconds = json.loads((tmp_path / "told 0.json").read_text())
    assert kind == DistributedError.__name__
    assert "rank 0 of 2" in message
    assert "within the group's timeout" in message
    assert "2000ms" in message
    assert 1 < seconds < SECONDS / 4


def test_alone_nothing_changes(picture: Callable[[StatisticsAccumulator], object]) -> None:
    assert (reduction.world_size(), reduction.rank()) == (1, 0)
    value = toy()
    assert value.all_reduce() is value
    accumulator = StatisticsAccumulator(K, D)
    accumulator.update(torch.randn(5, D), torch.arange(5) % K)
    before = picture(accumulator)
    accumulator.all_reduce()
    assert picture(accumulator) == before
    decisions = DecisionCounts(value)
    decisions.update(torch.randn(5, D), torch.arange(5) % 3)
    counts = decisions.totals.counts
    decisions.all_reduce()
    assert torch.equal(decisions.totals.counts, counts)
    confusion = ConfusionCounts(torch.ones(2, 2, dtype=torch.int64))
    assert torch.equal(confusion.all_reduce().counts, confusion.counts)


def test_alone_errors_are_the_same() -> None:
    with pytest.raises(MergeError, match="about given centres"):
        toy().about(torch.zeros(D)).all_reduce()
    with pytest.raises(LabelError, match="outside"):
        unvalidated(0, K).all_reduce()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_values_on_the_cpu_go_by_way_of_the_gpu_where_the_backend_needs_that(tmp_path: Path) -> None:
    distributed.init_process_group("nccl", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        counts = torch.arange(5)
        reduction.all_reduce(counts, "counts")
        assert counts.tolist() == [0, 1, 2, 3, 4]
    finally:
        distributed.destroy_process_group()


# ---------------------------------------------------------------------- several layers


def cross_rows(rank: int, world: int) -> dict[str, Tensor]:
    """Uneven parts; the last of several processes has no samples."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(60, 3, generator=generator, dtype=torch.float64) + 1e3
    y = x.square() @ torch.randn(3, 2, generator=generator, dtype=torch.float64)
    share = torch.arange(60) % 5 % max(world - 1, 1)
    mine = share == rank if world > 1 else torch.ones(60, dtype=torch.bool)
    return {"x": x[mine], "y": y[mine]}


def cross_work(rank: int, world: int, folder: str) -> None:
    meet(rank, world, folder)
    rows, results = cross_rows(rank, world), {}
    for folds in (None, 2):
        accumulator = CrossAccumulator({"x": 3, "y": 2}, folds=folds)
        if len(rows["x"]):
            accumulator.update({name: each.float() if folds else each for name, each in rows.items()})
        value = accumulator.compute_all() if folds is None else accumulator.compute_folds_all().total
        results[str(folds)] = [int(value.count), cka(value).tolist(), value.epsilons, value.product_epsilon]
    other = CrossMoments.empty({"x": 3, "y": 2 + (rank == 1)})
    results["misfit"] = failure(other.all_reduce)
    broken = CrossAccumulator({"x": 3, "y": 2})
    broken.update({"x": torch.ones(2, 3), "y": torch.full((2, 2), torch.nan if rank == 1 else 1.0)}, validate=False)
    results["infinity"] = failure(broken.compute_all)
    (Path(folder) / f"{rank}.json").write_text(json.dumps(results))
    distributed.destroy_process_group()


def test_moments_of_several_layers_are_summed_over_processes(tmp_path: Path) -> None:
    torch.multiprocessing.start_processes(cross_work, (3, str(tmp_path)), nprocs=3, start_method="forkserver")
    outcomes = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(3)]
    assert outcomes[0]["None"] == outcomes[1]["None"] == outcomes[2]["None"]
    alone = CrossMoments.from_features(cross_rows(0, 1))
    for folds, tolerance in (("None", 1e-10), ("2", 1e-3)):
        count, value, epsilons, _ = outcomes[0][folds]
        assert count == 60 and epsilons == [EPS if folds == "None" else torch.finfo(torch.float32).eps] * 2
        torch.testing.assert_close(torch.tensor(value, dtype=torch.float64), cka(alone), rtol=0, atol=tolerance)
    for rank, outcome in enumerate(outcomes):
        assert outcome["misfit"][0] == "MergeError" and "widths, pairs (by checksum)" in outcome["misfit"][1]
        assert outcome["infinity"][0] == ("NonFiniteError" if rank == 1 else "MergeError")
