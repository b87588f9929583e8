"""Cosines: the fused normalisation of embeddings gives what the definition gives, wherever autograd takes it."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, distributed
from torch.autograd import forward_ad
from torch.autograd.functional import hessian
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from heads.cases import assert_close, draw, expected
from tightframe.heads import PrototypeHead
from tightframe.numerics import directions

SCALE = 1.7
# torch's own, at the first forward-mode derivative, and when a function of autograd is traced
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


def head_of(learnable: bool = False, dtype: torch.dtype = torch.float64) -> PrototypeHead:
    """A cosine head on 5 prototypes of 4 dimensions."""
    return PrototypeHead(draw(5, 4, seed=1), scale=SCALE, learnable=learnable, learn_scale=learnable, dtype=dtype)


def loss(head: PrototypeHead, z: Tensor) -> Tensor:
    return head(z).logsumexp(1).square().sum()


def by_loops(z: Tensor, P: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of sum weights_nk SCALE cos(z_n, p_k) in float64: SCALE (p^ - cos z^) / |z|, and the same for p."""
    z, P, weights = z.double(), P.double(), weights.double()
    to_z, to_P = torch.zeros_like(z), torch.zeros_like(P)
    for n in range(len(z)):
        for k in range(len(P)):
            length, other = math.sqrt(float(z[n] @ z[n])), math.sqrt(float(P[k] @ P[k]))
            unit, target = z[n] / length, P[k] / other
            cosine = unit @ target
            to_z[n] += SCALE * weights[n, k] * (target - cosine * unit) / length
            to_P[k] += SCALE * weights[n, k] * (unit - cosine * target) / other
    return to_z, to_P


# ---------------------------------------------------------------------------------------------- values and gradients

SIZES = [1e-18, 1e-12, 1e-8, 1.0, 1e8, 1e12, 1e18]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("learnable", [False, True], ids=["fixed", "learnt"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
def test_rows_of_any_size(size: float, learnable: bool, dtype: torch.dtype, tolerance: float) -> None:
    """Logits and gradients as the loops have them, in the rows' dtype: of short and long rows too."""
    head, weights = head_of(learnable, dtype), draw(6, 5, seed=3, dtype=dtype)
    z = (draw(6, 4) * size).to(dtype).requires_grad_()
    logits = head(z)
    logits.backward(weights)
    to_z, to_P = by_loops(z.detach(), head.prototypes.detach(), weights)
    assert logits.dtype is z.grad.dtype is dtype
    assert_close(logits, expected("cosine", z, head.prototypes, SCALE), tolerance)
    assert_close(z.grad * size, to_z * size, tolerance)
    if learnable:
        assert_close(head.prototypes.grad, to_P, tolerance)
        assert_close(head.log_scale.grad, (logits * weights).sum(), tolerance)


def test_one_long_row_among_others() -> None:
    """Rows of all sizes in a batch, in float32."""
    head, weights = head_of(dtype=torch.float32), draw(7, 5, seed=3)
    sizes = torch.tensor(SIZES, dtype=torch.float64)[:, None]
    z = (draw(7, 4) * sizes).float().requires_grad_()
    head(z).backward(weights.float())
    assert_close(z.grad * sizes, by_loops(z.detach(), head.prototypes, weights)[0] * sizes, 1e-5)


@pytest.mark.parametrize("take", [lambda z: z.mT.contiguous().mT, lambda z: z.repeat(1, 2)[:, ::2], lambda z: z[:1]])
def test_rows_in_any_memory(take: Callable[[Tensor], Tensor]) -> None:
    """Transposed, with gaps, a single one; the same for the gradient of the logits."""
    head, weights = head_of(), draw(5, 6, seed=3).mT
    source = draw(6, 8)[:, :4].requires_grad_()
    z = take(source)
    (grad,) = torch.autograd.grad(head(z), z, weights[: len(z)])
    assert_close(head(z), expected("cosine", z, head.prototypes, SCALE), 1e-12)
    assert_close(grad, by_loops(z.detach(), head.prototypes, weights[: len(z)])[0], 1e-12)


@pytest.mark.parametrize("learnable", [False, True], ids=["fixed", "learnt"])
def test_no_rows_have_no_gradient(learnable: bool) -> None:
    z = draw(0, 4).requires_grad_()
    head_of(learnable)(z).sum().backward()
    assert z.grad.shape == (0, 4)


def test_logits_without_a_graph() -> None:
    head, z = head_of(), draw(6, 4)
    wanted = head(z)
    with torch.inference_mode():
        assert torch.equal(head(z), wanted)
    with torch.no_grad():
        assert torch.equal(head(z.requires_grad_()), wanted)


def test_directions_of_other_shapes() -> None:
    """A single vector, and rows in blocks."""
    for shape in ((4,), (2, 3, 4)):
        vectors = draw(*shape)
        assert_close(directions(vectors), vectors / vectors.square().sum(-1, keepdim=True).sqrt(), 1e-12)


@pytest.mark.skipif(not distributed.is_available(), reason="torch without distributed")
def test_rows_of_distributed_tensors() -> None:
    """DTensor knows few operations; logits and gradients are those of the plain rows."""
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor, init_device_mesh

    head, z = head_of(), draw(6, 4).requires_grad_()
    loss(head, z).backward()
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        for name, value in list(head.named_buffers()):
            setattr(head, name, distribute_tensor(value, mesh, [Replicate()]))
        rows = distribute_tensor(z.detach(), mesh, [Shard(0)]).requires_grad_()
        loss(head, rows).backward()
        assert_close(rows.grad.full_tensor(), z.grad, 1e-12)
    finally:
        distributed.destroy_process_group()


# ---------------------------------------------------------------------------------------------- other derivatives


def test_derivatives_of_every_order() -> None:
    """By finite differences: first, second and third, backward and forward, for batches of gradients too."""
    head, z = head_of(), draw(3, 4).requires_grad_()
    assert torch.autograd.gradcheck(head, z, check_batched_grad=True)
    assert torch.autograd.gradcheck(head, z, check_forward_ad=True, check_batched_forward_grad=True)
    assert torch.autograd.gradgradcheck(head, z, check_fwd_over_rev=True, check_batched_grad=True)

    def slopes(z: Tensor) -> Tensor:
        return torch.autograd.grad(loss(head, z), z, create_graph=True)[0]

    assert torch.autograd.gradgradcheck(slopes, z)


@pytest.mark.parametrize("learnable", [False, True], ids=["fixed", "learnt"])
def test_every_way_to_a_derivative_gives_the_same(learnable: bool) -> None:
    """torch.func, forward mode, and autograd's functional interface."""
    head, z = head_of(learnable), draw(3, 4).requires_grad_()
    (grad,) = torch.autograd.grad(loss(head, z), z)
    tangent = draw(3, 4, seed=4)
    with forward_ad.dual_level():
        slope = forward_ad.unpack_dual(loss(head, forward_ad.make_dual(z, tangent))).tangent
    assert_close(slope, (grad * tangent).sum(), 1e-12)

    def call(rows: Tensor) -> Tensor:
        return loss(head, rows)

    z = z.detach()
    assert_close(torch.func.grad(call)(z), grad, 1e-12)
    assert_close(torch.func.jacfwd(call)(z), grad, 1e-12)
    assert_close(torch.func.vmap(torch.func.grad(lambda row: call(row[None])))(z), grad, 1e-12)
    assert_close(hessian(call, z), torch.func.hessian(call)(z), 1e-12)
    assert_close(hessian(call, z, vectorize=True), torch.func.hessian(call)(z), 1e-12)


def test_transformed_parameters() -> None:
    """torch.func of learnt prototypes and scale, with plain embeddings: gradients, and heads side by side."""
    head, z = head_of(learnable=True), draw(6, 4)
    values = {name: value.detach() for name, value in head.named_parameters()}
    loss(head, z).backward()
    for way in (torch.func.grad, torch.func.jacfwd):
        grads = way(lambda values: functional_call(head, values, (z,)).logsumexp(1).square().sum())(values)
        for name, value in head.named_parameters():
            assert_close(grads[name], value.grad, 1e-12)
    two = {name: torch.stack([value, value + 1]) for name, value in values.items()}
    both = torch.func.vmap(lambda values: functional_call(head, values, (z,)))(two)
    for index in range(2):
        assert_close(both[index], functional_call(head, {n: v[index] for n, v in two.items()}, (z,)), 1e-12)


def test_a_constant_batch_in_a_transform() -> None:
    """Embeddings that the transform doesn't touch."""
    head, z = head_of(), draw(6, 4)
    assert_close(torch.func.vmap(lambda factor: factor * head(z))(torch.ones(2)), torch.stack([head(z)] * 2), 1e-12)


def test_backward_under_autocast() -> None:
    """Autocast around the backward pass alone: the gradient of the normalisation stays in float32."""
    head, z = head_of(dtype=torch.float32), draw(6, 4, dtype=torch.float32).requires_grad_()
    logits, weights = head(z), draw(6, 5, seed=3, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits.backward(weights)
    assert z.grad.dtype is torch.float32
    assert_close(z.grad, by_loops(z.detach(), head.prototypes, weights)[0], 4 * torch.finfo(torch.bfloat16).eps)


# ---------------------------------------------------------------------------------------------- graphs


def test_a_fixed_head_exported_and_compiled() -> None:
    head, z = head_of(), draw(6, 4)
    assert_close(torch.export.export(head, (z,)).module()(3 * z), head(z), 1e-12)
    torch.compiler.reset()
    compiled = torch.compile(head, fullgraph=True, backend="aot_eager")
    grads = [
        torch.autograd.grad(loss(module, rows := z.clone().requires_grad_()), rows)[0] for module in (head, compiled)
    ]
    assert_close(grads[1], grads[0], 1e-12)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_a_traced_head_can_be_saved(tmp_path: Any) -> None:
    head, z = head_of(), draw(6, 4)
    torch.jit.save(torch.jit.trace(head, z), tmp_path / "head.pt")
    assert_close(torch.jit.load(tmp_path / "head.pt")(draw(3, 4)), head(draw(3, 4)), 1e-12)


# ---------------------------------------------------------------------------------------------- rows without direction


def test_where_values_are_not_looked_at_a_zero_row_has_no_gradient() -> None:
    head, z = head_of(), draw(3, 4)
    z[1] = 0
    grad = torch.func.grad(lambda rows: loss(head, rows))(z)
    assert grad.isfinite().all() and grad.any(1).tolist() == [True, False, True]
    assert not torch.func.vmap(lambda row: head(row[None])[0])(z)[1].any()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_row_that_is_not_finite_spoils_no_other(value: float) -> None:
    head, z = head_of(), draw(3, 4)
    wanted = head(z)
    z[1, 2] = value
    logits = head(z)
    assert logits[1].isnan().all()
    assert_close(logits[[0, 2]], wanted[[0, 2]], 1e-12)


# ---------------------------------------------------------------------------------------------- cost


class Written(TorchDispatchMode):
    """The entries of all tensors that operations make, views and tensors changed in place aside."""

    def __init__(self) -> None:
        super().__init__()
        self.entries = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {x.untyped_storage().data_ptr() for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        made = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
        self.entries += sum(x.numel() for x in made if x.untyped_storage().data_ptr() not in given)
        return result


def test_a_step_of_a_fixed_head_writes_few_matrices() -> None:
    """Unit rows, logits, their gradient to the unit rows and that to the rows: three (N, D) and one (N, K)."""
    N, K, D = 512, 8, 64
    head, z = PrototypeHead(torch.randn(K, D)), torch.randn(N, D, requires_grad=True)
    weights = torch.randn(N, K)
    with Written() as written:
        head(z).backward(weights)
    assert written.entries < 3.5 * N * D + N * K
