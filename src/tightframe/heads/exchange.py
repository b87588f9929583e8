"""Putting a head in a model's classifier's place, and back; folding a head into plain layers for deployment."""

from __future__ import annotations

import copy
import warnings

import torch
from torch import Tensor, nn

from tightframe.errors import ClassCountWarning, ClassifierError, ShapeError
from tightframe.heads.comparison import ComparisonHead
from tightframe.hooks import find_classifier
from tightframe.numerics import unit_embeddings


def replace_classifier(model: nn.Module, head: nn.Module, name: str | None = None) -> nn.Module:
    """Put a head in the place of a model's classifier and return the classifier, which a second call puts back.

    The classifier is what `measure` finds: by name, by the model's `get_classifier()` (timm) or
    `get_output_embeddings()` (transformers), else the last linear layer or 1x1 convolution. The head moves to its
    device and dtype.

    A head of another number of classes is a ClassCountWarning.
    Raises: ClassifierError if there is none, or if it is the model itself; ShapeError if the head takes another width.

    >>> from tightframe import PrototypeHead, prototypes
    >>> model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4))
    >>> linear = replace_classifier(model, PrototypeHead(prototypes.simplex(4, 8)))
    >>> head = replace_classifier(model, linear)
    """
    found = find_classifier(model, name)
    old = found.module
    if old is None:
        raise ClassifierError(f"the parameter {found.name!r} is no module; only a module can be replaced.")
    if not found.name:
        raise ClassifierError("the model is its own classifier; use the head alone.")
    width = getattr(old, "in_features", None) or (None if found.weight is None else found.weight.shape[1])
    if getattr(head, "in_features", width) != width:
        raise ShapeError(
            f"the classifier {found.name!r} takes {width} features, but the head {head.in_features}. "
            f"Pass in_features={width} for a projection."
        )
    outputs = getattr(head, "out_features", found.outputs)
    if outputs != found.outputs:
        warnings.warn(
            f"the classifier {found.name!r} has {found.outputs} outputs, but the head {outputs}: labels must be of "
            f"{outputs} classes from now on.",
            ClassCountWarning,
            stacklevel=2,
        )
    for place in (*old.parameters(), *old.buffers()):
        head.to(place.device, place.dtype if place.is_floating_point() else None)
        break
    head.train(old.training)
    owner, _, attribute = found.name.rpartition(".")
    setattr(model.get_submodule(owner), attribute, head)
    return old


class UnitLength(nn.Module):
    """Features (..., D) at length one. One of length zero stays zero and gets no gradient.

    Warns: ZeroVectorWarning naming the first such feature, once for each module (on the CPU).
    """

    def forward(self, features: Tensor) -> Tensor:
        return unit_embeddings(features, self, "features")[0]


@torch.no_grad()
def fold(head: ComparisonHead) -> nn.Module:
    """A head as plain layers with its logits: what is left to deploy once prototypes and scale are final.

    For "dot" one `nn.Linear`, the projection multiplied in where it is linear; for "squared-euclidean" too, its logits
    greater by |z|^2 scale, the same for all classes, so that softmax and decisions are equal; for "cosine" the
    projection, `UnitLength` and an `nn.Linear`. The other distances aren't linear: see `decision_layer`.

    What comes out takes (..., D_in), is in eval mode and not for training.
    Raises: ClassifierError for these distances, for other modules, and for classes of a `DeepNCM` without a mean.
    """
    vectors, scale = _rows(head), head.scale.detach()
    if head.logits == "dot":
        return _folded(head.projection, vectors * scale, None)
    if head.logits == "squared-euclidean":
        bias = head.bias
        assert bias is not None
        return _folded(head.projection, 2 * scale * vectors, 2 * scale * bias.detach())
    if head.logits == "cosine":
        return _deployed(head.projection, UnitLength(), _linear(vectors * scale, None))
    raise ClassifierError(
        f"logits {head.logits!r} are no linear function of the features; decision_layer(head) gives a linear layer "
        "with the same decisions."
    )


@torch.no_grad()
def decision_layer(head: ComparisonHead) -> nn.Module:
    """One `nn.Linear` (after a projection that isn't linear) whose largest output is the head's decision.

    Its outputs are no probabilities; for heads whose softmax matters: `fold`.
    Raises: ClassifierError naming classes of a `DeepNCM` that have no mean yet.
    """
    weight, bias = _rows(head), head.bias
    return _folded(head.projection, weight, None if bias is None else bias.detach())


def _rows(head: ComparisonHead) -> Tensor:
    """The head's weight; ClassifierError for other modules, and for classes without a mean."""
    if not isinstance(head, ComparisonHead):
        raise ClassifierError(f"only heads that compare with prototypes can be folded; got a {type(head).__name__}.")
    weight = head.weight.detach()
    without = weight.isnan().any(1).nonzero().flatten().tolist()
    if without:
        raise ClassifierError(f"classes {without} have no mean yet, so no linear layer decides like the head.")
    return weight


def _deployed(projection: nn.Module | None, *layers: nn.Module) -> nn.Module:
    """The layers after a copy of the projection, in eval mode and without gradients."""
    before = () if projection is None else (copy.deepcopy(projection),)
    every = (*before, *layers)
    return (every[0] if len(every) == 1 else nn.Sequential(*every)).requires_grad_(False).eval()


def _folded(projection: nn.Module | None, weight: Tensor, bias: Tensor | None) -> nn.Module:
    if projection is None:
        return _deployed(None, _linear(weight, bias))
    if not isinstance(projection, nn.Linear):
        return _deployed(projection, _linear(weight, bias))
    shift = None if projection.bias is None else weight @ projection.bias
    if bias is not None and shift is not None:
        shift = shift + bias
    return _deployed(None, _linear(weight @ projection.weight, bias if shift is None else shift))


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    classes, features = weight.shape
    layer = nn.Linear(features, classes, bias=bias is not None, device=weight.device, dtype=weight.dtype)
    layer.weight.copy_(weight)
    if bias is not None:
        layer.bias.copy_(bias)
    return layer
