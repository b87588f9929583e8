"""`ClassStatistics`: against direct sums over the data, and the values made from it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from laws.scenarios import (
    SCENARIOS,
    Scenario,
    assert_fields_close,
    assert_fields_equal,
    draw,
    evidence_of,
    statistics_of,
    tensors,
    truth,
    wrong,
)
from oracle import Sample, statistics
from tightframe import ClassStatistics
from tightframe.errors import EmptyClassError, LabelError, MergeError, ScatterError, ShapeError, StateError
from variants import VARIANTS

BOTH = ["balanced", "zipf"]


def sample_of(name: str, offset: float = 10.0) -> Sample:
    return draw(SCENARIOS[name], offset=offset)


def close(value: torch.Tensor, expected: np.ndarray, tolerance: float = 1e-12) -> None:
    np.testing.assert_allclose(value.numpy(), expected, rtol=0, atol=tolerance * np.abs(expected).max())


# ---------------------------------------------------------------------- fields and covariances


@pytest.mark.parametrize("name", SCENARIOS)
def test_fields_are_the_sums_over_each_class(name: str) -> None:
    sample = sample_of(name)
    value, expected = statistics_of(sample), statistics(sample)
    assert value.counts.tolist() == expected["counts"].tolist()
    np.testing.assert_allclose(value.means, expected["means"], rtol=1e-13)
    np.testing.assert_allclose(value.spread, expected["spread"], rtol=1e-12, atol=1e-20)
    close(value.within, expected["within"])
    for k, scatter in enumerate(value.class_within):
        members = sample.features[sample.labels == k]
        deviations = members - members.mean(0) if len(members) else members
        np.testing.assert_allclose(scatter, deviations.T @ deviations, rtol=1e-9, atol=1e-12)
    members = [sample.features[sample.labels == k] for k in value.present.nonzero().flatten().tolist()]
    variances = [((each - each.mean(0)) ** 2).sum(1).mean() for each in members]
    np.testing.assert_allclose(value.variances[value.present], variances, rtol=1e-9, atol=1e-20)
    assert value.variances[~value.present].isnan().all()
    assert int(value.num_samples) == len(sample.labels)
    assert (value.num_classes, value.num_features) == value.means.shape


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("weighting", ["sample", "class"])
def test_within_plus_between_is_the_covariance_of_the_data(name: str, weighting: str) -> None:
    sample = sample_of(name)
    value = statistics_of(sample)
    if weighting == "sample":
        weights = np.full(len(sample.labels), 1 / len(sample.labels))
    else:  # every class has the same mass
        weights = 1 / (sample.num_classes * np.bincount(sample.labels)[sample.labels])
    centred = sample.features - weights @ sample.features
    expected = centred.T @ (weights[:, None] * centred)
    close(value.within_covariance(weighting) + value.between_covariance(weighting), expected)
    close(value.total_covariance(weighting), expected)


@pytest.mark.parametrize("name", ["balanced", "zipf", "empty classes", "single samples"])
def test_each_covariance_follows_its_definition(name: str) -> None:
    sample = sample_of(name)
    value = statistics_of(sample)
    members = [sample.features[sample.labels == k] for k in range(sample.num_classes)]
    members = [m for m in members if len(m)]
    means = np.array([m.mean(0) for m in members])
    own = [(m - m.mean(0)).T @ (m - m.mean(0)) / len(m) for m in members]
    shares = np.array([len(m) for m in members]) / len(sample.labels)
    close(value.within_covariance("sample"), np.einsum("k,kij->ij", shares, own), 1e-11)
    close(value.within_covariance("class"), np.mean(own, axis=0), 1e-11)
    centres = {"class": means.mean(0), "sample": sample.features.mean(0)}
    weights = {"class": np.full(len(members), 1 / len(members)), "sample": shares}
    for by in ("class", "sample"):
        close(value.global_mean(by), centres[by])
        close(value.class_weights(by)[value.present], weights[by])
        assert value.class_weights(by)[~value.present].tolist() == [0.0] * int((~value.present).sum())
        close(value.centred_means(by), means - centres[by])
        for centre in ("class", "sample"):
            gaps = means - centres[centre]
            close(value.between_covariance(by, centre), gaps.T @ (weights[by][:, None] * gaps), 1e-11)
        close(value.between_covariance(by), value.between_covariance(by, by).numpy())


def test_coverage_counts_classes_by_size() -> None:
    value = statistics_of(draw(Scenario((0, 1, 1, 2, 9, 10, 50, 51), 2)))
    assert value.coverage() == {1: 7, 2: 5, 10: 3, 50: 2}
    assert value.coverage((51, 52, 0)) == {51: 1, 52: 0, 0: 8}


def test_half_precision_is_taken_as_it_is() -> None:
    features, labels = tensors(sample_of("balanced"))
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        rounded = features.to(dtype)
        assert_fields_equal(
            ClassStatistics.from_features(rounded, labels, 6),
            ClassStatistics.from_features(rounded.to(torch.float64), labels, 6),
        )


def test_the_graph_is_kept_and_detach_drops_it() -> None:
    features, labels = tensors(sample_of("balanced"))
    value = ClassStatistics.from_features(features.requires_grad_(), labels, 6, per_class=True)
    for name in ("means", "spread", "within", "class_within"):
        assert getattr(value, name).requires_grad
        assert not getattr(value.detach(), name).requires_grad
    assert_fields_equal(value.detach(), statistics_of(sample_of("balanced")))
    (gradient,) = torch.autograd.grad(value.spread.sum(), features)
    deviations = features.detach() - value.means.detach()[labels]
    torch.testing.assert_close(gradient, 2 * deviations, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("field", "shape"),
    [
        ("counts", (4,)),
        ("spread", (2,)),
        ("within", (3, 2)),
        ("class_within", (3, 3, 2)),
        ("class_ids", (1,)),
    ],
)
def test_fields_that_do_not_fit_are_refused(field: str, shape: tuple[int, ...]) -> None:
    fields = {"counts": torch.ones(3, dtype=torch.int64), "means": torch.ones(3, 2), "spread": torch.ones(3)}
    with pytest.raises(ShapeError, match=rf"{field} must have shape .*; got \({str(shape)[1:-1]}\)"):
        ClassStatistics(**(fields | {field: torch.ones(shape, dtype=torch.int64)}))


# ---------------------------------------------------------------------- missing scatter


@pytest.mark.parametrize("name", BOTH)
def test_scatter_that_was_not_kept_is_asked_for_by_name(name: str) -> None:
    features, labels = tensors(sample_of(name))
    classes = len(SCENARIOS[name].counts)
    bare = ClassStatistics.from_features(features, labels, classes, covariance=False)
    assert bare.within is bare.class_within is None
    with pytest.raises(ScatterError, match="covariance=True"):
        bare.within_covariance()
    with pytest.raises(ScatterError, match="covariance=True"):
        bare.total_covariance()
    pooled = ClassStatistics.from_features(features, labels, classes)
    with pytest.raises(ScatterError, match="per_class=True"):
        pooled.within_covariance("class")


def test_the_pooled_scatter_can_be_had_from_that_of_each_class() -> None:
    features, labels = tensors(sample_of("zipf"))
    value = ClassStatistics.from_features(features, labels, 8, covariance=False, per_class=True)
    assert value.within is None
    close(value.within_covariance(), statistics_of(sample_of("zipf")).within_covariance().numpy())


# ---------------------------------------------------------------------- select


@pytest.mark.parametrize("classes", [[3, 0, 5], (1, 2), torch.tensor([7, 6, 4, 0]), list(range(8)), range(3)])
def test_select_is_the_value_of_those_classes_alone(classes) -> None:
    sample = sample_of("zipf")
    chosen = statistics_of(sample).select(classes)
    wanted = [int(k) for k in classes]
    assert chosen.class_ids.tolist() == wanted
    assert chosen.num_labels == 8
    kept = np.isin(sample.labels, wanted)
    labels = np.array([wanted.index(k) for k in sample.labels[kept]])
    alone = statistics_of(Sample(sample.features[kept], labels, len(wanted)))
    for name in ("counts", "means", "spread", "class_within"):
        torch.testing.assert_close(getattr(chosen, name), getattr(alone, name), rtol=1e-9, atol=1e-12)
    close(chosen.within_covariance(), alone.within_covariance().numpy(), 1e-11)


@pytest.mark.parametrize("classes", [[3, 0, 5], [7, 6, 5, 4, 3, 2, 1, 0]])
def test_every_metric_of_selected_classes_is_that_of_their_samples(classes: list[int]) -> None:
    sample = sample_of("zipf")
    chosen = statistics_of(sample).select(classes)
    kept = np.isin(sample.labels, classes)
    labels = np.array([classes.index(k) for k in sample.labels[kept]])
    alone = Sample(
        sample.features[kept], labels, len(classes), sample.weight[classes], sample.bias[classes], sample.outside
    )
    evidence, expected = evidence_of(sample, chosen), truth(alone)
    values = {
        name: metric.of(evidence).item() for name, metric in VARIANTS.items() if "decisions" not in metric.reads
    }  # the classifier decides among all eight classes
    assert not wrong(values, expected, 1e-10)


def test_select_by_size() -> None:
    value = statistics_of(draw(Scenario((0, 1, 5, 2, 9, 5), 3)))
    assert value.select(min_count=5).class_ids.tolist() == [2, 4, 5]
    assert value.select(max_count=2).class_ids.tolist() == [0, 1, 3]
    assert value.select(min_count=2, max_count=5).class_ids.tolist() == [2, 3, 5]
    assert value.select([5, 4, 1], min_count=2).class_ids.tolist() == [5, 4]


def test_the_pooled_scatter_survives_where_all_samples_do() -> None:
    features, labels = tensors(sample_of("empty classes"))
    value = ClassStatistics.from_features(features, labels, 6)
    assert value.select([5, 3, 2, 0]).within is value.within
    assert value.select([5, 3, 2]).within is None
    with pytest.raises(ScatterError, match="per_class=True"):
        value.select([5, 3, 2]).within_covariance()


def test_a_class_chosen_twice_does_not_stand_for_another() -> None:
    """Two classes of six samples: choosing one of them twice gives twelve samples too, but other ones."""
    features, labels = tensors(draw(Scenario((6, 6), 3)))
    value = ClassStatistics.from_features(features, labels, 2)
    try:
        chosen = value.select([0, 0])
    except LabelError:
        return  # refused, which is as good
    assert chosen.within is None


def test_selecting_again_goes_by_label() -> None:
    value = statistics_of(sample_of("zipf"))
    twice = value.select([6, 4, 2, 0]).select([2, 6])
    assert twice.class_ids.tolist() == [2, 6]
    assert_fields_equal(twice, value.select([2, 6]))
    with pytest.raises(LabelError, match="class 4 is not in these statistics"):
        twice.select([6, 4])
    assert twice.select().class_ids.tolist() == [2, 6]


@pytest.mark.parametrize(("classes", "label"), [([0, 8], 8), ([-1], -1)])
def test_selecting_a_class_that_is_not_there_is_refused(classes: list[int], label: int) -> None:
    with pytest.raises(LabelError, match=rf"\[0, 8\); got {label}"):
        statistics_of(sample_of("zipf")).select(classes)


def test_populated_leaves_out_classes_without_samples() -> None:
    value = statistics_of(sample_of("empty classes"))
    assert value.populated().class_ids.tolist() == [0, 2, 3, 5]
    full = statistics_of(sample_of("balanced"))
    assert full.populated() is full
    one = statistics_of(draw(Scenario((0, 3, 0), 2)))
    with pytest.raises(EmptyClassError, match="1 of 3 has"):
        one.populated()
    with pytest.raises(EmptyClassError, match="0 of 4 have"):
        ClassStatistics.empty(4, 2).populated()


# ---------------------------------------------------------------------- merge and subtract refuse


def test_values_of_other_things_do_not_merge() -> None:
    value = statistics_of(sample_of("zipf"))
    others = {
        "same classes and features": ClassStatistics.empty(7, 12, per_class=True),
        "features": ClassStatistics.empty(8, 11, per_class=True),
        "same classes": value.select([7, 6, 5, 4, 3, 2, 1, 0]),
        "both statistics must have within": ClassStatistics.empty(8, 12, covariance=False, per_class=True),
        "both statistics must have class_within": ClassStatistics.empty(8, 12),
        "about given centres": value.about(value.means),
    }
    for message, other in others.items():
        for combine in (value.merge, value.subtract):
            with pytest.raises(MergeError, match=message):
                combine(other)
        with pytest.raises(MergeError, match=message):
            other.merge(value)


def test_more_samples_than_there_are_can_not_be_taken_away() -> None:
    value = statistics_of(sample_of("zipf"))
    with pytest.raises(MergeError, match="can't subtract 96 samples of class 0 from 48"):
        value.subtract(value.merge(value))


def test_selected_values_merge_with_their_like() -> None:
    value = statistics_of(sample_of("zipf"))
    chosen = value.select([6, 1])
    assert_fields_close(chosen.merge(chosen), value.merge(value).select([6, 1]), 1e-12)
    assert chosen.merge(chosen).class_ids.tolist() == [6, 1]


# ---------------------------------------------------------------------- about other centres


@pytest.mark.parametrize("name", ["zipf", "empty classes", "single samples"])
@pytest.mark.parametrize("shared", [False, True])
def test_about_takes_spread_and_scatter_about_the_given_centres(name: str, shared: bool) -> None:
    sample = sample_of(name)
    features, labels = tensors(sample)
    value = statistics_of(sample)
    generator = torch.Generator().manual_seed(1)
    shape = value.means.shape[1:] if shared else value.means.shape
    centres = 10 + torch.randn(shape, generator=generator, dtype=torch.float64)
    moved = value.about(centres)
    deviations = features - centres.expand_as(value.means)[labels]
    close(moved.within, (deviations.mT @ deviations).numpy())
    spread = torch.zeros(len(value.counts), dtype=torch.float64).index_add(0, labels, deviations.square().sum(1))
    close(moved.spread, spread.numpy())
    for k in value.present.nonzero().flatten():
        own = deviations[labels == k]
        close(moved.class_within[k], (own.mT @ own).numpy())
        assert torch.equal(moved.means[k], centres.expand_as(value.means)[k])
    assert moved.means[~value.present].isnan().all()
    assert moved.recentred
    assert not value.recentred


def test_about_the_own_means_changes_no_number() -> None:
    value = statistics_of(sample_of("empty classes"))
    assert_fields_equal(value.about(value.means), value)


# ---------------------------------------------------------------------- files and devices


@pytest.mark.parametrize("per_class", [False, True])
@pytest.mark.parametrize("covariance", [False, True])
def test_a_file_holds_the_whole_value(tmp_path: Path, covariance: bool, per_class: bool) -> None:
    features, labels = tensors(sample_of("empty classes"))
    whole = ClassStatistics.from_features(features, labels, 6, covariance=covariance, per_class=per_class)
    for value in (whole, whole.select([5, 0, 2]), whole.about(torch.ones(8)), ClassStatistics.empty(3, 2)):
        value.save(tmp_path / "value.safetensors")
        back = ClassStatistics.load(tmp_path / "value.safetensors")
        assert_fields_equal(back, value)
        assert (back.num_labels, back.recentred) == (value.num_labels, value.recentred)
        value.save(str(tmp_path / "value.safetensors"))
        assert_fields_equal(ClassStatistics.load(str(tmp_path / "value.safetensors")), value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    junk, other, bare = (tmp_path / name for name in ("junk", "other", "bare"))
    junk.write_bytes(b"no tensors here, only text of some length")
    save_file({"counts": torch.ones(3)}, other, metadata={"format": "something else"})
    save_file({"counts": torch.ones(3)}, bare)
    with pytest.raises(StateError, match="junk is damaged"):
        ClassStatistics.load(junk)
    with pytest.raises(StateError, match=r"must be a file of .*something else"):
        ClassStatistics.load(other)
    with pytest.raises(StateError, match="must be a file of"):
        ClassStatistics.load(bare)
    with pytest.raises(StateError, match="doesn't exist"):
        ClassStatistics.load(tmp_path / "missing")


def test_moving_to_the_device_it_is_on_changes_nothing() -> None:
    value = statistics_of(sample_of("zipf")).select([3, 1])
    assert_fields_equal(value.to("cpu"), value)
    assert value.to(torch.device("cpu")).num_labels == 8
