"""What is wrapped around a model: compilation, data parallelism, and the modes of its modules."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils.parametrize import is_parametrized


def bare_model(model: nn.Module) -> nn.Module:
    """The model inside `torch.compile`, DataParallel and DistributedDataParallel; itself where there is no wrapper.

    Called directly, it runs on its own device and waits for no other process.
    """
    while True:
        if isinstance(model, DistributedDataParallel | nn.DataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def clean_name(name: str) -> str:
    """A module's name without what `torch.compile` of a part put into it."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def parametrizes(name: str) -> bool:
    """Whether a module of that name is a part of how torch parametrizes the weights of a layer."""
    return "parametrizations" in name.split(".")


def has_layers(module: nn.Module) -> bool:
    """Whether it has modules inside it, other than those that parametrize its own weights."""
    return any(not parametrizes(name) for name, _ in module.named_children())


def weight_of(module: nn.Module) -> Tensor | None:
    """Its weight, if it has one; looking at it changes nothing, as it would in the training of a spectral norm."""
    with evaluation(module) if is_parametrized(module) else nullcontext():
        weight = getattr(module, "weight", None)
    return weight if isinstance(weight, Tensor) else None


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's first parameter that is loaded (offloaded ones are on "meta"), or the CPU."""
    devices = (parameter.device for parameter in model.parameters())
    return next((device for device in devices if device.type != "meta"), torch.device("cpu"))


@contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients while the context lasts; every module's own mode is restored afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False  # a train() of the model's own might do more, such as merging adapters
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def running_eagerly(model: nn.Module) -> Iterator[None]:
    """Run what `torch.compile` made of the model, or of parts of it, uncompiled: a compiled graph calls no new hook."""
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
