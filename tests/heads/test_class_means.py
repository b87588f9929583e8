"""Running class means: equal to the oracle, exact in any model, and untouched by a batch that is refused."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from heads.cases import as_layouts, assert_close, draw, labels_like, same_tensors, state
from tightframe import ClassStatistics
from tightframe.errors import DtypeError, LabelError, NonFiniteError, RangeError, ShapeError
from tightframe.heads import ClassMeans, CondensedMeans, DecayedMeans, OnlineMeans
from training_oracle import condensed_means, decayed_means, online_means

Batch = tuple[Tensor, Tensor]
K, D, EVERY, DECAY = 5, 3, 3, 0.7

TRACKERS: dict[str, Callable[[], ClassMeans]] = {
    "online": lambda: OnlineMeans(K, D),
    "condensed": lambda: CondensedMeans(K, D, every=EVERY),
    "decayed": lambda: DecayedMeans(K, D, decay=DECAY),
}
every_tracker = pytest.mark.parametrize("name", TRACKERS)


def batches(number: int = 8, offset: float = 3.0) -> list[Batch]:
    """Batches of 4, each without some classes; class 4 is never there and class 3 comes late."""
    result = []
    for step in range(number):
        labels = torch.tensor([0, step % 3, (step + 1) % 3, 3 if step > 4 else 0])
        result.append((draw(4, D, seed=step) + offset, labels))
    return result


def oracle(name: str, rows: list[Batch]) -> Tensor:
    pairs = [(z.double().numpy(), y.numpy()) for z, y in rows]
    if name == "online":
        return torch.from_numpy(online_means(pairs, K))
    if name == "condensed":
        return torch.from_numpy(condensed_means(pairs, K, EVERY))
    return torch.from_numpy(decayed_means(pairs, K, DECAY))


def assert_means(tracker: ClassMeans, wanted: Tensor) -> None:
    torch.testing.assert_close(tracker.means, wanted, rtol=1e-12, atol=1e-12, equal_nan=True)
    assert torch.equal(tracker.seen, ~wanted.isnan().any(1))


# ---------------------------------------------------------------------------------------------- what they hold


@every_tracker
def test_means_after_every_batch_are_the_oracles(name: str) -> None:
    """Also of classes that a batch lacks, and NaN for those that never came."""
    tracker, rows = TRACKERS[name](), batches()
    for step, (z, y) in enumerate(rows, start=1):
        returned = tracker.update(z, y)
        assert_means(tracker, oracle(name, rows[:step]))
        assert torch.equal(returned.isnan(), tracker.means.isnan())
        assert torch.equal(returned.nan_to_num(), tracker.means.nan_to_num())
    assert tracker.seen.tolist() == [True, True, True, True, False]


@every_tracker
def test_half_precision_batches_are_summed_exactly(name: str) -> None:
    """In float64 from the values as they come."""
    tracker = TRACKERS[name]()
    rows = [(z.to(torch.float16), y) for z, y in batches(offset=100.0)]
    for z, y in rows:
        tracker.update(z, y)
    assert tracker.means.dtype is torch.float64
    assert_means(tracker, oracle(name, rows))


@every_tracker
def test_every_layout_gives_the_same_means(name: str) -> None:
    rows, labels = draw(12, D), torch.arange(12) % K
    wanted = oracle(name, [(rows, labels)])
    for (features, _), y in zip(as_layouts(rows), labels_like(labels), strict=True):
        tracker = TRACKERS[name]()
        tracker.update(features, y)
        assert_means(tracker, wanted)


@every_tracker
@pytest.mark.parametrize("ignored", [-100, 255, 2])
def test_ignored_rows_leave_no_trace(name: str, ignored: int) -> None:
    """Whatever they hold, and also where the ignored label is a class's."""
    tracker, rows = TRACKERS[name](), batches()
    for z, y in rows:
        keep = y != ignored
        z, y = torch.cat([z, torch.full((1, D), math.nan)]), torch.cat([y, torch.tensor([ignored])])
        z[:-1][~keep] = math.inf
        tracker.update(z, y, ignore_index=ignored)
    assert_means(tracker, oracle(name, [(z[y != ignored], y[y != ignored]) for z, y in rows]))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_labels_of_any_integer_type(dtype: torch.dtype) -> None:
    z, y = batches()[0]
    tracker = OnlineMeans(K, D)
    tracker.update(z, y.to(dtype))
    assert_means(tracker, oracle("online", [(z, y)]))


def test_no_unsigned_label_is_taken_for_a_negative_ignore_index() -> None:
    """-100 is no uint8; 156, which has its bits, is a class like any other."""
    tracker = OnlineMeans(200, D)
    tracker.update(draw(2, D), torch.tensor([156, 3], dtype=torch.uint8))
    assert tracker.counts[156] == 1


@every_tracker
def test_a_batch_of_ignored_rows_changes_no_mean(name: str) -> None:
    tracker, rows = TRACKERS[name](), batches()[:2]
    for z, y in rows:
        tracker.update(z, y)
    before = tracker.means
    tracker.update(torch.full((2, D), math.nan), torch.full((2,), -100))
    torch.testing.assert_close(tracker.means, before, rtol=1e-15, atol=0, equal_nan=True)


def test_online_means_dont_depend_on_the_order() -> None:
    """Nor on how samples are split into batches."""
    rows = batches()
    z, y = torch.cat([z for z, _ in rows]), torch.cat([y for _, y in rows])
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(3))
    one, other = OnlineMeans(K, D), OnlineMeans(K, D)
    one.update(z, y)
    for part in order.split(5):
        other.update(z[part], y[part])
    torch.testing.assert_close(other.means, one.means, rtol=1e-13, atol=1e-13, equal_nan=True)
    assert torch.equal(other.counts, one.counts)


def test_online_means_respect_counts() -> None:
    """Every sample counts once, however large its batch: three zeros and then one four give one."""
    tracker = OnlineMeans(1, 1)
    tracker.update(torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64))
    tracker.update(torch.full((1, 1), 4.0), torch.zeros(1, dtype=torch.int64))
    assert tracker.means.item() == 1.0
    assert tracker.counts.item() == 4


def test_condensed_means_forget_counts() -> None:
    """After the third batch all samples of a class weigh as one: (0 + 4) / 2."""
    tracker = CondensedMeans(1, 1, every=3)
    for _ in range(3):
        tracker.update(torch.zeros(5, 1), torch.zeros(5, dtype=torch.int64))
    tracker.update(torch.full((1, 1), 4.0), torch.zeros(1, dtype=torch.int64))
    assert tracker.means.item() == 2.0


def test_decayed_means_forget_at_their_rate() -> None:
    """The first batch sets the mean, the next ones count a tenth each."""
    tracker, one = DecayedMeans(2, 1), torch.zeros(4, dtype=torch.int64)
    tracker.update(torch.full((4, 1), 10.0), one)
    tracker.update(torch.zeros(4, 1), one)
    assert tracker.means[0].item() == pytest.approx(9.0)
    assert tracker.means[1].isnan().all()


@every_tracker
def test_new_means_have_a_graph_and_kept_ones_have_none(name: str) -> None:
    """The gradient of what `update` returns is that of the batch's share, by finite differences."""
    start = TRACKERS[name]()
    for z, y in batches()[:4]:
        start.update(z, y)
    z, y = batches()[6]

    def call(embeddings: Tensor) -> Tensor:
        return copy.deepcopy(start).update(embeddings, y)[:4]

    assert torch.autograd.gradcheck(call, (z.clone().requires_grad_(),))
    start.update(z.clone().requires_grad_(), y)
    assert not any(value.requires_grad for value in state(start))
    assert not start.means.requires_grad


# ---------------------------------------------------------------------------------------------- in a model


@every_tracker
@pytest.mark.parametrize(
    "convert",
    [
        lambda model: model.half(),
        lambda model: model.to(torch.bfloat16),
        lambda model: model.to("cpu", torch.float16),
        lambda model: model.float(),
        lambda model: model.double(),
        lambda model: model.half().double(),
    ],
    ids=["half", "bfloat16", "device and dtype", "float", "double", "there and back"],
)
def test_a_models_dtype_is_not_the_means(name: str, convert: Callable[[nn.Module], nn.Module]) -> None:
    """State stays float64, bit for bit, and goes on working."""
    tracker, rows = TRACKERS[name](), batches()
    for z, y in rows[:4]:
        tracker.update(z, y)
    before = state(tracker)
    convert(nn.Sequential(nn.Linear(2, 2), tracker))
    assert same_tensors(state(tracker), before)
    for z, y in rows[4:]:
        tracker.update(z, y)
    assert_means(tracker, oracle(name, rows))


def test_a_models_device_is_the_means() -> None:
    model = nn.Sequential(OnlineMeans(K, D)).to("meta", torch.float16)
    assert {(value.device.type, value.dtype) for value in model.buffers()} == {("meta", torch.float64)}


@every_tracker
def test_state_dict_round_trip(name: str) -> None:
    """Another tracker goes on where the first was; the number of batches matters to condensed means."""
    one, other, rows = TRACKERS[name](), TRACKERS[name](), batches()
    for z, y in rows[:4]:
        one.update(z, y)
    other.load_state_dict(one.state_dict())
    assert same_tensors(state(other), state(one))
    for z, y in rows[4:]:
        other.update(z, y)
    assert_means(other, oracle(name, rows))
    assert_means(one, oracle(name, rows[:4]))


@every_tracker
def test_reset_forgets_all(name: str) -> None:
    tracker, rows = TRACKERS[name](), batches()
    for z, y in rows[:4]:
        tracker.update(z + 50, y)
    tracker.reset()
    assert same_tensors(state(tracker), state(TRACKERS[name]()))
    for z, y in rows:
        tracker.update(z, y)
    assert_means(tracker, oracle(name, rows))


@every_tracker
def test_set_takes_over_exact_means(name: str) -> None:
    """Of all classes that have samples; the others are not seen."""
    rows = batches()
    statistics = ClassStatistics.from_features(torch.cat([z for z, _ in rows]), torch.cat([y for _, y in rows]), K)
    tracker = TRACKERS[name]()
    tracker.update(draw(5, D, seed=40), torch.arange(5))
    tracker.set(statistics)
    assert_means(tracker, statistics.means)


def test_after_set_samples_weigh_as_many_as_they_were() -> None:
    """Online means go on exactly; decayed ones take the old mean as one batch."""
    rows = batches()
    z, y = torch.cat([z for z, _ in rows[:4]]), torch.cat([y for _, y in rows[:4]])
    online, decayed = OnlineMeans(K, D), DecayedMeans(K, D, decay=DECAY)
    for tracker in (online, decayed):
        tracker.set(ClassStatistics.from_features(z, y, K))
        for batch in rows[4:]:
            tracker.update(*batch)
    assert_means(online, oracle("online", rows))
    assert_means(decayed, oracle("decayed", [(z, y), *rows[4:]]))


@every_tracker
def test_set_keeps_no_tensor_of_the_statistics(name: str) -> None:
    z, y = draw(10, D), torch.arange(10) % K
    statistics = ClassStatistics.from_features(z, y, K)
    tracker = TRACKERS[name]()
    tracker.set(statistics)
    before = statistics.means.clone()
    tracker.sums.add_(1)
    tracker.counts.add_(1)
    assert torch.equal(statistics.means, before)


def test_repr_says_what_it_is() -> None:
    assert "5 classes, 3 features" in repr(OnlineMeans(K, D))
    assert "5 classes, 3 features, every=7" in repr(CondensedMeans(K, D, 7))
    assert "5 classes, 3 features, decay=0.5" in repr(DecayedMeans(K, D, 0.5))


def test_the_usual_periods() -> None:
    assert CondensedMeans(K, D).every == 100
    assert DecayedMeans(K, D).decay == 0.9


# ---------------------------------------------------------------------------------------------- errors

REFUSED: dict[str, tuple[Tensor, Tensor, type[Exception], str]] = {
    "label too large": (draw(2, D), torch.tensor([0, 5]), LabelError, r"\[0, 5\); got 5"),
    "negative label": (draw(2, D), torch.tensor([0, -1]), LabelError, r"\[0, 5\); got -1"),
    "labels of another length": (draw(2, D), torch.tensor([0, 1, 2]), ShapeError, r"\(2,\); got \(3,\)"),
    "labels with the features": (draw(2, 4, D), torch.zeros(2, dtype=torch.int64), ShapeError, r"\(2, 4\); got \(2,\)"),
    "labels that are floats": (draw(2, D), torch.tensor([0.0, 1.0]), DtypeError, "float32"),
    "another width": (draw(2, D + 1), torch.tensor([0, 1]), ShapeError, r"3 entries .*got shape \(2, 4\)"),
    "one vector": (draw(D), torch.tensor(0), ShapeError, r"got shape \(3,\)"),
    "integers": (torch.ones(2, D, dtype=torch.int64), torch.tensor([0, 1]), DtypeError, "int64"),
    "nan": (torch.tensor([[1, 1, 1], [1, math.nan, 1]]), torch.tensor([0, 1]), NonFiniteError, "row 1 .* column 1"),
    "infinity": (torch.tensor([[1, 1, math.inf]]), torch.tensor([0]), NonFiniteError, "row 0 holds inf in column 2"),
}


@every_tracker
@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_batch_leaves_the_state_bit_identical(name: str, case: str) -> None:
    """And the next batch is taken as if it hadn't been."""
    tracker, rows = TRACKERS[name](), batches()
    for z, y in rows[:2]:
        tracker.update(z, y)
    before = state(tracker)
    embeddings, labels, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        tracker.update(embeddings, labels)
    assert same_tensors(state(tracker), before)
    for z, y in rows[2:]:
        tracker.update(z, y)
    assert_means(tracker, oracle(name, rows))


@every_tracker
def test_set_refuses_statistics_of_another_shape(name: str) -> None:
    tracker = TRACKERS[name]()
    tracker.update(*batches()[0])
    before = state(tracker)
    with pytest.raises(ShapeError, match=r"\(5, 3\); got \(4, 3\)"):
        tracker.set(ClassStatistics.from_features(draw(8, D), torch.arange(8) % 4, 4))
    assert same_tensors(state(tracker), before)


@pytest.mark.parametrize("every", [0, -1])
def test_a_bad_period(every: int) -> None:
    with pytest.raises(RangeError, match=f"every must be at least 1; got {every}"):
        CondensedMeans(K, D, every)


@pytest.mark.parametrize("decay", [-0.1, 1.0, math.nan])
def test_a_bad_decay(decay: float) -> None:
    with pytest.raises(RangeError, match=f"decay .*got {decay}"):
        DecayedMeans(K, D, decay)


def test_no_decay_is_the_last_batch() -> None:
    tracker = DecayedMeans(2, 1, 0.0)
    for value in (3.0, 5.0):
        tracker.update(torch.full((2, 1), value), torch.arange(2))
    assert_close(tracker.means, torch.full((2, 1), 5.0), 1e-15)
