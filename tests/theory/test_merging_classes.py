"""Which classes merge: by size, by pairs, and what becomes of a rare class alone."""

import pytest

from tightframe import theory
from tightframe.errors import EmptyClassError, RangeError


def by_loops(counts: list[int], decay_w: float, decay_h: float) -> list[list[int]]:
    threshold = sum(counts) ** 2 * decay_w * decay_h
    groups = []
    for k, count in enumerate(counts):
        same = [j for j, other in enumerate(counts) if other == count]
        if count <= threshold and len(same) > 1 and same[0] == k:
            groups.append(same)
    return groups


@pytest.mark.parametrize("counts", [[20, 4, 20, 4, 20, 4], [3, 1, 2, 1, 2, 3], [5, 5], [9, 8, 7], [50, 1, 1, 2, 2, 3]])
@pytest.mark.parametrize("decay", [0.0, 0.01, 0.02, 0.0295, 0.05, 0.1, 1.0])
def test_by_loops_and_at_the_optimum(counts: list[int], decay: float) -> None:
    groups = theory.merging_classes(counts, decay, decay)
    assert groups == by_loops(counts, decay, decay)
    if decay > 0:
        for decay_b in (None, 0.0, 0.1):
            optimum = theory.cross_entropy_optimum(counts, decay, decay, decay_b)
            for labels in groups:
                gram = optimum.classifiers[labels][:, labels]
                assert (gram == gram[0, 0]).all()
            if optimum.rank > 1:
                assert optimum.merged == groups


def test_a_rare_class_without_a_partner_keeps_its_row_and_the_rank_falls() -> None:
    counts, decay = [40, 20, 10, 2, 1], 0.04  # the threshold is 8.5
    assert theory.merging_classes(counts, decay, decay) == []
    for decay_b in (None, 0.0):
        optimum = theory.cross_entropy_optimum(counts, decay, decay, decay_b)
        assert optimum.rank == 2
        assert optimum.merged == []
        assert optimum.classifiers.diagonal().min() > 1e-3
        gram = optimum.classifiers
        assert gram[3, 3] + gram[4, 4] - 2 * gram[3, 4] > 1e-3


@pytest.mark.parametrize(("decay", "rank", "merged"), [(0.02, 3, []), (0.04, 2, [[3, 4]])])
def test_classes_of_different_sizes_coincide_where_their_rows_are_zero(
    decay: float, rank: int, merged: list[list[int]]
) -> None:
    optimum = theory.cross_entropy_optimum([20, 20, 20, 2, 1], decay, decay)
    assert optimum.rank == rank
    assert optimum.merged == merged
    assert (optimum.classifiers.diagonal()[3:] == 0).all() == bool(merged)
    assert optimum.classifier_cosines[3:].isnan().all() == bool(merged)
    assert abs(optimum.gap) < 1e-13


def test_bad_arguments() -> None:
    with pytest.raises(EmptyClassError, match="must be positive, for at least two classes"):
        theory.merging_classes([4, 0], 0.1, 0.1)
    with pytest.raises(RangeError, match=r"-0\.1"):
        theory.merging_classes([4, 4], 0.1, -0.1)
