"""Values of the papers' released code, recorded in float64 on the numbers below.

Each table was made by calling the released functions, as their repositories had them in 2026, on these inputs.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tightframe import PrototypeHead, prototypes
from tightframe.heads import DeepNCM, HierarchicalHead
from tightframe.hierarchy import Hierarchy, lca_height_cost
from tightframe.losses import (
    BalancedDotRegression,
    CosineMatching,
    Distortion,
    DotRegression,
    EquiangularHinge,
    HierarchicalCrossEntropy,
    Hyperspherical,
    JointHyperspherical,
    PoleRegression,
    Separation,
    SoftLabelCrossEntropy,
    SquaredEarthMover,
    SquaredScaleFreeDistortion,
)
from tightframe.prototypes.ranking import rank_loss

F64 = torch.float64


def equal(value: Tensor, recorded: object) -> None:
    """To the eight decimals that were recorded; some released code keeps constants in float32."""
    torch.testing.assert_close(value.detach(), torch.tensor(recorded, dtype=F64), rtol=2e-7, atol=6e-9)


# ---------------------------------------------------------------------- fiveai/making-better-mistakes

TREE = Hierarchy.from_nested({"all": {"pet": ["cat", "dog"], "tool": {"edged": ["saw", "axe"]}, "outside": ["sky"]}})
LOGITS = torch.tensor(
    [
        [1.0, -0.5, 0.3, 2.0, 0.4],
        [0.2, 0.1, -1.0, 0.7, -0.6],
        [-1.5, 0.4, 0.9, 0.0, 1.1],
        [0.6, 1.2, -0.3, -0.8, 0.9],
        [0.5, -2.0, 0.1, 1.4, -0.2],
    ],
    dtype=F64,
)

# alpha: the loss of row i with label i, and the gradient of their mean at row 2, of HierarchicalCrossEntropyLoss with
# the weights of get_exponential_weighting(tree, alpha)
MISTAKES = {
    0.0: (
        [0.16067962, 0.15595638, 0.12015361, 0.29738406, 0.22493892],
        [0.00054564, 0.00364806, -0.01398536, 0.00244537, 0.0073463],
    ),
    0.5: (
        [0.19557342, 0.1621727, 0.12622403, 0.30191095, 0.28799176],
        [0.00069858, 0.00467065, -0.01322698, -0.0015478, 0.00940554],
    ),
    2.0: (
        [0.13063167, 0.0835149, 0.07902147, 0.18397002, 0.20510471],
        [0.00049752, 0.00332639, -0.00757747, -0.00294497, 0.00669853],
    ),
    4.0: (
        [0.02443248, 0.01437093, 0.01492051, 0.03468039, 0.03900309],
        [9.461e-05, 0.00063255, -0.00142292, -0.00057804, 0.0012738],
    ),
}


@pytest.mark.parametrize("alpha", MISTAKES)
def test_hierarchical_cross_entropy(alpha: float) -> None:
    """Up to the sum of the weights of all nodes, the root included, by which the released code divides them."""
    values, gradient = MISTAKES[alpha]
    total = float((-alpha * TREE.depths).exp().sum())
    logits = LOGITS.clone().requires_grad_()
    losses = HierarchicalCrossEntropy(TREE, alpha, reduction="none")(logits, torch.arange(5))
    equal(losses / total, values)
    (ours,) = torch.autograd.grad(losses.mean(), logits)
    equal(ours[2] / total, gradient)


def test_depths_are_measured_along_edges() -> None:
    """In a tree with lengths of edges, as the distances between its nodes are."""
    lengths = {"cat": 1.5, "dog": 0.5, "saw": 1.0, "axe": 2.0, "sky": 1.0, "pet": 0.5, "tool": 2.0, "edged": 1.0}
    edges = tuple(lengths.get(name, 1.0) for name in TREE.names)
    tree = Hierarchy(TREE.names, TREE.parents, edges)
    weights = HierarchicalCrossEntropy(tree, 0.3).level_weights
    depth = {name: -float(weight.log()) / 0.3 for name, weight in zip(tree.names, weights, strict=True)}
    assert depth["cat"] == pytest.approx(2.0) and depth["axe"] == pytest.approx(5.0)
    assert depth["pet"] == pytest.approx(0.5) and depth["edged"] == pytest.approx(3.0)


# ---------------------------------------------------------------------- others

VECTORS = torch.tensor(
    [
        [0.9, 0.1, -0.4, 0.3],
        [-0.2, 1.1, 0.5, 0.0],
        [0.3, -0.6, 0.8, 0.7],
        [-1.0, -0.3, 0.2, -0.5],
        [0.1, 0.4, -0.9, 1.2],
    ],
    dtype=F64,
)
UNIT = VECTORS / VECTORS.norm(dim=1, keepdim=True)
ROWS = torch.tensor(
    [
        [0.5, -0.3, 0.2, 0.8],
        [-0.4, 0.9, 0.1, 0.6],
        [1.2, 0.2, -0.7, -0.1],
        [0.3, -1.1, 0.4, -0.6],
        [-0.8, 0.5, 0.6, 0.2],
        [0.7, 0.6, -0.2, -0.9],
    ],
    dtype=F64,
)
LABELS = torch.tensor([0, 1, 2, 3, 4, 0])
VALUES = torch.tensor([0.5, 2.5, 5.0, 7.5, 9.5, 10.0], dtype=F64)
POLES = prototypes.poles(1, 4)
BESIDE_POLES = VECTORS * torch.tensor([0.0, 1, 1, 1])
COST = torch.tensor(
    [[0, 1, 2, 2, 3], [1, 0, 2, 2, 3], [2, 2, 0, 1.5, 2.5], [2, 2, 1.5, 0, 2.5], [3, 3, 2.5, 2.5, 0]], dtype=F64
)
WEIGHT = torch.tensor([1.0, 2.0, 0.5, 1.5, 1.0], dtype=F64)
TRIPLETS = torch.tensor([[0, 1, 2], [2, 4, 0], [3, 2, 1], [1, 4, 3], [4, 2, 0]])  # without equal costs
FIVE = torch.arange(5)


def entropy(soft_labels: Tensor) -> Tensor:
    return -(soft_labels * soft_labels.log()).sum(1).mean()


def soft_labels_of_mistakes(logits: Tensor) -> Tensor:
    """The released divergence is averaged over classes too, and has no entropy."""
    loss = SoftLabelCrossEntropy(lca_height_cost(TREE), 5.0)
    return (loss(logits, FIVE) - entropy(loss.soft_labels)) / 5


def soft_labels_of_metric_guided(logits: Tensor) -> Tensor:
    loss = SoftLabelCrossEntropy(COST, 2.0)
    return loss(logits, FIVE) - entropy(loss.soft_labels)


def joint(rows: Tensor) -> Tensor:
    """The released weight of the classes is 0.3."""
    loss = JointHyperspherical(BESIDE_POLES, POLES, 0.0, 10.0, balance=0.7 / 0.3, reduction="sum")
    return 0.3 * loss(rows, LABELS, VALUES)


# what was called, ours with what it was called with, the loss, and its gradient at the first row
RELEASED: dict[str, tuple[Callable[[Tensor], Tensor], Tensor, float, list[float]]] = {
    # NeuralCollapseApplications/ImbalancedLearning, unit features; the second with the lengths of produce_Ew
    "dot_loss": (
        lambda z: DotRegression(UNIT)(z, LABELS),
        ROWS,
        0.32426762,
        [-0.04369158, -0.01920203, 0.03645604, 0.01099247],
    ),
    "dot_loss, produce_Ew": (
        lambda z: BalancedDotRegression(UNIT)(z, LABELS),
        ROWS,
        0.35942877,
        [-0.02621495, -0.01152122, 0.02187362, 0.00659548],
    ),
    # NeuralCollapseApplications/FSCIL
    "DRLoss": (
        lambda z: DotRegression(UNIT)(z, LABELS),
        ROWS,
        0.32426762,
        [-0.04369158, -0.01920203, 0.03645604, 0.01099247],
    ),
    # psmmettes/hpn; the values are from 0 to 10, the pole is the first coordinate
    "hpn_cifar": (
        lambda z: Hyperspherical(VECTORS, reduction="sum")(z, LABELS),
        ROWS,
        3.89121141,
        [-0.52429902, -0.23042441, 0.43747243, 0.13190963],
    ),
    "hpn_omniart, task 0": (
        lambda z: PoleRegression(POLES, 0.0, 10.0, reduction="sum")(z, VALUES),
        ROWS,
        5.56289257,
        [2.08553574, 0.4062732, -0.2708488, -1.08339519],
    ),
    "hpn_omniart, task 2": (joint, ROWS, 5.8790363, [1.45987502, 0.14106946, 0.22307372, -0.91528927]),
    # ltong1130ztr/HAFrame, on the cosines of the frame
    "GeneralSquareCosineSimilarityLoss": (
        lambda z: CosineMatching(UNIT)(z, LABELS),
        ROWS,
        2.08842832,
        [-0.17855957, -0.16532665, 0.22873696, -0.007582],
    ),
    # fiveai/making-better-mistakes, heights of lowest common ancestors
    "soft-labels": (
        soft_labels_of_mistakes,
        LOGITS,
        0.3027589,
        [-0.02506159, -0.00445876, 0.00376028, 0.02158087, 0.0041792],
    ),
    # VSainteuf/metric-guided-prototypes-pytorch
    "SoftCrossEntropy": (
        soft_labels_of_metric_guided,
        LOGITS,
        0.59229039,
        [-0.05180821, -0.03824141, -0.00431232, 0.08479062, 0.00957132],
    ),
    "EMDLoss": (
        lambda x: SquaredEarthMover(COST, 0.3)(x, FIVE),
        LOGITS,
        0.49214289,
        [-0.04846168, -0.00917599, -0.01492615, 0.08343138, -0.01086756],
    ),
    "HypersphericalLoss": (
        lambda z: Hyperspherical(VECTORS, weight=WEIGHT, reduction="sum")(z, LABELS),
        ROWS,
        3.46526734,
        [-0.52429902, -0.23042441, 0.43747243, 0.13190963],
    ),
    "Distortion": (Distortion(COST), VECTORS, 0.26205209, [0.06677489, -0.06243376, -0.03889503, 0.07052677]),
    "DistortionLoss": (
        SquaredScaleFreeDistortion(COST),
        VECTORS,
        0.11215273,
        [0.04165702, -0.06903666, -0.05338855, 0.05094557],
    ),
    "RankLoss": (
        lambda p: rank_loss(p, COST, TRIPLETS),
        VECTORS,
        0.74706224,
        [-0.02434574, -0.04721182, -0.08052613, 0.11732007],
    ),
}
# of unit vectors, whose length the released code leaves to the step after: along the sphere only
ON_THE_SPHERE: dict[str, tuple[Callable[[Tensor], Tensor], float, list[float]]] = {
    # psmmettes/hpn, which adds 1 to cosines
    "prototype_loss": (lambda p: Separation()(p) + 1, 1.21935261, [0.07344641, 0.00738502, -0.1041276, 0.41993371]),
    # aassxun/Equiangular-Basis-Vectors, a sum over ordered pairs
    "relu_": (
        lambda p: 20 * EquiangularHinge(0.1)(p),
        4.1219355,
        [2.15767656, -0.77127908, -2.31408302, 2.39403496],
    ),
}


@pytest.mark.parametrize("name", RELEASED)
def test_losses(name: str) -> None:
    loss, inputs, value, gradient = RELEASED[name]
    leaf = inputs.clone().requires_grad_()
    ours = loss(leaf)
    equal(ours, value)
    equal(torch.autograd.grad(ours, leaf)[0][0], gradient)


@pytest.mark.parametrize("name", ON_THE_SPHERE)
def test_losses_of_unit_vectors(name: str) -> None:
    loss, value, gradient = ON_THE_SPHERE[name]
    leaf = UNIT.clone().requires_grad_()
    ours = loss(leaf)
    equal(ours, value)
    released, unit = torch.tensor(gradient, dtype=F64), UNIT[0]
    along = released - (released @ unit) * unit
    torch.testing.assert_close(torch.autograd.grad(ours, leaf)[0][0], along, rtol=2e-7, atol=2e-8)


# ---------------------------------------------------------------------- heads

# VSainteuf/metric-guided-prototypes-pytorch: logits of the first row
LEARNT_PROTOTYPES = {
    "euclidean": [-0.96436508, -1.78325545, -0.70710678, -1.98494332, -1.42126704],
    "squared-euclidean": [-0.93, -3.18, -0.5, -3.94, -2.02],
    "pseudo-huber": [-0.49163753, -1.21572441, -0.29498744, -1.40475652, -0.88429795],  # delta 0.7
    "cosine": [-0.44481718, -1.26678919, -0.17289496, -1.64900956, -0.54809143],  # cosine - 1
}


@pytest.mark.parametrize("logits", LEARNT_PROTOTYPES)
def test_logits(logits: str) -> None:
    head = PrototypeHead(VECTORS, logits=logits, scale=1.0, delta=0.7, dtype=F64)
    equal(head(ROWS)[0] - float(logits == "cosine"), LEARNT_PROTOTYPES[logits])


def test_running_means() -> None:
    """Of batches with as many rows of every class, where means of batch means are means of rows."""
    head, labels = DeepNCM(3, 4, scale=1.0, dtype=F64), torch.arange(6) % 3
    equal(head(ROWS, labels)[:2], [[-0.67, -2.3925, -2.805], [-3.49, -0.1825, -3.585]])
    second = ROWS.flip(0) * torch.tensor([1.0, 2.0, 1.0, -1.0])
    equal(head(second, labels)[:2], [[-1.69875, -2.825, -4.34625], [-3.78375, -0.145, -4.89125]])


def test_probabilities_along_a_tree() -> None:
    """As SoftmaxCascade of the better mistakes and HierarchicalInference of the metric-guided code have them."""
    head = HierarchicalHead(TREE, len(TREE), scores=torch.nn.Identity())
    scores = torch.tensor([[0.3, -0.7, 1.1, 0.2, 0.5, 9.0, -0.4, 0.8, 0.6, -0.2]], dtype=F64)
    probability = dict(zip(TREE.names, head.log_probabilities(scores).exp()[0].tolist(), strict=True))
    recorded = {
        **{"cat": 0.13192384, "dog": 0.04853207, "saw": 0.42595454, "axe": 0.17318019, "sky": 0.22040935},
        **{"all": 1.0, "pet": 0.18045591, "tool": 0.59913473, "edged": 0.59913473, "outside": 0.22040935},
    }
    assert probability == pytest.approx(recorded, abs=6e-9)
