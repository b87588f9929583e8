"""`Facts`: the subject of a measurement, as typed values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from tightframe.errors import DtypeError
from tightframe.plain import plain, restored_fields
from tightframe.theory import Training


@dataclass(frozen=True)
class Facts:
    """The subject of a measurement: data, model, sizes and training. Unknown values are None or empty.

    Attributes:
        title: title of the report; data: name of the data set.
        epoch, session: time of the measurement. All reports of a series have one of them.
        task: "classification", "multilabel" or "regression"; targets: number of regression targets.
        layer: layer whose output the features are; mode: mode of the model, "eval".
        samples, classes, dimension: N, K and D; coverage: {threshold: number of classes with as many samples}.
        smallest_class, largest_class: fewest and most samples of a class with samples.
        min_count: minimum samples of a measured class.
        class_names: {label: name}.
        classifier: its name in the model; classifier_fixed: whether it is not trained.
        agreement: share of samples on which the classifier's decision is the model's.
        training: loss and decays of the classifier; feature_decay_estimated: whether its feature decay is estimated.
        normalisation_gap: 1 − correlation of the features in eval mode with those under batch statistics.
        measuring_seconds: duration in seconds; samples_in_all: size of the data, if only a part was measured.
        processes: number of processes that measured together.
    """

    title: str | None = None
    data: str | None = None
    epoch: float | None = None
    session: int | float | str | None = None
    task: str = "classification"
    targets: int | None = None
    layer: str | None = None
    mode: str | None = None
    samples: int | None = None
    classes: int | None = None
    dimension: int | None = None
    coverage: Mapping[str, int] = field(default_factory=dict)
    smallest_class: int | None = None
    largest_class: int | None = None
    min_count: int = 1
    class_names: Mapping[str, str] = field(default_factory=dict)
    classifier: str | None = None
    classifier_fixed: bool = False
    agreement: float | None = None
    training: Training | None = None
    feature_decay_estimated: bool = False
    normalisation_gap: float | None = None
    measuring_seconds: float | None = None
    samples_in_all: int | None = None
    processes: int = 1

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Facts:
        """Facts from a caller's values by name; other keys are dropped, what is to be text becomes text.

        Raises: DtypeError for class names that are neither a list nor a mapping.
        """
        facts = {name: value for name, value in given.items() if name in NAMES and value is not None}
        facts |= {name: str(facts[name]) for name in _TEXTS & facts.keys()}
        if "class_names" in facts:
            facts["class_names"] = _by_label(facts["class_names"])
            if not isinstance(facts["class_names"], Mapping):
                raise DtypeError(f"class_names must be a list, or names by label; got {facts['class_names']!r:.60}.")
        return cls(**facts)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Facts:
        """Inverse of `to_dict`, also after JSON; other keys are dropped. Raises: StateError."""
        facts = {name: value for name, value in data.items() if value is not None}
        if "class_names" in facts:
            facts["class_names"] = _by_label(facts["class_names"])
        return restored_fields(cls, facts, "facts")

    def to_dict(self) -> dict[str, Any]:
        """Plain data, without unknown values."""
        unset = Facts()
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        if self.training is not None:
            values["training"] = self.training.to_dict()
        return {name: plain(value) for name, value in values.items() if value != getattr(unset, name)}

    def names_of(self, labels: Sequence[int]) -> list[str]:
        """The names of classes; the label where a class has no name."""
        return [self.class_names.get(str(label), str(label)) for label in labels]


NAMES = frozenset(each.name for each in fields(Facts))
"""The names of all facts."""

_TEXTS = frozenset({"title", "data", "task", "layer", "mode", "classifier"})

CALLERS = frozenset({"title", "data", "epoch", "session", "class_names"})
"""Facts that a caller may give with `context=`."""


def _by_label(names: Any) -> Any:
    """Names of classes by label, from a list or an array of names, or a mapping; anything else as it is."""
    if callable(listed := getattr(names, "tolist", None)):
        names = listed()
    if isinstance(names, Sequence) and not isinstance(names, str):
        return {str(label): str(name) for label, name in enumerate(names)}
    return {str(label): str(name) for label, name in names.items()} if isinstance(names, Mapping) else names
