"""`PrototypeHead` and `PrototypeModel`: logits as defined, in every layout and precision; vectors that stay put."""

import copy
import io
import math
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from heads.cases import KINDS, as_layouts, assert_close, draw, expected, same_tensors, state
from tightframe import Prototypes
from tightframe import prototypes as constructions
from tightframe.errors import (
    ChoiceError,
    DtypeError,
    LabelError,
    NonFiniteError,
    RangeError,
    ShapeError,
    StateError,
    ZeroVectorError,
    ZeroVectorWarning,
)
from tightframe.heads import SIMILARITIES, DeepNCM, GuidedHead, PrototypeHead, PrototypeModel

DISTANCES = ("euclidean", "squared-euclidean", "pseudo-huber")
SCALE, DELTA = 1.7, 0.7
every_kind = pytest.mark.parametrize("kind", KINDS)


def head_of(kind: str, vectors: Tensor | None = None, **options: Any) -> PrototypeHead:
    """A head on 5 prototypes of 4 dimensions in float64, unless given others."""
    P = draw(5, 4, seed=1) if vectors is None else vectors
    return PrototypeHead(P, **({"logits": kind, "scale": SCALE, "delta": DELTA, "dtype": P.dtype} | options))


# ---------------------------------------------------------------------------------------------- logits


@every_kind
@pytest.mark.parametrize("learnable", [False, True], ids=["fixed", "learnt"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_logits_are_the_oracles(kind: str, learnable: bool, dtype: torch.dtype, tolerance: float) -> None:
    """scale times the similarity as its definition says, for fixed and learnt prototypes and scales."""
    z, P = draw(6, 4, dtype=dtype), draw(5, 4, seed=1, dtype=dtype)
    logits = head_of(kind, P, learnable=learnable, learn_scale=learnable)(z)
    assert logits.dtype is dtype
    torch.testing.assert_close(logits.double(), expected(kind, z, P, SCALE, DELTA), rtol=tolerance, atol=tolerance)


@every_kind
def test_logits_of_projected_features(kind: str) -> None:
    """The embedding is the projection of the feature; `embed` says which."""
    head = head_of(kind, in_features=7)
    x = draw(6, 7)
    z = x @ head.projection.weight.T
    assert head.projection.bias is None
    assert_close(head.embed(x), z, 1e-12)
    assert_close(head(x), expected(kind, z, head.prototypes, SCALE, DELTA), 1e-9)


@every_kind
def test_the_usual_scale(kind: str) -> None:
    """16 for cosines, 1 for the others, and delta 1."""
    z, P = draw(3, 4), draw(5, 4, seed=1)
    scale = 16.0 if kind == "cosine" else 1.0
    assert SIMILARITIES[kind].scale == scale
    assert_close(PrototypeHead(P, logits=kind, dtype=P.dtype)(z), expected(kind, z, P, scale), 1e-9)


def test_cosine_unless_asked() -> None:
    assert PrototypeHead(torch.eye(3)).logits == "cosine"


@pytest.mark.parametrize("learn_scale", [False, True])
def test_a_scale_given_as_an_integer_is_a_float(learn_scale: bool) -> None:
    """scale=2 is scale=2.0: it follows the module's dtype and multiplies like a float."""
    head = PrototypeHead(torch.eye(3), scale=2, learn_scale=learn_scale)
    assert head.scale.dtype is torch.float32
    assert head.half().scale.dtype is torch.float16


@every_kind
def test_compare_takes_other_prototypes(kind: str) -> None:
    """As many as are given, whatever the head's own number."""
    z, others = draw(3, 4), draw(5, 4, seed=3)
    wanted = expected(kind, z, others, SCALE, DELTA)
    assert_close(head_of(kind).compare(z, others), wanted, 1e-9)
    assert_close(head_of(kind, open_classes=2).compare(z, others), wanted, 1e-9)


@every_kind
def test_no_rows_give_no_logits(kind: str) -> None:
    assert head_of(kind)(draw(0, 4)).shape == (0, 5)


# ---------------------------------------------------------------------------------------------- gradients


def with_parameters(head: PrototypeHead) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    """The head as a function of features and all its parameters, and these."""
    names = [name for name, _ in head.named_parameters()]

    def call(features: Tensor, *values: Tensor) -> Tensor:
        return functional_call(head, dict(zip(names, values, strict=True)), (features,))

    return call, tuple(value.detach().clone().requires_grad_() for value in head.parameters())


@every_kind
def test_gradients_with_respect_to_everything(kind: str) -> None:
    """Features, learnt prototypes, learnt scale and projection, by finite differences; the first twice."""
    head = head_of(kind, in_features=3, learnable=True, learn_scale=True)
    call, values = with_parameters(head)
    assert len(values) == 3
    features = draw(6, 3, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(call, (features, *values))
    assert torch.autograd.gradgradcheck(lambda x: head(x), (features,))


@pytest.mark.parametrize("kind", ["squared-euclidean", "pseudo-huber"])
def test_gradients_at_a_prototype(kind: str) -> None:
    """Where embeddings are their prototypes these are smooth; finite differences agree there too."""
    head = head_of(kind, learnable=True, learn_scale=True)
    call, values = with_parameters(head)
    assert torch.autograd.gradcheck(call, (head.prototypes.detach().clone().requires_grad_(), *values))


@pytest.mark.parametrize("kind", DISTANCES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_at_its_prototype_an_embedding_is_pushed_nowhere(kind: str, dtype: torch.dtype) -> None:
    """Distance exactly zero, and with it the gradient of the own logit, in embeddings and in prototypes."""
    head = head_of(kind, draw(5, 4, seed=1, dtype=dtype) + 30, learnable=True)
    z = head.prototypes.detach().clone().requires_grad_()
    own = head(z).diagonal()
    assert not own.any()
    own.sum().backward()
    assert not z.grad.any()
    assert not head.prototypes.grad.any()


def test_the_other_distances_gradients_are_whole_at_a_prototype() -> None:
    """There the gradient of -|z - p_k| is the unit vector towards p_k for the other classes, and finite."""
    head = head_of("euclidean", scale=1.0)
    P = head.prototypes
    z = P.clone().requires_grad_()
    head(z).sum().backward()
    differences = P[None] - P[:, None]
    lengths = differences.norm(dim=-1, keepdim=True)
    towards = torch.where(lengths > 0, differences / lengths, 0.0).sum(1)
    assert_close(z.grad, towards, 1e-12)


@pytest.mark.parametrize("kind", DISTANCES)
def test_gradients_of_each_sample(kind: str) -> None:
    """By torch.func, whose vmap goes through the square root too."""
    head, z = head_of(kind), draw(5, 4)
    own = torch.func.vmap(torch.func.grad(lambda row: head(row[None]).logsumexp(1)[0]))(z)
    z.requires_grad_()
    head(z).logsumexp(1).sum().backward()
    assert_close(own, z.grad, 1e-10)


def test_the_hessian_of_a_distance_is_finite_at_a_prototype() -> None:
    head = head_of("euclidean")
    z = head.prototypes.clone().requires_grad_()
    (grad,) = torch.autograd.grad(head(z).sum(), z, create_graph=True)
    (second,) = torch.autograd.grad(grad.square().sum(), z)
    assert second.isfinite().all()


# ---------------------------------------------------------------------------------------------- precision


@pytest.mark.parametrize("where", ["far from the origin", "about a far offset"])
@pytest.mark.parametrize("kind", DISTANCES)
def test_distances_of_collapsed_embeddings(where: str, kind: str) -> None:
    """float32, embeddings 1e-3 from their prototypes: to 1e-4, although the Gram matrix keeps no digit of these."""
    directions = draw(10, 16, seed=1) / draw(10, 16, seed=1).norm(dim=1, keepdim=True)
    P = (1e3 * directions if where == "far from the origin" else directions + 1e3).float()
    steps = draw(10, 16, seed=2) / draw(10, 16, seed=2).norm(dim=1, keepdim=True)
    z = (P.double() + 1e-3 * steps).float()
    wanted = expected(kind, z, P).diagonal()
    gram = z.square().sum(1, keepdim=True) - 2 * z @ P.T + P.square().sum(1)
    naive = {
        "euclidean": -gram.clamp_min(0).sqrt(),
        "squared-euclidean": -gram,
        "pseudo-huber": 1 - (1 + gram.clamp_min(0)).sqrt(),
    }[kind].diagonal()
    assert ((naive - wanted) / wanted).abs().max() > 0.5  # the test would see it
    logits = head_of(kind, P, scale=1.0, delta=1.0)(z).diagonal()
    torch.testing.assert_close(logits.double(), wanted, rtol=1e-4, atol=0)


@pytest.mark.parametrize("kind", DISTANCES)
def test_distances_between_prototypes_about_a_far_offset(kind: str) -> None:
    """float32, at an offset of 1e3: the logits of the other classes are as exact."""
    P = (draw(10, 16, seed=1) + 1e3).float()
    z = (P.double() + 1e-3 * draw(10, 16, seed=2)).float()
    logits = head_of(kind, P, scale=1.0, delta=1.0)(z)
    torch.testing.assert_close(logits.double(), expected(kind, z, P), rtol=1e-4, atol=0)


def test_the_pseudo_huber_of_a_tiny_distance() -> None:
    """-d^2 / (2 delta) to first order: sqrt(1 + d^2) - 1 would be zero."""
    P = torch.zeros(2, 3)
    P[1] = 5
    z = torch.full((1, 3), 1e-6)
    logits = PrototypeHead(P, logits="pseudo-huber")(z)
    assert float(logits[0, 0]) == pytest.approx(-1.5e-12, rel=1e-5)


@every_kind
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_modules(kind: str, dtype: torch.dtype) -> None:
    """Logits in the features' dtype, distances in float32, no less exact than the dtype allows; gradients finite."""
    z, P = draw(6, 4, dtype=dtype), draw(5, 4, seed=1, dtype=dtype)
    head = head_of(kind, P, learnable=True, learn_scale=True)
    z.requires_grad_()
    logits = head(z)
    assert logits.dtype is (torch.float32 if kind in DISTANCES else dtype)
    wanted = expected(kind, z, P, float(head.scale.detach()), DELTA)
    assert_close(logits, wanted, 4 * torch.finfo(dtype).eps)
    logits.float().logsumexp(1).sum().backward()
    assert z.grad.isfinite().all()
    assert all(value.grad.isfinite().all() for value in head.parameters())


@every_kind
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(kind: str, dtype: torch.dtype) -> None:
    """As torch's own do: products in the lower precision, distances in float32; gradients finite."""
    head = head_of(kind, draw(5, 4, seed=1, dtype=torch.float32), in_features=7, learnable=True, learn_scale=True)
    x = draw(6, 7, seed=2, dtype=torch.float32).requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        logits = head(x)
        embeddings = head.embed(x)
    assert logits.dtype is (torch.float32 if kind in DISTANCES else dtype)
    wanted = expected(kind, embeddings, head.prototypes, SCALE, DELTA)
    assert_close(logits, wanted, 1e-5 if kind in DISTANCES else 4 * torch.finfo(dtype).eps)
    logits.float().logsumexp(1).sum().backward()
    assert x.grad.isfinite().all()
    assert all(value.grad.isfinite().all() for value in head.parameters())


def test_cosines_of_half_precision_features_whose_squares_overflow() -> None:
    z = torch.full((1, 8), 6e4, dtype=torch.float16)
    logits = PrototypeHead(torch.eye(8), scale=1.0, dtype=torch.float16)(z)
    torch.testing.assert_close(logits, torch.full((1, 8), 8**-0.5, dtype=torch.float16))


# ---------------------------------------------------------------------------------------------- layouts


@every_kind
@pytest.mark.parametrize("in_features", [None, 7], ids=["plain", "projected"])
def test_every_layout_gives_the_same_logits(kind: str, in_features: int | None) -> None:
    """(N, D), (N, T, D), (N, D, H, W), and that channels last: classes where the features were."""
    head = head_of(kind, in_features=in_features)
    rows = draw(12, in_features or 4)
    wanted = head(rows)
    for features, back in as_layouts(rows):
        logits = head(features)
        assert logits.ndim == features.ndim
        assert_close(back(logits), wanted, 1e-12)
        assert_close(back(head.embed(features)), head.embed(rows), 1e-12)


def test_pixels_of_one_class_each_are_not_mistaken_for_rows() -> None:
    """Of (N, D, H, W) with D = H = W the second dimension holds the features."""
    head = head_of("dot", scale=1.0)
    x = draw(2, 4, 4, 4)
    assert_close(head(x), torch.einsum("ndhw,kd->nkhw", x, head.prototypes), 1e-12)


# ---------------------------------------------------------------------------------------------- the linear rule


@every_kind
@pytest.mark.parametrize("open_classes", [None, 9], ids=["all open", "some open"])
def test_weight_and_bias_decide_like_the_head(kind: str, open_classes: int | None) -> None:
    """argmax of weight z + bias is argmax of the logits, for prototypes of different lengths."""
    P = draw(20, 4, seed=1) * torch.linspace(0.2, 3, 20, dtype=torch.float64)[:, None]
    head = head_of(kind, P, open_classes=open_classes)
    z = draw(400, 4)
    logits = head(z)
    assert head.weight.shape == (head.out_features, 4)
    assert (head.bias is None) == (kind in ("dot", "cosine"))
    linear = z @ head.weight.T + (0 if head.bias is None else head.bias)
    assert torch.equal(linear.argmax(1), logits.argmax(1))
    assert logits.argmax(1).unique().numel() > 5  # no rule that always says the same


@every_kind
def test_weight_follows_learnt_prototypes(kind: str) -> None:
    head = head_of(kind, learnable=True)
    head.weight.square().sum().backward()
    assert head.prototypes.grad is not None


# ---------------------------------------------------------------------------------------------- memory


class Largest(TorchDispatchMode):
    """The entries of the largest tensor that any operation gave."""

    def __init__(self) -> None:
        super().__init__()
        self.entries = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.entries = max([self.entries, *(x.numel() for x in tree_leaves(result) if isinstance(x, Tensor))])
        return result


N, K, D = 64, 50, 40


def test_the_watch_sees_a_tensor_of_all_differences() -> None:
    z, P = draw(N, D).requires_grad_(), draw(K, D, seed=1)
    with Largest() as largest:
        (z[:, None] - P).square().sum()
    assert largest.entries == N * K * D


@every_kind
def test_no_tensor_of_all_differences(kind: str) -> None:
    """Forward and backward keep to O(N K + N D + K D) entries."""
    head = head_of(kind, draw(K, D, seed=1), learnable=True, learn_scale=True)
    z = draw(N, D).requires_grad_()
    with Largest() as largest:
        head(z).logsumexp(1).sum().backward()
    assert z.grad is not None
    assert N * K <= largest.entries <= N * K + N * D + K * D


# ---------------------------------------------------------------------------------------------- compiling


# torch's own: dynamo makes an instance of the autograd function it traces, inductor imports torch.jit
traced = pytest.mark.filterwarnings("ignore:.*torch.autograd.function.Function.*instantiated:DeprecationWarning")
scripted = pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")


def compare_compiled(kind: str, tolerance: float, **options: Any) -> None:
    torch.compiler.reset()
    head = head_of(kind, in_features=3, learnable=True, learn_scale=True)
    compiled = torch.compile(copy.deepcopy(head), fullgraph=True, **options)
    results = []
    for module in (head, compiled):
        x = draw(6, 3, seed=2).requires_grad_()
        logits = module(x)
        logits.logsumexp(1).sum().backward()
        results.append([logits.detach(), x.grad, *(value.grad for value in module.parameters())])
    for mine, wanted in zip(*results, strict=True):
        assert_close(mine, wanted, tolerance)


@traced
@every_kind
def test_compiled_without_a_break(kind: str) -> None:
    """In one graph, logits and all gradients as in eager mode."""
    compare_compiled(kind, 1e-12, backend="aot_eager")


@pytest.mark.slow  # starts a compiler
@traced
@scripted
@pytest.mark.parametrize("kind", ["cosine", "euclidean"])
def test_compiled_by_inductor(kind: str) -> None:
    compare_compiled(kind, 1e-10)


# ---------------------------------------------------------------------------------------------- saving


def saved(module: nn.Module) -> dict[str, Any]:
    """The state after a way through a file that holds nothing but tensors."""
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@every_kind
@pytest.mark.parametrize("learnable", [False, True], ids=["fixed", "learnt"])
def test_state_dict_round_trip(kind: str, learnable: bool) -> None:
    """Vectors, scale, projection and the number of open classes come back bit for bit."""
    head = head_of(kind, in_features=3, learnable=learnable, learn_scale=learnable, open_classes=3)
    other = head_of(kind, draw(5, 4, seed=9), in_features=3, learnable=learnable, learn_scale=learnable, scale=5.0)
    other.load_state_dict(saved(head))
    assert other.out_features == 3
    assert same_tensors(state(other), state(head))
    x = draw(6, 3, seed=2)
    assert torch.equal(other(x), head(x))


def test_a_state_with_more_open_classes_than_prototypes() -> None:
    with pytest.raises(StateError, match="saved head has 5 open classes, but this head has 4 prototypes"):
        head_of("dot", draw(4, 4)).load_state_dict(head_of("dot").state_dict())


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda head: pickle.loads(pickle.dumps(head))], ids=["copy", "pickle"]
)
@pytest.mark.parametrize("learnable", [False, True], ids=["fixed", "learnt"])
def test_copies_are_whole_and_apart(copied: Callable[[PrototypeHead], PrototypeHead], learnable: bool) -> None:
    simplex = constructions.simplex(5, 8)
    head = PrototypeHead(simplex, 3, learnable=learnable, learn_scale=learnable, open_classes=4)
    other = copied(head)
    x = draw(6, 3, dtype=torch.float32)
    assert torch.equal(other(x), head(x))
    assert other.provenance == head.provenance == dict(simplex.provenance)
    assert other.learnable is learnable
    before = state(head)
    with torch.no_grad():
        other.prototypes.add_(1)
        other.open(5)
    assert same_tensors(state(head), before)
    assert head.out_features == 4


def test_fixed_prototypes_are_saved_but_not_trained() -> None:
    head = PrototypeHead(constructions.simplex(5, 8))
    assert not list(head.parameters())
    assert "vectors" in head.state_dict()
    assert not head.learnable
    assert not head.prototypes.requires_grad


def test_learnt_prototypes_and_scale_are_parameters() -> None:
    head = PrototypeHead(constructions.simplex(5, 8), learnable=True, learn_scale=True, scale=7.0)
    assert {name for name, _ in head.named_parameters()} == {"vectors", "log_scale"}
    assert float(head.log_scale.detach()) == pytest.approx(math.log(7))
    assert float(head.scale.detach()) == pytest.approx(7)
    assert head.learnable


@pytest.mark.parametrize("learnable", [False, True], ids=["fixed", "learnt"])
def test_the_head_has_vectors_of_its_own(learnable: bool) -> None:
    """What happens to the tensor that was given, or to the head's, doesn't reach the other; nor after a reset."""
    given = torch.eye(3)
    head = PrototypeHead(given, learnable=learnable)
    with torch.no_grad():
        given.mul_(5)
        assert torch.equal(head.prototypes, torch.eye(3))
        head.reset_parameters()
        assert torch.equal(head.prototypes, torch.eye(3))
        head.prototypes.mul_(7)
    assert torch.equal(given, 5 * torch.eye(3))


# ---------------------------------------------------------------------------------------------- like nn.Linear


@pytest.mark.parametrize("dtype", [None, torch.float64, torch.bfloat16])
def test_it_has_what_a_linear_layer_has(dtype: torch.dtype | None) -> None:
    head = PrototypeHead(
        constructions.simplex(5, 8), 3, logits="euclidean", learn_scale=True, device="cpu", dtype=dtype
    )
    linear = nn.Linear(3, 5, device="cpu", dtype=dtype)
    assert (head.in_features, head.out_features) == (linear.in_features, linear.out_features)
    assert head.weight.shape == (5, 8)
    assert head.bias.shape == (5,)
    assert {value.dtype for value in (*head.parameters(), *head.buffers())} == {linear.weight.dtype}


def test_the_default_dtype_is_torchs() -> None:
    assert PrototypeHead(constructions.simplex(5, 8)).prototypes.dtype is torch.float32


@every_kind
@pytest.mark.parametrize("learnt", [False, True], ids=["fixed", "learnt"])
def test_made_on_another_device(kind: str, learnt: bool) -> None:
    """Everything is there; like a linear layer it can be shown, and knows the shape of its outputs, without values."""
    head = head_of(kind, in_features=3, learnable=learnt, learn_scale=learnt, device="meta")
    assert {value.device.type for value in (*head.parameters(), *head.buffers())} == {"meta"}
    assert "in_features=3" in repr(head)
    assert head(torch.empty(2, 3, device="meta", dtype=torch.float64)).shape == (2, 5)


def test_no_in_features_is_the_prototypes_dimension() -> None:
    head = PrototypeHead(constructions.simplex(5, 8))
    assert head.in_features == 8
    assert head.projection is None
    assert PrototypeHead(constructions.simplex(5, 8), 8).projection is None


def test_a_projection_of_ones_own() -> None:
    """Any module; its in_features are known, or given."""
    layer = nn.Linear(3, 4, dtype=torch.float64)
    assert head_of("dot", projection=layer).in_features == 3
    mlp = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 4)).double()
    head = head_of("dot", in_features=6, projection=mlp)
    x = draw(2, 6)
    assert_close(head(x), expected("dot", mlp(x), head.prototypes, SCALE), 1e-9)


def test_reset_parameters_starts_anew() -> None:
    """Learnt prototypes and scale are as they were first; the projection is drawn anew."""
    head = head_of("cosine", in_features=3, learnable=True, learn_scale=True)
    first = {name: value.clone() for name, value in head.state_dict().items()}
    with torch.no_grad():
        for value in head.parameters():
            value.fill_(9)
    head.reset_parameters()
    assert torch.equal(head.vectors, first["vectors"])
    assert torch.equal(head.log_scale, first["log_scale"])
    assert head.projection.weight.abs().max() < 1
    assert head.projection.weight.unique().numel() > 1


def test_reset_parameters_after_growth() -> None:
    head = head_of("dot", learnable=True)
    head.append(draw(2, 4, seed=5))
    with torch.no_grad():
        head.prototypes.zero_()
    head.reset_parameters()
    assert torch.equal(head.prototypes, torch.cat([draw(5, 4, seed=1), draw(2, 4, seed=5)]))


def test_repr_says_what_it_is() -> None:
    head = PrototypeHead(constructions.simplex(5, 8), 3, logits="dot", scale=2.5, learn_scale=True, open_classes=4)
    text = repr(head)
    for part in (
        "in_features=3, out_features=4, dim=8",
        "logits='dot'",
        "scale=learnt, now 2.5, 1 closed, fixed simplex",
    ):
        assert part in text
    text = repr(PrototypeHead(torch.eye(3), learnable=True))
    assert "scale=16, learnt given vectors" in text
    assert "closed" not in text


# ---------------------------------------------------------------------------------------------- growth


@every_kind
@pytest.mark.parametrize("learnable", [False, True], ids=["fixed", "learnt"])
def test_opening_moves_no_vector(kind: str, learnable: bool) -> None:
    """Reserved prototypes get logits; vectors stay bit for bit and so do, to rounding, the older logits."""
    head = head_of(kind, learnable=learnable, open_classes=2)
    before, x = head.prototypes.detach().clone(), draw(6, 4)
    old = head(x)
    assert old.shape == (6, 2)
    assert_close(old, expected(kind, x, before[:2], SCALE, DELTA), 1e-9)
    head.open(4)
    assert head.out_features == 4
    assert torch.equal(head.prototypes, before)
    new = head(x)
    assert new.shape == (6, 4)
    torch.testing.assert_close(new[:, :2], old, rtol=1e-12, atol=1e-12)
    assert_close(new, expected(kind, x, before[:4], SCALE, DELTA), 1e-9)


@every_kind
@pytest.mark.parametrize("learnable", [False, True], ids=["fixed", "learnt"])
@pytest.mark.parametrize("wrapped", [False, True], ids=["vectors", "value"])
def test_appending_moves_no_vector(kind: str, learnable: bool, wrapped: bool) -> None:
    """New prototypes come after the others and all classes are open."""
    head = head_of(kind, learnable=learnable, open_classes=2)
    before, x, new = head.prototypes.detach().clone(), draw(6, 4), draw(3, 4, seed=5)
    old = head(x)
    head.append(Prototypes(new) if wrapped else new)
    assert head.out_features == 8
    assert head.learnable is learnable
    assert head.prototypes.requires_grad is learnable
    assert torch.equal(head.prototypes, torch.cat([before, new]))
    torch.testing.assert_close(head(x)[:, :2], old, rtol=1e-12, atol=1e-12)


def test_growth_keeps_the_dtype() -> None:
    head = PrototypeHead(torch.eye(3))
    head.append(torch.ones(1, 3, dtype=torch.float64))
    assert head.prototypes.dtype is torch.float32


@pytest.mark.parametrize("learnable", [False, True], ids=["fixed", "learnt"])
def test_training_before_and_after_growth(learnable: bool) -> None:
    """A learnt projection trains; fixed prototypes never move, and learnt ones don't before their class is open."""
    head = head_of("cosine", draw(6, 4, seed=1), in_features=3, learnable=learnable, open_classes=2)
    first, x = head.prototypes.detach().clone(), draw(12, 3)

    def train() -> Tensor:
        optimiser = torch.optim.SGD(head.parameters(), lr=0.1, momentum=0.9)
        for _ in range(3):
            optimiser.zero_grad()
            nn.functional.cross_entropy(head(x), torch.arange(12) % head.out_features).backward()
            optimiser.step()
        return head.projection.weight.detach().clone()

    start = head.projection.weight.detach().clone()
    middle = train()
    assert not torch.equal(middle, start)
    assert torch.equal(head.prototypes[2:], first[2:])
    assert torch.equal(head.prototypes[:2], first[:2]) is not learnable
    trained = head.prototypes.detach().clone()
    head.open(4)
    head.append(draw(1, 4, seed=5))
    assert torch.equal(head.prototypes[:6], trained)
    assert not torch.equal(train(), middle)
    assert torch.equal(head.prototypes[:6], first) is not learnable


# ---------------------------------------------------------------------------------------------- errors


def test_unknown_logits() -> None:
    with pytest.raises(ChoiceError, match=r"dot, cosine, .*; got 'cosinus'"):
        head_of("cosinus")


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan])
def test_a_bad_scale(scale: float) -> None:
    with pytest.raises(RangeError, match=rf"scale of logits .*; got {scale}"):
        head_of("dot", scale=scale)


@pytest.mark.parametrize("delta", [0.0, -1.0, math.inf, math.nan])
def test_a_bad_delta(delta: float) -> None:
    with pytest.raises(RangeError, match=rf"delta .*; got {delta}"):
        head_of("pseudo-huber", delta=delta)


@pytest.mark.parametrize(
    ("shape", "where"), [((2, 5), "last"), ((2, 3, 5), "last"), ((2, 5, 4, 4), "second"), ((4, 2, 2, 4), "second")]
)
def test_features_of_another_width(shape: tuple[int, ...], where: str) -> None:
    with pytest.raises(ShapeError, match=rf"4 entries in their {where} dimension; got shape \({shape[0]}, {shape[1]}"):
        head_of("dot")(draw(*shape))


def test_a_single_feature_vector() -> None:
    with pytest.raises(ShapeError, match=r"got shape \(4,\)"):
        head_of("dot")(draw(4))


def test_integer_features() -> None:
    with pytest.raises(DtypeError, match="int64"):
        head_of("dot")(torch.ones(2, 4, dtype=torch.int64))


def test_integer_prototypes() -> None:
    with pytest.raises(DtypeError, match="int64"):
        PrototypeHead(torch.eye(4, dtype=torch.int64))


def test_prototypes_that_are_no_matrix() -> None:
    with pytest.raises(ShapeError, match=r"\(K, D\).*got \(4,\)"):
        PrototypeHead(torch.ones(4))


def test_prototypes_that_are_not_finite() -> None:
    with pytest.raises(NonFiniteError, match=r"vectors .* row 1 holds nan in column 2"):
        PrototypeHead(torch.tensor([[0, 1, 0], [0, 0, math.nan]]))


def test_a_prototype_without_direction() -> None:
    """Under "cosine" only: it has distances and products."""
    P = torch.eye(4, dtype=torch.float64)
    P[2] = 0
    with pytest.raises(ZeroVectorError, match=r"prototypes .* row 2 is zero"):
        head_of("cosine", P)
    for kind in KINDS:
        if kind != "cosine":
            assert head_of(kind, P)(draw(2, 4)).isfinite().all()


def test_an_embedding_without_direction() -> None:
    z = draw(3, 4)
    z[1] = 0
    with pytest.warns(ZeroVectorWarning, match=r"embeddings .* row 1 is zero"):
        assert not head_of("cosine")(z)[1].any()
    for kind in KINDS:
        if kind != "cosine":
            assert head_of(kind)(z).isfinite().all()


@pytest.mark.parametrize("projection", [nn.Linear(3, 5), nn.Unflatten(1, (1, 3))])
def test_a_projection_to_another_dimension(projection: nn.Module) -> None:
    head = PrototypeHead(torch.eye(4), 3, projection=projection)
    with pytest.raises(ShapeError, match=r"projection must return \(N, 4\), .*; got \(2, "):
        head(torch.ones(2, 3))


def test_appending_another_dimension() -> None:
    head = head_of("dot")
    before = state(head)
    with pytest.raises(ShapeError, match="4 dimensions; got 3"):
        head.append(draw(2, 3))
    assert same_tensors(state(head), before)


def test_appending_a_prototype_without_direction() -> None:
    head = head_of("cosine")
    before = state(head)
    with pytest.raises(ZeroVectorError, match="row 1 is zero"):
        head.append(torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0]]))
    assert same_tensors(state(head), before)
    assert head.out_features == 5


@pytest.mark.parametrize("number", [0, -1, 6])
def test_opening_beyond_the_prototypes(number: int) -> None:
    head = head_of("dot", open_classes=2)
    with pytest.raises(LabelError, match=rf"\[1, 5\]; got {number}"):
        head.open(number)
    assert head.out_features == 2
    with pytest.raises(LabelError, match=rf"\[1, 5\]; got {number}"):
        head_of("dot", open_classes=number)


# ---------------------------------------------------------------------------------------------- model


class Recorded(nn.Module):
    """A head that notes how it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []

    def forward(self, *args: Any) -> Tensor:
        self.calls.append(args)
        return args[0]


class Following(Recorded):
    follows_labels, decides_linearly = True, False
    prototypes, weight, bias, out_features = None, None, None, 3

    def embed(self, features: Tensor) -> Tensor:
        return features

    def forward(self, features: Tensor, labels: Tensor | None = None) -> Tensor:
        return super().forward(features, labels)


def test_labels_go_to_heads_that_follow_means() -> None:
    x, labels = torch.ones(2, 3), torch.tensor([0, 1])
    model = PrototypeModel(nn.Identity(), Following())
    model(x, labels=labels)
    assert model.head.calls[0][1] is labels
    model(x)
    assert model.head.calls[1][1] is None
    plain = PrototypeModel(nn.Identity(), Recorded())
    plain(x, labels=labels)
    assert len(plain.head.calls[0]) == 1


@pytest.mark.parametrize(
    "head", [DeepNCM(3, 8), GuidedHead(constructions.simplex(3, 8))], ids=["DeepNCM", "GuidedHead"]
)
def test_our_heads_that_follow_means_get_the_labels(head: DeepNCM | GuidedHead) -> None:
    x, labels = draw(9, 5, dtype=torch.float32), torch.arange(9) % 3
    model = PrototypeModel(nn.Linear(5, 8), copy.deepcopy(head))
    model(x, labels=labels)
    assert model.head.means.counts.all()
    assert torch.equal(model(x), model.head(model.backbone(x)))


def test_a_prototype_head_does_without_labels() -> None:
    model = PrototypeModel(nn.Linear(5, 8), PrototypeHead(constructions.simplex(3, 8)))
    x = draw(9, 5, dtype=torch.float32)
    assert torch.equal(model(x, labels=torch.arange(9) % 3), model(x))


def test_embed_gives_what_is_compared() -> None:
    model = PrototypeModel(nn.Linear(5, 6), PrototypeHead(constructions.simplex(3, 8), 6))
    x = draw(9, 5, dtype=torch.float32)
    embeddings = model.embed(x)
    assert torch.equal(embeddings, model.head.projection(model.backbone(x)))
    assert torch.equal(model.head.compare(embeddings), model(x))
    assert torch.equal(PrototypeModel(nn.Identity(), nn.Linear(5, 2)).embed(x), x)


class Sum(nn.Module):
    def forward(self, a: Tensor, b: Tensor, *, factor: float = 1.0) -> Tensor:
        return factor * (a + b)


def test_inputs_and_options_go_to_the_backbone() -> None:
    model = PrototypeModel(Sum(), nn.Identity())
    a, b = draw(2, 3), draw(2, 3, seed=1)
    assert torch.equal(model(a, b, factor=3.0), 3.0 * (a + b))
    assert torch.equal(model.embed(a, b, factor=3.0), 3.0 * (a + b))


def test_the_model_names_its_head_and_prototypes() -> None:
    head = PrototypeHead(constructions.simplex(3, 8))
    model = PrototypeModel(nn.Linear(5, 8), head)
    assert model.get_classifier() is head
    assert model.prototypes is head.prototypes


def test_a_head_put_in_later_gets_the_labels_too() -> None:
    model = PrototypeModel(nn.Linear(5, 8), PrototypeHead(constructions.simplex(3, 8)))
    model.head = DeepNCM(3, 8)
    x, labels = draw(9, 5, dtype=torch.float32), torch.arange(9) % 3
    assert model(x, labels=labels).isfinite().all()


def test_a_projection_of_unknown_width_is_refused_at_once() -> None:
    projection = nn.Sequential(nn.Linear(5, 8))
    with pytest.raises(ShapeError, match="a Sequential, has no attribute in_features; pass in_features="):
        PrototypeHead(constructions.simplex(3, 8), projection=projection)
    assert PrototypeHead(constructions.simplex(3, 8), 5, projection=projection)(torch.ones(2, 5)).shape == (2, 3)


def test_what_was_appended_is_said() -> None:
    head = PrototypeHead(constructions.simplex(3, 8))
    head.append(torch.eye(8)[:2])
    assert "fixed simplex + given vectors" in repr(head)


def test_resetting_restores_a_fixed_scale() -> None:
    head = PrototypeHead(constructions.simplex(3, 8), scale=3.0, device="meta").to_empty(device="cpu")
    head.reset_parameters()
    assert float(head.scale) == 3.0
