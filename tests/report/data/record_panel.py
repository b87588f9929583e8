"""Train the networks of the verdict's panel and record their features: python tests/report/data/record_panel.py"""

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from tightframe import datasets
from tightframe.datasets import Dataset
from tightframe.demo.settings import Settings
from tightframe.demo.training import Trainer

ROOT = Path(__file__).parent


def trained(data: Dataset, epochs: int, stop: int, **settings: object) -> dict[str, Tensor]:
    """Features of the training images in float16, their labels and the classifier's rows."""
    torch.manual_seed(0)
    chosen = Settings(epochs=epochs, **settings)  # type: ignore[arg-type]
    trainer = Trainer(chosen, data, datasets.hierarchy_of("digits"))
    trainer.begin(data.num_classes)
    for _ in range(stop):
        trainer.epoch()
    trainer.model.eval()
    with torch.no_grad():
        features = trainer.model.get_submodule("features")(data.train_images).flatten(1)
    weight = trainer.head.weight.detach().clone()  # type: ignore[union-attr, operator]
    return {"features": features.half(), "labels": data.train_labels.to(torch.uint8), "weight": weight}


def main() -> None:
    torch.set_num_threads(1)
    data = datasets.load("digits", None)
    shuffled = torch.randperm(len(data.train_labels), generator=torch.Generator().manual_seed(0))
    noise = replace(data, train_labels=data.train_labels[shuffled])
    counts = datasets.step_counts(int(torch.bincount(data.train_labels).min()), data.num_classes, 40)
    panel = {
        "first epoch": trained(data, 300, 1),
        "last epoch": trained(data, 300, 300),
        "fixed ETF head": trained(data, 300, 300, head="etf", loss="cross-entropy", weight_decay=2e-3),
        "noise labels": trained(noise, 600, 600),
        "long tail": trained(datasets.subsample(data, counts, seed=0), 300, 300),
    }
    tensors = {f"{name}.{part}": tensor for name, parts in panel.items() for part, tensor in parts.items()}
    save_file(tensors, ROOT / "panel.safetensors")


if __name__ == "__main__":
    main()
