"""Values of the papers' released code, recorded in float64 on the numbers below.

Each table was made by calling the released functions, as their repositories had them in 2026, on these inputs.
"""

import pytest
import torch
from torch import Tensor

from tightframe.hierarchy import Hierarchy
from tightframe.losses import HierarchicalCrossEntropy

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
