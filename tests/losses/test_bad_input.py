"""Input that a loss can't use is refused, with a message that names the culprit."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tightframe import PrototypeHead, prototypes
from tightframe.errors import (
    ChoiceError,
    CostMatrixError,
    DtypeError,
    EmptyBatchError,
    LabelError,
    NonFiniteError,
    RangeError,
    ShapeError,
    ZeroVectorError,
    ZeroVectorWarning,
)
from tightframe.hierarchy import Hierarchy, absolute_difference_cost
from tightframe.losses import (
    LOSSES,
    BalancedDotRegression,
    CentreCollapse,
    CosineMatching,
    Distortion,
    DotRegression,
    EquiangularHinge,
    ExpectedCost,
    HierarchicalCrossEntropy,
    Hyperspherical,
    JointHyperspherical,
    PoleRegression,
    PrototypeCrossEntropy,
    PrototypeRank,
    ScaleFreeDistortion,
    SemanticRanking,
    Separation,
    SoftLabelCrossEntropy,
    SquaredEarthMover,
    SquaredScaleFreeDistortion,
)

K, D = 4, 3
FRAME = prototypes.simplex(K, D)
COST = absolute_difference_cost(K)
TREE = Hierarchy.from_nested({"all": {"pet": ["cat", "dog"], "tool": ["saw", "axe"]}})
POLES = prototypes.poles(1, D)
BESIDE_POLES = torch.tensor([[0.0, 1, 0], [0, 0, 1], [0, -1, 0], [0, 0, -1]])
NAN, INF = math.nan, math.inf

# every loss of embeddings or logits and labels, as a function of its options
CLASS_LOSSES: dict[str, Callable[..., nn.Module]] = {
    "dot-regression": lambda **o: DotRegression(FRAME, **o),
    "balanced-dot-regression": lambda **o: BalancedDotRegression(FRAME, **o),
    "hyperspherical": lambda **o: Hyperspherical(FRAME, **o),
    "cosine-matching": lambda **o: CosineMatching(FRAME, **o),
    "prototype-cross-entropy": lambda **o: PrototypeCrossEntropy(FRAME, **o),
    "soft-label-cross-entropy": lambda **o: SoftLabelCrossEntropy(COST, **o),
    "hierarchical-cross-entropy": lambda **o: HierarchicalCrossEntropy(TREE, **o),
    "expected-cost": lambda **o: ExpectedCost(COST, **o),
    "squared-earth-mover": lambda **o: SquaredEarthMover(COST, **o),
}
WITH_LABELS = CLASS_LOSSES | {
    "centre-collapse": lambda **o: CentreCollapse(FRAME, **o),
    "joint-hyperspherical": lambda **o: JointHyperspherical(BESIDE_POLES, POLES, 0.0, 1.0, **o),
}
WIDTH = {name: K if row.takes == "logits" else D for name, row in LOSSES.items()}
GUIDED = {"distortion": Distortion, "scale-free": ScaleFreeDistortion, "squared": SquaredScaleFreeDistortion}
GUIDED_OR_RANKED = GUIDED | {"rank": PrototypeRank}
ON_COSTS = {"soft labels": SoftLabelCrossEntropy, "expected cost": ExpectedCost, "earth mover": SquaredEarthMover}


def test_every_loss_on_labels_is_tested() -> None:
    labelled = {name for name, row in LOSSES.items() if row.takes in ("embeddings", "logits", "positions")}
    assert set(WITH_LABELS) == labelled | {"joint-hyperspherical"}


def call(name: str, inputs: Tensor, labels: Tensor, **options: Any) -> Tensor:
    values = [torch.full(labels.shape, 0.5)] if name == "joint-hyperspherical" else []
    result: Tensor = WITH_LABELS[name](**options)(inputs, labels, *values)
    return result


def tokens(name: str) -> Tensor:
    return torch.randn(2, 3, WIDTH[name])


# ---------------------------------------------------------------------- labels


@pytest.mark.parametrize(("wrong", "found"), [(K, "got 4 "), (-1, "got -1 ")])
@pytest.mark.parametrize("name", WITH_LABELS)
def test_labels_out_of_range(name: str, wrong: int, found: str) -> None:
    labels = torch.tensor([[0, 1, 2], [3, wrong, -100]])
    with pytest.raises(LabelError, match=r"labels must lie in \[0, 4\); " + found + r"\(1 row\)"):
        call(name, tokens(name), labels)


@pytest.mark.parametrize("name", WITH_LABELS)
def test_labels_that_are_no_integers(name: str) -> None:
    with pytest.raises(DtypeError, match=r"labels must be integers; got torch\.float32"):
        call(name, tokens(name), torch.zeros(2, 3))


@pytest.mark.parametrize("name", WITH_LABELS)
def test_labels_of_another_shape(name: str) -> None:
    with pytest.raises(ShapeError, match=r"\(2, 3\); got \(2, 2\)"):
        call(name, tokens(name), torch.zeros(2, 2, dtype=torch.int64))


@pytest.mark.parametrize("ignore_index", [-100, 2])
@pytest.mark.parametrize("name", WITH_LABELS)
def test_a_mean_over_nothing(name: str, ignore_index: int) -> None:
    with pytest.raises(EmptyBatchError, match=rf"all 6 labels are ignore_index={ignore_index}\. .*on_empty=\"zero\""):
        call(name, tokens(name), torch.full((2, 3), ignore_index), ignore_index=ignore_index, on_empty="error")


@pytest.mark.parametrize("name", WITH_LABELS)
def test_a_mean_over_an_empty_batch(name: str) -> None:
    with pytest.raises(EmptyBatchError, match="all 0 labels"):
        call(name, tokens(name)[:0], torch.zeros(0, 3, dtype=torch.int64), on_empty="error")


@pytest.mark.parametrize("name", WITH_LABELS)
def test_what_to_do_with_an_empty_batch(name: str) -> None:
    with pytest.raises(ChoiceError, match="on_empty must be one of zero, error; got 'nan'"):
        WITH_LABELS[name](on_empty="nan")


@pytest.mark.parametrize("name", WITH_LABELS)
def test_a_sum_over_an_empty_batch(name: str) -> None:
    """Which is zero, as for torch's losses."""
    assert call(name, tokens(name)[:0], torch.zeros(0, 3, dtype=torch.int64), reduction="sum") == 0


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16])
def test_many_classes_in_short_labels(dtype: torch.dtype) -> None:
    """-100 is no uint8, so no such label is ignored: 156, which it wraps to, is a class."""
    loss = Hyperspherical(torch.randn(200, D), reduction="none")
    inputs, labels = torch.randn(3, D), torch.tensor([156, 0, 199])
    assert torch.equal(loss(inputs, labels.to(dtype)), loss(inputs, labels))


# ---------------------------------------------------------------------- inputs


@pytest.mark.parametrize("name", WITH_LABELS)
def test_inputs_of_another_width(name: str) -> None:
    width = WIDTH[name]
    labels = torch.zeros(2, 3, dtype=torch.int64)
    with pytest.raises(ShapeError, match=rf"{width} entries in their last dimension; got shape \(2, 3, 7\)"):
        call(name, torch.randn(2, 3, 7), labels)
    with pytest.raises(ShapeError, match=rf"{width} entries in their second dimension; got shape \(2, 7, 3, {width}\)"):
        call(name, torch.randn(2, 7, 3, width), torch.zeros(2, 3, width, dtype=torch.int64))


@pytest.mark.parametrize("name", WITH_LABELS)
def test_inputs_that_are_no_batch(name: str) -> None:
    with pytest.raises(ShapeError, match=r"must be .*\(N, T, D\).* got .*\[?4"):
        call(name, torch.randn(4), torch.tensor(0))


@pytest.mark.parametrize("name", WITH_LABELS)
def test_inputs_that_are_no_floats(name: str) -> None:
    with pytest.raises(DtypeError, match=r"must be floating point; got torch\.int64"):
        call(name, torch.ones(2, 3, WIDTH[name], dtype=torch.int64), torch.zeros(2, 3, dtype=torch.int64))


@pytest.mark.parametrize("shape", [(K, D), (K,)])
def test_centres_need_images(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"embeddings must be \(N, T, D\) or \(N, D, H, W\)"):
        CentreCollapse(FRAME)(torch.randn(shape), torch.arange(K))


# ---------------------------------------------------------------------- options of all


@pytest.mark.parametrize("name", CLASS_LOSSES)
def test_weights(name: str) -> None:
    loss = CLASS_LOSSES[name]
    with pytest.raises(ShapeError, match=r"class weights must have shape \(4,\); got \(3,\)"):
        loss(weight=torch.ones(3))
    with pytest.raises(ShapeError, match=r"class weights must have shape \(4,\); got \(4, 1\)"):
        loss(weight=torch.ones(4, 1))
    for wrong in (NAN, INF):
        with pytest.raises(NonFiniteError, match=rf"class weights must be finite.*row 2 holds {wrong}"):
            loss(weight=torch.tensor([1.0, 1.0, wrong, 1.0]))


@pytest.mark.parametrize("name", [*CLASS_LOSSES, "joint-hyperspherical"])
def test_reductions(name: str) -> None:
    with pytest.raises(ChoiceError, match="reduction must be one of mean, sum, none; got 'batchmean'"):
        WITH_LABELS[name](reduction="batchmean")


def test_reductions_of_the_others() -> None:
    with pytest.raises(ChoiceError, match="reduction must be one of mean, sum, none; got 'max'"):
        PoleRegression(POLES, 0.0, 1.0, reduction="max")
    with pytest.raises(ChoiceError, match=r"reduction must be \"mean\" or \"sum\"; got 'none'"):
        CentreCollapse(FRAME, reduction="none")


# ---------------------------------------------------------------------- prototypes

ON_PROTOTYPES: dict[str, Callable[[Any], nn.Module]] = {
    "dot-regression": DotRegression,
    "balanced-dot-regression": BalancedDotRegression,
    "hyperspherical": Hyperspherical,
    "cosine-matching": CosineMatching,
    "prototype-cross-entropy": PrototypeCrossEntropy,
    "centre-collapse": CentreCollapse,
    "joint-hyperspherical": lambda p: JointHyperspherical(p, POLES, 0.0, 1.0),
}


@pytest.mark.parametrize("name", ON_PROTOTYPES)
def test_prototypes_that_are_none(name: str) -> None:
    make = ON_PROTOTYPES[name]
    with pytest.raises(ZeroVectorError, match=r"prototypes must have a direction; row 1 is zero \(1 of 3 rows\)"):
        make(torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 1, 0]]))
    with pytest.raises(NonFiniteError, match=r"vectors must be finite.*row 1 holds nan"):
        make(torch.tensor([[1.0, 0, 0], [0, NAN, 0]]))
    with pytest.raises(ShapeError, match=r"vectors must be \(K, D\).*got \(3,\)"):
        make(torch.ones(3))
    with pytest.raises(DtypeError, match=r"vectors must be floating point; got torch\.int64"):
        make(torch.eye(3, dtype=torch.int64))


@pytest.mark.parametrize("name", ON_PROTOTYPES)
def test_heads_without_prototypes(name: str) -> None:
    with pytest.raises(ShapeError, match=r"Head with prototypes; got Linear"):
        ON_PROTOTYPES[name](nn.Linear(D, K))


def test_a_head_whose_prototypes_became_zero() -> None:
    head = PrototypeHead(FRAME, learnable=True)
    loss = Hyperspherical(head)
    with torch.no_grad():
        head.prototypes[2] = 0
    loss(torch.randn(2, D), torch.tensor([0, 1]))  # its own prototypes have directions
    with pytest.raises(ZeroVectorError, match="prototypes of the labels must have a direction; row 1 is zero"):
        loss(torch.randn(2, D), torch.tensor([0, 2]))


def test_lengths_and_scales() -> None:
    for wrong in (0.0, -1.0, NAN, INF):
        with pytest.raises(RangeError, match=rf"feature_length must be finite and > 0; got {wrong}"):
            DotRegression(FRAME, feature_length=wrong)
        with pytest.raises(RangeError, match=rf"feature_length must be finite and > 0; got {wrong}"):
            BalancedDotRegression(FRAME, feature_length=wrong)
        with pytest.raises(RangeError, match=rf"scale must be finite and > 0; got {wrong}"):
            PrototypeCrossEntropy(FRAME, scale=wrong)
        with pytest.raises(RangeError, match=rf"scale must be finite and > 0; got {wrong}"):
            CentreCollapse(FRAME, scale=wrong)


# ---------------------------------------------------------------------- costs and trees


@pytest.mark.parametrize("name", ON_COSTS)
def test_costs_of_decisions(name: str) -> None:
    """Neither symmetry nor triangles are asked for, only costs."""
    make = ON_COSTS[name]
    asymmetric = torch.tensor([[0.0, 1, 9], [2, 0, 1], [1, 1, 0]])
    make(asymmetric)
    for (i, j), wrong, match in [
        ((1, 2), -1.0, r"must not be negative; entry \(1, 2\) is -1"),
        ((1, 2), NAN, r"must be finite; entry \(1, 2\) is nan"),
        ((1, 2), INF, r"must be finite; entry \(1, 2\) is inf"),
        ((1, 1), 0.5, r"with itself must be zero; entry \(1, 1\) is 0\.5"),
        ((1, 2), 0.0, r"different classes must be positive; entry \(1, 2\) is 0"),
    ]:
        cost = asymmetric.clone()
        cost[i, j] = wrong
        with pytest.raises(CostMatrixError, match=match):
            make(cost)
    with pytest.raises(CostMatrixError, match=r"square matrix, \(K, K\); got shape \(2, 3\)"):
        make(asymmetric[:2])


def test_exponents_and_offsets() -> None:
    for wrong in (-0.1, NAN, INF):
        for make in (SoftLabelCrossEntropy, HierarchicalCrossEntropy):
            with pytest.raises(RangeError, match=rf"focal must be finite and >= 0; got {wrong}"):
                make(TREE, focal=wrong)
        with pytest.raises(RangeError, match=rf"alpha must be finite and >= 0; got {wrong}"):
            HierarchicalCrossEntropy(TREE, alpha=wrong)
        with pytest.raises(RangeError, match=rf"beta must be finite .*; got {wrong}"):
            SoftLabelCrossEntropy(TREE, beta=wrong)
    for wrong in (NAN, INF, -INF):
        with pytest.raises(RangeError, match=rf"offset must be finite; got {wrong}"):
            SquaredEarthMover(COST, offset=wrong)


def test_level_weights() -> None:
    with pytest.raises(ShapeError, match=r"level weights must be \(7,\), one per node; got .*4"):
        HierarchicalCrossEntropy(TREE, level_weights=torch.ones(K))
    weights = torch.ones(7)
    weights[5] = NAN
    with pytest.raises(NonFiniteError, match=r"level weights must be finite.*row 5 holds nan"):
        HierarchicalCrossEntropy(TREE, level_weights=weights)


# ---------------------------------------------------------------------- regression


def test_poles_and_their_values() -> None:
    with pytest.raises(ShapeError, match="poles must have two rows per target; got 3 rows"):
        PoleRegression(torch.eye(3), 0.0, 1.0)
    with pytest.raises(ZeroVectorError, match="poles must have a direction; row 1 is zero"):
        PoleRegression(torch.tensor([[-1.0, 0], [1, 0], [0, 1], [0, 0]]), 0.0, 1.0)
    for lower, upper in [(1.0, 1.0), (2.0, 1.0), (NAN, 1.0), (0.0, NAN)]:
        with pytest.raises(RangeError, match=rf"lower must be less than upper, both finite; got {lower} and {upper}"):
            PoleRegression(POLES, lower, upper)


def test_poles_and_classes_in_one_embedding() -> None:
    """Classes have a direction beside the poles' axes."""
    with pytest.raises(ShapeError, match="poles and prototypes must have the same dimension; got 4 and 3"):
        JointHyperspherical(BESIDE_POLES, prototypes.poles(1, 4), 0.0, 1.0)
    with pytest.raises(ShapeError, match="axes span all 3 dimensions, and the classes need"):
        JointHyperspherical(BESIDE_POLES, prototypes.poles(3, 3), 0.0, 1.0)
    turn = torch.linalg.qr(torch.randn(D, D, dtype=torch.float64)).Q
    for axes in (torch.eye(D, dtype=torch.float64), turn):
        poles, classes = POLES.vectors @ axes, BESIDE_POLES.double() @ axes
        with pytest.raises(ZeroVectorError, match=r"prototypes orthogonal to the poles' axes must have .*; row 1 is"):
            JointHyperspherical(torch.stack([classes[0], 3 * poles[0]]), poles, 0.0, 1.0)
        loss = JointHyperspherical(classes, poles, 0.0, 1.0)
        with pytest.warns(ZeroVectorWarning, match="embeddings orthogonal to the poles' axes must have a direction"):
            loss(torch.stack([classes[0], 3 * poles[0]]), torch.tensor([0, 1]), torch.tensor([0.5, 0.0]))


@pytest.mark.parametrize(("lower", "upper"), [(-INF, 1.0), (0.0, INF), (-INF, INF)])
def test_endless_bounds(lower: float, upper: float) -> None:
    """No value lies between a pole and one at infinity."""
    with pytest.raises(RangeError, match="inf"):
        PoleRegression(POLES, lower, upper)


def test_values_to_regress() -> None:
    loss = PoleRegression(POLES, 0.0, 1.0)
    rows = torch.randn(3, D)
    with pytest.raises(RangeError, match=r"in \[0\.0, 1\.0\]; got 1\.5 \(1 of 3 outside\)"):
        loss(rows, torch.tensor([0.5, 1.5, 0.0]))
    for wrong in (NAN, INF):
        with pytest.raises(NonFiniteError, match="values must be finite"):
            loss(rows, torch.tensor([0.5, wrong, 0.0]))
    with pytest.raises(ShapeError, match=r"values must be \(3, 1\), one per row and target; got \(2,\)"):
        loss(rows, torch.zeros(2))
    with pytest.raises(ShapeError, match=r"values must be \(3, 2\), one per row and target; got \(3,\)"):
        PoleRegression(prototypes.poles(2, D), 0.0, 1.0)(rows, torch.zeros(3))
    with pytest.raises(DtypeError, match=r"values must be floating point; got torch\.int64"):
        loss(rows, torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ShapeError, match=r"embeddings must have 3 entries in their last dimension; got shape \(3, 2\)"):
        loss(torch.randn(3, 2), torch.zeros(3))
    with pytest.raises(DtypeError, match=r"embeddings must be floating point; got torch\.int64"):
        loss(torch.ones(3, D, dtype=torch.int64), torch.zeros(3))


def test_a_mean_over_no_values() -> None:
    """As over no labels."""
    with pytest.raises(EmptyBatchError, match=r"the batch has none\. .*on_empty=\"zero\""):
        PoleRegression(POLES, 0.0, 1.0, on_empty="error")(torch.randn(0, D), torch.zeros(0))
    embeddings = torch.randn(0, D, requires_grad=True)
    loss = PoleRegression(POLES, 0.0, 1.0)(embeddings, torch.zeros(0))
    loss.backward()
    assert loss == 0 and embeddings.grad.shape == (0, D)
    with pytest.raises(ChoiceError, match="on_empty must be one of zero, error; got 'nan'"):
        PoleRegression(POLES, 0.0, 1.0, on_empty="nan")


def test_balance() -> None:
    for wrong in (-1.0, NAN, INF):
        with pytest.raises(RangeError, match=rf"balance must be finite and >= 0; got {wrong}"):
            JointHyperspherical(FRAME, POLES, 0.0, 1.0, balance=wrong)


# ---------------------------------------------------------------------- losses on prototypes

SCALARS: dict[str, Callable[[], nn.Module]] = {
    "separation": Separation,
    "semantic-ranking": lambda: SemanticRanking(torch.eye(K)),
    "equiangular-hinge": lambda: EquiangularHinge(0.1),
    "distortion": lambda: Distortion(COST),
    "scale-free-distortion": lambda: ScaleFreeDistortion(COST),
    "squared-scale-free-distortion": lambda: SquaredScaleFreeDistortion(COST),
    "prototype-rank": lambda: PrototypeRank(COST),
}


def test_every_loss_on_prototypes_is_tested() -> None:
    assert set(SCALARS) == {name for name, row in LOSSES.items() if row.takes == "prototypes"}


@pytest.mark.parametrize("name", SCALARS)
def test_vectors_that_are_no_prototypes(name: str) -> None:
    loss = SCALARS[name]()
    with pytest.raises(ShapeError, match=r"prototypes must be \(K, D\) with K >= 2; got \(2, 4, 3\)"):
        loss(torch.randn(2, K, D))
    with pytest.raises(ShapeError, match=r"prototypes must be \(K, D\) with K >= 2; got \(1, 3\)"):
        loss(torch.randn(1, D))
    with pytest.raises(DtypeError, match=r"prototypes must be floating point; got torch\.int64"):
        loss(torch.ones(K, D, dtype=torch.int64))
    vectors = torch.randn(K, D)
    vectors[2, 1] = INF
    with pytest.raises(NonFiniteError, match=r"prototypes must be finite.*row 2 holds inf in column 1"):
        loss(vectors)


@pytest.mark.parametrize("name", ["separation", "semantic-ranking", "equiangular-hinge"])
def test_prototypes_without_direction(name: str) -> None:
    vectors = torch.randn(K, D)
    vectors[3] = 0
    with pytest.raises(ZeroVectorError, match="prototypes must have a direction; row 3 is zero"):
        SCALARS[name]()(vectors)


@pytest.mark.parametrize("num_classes", [K - 1, K + 1])
@pytest.mark.parametrize("name", [name for name in SCALARS if name not in ("separation", "equiangular-hinge")])
def test_prototypes_of_other_classes(name: str, num_classes: int) -> None:
    """Fewer or more prototypes than the costs or similarities are of."""
    with pytest.raises((CostMatrixError, ShapeError), match=rf"\(?{num_classes}\b"):
        SCALARS[name]()(torch.randn(num_classes, D))


def test_alpha_of_the_hinge() -> None:
    for wrong in (-0.1, 1.0, NAN):
        with pytest.raises(RangeError, match=rf"largest allowed \|cosine\|, must be in \[0, 1\); got {wrong}"):
            EquiangularHinge(wrong)


@pytest.mark.parametrize("name", GUIDED_OR_RANKED)
def test_costs_that_are_no_metric(name: str) -> None:
    make = GUIDED_OR_RANKED[name]
    cost = torch.tensor([[0.0, 1, 9, 3], [1, 0, 1, 3], [9, 1, 0, 3], [3, 3, 3, 0]])
    with pytest.raises(
        CostMatrixError, match=r"worst triple is \(i, j, k\) = \((0, 1, 2|2, 1, 0)\).* is 9, more than 1"
    ):
        make(cost)
    assert make(cost, metric=False)(torch.randn(K, D)).isfinite()
    cost[0, 3] = 2
    with pytest.raises(CostMatrixError, match=r"must be symmetric; entry \(0, 3\) is 2 and \(3, 0\) is 3"):
        make(cost, metric=False)
    cost[0, 3] = -1
    with pytest.raises(CostMatrixError, match=r"must not be negative; entry \(0, 3\) is -1"):
        make(cost)


@pytest.mark.parametrize("name", GUIDED)
def test_costs_of_one_class(name: str) -> None:
    with pytest.raises(CostMatrixError, match="at least two classes; got 1"):
        GUIDED[name](torch.zeros(1, 1))


def test_ranks() -> None:
    two = torch.ones(2, 2) - torch.eye(2)
    for make in (PrototypeRank, SemanticRanking):
        with pytest.raises(CostMatrixError, match="at least three classes; got 2"):
            make(two)
        with pytest.raises(RangeError, match="number must be at least 1; got 0"):
            make(COST, 0)


def test_similarities() -> None:
    similarity = torch.eye(K)
    with pytest.raises(ShapeError, match=r"similarity must be square, \(K, K\); got shape \(4, 3\)"):
        SemanticRanking(similarity[:, :3])
    similarity[1, 2] = 0.5
    with pytest.raises(RangeError, match=r"similarity must be symmetric; entry \(1, 2\) is 0\.5 and \(2, 1\) is 0"):
        SemanticRanking(similarity)
    similarity[2, 1] = NAN
    with pytest.raises(NonFiniteError, match=r"similarity must be finite; entry \(2, 1\) is nan"):
        SemanticRanking(similarity)


@pytest.mark.parametrize(
    "build",
    [
        lambda values: DotRegression(values),
        lambda values: DotRegression(FRAME, weight=values[0]),
        lambda values: ExpectedCost(values),
        lambda values: HierarchicalCrossEntropy(TREE, level_weights=values.flatten()[:7]),
        lambda values: Distortion(values),
        lambda values: SemanticRanking(values),
        lambda values: PoleRegression(values, 0.0, 1.0),
    ],
)
def test_tensors_without_values_are_refused(build: Callable[[Tensor], nn.Module]) -> None:
    with pytest.raises(DtypeError, match="must have values; the tensor is on the meta device"):
        build(torch.empty(K, K, device="meta"))
