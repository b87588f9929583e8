"""Features so wide that their D x D scatter isn't kept: NC1 in the span of the class means is the same."""

import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hooks.models import draw
from oracle import ORACLE, Sample
from tightframe import Report, memory
from tightframe import measure as measure_with_folds
from tightframe.errors import EmptyBatchError, EvidenceError, TightframeError
from variants import VARIANTS

CLASSES, DIM = 5, 40
SPANNED = ("nc1", "within_in_mean_span")
IN_SPAN = (*SPANNED, "nc1_undivided", "nc1_sample_centred", "nc1_discriminant")
WHOLE = {"vci", "h_score", "numerical_rank"}  # need the scatter in all directions
measure = partial(measure_with_folds, folds=None)  # whose memory and rounding aren't the subject
SCATTER = 36  # bytes for each entry of a scatter while it is accumulated
ROOM = 2000  # bytes: enough for four dimensions, not for forty
NOTE = (
    "the D x D scatter exceeds the memory budget: NC1 was computed in the span of the class means, where it is the "
    "same; VCI and the rank are left out."
)
NONE_KEPT = "NC1, VCI, the rank and the share in the span of the means are left out: there is no covariance."

assert SCATTER * (CLASSES - 1) ** 2 < ROOM < SCATTER * 30**2


def network(dim: int = DIM, classes: int = CLASSES, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """Two wide layers, the features of both far from the origin."""
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(6, 30), nn.Tanh(), nn.Linear(30, dim), nn.Softplus(), nn.Linear(dim, classes)).to(
        dtype
    )
    with torch.no_grad():
        model[2].bias.add_(20)
    return model


def data(rows: int = 80, classes: int = CLASSES, dtype: torch.dtype = torch.float64) -> list[tuple[Tensor, Tensor]]:
    """Classes of different sizes about different centres."""
    labels = (torch.arange(rows) % (2 * classes - 1)) % classes
    inputs = (draw(classes, 6, seed=1)[labels] + 0.5 * draw(rows, 6)).to(dtype)
    return list(zip(inputs.split(17), labels.split(17), strict=True))


class Counted(list[tuple[Tensor, Tensor]]):
    """A loader that counts its runs."""

    runs = 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.runs += 1
        return super().__iter__()


def of(report: Report, name: str) -> float:
    """A variant, of the report's evidence."""
    return float(VARIANTS[name].of(report.evidence))


def reports(report: Report) -> tuple[Report, ...]:
    return (*report.layers, report)


# ---------------------------------------------------------------------------------------------- the same values


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-10), (torch.float32, 1e-6)])
@pytest.mark.parametrize("second", [False, True], ids=["buffer", "second pass"])
def test_values_in_the_span_are_those_of_the_full_scatter(second: bool, dtype: torch.dtype, rtol: float) -> None:
    model, loader = network(dtype=dtype), Counted(data(dtype=dtype))
    full = measure(model, loader, layers="1", progress=False)
    assert loader.runs == 1
    options: dict[str, Any] = {"buffer_bytes": 0} if second else {}
    wide = measure(model, loader, layers="1", covariance_bytes=ROOM, progress=False, **options)
    assert loader.runs == (3 if second else 2)
    for mine, theirs in zip(reports(wide), reports(full), strict=True):
        assert set(theirs.values) - set(mine.values) == WHOLE & set(theirs.values)
        assert set(SPANNED[:1]) <= set(mine.values)
        for name, value in mine.values.items():
            if name in SPANNED:
                assert value == pytest.approx(theirs[name].value, rel=rtol), name
            else:
                assert value == theirs[name].value, name
        assert mine.evidence.statistics.within is None
        assert theirs.evidence.statistics.within.shape == (theirs.facts.dimension,) * 2
        assert (mine.notes, theirs.notes) == ((NOTE,), ())
    assert set(SPANNED) <= set(wide.values)
    for mine, theirs in zip(reports(wide), reports(full), strict=True):
        for name in IN_SPAN:
            assert of(mine, name) == pytest.approx(of(theirs, name), rel=rtol), name


@pytest.mark.parametrize("room", [1 << 30, 0])
def test_values_in_the_span_are_the_oracles(room: int) -> None:
    model, loader = network(), data()
    report = measure(model, loader, covariance_bytes=ROOM, buffer_bytes=room, progress=False)
    features = torch.cat([model[:4](x).detach() for x, _ in loader])
    sample = Sample(features.numpy(), torch.cat([y for _, y in loader]).numpy(), CLASSES)
    for name in IN_SPAN:
        assert of(report, name) == pytest.approx(ORACLE[name](sample), rel=1e-10), name


def test_empty_and_single_classes() -> None:
    model, loader = network(classes=8), data(classes=CLASSES)
    x, labels = loader[0]
    loader[0] = x, labels.clone()
    loader[0][1][3] = 7  # classes 5 and 6 are empty, 7 has one sample
    full = measure(model, loader, progress=False)
    wide = measure(model, loader, covariance_bytes=ROOM, progress=False)
    for name in IN_SPAN:
        assert of(wide, name) == pytest.approx(of(full, name), rel=1e-10), name
    assert set(wide.notes) == {*full.notes, NOTE}
    assert len(full.notes) == 2  # the empty classes and the single sample


@pytest.mark.filterwarnings("ignore:the centred class means span 3:tightframe.errors.GeometryWarning")
def test_classes_whose_means_coincide() -> None:
    """The span has fewer dimensions than could be; what is projected may have one more."""
    model, inputs = network(), draw(60, 6)
    labels = torch.arange(60) % 4
    labels[4::8] = 4  # half of class 0 goes to class 4, whose samples are made the same
    inputs[4::8] = inputs[0::8][: len(inputs[4::8])]
    inputs[56], labels[56] = inputs[1], 1  # one without a twin goes elsewhere
    loader = [(inputs, labels)]
    full = measure(model, loader, progress=False)
    wide = measure(model, loader, covariance_bytes=ROOM, progress=False)
    assert any("span 3 of 4 possible dimensions" in note for note in full.notes)
    assert set(wide.notes) == {*full.notes, NOTE}
    for name in IN_SPAN:
        assert of(wide, name) == pytest.approx(of(full, name), rel=1e-9), name


def test_collapsed_features_have_no_spread_in_the_span() -> None:
    model, labels = network(), torch.arange(40) % CLASSES
    loader = [(draw(CLASSES, 6)[labels], labels)]
    report = measure(model, loader, covariance_bytes=ROOM, progress=False)
    assert 0 <= report["nc1"].value < 1e-25
    assert report["trace_ratio"].value < 1e-25


def test_features_far_from_the_origin_in_float32() -> None:
    """Offsets four orders above the spread, as what is projected is taken about the mean."""
    model, labels = nn.Linear(DIM, CLASSES), torch.arange(200) % CLASSES
    inputs = (draw(CLASSES, DIM, seed=1)[labels] + 0.5 * draw(200, DIM) + 1e4).float()
    loader = list(zip(inputs.split(17), labels.split(17), strict=True))
    report = measure(model, loader, covariance_bytes=ROOM, progress=False)
    sample = Sample(inputs.double().numpy(), labels.numpy(), CLASSES)
    for name in IN_SPAN:
        assert of(report, name) == pytest.approx(ORACLE[name](sample), rel=1e-6), name


def test_ignored_positions_stay_out_of_the_span() -> None:
    model, loader = network(), data()
    dropped = [(x, torch.where(torch.arange(len(y)) % 4 == 1, -100, y)) for x, y in loader]
    kept = [(x[y >= 0], y[y >= 0]) for x, y in dropped]
    expected = measure(model, kept, covariance_bytes=ROOM, progress=False)
    report = measure(model, dropped, covariance_bytes=ROOM, ignore_index=-100, progress=False)
    for name in IN_SPAN:
        assert of(report, name) == pytest.approx(of(expected, name), rel=1e-10), name


def test_every_position_is_projected() -> None:
    model = nn.Sequential(nn.Conv2d(2, DIM, 3), nn.Tanh(), nn.Conv2d(DIM, CLASSES, 1)).double()
    inputs, labels = draw(6, 2, 6, 6), torch.arange(96).reshape(6, 4, 4) % CLASSES
    loader = [(inputs[:4], labels[:4]), (inputs[4:], labels[4:])]
    full = measure(model, loader, progress=False)
    wide = measure(model, loader, covariance_bytes=ROOM, progress=False)
    for name in IN_SPAN:
        assert of(wide, name) == pytest.approx(of(full, name), rel=1e-10), name


# ---------------------------------------------------------------------------------------------- where it can't be


@pytest.mark.parametrize(("classes", "dim"), [(9, 8), (12, 8)])
def test_a_span_that_is_all_of_space_is_no_smaller(classes: int, dim: int) -> None:
    model, loader = network(dim, classes), data(classes=classes)
    report = measure(model, loader, covariance_bytes=SCATTER * dim**2 - 1, progress=False)
    assert not {*SPANNED, *WHOLE} & set(report.values)
    assert NONE_KEPT in report.notes
    assert NOTE not in report.notes
    full = measure(model, loader, covariance_bytes=SCATTER * dim**2, progress=False)
    assert {*SPANNED, *WHOLE} <= set(full.values)
    smaller = measure(network(dim, dim), data(classes=dim), covariance_bytes=SCATTER * (dim - 1) ** 2, progress=False)
    assert NOTE in smaller.notes
    assert set(SPANNED) <= set(smaller.values)


@pytest.mark.parametrize("options", [{"covariance_bytes": SCATTER * 16 - 1}, {"covariance": False}])
def test_nothing_is_projected_without_room_or_wish(options: dict[str, Any]) -> None:
    report = measure(network(), data(), progress=False, **options)
    assert not {*SPANNED, *WHOLE} & set(report.values)
    assert report.notes == (NONE_KEPT,)
    with pytest.raises(EvidenceError, match="covariance=True"):
        measure(network(), data(), metrics=["nc1"], progress=False, **options)


def test_what_needs_the_whole_scatter_says_so() -> None:
    for name in sorted(WHOLE):
        with pytest.raises(TightframeError, match="covariance=True"):
            measure(network(), data(), metrics=[name], covariance_bytes=ROOM, progress=False)


# ---------------------------------------------------------------------------------------------- passes


def test_a_loader_that_runs_once_is_enough_where_the_buffer_holds_all() -> None:
    expected = measure(network(), data(), covariance_bytes=ROOM, progress=False)
    for second_pass in (True, False):
        report = measure(network(), iter(data()), covariance_bytes=ROOM, second_pass=second_pass, progress=False)
        assert report.to_dict() == expected.to_dict()


@pytest.mark.parametrize("second_pass", [True, False])
def test_a_loader_that_runs_once_and_a_buffer_that_overflows(second_pass: bool) -> None:
    """Decisions need the means too, so this was never possible, wide or not."""
    with pytest.raises(EmptyBatchError, match=r"second pass .* a generator can be read only once"):
        measure(
            network(),
            iter(data()),
            covariance_bytes=ROOM,
            buffer_bytes=0,
            second_pass=second_pass,
            progress=False,
        )


def test_without_a_second_pass_for_it_nothing_is_projected() -> None:
    model, loader = network(), Counted(data())
    full = measure(model, loader, progress=False)
    loader.runs = 0
    report = measure(model, loader, covariance_bytes=ROOM, buffer_bytes=0, second_pass=False, progress=False)
    assert loader.runs == 2  # for the decisions
    assert set(full.values) - set(report.values) == {*SPANNED, *WHOLE}
    assert report.notes == (NONE_KEPT,)
    for name, value in report.values.items():
        assert value == full[name].value, name


# ---------------------------------------------------------------------------------------------- the budget


@pytest.mark.parametrize(
    ("squares", "kept"),
    [
        (6**2 - 1, []),
        (8**2 - 1, ["second"]),
        (8**2, ["last"]),
        (8**2 + 6**2 - 1, ["last"]),
        (8**2 + 6**2, ["last", "second"]),  # the first doesn't fit, the second does
        (8**2 + 10**2 + 6**2 - 1, ["last", "first"]),  # in order, not by what fits best
        (8**2 + 10**2 + 6**2, ["last", "first", "second"]),
    ],
)
def test_the_classifiers_input_has_the_first_call_on_the_budget_then_the_layers_in_order(
    squares: int, kept: list[str]
) -> None:
    model = nn.Sequential(
        nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 6), nn.Tanh(), nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)
    ).double()
    report = measure(model, data(classes=3), layers=["3", "1"], covariance_bytes=SCATTER * squares, progress=False)
    found = dict(zip(("first", "second", "last"), reports(report), strict=True))
    assert [each.facts.dimension for each in found.values()] == [10, 6, 8]
    assert {name for name, each in found.items() if "vci" in each.values} == set(kept)
    assert all("nc1" in each.values for each in found.values())  # three classes span a plane, which fits


@pytest.mark.parametrize(
    ("squares", "projected"),
    [(3, []), (4, ["last"]), (7, ["last"]), (8, ["last", "first"]), (12, ["last", "first", "second"])],
)
def test_the_spans_are_within_the_budget_together(squares: int, projected: list[str]) -> None:
    model = nn.Sequential(
        nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 6), nn.Tanh(), nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)
    ).double()
    report = measure(model, data(classes=3), layers=["3", "1"], covariance_bytes=SCATTER * squares, progress=False)
    found = dict(zip(("first", "second", "last"), reports(report), strict=True))
    assert {name for name, each in found.items() if "nc1" in each.values} == set(projected)


@pytest.mark.parametrize(
    ("squares", "kept"),
    [
        (DIM**2 - 1, []),
        (DIM**2, ["nc1"]),
        ((1 + CLASSES) * DIM**2 - 1, ["nc1"]),
        ((1 + CLASSES) * DIM**2, ["nc1", "directional_cdnv"]),
    ],
)
def test_the_scatter_of_each_class_is_within_the_budget(squares: int, kept: list[str]) -> None:
    report = measure(network(), data(), per_class=True, covariance_bytes=SCATTER * squares, progress=False)
    statistics = report.evidence.statistics
    assert (statistics.within is not None) == ("nc1" in kept)
    assert (statistics.class_within is not None) == ("directional_cdnv" in kept)
    assert ("directional_cdnv" in report.values) == ("directional_cdnv" in kept)
    assert "nc1" in report.values
    noted = [note for note in report.notes if "scatter per class exceeds covariance_bytes at: input of 4" in note]
    assert len(noted) == ("directional_cdnv" not in kept)


def test_by_default_a_quarter_of_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    for free, keeps in ((4 * SCATTER * DIM**2, True), (4 * SCATTER * DIM**2 - 4, False)):
        asked = {torch.device("cpu"): free}
        monkeypatch.setattr(sys.modules["tightframe.measurement.collect"], "free_memory", asked.pop)
        report = measure(network(), data(), progress=False)
        assert asked == {}
        assert ("vci" in report.values) == keeps
        assert "nc1" in report.values


def test_there_is_free_memory() -> None:
    free = memory.free_memory(torch.device("cpu"))
    assert 1 << 20 < free < 1 << 50


# ---------------------------------------------------------------------------------------------- memory


class NoSquare(TorchDispatchMode):
    """Fails where an operation gives a tensor of `dim` rows and `dim` columns; notes the largest that was made."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim, self.largest = dim, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.layout is torch.strided:
                self.largest = max(self.largest, tensor.numel())
                if sum(size >= self.dim for size in tensor.shape) > 1:
                    raise MemoryError(f"{func} made a tensor of shape {tuple(tensor.shape)}")
        return result


def test_no_tensor_of_d_rows_and_d_columns_is_made() -> None:
    dim = 20_000
    model = nn.Sequential(nn.Linear(6, dim), nn.Softplus(), nn.Linear(dim, dim // 1000), nn.Tanh(), nn.Linear(20, 5))
    wide = nn.Sequential(nn.Linear(6, dim), nn.Softplus(), nn.Linear(dim, CLASSES))
    loader = data(60, dtype=torch.float32)
    with NoSquare(dim) as mode:
        inner = measure(model, loader, layers="auto", covariance_bytes=1 << 20, progress=False)
        last = measure(wide, loader, test=loader, ood=loader, covariance_bytes=1 << 20, progress=False)
    assert mode.largest < dim**2 / 4
    for body, report in ((model[:2], inner.layers[0]), (wide[:2], last)):
        assert report.facts.dimension == dim
        assert report.notes == (NOTE,)
        features = torch.cat([body(x).detach() for x, _ in loader])
        sample = Sample(features.double().numpy(), torch.cat([y for _, y in loader]).numpy(), CLASSES)
        for name in ("nc1", "within_in_mean_span"):
            assert report[name].value == pytest.approx(ORACLE[name](sample), rel=1e-5), name
    assert "principal_angle" in inner.layers[0].values


def test_the_check_sees_the_scatter_where_it_is_kept() -> None:
    dim = 5000
    model = nn.Sequential(nn.Linear(6, dim), nn.Softplus(), nn.Linear(dim, CLASSES))
    with pytest.raises(MemoryError, match=r"5000, 5000\)"), NoSquare(dim):
        measure(model, data(60, dtype=torch.float32), covariance_bytes=1 << 40, progress=False)
