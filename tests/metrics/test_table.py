"""`METRICS` and `evaluate`: each row says what it needs, and needs what it says."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from laws.scenarios import SCENARIOS, draw, evidence_of, projected, statistics_of
from oracle import Sample
from tightframe import ClassStatistics, DecisionCounts, metrics
from tightframe.errors import EvidenceError, ScatterError, TightframeError
from tightframe.metrics import METRICS, Evidence, evaluate

FULL = evidence_of(draw(SCENARIOS["balanced"]))


@pytest.mark.parametrize("name", METRICS)
def test_a_row_is_named_after_its_function(name: str) -> None:
    row = METRICS[name]
    assert row.function.__name__ == name
    assert getattr(metrics, name) is row.function
    assert name in metrics.__all__
    assert row.function.__doc__
    assert row.family in {"NC1", "NC2", "GNC2", "NC3", "NC4", "NC5", "scale", "accuracy"}
    assert row.label
    assert row.source or row.family in {"scale", "accuracy", "NC2", "NC4"}


def test_labels_are_unique() -> None:
    assert len({row.label for row in METRICS.values()}) == len(METRICS)


@pytest.mark.parametrize("name", METRICS)
def test_values_are_scalars_in_float64(name: str) -> None:
    value = METRICS[name](FULL)
    assert value.shape == ()
    assert value.dtype is torch.float64
    assert METRICS[name].available(FULL)


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
    for name, row in METRICS.items():
        assert (name in values) == row.available(evidence), name
        if name in values:
            assert values[name].isfinite(), name
        else:
            with pytest.raises((TightframeError, AttributeError, TypeError)):
                row(evidence)


def test_what_lacks_is_named() -> None:
    cases = reduced()
    with pytest.raises(EvidenceError, match=r"^NC1  .* needs the within-class scatter \(covariance=True"):
        METRICS["nc1"](cases["no scatter"])
    with pytest.raises(EvidenceError, match="needs the weight of the layer that reads the features, which wasn't"):
        METRICS["mean_principal_angle"](cases["no weight"])


def test_scatter_in_the_span_gives_what_nc1_sees_and_no_more() -> None:
    cases = reduced()
    bare, some, full = (
        {name for name, row in METRICS.items() if row.available(cases[case])}
        for case in ("no scatter", "scatter in the span of the means only", "pooled scatter")
    )
    seen = {"nc1", "nc1_undivided", "nc1_sample_centred", "nc1_discriminant", "within_in_mean_span"}
    assert some - bare == seen
    assert full - some == {"vci", "numerical_rank"}
    assert not cases["scatter in the span of the means only"].offers("scatter")
    for name in seen:  # the scatter in the span, taken in float64, comes first where it is there
        both = replace(cases["scatter in the span of the means only"], statistics=cases["pooled scatter"].statistics)
        expected = METRICS[name](cases["scatter in the span of the means only"])
        assert torch.equal(METRICS[name](both), expected)


def test_the_reader_is_the_classifier_unless_another_layer_is_given() -> None:
    consumer = torch.randn(20, 10, dtype=torch.float64)
    assert replace(FULL, consumer=consumer).reader is consumer
    torch.testing.assert_close(FULL.reader, FULL.weight - FULL.weight.mean(0), rtol=0, atol=1e-15)
    common = replace(FULL, weight=FULL.weight + 100 * torch.randn(10, dtype=torch.float64))
    sample = draw(SCENARIOS["empty classes"])
    absent = evidence_of(sample)
    spoilt = absent.weight.clone()
    spoilt[~absent.statistics.present] = 1e6
    for name in ("mean_principal_angle", "largest_principal_angle"):
        torch.testing.assert_close(METRICS[name](common), METRICS[name](FULL), rtol=1e-10, atol=0)
        assert torch.equal(METRICS[name](replace(absent, weight=spoilt)), METRICS[name](absent))


def test_evaluate_takes_names_in_order() -> None:
    names = ["vci", "cdnv", "ncc_mismatch", "distance_mean", "nc1"]
    values = evaluate(FULL, names)
    assert list(values) == names
    for name in names:
        torch.testing.assert_close(values[name], METRICS[name](FULL), rtol=1e-12, atol=0)
    with pytest.raises(KeyError, match="nonsense"):
        evaluate(FULL, ["nc1", "nonsense"])


def test_slow_metrics_are_left_out_of_large_evaluations_unless_asked_for() -> None:
    means = torch.randn(101, 3, dtype=torch.float64)
    statistics = ClassStatistics.from_features(means.repeat(2, 1), torch.arange(101).repeat(2), 101)
    evidence = Evidence(statistics, torch.randn(101, 3, dtype=torch.float64))
    slow = {name for name, row in METRICS.items() if row.largest is not None and row.largest < 101}
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


@pytest.mark.parametrize("name", METRICS)
def test_metrics_of_classes_with_enough_samples(name: str) -> None:
    """`select(min_count=10)` with each class's scatter is as good as never having seen the others."""
    sample, alone = zipf_and_its_large_classes()
    selected = statistics_of(sample).select(min_count=10)
    whole = evidence_of(sample)
    decisions = evidence_of(alone).decisions  # samples of the other classes can't be taken out of decisions
    weight, bias = whole.weight, whole.bias
    assert len(weight) > selected.num_classes  # rows of all labels, of which a metric takes its own
    value = METRICS[name](Evidence(selected, weight, bias, decisions, whole.outside))
    expected = METRICS[name](evidence_of(alone))
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", METRICS)
def test_a_selection_without_the_scatter_of_each_class_says_what_to_keep(name: str) -> None:
    selected = statistics_of(draw(SCENARIOS["zipf"]), per_class=False).select(min_count=10)
    evidence = replace(evidence_of(draw(SCENARIOS["zipf"])), statistics=selected)
    row = METRICS[name]
    if "spanning" in row.arguments:
        with pytest.raises(EvidenceError, match=r"needs the within-class scatter .*for a subset .* per_class=True"):
            row(evidence)
    elif {"scatter", "class scatter"} & set(row.requires):
        with pytest.raises(ScatterError, match="per_class=True"):
            row(evidence)
    else:
        assert row(evidence).isfinite()
