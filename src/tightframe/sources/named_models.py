"""Models by name with their transforms and class names: `timm:NAME`, `hf:FOLDER` (transformers), `module:function`."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tightframe.checks import listed
from tightframe.errors import ChoiceError, LoaderError, MissingExtraError, StateError
from tightframe.reading import read_checkpoint, read_safetensors
from tightframe.sources.model import OUTPUT

KINDS = ("timm:NAME", "hf:FOLDER", "module:function")
_NESTED = ("state_dict", "model_state_dict", "model", "module")  # entries of checkpoints with the weights
_PREFIXES = ("module.", "_orig_mod.")  # prefixes of names in wrapped models


@dataclass(frozen=True, kw_only=True)
class NamedModel:
    """A model with its transform, class names or tokenizer.

    Attributes:
        model: the model in eval mode. title: its name from the caller.
        transform: converts a PIL image to a tensor or to the mapping that the model takes; None without one. A method
            `with_mask(image, mask)` transforms both together, to a mapping with labels.
        class_names: names of the outputs in order, or None.
        tokenizer: tokenizer of a language model.
        features: the layer to measure for a model without classifier; None otherwise.
        notes: sentences for the report.
    """

    model: nn.Module
    title: str
    transform: Callable[[Any], Any] | None = None
    class_names: Sequence[str] | None = None
    tokenizer: Any = None
    features: str | None = None
    notes: tuple[str, ...] = ()


def load_model(name: str, checkpoint: str | Path | None = None, *, num_classes: int | None = None) -> NamedModel:
    """A model by name. Nothing is downloaded.

    Args:
        name: `timm:NAME`, built by timm; `hf:FOLDER`, saved by transformers; or `module:function`, imported from the
            current folder or the installed packages. The function has no arguments and returns a model, or (model,
            transform); instead of a function, it may be a model.
        checkpoint: file with all weights: .safetensors, or .pt and .pth with tensors only.
        num_classes: K of a timm model without a checkpoint; with one, its classifier defines K.

    Raises: ChoiceError for unknown names; MissingExtraError; StateError for folders and checkpoints that don't fit,
    with the first such entry; LoaderError for a function with a different result.
    """
    kind, _, rest = name.partition(":")
    file, _, function = name.rpartition(":")
    if file.endswith(".py") and kind not in _BUILDERS:
        raise ChoiceError(f"model must name a module; got {name!r}. Give {Path(file).stem}:{function}, not a path.")
    if not kind or not rest:
        raise ChoiceError(f"model must be one of {', '.join(KINDS)}; got {name!r}.")
    weights = None if checkpoint is None else _weights(Path(checkpoint))
    build = _BUILDERS.get(kind)
    named = _of_function(kind, rest) if build is None else build(rest, weights, num_classes)
    if weights is not None:
        _load(named.model, weights, Path(checkpoint or ""))
    named.model.eval()
    return named


# ---------------------------------------------------------------------------------------------- weights


def _weights(path: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint by their names in the bare model. Raises: StateError."""
    if path.suffix == ".safetensors":
        content: Mapping[str, Any] = read_safetensors(path)[0]
    elif path.suffix in (".pt", ".pth"):
        content = read_checkpoint(path)
    else:
        raise StateError(f"the checkpoint {path} must be a .safetensors, .pt or .pth file.")
    for entry in _NESTED:
        if isinstance(content.get(entry), Mapping):
            content = content[entry]
    weights = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not weights or "" in weights:
        raise StateError(
            f"the checkpoint {path} must map names to tensors; it contains: {listed(list(content)) or 'nothing'}."
        )
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights


def _load(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Load all weights. Raises: StateError with the first missing or unexpected entry, or first wrong shape."""
    own = model.state_dict(keep_vars=True)
    for name, value in weights.items():
        if name in own and own[name].shape != value.shape:
            raise StateError(
                f"{path} has {name!r} with shape {tuple(value.shape)}; the model needs {tuple(own[name].shape)}."
                + _other_classes(model, name, value)
            )
    loaded = {id(own[name]) for name in weights if name in own}  # of tied weights, one suffices
    missing = [name for name, value in own.items() if name not in weights and id(value) not in loaded]
    unexpected = [name for name in weights if name not in own]
    for what, names in (("lacks", missing), ("has an unexpected", unexpected)):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise StateError(f"{path} {what} {names[0]!r}{more}; pass a checkpoint of this model.")
    model.load_state_dict(weights, strict=False)


def _other_classes(model: nn.Module, name: str, value: Tensor) -> str:
    """Advice if the classifiers have different numbers of classes."""
    last = [each for each, module in model.named_modules() if isinstance(module, nn.Linear)][-1:]
    if name.rpartition(".")[0] not in last:
        return ""
    return f" Build the model with {len(value)} classes."


# ---------------------------------------------------------------------------------------------- timm


def _of_timm(name: str, weights: Mapping[str, Tensor] | None, num_classes: int | None) -> NamedModel:
    try:
        import timm
        from timm.data import create_transform, resolve_model_data_config
    except ImportError as error:
        raise MissingExtraError(
            (error.name or "timm").partition(".")[0], "timm"
        ) from None  # torchvision may be missing
    if not timm.is_model(name):
        near = timm.list_models(f"*{name}*") or timm.list_models(f"*{name[:6]}*")
        raise ChoiceError(f"timm has no model {name!r}; similar names: {listed(near, 5) or 'none'}.")
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)  # the same random weights in every run, so that an extraction can be resumed
        model = timm.create_model(name, pretrained=False)
        classes = num_classes if weights is None else _classes_in(weights, model)
        if classes is not None and classes != getattr(model, "num_classes", classes):
            model = timm.create_model(name, pretrained=False, num_classes=classes)
    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    names = (getattr(model, "pretrained_cfg", None) or {}).get("label_names")
    return NamedModel(
        model=model,
        title=f"timm:{name}",
        transform=transform,
        class_names=names if names and len(names) == getattr(model, "num_classes", 0) else None,
        features=OUTPUT if getattr(model, "num_classes", None) == 0 else None,
        notes=() if weights is not None else (f"the weights of timm:{name} are random, since there is no checkpoint.",),
    )


def _classes_in(weights: Mapping[str, Tensor], model: nn.Module) -> int | None:
    """Number of classes of the classifier in a checkpoint of timm: 0 without a classifier, None if unknown."""
    names = (getattr(model, "pretrained_cfg", None) or {}).get("classifier")
    if not names:
        return None
    name = names if isinstance(names, str) else names[0]
    return len(weights[f"{name}.weight"]) if f"{name}.weight" in weights else 0


# ---------------------------------------------------------------------------------------------- transformers


def _of_transformers(folder: str, weights: Mapping[str, Tensor] | None, num_classes: int | None) -> NamedModel:
    try:
        import transformers
    except ImportError:
        raise MissingExtraError("transformers", "transformers") from None
    if not (Path(folder) / "config.json").is_file():
        raise StateError(f"{folder} must be a folder of transformers' save_pretrained; it has no config.json.")
    config = _loaded(folder, transformers.AutoConfig)
    architecture = next(iter(config.architectures or ()), "")
    kind = next((kind for part, kind in _AUTO if part in architecture), "AutoModel")
    model, notes = _transformers_model(folder, getattr(transformers, kind), config, weights)
    names = [str(config.id2label[place]) for place in sorted(config.id2label or {})]
    generic = all(each == f"LABEL_{place}" for place, each in enumerate(names))
    classifies = kind.startswith("AutoModelFor") and kind != "AutoModelForCausalLM"
    texts, images = kind == "AutoModelForCausalLM", (Path(folder) / "preprocessor_config.json").is_file()
    return NamedModel(
        model=model,
        title=f"hf:{folder}",
        transform=_Processor(_loaded(folder, transformers.AutoImageProcessor)) if images else None,
        class_names=names if classifies and not generic else None,
        tokenizer=_loaded(folder, transformers.AutoTokenizer) if texts else None,
        features=OUTPUT if kind == "AutoModel" else None,
        notes=notes,
    )


_AUTO = (
    ("ForImageClassification", "AutoModelForImageClassification"),
    ("ForSemanticSegmentation", "AutoModelForSemanticSegmentation"),
    ("ForCausalLM", "AutoModelForCausalLM"),
    ("LMHeadModel", "AutoModelForCausalLM"),
)
"""Parts of architecture names of transformers, and the classes that load them; `AutoModel` loads all others."""


def _loaded(folder: str, kind: Any, **options: Any) -> Any:
    """Load an object from a folder with transformers, silently. Raises: StateError if that fails."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        return kind.from_pretrained(folder, local_files_only=True, **options)
    except Exception as error:  # a damaged folder makes transformers fail in any way
        raise StateError(f"transformers can't load {kind.__name__} from {folder}: {error}") from None
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def _transformers_model(
    folder: str, kind: Any, config: Any, weights: Mapping[str, Tensor] | None
) -> tuple[nn.Module, tuple[str, ...]]:
    """The model, and a note on random weights. Raises: StateError if a classifier has random weights."""
    if weights is not None:
        return kind.from_config(config), ()
    model, info = _loaded(folder, kind, output_loading_info=True)
    missing = sorted(info["missing_keys"])
    if missing and kind.__name__ != "AutoModel":
        raise StateError(
            f"the weights in {folder} lack {missing[0]!r}, which {kind.__name__} needs. Save the whole model."
        )
    return model, (f"{folder} lacks some weights, which are random: {listed(missing)}.",) if missing else ()


class _Processor:
    """transformers' image processor as a transform."""

    def __init__(self, processor: Any):
        self._processor = processor

    def __call__(self, image: Any) -> dict[str, Tensor]:
        return self._first(self._processor(images=image, return_tensors="pt"))

    def with_mask(self, image: Any, mask: Any) -> dict[str, Tensor]:
        """Inputs of an image and the labels of its mask of class indices."""
        return self._first(self._processor(images=image, segmentation_maps=np.array(mask), return_tensors="pt"))

    @staticmethod
    def _first(batch: Mapping[str, Any]) -> dict[str, Tensor]:
        return {name: values[0] for name, values in batch.items()}


_BUILDERS: dict[str, Callable[[str, Mapping[str, Tensor] | None, int | None], NamedModel]] = {
    "timm": _of_timm,
    "hf": _of_transformers,
}


# ---------------------------------------------------------------------------------------------- a function


def _of_function(module: str, function: str) -> NamedModel:
    if "" not in sys.path:
        sys.path.insert(0, "")  # the current folder, as for `python -m`
    try:
        home = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise failure_in(f"importing the module {module!r}", error) from error
        raise ChoiceError(
            f"there is no module {module!r} in the current folder or installed; a model is one of {', '.join(KINDS)}."
        ) from None
    except (Exception, SystemExit) as error:
        raise failure_in(f"importing the module {module!r}", error) from error
    if not hasattr(home, function):
        raise ChoiceError(f"the module {module!r} has no function {function!r}.")
    build = getattr(home, function)
    if not callable(build):
        raise LoaderError(f"{module}:{function} must be a function or a torch module; got {type(build).__name__}.")
    made = build if isinstance(build, nn.Module) else _called(build, f"{module}:{function}")
    model, transform = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(model, nn.Module) or not (transform is None or callable(transform)):
        raise LoaderError(
            f"{module}:{function} must return a torch module, or (module, transform); got {type(made).__name__}."
        )
    return NamedModel(model=model, title=f"{module}:{function}", transform=transform)


def _called(build: Callable[[], Any], name: str) -> Any:
    """What a function of the user returns. Raises: LoaderError if it needs arguments or fails."""
    with contextlib.suppress(ValueError):  # functions written in C may have no signature
        try:
            inspect.signature(build).bind()
        except TypeError as error:
            raise LoaderError(
                f"{name} is called without arguments: {error}. Give a function that needs none."
            ) from None
    try:
        return build()
    except (Exception, SystemExit) as error:
        raise failure_in(name, error) from error


def failure_in(what: str, error: Exception | SystemExit, on: object = "") -> LoaderError:
    """The error for code of the user that failed, with the place in that code.

    Args:
        what: the subject of the sentence, such as "models:make". on: its input, if it has one.
    """
    on = f" on {on}" if on else ""
    if isinstance(error, SystemExit):
        return LoaderError(f"{what} called sys.exit({'' if error.code is None else repr(error.code)}){on}.")
    if isinstance(error, SyntaxError) and error.filename:
        file, line, message = error.filename, error.lineno, error.msg  # the message of the error repeats the place
    else:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if not frame.filename.startswith(_LIBRARIES)]
        file, line, message = (own or frames)[-1].filename, (own or frames)[-1].lineno, str(error)
    return LoaderError(f"{what} failed{on}: {type(error).__name__}: {message} ({file}, line {line}).")


_LIBRARIES = (
    f"{Path(torch.__file__).parent}{os.sep}",
    f"{Path(__file__).parents[1]}{os.sep}",
    contextlib.__file__,
    "<frozen ",
)
"""Starts of paths: a failure is placed in their code only if no other code is involved."""
