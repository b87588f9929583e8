"""Embeddings of length zero, as a dead ReLU gives: cosines of 0, a gradient of 0, one warning, and training goes on."""

import copy
import math
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from heads.cases import assert_close, draw
from tightframe import PrototypeHead, PrototypeModel, prototypes
from tightframe.errors import ZeroVectorWarning
from tightframe.heads import DecayedMeans, DeepNCM, GuidedHead, HierarchicalHead, UnitLength, decision_layer, fold
from tightframe.hierarchy import Hierarchy
from tightframe.losses import (
    BalancedDotRegression,
    CentreCollapse,
    CosineMatching,
    DotRegression,
    Hyperspherical,
    JointHyperspherical,
    PoleRegression,
    PrototypeCrossEntropy,
)

K, D, N, SCALE = 3, 4, 6, 1.7
ZERO = 2  # the row of length zero
Y = torch.tensor([0, 1, 2, 0, 1, 0])
TREE = Hierarchy.from_nested({"all": {"a": ["x", "y"], "b": ["z"]}})


def rows(tiny: float = 0.0) -> Tensor:
    z = draw(N, D)
    z[ZERO] *= tiny
    return z.requires_grad_()


def cosines(z: Tensor, P: Tensor) -> Tensor:
    """(N, K) from the definition, entry by entry; 0 for a vector of length zero."""
    zero = torch.zeros((), dtype=torch.float64)

    def cosine(a: Tensor, b: Tensor) -> Tensor:
        a_length, b_length = (math.sqrt(sum(x**2 for x in v.tolist())) for v in (a, b))
        if a_length == 0 or b_length == 0:
            return zero
        return (a * b).sum() / ((a * a).sum().sqrt() * (b * b).sum().sqrt())

    return torch.stack([torch.stack([cosine(a, b) for b in P]) for a in z])


def warned(*calls: Callable[[], object]) -> list[str]:
    """What is warned of in these calls."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always", ZeroVectorWarning)
        for call in calls:
            call()
    return [str(each.message) for each in found]


def gradients(value: Tensor, *leaves: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(value, leaves))


# ---------------------------------------------------------------------------------------------- heads

FRAME = prototypes.simplex(K, D).vectors
WEIGHTS = draw(N, K, seed=3)


def ncm(logits: str = "cosine") -> DeepNCM:
    """In eval mode, with means of 10 embeddings."""
    head = DeepNCM(K, D, logits=logits, scale=SCALE, dtype=torch.float64)
    head.means.update(draw(10, D, seed=8), torch.arange(10) % K)
    return head.eval()


HEADS: dict[str, Callable[[], nn.Module]] = {
    "fixed": lambda: PrototypeHead(FRAME, scale=SCALE, dtype=torch.float64),
    "learnt": lambda: PrototypeHead(draw(K, D, seed=1), scale=SCALE, learnable=True, dtype=torch.float64),
    "ncm": ncm,
    "guided": lambda: GuidedHead(FRAME, scale=SCALE, dtype=torch.float64).eval(),
    "folded": lambda: fold(PrototypeHead(FRAME, scale=SCALE, dtype=torch.float64)),
    "model": lambda: PrototypeModel(nn.Identity(), PrototypeHead(FRAME, scale=SCALE, dtype=torch.float64)),
}


@pytest.mark.parametrize("name", HEADS)
def test_logits_and_gradients_of_heads(name: str) -> None:
    head, z, again = HEADS[name](), rows(), rows()
    P = (draw(K, D, seed=1) if name == "learnt" else getattr(head, "prototypes", FRAME)).detach().requires_grad_()
    with pytest.warns(ZeroVectorWarning, match=r"s must have a direction; row 2 is zero \(1 of 6 rows\)\. Cosines"):
        logits = head(z)
    wanted = SCALE * cosines(again, P)
    assert_close(logits, wanted, 1e-12)
    assert not logits[ZERO].any()
    (to_z,), (expected,) = gradients((logits * WEIGHTS).sum(), z), gradients((wanted * WEIGHTS).sum(), again)
    assert_close(to_z, expected, 1e-12)
    assert to_z.any(1).tolist() == [True, True, False, True, True, True]


def test_gradients_of_learnt_prototypes_and_scale() -> None:
    head = PrototypeHead(draw(K, D, seed=1), scale=SCALE, learnable=True, learn_scale=True, dtype=torch.float64)
    with pytest.warns(ZeroVectorWarning):
        (head(rows()) * WEIGHTS).sum().backward()
    P = draw(K, D, seed=1).requires_grad_()
    wanted = (SCALE * cosines(rows().detach(), P) * WEIGHTS).sum()
    assert_close(head.prototypes.grad, gradients(wanted, P)[0], 1e-12)
    assert_close(head.log_scale.grad, wanted, 1e-12)


@pytest.mark.parametrize("tiny", [1e-170, 1e-200])
def test_rows_too_short_to_be_squared_count_as_zero(tiny: float) -> None:
    head, z = HEADS["fixed"](), rows(tiny)
    with pytest.warns(ZeroVectorWarning, match="row 2 is too short to be squared"):
        logits = head(z)
    assert not logits[ZERO].any()
    (to_z,) = gradients((logits * WEIGHTS).sum(), z)
    assert not to_z[ZERO].any() and to_z.isfinite().all()


def test_a_tree_on_a_head() -> None:
    """Scores of 0 for all nodes: conditional probabilities are even."""
    nodes = prototypes.simplex(len(TREE), 5)
    head, z = HierarchicalHead(TREE, scores=PrototypeHead(nodes, dtype=torch.float64)), draw(2, 5)
    z[1] = 0
    z.requires_grad_()
    with pytest.warns(ZeroVectorWarning):
        logits = head(z)
    assert_close(logits[1], torch.tensor([1 / 4, 1 / 4, 1 / 2]).log(), 1e-7)
    (to_z,) = gradients(logits[:, 0].sum(), z)
    assert to_z[0].any() and not to_z[1].any()


def test_unit_length_in_blocks() -> None:
    x = draw(2, 3, 4)
    x[1, 2] = 0
    with pytest.warns(ZeroVectorWarning, match=r"features must have a direction; row 5 is zero \(1 of 6 rows\)"):
        unit = UnitLength()(x)
    lengths = x.square().sum(-1, keepdim=True).sqrt()
    lengths[1, 2] = 1
    assert_close(unit, x / lengths, 1e-12)


def test_one_warning_for_each_head() -> None:
    head, z = HEADS["fixed"](), rows()
    assert len(warned(lambda: head(z), lambda: head(z), lambda: head(2 * z), lambda: copy.deepcopy(head)(z))) == 2
    head(z)  # where a warning would be an error


def test_a_head_and_its_loss_warn_once_together() -> None:
    head, z = HEADS["fixed"](), rows()
    loss = Hyperspherical(head)
    assert len(warned(lambda: loss(head.embed(z), Y), lambda: head(z))) == 1


def test_what_is_not_looked_at_has_the_same_gradients() -> None:
    """As on a GPU: here within torch.func."""
    head, z = HEADS["fixed"](), rows()
    to_z = torch.func.grad(lambda z: (head(z) * WEIGHTS).sum())(z.detach())
    (expected,) = gradients((SCALE * cosines(z, FRAME) * WEIGHTS).sum(), z)
    assert_close(to_z, expected, 1e-12)
    assert not to_z[ZERO].any()


def test_a_dead_network_trains_on() -> None:
    """All features zero in the first batch: no gradient reaches it, and the next batch has one."""
    head = PrototypeHead(FRAME.float(), 5)
    optimiser = torch.optim.SGD(head.parameters(), 0.1)
    before = head.projection.weight.detach().clone()

    def step(x: Tensor) -> None:
        optimiser.zero_grad()
        nn.functional.cross_entropy(head(x), Y).backward()
        optimiser.step()

    (message,) = warned(lambda: step(torch.zeros(N, 5)))
    assert "6 of 6 rows" in message
    assert torch.equal(head.projection.weight, before)
    step(torch.randn(N, 5))
    assert not torch.equal(head.projection.weight, before) and head.projection.weight.isfinite().all()


def test_a_class_mean_of_length_zero() -> None:
    """A class whose samples are all dead: its cosine is 0, for the linear rule too; other classes have theirs."""
    head = DeepNCM(K + 1, D, logits="cosine", scale=SCALE, dtype=torch.float64)
    z = draw(N, D)
    z[Y == 0] = 0
    z.requires_grad_()
    with pytest.warns(ZeroVectorWarning, match="3 of 6 rows"):
        logits = head(z, Y)
    means = torch.stack([z.detach()[k == Y].mean(0) for k in range(K)])
    assert not means[0].any()
    assert_close(logits[:, :K], SCALE * cosines(z, means), 1e-12)
    assert (logits[:, K] == -math.inf).all()
    (to_z,) = gradients((logits[:, :K] * WEIGHTS).sum(), z)
    assert_close(
        to_z, gradients((SCALE * cosines(again := z.detach().requires_grad_(), means) * WEIGHTS).sum(), again)[0], 1e-12
    )
    assert not head.weight[0].any() and head.weight[K].isnan().all()
    head.open(K)
    rule = decision_layer(head.eval())
    assert torch.equal(rule(z.detach()).argmax(1)[Y > 0], logits[:, :K].argmax(1)[Y > 0])


def test_a_guided_head_turns_on_with_some_dead_rows() -> None:
    head = GuidedHead(FRAME, scale=SCALE, means=DecayedMeans(K, D), dtype=torch.float64)
    z = rows()
    with pytest.warns(ZeroVectorWarning):
        logits = head(z, Y)
    assert_close(logits, SCALE * cosines(z, head.prototypes), 1e-12)
    assert logits.isfinite().all() and gradients((logits * WEIGHTS).sum(), z)[0].isfinite().all()


def test_a_guided_head_stays_where_it_is_while_all_rows_are_dead() -> None:
    head = GuidedHead(FRAME, scale=SCALE, dtype=torch.float64)
    z = torch.zeros(N, D, dtype=torch.float64, requires_grad=True)
    with pytest.warns(ZeroVectorWarning, match="6 of 6 rows"):
        logits = head(z, Y)
    assert not logits.any() and not gradients((logits * WEIGHTS).sum(), z)[0].any()
    assert torch.equal(head.prototypes, FRAME)
    head(draw(N, D), Y)
    assert not torch.equal(head.prototypes, FRAME)


# ---------------------------------------------------------------------------------------------- losses


def by_definition(name: str, z: Tensor, P: Tensor) -> Tensor:
    """The losses of the rows, (N,), from the cosines."""
    cosine, among = cosines(z, P), cosines(P, P)
    own = cosine[torch.arange(N), Y]
    lengths = P.square().sum(1).sqrt()[Y]
    counts = torch.tensor([int((k == Y).sum()) for k in Y], dtype=torch.float64)
    return {
        "dot": lengths * (1 - own) ** 2 / 2,
        "balanced": lengths * (1 - own) ** 2 / 2 * N / (K * counts),
        "hyperspherical": (1 - own) ** 2,
        "matching": (cosine - among[Y]).square().sum(1),
        "cross-entropy": (16 * cosine).logsumexp(1) - 16 * own,
    }[name]


LOSSES: dict[str, Callable[..., nn.Module]] = {
    "dot": DotRegression,
    "balanced": BalancedDotRegression,
    "hyperspherical": Hyperspherical,
    "matching": CosineMatching,
    "cross-entropy": PrototypeCrossEntropy,
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_their_gradients(name: str) -> None:
    head = PrototypeHead(draw(K, D, seed=1), learnable=True, dtype=torch.float64)
    loss, z, again, weights = LOSSES[name](head, reduction="none"), rows(), rows(), draw(N, seed=4)
    with pytest.warns(ZeroVectorWarning, match=r"embeddings must have a direction; row 2 is zero"):
        values = loss(z, Y)
    assert torch.equal(loss(z, Y), values)  # where a second warning would be an error
    P = draw(K, D, seed=1).requires_grad_()
    wanted = by_definition(name, again, P)
    assert_close(values, wanted, 1e-12)
    to_z, to_P = gradients((values * weights).sum(), z, head.prototypes)
    expected_z, expected_P = gradients((wanted * weights).sum(), again, P)
    assert_close(to_z, expected_z, 1e-11)
    assert_close(to_P, expected_P, 1e-11)
    assert not to_z[ZERO].any()


@pytest.mark.parametrize("name", LOSSES)
def test_losses_where_values_are_not_looked_at(name: str) -> None:
    P, z = draw(K, D, seed=1), rows()
    loss = LOSSES[name](P, reduction="none")
    to_z = torch.func.grad(lambda z: loss(z, Y).sum())(z.detach())
    assert_close(to_z, gradients(by_definition(name, z, P).sum(), z)[0], 1e-11)


def test_a_centre_of_length_zero() -> None:
    """Two opposite pixels of class 2: their centre has logits 0, and a loss of ln 3."""
    pixels = torch.tensor([[[1.0, 0, 0], [0, 1, 0]], [[1, 0, 0], [-1, 0, 0]]], requires_grad=True)
    loss = CentreCollapse(torch.eye(3), scale=1.0, reduction="sum")
    with pytest.warns(ZeroVectorWarning, match="centres must have a direction; row 5 is zero"):
        value = loss(pixels, torch.tensor([[0, 1], [2, 2]]))
    assert value.item() == pytest.approx(2 * (math.log(math.e + 2) - 1) + math.log(3), rel=1e-6)
    value.backward()
    assert pixels.grad[0].any(1).all() and not pixels.grad[1].any()


def test_values_of_an_embedding_of_length_zero() -> None:
    """(r - 0)^2 with r = 2 v - 1."""
    loss, z, values = PoleRegression(prototypes.poles(1, D), 0.0, 1.0, reduction="none"), rows(), draw(N).sigmoid()
    with pytest.warns(ZeroVectorWarning, match="embeddings must have a direction; row 2 is zero"):
        losses = loss(z, values)
    upper = prototypes.poles(1, D).vectors[1:]
    assert_close(losses, (2 * values - 1 - cosines(z, upper)[:, 0]) ** 2, 1e-12)
    (to_z,) = gradients(losses.sum(), z)
    assert to_z.isfinite().all() and not to_z[ZERO].any()


@pytest.mark.parametrize("height", [0.0, 3.0], ids=["zero", "along the poles"])
def test_classes_and_values_in_one_embedding_of_length_zero(height: float) -> None:
    """Along the poles' axis the value is read as ever, and the class counts as orthogonal: 1."""
    poles = torch.tensor([[0.0, 0, -1], [0, 0, 1]], dtype=torch.float64)
    classes = torch.eye(3, dtype=torch.float64)[:2]
    loss = JointHyperspherical(classes, poles, 0.0, 1.0, reduction="none")
    z = torch.tensor([[0.6, 0, 0.8], [0, 0, height]], dtype=torch.float64, requires_grad=True)
    with pytest.warns(ZeroVectorWarning) as told:
        losses = loss(z, torch.tensor([0, 1]), torch.tensor([0.5, 0.75], dtype=torch.float64))
    assert len(told) == 1
    cosine = 0.0 if height == 0 else 1.0
    assert_close(losses, torch.tensor([0.8**2, 1 + (0.5 - cosine) ** 2]), 1e-6)
    (to_z,) = gradients(losses.sum(), z)
    assert to_z[0].any() and not to_z[1].any()
