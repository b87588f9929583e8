"""Heads that torch makes without values (meta device, `to_empty`, FSDP, accelerate) have them before they are used."""

import copy
import inspect
import pickle
from collections.abc import Callable

import pytest
import torch
from cases import draw, same_tensors, state
from torch import Tensor, nn

from tightframe import PrototypeHead, heads, prototypes
from tightframe.errors import DtypeError
from tightframe.heads import CondensedMeans, DecayedMeans, DeepNCM, GuidedHead, HierarchicalHead, OnlineMeans
from tightframe.hierarchy import Hierarchy

K, D, WIDTH = 3, 4, 5
NESTED = {"all": {"pet": ["cat", "dog"], "tool": ["saw"]}}
DRAWN = ("projection.weight", "scores.weight", "scores.bias", "scores.projection.weight")  # anew at every reset


def ncm(means: type[heads.ClassMeans]) -> Callable[..., nn.Module]:
    return lambda **o: DeepNCM(K, D, WIDTH, means=means(K, D, **o), scale=0.3, **o)


def scored_by_a_head(**options: object) -> nn.Module:
    tree = Hierarchy.from_nested(NESTED)
    nodes = prototypes.metric_guided_nodes(tree, D)
    return HierarchicalHead(tree, scores=PrototypeHead(nodes, WIDTH, logits="euclidean", **options), **options)


HEADS: dict[str, Callable[..., nn.Module]] = {
    "fixed": lambda **o: PrototypeHead(prototypes.simplex(K, D), WIDTH, scale=3.0, **o),
    "learnt": lambda **o: PrototypeHead(prototypes.simplex(K, D), WIDTH, learnable=True, learn_scale=True, **o),
    "online": ncm(OnlineMeans),
    "condensed": ncm(CondensedMeans),
    "decayed": ncm(DecayedMeans),
    "guided": lambda **o: GuidedHead(prototypes.simplex(K, D), WIDTH, **o),
    "hierarchical": lambda **o: HierarchicalHead(Hierarchy.from_nested(NESTED), WIDTH, **o),
    "hierarchical, scored by a head": scored_by_a_head,
}
every_head = pytest.mark.parametrize("name", HEADS)
every_head_with_buffers = pytest.mark.parametrize("name", [name for name in HEADS if name != "learnt"])


def test_every_head_is_tried() -> None:
    classes = {value for name in heads.__all__ if inspect.isclass(value := getattr(heads, name))}
    concrete = {kind for kind in classes if issubclass(kind, nn.Module) and not inspect.isabstract(kind)}
    tried = {type(module) for build in HEADS.values() for module in build().modules()}
    assert concrete - tried == {heads.PrototypeModel, heads.UnitLength}  # which have no tensors of their own


def on_meta(name: str) -> nn.Module:
    """Made from nothing under the meta device, prototypes and tree included."""
    with torch.device("meta"):
        return HEADS[name]()


def as_fsdp(head: nn.Module) -> nn.Module:
    """What `FullyShardedDataParallel` does to modules with parameters or buffers on the meta device."""
    for module in head.modules():
        if [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
            module.to_empty(device="cpu", recurse=False)
            module.reset_parameters()
    return head


def by_hand(head: nn.Module) -> nn.Module:
    """Every tensor replaced by NaN or -1, then reset: some loaders do so."""
    for module in head.modules():
        for tensors in (module._parameters, module._buffers):
            for name, value in tensors.items():
                if value is not None:
                    filled = torch.full_like(value, torch.nan if value.is_floating_point() else -1, device="cpu")
                    tensors[name] = nn.Parameter(filled) if tensors is module._parameters else filled
    for module in head.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return head


def emptied(head: nn.Module) -> nn.Module:
    """As `torch.nn.utils.skip_init` does, then reset."""
    head.to_empty(device="cpu").reset_parameters()
    return head


def made(head: nn.Module) -> dict[str, Tensor]:
    """What is the same in every new head."""
    return {name: value for name, value in (*head.named_parameters(), *head.named_buffers()) if name not in DRAWN}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys() != set()
    assert same_tensors(list(one.values()), list(other.values()))


@pytest.mark.filterwarnings("ignore::tightframe.errors.UntrainedWarning")
@pytest.mark.parametrize("give_values", [as_fsdp, by_hand, emptied])
@every_head
def test_a_head_made_on_meta_is_reset_to_what_it_knows(name: str, give_values: Callable[..., nn.Module]) -> None:
    usual = made(HEADS[name]())
    for head in (on_meta(name), HEADS[name](device="meta"), pickle.loads(pickle.dumps(copy.deepcopy(on_meta(name))))):
        assert_same(made(give_values(head)), usual)
        assert head(draw(2, WIDTH, dtype=torch.float32)).isfinite().all()


@every_head_with_buffers
def test_what_is_fixed_needs_no_reset(name: str) -> None:
    usual = dict(HEADS[name]().named_buffers())
    assert_same(dict(on_meta(name).to_empty(device="cpu").named_buffers()), usual)


@every_head
def test_dtypes_are_chosen_on_meta_too(name: str) -> None:
    usual = made(HEADS[name]().to(torch.float16))
    assert_same(made(emptied(on_meta(name).to(torch.float16))), usual)


@every_head_with_buffers
def test_emptying_keeps_what_a_head_has_followed(name: str) -> None:
    head = followed(name)
    before = {key: value.clone() for key, value in head.named_buffers()}
    assert_same(dict(head.to_empty(device="cpu").named_buffers()), before)


@every_head
def test_a_state_dict_is_assigned_to_a_head_on_meta(name: str) -> None:
    head, loaded = followed(name).eval(), on_meta(name).eval()
    loaded.load_state_dict(head.state_dict(), assign=True)
    assert same_tensors(state(loaded), state(head))
    features = draw(4, WIDTH, seed=1, dtype=torch.float32)
    assert torch.equal(loaded(features), head(features))


@every_head
def test_a_head_on_meta_knows_its_shapes(name: str) -> None:
    assert on_meta(name)(torch.empty(2, WIDTH, device="meta")).shape == (2, K)


@pytest.mark.parametrize("buffers", [False, True])
@every_head
def test_accelerate_makes_and_loads_heads(name: str, buffers: bool) -> None:
    accelerate = pytest.importorskip("accelerate")
    head = followed(name).eval()
    with accelerate.init_empty_weights(include_buffers=buffers):
        loaded = HEADS[name]().eval()
    for key, value in (*head.named_parameters(), *head.named_buffers()):
        if key in head.state_dict():
            accelerate.utils.set_module_tensor_to_device(loaded, key, "cpu", value)
    accelerate.dispatch_model(loaded, {"": "cpu"}, main_device="cpu", force_hooks=True)
    features = draw(4, WIDTH, seed=1, dtype=torch.float32)
    assert torch.equal(loaded(features), head(features))


def test_appended_classes_are_part_of_what_is_restored() -> None:
    head, more = PrototypeHead(prototypes.simplex(K, D)), torch.eye(D)[:2]
    head.append(more)
    vectors = head.prototypes.clone()
    assert torch.equal(emptied(head.to("meta")).prototypes, vectors)


@pytest.mark.parametrize(
    "build",
    [
        lambda vectors: PrototypeHead(vectors),
        lambda vectors: PrototypeHead(vectors, learnable=True),
        lambda vectors: GuidedHead(vectors),
        lambda vectors: prototypes.nearest_etf(vectors),
    ],
)
def test_vectors_without_values_are_refused(build: Callable[[Tensor], object]) -> None:
    with pytest.raises(DtypeError, match="must have values; the tensor is on the meta device"):
        build(torch.empty(K, D, device="meta"))


def followed(name: str) -> nn.Module:
    """A head in training that has seen labels, where it follows them."""
    head = HEADS[name]()
    features, labels = draw(12, WIDTH, dtype=torch.float32), torch.arange(12) % K
    head(features, labels) if head.follows_labels else head(features)
    return head
