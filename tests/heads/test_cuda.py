"""On a GPU: heads and losses give what they give on the CPU, and nothing waits for the host."""

from collections.abc import Callable

import pytest
import torch

from tightframe import PrototypeHead, prototypes
from tightframe.head import follows_labels
from tightframe.heads import SIMILARITIES, DeepNCM, GuidedHead, HierarchicalHead
from tightframe.hierarchy import Hierarchy
from tightframe.losses import (
    BalancedDotRegression,
    CentreCollapse,
    CosineMatching,
    DotRegression,
    Hyperspherical,
    PrototypeCrossEntropy,
)

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]
X, Y = torch.randn(64, 16), torch.arange(64) % 6
TREE = Hierarchy.from_nested({"r": {"a": ["0", "1", "2"], "b": ["3", "4", "5"]}})


@pytest.mark.parametrize("logits", SIMILARITIES)
def test_heads_as_on_the_cpu_without_waiting(logits: str) -> None:
    vectors = torch.randn(6, 16)
    here, there = PrototypeHead(vectors, logits=logits), PrototypeHead(vectors, logits=logits).cuda()
    x = X.cuda().requires_grad_()
    torch.cuda.set_sync_debug_mode("error")
    try:
        logits_there = there(x)
        logits_there.sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(logits_there.cpu(), here(X), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", [PrototypeHead, lambda v: DeepNCM(6, 16, logits="cosine"), Hyperspherical])
def test_rows_of_length_zero_without_waiting(make: Callable[[torch.Tensor], torch.nn.Module]) -> None:
    """Also class means of length zero, and none at all."""
    there, x, y = make(torch.randn(6, 16)).cuda(), (X * (Y > 0)[:, None]).cuda().requires_grad_(), Y.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        first = there(x, y) if isinstance(there, Hyperspherical) else there(x)
        value = there(x, y) if follows_labels(there) else first
        value.clamp_min(-1e9).logsumexp(-1).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert value.isfinite().all() and first.isfinite().all()
    assert torch.equal(x.grad.any(1).cpu(), Y > 0)


def test_heads_that_follow_and_trees() -> None:
    for make in (
        lambda: DeepNCM(6, 16),
        lambda: GuidedHead(prototypes.simplex(6, 16)),
        lambda: PrototypeHead(prototypes.simplex(6, 16)),
    ):
        here, there = make(), make().cuda()
        if here.follows_labels:
            torch.testing.assert_close(there(X.cuda(), Y.cuda()).cpu(), here(X, Y), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(there(X.cuda()).cpu(), here(X), rtol=1e-4, atol=1e-4)
    tree = HierarchicalHead(TREE, 16)
    there_logits = tree(X)
    torch.testing.assert_close(tree.cuda()(X.cuda()).cpu(), there_logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("loss", [DotRegression, BalancedDotRegression, CosineMatching, PrototypeCrossEntropy])
def test_losses_as_on_the_cpu_without_waiting(loss: type) -> None:
    frame = prototypes.simplex(6, 16)
    there, x, y = loss(frame).cuda(), X.cuda().requires_grad_(), Y.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        value = there(x, y)
        value.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(value.cpu(), loss(frame)(X, Y), rtol=1e-5, atol=1e-6)


def test_pixels_in_half_precision() -> None:
    z, labels = torch.randn(2, 16, 8, 8, device="cuda", dtype=torch.float16), torch.randint(6, (2, 8, 8), device="cuda")
    assert CentreCollapse(prototypes.simplex(6, 16)).cuda()(z, labels).isfinite()
