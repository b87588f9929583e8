"""`tightframe measure` and `extract` on models, transforms and images that fail: one line names the user's code."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli.conftest import Command

MODELS = """
import sys
import torch
from torch import nn

def plain():
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 6), nn.Linear(6, 2))

model = plain()
number = 3

def wrong_width():
    return nn.Sequential(nn.Flatten(), nn.Linear(5, 6), nn.Linear(6, 2))

class Raising(nn.Module):
    def __init__(self, action):
        super().__init__()
        self.action, self.head = action, nn.Linear(4, 2)

    def forward(self, x):
        self.action()
        return self.head(x)

def fail():
    raise KeyError("a key")

def own_exception():
    return Raising(fail)

def leaving_forward():
    return Raising(lambda: sys.exit(3))

def leaving():
    sys.exit(7)

def with_argument(width):
    return plain()

def failing_transform():
    return plain(), lambda image: [][1]

def leaving_transform():
    return plain(), lambda image: sys.exit(5)
"""


@pytest.fixture
def images(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five images of two classes in `images`, and the module `failing_models`, in the current folder."""
    (here / "failing_models.py").write_text(MODELS)
    (here / "leaving_module.py").write_text("import sys\nsys.exit('bye')\n")
    (here / "unparsable.py").write_text("x = 1\ndef f(:\n")
    draw(here / "images", seed=0)
    monkeypatch.syspath_prepend(here)
    for name in ("failing_models", "leaving_module", "unparsable"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return here / "images"


def draw(folder: Path, *, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for name, number in (("ash", 3), ("birch", 2)):
        (folder / name).mkdir(parents=True)
        for place in range(number):
            Image.fromarray(rng.integers(0, 255, (8, 8, 3)).astype(np.uint8)).save(folder / name / f"{place}.png")


FAILURES = {
    "failing_models:wrong_width": (
        "the model failing_models:wrong_width failed on a batch of (5, 3, 8, 8) float32: RuntimeError: ",
        "linear.py, line ",
    ),
    "failing_models:own_exception": (
        "the model failing_models:own_exception failed on a batch of (5, 3, 8, 8) float32: KeyError: 'a key' (",
        "failing_models.py, line 26).",
    ),
    "failing_models:leaving_forward": (
        "the model failing_models:leaving_forward called sys.exit(3) on a batch of (5, 3, 8, 8) float32.",
    ),
    "failing_models:leaving": ("failing_models:leaving called sys.exit(7).",),
    "leaving_module:f": ("importing the module 'leaving_module' called sys.exit('bye').",),
    "failing_models:with_argument": (
        "failing_models:with_argument is called without arguments: missing a required argument: 'width'.",
    ),
    "failing_models:number": ("failing_models:number must be a function or a torch module; got int.",),
    "./failing_models.py:plain": ("--model must name a module; got './failing_models.py:plain'. Give failing_models:",),
    "failing_models:failing_transform": (
        "the transform failed on images/ash/0.png: IndexError: list index",
        ".py, line",
    ),
    "failing_models:leaving_transform": ("the transform called sys.exit(5) on images/ash/0.png.",),
}


@pytest.mark.parametrize("command", [("measure",), ("extract", "--out", "shards")])
@pytest.mark.parametrize("model", FAILURES)
def test_the_users_code_is_named(tightframe: Command, images: Path, model: str, command: tuple[str, ...]) -> None:
    size = () if "transform" in model else ("--image-size", "8")
    outcome = tightframe(*command, "--model", model, "--images", "images", *size)
    assert outcome.status == 2
    assert outcome.err.startswith("error: ") and len(outcome.err.splitlines()) == 1
    for part in FAILURES[model]:
        assert part in outcome.complaint


def test_a_transform_that_fails_in_a_worker(tightframe: Command, images: Path) -> None:
    outcome = tightframe("measure", "--model", "failing_models:failing_transform", "--images", "images", "--workers", 1)
    assert outcome.status == 2
    assert "error: the transform failed on images/ash/0.png: IndexError" in outcome.complaint


def test_a_place_in_unparsable_code_is_named_once(tightframe: Command, images: Path) -> None:
    outcome = tightframe("measure", "--model", "unparsable:f", "--images", "images")
    assert outcome.status == 2
    assert outcome.complaint.count("unparsable.py") == 1 and outcome.complaint.count("line 2") == 1


def test_a_failure_of_this_package_in_a_forward_pass_is_a_defect(
    tightframe: Command, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["tightframe.hooks.capture"], "features_in", lambda value: 1 / 0)
    outcome = tightframe("measure", "--model", "failing_models:plain", "--images", "images", "--image-size", 8)
    assert outcome.status == 1
    assert "This is a defect of tightframe" in outcome.complaint


def test_a_model_in_a_module(tightframe: Command, images: Path) -> None:
    command = ("measure", "--images", "images", "--image-size", 8, "--csv")
    assert tightframe(*command, "a.csv", "--model", "failing_models:plain").status == 0
    assert tightframe(*command, "b.csv", "--model", "failing_models:model").status == 0
    assert Path("a.csv").read_text() == Path("b.csv").read_text()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes")
def test_what_is_no_image_is_refused(tightframe: Command, images: Path) -> None:
    command = ("measure", "--model", "failing_models:plain", "--images", "images")
    (images / "ash" / "7.png").symlink_to("nowhere")
    assert "images/ash/7.png is a link to a file that doesn't exist, not an image." in tightframe(*command).complaint
    (images / "ash" / "7.png").unlink()
    os.mkfifo(images / "ash" / "8.png")
    assert "images/ash/8.png is a pipe or device, not an image." in tightframe(*command).complaint


# ---------------------------------------------------------------------------------------------- the folder of `extract`


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


EXTRACT = ("extract", "--model", "failing_models:plain", "--out", "e1", "--image-size", 8)


def test_a_complete_extraction(tightframe: Command, images: Path) -> None:
    assert "wrote e1: 5 train samples" in tightframe(*EXTRACT, "--images", "images").plain
    written = contents(Path("e1"))
    outcome = tightframe(*EXTRACT, "--images", "images")
    assert outcome.plain == "e1 is complete already; nothing was written. measure it: tightframe measure e1"
    assert contents(Path("e1")) == written


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (("--images", "others"), "--images '{here}/images'; this one has '{here}/others'."),
        (("--images", "images", "--image-size", 9), "--image-size 8; this one has 9."),
        (("--images", "images", "--ignore-index", 1), "--ignore-index None; this one has 1."),
        (("--images", "images", "--batch-size", 2), "--batch-size 64; this one has 2."),
        (("--images", "images", "--ood", "others"), "--splits ['train']; this one has ['train', 'ood']."),
        (("--data", "digits", "--no-own-classifier"), "e1 holds an extraction with "),
    ],
)
def test_other_data_or_settings_are_refused(
    tightframe: Command, images: Path, here: Path, changed: tuple[str, ...], message: str
) -> None:
    draw(here / "others", seed=1)
    assert tightframe(*EXTRACT, "--images", "images").status == 0
    written = contents(Path("e1"))
    arguments = EXTRACT[:-2] if "--data" in changed else EXTRACT
    outcome = tightframe(*arguments, *changed)
    assert outcome.status == 2
    assert message.format(here=here) in outcome.complaint
    assert outcome.complaint.endswith("Choose a different folder, or pass --overwrite.")
    assert contents(Path("e1")) == written


def test_more_or_other_images_in_the_folder_are_refused(tightframe: Command, images: Path) -> None:
    assert tightframe(*EXTRACT, "--images", "images").status == 0
    (images / "ash" / "9.png").write_bytes((images / "ash" / "0.png").read_bytes())
    outcome = tightframe(*EXTRACT, "--images", "images")
    assert outcome.status == 2
    assert "samples train='5 samples, checksum " in outcome.complaint
    assert "this one has '6 samples, checksum " in outcome.complaint


@pytest.mark.parametrize("content", ['{"mine": 1}', "[1]", "not JSON"])
@pytest.mark.parametrize("flags", [(), ("--overwrite",)])
def test_somebodys_manifest_stays(
    tightframe: Command, images: Path, here: Path, content: str, flags: tuple[str, ...]
) -> None:
    (here / "e1").mkdir()
    (here / "e1" / "manifest.json").write_text(content)
    (here / "e1" / "classifier.safetensors").write_text("mine")
    written = contents(here / "e1")
    outcome = tightframe(*EXTRACT, "--images", "images", *flags)
    assert outcome.status == 2
    assert "e1/manifest.json" in outcome.complaint
    assert contents(here / "e1") == written


@pytest.mark.parametrize("flags", [("--out", "file"), ("--out", "file/below")])
def test_a_folder_that_cant_be_one_is_refused_before_the_model_is_built(
    tightframe: Command, here: Path, flags: tuple[str, ...]
) -> None:
    (here / "file").write_text("mine")
    outcome = tightframe("extract", "--model", "absent:f", "--data", "digits", *flags)
    assert outcome.status == 2
    assert outcome.complaint == f"error: --out {flags[1]}: file is a file, not a folder."


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (("foo",), "--splits must be among train, test, ood; got 'foo'."),
        (("train", "ood"), "--splits ood needs --ood."),
        (("train", "test"), "--splits test needs --test."),
        (("test",), "--splits test needs --test."),
    ],
)
def test_splits_without_data(tightframe: Command, images: Path, splits: tuple[str, ...], message: str) -> None:
    outcome = tightframe("extract", "--model", "absent:f", "--images", "images", "--out", "e1", "--splits", *splits)
    assert outcome.status == 2
    assert message in outcome.complaint
    assert not Path("e1").exists()


def test_a_failure_of_the_system_before_the_first_shard(
    tightframe: Command, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "e1/train-00000.safetensors")

    monkeypatch.setattr("tightframe.sources.extraction.write_tensors", full)
    outcome = tightframe(*EXTRACT, "--images", "images")
    assert outcome.status == 2
    assert outcome.complaint.endswith("No space left on device. Nothing was written.")
