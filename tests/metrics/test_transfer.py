"""Transfer: LogME, the shrunk H-score and the few-shot measures; values of released code and dense oracles."""

import math

import numpy as np
import pytest
import torch

from oracle import ORACLE, Sample
from tightframe import ClassStatistics, measure, metrics, theory
from tightframe.errors import ChoiceError, GeometryWarning, RangeError

RELEASED = {
    (80, 6, 4): {
        "log_me": -0.3991248014241569,
        "h_score": 2.0362904102262798,
        "shrinkage": 0.268404106441624,
        "shrunk": 1.5967182943303697,
    },
    (300, 40, 5): {
        "log_me": 0.26970262899735353,
        "h_score": 3.569821358782143,
        "shrinkage": 0.06650117563982569,
        "shrunk": 3.5177149639584657,
        "alpha": 0.9144009100411844,
        "effective rank": 23.194247845133543,
    },
}
"""What released code returns for `recorded(N, D, K)`: LogME.fit of thuml/LogME at 56551ca, the H-scores of the code
released with thuml/Transfer-Learning-Library (the regularised one with scikit-learn's LedoitWolf), and get_powerlaw
(ranks 3 to 30) and get_rank of arnab39/reptrix at f93c9b6."""


def recorded(samples: int, dim: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(samples)
    labels = np.arange(samples) % classes
    return rng.normal(size=(samples, dim)) + rng.normal(size=(classes, dim))[labels], labels


def statistics_of(features: np.ndarray, labels: np.ndarray) -> ClassStatistics:
    return ClassStatistics.from_features(features, labels, int(labels.max()) + 1)


@pytest.mark.parametrize("size", RELEASED)
def test_released_code_gives_the_same(size: tuple[int, int, int]) -> None:
    released, statistics = RELEASED[size], statistics_of(*recorded(*size))
    samples = size[0]
    # their 1e-5 in two denominators and the stop after a relative step of 1e-3 show in the sixth digit
    assert metrics.log_me(statistics).item() == pytest.approx(released["log_me"], abs=2e-5)
    assert metrics.h_score(statistics).item() == pytest.approx(released["h_score"], rel=1e-9)
    shrunk = metrics.h_score(statistics, shrinkage=released["shrinkage"]).item()
    assert shrunk * samples / (samples - 1) == pytest.approx(released["shrunk"], rel=1e-9)  # S_B over N - 1 there
    if "alpha" in released:
        alpha = metrics.alpha_req(statistics, first=3, last=30).item()
        assert alpha == pytest.approx(released["alpha"], rel=1e-6)  # their weights are in float32
        rank = metrics.effective_rank(statistics).item()
        assert rank == pytest.approx(released["effective rank"], rel=1e-4)  # plus 1e-7 per share


# ---------------------------------------------------------------------- LogME


def evidence_by_grid(features: np.ndarray, target: np.ndarray) -> float:
    """The largest log evidence per sample over a fine grid of both precisions, from the Gaussian of the targets."""
    samples, best = len(target), -math.inf
    gram = features @ features.T
    values, vectors = np.linalg.eigh(gram)
    along = vectors.T @ target
    for alpha in np.exp(np.linspace(-8, 12, 161)):
        for beta in np.exp(np.linspace(-2, 8, 161)):
            variances = values.clip(0) / alpha + 1 / beta
            value = -0.5 * (np.log(2 * np.pi * variances).sum() + (along**2 / variances).sum())
            best = max(best, value / samples)
    return best


def test_log_me_is_the_maximum_of_the_evidence() -> None:
    """The targets are Gaussian with covariance F F^T / alpha + I / beta: no other formula is shared."""
    features, labels = recorded(40, 5, 2)
    expected = np.mean([evidence_by_grid(features, (labels == k).astype(float)) for k in range(2)])
    value = metrics.log_me(statistics_of(features, labels)).item()
    assert expected <= value <= expected + 1e-3


def test_log_me_of_labels_that_features_do_not_tell() -> None:
    """The weights are then 0, and the evidence is that of noise alone; the maximum lies at infinity."""
    labels = np.arange(64) // 4 % 2
    features = np.array([1.0, -1.0, 1.0, -1.0] * 16)[:, None]
    value = metrics.log_me(statistics_of(features, labels)).item()
    assert value == pytest.approx(-0.5 * (math.log(2 * math.pi * 32 / 64) + 1), rel=1e-12)


def test_log_me_is_infinite_where_labels_are_linear_in_the_features() -> None:
    features = np.eye(3)[np.arange(12) % 3]
    assert metrics.log_me(statistics_of(features, np.arange(12) % 3)).item() == math.inf


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scatter_below_the_resolution_is_not_taken_for_none(dtype: type[np.floating]) -> None:
    """Variances fall to 1e-20 of the largest: most of the scatter is rounding, but that makes no label linear."""
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 4
    noise, means = rng.normal(size=(200, 30)), rng.normal(size=(4, 30))
    features = ((noise + 0.3 * means[labels]) * np.logspace(0, -10, 30)).astype(dtype)
    value = metrics.log_me(statistics_of(features, labels)).item()
    few = metrics.log_me(statistics_of(features[:, :12], labels)).item()  # these directions are resolved
    assert few - 1e-6 < value < few + 0.1
    assert value == pytest.approx(ORACLE["log_me"](Sample(features, labels, 4)), abs=0.01)


def test_log_me_with_more_dimensions_than_samples_is_the_limit_of_the_evidence() -> None:
    features, labels = recorded(12, 30, 2)
    value = metrics.log_me(statistics_of(features, labels)).item()
    values, vectors = np.linalg.eigh(features @ features.T)
    limits = []
    for k in range(2):
        along = (vectors.T @ (labels == k)) ** 2
        evidences = []
        for ratio in np.exp(np.linspace(-20, 20, 2001)):
            shape = values / ratio + 1
            noise = (along / shape).mean()
            evidences.append(-0.5 * (np.log(2 * np.pi * shape * noise).mean() + 1))
        limits.append(max(evidences))
    assert value == pytest.approx(np.mean(limits), abs=1e-4)


def test_log_me_far_from_the_origin_loses_no_digits() -> None:
    features, labels = recorded(60, 5, 3)
    for offset in (0.0, 1e2, 1e4):
        sample = Sample(features + offset, labels, 3)
        assert metrics.log_me(statistics_of(features + offset, labels)).item() == pytest.approx(
            ORACLE["log_me"](sample), rel=1e-8
        )


# ---------------------------------------------------------------------- shrinkage


@pytest.mark.parametrize("size", [(200, 20, 4), (50, 100, 4), (300, 64, 10)])
def test_the_shrinkage_is_that_of_the_samples_on_gaussian_classes(size: tuple[int, int, int]) -> None:
    covariance = pytest.importorskip("sklearn.covariance")
    features, labels = recorded(*size)
    expected = covariance.ledoit_wolf_shrinkage(features)
    assert metrics.ledoit_wolf_shrinkage(statistics_of(features, labels)).item() == pytest.approx(expected, rel=0.05)


def test_shrinkage_makes_few_samples_comparable() -> None:
    features, labels = recorded(40, 60, 4)
    statistics = statistics_of(features, labels)
    with pytest.warns(GeometryWarning, match="H-score is undefined"):
        assert metrics.h_score(statistics).isnan()
    random = statistics_of(np.random.default_rng(1).normal(size=(40, 60)), labels)
    assert metrics.h_score(random, shrinkage="ledoit-wolf") < metrics.h_score(statistics, shrinkage="ledoit-wolf") < 3
    assert metrics.h_score(statistics, shrinkage=1.0) == 0
    with pytest.raises(RangeError, match=r"shrinkage must lie in \[0, 1\], or be 'ledoit-wolf'; got 1.5"):
        metrics.h_score(statistics, shrinkage=1.5)
    with pytest.raises(ChoiceError, match="shrinkage must be one of ledoit-wolf; got 'oas'"):
        metrics.h_score(statistics, shrinkage="oas")


def test_no_shrinkage_for_equal_variances() -> None:
    features = np.concatenate([np.eye(3), -np.eye(3)])
    statistics = statistics_of(features, np.array([0, 0, 0, 1, 1, 1]))
    assert metrics.ledoit_wolf_shrinkage(statistics) == 0
    one = statistics_of(np.arange(6.0)[:, None], np.arange(6) % 2)
    assert metrics.ledoit_wolf_shrinkage(one) == 0
    torch.testing.assert_close(metrics.h_score(one, shrinkage="ledoit-wolf"), metrics.h_score(one))


# ---------------------------------------------------------------------- few shots


def test_measures_of_few_shots_are_those_of_the_forecast() -> None:
    statistics = statistics_of(*recorded(200, 6, 4))
    forecast = theory.few_shot(statistics, (1, 3))
    torch.testing.assert_close(metrics.few_shot_error(statistics, shots=3), forecast.pair_error[1])
    assert metrics.few_shot_accuracy(statistics, shots=3) == forecast.accuracy[1]


def test_reports_have_their_errors() -> None:
    features, labels = recorded(400, 6, 4)
    named = ["log_me", "h_score", "few_shot_error", metrics.few_shot_accuracy.having(draws=64)]
    report = measure(features, labels, metrics=named, progress=False)
    assert report.keys() == ["log_me", "h_score", "few_shot_error", "few_shot_accuracy"]
    for entry in report:
        assert 0 < entry.standard_error < 0.1
        assert abs(entry.value - entry.shuffled) > 5 * entry.standard_error
    assert report["few_shot_accuracy"].standard_error < 0.03  # draws are common to the folds
