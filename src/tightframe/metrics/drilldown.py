"""Tables behind the scalar measures: one row per class, and the pairs of classes with the nearest means.

Both iterate over tiles of the Gram matrix of the class means; no K x K matrix is formed.
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
from tightframe.metrics.pairs import TILE_SIZE, class_moments
from tightframe.metrics.spectra import decay_of, perplexity, ratios_of, spectra_of
from tightframe.metrics.tile import Tile
from tightframe.statistics import ClassStatistics


@dataclass(frozen=True, eq=False)
class ClassTable:
    """One row per class with samples; NaN where a value is undefined.

    Attributes:
        labels: (K,) int64, class labels; counts: (K,) int64, numbers of samples.
        mean_norms: (K,) distance of the class mean to the mean of class means.
        variances: (K,) mean squared distance of a sample to its class mean (ddof 0).
        classifier_norms: (K,) length of the classifier's row; None without a classifier.
        classifier_cosines: (K,) cosine of the classifier's row with the centred class mean; None without a classifier.
        nearest_by_angle: (K,) label of the class whose centred mean has the largest cosine with this class's.
        nearest_cosines: (K,) that cosine; nearest_angles: (K,) the angle in degrees.
        nearest_by_distance: (K,) label of the class with the nearest mean; nearest_distances: (K,) the distance.
        effective_ranks, participation_ratios, alphas: (K,) `effective_rank_per_class`, `participation_ratio_per_class`
            and `alpha_req_per_class`: how many directions each class uses, and how fast its variances decay; None
            without the scatter per class.
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
    effective_ranks: Tensor | None
    participation_ratios: Tensor | None
    alphas: Tensor | None


@dataclass(frozen=True, eq=False)
class PairTable:
    """The P pairs of classes with the largest cosines between centred means, nearest pair first.

    Attributes:
        labels: (P, 2) int64, the two class labels, in the statistics' order.
        cosines, angles: (P,) cosine, and angle in degrees, between the centred class means.
        distances: (P,) distance between the class means, in feature units.
        cdnv: (P,) class-distance normalised variance of the pair, (v_i + v_j) / (2 distance^2), ddof 0.
        classifier_cosines, classifier_angles: (P,) the same between the classifier's rows; None without a classifier.
        predicted_cosines: (P,) predicted cosine of the class means; None without a prediction.
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
    spectra: bool = True,
    tile_size: int = TILE_SIZE,
) -> ClassTable:
    """Number of samples, variance, classifier row, nearest class and spectrum of each class with samples.

    Args:
        weight: (K, D), the classifier.
        rows: (R,) int64, indices among the classes with samples; only these classes have a row. Default: all. Each row
            is compared with all classes.
        spectra: compute eigenvalues of the scatter per class, if it was kept: about 10 D^3 operations per row.

    Memory is O(K + tile^2); no graph is kept. If a class mean equals the mean of class means, it has no direction:
    `nearest_by_angle` is then -1, and its cosine and angle are NaN.
    Raises: EmptyClassError if fewer than two classes have samples; ShapeError if the weight does not fit.

    >>> import torch
    >>> from tightframe import ClassStatistics
    >>> from tightframe.metrics import class_table
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
    classes = torch.arange(len(centred), device=centred.device) if rows is None else rows.to(centred.device)
    directed = by_angle >= 0
    units = numerics.unit_rows(centred)
    cosines = torch.where(directed, (units[classes] * units[by_angle]).sum(1), math.nan)
    angles = torch.where(directed, _degrees(units[classes], units[by_angle]), math.nan)
    classifier = None if weight is None else classifier_rows(statistics, as_tensor(weight).detach())[classes]
    return ClassTable(
        ids[classes],
        statistics.counts[classes],
        numerics.norms(centred[classes]),
        statistics.variances[classes],
        None if classifier is None else numerics.norms(classifier),
        None if classifier is None else (numerics.unit_rows(classifier) * units[classes]).sum(1),
        torch.where(directed, ids[by_angle], -1),
        cosines,
        angles,
        ids[by_distance],
        numerics.norms(centred[classes] - centred[by_distance]),
        *_spectral(statistics, classes if spectra else None),
    )


def _spectral(
    statistics: ClassStatistics, classes: Tensor | None
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Effective rank, participation ratio and exponent of decay of some classes."""
    if statistics.class_within is None or classes is None:
        return None, None, None
    scatter = statistics.class_within[classes]
    spectra = spectra_of(scatter, statistics.product_epsilon)
    return torch.stack(list(map(perplexity, spectra))), ratios_of(scatter), torch.stack(list(map(decay_of, spectra)))


def _nearest(statistics: ClassStatistics, tile_size: int) -> Tensor:
    """(2, K) index of the class nearest by angle (-1 if there is none) and by distance, for each class."""
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
    """(2, R) the same for the classes `rows`, each compared with all classes."""
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
    """The pairs of classes with the largest cosines between centred means, which a classifier may confuse.

    Args:
        weight: (K, D), the classifier, for the cosines between its rows.
        limit: maximum number of pairs. Pairs without a cosine are left out.
        predicted: (K, K) Gram matrix that theory predicts for the class means up to scale, such as
            `theory.seli(counts).means`, with one row per class of the statistics or per label.

    Memory is O(tile^2 + limit); no graph is kept.
    Raises: EmptyClassError if fewer than two classes have samples; RangeError if limit < 1; ShapeError if the weight or
    the prediction does not fit.

    >>> import torch
    >>> from tightframe import ClassStatistics
    >>> from tightframe.metrics import pair_table
    >>> means = torch.tensor([[4.0, 0.0], [0.0, 4.0], [-4.0, -4.0]])
    >>> statistics = ClassStatistics.from_features(means.repeat(2, 1), torch.arange(3).repeat(2), 3)
    >>> table = pair_table(statistics, limit=1)
    >>> table.labels.tolist(), round(table.angles.item(), 1)
    ([[0, 1]], 90.0)
    """
    if limit < 1:
        raise RangeError(f"limit must be at least 1; got {limit}.")
    present = statistics.populated().detach()
    best = present.means.new_empty(0)
    pairs = torch.empty(0, 2, dtype=torch.int64, device=best.device)
    for rows, columns, tile in _tiles(present, tile_size):
        values = _without_nan(tile.cosine)
        if rows[0] == columns[0]:
            below = torch.ones(len(rows), len(rows), dtype=torch.bool, device=values.device).tril()
            values = values.masked_fill(below.flatten(), -math.inf)
        if len(best) < limit or values.amax() > best[-1]:
            best, pairs = _merged(best, pairs, values, rows, columns, limit)
    i, j = pairs.unbind(1)
    units, gaps = numerics.unit_rows(present.centred_means()), numerics.norms(present.means[i] - present.means[j])
    rows_w = None if weight is None else numerics.unit_rows(classifier_rows(statistics, as_tensor(weight).detach()))
    gram = None if predicted is None else _predicted_gram(statistics, predicted)
    return PairTable(
        present.class_ids[pairs],
        best,
        _degrees(units[i], units[j]),
        gaps,
        (present.variances[i] + present.variances[j]) / (2 * gaps.square()),
        None if rows_w is None else (rows_w[i] * rows_w[j]).sum(1),
        None if rows_w is None else _degrees(rows_w[i], rows_w[j]),
        None if gram is None else gram[i, j] / (gram[i, i] * gram[j, j]).sqrt(),
    )


def _tiles(statistics: ClassStatistics, tile_size: int) -> Iterator[tuple[Tensor, Tensor, Tile]]:
    """(row indices, column indices, tile of their pairs) for the tiles on and above the diagonal."""
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
    """Update `best` and its column `who` with the largest value of each row of a grid, where it is larger."""
    values = grid.amax(1)
    better = (values > best[rows]).nonzero().flatten()  # few rows after the first tiles; argmax is slow
    best[rows[better]] = values[better]
    who[rows[better]] = columns[grid[better].argmax(1)]


def _without_nan(cosines: Tensor) -> Tensor:
    """Cosines with -inf for pairs with a mean of length zero; the sum shows whether there are any."""
    return cosines if cosines.sum().isfinite() else cosines.nan_to_num(nan=-math.inf)


def _merged(
    best: Tensor, pairs: Tensor, values: Tensor, rows: Tensor, columns: Tensor, limit: int
) -> tuple[Tensor, Tensor]:
    """The `limit` largest values of `best` and of a tile, and their pairs."""
    top, places = values.topk(min(limit, len(values)))
    top, places = top[top > -math.inf], places[top > -math.inf]
    top_pairs = torch.stack([rows[places // len(columns)], columns[places % len(columns)]], 1)
    best, pairs = torch.cat([best, top]), torch.cat([pairs, top_pairs])
    best, order = best.sort(descending=True, stable=True)
    return best[:limit], pairs[order[:limit]]


def _degrees(left: Tensor, right: Tensor) -> Tensor:
    """Angles in degrees between the rows of two sets of unit vectors; exact for tiny angles."""
    return torch.rad2deg(2 * torch.atan2(numerics.norms(left - right), numerics.norms(left + right)))


def _predicted_gram(statistics: ClassStatistics, predicted: Tensor) -> Tensor:
    """The predicted Gram matrix restricted to the classes with samples."""
    size = predicted.shape[0] if predicted.ndim == 2 and predicted.shape[0] == predicted.shape[-1] else None
    if size not in (statistics.num_classes, statistics.num_labels):
        raise ShapeError(
            f"the predicted Gram matrix must be ({statistics.num_classes}, {statistics.num_classes}), one row per "
            f"class; got {tuple(predicted.shape)}."
        )
    gram = predicted.detach().to(statistics.means)
    rows = statistics.class_ids if size == statistics.num_labels else torch.arange(statistics.num_classes)
    present = rows.to(gram.device)[statistics.present]
    return gram[present][:, present]
