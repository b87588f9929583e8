"""Steps over sampled classes: the own classes are among them, gradients are the dense head's, cost does not grow."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from heads.cases import KINDS, as_layouts, draw, labels_like
from tightframe.errors import LabelError, RangeError
from tightframe.heads import PrototypeHead
from tightframe.heads.sampling import distinct, sampled_classes

K, D = 40, 6


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("learnable", [False, True])
@pytest.mark.parametrize("margin", [None, 0.3])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_dense_head(kind: str, margin: float | None, learnable: bool) -> None:
    """The dense logits' columns of the sampled classes, with the same loss; other prototypes have no gradient."""
    if margin is not None and kind != "cosine":
        return
    P, y = draw(K, D, seed=1), torch.tensor([3, 39, 0, 3, 17, -100])
    options = {"logits": kind, "margin": margin, "learnable": learnable, "learn_scale": True, "dtype": torch.float64}
    sampling, dense = PrototypeHead(P, **options), PrototypeHead(P, **options)
    z, w = draw(6, D).requires_grad_(), draw(6, D).requires_grad_()
    logits, labels, classes = sampling.sampled(z, y, 11, generator=generator(0))
    loss = cross_entropy(logits, labels)
    loss.backward()
    whole = dense(w, y) if margin is not None else dense(w)
    columns = torch.tensor([classes.tolist().index(label) if label >= 0 else -100 for label in y.tolist()])
    expected = cross_entropy(whole[:, classes], columns)
    expected.backward()
    assert torch.equal(labels, columns)
    close = {"rtol": 1e-9, "atol": 1e-12}
    torch.testing.assert_close(loss, expected, **close)
    torch.testing.assert_close(z.grad, w.grad, **close)
    torch.testing.assert_close(sampling.log_scale.grad, dense.log_scale.grad, **close)
    if learnable:
        gradient = sampling.vectors.grad
        assert gradient.is_sparse and set(gradient.coalesce().indices()[0].tolist()) <= set(classes.tolist())
        torch.testing.assert_close(gradient.to_dense(), dense.vectors.grad, **close)
        again = PrototypeHead(P, **options)
        cross_entropy(*again.sampled(draw(6, D), y, 11, sparse=False, generator=generator(0))[:2]).backward()
        torch.testing.assert_close(again.vectors.grad, dense.vectors.grad, **close)


def test_all_classes_are_the_dense_head() -> None:
    head, y = PrototypeHead(draw(K, D, seed=1), margin=0.2, dtype=torch.float64), torch.arange(9)
    logits, labels, classes = head.sampled(draw(9, D), y, 1000)
    assert torch.equal(classes, torch.arange(K)) and torch.equal(labels, y)
    torch.testing.assert_close(logits, head(draw(9, D), y), rtol=1e-12, atol=1e-12)
    assert torch.equal(head.eval().sampled(draw(9, D), y, 1000).logits, head(draw(9, D)))
    head.open(12)
    assert torch.equal(head.sampled(draw(9, D), y, 1000).classes, torch.arange(12))
    with pytest.raises(LabelError):
        head.sampled(draw(1, D), torch.tensor([12]), 5)
    with pytest.raises(RangeError, match="num_sampled must be at least 1; got 0"):
        head.sampled(draw(9, D), y, 0)


def test_every_layout_gives_the_same_rows() -> None:
    head, y = PrototypeHead(draw(K, D, seed=1), margin=0.2, dtype=torch.float64), torch.arange(12) * 3
    expected = head.sampled(draw(12, D), y, 20, generator=generator(3))
    for (features, _), labels in zip(as_layouts(draw(12, D)), labels_like(y), strict=True):
        result = head.sampled(features, labels, 20, generator=generator(3))
        torch.testing.assert_close(result.logits, expected.logits, rtol=1e-12, atol=1e-12)
        assert torch.equal(result.labels, expected.labels) and torch.equal(result.classes, expected.classes)


@pytest.mark.parametrize("count", [3, 4, 10, 25, 39, 40, 90])
def test_sampled_classes(count: int) -> None:
    labels = torch.tensor([5, 5, 39, 0])
    for seed in range(20):
        classes = sampled_classes(labels, K, count, generator(seed))
        assert classes.tolist() == sorted(set(classes.tolist()))
        assert {0, 5, 39} <= set(classes.tolist()) <= set(range(K))
        assert len(classes) == min(max(count, 3), K)
    assert sampled_classes(torch.arange(K), K, 5).tolist() == list(range(K))
    assert len(sampled_classes(labels[:0], K, 5)) == 5


@pytest.mark.parametrize("count", [4, 12])  # by rejection, and by a permutation
def test_others_are_drawn_uniformly_without_replacement(count: int) -> None:
    """Each of 20 numbers, and each pair, as often as a uniform draw has it, to five standard deviations."""
    draws, number = 4000, 20
    stream, pairs = generator(1), torch.zeros(number, number)
    for _ in range(draws):
        some = distinct(number, count, torch.device("cpu"), stream)
        assert len(some.unique()) == count
        mask = torch.zeros(number).index_fill(0, some, 1.0)
        pairs += mask.outer(mask)
    for share, counts in (
        (count / number, pairs.diagonal()),
        (count * (count - 1) / (number * (number - 1)), pairs[~torch.eye(number, dtype=torch.bool)]),
    ):
        deviation = (draws * share * (1 - share)) ** 0.5
        assert float((counts - draws * share).abs().max()) < 5 * deviation


class Largest(TorchDispatchMode):
    """The most entries of a strided result of an operation, but for changes of the prototypes in place."""

    def __init__(self, vectors: Tensor):
        super().__init__()
        self.entries, self.place = 0, vectors.data_ptr()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for each in tree_leaves(result):
            if isinstance(each, Tensor) and each.layout is torch.strided and each.data_ptr() != self.place:
                self.entries = max(self.entries, each.numel())
        return result


@pytest.mark.parametrize("learnable", [False, True])
def test_no_tensor_grows_with_the_number_of_classes(learnable: bool) -> None:
    head = PrototypeHead(draw(50_000, 4, seed=1), learnable=learnable, margin=0.05, dtype=torch.float64)
    vectors = head.vectors.detach().clone()
    z, y = draw(8, 4).requires_grad_(), torch.arange(8) * 6000
    with Largest(head.vectors) as largest:
        logits, labels, classes = head.sampled(z, y, 100)
        cross_entropy(logits, labels).backward()
        if learnable:
            torch.optim.SGD(head.parameters(), lr=0.1).step()
    assert 0 < largest.entries <= 8 * 100
    if learnable:
        changed = (head.vectors.detach() != vectors).any(1).nonzero().flatten()
        assert set(y.tolist()) <= set(changed.tolist()) <= set(classes.tolist())
