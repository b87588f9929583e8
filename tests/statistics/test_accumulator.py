"""`StatisticsAccumulator`: bad input, saved states, casts, contexts and layouts."""

import copy
import io
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from laws.scenarios import assert_fields_close, assert_fields_equal
from tightframe import ClassStatistics, StatisticsAccumulator
from tightframe.errors import (
    DtypeError,
    EmptyBatchError,
    LabelError,
    MergeError,
    NonFiniteError,
    ShapeError,
    StateError,
    TightframeError,
)

K, D = 4, 3
DTYPES = [torch.float32, torch.float64]
Picture = Callable[[StatisticsAccumulator], object]


def rows(number: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Classes 0, 2 and 3, a thousand widths away from the origin."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor([0, 2, 3])[torch.randint(0, 3, (number,), generator=generator)]
    noise = torch.randn(number, D, generator=generator, dtype=torch.float64)
    return (100 + labels[:, None] + 0.1 * noise).to(dtype), labels


def stream(dtype: torch.dtype = torch.float32) -> list[tuple[Tensor, Tensor]]:
    """Batches that wait, that don't, that push waiting rows out, and more than one flush of products."""
    sizes = (5, 600, 1, 300, 300, 5000, 20, 512, 511, 40, 1500, 1500, 1500, 1500, 1500)
    return [rows(size, dtype, seed) for seed, size in enumerate(sizes)]


def fed(batches: list[tuple[Tensor, Tensor]], **options: Any) -> StatisticsAccumulator:
    validate = options.pop("validate", None)
    accumulator = StatisticsAccumulator(K, D, **options)
    for features, labels in batches:
        accumulator.update(features, labels, validate=validate)
    return accumulator


def with_value(value: float, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    features, labels = rows(6, dtype)
    features[2, 1] = value
    return features, labels


def with_label(label: int, times: int) -> tuple[Tensor, Tensor]:
    features, labels = rows(6)
    labels[:times] = label
    return features, labels


# ---------------------------------------------------------------------- bad input

BAD_VALUES: dict[str, tuple[tuple[Tensor, Tensor], type[TightframeError], str]] = {
    "label too large": (with_label(7, 2), LabelError, r"\[0, 4\); got 7 \(2 rows\).*ignore_index=7"),
    "label K": (with_label(4, 1), LabelError, r"\[0, 4\); got 4 \(1 row\)"),
    "label -1": (with_label(-1, 1), LabelError, r"got -1 \(1 row\)"),
    "label -100": (with_label(-100, 3), LabelError, r"got -100 \(3 rows\).*ignore_index=-100"),
    "NaN": (with_value(float("nan")), NonFiniteError, r"row 2 holds nan in column 1 \(1 of 6 rows"),
    "infinity": (with_value(float("inf")), NonFiniteError, r"row 2 holds inf in column 1"),
    "-infinity": (with_value(float("-inf")), NonFiniteError, r"row 2 holds -inf in column 1"),
    "NaN in float64": (with_value(float("nan"), torch.float64), NonFiniteError, r"row 2 holds nan in column 1"),
    "1e200": (with_value(1e200, torch.float64), NonFiniteError, r"at most 1e\+140.*row 2 holds 1e\+200 in column 1"),
    "long batch": (
        (torch.cat([rows(900)[0], torch.full((1, D), torch.nan)]), torch.zeros(901, dtype=torch.int64)),
        NonFiniteError,
        r"row 900 holds nan in column 0 \(1 of 901 rows",
    ),
}
BAD_FORMS: dict[str, tuple[tuple[Tensor, Tensor], type[TightframeError], str]] = {
    "integer features": ((torch.ones(6, D).long(), rows(6)[1]), DtypeError, r"torch.int64.*\.float\(\)"),
    "complex features": ((torch.ones(6, D) * 1j, rows(6)[1]), DtypeError, "torch.complex64"),
    "bool labels": ((rows(6)[0], torch.ones(6).bool()), DtypeError, "torch.bool"),
    "float labels": ((rows(6)[0], torch.ones(6)), DtypeError, "torch.float32"),
    "too many features": ((torch.ones(6, 5), rows(6)[1]), ShapeError, "must have 3 entries.*got 5"),
    "too few labels": ((torch.ones(6, D), rows(5)[1]), ShapeError, r"\(6,\); got \(5,\)"),
    "labels as a column": ((torch.ones(6, D), rows(6)[1][:, None]), ShapeError, r"got \(6, 1\)"),
    "one dimension": ((torch.ones(D), torch.tensor(0)), ShapeError, r"got shape \(3,\)"),
    "no rows": ((torch.ones(0, D), torch.ones(0).long()), EmptyBatchError, r"\(0, 3\)"),
    "no tokens": ((torch.ones(2, 0, D), torch.ones(2, 0).long()), EmptyBatchError, r"\(2, 0, 3\)"),
}
BEFORE = {
    "nothing": [],
    "waiting rows": [rows(5, seed=1), rows(7, seed=2)],
    "pending products": [rows(700, seed=3)],
    "both": [rows(700, seed=3), rows(5, seed=1)],
    "both in float64": [rows(700, torch.float64, seed=3), rows(5, torch.float64, seed=1)],
}


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("bad", [*BAD_VALUES, *BAD_FORMS])
def test_a_bad_batch_is_named_and_changes_nothing(before: str, bad: str, picture: Picture) -> None:
    (features, labels), error, message = (BAD_VALUES | BAD_FORMS)[bad]
    accumulator, untouched = (fed(BEFORE[before], per_class=True) for _ in range(2))
    state = picture(accumulator)
    with pytest.raises(error, match=message):
        accumulator.update(features, labels)
    assert picture(accumulator) == state
    for batch in stream():
        accumulator.update(*batch)
        untouched.update(*batch)
    assert_fields_equal(accumulator.compute(), untouched.compute())


@pytest.mark.parametrize("bad", [*BAD_VALUES, *BAD_FORMS])
def test_values_from_features_reject_the_same_batches(bad: str) -> None:
    (features, labels), error, message = (BAD_VALUES | BAD_FORMS)[bad]
    if bad == "too many features":
        return  # nothing says how many there should be
    with pytest.raises(error, match=message):
        ClassStatistics.from_features(features, labels, K)


@pytest.mark.parametrize("bad", BAD_FORMS)
def test_a_bad_form_is_refused_without_validation_too(bad: str, picture: Picture) -> None:
    (features, labels), error, message = BAD_FORMS[bad]
    accumulator = fed(BEFORE["both"])
    state = picture(accumulator)
    with pytest.raises(error, match=message):
        accumulator.update(features, labels, validate=False)
    assert picture(accumulator) == state


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("bad", BAD_VALUES)
def test_an_unvalidated_bad_batch_is_masked_out(before: str, bad: str) -> None:
    """Whatever came before and comes after, all sums are those of the good batches."""
    accumulator = fed(BEFORE[before], per_class=True)
    (features, labels), _, _ = BAD_VALUES[bad]
    accumulator.update(features, labels, validate=False)
    assert accumulator.intake.rejected.tolist()[1] == 1
    accumulator.intake.rejected.zero_()  # or else nothing could be read
    assert_fields_close(accumulator.compute(), fed(BEFORE[before], per_class=True).compute(), 1e-6)
    good = stream(torch.float64)
    for batch in good:
        accumulator.update(*batch, validate=False)
    expected = fed([*BEFORE[before], *good], per_class=True).compute()
    assert_fields_close(accumulator.compute(), expected, 1e-5 if before != "both in float64" else 1e-10)


@pytest.mark.parametrize("bad", BAD_VALUES)
def test_an_unvalidated_bad_batch_is_reported(bad: str, picture: Picture) -> None:
    (features, labels), error, _ = BAD_VALUES[bad]
    accumulator = fed(stream()[:3], validate=False)
    accumulator.update(features, labels, validate=False)
    accumulator.update(*rows(6), validate=False)
    accumulator.update(features, labels, validate=False)
    state = picture(accumulator)
    for report in (
        accumulator.compute,
        accumulator.state_dict,
        lambda: accumulator.update(*rows(6)),
        lambda: accumulator.update(*rows(6), validate=True),
        lambda: nn.ModuleList([accumulator]).state_dict(),
        lambda: StatisticsAccumulator(K, D).merge(accumulator),
    ):
        with pytest.raises(error, match=r"^2 unvalidated batch\(es\) were left out.*reset\(\)"):
            report()
        assert picture(accumulator) == state
    accumulator.reset()
    for batch in stream():
        accumulator.update(*batch)
    assert_fields_equal(accumulator.compute(), fed(stream()).compute())


def test_the_first_reason_is_reported() -> None:
    accumulator = StatisticsAccumulator(K, D)
    accumulator.update(*with_label(9, 1), validate=False)
    accumulator.update(*with_value(float("nan")), validate=False)
    with pytest.raises(LabelError, match=r"2 unvalidated.*label outside \[0, 4\)"):
        accumulator.compute()


@pytest.mark.parametrize("options", [{"num_classes": K + 1}, {"num_features": D + 1}])
def test_merging_other_shapes_is_refused(options: dict[str, int], picture: Picture) -> None:
    accumulator = fed(stream())
    state = picture(accumulator)
    with pytest.raises(MergeError, match="must have the same"):
        accumulator.merge(StatisticsAccumulator(**({"num_classes": K, "num_features": D} | options)))
    assert picture(accumulator) == state


@pytest.mark.parametrize("options", [{"covariance": False}, {"per_class": True}])
def test_merging_other_kinds_of_scatter_is_refused(options: dict[str, bool], picture: Picture) -> None:
    accumulator = fed(stream())
    state = picture(accumulator)
    with pytest.raises(MergeError, match=r"must have the same (covariance|per_class) to be merged"):
        accumulator.merge(StatisticsAccumulator(K, D, **options))
    assert picture(accumulator) == state


# ---------------------------------------------------------------------- reading and resetting


@pytest.mark.parametrize("validate", [True, False])
def test_reading_changes_nothing(validate: bool, picture: Picture) -> None:
    """The rows that wait are added then, and nothing else."""
    accumulator = fed(stream(), validate=validate)
    value = accumulator.compute()
    state = picture(accumulator)
    assert_fields_equal(accumulator.compute(), value)
    accumulator.state_dict()
    assert picture(accumulator) == state
    accumulator.update(*rows(3000))
    expected = fed([*stream(), rows(3000)], validate=validate).compute()
    assert_fields_close(accumulator.compute(), expected, 1e-6)


def test_a_value_does_not_follow_its_accumulator() -> None:
    accumulator = fed(stream()[:3])
    value = accumulator.compute()
    expected = fed(stream()[:3]).compute()
    accumulator.update(*rows(3000))
    assert_fields_equal(value, expected)


def test_reset_forgets_everything(picture: Picture) -> None:
    accumulator = fed(stream(torch.float64), per_class=True)
    accumulator.reset()
    assert picture(accumulator) == picture(StatisticsAccumulator(K, D, per_class=True))


def test_without_any_rows_the_value_is_the_empty_one() -> None:
    assert_fields_equal(
        StatisticsAccumulator(K, D, per_class=True).compute(), ClassStatistics.empty(K, D, per_class=True)
    )


def test_forward_is_update() -> None:
    accumulator = StatisticsAccumulator(K, D)
    for batch in stream():
        accumulator(*batch)
    assert_fields_equal(accumulator.compute(), fed(stream()).compute())


def test_features_are_detached_and_not_kept() -> None:
    features, labels = rows(5)
    expected = fed([(features.clone(), labels.clone())]).compute()
    features.requires_grad_()
    accumulator = fed([(features, labels)])
    with torch.no_grad():
        features.zero_()
    labels.zero_()
    assert_fields_equal(accumulator.compute(), expected)
    assert not accumulator.compute().means.requires_grad


def test_scatter_is_kept_only_where_asked_for() -> None:
    value = fed(stream(), covariance=False).compute()
    assert value.within is None
    assert value.class_within is None
    assert_fields_close(value, ClassStatistics(value.counts, *full_fields(stream())[1:3]), 1e-5)


def full_fields(batches: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    features, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    value = ClassStatistics.from_features(features, labels, K)
    return value.counts, value.means, value.spread


@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("width", [127, 128, 129, 300])
@pytest.mark.parametrize("dtype", DTYPES)
def test_wide_features(dtype: torch.dtype, width: int, per_class: bool) -> None:
    """Products of float32 rows are taken in bands of columns, of which only the upper ones are kept."""
    features, labels = (10 + torch.randn(1700, width, dtype=torch.float64)).to(dtype), torch.arange(1700) % 2
    accumulator = StatisticsAccumulator(2, width, per_class=per_class)
    for start in range(0, 1700, 600):
        accumulator.update(features[start : start + 600], labels[start : start + 600])
    expected = ClassStatistics.from_features(features, labels, 2, per_class=per_class)
    assert_fields_close(accumulator.compute(), expected, 1e-10 if dtype is torch.float64 else 1e-5)


# ---------------------------------------------------------------------- saved states


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file)


@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("after", range(16))
@pytest.mark.parametrize("dtype", DTYPES)
def test_resuming_from_a_saved_state_is_exact(dtype: torch.dtype, after: int, per_class: bool, validate: bool) -> None:
    batches = stream(dtype)
    saved = fed(batches[:after], per_class=per_class, validate=validate).state_dict()
    resumed = StatisticsAccumulator(K, D, per_class=per_class)
    resumed.load_state_dict(through_a_file(saved))
    for batch in batches[after:]:
        resumed.update(*batch, validate=validate)
    uninterrupted = fed(batches, per_class=per_class, validate=validate)
    for name in ("counts", "means", "spread", "within", "class_within"):
        ours, theirs = (getattr(member.compute(), name) for member in (resumed, uninterrupted))
        assert (ours is None and theirs is None) or torch.equal(ours.nan_to_num(), theirs.nan_to_num()), name


@pytest.mark.parametrize("used", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_resuming_in_a_used_accumulator_is_exact(dtype: torch.dtype, used: torch.dtype) -> None:
    resumed = fed(stream(used)[:5])
    resumed.load_state_dict(through_a_file(fed(stream(dtype)[:4]).state_dict()))
    for batch in stream(dtype)[4:]:
        resumed.update(*batch)
    assert_fields_equal(resumed.compute(), fed(stream(dtype)).compute())


@pytest.mark.parametrize("validate", [True, False])
def test_a_loaded_state_forgets_which_classes_were_seen(validate: bool) -> None:
    """An accumulator that knew every class takes over a state that knows none: classes are anchored anew."""
    features = 1e4 + torch.randn(2000, D)
    labels = torch.arange(2000) % K
    resumed = fed([(features, labels)])
    resumed.load_state_dict(StatisticsAccumulator(K, D).state_dict())
    resumed.update(-features, labels, validate=validate)
    assert_fields_equal(resumed.compute(), fed([(-features, labels)], validate=validate).compute())


def test_a_state_taken_earlier_is_a_copy_once_saved() -> None:
    accumulator = fed(stream()[:4])
    saved = through_a_file(accumulator.state_dict())
    accumulator.update(*rows(5000))
    accumulator.load_state_dict(saved)
    assert_fields_equal(accumulator.compute(), fed(stream()[:4]).compute())


class Owner(nn.Module):
    """A model that measures itself."""

    def __init__(self, batches: list[tuple[Tensor, Tensor]]):
        super().__init__()
        self.layer = nn.Linear(D, D)
        self.accumulator = fed(batches)


def test_the_owner_saves_and_restores_it(picture: Picture) -> None:
    owner, other = Owner(stream()[:8]), Owner([])
    other.load_state_dict(through_a_file(owner.state_dict()))
    assert picture(other.accumulator) == picture(owner.accumulator)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"num_classes": K + 1}, r"counts is \(4,\), this one's \(5,\)"),
        ({"num_features": D + 1}, r"anchors is \(4, 3\), this one's \(4, 4\)"),
        ({"covariance": False}, r"product is \(1, 3, 3\), this one's absent"),
        ({"per_class": True}, r"product is \(1, 3, 3\), this one's \(4, 3, 3\)"),
    ],
)
def test_a_state_of_another_shape_is_refused(options: dict[str, int], name: str, picture: Picture) -> None:
    state = fed(stream()).state_dict()
    target = StatisticsAccumulator(**({"num_classes": K, "num_features": D} | options))
    width = target.num_features
    target.update(torch.ones(700, width), torch.zeros(700, dtype=torch.int64))
    before = picture(target)
    with pytest.raises(StateError, match=name):
        target.load_state_dict(state)
    assert picture(target) == before


@pytest.mark.parametrize("missing", ["whole.counts", "intake.waiting", "whole.anchors"])
def test_an_incomplete_state_is_refused(missing: str, picture: Picture) -> None:
    state = fed(stream()).state_dict()
    del state[missing]
    target = fed(stream()[:2])
    before = picture(target)
    with pytest.raises(StateError, match=f"{missing.split(chr(46))[1]} is absent"):
        target.load_state_dict(state)
    assert picture(target) == before


# ---------------------------------------------------------------------- casts, copies


@pytest.mark.parametrize(
    "cast",
    [
        lambda module: module.half(),
        lambda module: module.bfloat16(),
        lambda module: module.float(),
        lambda module: module.double(),
        lambda module: module.to(torch.float32),
        lambda module: module.to("cpu", torch.float16),
        lambda module: module.to(memory_format=torch.channels_last),
    ],
    ids=["half", "bfloat16", "float", "double", "to float32", "to cpu float16", "to channels last"],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_casting_the_owner_changes_nothing(dtype: torch.dtype, cast: Callable, picture: Picture) -> None:
    owner = Owner(stream(dtype))
    state = picture(owner.accumulator)
    cast(owner)
    assert picture(owner.accumulator) == state
    owner.accumulator.update(*rows(800, dtype))
    assert_fields_equal(owner.accumulator.compute(), fed([*stream(dtype), rows(800, dtype)]).compute())


@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a))], ids=["deepcopy", "pickle"]
)
def test_a_copy_goes_its_own_way(duplicate: Callable, validate: bool, picture: Picture) -> None:
    batches = stream()
    original = fed(batches[:4], validate=validate)
    state = picture(original)
    twin = duplicate(original)
    for batch in batches[4:]:
        twin.update(*batch, validate=validate)
    assert picture(original) == state
    assert_fields_equal(twin.compute(), fed(batches, validate=validate).compute())


# ---------------------------------------------------------------------- surroundings


@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("created_inside", [False, True])
def test_inference_mode_changes_nothing(created_inside: bool, dtype: torch.dtype, validate: bool) -> None:
    expected = fed(stream(dtype), validate=validate).compute()
    with torch.inference_mode(created_inside):
        accumulator = StatisticsAccumulator(K, D)
    with torch.inference_mode():
        for features, labels in stream(dtype)[:5]:
            accumulator.update(features.clone(), labels.clone(), validate=validate)  # inference tensors
        inside = accumulator.compute()
    for features, labels in stream(dtype)[5:]:
        accumulator.update(features, labels, validate=validate)
    assert_fields_close(accumulator.compute(), expected, 1e-6 if dtype is torch.float32 else 1e-12)
    weight = torch.ones(K, D, dtype=torch.float64, requires_grad=True)
    (inside.means.nan_to_num() * weight).sum().backward()  # an inference tensor would refuse
    assert weight.grad is not None


def test_loading_in_inference_mode_leaves_a_usable_accumulator() -> None:
    saved = through_a_file(fed(stream(torch.float64)[:4]).state_dict())
    accumulator = StatisticsAccumulator(K, D)
    with torch.inference_mode():
        accumulator.load_state_dict(saved)
    for batch in stream(torch.float64)[4:]:
        accumulator.update(*batch)
    assert_fields_equal(accumulator.compute(), fed(stream(torch.float64)).compute())


@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_autocast_changes_nothing(dtype: torch.dtype, validate: bool) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        inside = fed(stream(dtype), validate=validate, per_class=True).compute()
        assert torch.is_autocast_enabled("cpu")
        assert torch.mm(torch.ones(2, 2), torch.ones(2, 2)).dtype is torch.bfloat16
    assert_fields_equal(inside, fed(stream(dtype), validate=validate, per_class=True).compute())


def test_autocast_does_not_touch_values_from_features() -> None:
    features, labels = (torch.cat(parts) for parts in zip(*stream(), strict=True))
    with torch.autocast("cpu", torch.bfloat16):
        inside = ClassStatistics.from_features(features, labels, K, per_class=True)
    assert_fields_equal(inside, ClassStatistics.from_features(features, labels, K, per_class=True))


@pytest.fixture(params=["medium", "high"])
def fast_products(request: pytest.FixtureRequest) -> Iterator[str]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(request.param)
    yield request.param
    torch.set_float32_matmul_precision(before)


def test_fast_float32_products_are_switched_off_and_on_again(fast_products: str) -> None:
    settings = torch.backends.mkldnn.matmul.fp32_precision, torch.backends.cuda.matmul.fp32_precision
    value = fed(stream(), per_class=True).compute()
    assert torch.get_float32_matmul_precision() == fast_products
    assert settings == (torch.backends.mkldnn.matmul.fp32_precision, torch.backends.cuda.matmul.fp32_precision)
    torch.set_float32_matmul_precision("highest")
    assert_fields_equal(value, fed(stream(), per_class=True).compute())


def test_gradient_mode_is_left_as_it_was() -> None:
    fed(stream())
    assert torch.is_grad_enabled()
    with torch.no_grad():
        fed(stream())
        assert not torch.is_grad_enabled()


# ---------------------------------------------------------------------- layouts and dtypes


def test_tokens_are_rows() -> None:
    features, labels = rows(12)
    assert_fields_equal(
        fed([(features.reshape(3, 4, D), labels.reshape(3, 4))]).compute(), fed([(features, labels)]).compute()
    )


@pytest.mark.parametrize("size", [12, 600])
def test_pixels_are_rows(size: int) -> None:
    features, labels = rows(size)
    maps = features.reshape(3, size // 12, 4, D).permute(0, 3, 1, 2)
    flat = fed([(features, labels)]).compute()
    assert maps.shape == (3, D, size // 12, 4)
    grid = labels.reshape(3, size // 12, 4)
    for class_dim in (1, -3):
        assert_fields_equal(fed([(maps, grid)], class_dim=class_dim).compute(), flat)
        assert_fields_equal(
            ClassStatistics.from_features(maps, grid, K, class_dim=class_dim),
            ClassStatistics.from_features(features, labels, K),
        )


@pytest.mark.parametrize("class_dim", [4, -5])
def test_a_class_dim_that_is_not_there_is_refused(class_dim: int) -> None:
    with pytest.raises(ShapeError, match=f"class_dim={class_dim}"):
        fed([(torch.ones(2, D, 4, 4), torch.zeros(2, 4, 4).long())], class_dim=class_dim)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("size", [40, 3000])
def test_features_of_any_float_dtype(dtype: torch.dtype, size: int) -> None:
    features, labels = rows(size, torch.float64)
    features = (features - 100).to(dtype)
    value = fed([(features, labels)]).compute()
    expected = ClassStatistics.from_features(features.to(torch.float64), labels, K)
    assert value.means.dtype is value.spread.dtype is value.within.dtype is torch.float64
    assert_fields_close(value, expected, 1e-10 if dtype is torch.float64 else 1e-5)
    assert_fields_equal(ClassStatistics.from_features(features, labels, K), expected)


@pytest.mark.parametrize(
    "dtype",
    [
        torch.uint8,
        torch.int8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.uint16,
        torch.uint32,
        torch.uint64,
    ],
)
def test_labels_of_any_integer_dtype(dtype: torch.dtype) -> None:
    features, labels = rows(50)
    expected = fed([(features, labels)]).compute()
    assert_fields_equal(fed([(features, labels.to(dtype))]).compute(), expected)


@pytest.mark.parametrize("ignore_index", [-100, 2, 255])
@pytest.mark.parametrize("size", [60, 2000])
def test_ignored_rows_are_as_if_absent(ignore_index: int, size: int) -> None:
    features, labels = rows(size)
    if ignore_index != 2:
        labels[::7] = ignore_index
    features[labels == ignore_index] = torch.nan  # nobody looks at them
    kept = labels != ignore_index
    expected = fed([(features[kept], labels[kept])]).compute()
    assert_fields_equal(fed([(features, labels)], ignore_index=ignore_index).compute(), expected)
    assert_fields_equal(
        ClassStatistics.from_features(features, labels, K, ignore_index=ignore_index),
        ClassStatistics.from_features(features[kept], labels[kept], K),
    )


@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("opened", range(K))
def test_an_ignored_row_before_the_first_of_a_class_costs_no_digits(
    opened: int, dtype: torch.dtype, validate: bool
) -> None:
    """The third batch brings a class not seen before, 10^4 from the origin, behind rows that don't count."""
    accumulator = StatisticsAccumulator(K, D, ignore_index=-100)
    features = (1e4 + torch.randn(3000, D, dtype=torch.float64)).to(dtype)
    labels = (torch.arange(3000) % 3 + opened + 1) % K  # the three other classes
    labels[2000:] = opened
    labels[2000:2005] = -100
    for start in range(0, 3000, 1000):
        accumulator.update(features[start : start + 1000], labels[start : start + 1000], validate=validate)
    expected = ClassStatistics.from_features(features, labels, K, ignore_index=-100)
    assert_fields_close(accumulator.compute(), expected, 1e-10 if dtype is torch.float64 else 1e-5)


@pytest.mark.parametrize("validate", [True, False])
def test_a_batch_of_ignored_rows_only_changes_nothing(validate: bool) -> None:
    nothing = rows(600)[0], torch.full((600,), -100)
    options = {"ignore_index": -100, "validate": validate}
    with_nothing, without = [rows(9), nothing, rows(700)], [rows(9), rows(700)]
    assert_fields_equal(fed(with_nothing, **options).compute(), fed(without, **options).compute())


def test_other_wrong_labels_are_still_refused_beside_ignored_ones() -> None:
    features, labels = with_label(-100, 2)
    labels[3] = -1
    with pytest.raises(LabelError, match=r"got -1 \(1 row\)"):
        fed([(features, labels)], ignore_index=-100)


def test_a_view_with_strides_is_read_right() -> None:
    features, labels = rows(700)
    strided = torch.stack([features, torch.zeros_like(features)], dim=2).flatten(1)[:, ::2]
    assert not strided.is_contiguous()
    assert_fields_equal(fed([(strided, labels)]).compute(), fed([(features, labels)]).compute())


def test_float64_features_after_float32_ones_keep_their_digits() -> None:
    """A batch in float64 whose classes are 1e-9 wide: float32 anchors and rows could not tell its rows apart."""
    early, labels = rows(700)
    wide = early.to(torch.float64)
    late = wide + 1e-9 * torch.randn(700, D, dtype=torch.float64)
    accumulator = fed([(early, labels), (late, labels)])
    accumulator.update(late[:5], labels[:5])
    value = accumulator.compute()
    expected = ClassStatistics.from_features(
        torch.cat([wide, late, late[:5]]), torch.cat([labels, labels, labels[:5]]), K
    )
    assert_fields_close(value, expected, 1e-6)
    torch.testing.assert_close(value.means, expected.means, rtol=1e-14, atol=0, equal_nan=True)
