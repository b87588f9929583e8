"""Choice of layers: by name, by pattern, or the boundaries of a model's blocks."""

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
    """A choice of one or several layers.

    Attributes:
        pattern: name of a module in the model, or a pattern with *, ? and [...] for several; "auto" for the boundary
            after every block, see `choose_layers`.
        positions: use of several positions per sample, a name in `POSITIONS`. Default: the caller's.
        feature_dim: dimension of the D features. Default: the second of four or more dimensions or for modules as in
            `feature_dim_of`, else the last, as in torch's layers.

    Raises: ChoiceError for unknown positions.

    >>> from torch import nn
    >>> from tightframe.hooks import Layer, choose_layers
    >>> model = nn.Sequential(nn.Conv1d(1, 4, 3), nn.ReLU())
    >>> [point.positions for point in choose_layers(model, Layer("0", positions="first"))]
    ['first']
    """

    pattern: str
    positions: str | None = None
    feature_dim: int | None = None

    def __post_init__(self) -> None:
        if self.positions is not None:
            require_positions(self.positions)


@dataclass(frozen=True)
class Point:
    """A point in a model where features are captured.

    Attributes:
        name: name of the module in the bare model; "input of ..." with `is_input`.
        module: the module whose output, or input with `is_input`, is captured.
        reader: the linear layer or convolution that reads the features, if known from the structure.
        optional: whether "auto" or a pattern selected it; it is then left out if it does not fit.
        boundary: whether "auto" selected it; it is then left out if it equals the classifier's input.
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
    """The points for a choice of layers, in the order of the modules.

    A name selects one module; names may contain brackets and may be aliases. If no module has the name, it is a pattern
    for layers (without the modules of weight parametrizations), and its points are optional. Each module occurs once,
    under the first name that selected it, with the other options of the last choice.

    "auto" selects the boundary after every block, and the classifier's input, if there is a classifier. A block is one
    of several modules of the same class in a list or Sequential (the outermost such list: residual stages or blocks,
    transformer layers), a module with submodules next to such a list, or, in a Sequential of plain layers, a linear
    layer or convolution with the normalisation, activation and pooling after it. In a model of plain layers without a
    Sequential, the points are the inputs of all layers but the first.

    Raises: LayerError for names and patterns that match no module.

    >>> from torch import nn
    >>> from tightframe.hooks import choose_layers
    >>> model = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> [point.name for point in choose_layers(model, "auto")]
    ['1', '3', 'input of 4']
    >>> [point.name for point in choose_layers(model, ["0", "[24]"])]
    ['0', '2', '4']
    """
    if isinstance(layers, str | Layer):
        layers = [layers]
    modules = {clean_name(name): module for name, module in model.named_modules()}
    selected: dict[tuple[nn.Module, bool], Point] = {}
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
            name = selected.get(place, point).name
            dim = point.feature_dim if layer.feature_dim is None else layer.feature_dim
            selected[place] = replace(point, name=name, positions=layer.positions, feature_dim=dim)
    order = {module: place for place, module in enumerate(modules.values())}
    return sorted(selected.values(), key=lambda point: order[point.module])


def _named(name: str, model: nn.Module, modules: Mapping[str, nn.Module]) -> list[Point]:
    """The module of that name, else the modules that match it as a pattern."""
    exact = modules.get(name, _alias(name, model)) if name else None
    if exact is not None and any(exact is module for module in modules.values()):
        return [Point(name, exact, feature_dim=feature_dim_of(exact))]
    matches = [(n, m) for n, m in modules.items() if n and fnmatchcase(n, name) and not parametrizes(n)]
    if not matches:
        names = listed(list(modules)[1:], 20)
        raise LayerError(f"no module of the model matches {name!r}; choose from {names or 'none'}.")
    return [Point(n, m, feature_dim=feature_dim_of(m), optional=True) for n, m in matches]


def _alias(name: str, model: nn.Module) -> nn.Module | None:
    """The module for an alias, a name other than its first one in the model."""
    try:
        module = model.get_submodule(name)
    except AttributeError:
        return None
    inner = getattr(module, "_orig_mod", None)  # of a compiled part
    return inner if isinstance(inner, nn.Module) else module


def classifier_of(model: nn.Module) -> Classifier | None:
    """The model's classifier, or None if it has none."""
    try:
        return find_classifier(model)
    except ClassifierError:
        return None


def classifier_input(classifier: Classifier) -> Point:
    """The classifier's input as a point. Raises: ClassifierError if the classifier is not a module.

    >>> from torch import nn
    >>> from tightframe.hooks import classifier_input, find_classifier
    >>> classifier_input(find_classifier(nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 3)))).name
    'input of 2'
    """
    if classifier.module is None:
        what = f"the parameter {classifier.name!r}" if classifier.name else "a tensor or function"
        raise ClassifierError(
            f'the classifier is {what}. Name the layer whose output is the classifier\'s input with features="...".'
        )
    return Point(
        f"{'embedding in' if classifier.embeds else 'input of'} {classifier.name or 'the model itself'}",
        classifier.module,
        is_input=True,
        feature_dim=-1 if classifier.embeds else classifier.class_dim,
        reader=classifier.module,
    )


def feature_dim_of(module: nn.Module) -> int | None:
    """The dimension of the D features in a module's output, if its class determines it.

    1 for torch's convolutions, pooling and normalisation on (N, D, T), and for a block with one-dimensional
    convolutions and no other layers with a weight matrix. None for other modules: features are in the second of four or
    more dimensions, else in the last, as in (N, D) and a transformer's (N, T, D).
    """
    if isinstance(module, _CHANNELS_SECOND):
        return 1
    layers = [inner for inner in module.modules() if _is_weighted(inner) or isinstance(inner, nn.RNNBase)]
    one_dimension = any(isinstance(layer, _CONVOLUTIONS_1D) for layer in layers)
    return 1 if one_dimension and all(isinstance(layer, _ConvNd) for layer in layers) else None


def reading_weight(module: nn.Module, num_features: int) -> Tensor | None:
    """(M, D), the weight with which a linear layer or a convolution (at each offset) reads D features.

    None if it reads another number of features, or if an output does not read all."""
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
    """The input of a linear layer or convolution as a point; its features have the dimension of the output's."""
    return Point(f"input of {name}", layer, is_input=True, feature_dim=feature_dim_of(layer), reader=layer)


def _inside(prefix: str, module: nn.Module, classifier: nn.Module | None) -> Iterator[Point]:
    """The boundaries within a module that is not a block itself."""
    last: Point | None = None  # after a linear layer or convolution and the passive layers behind it
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
                last = Point(name, child, feature_dim=feature_dim_of(child) or _dim_after(last, child))
    if last is not None:
        yield last


def _dim_after(last: Point, child: nn.Module) -> int | None:
    """The feature dimension after a module behind a layer: torch's activations keep it, other modules may move it."""
    return last.feature_dim if type(child).__module__.startswith("torch.nn.") else None


def _is_chain(module: nn.Module) -> bool:
    """Whether the module is a list of blocks: several modules of one class with submodules."""
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
    """Whether the module is a layer with a weight matrix: a linear layer or a convolution."""
    weight = None if has_layers(module) else weight_of(module)
    if weight is None:
        return False
    return isinstance(module, _ConvNd) or (weight.ndim == 2 and hasattr(module, "in_features"))
