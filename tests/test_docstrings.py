"""Docstrings of public names: an example, shapes of tensors; of metrics, also range, limits and source."""

import inspect
import math
import re
from functools import cache
from types import FunctionType, ModuleType
from typing import Any

import pytest
import torch

import site_reference
from test_examples import MODULES, examples
from tightframe import ClassStatistics, DecisionCounts, metrics

RETURNED = "a value that other functions return; their examples show it"
PART = "a part of a document, only stored; the examples of `Section` and `Document` show its use"
BASE = "an abstract base class; the examples of its subclasses show its use"
WITHOUT_EXAMPLE = {
    **dict.fromkeys(("metrics.ClassTable", "metrics.PairTable", "metrics.TagSets"), RETURNED),
    **dict.fromkeys(("metrics.Closeness", "metrics.Estimate"), RETURNED),
    **dict.fromkeys(("theory.CodeOptimum", "theory.RegressionOptimum", "theory.Seli"), RETURNED),
    **dict.fromkeys(("theory.UnconstrainedOptimum", "sources.Extraction", "report.Facts"), RETURNED),
    **dict.fromkeys(("hooks.Classifier", "hooks.LayerListing", "hooks.Point"), RETURNED),
    **dict.fromkeys(("codes.Certificate", "codes.Progress", "ood.ComponentCurve", "ood.Detection"), RETURNED),
    **dict.fromkeys(("ood.DetectionRow", "ood.DetectionTable"), RETURNED),
    **dict.fromkeys(("statistics.FoldedCrossMoments",), RETURNED),
    **dict.fromkeys(("similarity.ClassMeanSimilarity", "similarity.LayerSimilarity"), RETURNED),
    **dict.fromkeys((f"sections.{name}" for name in ("Bars", "Column", "Curves", "Matrix")), PART),
    **dict.fromkeys((f"sections.{name}" for name in ("Remark", "Series", "Verdict")), PART),
    **dict.fromkeys(("heads.ClassMeans", "heads.ComparisonHead", "losses.ClassLoss", "losses.CostLoss"), BASE),
    **dict.fromkeys(("losses.LogitLoss", "losses.PrototypeLoss", "datasets.OutsideSource"), BASE),
    "datasets.DatasetSource": BASE,
    "losses.Loss": "a row of the table LOSSES, only stored",
    "sources.from_texts": "needs a language model and its tokenizer; docs/language-models.md has an example",
}
"""Public names without an example, with the reason. The list may only become shorter."""

SHAPE = re.compile(
    r"Shapes?: |\((?:\.\.\.|[A-Z]\w*'?|depth|n|2 num_targets)(?: - 1| present)?,[^()]*\)|\b0-d\b|\bscalar\b|"
    r"\bany shape|same shape|shapes? of"
)
FIELDS = ("Shape", "Range", "Misleads", "Source")


def described() -> dict[str, Any]:
    """Public classes, functions and metrics by name; errors excepted, which are raised and not called."""
    found: dict[int, tuple[str, Any]] = {}
    for key in site_reference.places():
        value = None if key == "__version__" else site_reference.value_of(key)
        ours = getattr(value, "__module__", "").startswith("tightframe")
        if ours and callable(value) and not key.startswith("errors.") and not isinstance(value, ModuleType):
            found.setdefault(id(value), (key, value))
    return dict(found.values())


DESCRIBED = described()
WITH_EXAMPLE = {test.name for module in MODULES for test in examples(module)}


def path_of(value: Any) -> str:
    return f"{value.__module__}.{getattr(value, '__qualname__', value.__name__)}"


def has_example(value: Any) -> bool:
    """Whether an example that `test_examples` runs stands in the docstring of the name, or of a member of a class."""
    path = path_of(value)
    return path in WITH_EXAMPLE or any(name.startswith(f"{path}.") for name in WITH_EXAMPLE if isinstance(value, type))


def fields_of(text: str) -> dict[str, str]:
    """Text of each field by its name, without line breaks."""
    parts = re.split(rf"(?:^|(?<=\. ))({'|'.join((*FIELDS, 'Raises', 'Args'))}):", text, flags=re.M)
    values = (re.split(r"\n\s*\n", part)[0] for part in parts[2::2])
    return {name: " ".join(value.split()) for name, value in zip(parts[1::2], values, strict=True)}


# ---------------------------------------------------------------------- examples


@pytest.mark.parametrize("key", DESCRIBED)
def test_public_names_have_examples(key: str) -> None:
    if key in WITHOUT_EXAMPLE:
        assert not has_example(DESCRIBED[key]), f"{key} has an example now: remove it from WITHOUT_EXAMPLE"
    else:
        assert has_example(DESCRIBED[key]), f"{key} needs an example in its docstring"


def test_only_public_names_are_excepted() -> None:
    assert WITHOUT_EXAMPLE.keys() <= DESCRIBED.keys()
    assert all(WITHOUT_EXAMPLE.values())


# ---------------------------------------------------------------------- shapes


def annotations(value: Any) -> str:
    """The annotations of the function that a name calls, or of the constructor of a class."""
    function = getattr(value, "__wrapped__", value)
    if isinstance(value, type):
        function = value.__dict__.get("__init__", value)
    return " ".join(str(each) for each in getattr(function, "__annotations__", {}).values())


@pytest.mark.parametrize(
    "key", [key for key, value in DESCRIBED.items() if re.search(r"\b(Tensor|Array)\b", annotations(value))]
)
def test_shapes_of_tensors_are_stated(key: str) -> None:
    assert SHAPE.search(DESCRIBED[key].__doc__ or ""), f"{key} takes or returns tensors and states no shape"


METHODS = {
    f"{key}.{name}": getattr(member, "fget", None)
    or getattr(member, "func", None)
    or getattr(member, "__func__", member)
    for key, value in DESCRIBED.items()
    if isinstance(value, type)
    for name, member in vars(value).items()
    if not name.startswith("_") and not name.endswith("_extra_state")  # of torch, for state_dict
}
"""Public methods and properties, also inherited docstrings excepted."""


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, method in METHODS.items()
        if isinstance(method, FunctionType) and method.__doc__ and re.search(r"\b(Tensor|Array)\b", annotations(method))
    ],
)
def test_methods_state_shapes_or_where_they_stand(name: str) -> None:
    text = METHODS[name].__doc__ or ""
    assert SHAPE.search(text) or re.search(r"\b[Aa]s (in )?`", text), f"{name} takes or returns tensors"


# ---------------------------------------------------------------------- metrics


@pytest.mark.parametrize("name", metrics.METRICS)
def test_metrics_state_shape_range_limits_and_source(name: str) -> None:
    metric = metrics.METRICS[name]
    text = inspect.cleandoc(metric.__doc__ or "")
    fields = fields_of(text)
    assert fields.keys() >= {*FIELDS}, name
    assert all(fields[field] for field in FIELDS)
    assert "scalar" in fields["Shape"]
    assert metric.source, "declare the source"
    assert all(word in fields["Source"] for word in re.findall(r"[A-Z]\w+|\d{4}", metric.source)), "not as declared"
    assert f"metrics.{name}(" in text.partition("\n>>> ")[2]


# ---------------------------------------------------------------------- ranges


def stated_range(text: str, **sizes: float) -> tuple[float, float]:
    """The first interval of a field "Range", with sizes such as K and D inserted."""
    bounds = text[re.search(r"[\[(]", text).start() + 1 :]  # type: ignore[union-attr]
    depth, ends = 0, []
    for place, character in enumerate(bounds):
        if depth == 0 and (character == "," or character in ")]"):
            ends.append(place)
            if character != ",":
                break
        depth += (character == "(") - (character == ")")
    names = {"sqrt": math.sqrt, "ln": math.log, "inf": math.inf, "min": min, "exponent": 1.0, "ddof": 1, **sizes}
    low, high = (
        eval(re.sub(r"(?<=\d)(?=[KDNP])", "*", each).replace("^", "**"), {}, names)
        for each in (bounds[: ends[0]], bounds[ends[0] + 1 : ends[1]])
    )
    return low, high


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[0, 1]; 0 = x.", (0, 1)),
        ("of the mean, [-ln(2K/(K-1))/2, inf), unitless", (-math.log(3) / 2, math.inf)),
        ("[1, min(K-1, D)], in dimensions", (1, 2)),
        ("[(2K/(K-1))^(-exponent/2), inf)", (3**-0.5, math.inf)),
    ],
)
def test_ranges_are_read(text: str, expected: tuple[float, float]) -> None:
    assert stated_range(text, K=3, D=4) == pytest.approx(expected)


@cache
def extreme_evidence() -> list[metrics.Evidence]:
    """Few classes in few dimensions: random, of small integers so that means coincide, heavy-tailed, one class far."""
    found = []
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        K, D, n = (int(torch.randint(low, high, (), generator=generator)) for low, high in ((2, 7), (1, 6), (1, 5)))
        labels = torch.arange(K).repeat(n)
        features, weight = (torch.randn(size, D, generator=generator, dtype=torch.float64) for size in (K * n, K))
        features = (features, features.round(), features**5, features + 9 * (labels == 0)[:, None])[seed % 4]
        weight = (weight, weight.round() + 0.5, weight**5, weight + 9)[seed // 4 % 4]
        statistics = ClassStatistics.from_features(features, labels, K, per_class=True)
        decisions = DecisionCounts(statistics, weight)
        decisions.update(features, labels)
        outside = torch.randn(D, generator=generator, dtype=torch.float64)
        found.append(metrics.Evidence(statistics, weight, weight[:, 0], decisions, outside))
    return found


@pytest.mark.filterwarnings("ignore::tightframe.errors.GeometryWarning")
@pytest.mark.filterwarnings("ignore::tightframe.errors.ResolutionWarning")
@pytest.mark.parametrize("name", metrics.METRICS)
def test_values_lie_in_the_stated_range(name: str) -> None:
    metric, numbers = metrics.METRICS[name], 0
    text = fields_of(inspect.cleandoc(metric.__doc__ or ""))["Range"]
    for evidence in extreme_evidence():
        statistics = evidence.statistics
        assert statistics is not None
        K, D, N = statistics.num_classes, statistics.num_features, int(statistics.num_samples)
        value = float(metric.of(evidence))
        if K == 2 and "NaN for two" in text:
            assert math.isnan(value)
        elif not math.isnan(value):
            low, high = stated_range(text, K=K, D=D, N=N, P=K * (K - 1) / 2)
            assert low - 1e-9 <= value <= high + 1e-9, (K, D, N)
            numbers += 1
    assert numbers >= 10


# ---------------------------------------------------------------------- invariances


def stated_invariances(text: str) -> str:
    """The sentence "Invariant to" of a docstring, without what follows "not to"."""
    stated = re.search(r"Invariant to ([^.;]*)", inspect.cleandoc(text).replace("\n", " "))
    assert stated, "state the invariances"
    return stated[1].partition(", not to ")[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A.\n\n    Shape: scalar. Invariant to rotation,\n    translation. B.", "rotation, translation"),
        ("Invariant to rotation and common scale, not to\ntranslation. B.", "rotation and common scale"),
    ],
)
def test_invariances_are_read(text: str, expected: str) -> None:
    assert stated_invariances(text) == expected


def moved(features: torch.Tensor, to: str) -> torch.Tensor:
    """Features (N, D) after a rotation, a translation, a common scale, or an invertible linear map."""
    generator = torch.Generator().manual_seed(1)
    square = torch.randn(features.shape[1], features.shape[1], generator=generator, dtype=features.dtype)
    maps = {
        "rotation": lambda: features @ torch.linalg.qr(square).Q,
        "translation": lambda: features + 3 * square[0],
        "common scale": lambda: 5 * features,
        "invertible linear maps": lambda: features @ square * torch.tensor([1, 1, 1, 0.01]),  # changes the rank
    }
    return maps[to]()


@pytest.mark.parametrize("to", ["rotation", "translation", "common scale", "invertible linear maps"])
@pytest.mark.parametrize("name", [name for name, each in metrics.METRICS.items() if each.reads == ("statistics",)])
def test_invariances_are_as_stated(name: str, to: str) -> None:
    """A metric is invariant to what its docstring names, and to nothing else."""
    metric = metrics.METRICS[name]
    stated = stated_invariances(metric.__doc__ or "")
    linear = "invertible linear maps" in stated
    expected = to in stated or (linear and to in ("rotation", "common scale"))
    features = torch.randn(60, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1
    labels = torch.arange(60) % 3
    first, second = (
        float(metric(ClassStatistics.from_features(each, labels, 3, per_class=True)))
        for each in (features, moved(features, to))
    )
    assert (first == pytest.approx(second, rel=1e-7)) == expected


@pytest.mark.parametrize("name", metrics.METRICS)
def test_metrics_describe_their_options(name: str) -> None:
    function = metrics.METRICS[name].function
    assert isinstance(function, FunctionType)
    options = [each.name for each in inspect.signature(function).parameters.values() if each.kind is each.KEYWORD_ONLY]
    for option in options:
        assert re.search(
            rf"^    ([\w, ]+, )?{option}(, [\w, ]+)?: ", inspect.cleandoc(function.__doc__ or ""), flags=re.M
        ), option


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "A.\n\nShape: scalar. Range: [0, 1];\n0 = x.\nSource: B.",
            {"Shape": "scalar.", "Range": "[0, 1]; 0 = x.", "Source": "B."},
        ),
        ("A.\n\nShape: scalar.\n\n>>> Range", {"Shape": "scalar."}),
        ("The Shape: no.", {}),
    ],
)
def test_fields_are_read(text: str, expected: dict[str, str]) -> None:
    assert fields_of(text) == expected
