"""`HEADS`: the heads that the demonstration can put on its backbone, and the losses that can train them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tightframe import prototypes
from tightframe.demo.network import FEATURES
from tightframe.errors import OptionError
from tightframe.head import follows_labels
from tightframe.heads import DeepNCM, GuidedHead, HierarchicalHead, PrototypeHead
from tightframe.hierarchy import Hierarchy
from tightframe.losses import (
    BalancedDotRegression,
    CosineMatching,
    DotRegression,
    ExpectedCost,
    HierarchicalCrossEntropy,
    Hyperspherical,
    PrototypeCrossEntropy,
    SoftLabelCrossEntropy,
    SquaredEarthMover,
    SquaredScaleFreeDistortion,
)
from tightframe.prototypes import Prototypes

_SEARCH_ROUNDS = 20  # of hyperspherical prototypes: seconds, and the same on any day


@dataclass(frozen=True)
class Task:
    """What a head is made for: K classes with a tree over them, D dimensions (None: the head's default), a seed, and
    the logits' scale (None: the similarity's default)."""

    num_classes: int
    hierarchy: Hierarchy
    dim: int | None
    scale: float | None
    seed: int


@dataclass(frozen=True)
class HeadChoice:
    """One head: `build` makes it, `loss` is the name of the loss that it is trained with by default, `summary` a line.

    `guide` is the weight of the squared scale-free distortion of its prototypes, added to any loss.
    """

    build: Callable[[Task], nn.Module]
    loss: str
    summary: str
    guide: float = 0.0


def _projection(dim: int) -> nn.Module:
    """Always there for prototypes: features after a ReLU can't point every way."""
    return nn.Linear(FEATURES, dim, bias=False)


def _on(vectors: Prototypes, task: Task, logits: str = "cosine", *, learnable: bool = False) -> PrototypeHead:
    projection = _projection(vectors.dim)
    return PrototypeHead(vectors, logits=logits, scale=task.scale, learnable=learnable, projection=projection)


def _etf(task: Task) -> nn.Module:
    return _on(prototypes.simplex(task.num_classes, task.dim or FEATURES, seed=task.seed), task)


def _hyperspherical(task: Task) -> nn.Module:
    found = prototypes.hyperspherical(task.num_classes, task.dim or FEATURES, rounds=_SEARCH_ROUNDS, seed=task.seed)
    return _on(found, task)


def _drawn(task: Task, dim: int) -> Prototypes:
    generator = torch.Generator().manual_seed(task.seed)
    return Prototypes(torch.randn(task.num_classes, dim, generator=generator), {"constructor": "normal"})


def _guided(task: Task) -> nn.Module:
    start = prototypes.simplex(task.num_classes, task.dim or FEATURES, seed=task.seed)
    return GuidedHead(start, scale=task.scale, projection=_projection(start.dim))


def _metric(task: Task, *, learnable: bool = False) -> nn.Module:
    found = prototypes.metric_guided(task.hierarchy, task.dim or 2, seed=task.seed)
    return _on(found, task, "euclidean", learnable=learnable)


def _ncm(task: Task) -> nn.Module:
    dim = task.dim or FEATURES
    scale = 0.5 if task.scale is None else task.scale
    return DeepNCM(task.num_classes, dim, scale=scale, projection=_projection(dim))


def _linear(task: Task, *, bias: bool = True) -> nn.Module:
    if task.scale is not None:
        raise OptionError("the scale is that of prototypes' logits; a linear head has none.")
    if task.dim is None:
        return nn.Linear(FEATURES, task.num_classes, bias=bias)
    return nn.Sequential(_projection(task.dim), nn.Linear(task.dim, task.num_classes, bias=bias))


def _hierarchical(task: Task) -> nn.Module:
    if task.dim is not None or task.scale is not None:
        raise OptionError("dim and scale are those of prototypes; the hierarchical head has none.")
    return HierarchicalHead(task.hierarchy, FEATURES)


HEADS: dict[str, HeadChoice] = {
    "linear": HeadChoice(_linear, "cross-entropy", "the learnt linear classifier"),
    "linear-without-bias": HeadChoice(partial(_linear, bias=False), "cross-entropy", "the same without bias"),
    "etf": HeadChoice(_etf, "balanced-dot-regression", "a fixed simplex ETF"),
    "guided": HeadChoice(_guided, "cross-entropy", "a simplex ETF that turns towards the class means"),
    "hyperspherical": HeadChoice(_hyperspherical, "hyperspherical", "fixed hyperspherical prototypes"),
    "learnt": HeadChoice(
        lambda task: _on(_drawn(task, task.dim or FEATURES), task, "euclidean", learnable=True),
        "cross-entropy",
        "learnt prototypes, Euclidean distances",
    ),
    "metric-guided": HeadChoice(
        partial(_metric, learnable=True),
        "cross-entropy",
        "learnt prototypes whose distances start and are kept near to the costs",
        guide=1.0,
    ),
    "metric-fixed": HeadChoice(_metric, "cross-entropy", "fixed prototypes at distances that follow the costs"),
    "hierarchy-aware": HeadChoice(
        lambda task: _on(prototypes.hierarchical(task.hierarchy, task.dim, seed=task.seed), task),
        "cosine-matching",
        "a fixed hierarchy-aware frame",
    ),
    "ncm": HeadChoice(_ncm, "cross-entropy", "nearest class mean (DeepNCM)"),
    "hierarchical": HeadChoice(_hierarchical, "cross-entropy", "softmax along the tree of classes"),
}
"""Every head by name."""

EMBEDDED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "dot-regression": DotRegression,
    "balanced-dot-regression": BalancedDotRegression,
    "hyperspherical": Hyperspherical,
    "cosine-matching": CosineMatching,
    "prototype-cross-entropy": PrototypeCrossEntropy,
}
"""Losses of embeddings and a head's prototypes."""

BY_COST: dict[str, Callable[[Hierarchy], nn.Module]] = {
    "soft-label-cross-entropy": SoftLabelCrossEntropy,
    "hierarchical-cross-entropy": HierarchicalCrossEntropy,
    "expected-cost": ExpectedCost,
    "squared-earth-mover": SquaredEarthMover,
}
"""Losses of logits and a tree; the squared earth mover's is added to cross-entropy."""

TRAINING_LOSSES = ("cross-entropy", *BY_COST, *EMBEDDED)

Objective = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(features, labels) -> loss and logits of a batch."""


def objective(head: nn.Module, choice: HeadChoice, loss: str | None, hierarchy: Hierarchy) -> Objective:
    """What one batch minimises: the loss on the head, and what guides its prototypes.

    Raises: OptionError for an unknown loss, or one that needs fixed prototypes where the head has none.
    """
    name = choice.loss if loss is None else loss
    if name not in TRAINING_LOSSES:
        raise OptionError(f"the loss must be one of {', '.join(TRAINING_LOSSES)}; got {name!r}.")
    if name in EMBEDDED and not isinstance(head, PrototypeHead):
        raise OptionError(f"the loss {name!r} pulls towards prototypes; a {type(head).__name__} holds none for it.")
    if name in BY_COST and isinstance(head, DeepNCM):
        raise OptionError(
            f"the loss {name!r} is infinite where a class has no mean yet; train means with cross-entropy."
        )
    of_embeddings = EMBEDDED[name](head) if name in EMBEDDED else None
    of_logits = BY_COST[name](hierarchy) if name in BY_COST else None
    guide = SquaredScaleFreeDistortion(hierarchy) if choice.guide else None

    def evaluate(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if of_embeddings is not None and isinstance(head, PrototypeHead):
            embeddings = head.embed(features)
            return of_embeddings(embeddings, labels) + guidance(), head.compare(embeddings)
        logits = head(features, labels) if follows_labels(head) else head(features)
        if name == "squared-earth-mover":
            total = cross_entropy(logits, labels) + of_logits(logits, labels)  # type: ignore[misc]
        else:
            total = cross_entropy(logits, labels) if of_logits is None else of_logits(logits, labels)
        return total + guidance(), logits

    def guidance() -> Tensor | float:
        return 0.0 if guide is None else choice.guide * guide(head.prototypes)

    return evaluate
