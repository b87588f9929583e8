"""Statistics with shuffled labels: what the draws conserve."""

import math
from dataclasses import replace

import pytest
import torch

from metrics.permuted import SHAPES, statistics_of
from tightframe.metrics import Evidence, levels, shuffled
from tightframe.statistics import ClassStatistics

pytestmark = pytest.mark.levels


@pytest.mark.parametrize("name", SHAPES)
def test_draws_conserve_counts_mean_and_total_scatter(name: str) -> None:
    statistics = statistics_of(SHAPES[name], per_class=True)
    mean, total = statistics.global_mean("sample"), statistics.total_covariance()
    size = float(total.trace())
    for draw in shuffled(statistics, 3, class_scatter=True):
        drawn = draw.statistics
        assert torch.equal(drawn.counts, statistics.counts)
        torch.testing.assert_close(drawn.global_mean("sample"), mean, rtol=0, atol=1e-12)
        torch.testing.assert_close(drawn.total_covariance(), total, rtol=0, atol=1e-10 * size)
        assert not torch.allclose(drawn.means, statistics.means)
        assert drawn.within is not None and drawn.class_within is not None
        within = drawn.within
        assert float(torch.linalg.eigvalsh(within)[0]) >= -1e-12 * size
        torch.testing.assert_close(drawn.spread.sum(), within.trace(), rtol=1e-9, atol=1e-12 * size)
        torch.testing.assert_close(drawn.class_within.sum(0), within, rtol=0, atol=1e-10 * size)
        torch.testing.assert_close(
            drawn.class_within.diagonal(dim1=1, dim2=2).sum(1), drawn.spread, rtol=1e-9, atol=1e-12 * size
        )
        assert not drawn.spread[drawn.counts == 1].any()
        degrees = int(statistics.num_samples) - len(statistics.counts)
        assert int(torch.linalg.matrix_rank(within, rtol=1e-9)) == min(degrees, len(within))


@pytest.mark.parametrize("name", SHAPES)
def test_drawn_means_have_the_covariance_of_a_permutation(name: str) -> None:
    """E (mean_k - m)(mean_l - m)^T is S_T / (N (N-1)) times N / n_k - 1 or -1, whatever the features are."""
    statistics = statistics_of(SHAPES[name])
    counts, N = statistics.counts.double(), int(statistics.num_samples)
    covariance = statistics.total_covariance()
    axis = torch.linalg.eigh(covariance).eigenvectors[:, -1]
    gaps = torch.stack(
        [(d.statistics.means - statistics.global_mean("sample")) @ axis for d in shuffled(statistics, 800)]
    )
    products = gaps[:, :, None] * gaps[:, None, :]
    ideal = (torch.diag(N / counts) - 1) * float(axis @ covariance @ axis) / (N - 1)
    error = products.std(0) / math.sqrt(len(gaps))
    assert ((products.mean(0) - ideal).abs() <= 4.5 * error).all()


@pytest.mark.parametrize("kept", [True, False])
def test_drawn_samples_scatter_as_the_drawn_classes_do(kept: bool) -> None:
    """About the mean of their class, which they are a part of: the covariance is (1 - 1/n) / (N - K) of the scatter."""
    for data in (
        SHAPES["single samples"],
        SHAPES["more classes than dimensions"],
        SHAPES["fewer samples than dimensions"],
    ):
        statistics = statistics_of(data, covariance=kept)
        draw = next(iter(shuffled(statistics, 1)))
        within, counts = draw.statistics.within, statistics.counts
        if within is None:
            within = torch.eye(data.dim, dtype=torch.float64) * draw.statistics.spread.sum() / data.dim
        noise = draw.factor.noise(20_000, torch.Generator().manual_seed(0))
        for label, count in enumerate(counts.tolist()):
            gaps = draw.samples(torch.full((20_000,), label), noise).double() - draw.statistics.means[label]
            ideal = within * (1 - 1 / count) / (counts.sum() - len(counts))
            size = float(ideal.diagonal().max())
            torch.testing.assert_close(gaps.mT @ gaps / len(gaps), ideal, rtol=0, atol=0.05 * size + 1e-12)


def test_all_drawn_samples_have_the_drawn_means_and_their_scatter_on_average() -> None:
    statistics = statistics_of(SHAPES["single samples"])
    draw = next(iter(shuffled(statistics, 1)))
    labels = torch.arange(5).repeat_interleave(statistics.counts)
    generator, total = torch.Generator().manual_seed(0), 0.0
    for _ in range(400):
        features = draw.samples(labels, draw.factor.noise(len(labels), generator), complete=True)
        drawn = ClassStatistics.from_features(features, labels, 5)
        torch.testing.assert_close(drawn.means, draw.statistics.means, rtol=0, atol=1e-5)
        total += drawn.require_within("a test") / 400
    assert draw.statistics.within is not None
    torch.testing.assert_close(total, draw.statistics.within, rtol=0, atol=0.05 * float(total.diagonal().max()))


def test_empty_classes_take_no_part() -> None:
    features, labels = torch.randn(40, 6, dtype=torch.float64), 2 * (torch.arange(40) % 4)
    some = ClassStatistics.from_features(features, labels, 9)
    drawn = next(iter(shuffled(some, 1))).statistics
    assert drawn.class_ids.tolist() == [0, 2, 4, 6] and drawn.num_labels == 9
    packed = ClassStatistics.from_features(features, labels // 2, 4)
    assert torch.equal(drawn.means, next(iter(shuffled(packed, 1))).statistics.means)
    assert levels(Evidence(some)) == levels(Evidence(packed))


def test_given_centres_and_projections_are_drawn_from_their_own_scatter() -> None:
    features, labels = torch.randn(60, 8, dtype=torch.float64), torch.arange(60) % 4
    statistics = ClassStatistics.from_features(features, labels, 4)
    about = statistics.about(statistics.means + torch.randn(4, 8, dtype=torch.float64))
    total = about.total_covariance()
    drawn = next(iter(shuffled(about, 1))).statistics
    torch.testing.assert_close(drawn.total_covariance(), total, rtol=1e-10, atol=1e-10)
    assert drawn.recentred
    basis = torch.linalg.qr(statistics.centred_means()[:3].mT)[0]
    inside = ClassStatistics.from_features(features @ basis, labels, 4)
    bare = replace(statistics, within=None)
    found = levels(Evidence(bare, projected=inside), ["nc1", "etf_error"], draws=20)
    assert found["nc1"] == levels(Evidence(inside), ["nc1"], draws=20)["nc1"]  # drawn from what was projected
    assert (found["nc1"].kind, found["etf_error"].kind) == ("shuffled", "isotropic")
