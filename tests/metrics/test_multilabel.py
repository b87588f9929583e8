"""Multi-label collapse: tag-wise averages by loops, at collapse and without structure; bad input."""

from itertools import combinations

import pytest
import torch
from torch import Tensor

from tightframe import metrics
from tightframe.errors import DtypeError, EmptyClassError, LabelError, ShapeError


def multi_hot(sets: list[tuple[int, ...]], K: int) -> Tensor:
    tags = torch.zeros(len(sets), K, dtype=torch.int64)
    for row, members in enumerate(sets):
        tags[row, list(members)] = 1
    return tags


SETS = [(k,) for k in range(5)] * 3 + list(combinations(range(5), 2)) * 2 + [(0, 1, 4), (1, 2, 3), (0, 1, 4), ()]


def test_at_collapse_nothing_is_left() -> None:
    """A simplex of single tags anywhere in space; sets at sums of their tags' vertices, scaled by their size."""
    vertices = 3 * torch.eye(5, 8, dtype=torch.float64)
    place = torch.randn(8, dtype=torch.float64)
    vertices = vertices - vertices.mean(0)
    rows = [sum((vertices[k] for k in s), torch.zeros(8)) * (0.8 if len(s) == 2 else 0.6) ** (len(s) - 1) for s in SETS]
    features, tags = torch.stack(rows) + place, multi_hot(SETS, 5)
    assert metrics.tagwise_average_error(features, tags) < 1e-28
    singles = metrics.single_label_statistics(features, tags)
    assert singles.counts.tolist() == [3] * 5
    assert metrics.etf_error(singles) < 1e-14
    assert metrics.nc1(singles) < 1e-25


def test_by_loops() -> None:
    features, tags = torch.randn(len(SETS), 6, dtype=torch.float64) + 50, multi_hot(SETS, 5)
    singles = torch.stack([features[[s == (k,) for s in SETS]].mean(0) for k in range(5)])
    centre = singles.mean(0)
    found = metrics.tag_sets(features, tags)
    kinds = sorted({s for s in SETS if len(s) > 1})
    assert sorted(tuple(row.nonzero().flatten().tolist()) for row in found.tags) == kinds
    for row, count, error in zip(found.tags, found.counts, found.errors, strict=True):
        members = tuple(row.nonzero().flatten().tolist())
        own = features[[s == members for s in SETS]].mean(0) - centre
        together = sum(singles[k] - centre for k in members)
        assert count == SETS.count(members)
        assert error.item() == pytest.approx(1 - (own @ together / own.norm() / together.norm()).item(), rel=1e-9)
    mean = metrics.tagwise_average_error(features, tags)
    torch.testing.assert_close(mean, found.errors.mean(), rtol=1e-12, atol=0)
    spread = torch.cat([tags, torch.zeros(len(SETS), 2, dtype=torch.int64)], 1).float()  # two tags that don't occur
    torch.testing.assert_close(metrics.tagwise_average_error(features, spread), mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(metrics.tagwise_average_error(features.float(), tags.bool()), mean, rtol=1e-4, atol=0)


def test_without_structure_it_is_one() -> None:
    generator = torch.Generator().manual_seed(0)
    values = [
        metrics.tagwise_average_error(torch.randn(len(SETS), 30, generator=generator), multi_hot(SETS, 5))
        for _ in range(60)
    ]
    stacked = torch.stack(values)
    assert abs(stacked.mean() - 1) < 4 * stacked.std() / 60**0.5 < 0.05


def test_the_set_of_all_tags_says_nothing() -> None:
    sets = [(0,), (1,), (2,), (0, 1), (0, 1, 2)]
    features = torch.randn(5, 4, dtype=torch.float64)
    some, all_of_them = multi_hot(sets, 3)[:4], multi_hot(sets, 3)
    value = metrics.tagwise_average_error(features, all_of_them)
    assert torch.equal(value, metrics.tagwise_average_error(features[:4], some))
    with pytest.raises(LabelError, match="at least two tags, but not all tags; no sample"):
        metrics.tagwise_average_error(features[[0, 1, 2, 4]], all_of_them[[0, 1, 2, 4]])
    assert len(metrics.tag_sets(features[:3], some[:3]).counts) == 0


@pytest.mark.parametrize("step", [1e-3, 1e-6, 1e-9])
def test_small_errors_keep_their_digits(step: float) -> None:
    vertices = torch.eye(4, dtype=torch.float64) - 0.25
    pair = vertices[0] + vertices[1]
    aside = torch.tensor([1.0, -1, 0, 0], dtype=torch.float64) / 2**0.5
    features = torch.cat([vertices, (pair / pair.norm() + step * aside)[None]])
    value = metrics.tagwise_average_error(features, multi_hot([(0,), (1,), (2,), (3,), (0, 1)], 4))
    assert value.item() == pytest.approx(step**2 / 2, rel=1e-5)


def test_gradients() -> None:
    features = torch.randn(len(SETS), 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f: metrics.tagwise_average_error(f, multi_hot(SETS, 5)), (features,))


def test_bad_input() -> None:
    x, tags = torch.randn(len(SETS), 3), multi_hot(SETS, 5)
    keep = torch.tensor([s != (2,) for s in SETS])
    with pytest.raises(EmptyClassError, match=r"1 of 5 tags are not: 2\. Drop"):
        metrics.tagwise_average_error(x[keep], tags[keep])
    with pytest.raises(EmptyClassError, match=r"must have exactly one tag; none of 10"):
        metrics.single_label_statistics(x[15:25], tags[15:25])
    with pytest.raises(LabelError, match="must be 0 or 1; got 2 in row 0, column 0"):
        metrics.tagwise_average_error(x, 2 * tags)
    with pytest.raises(LabelError, match="got inf in row 0, column 0"):
        metrics.tagwise_average_error(x, tags / 0)
    with pytest.raises(ShapeError, match=rf"tags must be \({len(SETS)}, K\) with K >= 2, .*; got \(2, 5\)"):
        metrics.tagwise_average_error(x, tags[:2])
    with pytest.raises(ShapeError, match=r"got \(\d+, 1\)"):
        metrics.tagwise_average_error(x, tags[:, :1])
    with pytest.raises(DtypeError, match="complex64"):
        metrics.tagwise_average_error(x, tags.to(torch.complex64))
    with pytest.raises(DtypeError, match="features must be floating point"):
        metrics.tagwise_average_error(tags, tags)
