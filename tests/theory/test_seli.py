"""The SELI geometry: the closed form of STEP imbalance, its definition, and values of the formula sheet."""

import math

import pytest
import torch

from tightframe import theory
from tightframe.errors import EmptyClassError


def cosines(gram: torch.Tensor) -> torch.Tensor:
    lengths = gram.diagonal().sqrt()
    return gram / lengths / lengths[:, None]


def step(k: int, r: float, s: float) -> list[float]:
    """Cosines within the minority, the majority and between them, and the majority's share in lengths squared.

    k/2 classes of each kind, R times as many samples in the majority. For classifiers r = sqrt(R) and
    s = sqrt((R + 1)/2), for means both inverted.
    """
    minority, majority = (1 - 2 / k) + s / k, r * (1 - 2 / k) + s / k
    return [
        (s - 2) / (s + k - 2),
        (s - 2 * r) / (s + (k - 2) * r),
        -s / k / math.sqrt(minority * majority),
        majority / minority,
    ]


def measured(gram: torch.Tensor) -> list[float]:
    found = cosines(gram)
    return [value.item() for value in (found[-1, -2], found[0, 1], found[0, -1], gram[0, 0] / gram[-1, -1])]


@pytest.mark.parametrize("k", [4, 6, 10, 20])
@pytest.mark.parametrize("ratio", [1, 7, 10, 100, 1000])
def test_step_imbalance_in_closed_form(k: int, ratio: int) -> None:
    geometry = theory.seli([ratio] * (k // 2) + [1] * (k // 2))
    r, s = math.sqrt(ratio), math.sqrt((ratio + 1) / 2)
    assert measured(geometry.classifiers) == pytest.approx(step(k, r, s), abs=1e-11)
    assert measured(geometry.means) == pytest.approx(step(k, 1 / r, 1 / s), abs=1e-11)


@pytest.mark.parametrize("k", [4, 6, 8, 10, 12, 100])
def test_at_ratio_seven_minority_classifiers_are_orthogonal_for_every_k(k: int) -> None:
    assert abs(cosines(theory.seli([7] * (k // 2) + [1] * (k // 2)).classifiers)[-1, -2].item()) < 1e-12


@pytest.mark.parametrize(
    ("ratio", "minority", "majority", "between", "lengths"),
    [(1, -1 / 9, -1 / 9, -1 / 9, 1.0), (10, 0.033369, -0.14395, -0.13868, 1.634656**2)],
)
def test_the_sheet_s_classifiers_of_ten_classes(
    ratio: int, minority: float, majority: float, between: float, lengths: float
) -> None:
    found = measured(theory.seli([ratio] * 5 + [1] * 5).classifiers)
    assert found[:1] == pytest.approx([minority], abs=1e-6)
    assert found[1:3] == pytest.approx([majority, between], abs=5e-6)  # printed to five digits
    assert found[3] == pytest.approx(lengths, abs=2e-6)


def test_the_sheet_s_means_and_large_ratios() -> None:
    found = measured(theory.seli([10] * 5 + [1] * 5).means)
    assert found[:2] == pytest.approx([-0.186746, -0.069702], abs=1e-6)
    assert found[2] == pytest.approx(-0.08543, abs=5e-6)
    assert found[3] ** -0.5 == pytest.approx(1.688311, abs=1e-6)
    for ratio, value in ((100, 0.338026), (1000, 0.670748)):
        assert measured(theory.seli([ratio] * 5 + [1] * 5).classifiers)[0] == pytest.approx(value, abs=1e-6)


def test_the_sheet_s_three_uneven_classes() -> None:
    geometry = theory.seli([4, 1, 1])
    found = cosines(geometry.classifiers)
    assert found[1, 2].item() == pytest.approx(math.sqrt(3) - 2, abs=1e-12)
    assert found[0, 1:].tolist() == pytest.approx([-0.605, -0.605], abs=5e-4)
    assert cosines(geometry.means)[1, 2].item() == pytest.approx(-0.677219, abs=1e-6)
    assert geometry.classifiers.diagonal().tolist() == pytest.approx([1.154701, 0.788675, 0.788675], abs=1e-6)


@pytest.mark.parametrize("counts", [[9, 4, 2, 1], [3, 3, 1], [5, 2]])
def test_by_definition(counts: list[int]) -> None:
    """W and one feature a sample from the singular value decomposition of P Y, as the paper has it."""
    K, N = len(counts), sum(counts)
    encoded = torch.full((K, N), -1 / K, dtype=torch.float64)
    labels = [k for k, count in enumerate(counts) for _ in range(count)]
    for sample, label in enumerate(labels):
        encoded[label, sample] += 1
    left, values, right = torch.linalg.svd(encoded, full_matrices=False)
    weight = left * values.sqrt()
    features = right.mT * values.sqrt()
    geometry = theory.seli(counts)
    torch.testing.assert_close(weight @ weight.mT, geometry.classifiers, rtol=0, atol=1e-7)  # roots of 1e-16 remain
    kept = values[:-1]  # the last one is zero: P has rank K - 1
    means = torch.stack([features[labels.index(k), : len(kept)] for k in range(K)])
    torch.testing.assert_close(means @ means.mT, geometry.means, rtol=0, atol=1e-12)
    torch.testing.assert_close(weight[:, : len(kept)] @ means.mT, geometry.logits, rtol=0, atol=1e-12)
    torch.testing.assert_close(geometry.classifiers @ geometry.means, geometry.logits, rtol=0, atol=1e-12)


def test_equal_counts_give_the_simplex() -> None:
    geometry = theory.seli([5] * 4)
    simplex = torch.full((4, 4), -1 / 3, dtype=torch.float64).fill_diagonal_(1)
    torch.testing.assert_close(cosines(geometry.classifiers), simplex, rtol=0, atol=1e-12)
    torch.testing.assert_close(cosines(geometry.means), simplex, rtol=0, atol=1e-12)


@pytest.mark.parametrize("counts", [[5], [3, 0], [[1, 2]]])
def test_seli_needs_classes_with_samples(counts: list[int]) -> None:
    with pytest.raises(EmptyClassError, match="must be positive, for at least two classes"):
        theory.seli(counts)
