"""What `tightframe measure` and `tightframe extract` run: a model and its data, from the flags that name them."""

from __future__ import annotations

import os
import traceback
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tightframe.cli.failures import is_of_memory
from tightframe.errors import OptionError, TightframeError
from tightframe.flags import flags_of, option
from tightframe.options import Measuring

if TYPE_CHECKING:  # the command line lists these options without importing torch
    from torch.utils.data import DataLoader

    from tightframe.sources import ModelSource
    from tightframe.sources.images import Sample
    from tightframe.sources.named_models import NamedModel

NEEDED = (
    *((name, "model") for name in ("checkpoint", "images", "data", "texts", "batch_size", "device", "own_classifier")),
    *((name, "images") for name in ("masks", "image_size", "workers")),
    ("test_masks", "masks"),
    ("length", "texts"),
    ("data_folder", "data"),
)
"""Flags, and the flag without which each means nothing."""
DATA = ("images", "data", "texts")
IMAGE_BATCH, TEXT_BATCH = 64, 4
MOST_PIXELS = 16_384
"""Largest height and width of images."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model and its data. The fields are the command's flags."""

    model: str | None = option(
        None, "Model: timm:NAME, hf:FOLDER (transformers) or module:function (your own).", type=str
    )
    checkpoint: Path | None = option(
        None, "Load the model's weights from this .safetensors, .pt or .pth file.", type=Path
    )
    images: Path | None = option(
        None, "Folder of training images: one subfolder per class, or any images with --masks.", type=Path
    )
    masks: Path | None = option(
        None, "Folder of masks of class indices; each mask has the same file name as its image.", type=Path
    )
    data: str | None = option(None, "Built-in data set instead of --images; see `tightframe datasets`.", type=str)
    data_folder: Path | None = option(None, "Folder that holds the files of --data.", type=Path)
    texts: list[Path] | None = option(None, "Text files for a causal language model; .gz is read too.", type=list[Path])
    test: Path | None = option(None, "Held-out data of the same kind, for NC4 and the detectors.", type=Path)
    test_masks: Path | None = option(None, "Folder of masks for the images of --test. Needs --masks.", type=Path)
    ood: Path | None = option(
        None,
        "Out-of-distribution data, for NC5 and the detectors: any images; with --data, the name of a data set.",
        type=Path,
    )
    length: int | None = option(None, "Tokens per sequence. Default: 512, or the model's maximum.", type=int)
    image_size: int | None = option(
        None, "Height and width in pixels, for a model without its own transform. Default: 224.", type=int
    )
    batch_size: int | None = option(None, "Samples per batch. Default: 64 images, 4 sequences.", type=int)
    workers: int | None = option(
        None, "Number of processes that load images. Default: 0, the main process loads them.", type=int
    )
    device: str | None = option(
        None, "Device that runs the model: cpu, cuda, cuda:1, mps. Default: cuda if available, else cpu.", type=str
    )
    own_classifier: bool = option(True, "Measure the model's classifier as well as the features.")

    def require_consistent(self, options: Mapping[str, Any]) -> None:
        """Raise OptionError for flags that exclude each other, lack another, or are out of range.

        Args:
            options: of the measurement.
        """
        for name, needed in NEEDED:
            if self._is_given(name) and not self._is_given(needed):
                raise OptionError(f"{_flag(name)} needs {_flag(needed)}.")
        chosen = [_flag(name) for name in DATA if self._is_given(name)]
        if self.model is not None and len(chosen) != 1:
            named = f"; got {' and '.join(chosen)}" if chosen else ""
            raise OptionError(f"--model needs one of {', '.join(map(_flag, DATA))}{named}.")
        if self.data is not None and self.test is not None:
            raise OptionError("--test can't go with --data, which has held-out images of its own.")
        if self.masks is not None and (self.test is None) != (self.test_masks is None):
            raise OptionError("--test and --test-masks go together where --masks is given.")
        for name, least in (("length", 2), ("image_size", 1), ("batch_size", 1), ("workers", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise OptionError(f"{_flag(name)} must be at least {least}; got {value}.")
        if self.model is not None and options.get("next_token") and not self.texts:
            raise OptionError("--next-token needs --texts.")
        if self.image_size is not None:
            self._require_room(self.image_size)
        if self.device is not None:
            _require_device(self.device)

    def _require_room(self, size: int) -> None:
        from tightframe.memory import require_memory

        if size > MOST_PIXELS:
            raise OptionError(f"--image-size must be at most {MOST_PIXELS:,}; got {size}.")
        batch = self.batch_size or IMAGE_BATCH
        require_memory(batch * 3 * size**2 * 4, f"a batch of {batch} images with --image-size {size}")

    def _is_given(self, name: str) -> bool:
        default = type(self).__dataclass_fields__[name].default
        return getattr(self, name) not in (default, None, [])

    # ------------------------------------------------------------------ source

    def source(self, options: Mapping[str, Any]) -> ModelSource:
        """The source of the model's features. Raises: OptionError, and the errors of what is loaded."""
        from tightframe.sources.named_models import load_model

        settings = Measuring.of(options)
        assert self.model is not None
        named = load_model(self.model, self.checkpoint, num_classes=settings.num_classes or self._number_of_classes())
        self._place(named)
        if not self.own_classifier:
            settings = self._without_classifier(named, settings)
        elif named.features is not None and settings.features is None and settings.classifier is None:
            settings = settings.having(features=named.features)
        source = self._of_texts(named, settings) if self.texts else self._of_images(named, settings)
        source.title = f"Neural collapse of {named.title} on {self._data_name()}"
        source.notes += named.notes
        samples_origin = source.data_origin
        source.data_origin = lambda: {**self._origin(), **samples_origin()}
        return source

    def _origin(self) -> dict[str, Any]:
        """The flags on which the samples and their order depend, with absolute paths."""
        names = ("images", "masks", "data", "data_folder", "texts", "test", "test_masks", "ood", "length")
        batch = self.batch_size or (TEXT_BATCH if self.texts else IMAGE_BATCH)
        given = {name: _absolute(getattr(self, name)) for name in names if self._is_given(name)}
        if self.data is not None and self.ood is not None:
            given["ood"] = str(self.ood)  # the name of a data set
        return {**given, "batch_size": batch}

    @contextmanager
    def failures(self) -> Iterator[None]:
        """Raise what fails in a forward pass of the model as a LoaderError that names the model and the batch."""
        from tightframe.sources.named_models import failure_in

        try:
            yield
        except TightframeError:
            raise
        except (Exception, SystemExit) as error:
            batch = _batch_of_failure(error)
            if batch is None or (isinstance(error, Exception) and is_of_memory(error)):
                raise
            raise failure_in(f"the model {self.model}", error, on=f"a batch of {batch}") from error

    def _number_of_classes(self) -> int | None:
        """Of the data, where they tell."""
        if self.images is not None and self.masks is None:
            from tightframe.sources.images import class_folders

            return len(class_folders(self.images))
        if self.data is not None:
            from tightframe.datasets import DATASETS

            return DATASETS[self.data].num_classes if self.data in DATASETS else None
        return None

    def _data_name(self) -> str:
        if self.texts:
            return self.texts[0].name + (f" and {len(self.texts) - 1} more" if len(self.texts) > 1 else "")
        return self.data or (self.images or Path()).resolve().name

    def _place(self, named: NamedModel) -> None:
        import torch

        place = self.device or (f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu")
        try:
            named.model.to(place)
        except (RuntimeError, AssertionError) as error:
            raise OptionError(f"--device {place}: {str(error).splitlines()[0]}") from None

    def _without_classifier(self, named: NamedModel, settings: Measuring) -> Measuring:
        """Settings that measure what the model returns, its classifier taken out."""
        from torch import nn

        from tightframe.heads import replace_classifier
        from tightframe.sources.model import OUTPUT

        if settings.features is not None:
            raise OptionError("--no-own-classifier and --features-of both say what to measure; give one.")
        if named.features is None:
            name = settings.classifier
            replace_classifier(named.model, nn.Identity(), name if isinstance(name, str) else None)
        return settings.having(features=OUTPUT, classifier=None)

    def _of_texts(self, named: NamedModel, settings: Measuring) -> ModelSource:
        from tightframe.sources.language_models import from_texts

        if named.tokenizer is None:
            raise OptionError(f"--texts needs a causal language model in --model hf:FOLDER; got {named.title}.")
        source = from_texts(
            named.model,
            named.tokenizer,
            self.texts or (),
            test=None if self.test is None else [self.test],
            ood=None if self.ood is None else [self.ood],
            length=self.length,
            batch_size=self.batch_size or TEXT_BATCH,
            options=settings,
        )
        files = [*(self.texts or ()), *(path for path in (self.test, self.ood) if path is not None)]
        source.data_origin = lambda: {"bytes": [path.stat().st_size for path in files if path.exists()]}
        return source

    def _of_images(self, named: NamedModel, settings: Measuring) -> ModelSource:
        from tightframe.sources import ModelSource
        from tightframe.sources.images import Images, image_loader, mode_of, refuse_errors

        if named.tokenizer is not None:
            raise OptionError(f"{named.title} is a language model: it needs --texts.")
        splits, classes, notes = self._samples(named, settings)
        transform, more = self._transform(named)
        mode = mode_of(named.model)

        def loader(split: str) -> DataLoader[Any] | None:
            if split not in splits:
                return None
            images = Images(splits[split], transform, mode, classes)
            return image_loader(images, self.batch_size or IMAGE_BATCH, self.workers or 0)

        source = ModelSource(
            named.model,
            loader("train"),
            test=loader("test"),
            ood=loader("ood"),
            options=settings.having(unpack=refuse_errors),
        )
        source.notes += [*notes, *more]
        own = {} if transform is None or named.transform is not None else {"image_size": transform.size}
        source.data_origin = lambda: {"samples": {name: _checksum(each) for name, each in splits.items()}, **own}
        return source

    def _transform(self, named: NamedModel) -> tuple[Any, list[str]]:
        """The model's own transform, or else a plain one, and a note that says so."""
        from tightframe.sources.images import IMAGE_SIZE, PlainTransform

        if self.data is not None and named.transform is None:
            return None, []
        if named.transform is not None:
            if self.image_size is not None:
                raise OptionError(f"--image-size can't go with {named.title}, which has a transform of its own.")
            return named.transform, []
        plain = PlainTransform(self.image_size or IMAGE_SIZE)
        return plain, [f"{named.title} has no transform of its own: images are {plain}."]

    # ------------------------------------------------------------------ samples

    def _samples(
        self, named: NamedModel, settings: Measuring
    ) -> tuple[dict[str, Sequence[Sample]], Sequence[str] | None, list[str]]:
        """Samples by split, names of the classes, notes."""
        from tightframe.sources.images import by_class, images_below, with_masks

        if self.data is not None:
            return self._of_data_set(named, settings)
        assert self.images is not None
        notes: list[str] = []
        if self.masks is not None:
            classes = named.class_names
            splits = {"train": with_masks(self.images, self.masks)}
            if self.test is not None and self.test_masks is not None:
                splits["test"] = with_masks(self.test, self.test_masks)
        else:
            classes, notes = self._classes(named, settings)
            splits = {"train": by_class(self.images, classes)[0]}
            if self.test is not None:
                splits["test"] = by_class(self.test, classes)[0]
        if self.ood is not None:
            splits["ood"] = [(path, None) for path in images_below(self.ood)]
        return splits, classes, notes  # type: ignore[return-value]

    def _of_data_set(
        self, named: NamedModel, settings: Measuring
    ) -> tuple[dict[str, Sequence[Sample]], Sequence[str], list[str]]:
        from tightframe.datasets import load, load_outside

        data = load(self.data or "", self.data_folder)
        self._require_classes(data.num_classes, f"--data {data.name} has {data.num_classes} classes", named, settings)

        def pairs(images: Any, labels: Any) -> list[Sample]:
            return [(image, int(label)) for image, label in zip(images, labels, strict=True)]

        splits = {
            "train": pairs(data.train_images, data.train_labels),
            "test": pairs(data.test_images, data.test_labels),
        }
        if self.ood is not None:
            outside = load_outside(str(self.ood), data.image_shape, len(data.test_images), data_folder=self.data_folder)
            splits["ood"] = [(image, None) for image in outside]
        return splits, data.class_names, []  # type: ignore[return-value]

    def _classes(self, named: NamedModel, settings: Measuring) -> tuple[list[str], list[str]]:
        """Classes in the order of their indices, and a note on that order. Raises: OptionError if it can't be told."""
        from tightframe.sources.images import class_folders

        assert self.images is not None
        folders = [each.name for each in class_folders(self.images)]
        own = list(named.class_names or ())
        if own and set(folders) <= set(own) and self.own_classifier:
            return own, []
        strange = next((name for name in folders if name not in own), "")
        other = f", and {strange!r} is none of the model's classes" if own else ""
        self._require_classes(len(folders), f"{self.images} has {len(folders)} subfolders{other}", named, settings)
        note = "classes are numbered as the subfolders in alphabetical order, as torchvision's ImageFolder does."
        return folders, [note]

    def _require_classes(self, classes: int, what: str, named: NamedModel, settings: Measuring) -> None:
        """Raise OptionError if the model's classifier, where it is measured, has other classes than the data."""
        from tightframe.hooks import find_classifier

        encoder = named.features is not None or settings.features is not None
        if not self.own_classifier or (encoder and settings.classifier is None):
            return
        found = find_classifier(named.model, settings.classifier).outputs
        if max(found, 2) != classes:
            rename = "Name the subfolders as the model's classes, or measure" if named.class_names else "Measure"
            raise OptionError(
                f"{what}, but the classifier of {named.title} has {found} outputs. {rename} its input alone with "
                "--no-own-classifier."
            )


def _flag(name: str) -> str:
    """The flag that sets a field to other than its default."""
    flag, field = next((flag, field) for flag, field in flags_of(Subject) if field.name == name)
    return f"--no-{flag.removeprefix('--')}" if field.default is True else flag


def _require_device(name: str) -> None:
    """Raise OptionError unless torch can run a model on the device."""
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type == "meta":
        raise OptionError(f"--device must be cpu, cuda, cuda:N, mps or another device of torch; got {name!r}.")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ImportError) as error:
        raise OptionError(f"--device {name}: {str(error).splitlines()[0]}") from None


def _absolute(value: Any) -> Any:
    if isinstance(value, list):
        return [_absolute(each) for each in value]
    return str(value.resolve()) if isinstance(value, Path) else value


def _checksum(samples: Sequence[Sample]) -> str:
    """The number of samples, with a checksum of their files' names and sizes, and of their classes."""
    total = 0
    for sample in samples:
        files = [(part.name, part.stat().st_size) for part in sample if isinstance(part, Path)]
        classes = [part for part in sample if isinstance(part, int)]
        total = zlib.crc32(repr((files, classes)).encode("utf-8", "surrogateescape"), total)
    return f"{len(samples)} samples, checksum {total:08x}"


def _batch_of_failure(error: BaseException) -> str | None:
    """The tensors that a module of torch was called with when its forward pass failed; None for other failures, also
    those in a hook of this package."""
    import torch
    from torch import nn

    calls = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    place = next((i for i, each in enumerate(calls) if each.f_code is nn.Module.__call__.__code__), None)
    if place is None or any(str(each.f_globals.get("__name__")).startswith("tightframe.") for each in calls[place:]):
        return None
    values = (*calls[place].f_locals["args"], *calls[place].f_locals["kwargs"].values())
    shapes = [
        f"{tuple(each.shape)} {str(each.dtype).removeprefix('torch.')}"
        for each in values
        if isinstance(each, torch.Tensor)
    ]
    return " and ".join(shapes) or "no tensors"
