"""`DeepNCM` and `GuidedHead`: they follow the class means in training, by their definitions, and stay otherwise."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from heads.cases import KINDS, as_layouts, assert_close, draw, expected, labels_like, same_tensors, state
from tightframe import ClassStatistics, Prototypes
from tightframe import prototypes as constructions
from tightframe.errors import DimensionError, LabelError, RangeError, ShapeError, UntrainedWarning
from tightframe.heads import CondensedMeans, DecayedMeans, DeepNCM, GuidedHead, OnlineMeans
from training_oracle import condensed_means, decayed_means, online_means

K, D = 4, 6
LABELS = torch.arange(12) % K


def ncm(**options: Any) -> DeepNCM:
    return DeepNCM(K, D, **({"dtype": torch.float64} | options))


def batch(step: int = 0, classes: int = K) -> tuple[Tensor, Tensor]:
    """Twelve embeddings about distinct centres; labels below `classes`."""
    labels = torch.arange(12) % classes
    return 2 * draw(K, D, seed=77)[labels] + draw(12, D, seed=step), labels


def numpy_batches(rows: list[tuple[Tensor, Tensor]]) -> list[tuple[Any, Any]]:
    return [(z.double().numpy(), y.numpy()) for z, y in rows]


# ---------------------------------------------------------------------------------------------- DeepNCM

TRACKERS: dict[str, Any] = {
    "online": (lambda: OnlineMeans(K, D), lambda rows: online_means(rows, K)),
    "condensed": (lambda: CondensedMeans(K, D, 2), lambda rows: condensed_means(rows, K, 2)),
    "decayed": (lambda: DecayedMeans(K, D, 0.8), lambda rows: decayed_means(rows, K, 0.8)),
}


@pytest.mark.parametrize("tracker", TRACKERS)
@pytest.mark.parametrize("kind", KINDS)
def test_logits_compare_with_the_oracles_means(tracker: str, kind: str) -> None:
    """The batch enters the means first, and then is compared with them."""
    make, oracle = TRACKERS[tracker]
    head, rows = ncm(means=make(), logits=kind, scale=1.3), []
    for step in range(4):
        z, y = batch(step)
        rows.append((z, y))
        means = torch.from_numpy(oracle(numpy_batches(rows)))
        assert_close(head(z, y), expected(kind, z, means, 1.3), 1e-9)
        assert_close(head.prototypes, means, 1e-12)


def test_half_the_squared_distance_unless_asked() -> None:
    z, y = batch()
    head = ncm()
    logits = head(z, y)
    means = torch.stack([z[y == k].mean(0) for k in range(K)])
    assert_close(logits, -0.5 * (z[:, None] - means).square().sum(-1), 1e-12)
    assert isinstance(head.means, OnlineMeans)


def test_the_released_codes_scale() -> None:
    """scale=1, as the docstring says it, an integer: means and logits are floats all the same."""
    z, y = batch()
    head = ncm(scale=1)
    assert_close(head(z, y), 2 * ncm()(z, y), 1e-12)
    assert head.prototypes.dtype is torch.float64
    float32 = DeepNCM(K, D, scale=1)
    assert_close(float32(z.float(), y), 2 * ncm()(z, y), 1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_class_that_was_never_seen(kind: str) -> None:
    """-inf, the others' logits as ever, the loss and its gradients finite."""
    head = ncm(logits=kind, in_features=5)
    x, y = draw(9, 5).requires_grad_(), torch.arange(9) % 3
    logits = head(x, y)
    assert (logits[:, 3] == -math.inf).all()
    z = head.embed(x).detach()
    means = torch.stack([z[y == k].mean(0) for k in range(3)])
    assert_close(logits[:, :3], expected(kind, z, means, 0.5), 1e-9)
    nn.functional.cross_entropy(logits, y).backward()
    assert x.grad.isfinite().all()
    assert x.grad.any()
    assert head.projection.weight.grad.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_an_unseen_class_beside_means_that_cancel(kind: str) -> None:
    """Where the mean of all samples has no direction, the class that was never seen is nobody's fault."""
    head = DeepNCM(3, 2, logits=kind, dtype=torch.float64)
    z = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    logits = head(z, torch.tensor([0, 1]))
    assert torch.equal(logits.argmax(1), torch.tensor([0, 1]))
    assert (logits[:, 2] == -math.inf).all()


def test_gradients_go_through_embeddings_but_not_through_means() -> None:
    z, y = batch()
    z.requires_grad_()
    head = ncm()
    nn.functional.cross_entropy(head(z, y), y).backward()
    mine, z.grad = z.grad, None
    fixed = torch.stack([z.detach()[y == k].mean(0) for k in range(K)])
    nn.functional.cross_entropy(-0.5 * torch.cdist(z, fixed).square(), y).backward()
    assert_close(mine, z.grad, 1e-9)
    assert not head.prototypes.requires_grad


@pytest.mark.parametrize("how", ["eval mode", "no labels", "no labels in eval mode"])
def test_means_stay_unless_trained(how: str) -> None:
    head = ncm()
    head(*batch(0))
    before = state(head)
    z, y = batch(1)
    if "eval mode" in how:
        head.eval()
    if "no labels" in how:
        head(z)
    else:
        head(z, y)
    assert same_tensors(state(head), before)


@pytest.mark.parametrize("kind", ["squared-euclidean", "cosine"])
def test_every_layout_of_deep_ncm(kind: str) -> None:
    """Features and labels as pixels or tokens: the same means and logits, ignored rows too."""
    rows, labels = draw(12, 5), LABELS.clone()
    labels[3] = -100
    first = ncm(in_features=5, logits=kind)
    wanted = copy.deepcopy(first)(rows, labels)
    for (features, back), y in zip(as_layouts(rows), labels_like(labels), strict=True):
        head = copy.deepcopy(first)
        assert_close(back(head(features, y)), wanted, 1e-12)
        assert head.means.counts.tolist() == [3, 3, 3, 2]


def test_ignore_index_is_the_heads() -> None:
    head = ncm(ignore_index=2)
    head(*batch())
    assert head.means.seen.tolist() == [True, True, False, True]


def test_exact_means_can_be_set() -> None:
    z, y = batch()
    head = ncm()
    head.means.set(ClassStatistics.from_features(z, y, K))
    means = torch.stack([z[y == k].mean(0) for k in range(K)])
    assert_close(head.eval()(z), expected("squared-euclidean", z, means, 0.5), 1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_deep_ncm_in_half_precision(dtype: torch.dtype) -> None:
    """Distances in float32, means in float64."""
    head = ncm().to(dtype)
    z, y = batch()
    logits = head(z.to(dtype), y)
    assert logits.dtype is torch.float32
    assert logits.isfinite().all()
    assert head.means.sums.dtype is torch.float64


@pytest.mark.parametrize("kind", KINDS)
def test_deep_ncms_weight_and_bias_decide_like_it(kind: str) -> None:
    head = ncm(logits=kind)
    head(*batch())
    z = draw(200, D, seed=9)
    linear = z @ head.weight.T + (0 if head.bias is None else head.bias)
    decisions = head.eval()(z).argmax(1)
    assert torch.equal(linear.argmax(1), decisions)
    assert decisions.unique().numel() == K


def test_deep_ncms_state_dict_round_trip() -> None:
    head, other = ncm(in_features=5), ncm(in_features=5, scale=2.0)
    x = draw(12, 5)
    head(x, LABELS)
    other.load_state_dict(head.state_dict())
    assert torch.equal(other.eval()(x), head.eval()(x))


def test_deep_ncms_reset_parameters() -> None:
    head = ncm(in_features=5)
    head(draw(12, 5), LABELS)
    before = head.projection.weight.detach().clone()
    head.reset_parameters()
    assert not head.means.seen.any()
    assert not torch.equal(head.projection.weight, before)


def test_comparing_before_any_sample() -> None:
    """Logits of 0, uniform, with a gradient of 0 and one warning; also after a reset, in eval mode, and where a first
    batch held only ignored rows."""
    z, y = batch()
    z = z.detach().requires_grad_()
    for logits in KINDS:
        for call in (
            lambda head: head(z),
            lambda head: head.eval()(z, y),
            lambda head: head.compare(z),
            lambda head: head(z, torch.full_like(y, -100)),
        ):
            head = ncm(logits=logits)
            with pytest.warns(UntrainedWarning, match="no class has a mean yet, so all logits are 0"):
                values = call(head)
            assert values.shape == (len(z), K) and not values.any()
            assert not torch.autograd.grad(values.exp().sum(), z)[0].any()
            assert not call(head).any()  # where a second warning would be an error
    head = ncm()
    assert head(z, y).any()
    head.means.reset()
    with pytest.warns(UntrainedWarning, match="no class has a mean yet"):
        assert not head(z).any()
    assert head(z, y).any()


def test_open_classes_before_any_sample_of_them() -> None:
    """Whatever closed classes have."""
    z, y = batch()
    head = ncm()
    head.means.update(z[y == K - 1], y[y == K - 1])
    head.open(K - 1)
    with pytest.warns(UntrainedWarning):
        assert not head(z).any()


def test_deep_ncm_refuses_means_of_another_shape() -> None:
    with pytest.raises(ShapeError, match=r"\(4, 6\); got \(4, 5\)"):
        ncm(means=OnlineMeans(K, 5))


def test_deep_ncm_refuses_bad_labels_and_keeps_its_means() -> None:
    head = ncm()
    head(*batch())
    before = state(head)
    with pytest.raises(LabelError, match="got 4"):
        head(batch()[0], torch.arange(12) % 5)
    assert same_tensors(state(head), before)


# ---------------------------------------------------------------------------------------------- GuidedHead


def guided(dtype: torch.dtype = torch.float64, length: float = 1.0, **options: Any) -> GuidedHead:
    return GuidedHead(constructions.simplex(K, D).scaled(length), dtype=dtype, **options)


def require_etf(vectors: Tensor, length: float, tolerance: float) -> None:
    """All lengths equal and all pairwise cosines -1/(K-1)."""
    vectors = vectors.double()
    lengths = vectors.norm(dim=1)
    torch.testing.assert_close(lengths, torch.full_like(lengths, length), rtol=tolerance, atol=0)
    cosines = (vectors / lengths[:, None]) @ (vectors / lengths[:, None]).T
    simplex = torch.full_like(cosines, -1 / (len(vectors) - 1)).fill_diagonal_(1)
    torch.testing.assert_close(cosines, simplex, rtol=0, atol=tolerance)


@pytest.mark.parametrize("means", [None, OnlineMeans(K, D)], ids=["decayed", "online"])
def test_on_fixed_means_it_becomes_the_nearest_etf(means: Any) -> None:
    """Vector by vector, and so the Gram matrix with the means too."""
    head = guided(means=copy.deepcopy(means))
    z, y = batch()
    class_means = torch.stack([z[y == k].mean(0) for k in range(K)])
    wanted = constructions.nearest_etf(class_means).vectors
    assert (head.prototypes - wanted).norm() > 0.5  # it isn't there yet
    for _ in range(30):
        head(z, y)
    torch.testing.assert_close(head.prototypes, wanted, rtol=0, atol=1e-9)
    torch.testing.assert_close(head.prototypes @ class_means.T, wanted @ class_means.T, rtol=0, atol=1e-8)
    torch.testing.assert_close(head.prototypes @ head.prototypes.T, wanted @ wanted.T, rtol=0, atol=1e-9)


def test_each_call_is_one_guided_update() -> None:
    """By the means after the batch and the ETF before it, with the head's proximal weight."""
    head = guided(proximal=0.3, means=DecayedMeans(K, D, 0.8))
    rows: list[tuple[Tensor, Tensor]] = []
    for step in range(3):
        before = Prototypes(head.prototypes.clone())
        rows.append(batch(step))
        head(*rows[-1])
        means = torch.from_numpy(decayed_means(numpy_batches(rows), K, 0.8))
        wanted = constructions.guided(before, means, proximal=0.3).vectors
        torch.testing.assert_close(head.prototypes, wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_it_stays_an_etf(dtype: torch.dtype, tolerance: float) -> None:
    """Pairwise cosines -1/(K-1) and lengths as at the start, after many updates on changing batches."""
    head = guided(dtype, length=2.5, means=DecayedMeans(K, D, 0.5))
    first = head.prototypes.clone()
    for step in range(60):
        z, y = batch(step)
        head(z.to(dtype), y)
    assert (head.prototypes - first).norm() > 0.5
    require_etf(head.prototypes, 2.5, tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_logits_compare_with_the_turned_etf(kind: str) -> None:
    head = guided(logits=kind, scale=1.3)
    z, y = batch()
    logits = head(z, y)
    assert_close(logits, expected(kind, z, head.prototypes, 1.3), 1e-9)
    torch.testing.assert_close(head(z), logits.detach(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("learn_scale", [False, True])
def test_a_guided_head_in_float32_with_a_scale_given_as_an_integer(learn_scale: bool) -> None:
    z, y = batch()
    logits = guided(torch.float32, scale=2, learn_scale=learn_scale)(z.float(), y)
    torch.testing.assert_close(logits.double(), guided(scale=2.0)(z, y), rtol=0, atol=1e-5)


@pytest.mark.parametrize("how", ["eval mode", "no labels"])
def test_the_etf_stays_unless_trained(how: str) -> None:
    head = guided()
    head(*batch(0))
    before = state(head)
    z, y = batch(1)
    if how == "eval mode":
        head.eval()(z, y)
    else:
        head(z)
    assert same_tensors(state(head), before)


@pytest.mark.parametrize("kind", ["cosine", "euclidean"])
def test_the_loss_differentiates_through_the_turn(kind: str) -> None:
    """By finite differences, with means and ETF of an earlier batch; and the ETF's part of it is not nothing."""
    start = guided(logits=kind, proximal=0.1)
    start(*batch(0))
    z, y = batch(1)

    def loss(embeddings: Tensor) -> Tensor:
        return nn.functional.cross_entropy(copy.deepcopy(start)(embeddings, y), y)

    assert torch.autograd.gradcheck(loss, (z.clone().requires_grad_(),))
    whole, direct = z.clone().requires_grad_(), z.clone().requires_grad_()
    loss(whole).backward()
    turned = copy.deepcopy(start)
    turned(z, y)
    nn.functional.cross_entropy(turned(direct), y).backward()
    assert (whole.grad - direct.grad).norm() > 1e-3 * direct.grad.norm()


def test_gradients_at_the_nearest_etf_itself() -> None:
    """Where all singular values coincide, as they do once classes have collapsed."""
    head = guided()
    z = head.prototypes.clone().repeat(3, 1).requires_grad_()
    nn.functional.cross_entropy(head(z, LABELS), LABELS).backward()
    assert z.grad.isfinite().all()


def test_only_every_so_many_calls() -> None:
    """Means take in every batch; the ETF turns at the third call, the sixth, ..."""
    head = guided(every=3)
    for step in range(1, 8):
        before = head.prototypes.clone()
        head(*batch(step))
        assert torch.equal(head.prototypes, before) is (step % 3 != 0)
        assert head.get_extra_state().tolist() == [4, step]
    require_etf(head.prototypes, 1.0, 1e-12)


def test_it_stays_until_all_classes_were_seen() -> None:
    head = guided()
    first = head.prototypes.clone()
    z, y = batch(0, classes=3)
    logits = head(z, y)
    assert torch.equal(head.prototypes, first)
    assert_close(logits, expected("cosine", z, first, 16.0), 1e-9)
    head(draw(1, D, seed=5), torch.tensor([3]))
    assert not torch.equal(head.prototypes, first)


def test_every_layout_of_a_guided_head() -> None:
    rows, labels = draw(12, 5), LABELS.clone()
    labels[3] = -100
    first = guided(in_features=5)
    reference = copy.deepcopy(first)
    wanted = reference(rows, labels)
    for (features, back), y in zip(as_layouts(rows), labels_like(labels), strict=True):
        head = copy.deepcopy(first)
        assert_close(back(head(features, y)), wanted, 1e-9)
        assert_close(head.prototypes, reference.prototypes, 1e-9)


def test_the_largest_etf_of_a_dimension() -> None:
    """K = D + 1, which a fixed K-th direction would forbid."""
    head = GuidedHead(constructions.simplex(D + 1, D), dtype=torch.float64)
    y = torch.arange(21) % (D + 1)
    head(draw(21, D), y)
    require_etf(head.prototypes, 1.0, 1e-12)


def test_a_guided_heads_state_dict_round_trip() -> None:
    """Training goes on alike: ETF, means and the number of calls."""
    head, other = guided(every=2), guided(every=2)
    for step in range(3):
        head(*batch(step))
    other.load_state_dict(head.state_dict())
    for module in (head, other):
        module(*batch(3))
    assert same_tensors(state(other), state(head))


def test_a_guided_heads_reset_parameters() -> None:
    head = guided(every=2, learn_scale=True)
    first = state(head)
    for step in range(3):
        head(*batch(step))
    head.reset_parameters()
    assert same_tensors(state(head), first)


def test_training_turns_features_and_etf_towards_each_other() -> None:
    """A linear backbone learns three separable classes."""
    torch.manual_seed(1)
    backbone, head = nn.Linear(3, D, dtype=torch.float64), guided()
    x = 3 * draw(K, 3, seed=8)[LABELS] + 0.1 * draw(12, 3)
    optimiser = torch.optim.SGD(backbone.parameters(), lr=0.05)
    losses = []
    for _ in range(40):
        loss = nn.functional.cross_entropy(head(backbone(x), LABELS), LABELS)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.1 * losses[0]
    assert (head(backbone(x)).argmax(1) == LABELS).all()


def test_guided_repr_says_what_it_is() -> None:
    assert "logits='cosine', scale=16, proximal=0.001, every=5" in repr(guided(scale=16.0, every=5))


@pytest.mark.parametrize("every", [0, -2])
def test_a_bad_period_of_turning(every: int) -> None:
    with pytest.raises(RangeError, match=f"every must be at least 1; got {every}"):
        guided(every=every)


@pytest.mark.parametrize("proximal", [-1.0, math.inf, math.nan])
def test_a_bad_proximal_weight(proximal: float) -> None:
    with pytest.raises(RangeError, match=f"proximal weight .*got {proximal}"):
        guided(proximal=proximal)


def test_more_classes_than_an_etf_can_have() -> None:
    with pytest.raises(DimensionError, match="8 vectors needs 7 dimensions; got 6"):
        GuidedHead(draw(D + 2, D))


def test_a_start_that_is_no_etf_is_refused() -> None:
    with pytest.raises(RangeError, match=r"must be a simplex ETF with all cosines -0\.333333; one cosine differs by"):
        GuidedHead(draw(4, D))


def test_a_guided_head_refuses_means_of_another_shape() -> None:
    with pytest.raises(ShapeError, match=r"\(4, 6\); got \(3, 6\)"):
        guided(means=DecayedMeans(3, D))


def test_a_guided_head_refuses_bad_labels_and_stays_as_it_is() -> None:
    head = guided()
    head(*batch())
    before = state(head)
    with pytest.raises(LabelError, match="got 4"):
        head(batch()[0], torch.arange(12) % 5)
    assert same_tensors(state(head), before)


def test_deep_ncm_compiles_whole() -> None:
    """In training and in eval, with a class that was not seen."""
    torch._dynamo.reset()
    head, other = ncm(), ncm()
    z, y = batch(0, classes=3)
    compiled = torch.compile(other, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(z, y), head(z, y))
    torch.testing.assert_close(compiled.eval()(z), head.eval()(z))
    torch._dynamo.reset()


def test_the_number_of_calls_is_saved() -> None:
    head, other = guided(every=2), guided(every=2)
    head(*batch(0))
    other.load_state_dict(head.state_dict())
    before = other.prototypes.clone()
    other(*batch(1))
    assert not torch.equal(other.prototypes, before)
