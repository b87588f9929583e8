"""`ModelSource`: runs a model over loaders and captures its features."""

from __future__ import annotations

import inspect
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tightframe.checks import listed
from tightframe.errors import ClassifierError, EmptyBatchError, LabelError, LayerError, LoaderError, StateError
from tightframe.hooks import (
    CapturedFeatures,
    Classifier,
    Point,
    bare_model,
    capture,
    choose_layers,
    classifier_input,
    device_of,
    evaluation,
    find_classifier,
)
from tightframe.hooks.classifier import is_stored
from tightframe.hooks.layers import reading_weight
from tightframe.layout import labels_at
from tightframe.options import Measuring
from tightframe.processes import every_process, rank, world_size
from tightframe.sources.batches import Batch, Unpacking, as_loader
from tightframe.sources.labels import SOFT_NOTE, ClassLabels, Targets
from tightframe.sources.loading import first_process_buffers, moved, repeats, unpadded_rows, with_workers_of_its_own
from tightframe.sources.next_token import IGNORED, are_shifted, next_labels, predicts_next_token
from tightframe.sources.normalisation import GAP, NormalisationCheck
from tightframe.sources.outputs import agreement, decisions_of, logits_in
from tightframe.sources.sampling import rows_in, same_randomness
from tightframe.sources.source import (
    OOD,
    SPLITS,
    START,
    TEST,
    TRAIN,
    FeatureBatch,
    FeatureSource,
    LinearClassifier,
    with_progress,
)

OUTPUT = "output"
"""Layer name of the model's output."""

_MEASURED: WeakSet[nn.Module] = WeakSet()  # models with an open source


class ModelSource(FeatureSource):
    """Runs a model over loaders in eval mode without gradients, and captures its features.

    Batches are `Batch`es, (inputs, labels), mappings with labels, or other formats that `Unpacking` recognises. The
    model is unchanged afterwards.

    Args:
        model: any module; called with a batch's inputs on the device of its first parameter.
        train, test, ood: batches, a data set, or (inputs, labels). Out-of-distribution batches need no labels.
        options: uses layers, features, classifier, num_classes, class_names, positions, next_token, ignore_index,
            unpack, distributed, progress and decisions.

    Raises: ClassifierError if the classifier doesn't fit, LayerError for unknown layers. On iteration: LoaderError,
    LabelError, DtypeError for invalid data; StateError if the model is already being measured.

    >>> import torch
    >>> from torch import nn
    >>> from tightframe.sources import ModelSource
    >>> model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3))
    >>> source = ModelSource(model, [(torch.ones(5, 2), torch.tensor([0, 1, 2, 0, 1]))], options={"progress": False})
    >>> source.num_classes, source.classifier.weight.shape
    (3, torch.Size([3, 4]))
    """

    def __init__(
        self,
        model: nn.Module,
        train: Any,
        *,
        test: Any = None,
        ood: Any = None,
        options: Measuring | Mapping[str, Any] | None = None,
    ):
        if not isinstance(model, nn.Module):
            raise LoaderError(
                f"the model must be a torch module; got {type(model).__name__}. Call measure(model, loader)."
            )
        self._options = options = Measuring.of(options or {})
        self._model = bare = bare_model(model)
        splits = {TRAIN: train, TEST: test, OOD: ood}
        self._loaders = {name: as_loader(data, SPLITS[name]) for name, data in splits.items() if data is not None}
        self.splits = tuple(self._loaders)
        self.repeatable = repeats(self._loaders.get(TRAIN, ()))
        self.device = device_of(bare)
        self._shared = options.distributed and world_size() > 1
        self._next_token = predicts_next_token(bare) if options.next_token is None else options.next_token
        self.ignore_index = options.ignore_index
        if self.ignore_index is None and (self._next_token or _takes_mask(bare)):
            self.ignore_index = IGNORED
        self._head, self._last = _last_point(bare, options)
        self._points = _points(bare, options, self._head, self._last)
        self.class_names = _class_names(options.class_names, self._loaders.get(TRAIN))
        self.num_classes = self._known_classes()
        self._classifies = options.task == "classification"
        self._labels = ClassLabels(self.class_names, self.num_classes) if self._classifies else Targets()
        self._unpack = Unpacking(bare, self.num_classes, options.unpack)
        self._layers: list[str] | None = None  # layers of every batch, the last layer at the end
        self._agreement: float | None = None  # share of the classifier's decisions that are the model's, if not 1
        self._by_output = self._head is None or self._head.weight is None  # whether the model's output decides
        self._rows: tuple[slice, ...] | None = None  # rows of its input on which the classifier is called; None for all
        self._module_output: Any = None  # output of the classifier's module for the first batch
        self.notes: list[str] = []
        self.data_origin: Callable[[], Mapping[str, Any]] = dict  # returns plain values that identify the data
        self._captured: CapturedFeatures
        self._normalisation: NormalisationCheck | None = None

    # ------------------------------------------------------------------ before the first batch

    def _known_classes(self) -> int | None:
        given, names, head = self._options.num_classes, self.class_names, self._head
        rows = None if head is None else len(head.weight) if head.weight is not None else head.outputs or None
        if rows is not None and given is not None and given != rows and not self._transposed(given):
            raise ClassifierError(f"num_classes is {given}, but the classifier {head.name!r} has {rows} rows.")  # type: ignore[union-attr]
        if given is not None or self._options.task != "classification":
            return given if given is not None else rows
        if self._options.class_names is not None and rows is not None and len(names or ()) > rows:
            raise ClassifierError(f"class_names has {len(names or ())} names, but the classifier has {rows} rows.")
        return rows if rows is not None else len(names) if names else None

    def _transposed(self, classes: int) -> bool:
        """Whether the given weight is (D, K); it is then transposed."""
        head = self._head
        if head is None or head.module is not None or head.weight is None or head.weight.shape[1] != classes:
            return False
        self._head = replace(head, weight=head.weight.mT.contiguous())
        return True

    @property
    def classifier(self) -> LinearClassifier | None:  # type: ignore[override]
        """The linear classifier; a weight computed from others is current after the first batch."""
        head = self._head
        if head is None or head.weight is None:
            return None
        decides = head.decides_linearly and not self._by_output
        return LinearClassifier(head.weight, head.bias, head.name, head.fixed, decides)

    def consumer(self, layer: str, num_features: int) -> Tensor | None:
        point = self._captured.point_of(layer)
        if layer == self._last.name or point.reader is None:
            return None
        weight = reading_weight(point.reader, num_features)
        return None if weight is None else weight.to("cpu", torch.float64)

    # ------------------------------------------------------------------ running

    @contextmanager
    def opened(self) -> Iterator[None]:
        """A context with the model in eval mode, without gradients, with hooks. It restores random generators.

        Raises: StateError if the model is already being measured, for example in another thread.
        """
        bare = self._model
        if bare in _MEASURED:
            raise StateError("this model is already being measured; wait for the end of that measurement.")
        with ExitStack() as stack:
            _MEASURED.add(bare)
            stack.callback(_MEASURED.discard, bare)
            if self._layers is not None:  # the model may have changed since an earlier measurement
                self._head, self._last = _last_point(bare, self._options)
                self._points = _points(bare, self._options, self._head, self._last)
                self._layers, self.notes = None, []
                self._by_output = self._head is None or self._head.weight is None
                self._agreement = None
            stack.enter_context(evaluation(bare))
            stack.enter_context(first_process_buffers(bare, START) if self._shared else nullcontext())
            self._rewind = stack.enter_context(same_randomness(*self._loaders.values()))
            self._captured = stack.enter_context(capture(bare, self._points))
            self._normalisation = NormalisationCheck(bare, self._captured, self._last.name)
            stack.enter_context(self._short_logits())
            if self._head is not None and self._head.module is not None:
                stack.callback(self._head.module.register_forward_hook(self._keep_output).remove)
            if self.num_classes is None and self._classifies:
                self.num_classes = self._labels.num_classes = self._largest_label() + 1
            yield

    def _keep_output(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self._layers is None:
            self._module_output = output

    @contextmanager
    def _short_logits(self) -> Iterator[None]:
        """Call the output layer of a language model only on the needed positions: on a batch's first sequence until the
        layer is confirmed as classifier, then on one position. If logits decide, it is called on all positions."""
        options, head = self._options, self._head
        by_logits = options.decides and options.decisions == "all"
        module = None if head is None or not head.decides_linearly else head.module
        if not self._next_token or by_logits or module is None or module is self._model:
            yield
            return
        self._rows = (slice(1),)

        def shorten(module: nn.Module, args: tuple[Any, ...]) -> Any:
            if self._rows is None or not args or not isinstance(args[0], Tensor) or args[0].ndim < 3:
                return None
            return (args[0][self._rows], *args[1:])

        handle = module.register_forward_pre_hook(shorten)  # runs after the capturing hook
        try:
            yield
        finally:
            handle.remove()
            self._rows = None

    def _largest_label(self) -> int:
        """The largest label of a data set with unknown number of classes, from one pass over its labels."""
        loader = self._loaders[TRAIN]
        if self._next_token and (size := getattr(getattr(self._model, "config", None), "vocab_size", None)):
            return int(size) - 1
        if self._head is not None and self._head.function is not None:
            return 0  # the first logits give the number
        if not repeats(loader):
            raise LoaderError(
                "the number of classes is unknown, and the loader can be read only once. Pass num_classes=."
            )
        largest = -1
        with same_randomness(loader):
            for item in with_workers_of_its_own(loader):
                labels = self._labels(self._labelled(item).labels)
                labels = labels if self.ignore_index is None else labels[labels != self.ignore_index]
                largest = max(largest, int(labels.max()) if labels.numel() else -1)
        return max(each for each in every_process(largest, "the number of classes", shared=self._shared))

    def _labelled(self, item: Any) -> Batch:
        batch = self._unpack(item)
        if batch.labels is None and self._next_token:
            batch = replace(batch, labels=_ids(batch))
        if batch.labels is None:
            raise LoaderError(
                "batches must have labels: (inputs, labels), or a mapping with one of the entries labels, label, "
                f"targets, target, y; got {_described(item)}. Pass unpack=... to extract them."
            )
        return batch

    @property
    def origin(self) -> Mapping[str, Any]:  # type: ignore[override]
        """The model's name, size and checksum of weights, the captured layers, and `data_origin`."""
        model, checksum = self._model, 0
        for tensor in (*model.parameters(), *model.buffers()):
            raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            checksum = zlib.crc32(raw.numpy().data, checksum)
        points = [f"{point.name} ({point.positions})" if point.positions else point.name for point in self._points]
        return {
            "model": type(model).__qualname__,
            "parameters": sum(each.numel() for each in model.parameters()),
            "weights": checksum,
            "layers": points,
            "next_token": self._next_token,
            "ignore_index": self.ignore_index,
            **self.data_origin(),
        }

    def batches(self, split: str) -> Iterator[FeatureBatch]:
        """Features, labels and decisions of each batch of a split.

        Raises: LoaderError for batches without labels; EmptyBatchError for a loader without batches.
        """
        return self.batches_from(split, 0)

    def batches_from(self, split: str, start: int) -> Iterator[FeatureBatch]:
        """Like `batches`, but the model skips the first `start` batches."""
        loader = self._loaders.get(split)
        if loader is None:
            return
        first_pass = split == TRAIN and self._normalisation is not None and not self._normalisation.done
        room = unpadded_rows(loader) if self._shared else None
        empty = True
        total = _length(loader)
        self._rewind()  # a second pass then draws the same samples
        shown = with_progress(
            with_workers_of_its_own(loader), split, total, show=self._options.progress and rank() == 0
        )
        for number, item in enumerate(shown):
            empty = False
            if number < start:
                room = None if room is None else room - rows_in(item, self._options.unpack)
                continue
            if room is not None and room <= 0:
                break  # the rest is padding
            batch = self._run(item, labelled=split != OOD, watched=first_pass)
            if room is not None:
                size = len(batch.by_layer[self._last.name])
                batch = _first_rows(batch, room)
                room -= size
            yield batch
        if first_pass and self._normalisation is not None:
            self._normalisation.done = True
        if empty and not self._shared:
            raise EmptyBatchError(
                f"the loader of {SPLITS[split]} yielded no batch; a generator can be iterated only once."
            )

    def _run(self, item: Any, *, labelled: bool, watched: bool) -> FeatureBatch:
        """Run the model on a batch."""
        batch = self._labelled(item) if labelled else self._unpack(item, labelled=False)
        args = tuple(moved(value, self.device) for value in batch.args)
        kwargs = {name: moved(value, self.device) for name, value in batch.kwargs.items()}
        mask = kwargs.get("attention_mask")
        self._captured.mask = mask if isinstance(mask, Tensor) and mask.ndim == 2 else None
        raw = self._labels.tensor(batch.labels) if labelled else None
        if raw is not None:
            positions = self._classifies and raw.ndim > 1 and not self._columns(raw)
            self._captured.default_positions = "each" if positions else "mean"
        output = self._model(*args, **kwargs)
        features = self._captured.take()
        if self._last.name not in features and self._head is None:
            raise LayerError(
                f"the layer {self._last.name!r} must return a floating-point tensor; the forward pass gives none."
            )
        if self._last.name not in features:
            raise ClassifierError(
                f"the forward pass does not call the classifier {self._head.name!r}. "  # type: ignore[union-attr]
                'Name a different one with classifier="...", or, if the model uses only its weight, also name the '
                'layer whose output it is applied to: features="...".'
            )
        last = features[self._last.name]
        home = last.device  # a model may span several devices
        labels = None
        if raw is not None:
            labels = self._labels(raw, last.shape[:-1])
            ignored = IGNORED if self.ignore_index is None else self.ignore_index
            if self._next_token and self._layers is None and self._options.next_token is None:
                ids = _ids(batch)
                if isinstance(ids, Tensor) and are_shifted(labels, ids.to(labels.device), ignored):
                    self._next_token = False
            if self._next_token:
                labels = next_labels(labels.masked_fill(labels == IGNORED, ignored), self._captured.mask, ignored)
            elif self._captured.mask is not None and labels.shape == self._captured.mask.shape:
                labels = labels.masked_fill(self._captured.mask.to(labels.device) == 0, ignored)
            if self._classifies:
                self._require_known(labels)
            labels = labels.to(home, non_blocking=True)
        if self._layers is None and labelled and labels is not None:
            self._learn(features, labels, output)
            if self._by_output and self._rows is not None:  # all logits are needed
                self._rows = None
                output = self._model(*args, **kwargs)
                self._captured.take()
            self._module_output = None
        wanted = self._layers or [self._last.name]
        if missing := [name for name in wanted if name not in features]:
            raise LayerError(
                f"every forward pass must call {', '.join(map(repr, missing))}; some do not. Leave it out of layers=."
            )
        if watched and self._normalisation is not None:
            self._normalisation.see(args, kwargs, features)
        decided = self._decided(output, last) if self._by_output else None
        return FeatureBatch({name: features[name].to(home) for name in wanted}, labels, decided)

    def _columns(self, labels: Tensor) -> bool:
        """Whether the last dimension of raw labels is not a position: a single column, or one column per class."""
        if self._next_token or self._captured.mask is not None or labels.ndim != 2:
            return False
        if labels.shape[1] == 1 or labels.is_floating_point():
            return True
        return labels.shape[1] == self.num_classes and bool(((labels == 0) | (labels == 1)).all())

    def _require_known(self, labels: Tensor) -> None:
        """Raise if a label exceeds the classifier's rows; checked on the CPU only."""
        head = self._head
        if head is None or head.weight is None or labels.device.type != "cpu" or labels.numel() == 0:
            return
        largest, rows = int(labels.max()), self.num_classes
        smallest = int(labels.min())
        if rows is None or largest <= rows or largest == self.ignore_index or smallest < 0:
            return
        raise LabelError(
            f"labels must lie in [0, {rows}), the rows of the classifier {head.name!r}; the largest is {largest}. "
            f"Pass ignore_index={largest} if that label marks rows to ignore."
        )

    def _decided(self, output: Any, last: Tensor) -> Tensor | None:
        """The model's decisions at each feature; None for an encoder."""
        shape = last.shape[:-1]
        if self._head is None and self._last.name == OUTPUT:
            return None
        if self._head is not None and self._head.function is not None:
            logits: Tensor | None = self._head.function(last)
        else:
            logits = logits_in(output, shape, self._outputs)
        return None if logits is None else decisions_of(logits, shape)

    # ------------------------------------------------------------------ the first batch

    def _learn(self, features: Mapping[str, Tensor], labels: Tensor, output: Any) -> None:
        """Determine from the first batch which layers fit, and whether the classifier decides."""
        last = features[self._last.name]
        self.notes += self._unpack.notes
        places = labels if self._classifies else labels[:, 0]
        self._layers, notes = _fitting(features, places, self._captured, self._last.name)
        self.notes += notes
        if self._labels.soft:
            self.notes.append(SOFT_NOTE)
        if self._next_token and self._options.next_token is None:
            self.notes.append(
                "the label of each position is the next token (pass next_token=False to use labels unchanged)."
            )
        if self._last.name in self._captured.averaged:
            self.notes.append(
                f"features of {self._last.name} are means over the positions of a sample, as there is one label each."
            )
        self._learn_classifier(last, output)

    def _learn_classifier(self, last: Tensor, output: Any) -> None:
        head, options = self._head, self._options
        self._outputs: int | None = self.num_classes
        if head is not None and head.module is not None and not is_stored(head):  # it is current only now
            head = self._head = find_classifier(self._model, head.module)
        if head is not None and head.function is not None:
            logits = head.function(last)
            if options.num_classes is None:
                self.num_classes = self._labels.num_classes = logits.shape[-1]
        elif head is not None and head.weight is not None:
            if head.weight.shape[1] != last.shape[-1] and not self._transposed_to(last.shape[-1]):
                raise ClassifierError(
                    f"the classifier {head.name!r} has shape {tuple(head.weight.shape)}, but the features of "
                    f"{self._last.name} have {last.shape[-1]} entries."
                )
            self._compare(last, output)
        elif self._last.name == OUTPUT and options.features is None and self._classifies:
            self._learn_encoder(last)
        if self._by_output and self._rows is None and self._decided(output, last) is None:
            self._by_output = False
        if self.num_classes == 1 and self._classifies:
            raise ClassifierError(
                "there must be at least two classes, since collapse is measured between classes; got 1."
            )

    def _learn_encoder(self, last: Tensor) -> None:
        """Add a note that there is no classifier, or raise if the output looks like logits."""
        if last.shape[-1] == self.num_classes and not _is_encoder(self._model):
            raise ClassifierError(
                f"the model has no linear layer, but returns {self.num_classes} values, the number of classes. "
                'Name the layer that its classifier reads with features="...", or pass features="output" if the '
                "outputs are features."
            )
        self.notes.append("the model has no classifier; features are its outputs.")

    def _transposed_to(self, width: int) -> bool:
        head = self._head
        assert head is not None and head.weight is not None
        if not self._transposed(head.weight.shape[1]) or self._head.weight.shape[1] != width:  # type: ignore[union-attr]
            return False
        self.num_classes = self._labels.num_classes = len(self._head.weight)  # type: ignore[union-attr, arg-type]
        return True

    def _compare(self, last: Tensor, output: Any) -> None:
        """Use the model's decisions if the classifier's differ; raise if it is not the classifier."""
        head, options = self._head, self._options
        assert head is not None and head.weight is not None
        self._outputs = head.outputs if head.outputs > 1 else 1
        if not self._classifies:
            return
        if head.module is None or not head.decides_linearly:
            self._by_output = True
            return
        match = agreement(head, last if self._rows is None else last[self._rows], output, self._module_output)
        if self._rows is not None and match.confirmed:
            self._rows = (slice(1), slice(1))
        if self._next_token and options.decisions == "all" and options.decides and match.confirmed:
            self._by_output = logits_in(output, last.shape[:-1], self._outputs) is not None
            return
        if match.confirmed:
            return
        what = f"The layer {head.name!r} has {head.outputs} outputs"
        if match.returned != head.outputs and options.classifier is None:
            raise ClassifierError(
                f"{what}, but the model returns {match.returned} values; {self._advice(match.returned)}"
            )
        certain = options.classifier is not None or match.is_output or self._last.name in self._captured.averaged
        if not certain:
            raise ClassifierError(
                f"{what}, like the model, but the same largest output for only {match.share:.0%} of the samples. If it "
                f'is the classifier, pass classifier="{head.name}": decisions then come from the model. If not, '
                f"{self._advice(match.returned)}"
            )
        if match.returned == head.outputs:
            self._by_output = True
            self._agreement = match.share
            self.notes.append(
                f"decisions come from the model: {head.name!r} has the same largest output for only "
                f"{match.share:.0%} of the samples."
            )

    def _advice(self, returned: int | None) -> str:
        """Arguments that name the classifier, with a likely parameter."""
        head = self._head
        assert head is not None and head.weight is not None
        width = head.outputs
        likely = [
            name for name, p in self._model.named_parameters() if p.ndim == 2 and set(p.shape) == {returned, width}
        ]
        if len(likely) == 1:
            return f'if {likely[0]!r} is the classifier, pass features="{head.name}", classifier="{likely[0]}".'
        return (
            'name the classifier with classifier="..."; for an encoder without one, name the layer to measure with '
            'features="..." ("output" for the outputs of the model).'
        )

    def remarks(self) -> tuple[dict[str, Any], list[str]]:
        check = self._normalisation
        assert check is not None
        gaps = every_process((check.seen, check.gap()), "batch normalisation", shared=self._shared)
        _, gap = max(gaps, key=lambda each: each[0])  # from the process with most rows, whose statistics are best
        facts = {"mode": "eval", "normalisation_gap": gap, "agreement": self._agreement}
        facts = {name: value for name, value in facts.items() if value is not None}
        return facts, [blip(gap)] if gap is not None and gap > GAP else []


def _ids(batch: Batch) -> Any:
    """The input tokens of a language model."""
    return batch.kwargs.get("input_ids", batch.args[0] if batch.args else None)


def _last_point(model: nn.Module, options: Measuring) -> tuple[Classifier | None, Point]:
    """The classifier or None, and the point of the features that it reads."""
    named = options.features
    if named is not None:
        points = [Point(OUTPUT, model)] if named == OUTPUT else choose_layers(model, named)
        if len(points) != 1:
            raise LayerError(f"features must name one layer; {named!r} matches {listed([p.name for p in points])}.")
        head = None if options.classifier is None else find_classifier(model, options.classifier)
        return head, replace(points[0], positions=options.positions, optional=False)
    try:
        head = None if _is_encoder(model) and options.classifier is None else find_classifier(model, options.classifier)
    except ClassifierError:
        if options.classifier is not None or any(True for _ in _linear(model)):
            raise
        head = None
    last = Point(OUTPUT, model) if head is None else classifier_input(head)
    return head, replace(last, positions=options.positions)


def _linear(model: nn.Module) -> Iterator[nn.Module]:
    return (module for module in model.modules() if isinstance(module, nn.Linear))


def _takes_mask(model: nn.Module) -> bool:
    """Whether the model takes a mask of padding; such positions have no labels."""
    return "attention_mask" in inspect.signature(model.forward).parameters


def _is_encoder(model: nn.Module) -> bool:
    """Whether the model declares that it has no classifier, as in timm."""
    accessor = getattr(model, "get_classifier", None)
    return callable(accessor) and isinstance(accessor(), nn.Identity)


def _points(model: nn.Module, options: Measuring, head: Classifier | None, last: Point) -> list[Point]:
    layers = [point for point in choose_layers(model, options.layers, head) if point.name != last.name]
    return [*(replace(point, positions=point.positions or options.positions) for point in layers), last]


def _class_names(given: Any, loader: Any) -> Sequence[str] | None:
    """Class names from the caller or a tokenizer; else from the data set, as in torchvision; else None."""
    to_tokens = getattr(given, "convert_ids_to_tokens", None)
    if callable(to_tokens):
        return [str(token) for token in to_tokens(list(range(len(given))))]
    if given is not None:
        return [str(name) for name in given]
    tokenizer = getattr(getattr(loader, "collate_fn", None), "tokenizer", None)  # as in collators of transformers
    if callable(getattr(tokenizer, "convert_ids_to_tokens", None)):
        return None if tokenizer is None else _class_names(tokenizer, None)
    dataset = loader.dataset if isinstance(loader, DataLoader) else None
    names = getattr(dataset, "classes", None)
    return [str(name) for name in names] if isinstance(names, list | tuple) and len(names) > 1 else None


def _length(loader: Any) -> int | None:
    """The number of batches, or None; a DataLoader of a stream defines `__len__` but raises TypeError."""
    try:
        return len(loader)
    except TypeError:
        return None


def _first_rows(batch: FeatureBatch, room: int) -> FeatureBatch:
    def first(value: Tensor | None) -> Tensor | None:
        return None if value is None else value[:room]

    features = {name: rows[:room] for name, rows in batch.by_layer.items()}
    return FeatureBatch(features, first(batch.labels), first(batch.decided))


def _fitting(
    features: Mapping[str, Tensor], labels: Tensor, captured: CapturedFeatures, last: str
) -> tuple[list[str], list[str]]:
    """Names of the layers to measure, in the order of calls with the classifier's input last, and notes on layers that
    are left out or measured at different positions.

    Layers from "auto" or a pattern are left out if they are not called or their positions are not the labels'. Layers
    from "auto" that equal the classifier's input (`last`), and further calls of the classifier, are left out too.

    Raises: LayerError for such a layer if the caller named it.
    """
    names: list[str] = []
    notes = []
    for name, point in captured.points.items():
        if name not in features and not point.optional:
            raise LayerError(f"the forward pass must call {name!r}, and it must return a floating-point tensor.")
    for name, rows in features.items():
        point, shape = captured.point_of(name), tuple(rows.shape[:-1])
        if name != last and point.name == last:
            notes.append(f"{name} is left out: only the first call of the classifier in a forward pass is measured.")
            continue
        local = labels_at(labels, shape)
        if local is None:
            what = f"layer {name} has positions {shape}, but the labels {tuple(labels.shape)}"
            if name == last:
                raise LayerError(f'{what}. Choose different positions, for example positions="mean".')
            if not point.optional:
                raise LayerError(f'{what}. Choose different ones, for example Layer({point.name!r}, positions="mean").')
            notes.append(f"{what}; it is left out.")
        elif name == last or not point.boundary or not _equal(rows, features[last]):
            if local is not labels:
                notes.append(
                    f"{name} has {'x'.join(map(str, shape[1:]))} positions and uses the nearest of "
                    f"{'x'.join(map(str, labels.shape[1:]))} labels."
                )
            names.append(name)
    return sorted(names, key=lambda name: name == last), notes


def _equal(rows: Tensor, others: Tensor) -> bool:
    return rows.shape == others.shape and torch.allclose(rows, others.to(rows.dtype), rtol=1e-4, atol=1e-6)


def _described(item: Any) -> str:
    if isinstance(item, Mapping):
        return f"a mapping with {listed(list(item))}"
    if isinstance(item, Sequence) and not isinstance(item, str):
        return f"a {type(item).__name__} of {len(item)}"
    return f"a {type(item).__name__}"


def blip(gap: float) -> str:
    """A sentence for a gap above `GAP`."""
    return (
        "this measurement may be a blip: batch normalisation's running averages lag behind the weights. Features in "
        f"eval mode and under the data's own statistics have a correlation of {1 - gap:.3f}, below {1 - GAP}."
    )
