"""`Measuring`: the options of a measurement, once, for `measure`, `Monitor`, callbacks and the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, Self

from tightframe.errors import ChoiceError, RangeError

if TYPE_CHECKING:  # the command line lists these options without importing torch
    from torch import Tensor, nn

    from tightframe.hooks import Layer
    from tightframe.metrics import Metric
    from tightframe.theory import Training

FOLDS = 16
TASKS = ("classification", "multilabel", "regression")
BUFFER_BYTES = 1 << 30
Of = Literal["model", "source", "report"]


def option(default: Any, help: str, *, flag: str | None = None, type: Any = None, of: Of = "report") -> Any:
    """A field with its sentence for the command line.

    Args:
        flag: the option of `tightframe measure` that sets it; default: the field's name with dashes. "" for none: what
            only Python can say.
        type: of its value on the command line, if that isn't the default's.
        of: what reads it: the run of a model, any source of features, or the report.
    """
    return field(default=default, metadata={"help": help, "flag": flag, "type": type, "of": of})


def flags_of(declared: Any) -> list[tuple[str, Field[Any]]]:
    """Flag and field of each option of a dataclass that the command line can set."""
    listed = [each for each in fields(declared) if each.metadata["flag"] != ""]
    return [(each.metadata["flag"] or f"--{each.name.replace('_', '-')}", each) for each in listed]


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """The options of a measurement.

    Attributes:
        layers: layers to measure beside the classifier's input, as in `capture`: names, patterns, `Layer`s, or "auto",
            every block boundary. Their reports are the report's `layers`.
        features: name of the layer whose output is the classifier's input, where the model applies its classifier
            without a module of its own. Default: what flows into the classifier.
        classifier: name of the classifier, a module or a parameter (K, D); or the module, a tensor (K, D), or a
            function of features that returns logits. Default: the model's own `get_classifier()` or
            `get_output_embeddings()`, else its last linear layer or 1x1 convolution, if it decides what the model
            returns.
        num_classes: K. Default: the classifier's rows, else what the data say.
        class_names: a name for each class, for labels that are text and for the report.
        positions: which features represent a sample that has several (tokens, pixels), a name in `POSITIONS`.
            Default: each position if each has a label, else the mean over them.
        task: "classification"; "multilabel" for (N, K) tags, measured by `metrics.multilabel`; "regression" for targets
            (N,) or (N, n), measured by `metrics.nrc1` to `nrc3`.
        next_token: whether the label of a position is the next token. Default: for causal language models.
        covariance: keep the pooled D x D scatter, which NC1 needs.
        per_class: keep a D x D scatter for each class, too.
        folds: folds of the samples for standard errors at the classifier's input; None or 0 for none (shares of samples
            have binomial errors in any case). All positions of a sample are in one fold.
        min_count: measure only classes with at least so many samples.
        decisions: training samples on which the classifier and the nearest class mean decide, for NC4: "all", about
            so many, drawn at random, or None; of held-out samples all or none. Decided only where a requested measure
            needs it.
        detectors: judge out-of-distribution detectors if there are held-out and out-of-distribution samples.
        metrics: names in `METRICS` or metrics of your own. Default: all in `METRICS` that the data allow, for other
            layers the headline ones.
        conventions: further rows, names in `CONVENTIONS`.
        training: weight decays and loss, for what theory predicts of the geometry.
        ignore_index: a label whose rows are dropped. Language models drop -100 in any case.
        unpack: returns a `Batch` for what a loader yields, where it isn't one of the usual forms.
        buffer_bytes: memory for features between the first and the second look at them. Beyond it the data are read a
            second time and must be the same.
        covariance_bytes: memory for D x D scatter of all layers, and for folds. Default: a quarter of the free memory.
        second_pass: whether the data may be read again for the sake of wide features alone.
        distributed: add up the processes of `torch.distributed`, where it is initialised.
        progress: show a progress bar (if rich is installed).
        context: facts for the report, e.g. {"epoch": 3}.

    Raises: TypeError for other options; ChoiceError for unknown measures, conventions, positions or tasks; RangeError
    for numbers out of range.
    """

    layers: str | Layer | Iterable[str | Layer] = option(
        (), "Measure layers too: auto (every block), or names and patterns; repeatable.", type=list[str], of="model"
    )
    features: str | None = option(
        None, "Name of the layer whose output is the classifier's input.", flag="--features-of", type=str, of="model"
    )
    classifier: str | nn.Module | Tensor | Callable[[Tensor], Tensor] | None = option(
        None, "Name of the classifier: a module or a parameter.", type=str, of="model"
    )
    num_classes: int | None = option(
        None, "Number of classes. Default: from the classifier, else the largest label + 1.", type=int, of="source"
    )
    class_names: Sequence[str] | None = option(None, "", flag="")
    positions: str | None = option(
        None, "Features of a sample with several positions: each, mean, first, last or flatten.", type=str, of="model"
    )
    task: Literal["classification", "multilabel", "regression"] = option(
        "classification", f"Task: one of {', '.join(TASKS)}.", type=str
    )
    next_token: bool | None = option(None, "The label of a position is the next token.", type=bool, of="model")
    covariance: bool = option(True, "Keep the pooled scatter, which NC1 needs.")
    per_class: bool = option(False, "Keep a scatter for each class.")
    folds: int | None = option(FOLDS, "Folds of the samples for standard errors; 0 for none.", type=int)
    min_count: int = option(1, "Measure only classes with at least this many samples.")
    decisions: int | str | None = option(
        "all", 'Samples on which NC4 is measured: "all", a number, or 0 for none.', type=str, of="source"
    )
    detectors: bool = option(True, "Judge out-of-distribution detectors, given --test and --ood.")
    metrics: Sequence[str | Metric[Any]] | None = option(
        None, "Measures to report, repeatable. Default: all that the data allow.", flag="--metric", type=list[str]
    )
    conventions: Sequence[str] = option(
        (), "Conventions of papers to report as well, repeatable.", flag="--convention", type=list[str]
    )
    training: Training | None = option(None, "", flag="")
    ignore_index: int | None = option(None, "Label whose rows are dropped.", type=int, of="source")
    unpack: Callable[[Any], Any] | None = option(None, "", flag="")
    buffer_bytes: int = option(BUFFER_BYTES, "Bytes for features that wait for the second pass.")
    covariance_bytes: int | None = option(
        None, "Bytes for scatter matrices. Default: a quarter of the free memory.", type=int
    )
    second_pass: bool = option(True, "", flag="")
    distributed: bool = option(True, "", flag="")
    progress: bool = option(True, "Show a progress bar.", of="source")
    context: Mapping[str, Any] | None = option(None, "", flag="")

    def __post_init__(self) -> None:
        from tightframe.hooks import Layer
        from tightframe.hooks.positions import require_positions
        from tightframe.metrics import CONVENTIONS
        from tightframe.metrics.table import chosen

        layers = [self.layers] if isinstance(self.layers, str | Layer) else list(self.layers)
        self._set(
            layers=tuple(layers),
            folds=self.folds or None,
            conventions=tuple(self.conventions or ()),
            metrics=None if self.metrics is None else tuple(chosen(self.metrics)),
            decisions=_number_of_decisions(self.decisions),
            context=dict(self.context or {}),
        )
        if self.task not in TASKS:
            raise ChoiceError(f"task must be one of {', '.join(TASKS)}; got {self.task!r}.")
        for name in self.conventions:
            if name not in CONVENTIONS:
                raise ChoiceError(f"no convention is called {name!r}; there are: {', '.join(CONVENTIONS)}.")
        if self.positions is not None:
            require_positions(self.positions)
        for name in ("min_count", "num_classes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RangeError(f"{name} must be at least 1; got {value}.")
        if self.folds is not None and self.folds < 2:
            raise RangeError(f"folds must be at least 2, or 0 for none; got {self.folds}.")

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, options: Measuring | Mapping[str, Any]) -> Self:
        """The value of some options by name, or the value itself.

        Raises: TypeError naming the option that doesn't exist and those that do.
        """
        if isinstance(options, Measuring):
            return options  # type: ignore[return-value]
        known = [each.name for each in fields(cls)]
        for name in options:
            if name not in known:
                raise TypeError(f"no option of a measurement is called {name!r}; there are: {', '.join(known)}.")
        return cls(**options)

    def to_dict(self) -> dict[str, Any]:
        """The options by name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def having(self, **changes: Any) -> Self:
        """With other values for some options. Raises: as `of`."""
        return self.of({**self.to_dict(), **changes})

    @property
    def decides(self) -> bool:
        """Whether a requested measure needs the decisions of the classifier and of the nearest class mean."""
        from tightframe.metrics import CONVENTIONS
        from tightframe.metrics.table import chosen

        if self.decisions is None or self.metrics is None:
            return self.decisions is not None
        wanted = [*chosen(self.metrics), *(CONVENTIONS[name].metric for name in self.conventions)]
        return any("decisions" in metric.reads for metric in wanted)

    @classmethod
    def flags(cls) -> list[tuple[str, Field[Any]]]:
        """The options of `tightframe measure`: flag and field."""
        return flags_of(cls)


def _number_of_decisions(wanted: Any) -> Any:
    if wanted is None or (isinstance(wanted, str) and wanted == "all"):
        return wanted
    try:
        number = int(wanted)
        if isinstance(wanted, bool) or number != float(wanted):
            raise ValueError
    except (TypeError, ValueError):
        raise ChoiceError(f'decisions must be "all", a number of samples, or None; got {wanted!r}.') from None
    if number < 0:
        raise RangeError(f'decisions must be "all" or a number of samples; got {wanted!r}.')
    return number or None
