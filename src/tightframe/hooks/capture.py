"""`capture`: the features of named layers while a model runs, by hooks that are gone afterwards."""

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

_PREFERRED = ("last_hidden_state", "logits")  # of the outputs that transformers name


class CapturedFeatures(Mapping[str, Tensor]):
    """The features of the latest forward pass, by the names of their points in the order in which they came.

    Each is a detached copy, so that later in-place operations of the model don't reach it. A module that is called
    several times in one pass has "name", "name#2", "name#3", ....

    A pass is a call of the model, with all that it calls, itself too. Parts that are called without it, as in a
    `training_step` or `forward_features`, add to the latest pass; a captured one that is called again begins a new
    pass.

    Attributes:
        points: those captured, by name.
        default_positions: what becomes of positions where a point doesn't say; None leaves features as they came.
        ragged_positions: the same for samples that differ in length, where nothing else says; None refuses them.
        mask: (N, T) which positions count in a mean, or as first and last; None for all. Set before the pass.
        averaged: the names of points whose features were a mean over several positions by default.
    """

    def __init__(self, points: Sequence[Point], devices: Sequence[int] = ()):
        self.points = {point.name: point for point in points}
        self.default_positions: str | None = None
        self.ragged_positions: str | None = None
        self.mask: Tensor | None = None
        self.averaged: set[str] = set()
        self._records: list[tuple[str, Tensor]] = []
        self._depth = 0  # of the model's calls of itself
        self._devices = list(devices)  # of DataParallel, in the order in which they share a batch

    def take(self) -> dict[str, Tensor]:
        """The features, which are forgotten here."""
        found = self._by_name()
        self._records.clear()
        return found

    def point_of(self, name: str) -> Point:
        """The point of a name, whatever the number of the call."""
        return self.points[name.rpartition("#")[0]] if name not in self.points else self.points[name]

    def __getitem__(self, name: str) -> Tensor:
        features = self._by_name().get(name)
        if features is None:
            if name in self.points:
                raise LayerError(f"the forward pass has not called {name!r}, or it gave no floating-point tensor.")
            raise KeyError(f"{name!r} is not captured; there are: {', '.join(self.points)}")
        return features

    def __contains__(self, name: object) -> bool:
        return name in self._by_name()

    def get(self, name: str, default: Any = None) -> Any:
        """The features of that name, or the default where the pass gave none."""
        return self._by_name().get(name, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name())

    def __len__(self) -> int:
        return len(self._by_name())

    def _by_name(self) -> dict[str, Tensor]:
        calls: dict[str, dict[int, list[Tensor]]] = {}
        for name, tensor in self._records:
            calls.setdefault(name, {}).setdefault(tensor.device.index or 0, []).append(tensor)
        found: dict[str, Tensor] = {}
        for name, by_device in calls.items():
            order = [device for device in self._devices if device in by_device] or list(by_device)
            for number, parts in enumerate(zip(*(by_device[device] for device in order), strict=False), start=1):
                joined = parts[0] if len(parts) == 1 else torch.cat([part.to(parts[0].device) for part in parts])
                found[name if number == 1 else f"{name}#{number}"] = joined
        return found

    def _record(self, point: Point, module: nn.Module, value: Any) -> None:
        features = features_in(value)
        if features is None or torch._C._current_graph_task_id() != -1:  # a backward pass that runs a layer again
            return
        positions = point.positions or self.default_positions
        with torch.no_grad():
            if point.is_input and is_head(module):
                features = rows_of(module.embed(features))
            features = features.detach()
            if features.is_nested:
                features = _pooled(features, point, positions or self.ragged_positions)
            elif positions == "mean" and features.ndim > 2:
                mean = POSITIONS[positions](features, point.feature_dim, self.mask)  # new memory in any case
                if point.positions is None and features.numel() > mean.numel():
                    self.averaged.add(point.name)
                features = mean
            else:
                take = None if positions is None else POSITIONS[positions]
                features = (features if take is None else take(features, point.feature_dim, self.mask)).clone()
        place = point.name, features.device  # replicas of a part give it once each
        if self._depth == 0 and any((name, earlier.device) == place for name, earlier in self._records):
            self._records.clear()
        self._records.append((point.name, features))

    def _enter(self, *_: Any) -> None:
        if self._depth == 0 and torch._C._current_graph_task_id() == -1:
            self._records.clear()
        self._depth += 1

    def _leave(self, *_: Any) -> None:
        self._depth = max(0, self._depth - 1)  # where an earlier hook failed, the call wasn't entered


def _pooled(features: Tensor, point: Point, positions: str | None) -> Tensor:
    """Samples of different lengths, as torch's transformer gives them for padded batches."""
    if positions not in ("mean", "first", "last"):
        raise LayerError(f"samples at {point.name!r} differ in length; choose the positions mean, first or last.")
    return torch.cat([POSITIONS[positions](rows[None], point.feature_dim) for rows in features.unbind()])


@contextmanager
def capture(model: nn.Module, layers: str | Layer | Iterable[str | Layer | Point]) -> Iterator[CapturedFeatures]:
    """Capture the outputs of layers while the context lasts.

    The model is run by the caller, in any mode and as often as wanted; what is captured is always the latest pass (see
    `CapturedFeatures` for parts that are called by themselves). It may be compiled (and runs uncompiled in the
    context), wrapped for data parallelism, in mixed precision, and return tuples or dicts, of which the first
    floating-point tensor of two or more dimensions is taken ("last_hidden_state" first). Hooks are gone afterwards,
    also after an exception; nothing else of the model is touched.

    Args:
        layers: names of modules, patterns such as "encoder.layer.*", `Layer`s that also say what becomes of
            positions, or "auto", the boundary after every block. Without positions, features are as the layer gave
            them.

    Raises: LayerError for a name that matches no module. Of what is yielded, KeyError for a name not captured and
    LayerError for a layer that the pass didn't call.

    >>> model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4))
    >>> with capture(model, ["0", "1"]) as features:
    ...     _ = model(torch.ones(2, 3))
    >>> {name: tuple(tensor.shape) for name, tensor in features.items()}
    {'0': (2, 8), '1': (2, 8)}
    """
    bare = bare_model(model)
    given = [layers] if isinstance(layers, str | Layer) else list(layers)
    points = [choice for choice in given if isinstance(choice, Point)]
    points += choose_layers(bare, [choice for choice in given if not isinstance(choice, Point)])
    parallel = model if isinstance(model, nn.DataParallel) else None
    features = CapturedFeatures(points, () if parallel is None else parallel.device_ids)
    root = bare if parallel is None else parallel  # the outermost module that runs once for all devices
    with running_eagerly(model), ExitStack() as hooks:
        hooks.callback(root.register_forward_pre_hook(features._enter).remove)
        for point in points:
            hooks.callback(_hook(features, point).remove)
        # after the points, of which the root may be one, and after exceptions too
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
    """The features in what a module was given or returned: the first floating-point tensor of two or more dimensions,
    "last_hidden_state" first; None without one."""
    return next(tensors_in(value, _PREFERRED), None)


def tensors_in(value: Any, first: Sequence[str] = ()) -> Iterator[Tensor]:
    """The floating-point tensors of two or more dimensions in what a module was given or returned: in mappings,
    sequences and dataclasses too, there those of some names first."""
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
