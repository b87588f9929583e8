"""Which features to look at: layers by name, by pattern, or the boundaries of a model's blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrize import type_before_parametrizations

from tightframe.checks import listed
from tightframe.errors import ClassifierError, LayerError
from tightframe.hooks.classifier import Classifier, find_classifier
from tightframe.hooks.positions import require_positions
from tightframe.hooks.wrappers import bare_model, clean_name, has_layers, parametrizes, weight_of

AUTO = "auto"
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_CONVOLUTIONS_1D = (nn.Conv1d, nn.ConvTranspose1d)
_CHANNELS_SECOND = (
    *_CONVOLUTIONS_1D,
    *(nn.AvgPool1d, nn.MaxPool1d, nn.LPPool1d, nn.MaxUnpool1d, nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d),
    *(nn.BatchNorm1d, nn.InstanceNorm1d, nn.SyncBatchNorm, nn.GroupNorm),
)
_PASSIVE = (nn.Flatten, nn.Unflatten, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


@dataclass(frozen=True)
class Layer:
    """A choice of layers whose outputs are wanted.

    Attributes:
        pattern: a module's name in the model, or else a pattern with *, ? and [...] for several; "auto" for the
            boundary after every block, see `choose_layers`.
        positions: what becomes of several positions to a sample, a name in `POSITIONS`; None leaves it to the caller.
        feature_dim: the dimension of the D features; default: second of four or more and where the module says so
            (`feature_dim_of`), else last, as in torch's layers.

    Raises: ChoiceError for unknown positions.
    """

    pattern: str
    positions: str | None = None
    feature_dim: int | None = None

    def __post_init__(self) -> None:
        if self.positions is not None:
            require_positions(self.positions)


@dataclass(frozen=True)
class Point:
    """A place in a model where features flow by.

    Attributes:
        name: the module's name in the bare model; with `is_input`, "input of ..." it.
        module: the module whose output, or with `is_input` whose input, the features are.
        reader: the linear layer or convolution that they flow into, where the structure tells.
        optional: whether it was found by "auto" or a pattern, so that it may be left out where it doesn't fit.
        boundary: whether it was found by "auto", so that it may be left out where the classifier's input is the same.
    """

    name: str
    module: nn.Module
    is_input: bool = False
    positions: str | None = None
    feature_dim: int | None = None
    reader: nn.Module | None = None
    optional: bool = False
    boundary: bool = False


def choose_layers(
    model: nn.Module, layers: str | Layer | Iterable[str | Layer], classifier: Classifier | None = None
) -> list[Point]:
    """The points that a choice of layers means, in the order of the modules.

    A name is that of one module, also one with brackets in it, or of a module that the model has under several names;
    where no module has it, it is a pattern of layers, without what parametrizes their weights, and its points are
    optional. Each module is there once, under the name by which it was chosen first; all else is as the last choice of
    it says.

    "auto" is the boundary after every block, and the classifier's input, if there is a classifier. A block is one of
    several modules of the same class in a list or Sequential (the outermost such list: residual stages or blocks,
    transformer layers), a module with layers of its own beside them, or, in a Sequential of plain layers, a linear
    layer or convolution with what follows it (normalisation, activation, pooling). A model of nothing but plain layers
    in no Sequential is looked at between them: at the input of each but the first.

    Raises: LayerError for names and patterns that match no module.
    """
    if isinstance(layers, str | Layer):
        layers = [layers]
    modules = {clean_name(name): module for name, module in model.named_modules()}
    found: dict[tuple[nn.Module, bool], Point] = {}
    for choice in layers:
        layer = choice if isinstance(choice, Layer) else Layer(choice)
        if layer.pattern == AUTO:
            classifier = classifier or classifier_of(model)
            points = list(_boundaries(model, None if classifier is None else classifier.module))
            points += [] if classifier is None or classifier.module is None else [classifier_input(classifier)]
        else:
            points = _named(layer.pattern, model, modules)
        for point in points:
            place = point.module, point.is_input
            name = found.get(place, point).name
            dim = point.feature_dim if layer.feature_dim is None else layer.feature_dim
            found[place] = replace(point, name=name, positions=layer.positions, feature_dim=dim)
    order = {module: place for place, module in enumerate(modules.values())}
    return sorted(found.values(), key=lambda point: order[point.module])


def _named(name: str, model: nn.Module, modules: Mapping[str, nn.Module]) -> list[Point]:
    """The module of that name, or those that match it as a pattern."""
    exact = modules.get(name, _alias(name, model)) if name else None
    if exact is not None and any(exact is module for module in modules.values()):
        return [Point(name, exact, feature_dim=feature_dim_of(exact))]
    matches = [(n, m) for n, m in modules.items() if n and fnmatchcase(n, name) and not parametrizes(n)]
    if not matches:
        known = listed(list(modules)[1:], 20)
        raise LayerError(f"no module of the model matches {name!r}; it has: {known or 'none'}.")
    return [Point(n, m, feature_dim=feature_dim_of(m), optional=True) for n, m in matches]


def _alias(name: str, model: nn.Module) -> nn.Module | None:
    """The module of a name that isn't the first one that the model has for it."""
    try:
        module = model.get_submodule(name)
    except AttributeError:
        return None
    inner = getattr(module, "_orig_mod", None)  # of a compiled part, as in the names without it
    return inner if isinstance(inner, nn.Module) else module


def classifier_of(model: nn.Module) -> Classifier | None:
    """The model's classifier, or None if it has none."""
    try:
        return find_classifier(model)
    except ClassifierError:
        return None


def classifier_input(classifier: Classifier) -> Point:
    """The point in front of the classifier. Raises: ClassifierError if it isn't a module."""
    if classifier.module is None:
        what = f"the parameter {classifier.name!r}" if classifier.name else "a tensor or function"
        raise ClassifierError(
            f'the classifier is {what}: name the layer whose output is its input, with features="...".'
        )
    return Point(
        f"{'embedding in' if classifier.embeds else 'input of'} {classifier.name or 'the model itself'}",
        classifier.module,
        is_input=True,
        feature_dim=-1 if classifier.embeds else classifier.class_dim,
        reader=classifier.module,
    )


def feature_dim_of(module: nn.Module) -> int | None:
    """The dimension of the D features in what a module gives, where its class tells.

    It is 1 for torch's convolutions, pooling and normalisation that take (N, D, T), and for a block with convolutions
    of one dimension and no layer with a weight matrix but convolutions. For all others it is None: their features lie
    second in four or more dimensions, else last, as in (N, D) and a transformer's (N, T, D).
    """
    if isinstance(module, _CHANNELS_SECOND):
        return 1
    layers = [inner for inner in module.modules() if _is_weighted(inner) or isinstance(inner, nn.RNNBase)]
    one_dimension = any(isinstance(layer, _CONVOLUTIONS_1D) for layer in layers)
    return 1 if one_dimension and all(isinstance(layer, _ConvNd) for layer in layers) else None


def reading_weight(module: nn.Module, num_features: int) -> Tensor | None:
    """(M, D), the weight with which a linear layer, or at each offset a convolution, reads D features; None if it
    doesn't read so many, or not all with each output."""
    weight = weight_of(module) if _is_weighted(module) else None
    if weight is None or weight.shape[1] != num_features:
        return None
    if isinstance(module, _ConvNd) and (module.transposed or module.groups > 1):
        return None
    return weight.detach().movedim(1, -1).reshape(-1, num_features)


def _boundaries(model: nn.Module, classifier: nn.Module | None) -> Iterator[Point]:
    points = list(_inside("", model, classifier))
    if not points:
        leaves = [(n, m) for n, m in model.named_modules() if _is_weighted(m) and m is not classifier]
        points = [_input_of(clean_name(n), m) for n, m in leaves[1:]]
    for point in points:
        yield replace(point, optional=True, boundary=True)


def _input_of(name: str, layer: nn.Module) -> Point:
    """The point in front of a linear layer or convolution, which has its features where its outputs have theirs."""
    return Point(f"input of {name}", layer, is_input=True, feature_dim=feature_dim_of(layer), reader=layer)


def _inside(prefix: str, module: nn.Module, classifier: nn.Module | None) -> Iterator[Point]:
    """The boundaries within a module that is not a block itself."""
    last: Point | None = None  # of a linear layer or convolution and what followed it so far
    children = [
        (f"{prefix}{name}", bare_model(child)) for name, child in module.named_children() if not parametrizes(name)
    ]
    for name, child in children:
        if child is classifier or has_layers(child):
            if last is not None:
                yield replace(last, reader=child if child is classifier else None)
                last = None
            if child is classifier:
                continue
            if type(child) in _CONTAINERS or (_has_chain(child) and not _is_chain(module)) or _holds(child, classifier):
                yield from _inside(f"{name}.", child, classifier)
            elif next(child.parameters(), None) is not None:
                yield Point(name, child, feature_dim=feature_dim_of(child))
        elif type(module) is nn.Sequential:
            if _is_weighted(child):
                if last is not None:
                    yield replace(last, reader=child, feature_dim=last.feature_dim or feature_dim_of(child))
                last = Point(name, child, feature_dim=feature_dim_of(child))
            elif last is not None and not isinstance(child, _PASSIVE):
                last = Point(name, child, feature_dim=feature_dim_of(child) or _kept(last, child))
    if last is not None:
        yield last


def _kept(last: Point, child: nn.Module) -> int | None:
    """The feature dimension after what follows a layer: torch's activations keep it, others' modules may move it."""
    return last.feature_dim if type(child).__module__.startswith("torch.nn.") else None


def _is_chain(module: nn.Module) -> bool:
    """Whether it is a list of blocks: of several modules of one class that have layers of their own."""
    if type(module) not in _CONTAINERS:
        return False
    children = [bare_model(child) for child in module.children()]
    kinds = [type_before_parametrizations(c) for c in children if type(c) not in _CONTAINERS and has_layers(c)]
    return len(kinds) != len(set(kinds))


def _has_chain(module: nn.Module) -> bool:
    return any(_is_chain(inner) for name, inner in module.named_modules() if not parametrizes(name))


def _holds(module: nn.Module, inner: nn.Module | None) -> bool:
    return inner is not None and any(each is inner for each in module.modules())


def _is_weighted(module: nn.Module) -> bool:
    """Whether it is a layer with a weight matrix: a linear layer or a convolution."""
    weight = None if has_layers(module) else weight_of(module)
    if weight is None:
        return False
    return isinstance(module, _ConvNd) or (weight.ndim == 2 and hasattr(module, "in_features"))
