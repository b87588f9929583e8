"""Statistics by plain loops in extended precision; data sets to compare on; every way from rows to a value."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from tightframe import ClassStatistics, StatisticsAccumulator
from tightframe.evidence import Evidence
from tightframe.metrics import Metric, evaluate
from variants import VARIANTS

REAL = np.longdouble  # 64 bits of mantissa, exponents to 10^4932: squares of 1e100 and of 1e-140 are no trouble
EPS = 2.0**-52  # of float64
Array = NDArray[Any]
Draws = np.random.Generator

# ---------------------------------------------------------------------- what the laws tried


@dataclass
class Tally:
    """Cases of a law that were tried, the worst relative error among them, and where it was."""

    cases: int = 0
    worst: float = 0.0
    where: str = ""

    def add(self, error: float, where: str) -> None:
        self.cases += 1
        error = np.inf if np.isnan(error) else float(error)
        if error > self.worst:
            self.worst, self.where = error, where


RECORD: defaultdict[str, Tally] = defaultdict(Tally)  # from tests/, `python -m laws.test_statistics_laws` shows it


# ---------------------------------------------------------------------- the oracle


@dataclass(frozen=True)
class Truth:
    """Counts (K,), means (K, D), spread (K,) and class_within (K, D, D); `square` (K,) is the mean squared length."""

    counts: Array
    means: Array
    spread: Array
    class_within: Array
    square: Array
    constant: Array  # (K,) bool, whether all rows of the class are equal

    @property
    def within(self) -> Array:
        return self.class_within.sum(0)


def truth_of(rows: Array, labels: Array, classes: int) -> Truth:
    """Each class by itself, about one of its own rows first, then about the mean that this gives."""
    dim = rows.shape[1]
    counts = np.zeros(classes, np.int64)
    means, spread = np.full((classes, dim), np.nan, REAL), np.zeros(classes, REAL)
    within, square, constant = np.zeros((classes, dim, dim), REAL), np.zeros(classes, REAL), np.ones(classes, bool)
    for k in range(classes):
        members = rows[labels == k].astype(REAL)
        counts[k] = len(members)
        if not len(members):
            continue
        mean = members[0] + (members - members[0]).sum(0) / REAL(len(members))
        mean = mean + (members - mean).sum(0) / REAL(len(members))
        deviations = members - mean
        means[k], square[k] = mean, (members * members).sum() / REAL(len(members))
        constant[k] = bool((members == members[0]).all())
        if constant[k]:
            means[k] = members[0]
            continue
        spread[k] = (deviations * deviations).sum()
        for i in range(dim):
            within[k, i, i:] = within[k, i:, i] = (deviations[:, i : i + 1] * deviations[:, i:]).sum(0)
    return Truth(counts, means, spread, within, square, constant)


@dataclass(frozen=True)
class Precision:
    """How far a path may be from the oracle, as shares: of the spread, and of the largest entry of the scatter.

    Where paths merge values, means rounded to float64 enter: merging adds n_p |m_p - m|^2 for each part p, so an error
    d of the gaps changes the spread by at most sum_p 2 n_p |m_p - m| d + n_p d^2 <= 2 sqrt(n spread) d + n d^2 (Cauchy
    and Schwarz, as sum_p n_p |m_p - m|^2 <= spread). `merges` is d in units of the rounding of the class's rms length;
    0 where nothing is merged, and then no offset costs a digit.
    """

    spread: float
    scatter: float
    means: float
    merges: float = 0.0


DOUBLE = Precision(1e-10, 1e-10, 1e-10)
SINGLE = Precision(1e-6, 1e-5, 1e-6)  # of float32 deviations from anchors, and of float32 products


def errors(
    value: ClassStatistics,
    truth: Truth,
    precision: Precision,
    minuend: Truth | None = None,
    core: Array | None = None,
) -> dict[str, float]:
    """The worst error of each field in units of what is allowed; infinite where something exact isn't.

    Args:
        minuend: what the value was subtracted from; errors are then relative to that.
        core: (K,) variance of the whole class that the rows are a fold of, its outliers left out: the anchor that the
            folds share lies about so far away, and rounding of the distances to it counts too.
    """
    scale = truth if minuend is None else minuend
    counts = np.maximum(scale.counts, 1).astype(REAL)
    if core is not None:
        scale = replace(
            scale,
            spread=scale.spread + counts * core,
            class_within=scale.class_within + (counts * core)[:, None, None],
            constant=scale.counts <= 1,
        )
        truth = replace(truth, constant=scale.constant)
    gap = precision.merges * EPS * np.sqrt(scale.square)
    offset = 2 * np.sqrt(counts * scale.spread) * gap + counts * gap**2
    worst = {"counts": 0.0 if value.counts.tolist() == truth.counts.tolist() else np.inf}
    present = truth.counts > 0

    rms = np.sqrt(scale.spread / counts)
    means = value.means.numpy().astype(REAL)
    lost = np.sqrt(((means - truth.means) ** 2).sum(1))
    # float32 arithmetic is on deviations: their share counts, not that of the offset
    allowed = precision.means * rms + max(precision.merges, 4.0) * EPS * np.sqrt(scale.square)
    if minuend is not None:
        allowed = allowed * counts / np.maximum(truth.counts, 1)
    worst["means"] = _most(lost[present], allowed[present])
    if not bool(np.isnan(means[~present]).all()):
        worst["means"] = np.inf

    worst["spread"] = _most(np.abs(value.spread.numpy() - truth.spread), precision.spread * scale.spread + offset)
    zero = (truth.counts <= 1) if minuend is not None else truth.constant
    exact = [value.spread.numpy()[zero]]
    if (value.spread < 0).any() or value.spread.isnan().any():
        worst["spread"] = np.inf
    for name in ("within", "class_within"):
        matrices = getattr(value, name)
        if matrices is None:
            continue
        mine, theirs, size = matrices.numpy(), getattr(truth, name), getattr(scale, name)
        axes = tuple(range(mine.ndim))[-2:]
        allowed = precision.scatter * np.abs(size).max(axes) + (offset if mine.ndim == 3 else offset.sum())
        worst[name] = _most(np.abs(mine - theirs).max(axes), allowed)
        skew = np.abs(mine - mine.swapaxes(-1, -2)).max(axes)
        worst[f"{name} symmetric"] = _most(skew, 1e-13 * np.abs(size).max(axes))
        exact += [mine[zero]] if mine.ndim == 3 else [mine] if zero.all() else []
    worst["zeros"] = np.inf if any(np.any(each != 0) for each in exact) else 0.0
    return worst


def _most(error: Array, allowed: Array) -> float:
    error, allowed = np.atleast_1d(error), np.atleast_1d(allowed)
    with np.errstate(all="ignore"):
        shares = np.where(error == 0, 0.0, error / allowed)
        return float(np.nan_to_num(shares.max(initial=0.0), nan=np.inf, posinf=np.inf))


# ---------------------------------------------------------------------- data sets


@dataclass(frozen=True)
class Plan:
    """What a data set looks like; `seed` decides the rest."""

    seed: int
    classes: int
    dim: int
    items: int
    balance: str
    shape: str
    dtype: torch.dtype
    offset: float
    exponent: int
    outlier: str
    ignored: bool


@dataclass(frozen=True)
class Data:
    """Items, each of `block` rows; labels (items, block) with -100 for rows that don't count."""

    plan: Plan
    features: Tensor  # (items, block, D)
    labels: Tensor  # (items, block)

    @property
    def ignore_index(self) -> int | None:
        return -100 if self.plan.ignored else None

    @property
    def class_dim(self) -> int:
        return 1 if self.plan.shape == "image" else -1

    @property
    def options(self) -> dict[str, Any]:
        return {"class_dim": self.class_dim, "ignore_index": self.ignore_index}

    @cached_property
    def truth(self) -> Truth:
        return self.truth_of(slice(None))

    @property
    def single(self) -> bool:
        return self.plan.dtype is not torch.float64

    def truth_of(self, items: Any) -> Truth:
        rows, labels = self.features[items].flatten(0, 1), self.labels[items].flatten()
        return truth_of(rows.double().numpy(), labels.numpy(), self.plan.classes)

    def core_about(self, centres: Array) -> Array:
        """(K,) variance of each class about centres (K, D), but for its farthest rows, outliers: three or a quarter."""
        rows, labels = self.features.flatten(0, 1).double().numpy().astype(REAL), self.labels.flatten().numpy()
        core = np.zeros(self.plan.classes, REAL)
        for k, centre in enumerate(centres):
            squares = np.sort(((rows[labels == k] - centre) ** 2).sum(1))
            if len(squares) and not np.isnan(centre).any():
                core[k] = squares[: len(squares) - min(3, len(squares) // 4)].mean()
        return core

    def batch(self, items: Any) -> tuple[Tensor, Tensor]:
        """Some items in their own shape: (n, D), (n, T, D) or (n, D, H, W)."""
        features, labels = self.features[items], self.labels[items]
        if self.plan.shape == "rows":
            return features[:, 0], labels[:, 0]
        if self.plan.shape == "image":
            high = 2
            features = features.unflatten(1, (high, -1)).movedim(-1, 1)
            labels = labels.unflatten(1, (high, -1))
        return features, labels


BLOCKS = {"rows": 1, "sequence": 5, "image": 6}


def plans(max_items: int = 700) -> st.SearchStrategy[Plan]:
    """Data sets of all kinds; the sizes cross the internal steps of 512 and 4,096 rows."""
    sizes = [st.integers(1, 12), st.integers(1, 120), st.integers(1, max_items), st.integers(400, max_items)]
    return st.builds(
        Plan,
        seed=st.integers(0, 2**32 - 1),
        classes=st.integers(1, 12),
        dim=st.one_of(st.integers(1, 8), st.integers(1, 40)),
        items=st.one_of(*sizes),
        balance=st.sampled_from(["balanced", "zipf", "empty", "singles", "sorted"]),
        shape=st.sampled_from(["rows", "rows", "sequence", "image"]),
        dtype=st.sampled_from([torch.float64, torch.float64, torch.float32, torch.bfloat16, torch.float16]),
        offset=st.sampled_from([0.0, 1.0, 1e3, 1e6]),
        exponent=st.sampled_from([0, 0, 0, -70, 70]),
        outlier=st.sampled_from(["none", "none", "first", "last", "several"]),
        ignored=st.booleans(),
    )


def make(plan: Plan) -> Data:
    """Normal classes, each with its own width in three decades, about means at an offset; some classes constant."""
    rng = np.random.default_rng(plan.seed)
    block = BLOCKS[plan.shape]
    items = max(1, plan.items // block) if plan.items < 4000 else plan.items
    number, classes, dim = items * block, plan.classes, plan.dim
    if plan.balance == "zipf":
        shares = 1.0 / np.arange(1, classes + 1) ** 1.5
        labels = rng.choice(classes, number, p=shares / shares.sum())
    elif plan.balance == "singles":
        labels = np.concatenate([np.arange(classes), np.full(number, rng.integers(classes))])[-number:]
    elif plan.balance == "empty":
        labels = rng.choice(rng.choice(classes, max(1, classes // 2), replace=False), number)
    else:
        labels = rng.integers(classes, size=number)
    if plan.balance == "sorted":
        labels.sort()
    else:
        rng.shuffle(labels)
    half = plan.dtype in (torch.float16, torch.bfloat16)
    widths = 10.0 ** rng.uniform(-2, 1, classes)
    widths[rng.random(classes) < 0.15] = 0.0
    offset = min(plan.offset, 1e3 if half else 1e4) if plan.dtype is not torch.float64 else plan.offset
    means = rng.normal(size=(classes, dim)) + offset
    deviations = widths[labels, None] * rng.normal(size=(number, dim))
    if plan.outlier != "none":
        size = 1e3 if half else 1e4
        where = {"first": [0], "last": [-1], "several": rng.integers(number, size=3)}[plan.outlier]
        deviations[where] *= size
    features = means[labels] + deviations
    if plan.dtype is torch.float64:
        features = features * 10.0**plan.exponent
    elif plan.dtype is torch.float32:
        features = features * 10.0 ** (plan.exponent // 10)
    features = torch.from_numpy(features).to(plan.dtype)
    labels = torch.from_numpy(labels)
    if plan.ignored:
        out = torch.from_numpy(rng.random(number) < 0.2)
        labels = torch.where(out, -100, labels)
        bad = torch.tensor([torch.nan, torch.inf, 3e4], dtype=plan.dtype)
        features[out] = bad[torch.from_numpy(rng.integers(3, size=int(out.sum())))][:, None]
    return Data(plan, features.reshape(items, block, dim), labels.reshape(items, block).long())


def cuts(rng: Draws, number: int, most: int = 7) -> list[slice]:
    """A few consecutive parts, of any sizes, none empty."""
    edges = np.unique(np.concatenate([[0, number], rng.integers(0, number + 1, size=rng.integers(0, most + 1))]))
    return [slice(int(a), int(b)) for a, b in pairwise(edges)]


# ---------------------------------------------------------------------- every way to a value

FOLDS = 4
OFTEN = 34  # looks after which an accumulator multiplies unvalidated rows in float32, and seldom judges its anchors


@dataclass(frozen=True)
class Rows:
    """Features (N, D) and labels (N,) of classes 0 to K - 1."""

    features: Tensor
    labels: Tensor
    classes: int

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, items: slice | Array | Tensor) -> Rows:
        items = torch.from_numpy(items) if isinstance(items, np.ndarray) else items
        return replace(self, features=self.features[items], labels=self.labels[items])

    def whole(self) -> ClassStatistics:
        return ClassStatistics.from_features(self.features, self.labels, self.classes, per_class=True)

    def accumulator(self, folds: int | None = None) -> StatisticsAccumulator:
        return StatisticsAccumulator(self.classes, self.features.shape[1], per_class=True, folds=folds)

    def stream(
        self,
        rng: Draws,
        *,
        validate: bool | None = True,
        look: bool = False,
        singly: int = 0,
        into: StatisticsAccumulator | None = None,
    ) -> StatisticsAccumulator:
        """Into an accumulator in a few batches, after so many of one row; `look` calls compute() after each.

        Args:
            validate: None draws it for each batch.
        """
        into = self.accumulator() if into is None else into
        singly = min(singly, len(self) - 1)
        rest = [slice(singly + some.start, singly + some.stop) for some in cuts(rng, len(self) - singly)]
        for some in [*(slice(row, row + 1) for row in range(singly)), *rest]:
            checked = bool(rng.integers(2)) if validate is None else validate
            into.update(self.features[some], self.labels[some], validate=checked)
            if look:
                into.compute()
        return into

    def parts(self, rng: Draws) -> list[Rows]:
        order = rng.permutation(len(self))
        return [self[order[some]] for some in cuts(rng, len(self))]


def _folded(rows: Rows, rng: Draws, validate: bool) -> StatisticsAccumulator:
    return rows.stream(rng, validate=validate, into=rows.accumulator(FOLDS))


def _merged_in_a_tree(rows: Rows, rng: Draws) -> ClassStatistics:
    values = [part.whole() for part in rows.parts(rng)]
    while len(values) > 1:
        values.append(values.pop(rng.integers(len(values))).merge(values.pop(rng.integers(len(values)))))
    return values[0]


def _accumulators_merged(rows: Rows, rng: Draws) -> ClassStatistics:
    first, *rest = rows.parts(rng)
    accumulator = first.stream(rng)
    for part in rest:
        if rng.integers(2):
            accumulator.merge(part.stream(rng, validate=False))
        else:
            part.stream(rng, into=accumulator)
    return accumulator.compute()


def _saved_midway(rows: Rows, rng: Draws) -> ClassStatistics:
    middle = int(rng.integers(1, len(rows) + 1))
    first = rows[:middle].stream(rng, validate=None)
    other = rows.accumulator()
    other.load_state_dict(copy.deepcopy(first.state_dict()))
    return (rows[middle:].stream(rng, validate=None, into=other) if middle < len(rows) else other).compute()


ROUTES: dict[str, Callable[[Rows, Draws], ClassStatistics]] = {
    "from_features": lambda rows, rng: rows.whole(),
    "streamed": lambda rows, rng: rows.stream(rng).compute(),
    "streamed unvalidated": lambda rows, rng: rows.stream(rng, validate=False).compute(),
    "streamed, some unvalidated": lambda rows, rng: rows.stream(rng, validate=None).compute(),
    "looked at": lambda rows, rng: rows.stream(rng, look=True).compute(),
    "looked at often, unvalidated": lambda rows, rng: rows.stream(
        rng, validate=False, look=True, singly=OFTEN
    ).compute(),
    "folds": lambda rows, rng: _folded(rows, rng, True).compute(),
    "folds unvalidated": lambda rows, rng: _folded(rows, rng, False).compute(),
    "folds merged": lambda rows, rng: ClassStatistics.merge_all(_folded(rows, rng, True).compute_folds().parts),
    "merged in a tree": _merged_in_a_tree,
    "streams merged": lambda rows, rng: ClassStatistics.merge_all([p.stream(rng).compute() for p in rows.parts(rng)]),
    "accumulators merged": _accumulators_merged,
    "saved midway": _saved_midway,
}
"""Each leads from the same rows to the same statistics, with the scatter of each class."""
SCREENED = frozenset(
    {
        "streamed unvalidated",
        "streamed, some unvalidated",
        "looked at often, unvalidated",
        "folds unvalidated",
        "accumulators merged",
        "saved midway",
    }
)
"""Routes with unvalidated batches, which leave out float32 rows of extreme sizes and then raise RangeError."""


def may_be_left_out(features: Tensor) -> bool:
    """Whether an unvalidated batch of some of these rows could be refused for its size."""
    if features.dtype is torch.float64:
        return False
    sizes = features.abs().amax(1)
    return bool((sizes > 1e15).any() or (sizes < 1e-12).any())


# ---------------------------------------------------------------------- measures of a value

NAMES = [name for name, each in VARIANTS.items() if "statistics" in each.reads and "outside" not in each.reads]
RATIOS = {"unc3", "log_kernel_cv"}  # over a mean that may be near zero: the error grows with the ratio
SMALLEST = 1e-8  # values that are rounding, as deviations of two equal angles are, aren't told from zero
LEAST = {  # values that are differences of larger ones have errors relative to these
    "principal_angle": 1.0,  # degrees
    "largest_principal_angle": 1.0,
    "vci": 1.0,
    "log_kernel": 0.1,
    "mean_cosine": 0.1,
    "mean_cosine_uncentred": 0.1,
    "nc3_cosine": 0.1,
    "log_me": 0.1,
    "few_shot_error": 1e-2,  # tails of a Gaussian
    "few_shot_error_1": 1e-2,
    "log_kernel_cv": 1e-6,  # deviations of values that may be equal
    "riesz_kernel_cv": 1e-6,
    "distance_kernel_cv": 1e-6,
}


def measures(
    value: ClassStatistics, weight: Tensor | None = None, more: Iterable[Metric[Any]] = ()
) -> dict[str, float]:
    """Every measure of the class means and the scatter, and more, by name; warnings go to the caller."""
    evidence = Evidence(value, weight)
    values = evaluate(evidence, [each for each in (*map(VARIANTS.get, NAMES), *more) if each.available(evidence)])
    return {name: each.item() for name, each in values.items()}


def measure_error(name: str, it: float, want: float, expected: dict[str, float]) -> float:
    """Relative, to what the measure is a difference of where it is one; infinite where only one is NaN or infinite."""
    if it == want or (np.isnan(it) and np.isnan(want)):
        return 0.0
    if not (np.isfinite(it) and np.isfinite(want)):
        return np.inf
    size = max(abs(want), LEAST.get(name, SMALLEST))
    if name in RATIOS:
        size *= 1 + abs(want)
    if name.endswith("_debiased"):  # differs from the plain one by what sampling adds
        plain, corrected = abs(expected[name.removesuffix("_debiased")]), abs(expected[name])
        with np.errstate(divide="ignore"):
            size *= 1 + np.float64(max(plain, corrected)) / min(plain, corrected)
    return float(abs(it - want) / size)
