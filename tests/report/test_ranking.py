"""`rank`: the order by forecast, errors of differences, ties in words, and every kind of subject."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import tightframe as tf
from tightframe import ClassStatistics, metrics, theory
from tightframe.errors import ChoiceError, LoaderError, OptionError, RangeError
from tightframe.report.ranking import Ranked, Ranking, Score
from tightframe.sources import ArraySource
from tightframe.statistics import FoldedStatistics, StatisticsAccumulator

K, D, N = 4, 6, 240


def features(gap: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The same noise for every gap: encoders of the same samples."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(N) % K
    means = torch.randn(K, D, generator=generator, dtype=torch.float64)
    return gap * means[labels] + torch.randn(N, D, generator=generator, dtype=torch.float64), labels


def folded(gap: float, folds: int = 16) -> FoldedStatistics:
    return FoldedStatistics.from_features(*features(gap), K, folds=folds)


def test_scores_are_the_measures_with_their_jackknife_errors() -> None:
    moments = folded(1.0, folds=4)
    row = Ranked.of("a", moments, (1, 5))
    assert (row.name, row.samples, row.classes, row.dimension) == ("a", N, K, D)
    assert list(row.scores) == ["1-shot", "5-shot", "log_me", "h_score"]
    forecast = theory.few_shot(moments.total, (1, 5))
    functions: dict[str, Callable[[tf.ClassStatistics], Tensor]] = {
        "1-shot": lambda statistics: theory.few_shot(statistics, (1, 5)).accuracy[0],
        "5-shot": lambda statistics: theory.few_shot(statistics, (1, 5)).accuracy[1],
        "log_me": metrics.log_me,
        "h_score": lambda statistics: metrics.h_score(statistics, shrinkage="ledoit-wolf"),
    }
    drawn = dict(zip(("1-shot", "5-shot"), forecast.draw_error.tolist(), strict=True))
    for key, function in functions.items():
        expected = metrics.jackknife(function, moments)
        score = row.scores[key]
        assert score.value == pytest.approx(float(expected.value), rel=1e-12)
        error = math.hypot(float(expected.standard_error), drawn.get(key, 0.0))
        assert score.standard_error == pytest.approx(error, rel=1e-9)
        assert len(score.replicates) == moments.folds


def test_the_error_of_a_difference_leaves_out_what_both_have_in_common() -> None:
    a, b = (Ranked.of(name, folded(gap), (5,)).scores["log_me"] for name, gap in (("a", 1.0), ("b", 1.02)))
    change, error = b.difference(a)
    assert change == pytest.approx(b.value - a.value)
    assert error is not None and a.standard_error is not None and b.standard_error is not None
    assert 0 < error < 0.2 * math.hypot(a.standard_error, b.standard_error)
    assert a.difference(Score(1.0))[1] is None  # no folds
    assert a.difference(Score(1.0, 0.1, (1.0, 2.0)))[1] is None  # other folds


def row_of(name: str, value: float, replicates: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)) -> Ranked:
    shifted = tuple(value + each for each in replicates)
    score = Score(value, 0.01, shifted)
    return Ranked(name, 100, 4, 8, {"5-shot": score, "log_me": Score(-value, 0.1, shifted)})


def test_the_order_and_the_ties_in_words() -> None:
    jitter = (0.01, -0.01, 0.01, -0.01)
    rows = [row_of("b", 0.795, jitter), row_of("a", 0.8), row_of("c", 0.5), row_of("d", 0.499, jitter)]
    order = Ranking.of(rows)
    assert [row.name for row in order.rows] == ["a", "b", "c", "d"]
    assert order.ties() == [("a", "b"), ("c", "d")]
    first, second = order.sentences()
    assert first == "a has the highest 5-shot accuracy, but cannot be told apart from b."
    assert second == "c and d cannot be told apart (difference 0.1 ± 1.7 points)."
    assert Ranking.of(rows[1:3]).sentences() == ["a is the best by 5-shot accuracy."]
    assert [row.name for row in Ranking.of(rows, "log_me").rows] == ["d", "c", "b", "a"]


def test_a_terminal_of_80_columns_shows_every_score_in_a_table() -> None:
    score = Score(0.123456, 0.0123456, (0.1, 0.2))
    names = ("1-shot", "5-shot", "20-shot", "log_me", "h_score")
    order = Ranking.of([Ranked(name, 1400, 10, 64, dict.fromkeys(names, score)) for name in ("pixels", "random")])
    lines = [line.split() for line in order.document().to("terminal", width=80).splitlines()]
    headings = ["encoder", "1-shot", "%", "5-shot", "%", "±", "20-shot", "%", "LogME", "H-score", "tied", "with"]
    assert headings in lines
    assert ["pixels", "12.35", "12.35", "1.23", "12.35", "0.1235", "0.1235", "random"] in lines


def test_what_is_undefined_comes_last_and_is_said() -> None:
    order = Ranking.of([row_of("a", math.nan), row_of("b", 0.5)])
    assert [row.name for row in order.rows] == ["b", "a"]
    assert order.ties() == [("b", "a")]
    nothing = Ranking.of([row_of("a", math.nan), row_of("b", math.nan)])
    assert nothing.sentences() == ["No 5-shot accuracy is defined; see the notes."]
    bare = [Ranked(name, 9, 3, 2, {"5-shot": Score(value)}) for name, value in (("a", 0.9), ("b", 0.1))]
    assert Ranking.of(bare).sentences() == [
        "a has the highest 5-shot accuracy. Without sample folds there are no errors to tell rows apart."
    ]


def test_wrong_rankings_are_refused() -> None:
    with pytest.raises(OptionError, match="at least two encoders or layers; got 1"):
        Ranking.of([row_of("a", 1.0)])
    with pytest.raises(OptionError, match="names must be unique; 'a' occurs twice"):
        Ranking.of([row_of("a", 1.0), row_of("a", 0.5)])
    with pytest.raises(ChoiceError, match=r"by must be .*; got 'nonsense'"):
        Ranking.of([row_of("a", 1.0), row_of("b", 0.5)], "nonsense")
    other = replace(row_of("b", 0.5), scores={"9-shot": Score(0.5)})
    with pytest.raises(OptionError, match=r"all rows must have the same measures; 'a' has .*, but 'b' has 9-shot"):
        Ranking.of([row_of("a", 1.0), other])
    with pytest.raises(LoaderError, match=r"the subject 'b': it must be \(features, labels\), .*; got str"):
        tf.rank({"b": "nothing", "a": features(1.0)}, progress=False)
    with pytest.raises(RangeError, match="shots must be whole numbers of at least 1; got 0"):
        tf.rank({"b": "nothing"}, shots=(0,))  # before the subjects are read
    bare = tf.measure(*features(1.0), covariance=False, folds=None, progress=False)
    with pytest.raises(LoaderError, match="the subject 'b': the report has no statistics with scatter"):
        tf.rank({"b": bare, "a": features(1.0)}, progress=False)


def test_every_kind_of_subject_has_the_same_scores() -> None:
    rows, labels = features(1.0)
    model = nn.Sequential(nn.Identity(), nn.Linear(D, K)).double()
    subjects = {
        "arrays": (rows, labels),
        "source": ArraySource(rows, labels),
        "model": (model, [(rows, labels)]),
        "report": tf.measure(rows, labels, progress=False),
        "folds": folded(1.0),
        "statistics": folded(1.0).total,
    }
    order = tf.rank(subjects, shots=(5,), progress=False)
    values = [row.scores["5-shot"].value for row in order.rows]
    assert values == pytest.approx([values[0]] * len(subjects), abs=1e-9)
    errors = {row.name: row.scores["log_me"].standard_error for row in order.rows}
    assert errors.pop("statistics") is None
    assert list(errors.values()) == pytest.approx([errors["folds"]] * len(errors), rel=1e-6)


def test_layers_become_rows() -> None:
    rows, labels = features(1.0)
    model = nn.Sequential(nn.Linear(D, 8), nn.ReLU(), nn.Linear(8, K)).double()
    order = tf.rank({"net": (model, [(rows, labels)])}, layers=["0"], shots=(5,), progress=False)
    last = tf.measure(model, [(rows, labels)], folds=None, progress=False).facts.layer
    assert {row.name: row.dimension for row in order.rows} == {"net/0": 8, f"net/{last}": 8}


def test_every_layer_has_errors_or_a_note() -> None:
    rows, labels = features(1.0)
    model = nn.Sequential(nn.Linear(D, 8), nn.ReLU(), nn.Linear(8, K)).double()
    net = {"net": (model, [(rows, labels)])}
    order = tf.rank(net, layers=["0", "1"], shots=(1,), folds=2, progress=False)
    for row in order.rows:
        assert all(score.standard_error is not None and len(score.replicates) == 2 for score in row.scores.values())
        assert row.pooled and row.notes == ()
    few = StatisticsAccumulator.memory(K, 8) - StatisticsAccumulator.memory(K, 8, covariance=False)
    order = tf.rank(net, layers=["0"], shots=(1,), covariance_bytes=2 * few, progress=False)
    notes = {
        "no error: there are no sample folds.",
        "the scatter per fold of all layers exceeds covariance_bytes; no errors at: 0.",
        "the forecast uses the scatter pooled over classes, because that of each class was not kept.",
    }
    for row in order.rows:
        assert row.scores["1-shot"].standard_error is None and notes <= set(row.notes)


def test_forecasts_use_the_scatter_of_each_class_if_all_rows_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, labels = features(1.0)
    rows = rows * torch.linspace(0.3, 3, K, dtype=torch.float64)[labels, None] ** torch.linspace(-1, 1, D)
    own, pooled = (FoldedStatistics.from_features(rows, labels, K, folds=2, per_class=each) for each in (True, False))
    row = Ranked.of("a", own, (5,))
    by_class, of_all = (theory.few_shot(moments.total, (5,)) for moments in (own, pooled))
    value, other = row.scores["5-shot"], row.pooled["5-shot"]
    assert (value.value, value.draw_error) == (float(by_class.accuracy[0]), float(by_class.draw_error[0]))
    assert (other.value, other.draw_error) == (float(of_all.accuracy[0]), float(of_all.draw_error[0]))
    assert abs(value.value - other.value) > 0.01 and row.notes == ()
    expected = metrics.jackknife(lambda statistics: theory.few_shot(statistics, (5,)).accuracy[0], own)
    assert value.standard_error == pytest.approx(math.hypot(float(expected.standard_error), value.draw_error))
    measured = tf.rank({"a": (rows, labels), "b": own}, shots=(5,), folds=2, progress=False).rows
    assert [each.scores["5-shot"].value for each in measured] == pytest.approx([value.value] * 2)

    because = "the forecast uses the scatter pooled over classes, because that of each class"
    bare = Ranked.of("b", pooled, (5,))
    assert bare.pooled == {} and bare.notes == (f"{because} was not kept.",)
    mixed = Ranking.of([row, bare]).rows
    assert mixed[0].scores["5-shot"] == other and mixed[0].pooled == {}
    assert mixed[0].notes == ("the forecast uses the scatter pooled over classes, as that of other rows does.",)

    monkeypatch.setattr("tightframe.report.ranking.RANKED_SCATTER", K * D**2 - 1)
    wide = Ranked.of("a", own, (5,))
    assert wide.scores["5-shot"] == other and wide.notes == (f"{because} has 144 numbers, more than 143.",)
    assert Ranked.of("a", own, (5,), per_class=True).scores == row.scores
    never = Ranked.of("a", own, (5,), per_class=False)
    assert never.scores == wide.scores and never.notes == ()


def test_small_classes_are_left_out() -> None:
    rows, labels = features(1.0)
    some = (labels < K - 1) | (torch.arange(N) < 12)  # the last class keeps three samples
    order = tf.rank({str(i): (i * rows[some], labels[some]) for i in (1, 2)}, shots=(5,), min_count=4, folds=2)
    expected = ClassStatistics.from_features(rows[some], labels[some], K, per_class=True).select(min_count=4)
    for row in order.rows:
        assert (row.classes, row.samples) == (K - 1, int((labels < K - 1).sum()))
        assert row.scores["5-shot"].value == pytest.approx(Ranked.of("a", expected, (5,)).scores["5-shot"].value)
        assert row.scores["5-shot"].standard_error is not None


def test_every_format_holds_the_ranking() -> None:
    order = tf.rank({"near": features(0.4), "far": features(1.5)}, shots=(1, 5), by="log_me", progress=False)
    lines = list(csv.reader(order.to_csv().splitlines()))
    assert lines[0] == [
        "name", "D", "samples", "classes", "1-shot", "1-shot s.e.", "5-shot", "5-shot s.e.",
        "log_me", "log_me s.e.", "h_score", "h_score s.e.",
    ]  # fmt: skip
    assert [line[0] for line in lines[1:]] == ["far", "near"]
    assert float(lines[1][8]) == order.best.scores["log_me"].value
    data = json.loads(order.to_json())
    assert data["by"] == "log_me" and data["not_told_apart"] == []
    assert data["rows"][0]["scores"]["5-shot"]["value"] == order.best.scores["5-shot"].value
    assert "far is the best by LogME." in order.to_markdown()
    assert "near" in order.to_html()


def test_samples_that_differ_are_noted() -> None:
    rows, labels = features(1.0)
    order = tf.rank({"all": (rows, labels), "half": (rows[:120], labels[:120])}, shots=(5,), progress=False)
    assert order.document().notes[0].startswith("the numbers of samples differ (120 to 240)")
