"""Margins of the own class: as defined, as released, finite at every angle, possible on the prototypes."""

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from heads.cases import as_layouts, draw, labels_like
from tightframe import PrototypeModel, Prototypes, prototypes
from tightframe.errors import ChoiceError, LabelError, MarginWarning, RangeError, ShapeError
from tightframe.heads import MARGINS, PrototypeHead, class_margins, is_head

K, D, SCALE = 5, 4, 7.0
COSINES = torch.tensor([-1.0, -0.95, -0.88, -0.87, -0.3, 0.0, 0.4, 0.97, 1.0], dtype=torch.float64)
# insightface, recognition/arcface_torch/losses.py at 2e2e8c9: margin 0.5 at scale 1, and margin 0.4 at scale 30
ARCFACE = [-1.239712769302, -1.189712769302, -1.119712769302, -0.999878415948, -0.720617584002, -0.479425538604,
           -0.088367739394, 0.734704379924, 0.87758256189]  # fmt: skip
EASY = [-1.0, -0.95, -0.88, -0.87, -0.3, 0.0, -0.088367739394, 0.734704379924, 0.87758256189]
COSFACE = [-42.0, -40.5, -38.4, -38.1, -21.0, -12.0, 0.0, 17.1, 18.0]


def at(cosines: Tensor) -> Tensor:
    """Unit features in the plane at these cosines with the first axis."""
    return torch.stack([cosines, (1 - cosines.square()).sqrt()], 1)


def own(cosines: Tensor, **options: object) -> Tensor:
    """Logits of the own class for features at these cosines with its prototype."""
    head = PrototypeHead(torch.tensor([[1.0, 0.0], [0.0, -1.0]]), dtype=torch.float64, **options)
    return head(at(cosines), torch.zeros(len(cosines), dtype=torch.int64))[:, 0]


def by_loops(z: Tensor, P: Tensor, y: Tensor, margins: list[float], kind: str) -> Tensor:
    rows = []
    for row, label in zip(z.tolist(), y.tolist(), strict=True):
        logits = []
        for k, vector in enumerate(P.tolist()):
            product = sum(a * b for a, b in zip(row, vector, strict=True))
            cosine = product / math.sqrt(sum(a * a for a in row) * sum(b * b for b in vector))
            if k == label and kind == "cosine":
                cosine -= margins[k]
            elif k == label:
                angle = math.acos(max(-1.0, min(1.0, cosine))) + margins[k]
                cosine = math.cos(angle) if angle <= math.pi else cosine - 1 + math.cos(margins[k])
            logits.append(SCALE * cosine)
        rows.append(logits)
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("learnable", [False, True])
@pytest.mark.parametrize("margin", [0.0, 0.3, [0.1, 0.2, 0.3, 0.4, 0.5]])
@pytest.mark.parametrize("kind", sorted(MARGINS))
def test_by_loops(kind: str, margin: float | list[float], learnable: bool) -> None:
    z, P, y = draw(40, D), draw(K, D, seed=1), torch.arange(40) % K
    options = {"margin_kind": kind, "scale": SCALE, "learnable": learnable, "dtype": torch.float64}
    head = PrototypeHead(P, margin=margin if isinstance(margin, float) else np.array(margin), **options)
    margins = [margin] * K if isinstance(margin, float) else margin
    torch.testing.assert_close(head(z, y), by_loops(z, P, y, margins, kind), rtol=1e-9, atol=1e-9)
    plain = PrototypeHead(P, **{**options, "margin_kind": "angular"})
    assert torch.equal(head(z), plain(z))
    assert torch.equal(head.eval()(z, y), plain(z))
    assert torch.equal(head.weight, plain.weight)


def test_as_released() -> None:
    """Equal up to theta + m = pi; beyond it the released logit is m sin m instead of 1 - cos m below the cosine."""
    cosine = own(COSINES, margin=0.4, margin_kind="cosine", scale=30.0)
    torch.testing.assert_close(cosine, torch.tensor(COSFACE, dtype=torch.float64), rtol=0, atol=1e-11)
    easy = own(COSINES, margin=0.5, easy_margin=True, scale=1.0)
    torch.testing.assert_close(easy, torch.tensor(EASY, dtype=torch.float64), rtol=0, atol=1e-11)
    jump = 0.5 * math.sin(0.5) - (1 - math.cos(0.5))
    expected = torch.tensor(ARCFACE, dtype=torch.float64) + jump * COSINES.lt(-math.cos(0.5)).double()
    torch.testing.assert_close(own(COSINES, margin=0.5, scale=1.0), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("margin", [0.1, 0.5, 1.5])
def test_the_angular_margin_is_continuous_and_falls_with_the_angle(margin: float) -> None:
    angles = torch.linspace(0, math.pi, 20_001).double()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MarginWarning)
        values = own(angles.cos(), margin=margin, scale=1.0)
    assert bool((values.diff() < 1e-9).all())
    assert float(values.diff().abs().max()) < 2 * math.pi / 20_000


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kind", sorted(MARGINS))
def test_gradients_are_finite_at_every_angle(kind: str, dtype: torch.dtype) -> None:
    """At the prototype, opposite to it, and a rounding away from both."""
    P = torch.eye(3, 6)
    tiny = torch.tensor([0.0, 1e-12, 1e-7, 1e-4, 1e-3])
    rows = [sign * P[0] + size * P[2] for sign, size in itertools.product((1.0, -1.0), tiny.tolist())]
    z = torch.stack(rows).to(dtype).requires_grad_()
    head = PrototypeHead(P, margin=0.5, margin_kind=kind, scale=16.0, learnable=True).to(dtype)
    labels = torch.zeros(len(z), dtype=torch.int64)
    cross_entropy(head(z, labels).float(), labels).backward()
    for gradient in (z.grad, head.vectors.grad):
        assert gradient is not None and bool(gradient.isfinite().all())
        assert float(gradient.float().abs().max()) < 100


@pytest.mark.parametrize("kind", sorted(MARGINS))
def test_gradients(kind: str) -> None:
    z, P, y = draw(12, D).requires_grad_(), draw(K, D, seed=1).requires_grad_(), torch.arange(12) % K
    options = {"margin": 0.4, "margin_kind": kind, "learnable": True, "learn_scale": True, "dtype": torch.float64}
    head = PrototypeHead(P.detach(), **options)

    def logits(z: Tensor, vectors: Tensor, log_scale: Tensor) -> Tensor:
        return torch.func.functional_call(head, {"vectors": vectors, "log_scale": log_scale}, (z, y))

    assert torch.autograd.gradcheck(logits, (z, P, head.log_scale.detach().requires_grad_()))


@pytest.mark.parametrize("kind", sorted(MARGINS))
def test_every_layout_and_ignored_labels(kind: str) -> None:
    rows, y = draw(12, D), torch.arange(12) % K
    y[3] = -100
    head = PrototypeHead(draw(K, D, seed=1), margin=0.3, margin_kind=kind, dtype=torch.float64)
    expected = head(rows, y)
    assert torch.equal(expected[3], head(rows)[3])
    for (features, back), labels in zip(as_layouts(rows), labels_like(y), strict=True):
        torch.testing.assert_close(back(head(features, labels)), expected, rtol=1e-12, atol=1e-12)


def test_a_model_passes_labels_and_a_state_keeps_margins() -> None:
    P = draw(K, D, seed=1)
    head = PrototypeHead(P, margin=class_margins(torch.arange(1, K + 1)), dtype=torch.float64)
    model = PrototypeModel(nn.Identity(), head)
    z, y = draw(10, D), torch.arange(10) % K
    assert is_head(head) and head.follows_labels and not PrototypeHead(P).follows_labels
    assert not torch.equal(model(z, labels=y), model(z))
    other = PrototypeHead(P, margin=torch.full((K,), 0.1), dtype=torch.float64)
    other.load_state_dict(head.state_dict())
    assert torch.equal(other(z, y), head(z, y))
    assert "angular margin per class" in repr(head)
    assert "cosine margin 0.35" in repr(PrototypeHead(P, margin=0.35, margin_kind="cosine"))
    assert "margin" not in repr(PrototypeHead(P))


def test_margins_survive_deferred_initialisation_and_half_precision() -> None:
    P, z, y = draw(K, D, seed=1), draw(10, D), torch.arange(10) % K
    head = PrototypeHead(P, margin=0.3, dtype=torch.float64)
    deferred = PrototypeHead(P, margin=0.3, dtype=torch.float64, device="meta").to_empty(device="cpu")
    deferred.reset_parameters()
    assert torch.equal(deferred(z, y), head(z, y))
    half = head.to(torch.bfloat16)(z.bfloat16(), y)
    assert half.dtype is torch.bfloat16
    torch.testing.assert_close(half.double(), deferred(z, y), rtol=0, atol=16 * 0.05)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = PrototypeHead(P.float(), margin=0.3)(z.float(), y)
    torch.testing.assert_close(cast.double(), deferred(z, y), rtol=0, atol=16 * 0.05)


def test_margins_grow_with_classes() -> None:
    P = draw(K + 2, D, seed=1)
    whole = PrototypeHead(P, margin=torch.linspace(0.1, 0.4, K + 2), dtype=torch.float64)
    head = PrototypeHead(P[:K], margin=torch.linspace(0.1, 0.4, K + 2)[:K], dtype=torch.float64)
    with pytest.raises(RangeError, match="pass margin= for the new classes"):
        head.append(P[K:])
    head.append(P[K:], margin=torch.linspace(0.1, 0.4, K + 2)[K:])
    z, y = draw(10, D), torch.arange(10) % (K + 2)
    assert torch.equal(head(z, y), whole(z, y))
    head.reset_parameters()
    assert torch.equal(head(z, y), whole(z, y))
    common = PrototypeHead(P[:K], margin=0.3, dtype=torch.float64)
    with pytest.raises(RangeError, match="pass margin=None"):
        common.append(P[K:], margin=0.2)
    common.append(P[K:])
    assert torch.equal(common(z, y), PrototypeHead(P, margin=0.3, dtype=torch.float64)(z, y))


# ---------------------------------------------------------------------------------------------- what prototypes allow


def attained(P: Tensor, own_class: int, kind: str) -> float:
    """The largest margin over many directions near the prototypes: a lower bound on what is attainable."""
    generator = np.random.RandomState(0)
    z = np.concatenate([P.numpy()[own_class] + 3 * generator.standard_normal((200_000, P.shape[1])), P.numpy()])
    if kind == "cosine":  # the best direction is away from the nearest point of the others' hull: mixtures come near
        weights = generator.dirichlet(np.ones(len(P) - 1), 100_000)
        z = np.concatenate([z, P.numpy()[own_class] - weights @ np.delete(P.numpy(), own_class, 0)])
    cosines = (z / np.linalg.norm(z, axis=1, keepdims=True)) @ P.numpy().T
    others = np.delete(cosines, own_class, 1).max(1)
    if kind == "cosine":
        return float((cosines[:, own_class] - others).max())
    return float((np.arccos(others.clip(-1, 1)) - np.arccos(cosines[:, own_class].clip(-1, 1))).max())


@pytest.mark.parametrize("kind", sorted(MARGINS))
@pytest.mark.parametrize(("number", "dim"), [(4, 3), (6, 3), (7, 3)])
def test_the_warning_begins_where_the_margin_can_not_be_attained(number: int, dim: int, kind: str) -> None:
    code = prototypes.best(number, dim) if number < 7 else Prototypes(nn.functional.normalize(draw(7, 3, seed=5)))
    limits = [attained(code.vectors.double(), k, kind) for k in range(number)]
    PrototypeHead(code, margin=0.98 * min(limits), margin_kind=kind)
    with pytest.warns(MarginWarning, match=f"The best {number} vectors in {dim} dimensions allow at most") as record:
        PrototypeHead(code, margin=min(1.03 * min(limits) + 0.01, 3.1), margin_kind=kind)
    assert record[0].filename == __file__
    PrototypeHead(code, margin=1.9, margin_kind=kind, learnable=True)


def test_one_class_with_a_large_margin() -> None:
    """Its prototype is far from all others, which allows it; another class's prototype doesn't."""
    P = torch.tensor([[1.0, 0.0], [-1.0, 0.1], [-1.0, -0.1]])
    PrototypeHead(P, margin=torch.tensor([2.0, 0.1, 0.1]))
    with pytest.warns(MarginWarning, match="1 of 3 classes can't reach the margin: these prototypes allow 0.1993 rad"):
        PrototypeHead(P, margin=torch.tensor([0.1, 2.0, 0.1]))


def test_many_prototypes_use_the_certificate_or_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tightframe.heads.margin._PRODUCTS", 1)
    code = Prototypes(draw(40, 3, seed=2))
    angle = math.radians(code.certificate.min_angle)
    with pytest.warns(MarginWarning, match="some class can't reach"):
        PrototypeHead(code, margin=1.1 * angle)
    PrototypeHead(code.vectors, margin=1.1 * angle)  # no certificate; the bound allows more
    with pytest.warns(MarginWarning, match="some class can't reach"):
        PrototypeHead(code.vectors, margin=1.0)


# ---------------------------------------------------------------------------------------------- margins per class


def test_margins_of_a_long_tail_as_released() -> None:
    """LDAM-DRW, losses.py at 3193f05, for 500, 120, 33 and 5 samples."""
    expected = [0.15811388300841897, 0.2259005009024612, 0.311949303605875, 0.5]
    torch.testing.assert_close(
        class_margins(torch.tensor([500, 120, 33, 5])), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0
    )
    assert class_margins(np.array([16, 1]), largest=0.2).tolist() == pytest.approx([0.1, 0.2], rel=1e-12)


def test_bad_arguments() -> None:
    P = draw(K, D, seed=1)
    with pytest.raises(ChoiceError, match="margin_kind"):
        PrototypeHead(P, margin=0.5, margin_kind="arc")
    with pytest.raises(ChoiceError, match='easy_margin needs margin_kind="angular"'):
        PrototypeHead(P, margin=0.5, margin_kind="cosine", easy_margin=True)
    with pytest.raises(RangeError, match='pass logits="cosine"'):
        PrototypeHead(P, margin=0.5, logits="dot")
    for margin in (-0.1, math.pi, math.nan):
        with pytest.raises(RangeError, match=r"a margin must be in \[0, 3.142\) rad; got"):
            PrototypeHead(P, margin=margin)
    with pytest.raises(ShapeError, match=r"margin must be a number or have shape \(5,\); got \(4,\)"):
        PrototypeHead(P, margin=torch.ones(4))
    with pytest.raises(RangeError, match=r"counts must be at least 1.*got 0"):
        class_margins(torch.tensor([3, 0]))
    with pytest.raises(ShapeError, match=r"\(K,\)"):
        class_margins(torch.ones(2, 2))
    with pytest.raises(RangeError, match="largest margin"):
        class_margins(torch.ones(2), largest=0.0)
    with pytest.raises(LabelError):
        PrototypeHead(P, margin=0.1, dtype=torch.float64)(draw(2, D), torch.tensor([0, K]))
    with pytest.raises(ShapeError, match="labels must have"):
        PrototypeHead(P, margin=0.1, dtype=torch.float64)(draw(2, D), torch.tensor([0]))
