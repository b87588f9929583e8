"""A loss of one's own, with public names only, trains and behaves as the package's own do."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

import tightframe as tf
from tightframe import losses, prototypes
from tightframe.cli import main
from tightframe.demo import heads as demonstrated
from tightframe.demo.settings import Settings

# ---------------------------------------------------------------------- what a user writes


class HalfAngle(losses.EmbeddingLoss):
    """-log((1 + cos(z, p_y)) / 2): 0 aligned, log 2 orthogonal, infinite opposite."""

    def losses(self, rows: Tensor, labels: Tensor, kept: Tensor) -> Tensor:
        return -torch.log1p(-self.gaps(rows, labels) / 2)


LOSS = losses.Loss(HalfAngle, "embeddings", "-log((1 + cos) / 2) to the own prototype", "nobody 2026")
IN_THE_DEMO = demonstrated.TrainingLoss(needs="prototypes")


# ---------------------------------------------------------------------- where it appears

K, D, N = 4, 6, 24


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(losses.LOSSES, "half-angle", LOSS)
    monkeypatch.setitem(demonstrated.LOSSES, "half-angle", IN_THE_DEMO)


@pytest.fixture
def data() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    rows, vectors = torch.randn(N, D, generator=generator), torch.randn(K, D, generator=generator)
    return rows, torch.arange(N) % K, vectors


def by_rows(rows: Tensor, labels: Tensor, vectors: Tensor) -> list[float]:
    cosines = [cosine_similarity(row, vectors[y], dim=0) for row, y in zip(rows.double(), labels, strict=True)]
    return [-math.log((1 + cosine.item()) / 2) for cosine in cosines]


def test_reductions_weights_and_ignored_rows(data: tuple[Tensor, Tensor, Tensor]) -> None:
    rows, labels, vectors = data
    each = by_rows(rows, labels, vectors.double())
    assert HalfAngle(vectors)(rows, labels).item() == pytest.approx(sum(each) / N, rel=1e-6)
    assert HalfAngle(vectors, reduction="sum")(rows, labels).item() == pytest.approx(sum(each), rel=1e-6)
    weight = torch.arange(1.0, K + 1)
    shares = weight[labels].tolist()
    weighted = sum(share * value for share, value in zip(shares, each, strict=True)) / sum(shares)
    assert HalfAngle(vectors, weight=weight)(rows, labels).item() == pytest.approx(weighted, rel=1e-6)
    cut = labels.clone()
    cut[:5] = -100
    leaf = rows.clone().requires_grad_()
    loss = HalfAngle(vectors)(leaf, cut)
    loss.backward()
    assert loss.item() == pytest.approx(sum(each[5:]) / (N - 5), rel=1e-6)
    assert leaf.grad is not None and not leaf.grad[:5].any() and leaf.grad[5:].any(1).all()


def test_every_layout(data: tuple[Tensor, Tensor, Tensor]) -> None:
    rows, labels, vectors = data
    loss = HalfAngle(vectors, reduction="none")
    flat = loss(rows, labels)
    assert flat.tolist() == pytest.approx(by_rows(rows, labels, vectors.double()), rel=1e-5)
    torch.testing.assert_close(loss(rows.view(4, 6, D), labels.view(4, 6)), flat.view(4, 6))
    images = rows.view(2, 3, 4, D).permute(0, 3, 1, 2)
    torch.testing.assert_close(loss(images, labels.view(2, 3, 4)), flat.view(2, 3, 4))


def test_bad_labels_are_named(data: tuple[Tensor, Tensor, Tensor]) -> None:
    rows, labels, vectors = data
    labels[3] = 9
    with pytest.raises(tf.errors.LabelError, match=r"\[0, 4\); got 9"):
        HalfAngle(vectors)(rows, labels)


def test_with_a_head_and_its_learnt_prototypes(data: tuple[Tensor, Tensor, Tensor]) -> None:
    rows, labels, vectors = data
    head = tf.PrototypeHead(vectors, learnable=True)
    model, loss = nn.Linear(D, D), HalfAngle(head)
    loss(head.embed(model(rows)), labels).backward()
    assert head.prototypes.grad is not None and head.prototypes.grad.any() and model.weight.grad.any()
    assert list(loss.parameters()) == []
    assert loss.half()(rows.half(), labels).isfinite()


def test_it_is_least_at_the_prototypes() -> None:
    etf = prototypes.simplex(K, D)
    assert HalfAngle(etf)(3 * etf.vectors, torch.arange(K)).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.usefixtures("added")
def test_the_demo_trains_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["demo", "--head", "etf", "--loss", "half-angle", "--epochs", "2", "--train-images", "200"]
    monkeypatch.setattr("sys.argv", ["tightframe", *arguments, "--measurements", "2", "-o", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    described = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert described["arguments"]["loss"] == "half-angle"


@pytest.mark.usefixtures("added")
def test_it_is_among_the_choices() -> None:
    with pytest.raises(tf.errors.ChoiceError, match="half-angle"):
        Settings(head="etf", loss="nothing")
