import pytest
import torch
from streams import D, K, features, streamed
from torch import Tensor

from tightframe import ClassStatistics
from tightframe.errors import EmptyClassError, ScatterError
from tightframe.ood import Mahalanobis, NearestCentre, RelativeMahalanobis

ROWS, LABELS = features(400, 0)
NEW, _ = features(100, 1)


def class_means() -> list[Tensor]:
    return [torch.stack([row for row, label in zip(ROWS, LABELS.tolist(), strict=True) if label == k]).mean(0)
            for k in range(K)]  # fmt: skip


def test_the_distance_to_the_nearest_mean_by_loops() -> None:
    means = class_means()
    expected = [-min(float((row - mean).square().sum().sqrt()) for mean in means) for row in NEW]
    statistics = streamed(ROWS, LABELS, K + 2)  # two classes without samples
    torch.testing.assert_close(
        NearestCentre.fit(statistics).scores(NEW), torch.tensor(expected, dtype=torch.float64), rtol=1e-11, atol=0
    )
    chosen = statistics.select([4, 1])
    expected = [-min(float((row - means[k]).norm()) for k in (1, 4)) for row in NEW]
    torch.testing.assert_close(
        NearestCentre.fit(chosen).scores(NEW), torch.tensor(expected, dtype=torch.float64), rtol=1e-11, atol=0
    )


def test_far_from_the_origin_and_near_to_a_mean() -> None:
    """|x|^2 + |m|^2 - 2 x m has no digits here: the distance is 1e-6 at means of size 1e8."""
    means = 1e8 + torch.arange(3.0).double()[:, None] * torch.ones(2).double()
    statistics = ClassStatistics.from_features(means, torch.arange(3), 3)
    near = means + torch.tensor([2.0**-20, 0.0]).double()
    assert NearestCentre.fit(statistics).scores(near).tolist() == [-(2.0**-20)] * 3


def test_mahalanobis_by_loops() -> None:
    means = class_means()
    scatter = torch.zeros(D, D).double()
    for row, label in zip(ROWS, LABELS.tolist(), strict=True):
        scatter += torch.outer(row - means[label], row - means[label])
    inverse = torch.linalg.inv(scatter / len(ROWS))
    expected = [-min(float((row - mean) @ inverse @ (row - mean)) for mean in means) for row in NEW]
    detector = Mahalanobis.fit(streamed(ROWS, LABELS))
    assert detector.settings == {"rank": D}
    torch.testing.assert_close(detector.scores(NEW), torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=0)


def test_mahalanobis_sees_no_affine_map() -> None:
    matrix = torch.randn(D, D).double() + 3 * torch.eye(D).double()
    mapped = ClassStatistics.from_features(ROWS @ matrix + 20, LABELS, K)
    torch.testing.assert_close(
        Mahalanobis.fit(mapped).scores(NEW @ matrix + 20),
        Mahalanobis.fit(streamed(ROWS, LABELS)).scores(NEW),
        rtol=1e-8,
        atol=0,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mahalanobis_at_a_lower_rank(dtype: torch.dtype) -> None:
    """Features in a subspace of 4 dimensions have the distances that 4 coordinates give."""
    basis = torch.linalg.qr(torch.randn(D, 4).double())[0]
    lift = (basis * 10).mT
    rows = ROWS[:, :4] @ lift
    detector = Mahalanobis.fit(streamed(rows.to(dtype), LABELS))
    assert detector.rank == 4
    expected = Mahalanobis.fit(ClassStatistics.from_features(ROWS[:, :4], LABELS, K)).scores(NEW[:, :4])
    rtol = 1e-4 if dtype is torch.float32 else 1e-9
    torch.testing.assert_close(detector.scores(NEW[:, :4] @ lift), expected, rtol=rtol, atol=0)


def relative_by_loops(rows: Tensor, labels: Tensor, new: Tensor) -> Tensor:
    """Both distances with inverses of whole covariances of stored features."""
    means = [rows[labels == k].mean(0) for k in range(K)]
    mean, d = rows.mean(0), rows.shape[1]
    within, total = torch.zeros(d, d).double(), torch.zeros(d, d).double()
    for row, label in zip(rows, labels.tolist(), strict=True):
        within += torch.outer(row - means[label], row - means[label]) / len(rows)
        total += torch.outer(row - mean, row - mean) / len(rows)
    within, total = torch.linalg.inv(within), torch.linalg.inv(total)
    scores = [float((row - mean) @ total @ (row - mean)) -
              min(float((row - each) @ within @ (row - each)) for each in means) for row in new]  # fmt: skip
    return torch.tensor(scores, dtype=torch.float64)


def test_relative_mahalanobis_by_loops() -> None:
    detector = RelativeMahalanobis.fit(streamed(ROWS, LABELS, K + 2))
    assert detector.settings == {"rank": D}
    assert detector.projection.shape[1] == K
    torch.testing.assert_close(detector.scores(NEW), relative_by_loops(ROWS, LABELS, NEW), rtol=1e-8, atol=1e-8)


def test_relative_mahalanobis_sees_no_affine_map_and_no_foreign_direction() -> None:
    matrix = torch.randn(D, D).double() + 3 * torch.eye(D).double()
    expected = RelativeMahalanobis.fit(streamed(ROWS, LABELS)).scores(NEW)
    mapped = RelativeMahalanobis.fit(ClassStatistics.from_features(ROWS @ matrix + 20, LABELS, K))
    torch.testing.assert_close(mapped.scores(NEW @ matrix + 20), expected, rtol=1e-7, atol=1e-7)
    # a direction in which classes differ, but samples of a class don't: MD_0 must not reward a distance in it
    extra = torch.cat([ROWS, LABELS[:, None].double()], 1)
    lifted = RelativeMahalanobis.fit(ClassStatistics.from_features(extra, LABELS, K))
    far = torch.cat([NEW, torch.full((len(NEW), 1), 1e3).double()], 1)
    torch.testing.assert_close(lifted.scores(far), expected, rtol=1e-7, atol=1e-7)


def test_relative_mahalanobis_cannot_distinguish_equal_classes() -> None:
    rows = ROWS[:10].repeat(2, 1)
    statistics = ClassStatistics.from_features(rows, torch.arange(20) // 10, 2)
    scores = RelativeMahalanobis.fit(statistics).scores(NEW)
    assert float(scores.abs().max()) < 1e-9


def test_what_cannot_be_fitted() -> None:
    means_only = ClassStatistics.from_features(ROWS, LABELS, K, covariance=False)
    assert NearestCentre.fit(means_only).scores(NEW).shape == (100,)
    with pytest.raises(ScatterError, match="Mahalanobis distance needs the within-class scatter"):
        Mahalanobis.fit(means_only)
    with pytest.raises(ScatterError, match="do not vary within classes"):
        Mahalanobis.fit(ClassStatistics.from_features(torch.eye(3), torch.arange(3), 3))
    with pytest.raises(EmptyClassError):
        NearestCentre.fit(ClassStatistics.empty(K, D))
    with pytest.raises(ScatterError, match="do not vary within classes"):
        RelativeMahalanobis.fit(ClassStatistics.from_features(torch.eye(3), torch.arange(3), 3))
