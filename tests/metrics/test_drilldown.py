"""Tables of classes and of pairs, against loops; ties, empty classes, classifiers, predictions, memory."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from laws.scenarios import SCENARIOS, draw, statistics_of
from tightframe import ClassStatistics, metrics, theory
from tightframe.errors import EmptyClassError, RangeError, ShapeError


def degrees(a: Tensor, b: Tensor) -> float:
    return math.degrees(math.acos(max(-1.0, min(1.0, (a @ b / a.norm() / b.norm()).item()))))


@pytest.mark.parametrize("tile_size", [1, 2, 3, 512])
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_row_for_every_class(name: str, tile_size: int) -> None:
    sample = draw(SCENARIOS[name])
    statistics, weight = statistics_of(sample), torch.from_numpy(sample.weight)
    table = metrics.class_table(statistics, weight, tile_size=tile_size)
    labels = statistics.present.nonzero().flatten().tolist()
    assert table.labels.tolist() == labels
    means = statistics.means[statistics.present]
    centred = dict(zip(labels, means - means.mean(0), strict=True))
    for row, k in enumerate(labels):
        assert table.counts[row] == statistics.counts[k]
        assert table.mean_norms[row].item() == pytest.approx(centred[k].norm().item(), rel=1e-12)
        assert table.variances[row].item() == pytest.approx((statistics.spread[k] / statistics.counts[k]).item())
        assert table.classifier_norms[row].item() == pytest.approx(weight[k].norm().item(), rel=1e-12)
        cosine = (weight[k] @ centred[k] / weight[k].norm() / centred[k].norm()).item()
        assert table.classifier_cosines[row].item() == pytest.approx(cosine, rel=1e-10)
        others = [j for j in labels if j != k]
        near = min(others, key=lambda j: degrees(centred[k], centred[j]))
        assert table.nearest_by_angle[row] == near
        assert table.nearest_angles[row].item() == pytest.approx(degrees(centred[k], centred[near]), rel=1e-9)
        assert math.cos(math.radians(table.nearest_angles[row])) == pytest.approx(table.nearest_cosines[row].item())
        near = min(others, key=lambda j: (centred[k] - centred[j]).norm().item())
        assert table.nearest_by_distance[row] == near
        gap = (centred[k] - centred[near]).norm().item()
        assert table.nearest_distances[row].item() == pytest.approx(gap, rel=1e-11)


def test_spectra_of_classes_are_those_of_their_samples() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0] * 30 + [1] * 4 + [3])
    features = torch.randn(35, 5, generator=generator, dtype=torch.float64) * torch.arange(1, 6)
    statistics = ClassStatistics.from_features(features, labels, 4, per_class=True)
    table = metrics.class_table(statistics)
    assert table.labels.tolist() == [0, 1, 3]
    for row, k in enumerate((0, 1)):
        sizes = np.linalg.svd((features[labels == k] - features[labels == k].mean(0)).numpy(), compute_uv=False) ** 2
        sizes = sizes[sizes > 1e-9]
        shares = sizes / sizes.sum()
        assert table.effective_ranks[row].item() == pytest.approx(math.exp(-(shares * np.log(shares)).sum()), rel=1e-9)
        assert table.participation_ratios[row].item() == pytest.approx(1 / (shares**2).sum(), rel=1e-9)
        ranks = np.arange(1, len(sizes) + 1)
        slope = np.polyfit(np.log(ranks), np.log(sizes), 1, w=ranks**-0.5)[0]
        assert table.alphas[row].item() == pytest.approx(-slope, rel=1e-9)
    for values in (table.effective_ranks, table.participation_ratios, table.alphas):
        assert values[2].isnan()
    torch.testing.assert_close(metrics.alpha_req_per_class(statistics), table.alphas, equal_nan=True)
    (alpha,) = metrics.class_table(statistics, rows=torch.tensor([1])).alphas
    assert alpha == table.alphas[1]
    bare = ClassStatistics.from_features(features, labels, 4)
    for without in (metrics.class_table(statistics, spectra=False), metrics.class_table(bare)):
        assert without.effective_ranks is without.participation_ratios is without.alphas is None


@pytest.mark.parametrize("tile_size", [1, 2, 3, 512])
@pytest.mark.parametrize("name", SCENARIOS)
def test_rows_of_some_classes_are_those_of_all(name: str, tile_size: int) -> None:
    sample = draw(SCENARIOS[name])
    statistics, weight = statistics_of(sample), torch.from_numpy(sample.weight)
    every = metrics.class_table(statistics, weight)
    rows = torch.arange(len(every.labels)).flip(0)[::2]
    some = metrics.class_table(statistics, weight, rows=rows, tile_size=tile_size)
    for field in dataclasses.fields(every):
        expected, found = getattr(every, field.name)[rows], getattr(some, field.name)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0, equal_nan=True)


@pytest.mark.parametrize("tile_size", [1, 2, 3, 512])
@pytest.mark.parametrize("limit", [1, 4, 20, 1000])
@pytest.mark.parametrize("name", SCENARIOS)
def test_the_nearest_pairs(name: str, limit: int, tile_size: int) -> None:
    sample = draw(SCENARIOS[name])
    statistics, weight = statistics_of(sample), torch.from_numpy(sample.weight)
    labels = statistics.present.nonzero().flatten().tolist()
    means = statistics.means[statistics.present]
    centred = dict(zip(labels, means - means.mean(0), strict=True))
    pairs = [(i, j) for i in labels for j in labels if i < j]
    pairs.sort(key=lambda pair: degrees(centred[pair[0]], centred[pair[1]]))
    table = metrics.pair_table(statistics, weight, limit, tile_size=tile_size)
    assert [tuple(pair) for pair in table.labels.tolist()] == pairs[:limit]
    for row, (i, j) in enumerate(pairs[:limit]):
        assert table.angles[row].item() == pytest.approx(degrees(centred[i], centred[j]), rel=1e-9)
        assert table.cosines[row].item() == pytest.approx(math.cos(math.radians(table.angles[row])), abs=1e-12)
        gap = (centred[i] - centred[j]).norm().item()
        assert table.distances[row].item() == pytest.approx(gap, rel=1e-11)
        assert table.classifier_angles[row].item() == pytest.approx(degrees(weight[i], weight[j]), rel=1e-9)
        cosine = math.cos(math.radians(table.classifier_angles[row]))
        assert table.classifier_cosines[row].item() == pytest.approx(cosine, abs=1e-12)
        v = statistics.spread / statistics.counts
        assert table.cdnv[row].item() == pytest.approx(((v[i] + v[j]) / (2 * gap**2)).item(), rel=1e-10)
    if limit == 1000:
        assert table.cdnv.mean().item() == pytest.approx(metrics.cdnv(statistics).item(), rel=1e-10)


def test_without_classifier_and_prediction() -> None:
    statistics = statistics_of(draw(SCENARIOS["balanced"]))
    table, pairs = metrics.class_table(statistics), metrics.pair_table(statistics)
    assert table.classifier_norms is None
    assert table.classifier_cosines is None
    assert pairs.classifier_cosines is None
    assert pairs.classifier_angles is None
    assert pairs.predicted_cosines is None


@pytest.mark.parametrize("selected", [False, True])
def test_predicted_cosines(selected: bool) -> None:
    """Of a matrix with a row for every label, whichever classes have samples or were selected."""
    statistics = statistics_of(draw(SCENARIOS["empty classes"]))
    gram = theory.seli([9, 1, 8, 12, 1, 7]).means
    chosen = statistics.select([5, 3, 0]) if selected else statistics
    table = metrics.pair_table(chosen, predicted=gram)
    expected = [(gram[i, j] / (gram[i, i] * gram[j, j]).sqrt()).item() for i, j in table.labels.tolist()]
    assert table.predicted_cosines.tolist() == pytest.approx(expected, rel=1e-12)
    if selected:
        rows = torch.tensor([5, 3, 0])
        again = metrics.pair_table(chosen, predicted=gram[rows][:, rows])
        assert torch.equal(again.predicted_cosines, table.predicted_cosines)


def test_near_duplicates_keep_their_digits() -> None:
    means = torch.randn(9, 5, dtype=torch.float64)
    means[7] = means[2] + 1e-9 * torch.nn.functional.normalize(torch.randn(5, dtype=torch.float64), dim=0)
    statistics = ClassStatistics(torch.full((9,), 2), means, torch.ones(9, dtype=torch.float64))
    table, pairs = metrics.class_table(statistics, tile_size=4), metrics.pair_table(statistics, limit=1, tile_size=4)
    assert pairs.labels.tolist() == [[2, 7]]
    assert pairs.distances.item() == pytest.approx(1e-9, rel=1e-5)
    assert table.nearest_by_distance[[2, 7]].tolist() == [7, 2]
    assert table.nearest_angles[2].item() == pytest.approx(pairs.angles.item(), rel=1e-12)
    assert 0 < pairs.angles.item() < 1e-6


def test_a_mean_at_the_centre_has_no_direction() -> None:
    means = torch.tensor([[1.0, 0], [-1, 0], [0, 0], [1, 1], [-1, -1]], dtype=torch.float64)
    statistics = ClassStatistics(torch.full((5,), 2), means, torch.ones(5, dtype=torch.float64))
    for tile_size in (2, 512):
        table = metrics.class_table(statistics, tile_size=tile_size)
        assert table.nearest_by_angle.tolist() == [3, 4, -1, 0, 1]
        assert table.nearest_angles.isnan().tolist() == [False, False, True, False, False]
        assert table.nearest_cosines[2].isnan()
        assert table.nearest_by_distance.tolist() == [2, 2, 0, 0, 1]
        assert len(metrics.pair_table(statistics, tile_size=tile_size).cosines) == 6


def test_graphs_are_not_kept() -> None:
    features = torch.randn(12, 3, dtype=torch.float64, requires_grad=True)
    statistics = ClassStatistics.from_features(features, torch.arange(12) % 4, 4)
    weight = torch.randn(4, 3, requires_grad=True)
    for table in (metrics.class_table(statistics, weight), metrics.pair_table(statistics, weight)):
        assert not any(value.requires_grad for value in vars(table).values() if value is not None)


def test_bad_input() -> None:
    statistics = statistics_of(draw(SCENARIOS["balanced"]))
    with pytest.raises(RangeError, match="limit must be at least 1; got 0"):
        metrics.pair_table(statistics, limit=0)
    for table in (metrics.class_table, metrics.pair_table):
        with pytest.raises(ShapeError, match=r"\(6, 10\); got \(5, 10\)"):
            table(statistics, torch.ones(5, 10))
        with pytest.raises(EmptyClassError):
            table(statistics.select([1]))
    for shape in ((6,), (6, 5), (7, 7)):
        with pytest.raises(ShapeError, match=r"must be \(6, 6\), one row per class; got"):
            metrics.pair_table(statistics, predicted=torch.ones(shape))


# ---------------------------------------------------------------------- many classes


def vocabulary(classes: int) -> ClassStatistics:
    means = torch.randn(classes, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    means[classes - 1] = means[5] * 1.001  # a pair to be found
    return ClassStatistics(torch.full((classes,), 3), means, torch.ones(classes, dtype=torch.float64))


TABLES: dict[str, Callable[[ClassStatistics], object]] = {
    "classes": metrics.class_table,
    "pairs": metrics.pair_table,
}


@pytest.mark.parametrize("table", TABLES)
def test_no_grid_of_all_pairs_is_formed(table: str) -> None:
    from laws.test_traps import Record

    with Record() as record:
        TABLES[table](vocabulary(3000))
    assert record.largest <= 512 * 512


@pytest.mark.slow
@pytest.mark.parametrize("table", TABLES)
def test_fifty_thousand_classes(table: str) -> None:
    """In memory of the order of a tile; the pair made nearest is found."""
    from laws.test_traps import Record

    statistics = vocabulary(50_000)
    with Record() as record:
        result = TABLES[table](statistics)
    assert record.largest <= 50_000 * 64
    if isinstance(result, metrics.PairTable):
        assert result.labels[0].tolist() == [5, 49_999]
    else:
        assert isinstance(result, metrics.ClassTable)
        assert result.nearest_by_angle[[5, 49_999]].tolist() == [49_999, 5]
