"""What a profile of layers needs: numerical rank, and angles between class means and the weight that reads them."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from laws.scenarios import SCENARIOS, draw, statistics_of
from oracle import ORACLE, Sample
from oracle import principal_angles as angles_by_loops
from tightframe import ClassStatistics, metrics
from tightframe.errors import EmptyClassError, GeometryWarning, RangeError, ScatterError, ShapeError
from variants import VARIANTS

float64 = {"dtype": torch.float64}


def of_means(means: Tensor) -> ClassStatistics:
    return ClassStatistics.from_features(means, torch.arange(len(means)), len(means))


# ---------------------------------------------------------------------- rank


def with_variances(*variances: float) -> ClassStatistics:
    """Samples on the axes, in two classes of equal mean: the covariance is diagonal."""
    scaled = torch.tensor(variances, **float64).mul(len(variances)).sqrt().diag()
    features = torch.cat([scaled, -scaled])
    return ClassStatistics.from_features(features.repeat(2, 1), torch.arange(2).repeat_interleave(len(features)), 2)


@pytest.mark.parametrize(
    ("variances", "threshold", "rank"),
    [
        ((4.0, 1.0, 0.0041, 0.0039), 1e-3, 3),
        ((4.0, 1.0, 0.0041, 0.0039), 1e-4, 4),
        ((4.0, 1.0, 0.0041, 0.0039), 0.5, 1),
        ((1.0, 0.1, 0.01, 1e-3 - 1e-9), 1e-3, 3),  # more than the threshold as singular values of the samples
        ((2.0, 2.0, 0.0), 1e-3, 2),
        ((2.0, 2.0, 0.0), 0.0, 2),
        ((0.0, 0.0), 1e-3, 0),
        ((3.0, 1.0), 1.0, 0),
    ],
)
def test_known_spectrum(variances: tuple[float, ...], threshold: float, rank: int) -> None:
    statistics = with_variances(*variances)
    torch.testing.assert_close(statistics.total_covariance().diagonal(), torch.tensor(variances, **float64))
    assert metrics.numerical_rank(statistics, threshold=threshold) == rank


def test_samples_weigh_equally() -> None:
    """Three means on the axes: the variances are 1/2 and nearly 3/2 of the third class's share."""
    means = torch.eye(3, **float64)
    for few, rank in ((1, 1), (2, 2)):
        nothing = torch.zeros(3, 3, **float64)
        statistics = ClassStatistics(torch.tensor([2000, 2000, few]), means, nothing[0], nothing)
        assert metrics.numerical_rank(statistics) == rank


@pytest.mark.parametrize(("K", "D"), [(2, 1), (2, 9), (6, 9), (6, 5), (9, 4)])
def test_collapse_leaves_one_dimension_less_than_classes(K: int, D: int) -> None:
    means = torch.eye(K, max(K, D), **float64)[:, -D:]
    statistics = ClassStatistics.from_features(means.repeat(5, 1), torch.arange(K).repeat(5), K)
    assert metrics.numerical_rank(statistics) == min(K - 1, D)


@pytest.mark.parametrize("name", SCENARIOS)
def test_rank_ignores_rotation_translation_and_scale(name: str, rotation: Callable[[int], Tensor]) -> None:
    sample = draw(SCENARIOS[name], spread=0.2)
    turn = rotation(SCENARIOS[name].dim).numpy()
    moved = Sample(7 * sample.features @ turn + 3, sample.labels, sample.num_classes)
    expected = metrics.numerical_rank(statistics_of(sample))
    assert metrics.numerical_rank(statistics_of(moved)) == expected == ORACLE["numerical_rank"](sample)


def test_one_class_has_a_rank_and_none_has_not() -> None:
    features = torch.randn(40, 3, **float64)
    assert metrics.numerical_rank(ClassStatistics.from_features(features, torch.zeros(40).long(), 1)) == 3
    assert metrics.numerical_rank(ClassStatistics.from_features(features[:1], torch.zeros(1).long(), 1)) == 0
    with pytest.raises(EmptyClassError, match="all classes are empty"):
        metrics.numerical_rank(ClassStatistics.empty(4, 3))


def test_what_a_rank_needs() -> None:
    features, labels = torch.randn(9, 3), torch.arange(9) % 3
    with pytest.raises(ScatterError, match="covariance=True"):
        metrics.numerical_rank(ClassStatistics.from_features(features, labels, 3, covariance=False))
    for threshold in (-1e-3, math.nan):
        with pytest.raises(RangeError, match="threshold must be finite and >= 0"):
            metrics.numerical_rank(ClassStatistics.from_features(features, labels, 3), threshold=threshold)


# ---------------------------------------------------------------------- angles


def assert_angles(statistics: ClassStatistics, consumer: Tensor, degrees: list[float], tolerance: float) -> None:
    angles = metrics.principal_angles(statistics, consumer)
    expected = torch.deg2rad(torch.tensor(degrees, **float64))
    torch.testing.assert_close(angles, expected, rtol=tolerance, atol=1e-14)
    for function, value in (
        (metrics.principal_angle, expected.mean()),
        (VARIANTS["largest_principal_angle"], expected.max()),
    ):
        torch.testing.assert_close(function(statistics, consumer), value.rad2deg(), rtol=tolerance, atol=1e-12)


TRIANGLE = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]], **float64) + 5  # in the plane z = 5


@pytest.mark.parametrize("degrees", [0.0, 1e-12, 1e-7, 0.01, 30.0, 45.0, 89.0, 90 - 1e-9, 90.0])
def test_two_planes_at_a_known_angle(degrees: float) -> None:
    """Planes that meet in the x axis."""
    angle = math.radians(degrees)
    weight = torch.tensor([[3.0, 0.0, 0.0], [0.0, math.cos(angle), math.sin(angle)]], **float64)
    assert_angles(of_means(TRIANGLE), weight, [0.0, degrees], 1e-9 if degrees > 1e-9 else 1e-3)


def test_only_the_top_singular_vectors_count() -> None:
    """The weight reads all of space; the means' plane shares the x axis with its two widest directions."""
    weight = torch.diag(torch.tensor([5.0, 1.0, 2.0], **float64))
    assert_angles(of_means(TRIANGLE), weight, [0.0, 90.0], 1e-12)


def test_a_strong_common_mean_takes_a_place() -> None:
    means = torch.tensor([[1.0, 0.0, 9.0], [0.0, 1.0, 9.0], [-1.0, -1.0, 9.0]], **float64)
    assert_angles(of_means(means), means, [0.0, 90.0], 1e-12)
    assert_angles(of_means(means), means - means.mean(0), [0.0, 0.0], 1e-12)


@pytest.mark.parametrize("rank", [0, 1, 2, 3])
def test_what_is_not_read_is_at_a_right_angle(rank: int) -> None:
    """Four means span three dimensions, of which the weight reads `rank`, whether it is low or lacks rank."""
    weight, means = torch.eye(5, **float64)[:rank], torch.eye(5, **float64)[[0, 1, 2, 3]]
    means[3] = 0
    expected = [0.0] * rank + [90.0] * (3 - rank)
    for consumer in (weight, torch.randn(7, rank, **float64) @ weight):
        assert_angles(of_means(means), consumer, expected, 1e-12)


@pytest.mark.parametrize("M", [1, 3, 6, 40])
@pytest.mark.parametrize("name", SCENARIOS)
def test_angles_equal_the_oracle(name: str, M: int) -> None:
    statistics = statistics_of(draw(SCENARIOS[name], offset=10.0))
    weight = torch.randn(M, statistics.num_features, **float64)
    means = statistics.means[statistics.present].numpy().astype(np.longdouble)
    degrees = angles_by_loops(means - means.mean(0), weight.numpy())
    assert len(degrees) == min(len(means) - 1, statistics.num_features)
    assert_angles(statistics, weight, degrees, 1e-10)


@pytest.mark.parametrize("name", SCENARIOS)
def test_angles_ignore_rotation_translation_and_scale(name: str, rotation: Callable[[int], Tensor]) -> None:
    sample = draw(SCENARIOS[name])
    statistics, turn = statistics_of(sample), rotation(SCENARIOS[name].dim)
    weight = torch.randn(7, statistics.num_features, **float64)
    moved = statistics_of(Sample(7 * sample.features @ turn.numpy() + 3, sample.labels, sample.num_classes))
    expected = torch.rad2deg(metrics.principal_angles(statistics, weight)).tolist()
    assert_angles(moved, 1e-9 * weight @ turn, expected, 1e-10)
    assert_angles(statistics, rotation(7) @ weight, expected, 1e-10)  # of the outputs: no singular vector turns


def test_coincident_means_leave_their_true_rank() -> None:
    means = TRIANGLE[[0, 1, 2, 1]]
    with pytest.warns(GeometryWarning, match="span 2 of 3 possible dimensions.*coincide: 1, 3"):
        angles = metrics.principal_angles(of_means(means), torch.eye(2, 3, **float64))
    torch.testing.assert_close(angles, torch.zeros(2, **float64))


def test_no_span_has_no_angle() -> None:
    """Means in one place: no angle at all, which isn't an angle of zero."""
    statistics, weight = of_means(torch.ones(3, 4)), torch.ones(2, 4)
    with pytest.warns(GeometryWarning, match="span 0 of"):
        assert metrics.principal_angles(statistics, weight).shape == (0,)
    for function in (metrics.principal_angle, VARIANTS["largest_principal_angle"]):
        with pytest.warns(GeometryWarning, match="span 0 of"):
            assert function(statistics, weight).isnan()


def test_as_many_classes_as_dimensions_align_with_anything() -> None:
    assert_angles(of_means(torch.randn(4, 3, **float64)), torch.randn(9, 3, **float64), [0.0] * 3, 1e-12)


@pytest.mark.parametrize("shape", [(3,), (3, 4), (3, 2), (3, 3, 3)])
def test_a_weight_that_reads_something_else_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"must have shape \(outputs, 3\); got \(3"):
        metrics.principal_angles(of_means(TRIANGLE), torch.ones(shape))


def test_a_float32_weight_is_taken_as_it_is() -> None:
    statistics, weight = of_means(TRIANGLE), torch.randn(5, 3)
    angles = metrics.principal_angles(statistics, weight)
    assert angles.dtype is torch.float64
    assert torch.equal(angles, metrics.principal_angles(statistics, weight.double()))


def test_one_class_spans_nothing() -> None:
    statistics = ClassStatistics.from_features(torch.randn(5, 2), torch.ones(5).long(), 3)
    with pytest.raises(EmptyClassError, match="1 of 3 has"):
        metrics.principal_angles(statistics, torch.eye(2))


@pytest.mark.parametrize("M", [2, 3, 5, 12])
@pytest.mark.parametrize("coincident", [False, True])
def test_derivatives(M: int, coincident: bool) -> None:
    """With respect to means and weight: narrower and wider than the means' span, which may lack rank."""
    means = torch.randn(4, 7, **float64)[[0, 1, 2, 3, 0] if coincident else [0, 1, 2, 3]].requires_grad_()
    pull = torch.tensor([1.0, 0.3, 2.0], **float64)

    def value(means: Tensor, weight: Tensor) -> Tensor:
        return metrics.principal_angles(of_means(means), weight) @ pull

    weight = torch.randn(M, 7, **float64, requires_grad=True)
    if not coincident:
        assert torch.autograd.gradcheck(value, (means, weight))
        return
    with pytest.warns(GeometryWarning):  # its rank would change with one mean alone, so only the weight is moved
        assert torch.autograd.gradcheck(value, (means.detach(), weight))


def test_a_tie_between_singular_values_has_a_finite_gradient() -> None:
    weight = torch.eye(3, **float64).requires_grad_()
    metrics.principal_angle(of_means(TRIANGLE), weight).backward()
    assert weight.grad.isfinite().all()


# ---------------------------------------------------------------------- separation by depth


def line_by_hand(values: list[float]) -> tuple[float, float]:
    """Slope and correlation of (depth, log value)."""
    slope, _ = np.polyfit(range(len(values)), np.log(values), 1)
    return float(slope), float(np.corrcoef(range(len(values)), np.log(values))[0, 1])


def test_equi_separation_is_the_line_through_the_logarithms() -> None:
    rng = np.random.default_rng(0)
    for layers in (3, 5, 12):
        values = np.exp(rng.normal(size=layers) - np.arange(layers)).tolist()
        law, (slope, correlation) = metrics.equi_separation(values), line_by_hand(values)
        assert law.rate == pytest.approx(math.exp(slope), rel=1e-10)
        assert law.correlation == pytest.approx(correlation, rel=1e-10)
        residuals = np.abs(np.log(values) - np.log(law.fitted))
        assert law.worst == residuals.argmax()
        assert np.log(law.fitted).mean() == pytest.approx(np.log(values).mean(), rel=1e-10)
    scaled = metrics.equi_separation([7 * value for value in values])
    assert (scaled.rate, scaled.correlation) == pytest.approx((law.rate, law.correlation), rel=1e-10)


def test_equi_separation_of_an_exact_law() -> None:
    law = metrics.equi_separation([3 * 0.7**depth for depth in range(6)])
    assert (law.rate, law.correlation) == pytest.approx((0.7, -1.0), rel=1e-12)
    assert law.fitted == pytest.approx([3 * 0.7**depth for depth in range(6)], rel=1e-12)


def test_equi_separation_is_undefined_where_there_is_no_line() -> None:
    for values in ([], [1.0], [1.0, 0.0, 0.5], [1.0, math.nan, 0.5], [math.inf, 1.0, 0.5]):
        law = metrics.equi_separation(values)
        assert math.isnan(law.rate) and math.isnan(law.correlation) and law.worst is None
        assert len(law.fitted) == len(values)
    two = metrics.equi_separation([4.0, 1.0])
    assert two.rate == pytest.approx(0.25) and math.isnan(two.correlation) and two.worst is None
    flat = metrics.equi_separation([2.0, 2.0, 2.0])
    assert flat.rate == pytest.approx(1.0) and math.isnan(flat.correlation)
