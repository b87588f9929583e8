import json
import math
import re
from itertools import pairwise

import pytest
import torch
from streams import D, K, features, streamed

from tightframe import ClassStatistics
from tightframe.errors import (
    ChoiceError,
    ClassifierError,
    EmptyBatchError,
    EvidenceError,
    RangeError,
    ScatterError,
    ShapeError,
    StateError,
)
from tightframe.metrics import Evidence
from tightframe.ood import (
    CURVE,
    DETECTORS,
    ComponentCurve,
    DetectionTable,
    DetectorScores,
    Energy,
    GeneralizedEntropy,
    Mahalanobis,
    MaxLogit,
    MaxSoftmax,
    Nci,
    NearestCentre,
    Neco,
    RelativeMahalanobis,
    Residual,
    Vim,
    component_curve,
    component_values,
    evaluate,
)
from tightframe.plain import restored

ROWS, LABELS = features(400, 0)
STATISTICS = streamed(ROWS, LABELS)
DRAWS = torch.Generator().manual_seed(0)
INSIDE, OUTSIDE = features(120, 1)[0], features(90, 2)[0] + 15 * torch.randn(90, D, generator=DRAWS).double()
WEIGHT, BIAS = torch.randn(K, D, generator=DRAWS), torch.randn(K, generator=DRAWS)
EVIDENCE = Evidence(STATISTICS, WEIGHT, BIAS)


def filled(scores: DetectorScores) -> DetectorScores:
    for some in INSIDE.split(50):
        scores.add_inside(some)
    for some in OUTSIDE.split(7):
        scores.add_outside(some)
    return scores


def test_rows_are_the_detectors_one_by_one() -> None:
    table = filled(DetectorScores(EVIDENCE)).table()
    settled = {"statistics": STATISTICS, "components": K - 1}
    expected = {
        "max_softmax": MaxSoftmax.fit(WEIGHT, BIAS),
        "max_logit": MaxLogit.fit(WEIGHT, BIAS),
        "energy": Energy.fit(WEIGHT, BIAS),
        "gen": GeneralizedEntropy.fit(WEIGHT, BIAS),
        "nearest_centre": NearestCentre.fit(STATISTICS),
        "mahalanobis": Mahalanobis.fit(STATISTICS),
        "relative_mahalanobis": RelativeMahalanobis.fit(STATISTICS),
        "residual": Residual.fit(STATISTICS, WEIGHT, BIAS),
        "vim": Vim.fit(STATISTICS, WEIGHT, BIAS),
        "nci": Nci.fit(STATISTICS, WEIGHT, BIAS),
        "neco": Neco.fit(**settled, centred=True, scaled=True),
        "neco_max_logit": Neco.fit(**settled, max_logit=True, weight=WEIGHT, bias=BIAS),
        "neco_centred": Neco.fit(**settled, scaled=False),
        "neco_raw": Neco.fit(**settled, centred=False, scaled=False),
    }
    assert [row.name for row in table.rows] == list(expected) == list(DETECTORS)
    for row, (name, detector) in zip(table.rows, expected.items(), strict=True):
        found = evaluate(detector.scores(INSIDE), detector.scores(OUTSIDE))
        assert (row.auroc, row.auroc_error) == pytest.approx((found.auroc, found.auroc_error), abs=1e-12)
        assert (row.fpr95, row.fpr95_error) == pytest.approx((found.fpr95, found.fpr95_error), abs=1e-12)
        assert row.settings == detector.settings
        assert (row.label, row.source) == (DETECTORS[name].label, DETECTORS[name].source)
    scores = {tuple(detector.scores(INSIDE).tolist()) for detector in expected.values()}
    assert len(scores) == len(table.rows)  # no row is another's copy
    assert (table.inside, table.outside, table.notes) == (120, 90, ())
    assert table["energy"].name == "energy"


def test_the_curve_is_neco_at_every_number() -> None:
    scores = filled(DetectorScores(EVIDENCE, ["neco_raw"], curve="neco_raw", components=[1, 7, D]))
    curve = scores.table().curve
    assert curve is not None
    assert curve.components == (1, K - 1, 7, D)
    assert curve.default == K - 1
    for i, p in enumerate(curve.components):
        detector = Neco.fit(STATISTICS, p, centred=False, scaled=False)
        found = evaluate(detector.scores(INSIDE), detector.scores(OUTSIDE))
        point = (curve.auroc[i], curve.auroc_error[i], curve.fpr95[i], curve.fpr95_error[i])
        expected = (found.auroc, found.auroc_error, found.fpr95, found.fpr95_error)
        assert point == pytest.approx(expected, abs=1e-12)
    assert curve.auroc[-1] == 0.5
    assert curve.best == max(zip(curve.auroc, curve.components, strict=True))[1]


def test_lists_of_two_processes_together_are_those_of_one() -> None:
    one, other = DetectorScores(EVIDENCE), DetectorScores(EVIDENCE)
    one.add_inside(INSIDE[:70])
    one.add_outside(OUTSIDE)
    other.add_inside(INSIDE[70:])
    for name in one.inside:
        one.inside[name] += other.inside[name]
        one.outside[name] += other.outside[name]
    assert one.table().to_dict() == filled(DetectorScores(EVIDENCE)).table().to_dict()
    assert {tuple(each.shape) for each in one.inside[CURVE]} == {(70, D), (50, D)}


def test_what_the_evidence_allows() -> None:
    def names(evidence: Evidence) -> set[str]:
        return set(DetectorScores(evidence).detectors)

    bare = ClassStatistics.from_features(ROWS, LABELS, K, covariance=False)
    assert names(Evidence(bare)) == {"nearest_centre"}
    assert names(Evidence(bare, WEIGHT)) == {
        *("nearest_centre", "max_softmax", "max_logit", "energy", "gen", "nci"),
    }
    centres = {"nearest_centre", "mahalanobis", "relative_mahalanobis"}
    assert names(Evidence(STATISTICS)) == centres | {"neco", "neco_centred", "neco_raw"}
    assert DetectorScores(Evidence(bare)).components == []
    with pytest.raises(ScatterError):
        DetectorScores(Evidence(bare), ["neco"])
    with pytest.raises(ClassifierError):
        DetectorScores(Evidence(STATISTICS), ["energy"])
    with pytest.raises(EvidenceError, match="class statistics"):
        DetectorScores(Evidence(), ["nearest_centre"])


def test_plain_data_and_back() -> None:
    table = filled(DetectorScores(EVIDENCE)).table()
    again = restored(DetectionTable, json.loads(json.dumps(table.to_dict(), allow_nan=False)))
    assert again == table
    for damaged in ({}, {**table.to_dict(), "rows": [{}]}, {**table.to_dict(), "curve": {"auroc": 3}}):
        with pytest.raises(StateError):
            restored(DetectionTable, damaged)


def test_a_sample_without_a_score_is_told() -> None:
    """A feature that is zero has no direction; it may not be left out, nor count as the worst."""
    scores = filled(DetectorScores(EVIDENCE, ["neco_raw", "energy"], curve="neco_raw"))
    scores.add_outside(torch.zeros(2, D))
    table = scores.table()
    assert math.isnan(table["neco_raw"].auroc)
    assert math.isnan(table["neco_raw"].fpr95_error)
    assert not math.isnan(table["energy"].auroc)
    assert len(table.notes) == 1
    assert re.match("NECO, raw features: 2 samples have no score", table.notes[0])
    assert table.curve is not None
    with pytest.raises(RangeError, match="undefined for all of them"):
        _ = table.curve.best
    plain = json.loads(json.dumps(table.to_dict(), allow_nan=False))
    assert plain["rows"][0]["auroc"] == "nan"
    assert math.isnan(restored(DetectionTable, plain)["neco_raw"].auroc)


def test_a_bad_batch_adds_nothing() -> None:
    scores = filled(DetectorScores(EVIDENCE))
    before = scores.table().to_dict()
    with pytest.raises(ShapeError):
        scores.add_inside(torch.ones(3, D + 1))
    assert scores.table().to_dict() == before


def test_what_cannot_be_asked_for() -> None:
    with pytest.raises(ChoiceError, match=r"unknown detector 'odin'; choose from max_softmax"):
        DetectorScores(EVIDENCE, ["odin"])
    with pytest.raises(ChoiceError, match="unknown detector 'odin'"):
        DetectorScores(EVIDENCE, curve="odin")
    with pytest.raises(ChoiceError, match="which has components; got 'energy'"):
        DetectorScores(EVIDENCE, curve="energy")
    with pytest.raises(RangeError):
        DetectorScores(EVIDENCE, components=[0])
    scores = DetectorScores(EVIDENCE)
    scores.add_inside(INSIDE)
    with pytest.raises(EmptyBatchError, match="no out-of-distribution samples"):
        scores.table()
    with pytest.raises(ShapeError, match=r"\(N, 3\); got \(5, 2\)"):
        component_curve(torch.ones(5, 3), torch.ones(5, 2), [1, 2, 3], 2)


@pytest.mark.parametrize(("dim", "classes"), [(5, 3), (40, 10), (41, 10), (512, 10), (2048, 1000), (64, 100), (768, 2)])
def test_the_numbers_of_components(dim: int, classes: int) -> None:
    values = component_values(dim, classes)
    assert values == sorted(set(values))
    assert len(values) <= 40
    assert {1, dim} | {p for p in (classes - 1, classes) if p <= dim} <= set(values)
    assert values[0] == 1 and values[-1] == dim
    if dim > 40:
        steps = [b / a for a, b in pairwise(values) if a > 20]
        assert max(steps) < dim ** (1 / 30) * 1.06  # evenly in their logarithms
    with pytest.raises(RangeError):
        component_values(dim, classes, most=3)


def test_the_best_of_equals_is_the_smallest() -> None:
    curve = ComponentCurve((1, 3, 9), (0.5, 0.9, 0.9), (0.1,) * 3, (1.0,) * 3, (math.nan, 0.1, 0.1), 9)
    assert curve.best == 3
    again = restored(ComponentCurve, curve.to_dict())
    assert math.isnan(again.fpr95_error[0])
    assert again.auroc == curve.auroc
