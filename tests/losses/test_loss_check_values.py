"""Values that the literature states, or that follow from a definition in a line."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize, one_hot

from tightframe import PrototypeHead, prototypes
from tightframe.hierarchy import Hierarchy
from tightframe.losses import (
    CentreCollapse,
    CosineMatching,
    Distortion,
    DotRegression,
    EquiangularHinge,
    ExpectedCost,
    HierarchicalCrossEntropy,
    Hyperspherical,
    PoleRegression,
    PrototypeCrossEntropy,
    PrototypeLoss,
    PrototypeRank,
    ScaleFreeDistortion,
    SemanticRanking,
    Separation,
    SoftLabelCrossEntropy,
    SquaredEarthMover,
    SquaredScaleFreeDistortion,
)
from tightframe.losses.costs import focal_terms

F64 = torch.float64
PATH = torch.tensor([[0.0, 1, 2], [1, 0, 1], [2, 1, 0]], dtype=F64)  # three classes in a row
LINE = torch.tensor([[0.0], [1.0], [3.0]], dtype=F64)
TREE = Hierarchy.from_nested({"all": {"pet": ["cat", "dog"], "tool": {"edged": {"saw": {}}}, "sky": {}}})
ASYMMETRIC = torch.tensor([[0.0, 1, 4], [2, 0, 1], [7, 3, 0]], dtype=F64)


def close(value: float) -> object:
    return pytest.approx(value, abs=1e-6)


# ---------------------------------------------------------------------- prototypes against costs


def test_distortions_of_a_line() -> None:
    """d = 1, 3, 2 against D = 1, 2, 1: ratios 1, 3/2, 2."""
    assert Distortion(PATH)(LINE).item() == close(0.5)
    assert ScaleFreeDistortion(PATH)(LINE).item() == close(2 / 9)  # at s = 2/3
    assert SquaredScaleFreeDistortion(PATH)(LINE).item() == close(0.0689655)  # 1 - 4.5^2 / (3 * 7.25)


def test_ranks_of_a_line() -> None:
    """Of three triplets two are in order, by 2 and by 1, and one has equal costs but distances 1 apart."""
    tie = (math.log1p(math.exp(1)) + math.log1p(math.exp(-1))) / 2
    wanted = (math.log1p(math.exp(-2)) + tie + math.log1p(math.exp(-1))) / 3
    assert PrototypeRank(PATH)(LINE).item() == close(wanted)


def test_ranks_of_similarities() -> None:
    """Two classes are alike and have one prototype: cosines 1 and 0, in order twice and tied once."""
    similarity = torch.tensor([[1.0, 0.9, 0.2], [0.9, 1.0, 0.2], [0.2, 0.2, 1.0]])
    vectors = torch.tensor([[2.0, 0], [1, 0], [0, 3]], dtype=F64)
    assert SemanticRanking(similarity)(vectors).item() == close((2 * math.log1p(math.exp(-1)) + math.log(2)) / 3)


def test_separation_and_hinge() -> None:
    square = torch.tensor([[1.0, 0], [0, 2], [-3, 0], [0, -4]], dtype=F64)
    assert Separation()(square).item() == close(0.0)
    assert EquiangularHinge(0.25)(square).item() == close(2 * 0.75 / 6)  # two of six pairs are opposite
    etf = prototypes.simplex(5, 7).vectors
    assert Separation()(etf).item() == close(-1 / 4)
    assert EquiangularHinge(0.25)(etf).item() == close(0.0)
    assert EquiangularHinge(0.0)(etf).item() == close(0.25)


# ---------------------------------------------------------------------- embeddings against prototypes

ANGLES = {"aligned": [1.0, 0.0], "orthogonal": [0.0, 1.0], "opposite": [-1.0, 0.0]}


@pytest.mark.parametrize(
    ("where", "dot", "hyperspherical"), [("aligned", 0, 0), ("orthogonal", 0.5, 1), ("opposite", 2, 4)]
)
def test_at_right_angles(where: str, dot: float, hyperspherical: float) -> None:
    vectors = torch.tensor([[1.0, 0.0], [-0.5, 0.8]], dtype=F64)
    embedding = torch.tensor([ANGLES[where]], dtype=F64)
    label = torch.tensor([0])
    assert DotRegression(vectors)(embedding, label).item() == close(dot)
    assert DotRegression(2 * vectors, feature_length=3.0)(embedding, label).item() == close(6 * dot)
    assert Hyperspherical(vectors)(embedding, label).item() == close(hyperspherical)
    assert PoleRegression(prototypes.poles(1, 2), 0.0, 8.0)(embedding, torch.tensor([8.0])).item() == close(
        hyperspherical
    )


def test_cosine_matching_on_a_simplex() -> None:
    """The frame is tight: the loss is K / (K-1) times the squared distance to the own prototype, 4 when opposite."""
    etf = prototypes.simplex(6, 5).vectors
    assert CosineMatching(etf)(-etf, torch.arange(6)).item() == close(4 * 6 / 5)


@pytest.mark.parametrize(("scale", "floor", "error"), [(1.0, 1.376935, 1e-6), (10.0, 1.345e-4, 1.345e-7)])
def test_floor_of_cross_entropy(scale: float, floor: float, error: float) -> None:
    """ln(1 + (K-1) exp(-s K / (K-1))), which the simplex attains, and with it the centres of pixels."""
    etf = prototypes.simplex(10, 9)
    labels = torch.arange(10)
    loss = PrototypeCrossEntropy(etf, scale=scale)
    assert loss.floor == pytest.approx(floor, abs=error)
    assert loss.floor == pytest.approx(math.log(1 + 9 * math.exp(-scale * 10 / 9)), rel=1e-9)
    assert loss(etf.vectors, labels).item() == pytest.approx(loss.floor, rel=1e-9)
    assert CentreCollapse(etf, scale=scale)(etf.vectors[None], labels[None]).item() == pytest.approx(
        loss.floor, rel=1e-9
    )


@pytest.mark.parametrize("scale", [1.0, 10.0])
@pytest.mark.parametrize("dim", [2, 9, 30])
def test_nothing_balanced_is_below_the_floor(dim: int, scale: float) -> None:
    """Neither random embeddings nor the prototypes themselves, nor what gradients make of both."""
    labels = torch.arange(10).repeat(3)
    for _ in range(20):
        vectors = normalize(torch.randn(10, dim, dtype=F64))
        loss = PrototypeCrossEntropy(vectors, scale=scale)
        assert loss(torch.randn(30, dim, dtype=F64), labels).item() > loss.floor
        assert loss(vectors[labels], labels).item() > loss.floor
    head = PrototypeHead(torch.randn(10, dim), learnable=True, dtype=F64)
    embeddings = torch.randn(30, dim, dtype=F64, requires_grad=True)
    loss, optimiser = (
        PrototypeCrossEntropy(head, scale=scale),
        torch.optim.Adam([*head.parameters(), embeddings], lr=0.1),
    )
    for _ in range(100):
        optimiser.zero_grad()
        value = loss(embeddings, labels)
        value.backward()
        optimiser.step()
        assert value.item() >= loss.floor * (1 - 1e-12)
    if dim >= 9 and scale == 1:  # where there is a simplex, it is found
        assert value.item() < 1.01 * loss.floor


# ---------------------------------------------------------------------- logits


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
def test_hierarchical_cross_entropy_without_alpha(reduction: str, weighted: bool) -> None:
    """The conditional probabilities of a path multiply to that of the class: torch's cross-entropy."""
    options = {"weight": torch.rand(4, dtype=F64) if weighted else None, "reduction": reduction}
    logits, labels = 3 * torch.randn(20, 4, dtype=F64), torch.randint(4, (20,))
    labels[::5] = -100
    value = HierarchicalCrossEntropy(TREE, alpha=0.0, **options)(logits, labels)
    torch.testing.assert_close(value, cross_entropy(logits, labels, **options), rtol=1e-6, atol=1e-6)


def test_hierarchical_cross_entropy_by_hand() -> None:
    """At equal logits: cat is 1/2 of pet and pet 1/2 of all; saw is all of edged and that of tool, 1/4 of all."""
    alpha, gamma = 0.7, 2.0
    down = [math.exp(-alpha * depth) for depth in range(4)]
    values = HierarchicalCrossEntropy(TREE, alpha, reduction="none")(torch.zeros(4, 4), torch.arange(4))
    pet = (down[1] + down[2]) * math.log(2)
    assert values.tolist() == [close(pet), close(pet), close(down[1] * math.log(4)), close(down[1] * math.log(4))]
    focal = HierarchicalCrossEntropy(TREE, alpha, focal=gamma, reduction="none")(torch.zeros(4, 4), torch.arange(4))
    assert focal.tolist()[0] == close(pet / 4)
    assert focal.tolist()[2] == close(down[1] * math.log(4) * 9 / 16)
    levels = torch.arange(1.0, 1 + len(TREE))
    stated = HierarchicalCrossEntropy(TREE, level_weights=levels, reduction="none")(torch.zeros(4, 4), torch.arange(4))
    weight = dict(zip(TREE.names, levels.tolist(), strict=True))
    assert stated.tolist()[0] == close((weight["cat"] + weight["pet"]) * math.log(2))
    assert stated.tolist()[2] == close(weight["tool"] * math.log(4))


@pytest.mark.parametrize("size", [1.0, 50.0])
def test_focal_terms_on_a_chain(size: float) -> None:
    """An only child has probability 1 given its parent, where (1 - P)^1/2 has no derivative: it counts for nothing."""
    logits = size * torch.randn(8, 4)
    logits.requires_grad_()
    value = HierarchicalCrossEntropy(TREE, focal=0.5)(logits, torch.full((8,), 2))  # the saw, at the end of a chain
    value.backward()
    assert logits.grad is not None
    assert value.isfinite() and logits.grad.isfinite().all() and logits.grad.any()


@pytest.mark.parametrize("size", [0.1, 3.0, 10.0, 30.0])
def test_rounding_makes_nothing_more_than_certain(size: float) -> None:
    """Of many predictions, all but certain ones among them, none has a negative or undefined loss or derivative."""
    tree = Hierarchy.from_nested({"all": {"a": {"b": {"c": list("uvw")}, "d": list("xy")}, "e": {"f": ["z"]}}})
    logits = (size * torch.randn(20_000, 6)).requires_grad_()
    for focal in (0.5, 1.0, 2.5):
        values = HierarchicalCrossEntropy(tree, focal=focal, reduction="none")(logits, logits.argmax(1))
        (gradient,) = torch.autograd.grad(values.sum(), logits)
        assert (values >= 0).all() and values.isfinite().all()
        assert gradient.isfinite().all()


def test_focal_terms_near_certainty() -> None:
    """(1 - p)^gamma ln p keeps its digits where p rounds to 1: -x^(gamma + 1) for ln p = -x."""
    tiny = torch.tensor([-1e-6, -1e-10, -1e-30], requires_grad=True)
    values = focal_terms(tiny, 0.5)
    torch.testing.assert_close(values, -((-tiny) ** 1.5), rtol=1e-5, atol=0)
    (gradient,) = torch.autograd.grad(values.sum(), tiny)
    torch.testing.assert_close(gradient, 1.5 * (-tiny) ** 0.5, rtol=1e-5, atol=0)


def test_focal_terms_of_a_certain_prediction() -> None:
    """Right beyond doubt: no loss, no gradient, whatever the exponent."""
    for loss in (SoftLabelCrossEntropy(PATH, 1000.0, focal=0.5), SoftLabelCrossEntropy(PATH, 1000.0)):
        logits = (1000 * torch.eye(3)).requires_grad_()
        loss(logits, torch.arange(3)).backward()
        assert logits.grad is not None and not logits.grad.any()


def test_soft_labels() -> None:
    """exp(-beta D / max D): one-hot as beta grows; on a path with beta = 2 ln 2, halves at every step."""
    logits, labels = 3 * torch.randn(20, 3, dtype=F64), torch.randint(3, (20,))
    hard = SoftLabelCrossEntropy(ASYMMETRIC, beta=1000.0)(logits, labels)
    torch.testing.assert_close(hard, cross_entropy(logits, labels), rtol=1e-6, atol=1e-6)
    loss = SoftLabelCrossEntropy(PATH, beta=2 * math.log(2), reduction="none")
    soft = torch.tensor([[4, 2, 1], [7 / 4, 7 / 2, 7 / 4], [1, 2, 4]], dtype=F64) / 7
    wanted = cross_entropy(logits, soft[labels], reduction="none")
    torch.testing.assert_close(loss(logits, labels), wanted, rtol=1e-6, atol=1e-6)


def test_costs_of_a_certain_decision() -> None:
    """Deciding k where y is true costs entry (y, k), of any costs; of even odds, the mean over k."""
    true, decided = torch.arange(3).repeat_interleave(3), torch.arange(3).repeat(3)
    logits = 1000 * one_hot(decided, 3).to(F64)
    assert ExpectedCost(ASYMMETRIC, reduction="none")(logits, true).tolist() == ASYMMETRIC.flatten().tolist()
    mover = SquaredEarthMover(ASYMMETRIC, 1.5, reduction="none")
    assert mover(logits, true).tolist() == (ASYMMETRIC - 1.5).flatten().tolist()
    even = torch.zeros(3, 3, dtype=F64)
    assert ExpectedCost(ASYMMETRIC, reduction="none")(even, torch.arange(3)).tolist() == [
        close(5 / 3),
        close(1.0),
        close(10 / 3),
    ]
    assert mover(even, torch.arange(3)).tolist() == [close((cost - 4.5) / 9) for cost in (5, 3, 10)]


def test_costs_of_a_tree() -> None:
    """A tree stands for its distances."""
    logits, labels = torch.randn(9, 4), torch.randint(4, (9,))
    for make in (ExpectedCost, SquaredEarthMover, SoftLabelCrossEntropy):
        assert torch.equal(make(TREE)(logits, labels), make(TREE.distances())(logits, labels))
    vectors = torch.randn(4, 3)
    makers = (Distortion, ScaleFreeDistortion, SquaredScaleFreeDistortion, PrototypeRank)
    losses: list[tuple[PrototypeLoss, PrototypeLoss]] = [(make(TREE), make(TREE.distances())) for make in makers]
    for of_tree, of_distances in losses:
        found: Tensor = of_tree(vectors)
        assert torch.equal(found, of_distances(vectors))
