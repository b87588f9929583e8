"""Log-probabilities over a tree are those of the definition, up and down, at any depth and any size of score."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from trees import DIGITS, ancestors, chain, comb, random_tree

import training_oracle as oracle
from tightframe.hierarchy import Hierarchy, TreeInference

TREES = {
    "visual digits": Hierarchy.from_nested(DIGITS, classes=[str(digit) for digit in range(10)]),
    "root alone": Hierarchy.from_parents([-1]),
    "star": Hierarchy.from_parents([-1, 0, 0, 0, 0]),
    "random": random_tree(30, 0),
    "random, other": random_tree(30, 5),
    "edges of no length": Hierarchy.from_parents([-1, 0, 0, 1, 1, 3, 3, 6], lengths=[0, 0, 0.5, 0, 0, 7, 0, 0]),
    "comb of depth 20": comb(20),
    "chain of depth 20": chain(20),
}
METHODS = ("conditional_log_probabilities", "log_probabilities", "log_masses")

every_tree = pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
every_method = pytest.mark.parametrize("method", METHODS)


def leaves_below(tree: Hierarchy, node: int) -> list[int]:
    return [leaf for leaf in range(tree.num_classes) if node in ancestors(tree, leaf)]


def log_sum_exp(values: list[float]) -> float:
    largest = max(values)
    return (
        largest + math.log(math.fsum(math.exp(value - largest) for value in values)) if largest > -math.inf else largest
    )


def inputs_of(method: str, tree: Hierarchy, *leading: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Scores of all nodes, or log-probabilities of the classes."""
    if method == "log_masses":
        return torch.randn(*leading, tree.num_classes, dtype=dtype).log_softmax(-1)
    return torch.randn(*leading, len(tree), dtype=dtype)


# ---------------------------------------------------------------------- what they are


@every_tree
def test_marginal_log_probabilities_against_the_oracle(tree: Hierarchy) -> None:
    scores = 3 * torch.randn(7, len(tree), dtype=torch.float64)
    truth = torch.from_numpy(oracle.node_log_probabilities(scores.numpy(), tree.parents))
    found = TreeInference(tree).log_probabilities(scores)
    assert_close(found, truth, rtol=1e-13, atol=1e-13)
    assert (found[:, tree.root] == 0).all()
    assert_close(found[:, : tree.num_classes].exp().sum(1), torch.ones(7, dtype=torch.float64), rtol=1e-13, atol=0)


@every_tree
def test_conditional_log_probabilities_by_loops(tree: Hierarchy) -> None:
    scores = 3 * torch.randn(len(tree), dtype=torch.float64)
    found = TreeInference(tree).conditional_log_probabilities(scores)
    for node, parent in enumerate(tree.parents):
        siblings = [other for other, above in enumerate(tree.parents) if above == parent]  # of the root: itself
        expected = scores[node].item() - log_sum_exp(scores[siblings].tolist())
        assert found[node].item() == pytest.approx(expected, rel=1e-13, abs=1e-13)


@every_tree
def test_masses_are_sums_of_probabilities(tree: Hierarchy) -> None:
    probabilities = torch.rand(5, tree.num_classes, dtype=torch.float64) + 1e-3  # not normalised
    found = TreeInference(tree).log_masses(probabilities.log())
    assert found.shape == (5, len(tree))
    for row, node in itertools.product(range(5), range(len(tree))):
        mass = math.fsum(probabilities[row, leaf].item() for leaf in leaves_below(tree, node))
        assert found[row, node].item() == pytest.approx(math.log(mass), rel=1e-13, abs=1e-13)


@every_tree
def test_what_went_down_comes_up_again(tree: Hierarchy) -> None:
    inference = TreeInference(tree)
    down = inference.log_probabilities(2 * torch.randn(3, 4, len(tree), dtype=torch.float64))
    assert_close(inference.log_masses(down[..., : tree.num_classes]), down, rtol=1e-12, atol=1e-12)


def test_an_only_child_has_the_probability_of_its_parent() -> None:
    inference = TreeInference(chain(20))
    assert (inference.log_probabilities(100 * torch.randn(4, 21)) == 0).all()
    masses = inference.log_masses(torch.tensor([-3.25]))
    assert masses.tolist() == [-3.25] * 21


def test_each_level_of_a_comb_halves_the_probability() -> None:
    tree = comb(20)
    found = TreeInference(tree).log_probabilities(torch.zeros(len(tree), dtype=torch.float64))
    assert_close(found, -math.log(2) * tree.depths.double(), rtol=1e-14, atol=1e-14)
    assert int(tree.depths.max()) == 20 and tree.num_classes == 21


@every_tree
def test_the_roots_score_and_a_groups_common_offset_change_nothing(tree: Hierarchy) -> None:
    scores = torch.randn(len(tree), dtype=torch.float64, requires_grad=True)
    moved = scores.detach().clone()
    moved[tree.root] = 1e9
    for number, siblings in enumerate(tree.siblings):
        moved[list(siblings)] += 10.0 * number - 40
    inference = TreeInference(tree)
    found = inference.log_probabilities(scores)
    assert_close(inference.log_probabilities(moved), found.detach(), rtol=1e-12, atol=1e-12)
    found.sum().backward()
    assert scores.grad is not None and scores.grad[tree.root] == 0
    for siblings in tree.siblings:
        assert scores.grad[list(siblings)].sum().item() == pytest.approx(0, abs=1e-11)


# ---------------------------------------------------------------------- extreme values


@every_tree
@pytest.mark.parametrize("size", [1e3, 1e8, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_huge_scores(tree: Hierarchy, size: float, dtype: torch.dtype) -> None:
    scores = size * torch.randn(6, len(tree), dtype=dtype)
    found = TreeInference(tree).log_probabilities(scores)
    truth = torch.from_numpy(oracle.node_log_probabilities(scores.double().numpy(), tree.parents))
    assert found.dtype is dtype and found.isfinite().all()
    near = 20 * torch.finfo(dtype).eps  # of the largest score on the way
    assert_close(found.double(), truth, rtol=near, atol=near * float(scores.abs().max()))


@every_tree
@pytest.mark.parametrize("size", [1e3, 1e30])
def test_masses_of_classes_too_rare_for_their_probability(tree: Hierarchy, size: float) -> None:
    given = -size * (1 + torch.rand(4, tree.num_classes, dtype=torch.float64))  # exp underflows
    found = TreeInference(tree).log_masses(given)
    for row, node in itertools.product(range(4), range(len(tree))):
        expected = log_sum_exp(given[row, leaves_below(tree, node)].tolist())
        assert found[row, node].item() == pytest.approx(expected, rel=1e-13)


@every_tree
@pytest.mark.parametrize("share", [0.3, 0.8, 1.0])
def test_impossible_classes_stay_impossible(tree: Hierarchy, share: float) -> None:
    given = torch.randn(8, tree.num_classes, dtype=torch.float64)
    given[torch.rand(given.shape) < share] = -math.inf
    found = TreeInference(tree).log_masses(given)
    assert torch.equal(found[:, : tree.num_classes], given)
    assert not found.isnan().any()
    for row, node in itertools.product(range(8), range(len(tree))):
        expected = log_sum_exp(given[row, leaves_below(tree, node)].tolist())
        assert found[row, node].item() == pytest.approx(expected, rel=1e-13, abs=1e-13)


@every_tree
def test_an_impossible_node_leaves_its_siblings_everything(tree: Hierarchy) -> None:
    scores = torch.randn(len(tree), dtype=torch.float64)
    for siblings in tree.siblings:
        scores[list(siblings)[1:2]] = -math.inf  # one of two or more
    found = TreeInference(tree).log_probabilities(scores)
    truth = torch.from_numpy(oracle.node_log_probabilities(scores[None].numpy(), tree.parents))[0]
    assert not found.isnan().any()
    assert_close(found, truth, rtol=1e-13, atol=1e-13)
    for node in range(len(tree)):
        assert (found[node] == -math.inf) == any(scores[above] == -math.inf for above in ancestors(tree, node))


def test_the_gradient_of_an_impossible_class_is_zero() -> None:
    tree = TREES["visual digits"]
    given = torch.randn(tree.num_classes, dtype=torch.float64)
    given[3] = -math.inf  # 8, in its group, is possible
    given.requires_grad_()
    TreeInference(tree).log_masses(given)[tree.num_classes :].sum().backward()
    assert given.grad is not None and given.grad.isfinite().all()
    assert given.grad[3] == 0 and (given.grad[torch.arange(10) != 3] > 0).all()


# ---------------------------------------------------------------------- as a part of a model


@every_tree
@every_method
def test_leading_dimensions_are_kept(tree: Hierarchy, method: str) -> None:
    compute: Callable[[Tensor], Tensor] = getattr(TreeInference(tree), method)
    inputs = inputs_of(method, tree, 2, 3, 4)
    found = compute(inputs)
    assert found.shape == (2, 3, 4, len(tree))
    for place in itertools.product(range(2), range(3), range(4)):
        assert_close(found[place], compute(inputs[place]), rtol=1e-14, atol=1e-14)
    assert compute(inputs[:, :0]).shape == (2, 0, 4, len(tree))
    apart = inputs.transpose(0, 2).contiguous().transpose(0, 2)
    assert_close(compute(apart), found, rtol=1e-14, atol=1e-14)


@every_tree
@every_method
def test_gradients(tree: Hierarchy, method: str) -> None:
    compute = getattr(TreeInference(tree), method)
    inputs = inputs_of(method, tree, 2).requires_grad_()
    assert torch.autograd.gradcheck(compute, inputs)
    assert torch.autograd.gradgradcheck(compute, inputs)


@every_method
def test_indices_stay_integers_and_go_where_the_module_goes(method: str) -> None:
    tree = random_tree(20, 3)
    inference = TreeInference(tree)
    before = {name: buffer.clone() for name, buffer in inference.named_buffers()}
    assert len(before) > 4
    for cast in (inference.half(), inference.double(), inference.to(torch.bfloat16), inference.float()):
        for name, buffer in cast.named_buffers():
            assert buffer.dtype is torch.int64 and torch.equal(buffer, before[name])
    for dtype in (torch.float32, torch.float64):
        assert getattr(inference, method)(inputs_of(method, tree, 2, dtype=dtype)).dtype is dtype
    away = inference.to("meta")
    assert {buffer.device.type for buffer in away.buffers()} == {"cpu"}  # no state dict could bring them back
    found = getattr(away, method)(inputs_of(method, tree, 2).to("meta"))
    assert found.device.type == "meta" and found.shape == (2, 20)


@every_tree
def test_nothing_is_saved(tree: Hierarchy) -> None:
    inference = TreeInference(tree)
    assert dict(inference.state_dict()) == {} and list(inference.parameters()) == []
    inference.load_state_dict({}, strict=True)


@pytest.fixture
def _fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("_fresh_dynamo")
@pytest.mark.parametrize("name", ["random", pytest.param("comb of depth 20", marks=pytest.mark.slow)])
@every_method
def test_compiles_as_one_graph(name: str, method: str) -> None:
    tree = TREES[name]
    eager = getattr(TreeInference(tree), method)
    compiled = torch.compile(eager, backend="aot_eager", fullgraph=True)
    results = []
    weights = torch.randn(5, len(tree))
    inputs = inputs_of(method, tree, 5, dtype=torch.float32)
    for compute in (eager, compiled):
        leaf = inputs.clone().requires_grad_()
        value = compute(leaf)
        (value * weights).sum().backward()
        results.append((value.detach(), leaf.grad))
    assert_close(results[1], results[0], rtol=1e-6, atol=1e-6)


def test_classes_that_can_t_be_leave_no_nan_in_gradients() -> None:
    """A subtree of probability 0 beside one that is used."""
    tree = Hierarchy.from_nested({"r": {"a": ["x", "y"], "b": ["z", "w"]}})
    leaves = torch.tensor([-torch.inf, -torch.inf, -0.7, -0.7], requires_grad=True)
    TreeInference(tree).log_masses(leaves)[tree.names.index("b")].backward()
    torch.testing.assert_close(leaves.grad, torch.tensor([0.0, 0.0, 0.5, 0.5]))
