"""`Measuring`: the options of a measurement, shared by `measure`, `Monitor`, callbacks and the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import Field, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Self

from tightframe.choices import require_choice
from tightframe.errors import ChoiceError, OptionError, RangeError
from tightframe.flags import flags_of, option

if TYPE_CHECKING:  # the command line lists these options without importing torch
    from torch import Tensor, nn

    from tightframe.hooks import Layer
    from tightframe.metrics import Metric
    from tightframe.theory import Training

FOLDS = 16
RANKED_SCATTER = 6_000_000
TASKS = ("classification", "multilabel", "regression")
BUFFER_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Measuring:
    """The options of a measurement.

    Attributes:
        layers: layers to measure in addition to the classifier's input, as in `capture`: names, patterns, `Layer`s, or
            "auto" for every block boundary. `report.layers` holds their reports.
        features: name of the layer whose output is the classifier's input, for a model that applies its classifier
            without a module. Default: the input of the classifier.
        classifier: name of the classifier, a module or a parameter (K, D); or the module, a tensor (K, D), or a
            function from features to logits. Default: the model's `get_classifier()` or `get_output_embeddings()`,
            else its last linear layer or 1x1 convolution, if it reproduces the model's predictions.
        num_classes: K. Default: the number of the classifier's rows, else the largest label + 1.
        class_names: one name per class, for text labels and for the report.
        positions: how the features of a sample with several positions (tokens, pixels) are used, a name in `POSITIONS`.
            Default: each position if each has a label, else the mean over positions.
        task: "classification"; "multilabel" for tags (N, K), measured by `metrics.multilabel`; "regression" for targets
            (N,) or (N, n), measured by `metrics.nrc1` to `nrc3`.
        next_token: whether the label of a position is the next token. Default: True for causal language models.
        covariance: keep the pooled D x D scatter, which NC1 needs.
        per_class: also keep a D x D scatter per class.
        folds: number of sample folds for standard errors at the classifier's input; None or 0 for no folds (shares of
            samples still have binomial errors). All positions of a sample are in one fold.
        similarity: also compare all measured layers with each other, by debiased linear CKA, in the same pass.
            `report.similarity` holds the values. Memory: 8 bytes times D_a D_b for each pair of layers, of
            `covariance_bytes`; standard errors if the products of several folds fit too.
        min_count: minimum number of samples per class; smaller classes are not measured.
        decisions: training samples for NC4, on which the classifier and the nearest class centre decide: "all", the
            approximate size of a random subset, or None. Held-out samples: all, or none with None. Computed only if a
            requested measure needs it.
        detectors: evaluate out-of-distribution detectors if held-out and out-of-distribution samples are given.
        metrics: names in `METRICS`, or your own metrics. Default: all of `METRICS` that the data allow; for additional
            layers, the headline metrics.
        conventions: names in `CONVENTIONS` to report in addition.
        training: weight decays and loss, for the geometry that theory predicts.
        ignore_index: label whose rows are dropped. Language models always drop -100.
        unpack: function that returns a `Batch` for an item of the loader, if the item has an unusual form.
        buffer_bytes: memory in bytes for features between the first and the second pass. If the features need more, the
            data are read a second time and must be the same.
        covariance_bytes: memory in bytes for D x D scatter of all layers and folds. Default: a quarter of free memory.
        second_pass: whether the data may be read a second time only for wide features.
        distributed: sum over the processes of `torch.distributed`, if it is initialised.
        progress: show a progress bar (if rich is installed).
        context: facts for the report, for example {"epoch": 3}.

    Raises: TypeError for unknown options; ChoiceError for unknown measures, conventions, positions or tasks; RangeError
    for numbers out of range; OptionError for similarity with another task than classification.

    >>> from tightframe.options import Measuring
    >>> options = Measuring(per_class=True, metrics=["nc1"])
    >>> options.having(per_class=False).per_class
    False
    """

    layers: str | Layer | Iterable[str | Layer] = option(
        (), "Also measure a layer: auto (every block), a name or a pattern; repeatable.", type=list[str], of="model"
    )
    features: str | None = option(
        None, "Use features of this layer. Default: the classifier's input.", flag="--features-of", type=str, of="model"
    )
    classifier: str | nn.Module | Tensor | Callable[[Tensor], Tensor] | None = option(
        None, "Use this module or parameter as the classifier. Default: detected.", type=str, of="model"
    )
    num_classes: int | None = option(
        None, "Set the number of classes. Default: classifier rows, else largest label + 1.", type=int, of="source"
    )
    class_names: Sequence[str] | None = option(None, "", flag="")
    positions: str | None = option(
        None,
        "How to use the positions of a sample (tokens, pixels): each, mean, first, last or flatten. Default: each if "
        "every position has a label, else mean.",
        type=str,
        of="model",
    )
    task: Literal["classification", "multilabel", "regression"] = option(
        "classification", f"Set the task: {', '.join(TASKS)}.", type=str
    )
    next_token: bool | None = option(
        None,
        "Use the next token as the label of each position. Default: on for causal language models.",
        type=bool,
        of="model",
    )
    covariance: bool = option(True, "Keep the pooled scatter, which NC1 needs.")
    per_class: bool = option(False, "Also keep a scatter per class.")
    folds: int | None = option(FOLDS, "Set the number of sample folds for standard errors; 0 for none.", type=int)
    similarity: bool = option(False, "Also compare all measured layers with each other by CKA; needs --layers.")
    min_count: int = option(1, "Measure only classes with at least this many samples.")
    decisions: int | str | None = option(
        "all", "Training samples that NC4 is measured on: all, a number, or 0 to skip it.", type=str, of="source"
    )
    detectors: bool = option(True, "Evaluate out-of-distribution detectors; needs --test and --ood.")
    metrics: Sequence[str | Metric[Any]] | None = option(
        None,
        "Report only this metric; repeatable; names: `tightframe metrics`. Default: all that the data allow.",
        flag="--metric",
        type=list[str],
    )
    conventions: Sequence[str] = option(
        (),
        "Also report this paper's convention; repeatable; names: `tightframe metrics`.",
        flag="--convention",
        type=list[str],
    )
    training: Training | None = option(None, "", flag="")
    ignore_index: int | None = option(None, "Drop rows with this label.", type=int, of="source")
    unpack: Callable[[Any], Any] | None = option(None, "", flag="")
    buffer_bytes: int = option(BUFFER_BYTES, "Limit the memory for features kept for the second pass, in bytes.")
    covariance_bytes: int | None = option(
        None, "Limit the memory for scatter matrices, in bytes. Default: a quarter of free memory.", type=int
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
        require_choice(self.task, TASKS, "task")
        for name in self.conventions:
            require_choice(name, CONVENTIONS, "convention", table="tightframe.metrics.CONVENTIONS")
        if self.positions is not None:
            require_positions(self.positions)
        for name in ("min_count", "num_classes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RangeError(f"{name} must be at least 1; got {value}.")
        for name in ("buffer_bytes", "covariance_bytes"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise RangeError(f"{name} must be at least 0; got {value}.")
        if self.similarity and self.task != "classification":
            raise OptionError(f'similarity needs task="classification"; got {self.task!r}.')
        if self.folds is not None and self.folds < 2:
            raise RangeError(f"folds must be at least 2, or 0 for none; got {self.folds}.")

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, options: Measuring | Mapping[str, Any]) -> Self:
        """`Measuring` from a mapping of options; a `Measuring` is returned as it is.

        Raises: TypeError for an unknown option; the message lists the known ones.
        """
        if isinstance(options, Measuring):
            return options  # type: ignore[return-value]
        names = [each.name for each in fields(cls)]
        for name in options:
            if name not in names:
                raise TypeError(f"unknown option {name!r}; choose from {', '.join(names)}.")
        return cls(**options)

    def to_dict(self) -> dict[str, Any]:
        """The options by name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def having(self, **changes: Any) -> Self:
        """A copy with some options changed. Raises: as `of`."""
        return self.of({**self.to_dict(), **changes})

    @property
    def decides(self) -> bool:
        """Whether a requested measure needs the decisions of the classifier and the nearest class centre."""
        from tightframe.metrics import CONVENTIONS
        from tightframe.metrics.table import chosen

        if self.decisions is None or self.metrics is None:
            return self.decisions is not None
        metrics = [*chosen(self.metrics), *(CONVENTIONS[name].metric for name in self.conventions)]
        return any("decisions" in metric.reads for metric in metrics)

    @classmethod
    def flags(cls) -> list[tuple[str, Field[Any]]]:
        """(flag, field) of each option of `tightframe measure`."""
        return flags_of(cls)


def _number_of_decisions(decisions: Any) -> Any:
    if decisions is None or (isinstance(decisions, str) and decisions == "all"):
        return decisions
    try:
        number = int(decisions)
        if isinstance(decisions, bool) or number != float(decisions):
            raise ValueError
    except (TypeError, ValueError):
        raise ChoiceError(f'decisions must be "all", or a number of samples, 0 for none; got {decisions!r}.') from None
    if number < 0:
        raise RangeError(f'decisions must be "all" or a number of samples >= 0; got {decisions!r}.')
    return number or None
