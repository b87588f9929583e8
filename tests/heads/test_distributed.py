"""Two processes on one machine train as one process does on their batches together."""

import datetime
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from tightframe import prototypes
from tightframe.heads import CondensedMeans, DeepNCM, GuidedHead, OnlineMeans, PrototypeHead, PrototypeModel

WORLD, STEPS, ROWS, CLASSES, DIM = 2, 4, 6, 4, 6
SECONDS = 60
EXACT = {"dtype": torch.float64}

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")

HEADS: dict[str, Callable[[], nn.Module]] = {
    "prototypes": lambda: PrototypeHead(
        prototypes.simplex(CLASSES, DIM), DIM - 1, learnable=True, learn_scale=True, **EXACT
    ),
    "ncm": lambda: DeepNCM(CLASSES, DIM - 1, **EXACT),
    "ncm, condensed": lambda: DeepNCM(
        CLASSES, DIM - 1, logits="cosine", scale=4.0, means=CondensedMeans(CLASSES, DIM - 1, 3), **EXACT
    ),
    "guided": lambda: GuidedHead(prototypes.simplex(CLASSES, DIM - 1), scale=4.0, learn_scale=True, **EXACT),
    "guided, online": lambda: GuidedHead(
        prototypes.simplex(CLASSES, DIM - 1), scale=4.0, means=OnlineMeans(CLASSES, DIM - 1), every=2, **EXACT
    ),
}


def model_of(name: str) -> PrototypeModel:
    torch.manual_seed(7)
    return PrototypeModel(nn.Linear(3, DIM - 1, **EXACT), HEADS[name]())


def batch(step: int, rank: int) -> tuple[Tensor, Tensor]:
    """Other samples and other classes in each process: the first never has class 3, the second rarely class 0."""
    generator = torch.Generator().manual_seed(100 * step + rank)
    labels = torch.arange(ROWS) % 3 if rank == 0 else 1 + torch.arange(ROWS) % 3 if step else torch.arange(ROWS) % 4
    centres = torch.randn(CLASSES, 3, generator=torch.Generator().manual_seed(1), **EXACT)
    return 2 * centres[labels] + torch.randn(ROWS, 3, generator=generator, **EXACT), labels


def train(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> None:
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for x, labels in batches:
        optimiser.zero_grad()
        cross_entropy(model(x, labels=labels), labels).backward()
        optimiser.step()


def work(rank: int, meeting: str, folder: str) -> None:
    """What each process does: train every model on its own batches and write down what became of it."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=meeting, rank=rank, world_size=WORLD, timeout=datetime.timedelta(seconds=SECONDS // 2)
    )
    for name in HEADS:
        model = model_of(name)
        train(DistributedDataParallel(model), [batch(step, rank) for step in range(STEPS)])
        torch.save(model.state_dict(), Path(folder) / f"{name} {rank}.pt")
    torch.distributed.barrier()  # neither hangs up while the other still talks
    torch.distributed.destroy_process_group()
    os._exit(0)  # all is written; on a busy machine torch's own threads may abort a process that is taken apart


def launch(function: Callable[..., None], *arguments: str) -> None:
    """Run a function in two processes; an error in one is an error here, and so is taking too long."""
    context = torch.multiprocessing.start_processes(
        function, arguments, nprocs=WORLD, join=False, start_method="forkserver"
    )
    end = time.monotonic() + SECONDS
    try:
        while not context.join(timeout=1):  # raises what a process raised
            if time.monotonic() > end:
                pytest.fail(f"two processes weren't done after {SECONDS} s")
    finally:
        for process in context.processes:
            if process.is_alive():
                process.kill()
            process.join()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with every model's state after training in two processes."""
    folder = tmp_path_factory.mktemp("distributed")
    launch(work, f"file://{folder / 'meeting'}", str(folder))
    return folder


def fail_in_one(rank: int, meeting: str) -> None:
    """The second process raises while the first waits for it."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=WORLD)
    if rank == 1:
        raise KeyError("mine")
    torch.distributed.barrier()


@pytest.mark.parametrize("name", HEADS)
def test_two_processes_train_as_one_on_both_batches(name: str, results: Path) -> None:
    """Parameters, class means and prototypes, in both processes."""
    joined = []
    for step in range(STEPS):
        parts = [batch(step, rank) for rank in range(WORLD)]
        joined.append((torch.cat([x for x, _ in parts]), torch.cat([labels for _, labels in parts])))
    alone = model_of(name)
    start = {key: value.clone() for key, value in alone.state_dict().items()}
    train(alone, joined)
    wanted = alone.state_dict()
    moved = [key for key, value in wanted.items() if not torch.equal(value, start[key])]
    assert {"backbone.weight", "backbone.bias"} <= set(moved)
    assert ("head.means.sums" in moved) is ("prototypes" not in name)
    assert ("head.vectors" in moved) is ("ncm" not in name)
    for rank in range(WORLD):
        state = torch.load(results / f"{name} {rank}.pt", weights_only=True)
        assert state.keys() == wanted.keys()
        for key, value in wanted.items():
            torch.testing.assert_close(
                state[key], value, rtol=1e-6, atol=1e-9, msg=lambda text, key=key: f"{key}: {text}"
            )


def test_each_process_lacks_classes() -> None:
    """The batches are what the test above needs them to be."""
    seen = [{int(label) for step in range(STEPS) for label in batch(step, rank)[1]} for rank in range(WORLD)]
    assert seen == [{0, 1, 2}, {0, 1, 2, 3}]
    assert set(batch(1, 1)[1].tolist()) == {1, 2, 3}


def test_a_process_that_fails_fails_the_test(tmp_path: Path) -> None:
    with pytest.raises(torch.multiprocessing.ProcessRaisedException, match="mine"):
        launch(fail_in_one, f"file://{tmp_path / 'meeting'}")
