"""The traps that other tools fall into: section D of the formula sheet, by number. 17 and 18 concern reports."""

import ast
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

import tightframe
from laws.scenarios import (
    SCENARIOS,
    Scenario,
    assert_fields_close,
    assert_fields_equal,
    draw,
    evidence_of,
    statistics_of,
    tensors,
    truth,
    wrong,
)
from oracle import ORACLE, Sample
from tightframe import ClassStatistics, DecisionCounts, StatisticsAccumulator, metrics
from tightframe.errors import GeometryWarning, LabelError, NonFiniteError
from tightframe.evidence import Evidence
from tightframe.metrics.kernels import riesz
from tightframe.metrics.pairs import TILE_SIZE, OverPairs, over_pairs
from tightframe.numerics import keep_freed_memory
from variants import VARIANTS


def accumulated(features: Tensor, labels: Tensor, classes: int, *, size: int = 700, **options: Any) -> ClassStatistics:
    accumulator = StatisticsAccumulator(classes, features.shape[1], **options)
    for rows, mine in zip(features.split(size), labels.split(size), strict=True):
        accumulator.update(rows, mine)
    return accumulator.compute()


def over_all_pairs(
    statistics: ClassStatistics, names: Iterable[str] | None = None, tile_size: int = TILE_SIZE
) -> dict[str, Tensor]:
    """Values of pairwise metrics, or of all there are, from one pass."""
    chosen = [name for name, metric in VARIANTS.items() if metric.pairs is not None] if names is None else list(names)
    wanted = [VARIANTS[name].pairs(**VARIANTS[name].options) for name in chosen]
    return dict(zip(chosen, over_pairs(statistics, *wanted, tile_size=tile_size), strict=True))


class Record(TorchDispatchMode):
    """Names of all operations, and the largest tensor that one of them returned."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.largest = 0
        keep_freed_memory()  # its one block of 16 MiB per process is not data of a measure

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.name().split(".")[0]
        self.names.add(name)
        places = args[1] if name in {"aten::index", "aten::index_put_"} else ()
        if any(place is not None and place.dtype is torch.bool for place in places):
            self.names.add("aten::nonzero")  # called inside: the result's shape depends on the values
        for value in tree_iter(result):
            if isinstance(value, Tensor):
                self.largest = max(self.largest, value.untyped_storage().nbytes() // value.itemsize)
        return result


# ---------------------------------------------------------------------- 1 to 5: data


@pytest.mark.parametrize("offset", [1e3, 1e4])
@pytest.mark.parametrize("spread", [1e-2, 1e-3])
def test_trap_01_means_far_from_the_origin_in_float32(offset: float, spread: float) -> None:
    sample = draw(Scenario((200, 150, 100, 300, 50, 80), 8), offset=offset, spread=spread, dtype=np.float32)
    names = ("nc1", "etf_error", "log_kernel_variance", "cdnv", "trace_ratio", "within_trace")
    expected = {name: ORACLE[name](sample) for name in names}
    value = Evidence(accumulated(*tensors(sample), 6))
    assert not wrong({name: VARIANTS[name].of(value).item() for name in names}, expected, 1e-5)
    features, labels = tensors(sample)
    sums = torch.zeros(6, 8).index_add(0, labels, features)
    means = sums / labels.bincount()[:, None]
    naive = (features.square().sum(1).mean() - (labels.bincount() / 880) @ means.square().sum(1)).item()
    assert abs(naive / expected["within_trace"] - 1) > 10  # the moments about the origin hold nothing


@pytest.mark.parametrize("offset", [1e3, 1e4])
def test_trap_02_nearest_centre_far_from_the_origin(offset: float) -> None:
    sample = draw(Scenario((30,) * 20, 16), offset=offset, spread=0.5, dtype=np.float32)
    features, labels = tensors(sample)
    value = statistics_of(sample, per_class=False)
    decisions = DecisionCounts(value)
    decisions.update(features, labels)
    assert metrics.ncc_accuracy(decisions).item() == pytest.approx(ORACLE["ncc_accuracy"](sample), rel=1e-15)
    exact = torch.cdist(features.double(), value.means, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
    assert torch.equal(decisions.decide(features)[1], exact)
    means = value.means.float()
    expanded = features.square().sum(1)[:, None] + means.square().sum(1) - 2 * features @ means.mT
    assert (expanded.argmin(1) != exact).float().mean() > (0.5 if offset == 1e4 else 0)


@pytest.mark.parametrize("empty", [(3,), (0, 6)])
def test_trap_03_an_empty_class_is_absent(empty: tuple[int, ...]) -> None:
    """Every metric is that of the other classes alone, with their labels closed up."""
    full = draw(SCENARIOS["balanced"], spread=0.5)
    place = np.array([k for k in range(8) if k not in empty])[:6]
    weight, bias = np.full((8, 10), 7.0), np.full(8, -1e3)
    weight[place], bias[place] = full.weight, full.bias
    padded = Sample(full.features, place[full.labels], 8, weight, bias, full.outside)
    evidence, expected = evidence_of(padded), truth(full)
    values = {name: metric.of(evidence).item() for name, metric in VARIANTS.items()}
    assert not wrong(values, expected, 1e-10)
    assert all(math.isfinite(value) for value in over_all_pairs(evidence.statistics).values())
    stream = accumulated(*tensors(padded), 8, size=7, per_class=True)
    assert stream.means[list(empty)].isnan().all()
    evidence = evidence_of(padded, stream)
    assert not wrong({name: metric.of(evidence).item() for name, metric in VARIANTS.items()}, expected, 1e-10)


@pytest.mark.parametrize("label", [-1, -100])
def test_trap_04_negative_labels_do_not_wrap_around(label: int, picture: Any) -> None:
    features, labels = tensors(draw(SCENARIOS["balanced"]))
    padding = 1e3 * torch.ones(5, 10, dtype=torch.float64)
    padded, marked = torch.cat([features, padding]), torch.cat([labels, torch.full((5,), label)])
    accumulator = StatisticsAccumulator(6, 10)
    accumulator.update(features, labels)
    state = picture(accumulator)
    with pytest.raises(LabelError, match=rf"got {label} \(5 rows\). Pass ignore_index={label}"):
        accumulator.update(padded, marked)
    assert picture(accumulator) == state
    with pytest.raises(LabelError, match=f"got {label}"):
        ClassStatistics.from_features(padded, marked, 6)
    with pytest.raises(LabelError, match=f"got {label}"):
        DecisionCounts(accumulator.compute()).update(padded, marked)
    ignoring = StatisticsAccumulator(6, 10, ignore_index=label)
    ignoring.update(padded, marked)
    assert_fields_equal(ignoring.compute(), accumulator.compute())


@pytest.mark.parametrize("size", [1, 7, 59])
def test_trap_05_batches_of_one_and_last_partial_ones(size: int) -> None:
    sample = draw(SCENARIOS["balanced"], offset=1e4, spread=1e-2)
    expected = statistics_of(sample)
    assert_fields_close(accumulated(*tensors(sample), 6, size=size, per_class=True), expected, 1e-10)
    whole, parts = DecisionCounts(expected), DecisionCounts(expected)
    whole.update(*tensors(sample))
    for rows, labels in zip(*(part.split(size) for part in tensors(sample)), strict=True):
        parts.update(rows, labels)
    assert torch.equal(parts.totals.centre_correct, whole.totals.centre_correct)


@pytest.mark.filterwarnings("ignore:.*are by chance:tightframe.errors.GeometryWarning")
@pytest.mark.parametrize("tile_size", [3, 5, 15])
def test_trap_05_a_last_tile_of_one_class(tile_size: int) -> None:
    assert 16 % tile_size == 1
    sample = draw(Scenario((3,) * 16, 7), spread=1.0)
    value = statistics_of(sample)
    values = {name: number.item() for name, number in over_all_pairs(value, tile_size=tile_size).items()}
    assert not wrong(values, {name: ORACLE[name](sample) for name in values}, 1e-10)
    weight, bias = torch.from_numpy(sample.weight), torch.from_numpy(sample.bias)
    decisions = DecisionCounts(value, weight, bias, tile_size=tile_size)
    decisions.update(*tensors(sample))
    assert metrics.ncc_agreement(decisions).item() == pytest.approx(ORACLE["ncc_agreement"](sample), rel=1e-15)


# ---------------------------------------------------------------------- 6, 7: rank


def with_singular_values(values: Tensor, dim: int) -> tuple[ClassStatistics, float]:
    """Class means whose centred matrix has these singular values, scatter of every size, and the exact NC1."""
    K = len(values) + 1
    left = torch.linalg.qr(torch.cat([torch.ones(K, 1), torch.randn(K, K - 1)], 1).double())[0][:, 1:]
    right = torch.linalg.qr(torch.randn(dim, K - 1, dtype=torch.float64))[0]
    along = torch.rand(K - 1, dtype=torch.float64) + 0.5
    within = 100 * (right * along) @ right.mT
    means = (left * values) @ right.mT
    counts = torch.full((K,), 100 // K)
    statistics = ClassStatistics(counts, means, means.new_ones(K), within)
    exact = (100 * along / values**2).sum() / counts.sum()
    return statistics, exact.item()


@pytest.mark.parametrize("smallest", [1.0, 1e-2, 1e-7])
def test_trap_06_small_true_directions_are_kept(smallest: float) -> None:
    """D = 2048 and a condition number of 1e7: an eigenvalue of S_B of 1e-14, far below the cut of a default pinv."""
    values = torch.logspace(0, math.log10(smallest), 9, dtype=torch.float64)
    statistics, exact = with_singular_values(values, 2048)
    assert abs(metrics.nc1(statistics).item() / exact - 1) < max(1e-10, 1e-14 / smallest)


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("K", [2, 3, 10, 33])
def test_trap_06_no_spurious_direction_is_added(K: int, offset: float) -> None:
    """Centring leaves a null direction that rounding fills: an inverse that keeps it gives 1e9 and more."""
    features = torch.randn(4 * K, 50, dtype=torch.float64)
    labels = torch.arange(K).repeat(4)
    sample = Sample((features + 5 * torch.randn(K, 50)[labels] + offset).numpy(), labels.numpy(), K)
    assert metrics.nc1(statistics_of(sample)).item() == pytest.approx(ORACLE["nc1"](sample), rel=1e-9)


def test_trap_07_coincident_means_give_the_same_answer_at_every_call() -> None:
    steps = torch.randn(20, 8, dtype=torch.float64)
    means = torch.randn(4, 8, dtype=torch.float64)[[0, 1, 2, 3, 2]]
    features = torch.cat([means[k] + sign * steps for k in range(5) for sign in (1, -1)])
    statistics = ClassStatistics.from_features(features, torch.arange(5).repeat_interleave(40), 5)
    values = []
    for seed in range(5):
        torch.manual_seed(seed)
        with pytest.warns(GeometryWarning, match="coincide: 2, 4"):
            values.append(metrics.nc1(statistics))
    assert all(torch.equal(value, values[0]) for value in values)
    centred = (statistics.means - statistics.means.mean(0)).numpy()
    _, sizes, right = np.linalg.svd(centred, full_matrices=False)
    exact = sum(right[r] @ (statistics.within.numpy() / 200) @ right[r] / sizes[r] ** 2 for r in range(3))
    assert values[0].item() == pytest.approx(exact, rel=1e-9)


# ---------------------------------------------------------------------- 8, 9: values and dtypes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_trap_08_one_bad_row_poisons_nothing(value: float, dtype: torch.dtype) -> None:
    features, labels = tensors(draw(SCENARIOS["balanced"]))
    features = features.to(dtype)
    bad = features.clone()
    bad[17, 3] = value
    accumulator = StatisticsAccumulator(6, 10)
    with pytest.raises(NonFiniteError, match=r"row 17 holds (nan|-?inf) in column 3"):
        accumulator.update(bad, labels)
    with pytest.raises(NonFiniteError, match="row 17"):
        ClassStatistics.from_features(bad, labels, 6)
    accumulator.update(features, labels)
    assert_fields_close(accumulator.compute(), ClassStatistics.from_features(features, labels, 6), 1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_trap_09_half_precision_is_widened_before_it_is_summed(dtype: torch.dtype) -> None:
    """Five thousand ones would sum to 2048 in float16 and to 256 in bfloat16."""
    features = torch.ones(5000, 3, dtype=dtype)
    features[::2] += 1
    value = accumulated(features, torch.arange(5000) // 2500, 2)
    assert value.means.tolist() == [[1.5] * 3] * 2
    assert value.spread.tolist() == pytest.approx([2500 * 0.25 * 3] * 2, rel=1e-6)


def test_trap_09_float64_features_in_a_float32_state() -> None:
    """Classes 1e-9 wide at distance one: float32 could not tell a sample from its neighbour."""
    sample = draw(Scenario((300,) * 4, 5), offset=1.0, spread=1e-9)
    features, labels = tensors(sample)
    accumulator = StatisticsAccumulator(4, 5)
    accumulator.update(features[:600].float(), labels[:600])
    accumulator.reset()
    for rows, mine in zip(features.split(500), labels.split(500), strict=True):
        accumulator.update(rows, mine)
    assert metrics.nc1(accumulator.compute()).item() == pytest.approx(ORACLE["nc1"](sample), rel=1e-5)


@pytest.mark.parametrize("cast", [torch.float32, torch.float16, torch.bfloat16])
def test_trap_09_casting_a_module_demotes_nothing(cast: torch.dtype) -> None:
    features, labels = tensors(draw(Scenario((300,) * 4, 5), offset=1e4, spread=1e-6))
    accumulator = StatisticsAccumulator(4, 5)
    accumulator.update(features, labels)
    expected = accumulator.compute()
    torch.nn.Sequential(torch.nn.Linear(2, 2), accumulator).to(cast)
    assert_fields_equal(accumulator.compute(), expected)


# ---------------------------------------------------------------------- 10 to 12: memory and synchronisation


def test_trap_10_no_grid_of_all_pairs() -> None:
    """K = 3000: a grid would hold nine million numbers, a tile of 512 classes holds 262,144."""
    K, D = 3000, 16
    means = torch.randn(K, D, dtype=torch.float64)
    statistics = ClassStatistics(torch.full((K,), 5), means, torch.rand(K, dtype=torch.float64))
    with Record() as record:
        over_all_pairs(statistics)
    assert record.largest <= 2 * max(512 * 512, K * D)
    with Record() as record:
        over_all_pairs(statistics, ["cdnv", "distance_kernel", "log_kernel"], tile_size=100)
    assert record.largest <= 2 * max(100 * 100, K * D)


def test_trap_10_no_grid_for_the_whole_frame_either() -> None:
    K, D = 3000, 16
    means = torch.randn(K, D, dtype=torch.float64)
    within = torch.eye(D, dtype=torch.float64)
    statistics = ClassStatistics(torch.full((K,), 5), means, torch.rand(K, dtype=torch.float64), within)
    weight = torch.randn(K, D, dtype=torch.float64)
    evidence = Evidence(statistics, weight, None, None, torch.ones(D, dtype=torch.float64))
    slow = {name for name, metric in VARIANTS.items() if metric.most_classes is not None}
    for name in set(VARIANTS) - slow:
        if VARIANTS[name].available(evidence):
            with Record() as record:
                VARIANTS[name].of(evidence)
            assert record.largest <= 2 * max(512 * 512, K * D), name


def test_trap_10_no_grid_in_the_backward_pass() -> None:
    K, D = 2000, 4
    means = torch.randn(K, D, dtype=torch.float64, requires_grad=True)
    statistics = ClassStatistics(torch.full((K,), 5), means, torch.rand(K, dtype=torch.float64))
    with Record() as record:
        sum(over_all_pairs(statistics, ["cdnv", "log_kernel"], tile_size=200).values()).backward()
    assert record.largest <= 2 * max(200 * 200, K * D)
    assert means.grad.isfinite().all()


@pytest.mark.parametrize("validate", [True, False])
def test_trap_11_no_one_hot_matrix(validate: bool) -> None:
    """A batch of 1024 rows at K = 50,257: one-hot rows would be 51 million numbers, the sums are 402,056."""
    K, D, N = 50_257, 8, 1024
    accumulator = StatisticsAccumulator(K, D)
    batches = [(torch.randn(N, D), torch.randint(0, K, (N,))) for _ in range(3)]
    with Record() as record:
        for batch in batches:
            accumulator.update(*batch, validate=validate)
    assert record.largest <= K * D
    with Record() as record:
        ClassStatistics.from_features(*batches[0], K)
    assert record.largest <= K * D


def test_trap_11_decisions_hold_a_tile_of_scores_at_a_time() -> None:
    K, D = 5000, 4
    statistics = ClassStatistics(torch.ones(K).long(), torch.randn(K, D).double(), torch.zeros(K).double())
    decisions = DecisionCounts(statistics, torch.randn(K, D), tile_size=100)
    with Record() as record:
        decisions.update(torch.randn(2000, D), torch.randint(0, K, (2000,)))
    assert record.largest <= 2000 * 100


SYNCHRONISING = {
    "aten::_local_scalar_dense",
    "aten::item",
    "aten::is_nonzero",
    "aten::nonzero",
    "aten::masked_select",
    "aten::unique",
    "aten::_unique",
    "aten::_unique2",
    "aten::unique_dim",
    "aten::unique_consecutive",
    "aten::bincount",
    "aten::repeat_interleave",
    "aten::equal",
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    "options",
    [{}, {"covariance": False}, {"ignore_index": -100}],  # per_class reads back which classes there are, as it says
    ids=["pooled", "bare", "ignoring"],
)
def test_trap_12_an_unvalidated_update_reads_nothing_back(options: dict[str, bool], dtype: torch.dtype) -> None:
    """On a GPU each of these operations waits for the device; anchors are judged at batches 1, 2, 4, 8, ... only."""
    accumulator = StatisticsAccumulator(9, 4, **options)
    quiet = 0
    for number in range(1, 20):
        features, labels = torch.randn(64, 4).to(dtype), torch.randint(0, 9, (64,))
        features[0] = torch.nan if number == 11 else 0  # a bad batch is no exception
        with Record() as record:
            accumulator.update(features, labels, validate=False)
        if number & (number - 1):
            quiet += 1
            assert not record.names & SYNCHRONISING, f"batch {number}"
    assert quiet == 14


@pytest.mark.parametrize(
    ("action", "name"),
    [
        (lambda t: bool(t.sum() > 2), "aten::_local_scalar_dense"),
        (lambda t: t[0].item(), "aten::_local_scalar_dense"),
        (lambda t: t[t > 0], "aten::nonzero"),
        (lambda t: t.unique(), "aten::_unique2"),
    ],
    ids=["bool", "item", "mask", "unique"],
)
def test_trap_12_the_record_sees_what_it_looks_for(action: Callable[[Tensor], Any], name: str) -> None:
    with Record() as record:
        action(torch.ones(3))
    assert name in record.names & SYNCHRONISING


# ---------------------------------------------------------------------- 13 to 16: functions


@pytest.mark.parametrize("exponent", [510.0, 2046.0, 16382.0])
def test_trap_13_riesz_energies_of_high_exponent(exponent: float) -> None:
    """s = D - 2 for D = 512 and more: sqrt(2) to that power can leave float64, its logarithm doesn't."""
    statistics = ClassStatistics.from_features(torch.randn(12, 40, dtype=torch.float64), torch.arange(12), 12)
    units = statistics.centred_means()
    units = units / torch.linalg.vector_norm(units, dim=1, keepdim=True)
    logs = -exponent * np.log(np.asarray(torch.nn.functional.pdist(units), dtype=np.longdouble))
    expected = logs.max() + np.log(np.exp(logs - logs.max()).mean())
    for tile_size in (3, 5, 512):
        wanted = OverPairs(riesz(exponent), lambda kernel: kernel.log_mean)
        (log_mean,) = over_pairs(statistics, wanted, tile_size=tile_size)
        assert log_mean.item() == pytest.approx(float(expected), rel=1e-11)
        values = np.exp(logs - logs.max())
        cv = metrics.riesz_kernel(statistics, of="cv", exponent=exponent, tile_size=tile_size)
        assert cv.item() == pytest.approx(float(values.std() / values.mean()), rel=1e-8)


def test_trap_14_the_bias_decides() -> None:
    sample = draw(SCENARIOS["balanced"], spread=0.3)
    value, weight = statistics_of(sample), torch.from_numpy(sample.weight)
    shares = {}
    for name, bias in (("with", sample.bias), ("without", None)):
        decisions = DecisionCounts(value, weight, None if bias is None else torch.from_numpy(bias))
        decisions.update(*tensors(sample))
        shares[name] = metrics.ncc_agreement(decisions).item()
        expected = ORACLE["ncc_agreement"](Sample(sample.features, sample.labels, 6, sample.weight, bias))
        assert shares[name] == pytest.approx(expected, rel=1e-15)
    assert shares["with"] != shares["without"]


def test_trap_14_no_answer_depends_on_an_optional_install() -> None:
    """Nothing that computes a number looks whether a package is there."""
    root = Path(tightframe.__file__).parent
    files = [root / "numerics.py", *(root / "statistics").glob("*.py"), *(root / "metrics").glob("*.py")]
    assert len(files) > 10
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            caught = ast.dump(node.type) if isinstance(node, ast.ExceptHandler) and node.type else ""
            assert "ImportError" not in caught and "ModuleNotFoundError" not in caught, path.name
            assert not (isinstance(node, ast.Attribute) and node.attr == "find_spec"), path.name


@pytest.mark.parametrize("K", [2, 3, 4, 7, 10])
def test_trap_15_nc1_has_its_gradient_exactly_at_a_simplex(K: int) -> None:
    """Equal singular values, where the derivative of an SVD divides by zero."""
    steps = torch.randn(3, K, dtype=torch.float64)
    labels = torch.arange(K).repeat(6)
    features = torch.cat([4 * torch.eye(K, dtype=torch.float64) + sign * step for step in steps for sign in (1, -1)])
    leaf = features.clone().requires_grad_()
    names = ("nc1", "nc1_sample_centred", "nc1_discriminant", "vci")
    for function in (VARIANTS[name] for name in names):
        value = function(ClassStatistics.from_features(leaf, labels, K))
        (gradient,) = torch.autograd.grad(value, leaf)
        assert gradient.isfinite().all(), function.__name__
    (gradient,) = torch.autograd.grad(metrics.nc1(ClassStatistics.from_features(leaf, labels, K)), leaf)
    direction = torch.randn(features.shape, dtype=torch.float64)
    ahead, behind = (
        metrics.nc1(ClassStatistics.from_features(features + step * direction, labels, K)) for step in (1e-5, -1e-5)
    )
    assert ((ahead - behind) / 2e-5).item() == pytest.approx((gradient * direction).sum().item(), rel=1e-6)


@pytest.mark.parametrize("angle", [1e-2, 1e-4, 1e-6, 1e-8])
def test_trap_16_small_angles_are_not_floored(angle: float) -> None:
    """Two means at this angle seen from the global mean; arccos of a float64 cosine is lost below 1e-8."""
    x, y = math.cos(angle / 2), math.sin(angle / 2)
    means = torch.tensor([[x, y, 0], [x, -y, 0], [-x, 0, 2], [-x, 0, -2]], dtype=torch.float64)
    statistics = ClassStatistics.from_features(means, torch.arange(4), 4)
    assert metrics.minimum_angle(statistics).item() == pytest.approx(math.degrees(angle), rel=1e-7)


def test_trap_16_float32_features_keep_small_angles() -> None:
    means = torch.tensor([[1, 2**-20, 0], [1, -(2**-20), 0], [-1, 0, 1], [-1, 0, -1]], dtype=torch.float32)
    value = accumulated(means.repeat(300, 1), torch.arange(4).repeat(300), 4)
    with pytest.warns(GeometryWarning, match="rounding of each other; their distances are inexact: 0, 1"):
        angle = metrics.minimum_angle(value).item()
    assert angle == pytest.approx(math.degrees(2 * math.atan(2**-20)), rel=1e-7)
