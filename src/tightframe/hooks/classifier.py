"""The classifier that a model ends in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tightframe.errors import ClassifierError
from tightframe.head import is_head
from tightframe.hooks.wrappers import bare_model, clean_name, weight_of


@dataclass(frozen=True)
class Classifier:
    """The last linear map of a model.

    Attributes:
        name: its name in the model.
        module: the module, whose input is the feature.
        weight: (K, D). bias: (K,) or None. Both detached copies, float64.
        class_dim: the dimension of its input that holds the D features: -1, or 1 for a 1x1 convolution.
        decides_linearly: whether argmax of weight x + bias is its decision; a module may say otherwise.
        fixed: whether the weight is given while other parts of the model are trained.
    """

    name: str
    module: nn.Module
    weight: Tensor
    bias: Tensor | None
    class_dim: int
    decides_linearly: bool = True
    fixed: bool = False

    @property
    def embeds(self) -> bool:
        """Whether the module is a `Head`, which makes features of its input before it classifies."""
        return is_head(self.module)


def find_classifier(model: nn.Module, name: str | None = None) -> Classifier:
    """The model's classifier: the module called `name`; else what the model's own `get_classifier()` (timm) or
    `get_output_embeddings()` (transformers) says; else its last linear layer or 1x1 convolution.

    Raises: ClassifierError if there is none, or if it isn't linear.
    """
    module: object = None
    if name is not None:
        try:
            module = model.get_submodule(name)
        except AttributeError:
            known = ", ".join(n for n, m in model.named_modules() if _is_linear(m)) or "none"
            raise ClassifierError(f"the model has no module {name!r}; its linear layers: {known}.") from None
    else:
        for accessor in ("get_classifier", "get_output_embeddings"):
            if module is None and callable(getattr(model, accessor, None)):
                module = getattr(model, accessor)()
        if module is None:
            linear = _linear_layers(model)
            if not linear:
                raise ClassifierError("the model has no linear layer; name its classifier with classifier=...")
            module = linear[-1]
    module = bare_model(module) if isinstance(module, nn.Module) else module
    if not isinstance(module, nn.Module) or not _is_linear(module):
        raise ClassifierError(
            f"the classifier must be a linear layer (or a head with a weight) or a 1x1 convolution; got {type(module)}."
        )
    names = [n for n, m in model.named_modules() if m is module]
    if not names:
        raise ClassifierError(f"the model says that its classifier is {module}, but it has no such module.")
    with torch.enable_grad():  # a weight that is computed from trained ones takes their gradient
        weight, bias = weight_of(module), getattr(module, "bias", None)
    assert weight is not None
    return Classifier(
        clean_name(names[0]),
        module,
        weight.detach().flatten(1).to("cpu", torch.float64, copy=True),
        bias.detach().to("cpu", torch.float64, copy=True) if isinstance(bias, Tensor) else None,
        -1 if weight.ndim == 2 else 1,
        module.decides_linearly if is_head(module) else True,
        not weight.requires_grad and any(each.requires_grad for each in model.parameters()),
    )


def _linear_layers(model: nn.Module) -> list[nn.Module]:
    """The linear modules of a model in order, a head as one: without the layers inside it."""
    found: list[nn.Module] = []
    inside: set[nn.Module] = set()
    for module in model.modules():
        if bare_model(module) is not module:
            continue
        # a head, even without a weight, isn't one of its inner layers
        if (_is_linear(module) or is_head(module)) and module not in inside:
            found.append(module)
            inside.update(module.modules())
    return found


def _is_linear(module: nn.Module) -> bool:
    """Whether the module is a linear map by its weight: (K, D), or (K, D, 1, ...) for a pointwise convolution."""
    weight = weight_of(module)
    if weight is None or isinstance(module, nn.Embedding) or weight.ndim < 2:
        return False
    if weight.ndim == 2:
        return isinstance(module, nn.Linear) or is_head(module) or hasattr(module, "in_features")
    return isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) and set(weight.shape[2:]) == {1}
