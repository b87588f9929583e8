"""Behind the scalars: a row for every class, and the pairs of classes whose means are nearest.

Both walk over tiles of the Gram matrix of the class means and keep what they report: no K x K matrix is formed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tightframe import numerics
from tightframe.checks import Array, as_tensor
from tightframe.errors import RangeError, ShapeError
from tightframe.evidence import classifier_rows
from tightframe.metrics.pairs import TILE_SIZE, Tile, class_moments
from tightframe.statistics import ClassStatistics


@dataclass(frozen=True, eq=False)
class ClassTable:
    """A row for each of the K classes with samples; NaN where a class, or the classifier, has no such value.

    Attributes:
        labels: (K,) int64, the classes; counts: (K,) int64, their samples.
        mean_norms: (K,) distance of the class mean to the mean of class means.
        variances: (K,) mean squared distance of a sample to its class mean (ddof 0).
        classifier_norms: (K,) length of the classifier's row, and
        classifier_cosines: (K,) its cosine with the centred class mean; None without a classifier.
        nearest_by_angle: (K,) label of the class whose centred mean has the largest cosine with this one's, and
        nearest_cosines: (K,) that cosine; nearest_angles: (K,) the angle in degrees.
        nearest_by_distance: (K,) label of the class with the nearest mean; nearest_distances: (K,) its distance.
    """

    labels: Tensor
    counts: Tensor
    mean_norms: Tensor
    variances: Tensor
    classifier_norms: Tensor | None
    classifier_cosines: Tensor | None
    nearest_by_angle: Tensor
    nearest_cosines: Tensor
    nearest_angles: Tensor
    nearest_by_distance: Tensor
    nearest_distances: Tensor


@dataclass(frozen=True, eq=False)
class PairTable:
    """The pairs of classes with the largest cosines between centred means, the nearest first; P rows.

    Attributes:
        labels: (P, 2) int64, the two classes, in the statistics' order.
        cosines, angles: (P,) between the centred class means, the angle in degrees.
        distances: (P,) between the class means, in feature units.
        cdnv: (P,) the pair's class-distance normalised variance (v_i + v_j) / (2 distance^2), ddof 0.
        classifier_cosines, classifier_angles: (P,) between the classifier's rows; None without a classifier.
        predicted_cosines: (P,) what was predicted; None without a prediction.
    """

    labels: Tensor
    cosines: Tensor
    angles: Tensor
    distances: Tensor
    cdnv: Tensor
    classifier_cosines: Tensor | None
    classifier_angles: Tensor | None
    predicted_cosines: Tensor | None


def class_table(
    statistics: ClassStatistics,
    weight: Array | None = None,
    *,
    rows: Tensor | None = None,
    tile_size: int = TILE_SIZE,
) -> ClassTable:
    """Size, spread, classifier and nearest other class of every class with samples.

    Args:
        weight: (K, D), the classifier.
        rows: (R,) int64, places among the classes with samples of those to have a row; default: all. Each is compared
            with all classes.

    Memory is O(K + tile^2); no graph is kept. A class whose mean is the mean of
    class means has no direction: its nearest by angle is labelled -1, with NaN.
    Raises: EmptyClassError if fewer than two classes have samples; ShapeError for a weight of another shape.

    >>> means = torch.tensor([[4.0, 0.0], [0.0, 3.0], [-4.0, -3.0]])
    >>> statistics = ClassStatistics.from_features(means.repeat(2, 1), torch.arange(3).repeat(2), 3)
    >>> table = class_table(statistics)
    >>> table.nearest_by_distance.tolist(), table.nearest_distances.tolist()[0]
    ([1, 0, 1], 5.0)
    """
    statistics = statistics.populated().detach()
    centred, ids = statistics.centred_means(), statistics.class_ids
    by_angle, by_distance = (
        _nearest(statistics, tile_size) if rows is None else _nearest_of(statistics, rows, tile_size)
    )
    mine = torch.arange(len(centred), device=centred.device) if rows is None else rows.to(centred.device)
    known = by_angle >= 0
    units = numerics.unit_rows(centred)
    cosines = torch.where(known, (units[mine] * units[by_angle]).sum(1), math.nan)
    angles = torch.where(known, _degrees(units[mine], units[by_angle]), math.nan)
    own = None if weight is None else classifier_rows(statistics, as_tensor(weight).detach())[mine]
    return ClassTable(
        ids[mine],
        statistics.counts[mine],
        numerics.norms(centred[mine]),
        statistics.variances[mine],
        None if own is None else numerics.norms(own),
        None if own is None else (numerics.unit_rows(own) * units[mine]).sum(1),
        torch.where(known, ids[by_angle], -1),
        cosines,
        angles,
        ids[by_distance],
        numerics.norms(centred[mine] - centred[by_distance]),
    )


def _nearest(statistics: ClassStatistics, tile_size: int) -> Tensor:
    """(2, K) for each class the place of the one nearest by angle, -1 without any, and by distance."""
    best = statistics.means.new_full((2, statistics.num_classes), -math.inf)
    who = statistics.class_ids.new_full((2, statistics.num_classes), -1)
    for rows, columns, tile in _tiles(statistics, tile_size):
        for kind, values in enumerate((_without_nan(tile.cosine), -tile.squared_distance)):
            grid = values.view(len(rows), len(columns))
            if rows[0] == columns[0]:
                grid.fill_diagonal_(-math.inf)
            _improve(best[kind], who[kind], rows, columns, grid)
            _improve(best[kind], who[kind], columns, rows, grid.mT)
    return who


def _nearest_of(statistics: ClassStatistics, rows: Tensor, tile_size: int) -> Tensor:
    """(2, R) the same for some classes, each compared with all."""
    centred, moments = statistics.centred_means(), class_moments(statistics)
    rows = rows.to(centred.device)
    best, who = centred.new_full((2, len(rows)), -math.inf), rows.new_full((2, len(rows)), -1)
    places = torch.arange(len(rows), device=centred.device)
    for columns in torch.arange(len(centred), device=centred.device).split(tile_size):
        tile = Tile(centred[rows], centred[columns], moments[:, rows], moments[:, columns], False, len(centred))
        for kind, values in enumerate((_without_nan(tile.cosine), -tile.squared_distance)):
            grid = values.view(len(rows), len(columns)).masked_fill(rows[:, None] == columns, -math.inf)
            _improve(best[kind], who[kind], places, columns, grid)
    return who


def pair_table(
    statistics: ClassStatistics,
    weight: Array | None = None,
    limit: int = 20,
    predicted: Tensor | None = None,
    *,
    tile_size: int = TILE_SIZE,
) -> PairTable:
    """The `limit` pairs of classes with the largest cosines between centred means: where a classifier may confuse them.

    Args:
        weight: (K, D), the classifier, for the cosines between its rows.
        limit: at most so many pairs; fewer where there aren't as many with a cosine.
        predicted: (K, K) Gram matrix that theory predicts for the class means up to scale, such as
            `theory.seli(counts).means`, with a row for every class of the statistics or for every label.

    Memory is O(tile^2 + limit); no graph is kept.
    Raises: EmptyClassError if fewer than two classes have samples; RangeError for a limit below one; ShapeError for a
    weight or a prediction of another shape.

    >>> means = torch.tensor([[4.0, 0.0], [0.0, 4.0], [-4.0, -4.0]])
    >>> statistics = ClassStatistics.from_features(means.repeat(2, 1), torch.arange(3).repeat(2), 3)
    >>> table = pair_table(statistics, limit=1)
    >>> table.labels.tolist(), round(table.angles.item(), 1)
    ([[0, 1]], 90.0)
    """
    if limit < 1:
        raise RangeError(f"at least one pair must be asked for; got limit={limit}.")
    chosen = statistics.populated().detach()
    best = chosen.means.new_empty(0)
    pairs = torch.empty(0, 2, dtype=torch.int64, device=best.device)
    for rows, columns, tile in _tiles(chosen, tile_size):
        values = _without_nan(tile.cosine)
        if rows[0] == columns[0]:
            below = torch.ones(len(rows), len(rows), dtype=torch.bool, device=values.device).tril()
            values = values.masked_fill(below.flatten(), -math.inf)
        if len(best) < limit or values.amax() > best[-1]:
            best, pairs = _merged(best, pairs, values, rows, columns, limit)
    i, j = pairs.unbind(1)
    units, gaps = numerics.unit_rows(chosen.centred_means()), numerics.norms(chosen.means[i] - chosen.means[j])
    own = None if weight is None else numerics.unit_rows(classifier_rows(statistics, as_tensor(weight).detach()))
    gram = None if predicted is None else _predicted_gram(statistics, predicted)
    return PairTable(
        chosen.class_ids[pairs],
        best,
        _degrees(units[i], units[j]),
        gaps,
        (chosen.variances[i] + chosen.variances[j]) / (2 * gaps.square()),
        None if own is None else (own[i] * own[j]).sum(1),
        None if own is None else _degrees(own[i], own[j]),
        None if gram is None else gram[i, j] / (gram[i, i] * gram[j, j]).sqrt(),
    )


def _tiles(statistics: ClassStatistics, tile_size: int) -> Iterator[tuple[Tensor, Tensor, Tile]]:
    """Row numbers, column numbers and all their pairs, for the tiles on and above the diagonal."""
    centred = statistics.centred_means()
    moments = class_moments(statistics)
    numbers = torch.arange(len(centred), device=centred.device).split(tile_size)
    for index, rows in enumerate(numbers):
        for columns in numbers[index:]:
            yield (
                rows,
                columns,
                Tile(centred[rows], centred[columns], moments[:, rows], moments[:, columns], False, len(centred)),
            )


def _improve(best: Tensor, who: Tensor, rows: Tensor, columns: Tensor, grid: Tensor) -> None:
    """Enter the largest value of each row of a grid, and its column, where it beats the best so far."""
    values = grid.amax(1)
    better = (values > best[rows]).nonzero().flatten()  # few rows in all but the first tiles: places are slow to find
    best[rows[better]] = values[better]
    who[rows[better]] = columns[grid[better].argmax(1)]


def _without_nan(cosines: Tensor) -> Tensor:
    """-inf for pairs with a mean that has no direction; a sum tells whether there are any."""
    return cosines if cosines.sum().isfinite() else cosines.nan_to_num(nan=-math.inf)


def _merged(
    best: Tensor, pairs: Tensor, values: Tensor, rows: Tensor, columns: Tensor, limit: int
) -> tuple[Tensor, Tensor]:
    """The `limit` largest of the best so far and of a tile's values, and their pairs."""
    top, places = values.topk(min(limit, len(values)))
    top, places = top[top > -math.inf], places[top > -math.inf]
    found = torch.stack([rows[places // len(columns)], columns[places % len(columns)]], 1)
    best, pairs = torch.cat([best, top]), torch.cat([pairs, found])
    best, order = best.sort(descending=True, stable=True)
    return best[:limit], pairs[order[:limit]]


def _degrees(left: Tensor, right: Tensor) -> Tensor:
    """Angles between the rows of two sets of unit vectors, exact for tiny ones."""
    return torch.rad2deg(2 * torch.atan2(numerics.norms(left - right), numerics.norms(left + right)))


def _predicted_gram(statistics: ClassStatistics, predicted: Tensor) -> Tensor:
    """Rows and columns of the classes with samples."""
    size = predicted.shape[0] if predicted.ndim == 2 and predicted.shape[0] == predicted.shape[-1] else None
    if size not in (statistics.num_classes, statistics.num_labels):
        raise ShapeError(
            f"the predicted Gram matrix must be ({statistics.num_classes}, {statistics.num_classes}), a row for every "
            f"class; got {tuple(predicted.shape)}."
        )
    gram = predicted.detach().to(statistics.means)
    rows = statistics.class_ids if size == statistics.num_labels else torch.arange(statistics.num_classes)
    kept = rows.to(gram.device)[statistics.present]
    return gram[kept][:, kept]
