"""`NeuralCollapse` as a torchmetrics metric: values, batches, casts, states, collections, processes."""

import copy
import math
import pickle
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy
from torchmetrics.utilities.exceptions import TorchMetricsUserError

from integrations.processes import WORLD, launch, meet, part
from oracle import ORACLE, Sample
from tightframe import ClassStatistics, metrics
from tightframe.errors import ChoiceError, LabelError, MergeError, StateError
from tightframe.integrations.torchmetrics import NeuralCollapse
from tightframe.metrics import METRICS, Evidence

pytestmark = pytest.mark.integration

CLASSES, DIM = 4, 6
Batches = list[tuple[Tensor, Tensor]]
NAMES = ["nc1", "cdnv", "etf_error"]


def batches_of(seed: int = 0, sizes: tuple[int, ...] = (40, 700, 33)) -> Batches:
    """Batches of classes around means far from the origin; larger and smaller than what an accumulator holds back."""
    generator = torch.Generator().manual_seed(seed)
    means = 100 + torch.randn(CLASSES, DIM, generator=torch.Generator().manual_seed(99))
    batches = []
    for size in sizes:
        labels = torch.randint(CLASSES, (size,), generator=generator)
        batches.append((means[labels] + 0.3 * torch.randn(size, DIM, generator=generator), labels))
    return batches


def joined(batches: Batches) -> ClassStatistics:
    features, labels = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
    return ClassStatistics.from_features(features.double(), labels, CLASSES, per_class=True)


def expected(batches: Batches, names: list[str] = NAMES) -> dict[str, Tensor]:
    return {name: getattr(metrics, name)(joined(batches)) for name in names}


def fed(batches: Batches, names: list[str] | None = NAMES, **options: object) -> NeuralCollapse:
    metric = NeuralCollapse(CLASSES, DIM, names, **options)  # type: ignore[arg-type]
    for features, labels in batches:
        metric.update(features, labels)
    return metric


def assert_same(values: dict[str, Tensor], others: dict[str, Tensor], rtol: float = 1e-6) -> None:
    assert list(values) == list(others)
    for name, value in values.items():
        assert value.dtype is torch.float64 and value.ndim == 0
        assert_close(value, others[name], rtol=rtol, atol=0, msg=lambda text, name=name: f"{name}: {text}")


def assert_identical(values: dict[str, Tensor], others: dict[str, Tensor]) -> None:
    assert_same(values, others, rtol=0)


def test_values_are_those_of_all_samples() -> None:
    batches = batches_of()
    values = fed(batches).compute()
    assert_same(values, expected(batches))
    features, labels = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
    sample = Sample(features.double().numpy(), labels.numpy(), CLASSES)
    assert {name: float(value) for name, value in values.items()} == pytest.approx(
        {name: ORACLE[name](sample) for name in NAMES}, rel=1e-6
    )


def test_default_names_are_the_headline_ones_of_statistics() -> None:
    statistics = joined(batches_of())
    wanted = [n for n, m in METRICS.items() if m.headline and m.available(Evidence(statistics))]
    metric = fed(batches_of(), None)
    assert metric.metrics == wanted
    assert_same(metric.compute(), expected(batches_of(), wanted))
    assert "vci" in wanted and "vci" not in fed(batches_of(), None, covariance=False).metrics


def test_per_class_scatter_layout_and_ignored_labels_are_the_accumulators() -> None:
    features, labels = batches_of()[0]
    images = features.reshape(5, 8, DIM).movedim(-1, 1).contiguous()  # (N, D, L)
    metric = NeuralCollapse(CLASSES, DIM, ["directional_cdnv"], per_class=True, class_dim=1, ignore_index=-1)
    marked = labels.clone()
    marked[3] = -1
    metric.update(images, marked.reshape(5, 8))
    kept = marked != -1
    assert_same(metric.compute(), expected([(features[kept], labels[kept])], ["directional_cdnv"]))


@pytest.mark.parametrize("name", ["nonsense", "self_duality_error", "directional_cdnv", "ncc_mismatch"])
def test_names_that_statistics_dont_allow_are_refused(name: str) -> None:
    with pytest.raises(ChoiceError, match=f"metrics? must be .*; got '{name}'"):
        NeuralCollapse(CLASSES, DIM, ["nc1", name])


def test_bad_labels_are_named() -> None:
    metric = fed(batches_of())
    before = metric.compute()
    with pytest.raises(LabelError, match=r"labels must lie in \[0, 4\); got 9"):
        metric.update(batches_of()[0][0], torch.full((40,), 9))
    assert_identical(metric.compute(), before)


def test_fewer_than_two_classes_are_undefined() -> None:
    metric = NeuralCollapse(CLASSES, DIM, NAMES)
    metric.update(torch.randn(5, DIM), torch.zeros(5, dtype=torch.int64))
    values = metric.compute()
    assert list(values) == NAMES and all(math.isnan(value) for value in values.values())


def test_forward_returns_the_batchs_values_and_adds_it() -> None:
    batches, metric = batches_of(), NeuralCollapse(CLASSES, DIM, NAMES)
    for batch in batches:
        assert_same(metric(*batch), expected([batch]))
    assert_identical(metric.compute(), fed(batches).compute())
    one_class = torch.randn(3, DIM), torch.ones(3, dtype=torch.int64)
    assert all(math.isnan(value) for value in metric(*one_class).values())
    assert_same(metric.compute(), expected([*batches, one_class]))


def test_results_are_kept_until_the_next_batch() -> None:
    metric = fed(batches_of())
    first = metric.compute()
    assert metric.compute() is first
    metric.update(*batches_of(1)[0])
    assert metric.compute() is not first


def test_reset_forgets() -> None:
    metric = fed(batches_of(5))
    metric.compute()
    metric.reset()
    for batch in batches_of():
        metric.update(*batch)
    assert_identical(metric.compute(), fed(batches_of()).compute())


@pytest.mark.parametrize(
    "cast",
    [
        lambda metric: metric.half(),
        lambda metric: metric.double(),
        lambda metric: metric.to(torch.bfloat16),
        lambda metric: metric.to("cpu", torch.float16),
        lambda metric: metric.set_dtype(torch.float16),
        lambda metric: nn.ModuleList([metric]).half()[0],
    ],
    ids=["half", "double", "to dtype", "to device and dtype", "set_dtype", "parent's half"],
)
def test_casts_leave_float64(cast: object) -> None:
    batches = batches_of()
    metric = fed(batches[:2])
    assert cast(metric) is metric  # type: ignore[operator]
    metric.update(*batches[2])
    assert_identical(metric.compute(), fed(batches).compute())


def test_moves_between_devices_take_the_state_along() -> None:
    metric = fed(batches_of()).to("meta")
    assert metric.device.type == "meta"
    assert {tensor.device.type for tensor in metric.accumulator.buffers()} == {"meta"}


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: m.clone(), lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_go_on_apart(copied: object) -> None:
    batches = batches_of()
    metric = fed(batches[:2])
    other = copied(metric)  # type: ignore[operator]
    other.update(*batches[2])
    assert_identical(metric.compute(), fed(batches[:2]).compute())
    assert_identical(other.compute(), fed(batches).compute())


class Model(nn.Module):
    """A model that has a metric, as Lightning modules do."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.collapse = NeuralCollapse(CLASSES, DIM, NAMES)


def test_the_state_is_in_a_state_dict_only_if_persistent() -> None:
    model = Model()
    plain = model.state_dict()
    assert set(plain) == {"linear.weight", "linear.bias"}
    model.load_state_dict(plain)
    model.collapse.persistent(True)
    assert {key.split(".")[0] for key in model.state_dict()} == {"linear", "collapse"}
    model.load_state_dict(plain)  # as torchmetrics: a state that isn't there isn't missed
    model.collapse.persistent(False)
    assert set(model.state_dict()) == set(plain)


@pytest.mark.parametrize("persistent", [True, False])
def test_a_saved_state_goes_on(tmp_path: Path, persistent: bool) -> None:
    batches, model, other = batches_of(), Model(), Model()
    other.collapse.persistent(persistent)  # the one that loads need not be
    model.collapse.persistent(True)
    for batch in batches[:2]:
        model.collapse.update(*batch)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    other.collapse.update(*batches_of(7)[1])
    other.collapse.compute()
    other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert_identical(other.collapse.compute(), fed(batches[:2]).compute())
    other.collapse.update(*batches[2])
    assert_identical(other.collapse.compute(), fed(batches).compute())


def test_a_state_of_another_kind_is_refused() -> None:
    metric = fed(batches_of())
    metric.persistent(True)
    with pytest.raises(StateError, match="build it with the same num_classes"):
        NeuralCollapse(CLASSES + 1, DIM).load_state_dict(metric.state_dict())


def test_states_merge() -> None:
    batches = batches_of()
    metric, other = fed(batches[:1]), fed(batches[1:])
    metric.compute()
    metric.merge_state(other)
    assert_same(metric.compute(), expected(batches))
    assert_same(other.compute(), expected(batches[1:]))
    with pytest.raises(MergeError, match="same num_classes to be merged; got 4 and 3"):
        metric.merge_state(NeuralCollapse(3, DIM))
    with pytest.raises(StateError, match="incoming_state must be a NeuralCollapse"):
        metric.merge_state(MulticlassAccuracy(num_classes=CLASSES))


class Means(Metric):
    """A plain metric of the same arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, features: Tensor, labels: Tensor) -> None:
        self.total += features.sum()

    def compute(self) -> Tensor:
        return self.total


def test_a_collection_flattens_the_values_and_names_them_apart() -> None:
    batches = batches_of()
    collection = MetricCollection(
        {"a": NeuralCollapse(CLASSES, DIM, ["nc1", "cdnv"]), "b": NeuralCollapse(CLASSES, DIM, ["vci"]), "m": Means()},
        prefix="train/",
    )
    for batch in batches:
        values = collection(*batch)
        assert_same({"nc1": values["train/nc1"]}, expected([batch], ["nc1"]))
    values = collection.compute()
    assert set(values) == {"train/nc1", "train/cdnv", "train/vci", "train/m"}
    wanted = expected(batches, ["nc1", "cdnv", "vci"])
    assert_same({name: values[f"train/{name}"] for name in wanted}, wanted)
    assert values["train/m"] == pytest.approx(float(sum(x.sum() for x, _ in batches)), rel=1e-5)
    collection.reset()
    collection.update(*batches[0])
    assert_same({"vci": collection.compute()["train/vci"]}, expected(batches[:1], ["vci"]))


def test_equal_metrics_of_a_collection_stay_right_in_compute_groups() -> None:
    batches = batches_of()
    collection = MetricCollection({name: NeuralCollapse(CLASSES, DIM, [name]) for name in NAMES}, compute_groups=True)
    for batch in batches:
        collection.update(*batch)
    assert_same(dict(sorted(collection.compute().items())), dict(sorted(expected(batches).items())))
    copied = collection.clone(prefix="copy/")
    assert set(copied.compute()) == {f"copy/{name}" for name in NAMES}


def test_forward_is_refused_while_synced() -> None:
    metric = fed(batches_of(), distributed_available_fn=lambda: True)
    metric.sync()
    with pytest.raises(TorchMetricsUserError, match=r"call unsync\(\) before forward"):
        metric(*batches_of()[0])
    with pytest.raises(TorchMetricsUserError, match="already been synced"):
        metric.sync()
    metric.unsync()
    with pytest.raises(TorchMetricsUserError, match="already been un-synced"):
        metric.unsync()
    metric(*batches_of()[0])


# ---------------------------------------------------------------------- two processes


def share(rank: int) -> Batches:
    """The batches of a process, in float64: of other sizes, and without class 3 in the first."""
    batches = batches_of(rank + 10, ((30, 600), (200, 10, 1))[rank])
    return [(x[(y != 3) | (rank > 0)].double(), y[(y != 3) | (rank > 0)]) for x, y in batches]


def work(rank: int, folder: str) -> None:
    """What each process does: compute together and alone, and write down what came out."""
    meet(rank, folder)
    mine, metric = share(rank), NeuralCollapse(CLASSES, DIM, NAMES)
    alone = NeuralCollapse(CLASSES, DIM, NAMES, sync_on_compute=False)
    stepping = NeuralCollapse(CLASSES, DIM, NAMES, dist_sync_on_step=True)
    for batch in mine:
        metric.update(*batch)
        alone.update(*batch)
    found = {"together": metric.compute(), "alone": alone.compute(), "step": stepping(*mine[0])}
    found["local again"] = copy.deepcopy(metric.accumulator.state_dict())
    found["never shared"] = copy.deepcopy(alone.accumulator.state_dict())
    metric.sync()
    found["by hand"] = metric.compute()
    metric.unsync()
    metric.update(*batches_of(rank + 20)[0])
    found["later"] = metric.compute()
    collection = MetricCollection([NeuralCollapse(CLASSES, DIM, NAMES)])
    if rank == 0:
        collection.update(*mine[0])
    else:
        warnings.filterwarnings("ignore", ".*called before the ``update`` method")  # it has no samples
    found["collection"] = collection.compute()
    broken = fed(mine)
    if rank == 1:
        broken.accumulator.update(mine[0][0], torch.full((200,), 9), validate=False)  # as on a GPU: noticed later
    try:
        broken.compute()
    except (LabelError, MergeError) as error:
        found["failure"] = {type(error).__name__: torch.tensor(broken._is_synced)}
    torch.save(found, Path(folder) / f"{rank}.pt")
    part()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Tensor]]]:
    folder = tmp_path_factory.mktemp("processes")
    launch(work, folder, "torchmetrics", "tightframe.metrics")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


@pytest.mark.parametrize("how", ["together", "by hand", "later", "step", "collection"])
def test_two_processes_give_the_values_of_one(how: str, found: list[dict[str, dict[str, Tensor]]]) -> None:
    batches = [batch for rank in range(WORLD) for batch in share(rank)]
    if how == "later":
        batches += [batches_of(rank + 20)[0] for rank in range(WORLD)]
    if how == "step":
        batches = [share(rank)[0] for rank in range(WORLD)]
    if how == "collection":
        batches = [share(0)[0]]
    for rank in range(WORLD):
        values = {name: found[rank][how][name] for name in NAMES}
        assert_same(values, fed(batches).compute(), rtol=1e-12)
        assert_identical(values, {name: found[0][how][name] for name in NAMES})


def test_a_process_with_bad_samples_fails_all_at_once(found: list[dict[str, dict[str, Tensor]]]) -> None:
    assert [failed["failure"] for failed in found] == [{"MergeError": False}, {"LabelError": False}]


def test_without_synchronisation_each_has_its_own(found: list[dict[str, dict[str, Tensor]]]) -> None:
    for rank in range(WORLD):
        assert_identical(found[rank]["alone"], fed(share(rank)).compute())
        assert_close(found[rank]["local again"], found[rank]["never shared"], rtol=0, atol=0)
    assert found[0]["alone"]["nc1"] != found[1]["alone"]["nc1"]
