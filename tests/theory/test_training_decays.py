"""`Training`: what is known of how a classifier was trained, and the optimum that follows from it."""

import json

import pytest
import torch
from torch import nn

from tightframe import ClassStatistics, measure
from tightframe.errors import ChoiceError, OptionError, RangeError, ShapeError
from tightframe.theory import OPTIMA, Training, cross_entropy_optimum, estimated_feature_decay, squared_error_optimum

COUNTS = [20, 20, 5]


@pytest.mark.parametrize(
    ("loss", "function"), [("cross-entropy", cross_entropy_optimum), ("squared error", squared_error_optimum)]
)
@pytest.mark.parametrize(
    ("bias_decay", "with_bias", "decay"),
    [(None, True, 1e-3), (None, False, None), (0.0, True, 0.0), (0.5, True, 0.5), (0.5, False, None)],
)
def test_the_optimum_is_that_of_the_loss_and_the_decays(
    loss: str, function: object, bias_decay: float | None, with_bias: bool, decay: float | None
) -> None:
    """Weight decay is a bias's too unless something else is said, and nobody's without a bias."""
    assert OPTIMA[loss] is function
    found = Training(1e-3, 2e-3, bias_decay, loss).optimum(torch.tensor(COUNTS), with_bias=with_bias)
    expected = OPTIMA[loss](COUNTS, 1e-3, 2e-3, decay)
    torch.testing.assert_close(found.classifiers, expected.classifiers)
    assert (found.bias is None) == (not with_bias)
    assert found.loss == expected.loss


def test_the_features_decay_is_estimated_only_where_it_was_not_given() -> None:
    features, labels = torch.randn(30, 4, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 3
    statistics, weight = ClassStatistics.from_features(features, labels, 3), torch.randn(3, 4)
    known = Training(1e-3, bias_decay=0.0, loss="squared error").with_feature_decay(statistics, weight)
    assert known == Training(1e-3, float(estimated_feature_decay(statistics, weight, 1e-3)), 0.0, "squared error")
    assert known.with_feature_decay(statistics, 2 * weight) is known
    assert Training.from_dict(known.to_dict()) == known


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"weight_decay": 0.0}, RangeError, "weight_decay"),
        ({"weight_decay": 1.0, "feature_decay": -1.0}, RangeError, "feature_decay"),
        ({"weight_decay": 1.0, "bias_decay": -1.0}, RangeError, "bias_decay must be finite and >= 0; got -1.0"),
        ({"weight_decay": 1.0, "loss": "hinge"}, ChoiceError, "one of cross-entropy, squared error; got 'hinge'"),
        ({"weight_decay": 1.0, "label_smoothing": -0.1}, RangeError, "label smoothing"),
        ({"weight_decay": 1.0, "class_weights": [1, -1]}, RangeError, "class weights"),
        ({"weight_decay": 1.0, "class_weights": 2.0}, ShapeError, r"class weights must have shape \(K,\)"),
        *(
            ({"weight_decay": 1.0, "loss": "squared error", name: 0.1}, OptionError, f"has no option {name}")
            for name in ("label_smoothing", "logit_adjustment")
        ),
    ],
)
def test_what_is_refused(arguments: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Training(**arguments)  # type: ignore[arg-type]


def test_no_optimum_without_the_features_decay() -> None:
    with pytest.raises(RangeError, match="with_feature_decay"):
        Training(1e-3).optimum(COUNTS, with_bias=False)


@pytest.mark.parametrize("adjustment", [1, [0.5, 0, -1], torch.tensor([0.5, 0, -1])])
def test_options_of_the_loss_reach_its_optimum_and_survive_saving(adjustment: object) -> None:
    options = {"label_smoothing": 0.1, "class_weights": [1, 1, 4], "logit_adjustment": adjustment}
    training = Training(1e-3, 2e-3, **options)  # type: ignore[arg-type]
    again = Training.from_dict(json.loads(json.dumps(training.to_dict())))
    assert again == training and hash(again) == hash(training)
    expected = cross_entropy_optimum(COUNTS, 1e-3, 2e-3, 1e-3, **options)  # type: ignore[arg-type]
    assert torch.equal(again.optimum(COUNTS, with_bias=True).classifiers, expected.classifiers)
    squared = Training(1e-3, 2e-3, loss="squared error", class_weights=[1, 1, 4])
    expected = squared_error_optimum(COUNTS, 1e-3, 2e-3, class_weights=[1, 1, 4])
    assert torch.equal(squared.optimum(COUNTS, with_bias=False).classifiers, expected.classifiers)


def test_a_measurement_predicts_with_the_options() -> None:
    """A classifier at the optimum of its options is at distance 0 of it; a class without samples takes no part."""
    counts, weights = [20, 20, 0, 5], [1.0, 1.0, 9.0, 3.0]
    options = {"label_smoothing": 0.1, "class_weights": [1.0, 1.0, 3.0]}
    optimum = cross_entropy_optimum([20, 20, 5], 1e-3, 1e-3, **options)  # type: ignore[arg-type]
    values, vectors = torch.linalg.eigh(optimum.classifiers)
    weight = vectors[:, 1:] * values[1:].sqrt()
    means = torch.linalg.lstsq(weight, optimum.logits).solution.mT
    labels = torch.arange(4).repeat_interleave(torch.tensor(counts))
    noise = 1e-3 * torch.randn(45, 2, generator=torch.Generator().manual_seed(0)).double()
    features = means[torch.tensor([0, 1, 0, 2])][labels] + noise
    model = nn.Sequential(nn.Linear(2, 4, bias=False)).double()
    model[0].weight.data = torch.cat([weight[:2], torch.zeros(1, 2), weight[2:]])
    distances = []
    for chosen in ({"label_smoothing": 0.1, "class_weights": weights}, {}):
        training = Training(1e-3, 1e-3, **chosen)  # type: ignore[arg-type]
        report = measure(model, [(features, labels)], training=training, classifier="0", folds=0, progress=False)
        distances.append((report["classifier_optimum_error"].value, report["optimum_error"].value))
        assert report.facts.training.class_weights == ((1.0, 1.0, 3.0) if chosen else None)
    assert distances[0][0] < 1e-9 and distances[1][0] > 1e-2
    assert distances[0][1] < distances[1][1] / 2
    statistics, other = ClassStatistics.from_features(features, labels, 4), Training(1e-3, class_weights=[1, 1, 3])
    with pytest.raises(ShapeError, match=r"class_weights must have shape \(4,\), one per class; got \(3,\)"):
        other.with_feature_decay(statistics, model[0].weight)
