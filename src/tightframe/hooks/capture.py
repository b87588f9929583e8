"""`capture`: the features of named layers while a model runs, by temporary hooks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tightframe.errors import LayerError
from tightframe.head import is_head
from tightframe.hooks.layers import Layer, Point, choose_layers
from tightframe.hooks.positions import POSITIONS
from tightframe.hooks.wrappers import bare_model, running_eagerly
from tightframe.layout import rows_of

_PREFERRED = ("last_hidden_state", "logits")  # names of outputs in transformers


class CapturedFeatures(Mapping[str, Tensor]):
    """The features of the latest forward pass by name of their point, in the order of the calls.

    Each is a detached copy, which later in-place operations of the model do not change. A module that is called several
    times in one pass has the names "name", "name#2", "name#3", ....

    A pass is one call of the model, including nested calls. Submodules that are called without the model, as in
    `training_step` or `forward_features`, add to the latest pass; the second call of a captured submodule begins a new
    pass.

    Attributes:
        points: the captured points by name.
        default_positions: positions, a name in `POSITIONS`, for points without their own; None keeps all positions.
        ragged_positions: positions for samples of different lengths, if nothing else is set; None raises an error.
        mask: (N, T), positions that count in "mean", "first" and "last"; None for all. Set it before the pass.
        averaged: names of points whose features were averaged over several positions by default.

    >>> import torch
    >>> from torch import nn
    >>> from tightframe import capture
    >>> model = nn.Sequential(nn.Linear(2, 4), nn.ReLU())
    >>> with capture(model, "0") as features:
    ...     _ = model(torch.ones(5, 2))
    >>> list(features), features["0"].shape
    (['0'], torch.Size([5, 4]))
    """

    def __init__(self, points: Sequence[Point], devices: Sequence[int] = ()):
        self.points = {point.name: point for point in points}
        self.default_positions: str | None = None
        self.ragged_positions: str | None = None
        self.mask: Tensor | None = None
        self.averaged: set[str] = set()
        self._records: list[tuple[str, Tensor]] = []
        self._depth = 0  # of nested calls of the model
        self._devices = list(devices)  # of DataParallel, in the order of their parts of a batch

    def take(self) -> dict[str, Tensor]:
        """Return the features, (N, ...) each, and remove them from this object."""
        features = self._by_name()
        self._records.clear()
        return features

    def point_of(self, name: str) -> Point:
        """The point of a name, with or without the number of the call."""
        return self.points[name.rpartition("#")[0]] if name not in self.points else self.points[name]

    def __getitem__(self, name: str) -> Tensor:
        features = self._by_name().get(name)
        if features is None:
            if name in self.points:
                raise LayerError(f"the forward pass did not call {name!r}, or it returned no floating-point tensor.")
            raise KeyError(f"{name!r} is not captured; choose from {', '.join(self.points)}")
        return features

    def __contains__(self, name: object) -> bool:
        return name in self._by_name()

    def get(self, name: str, default: Any = None) -> Any:
        """The features of that name, or the default if the pass has none."""
        return self._by_name().get(name, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name())

    def __len__(self) -> int:
        return len(self._by_name())

    def _by_name(self) -> dict[str, Tensor]:
        calls: dict[str, dict[int, list[Tensor]]] = {}
        for name, tensor in self._records:
            calls.setdefault(name, {}).setdefault(tensor.device.index or 0, []).append(tensor)
        features: dict[str, Tensor] = {}
        for name, by_device in calls.items():
            order = [device for device in self._devices if device in by_device] or list(by_device)
            for number, parts in enumerate(zip(*(by_device[device] for device in order), strict=False), start=1):
                joined = parts[0] if len(parts) == 1 else torch.cat([part.to(parts[0].device) for part in parts])
                features[name if number == 1 else f"{name}#{number}"] = joined
        return features

    def _record(self, point: Point, module: nn.Module, value: Any) -> None:
        features = features_in(value)
        if features is None or torch._C._current_graph_task_id() != -1:  # recomputed in a backward pass
            return
        positions = point.positions or self.default_positions
        with torch.no_grad():
            if point.is_input and is_head(module):
                features = rows_of(module.embed(features))
            features = features.detach()
            if features.is_nested:
                features = _pooled(features, point, positions or self.ragged_positions)
            elif positions == "mean" and features.ndim > 2:
                mean = POSITIONS[positions](features, point.feature_dim, self.mask)  # always new memory
                if point.positions is None and features.numel() > mean.numel():
                    self.averaged.add(point.name)
                features = mean
            else:
                take = None if positions is None else POSITIONS[positions]
                features = (features if take is None else take(features, point.feature_dim, self.mask)).clone()
        place = point.name, features.device  # each replica records it once
        if self._depth == 0 and any((name, earlier.device) == place for name, earlier in self._records):
            self._records.clear()
        self._records.append((point.name, features))

    def _enter(self, *_: Any) -> None:
        if self._depth == 0 and torch._C._current_graph_task_id() == -1:
            self._records.clear()
        self._depth += 1

    def _leave(self, *_: Any) -> None:
        self._depth = max(0, self._depth - 1)  # `_enter` did not run if an earlier hook failed


def _pooled(features: Tensor, point: Point, positions: str | None) -> Tensor:
    """One vector per sample of different lengths, which torch's transformer returns for padded batches."""
    if positions not in ("mean", "first", "last"):
        raise LayerError(f"samples at {point.name!r} differ in length; set positions to mean, first or last.")
    return torch.cat([POSITIONS[positions](rows[None], point.feature_dim) for rows in features.unbind()])


@contextmanager
def capture(model: nn.Module, layers: str | Layer | Iterable[str | Layer | Point]) -> Iterator[CapturedFeatures]:
    """Context manager that captures the outputs of layers.

    The caller runs the model, in any mode and any number of times; the features are those of the latest pass (see
    `CapturedFeatures` for submodules that are called directly). The model may be compiled (it runs uncompiled in the
    context), data-parallel or in mixed precision. Of a tuple or dict, the first floating-point tensor with two or more
    dimensions is captured ("last_hidden_state" first). Hooks are removed at exit, also after an exception; nothing else
    in the model changes.

    Args:
        layers: names of modules, patterns such as "encoder.layer.*", `Layer`s, which also set positions, or "auto" for
            the boundary after every block. Without positions, features keep the shape of the layer's output.

    Raises: LayerError for a name that matches no module. Reading the result raises KeyError for a name that is not
    captured and LayerError for a layer that the pass did not call.

    >>> import torch
    >>> from torch import nn
    >>> from tightframe import capture
    >>> model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4))
    >>> with capture(model, ["0", "1"]) as features:
    ...     _ = model(torch.ones(2, 3))
    >>> {name: tuple(tensor.shape) for name, tensor in features.items()}
    {'0': (2, 8), '1': (2, 8)}
    """
    bare = bare_model(model)
    choices = [layers] if isinstance(layers, str | Layer) else list(layers)
    points = [choice for choice in choices if isinstance(choice, Point)]
    points += choose_layers(bare, [choice for choice in choices if not isinstance(choice, Point)])
    parallel = model if isinstance(model, nn.DataParallel) else None
    features = CapturedFeatures(points, () if parallel is None else parallel.device_ids)
    root = bare if parallel is None else parallel  # the outermost module that runs once for all devices
    with running_eagerly(model), ExitStack() as hooks:
        hooks.callback(root.register_forward_pre_hook(features._enter).remove)
        for point in points:
            hooks.callback(_hook(features, point).remove)
        # after the points' hooks, as the root may be a point; also after exceptions
        hooks.callback(root.register_forward_hook(features._leave, always_call=True).remove)
        yield features


def _hook(features: CapturedFeatures, point: Point) -> Any:
    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        features._record(point, module, args[0] if args else next(iter(kwargs.values()), None))

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        features._record(point, module, output)

    if point.is_input:
        return point.module.register_forward_pre_hook(before, with_kwargs=True)
    return point.module.register_forward_hook(after)


def features_in(value: Any) -> Tensor | None:
    """The first floating-point tensor with two or more dimensions in a module's input or output, or None.

    "last_hidden_state" comes first.

    Shape: (N, ..., D) or (N, C, H, W), as the module returns it.

    >>> import torch
    >>> from tightframe.hooks import features_in
    >>> features_in({"loss": torch.tensor(0.5), "hidden": torch.ones(3, 2)}).shape
    torch.Size([3, 2])
    """
    return next(tensors_in(value, _PREFERRED), None)


def tensors_in(value: Any, first: Sequence[str] = ()) -> Iterator[Tensor]:
    """The floating-point tensors with two or more dimensions in a module's input or output.

    Searches mappings, sequences and dataclasses; keys in `first` come first."""
    if isinstance(value, Tensor):
        if value.ndim >= 2 and value.is_floating_point():
            yield value
        return
    if is_dataclass(value) and not isinstance(value, type | Mapping):
        value = {each.name: getattr(value, each.name) for each in fields(value)}
    if isinstance(value, Mapping):
        ordered = [name for name in first if name in value]
        inner: Iterable[Any] = [value[name] for name in (*ordered, *(n for n in value if n not in ordered))]
    else:
        inner = value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else ()
    for each in inner:
        yield from tensors_in(each, first)
