"""Scores of detectors equal those of released code on the same features; see record_detectors.py."""

import json
from pathlib import Path

import pytest
import torch
from released_data import DATA, Data
from torch import Tensor

from tightframe import ClassStatistics
from tightframe.ood import Energy, GeneralizedEntropy, Nci, RelativeMahalanobis, Residual, Vim

RECORDED = json.loads((Path(__file__).parent / "recorded_detectors.json").read_text())["values"]
KINDS = ("uneven", "crowded")


def rows_of(data: Data) -> Tensor:
    return torch.cat([data.features[:10], data.outside])


def statistics_of(data: Data) -> ClassStatistics:
    return ClassStatistics.from_features(data.features, data.labels, len(data.weight))


def recorded(kind: str, name: str) -> Tensor:
    return torch.tensor(RECORDED[kind][name], dtype=torch.float64)


def require_recorded(scores: Tensor, kind: str, name: str) -> None:
    torch.testing.assert_close(scores, recorded(kind, name), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_residual_and_vim(kind: str) -> None:
    data = DATA[kind]
    statistics, half = statistics_of(data), data.features.shape[1] // 2
    residual = Residual.fit(statistics, data.weight, data.bias)
    assert residual.settings == {"components": half, "rank": 2 * half}
    require_recorded(residual.scores(rows_of(data)), kind, f"residual, dim={half}")
    vim = Vim.fit(statistics, data.weight, data.bias).matched(data.features)
    assert float(vim.scale) == pytest.approx(RECORDED[kind]["vim, alpha"], rel=1e-9)
    require_recorded(vim.scores(rows_of(data)), kind, f"vim, dim={half}")


@pytest.mark.parametrize("kind", KINDS)
def test_relative_mahalanobis(kind: str) -> None:
    require_recorded(RelativeMahalanobis.fit(statistics_of(DATA[kind])).scores(rows_of(DATA[kind])), kind, "rmds")


@pytest.mark.parametrize("alpha", [0.0001, 0.1])
@pytest.mark.parametrize("kind", KINDS)
def test_nci(kind: str, alpha: float) -> None:
    data = DATA[kind]
    detector = Nci.fit(statistics_of(data), data.weight, data.bias, alpha=alpha)
    require_recorded(detector.scores(rows_of(data)), kind, f"nci, alpha={alpha}")


@pytest.mark.parametrize(("gamma", "largest"), [(0.1, 100), (0.5, 3)])
@pytest.mark.parametrize("kind", KINDS)
def test_generalised_entropy(kind: str, gamma: float, largest: int) -> None:
    """Without the samples whose 1 - p has lost more than seven digits in the released code."""
    data = DATA[kind]
    scores = GeneralizedEntropy.fit(data.weight, data.bias, gamma=gamma, largest=largest).scores(rows_of(data))
    exact = 1 - (rows_of(data) @ data.weight.mT + data.bias).softmax(1).amax(1) > 1e-9
    assert int(exact.sum()) >= 24
    names = [f"gen, gamma={gamma}, M={largest}", *(["generalized_entropy"] if largest == 100 else [])]
    for name in names:
        torch.testing.assert_close(scores[exact], recorded(kind, name)[exact], rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("kind", KINDS)
def test_energy(kind: str, temperature: float) -> None:
    data = DATA[kind]
    detector = Energy.fit(data.weight, data.bias, temperature=temperature)
    require_recorded(detector.scores(rows_of(data)), kind, f"ebo, temperature={temperature}")
