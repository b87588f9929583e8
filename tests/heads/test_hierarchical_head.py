"""`HierarchicalHead`: probabilities along a tree, equal to the oracle and normalised at every depth."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from heads.cases import as_layouts, assert_close, draw
from tightframe import prototypes as constructions
from tightframe.errors import DtypeError, HierarchyError, ShapeError
from tightframe.heads import HierarchicalHead, PrototypeHead
from tightframe.hierarchy import Hierarchy
from training_oracle import node_log_probabilities

SMALL = Hierarchy.from_nested({"root": {"a": ["a1", "a2"], "b": {}}})
TREES = {
    "small": SMALL,
    "flat": Hierarchy.from_nested({"root": ["x", "y", "z"]}),
    "deep": Hierarchy.from_nested(
        {"r": {"u": {"v": {"w": {"x": ["p", "q"], "s": None}, "t": None}, "o": ["l", "m", "n"]}, "k": None}}
    ),
    "unbalanced": Hierarchy.from_nested({"r": {"a": ["1", "2", "3", "4"], "b": {"c": {"d": ["5", "6"]}}, "7": None}}),
    "only children": Hierarchy.from_nested({"r": {"a": {"b": ["c"]}, "d": {"e": ["f", "g"]}}}),
}
every_tree = pytest.mark.parametrize("tree", TREES.values(), ids=TREES)


class Given(nn.Module):
    """Scores that are the features themselves."""

    def __init__(self, width: int):
        super().__init__()
        self.in_features = width

    def forward(self, x: Tensor) -> Tensor:
        return x


def given(tree: Hierarchy) -> HierarchicalHead:
    return HierarchicalHead(tree, scores=Given(len(tree)))


def head_of(tree: Hierarchy, width: int = 5, **options: Any) -> HierarchicalHead:
    return HierarchicalHead(tree, width, **({"dtype": torch.float64} | options))


# ---------------------------------------------------------------------------------------------- probabilities


@every_tree
def test_log_probabilities_are_the_oracles(tree: Hierarchy) -> None:
    """Of all nodes, of the classes as logits, and each given its parent."""
    scores = 3 * draw(4, len(tree))
    wanted = torch.from_numpy(node_log_probabilities(scores.numpy(), tree.parents))
    head = given(tree)
    torch.testing.assert_close(head.log_probabilities(scores), wanted, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(head(scores), wanted[:, : tree.num_classes], rtol=1e-9, atol=1e-12)
    parents = torch.tensor([node if up < 0 else up for node, up in enumerate(tree.parents)])
    torch.testing.assert_close(
        head.conditional_log_probabilities(scores), wanted - wanted[:, parents], rtol=1e-9, atol=1e-12
    )


@every_tree
def test_a_linear_layer_scores_the_nodes(tree: Hierarchy) -> None:
    head, x = head_of(tree), draw(4, 5)
    scores = (x @ head.scores.weight.T + head.scores.bias).detach()
    wanted = torch.from_numpy(node_log_probabilities(scores.numpy(), tree.parents))
    torch.testing.assert_close(head.log_probabilities(x).detach(), wanted, rtol=1e-9, atol=1e-12)


@every_tree
def test_probabilities_sum_to_one(tree: Hierarchy) -> None:
    """Over the classes, and over every cut of the tree."""
    head, scores = given(tree), 3 * draw(4, len(tree))
    one = torch.ones(4, dtype=torch.float64)
    torch.testing.assert_close(head(scores).exp().sum(1), one)
    nodes = head.log_probabilities(scores).exp()
    for depth in range(int(tree.depths.max()) + 2):
        torch.testing.assert_close(nodes[:, tree.cut(depth)].sum(1), one)


def test_a_tree_by_hand() -> None:
    """root -> {a -> {a1, a2}, b} without any preference: 1/4, 1/4, 1/2."""
    assert SMALL.class_names == ("a1", "a2", "b")
    probabilities = given(SMALL)(torch.zeros(1, len(SMALL))).exp()
    torch.testing.assert_close(probabilities, torch.tensor([[0.25, 0.25, 0.5]]))


@every_tree
def test_the_roots_score_is_not_used(tree: Hierarchy) -> None:
    head, scores = given(tree), draw(4, len(tree))
    other = scores.clone()
    other[:, tree.root] += 1e6
    assert torch.equal(head(other), head(scores))
    assert not head.log_probabilities(scores)[:, tree.root].any()


def test_a_flat_tree_is_a_softmax() -> None:
    scores = draw(4, 4)
    torch.testing.assert_close(given(TREES["flat"])(scores), scores[:, :3].log_softmax(1))


@every_tree
def test_cross_entropy_takes_them_as_logits(tree: Hierarchy) -> None:
    """They are normalised, so that a softmax changes nothing."""
    log_probabilities = given(tree)(draw(4, len(tree)))
    torch.testing.assert_close(log_probabilities.log_softmax(1), log_probabilities)


# ---------------------------------------------------------------------------------------------- decisions


@every_tree
def test_decisions_at_every_depth(tree: Hierarchy) -> None:
    """The most probable node of the cut, by a loop; by default the most probable class."""
    head, scores = given(tree), 3 * draw(30, len(tree))
    wanted = node_log_probabilities(scores.numpy(), tree.parents)
    for depth in range(int(tree.depths.max()) + 2):
        nodes = tree.cut(depth).tolist()
        assert head.predict(scores, depth).tolist() == [max(nodes, key=lambda node: row[node]) for row in wanted]
    assert torch.equal(head.predict(scores), head(scores).argmax(1))
    assert (head.predict(scores, 0) == tree.root).all()


def test_a_decision_higher_up_may_contradict_the_class() -> None:
    """b is the likeliest class, but a the likelier half: 0.3 + 0.3 against 0.4."""
    scores = torch.zeros(1, len(SMALL))
    scores[0, SMALL.names.index("a")] = 0.4055  # odds of 3 to 2
    head = given(SMALL)
    assert SMALL.names[head.predict(scores)] == "b"
    assert SMALL.names[head.predict(scores, 1)] == "a"


@pytest.mark.parametrize("bias", [True, False])
def test_every_layout(bias: bool) -> None:
    """Log-probabilities and decisions where the features were."""
    head, rows = head_of(TREES["deep"], bias=bias), draw(12, 5)
    assert (head.scores.bias is not None) is bias
    for features, back in as_layouts(rows):
        assert_close(back(head(features)), head(rows), 1e-12)
        assert_close(back(head.log_probabilities(features)), head.log_probabilities(rows), 1e-12)
        conditional = head.conditional_log_probabilities
        assert_close(back(conditional(features)), conditional(rows), 1e-12)
        for depth in (None, 2):
            decisions = head.predict(features, depth)
            assert decisions.shape == (features[:, 0] if features.ndim > 3 else features[..., 0]).shape
            assert torch.equal(decisions.flatten(), head.predict(rows, depth))


# ---------------------------------------------------------------------------------------------- other scores


@pytest.mark.parametrize("kind", ["euclidean", "squared-euclidean", "cosine"])
def test_scores_by_prototypes_of_all_nodes(kind: str) -> None:
    """Metric-guided prototypes for classes and inner nodes, compared with the embedding."""
    tree = TREES["unbalanced"]
    nodes = constructions.metric_guided_nodes(tree, 4, starts=2)
    scores = PrototypeHead(nodes, logits=kind, dtype=torch.float64)
    head, z = HierarchicalHead(tree, scores=scores), draw(6, 4)
    wanted = node_log_probabilities(scores(z).numpy(), tree.parents)
    assert_close(head.log_probabilities(z), torch.from_numpy(wanted), 1e-9)
    assert head.in_features == 4
    assert head(z).shape == (6, tree.num_classes)
    probabilities = head(nodes.vectors[: tree.num_classes])
    assert torch.equal(probabilities.argmax(1), torch.arange(tree.num_classes))  # at home in its own class


def test_weight_and_bias_are_the_linear_part() -> None:
    """log P(class) is the sum of scores along its path, less normalisers."""
    for tree in TREES.values():
        head, x = head_of(tree), draw(4, 5)
        scores = x @ head.scores.weight.T + head.scores.bias
        along = []
        for k in range(tree.num_classes):
            path, node = [], k
            while node != tree.root:
                path.append(node)
                node = tree.parents[node]
            along.append(scores[:, path].sum(1))
        assert_close(x @ head.weight.T + head.bias, torch.stack(along, 1), 1e-12)
        assert head_of(tree, bias=False).bias is None


def test_it_says_that_it_does_not_decide_linearly() -> None:
    assert head_of(SMALL).decides_linearly is False


# ---------------------------------------------------------------------------------------------- precision


@every_tree
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_large_scores_in_half_precision(tree: Hierarchy, dtype: torch.dtype) -> None:
    """Scores of +-1e4: finite, in float32, and the oracle's."""
    scores = (1e4 * draw(6, len(tree)).sign()).to(dtype).requires_grad_()
    log_probabilities = given(tree).log_probabilities(scores)
    assert log_probabilities.dtype is torch.float32
    assert log_probabilities.isfinite().all()
    wanted = node_log_probabilities(scores.detach().double().numpy(), tree.parents)
    torch.testing.assert_close(log_probabilities.detach().double(), torch.from_numpy(wanted), rtol=1e-5, atol=1e-5)
    log_probabilities.sum().backward()
    assert scores.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_head_in_half_precision(dtype: torch.dtype) -> None:
    """Log-probabilities are float32, as accurate as the scores."""
    head = head_of(TREES["deep"], dtype=dtype)
    x = draw(4, 5, dtype=dtype)
    logits = head(x)
    assert logits.dtype is torch.float32
    wanted = node_log_probabilities(head.scores(x).detach().double().numpy(), TREES["deep"].parents)
    torch.testing.assert_close(
        head.log_probabilities(x).double().detach(), torch.from_numpy(wanted), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast(dtype: torch.dtype) -> None:
    head, x = head_of(TREES["deep"], dtype=torch.float32), draw(4, 5, dtype=torch.float32)
    with torch.autocast("cpu", dtype=dtype):
        logits = head(x)
    assert logits.dtype is torch.float32
    torch.testing.assert_close(logits.exp().sum(1), torch.ones(4))


# ---------------------------------------------------------------------------------------------- gradients, compiling


@every_tree
def test_gradients(tree: Hierarchy) -> None:
    head = given(tree)
    scores = draw(3, len(tree)).requires_grad_()
    assert torch.autograd.gradcheck(head, (scores,))
    assert torch.autograd.gradcheck(head.log_probabilities, (scores,))


@pytest.mark.parametrize("name", ["small", "deep"])
def test_compiled_without_a_break(name: str) -> None:
    torch.compiler.reset()
    head = head_of(TREES[name])
    compiled = torch.compile(head, backend="aot_eager", fullgraph=True)
    results = []
    for module in (head, compiled):
        x = draw(4, 5).requires_grad_()
        logits = module(x)
        (logits * draw(*logits.shape, seed=3)).sum().backward()
        results.append((logits.detach(), x.grad, head.scores.weight.grad.clone()))
        head.zero_grad()
    for mine, wanted in zip(*results, strict=True):
        assert_close(mine, wanted, 1e-12)


# ---------------------------------------------------------------------------------------------- as a module


def test_state_dict_round_trip() -> None:
    """The scores' parameters are all there is to save."""
    one, other, x = head_of(SMALL), head_of(SMALL), draw(4, 5)
    assert set(one.state_dict()) == {"scores.weight", "scores.bias"}
    assert not torch.equal(other(x), one(x))
    other.load_state_dict(one.state_dict())
    assert torch.equal(other(x), one(x))


def test_it_has_what_a_linear_layer_has() -> None:
    head = head_of(TREES["deep"], 5, device="cpu")
    assert (head.in_features, head.out_features) == (5, TREES["deep"].num_classes)
    assert head.weight.shape == (head.out_features, 5)
    assert head.bias.shape == (head.out_features,)
    assert head.scores.weight.dtype is torch.float64
    x = draw(2, 5)
    assert head.embed(x) is x
    assert "in_features=5, out_features=8, Hierarchy(8 classes" in repr(head)


def test_reset_parameters_draws_anew() -> None:
    head = head_of(SMALL)
    with torch.no_grad():
        head.scores.weight.fill_(9)
    head.reset_parameters()
    assert head.scores.weight.abs().max() < 1
    learnt = PrototypeHead(torch.eye(len(SMALL)), learnable=True)
    head = HierarchicalHead(SMALL, scores=learnt)
    with torch.no_grad():
        learnt.prototypes.zero_()
    head.reset_parameters()
    assert torch.equal(learnt.prototypes, torch.eye(len(SMALL)))


# ---------------------------------------------------------------------------------------------- errors


def test_the_width_must_be_known() -> None:
    for options in ({}, {"scores": nn.Sequential(nn.Linear(5, 5))}):
        with pytest.raises(ShapeError, match="pass in_features=, or a scores module"):
            HierarchicalHead(SMALL, **options)
    wide = HierarchicalHead(SMALL, 5, scores=nn.Sequential(nn.Linear(5, 5)))
    assert wide(torch.ones(2, 5)).shape == (2, SMALL.num_classes)


def test_scores_of_another_number() -> None:
    head = HierarchicalHead(SMALL, scores=nn.Linear(3, len(SMALL) + 1))
    with pytest.raises(ShapeError, match=r"\(N, 5\), one per node; got \(2, 6\)"):
        head(torch.ones(2, 3))


def test_features_of_another_width() -> None:
    with pytest.raises(ShapeError, match=r"5 entries in their second dimension; got shape \(2, 3, 4, 4\)"):
        head_of(SMALL)(draw(2, 3, 4, 4))


def test_integer_features() -> None:
    with pytest.raises(DtypeError, match="int64"):
        head_of(SMALL)(torch.ones(2, 5, dtype=torch.int64))


def test_a_negative_depth() -> None:
    with pytest.raises(HierarchyError, match="got -1"):
        head_of(SMALL).predict(draw(2, 5), -1)
