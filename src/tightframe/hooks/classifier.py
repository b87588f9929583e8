"""`find_classifier`: the last layer of a model, from features to logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tightframe.errors import ClassifierError
from tightframe.head import is_head
from tightframe.hooks.wrappers import bare_model, clean_name, weight_of

_MANY = 1 << 23  # entries; larger weights, of vocabularies, are not copied to float64

Choice = str | nn.Module | Tensor | Callable[[Tensor], Tensor]
"""Choice of a classifier: the name of a module or parameter, the module, a weight (K, D), or a function."""


@dataclass(frozen=True)
class Classifier:
    """The last layer of a model, from features to logits.

    Attributes:
        name: name in the model; "" if it has none.
        module: the module, whose input is the feature; None if the classifier is a parameter, tensor or function.
        weight: (K, D), or None for a function. bias: (K,) or None. Both detached copies, float64 unless very large. A
            layer with one output w x + b, which decides by the sign, has rows -w/2 and w/2 and biases -b/2 and b/2.
        class_dim: dimension of its input that contains the D features: -1, or 1 for a 1x1 convolution.
        decides_linearly: whether the decision is the argmax of weight x + bias; a head may say otherwise.
        fixed: whether the weight is not trained, while other parameters of the model are.
        function: function from features (..., D) to logits (..., K), if the caller passed one.
        outputs: number of outputs per feature: K, or 1.
    """

    name: str
    module: nn.Module | None
    weight: Tensor | None
    bias: Tensor | None = None
    class_dim: int = -1
    decides_linearly: bool = True
    fixed: bool = False
    function: Callable[[Tensor], Tensor] | None = None
    outputs: int = 0

    @property
    def embeds(self) -> bool:
        """Whether the module is a `Head`, which maps its input to embeddings before it classifies."""
        return is_head(self.module)


def find_classifier(model: nn.Module, choice: Choice | None = None) -> Classifier:
    """The model's classifier: `choice`, else the result of the model's `get_classifier()` (timm) or
    `get_output_embeddings()` (transformers), else the last linear layer or 1x1 convolution.

    Raises: ClassifierError if there is no classifier, or it is not linear.

    >>> from torch import nn
    >>> from tightframe.hooks import find_classifier
    >>> classifier = find_classifier(nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3)))
    >>> classifier.name, classifier.weight.shape
    ('2', torch.Size([3, 8]))
    """
    if isinstance(choice, Tensor):
        return _of_weight(model, "", choice)
    if choice is not None and not isinstance(choice, str | nn.Module):
        if not callable(choice):
            raise ClassifierError(
                f"classifier must be a name, a module, a tensor or a function; got {type(choice).__name__}."
            )
        return Classifier("", None, None, decides_linearly=False, function=choice)
    module: object = choice
    if isinstance(choice, str):
        try:
            module = model.get_submodule(choice)
        except AttributeError:
            parameter = dict(model.named_parameters()).get(choice, dict(model.named_buffers()).get(choice))
            if parameter is not None:
                return _of_weight(model, choice, parameter)
            linear_names = ", ".join(n for n, m in model.named_modules() if _is_linear(m)) or "none"
            raise ClassifierError(
                f"the model has no module or parameter {choice!r}. Its linear layers are: {linear_names}."
            ) from None
    elif module is None:
        for accessor in ("get_classifier", "get_output_embeddings"):
            if module is None and callable(getattr(model, accessor, None)):
                module = getattr(model, accessor)()
        if module is None:
            linear = _linear_layers(model)
            if not linear:
                raise ClassifierError('the model has no linear layer. Name its classifier with classifier="...".')
            module = linear[-1]
    names = (
        [n for each in module for n, m in model.named_modules() if m is each]
        if isinstance(module, tuple | list)
        else []
    )
    if isinstance(module, tuple | list) and names:
        raise ClassifierError(
            f"the model has {len(module)} classifiers: {', '.join(names)}. Choose one, for example with "
            f"classifier={names[0]!r}."
        )
    module = bare_model(module) if isinstance(module, nn.Module) else module
    if not isinstance(module, nn.Module) or not (_is_linear(module) or is_head(module)):
        raise ClassifierError(
            f"the classifier must be a linear layer, a 1x1 convolution or a head; got {type(module).__name__}."
        )
    names = [n for n, m in model.named_modules() if m is module]
    if not names:
        raise ClassifierError(f"the classifier must be a module of the model; {module} is not.")
    if weight_of(module) is None and is_head(module):
        head: nn.Module = module  # type: ignore[assignment]  # the protocol lacks the methods of modules
        return Classifier(clean_name(names[0]), head, None, decides_linearly=False, outputs=module.out_features)
    with torch.enable_grad():  # a weight computed from trained parameters requires a gradient
        weight, bias = _effective_weight(module), getattr(module, "bias", None)
    return _classifier(
        model,
        clean_name(names[0]),
        module,
        weight,
        bias if isinstance(bias, Tensor) else None,
        -1 if weight.ndim == 2 else 1,
        module.decides_linearly if is_head(module) else True,
    )


def _of_weight(model: nn.Module, name: str, weight: Tensor) -> Classifier:
    if weight.ndim != 2 or not weight.is_floating_point():
        what = f"the parameter {name!r}" if name else "classifier"
        raise ClassifierError(f"{what} must be a weight (K, D); got {weight.dtype} of shape {tuple(weight.shape)}.")
    return _classifier(model, name, None, weight, None, -1, True)


def _classifier(
    model: nn.Module,
    name: str,
    module: nn.Module | None,
    weight: Tensor,
    bias: Tensor | None,
    class_dim: int,
    linear: bool,
) -> Classifier:
    fixed = not weight.requires_grad and any(each.requires_grad for each in model.parameters())
    wide = torch.float64 if weight.numel() < _MANY else torch.promote_types(weight.dtype, torch.float32)
    rows = weight.detach().flatten(1).to("cpu", wide, copy=True)
    offsets = None if bias is None else bias.detach().to("cpu", torch.float64, copy=True).reshape(-1)
    outputs = len(rows)
    rows, offsets = rows_of_classes(rows, offsets)
    return Classifier(name, module, rows, offsets, class_dim, linear, fixed, None, outputs)


def rows_of_classes(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Weight (K, D) and bias (K,); a single logit w x + b, which decides by its sign, becomes rows -w/2 and w/2 with
    biases -b/2 and b/2."""
    if len(weight) != 1:
        return weight, bias
    return torch.cat([-weight, weight]) / 2, None if bias is None else torch.cat([-bias, bias]) / 2


def _effective_weight(module: nn.Module) -> Tensor:
    """The effective weight of the module, including low-rank adapters (such as PEFT's, recognised by their methods)."""
    weight = weight_of(module)
    assert weight is not None
    delta = getattr(module, "get_delta_weight", None)
    if not callable(delta) or getattr(module, "merged", False) or getattr(module, "disable_adapters", False):
        return weight
    factors = getattr(module, "lora_A", None)  # an adapter may not apply to this layer
    adapters = [name for name in getattr(module, "active_adapters", ()) if factors is None or name in factors]
    return sum((delta(name) for name in adapters), weight)


def is_stored(classifier: Classifier) -> bool:
    """Whether its weight is a parameter of a plain layer, not computed from other parameters."""
    module = classifier.module
    return type(module) is nn.Linear and "weight" in dict(module.named_parameters(recurse=False))


def _linear_layers(model: nn.Module) -> list[nn.Module]:
    """The linear modules of a model in order; a head counts as one, without the layers inside it."""
    layers: list[nn.Module] = []
    inside: set[nn.Module] = set()
    for module in model.modules():
        if bare_model(module) is not module:
            continue
        # a head counts even without a weight
        if (_is_linear(module) or is_head(module)) and module not in inside:
            layers.append(module)
            inside.update(module.modules())
    return layers


def _is_linear(module: nn.Module) -> bool:
    """Whether the module is linear, with a weight (K, D), or (K, D, 1, ...) for a pointwise convolution."""
    weight = weight_of(module)
    if weight is None or isinstance(module, nn.Embedding) or weight.ndim < 2:
        return False
    if weight.ndim == 2:
        return isinstance(module, nn.Linear) or is_head(module) or hasattr(module, "in_features")
    return isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) and set(weight.shape[2:]) == {1}
