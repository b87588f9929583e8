"""`HEADS` and `LOSSES`: the heads that the demonstration can put on its backbone, and the losses that train them.

The command line lists both without torch, which is imported on use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from tightframe.hierarchy import Hierarchy
    from tightframe.prototypes import Prototypes

FEATURES = 64  # of the backbones

LABELS, COSTS, PROTOTYPES = "labels", "costs", "prototypes"


@dataclass(frozen=True)
class TrainingLoss:
    """A loss that can train a head; all but cross-entropy are rows of `losses.LOSSES`.

    Attributes:
        needs: besides logits "labels" alone, or the "costs" of the tree of classes; or embeddings and "prototypes".
        beside: whether the loss is added to cross-entropy.
    """

    needs: str
    beside: bool = False


LOSSES: dict[str, TrainingLoss] = {
    "cross-entropy": TrainingLoss(LABELS),
    "soft-label-cross-entropy": TrainingLoss(COSTS),
    "hierarchical-cross-entropy": TrainingLoss(COSTS),
    "expected-cost": TrainingLoss(COSTS),
    "squared-earth-mover": TrainingLoss(COSTS, beside=True),
    "dot-regression": TrainingLoss(PROTOTYPES),
    "balanced-dot-regression": TrainingLoss(PROTOTYPES),
    "hyperspherical": TrainingLoss(PROTOTYPES),
    "cosine-matching": TrainingLoss(PROTOTYPES),
    "prototype-cross-entropy": TrainingLoss(PROTOTYPES),
}


@dataclass(frozen=True)
class Task:
    """The input of a head's builder: K classes, perhaps with a tree, the prototypes' dimension and the logits' scale
    (None: the head's default), a seed."""

    num_classes: int
    hierarchy: Hierarchy | None
    dim: int | None
    scale: float | None
    seed: int


@dataclass(frozen=True)
class Head:
    """A head.

    Attributes:
        build: makes the module; None for the backbone's own linear classifier.
        loss: the default loss; takes: the needs of the losses that can train it.
        has_prototypes: whether `dim` and `scale` apply.
        needs_tree: whether it is built from the tree of classes.
        grows: whether classes can arrive in sessions.
        guide: weight of the prototypes' squared scale-free distortion, which is added to the loss.
    """

    build: Callable[[Task], nn.Module] | None
    loss: str = "cross-entropy"
    takes: tuple[str, ...] = (LABELS, COSTS, PROTOTYPES)
    has_prototypes: bool = True
    needs_tree: bool = False
    grows: bool = True
    guide: float = 0.0


def _built(construction: str, task: Task, *, dim: int | None = FEATURES, **options: Any) -> Prototypes:
    """A construction of `prototypes.PROTOTYPES`, from the tree where it begins with costs."""
    from tightframe.prototypes.table import COST, PROTOTYPES

    row = PROTOTYPES[construction]
    first = task.hierarchy if row.needs == COST else task.num_classes
    return row.build(first, task.dim or dim, seed=task.seed, **options)


def _drawn(task: Task) -> Prototypes:
    """Normal vectors."""
    import torch

    from tightframe.prototypes import Prototypes

    generator = torch.Generator().manual_seed(task.seed)
    vectors = torch.randn(task.num_classes, task.dim or FEATURES, generator=generator)
    return Prototypes(vectors, {"constructor": "normal"})


def _projection(dim: int) -> nn.Module:
    """Features after a ReLU have no negative entries; their projection can point in any direction."""
    from torch.nn import Linear

    return Linear(FEATURES, dim, bias=False)


def _on(vectors: Callable[[Task], Prototypes], task: Task, kind: str = "PrototypeHead", **options: Any) -> nn.Module:
    """A head of `tightframe.heads` on prototypes."""
    from tightframe import heads

    start = vectors(task)
    return getattr(heads, kind)(start, scale=task.scale, projection=_projection(start.dim), **options)


def _class_means(task: Task) -> nn.Module:
    from tightframe.heads import DeepNCM

    dim, scale = task.dim or FEATURES, 0.5 if task.scale is None else task.scale
    return DeepNCM(task.num_classes, dim, scale=scale, projection=_projection(dim))


def _linear(task: Task) -> nn.Module:
    from torch.nn import Linear

    return Linear(FEATURES, task.num_classes, bias=False)


def _hierarchical(task: Task) -> nn.Module:
    from tightframe.heads import HierarchicalHead

    assert task.hierarchy is not None
    return HierarchicalHead(task.hierarchy, FEATURES)


_SIMPLEX = partial(_built, "simplex")
_HYPERSPHERICAL = partial(_built, "hyperspherical", rounds=20)  # seconds, and the same in every run
_METRIC = partial(_built, "metric-guided", dim=2)  # distances follow the costs

HEADS: dict[str, Head] = {
    "linear": Head(None, takes=(LABELS, COSTS), has_prototypes=False),
    "linear-without-bias": Head(_linear, takes=(LABELS, COSTS), has_prototypes=False),
    "etf": Head(partial(_on, _SIMPLEX), "balanced-dot-regression"),
    "guided": Head(partial(_on, _SIMPLEX, kind="GuidedHead"), takes=(LABELS, COSTS)),
    "hyperspherical": Head(partial(_on, _HYPERSPHERICAL), "hyperspherical"),
    "learnt": Head(partial(_on, _drawn, logits="euclidean", learnable=True)),
    "metric-guided": Head(partial(_on, _METRIC, logits="euclidean", learnable=True), needs_tree=True, guide=1.0),
    "metric-fixed": Head(partial(_on, _METRIC, logits="euclidean"), needs_tree=True),
    "hierarchy-aware": Head(
        partial(_on, partial(_built, "hierarchical", dim=None)), "cosine-matching", needs_tree=True
    ),
    "ncm": Head(_class_means, takes=(LABELS,)),
    "hierarchical": Head(_hierarchical, takes=(LABELS, COSTS), has_prototypes=False, needs_tree=True, grows=False),
}
"""Every head by name."""
