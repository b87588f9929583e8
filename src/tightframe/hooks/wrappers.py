"""Wrappers and modes of a model: compilation, data parallelism, eval mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils.parametrize import is_parametrized


def bare_model(model: nn.Module) -> nn.Module:
    """The model without `torch.compile`, DataParallel and DistributedDataParallel wrappers.

    The bare model runs on its own device and does not wait for other processes.

    >>> from torch import nn
    >>> from tightframe.hooks import bare_model
    >>> model = nn.Linear(2, 3)
    >>> bare_model(nn.DataParallel(model)) is model
    True
    """
    while True:
        if isinstance(model, DistributedDataParallel | nn.DataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def clean_name(name: str) -> str:
    """A module's name without the parts that `torch.compile` adds.

    >>> from tightframe.hooks import clean_name
    >>> clean_name("_orig_mod.layer4._orig_mod.0")
    'layer4.0'
    """
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def parametrizes(name: str) -> bool:
    """Whether the name is of a module that parametrizes a layer's weight."""
    return "parametrizations" in name.split(".")


def has_layers(module: nn.Module) -> bool:
    """Whether the module has submodules other than weight parametrizations."""
    return any(not parametrizes(name) for name, _ in module.named_children())


def weight_of(module: nn.Module) -> Tensor | None:
    """The module's weight or None; read in eval mode, because reading a spectral norm in training mode changes it."""
    with evaluation(module) if is_parametrized(module) else nullcontext():
        weight = getattr(module, "weight", None)
    return weight if isinstance(weight, Tensor) else None


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's first loaded parameter (offloaded ones are on "meta"), else the CPU.

    >>> from torch import nn
    >>> from tightframe.hooks import device_of
    >>> device_of(nn.Linear(2, 3, device="meta"))
    device(type='cpu')
    """
    devices = (parameter.device for parameter in model.parameters())
    return next((device for device in devices if device.type != "meta"), torch.device("cpu"))


@contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Context in eval mode without gradients; restores the mode of every module at exit.

    >>> from torch import nn
    >>> from tightframe.hooks import evaluation
    >>> model = nn.Dropout()
    >>> with evaluation(model):
    ...     print(model.training)
    False
    >>> model.training
    True
    """
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False  # a custom train() may do more, such as merge adapters
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def running_eagerly(model: nn.Module) -> Iterator[None]:
    """Context in which compiled models or parts run uncompiled, because compiled graphs do not call new hooks.

    >>> import torch
    >>> from torch import nn
    >>> from tightframe.hooks import running_eagerly
    >>> model = nn.Linear(2, 3)
    >>> with running_eagerly(model):  # nothing to do here: it is not compiled
    ...     print(model(torch.ones(1, 2)).shape)
    torch.Size([1, 3])
    """
    compiled = any(
        hasattr(module, "_orig_mod")
        or getattr(module, "_compiled_call_impl", None) is not None
        or hasattr(module.forward, "_torchdynamo_orig_callable")  # Lightning compiles the method
        for module in model.modules()
    )
    if not compiled:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield
