"""Confusion counts against loops, their merging, and what they refuse."""

import pytest
import torch

from tightframe import ConfusionCounts
from tightframe.errors import CostMatrixError, DtypeError, LabelError, MergeError, ShapeError


def drawn(seed: int, num: int = 200, K: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(K - 1, (num,), generator=generator)  # the last class has no samples
    return torch.randint(K, (num,), generator=generator), labels


@pytest.mark.parametrize("seed", range(3))
def test_against_loops(seed: int) -> None:
    decided, labels = drawn(seed)
    pairs = list(zip(decided.tolist(), labels.tolist(), strict=True))
    cost = torch.rand(5, 5, dtype=torch.float64)
    counts = ConfusionCounts.from_predictions(decided, labels, 5)
    assert counts.accuracy().item() == pytest.approx(sum(d == y for d, y in pairs) / len(pairs))
    assert counts.average_cost(cost).item() == pytest.approx(sum(float(cost[y, d]) for d, y in pairs) / len(pairs))
    recalls = []
    for k in range(4):
        mine = [d for d, y in pairs if y == k]
        recalls.append(sum(d == k for d in mine) / len(mine))
        assert counts.class_accuracies()[k].item() == pytest.approx(recalls[-1])
        both = sum(d == k and y == k for d, y in pairs)
        assert counts.iou()[k].item() == pytest.approx(both / sum(d == k or y == k for d, y in pairs))
    assert counts.class_accuracies()[4].isnan()
    assert counts.balanced_accuracy().item() == pytest.approx(sum(recalls) / 4)
    few = counts.select([1, 3])
    assert few.balanced_accuracy().item() == pytest.approx((recalls[1] + recalls[3]) / 2)
    assert few.counts[0].sum() == 0


def test_merging_is_counting_together_and_empty_changes_nothing() -> None:
    decided, labels = drawn(0)
    whole = ConfusionCounts.from_predictions(decided, labels, 5)
    cut = zip(decided.split(70), labels.split(70), strict=True)
    parts = [ConfusionCounts.from_predictions(d, y, 5) for d, y in cut]
    assert torch.equal(parts[0].merge(parts[1]).merge(parts[2]).counts, whole.counts)
    assert torch.equal(ConfusionCounts.empty(5).merge(whole).counts, whole.counts)
    with pytest.raises(MergeError, match="same number of classes; got 5 and 4"):
        whole.merge(ConfusionCounts.empty(4))


def test_pixels_and_ignored_labels() -> None:
    decided, labels = drawn(1)
    ignored = labels.clone()
    ignored[::3] = -100
    kept = ignored != -100
    image = ConfusionCounts.from_predictions(decided.view(2, 10, 10), ignored.view(2, 10, 10), 5, ignore_index=-100)
    assert torch.equal(image.counts, ConfusionCounts.from_predictions(decided[kept], labels[kept], 5).counts)


def test_bad_input_is_named() -> None:
    decided, labels = drawn(0)
    with pytest.raises(LabelError, match=r"labels must lie in \[0, 3\); got 3"):
        ConfusionCounts.from_predictions(decided.clamp(max=2), labels, 3)
    with pytest.raises(LabelError, match=r"predictions must lie in \[0, 4\); got 4 \(\d+ rows\)\.$"):
        ConfusionCounts.from_predictions(decided, labels.clamp(max=3), 4)
    with pytest.raises(LabelError, match=r"classes must lie in \[0, 5\); got 5"):
        ConfusionCounts.empty(5).select([5])
    with pytest.raises(ShapeError, match=r"\(200,\); got \(199,\)"):
        ConfusionCounts.from_predictions(decided[1:], labels, 5)
    with pytest.raises(DtypeError, match="float32"):
        ConfusionCounts.from_predictions(decided.float(), labels, 5)
    with pytest.raises(CostMatrixError, match=r"\(5, 5\); got \(4, 4\)"):
        ConfusionCounts.from_predictions(decided, labels, 5).average_cost(torch.zeros(4, 4))
