"""Every head and loss of the demonstration trains, long tails and sessions do what they say, bad settings are named."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tightframe import Report, datasets, losses, metrics, prototypes, theory
from tightframe.demo.heads import FEATURES, HEADS, LABELS, LOSSES, PROTOTYPES, Task
from tightframe.demo.run import Epoch, run
from tightframe.demo.settings import Settings
from tightframe.demo.training import Trainer, objective
from tightframe.head import follows_labels
from tightframe.report import RunFolder
from tightframe.report.predicted import statements

QUICK = Settings(epochs=2, measurements=2, train_images=200)
pytestmark = pytest.mark.usefixtures("quick_measurements")


def trainer(**settings: Any) -> Trainer:
    settings = {"epochs": 1, "weight_decay": 1e-3, **settings}
    return Trainer(Settings(**settings), datasets.load("digits"), datasets.hierarchy_of("digits"))


# ---------------------------------------------------------------------------------------------- heads and losses


def counts_of(report: Report) -> list[int]:
    """Training samples of each class, as the bars of accuracies say them."""
    (bars,) = report.section("accuracies").figures
    return [int(note.replace(",", "")) for note in bars.notes]


@pytest.mark.parametrize("head", HEADS)
def test_every_head_trains_and_is_reported(head: str, tmp_path: Path) -> None:
    seen: list[Epoch] = []
    report, folder = run(replace(QUICK, head=head, epochs=4), tmp_path, seen.append)
    assert seen[-1].loss < seen[0].loss
    assert seen[-1].accuracy > 0.3  # chance is 0.1
    assert {"nc1", "ncc_accuracy", "test/balanced_accuracy", "test/average_cost"} <= set(report.values)
    linear = head.startswith("linear")
    assert ("scale_free_distortion" in report.values) is (not linear and head != "hierarchical")
    assert "test/classifier_accuracy" in report.values
    described = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))["arguments"]
    assert described["head"] == head and described["loss"] == HEADS[head].loss
    assert RunFolder(folder.path).report().values == pytest.approx(report.values, rel=0, abs=0, nan_ok=True)
    page = folder.report_path.read_text(encoding="utf-8")
    assert "Accuracy by class" in page
    assert list(report.class_accuracies) == [str(k) for k in range(10)]
    assert sum(counts_of(report)) == 200


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_trains_the_etf(loss: str) -> None:
    training = trainer(head="etf", loss=loss, epochs=4)
    training.begin(10)
    (first, _), *_, (last, accuracy) = [training.epoch() for _ in range(4)]
    assert last < first
    assert accuracy > 0.3


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_is_run(loss: str, tmp_path: Path) -> None:
    seen: list[Epoch] = []
    run(replace(QUICK, head="etf", loss=loss, epochs=4), tmp_path, seen.append)
    assert seen[-1].loss < seen[0].loss
    assert seen[-1].accuracy > 0.3


def test_the_balanced_accuracy_is_the_model_s_own(tmp_path: Path) -> None:
    """Of the network that the folder holds, on all test images."""
    settings = replace(QUICK, head="etf", dim=9, epochs=3)
    report, folder = run(settings, tmp_path)
    data = datasets.load("digits")
    made = Trainer(settings, data, datasets.hierarchy_of("digits")).model
    weights = {name: value for name, value in folder.load_weights().items()}
    made.load_state_dict(weights)
    decided = made.eval()(data.test_images).argmax(1)
    recalls = [float((decided[data.test_labels == k] == k).double().mean()) for k in range(10)]
    assert report["test/balanced_accuracy"].value == pytest.approx(sum(recalls) / 10)
    assert list(report.class_accuracies.values()) == pytest.approx(recalls)
    cost = datasets.hierarchy_of("digits").distances()
    assert report["test/average_cost"].value == pytest.approx(cost[data.test_labels, decided].mean().item())


def test_dim_and_scale_reach_the_head() -> None:
    for name in (name for name, row in HEADS.items() if row.has_prototypes):
        head = trainer(head=name, dim=9, scale=4.0).head
        assert head.prototypes.shape == (10, 9) and float(head.scale) == 4.0, name


def test_the_guide_draws_prototypes_to_the_costs(tmp_path: Path) -> None:
    free, _ = run(replace(QUICK, head="learnt", dim=2, epochs=20), tmp_path / "free")
    guided, _ = run(replace(QUICK, head="metric-guided", epochs=20), tmp_path / "guided")
    assert guided["scale_free_distortion"].value < free["scale_free_distortion"].value


# ---------------------------------------------------------------------------------------------- long tails


@pytest.fixture(scope="module")
def tail(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Report]:
    quick = Settings(epochs=3, measurements=2, long_tail=65, weight_decay=5e-3)
    return {head: run(replace(quick, head=head), tmp_path_factory.mktemp(head))[0] for head in ("linear", "etf")}


def test_a_step_leaves_two_images_in_half_of_the_classes(tail: dict[str, Report]) -> None:
    assert counts_of(tail["linear"]) == [132] * 5 + [2] * 5
    values = tail["linear"].values
    accuracies = list(tail["linear"].class_accuracies.values())
    assert values["test/accuracy_of_majority"] == pytest.approx(sum(accuracies[:5]) / 5)
    assert values["test/accuracy_of_minority"] == pytest.approx(sum(accuracies[5:]) / 5)


def test_the_report_says_why(tail: dict[str, Report]) -> None:
    """The minority's cosines, the threshold, and that lambda_H is an estimate; a fixed head has no threshold."""
    note = next(note for note in tail["linear"].notes if "minority" in note)
    gram = theory.seli([132] * 5 + [2] * 5).classifiers
    assert f"{gram[8, 9] / gram[9, 9]:.3f} the SELI geometry" in note
    evidence = tail["linear"].evidence
    rows = evidence.weight - evidence.weight.mean(0)
    rows = rows[5:] / rows[5:].norm(dim=1, keepdim=True)
    mean = ((rows @ rows.T).sum() - 5) / 20
    assert tail["linear"]["minority_classifier_cosine"].value == pytest.approx(mean.item())
    said = statements(tail["linear"])[-1]
    assert said.startswith("At these weight decays, theory predicts that the classifier rows") and "λ_W = 0.005" in said
    assert "estimated as λ_W‖W‖²/‖H‖²" in said
    assert not any("merge" in sentence for sentence in statements(tail["etf"]))
    assert tail["etf"]["minority_classifier_cosine"].value == pytest.approx(-1 / 9, abs=1e-6)


def test_the_report_says_unasked_that_seli_is_nearer_than_the_simplex(tail: dict[str, Report]) -> None:
    values = tail["linear"].values
    evidence = tail["linear"].evidence
    assert evidence is not None
    assert values["classifier_seli_error"] < metrics.classifier_etf_error.having(centred=True).of(evidence)
    sentence = next(sentence for sentence in statements(tail["linear"]) if "classifier rows" in sentence)
    assert "nearest to SELI" in sentence or "nearest to the optimum at the weight decays" in sentence
    assert "2 to 132 samples" in statements(tail["linear"])[0]


def test_exponential_tails_have_three_groups(tmp_path: Path) -> None:
    report, _ = run(Settings(epochs=1, long_tail=10, profile="exponential"), tmp_path)
    assert counts_of(report) == datasets.exponential_counts(132, 10, 10)
    assert {"test/accuracy_of_many-shot", "test/accuracy_of_medium-shot", "test/accuracy_of_few-shot"} <= set(
        report.values
    )


# ---------------------------------------------------------------------------------------------- sessions


@pytest.mark.parametrize("head", ["linear", "etf", "ncm", "learnt"])
def test_classes_arrive_in_sessions(head: str, tmp_path: Path) -> None:
    report, _ = run(Settings(epochs=10, incremental=5, head=head, weight_decay=5e-4), tmp_path)
    series = [*report.history, report]
    assert [r.facts.session for r in series] == [1, 2, 3, 4, 5]
    assert [len(r.class_accuracies) for r in series] == [2, 4, 6, 8, 10]
    assert "test/accuracy_of_session 5" in report.values
    assert series[0]["test/balanced_accuracy"].value > 0.9


def test_old_prototypes_and_rows_stay_bit_for_bit_when_classes_arrive() -> None:
    fixed = trainer(head="etf", incremental=5)
    fixed.begin(2)
    before = fixed.head.prototypes.clone()
    assert torch.equal(before.double(), prototypes.simplex(10, 64, seed=0).vectors.float().double())
    for classes in (4, 6, 8, 10):
        fixed.epoch()
        fixed.begin(classes)
        assert fixed.head.out_features == classes
        assert torch.equal(fixed.head.prototypes, before)
    grown = trainer(incremental=5)
    grown.begin(2)
    grown.epoch()
    rows = grown.head.weight.detach().clone()
    grown.begin(4)
    assert grown.head.weight.shape == (4, 64)
    assert torch.equal(grown.head.weight[:2], rows)


@pytest.mark.parametrize("memory", [0, 3])
def test_the_memory_holds_so_many_images_of_each_earlier_class(memory: int) -> None:
    session = trainer(head="etf", incremental=5, memory=memory)
    session.begin(2)
    session.begin(4)
    counts = torch.bincount(session._labels, minlength=10)
    assert counts[:2].tolist() == [memory, memory]
    assert (counts[2:4] > 100).all() and counts[4:].sum() == 0


# ---------------------------------------------------------------------------------------------- the tables


def test_every_loss_of_embeddings_or_logits_is_there_and_needs_what_the_library_says() -> None:
    known = {name: row.takes for name, row in losses.LOSSES.items() if row.takes in ("embeddings", "logits")}
    assert set(LOSSES) == {"cross-entropy", *known}
    for name, takes in known.items():
        assert (LOSSES[name].needs == PROTOTYPES) is (takes == "embeddings"), name


def test_a_head_takes_its_default_loss() -> None:
    for name, row in HEADS.items():
        assert LOSSES[row.loss].needs in row.takes, name
        assert LABELS in row.takes


@pytest.mark.parametrize("name", HEADS)
def test_a_head_without_need_of_a_tree_is_built_without_one(name: str) -> None:
    row = HEADS[name]
    if row.build is not None and not row.needs_tree:
        head = row.build(Task(10, None, None, None, 0))
        features, labels = torch.randn(10, FEATURES), torch.arange(10)
        logits = head(features, labels) if follows_labels(head) else head(features)
        assert logits.shape == (10, 10)


def test_an_objective_s_logits_are_the_head_s() -> None:
    head = trainer(head="etf").head
    features, labels = torch.randn(6, 64), torch.arange(6)
    _, logits = objective(head, "balanced-dot-regression", 0.0, None)(features, labels)
    assert torch.equal(logits, head(features))


def test_the_squared_earth_mover_is_added_to_cross_entropy() -> None:
    head, tree = trainer(head="etf").head, datasets.hierarchy_of("digits")
    features, labels = torch.randn(6, 64), torch.arange(6)
    logits = head(features)
    parts = torch.nn.functional.cross_entropy(logits, labels) + losses.SquaredEarthMover(tree)(logits, labels)
    total, _ = objective(head, "squared-earth-mover", 0.0, tree)(features, labels)
    assert total.item() == pytest.approx(parts.item())
