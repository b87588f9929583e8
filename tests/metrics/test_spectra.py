"""Spectra: effective dimensions and decays, of the whole and of classes; what few samples do to them."""

import math

import numpy as np
import pytest
import torch

from oracle import ORACLE, Sample
from tightframe import ClassStatistics, metrics
from tightframe.errors import ChoiceError, EmptyClassError, GeometryWarning, RangeError, ScatterError

SPECTRAL = (metrics.rankme, metrics.effective_rank, metrics.alpha_req)


def normal(samples: int = 90, dim: int = 7, classes: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(samples) % classes
    means = torch.randn(classes, dim, generator=generator, dtype=torch.float64)
    rows = torch.randn(samples, dim, generator=generator, dtype=torch.float64)
    return means[labels] + rows * torch.linspace(0.2, 2, dim), labels


def statistics_of(features: torch.Tensor, labels: torch.Tensor, **options: bool) -> ClassStatistics:
    return ClassStatistics.from_features(features, labels, int(labels.max()) + 1, **options)


def test_check_values(example_a: ClassStatistics) -> None:
    """Section T, example A: both directions vary alike."""
    assert metrics.rankme(example_a).item() == pytest.approx(2, abs=1e-6)
    assert metrics.effective_rank(example_a).item() == pytest.approx(2, abs=1e-6)
    assert metrics.alpha_req(example_a).item() == pytest.approx(0, abs=1e-6)


def test_spectrum_is_that_of_the_covariance() -> None:
    features, labels = normal()
    statistics = statistics_of(features, labels)
    expected = np.linalg.eigvalsh(np.cov(features.numpy(), rowvar=False, ddof=0))[::-1]
    np.testing.assert_allclose(metrics.spectrum(statistics), expected, rtol=1e-12)
    parts = {"within": statistics.within_covariance(), "between": statistics.between_covariance("class")}
    for of, matrix in parts.items():
        values = torch.linalg.eigvalsh(matrix).flip(0)
        found = metrics.spectrum(statistics, of)
        scale = len(statistics.means) if of == "between" else 1
        assert len(found) == (7 if of == "within" else 2)
        torch.testing.assert_close(found, scale * values[: len(found)], rtol=1e-10, atol=0)


def test_rankme_of_features_far_from_the_origin_loses_no_digits() -> None:
    features, labels = normal()
    for offset in (0.0, 10.0, 1e4, 1e6):
        sample = Sample((features + offset).numpy(), labels.numpy(), 3)
        value = metrics.rankme(statistics_of(features + offset, labels)).item()
        assert value == pytest.approx(ORACLE["rankme"](sample), rel=1e-9)


def test_rankme_is_that_of_released_code_but_for_its_offset() -> None:
    """Garrido et al. 2023 add 1e-7 to each share (as others who release the formula do): seen at 1e-5, no more."""
    features, labels = normal()
    sizes = np.linalg.svd(features.numpy(), compute_uv=False)
    shares = sizes / sizes.sum() + 1e-7
    released = math.exp(-(shares * np.log(shares)).sum())
    assert metrics.rankme(statistics_of(features, labels)).item() == pytest.approx(released, rel=1e-5)


def test_alpha_req_is_the_fit_of_the_released_code() -> None:
    """Weights 1/rank, ranks first to last: the normal equations of the released fit."""
    features, labels = normal(400, 40)
    values = np.sort(np.linalg.eigvalsh(np.cov(features.numpy(), rowvar=False, ddof=0)))[::-1]
    for first, last in ((1, 40), (4, 30), (12, 40)):
        ranks = np.arange(first, last + 1)
        design = np.stack([-np.log(ranks), np.ones(len(ranks))], 1)
        weights = (1 / ranks)[:, None]
        right = (weights * design).T @ np.log(values[first - 1 : last])
        slope = np.linalg.solve(design.T @ (design * weights), right)[0]
        found = metrics.alpha_req(statistics_of(features, labels), first=first, last=last)
        assert found.item() == pytest.approx(slope, rel=1e-9)


def test_power_laws_have_their_exponent() -> None:
    for exponent in (0.5, 1.0, 2.0):
        roots = torch.arange(1, 21, dtype=torch.float64) ** (-exponent / 2)
        features = torch.cat([torch.diag(roots), -torch.diag(roots)])
        statistics = statistics_of(features, torch.arange(40) % 2)
        for options in ({}, {"weighted": False}, {"first": 3, "last": 12}):
            assert metrics.alpha_req(statistics, **options).item() == pytest.approx(exponent, rel=1e-9)


def test_few_samples_are_told() -> None:
    features, labels = normal(12, 30)
    statistics = statistics_of(features, labels)
    for function, most in ((metrics.rankme, "N = 12"), (metrics.effective_rank, "N - 1 = 11")):
        with pytest.warns(GeometryWarning, match=rf"limited by the number of samples: 12 .* 30 dimensions .*{most}"):
            assert 1 < function(statistics).item() <= 12
    with pytest.warns(GeometryWarning, match="Pass more than 30 samples, or compare only features with the same"):
        metrics.alpha_req(statistics)
    with pytest.warns(GeometryWarning, match="the participation ratio is limited"):
        metrics.participation_ratio(statistics, of="within")
    assert len(metrics.spectrum(statistics)) == 11


def test_undefined_is_not_zero() -> None:
    still = statistics_of(torch.zeros(8, 3, dtype=torch.float64), torch.arange(8) % 2)
    for function in SPECTRAL:
        assert function(still).isnan()
    line = statistics_of(torch.arange(8, dtype=torch.float64)[:, None] * torch.ones(3), torch.arange(8) % 2)
    assert metrics.effective_rank(line).item() == pytest.approx(1, abs=1e-12)
    assert metrics.alpha_req(line).isnan()  # one eigenvalue has no slope
    assert metrics.alpha_req(statistics_of(*normal()), first=7).isnan()


def test_each_class_by_itself() -> None:
    features, labels = normal(60, 5)
    features[labels == 2, 1:] = 1.0  # the last class varies along one direction
    statistics = statistics_of(features, labels, per_class=True)
    ranks, ratios = metrics.effective_rank_per_class(statistics), metrics.participation_ratio_per_class(statistics)
    for k in range(3):
        alone = ClassStatistics.from_features(features[labels == k], torch.zeros(20, dtype=torch.int64), 1)
        torch.testing.assert_close(ranks[k], metrics.effective_rank(alone), rtol=1e-10, atol=0)
        torch.testing.assert_close(ratios[k], metrics.participation_ratio(alone, of="total"), rtol=1e-10, atol=0)
    assert ranks[2].item() == pytest.approx(1)
    single = statistics_of(torch.eye(3, dtype=torch.float64), torch.tensor([0, 0, 1]), per_class=True)
    assert metrics.effective_rank_per_class(single).isnan().tolist() == [False, True]
    assert metrics.participation_ratio_per_class(single).isnan().tolist() == [False, True]
    for function in (metrics.effective_rank_per_class, metrics.participation_ratio_per_class):
        with pytest.raises(ScatterError, match="per_class=True"):
            function(statistics_of(features, labels))


def test_what_is_wrong_is_named() -> None:
    statistics = statistics_of(*normal())
    with pytest.raises(ChoiceError, match=r"of must be .*; got 'whole'"):
        metrics.spectrum(statistics, "whole")
    with pytest.raises(RangeError, match="first must be at least 1; got 0"):
        metrics.alpha_req(statistics, first=0)
    with pytest.raises(RangeError, match=r"last must be at least first \+ 1 = 4; got 3"):
        metrics.alpha_req(statistics, first=3, last=3)
    with pytest.raises(EmptyClassError, match="a spectrum needs at least one class with samples"):
        metrics.rankme(ClassStatistics.empty(3, 2))
    with pytest.raises(ScatterError, match="covariance=True"):
        metrics.effective_rank(statistics_of(*normal(), covariance=False))
    lean = statistics_of(*normal(), covariance=False)
    assert metrics.effective_rank(lean, of="between").isfinite()  # needs only the means


def test_reports_have_them_if_named() -> None:
    import tightframe as tf

    features, labels = normal()
    assert "rankme" not in tf.measure(features, labels, progress=False)
    report = tf.measure(features, labels, metrics=["rankme", "effective_rank", "alpha_req"], progress=False)
    assert report.keys() == ["rankme", "effective_rank", "alpha_req"]
    assert all(entry.standard_error > 0 and entry.shuffled is None for entry in report)
