"""Law "Decisions": nearest centre and classifier decide as exact arithmetic on the given numbers would, at any scale.

The oracle computes in Python's integers. Scores that float64 rounding of their terms could make equal are ties: there
the lowest label among them is expected, and a label outside them never.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tightframe import ClassStatistics, DecisionCounts
from tightframe.decisions import scoring

_SHIFT = 1300  # every finite float64 times 2 ** _SHIFT is an integer
_CERTAIN, _POSSIBLE = 4, 40  # times EPS = 2 ** -52 times the size of the terms: surely a tie, perhaps a tie
DTYPES = {torch.bfloat16: (-100, 100), torch.float16: (-6, 4), torch.float32: (-100, 100), torch.float64: (-300, 300)}


@dataclass(frozen=True)
class Problem:
    """What is to be decided; means in float64, rows in the features' dtype."""

    means: Tensor
    counts: Tensor
    rounding: Tensor
    weight: Tensor
    bias: Tensor
    rows: Tensor
    tile_size: int

    @property
    def statistics(self) -> ClassStatistics:
        means = torch.where(self.counts[:, None] > 0, self.means, torch.nan)
        return ClassStatistics(self.counts, means, torch.zeros_like(self.rounding), rounding=self.rounding)

    def decide(self) -> tuple[list[int], list[int]]:
        decisions = DecisionCounts(self.statistics, self.weight, self.bias, tile_size=self.tile_size)
        classifier, centre = decisions.decide(self.rows)
        assert classifier is not None
        return classifier.tolist(), centre.tolist()


# ---------------------------------------------------------------------- the oracle


def integers(values: Tensor, shift: int = _SHIFT) -> np.ndarray:
    """The values times 2 ** shift, exactly."""
    mantissas, exponents = np.frexp(values.double().numpy())
    scaled = [int(m * 2**53) << (int(e) - 53 + shift) for m, e in zip(mantissas.flat, exponents.flat, strict=True)]
    made = np.empty(len(scaled), dtype=object)
    made[:] = scaled
    return made.reshape(tuple(values.shape))


def leads(terms: np.ndarray, sizes: np.ndarray) -> tuple[list[int], list[int]]:
    """Of classes by their terms (K, T) less those of the best class: which are surely and which perhaps a tie."""
    lead, scale = terms.sum(1), sizes.sum(1)
    certain = [k for k in range(len(lead)) if (-lead[k]) << 52 <= _CERTAIN * scale[k]]
    possible = [k for k in range(len(lead)) if (-lead[k]) << 52 <= _POSSIBLE * scale[k]]
    return certain, possible


def centres(problem: Problem) -> list[int]:
    """Labels of the distinct means of classes with samples."""
    means, distinct = problem.means, list[int]()
    for k in problem.counts.nonzero().flatten().tolist():
        gaps = [(float(torch.dist(means[k], means[j])), max(problem.rounding[[j, k]].tolist())) for j in distinct]
        if all(gap > limit for gap, limit in gaps):
            distinct.append(k)
    return distinct


def nearest(problem: Problem) -> list[tuple[list[int], list[int]]]:
    """For every row the labels that are surely, and those that are perhaps, nearest."""
    labels = centres(problem)
    means, ties = integers(problem.means[labels]), []
    for row in integers(problem.rows):
        gaps = row - means
        best = int((gaps**2).sum(1).argmin())
        steps, middles = means - means[best], abs(gaps) + abs(gaps[best])
        certain, possible = leads(steps * (gaps + gaps[best]), abs(steps) * middles)
        ties.append(([labels[k] for k in certain], [labels[k] for k in possible]))
    return ties


def classified(problem: Problem) -> list[tuple[list[int], list[int]]]:
    weight, bias, ties = integers(problem.weight), integers(problem.bias, 2 * _SHIFT), []
    for row in integers(problem.rows):
        scores = weight @ row + bias
        best = int(scores.argmax())
        terms = np.concatenate([(weight - weight[best]) * row, (bias - bias[best])[:, None]], 1)
        ties.append(leads(terms, abs(terms)))
    return ties


def assert_decides(problem: Problem) -> None:
    classifier, centre = problem.decide()
    for decided, oracle in ((centre, nearest), (classifier, classified)):
        for row, (label, (certain, possible)) in enumerate(zip(decided, oracle(problem), strict=True)):
            assert label in possible, (oracle.__name__, row, label, certain, possible)
            assert label <= min(certain), (oracle.__name__, row, label, certain, possible)


# ---------------------------------------------------------------------- problems


@st.composite
def problems(draw: st.DrawFn, most: int = 7) -> Problem:
    """Means, classifier and rows with ties, duplicates, offsets, outliers and sizes of every kind."""
    dtype = draw(st.sampled_from(list(DTYPES)))
    K, D, N = draw(st.integers(2, most)), draw(st.integers(1, 5)), draw(st.integers(1, 10))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    lattice = draw(st.booleans())  # small integers, with ties wherever one looks

    def values(*shape: int, bits: int = 0) -> Tensor:
        made = rng.integers(-2, 3, shape).astype(float) if lattice else rng.normal(size=shape)
        return torch.from_numpy(made).to(torch.float32 if bits else torch.float64).double()

    offset = draw(st.sampled_from([0.0, 0.0, 1.0, 16.0, 512.0]))
    if dtype in (torch.float32, torch.float64):
        offset *= draw(st.sampled_from([1, 2**10]))
    means = values(K, D) + offset
    rounding = torch.zeros(K, dtype=torch.float64)
    copies = draw(st.lists(st.tuples(st.integers(0, K - 1), st.integers(0, K - 1)), max_size=2))
    if copies and draw(st.booleans()):
        rounding += 1e-9 * (1 + offset)
    for original, copy in copies:  # the same means, but for rounding
        means[copy] = means[original] + 0.2 * rounding[0] * torch.from_numpy(rng.uniform(-1, 1, D) / D)
    weight, bias = values(K, D, bits=24), values(K, bits=24) * draw(st.sampled_from([0, 1, 1, 1000]))
    for original, copy in copies:
        weight[copy], bias[copy] = weight[original], bias[original]
    rows = values(N, D) + offset
    sides = torch.from_numpy(rng.integers(0, K, (2, N)))
    kind = draw(st.sampled_from(["anywhere", "between", "nearly between", "at", "close"]))
    if kind in ("between", "nearly between"):
        rows = (means[sides[0]] + means[sides[1]]) / 2
    if kind == "nearly between":
        share = 10.0 ** draw(st.integers(-16, -3))
        rows = rows + share * torch.from_numpy(rng.normal(size=(N, 1))) * (means[sides[0]] - means[sides[1]])
    if kind in ("at", "close"):
        rows = means[sides[0]]
    if kind == "close":
        rows = rows + 10.0 ** draw(st.integers(-9, -1)) * torch.from_numpy(rng.normal(size=(N, D)))
    low, high = DTYPES[dtype]
    power = draw(st.integers(low, high))
    rows, means, rounding = rows * 2.0**power, means * 2.0**power, rounding * 2.0**power
    turn = draw(st.sampled_from([0, -power]))
    weight, bias = weight * 2.0**turn, bias * 2.0 ** (turn + power)
    if dtype is not torch.float16:
        largest = 120 if dtype is not torch.float64 else 400
        wild = st.sampled_from(["row", "entry", "mean", "weight", "bias", "small row", "small weight"])
        for where in draw(st.lists(wild, max_size=2, unique=True)):
            by = 2.0 ** max(0, min(draw(st.sampled_from([20, 70, 100])), largest - power - int(np.log2(1 + offset))))
            if where == "row":
                rows[0] *= by
            elif where == "entry":
                rows[-1, 0] *= by if len(rows) > 1 else 1
            elif where == "mean":
                means[-1] *= by
            elif where == "weight":
                weight[0] *= 2.0 ** min(60, 120 - turn)
            elif where == "bias":
                bias[-1] *= 2.0**60
            elif where == "small row":
                rows[0] *= 2.0**-40
            elif where == "small weight":
                weight[-1] *= 2.0**-40
    counts = torch.from_numpy(rng.integers(1, 9, K))
    if K > 2:
        counts[rng.integers(0, K, draw(st.integers(0, K - 2)))] = 0
    tile_size = draw(st.sampled_from([1, 2, 3, 5, 64, 1024]))
    return Problem(means, counts, rounding, weight, bias, rows.to(dtype), tile_size)


@settings(max_examples=100)
@given(problems())
def test_decisions_are_those_of_exact_arithmetic(problem: Problem) -> None:
    assert_decides(problem)


@pytest.mark.slow
@settings(max_examples=12_000)
@given(problems())
def test_decisions_are_those_of_exact_arithmetic_at_length(problem: Problem) -> None:
    assert_decides(problem)


def test_a_bias_that_dwarfs_the_others_costs_them_no_digits() -> None:
    """Scores 0 and 9e-13 of classes 1 and 3 are told apart beside others of -2000 and -2e21."""
    weight = torch.tensor([[-2.0], [0.0], [-2.0], [-1.0], [1.0]], dtype=torch.float64)
    bias = torch.tensor([-2e3, 0.0, -2e3, 0.0, -(2.0**61)], dtype=torch.float64)
    counts, rounding = torch.tensor([7, 5, 4, 2, 5]), torch.zeros(5, dtype=torch.float64)
    row = torch.tensor([[-(2.0**-40)]], dtype=torch.bfloat16)
    for tile_size in (1, 2, 8):
        problem = Problem(weight.clone(), counts, rounding, weight, bias, row, tile_size)
        assert problem.decide()[0] == [3]
        assert_decides(problem)


@settings(max_examples=12)
@given(problems(most=150))
def test_among_many_classes(problem: Problem) -> None:
    assert_decides(problem)


@pytest.mark.slow
@settings(max_examples=1_500)
@given(problems(most=150))
def test_among_many_classes_at_length(problem: Problem) -> None:
    assert_decides(problem)


# ---------------------------------------------------------------------- every way of multiplying


def plain(samples: int, classes: int, dim: int, spread: float, seed: int) -> Problem:
    """Normal classes of unit distance, and a classifier near their means."""
    rng = torch.Generator().manual_seed(seed)
    means = torch.randn(classes, dim, generator=rng)
    labels = torch.randint(classes, (samples,), generator=rng)
    rows = means[labels] + spread * torch.randn(samples, dim, generator=rng)
    weight = (means + 0.5 * torch.randn(classes, dim, generator=rng)).double()
    ones = torch.ones(classes, dtype=torch.int64)
    bias = -weight.square().sum(1) / 2
    return Problem(means.double(), ones, torch.zeros(classes).double(), weight, bias, rows, 1024)


def in_long_double(problem: Problem) -> tuple[list[int], list[int]]:
    """Decisions in numpy's long doubles, which no draw of `plain` needs more than."""
    rows, means, weight, bias = (
        each.double().numpy().astype(np.longdouble)
        for each in (problem.rows, problem.means, problem.weight, problem.bias)
    )
    distances = [((row - means) ** 2).sum(1).argmin() for row in rows]
    return (rows @ weight.T + bias).argmax(1).tolist(), [int(each) for each in distances]


@pytest.mark.parametrize("rounded", [False, True], ids=["float32", "bfloat16 first"])
@pytest.mark.parametrize("spread", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("power", [-90, 0, 90])
def test_with_and_without_products_in_bfloat16(
    monkeypatch: pytest.MonkeyPatch, rounded: bool, spread: float, power: int
) -> None:
    """More classes than one tile; both screens, whatever the processor has."""
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: rounded)
    problem = plain(700, 300, 40, spread, seed=power)
    expected = in_long_double(problem)
    for tile_size in (64, 100, 1024):
        scaled = replace(
            problem,
            means=problem.means * 2.0**power,
            rows=problem.rows * 2.0**power,
            bias=problem.bias * 2.0**power,
            tile_size=tile_size,
        )
        assert scaled.decide() == expected


def rule_of(vectors: Tensor, bias: Tensor | None) -> scoring.Rule:
    classes = len(vectors)
    return scoring.Rule(vectors, bias, torch.arange(classes), torch.zeros(classes, dtype=torch.float64), 1024)


def screen_of(rule: scoring.Rule, shift: Tensor, rounded: bool) -> scoring.Screen:
    screen = scoring.Screen([rule], shift, 1024)
    return scoring.Screen([rule], shift, 1024, screen) if rounded else screen


def screened(screen: scoring.Screen, rows: Tensor, rounded: bool) -> Tensor:
    """The labels (N,) of one rule's screen alone, -1 where it leaves the row to the next."""
    lengths = torch.linalg.vector_norm(rows, dim=1)
    if not rounded:
        return screen._decide(scoring.Rows(rows, lengths))[:, 0]
    half = rows.bfloat16()
    return screen._decide(scoring.Rows(half, lengths, torch.linalg.vector_norm(rows - half.float(), dim=1)))[:, 0]


@settings(max_examples=200)
@given(st.data())
def test_what_a_screen_decides_is_right(data: st.DataObject) -> None:
    """Every class has a twin, so that the best two scores are close: a screen may leave a row, but not err."""
    rng = torch.Generator().manual_seed(data.draw(st.integers(0, 2**32)))
    classes, dim = 4 * data.draw(st.integers(17, 30) | st.just(64)), data.draw(st.integers(1, 30))
    rounded = data.draw(st.booleans())
    gap = 2.0 ** -data.draw(st.integers(5, 11) if rounded else st.integers(20, 27))

    def twins(*shape: int) -> Tensor:
        half = torch.randn(classes // 4, *shape, generator=rng, dtype=torch.float64)
        half = torch.cat([half, half + gap * torch.randn(half.shape, generator=rng, dtype=torch.float64)])
        return torch.cat([half, -half])  # so that nothing is lost when they are centred

    kinds = [torch.bfloat16, torch.float32, torch.float64]
    vectors = twins(dim) if data.draw(st.booleans()) else torch.randn(classes, dim, generator=rng)
    vectors = vectors.to(data.draw(st.sampled_from(kinds))).double()
    rows = torch.randn(100, dim, generator=rng).to(data.draw(st.sampled_from(kinds[:2]))).float()
    rows *= 2.0 ** data.draw(st.sampled_from([0, -9, -25, -76]))
    bias = data.draw(st.sampled_from([None, torch.zeros(classes).double(), twins()]))
    rule = rule_of(vectors, bias)
    shift = data.draw(st.sampled_from([torch.zeros(dim).double(), rule.centre]))
    chosen = screened(screen_of(rule, shift, rounded), (rows.double() - shift).float(), rounded).numpy()
    exact, long = vectors.numpy().astype(np.longdouble), rows.numpy().astype(np.longdouble)
    shifts = -(exact**2).sum(1) / 2 if bias is None else bias.numpy().astype(np.longdouble)
    scores, sizes = long @ exact.T + shifts, abs(long) @ abs(exact).T + abs(shifts)
    behind = scores.max(1) - np.take_along_axis(scores, chosen[:, None], 1)[:, 0]
    assert ((chosen < 0) | (behind <= 1e-17 * sizes.max(1))).all()


@pytest.mark.parametrize("which", ["row", "vectors"])
def test_what_bfloat16_rounds_off_may_add_up(which: str) -> None:
    """All of it speaks against the class that exact arithmetic chooses; neither is it lost elsewhere."""
    dim, most = 1000, 0.98 * 2.0**-8  # numbers nearer to 1.5 than this are rounded to it
    one = torch.where(torch.rand(dim) < 0.5, 1.0, -1.0).double()
    other = torch.where(torch.arange(dim) < dim // 2 + 10, one, -one)  # <one, other> is 20
    if which == "row":
        row, vectors, bias = 1.5 * one + most * other, torch.stack([other, -other]), torch.tensor([-30.0, 30.0])
    else:
        row, vectors, bias = one, 1.5 * other + most * torch.stack([one, -one]), torch.tensor([0.0, 0.0])
        vectors, bias = torch.cat([vectors, -vectors]), torch.tensor([0.0, 0.0, 0.0, 0.0])
    bias[:2] += most * dim * torch.tensor([-0.5, 0.5])
    bias = bias.double()
    assert int((vectors @ row + bias).argmax()) == 0
    assert int((vectors.bfloat16().double() @ row.bfloat16().double() + bias).argmax()) == 1
    screen = screen_of(rule_of(vectors, bias), torch.zeros(dim).double(), True)
    assert screened(screen, row.float()[None], True).tolist() == [-1]


def test_what_float32_rounds_off_offsets_or_lengths() -> None:
    """Float32 puts 1 + 0.79 ulp below 1 + 0.51 ulp."""
    ulp = 2.0**-23
    bias = torch.tensor([1 + 0.49 * ulp, 1 + 0.51 * ulp, -1 - 0.51 * ulp], dtype=torch.float64)
    vectors = torch.tensor([[1.0], [0.0], [-1.0]], dtype=torch.float64)
    screen = screen_of(rule_of(vectors, bias), torch.zeros(1).double(), False)
    assert screened(screen, torch.tensor([[0.3 * ulp]]), False).tolist() == [-1]
    vectors = torch.tensor([[1 + 0.49 * ulp, 0.3 * ulp], [1 + 0.51 * ulp, 0.0]], dtype=torch.float64)
    screen = screen_of(rule_of(torch.cat([vectors, -vectors]), torch.zeros(4).double()), torch.zeros(2).double(), False)
    for size in (1.0, 2.0**-76):  # whose square is zero
        assert screened(screen, torch.full((1, 2), size), False).tolist() == [-1]


@pytest.mark.parametrize("rounded", [False, True])
def test_a_screen_decides_most_rows(rounded: bool) -> None:
    problem = plain(200, 100, 64, 1.0, seed=0)
    rule = rule_of(problem.means, None)
    decided = screened(screen_of(rule, rule.centre, rounded), (problem.rows.double() - rule.centre).float(), rounded)
    assert (decided >= 0).double().mean() > (0.9 if rounded else 0.99)


# ---------------------------------------------------------------------- scale, order of summation, batches


@settings(max_examples=100)
@given(st.integers(0, 2**32), st.integers(-100, 100), st.sampled_from([torch.bfloat16, torch.float32]), st.booleans())
def test_decisions_do_not_depend_on_the_unit(seed: int, power: int, dtype: torch.dtype, inversely: bool) -> None:
    problem = plain(40, 9, 6, 1.0, seed)
    problem = replace(problem, rows=problem.rows.to(dtype))
    turn = -power if inversely else 0
    scaled = replace(
        problem,
        means=problem.means * 2.0**power,
        rows=problem.rows * 2.0**power,
        weight=problem.weight * 2.0**turn,
        bias=problem.bias * 2.0 ** (turn + power),
    )
    assert torch.equal(scaled.rows.double(), problem.rows.double() * 2.0**power)  # nothing left the range of the dtype
    assert scaled.decide() == problem.decide()


@settings(max_examples=100)
@given(st.integers(0, 2**32), st.sampled_from(list(DTYPES)), st.floats(0, 1e3), st.integers(1, 40))
def test_classes_of_the_same_samples_are_one_centre_in_whatever_order_they_are_summed(
    seed: int, dtype: torch.dtype, offset: float, dim: int
) -> None:
    rng = torch.Generator().manual_seed(seed)
    samples = [(offset + torch.randn(12, dim, generator=rng)).to(dtype) for _ in range(3)]
    owner = torch.tensor([0, 1, 1, 0, 2, 1])  # whose samples each class has
    parts = [samples[k][torch.randperm(12, generator=rng)] for k in owner.tolist()]
    value = ClassStatistics.from_features(torch.cat(parts), torch.arange(6).repeat_interleave(12), 6)
    decided = DecisionCounts(value).decide(torch.cat(parts))[1]
    assert set(decided.tolist()) <= {0, 1, 4}


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(2, 40), st.integers(1, 3), st.floats(-4, 0))
def test_no_two_centres_coincide_and_every_class_left_out_coincides_with_a_lower_label(
    seed: int, classes: int, dim: int, log_rounding: float
) -> None:
    rng = torch.Generator().manual_seed(seed)
    means = torch.randn(classes, dim, generator=rng, dtype=torch.float64)
    rounding = 10.0**log_rounding * torch.rand(classes, generator=rng, dtype=torch.float64)
    value = ClassStatistics(torch.ones(classes).long(), means, torch.zeros(classes).double(), rounding=rounding)
    kept = sorted(set(DecisionCounts(value).decide(means)[1].tolist()))
    coincide = torch.cdist(means, means) <= torch.maximum(rounding[:, None], rounding)
    assert not coincide[kept][:, kept].fill_diagonal_(False).any()
    for k in set(range(classes)) - set(kept):
        assert coincide[k, :k].any()


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.lists(st.integers(1, 700), min_size=1, max_size=8), st.booleans())
def test_counts_do_not_depend_on_batches(seed: int, sizes: list[int], double: bool) -> None:
    problem = plain(sum(sizes), 5, 4, 1.0, seed)
    rows = problem.rows.double() if double else problem.rows
    labels = torch.arange(len(rows)) % 5
    counts = DecisionCounts(problem.statistics, problem.weight, problem.bias)
    start = 0
    for size in sizes:
        batch = rows[start : start + size].clone()
        counts.update(batch, labels[start : start + size])
        batch.fill_(torch.nan)  # callers reuse their memory
        start += size
    classifier, centre = in_long_double(problem)
    expected: Callable[[Tensor], list[int]] = lambda hits: labels[hits].bincount(minlength=5).tolist()  # noqa: E731
    assert counts.totals.counts.tolist() == labels.bincount(minlength=5).tolist()
    assert counts.totals.classifier_correct.tolist() == expected(torch.tensor(classifier) == labels)
    assert counts.totals.centre_correct.tolist() == expected(torch.tensor(centre) == labels)
    assert counts.totals.agreement.tolist() == expected(torch.tensor(centre) == torch.tensor(classifier))


# ---------------------------------------------------------------------- what went wrong before


@pytest.mark.parametrize("size", [1e19, 1e20, 1e30, 3e37, 1e-19, 1e-30, 1e-38])
def test_features_of_any_size(size: float) -> None:
    problem = plain(50, 6, 4, 1.0, seed=3)
    scaled = replace(
        problem, means=problem.means * size, rows=(problem.rows.double() * size).float(), bias=problem.bias * size
    )
    assert_decides(scaled)
    assert_decides(replace(scaled, weight=problem.weight / size, bias=problem.bias))


def test_rows_beyond_any_scale_of_the_means() -> None:
    """A mean at the very centre has a score without any rounding, lengths of rows overflow when they are squared."""
    means = torch.tensor([[-1e-100], [0.0], [1e-100]], dtype=torch.float64)
    problem = replace(plain(1, 3, 1, 1.0, 0), means=means, rows=torch.tensor([[1e130], [-1e130]], dtype=torch.float64))
    assert problem.decide()[1] == [2, 0]
    assert_decides(problem)


@pytest.mark.parametrize("classes", [6, 100])
def test_one_huge_value_leaves_the_other_rows_alone(classes: int) -> None:
    problem = plain(50, classes, 4, 1.0, seed=3)
    rows = problem.rows.clone()
    rows[7, 2], rows[9] = 1e30, -1e30
    assert_decides(replace(problem, rows=rows))


@pytest.mark.parametrize("classes", [6, 100])
def test_a_classifier_and_rows_of_zeros(classes: int) -> None:
    problem = plain(50, classes, 4, 1.0, seed=3)
    zero = replace(problem, weight=problem.weight * 0, bias=problem.bias * 0)
    assert zero.decide()[0] == [0] * 50
    assert replace(zero, rows=zero.rows * 0).decide()[0] == [0] * 50
    assert_decides(replace(problem, rows=problem.rows * 0))
    assert replace(problem, means=problem.means * 0).decide()[1] == [0] * 50
