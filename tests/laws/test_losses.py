"""Laws of every training loss in `LOSSES`: exact, differentiable, alike in all layouts and modes, least where declared.

A new loss needs a builder in `BUILDERS` and a place in `LEAST`, and every law below then holds for it too.
"""

import copy
import io
import math
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import training_oracle as oracle
from thinned import thinned
from tightframe import PrototypeHead, prototypes
from tightframe.hierarchy import Hierarchy
from tightframe.losses import LOSSES, CentreCollapse, ClassLoss

K, D, N, T = 5, 4, 12, 2
SEEDS = (0, 1, 2)
REDUCTIONS = ("mean", "sum", "none")
IGNORED = -100
F64 = torch.float64


@dataclass(frozen=True)
class Case:
    """A loss, what it is called with, and its oracle.

    Attributes:
        inputs: float64, what gets gradients.
        others: labels and values.
        truth: of (inputs, *others) as arrays: the loss of every row, or of prototypes.
        learnt: the prototypes of the head that the loss was given, if it was given one.
    """

    loss: nn.Module
    inputs: Tensor
    others: tuple[Tensor, ...]
    truth: Callable[..., Any]
    learnt: Tensor | None = None

    def __call__(self, inputs: Tensor | None = None) -> Tensor:
        value: Tensor = self.loss(self.inputs if inputs is None else inputs, *self.others)
        return value

    def true_values(self, inputs: Tensor) -> Any:
        return self.truth(inputs.detach().double().numpy(), *(other.numpy() for other in self.others))


def draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(draw: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=draw, dtype=F64)


def some_labels(draw: torch.Generator, *shape: int) -> Tensor:
    return torch.randint(K, shape, generator=draw)


def given(vectors: Tensor, bound: bool) -> Tensor | PrototypeHead:
    return PrototypeHead(vectors, learnable=True, dtype=F64) if bound else vectors


def held_by(thing: object) -> Tensor | None:
    return thing.prototypes if isinstance(thing, PrototypeHead) else None


# ---------------------------------------------------------------------- one builder a loss


def on_embeddings(name: str, truth: Callable[..., Any], **arguments: Any) -> Callable[..., Case]:
    def build(seed: int, bound: bool = False, **options: Any) -> Case:
        draw = draws(seed)
        vectors = normal(draw, K, D)
        holder = given(vectors, bound)
        loss = LOSSES[name].module(holder, **arguments, **options)
        inputs, labels = normal(draw, N, D), some_labels(draw, N)
        return Case(loss, inputs, (labels,), lambda z, y: truth(z, y, vectors.numpy(), **arguments), held_by(holder))

    return build


def some_cost(draw: torch.Generator, *, symmetric: bool = False) -> Tensor:
    """Between 1 and 3, not integers; within a factor of two of each other when symmetric, hence a metric."""
    cost = 1 + (1 if symmetric else 2) * torch.rand(K, K, generator=draw, dtype=F64)
    cost = (cost + cost.mT) / 2 if symmetric else cost
    return cost.fill_diagonal_(0)


FOCAL = (0.0, 0.5, 2.0)  # by seed
TREES = (
    Hierarchy.from_nested({"all": {"a": ["a1", "a2"], "b": {"b1": ["b11"]}, "c": {}, "d": {"d1": {}}}}),
    Hierarchy.from_nested({"all": ["a", "b", "c", "d", "e"]}),
    Hierarchy.from_nested({"all": {"p": {"q": {"r": ["a", "b"], "s": ["c"]}}, "t": {"u": ["d", "e"]}}}),
)


def soft_labels(seed: int, **options: Any) -> Case:
    draw = draws(seed)
    cost, focal, beta = some_cost(draw), FOCAL[seed], 3.0
    loss = LOSSES["soft-label-cross-entropy"].module(cost, beta, focal=focal, **options)
    inputs, labels = 2 * normal(draw, N, K), some_labels(draw, N)
    return Case(loss, inputs, (labels,), lambda x, y: oracle.soft_label_cross_entropy(x, y, cost.numpy(), beta, focal))


def along_a_tree(seed: int, **options: Any) -> Case:
    draw = draws(seed)
    tree, focal, alpha = TREES[seed], FOCAL[seed], 0.3
    levels = torch.rand(len(tree), generator=draw, dtype=F64) if seed == 2 else None
    module = LOSSES["hierarchical-cross-entropy"].module
    loss = module(tree, alpha, focal=focal, level_weights=levels, **options)
    inputs, labels = 2 * normal(draw, N, K), some_labels(draw, N)
    stated = None if levels is None else levels.numpy()
    return Case(
        loss,
        inputs,
        (labels,),
        lambda x, y: oracle.hierarchical_cross_entropy(x, y, tree.parents, alpha, focal, stated),
    )


def on_costs(name: str, truth: Callable[..., Any], **arguments: Any) -> Callable[..., Case]:
    def build(seed: int, **options: Any) -> Case:
        draw = draws(seed)
        cost = some_cost(draw)
        loss = LOSSES[name].module(cost, **arguments, **options)
        inputs, labels = 2 * normal(draw, N, K), some_labels(draw, N)
        return Case(loss, inputs, (labels,), lambda x, y: truth(x, y, cost.numpy(), **arguments))

    return build


def centres(seed: int, bound: bool = False, **options: Any) -> Case:
    draw = draws(seed)
    vectors, scale = normal(draw, K, D), 3.0
    holder = given(vectors, bound)
    loss = CentreCollapse(holder, scale=scale, **options)
    inputs, labels = normal(draw, 2, D, 2, 3), some_labels(draw, 2, 2, 3)
    return Case(
        loss,
        inputs,
        (labels,),
        lambda z, y: oracle.centre_collapse(z, y, vectors.numpy(), scale, loss.ignore_index),
        held_by(holder),
    )


def on_poles(seed: int, **options: Any) -> Case:
    draw = draws(seed)
    axes = torch.linalg.qr(normal(draw, D, D)).Q[:T]
    ends = torch.stack([-axes, 2 * axes], 1).flatten(0, 1)
    lower, upper = -1.0, 4.0
    loss = LOSSES["pole-regression"].module(ends, lower, upper, **options)
    values = lower + (upper - lower) * torch.rand(N, T, generator=draw, dtype=F64)
    return Case(
        loss, normal(draw, N, D), (values,), lambda z, v: oracle.pole_regression(z, v, ends.numpy(), lower, upper)
    )


def jointly(seed: int, bound: bool = False, **options: Any) -> Case:
    draw = draws(seed)
    vectors, balance = normal(draw, K, D), 0.7
    holder = given(vectors, bound)
    ends = prototypes.poles(T, D).vectors
    loss = LOSSES["joint-hyperspherical"].module(holder, ends, 0.0, 1.0, balance=balance, **options)
    inputs, labels, values = normal(draw, N, D), some_labels(draw, N), torch.rand(N, T, generator=draw, dtype=F64)

    def truth(z: Any, y: Any, v: Any) -> Any:
        classes = oracle.hyperspherical(z[:, T:], y, vectors[:, T:].numpy())  # poles are along the first T axes
        return classes + balance * oracle.pole_regression(z, v, ends.numpy(), 0.0, 1.0)

    return Case(loss, inputs, (labels, values), truth, held_by(holder))


def on_prototypes(name: str, truth: Callable[..., Any], **arguments: Any) -> Callable[..., Case]:
    def build(seed: int) -> Case:
        return Case(LOSSES[name].module(**arguments), normal(draws(seed), K, D), (), lambda p: truth(p, **arguments))

    return build


def on_prototypes_and_costs(name: str, truth: Callable[..., Any]) -> Callable[..., Case]:
    def build(seed: int) -> Case:
        draw = draws(seed)
        cost = some_cost(draw, symmetric=True)
        return Case(LOSSES[name].module(cost), normal(draw, K, D), (), lambda p: truth(p, cost.numpy()))

    return build


TRIPLETS = [(i, j, k) for i in range(K) for j, k in combinations(range(K), 2) if i not in (j, k)]


def on_ranks(name: str, truth: Callable[..., Any]) -> Callable[..., Case]:
    def build(seed: int) -> Case:
        draw = draws(seed)
        order = torch.randint(2, 5, (K, K), generator=draw).double()  # with ties; any values in [2, 4] are a metric
        order = order.triu(1) + order.triu(1).mT
        vectors = normal(draw, K, D)
        return Case(LOSSES[name].module(order), vectors, (), lambda p: truth(p, order.numpy(), TRIPLETS))

    return build


BUILDERS: dict[str, Callable[..., Case]] = {
    "dot-regression": on_embeddings("dot-regression", oracle.dot_regression, feature_length=1.5),
    "balanced-dot-regression": on_embeddings("balanced-dot-regression", oracle.balanced_dot_regression),
    "hyperspherical": on_embeddings("hyperspherical", oracle.hyperspherical),
    "cosine-matching": on_embeddings("cosine-matching", oracle.cosine_matching),
    "prototype-cross-entropy": on_embeddings("prototype-cross-entropy", oracle.prototype_cross_entropy, scale=3.0),
    "soft-label-cross-entropy": soft_labels,
    "hierarchical-cross-entropy": along_a_tree,
    "expected-cost": on_costs("expected-cost", oracle.expected_cost),
    "squared-earth-mover": on_costs("squared-earth-mover", oracle.squared_earth_mover, offset=1.3),
    "centre-collapse": centres,
    "pole-regression": on_poles,
    "joint-hyperspherical": jointly,
    "separation": on_prototypes("separation", oracle.separation),
    "semantic-ranking": on_ranks("semantic-ranking", oracle.semantic_ranking),
    "equiangular-hinge": on_prototypes("equiangular-hinge", oracle.equiangular_hinge, alpha=0.3),
    "distortion": on_prototypes_and_costs("distortion", oracle.distortion),
    "scale-free-distortion": on_prototypes_and_costs("scale-free-distortion", oracle.scale_free_distortion),
    "squared-scale-free-distortion": on_prototypes_and_costs(
        "squared-scale-free-distortion", oracle.squared_scale_free_distortion
    ),
    "prototype-rank": on_ranks("prototype-rank", oracle.prototype_rank),
}
CLASS_LOSSES = [name for name, row in LOSSES.items() if row.takes in ("embeddings", "logits")]
WITH_ROWS = [*CLASS_LOSSES, "pole-regression", "joint-hyperspherical"]
WITH_HEAD = [name for name, row in LOSSES.items() if row.takes in ("embeddings", "positions")] + [
    "joint-hyperspherical"
]
LOGITS = [name for name, row in LOSSES.items() if row.takes == "logits"]


def test_every_loss_is_tested() -> None:
    assert set(BUILDERS) == set(LOSSES) == set(LEAST)
    assert {name for name, row in LOSSES.items() if issubclass(row.module, ClassLoss)} == set(CLASS_LOSSES)


def near(value: Any, truth: Any, tolerance: float) -> bool:
    """Whether they differ by the tolerance, absolutely or relatively."""
    found, wanted = (np.asarray(x.detach() if isinstance(x, Tensor) else x, dtype=float) for x in (value, truth))
    return found.shape == wanted.shape and bool(
        np.all(np.abs(found - wanted) <= tolerance * np.maximum(1, np.abs(wanted)))
    )


def with_gradient(loss: Callable[..., Tensor], inputs: Tensor, *others: Tensor) -> tuple[Tensor, Tensor]:
    """The loss and the gradient of its sum."""
    leaf = inputs.detach().clone().requires_grad_()
    value = loss(leaf, *others)
    value.sum().backward()
    assert leaf.grad is not None
    return value.detach(), leaf.grad


# ---------------------------------------------------------------------- exact


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)], ids=str)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", LOSSES)
def test_equals_the_oracle(name: str, seed: int, dtype: torch.dtype, tolerance: float) -> None:
    case = BUILDERS[name](seed)
    inputs = case.inputs.to(dtype)
    value = case(inputs)
    assert value.dtype is dtype and value.ndim == 0
    assert near(value, np.mean(case.true_values(inputs)), tolerance)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignore_index", [IGNORED, 2])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", CLASS_LOSSES)
def test_reductions_weights_and_ignored_labels(name: str, reduction: str, ignore_index: int, weighted: bool) -> None:
    """As the oracle reduces what it finds for the rows that count, whichever label is ignored."""
    weight = 0.5 + torch.rand(K, dtype=F64) if weighted else None
    case = BUILDERS[name](0, reduction=reduction, weight=weight, ignore_index=ignore_index)
    (labels,) = case.others
    labels = torch.where(torch.arange(N) % 4 == 1, ignore_index, labels)
    kept = labels != ignore_index
    assert 0 < kept.sum() < N
    values = torch.zeros(N, dtype=F64)
    values[kept] = torch.as_tensor(case.truth(case.inputs[kept].numpy(), labels[kept].numpy()))
    truth = oracle.reduce(
        values.numpy(), labels.numpy(), reduction, None if weight is None else weight.numpy(), ignore_index
    )
    assert near(case.loss(case.inputs, labels), truth, 1e-9)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", LOSSES)
def test_derivatives(name: str, seed: int) -> None:
    case = BUILDERS[name](seed)
    assert torch.autograd.gradcheck(case, case.inputs.clone().requires_grad_())


@pytest.mark.parametrize("name", WITH_HEAD)
def test_derivatives_with_respect_to_learnt_prototypes(name: str) -> None:
    case = BUILDERS[name](0, bound=True)
    assert isinstance(case.learnt, nn.Parameter)
    assert torch.autograd.gradcheck(lambda z, p: case(z), (case.inputs.clone().requires_grad_(), case.learnt))
    case().backward()
    assert case.learnt.grad is not None and case.learnt.grad.abs().sum() > 0


# ---------------------------------------------------------------------- torch's modules without values


def under_meta(build: Callable[..., None]) -> Callable[..., None]:
    def wrapper(*args: Any, **options: Any) -> None:
        with torch.device("meta"):
            build(*args, **options)

    return wrapper


def emptied(loss: nn.Module) -> nn.Module:
    return loss.to_empty(device="cpu")


def moved(loss: nn.Module) -> nn.Module:
    return loss.to("meta").to("cpu")


def loaded(loss: nn.Module) -> nn.Module:
    loss.to("meta").load_state_dict({}, assign=True)
    return loss


def refilled(loss: nn.Module) -> nn.Module:
    """Every buffer replaced by zeros, then reset: some loaders do so."""
    for module in loss.modules():
        for name, value in module._buffers.items():
            module._buffers[name] = None if value is None else torch.zeros_like(value, device="cpu")
    for module in loss.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return loss


@pytest.mark.parametrize("pass_on", [nn.Module.eval, emptied, moved, loaded, refilled])
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_made_on_the_meta_device_is_the_same(
    name: str, pass_on: Callable[[nn.Module], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Costs, trees, prototypes and class weights are in no state dict: nothing could make them anew."""
    options = {"weight": torch.arange(1.0, K + 1)} if name in CLASS_LOSSES else {}
    usual = BUILDERS[name](2, **options)
    monkeypatch.setattr(LOSSES[name].module, "__init__", under_meta(LOSSES[name].module.__init__))
    case = BUILDERS[name](2, **options)
    assert pass_on(case.loss) is case.loss
    assert torch.equal(case(), usual())


# ---------------------------------------------------------------------- layouts


def laid_out(inputs: Tensor, others: tuple[Tensor, ...], layout: str) -> tuple[Tensor, ...]:
    """(12, D) rows as (2, 6, D) tokens or (2, D, 2, 3) pixels, the others to match."""
    shape = (2, 6) if layout == "tokens" else (2, 2, 3)
    inputs = inputs.unflatten(0, shape)
    return (inputs if layout == "tokens" else inputs.movedim(-1, 1), *(other.unflatten(0, shape) for other in others))


@pytest.mark.parametrize("layout", ["tokens", "pixels", "contiguous pixels"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", WITH_ROWS)
def test_layouts(name: str, reduction: str, layout: str) -> None:
    """(N, D, H, W) and (N, T, D) have the loss and the gradient of their positions as rows."""
    case = BUILDERS[name](0, reduction=reduction)
    value, gradient = with_gradient(case.loss, case.inputs, *case.others)
    inputs, *others = laid_out(case.inputs, case.others, layout)
    if layout.startswith("contiguous"):
        inputs = inputs.contiguous()
    same, same_gradient = with_gradient(case.loss, inputs, *others)
    assert same.shape == (others[0].shape[: len(inputs.shape) - 1] if reduction == "none" else ())
    torch.testing.assert_close(same.flatten(), value.flatten(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(same_gradient, laid_out(gradient, (), layout)[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_centres_of_tokens_and_pixels(reduction: str) -> None:
    case = centres(0, reduction=reduction)
    value, gradient = with_gradient(case.loss, case.inputs, *case.others)
    tokens, labels = case.inputs.flatten(2).mT, case.others[0].flatten(1)
    same, same_gradient = with_gradient(case.loss, tokens, labels)
    torch.testing.assert_close(same, value, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(same_gradient, gradient.flatten(2).mT, rtol=1e-12, atol=1e-12)
    truth = case.true_values(case.inputs)
    assert near(value, truth.mean() if reduction == "mean" else truth.sum(), 1e-9)


# ---------------------------------------------------------------------- rows that don't count

JUNK = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf, "zeros": 0.0}


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", CLASS_LOSSES)
def test_ignored_rows_have_no_loss_and_no_gradient(name: str, reduction: str, junk: str) -> None:
    case = BUILDERS[name](0, reduction=reduction)
    gone = torch.arange(N) % 3 == 0
    labels = case.others[0].masked_fill(gone, IGNORED)
    inputs = case.inputs.masked_fill(gone[:, None], JUNK[junk])
    value, gradient = with_gradient(case.loss, inputs, labels)
    wanted, wanted_gradient = with_gradient(case.loss, inputs[~gone], labels[~gone])
    if reduction == "none":
        assert (value[gone] == 0).all()
        value = value[~gone]
    torch.testing.assert_close(value, wanted, rtol=1e-12, atol=1e-12)
    assert (gradient[gone] == 0).all()
    torch.testing.assert_close(gradient[~gone], wanted_gradient, rtol=1e-12, atol=1e-12)
    assert wanted_gradient.any()


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_ignored_pixels_enter_no_centre(reduction: str, junk: str) -> None:
    case = centres(0, reduction=reduction)
    gone = torch.rand(2, 2, 3) < 0.4
    labels = case.others[0].masked_fill(gone, IGNORED)
    inputs = case.inputs.masked_fill(gone[:, None], JUNK[junk])
    value, gradient = with_gradient(case.loss, inputs, labels)
    truth = case.truth(inputs.numpy(), labels.numpy())
    assert 0 < len(truth) < 2 * K
    assert near(value, truth.mean() if reduction == "mean" else truth.sum(), 1e-9)
    assert (gradient.movedim(1, -1)[gone] == 0).all()
    assert gradient.isfinite().all() and gradient.any()


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("name", [*CLASS_LOSSES, "centre-collapse"])
def test_nothing_to_learn_from_is_zero_and_keeps_the_graph(name: str, reduction: str, junk: str) -> None:
    case = BUILDERS[name](0, reduction=reduction)
    labels = torch.full_like(case.others[0], IGNORED)
    value, gradient = with_gradient(case.loss, torch.full_like(case.inputs, JUNK[junk]), labels)
    assert value == 0 and (gradient == 0).all()
    value, gradient = with_gradient(case.loss, case.inputs[:0], labels[:0])
    assert value == 0 and gradient.shape == case.inputs[:0].shape


@pytest.mark.parametrize("name", WITH_HEAD[:-1])
def test_nothing_to_learn_from_moves_no_learnt_prototype(name: str) -> None:
    case = BUILDERS[name](0, bound=True)
    assert case.learnt is not None
    case.loss(case.inputs, torch.full_like(case.others[0], IGNORED)).backward()
    assert case.learnt.grad is not None and not case.learnt.grad.any()


@pytest.mark.parametrize("name", CLASS_LOSSES)
def test_a_mean_by_weights_of_zero_stays_undefined(name: str) -> None:
    """Only a batch that is ignored as a whole is no batch: 0/0 isn't the perfect loss."""
    case = BUILDERS[name](0, weight=torch.zeros(K, dtype=F64))
    assert case.loss(case.inputs, case.others[0]).isnan()


@pytest.mark.parametrize("name", [*CLASS_LOSSES, "centre-collapse"])
def test_a_strict_mean_is_the_same_where_there_are_rows(name: str) -> None:
    case, strict = BUILDERS[name](0), BUILDERS[name](0, on_empty="error")
    assert torch.equal(strict.loss(case.inputs, *case.others), case.loss(case.inputs, *case.others))


def test_values_count_where_all_labels_are_ignored() -> None:
    case = BUILDERS["joint-hyperspherical"](0)
    labels, values = case.others
    ignored, gradient = with_gradient(case.loss, case.inputs, torch.full_like(labels, IGNORED), values)
    wanted, wanted_gradient = with_gradient(case.loss.values, case.inputs, values)
    torch.testing.assert_close(ignored, case.loss.balance * wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, case.loss.balance * wanted_gradient, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
@pytest.mark.parametrize("name", [*CLASS_LOSSES, "centre-collapse"])
def test_labels_of_any_integer_dtype(name: str, dtype: torch.dtype) -> None:
    case = BUILDERS[name](0)
    assert torch.equal(case.loss(case.inputs, case.others[0].to(dtype)), case())


# ---------------------------------------------------------------------- precision

HALVES = {torch.float16: (1.0, 1e3), torch.bfloat16: (1.0, 1e4)}


def hard_inputs(name: str, dtype: torch.dtype, size: float) -> tuple[Case, Tensor]:
    """Embeddings or prototypes of that size; logits of +-50, certain of the label or of another class."""
    case = BUILDERS[name](1)
    if name in LOGITS:
        inputs = 50 * case.inputs.sign()
        inputs[0], inputs[1] = -50.0, -50.0
        inputs[0, case.others[0][0]] = 50.0
        inputs[1, (case.others[0][1] + 1) % K] = 50.0
        return case, inputs.to(dtype)
    return case, (size * case.inputs).to(dtype)


@pytest.mark.parametrize(
    ("dtype", "size"), [(dtype, size) for dtype, sizes in HALVES.items() for size in sizes], ids=str
)
@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_is_computed_in_float32(name: str, dtype: torch.dtype, size: float) -> None:
    """Of half-precision inputs the loss is the float32 one, and finite; so is the gradient, rounded to their dtype."""
    case, inputs = hard_inputs(name, dtype, size)
    value, gradient = with_gradient(case.loss, inputs, *case.others)
    assert value.dtype is torch.float32 and gradient.dtype is dtype
    assert value.isfinite().all() and gradient.isfinite().all()
    wanted, wanted_gradient = with_gradient(case.loss, inputs.float(), *case.others)
    torch.testing.assert_close(value, wanted, rtol=1e-6, atol=1e-6)
    steps = torch.finfo(
        dtype
    )  # the gradient is rounded to them, once for each use of the inputs (two in the joint loss)
    largest = 2 * wanted_gradient.abs().max().item() * steps.eps + steps.smallest_normal * steps.eps
    torch.testing.assert_close(gradient.float(), wanted_gradient, rtol=0, atol=largest)
    assert near(value, np.mean(case.true_values(inputs)), 1e-5)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", LOGITS)
def test_certain_logits(name: str, seed: int) -> None:
    """Right and wrong certainties of +-50 have the oracle's loss and a finite gradient, under any focal exponent."""
    case = BUILDERS[name](seed)
    inputs = torch.full((N, K), -50.0).scatter(1, some_labels(draws(seed + 10), N)[:, None], 50.0)
    value, gradient = with_gradient(case.loss, inputs, *case.others)
    assert near(value, np.mean(case.true_values(inputs)), 1e-5)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_autocast_changes_nothing(name: str) -> None:
    case = BUILDERS[name](0)
    others = [other.float() if other.is_floating_point() else other for other in case.others]
    wanted, wanted_gradient = with_gradient(case.loss, case.inputs.float(), *others)

    def under_autocast(inputs: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return case.loss(inputs, *others)

    value, gradient = with_gradient(under_autocast, case.inputs.float())
    assert value.dtype is torch.float32
    torch.testing.assert_close(value, wanted, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradient, wanted_gradient, rtol=1e-6, atol=1e-6)


# ---------------------------------------------------------------------- compiled


@pytest.fixture
def _fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiles(case: Case, backend: str) -> None:
    """The whole loss is one graph with the same value and the same gradients, also of learnt prototypes."""
    inputs = case.inputs.float()
    others = [other.float() if other.is_floating_point() else other for other in case.others]
    wanted, wanted_gradient = with_gradient(case.loss, inputs, *others)
    learnt = None if case.learnt is None else copy.deepcopy(case.learnt.grad)
    if case.learnt is not None:
        case.learnt.grad = None
    value, gradient = with_gradient(torch.compile(case.loss, backend=backend, fullgraph=True), inputs, *others)
    torch.testing.assert_close(value, wanted, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradient, wanted_gradient, rtol=1e-6, atol=1e-6)
    if case.learnt is not None:
        torch.testing.assert_close(case.learnt.grad, learnt, rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("_fresh_dynamo")
@pytest.mark.parametrize("name", thinned(3, LOSSES))
def test_compiles_as_one_graph(name: str) -> None:
    compiles(BUILDERS[name](0), "aot_eager")


@pytest.mark.usefixtures("_fresh_dynamo")
@pytest.mark.parametrize("name", ["prototype-cross-entropy", "centre-collapse"])
def test_compiles_with_a_head(name: str) -> None:
    compiles(BUILDERS[name](0, bound=True), "aot_eager")


@pytest.mark.slow  # starts a compiler
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # torch's own, as inductor is imported
@pytest.mark.usefixtures("_fresh_dynamo")
@pytest.mark.parametrize("name", ["prototype-cross-entropy", "hierarchical-cross-entropy"])
def test_compiles_to_machine_code(name: str) -> None:
    compiles(BUILDERS[name](0), "inductor")


# ---------------------------------------------------------------------- least where declared

SIMPLEX = prototypes.simplex(K, K - 1).vectors
CLASSES = torch.arange(K)


def own_prototypes(name: str, **arguments: Any) -> tuple[nn.Module, Tensor, tuple[Tensor, ...], float]:
    vectors = normal(draws(5), K, D)
    return LOSSES[name].module(vectors, **arguments), 4 * vectors, (CLASSES,), 0.0


def distances_as_costs(name: str, scale: float = 1.0) -> tuple[nn.Module, Tensor, tuple[Tensor, ...], float]:
    vectors = normal(draws(5), K, D)
    return LOSSES[name].module((vectors[:, None] - vectors).norm(dim=-1)), scale * vectors, (), 0.0


def certain(name: str, cost: Any, **arguments: Any) -> tuple[nn.Module, Tensor, tuple[Tensor, ...], float]:
    return LOSSES[name].module(cost, **arguments), 1000 * torch.eye(K, dtype=F64), (CLASSES,), 0.0


def at_the_soft_labels() -> tuple[nn.Module, Tensor, tuple[Tensor, ...], float]:
    cost = 0.25 * torch.randint(1, 4, (K, K), generator=draws(5)).double().fill_diagonal_(0)
    logits = -2.0 * cost / cost.max()
    entropy = torch.distributions.Categorical(logits=logits).entropy().mean().item()
    return LOSSES["soft-label-cross-entropy"].module(cost, 2.0), logits, (CLASSES,), entropy


def all_alike(name: str) -> tuple[nn.Module, Tensor, tuple[Tensor, ...], float]:
    """Where no pair is more alike than another, ranks are least where all distances are equal."""
    return LOSSES[name].module(torch.ones(K, K) - torch.eye(K)), SIMPLEX, (), math.log(2)


def simplex_floor(scale: float) -> float:
    return math.log1p((K - 1) * math.exp(-scale * K / (K - 1)))


def joint_least() -> tuple[nn.Module, Tensor, tuple[Tensor, ...], float]:
    """Each embedding at its own prototype, orthogonal to the poles' axis, so its value is the middle."""
    vectors = nn.functional.pad(SIMPLEX, (0, 1))
    poles = nn.functional.pad(torch.tensor([[-1.0], [1.0]], dtype=F64), (K - 1, 0))
    loss = LOSSES["joint-hyperspherical"].module(vectors, poles, 0.0, 10.0)
    return loss, vectors, (CLASSES, torch.full((K,), 5.0, dtype=F64)), 0.0


def pole_least() -> tuple[nn.Module, Tensor, tuple[Tensor, ...], float]:
    angles = torch.linspace(0.1, 3.0, 6, dtype=F64)
    loss = LOSSES["pole-regression"].module(prototypes.poles(1, 2), 0.0, 10.0)
    return loss, 2 * torch.stack([angles.cos(), angles.sin()], 1), (5 + 5 * angles.cos(),), 0.0


def centre_least() -> tuple[nn.Module, Tensor, tuple[Tensor, ...], float]:
    labels = torch.stack([CLASSES, CLASSES.flip(0)])
    return LOSSES["centre-collapse"].module(SIMPLEX, scale=2.0), SIMPLEX[labels], (labels,), simplex_floor(2.0)


LEAST: dict[str, Callable[[], tuple[nn.Module, Tensor, tuple[Tensor, ...], float]]] = {
    "dot-regression": lambda: own_prototypes("dot-regression", feature_length=1.5),
    "balanced-dot-regression": lambda: own_prototypes("balanced-dot-regression"),
    "hyperspherical": lambda: own_prototypes("hyperspherical"),
    "cosine-matching": lambda: own_prototypes("cosine-matching"),
    "prototype-cross-entropy": lambda: (
        LOSSES["prototype-cross-entropy"].module(SIMPLEX, scale=2.0),
        SIMPLEX,
        (CLASSES,),
        simplex_floor(2.0),
    ),
    "soft-label-cross-entropy": at_the_soft_labels,
    "hierarchical-cross-entropy": lambda: certain("hierarchical-cross-entropy", TREES[0]),
    "expected-cost": lambda: certain("expected-cost", TREES[0]),
    "squared-earth-mover": lambda: certain("squared-earth-mover", TREES[0]),
    "centre-collapse": centre_least,
    "pole-regression": pole_least,
    "joint-hyperspherical": joint_least,
    "separation": lambda: (LOSSES["separation"].module(), SIMPLEX, (), -1 / (K - 1)),
    "semantic-ranking": lambda: all_alike("semantic-ranking"),
    "equiangular-hinge": lambda: (LOSSES["equiangular-hinge"].module(0.0), torch.eye(K, dtype=F64), (), 0.0),
    "distortion": lambda: distances_as_costs("distortion"),
    "scale-free-distortion": lambda: distances_as_costs("scale-free-distortion", 7.0),
    "squared-scale-free-distortion": lambda: distances_as_costs("squared-scale-free-distortion", 7.0),
    "prototype-rank": lambda: all_alike("prototype-rank"),
}


@pytest.mark.parametrize("name", LOSSES)
def test_least_where_declared(name: str) -> None:
    """The declared configuration has the declared loss; no step from it, small or large, goes below."""
    loss, best, others, least = LEAST[name]()
    assert loss(best, *others).item() == pytest.approx(least, abs=1e-12)
    size = 2000.0 if name in LOGITS and least == 0 else 1.0
    draw, above = draws(9), 0.0
    for step in (1e-3, 1e-1, 0.5, 1.0, 3.0):
        for _ in range(20):
            excess = loss(best + step * size * normal(draw, *best.shape), *others).item() - least
            assert excess >= -1e-12
            above = max(above, excess)
    assert above > 1e-3


@pytest.mark.parametrize("name", ["dot-regression", "balanced-dot-regression", "hyperspherical", "cosine-matching"])
def test_exactly_nothing_at_the_own_prototype(name: str) -> None:
    loss, best, others, _ = LEAST[name]()
    value, gradient = with_gradient(loss, best, *others)
    assert value == 0 and (gradient == 0).all()


# ---------------------------------------------------------------------- as modules


@pytest.mark.parametrize("name", LOSSES)
def test_copies_and_conversions(name: str) -> None:
    """Pickled, deep-copied, saved or converted to float64, it is the same loss; it has no state of its own."""
    case = BUILDERS[name](0)
    wanted = case()
    assert not case.loss.state_dict() and not list(case.loss.parameters())
    buffer = io.BytesIO()
    torch.save(case.loss, buffer)
    buffer.seek(0)
    for twin in (
        pickle.loads(pickle.dumps(case.loss)),
        copy.deepcopy(case.loss),
        torch.load(buffer, weights_only=False),
    ):
        assert torch.equal(twin(case.inputs, *case.others), wanted)
    assert torch.equal(case.loss.to(F64)(case.inputs, *case.others), wanted)
    assert type(case.loss).__name__ in repr(case.loss)


@pytest.mark.parametrize("name", WITH_HEAD)
def test_a_head_is_not_swallowed(name: str) -> None:
    """A model that holds head and loss has the head's parameters once, and saves them once."""
    case = BUILDERS[name](0, bound=True)
    assert not list(case.loss.parameters()) and not case.loss.state_dict()
    assert not any(isinstance(module, PrototypeHead) for module in case.loss.modules())
    assert near(case(), np.mean(case.true_values(case.inputs)), 1e-9)


@pytest.mark.parametrize("name", WITH_HEAD)
def test_a_copied_model_keeps_head_and_loss_together(name: str) -> None:
    holder = PrototypeHead(normal(draws(0), K, D), learnable=True, dtype=F64)
    case = BUILDERS[name](0)
    ends = (prototypes.poles(T, D), 0.0, 1.0) if name == "joint-hyperspherical" else ()
    model = nn.ModuleDict({"head": holder, "loss": LOSSES[name].module(holder, *ends)})
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        before = twin["loss"](case.inputs, *case.others)
        assert torch.equal(before, model["loss"](case.inputs, *case.others))
        with torch.no_grad():
            twin["head"].prototypes.copy_(normal(draws(7), K, D))
        assert not torch.equal(twin["loss"](case.inputs, *case.others), before)
        assert torch.equal(model["loss"](case.inputs, *case.others), before)
