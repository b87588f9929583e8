"""Replace a model's classifier by a head, and fold a head into plain layers for deployment."""

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
    """Replace a model's classifier by a head and return the classifier. A second call with it restores the model.

    The classifier is found as in `measure`: by name, by the model's `get_classifier()` (timm) or
    `get_output_embeddings()` (transformers), else the last linear layer or 1x1 convolution. The head moves to its
    device and dtype.

    Warns: ClassCountWarning if the head has a different number of classes.
    Raises: ClassifierError if there is no classifier, or it is the model itself; ShapeError if the width differs.

    >>> from torch import nn
    >>> from tightframe.heads import replace_classifier
    >>> from tightframe import PrototypeHead, prototypes
    >>> model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4))
    >>> linear = replace_classifier(model, PrototypeHead(prototypes.simplex(4, 8)))
    >>> head = replace_classifier(model, linear)
    """
    classifier = find_classifier(model, name)
    old = classifier.module
    if old is None:
        raise ClassifierError(f"the classifier must be a module to be replaced; {classifier.name!r} is a parameter.")
    if not classifier.name:
        raise ClassifierError("the model itself is the classifier; use the head instead of the model.")
    width = getattr(old, "in_features", None) or (None if classifier.weight is None else classifier.weight.shape[1])
    if getattr(head, "in_features", width) != width:
        raise ShapeError(
            f"the classifier {classifier.name!r} takes {width} features, but the head takes {head.in_features}. "
            f"Pass in_features={width} to the head to add a projection."
        )
    outputs = getattr(head, "out_features", classifier.outputs)
    if outputs != classifier.outputs:
        warnings.warn(
            f"the classifier {classifier.name!r} has {classifier.outputs} outputs, but the head has {outputs}. Labels "
            f"must now be in [0, {outputs}).",
            ClassCountWarning,
            stacklevel=2,
        )
    for place in (*old.parameters(), *old.buffers()):
        head.to(place.device, place.dtype if place.is_floating_point() else None)
        break
    head.train(old.training)
    owner, _, attribute = classifier.name.rpartition(".")
    setattr(model.get_submodule(owner), attribute, head)
    return old


class UnitLength(nn.Module):
    """Features (..., D) scaled to length one. A feature of length zero stays zero and gets no gradient.

    Warns: ZeroVectorWarning naming the first such feature, once per module (CPU only).

    >>> import torch
    >>> from tightframe.heads import UnitLength
    >>> [round(entry, 6) for entry in UnitLength()(torch.tensor([3.0, 4.0])).tolist()]
    [0.6, 0.8]
    """

    def forward(self, features: Tensor) -> Tensor:
        return unit_embeddings(features, self, "features")[0]


@torch.no_grad()
def fold(head: ComparisonHead) -> nn.Module:
    """Fold a head with final prototypes and scale into plain layers with the same softmax, for deployment.

    "dot": one `nn.Linear`, which includes a linear projection. "squared-euclidean": likewise, with logits larger by
    scale |z|^2 for all classes, which changes neither softmax nor decisions. "cosine": the projection, `UnitLength` and
    an `nn.Linear`. Other distances are not linear: see `decision_layer`.

    Returns: a module that takes (..., D_in) and returns logits (..., K), in eval mode, without gradients.
    Raises: ClassifierError for other distances, for other modules, and for classes of a `DeepNCM` without a mean.

    >>> import torch
    >>> from tightframe import PrototypeHead, prototypes
    >>> from tightframe.heads import fold
    >>> head = PrototypeHead(prototypes.simplex(3, 4), logits="cosine")
    >>> layers, features = fold(head), torch.eye(4)
    >>> bool(torch.allclose(layers(features), head(features), atol=1e-5))
    True
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
        f"logits {head.logits!r} are not linear in the features. Use decision_layer(head) for a linear layer with the "
        "same decisions."
    )


@torch.no_grad()
def decision_layer(head: ComparisonHead) -> nn.Module:
    """One `nn.Linear`, after any nonlinear projection, whose largest output is the head's decision.

    Its softmax differs from the head's; use `fold` to keep the softmax.

    Returns: a module that takes (..., D_in) and returns scores (..., K), in eval mode, without gradients.
    Raises: ClassifierError listing classes of a `DeepNCM` without a mean.

    >>> import torch
    >>> from tightframe import PrototypeHead, prototypes
    >>> from tightframe.heads import decision_layer
    >>> head = PrototypeHead(prototypes.simplex(3, 2), logits="euclidean")
    >>> decision_layer(head)(prototypes.simplex(3, 2).vectors.float()).argmax(1).tolist()
    [0, 1, 2]
    """
    weight, bias = _rows(head), head.bias
    return _folded(head.projection, weight, None if bias is None else bias.detach())


def _rows(head: ComparisonHead) -> Tensor:
    """The head's weight. Raises: ClassifierError for other modules, and for classes without a mean."""
    if not isinstance(head, ComparisonHead):
        raise ClassifierError(f"the head must be a ComparisonHead, such as PrototypeHead; got {type(head).__name__}.")
    weight = head.weight.detach()
    without = weight.isnan().any(1).nonzero().flatten().tolist()
    if without:
        raise ClassifierError(f"every class needs a mean; classes {without} have none. Train the head on them first.")
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
