import itertools
import math

import pytest
import torch
from streams import D, K, features, streamed
from torch import Tensor

from tightframe import ClassStatistics
from tightframe.errors import (
    ClassifierError,
    DtypeError,
    EmptyClassError,
    NonFiniteError,
    RangeError,
    ScatterError,
    ShapeError,
)
from tightframe.ood import MaxLogit, Neco

ROWS, LABELS = features(400, 0)
NEW, _ = features(150, 1)
OTHER = 3 * torch.randn(150, D, generator=torch.Generator().manual_seed(2)).double()
COMBINATIONS = list(itertools.product([True, False], [True, False]))


def by_scikit_learn(rows: Tensor, new: Tensor, p: int, centred: bool, scaled: bool) -> Tensor:
    """From the stored features, as the released function does it where both are on."""
    decomposition = pytest.importorskip("sklearn.decomposition")
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    scaler = preprocessing.StandardScaler(with_mean=centred, with_std=scaled).fit(rows.numpy())
    directions = torch.from_numpy(decomposition.PCA(rows.shape[1]).fit(scaler.transform(rows.numpy())).components_)
    scores = []
    for row in torch.from_numpy(scaler.transform(new.numpy())):
        parts = [float(row @ directions[i]) for i in range(p)]
        scores.append(math.sqrt(sum(part**2 for part in parts)) / math.sqrt(sum(float(v) ** 2 for v in row)))
    return torch.tensor(scores, dtype=torch.float64)


def axes(*variances: float) -> ClassStatistics:
    """Features +-sqrt(2 v) on each axis, so that the axes are the principal directions."""
    rows = torch.diag(torch.tensor(variances, dtype=torch.float64).sqrt())
    rows = torch.cat([rows, -rows])
    return ClassStatistics.from_features(rows, torch.arange(len(rows)) % 2, 2)


@pytest.mark.parametrize(("centred", "scaled"), COMBINATIONS)
@pytest.mark.parametrize("p", [1, K - 1, D - 1])
def test_one_pass_gives_what_stored_features_give(centred: bool, scaled: bool, p: int) -> None:
    detector = Neco.fit(streamed(ROWS, LABELS), p, centred=centred, scaled=scaled)
    for new in (NEW, OTHER):
        expected = by_scikit_learn(ROWS, new, p, centred, scaled)
        torch.testing.assert_close(detector.scores(new), expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize(("centred", "scaled"), COMBINATIONS)
def test_the_factor_is_the_largest_logit(centred: bool, scaled: bool) -> None:
    weight, bias = torch.randn(K, D).double(), torch.randn(K).double()
    settings = {"centred": centred, "scaled": scaled}
    detector = Neco.fit(streamed(ROWS, LABELS), 4, **settings, max_logit=True, weight=weight, bias=bias)
    products = [[float(w @ row + b) for w, b in zip(weight, bias, strict=True)] for row in NEW]
    largest = torch.tensor([max(row) for row in products], dtype=torch.float64)
    expected = by_scikit_learn(ROWS, NEW, 4, **settings) * largest
    torch.testing.assert_close(detector.scores(NEW), expected, rtol=0, atol=1e-8 * float(largest.abs().max()))
    torch.testing.assert_close(
        detector.scores(NEW),
        Neco.fit(streamed(ROWS, LABELS), 4, **settings).scores(NEW) * MaxLogit.fit(weight, bias).scores(NEW),
        rtol=1e-12,
        atol=0,
    )
    assert detector.settings == {"components": 4, **settings, "max_logit": True, "rank": D}


def test_float32_products_cost_single_precision() -> None:
    """Wide enough, and enough rows, that the pass multiplies in float32."""
    mix = torch.randn(64, 64) * 10 ** torch.linspace(0, -2, 64)
    labels = torch.randint(0, K, (6000,))
    rows = torch.randn(6000, 64) @ mix + 3 * torch.randn(K, 64)[labels]
    new = torch.randn(200, 64) @ mix
    differences = []
    for centred, scaled in COMBINATIONS:
        found = Neco.fit(streamed(rows, labels), 12, centred=centred, scaled=scaled).scores(new)
        expected = by_scikit_learn(rows.double(), new.double(), 12, centred, scaled)
        differences.append(float((found - expected).abs().max()))
    assert 1e-12 < max(differences) < 1e-6  # not float64 all the way, and no more than single precision's rounding


def test_check_values() -> None:
    detector = Neco.fit(axes(9, 1), 1, scaled=False)
    rows = torch.tensor([[3.0, 4.0], [0.0, -2.0], [5.0, 0.0]])
    torch.testing.assert_close(
        detector.scores(rows), torch.tensor([0.6, 0.0, 1.0], dtype=torch.float64), rtol=0, atol=1e-12
    )


def test_a_curve_is_one_detector_after_another() -> None:
    statistics = streamed(ROWS, LABELS)
    for centred, scaled in COMBINATIONS:
        curve = Neco.fit(statistics, centred=centred, scaled=scaled).curve(NEW, [7, *range(1, D + 1)])
        for i, p in enumerate([7, *range(1, D + 1)]):
            one = Neco.fit(statistics, p, centred=centred, scaled=scaled).scores(NEW)
            torch.testing.assert_close(curve[:, i], one, rtol=0, atol=1e-13)
        assert bool((curve[:, 1:].diff(dim=1) >= 0).all())


def test_all_components_rank_nothing() -> None:
    """Every score is 1 to the last bit: rounding would order samples at random."""
    assert bool((Neco.fit(streamed(ROWS, LABELS), D).scores(torch.cat([NEW, OTHER])) == 1).all())


def test_the_default_is_the_dimension_of_the_simplex() -> None:
    assert Neco.fit(streamed(ROWS, LABELS)).components == K - 1
    assert Neco.fit(streamed(ROWS, LABELS, K + 3)).components == K - 1  # classes without samples don't count
    many = ClassStatistics.from_features(ROWS[:, :2], LABELS, K)
    assert Neco.fit(many).components == 2


def test_rotation_and_scale() -> None:
    turn = torch.linalg.qr(torch.randn(D, D).double())[0]
    turned = ClassStatistics.from_features(ROWS @ turn * 7, LABELS, K)
    for centred in (True, False):
        before = Neco.fit(streamed(ROWS, LABELS), 4, centred=centred, scaled=False).scores(NEW)
        after = Neco.fit(turned, 4, centred=centred, scaled=False).scores(NEW @ turn * 7)
        torch.testing.assert_close(after, before, rtol=0, atol=1e-11)
    units = 10 ** torch.linspace(-3, 3, D).double()
    stretched = ClassStatistics.from_features(ROWS * units, LABELS, K)
    for centred in (True, False):
        before = Neco.fit(streamed(ROWS, LABELS), 4, centred=centred).scores(NEW)
        torch.testing.assert_close(
            Neco.fit(stretched, 4, centred=centred).scores(NEW * units), before, rtol=0, atol=1e-11
        )
    moved = Neco.fit(ClassStatistics.from_features(ROWS + 50, LABELS, K), 4).scores(NEW + 50)
    torch.testing.assert_close(moved, Neco.fit(streamed(ROWS, LABELS), 4).scores(NEW), rtol=0, atol=1e-11)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e4 + 1 / 3])
def test_a_feature_that_never_varied_keeps_its_unit(constant: float) -> None:
    """As in scikit-learn; the one-pass variance of a constant may be rounding instead of zero."""
    rows, new = ROWS.clone(), NEW.clone()
    rows[:, 3] = constant
    new[:, 3] = constant
    new[50:, 3] += 2
    detector = Neco.fit(streamed(rows, LABELS), 6)
    assert detector.rank == D - 1
    assert detector.spectrum.scale[3] == 1
    torch.testing.assert_close(detector.scores(new), by_scikit_learn(rows, new, 6, True, True), rtol=0, atol=1e-8)
    alive = detector.curve(new, [D])[:, 0]  # the training span holds all but what came alive
    assert bool((alive[50:] < 1).all())
    torch.testing.assert_close(alive[:50], torch.ones(50).double(), rtol=0, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_directions_without_variance_are_no_components(dtype: torch.dtype) -> None:
    """Features in a random subspace of 4 dimensions: rounding must not supply a fifth direction."""
    basis = torch.linalg.qr(torch.randn(D, 4).double())[0]
    rows = ((ROWS[:, :4] * 10) @ basis.mT).to(dtype)
    detector = Neco.fit(streamed(rows, LABELS), 5, scaled=False)
    assert detector.rank == 4
    expected = Neco.fit(streamed(rows, LABELS), 4, scaled=False).scores(OTHER)
    assert torch.equal(detector.scores(OTHER), expected)
    centred = OTHER - rows.double().mean(0)
    shares = (centred @ basis).norm(dim=1) / centred.norm(dim=1)
    torch.testing.assert_close(expected, shares, rtol=0, atol=1e-6 if dtype is torch.float32 else 1e-12)


def test_the_centre_itself_has_no_score() -> None:
    statistics = streamed(ROWS, LABELS)
    scores = Neco.fit(statistics, 4, scaled=False).scores(statistics.global_mean("sample")[None])
    assert bool(scores.isnan().all())
    assert bool(Neco.fit(statistics, 4, centred=False).scores(torch.zeros(1, D)).isnan().all())


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = Neco.fit(streamed(ROWS, LABELS), 4)
    whole = detector.scores(NEW)
    monkeypatch.setattr("tightframe.ood.detector._ENTRIES", 5 * D)
    torch.testing.assert_close(detector.scores(NEW), whole, rtol=1e-14, atol=0)
    assert detector.scores(NEW[:0]).shape == (0,)


def test_what_cannot_be_fitted() -> None:
    statistics = streamed(ROWS, LABELS)
    with pytest.raises(ScatterError, match="covariance=True"):
        Neco.fit(ClassStatistics.from_features(ROWS, LABELS, K, covariance=False))
    with pytest.raises(ScatterError, match="about"):
        Neco.fit(statistics.about(torch.zeros(D).double()))
    with pytest.raises(ScatterError, match="all training features are equal"):
        Neco.fit(ClassStatistics.from_features(torch.ones(6, 3), torch.arange(6) % 2, 2))
    with pytest.raises(EmptyClassError):
        Neco.fit(ClassStatistics.empty(K, D))
    for p in (0, -1, D + 1):
        with pytest.raises(RangeError, match=rf"\[1, {D}\].*got {p}"):
            Neco.fit(statistics, p)
        with pytest.raises(RangeError):
            Neco.fit(statistics).curve(NEW, [1, p])
    with pytest.raises(RangeError, match="got none"):
        Neco.fit(statistics).curve(NEW, [])
    with pytest.raises(ClassifierError, match="weight"):
        Neco.fit(statistics, max_logit=True)
    with pytest.raises(ClassifierError, match=rf"must be .K, {D}. to fit"):
        Neco.fit(statistics, max_logit=True, weight=torch.ones(K, D + 1))


def test_what_cannot_be_scored() -> None:
    detector = Neco.fit(streamed(ROWS, LABELS))
    with pytest.raises(ShapeError, match=rf"\(N, {D}\); got \(3, {D + 1}\)"):
        detector.scores(torch.ones(3, D + 1))
    with pytest.raises(ShapeError):
        detector.scores(torch.ones(D))
    with pytest.raises(DtypeError, match="floating point"):
        detector.scores(torch.ones(3, D, dtype=torch.int64))
    with pytest.raises(NonFiniteError, match="row 1"):
        detector.scores(torch.tensor([[0.0] * D, [math.nan] * D]))
