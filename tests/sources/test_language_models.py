"""Language models: next tokens as labels, padding left out, few logits, enough samples a class, sampled decisions."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hooks.models import gpt2, settled
from tightframe import ClassStatistics, DecisionCounts, Monitor, measure
from tightframe.evidence import Evidence
from tightframe.metrics import METRICS, evaluate

VOCABULARY, LENGTH = 11, 9
QUICK = {"progress": False}

pytestmark = pytest.mark.filterwarnings("ignore::tightframe.errors.GeometryWarning")  # layer norm takes a dimension


def tokens(rows: int = 24, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, VOCABULARY, (rows, LENGTH), generator=generator)


def states(model: nn.Module, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    with torch.no_grad():
        return model.transformer(input_ids=ids, attention_mask=mask)[0]


def expected(model: nn.Module, ids: Tensor, mask: Tensor | None = None) -> tuple[dict[str, float], Tensor, Tensor]:
    """By hand: the state at each position and the token after it, where neither is padding."""
    hidden = states(model, ids, mask)
    kept = torch.ones(len(ids), LENGTH - 1, dtype=torch.bool) if mask is None else (mask[:, 1:] * mask[:, :-1]).bool()
    features, labels = hidden[:, :-1][kept], ids[:, 1:][kept]
    weight = model.lm_head.weight.detach()
    statistics = ClassStatistics.from_features(features, labels, VOCABULARY)
    decisions = DecisionCounts(statistics, weight)
    decisions.update(features, labels)
    values = evaluate(Evidence(statistics, weight.double(), None, decisions))
    return {name: float(value) for name, value in values.items()}, features, labels


def in_batches(ids: Tensor, mask: Tensor | None = None, *, labels: bool) -> list[dict[str, Tensor]]:
    more = {} if mask is None else {"attention_mask": mask}
    whole = {"input_ids": ids, **more, **({"labels": ids.masked_fill(ids == 0, -100)} if labels else {})}
    return [{name: each[i : i + 10] for name, each in whole.items()} for i in range(0, len(ids), 10)]


@pytest.fixture
def model() -> nn.Module:
    return settled(gpt2())


class Wrapped(nn.Module):
    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        return self.inner(input_ids=input_ids, attention_mask=attention_mask)


@pytest.mark.parametrize("labels", [True, False], ids=["labels", "tokens alone"])
@pytest.mark.parametrize("wrap", [lambda m: m, Wrapped], ids=["bare", "wrapped"])
def test_the_label_of_a_position_is_the_next_token(model: nn.Module, wrap: Any, labels: bool) -> None:
    ids = tokens()
    values, _, targets = expected(model, ids)
    report = measure(wrap(model), in_batches(ids, labels=labels), **QUICK)
    assert report.values == pytest.approx(values, rel=1e-6, abs=1e-9, nan_ok=True)
    assert report.facts.samples == len(targets)
    assert any("next token" in note for note in report.notes)
    monitored = Monitor(wrap(model), **QUICK).measure(in_batches(ids, labels=labels))
    assert monitored.values == pytest.approx(report.values, nan_ok=True)


def test_labels_that_are_next_tokens_already_are_not_shifted_twice(model: nn.Module) -> None:
    ids = tokens()
    values, *_ = expected(model, ids)
    following = torch.cat([ids[:, 1:], torch.full((len(ids), 1), -100)], 1)
    report = measure(model, [{"input_ids": ids, "labels": following}], **QUICK)
    assert report.values == pytest.approx(values, rel=1e-6, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_is_no_sample(model: nn.Module, side: str) -> None:
    ids, lengths = tokens(), 3 + torch.arange(24) % (LENGTH - 3)
    places = torch.arange(LENGTH)
    mask = (places < lengths[:, None]) if side == "right" else (places >= LENGTH - lengths[:, None])
    ids, mask = ids.where(mask, 0), mask.long()
    values, _, targets = expected(model, ids, mask)
    for labels in (True, False):
        report = measure(model, in_batches(ids, mask, labels=labels), **QUICK)
        assert report.facts.samples == len(targets)
        assert report.values == pytest.approx(values, rel=1e-6, abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("decisions", [None, 50])
def test_the_output_layer_is_called_on_what_is_looked_at(model: nn.Module, decisions: int | None) -> None:
    ids, sizes = tokens(), []
    handle = model.lm_head.register_forward_hook(lambda module, args, output: sizes.append(output.shape[:-1].numel()))
    report = measure(model, in_batches(ids, labels=True), decisions=decisions, **QUICK)
    handle.remove()
    assert sizes[0] == LENGTH and set(sizes[1:]) == {1}
    values, *_ = expected(model, ids)
    free = [name for name, metric in METRICS.items() if "decisions" not in metric.reads and name in values]
    assert {n: report[n].value for n in free} == pytest.approx({n: values[n] for n in free}, abs=1e-9, nan_ok=True)
    assert ("ncc_mismatch" in report.values) is (decisions is not None)
    assert not model.lm_head._forward_pre_hooks


def mixed(number: int) -> int:
    """SplitMix64 of a row's number, 31 bits of it."""
    bits = (1 << 64) - 1
    z = number * 0x9E3779B97F4A7C15 & bits
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & bits
    z = (z ^ z >> 27) * 0x94D049BB133111EB & bits
    return z >> 32 & 0x7FFFFFFF


def test_decisions_on_a_sample(model: nn.Module) -> None:
    ids = tokens(60)
    values, features, labels = expected(model, ids)
    report = measure(model, in_batches(ids, labels=True), decisions=100, **QUICK)
    assert any("about 100 of 480 samples" in note for note in report.notes)
    weight = model.lm_head.weight.detach()
    statistics = ClassStatistics.from_features(features, labels, VOCABULARY)
    counts = DecisionCounts(statistics, weight)
    # every position has its place in the stream, the last ones too, which have no label
    rows = [row for row in range(60 * LENGTH) if mixed(row + 1) / (1 << 31) < 100 / 480]
    flat = states(model, ids).flatten(0, 1)[rows]
    targets = torch.cat([ids[:, 1:], torch.full((60, 1), -100)], 1).flatten()[rows]
    counts.update(flat[targets >= 0], targets[targets >= 0])
    sampled = evaluate(Evidence(statistics, weight.double(), None, counts), ["ncc_mismatch", "classifier_accuracy"])
    for name, value in sampled.items():
        assert report[name].value == pytest.approx(float(value))
    assert report["nc1"].value == pytest.approx(values["nc1"])


def test_decisions_are_left_out_where_no_measure_needs_them(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("decided")

    monkeypatch.setattr(DecisionCounts, "__init__", refuse)
    report = measure(model, in_batches(tokens(), labels=True), metrics=["nc1", "etf_error"], **QUICK)
    assert report.values.keys() == {"nc1", "etf_error"}


@pytest.mark.parametrize("buffer_bytes", [1 << 30, 0], ids=["buffered", "read again"])
@pytest.mark.parametrize("least", [15, 20])
def test_classes_with_enough_samples_keep_their_scatter(model: nn.Module, least: int, buffer_bytes: int) -> None:
    """Scatter, folds and NC1 of the classes that have so many samples; decisions are those among all classes."""
    ids = tokens()
    ids = ids.where(torch.rand(ids.shape, generator=torch.Generator().manual_seed(1)) < 0.6, 1 + ids % 3)
    values, features, labels = expected(model, ids)
    options = {"min_count": least, "buffer_bytes": buffer_bytes, **QUICK}
    report = measure(model, in_batches(ids, labels=True), **options)
    counts = torch.bincount(labels, minlength=VOCABULARY)
    chosen = (counts >= least).nonzero().flatten()
    assert 2 < len(chosen) < int((counts > 0).sum())
    kept = torch.isin(labels, chosen)
    statistics = ClassStatistics.from_features(features[kept], labels[kept], VOCABULARY)
    weight = model.lm_head.weight.detach().double()
    own = evaluate(Evidence(statistics, weight, None))
    assert {name: report[name].value for name in own} == pytest.approx(
        {name: float(value) for name, value in own.items()}, rel=1e-6, abs=1e-9, nan_ok=True
    )
    assert report["nc1"].standard_error is not None and report["nc1"].shuffled is not None
    assert report["ncc_accuracy"].value == pytest.approx(values["ncc_accuracy"])
    assert report.facts.min_count == least
    left = int((counts > 0).sum()) - len(chosen)
    assert any(f"leave out {left:,} classes with fewer than {least} samples" in note for note in report.notes)


class Tokenizer:
    """As much of a tokenizer as names need."""

    def __len__(self) -> int:
        return VOCABULARY

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [f"<{'abcdefghijk'[k]}>" for k in ids]


class Collator:
    tokenizer = Tokenizer()

    def __call__(self, rows: list[Tensor]) -> dict[str, Tensor]:
        return {"input_ids": torch.stack(rows)}


def test_classes_are_called_as_the_tokenizer_says(model: nn.Module) -> None:
    ids = tokens()
    for loader, given in (
        (in_batches(ids, labels=True), {"class_names": Tokenizer()}),
        (torch.utils.data.DataLoader(list(ids), 8, collate_fn=Collator()), {}),  # type: ignore[arg-type]
    ):
        report = measure(model, loader, **given, **QUICK)
        classes, pairs = (report.section(key).table.rows for key in ("classes", "pairs"))  # type: ignore[union-attr]
        assert classes and {row[0] for row in classes} <= {f"<{c}>" for c in "abcdefghijk"}
        assert all(str(row[0]).count("<") == 2 for row in pairs)


def test_names_of_a_vocabulary_are_kept_for_the_tokens_that_occur() -> None:
    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 3000)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x)

    labels = torch.arange(60) % 3 * 1000
    report = measure(Head(), [(torch.randn(60, 4), labels)], class_names=[f"t{k}" for k in range(3000)], **QUICK)
    assert report.facts.class_names == {"0": "t0", "1000": "t1000", "2000": "t2000"}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
