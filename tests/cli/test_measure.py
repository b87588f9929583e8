"""`tightframe measure`: every kind of file, the library's values, and files that are wrong."""

import csv
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch_file

from tightframe import ClassStatistics, DecisionCounts, Report
from tightframe.errors import ClassifierError, DtypeError, LabelError, ShapeError, TightframeError
from tightframe.measuring import measure
from tightframe.metrics import METRICS, Evidence, evaluate
from tightframe.reading import read_arrays
from tightframe.sections import number
from tightframe.sources.files import from_files, pick

Command = Callable[..., Any]


def measure_files(features: Path, **options: Any) -> Report:
    """As `tightframe measure` does: files to a source, the source to a report."""
    files = {name: options.pop(name, None) for name in ("labels", "weight", "bias", "test", "ood")}
    return measure(from_files(features, **files, options=options), **options)


def expected(arrays: Any, *, classifier: bool = True, per_class: bool = False, ood: bool = False) -> dict[str, float]:
    """The library's values, from features held in memory."""
    features, labels = torch.from_numpy(arrays.features), torch.from_numpy(arrays.labels)
    statistics = ClassStatistics.from_features(features, labels, 4, per_class=per_class)
    weight, bias = (torch.from_numpy(arrays.weight), torch.from_numpy(arrays.bias)) if classifier else (None, None)
    decisions = DecisionCounts(statistics, weight, bias)
    decisions.update(features, labels)
    outside = torch.from_numpy(arrays.outside).double().mean(0) if ood else None
    values = evaluate(Evidence(statistics, weight, bias, decisions, outside))
    return {name: float(value) for name, value in values.items()}


def assert_close(report: Report, values: dict[str, float], *, rtol: float = 1e-5) -> None:
    train = {entry.key: entry.value for entry in report if entry.split != "test" and entry.family != "OOD"}
    assert train.keys() == values.keys()
    for key, value in values.items():
        assert train[key] == pytest.approx(value, rel=rtol, abs=1e-9), key


def npz(name: str, **content: np.ndarray) -> Path:
    np.savez(name, **content)
    return Path(name)


def safetensors(name: str, **content: np.ndarray) -> Path:
    save_file({key: np.ascontiguousarray(value) for key, value in content.items()}, name)
    return Path(name)


def pt(name: str, **content: np.ndarray) -> Path:
    torch.save({key: torch.from_numpy(value) for key, value in content.items()}, name)
    return Path(name)


WRITERS: dict[str, Callable[..., Path]] = {".npz": npz, ".safetensors": safetensors, ".pt": pt, ".pth": pt}


# ---------------------------------------------------------------------------------------------- files and values


@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_of_file(here: Path, arrays: Any, kind: str) -> None:
    write = WRITERS[kind]
    report = measure_files(
        write(f"a{kind}", features=arrays.features, labels=arrays.labels),
        weight=write(f"w{kind}", weight=arrays.weight, bias=arrays.bias),
        test=write(f"t{kind}", features=arrays.test_features, labels=arrays.test_labels),
        ood=write(f"o{kind}", features=arrays.outside),
    )
    assert_close(report, expected(arrays, ood=True))
    assert report.facts.samples == 60
    assert report.facts.layer == f"a{kind}"


@pytest.mark.parametrize("names", [range(4), "abcd"])
def test_labels_in_a_list(here: Path, arrays: Any, names: Sequence[Any]) -> None:
    torch.save({"x": torch.from_numpy(arrays.features), "y": [names[each] for each in arrays.labels]}, "a.pt")
    own = measure_files(npz("a.npz", features=arrays.features, labels=arrays.labels))
    assert measure_files(Path("a.pt")).values == own.values


def test_a_pair_of_arrays(here: Path, arrays: Any) -> None:
    for name in ("features", "labels", "weight", "bias", "outside"):
        np.save(f"{name}.npy", getattr(arrays, name))
    report = measure_files(
        Path("features.npy"),
        labels=Path("labels.npy"),
        weight=Path("weight.npy"),
        bias=Path("bias.npy"),
        ood=Path("outside.npy"),
    )
    assert_close(report, expected(arrays, ood=True))


@pytest.mark.parametrize("name", ["features", "x", "embeddings", "h"])
@pytest.mark.parametrize("labels", ["labels", "label", "y", "targets"])
def test_names_of_arrays(here: Path, arrays: Any, name: str, labels: str) -> None:
    path = npz("a.npz", **{name: arrays.features, labels: arrays.labels, "other": arrays.bias})
    assert_close(measure_files(path), expected(arrays, classifier=False))


@pytest.mark.parametrize("prefix", ["", "classifier.", "fc.", "head."])
def test_a_models_weights_serve_as_the_classifiers_file(here: Path, arrays: Any, prefix: str) -> None:
    path = npz("a.npz", features=arrays.features, labels=arrays.labels)
    state = {"body.weight": arrays.outside, f"{prefix}weight": arrays.weight, f"{prefix}bias": arrays.bias}
    assert_close(measure_files(path, weight=safetensors("w.safetensors", **state)), expected(arrays))


def test_a_weight_without_bias(here: Path, arrays: Any) -> None:
    path = npz("a.npz", features=arrays.features, labels=arrays.labels)
    report = measure_files(path, weight=npz("w.npz", weight=arrays.weight))
    bare = type(arrays)(**{**vars(arrays), "bias": np.zeros(4, np.float32)})
    assert_close(report, expected(bare))


def test_held_out_decisions(here: Path, arrays: Any) -> None:
    report = measure_files(
        npz("a.npz", features=arrays.features, labels=arrays.labels),
        weight=npz("w.npz", weight=arrays.weight, bias=arrays.bias),
        test=npz("t.npz", features=arrays.test_features, labels=arrays.test_labels),
    )
    means = [arrays.features[arrays.labels == k].astype(float).mean(0) for k in range(4)]
    mismatches = hits = 0
    for feature, label in zip(arrays.test_features.astype(float), arrays.test_labels, strict=True):
        decided = int(np.argmax(arrays.weight.astype(float) @ feature + arrays.bias))
        mismatches += decided != int(np.argmin([np.linalg.norm(feature - mean) for mean in means]))
        hits += decided == label
    assert 0 < mismatches < 30
    assert report["test/ncc_mismatch"].value == pytest.approx(mismatches / 30, rel=1e-12)
    assert report["test/classifier_accuracy"].value == pytest.approx(hits / 30, rel=1e-12)


def test_bfloat16_features(here: Path, arrays: Any) -> None:
    features = torch.from_numpy(arrays.features).bfloat16()
    save_torch_file({"features": features, "labels": torch.from_numpy(arrays.labels)}, "a.safetensors")
    rounded = type(arrays)(**{**vars(arrays), "features": features.float().numpy()})
    assert_close(measure_files(Path("a.safetensors")), expected(rounded, classifier=False))


@pytest.mark.parametrize("kind", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", ">i8"])
def test_labels_of_every_integer_type(here: Path, arrays: Any, kind: str) -> None:
    path = npz("a.npz", features=arrays.features, labels=arrays.labels.astype(kind))
    assert_close(measure_files(path), expected(arrays, classifier=False))


def test_more_rows_than_are_read_at_once(here: Path) -> None:
    rng = np.random.default_rng(1)
    labels = np.arange(9000) % 3
    features = rng.normal(size=(9000, 2)) + labels[:, None]
    np.save("x.npy", features)
    np.save("y.npy", labels)
    np.save("o.npy", features[:5000] + 7)
    np.savez("t.npz", features=np.vstack([features[:4096], -features[:1000]]), labels=labels[np.r_[:4096, :1000]])
    report = measure_files(Path("x.npy"), labels=Path("y.npy"), test=Path("t.npz"), ood=Path("o.npy"))
    statistics = ClassStatistics.from_features(torch.from_numpy(features), torch.from_numpy(labels), 3)
    assert report.facts.samples == 9000
    outside = torch.from_numpy(features[:5000] + 7).mean(0)
    means = np.stack([features[labels == k].mean(0) for k in range(3)])
    nearest = [
        np.linalg.norm(part[:, None] - means, axis=2).argmin(1) == labels[: len(part)]
        for part in (features[:4096], -features[:1000])
    ]
    assert report["test/ncc_accuracy"].value == pytest.approx(np.concatenate(nearest).mean(), rel=1e-12)
    for name in ("nc1", "cdnv", "ood_orthogonality"):
        value = float(METRICS[name].of(Evidence(statistics, outside=outside)))
        assert report[name].value == pytest.approx(value, rel=1e-10)


def test_per_class_and_covariance(here: Path, arrays: Any) -> None:
    path = npz("a.npz", features=arrays.features, labels=arrays.labels)
    assert_close(measure_files(path, per_class=True), expected(arrays, classifier=False, per_class=True))
    lean = measure_files(path, covariance=False)
    assert "nc1" not in lean.values
    assert any("covariance" in note for note in lean.notes)


def test_ignored_labels(here: Path, arrays: Any) -> None:
    labels = arrays.labels.copy()
    labels[::6] = -100
    kept = labels >= 0
    report = measure_files(npz("a.npz", features=arrays.features, labels=labels), ignore_index=-100)
    fewer = measure_files(npz("b.npz", features=arrays.features[kept], labels=labels[kept]))
    assert report.facts.samples == 50
    assert_close(report, fewer.values, rtol=1e-9)


def test_num_classes(here: Path, arrays: Any) -> None:
    path = npz("a.npz", features=arrays.features, labels=arrays.labels)
    assert measure_files(path).facts.classes == 4
    report = measure_files(path, num_classes=6)
    assert report.facts.classes == 6
    assert any("2 of 6 classes have no samples" in note and "4, 5" in note for note in report.notes)
    wide = np.vstack([arrays.weight, arrays.weight[:1] + 1])
    assert measure_files(path, weight=npz("w.npz", weight=wide)).facts.classes == 5


# ---------------------------------------------------------------------------------------------- the command


def test_what_is_printed_and_written_is_the_librarys(tightframe: Command, here: Path, arrays: Any) -> None:
    npz("a.npz", features=arrays.features, labels=arrays.labels)
    npz("w.npz", weight=arrays.weight, bias=arrays.bias)
    npz("t.npz", features=arrays.test_features, labels=arrays.test_labels)
    npz("o.npz", features=arrays.outside)
    outcome = tightframe(
        "measure", "a.npz", "--weight", "w.npz", "--test", "t.npz", "--ood", "o.npz", "--per-class", "--all",
        "--html", "a.html", "--json", "a.json", "--csv", "a.csv", "--md", "a.md",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    assert outcome.err == ""
    values = expected(arrays, per_class=True, ood=True)
    report = Report.from_dict(json.loads((here / "a.json").read_text(encoding="utf-8")))
    assert_close(report, values)
    words = outcome.out.split()
    assert [entry.key for entry in report if number(entry.value) not in words] == []
    with (here / "a.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["value"]) for row in rows] == [entry.value for entry in report]
    page = (here / "a.html").read_text(encoding="utf-8")
    assert "<h1>Neural collapse of a.npz</h1>" in page
    assert "Gram matrices" in page
    assert f"**{report.verdict.word}.**" in (here / "a.md").read_text(encoding="utf-8")
    for name in ("a.html", "a.json", "a.csv", "a.md"):
        assert f"wrote {name}" in outcome.out


def test_the_cards_alone_unless_more_is_asked_for(tightframe: Command, here: Path, arrays: Any) -> None:
    npz("a.npz", features=arrays.features, labels=arrays.labels)
    brief, classes, full = (tightframe("measure", "a.npz", *options) for options in ((), ("--classes",), ("--all",)))
    label = METRICS["riesz_kernel"].label
    for outcome in (brief, classes, full):
        assert "NC1 samples sit at their class mean" in outcome.out
    assert [label in outcome.out for outcome in (brief, classes, full)] == [False, False, True]
    assert ["Nearest pairs of classes" in outcome.out for outcome in (brief, classes, full)] == [False, True, True]


def test_options_reach_the_measurement(tightframe: Command, here: Path, arrays: Any) -> None:
    np.save("x.npy", arrays.features)
    np.save("y.npy", np.where(arrays.labels == 3, -1, arrays.labels))
    outcome = tightframe(
        *("measure", "x.npy", "--labels", "y.npy", "--ignore-index", "-1", "--num-classes", "5"),
        *("--no-covariance", "--all"),
    )
    assert outcome.status == 0, outcome.err
    assert "45 samples · 5 classes" in outcome.plain
    assert "2 of 5 classes have no samples and are left out: 3, 4." in outcome.plain
    assert "there is no covariance" in outcome.plain


def test_a_single_sample_is_a_note_and_nothing_else(tightframe: Command, here: Path, arrays: Any) -> None:
    npz("a.npz", features=arrays.features[:58], labels=np.where(np.arange(58) == 5, 4, arrays.labels[:58]))
    outcome = tightframe("measure", "a.npz", "--all")
    assert outcome.status == 0
    assert "a single sample (4); zero variance there is not collapse." in outcome.plain
    assert outcome.err == ""


# ---------------------------------------------------------------------------------------------- files that are wrong


class Evil:
    """Pickled as a call that makes a folder."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("broken-in",)


def test_code_in_a_file_is_refused_and_not_run(tightframe: Command, here: Path) -> None:
    torch.save({"features": Evil()}, "a.pt")
    outcome = tightframe("measure", "a.pt")
    assert outcome.status == 2
    assert "can't read a.pt: it holds more than plain tensors" in outcome.complaint
    assert not (here / "broken-in").exists()
    assert len(outcome.err.splitlines()) == 1
    assert "weights_only" not in outcome.err  # torch's advice to read it all the same


def test_objects_in_numpy_files_are_refused(here: Path, arrays: Any) -> None:
    np.savez("a.npz", features=np.array([Evil()], dtype=object), labels=arrays.labels)
    np.save("a.npy", np.array([Evil()], dtype=object))
    for name in ("a.npz", "a.npy"):
        with pytest.raises(DtypeError, match="Python objects, which could run code"):
            dict(read_arrays(Path(name)))
    assert not (here / "broken-in").exists()


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".safetensors", ".pt", ".pth"])
def test_files_that_are_something_else(tightframe: Command, here: Path, suffix: str) -> None:
    for content in (b"", b"hello"):
        (here / f"a{suffix}").write_bytes(content)
        outcome = tightframe("measure", f"a{suffix}")
        assert outcome.status == 2
        assert outcome.complaint.startswith("error: ") and f"a{suffix}" in outcome.complaint
        assert re.search("[a-z]{3}", outcome.complaint.partition(f"a{suffix}")[2]), outcome.complaint  # not a bare code


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".safetensors", ".pt", ".pth"])
def test_files_that_are_not_there(tightframe: Command, here: Path, suffix: str) -> None:
    outcome = tightframe("measure", f"a{suffix}")
    assert outcome.status == 2
    assert f"error: a{suffix} doesn't exist." in outcome.complaint


def test_files_of_another_kind(tightframe: Command, here: Path) -> None:
    (here / "a.csv").write_text("1,2")
    outcome = tightframe("measure", "a.csv")
    assert outcome.status == 2
    assert "error: a.csv must be a .npz, .npy, .safetensors, .pt, .pth or .parquet file." in outcome.complaint
    (here / "w.parquet").write_text("")
    np.save("x.npy", np.eye(3))
    outcome = tightframe("measure", "x.npy", "--weight", "w.parquet")  # read for features only
    assert "error: w.parquet must be a .npz, .npy, .safetensors, .pt or .pth file." in outcome.complaint


def test_an_array_that_is_not_there(tightframe: Command, here: Path, arrays: Any) -> None:
    npz("a.npz", values=arrays.features, labels=arrays.labels)
    outcome = tightframe("measure", "a.npz")
    assert outcome.status == 2
    assert "a.npz has no array called features or x or embeddings or h." in outcome.complaint
    assert "Its arrays: values (60, 6), labels (60,)." in outcome.complaint


def test_features_without_labels(tightframe: Command, here: Path, arrays: Any) -> None:
    np.save("x.npy", arrays.features)
    outcome = tightframe("measure", "x.npy")
    assert outcome.status == 2
    assert "--labels" in outcome.complaint  # the way out


@pytest.mark.parametrize("content", [(1, 2), [torch.zeros(3, 2), torch.zeros(3)], {"features": {"a": 1}, "labels": 3}])
def test_files_that_hold_no_arrays(tightframe: Command, here: Path, arrays: Any, content: Any) -> None:
    torch.save(content, "a.pt")
    np.save("y.npy", arrays.labels)
    outcome = tightframe("measure", "a.pt", "--labels", "y.npy")
    assert outcome.status == 2
    assert "a.pt" in outcome.complaint


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"labels": np.arange(60) - 1}, "error: labels must be at least 0; got -1. Pass --ignore-index -1 to drop it."),
        ({"labels": np.zeros(60, int)}, "at least two classes must have samples; 1 of 1 has."),
        ({"labels": np.zeros(60, np.float32)}, "labels must be integers; got torch.float32."),
        ({"labels": np.zeros((60, 2), int)}, "tags, of which a sample has several or none"),
        ({"labels": np.zeros(30, int)}, "the features have the shape (60, 6), but labels have (30,)"),
        ({"labels": np.zeros(0, int)}, "labels"),
        ({"features": np.zeros((60, 6), int)}, "features must be floating point"),
        ({"features": np.zeros(60)}, "the features must be (N, D); got shape (60,)"),
        ({"features": np.full((60, 6), np.nan)}, "features must be finite"),
        ({"features": np.zeros((0, 6)), "labels": np.zeros(0, int)}, "the features have no rows"),
    ],
)
def test_arrays_that_do_not_fit(
    tightframe: Command, here: Path, arrays: Any, content: dict[str, np.ndarray], message: str
) -> None:
    npz("a.npz", **{"features": arrays.features, "labels": arrays.labels, **content})
    outcome = tightframe("measure", "a.npz")
    assert outcome.status == 2
    assert "Traceback" not in outcome.err
    assert message.replace("\\", "") in outcome.complaint


@pytest.mark.parametrize("label", [-100, -1])
def test_labels_that_are_all_negative(here: Path, arrays: Any, label: int) -> None:
    with pytest.raises(LabelError, match=str(label)):
        measure_files(npz("a.npz", features=arrays.features, labels=np.full(60, label)))


@pytest.mark.parametrize("difference", [-1, 1])
@pytest.mark.parametrize("rows", [60, 4096, 5000])
def test_labels_of_another_number_than_features(here: Path, rows: int, difference: int) -> None:
    labels = np.arange(rows + difference) % 3
    with pytest.raises(ShapeError):
        measure_files(npz("a.npz", features=np.random.default_rng(0).normal(size=(rows, 2)), labels=labels))


def test_out_of_distribution_features_of_another_dimension(here: Path, arrays: Any) -> None:
    path = npz("a.npz", features=arrays.features, labels=arrays.labels)
    with pytest.raises(TightframeError, match=r"\b6\b.*\b5\b"):
        measure_files(path, ood=npz("o.npz", features=arrays.outside[:, :5]))


def test_held_out_features_of_another_dimension(here: Path, arrays: Any) -> None:
    path = npz("a.npz", features=arrays.features, labels=arrays.labels)
    with pytest.raises(ShapeError, match=r"6 entries.*got 5"):
        measure_files(path, test=npz("t.npz", features=arrays.test_features[:, :5], labels=arrays.test_labels))


def test_a_classifier_that_does_not_fit(here: Path, arrays: Any) -> None:
    path = npz("a.npz", features=arrays.features, labels=arrays.labels)
    with pytest.raises(ClassifierError, match=r"\(4, 6\); got \(4, 5\)"):
        measure_files(path, weight=npz("w.npz", weight=arrays.weight[:, :5]))
    with pytest.raises(ClassifierError, match=r"bias must have shape \(4,\); got \(3,\)"):
        measure_files(path, weight=npz("w.npz", weight=arrays.weight, bias=arrays.bias[:3]))
    with pytest.raises(LabelError, match="3"):
        measure_files(path, weight=npz("w.npz", weight=arrays.weight[:3]))


def test_a_bias_without_weight(tightframe: Command, here: Path, arrays: Any) -> None:
    npz("a.npz", features=arrays.features, labels=arrays.labels)
    npz("b.npz", bias=arrays.bias)
    outcome = tightframe("measure", "a.npz", "--bias", "b.npz")
    assert outcome.status == 2
    assert "error: a bias needs the classifier's weight: pass --weight" in outcome.complaint


# ---------------------------------------------------------------------------------------------- the parts


def test_pick_prefers_names_in_their_order_over_a_lone_array() -> None:
    arrays = {"": np.array(0), "y": np.array(1), "labels": np.array(2)}
    assert pick(arrays, ("labels", "y"), Path("a")) == 2
    assert pick({"": np.array(0)}, ("labels",), Path("a")) == 0
    assert pick({"z": np.array(0)}, ("labels",), Path("a"), required=False) is None


def test_numpy_files_are_not_read_whole(here: Path, arrays: Any) -> None:
    np.save("x.npy", arrays.features)
    assert isinstance(read_arrays(Path("x.npy"))[""], np.memmap)
