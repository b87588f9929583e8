"""Models to look into: small ones of every build, and a picture of a model in which nothing may change."""

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES = 4


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Normal numbers, the same for every call with the same seed."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def tokens(rows: int, length: int, seed: int = 0) -> Tensor:
    """Token numbers from 1 to 10; 0 pads."""
    return torch.randint(1, 11, (rows, length), generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------------------------------------- plain layers


def mlp() -> nn.Sequential:
    """Two hidden layers in one Sequential."""
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, CLASSES))


class LeNet(nn.Module):
    """Layers as plain attributes, all activations and pooling functional; images (N, 1, 10, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 6, 3)
        self.fc1, self.fc2, self.fc3 = nn.Linear(24, 10), nn.Linear(10, 8), nn.Linear(8, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        hidden = F.max_pool2d(F.relu(self.conv1(images)), 2)
        hidden = F.relu(self.conv2(hidden)).flatten(1)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(hidden)))))


class Convolutional(nn.Module):
    """Convolutions in one Sequential, a classifier in another; images (N, 3, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(4, 6, 3),
            nn.ReLU(inplace=True),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.pool(self.features(images)).flatten(1))


def nested() -> nn.Sequential:
    """Sequentials in a Sequential, one convolution grouped, one layer without an activation; images (N, 1, 8, 8)."""
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 6, 2, groups=2), nn.ReLU()),
        nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(24, 8), nn.Tanh(), nn.Linear(8, CLASSES)),
    )


# ---------------------------------------------------------------------------------------------- residual nets


class BasicBlock(nn.Module):
    """As in torchvision: two convolutions, a shortcut and activations in place."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride > 1:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(images)))))
        hidden += images if self.downsample is None else self.downsample(images)
        return self.relu(hidden)


class ResidualNet(nn.Module):
    """Built the torchvision way; images (N, 3, 16, 16)."""

    def __init__(self, depths: tuple[int, ...] = (2, 2, 2, 2)) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(2)
        self.layer1 = self._stage(4, 4, 1, depths[0])
        self.layer2 = self._stage(4, 6, 2, depths[1])
        self.layer3 = self._stage(6, 8, 2, depths[2])
        self.layer4 = self._stage(8, 10, 2, depths[3])
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(10, CLASSES)

    def _stage(self, inputs: int, outputs: int, stride: int, depth: int) -> nn.Sequential:
        rest = [BasicBlock(outputs, outputs) for _ in range(depth - 1)]
        return nn.Sequential(BasicBlock(inputs, outputs, stride), *rest)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        hidden = self.layer4(self.layer3(self.layer2(self.layer1(hidden))))
        return self.fc(self.avgpool(hidden).flatten(1))


class TimmLike(nn.Module):
    """A stem, a list of stages, a head in a container, and `get_classifier`; images (N, 3, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.stages = nn.ModuleList(
            [nn.Sequential(BasicBlock(4, 4), BasicBlock(4, 4)), nn.Sequential(BasicBlock(4, 6, 2), BasicBlock(6, 6))]
        )
        self.head = nn.ModuleDict({"pool": nn.AdaptiveAvgPool2d(1), "fc": nn.Linear(6, CLASSES)})
        self.auxiliary = nn.Linear(6, 2)  # the last linear layer isn't the classifier

    def get_classifier(self) -> nn.Module:
        return self.head["fc"]

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.stem(images)
        for stage in self.stages:
            hidden = stage(hidden)
        return self.head["fc"](self.head["pool"](hidden).flatten(1))


# ---------------------------------------------------------------------------------------------- transformers


class Encoder(nn.Module):
    """torch's own transformer over tokens, averaged before the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        return self.fc(self.encoder(self.embed(ids)).mean(1))


_TRANSFORMER = {"num_hidden_layers": 3, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 12}


def vit() -> nn.Module:
    """Images (N, 3, 8, 8), of which it makes five tokens."""
    pytest.importorskip("transformers")
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(
        ViTConfig(image_size=8, patch_size=4, num_channels=3, num_labels=CLASSES, **_TRANSFORMER)
    )


def bert() -> nn.Module:
    """Token numbers (N, T), T at most 12."""
    pytest.importorskip("transformers")
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(
        BertConfig(vocab_size=11, max_position_embeddings=12, num_labels=CLASSES, **_TRANSFORMER)
    )


def gpt2(head: str = "language") -> nn.Module:
    """Token numbers (N, T), T at most 12; a label for every token, or for the sequence."""
    pytest.importorskip("transformers")
    from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel

    marks = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, "num_labels": CLASSES}
    config = GPT2Config(vocab_size=11, n_positions=12, n_embd=8, n_layer=3, n_head=2, **marks)
    return (GPT2LMHeadModel if head == "language" else GPT2ForSequenceClassification)(config)


def residual_transformers() -> nn.Module:
    """The residual net of transformers; images (N, 3, 16, 16)."""
    pytest.importorskip("transformers")
    from transformers import ResNetConfig, ResNetForImageClassification

    return ResNetForImageClassification(
        ResNetConfig(
            num_channels=3, embedding_size=4, hidden_sizes=[4, 6], depths=[2, 2], layer_type="basic", num_labels=CLASSES
        )
    )


def images(side: int = 8, channels: int = 3, rows: int = 3) -> Tensor:
    return draw(rows, channels, side, side)


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "mlp": (mlp, lambda: draw(3, 5)),
    "lenet": (LeNet, lambda: images(10, 1)),
    "convolutional": (Convolutional, images),
    "nested": (nested, lambda: images(8, 1)),
    "residual": (ResidualNet, lambda: images(16)),
    "timm": (TimmLike, images),
    "encoder": (Encoder, lambda: tokens(3, 7)),
    "vit": (vit, images),
    "resnet of transformers": (residual_transformers, lambda: images(16)),
    "gpt2": (gpt2, lambda: tokens(3, 7)),
    "bert": (bert, lambda: tokens(3, 7)),
}
"""Every model with inputs for it; float64 but for token numbers."""


def settled(model: nn.Module, *, training: bool = False) -> nn.Module:
    """The model in float64, its batch normalisation with averages that do something."""
    model = model.double().train(training)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.uniform_(-0.3, 0.3, generator=generator)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 2, generator=generator)
            elif name.endswith("num_batches_tracked"):
                buffer.fill_(7)
    return model


# ---------------------------------------------------------------------------------------------- a picture


def picture(model: nn.Module) -> dict[str, Any]:
    """All that there is to a model: every attribute of every module, hooks and tensors too, and the values."""
    return {
        "attributes": {
            name: {key: (id(value), _contents(value)) for key, value in vars(module).items()}
            for name, module in model.named_modules()
        },
        "values": {name: _bits(tensor) for name, tensor in model.state_dict().items()},
        "gradients": {name: None if p.grad is None else _bits(p.grad) for name, p in model.named_parameters()},
    }


def _contents(value: Any) -> Any:
    """What is in a container, by identity; of anything else the value itself."""
    if isinstance(value, dict):
        return [(key, id(each)) for key, each in value.items()]
    if isinstance(value, list | tuple | set):
        return [id(each) for each in value]
    return value if isinstance(value, bool | int | float | str | None) else id(value)


def _bits(tensor: Tensor) -> tuple[torch.dtype, tuple[int, ...], bytes]:
    kept = tensor.detach().contiguous().reshape(-1)
    return tensor.dtype, tuple(tensor.shape), kept.view(torch.uint8).numpy().tobytes()


# ---------------------------------------------------------------------------------------------- one process


def in_one_process(folder: Path, body: Callable[[], None]) -> None:
    """Run it in a process group of this process alone, for wrappers that need one.

    What wraps a model must be gone before the group is: a wrapper that holds it last takes it apart while it holds
    Python's lock, for which the group's own thread may then wait for ever.
    """
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=0, world_size=1)
    try:
        body()
    finally:
        torch._dynamo.reset()  # which remembers what it compiled
        gc.collect()
        torch.distributed.destroy_process_group()
