"""`DecisionCounts`: every decision as in exact arithmetic, wherever the classes lie."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from laws.scenarios import SCENARIOS, Scenario, batches, draw, statistics_of, tensors
from oracle import ORACLE, Sample
from tightframe import ClassStatistics, DecisionCounts
from tightframe.errors import (
    ClassifierError,
    DtypeError,
    EmptyBatchError,
    EmptyClassError,
    LabelError,
    MergeError,
    NonFiniteError,
    ShapeError,
    TightframeError,
)

FIELDS = ("counts", "classifier_correct", "centre_correct", "agreement")


def at(means: list[list[float]], counts: list[int] | None = None) -> ClassStatistics:
    """Statistics with these class means exactly; classes are empty where the count is zero."""
    centres = torch.tensor(means, dtype=torch.float64)
    sizes = torch.tensor(counts or [1] * len(means))
    centres[sizes == 0] = torch.nan
    return ClassStatistics(sizes, centres, torch.zeros(len(means), dtype=torch.float64))


def nearest_by_fractions(rows: Tensor, value: ClassStatistics) -> list[int]:
    """Nearest mean in exact arithmetic; the lowest index of equally near ones."""
    chosen = []
    for row in rows.tolist():
        distances = {
            k: sum((Fraction(a) - Fraction(b)) ** 2 for a, b in zip(row, mean, strict=True))
            for k, mean in enumerate(value.means.tolist())
            if value.counts[k]
        }
        chosen.append(min(distances, key=lambda k: (distances[k], k)))
    return chosen


def classified_by_fractions(rows: Tensor, weight: Tensor, bias: Tensor) -> list[int]:
    chosen = []
    for row in rows.tolist():
        scores = [
            sum(Fraction(a) * Fraction(b) for a, b in zip(row, each, strict=True)) + Fraction(shift)
            for each, shift in zip(weight.tolist(), bias.tolist(), strict=True)
        ]
        chosen.append(max(range(len(scores)), key=lambda k: (scores[k], -k)))
    return chosen


# ---------------------------------------------------------------------- against brute force


@pytest.mark.parametrize("tile_size", [1, 3, 1024])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("offset", [0.0, 1e2, 1e4])
@pytest.mark.parametrize("spread", [1e-3, 0.5, 3.0])
def test_decisions_equal_those_in_exact_arithmetic(
    spread: float, offset: float, dtype: type[np.floating], tile_size: int
) -> None:
    sample = draw(Scenario((9, 9, 0, 9, 9, 9, 9), 5), offset=offset, spread=spread, dtype=dtype)
    value = statistics_of(sample)
    features, _ = tensors(sample)
    weight, bias = torch.from_numpy(sample.weight), torch.from_numpy(sample.bias)
    counts = DecisionCounts(value, weight, bias, tile_size=tile_size)
    classifier, centre = counts.decide(features)
    assert centre.tolist() == nearest_by_fractions(features, value)
    assert classifier.tolist() == classified_by_fractions(features, weight, bias)


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_close_calls_equal_those_in_exact_arithmetic(offset: float) -> None:
    """Rows on the line between two means, a millionth of their distance from its middle."""
    value = at((offset + torch.randn(12, 6, dtype=torch.float64)).tolist())
    left, right = torch.combinations(torch.arange(12)).T
    middle = (value.means[left] + value.means[right]) / 2
    rows = middle + 1e-6 * torch.randn(len(left), 1, dtype=torch.float64) * (value.means[left] - value.means[right])
    for dtype in (torch.float32, torch.float64):
        _, centre = DecisionCounts(value, tile_size=5).decide(rows.to(dtype))
        assert centre.tolist() == nearest_by_fractions(rows.to(dtype), value)


def test_many_classes_and_long_batches() -> None:
    """More classes than one tile and more rows than one chunk; brute force in float64."""
    means = 100 + torch.randn(1100, 3, dtype=torch.float64)
    value = at(means.tolist())
    rows = (100 + torch.randn(5000, 3, dtype=torch.float64)).to(torch.float32)
    counts = DecisionCounts(value)
    labels = torch.cdist(rows.double(), means, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
    counts.update(rows, labels)
    assert torch.equal(counts.totals.centre_correct, labels.bincount(minlength=1100))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", SCENARIOS)
def test_totals_equal_the_oracle_in_any_batches(name: str, dtype: type[np.floating]) -> None:
    sample = draw(SCENARIOS[name], offset=1e4, spread=1.0, dtype=dtype)
    value, whole = statistics_of(sample), len(sample.labels)
    weight, bias = torch.from_numpy(sample.weight), torch.from_numpy(sample.bias)
    counts = DecisionCounts(value, weight, bias)
    for features, labels in batches(*tensors(sample)):
        counts.update(features, labels)
    totals = counts.totals
    assert totals.counts.tolist() == value.counts.tolist()
    for field, metric in zip(FIELDS[1:], ("classifier_accuracy", "ncc_accuracy", "ncc_agreement"), strict=True):
        assert int(getattr(totals, field).sum()) == round(ORACLE[metric](sample) * whole), field
        assert (getattr(totals, field) <= totals.counts).all()


# ---------------------------------------------------------------------- ties, empty classes, bias


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_exact_ties_go_to_the_lowest_index(dtype: torch.dtype) -> None:
    value = at([[9, 0], [1, 0], [0, -1], [-1, 0], [0, 1]])
    rows = torch.tensor([[0, 0], [0.5, 0.5], [-0.5, 0.5], [-0.5, -0.5], [5, 0]], dtype=dtype)
    for tile_size in (1, 2, 512):
        counts = DecisionCounts(value, tile_size=tile_size)
        counts.update(rows, torch.tensor([1, 1, 3, 2, 0]))
        assert counts.totals.centre_correct.tolist() == [1, 2, 1, 1, 0]
        # the origin is as near to 1, 2, 3 and 4, the corners to two of them, (5, 0) to 0 and 1
        assert counts.decide(rows.float())[1].tolist() == [1, 1, 3, 2, 0]


def test_equal_means_and_equal_logits_are_ties() -> None:
    value = at([[5.0, 5.0], [1.0, 2.0], [1.0, 2.0], [1.0, 2.0]])
    weight = torch.tensor([[0.1, 0.2], [0.3, 0.7], [0.3, 0.7], [0.1, 0.2]], dtype=torch.float64)
    counts = DecisionCounts(value, weight, torch.tensor([0.3, 0.0, 0.0, 0.3]))
    classifier, centre = counts.decide(torch.tensor([[1.1, 2.1], [0.0, 0.0], [1e6, 0.0]]))
    assert centre.tolist() == [1, 1, 0]
    assert classifier.tolist() == [1, 0, 1]


def test_empty_classes_are_never_nearest_though_the_classifier_may_choose_them() -> None:
    value = at([[0, 0], [7, 7], [1, 1]], [3, 0, 3])
    weight = torch.tensor([[0.0, 0.0], [1.0, 1.0], [-1.0, -1.0]])
    counts = DecisionCounts(value, weight)
    rows = torch.tensor([[7.0, 7.0], [0.2, 0.2], [0.0, 0.0]])
    classifier, centre = counts.decide(rows)
    assert centre.tolist() == [2, 0, 0]
    assert classifier.tolist() == [1, 1, 0]
    counts.update(rows, torch.tensor([1, 0, 0]))
    assert counts.totals.counts.tolist() == [2, 1, 0]
    assert counts.totals.centre_correct.tolist() == [2, 0, 0]
    assert counts.totals.classifier_correct.tolist() == [1, 1, 0]
    assert counts.totals.agreement.tolist() == [1, 0, 0]


def test_the_bias_takes_part() -> None:
    value = at([[1, 0], [-1, 0]])
    weight = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    rows = torch.tensor([[0.5, 0.0], [-0.5, 0.0], [2.0, 0.0]])
    assert DecisionCounts(value, weight).decide(rows)[0].tolist() == [0, 1, 0]
    assert DecisionCounts(value, weight, torch.tensor([0.0, 2.0])).decide(rows)[0].tolist() == [1, 1, 0]
    huge = torch.tensor([1e9, 1e9 + 2])  # a float64 bias that float32 scores could not tell apart
    assert DecisionCounts(value, weight, huge.double()).decide(rows)[0].tolist() == [0, 1, 0]
    exact = torch.tensor([1e9, 1e9 + 2], dtype=torch.float64)
    assert DecisionCounts(value, weight, exact).decide(rows)[0].tolist() == [1, 1, 0]


def test_without_a_classifier_only_centres_are_counted() -> None:
    sample = draw(SCENARIOS["zipf"], spread=1.0)
    counts = DecisionCounts(statistics_of(sample))
    counts.update(*tensors(sample))
    assert counts.totals.classifier_correct is None
    assert counts.totals.agreement is None
    assert counts.decide(tensors(sample)[0])[0] is None
    assert int(counts.totals.centre_correct.sum()) == round(ORACLE["ncc_accuracy"](sample) * len(sample.labels))


def test_half_precision_rows_are_decided_as_their_float32_values() -> None:
    sample = draw(SCENARIOS["balanced"], spread=1.0)
    value, (features, labels) = statistics_of(sample), tensors(sample)
    for dtype in (torch.float16, torch.bfloat16):
        half, single = DecisionCounts(value), DecisionCounts(value)
        half.update(features.to(dtype), labels)
        single.update(features.to(dtype).float(), labels.int())
        assert torch.equal(half.totals.centre_correct, single.totals.centre_correct)


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_neither_autocast_nor_fast_products_change_a_decision(precision: str) -> None:
    sample = draw(SCENARIOS["zipf"], offset=1e2, spread=1.0, dtype=np.float32)
    value, (features, _) = statistics_of(sample), tensors(sample)
    weight = torch.from_numpy(sample.weight).float()
    expected = DecisionCounts(value, weight).decide(features)
    torch.set_float32_matmul_precision(precision)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            decided = DecisionCounts(value, weight).decide(features)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert torch.equal(decided[0], expected[0])
    assert torch.equal(decided[1], expected[1])


# ---------------------------------------------------------------------- layouts


def test_layouts_and_ignored_rows() -> None:
    sample = draw(Scenario((16, 16, 16), 4), spread=1.0)
    value, (features, labels) = statistics_of(sample), tensors(sample)
    weight = torch.from_numpy(sample.weight)

    def totals(rows: Tensor, classes: Tensor, **options: int) -> list[list[int]]:
        counts = DecisionCounts(value, weight, **options)
        counts.update(rows, classes)
        return [getattr(counts.totals, name).tolist() for name in FIELDS]

    flat = totals(features, labels)
    assert totals(features.reshape(4, 12, 4), labels.reshape(4, 12)) == flat
    maps, grid = features.reshape(2, 4, 6, 4).permute(0, 3, 1, 2), labels.reshape(2, 4, 6)
    assert totals(maps, grid, class_dim=1) == flat
    padded = torch.cat([features, torch.full((3, 4), torch.nan)]), torch.cat([labels, torch.full((3,), -100)])
    assert totals(*padded, ignore_index=-100) == flat


# ---------------------------------------------------------------------- merging and selecting


def test_counts_merge() -> None:
    sample = draw(SCENARIOS["zipf"], spread=1.0)
    value, (features, labels) = statistics_of(sample), tensors(sample)
    weight = torch.from_numpy(sample.weight)
    whole, left, right = (DecisionCounts(value, weight) for _ in range(3))
    whole.update(features, labels)
    left.update(features[:50], labels[:50])
    right.update(features[50:], labels[50:])
    left.merge(right)
    for name in FIELDS:
        assert torch.equal(getattr(left.totals, name), getattr(whole.totals, name))
    with pytest.raises(MergeError, match="both or neither a classifier"):
        left.merge(DecisionCounts(value))
    with pytest.raises(MergeError, match="same classes"):
        left.merge(DecisionCounts(at([[0.0], [1.0]]), torch.ones(2, 1)))


def test_totals_of_some_classes() -> None:
    sample = draw(Scenario((5, 1, 9, 0, 3), 3), spread=1.0)
    counts = DecisionCounts(statistics_of(sample), torch.from_numpy(sample.weight))
    counts.update(*tensors(sample))
    totals = counts.totals
    for chosen, rows in (
        (totals.select([4, 0]), [4, 0]),
        (totals.select(torch.tensor([2])), [2]),
        (totals.select(min_count=3), [0, 2, 4]),
        (totals.select(max_count=3), [1, 3, 4]),
        (totals.select([2, 1, 0], min_count=2, max_count=5), [0]),
    ):
        for name in FIELDS:
            assert torch.equal(getattr(chosen, name), getattr(totals, name)[rows])
    with pytest.raises(LabelError, match=r"\[0, 5\); got 5"):
        totals.select([5])


def test_selected_statistics_decide_among_the_selected_centres() -> None:
    """Labels, the classifier's rows and the totals stay those of all the classes."""
    sample = draw(SCENARIOS["zipf"], spread=1.0)
    value, (features, labels) = statistics_of(sample), tensors(sample)
    chosen = value.select([6, 3, 1])
    weight = torch.from_numpy(sample.weight)
    counts = DecisionCounts(chosen, weight)
    counts.update(features, labels)
    classifier, centre = counts.decide(features)
    distances = torch.cdist(features, value.means[[1, 3, 6]])
    assert centre.tolist() == torch.tensor([1, 3, 6])[distances.argmin(1)].tolist()
    assert classifier.tolist() == (features @ weight.mT).argmax(1).tolist()
    assert counts.totals.counts.tolist() == value.counts.tolist()


def test_ties_go_to_the_lowest_class_in_whatever_order_classes_were_selected() -> None:
    value = at([[9.0, 9.0], [1.0, 0.0], [-1.0, 0.0]])
    for order in ([1, 2], [2, 1]):
        assert DecisionCounts(value.select(order)).decide(torch.zeros(1, 2))[1].tolist() == [1]


# ---------------------------------------------------------------------- bad input

VALUE = at([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
ONES, LABELS = torch.ones(4, 3), torch.tensor([0, 1, 2, 0])
NAN = torch.tensor([[0.0, 1.0, 0.0], [0.0, torch.nan, 0.0], [1.0, 0.0, 0.0]])
BAD_BATCHES = {
    "label": (ONES, torch.tensor([0, 3, 3, 0]), LabelError, r"\[0, 3\); got 3 \(2 rows\)"),
    "negative": (ONES, torch.tensor([0, -1, 2, 0]), LabelError, r"got -1 \(1 row\)"),
    "NaN": (ONES * torch.nan, LABELS, NonFiniteError, r"row 0 holds nan in column 0 \(4 of 4 rows"),
    "infinite": (ONES * torch.inf, LABELS, NonFiniteError, "row 0 holds inf in column 0"),
    "too large": (ONES.double() * 1e200, LABELS, NonFiniteError, r"holds 1e\+200"),
    "width": (torch.ones(4, 2), LABELS, ShapeError, "must have 3 entries.*got 2"),
    "rows": (ONES, LABELS[:3], ShapeError, r"got \(3,\)"),
    "integers": (ONES.long(), LABELS, DtypeError, "torch.int64"),
    "bool": (ONES, LABELS.bool(), DtypeError, "torch.bool"),
    "none": (ONES[:0], LABELS[:0], EmptyBatchError, r"\(0, 3\)"),
}


@pytest.mark.parametrize("bad", BAD_BATCHES)
def test_a_bad_batch_is_named_and_not_counted(bad: str) -> None:
    features, labels, error, message = BAD_BATCHES[bad]
    counts = DecisionCounts(VALUE, torch.eye(3))
    counts.update(ONES, LABELS)
    before = counts.totals
    with pytest.raises(error, match=message):
        counts.update(features, labels)
    assert counts.totals is before


@pytest.mark.parametrize(
    ("weight", "bias", "error", "message"),
    [
        (torch.ones(2, 3), None, ClassifierError, r"\(3, 3\); got \(2, 3\)"),
        (torch.ones(3, 4), None, ClassifierError, r"\(3, 3\); got \(3, 4\)"),
        (torch.ones(3), None, ClassifierError, r"got \(3,\)"),
        (torch.ones(3, 3), torch.ones(2), ClassifierError, r"bias must have shape \(3,\); got \(2,\)"),
        (torch.ones(3, 3), torch.ones(3, 1), ClassifierError, r"got \(3, 1\)"),
        (torch.ones(3, 3).long(), None, DtypeError, "torch.int64"),
        (NAN, None, NonFiniteError, "the classifier's weight.*row 1 holds nan in column 1"),
        (torch.ones(3, 3) * torch.inf, None, NonFiniteError, "the classifier's weight.*holds inf"),
        (torch.ones(3, 3), NAN[1], NonFiniteError, "the classifier's bias.*row 1 holds nan"),
        (None, torch.ones(3), ClassifierError, "bias needs a weight"),
    ],
)
def test_a_classifier_that_does_not_fit_is_refused(
    weight: Tensor | None, bias: Tensor | None, error: type[TightframeError], message: str
) -> None:
    with pytest.raises(error, match=message):
        DecisionCounts(VALUE, weight, bias)


def test_one_class_decides_nothing() -> None:
    with pytest.raises(EmptyClassError, match="1 of 3 has"):
        DecisionCounts(at([[0.0], [1.0], [2.0]], [0, 4, 0]))


def test_samples_do_not_have_to_be_those_of_the_statistics() -> None:
    sample = draw(SCENARIOS["balanced"], spread=1.0)
    other = draw(SCENARIOS["balanced"], spread=1.0, seed=1)
    counts = DecisionCounts(statistics_of(sample))
    counts.update(*tensors(other))
    means = np.array([sample.features[sample.labels == k].mean(0) for k in range(6)])
    nearest = ((other.features[:, None] - means) ** 2).sum(2).argmin(1)
    expected = np.bincount(other.labels[nearest == other.labels], minlength=6)
    assert counts.totals.centre_correct.tolist() == expected.tolist()


def test_a_sample_is_a_plain_value() -> None:
    """The oracle refuses what the package refuses, so that both see the same data."""
    with pytest.raises(ValueError, match="label"):
        Sample(np.ones((2, 2)), np.array([0, 5]), 2)
