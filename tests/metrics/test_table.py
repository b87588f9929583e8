"""`METRICS` and `evaluate`: each metric says what it needs, and needs what it says; options, metrics of one's own."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from laws.scenarios import SCENARIOS, draw, evidence_of, projected, statistics_of
from oracle import Sample
from tightframe import ClassStatistics, DecisionCounts, metrics
from tightframe.errors import ChoiceError, EvidenceError, ScatterError
from tightframe.evidence import Evidence
from tightframe.metrics import METRICS, Setting, evaluate
from tightframe.metrics.table import FAMILIES
from variants import VARIANTS

FULL = evidence_of(draw(SCENARIOS["balanced"]))
UNEQUAL = evidence_of(draw(SCENARIOS["zipf"], spread=1.0))  # where all options matter


EVIDENCE = {"statistics", "weight", "bias", "classifier", "counts", "decisions", "outside", "reader"}


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_says_what_it_is(name: str) -> None:
    metric = METRICS[name]
    assert getattr(metrics, name) is metric
    assert name in metrics.__all__
    assert metric.name == metric.__name__ == name
    assert name in (metric.function.__name__, "balanced_accuracy")
    assert metric.__doc__ and metric.__doc__ == metric.function.__doc__
    assert metric.family in FAMILIES
    assert metric.label
    assert metric.source
    assert metric.reads and set(metric.reads) <= EVIDENCE
    assert metric.convention


def test_metrics_come_by_family() -> None:
    places = [FAMILIES.index(metric.family) for metric in METRICS.values()]
    assert places == sorted(places)


def test_labels_are_unique() -> None:
    assert len({metric.label for metric in METRICS.values()}) == len(METRICS)


@pytest.mark.parametrize("name", VARIANTS)
def test_values_are_scalars_in_float64(name: str) -> None:
    value = VARIANTS[name].of(FULL)
    assert value.shape == ()
    assert value.dtype is torch.float64
    assert VARIANTS[name].available(FULL)


# ---------------------------------------------------------------------- options and metrics of one's own


@pytest.mark.parametrize("name", sorted(set(VARIANTS) - set(METRICS)))
def test_a_variant_is_the_function_with_its_options(name: str) -> None:
    variant = VARIANTS[name]
    original = METRICS[variant.function.__name__]
    inputs = [getattr(UNEQUAL, each) for each in variant.reads]
    assert variant.options and not original.options
    assert torch.equal(variant.of(UNEQUAL), original(*inputs, **variant.options))
    assert variant.of(UNEQUAL) != original.of(UNEQUAL)
    assert repr(variant).startswith(f"<metric {original.name}, {next(iter(variant.options))}=")


def test_options_are_keywords_of_the_function() -> None:
    for name in ("divided", "needs"):
        assert name not in metrics.nc1.reads
    with pytest.raises(TypeError, match="positional argument"):
        metrics.cdnv(FULL.statistics, 4.0)
    with pytest.raises(TypeError, match="cdnv has no option 'exponent'"):
        metrics.cdnv.having(exponent=4)
    with pytest.raises(TypeError, match="cdnv has no option 'statistics'"):
        metrics.cdnv.having(statistics=FULL.statistics)


def test_what_is_given_at_the_call_comes_first() -> None:
    fourth = metrics.cdnv.having("fourth", distance_exponent=4)
    assert torch.equal(fourth(FULL.statistics, distance_exponent=2), metrics.cdnv(FULL.statistics))
    again = fourth.having(exact=True)
    assert (again.name, dict(again.options)) == ("fourth", {"distance_exponent": 4, "exact": True})


def test_an_option_with_the_name_of_a_fact_is_the_option() -> None:
    largest = metrics.principal_angle.having("widest", largest=True, label="widest angle")
    assert dict(largest.options) == {"largest": True}
    assert largest.label == "widest angle"
    assert largest.available(FULL)
    assert largest.of(FULL) > metrics.principal_angle.of(FULL)
    assert metrics.one_vs_rest_distance.having(most_classes=7).most_classes == 7  # no option of its


def test_levels_follow_the_options() -> None:
    setting = Setting.of(FULL)
    assert (setting.K, setting.D, setting.N, setting.crowded, setting.partial) == (6, 10, 60, False, False)
    edge = (2 * 6 / 5) ** 0.5
    assert metrics.distance_kernel.target_in(setting) == pytest.approx(edge, rel=1e-15)
    assert VARIANTS["distance_kernel_cv"].target_in(setting) == 0
    assert VARIANTS["riesz2_kernel"].target_in(setting) == pytest.approx(edge**-2, rel=1e-15)
    assert metrics.mean_cosine.target_in(setting) == pytest.approx(-1 / 5)
    assert VARIANTS["mean_cosine_uncentred"].target_in(setting) is None
    assert VARIANTS["nc3_misalignment"].target_in(setting) == 0
    assert metrics.nc3_cosine.target_in(setting) == 1
    assert all(type(level) is float for metric in VARIANTS.values() if (level := metric.target_in(setting)) is not None)


def test_a_metric_of_ones_own() -> None:
    @metrics.metric("mean variance", "scale", target=0.0)
    def mean_variance(statistics: ClassStatistics, *, root: bool = False) -> torch.Tensor:
        """Of the classes."""
        value = statistics.populated().variances.mean()
        return value.sqrt() if root else value

    rooted = mean_variance.having("rooted", root=True)
    values = evaluate(FULL, ["cdnv", mean_variance, rooted])
    assert list(values) == ["cdnv", "mean_variance", "rooted"]
    assert values["mean_variance"] == FULL.statistics.variances.mean()
    torch.testing.assert_close(values["rooted"].square(), values["mean_variance"])
    assert mean_variance.__doc__ == "Of the classes."
    assert mean_variance.target_in(Setting.of(FULL)) == 0
    assert "mean_variance" not in METRICS


def reduced() -> dict[str, Evidence]:
    labels = torch.arange(60) % 6
    features = torch.randn(6, 10, dtype=torch.float64)[labels] + torch.randn(60, 10, dtype=torch.float64) / 2
    bare = ClassStatistics.from_features(features, labels, 6, covariance=False)
    pooled = ClassStatistics.from_features(features, labels, 6)
    owned = ClassStatistics.from_features(features, labels, 6, covariance=False, per_class=True)
    return {
        "nothing": Evidence(),
        "statistics alone": Evidence(FULL.statistics),
        "no scatter": replace(FULL, statistics=bare),
        "pooled scatter": replace(FULL, statistics=pooled),
        "scatter of each class only": replace(FULL, statistics=owned),
        "no weight": replace(FULL, weight=None),
        "no bias": replace(FULL, bias=None),
        "no decisions": replace(FULL, decisions=None),
        "decisions without classifier": replace(FULL, decisions=decisions_without_classifier()),
        "no outside": replace(FULL, outside=None),
        "outside as a mean": replace(FULL, outside=torch.ones(10, dtype=torch.float64)),
        "no statistics": replace(FULL, statistics=None),
        "scatter in the span of the means only": replace(FULL, statistics=bare, projected=projected(pooled)),
        "another layer reads": replace(FULL, weight=None, consumer=torch.randn(20, 10)),
    }


def decisions_without_classifier() -> DecisionCounts:
    from tightframe import DecisionCounts

    sample = draw(SCENARIOS["balanced"])
    decisions = DecisionCounts(statistics_of(sample))
    decisions.update(torch.from_numpy(sample.features), torch.from_numpy(sample.labels))
    return decisions


@pytest.mark.parametrize("case", reduced())
def test_available_means_computable(case: str) -> None:
    """What the evidence allows can be computed, and what it doesn't allow can't."""
    evidence = reduced()[case]
    values = evaluate(evidence)
    allowed = [name for name, metric in METRICS.items() if metric.available(evidence)]
    assert list(values) == [name for name in allowed if METRICS[name].by_default]
    values |= evaluate(evidence, allowed)
    for name, metric in VARIANTS.items():
        if metric.available(evidence):
            value = metric.of(evidence)
            assert value.isfinite(), name
            torch.testing.assert_close(values.get(name, value), value, rtol=1e-12, atol=0)
        else:
            with pytest.raises(EvidenceError, match=r"needs .*; the evidence has none"):
                metric.of(evidence)


def test_what_lacks_is_named() -> None:
    cases = reduced()
    with pytest.raises(EvidenceError, match=r"^NC1  .* needs the within-class scatter \(covariance=True"):
        metrics.nc1.of(cases["no scatter"])
    with pytest.raises(EvidenceError, match="layer that reads the features; the evidence has none"):
        metrics.principal_angle.of(cases["no weight"])
    with pytest.raises(EvidenceError, match=r"^directional CDNV needs the scatter per class \(per_class=True\)"):
        metrics.directional_cdnv.of(cases["pooled scatter"])
    with pytest.raises(EvidenceError, match=r"^NCC mismatch needs the decisions of a classifier on labelled samples"):
        metrics.ncc_mismatch.of(cases["decisions without classifier"])
    with pytest.raises(EvidenceError, match="needs class statistics; the"):
        evaluate(cases["no statistics"], ["cdnv"])
    with pytest.raises(EvidenceError, match=r"needs out-of-distribution data \(ood=\); the"):
        evaluate(cases["no outside"], ["ood_orthogonality"])


def test_scatter_in_the_span_gives_what_nc1_sees_and_no_more() -> None:
    cases = reduced()
    bare, some, full = (
        {name for name, metric in VARIANTS.items() if metric.available(cases[case])}
        for case in ("no scatter", "scatter in the span of the means only", "pooled scatter")
    )
    seen = {name for name, metric in VARIANTS.items() if metric.needed == "span scatter"}
    assert some - bare == seen >= {"nc1", "within_in_mean_span"}
    assert full - some == {name for name, metric in VARIANTS.items() if metric.needed == "scatter"} >= {"vci", "rankme"}
    for name in seen:  # the scatter in the span, taken in float64, comes first where it is there
        both = replace(cases["scatter in the span of the means only"], statistics=cases["pooled scatter"].statistics)
        expected = VARIANTS[name].of(cases["scatter in the span of the means only"])
        assert torch.equal(VARIANTS[name].of(both), expected)


def test_the_reader_is_the_classifier_unless_another_layer_is_given() -> None:
    consumer = torch.randn(20, 10, dtype=torch.float64)
    assert replace(FULL, consumer=consumer).reader is consumer
    rows = FULL.weight - FULL.weight.mean(0)  # the reader may have others, of the same span and sizes
    torch.testing.assert_close(FULL.reader.mT @ FULL.reader, rows.mT @ rows, rtol=1e-12, atol=1e-12)
    common = replace(FULL, weight=FULL.weight + 100 * torch.randn(10, dtype=torch.float64))
    sample = draw(SCENARIOS["empty classes"])
    absent = evidence_of(sample)
    spoilt = absent.weight.clone()
    spoilt[~absent.statistics.present] = 1e6
    for metric in (metrics.principal_angle, VARIANTS["largest_principal_angle"]):
        torch.testing.assert_close(metric.of(common), metric.of(FULL), rtol=1e-10, atol=0)
        assert torch.equal(metric.of(replace(absent, weight=spoilt)), metric.of(absent))


def test_the_classifier_is_the_rows_of_the_classes_with_samples() -> None:
    absent = evidence_of(draw(SCENARIOS["empty classes"]))
    assert torch.equal(absent.classifier, absent.weight[[0, 2, 3, 5]])
    assert absent.counts.tolist() == [9, 8, 12, 7]
    assert replace(absent, statistics=None).classifier is None
    assert replace(absent, statistics=None).counts is None
    assert Evidence().classifier is None


def test_evaluate_takes_names_in_order() -> None:
    names = ["vci", "cdnv", "ncc_mismatch", "distance_kernel", "nc1"]
    values = evaluate(FULL, names)
    assert list(values) == names
    for name in names:
        torch.testing.assert_close(values[name], METRICS[name].of(FULL), rtol=1e-12, atol=0)
    with pytest.raises(ChoiceError, match=r"metric must be a name in tightframe.metrics.METRICS; got 'nonsense'"):
        evaluate(FULL, ["nc1", "nonsense"])
    with pytest.raises(TypeError, match="names in METRICS or made with @metric; got 3"):
        evaluate(FULL, ["nc1", 3])


def test_slow_metrics_are_left_out_of_large_evaluations_unless_asked_for() -> None:
    means = torch.randn(101, 3, dtype=torch.float64)
    statistics = ClassStatistics.from_features(means.repeat(2, 1), torch.arange(101).repeat(2), 101)
    evidence = Evidence(statistics, torch.randn(101, 3, dtype=torch.float64))
    slow = {name for name, metric in METRICS.items() if metric.most_classes is not None and metric.most_classes < 101}
    assert slow == {"one_vs_rest_distance"}
    assert not slow & set(evaluate(evidence))
    assert set(evaluate(evidence, slow)) == slow


# ---------------------------------------------------------------------- only classes of enough samples


def zipf_and_its_large_classes() -> tuple[Sample, Sample]:
    """The scenario, and the samples of its classes of ten samples or more, labelled from 0."""
    sample = draw(SCENARIOS["zipf"])
    large = [k for k in range(sample.num_classes) if (sample.labels == k).sum() >= 10]
    kept = np.isin(sample.labels, large)
    assert 2 < len(large) < sample.num_classes
    labels = np.searchsorted(large, sample.labels[kept])
    return sample, Sample(
        sample.features[kept], labels, len(large), sample.weight[large], sample.bias[large], sample.outside
    )


@pytest.mark.parametrize("name", VARIANTS)
def test_metrics_of_classes_with_enough_samples(name: str) -> None:
    """`select(min_count=10)` with each class's scatter is as good as never having seen the others."""
    sample, alone = zipf_and_its_large_classes()
    selected = statistics_of(sample).select(min_count=10)
    whole = evidence_of(sample)
    decisions = evidence_of(alone).decisions  # samples of the other classes can't be taken out of decisions
    weight, bias = whole.weight, whole.bias
    assert len(weight) > selected.num_classes  # rows of all labels, of which a metric takes its own
    value = VARIANTS[name].of(Evidence(selected, weight, bias, decisions, whole.outside))
    expected = VARIANTS[name].of(evidence_of(alone))
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_selection_without_the_scatter_of_each_class_says_what_to_keep(name: str) -> None:
    selected = statistics_of(draw(SCENARIOS["zipf"]), per_class=False).select(min_count=10)
    evidence = replace(evidence_of(draw(SCENARIOS["zipf"])), statistics=selected)
    metric = VARIANTS[name]
    if metric.needed == "means":
        assert metric.of(evidence).isfinite()
        return
    told = {"class scatter": r"needs the scatter per class \(per_class=True"}
    usual = r"needs the within-class scatter .*for a subset .* per_class=True"
    with pytest.raises(EvidenceError, match=told.get(metric.needed, usual)):
        metric.of(evidence)
    with pytest.raises(ScatterError, match="per_class=True"):
        metric(selected)


def test_two_measures_of_one_name_are_refused() -> None:
    with pytest.raises(ChoiceError, match="two measures are named 'nc1'"):
        evaluate(FULL, ["nc1", metrics.nc1.having(centre="sample")])


def test_a_metric_that_is_given_twice_is_measured_once() -> None:
    assert list(evaluate(FULL, ["nc1", metrics.nc1, "nc1"])) == ["nc1"]
