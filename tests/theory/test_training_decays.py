"""`Training`: what is known of how a classifier was trained, and the optimum that follows from it."""

import pytest
import torch

from tightframe import ClassStatistics
from tightframe.errors import ChoiceError, RangeError
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
        ({"weight_decay": 1.0, "bias_decay": -1.0}, RangeError, "bias_decay must be finite and at least 0; got -1.0"),
        ({"weight_decay": 1.0, "loss": "hinge"}, ChoiceError, "one of cross-entropy, squared error; got 'hinge'"),
    ],
)
def test_what_is_refused(arguments: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Training(**arguments)  # type: ignore[arg-type]


def test_no_optimum_without_the_features_decay() -> None:
    with pytest.raises(RangeError, match="with_feature_decay"):
        Training(1e-3).optimum(COUNTS, with_bias=False)
