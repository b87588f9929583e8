"""Multi-label collapse: the mean of the samples with a set of tags, compared with the means of the single tags.

Under the pick-all-labels cross-entropy, features of samples with one tag collapse to a simplex ETF, which the ordinary
metrics measure on `single_label_statistics`. The mean of the samples with a set of tags is, up to a positive factor,
the sum of the means of its tags. All means are centred by the mean of the single-tag means.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tightframe import checks, numerics
from tightframe.checks import Array, as_tensor
from tightframe.errors import DtypeError, EmptyClassError, LabelError, ShapeError
from tightframe.statistics import ClassStatistics

__all__ = ["TagSets", "single_label_statistics", "tag_sets", "tagwise_average_error"]


def single_label_statistics(features: Array, tags: Array, *, per_class: bool = False) -> ClassStatistics:
    """The `ClassStatistics` of the samples with exactly one tag, with the tag as class, for NC1 and NC2.

    Args: features (N, D), any float dtype; tags (N, K), multi-hot: bool, or numbers 0 and 1.
    A tag without single-tag samples is a class without samples. Keeps the graph.
    Raises: DtypeError, ShapeError, NonFiniteError; LabelError for tags other than 0 and 1; EmptyClassError if no sample
    has exactly one tag.

    >>> import torch
    >>> from tightframe.metrics import single_label_statistics
    >>> tags = torch.tensor([[1, 0], [0, 1], [1, 1]])
    >>> single_label_statistics(torch.eye(3), tags).counts
    tensor([1, 1])
    """
    features = as_tensor(features, "features")
    hot = _multi_hot(features, tags)
    single = hot.sum(1) == 1
    if not single.any():
        raise EmptyClassError(f"at least one sample must have exactly one tag; none of {len(hot)} samples has.")
    labels = hot[single].to(torch.int64).argmax(1)
    return ClassStatistics.from_features(features[single], labels, hot.shape[1], per_class=per_class)


@dataclass(frozen=True, eq=False)
class TagSets:
    """Sets of at least two tags, with the deviation of each set's mean from the sum of its tags' means.

    Attributes:
        tags: (S, K) bool, the sets in the data, without the set of all tags, whose sum below is always zero.
        counts: (S,) int64, number of samples with exactly that set.
        errors: (S,) float64, 1 - cos(mu_S - mu_G, sum over k in S of (mu_k - mu_G)), in [0, 2].
    """

    tags: Tensor
    counts: Tensor
    errors: Tensor


def tag_sets(features: Array, tags: Array) -> TagSets:
    """Sets of at least two tags in the data, with their errors. Arguments as in `tagwise_average_error`.

    Shape: features (N, D), tags (N, K); see `TagSets`.
    Raises: as `tagwise_average_error`, except that the result may be empty.

    >>> import torch
    >>> from tightframe.metrics import tag_sets
    >>> features = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.8, 0.8, 0.0]])
    >>> tags = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]])
    >>> sets = tag_sets(features, tags)
    >>> sets.tags.tolist(), sets.counts.tolist()
    ([[True, True, False]], [1])
    """
    features = as_tensor(features, "features")
    hot = _multi_hot(features, tags)
    statistics = single_label_statistics(features, tags)
    occurring = _occurring(statistics, hot)
    centre = statistics.means[occurring].mean(0)
    sizes = hot.sum(1)
    several = (sizes > 1) & (sizes < int(occurring.sum()))
    sets, members = (each.to(centre.device) for each in torch.unique(hot[several], dim=0, return_inverse=True))
    counts = torch.bincount(members, minlength=len(sets))
    rows = features[several].to(centre) - centre.detach()  # sums are inexact far from the origin
    sums = rows.new_zeros(len(sets), len(centre)).index_add(0, members, rows)
    own = sums / counts[:, None] + (centre.detach() - centre)
    together = sets[:, occurring].to(centre.dtype) @ (statistics.means[occurring] - centre)
    # the squared distance of unit vectors avoids the cancellation of 1 - cos
    gaps = numerics.unit_rows(own) - numerics.unit_rows(together)
    return TagSets(sets, counts, gaps.square().sum(1) / 2)


def tagwise_average_error(features: Array, tags: Array) -> Tensor:
    """Mean over sets S of at least two tags of 1 - cos(mu_S - mu_G, sum over k in S of (mu_k - mu_G)).

    mu_S is the mean of the samples with exactly the tags S, mu_k the mean of the samples with tag k only, and mu_G the
    mean of the mu_k of all tags in the data. Each set has weight one, independent of its number of samples (`tag_sets`
    returns the sets). The set of all tags is left out, because its sum is always zero.

    Args: features (N, D), any float dtype; tags (N, K), multi-hot: bool, or numbers 0 and 1. Samples without tags and
    tags without samples are ignored.
    Shape: scalar, float64. Range: [0, 2]; 0 = tag-wise averages; 1 = unrelated directions, the expected value without
    structure if all tags have equally many single-tag samples. NaN if a mean equals mu_G.
    Raises: DtypeError, ShapeError, NonFiniteError; LabelError for tags other than 0 and 1, or if there is no set;
    EmptyClassError listing tags without single-tag samples.
    Source: Li et al. 2024, Neural Collapse in Multi-label Learning with Pick-all-label Loss ("tag-wise average").

    >>> import torch
    >>> from tightframe.metrics import tagwise_average_error
    >>> features = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.8, 0.8, 0.0]])
    >>> tags = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]])
    >>> round(tagwise_average_error(features, tags).item(), 4)  # (7, 7, -5) / 15 against (1, 1, -2) / 3
    0.1165
    """
    sets = tag_sets(features, tags)
    if len(sets.counts) == 0:
        raise LabelError("some samples must have at least two tags, but not all tags; no sample has.")
    return sets.errors.mean()


def _multi_hot(features: Tensor, array: Array) -> Tensor:
    """The tags as (N, K) bool."""
    tags = as_tensor(array, "tags")
    checks.require_matrix(features, "features", "(samples, dimensions)")
    if tags.dtype.is_complex:
        raise DtypeError(f"tags must be bool, integer or floating point; got {tags.dtype}.")
    if tags.ndim != 2 or len(tags) != len(features) or tags.shape[1] < 2:
        raise ShapeError(f"tags must be ({len(features)}, K) with K >= 2, one column per tag; got {tuple(tags.shape)}.")
    wrong = (tags != 0) & (tags != 1)
    if wrong.any():
        row, column = wrong.nonzero()[0].tolist()
        raise LabelError(f"tags must be 0 or 1; got {tags[row, column].item()} in row {row}, column {column}.")
    return tags.to(features.device) != 0


def _occurring(statistics: ClassStatistics, hot: Tensor) -> Tensor:
    """(K,) bool, the tags in the data. Raises: EmptyClassError for a tag without single-tag samples."""
    occurring = hot.any(0).to(statistics.counts.device)
    missing = (occurring & ~statistics.present).nonzero().flatten().tolist()
    if missing:
        raise EmptyClassError(
            f"every tag must be the only tag of at least one sample; {len(missing)} of {len(occurring)} tags are not: "
            f"{checks.listed(missing)}. Drop the samples with these tags."
        )
    return occurring
