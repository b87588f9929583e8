"""numpy arrays are taken wherever features, labels, vectors, costs or counts are, with the results of equal tensors."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import tightframe as tf
from tightframe import heads, hierarchy, losses, metrics, ood, prototypes, theory
from tightframe.checks import as_tensor
from tightframe.errors import DtypeError
from tightframe.statistics import FoldedStatistics

N, K, D = 40, 3, 5
DRAWS = np.random.default_rng(0)
X = DRAWS.normal(size=(N, D))
Y = np.arange(N) % K
OUTSIDE = 3 * DRAWS.normal(size=(N, D))
WEIGHT, BIAS = DRAWS.normal(size=(K, D)), DRAWS.normal(size=K)
VECTORS = DRAWS.normal(size=(K, D))
COST = np.array([[0.0, 2, 3], [2, 0, 4], [3, 4, 0]])
GRAM = VECTORS @ VECTORS.T
COUNTS = np.array([30, 20, 10])
TAGS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1]])
PATHS = np.array([[3, 3, 4, 0, 0]])

# ---------------------------------------------------------------------- every array that numpy can hold


class _Pair(np.ndarray):
    """A subclass, as libraries have their own."""


def read_only(array: np.ndarray) -> np.ndarray:
    frozen = array.copy()
    frozen.flags.writeable = False
    return frozen


def of_a_record(array: np.ndarray) -> np.ndarray:
    """Fields of records lie at strides that are no multiple of their size."""
    records = np.zeros(array.shape, dtype=[("flag", np.int8), ("value", array.dtype)])
    records["value"] = array
    return records["value"]


FORMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "plain": np.copy,
    "read-only": read_only,
    "other byte order": lambda array: array.astype(array.dtype.newbyteorder("S")),
    "backwards": lambda array: array[::-1].copy()[::-1],
    "with gaps": lambda array: np.repeat(array, 2, axis=-1)[..., ::2],
    "transposed": lambda array: array.T.copy().T,
    "of a record": of_a_record,
    "a subclass": lambda array: array.copy().view(_Pair),
}


def tensor_of(array: np.ndarray) -> Tensor:
    """The same numbers, entry by entry."""
    dtype = torch.float64 if array.dtype.kind == "f" else torch.int64
    return torch.tensor(array.tolist(), dtype=dtype)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.int64, np.uint8, np.bool_])
def test_values_of_arrays(form: str, dtype: type) -> None:
    array = FORMS[form]((10 * X).astype(dtype))
    tensor = as_tensor(array)
    assert tensor.shape == array.shape and str(tensor.dtype) == f"torch.{np.dtype(dtype)}"
    assert tensor.tolist() == array.tolist()


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.uint64])
@pytest.mark.parametrize("form", FORMS)
def test_unsigned_integers_become_signed_ones_that_hold_them(form: str, dtype: type) -> None:
    largest = min(np.iinfo(dtype).max, 2**63 - 1)
    array = FORMS[form](np.array([[0, 1], [2, largest]], dtype=dtype))
    tensor = as_tensor(array)
    assert tensor.dtype in (torch.int32, torch.int64)
    assert tensor.tolist() == array.tolist()


def test_memory_is_shared_where_torch_can() -> None:
    array = X.copy()
    tensor = as_tensor(array)
    array[0, 0] = 9
    assert tensor[0, 0] == 9
    assert as_tensor(tensor) is tensor
    frozen = read_only(X)
    as_tensor(frozen)[0, 0] = 9
    assert np.array_equal(frozen, X)


def test_empty_and_single_values() -> None:
    assert as_tensor(np.zeros((0, 3))).shape == (0, 3)
    assert as_tensor(np.array(2.5)).item() == 2.5


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ([1.0, 2.0], "features must be a tensor or a numpy array; got list"),
        (None, "got NoneType"),
        (np.array(["a", "b"]), "features must hold numbers that torch has; got an array of <U1"),
        (np.array([None, 1.0]), "an array of object"),
        (np.zeros(2, dtype="datetime64[s]"), r"an array of datetime64\[s\]"),
        (np.zeros(2, dtype=np.longdouble), "an array of float128|an array of float96"),
        (np.ma.masked_array([1.0, 2.0], [True, False]), "features must have no mask"),
    ],
)
def test_what_is_no_array_of_numbers(wrong: Any, match: str) -> None:
    with pytest.raises(DtypeError, match=match):
        as_tensor(wrong, "features")
    with pytest.raises(DtypeError):
        tf.ClassStatistics.from_features(wrong, Y, K)


# ---------------------------------------------------------------------- every door

Given = Callable[[np.ndarray], Any]


def statistics(given: Given = tensor_of) -> tf.ClassStatistics:
    return tf.ClassStatistics.from_features(given(X), given(Y), K)


def accumulated(given: Given) -> Any:
    accumulator = tf.StatisticsAccumulator(K, D, folds=4)
    accumulator.update(given(X), given(Y), samples=given(np.arange(N) // 2))
    return accumulator.compute_folds()


def counted(given: Given) -> Any:
    decisions = tf.DecisionCounts(statistics(), given(WEIGHT), given(BIAS))
    decisions.update(given(X), given(Y))
    decisions.update(given(OUTSIDE))
    return decisions.totals, *decisions.decide(given(OUTSIDE))


def detected(given: Given) -> Any:
    evidence = metrics.Evidence(statistics(), weight=given(WEIGHT), bias=given(BIAS))
    scores = ood.DetectorScores(evidence)
    scores.add_inside(given(X))
    scores.add_outside(given(OUTSIDE))
    return scores.inside, scores.outside


DETECTORS: dict[str, Callable[[Given], Any]] = {
    "MSP": lambda g: ood.MaxSoftmax.fit(g(WEIGHT), g(BIAS)),
    "MaxLogit": lambda g: ood.MaxLogit.fit(g(WEIGHT)),
    "energy": lambda g: ood.Energy.fit(g(WEIGHT), g(BIAS)),
    "GEN": lambda g: ood.GeneralizedEntropy.fit(g(WEIGHT), g(BIAS)),
    "nearest centre": lambda g: ood.NearestCentre.fit(statistics()),
    "Mahalanobis": lambda g: ood.Mahalanobis.fit(statistics()),
    "relative Mahalanobis": lambda g: ood.RelativeMahalanobis.fit(statistics()),
    "Residual": lambda g: ood.Residual.fit(statistics(), g(WEIGHT), g(BIAS)),
    "ViM": lambda g: ood.Vim.fit(statistics(), g(WEIGHT), g(BIAS)).matched(g(X)),
    "NCI": lambda g: ood.Nci.fit(statistics(), g(WEIGHT), g(BIAS)),
    "NECO": lambda g: ood.Neco.fit(statistics(), 2, max_logit=True, weight=g(WEIGHT), bias=g(BIAS)),
}

DOORS: dict[str, Callable[[Given], Any]] = {
    "ClassStatistics": statistics,
    "FoldedStatistics": lambda g: FoldedStatistics.from_features(g(X), g(Y), K, folds=4, samples=g(np.arange(N))),
    "StatisticsAccumulator": accumulated,
    "DecisionCounts": counted,
    "ConfusionCounts": lambda g: tf.ConfusionCounts.from_predictions(g(Y[::-1].copy()), g(Y), K),
    "average_cost": lambda g: tf.ConfusionCounts.from_predictions(g(Y[::-1].copy()), g(Y), K).average_cost(g(COST)),
    "certify": lambda g: tf.certify(g(VECTORS)),
    "DetectorScores": detected,
    **{name: lambda g, make=make: make(g).scores(g(OUTSIDE)) for name, make in DETECTORS.items()},
    "ood.evaluate": lambda g: ood.evaluate(g(X[:, 0]), g(OUTSIDE[:, 0])),
    "component_curve": lambda g: ood.component_curve(g(X[:, :2]), g(OUTSIDE[:, :2]), [1, 2], 1),
    "Prototypes": lambda g: tf.Prototypes(g(VECTORS)).certificate,
    "PrototypeHead": lambda g: heads.PrototypeHead(g(VECTORS)).prototypes,
    "append": lambda g: (head := heads.PrototypeHead(g(VECTORS)), head.append(g(VECTORS)))[0].prototypes,
    "Hyperspherical": lambda g: losses.Hyperspherical(g(VECTORS)).prototypes,
    "ExpectedCost": lambda g: losses.ExpectedCost(g(COST)).cost,
    "Distortion": lambda g: losses.Distortion(g(COST)).cost,
    "SemanticRanking": lambda g: losses.SemanticRanking(g(GRAM)).similarity,
    "PoleRegression": lambda g: losses.PoleRegression(g(np.array([[-1.0, 0], [1, 0]])), 0.0, 1.0).upper_poles,
    "gram_matching": lambda g: prototypes.gram_matching(K, D, gram=g(GRAM), rounds=1),
    "semantic": lambda g: prototypes.semantic(g(GRAM), 2, rounds=1),
    "similarity_of": lambda g: prototypes.similarity_of(g(VECTORS)),
    "separated": lambda g: prototypes.separated(K, D, rounds=1, warm_start=g(VECTORS)),
    "nearest_etf": lambda g: prototypes.nearest_etf(g(VECTORS)),
    "guided": lambda g: prototypes.guided(prototypes.simplex(K, D), g(VECTORS)),
    "hierarchical": lambda g: prototypes.hierarchical(g(COST)),
    "metric_guided": lambda g: prototypes.metric_guided(g(COST), 2, starts=1),
    "pole_cosine": lambda g: prototypes.pole_cosine(g(np.array([0.0, 0.5])), 0.0, 1.0),
    "pole_value": lambda g: prototypes.pole_value(g(np.array([0.0, 0.5])), 0.0, 1.0),
    "require_cost": lambda g: hierarchy.require_cost(g(COST)),
    "cost_of": lambda g: hierarchy.cost_of(g(COST)),
    "from_path_matrix": lambda g: hierarchy.from_path_matrix(g(PATHS)).distances(),
    "from_class_path_matrix": lambda g: hierarchy.from_class_path_matrix(g(np.array([[1, 1, 2]]))).distances(),
    "seli": lambda g: theory.seli(g(COUNTS)),
    "cross_entropy_optimum": lambda g: theory.cross_entropy_optimum(
        g(COUNTS), 1e-3, 1e-3, class_weights=g(np.array([1.0, 2, 3])), logit_adjustment=g(BIAS)
    ),
    "squared_error_optimum": lambda g: theory.squared_error_optimum(g(COUNTS), 1e-3, 1e-3),
    "merging_classes": lambda g: theory.merging_classes(g(COUNTS), 1e-3, 1e-3),
    "regression_optimum": lambda g: theory.regression_optimum(g(GRAM), 0.1, 0.1),
    "estimated_feature_decay": lambda g: theory.estimated_feature_decay(statistics(), g(WEIGHT), 1e-3),
    "nrc1": lambda g: metrics.nrc1(g(X), 2),
    "nrc2": lambda g: metrics.nrc2(g(X), g(WEIGHT)),
    "nrc3": lambda g: metrics.nrc3(g(WEIGHT), g(GRAM)),
    "tagwise_average_error": lambda g: metrics.tagwise_average_error(g(X[:5]), g(TAGS)),
    "single_label_statistics": lambda g: metrics.single_label_statistics(g(X[:5]), g(TAGS)),
    "self_duality_error": lambda g: metrics.self_duality_error(statistics(), g(WEIGHT)),
    "by keyword": lambda g: metrics.nc3_cosine(statistics(), weight=g(WEIGHT)),
    "classifier_equinorm": lambda g: metrics.classifier_equinorm(g(WEIGHT)),
    "classifier_mean_cosines": lambda g: metrics.classifier_mean_cosines(statistics(), g(WEIGHT)),
    "ood_cosines": lambda g: metrics.ood_cosines(statistics(), g(OUTSIDE.mean(0))),
    "principal_angles": lambda g: metrics.principal_angles(statistics(), g(WEIGHT)),
    "class_table": lambda g: metrics.class_table(statistics(), g(WEIGHT)),
    "pair_table": lambda g: metrics.pair_table(statistics(), g(WEIGHT), limit=2),
    "evaluate": lambda g: metrics.evaluate(
        metrics.Evidence(statistics(), weight=g(WEIGHT), bias=g(BIAS), outside=g(OUTSIDE.mean(0)), consumer=g(WEIGHT))
    ),
}


def numbers(value: Any) -> Any:
    """What a result holds, as nested lists of plain values."""
    if isinstance(value, Tensor | np.ndarray):
        return [str(value.dtype), list(value.shape), repr(value.tolist())]  # NaN as itself
    if is_dataclass(value):
        return [numbers(getattr(value, field.name)) for field in fields(value) if field.repr]
    if isinstance(value, dict):
        return {key: numbers(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [numbers(each) for each in value]
    return repr(value)


@pytest.mark.parametrize("form", ["plain", "read-only", "other byte order", "backwards", "of a record"])
@pytest.mark.parametrize("door", DOORS)
def test_a_door_takes_arrays(door: str, form: str) -> None:
    """To the last bit as with tensors, and without a change to what was given."""
    given: list[tuple[np.ndarray, np.ndarray]] = []

    def give(array: np.ndarray) -> np.ndarray:
        given.append((FORMS[form](array), array))
        return given[-1][0]

    assert numbers(DOORS[door](give)) == numbers(DOORS[door](tensor_of))
    assert given
    assert all(np.array_equal(array, before) for array, before in given)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64, np.int16])
def test_labels_of_any_integers(dtype: type) -> None:
    labels = Y.astype(dtype)
    assert numbers(tf.ClassStatistics.from_features(X, labels, K)) == numbers(statistics())
    accumulator = tf.StatisticsAccumulator(K, D)
    accumulator.update(X, labels)
    assert torch.equal(accumulator.compute().counts, statistics().counts)


def test_a_file_in_memory_and_its_parts(tmp_path: Any) -> None:
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    accumulator = tf.StatisticsAccumulator(K, D)
    for start in range(0, N, 16):
        accumulator.update(mapped[start : start + 16], Y[start : start + 16])
    wanted = tf.StatisticsAccumulator(K, D)
    wanted.update(tensor_of(X), tensor_of(Y))
    assert numbers(accumulator.compute()) == numbers(wanted.compute())
