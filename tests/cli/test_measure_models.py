"""`tightframe measure` and `extract` on models: each kind of model and data, the values of `measure` in Python on the
same features, and flags that don't go together."""

import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from tightframe import Report, measure
from tightframe.datasets import load, load_outside
from tightframe.sources import ArraySource
from tightframe.sources.images import PlainTransform
from tightframe.sources.language_models import from_texts
from tightframe.sources.named_models import load_model

Command = Callable[..., Any]
CLASSES = ("ash", "birch", "cedar")
SIZE = 16
MODELS = """
import torch
from torch import nn

def mlp():
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 12), nn.ReLU(), nn.Linear(12, 3))

def grey():
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 10))

def scaled(image):
    import numpy as np
    return torch.from_numpy(np.array(image.resize((16, 16)), dtype=np.float32)).permute(2, 0, 1) / 100

def with_transform():
    return mlp(), scaled

def unscaled():
    import numpy as np
    return mlp(), lambda image: torch.from_numpy(np.array(image, dtype=np.float32))

def text():
    return "a model"

def identity():
    return mlp(), lambda image: image

def pixels():
    torch.manual_seed(2)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 1))
"""


@pytest.fixture
def images(here: Path) -> Path:
    """24 images of three classes, of different sizes, and `models.py`, in the current folder."""
    (here / "models.py").write_text(MODELS)
    draw_classes(here / "images", seed=0)
    return here / "images"


@pytest.fixture(autouse=True)
def _own_modules() -> Any:
    """The current folder's `models` is this test's."""
    before = list(sys.path)
    yield
    sys.path[:] = before
    sys.modules.pop("models", None)


def draw_classes(folder: Path, *, seed: int, classes: tuple[str, ...] = CLASSES) -> None:
    rng = np.random.default_rng(seed)
    for place, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(8):
            height, width = rng.integers(18, 26, 2)
            pixels = rng.integers(0, 120, (height, width, 3)) + 40 * place
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number}.png")


def report_of(outcome: Any, path: str = "out.json") -> Report:
    assert outcome.status == 0, outcome.err
    return Report.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))


def assert_same(report: Report, expected: Report, *, rtol: float = 1e-5) -> None:
    def values(given: Report) -> dict[tuple[str, str], float]:
        return {(entry.key, entry.split): entry.value for entry in given}

    ours, theirs = values(report), values(expected)
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        assert ours[key] == pytest.approx(value, rel=rtol, abs=1e-7, nan_ok=True), key


def files_of(folder: Path) -> tuple[list[Path], Tensor]:
    paths = sorted(folder.rglob("*.png"))
    return paths, torch.tensor([CLASSES.index(path.parent.name) for path in paths])


@torch.no_grad()
def features_of(body: nn.Module, transform: Callable[[Any], Tensor], paths: list[Path]) -> Tensor:
    """One image after the other."""
    return torch.cat([body(transform(Image.open(path).convert("RGB"))[None]) for path in paths])


def expected_of(model: nn.Sequential, transform: Callable[[Any], Tensor], folder: Path) -> Report:
    """`measure` in Python on the features of a model whose last layer is the classifier."""
    paths, labels = files_of(folder)
    features = features_of(model.eval()[:-1], transform, paths)
    weight, bias = model[-1].weight, model[-1].bias
    return measure(ArraySource(features, labels, weight=weight, bias=bias), progress=False)


# ---------------------------------------------------------------------------------------------- images by class


def test_a_function_with_a_checkpoint(tightframe: Command, images: Path) -> None:
    model = load_model("models:mlp").model
    trained = {name: value + 0.1 * torch.randn(value.shape) for name, value in model.state_dict().items()}
    save_file(trained, "mine.safetensors")
    outcome = tightframe(
        "measure", "--model", "models:mlp", "--checkpoint", "mine.safetensors", "--images", images,
        "--image-size", SIZE, "--batch-size", 5, "--device", "cpu", "--json", "out.json",
    )  # fmt: skip
    report = report_of(outcome)
    model.load_state_dict(trained)
    assert_same(report, expected_of(model, PlainTransform(SIZE), images))
    assert list(report.facts.class_names.values()) == list(CLASSES)
    assert report.facts.title == "Neural collapse of models:mlp on images"
    assert any("no transform of its own: images are resized to 16x16" in note for note in report.notes)
    assert any("alphabetical order" in note for note in report.notes)


def test_a_function_with_its_transform(tightframe: Command, images: Path) -> None:
    report = report_of(
        tightframe("measure", "--model", "models:with_transform", "--images", images, "--json", "out.json")
    )
    named = load_model("models:with_transform")
    assert_same(report, expected_of(named.model, named.transform, images))
    assert not any("transform" in note for note in report.notes)


def test_workers_open_the_images(tightframe: Command, images: Path) -> None:
    command = ("measure", "--model", "models:with_transform", "--images", images, "--json", "out.json")
    plain = report_of(tightframe(*command))
    assert_same(report_of(tightframe(*command, "--workers", 1, "--batch-size", 1)), plain)


def test_held_out_and_foreign_images(tightframe: Command, images: Path, here: Path) -> None:
    draw_classes(here / "held", seed=1, classes=CLASSES[1:])
    draw_classes(here / "foreign", seed=2, classes=("x",))
    outcome = tightframe(
        "measure", "--model", "models:with_transform", "--images", "images", "--test", "held", "--ood", "foreign",
        "--json", "out.json",
    )  # fmt: skip
    named = load_model("models:with_transform")
    train, test = files_of(images), files_of(here / "held")
    outside = sorted((here / "foreign").rglob("*.png"))
    body = named.model.eval()[:-1]
    features = [features_of(body, named.transform, paths) for paths in (train[0], test[0], outside)]
    source = ArraySource(
        features[0], train[1], test=(features[1], test[1]), ood=features[2],
        weight=named.model[-1].weight, bias=named.model[-1].bias,
    )  # fmt: skip
    assert_same(report_of(outcome), measure(source, progress=False), rtol=1e-4)


def test_layers_of_a_model(tightframe: Command, images: Path) -> None:
    command = ("measure", "--model", "models:with_transform", "--images", images, "--json", "out.json")
    report = report_of(tightframe(*command, "--layers", "1"))
    assert [layer.facts.layer for layer in report.layers] == ["1"]


def test_the_classifiers_input_alone(tightframe: Command, images: Path, here: Path) -> None:
    draw_classes(here / "two", seed=0, classes=CLASSES[:2])
    command = ("measure", "--model", "models:with_transform", "--images", "two", "--json", "out.json")
    assert "two has 2 subfolders, but the classifier of models:with_transform has 3 outputs" in tightframe(*command).err
    report = report_of(tightframe(*command, "--no-own-classifier"))
    named = load_model("models:with_transform")
    paths, labels = files_of(here / "two")
    features = features_of(named.model.eval()[:-1], named.transform, paths)
    assert_same(report, measure(features, labels, progress=False))


def test_a_data_set(tightframe: Command, images: Path) -> None:
    outcome = tightframe(
        "measure", "--model", "models:grey", "--data", "digits", "--ood", "noise", "--json", "out.json"
    )
    data, model = load("digits"), load_model("models:grey").model
    outside = load_outside("noise", data.image_shape, len(data.test_images))
    expected = measure(
        model,
        (data.train_images, data.train_labels),
        test=(data.test_images, data.test_labels),
        ood=[(outside,)],
        progress=False,
    )
    assert_same(report_of(outcome), expected, rtol=1e-4)
    assert report_of(outcome).facts.class_names == {digit: digit for digit in "0123456789"}


# ---------------------------------------------------------------------------------------------- pixels


@pytest.fixture
def masks(images: Path, here: Path) -> Path:
    """Images of 16 x 16 in `flat`, and their masks."""
    rng = np.random.default_rng(3)
    for name in ("flat", "masks"):
        (here / name).mkdir()
    for number in range(6):
        indices = rng.integers(0, 3, (SIZE, SIZE)).astype(np.uint8)
        pixels = (60 * indices[..., None] + rng.integers(0, 80, (SIZE, SIZE, 3))).astype(np.uint8)
        indices[0] = 255
        Image.fromarray(pixels).save(here / "flat" / f"{number}.png")
        Image.fromarray(indices).save(here / "masks" / f"{number}.png")
    return here / "masks"


def test_a_model_of_pixels(tightframe: Command, masks: Path, here: Path) -> None:
    outcome = tightframe(
        "measure", "--model", "models:pixels", "--images", "flat", "--masks", "masks", "--image-size", SIZE,
        "--ignore-index", 255, "--json", "out.json",
    )  # fmt: skip
    model, paths = load_model("models:pixels").model, sorted((here / "flat").iterdir())
    x = torch.stack([PlainTransform(SIZE)(Image.open(path)) for path in paths])
    y = torch.stack([torch.from_numpy(np.array(Image.open(masks / path.name))) for path in paths]).long()
    report = report_of(outcome)
    assert_same(report, measure(model, [(x, y)], ignore_index=255, progress=False))
    with torch.no_grad():
        features = model[:-1](x).movedim(1, -1)
    counted = y != 255
    assert report["nc1"].value == pytest.approx(measure(features[counted], y[counted])["nc1"].value, rel=1e-5)
    assert report.facts.samples == int(counted.sum())


def test_masks_of_another_size_take_the_nearest_pixel(masks: Path) -> None:
    from tightframe.sources.images import Images

    image, mask = Images([(Path("flat/0.png"), masks / "0.png")], PlainTransform(32))[0]
    assert image.shape == (3, 32, 32)
    doubled = np.array(Image.open(masks / "0.png")).repeat(2, 0).repeat(2, 1)
    assert torch.equal(mask, torch.from_numpy(doubled).long())


# ---------------------------------------------------------------------------------------------- transformers


@pytest.fixture
def vit(images: Path, here: Path) -> str:
    """A transformers classifier with random weights, its labels in another order than the folders'."""
    from transformers import ViTConfig, ViTForImageClassification
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    names = dict(enumerate(("cedar", "oak", "ash", "birch")))
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=SIZE,
        patch_size=8, id2label=names, label2id={name: place for place, name in names.items()},
    )  # fmt: skip
    torch.manual_seed(0)
    ViTForImageClassification(config).save_pretrained(here / "vit")
    ViTImageProcessorPil(size={"height": SIZE, "width": SIZE}).save_pretrained(here / "vit")
    return "vit"


@torch.no_grad()
def vit_features(model: nn.Module, images: Path) -> tuple[Tensor, list[str]]:
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained("vit")
    paths, _ = files_of(images)
    inputs = processor(images=[Image.open(path).convert("RGB") for path in paths], return_tensors="pt")
    return model.base_model(**inputs).last_hidden_state[:, 0], [path.parent.name for path in paths]


def test_a_transformers_classifier(tightframe: Command, vit: str, images: Path) -> None:
    outcome = tightframe("measure", "--model", "hf:vit", "--images", images, "--json", "out.json")
    model = load_model("hf:vit").model
    features, names = vit_features(model, images)
    labels = torch.tensor([model.config.label2id[name] for name in names])
    source = ArraySource(features, labels, weight=model.classifier.weight, bias=model.classifier.bias)
    report = report_of(outcome)
    assert_same(report, measure(source, progress=False), rtol=1e-4)
    assert list(report.facts.class_names.items()) == list(zip("0123", ["cedar", "oak", "ash", "birch"], strict=True))
    assert report.facts.classifier == "classifier"
    assert not any("alphabetical" in note for note in report.notes)


def test_a_transformers_encoder(tightframe: Command, vit: str, images: Path, here: Path) -> None:
    load_model("hf:vit").model.base_model.save_pretrained(here / "encoder")
    (here / "encoder/preprocessor_config.json").write_text((here / "vit/preprocessor_config.json").read_text())
    command = ("measure", "--model", "hf:encoder", "--images", images, "--json", "out.json")
    report = report_of(tightframe(*command, "--positions", "first"))
    features, names = vit_features(load_model("hf:vit").model, images)
    assert report["nc1"].value == pytest.approx(measure(features, np.array(names))["nc1"].value, rel=1e-4)
    assert report.facts.classifier is None
    assert any("encoder lacks some weights, which are random: pooler.dense.bias" in note for note in report.notes)


def test_a_transformers_model_of_pixels(tightframe: Command, masks: Path, here: Path) -> None:
    """Its processor brings image and mask to another size alike."""
    from transformers import SegformerConfig, SegformerForSemanticSegmentation
    from transformers.models.segformer.image_processing_pil_segformer import SegformerImageProcessorPil

    config = SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[8, 16], patch_sizes=[3, 3],
        strides=[2, 2], num_attention_heads=[1, 2], mlp_ratios=[2, 2], decoder_hidden_size=12, num_labels=3,
    )  # fmt: skip
    torch.manual_seed(0)
    SegformerForSemanticSegmentation(config).save_pretrained(here / "seg")
    processor = SegformerImageProcessorPil(size={"height": 24, "width": 24})
    processor.save_pretrained(here / "seg")
    data = ("--images", "flat", "--masks", "masks", "--test", "flat", "--test-masks", "masks", "--ignore-index", 255)
    report = report_of(tightframe("measure", "--model", "hf:seg", *data, "--json", "out.json"))
    images, maps = ([Image.open(path) for path in sorted((here / name).iterdir())] for name in ("flat", "masks"))
    batch = dict(processor(images=images, segmentation_maps=[np.array(each) for each in maps], return_tensors="pt"))
    model = load_model("hf:seg").model
    assert batch["labels"].shape == (6, 24, 24)
    assert_same(report, measure(model, [batch], test=[batch], ignore_index=255, progress=False), rtol=1e-4)


def test_a_data_set_in_the_models_own_transform(tightframe: Command, vit: str) -> None:
    report = report_of(
        tightframe("measure", "--model", "hf:vit", "--data", "digits", "--no-own-classifier", "--json", "out.json")
    )
    named, data = load_model("hf:vit"), load("digits")
    grey = (255 * data.train_images[:, 0]).round().to(torch.uint8).numpy()
    inputs = torch.stack([named.transform(Image.fromarray(each).convert("RGB"))["pixel_values"] for each in grey])
    with torch.no_grad():
        features = named.model.base_model(pixel_values=inputs).last_hidden_state[:, 0]
    expected = measure(features, data.train_labels, progress=False)
    assert report["nc1"].value == pytest.approx(expected["nc1"].value, rel=1e-4)


def test_other_weights_for_a_transformers_model(tightframe: Command, vit: str, images: Path) -> None:
    model = load_model("hf:vit").model
    trained = {name: value + 0.1 * torch.randn(value.shape) for name, value in model.state_dict().items()}
    torch.save({"model": {f"module.{name}": value for name, value in trained.items()}, "epoch": 3}, "mine.pt")
    loaded = load_model("hf:vit", "mine.pt").model
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in trained.items())
    save_file({name: value for name, value in trained.items() if name != "classifier.bias"}, "less.safetensors")
    command = ("measure", "--model", "hf:vit", "--images", images, "--checkpoint")
    assert "less.safetensors lacks 'classifier.bias'" in tightframe(*command, "less.safetensors").err


# ---------------------------------------------------------------------------------------------- language models

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "dog", "ran", "to", "red", "hat", "big", "small", "man"]


def sentence(words: int, seed: int) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, words))


@pytest.fixture
def language_model(here: Path) -> str:
    """A causal language model with random weights, and a tokenizer of whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    vocabulary = {name: place for place, name in enumerate(["<end>", "<unknown>", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unknown>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", unk_token="<unknown>")
    tokenizer.save_pretrained(here / "lm")
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(vocabulary), n_positions=16, n_embd=8, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    GPT2LMHeadModel(config).save_pretrained(here / "lm")
    (here / "a.txt").write_text("\n".join(sentence(40, seed) for seed in range(12)))
    with gzip.open(here / "b.txt.gz", "wt") as file:
        file.write(sentence(101, 20))
    return "lm"


@torch.no_grad()
def next_tokens(model: nn.Module, tokenizer: Any, texts: list[str], length: int) -> tuple[Tensor, Tensor]:
    """Features and next tokens, one sequence after the other."""
    ids = [place for text in texts for place in (*tokenizer(text).input_ids, tokenizer.eos_token_id)]
    cut = [torch.tensor(ids[i : i + length]) for i in range(0, len(ids) - length + 1, length)]
    features = [model.base_model(input_ids=each[None]).last_hidden_state[0, :-1] for each in cut]
    return torch.cat(features), torch.cat([each[1:] for each in cut])


def test_a_language_model(tightframe: Command, language_model: str, here: Path) -> None:
    outcome = tightframe(
        "measure", "--model", "hf:lm", "--texts", "a.txt", "b.txt.gz", "--length", 8, "--batch-size", 3,
        "--decisions", 0, "--json", "out.json",
    )  # fmt: skip
    report, named = report_of(outcome), load_model("hf:lm")
    texts = [(here / "a.txt").read_text(), sentence(101, 20)]
    features, labels = next_tokens(named.model, named.tokenizer, texts, 8)
    head = named.model.lm_head.weight
    expected = measure(ArraySource(features, labels, weight=head), decisions=None, progress=False)
    for name in ("nc1", "cdnv", "self_duality_error", "etf_error"):
        assert report[name].value == pytest.approx(expected[name].value, rel=1e-4), name
    assert report.facts.samples == len(labels)
    assert [report.facts.class_names[label] for label in "012"] == ["<end>", "<unknown>", "the"]
    assert report.facts.title == "Neural collapse of hf:lm on a.txt and 1 more"


def test_held_out_and_foreign_texts(tightframe: Command, language_model: str, here: Path) -> None:
    (here / "test.txt").write_text(sentence(70, 30))
    (here / "foreign.txt").write_text("red " * 100)
    data = ("--model", "hf:lm", "--texts", "a.txt", "--test", "test.txt", "--ood", "foreign.txt", "--length", 8)
    direct = report_of(tightframe("measure", *data, "--json", "out.json"))
    assert {"test", "train"} <= {entry.split for entry in direct}
    assert direct.facts.samples == 481 // 8 * 7  # 12 sentences of 40 words, and the end
    assert tightframe("extract", *data, "--out", "shards", "--dtype", "float32").status == 0
    assert_same(report_of(tightframe("measure", "shards", "--json", "shards.json"), "shards.json"), direct, rtol=1e-4)


def test_texts_in_python(language_model: str) -> None:
    named = load_model("hf:lm")
    texts = [sentence(50, seed) for seed in range(6)]
    report = measure(from_texts(named.model, named.tokenizer, texts), progress=False)  # 16 tokens are all it reads
    features, labels = next_tokens(named.model, named.tokenizer, texts, 16)
    assert report["nc1"].value == pytest.approx(measure(features, labels)["nc1"].value, rel=1e-4)
    with pytest.raises(ValueError, match="length must be at least 2 and at most 16 tokens; got 17"):
        from_texts(named.model, named.tokenizer, texts, length=17)


def test_a_beginning_token_begins_every_sequence(language_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from tightframe.sources.language_models import _Sequences

    class Tokenizer:
        bos_token_id, eos_token_id = 7, 9

        def __call__(self, text: str, add_special_tokens: bool = True, **_: Any) -> Any:
            ids = [int(each) for each in text.split()]
            return type("Encoding", (), {"input_ids": [7, *ids] if add_special_tokens else ids})

    found = [each["input_ids"].tolist() for each in _Sequences(Tokenizer(), ["1 2 3", "4 5 6"], 4)]
    assert found == [[7, 1, 2, 3], [7, 9, 4, 5]]
    assert [each["input_ids"].tolist() for each in _Sequences(Tokenizer(), ["1"], 4)] == [[7, 1, 9]]


def test_images_and_texts_are_for_their_models(tightframe: Command, language_model: str, here: Path) -> None:
    (here / "models.py").write_text(MODELS)
    outcome = tightframe("measure", "--model", "hf:lm", "--images", "lm")
    assert "must have one subfolder of images per class" in outcome.complaint
    draw_classes(here / "images", seed=0)
    outcome = tightframe("measure", "--model", "hf:lm", "--images", "images")
    assert "hf:lm is a language model: it needs --texts." in outcome.complaint
    outcome = tightframe("measure", "--model", "models:mlp", "--texts", "a.txt")
    assert "--texts needs a causal language model in --model hf:FOLDER; got models:mlp." in outcome.complaint
    assert "none.txt doesn't exist" in tightframe("measure", "--model", "hf:lm", "--texts", "none.txt").complaint


# ---------------------------------------------------------------------------------------------- timm


def test_a_timm_model(tightframe: Command, images: Path) -> None:
    timm = pytest.importorskip("timm")
    pytest.importorskip("torchvision")
    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=3).eval()
    save_file(model.state_dict(), "mine.safetensors")
    outcome = tightframe(
        "measure", "--model", "timm:test_vit", "--checkpoint", "mine.safetensors", "--images", images,
        "--json", "out.json",
    )  # fmt: skip
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    paths, labels = files_of(images)
    features = features_of(lambda x: model.forward_head(model.forward_features(x), pre_logits=True), transform, paths)
    source = ArraySource(features, labels, weight=model.head.weight, bias=model.head.bias)
    assert_same(report_of(outcome), measure(source, progress=False), rtol=1e-4)
    outcome = tightframe("measure", "--model", "timm:test_vit", "--images", images, "--json", "out.json")
    assert any("weights of timm:test_vit are random" in note for note in report_of(outcome).notes)
    assert "timm has no model 'test_vot'" in tightframe("measure", "--model", "timm:test_vot", "--images", images).err


@pytest.mark.parametrize(("kind", "package"), [("timm", "timm"), ("hf", "transformers")])
def test_a_missing_package_is_named(
    tightframe: Command, images: Path, monkeypatch: pytest.MonkeyPatch, kind: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    outcome = tightframe("measure", "--model", f"{kind}:any", "--images", images)
    assert outcome.status == 2
    assert f"{package} is not installed. Run: pip install 'tightframe[{package}]'" in outcome.complaint


# ---------------------------------------------------------------------------------------------- extract


def test_extract_then_measure(tightframe: Command, images: Path, here: Path) -> None:
    draw_classes(here / "held", seed=1)
    data = ("--model", "models:with_transform", "--images", "images", "--test", "held", "--layers", "1")
    outcome = tightframe("extract", *data, "--out", "shards", "--shard-bytes", 2000)
    assert outcome.status == 0, outcome.err
    assert "wrote shards: 24 train, 24 test samples in" in outcome.plain
    assert "measure it: tightframe measure shards" in outcome.plain
    report = report_of(tightframe("measure", "shards", "--json", "out.json"))
    direct = report_of(tightframe("measure", *data, "--json", "direct.json"), "direct.json")
    assert_same(report, direct)
    assert_same(report.layers[0], direct.layers[0])
    assert list(report.facts.class_names.values()) == list(CLASSES)
    assert report.facts.title == direct.facts.title


def test_an_extraction_goes_on_or_begins_again(tightframe: Command, images: Path, here: Path) -> None:
    data = ("--model", "models:with_transform", "--images", "images", "--out", "shards")
    assert tightframe("extract", *data, "--dtype", "float16").status == 0
    written = {path.name: path.read_bytes() for path in (here / "shards").iterdir()}
    assert tightframe("extract", *data, "--dtype", "float16").status == 0  # complete: nothing is written
    assert {path.name: path.read_bytes() for path in (here / "shards").iterdir()} == written
    outcome = tightframe("extract", *data)
    assert outcome.status == 2
    assert "--dtype 'F16'" in outcome.complaint
    assert "Choose a different folder, or pass --overwrite." in outcome.complaint
    assert tightframe("extract", *data, "--overwrite", "--splits", "train").status == 0
    assert tightframe("measure", "shards").status == 0


def test_what_an_extracted_folder_holds_already(tightframe: Command, images: Path) -> None:
    data = ("--model", "models:with_transform", "--images", "images", "--out", "shards")
    assert tightframe("extract", *data).status == 0
    for flag in ("--labels", "--weight", "--bias", "--test", "--ood"):
        outcome = tightframe("measure", "shards", flag, "a.npz")
        assert outcome.status == 2
        assert f"{flag} can't go with a folder: shards holds all that was extracted." in outcome.complaint
    assert "has no manifest.json" in tightframe("measure", "images").complaint


# ---------------------------------------------------------------------------------------------- errors

MODEL = ("--model", "models:mlp")
IMAGES = ("--images", "images")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a.npz", "--images", "x"), "--images needs --model."),
        (("a.npz", "--batch-size", "1"), "--batch-size needs --model."),
        (("a.npz", "--no-own-classifier"), "--no-own-classifier needs --model."),
        (("a.npz", "--checkpoint", "x.pt"), "--checkpoint needs --model."),
        (("a.npz", "--layers", "auto"), "--layers needs --model"),
        (("a.npz", "--features-of", "f"), "--features-of needs --model"),
        (("a.npz", *MODEL, *IMAGES), "FEATURES is for features in files; it can't go with --model"),
        ((*MODEL, *IMAGES, "--weight", "w.npz"), "--weight is for features in files"),
        ((*MODEL, *IMAGES, "--bias", "w.npz"), "--bias is for features in files"),
        ((*MODEL, *IMAGES, "--labels", "l.npy"), "--labels is for features in files"),
        (MODEL, "--model needs one of --images, --data, --texts."),
        ((*MODEL, *IMAGES, "--data", "digits"), "one of --images, --data, --texts; got --images and --data."),
        ((*MODEL, "--data", "digits", "--masks", "m"), "--masks needs --images."),
        ((*MODEL, "--data", "digits", "--workers", "1"), "--workers needs --images."),
        ((*MODEL, "--data", "digits", "--image-size", "8"), "--image-size needs --images."),
        ((*MODEL, "--data", "digits", "--test", "t"), "--test can't go with --data"),
        ((*MODEL, *IMAGES, "--length", "8"), "--length needs --texts."),
        ((*MODEL, *IMAGES, "--data-folder", "d"), "--data-folder needs --data."),
        ((*MODEL, *IMAGES, "--test-masks", "m"), "--test-masks needs --masks."),
        ((*MODEL, *IMAGES, "--masks", "m", "--test", "t"), "--test and --test-masks go together"),
        ((*MODEL, *IMAGES, "--batch-size", "0"), "--batch-size must be at least 1; got 0."),
        ((*MODEL, *IMAGES, "--workers", "-1"), "--workers must be at least 0; got -1."),
        ((*MODEL, *IMAGES, "--device", "nowhere"), "mps or another device of torch; got 'n"),
        ((*MODEL, *IMAGES, "--device", "meta"), "mps or another device of torch; got 'meta'"),
        ((*MODEL, *IMAGES, "--device", ""), "mps or another device of torch; got ''"),
        ((*MODEL, *IMAGES, "--image-size", "16385"), "--image-size must be at most 16,384; got 16385."),
        ((*MODEL, *IMAGES, "--batch-size", "900000", "--image-size", "999"), "900000 images with --image-size 999"),
        ((*MODEL, *IMAGES, "--next-token"), "--next-token needs --texts."),
        ((*MODEL, *IMAGES, "--metric", "ood_orthogonality"), "--metric ood_orthogonality needs --ood."),
        ((*MODEL, *IMAGES, "--task", "regression", "--metric", "nc1"), "--metric nc1 is a measure of classes"),
        ((*MODEL, *IMAGES, "--no-own-classifier", "--metric", "unc3"), "--metric unc3 needs a classifier"),
        ((*MODEL, "--images", "none"), "none is not a folder."),
        ((*MODEL, "--images", "images/ash"), "images/ash must have one subfolder"),
        ((*MODEL, "--data", "nothing"), "the data set must be one of digits"),
        ((*MODEL, "--data", "digits"), "--data digits has 10 classes, but the classifier of models:mlp has 3 outputs"),
        ((*MODEL, *IMAGES, "--no-own-classifier", "--features-of", "1"), "both say what to measure; give one."),
        (("--model", "models:with_transform", *IMAGES, "--image-size", "8"), "--image-size can't go with models:with_"),
        (("--model", "resnet18", *IMAGES), "--model must be one of timm:NAME, hf:FOLDER, module:function; got 'r"),
        (("--model", "absent:function", *IMAGES), "there is no module 'absent'"),
        (("--model", "models:absent", *IMAGES), "the module 'models' has no function 'absent'."),
        (("--model", "models:text", *IMAGES), "must return a torch module, or (module, transform); got str."),
        (("--model", "models:identity", *IMAGES), "the transform must return a tensor or a mapping; got Image."),
        (("--model", "models:unscaled", *IMAGES), "transformed images must have one size"),
        (("--model", "hf:images", *IMAGES), "images must be a folder of transformers' save_pretrained"),
        ((*MODEL, *IMAGES, "--checkpoint", "models.py"), "models.py must be a .safetensors, .pt or .pth file."),
        ((*MODEL, *IMAGES, "--checkpoint", "wide.safetensors"), "Build the model with 5 classes."),
        ((*MODEL, *IMAGES, "--checkpoint", "strange.safetensors"), "strange.safetensors lacks '1.weight' and 3 more"),
        ((*MODEL, *IMAGES, "--checkpoint", "more.safetensors"), "more.safetensors has an unexpected 'x'"),
    ],
)  # fmt: skip
def test_wrong_combinations_are_one_line(
    tightframe: Command, images: Path, arguments: tuple[str, ...], message: str
) -> None:
    own = load_model("models:mlp").model.state_dict()
    save_file({**own, "3.weight": torch.zeros(5, 12)}, "wide.safetensors")
    save_file({"x": torch.zeros(1)}, "strange.safetensors")
    save_file({**own, "x": torch.zeros(1)}, "more.safetensors")
    outcome = tightframe("measure", *arguments)
    assert outcome.status == 2
    assert message in outcome.complaint
    assert outcome.err.startswith("error: ") and len(outcome.err.splitlines()) == 1


@pytest.mark.parametrize("arguments", [("measure",), ("extract", "--out", "x"), ("measure", *IMAGES)])
def test_nothing_to_measure_is_misuse(tightframe: Command, arguments: tuple[str, ...]) -> None:
    outcome = tightframe(*arguments)
    assert outcome.status == 2
    assert "--model" in outcome.complaint and len(outcome.err.splitlines()) == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_image_is_named(tightframe: Command, images: Path, workers: int) -> None:
    (images / "birch" / "3.png").write_bytes((images / "birch" / "3.png").read_bytes()[:60])
    outcome = tightframe("measure", "--model", "models:with_transform", "--images", "images", "--workers", workers)
    assert outcome.status == 2
    assert outcome.err.startswith("error: can't read images/birch/3.png as an image: ")
    assert len(outcome.err.splitlines()) == 1


def test_folders_that_are_no_classes(tightframe: Command, vit: str, images: Path, here: Path) -> None:
    (images / "cedar").rename(images / "yew")
    outcome = tightframe("measure", "--model", "hf:vit", "--images", "images")
    assert (
        "images has 3 subfolders, and 'yew' is none of the model's classes, but the classifier of hf:vit has 4 outputs."
        " Name the subfolders as the model's classes, or measure its input alone with --no-own-classifier."
    ) in outcome.complaint
    draw_classes(here / "held", seed=1)
    outcome = tightframe("measure", "--model", "models:with_transform", "--images", "images", "--test", "held")
    assert "the subfolders of held must be classes (ash, birch, yew); got 'cedar'." in outcome.complaint


def test_images_without_masks(tightframe: Command, masks: Path) -> None:
    (masks / "4.png").unlink()
    command = ("measure", "--model", "models:pixels", "--images", "flat", "--masks", "masks")
    assert "flat/4.png has no mask: masks has no image called 4." in tightframe(*command).complaint
    Image.new("RGB", (SIZE, SIZE)).save(masks / "4.png")
    assert "masks/4.png must hold one class index for each pixel; got (16, 16, 3) values." in tightframe(*command).err
