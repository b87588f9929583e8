"""Runs released detectors on `released_data` and writes recorded_detectors.json: `python record_detectors.py FOLDER`.

FOLDER holds each repository of `SOURCES`, checked out in OWNER+NAME. Classes and functions are taken out of the
released files as they are. Single precision in them (`.float()`, `np.float32`) is replaced by double precision, so that
formulas are compared instead of rounding.
"""

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import scipy.special
import sklearn.covariance
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from released_data import DATA, Data

SOURCES = {
    "Jingkang50/OpenOOD": "3c35632ee91b54b09d1f085d04f94744cece7d0b",
    "XixiLiu95/GEN": "1e792b56aebf75ec1106952e9093584b8ed70313",
}
torch.set_default_dtype(torch.float64)
Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign, assignment]
Tensor.float = lambda self: self.double()  # type: ignore[method-assign]


class Doubles:
    """numpy, with float64 in place of float32."""

    float32 = np.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


class Network(nn.Module):
    """A network whose features are its inputs."""

    def __init__(self, data: Data):
        super().__init__()
        self.fc = nn.Linear(*data.weight.T.shape)
        self.fc.weight.data, self.fc.bias.data = data.weight.clone(), data.bias.clone()

    def get_fc(self) -> tuple[Any, Any]:
        return self.fc.weight.detach().numpy(), self.fc.bias.detach().numpy()

    def forward(self, rows: Tensor, return_feature: bool = False) -> Any:
        logits = self.fc(rows).detach()
        return (logits, rows) if return_feature else logits


class Base:
    def __init__(self, config: Any):
        self.config = config


def taken(path: Path, name: str, **known: Any) -> Any:
    body = [node for node in ast.parse(path.read_text()).body if getattr(node, "name", None) == name]
    space: dict[str, Any] = {
        **{"np": Doubles(), "torch": torch, "nn": nn, "sklearn": sklearn, "Any": Any, "BasePostprocessor": Base},
        **{"norm": np.linalg.norm, "pinv": np.linalg.pinv, "logsumexp": scipy.special.logsumexp},
        **{"EmpiricalCovariance": sklearn.covariance.EmpiricalCovariance, "tqdm": lambda each, **_: each},
        **{"deepcopy": lambda each: each, **known},
    }
    exec(compile(ast.Module(body, []), "released", "exec"), space)
    return space[name]


def postprocessors(folder: Path, data: Data) -> Iterator[tuple[str, Any]]:
    place = folder / "Jingkang50+OpenOOD" / "openood" / "postprocessors"
    files = {"vim": "VIM", "residual": "Residual", "rmds": "RMDS", "nci": "NCI", "gen": "GEN", "ebo": "EBO"}
    arguments = {
        "vim": [{"dim": data.features.shape[1] // 2}],
        "residual": [{"dim": data.features.shape[1] // 2}],
        "rmds": [{}],
        "nci": [{"alpha": 0.0001}, {"alpha": 0.1}],
        "gen": [{"gamma": 0.1, "M": 100}, {"gamma": 0.5, "M": 3}],
        "ebo": [{"temperature": 1.0}, {"temperature": 2.5}],
    }
    batches = [{"data": x, "label": y} for x, y in zip(data.features.split(25), data.labels.split(25), strict=True)]
    loaders = {part: batches for part in ("train", "val", "test")}
    for name, prefix in files.items():
        known = {"num_classes_dict": {"own": len(data.weight)}}
        kind = taken(place / f"{name}_postprocessor.py", f"{prefix}Postprocessor", **known)
        for each in arguments[name]:
            options = SimpleNamespace(postprocessor_args=SimpleNamespace(**each), postprocessor_sweep=None)
            made = kind(SimpleNamespace(postprocessor=options, dataset=SimpleNamespace(name="own")))
            network = Network(data)
            if hasattr(made, "setup"):
                made.setup(network, loaders, {})
            yield ", ".join([name, *(f"{key}={value}" for key, value in each.items())]), (made, network)


def scores(folder: Path, data: Data) -> dict[str, Any]:
    rows = torch.cat([data.features[:10], data.outside])
    found: dict[str, Any] = {}
    for name, (made, network) in postprocessors(folder, data):
        found[name] = torch.as_tensor(made.postprocess(network, rows)[1])
        if hasattr(made, "alpha") and name.startswith("vim"):
            found["vim, alpha"] = float(made.alpha)
    entropy = taken(folder / "XixiLiu95+GEN" / "benchmark.py", "generalized_entropy")
    found["generalized_entropy"] = entropy(Network(data)(rows).softmax(1).numpy(), 0.1, 100)
    return found


def plain(value: Any) -> Any:
    if isinstance(value, Tensor | np.ndarray):
        return [plain(each) for each in value.tolist()]
    return float(f"{value:.14g}")


def main() -> None:
    folder = Path(sys.argv[1])
    values = {
        kind: {name: plain(each) for name, each in scores(folder, DATA[kind]).items()}
        for kind in ("uneven", "crowded")
    }
    text = json.dumps({"commits": SOURCES, "values": values}, indent=1)
    text = re.sub(r"\[\s+([^\[\]]*?)\s+\]", lambda found: "[" + re.sub(r"\s+", " ", found[1]) + "]", text)
    (Path(__file__).parent / "recorded_detectors.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
