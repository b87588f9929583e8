"""What the losses do in training: with heads that change, with rare classes, with random triplets."""

import copy
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from tightframe import ClassStatistics, PrototypeHead, losses, metrics, prototypes, theory
from tightframe.heads import GuidedHead
from tightframe.hierarchy import Hierarchy, absolute_difference_cost
from tightframe.losses import (
    BalancedDotRegression,
    CentreCollapse,
    CosineMatching,
    DotRegression,
    EmbeddingLoss,
    HierarchicalCrossEntropy,
    Hyperspherical,
    JointHyperspherical,
    PoleRegression,
    PrototypeCrossEntropy,
    PrototypeRank,
    SemanticRanking,
    Separation,
    SquaredScaleFreeDistortion,
)

K, D, N = 4, 6, 16
F64 = torch.float64
ON_EMBEDDINGS = [DotRegression, BalancedDotRegression, Hyperspherical, CosineMatching, PrototypeCrossEntropy]
Make = Callable[..., EmbeddingLoss]


def batch() -> tuple[Tensor, Tensor]:
    return torch.randn(N, D), torch.arange(N) % K


# ---------------------------------------------------------------------- heads


@pytest.mark.parametrize("make", [*ON_EMBEDDINGS, CentreCollapse])
def test_a_head_is_followed(make: Make) -> None:
    """The loss is on the head's prototypes of the moment, in whatever way they changed."""
    head = PrototypeHead(torch.randn(K, D), learnable=True)
    loss = make(head)
    inputs, labels = batch()
    inputs, labels = inputs.view(4, 4, D), labels.view(4, 4)
    for _ in range(2):
        assert torch.equal(loss(inputs, labels), make(head.prototypes.detach().clone())(inputs, labels))
        with torch.no_grad():
            head.prototypes.copy_(torch.randn(K, D))
    head.reset_parameters()
    assert torch.equal(loss(inputs, labels), make(head.prototypes.detach().clone())(inputs, labels))
    head.load_state_dict(PrototypeHead(torch.randn(K, D), learnable=True).state_dict())
    assert torch.equal(loss(inputs, labels), make(head.prototypes.detach().clone())(inputs, labels))


def test_a_guided_head_is_followed() -> None:
    head = GuidedHead(prototypes.simplex(K, D))
    loss = Hyperspherical(head)
    inputs, labels = batch()
    before = loss(inputs, labels)
    head(inputs, labels)
    assert loss(inputs, labels) < before  # the frame turned towards the class means
    assert torch.equal(loss(inputs, labels), Hyperspherical(head.prototypes)(inputs, labels))


def test_given_vectors_are_kept_as_they_were() -> None:
    vectors, weight = torch.randn(K, D), torch.rand(K)
    loss = DotRegression(vectors, weight=weight.clone())
    inputs, labels = batch()
    before = loss(inputs, labels)
    vectors.zero_()
    assert torch.equal(loss(inputs, labels), before)


@pytest.mark.parametrize("make", [*ON_EMBEDDINGS, CentreCollapse])
def test_gradients_reach_learnt_prototypes(make: Make) -> None:
    """And a step along them lowers the loss; fixed ones, given or in a head, get none."""
    head = PrototypeHead(torch.randn(K, D), learnable=True)
    loss = make(head)
    inputs, labels = batch()
    inputs, labels = inputs.view(4, 4, D), labels.view(4, 4)
    optimiser = torch.optim.SGD(head.parameters(), lr=0.01)
    before = loss(inputs, labels)
    before.backward()
    optimiser.step()
    assert loss(inputs, labels) < before
    given = torch.randn(K, D, requires_grad=True)
    for fixed in (make(given), make(PrototypeHead(prototypes.simplex(K, D)))):
        assert not fixed(inputs, labels).requires_grad


@pytest.mark.parametrize("length", [1.0, 5.0])
def test_regularisers_move_learnt_prototypes(length: float) -> None:
    """Each loss on prototypes can be descended through a head: to the simplex, to distances like the costs."""
    head = PrototypeHead(length * torch.randn(K, D), learnable=True)
    optimiser = torch.optim.Adam(head.parameters(), lr=0.05 * length)
    separation = Separation()
    for _ in range(300):
        optimiser.zero_grad()
        separation(head.prototypes).backward()
        optimiser.step()
    assert separation(head.prototypes).item() == pytest.approx(-1 / (K - 1), abs=0.02)
    guided = SquaredScaleFreeDistortion(absolute_difference_cost(K))
    assert guided(head.prototypes) > 0.1
    for _ in range(300):
        optimiser.zero_grad()
        guided(head.prototypes).backward()
        optimiser.step()
    assert guided(head.prototypes) < 1e-3


def test_a_bound_loss_trains_backbone_and_head() -> None:
    """Dot regression on a fixed simplex brings a linear map of separable inputs to collapse."""
    inputs, labels = torch.eye(K).repeat(5, 1) + 0.01 * torch.randn(5 * K, K), torch.arange(K).repeat(5)
    head = PrototypeHead(prototypes.simplex(K, D))
    backbone = nn.Linear(K, D)
    loss = DotRegression(head)
    optimiser = torch.optim.Adam(backbone.parameters(), lr=0.05)
    for _ in range(100):
        optimiser.zero_grad()
        loss(backbone(inputs), labels).backward()
        optimiser.step()
    assert loss(backbone(inputs), labels) < 1e-3
    assert torch.equal(head(backbone(inputs)).argmax(1), labels)


# ---------------------------------------------------------------------- rare classes


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_balancing_a_balanced_batch_changes_nothing(reduction: str) -> None:
    vectors = torch.randn(K, D)
    inputs, labels = batch()
    labels[labels == 3] = -100  # three classes of four rows each
    balanced = BalancedDotRegression(vectors, reduction=reduction)(inputs, labels)
    torch.testing.assert_close(balanced, DotRegression(vectors, reduction=reduction)(inputs, labels))


def test_balancing_gives_classes_the_same_say() -> None:
    """The mean is that of the classes' means, over the classes that the batch has."""
    vectors, inputs = torch.randn(K, D), torch.randn(12, D)
    labels = torch.tensor([0] * 8 + [2] * 3 + [3])
    rows = DotRegression(vectors, reduction="none")(inputs, labels)
    means = torch.stack([rows[labels == label].mean() for label in (0, 2, 3)])
    torch.testing.assert_close(BalancedDotRegression(vectors)(inputs, labels), means.mean())


def test_centres_count_each_class_of_an_image_once() -> None:
    """Copies of a pixel, and pixels of no class, change nothing; the mean is over the classes of all images."""
    loss = CentreCollapse(torch.randn(K, D, dtype=F64))
    a, b, c = torch.randn(3, D, dtype=F64)
    few = loss(torch.stack([a, b])[None], torch.tensor([[0, 1]]))
    many = loss(torch.stack([a] * 98 + [b, c])[None], torch.tensor([[0] * 98 + [1, -100]]))
    torch.testing.assert_close(many, few)
    # of one class in the first image and two in the second, which are not mixed up
    both = loss(torch.stack([torch.stack([c, c]), torch.stack([a, b])]), torch.tensor([[0, 0], [0, 1]]))
    alone = loss(c[None, None], torch.tensor([[0]]))
    torch.testing.assert_close(both, (alone + 2 * few) / 3)
    summed = CentreCollapse(loss.centres.prototypes, reduction="sum")
    torch.testing.assert_close(summed(torch.stack([a, b])[None], torch.tensor([[0, 1]])), 2 * few)


def test_a_centre_is_the_mean_of_its_pixels() -> None:
    vectors = torch.randn(K, D, dtype=F64)
    pixels = torch.randn(1, D, 3, 3, dtype=F64)
    value = CentreCollapse(vectors, scale=7.0)(pixels, torch.full((1, 3, 3), 2))
    centre = pixels.mean((2, 3))
    torch.testing.assert_close(value, PrototypeCrossEntropy(vectors, scale=7.0)(centre, torch.tensor([2])))


# ---------------------------------------------------------------------- parts and wholes


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_the_joint_loss_is_the_sum_of_its_parts(reduction: str) -> None:
    """Of which the classes' sees no coordinate that is a pole's."""
    vectors, poles, weight = torch.randn(K, D), prototypes.poles(2, D), torch.rand(K)
    inputs, labels = batch()
    values = 3 * torch.rand(N, 2)
    joint = JointHyperspherical(vectors, poles, 0.0, 3.0, balance=0.3, weight=weight, reduction=reduction)
    classes = Hyperspherical(vectors[:, 2:], weight=weight, reduction=reduction)(inputs[:, 2:], labels)
    regression = PoleRegression(poles, 0.0, 3.0, reduction=reduction)(inputs, values)
    torch.testing.assert_close(joint(inputs, labels, values), classes + 0.3 * regression)
    alone = JointHyperspherical(vectors, poles, 0.0, 3.0, balance=0.0, weight=weight, reduction=reduction)
    torch.testing.assert_close(alone(inputs, labels, values), classes)


@pytest.mark.parametrize("rotated", [False, True])
def test_the_joint_optimum_reads_the_targets_exactly(rotated: bool) -> None:
    """Of every class, along any axis, and where descent ends; the classifier on the prototypes is right there too."""
    targets = torch.tensor([0.0, 2.5, 5.0, 7.5, 10.0], dtype=F64)
    turn = torch.linalg.qr(torch.randn(D, D, dtype=F64)).Q if rotated else torch.eye(D, dtype=F64)
    vectors = torch.cat([torch.zeros(K, 1, dtype=F64), prototypes.simplex(K, D - 1).vectors], 1) @ turn
    poles = prototypes.poles(1, D).vectors @ turn
    labels, values = torch.arange(K).repeat(5), targets.repeat_interleave(K)
    loss = JointHyperspherical(vectors, poles, 0.0, 10.0)
    inside = (values > 0) & (values < 10)  # on its bounds a value leaves no length for the class: a limit
    cosine = prototypes.pole_cosine(values, 0.0, 10.0)[inside, None]
    optimum = cosine * poles[1] + (1 - cosine**2).sqrt() * vectors[labels[inside]]
    assert loss(optimum, labels[inside], values[inside]) < 1e-28
    embeddings = torch.randn(len(labels), D, dtype=F64, requires_grad=True)
    optimiser = torch.optim.LBFGS([embeddings], max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def step() -> Tensor:
        optimiser.zero_grad()
        value = loss(embeddings, labels, values)
        value.backward()
        return value

    optimiser.step(step)
    reached = embeddings.detach()
    read = prototypes.pole_value(torch.cosine_similarity(reached, poles[1:]), 0.0, 10.0)
    torch.testing.assert_close(read, values, rtol=0, atol=5e-3)  # fourth powers end flat
    assert loss(reached, labels, values) < 1e-6
    assert torch.equal(PrototypeHead(vectors, dtype=F64)(reached).argmax(1), labels)


def test_targets_may_share_an_axis() -> None:
    """Then one direction less is taken from the classes; ignored rows need no direction beside the axes."""
    poles, both = prototypes.poles(1, D).vectors, prototypes.poles(1, D).vectors.repeat(2, 1)
    vectors, (inputs, labels), values = torch.randn(K, D), batch(), torch.rand(N)
    one = JointHyperspherical(vectors, poles, 0.0, 1.0, reduction="sum")(inputs, labels, values)
    two = JointHyperspherical(vectors, both, 0.0, 1.0, reduction="sum", balance=0.5)
    torch.testing.assert_close(two(inputs, labels, values[:, None].repeat(1, 2)), one)
    inputs[0] = poles[1]
    labels[0] = -100
    assert two(inputs, labels, values[:, None].repeat(1, 2)).isfinite()


def test_one_target_needs_no_dimension() -> None:
    """Values (N,) are those (N, 1), of pixels too."""
    loss = PoleRegression(prototypes.poles(1, D), 0.0, 1.0, reduction="none")
    pixels, values = torch.randn(2, D, 3, 3), torch.rand(2, 3, 3)
    assert loss(pixels, values).shape == (2, 3, 3)
    assert torch.equal(loss(pixels, values), loss(pixels, values[..., None]))


# ---------------------------------------------------------------------- random triplets


@pytest.mark.parametrize("make", [PrototypeRank, SemanticRanking])
def test_triplets_are_drawn_anew(make: Callable[..., nn.Module]) -> None:
    """From torch's generator at each call, and about the mean over all of them."""
    cost, vectors = absolute_difference_cost(8), torch.randn(8, D, dtype=F64)
    loss = make(cost, 20)
    first = [loss(vectors).item() for _ in range(5)]
    assert len(set(first)) == 5
    torch.manual_seed(3)
    again = loss(vectors)
    torch.manual_seed(3)
    assert torch.equal(loss(vectors), again)
    many = torch.stack([loss(vectors) for _ in range(1000)])
    every = make(cost)(vectors)
    error = many.std() / len(many) ** 0.5
    assert error < 0.02 * every
    assert (many.mean() - every).abs() < 4 * error
    assert torch.equal(make(cost)(vectors), every)


@pytest.mark.parametrize("make", [PrototypeRank, SemanticRanking])
def test_many_classes_have_random_triplets(make: Callable[..., nn.Module]) -> None:
    """All of up to 47 classes, else 50,000 of them, about the same value each time."""
    for num_classes, fixed in ((47, True), (48, False)):
        loss, vectors = make(absolute_difference_cost(num_classes)), torch.randn(num_classes, D)
        one, other = loss(vectors), loss(vectors)
        assert torch.equal(one, other) == fixed
        torch.testing.assert_close(one, other, rtol=0.02, atol=0)


# ---------------------------------------------------------------------- labels, metrics


def test_a_larger_alpha_forgives_fine_mistakes() -> None:
    """Relative to coarse ones: level weights fall with depth."""
    tree = Hierarchy.from_nested({"all": {"pet": ["cat", "dog"], "tool": ["saw", "axe"]}})
    fine, coarse = torch.tensor([[0.0, 5, 0, 0]]), torch.tensor([[0.0, 0, 5, 5]])
    label = torch.tensor([0])
    ratios = [
        (loss(fine, label) / loss(coarse, label)).item()
        for loss in (HierarchicalCrossEntropy(tree, alpha) for alpha in (0.0, 0.5, 1.0, 2.0))
    ]
    assert ratios == sorted(ratios, reverse=True) and len(set(ratios)) == 4


def test_a_metric_is_a_loss() -> None:
    """Within-class over between-class variability falls along its gradient, by an order of magnitude in 30 steps."""
    features = torch.randn(40, D, dtype=F64, requires_grad=True)
    labels = torch.arange(40) % K
    optimiser = torch.optim.Adam([features], lr=0.1)
    values = []
    for _ in range(31):
        optimiser.zero_grad()
        value = metrics.nc1(ClassStatistics.from_features(features, labels, K))
        value.backward()
        optimiser.step()
        values.append(value.item())
    assert values[-1] < values[0] / 10
    assert all(later < earlier for earlier, later in pairwise(values))


def test_losses_are_told_apart_by_their_repr() -> None:
    loss = DotRegression(torch.eye(3), weight=torch.ones(3), reduction="sum", ignore_index=255)
    assert repr(loss) == "DotRegression(3 classes, reduction='sum', ignore_index=255, weighted)"
    assert "reduction='mean', ignore_index=7" in repr(CentreCollapse(torch.eye(3), ignore_index=7))
    assert "2 targets in [0.0, 1.0]" in repr(PoleRegression(prototypes.poles(2, 3), 0.0, 1.0))
    assert repr(copy.deepcopy(loss)) == repr(loss)


def test_a_head_s_own_scale_and_open_classes_count() -> None:
    """Cross-entropy of embeddings is that of the head's logits."""
    head = PrototypeHead(torch.randn(4, 6), scale=4.0, open_classes=3)
    z, y = torch.randn(9, 6), torch.arange(9) % 3
    loss = losses.PrototypeCrossEntropy(head)
    torch.testing.assert_close(loss(z, y), torch.nn.functional.cross_entropy(head(z), y))
    assert loss.floor == pytest.approx(theory.cross_entropy_floor(3, 4.0))
    head.open(4)
    assert loss(z, torch.full((9,), 3)).isfinite()
    assert losses.PrototypeCrossEntropy(torch.eye(3)).scale == 16
    assert losses.PrototypeCrossEntropy(PrototypeHead(torch.eye(3), logits="dot")).scale == 16
