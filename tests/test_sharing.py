"""What is kept beside an object is made once, anew when its tensors change, and never where there is a graph."""

import gc

import torch

from tightframe import ClassStatistics, metrics
from tightframe.metrics.layers import weight_factors
from tightframe.sharing import forget, once


class Owner:
    pass


def test_made_once_and_again_when_forgotten_or_changed_in_place() -> None:
    owner, tensor, made = Owner(), torch.ones(3), []

    def make() -> float:
        made.append(1)
        return float(tensor.sum())

    assert [once(owner, "sum", make, tensor) for _ in range(3)] == [3.0] * 3 and len(made) == 1
    tensor += 1
    assert once(owner, "sum", make, tensor) == 6.0 and len(made) == 2
    forget(owner)
    assert once(owner, "sum", make, tensor) == 6.0 and len(made) == 3
    forget(Owner())  # of which nothing is known


def test_nothing_with_a_graph_is_kept() -> None:
    owner, tensor, made = Owner(), torch.ones(3, requires_grad=True), []
    for _ in range(2):
        once(owner, "sum", lambda: made.append(1), tensor)
    assert len(made) == 2


def test_two_measures_of_one_graph_can_both_be_trained_on() -> None:
    features = torch.randn(40, 6, dtype=torch.float64, requires_grad=True)
    statistics = ClassStatistics.from_features(features, torch.arange(40) % 4, 5)  # one class has no samples
    for measure in (metrics.nc1, metrics.vci, metrics.etf_distance, metrics.etf_error):
        measure(statistics).backward(retain_graph=True)
    assert features.grad is not None and features.grad.isfinite().all()


def test_kept_as_long_as_the_object_lives() -> None:
    owner, made = Owner(), []
    once(owner, "it", lambda: made.append(1))
    del owner
    gc.collect()
    other = Owner()
    once(other, "it", lambda: made.append(1))
    assert len(made) == 2


def test_singular_vectors_follow_a_weight_that_is_changed_without_a_trace() -> None:
    weight = torch.randn(4, 6, dtype=torch.float64)
    before = weight_factors(weight).sizes
    assert torch.equal(weight_factors(weight).sizes, before)
    weight.data *= 2  # no version tells of it
    torch.testing.assert_close(weight_factors(weight).sizes, 2 * before)
