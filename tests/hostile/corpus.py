"""Files that are damaged, crafted or merely odd: each case is a seed, from which its files are made."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as safetensors_bytes

from tightframe import ClassStatistics, Prototypes, Report, measure
from tightframe.cli.matrices import read_cost
from tightframe.cli.prototypes import read_prototypes
from tightframe.datasets.idx import read_idx
from tightframe.evidence import Evidence
from tightframe.hierarchy import Hierarchy, require_cost
from tightframe.plain import json_text
from tightframe.report import RunFolder
from tightframe.sources import ArraySource, ShardSource, extract
from tightframe.sources.files import from_files
from tightframe.sources.named_models import load_model

HUGE = (10**6, 10**9, 10**12, 2**31, 2**63 - 1, 2**64, -1, 0, 3)
QUICK: dict[str, Any] = {"metrics": ["nc1"], "folds": 0, "decisions": None, "progress": False}


def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(24, 4)).astype(np.float32), np.arange(24) % 3


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.marker}",)


# ---------------------------------------------------------------------- mutations


def mutated(content: bytes, draw: random.Random) -> bytes:
    """The content with a few bytes, a piece or a number changed."""
    out = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 8))):
        place = draw.randrange(len(out)) if out else 0
        match draw.randrange(6):
            case 0 if out:
                out[place] ^= 1 << draw.randrange(8)
            case 1:
                del out[place:]
            case 2:
                out[place:place] = draw.randbytes(draw.choice((1, 4, 64)))
            case 3:
                del out[place : place + draw.choice((1, 4, 64))]
            case 4 if out:
                out[place : place + 8] = struct.pack("<q", draw.choice((2**40, -1, 2**62, 7)))
            case _:
                digits = [at for at, byte in enumerate(out[:400]) if chr(byte).isdigit()]
                if digits:
                    at = draw.choice(digits)
                    out[at : at + 1] = str(draw.choice(HUGE)).encode()
    return bytes(out)


def reshaped(value: Any, draw: random.Random) -> Any:
    """Plain data with some values of other types."""
    if draw.random() < 0.02:
        return draw.choice((None, "x", -1, 10**30, [], {}, [[[]]], True, "nan", 1e300, "\ud800", "\x1b[2J", "=1+1"))
    if isinstance(value, dict):
        items = [(key, reshaped(each, draw)) for key, each in value.items() if draw.random() > 0.01]
        return dict(items) | ({"extra": 1} if draw.random() < 0.05 else {})
    return [reshaped(each, draw) for each in value] if isinstance(value, list) else value


# ---------------------------------------------------------------------- kinds: files from a seed, and what reads them


def _npy(array: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


def _npz(compressed: bool = True, **arrays: Any) -> bytes:
    out = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(out, **arrays)
    return out.getvalue()


def _pt(content: Any) -> bytes:
    out = io.BytesIO()
    torch.save(content, out)
    return out.getvalue()


def odd_arrays(draw: random.Random, folder: Path) -> Any:
    """Features or labels of a dtype, shape or layout that can't be measured, or can."""
    x, y = data()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch will take quantised tensors out
        quantised = torch.quantize_per_tensor(torch.from_numpy(x), 0.1, 0, torch.qint8)
    features = [
        x.astype(str),
        x.astype(np.longdouble),
        x.astype("datetime64[s]"),
        x[:, :0],
        x[:0],
        x.astype(complex),
        x.T.copy(),
        x.astype(">f8"),
        np.asfortranarray(x),
        x.astype(object),
        x[0],
        x.reshape(24, 2, 2),
        x[::-1],
        x.astype(np.float16),
        np.full_like(x, np.nan),
        np.full_like(x, 3e38),
        np.ma.masked_array(x),
        x.tolist(),
        "features",
        None,
        3.0,
        torch.from_numpy(x).to_sparse(),
        quantised,
        torch.from_numpy(x).to("meta"),
        torch.zeros(24, 4, dtype=torch.int8),
        np.zeros((24,), dtype=[("a", "f4"), ("b", "f4")]),
        np.zeros((24, 1), dtype="V8"),
    ]
    labels = [
        y + 1,
        y - 1,
        np.where(y == 2, 10**9, y),
        y.astype(complex),
        y.astype(str),
        y.astype("S1"),
        y + 0.5,
        y[:5],
        y.astype("datetime64[s]"),
        y.astype(bool),
        y.reshape(-1, 1),
        np.eye(3)[y],
        y.astype(np.uint64) + 2**63,
        y[:0],
        torch.from_numpy(y).to_sparse(),
        torch.from_numpy(y).to("meta"),
        y.astype(object),
        np.full(24, 2**62),
        None,
        np.array([b"\xff"] * 24),
        y.tolist(),
        [["a"], ["b", "c"]],
        np.zeros(24, dtype=int),
        {"a": 1},
    ]
    which = draw.randrange(3)
    return (draw.choice(features) if which != 0 else x), (draw.choice(labels) if which != 1 else y)


def read_odd_arrays(arrays: Any) -> None:
    measure(ArraySource(*arrays), **QUICK)


def array_file(draw: random.Random, folder: Path) -> Path:
    x, y = data()
    tensors = {"features": torch.from_numpy(x), "labels": torch.from_numpy(y)}
    nested: dict[str, Any] = {}
    nested["self"] = nested
    evil = pickle.dumps(Evil(folder / "broken-in"))
    crafted = [
        (".npz", _npz(features=x, labels=y)),
        (".npz", _npz(False, features=x, labels=y)),
        (".npz", _npz(features=np.array([Evil(folder / "broken-in")], dtype=object), labels=y)),
        (".npz", _bomb(folder)),
        (".npy", _npy(x)),
        (".npy", _npy_header({"shape": (10**12, 4)})),
        (".npy", _npy_header({"shape": (-1, 4)})),
        (".npy", _npy_header({"descr": "|O"}) + evil),
        (".npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", 9000) + b"(" * 9000),
        (".safetensors", safetensors_bytes(tensors)),
        (".safetensors", _safetensors_header(10**12)),
        (".safetensors", struct.pack("<Q", 2**60) + b"{}"),
        (".safetensors", _safetensors_header(24, dtype="F4")),
        (".pt", _pt(tensors)),
        (".pt", evil),
        (".pt", _pt({"features": torch.zeros(1).expand(10**6, 10**4), "labels": 1})),
        (".pt", _pt({**tensors, "features": tensors["features"].to_sparse()})),
        (".pt", _pt(nested)),
        (".pt", _pickled(b"cbuiltins\nbytearray\nI3000000000\n\x85R.")),
        (".csv", b"1,2\n"),
        (".npz", b""),
        (".pt", b"\x80"),
        (".npy", _npy(x.astype("datetime64[s]"))),
        (".npy", _npy(x.astype(str))),
        (".npy", _npy(np.longdouble(x))),
        (".pth", torch_legacy(tensors)),
    ]
    suffix, content = draw.choice(crafted)
    path = folder / f"a{suffix}"
    path.write_bytes(content if draw.random() < 0.3 else mutated(content, draw))
    return path


def torch_legacy(content: Any) -> bytes:
    out = io.BytesIO()
    torch.save(content, out, _use_new_zipfile_serialization=False)
    return out.getvalue()


def _pickled(content: bytes) -> bytes:
    """A torch file with another pickle."""
    source, out = zipfile.ZipFile(io.BytesIO(_pt(torch.zeros(1)))), io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in source.namelist():
            archive.writestr(name, content if name.endswith("data.pkl") else source.read(name))
    return out.getvalue()


def _npy_header(changes: dict[str, Any]) -> bytes:
    fields = {"descr": "<f4", "fortran_order": False, "shape": (24, 4), **changes}
    text = repr(fields).encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def _bomb(folder: Path) -> bytes:
    """An archive that declares terabytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("features.npy", _npy_header({"shape": (10**12, 4)}))
        archive.writestr("labels.npy", _npy(np.arange(24)))
    return out.getvalue()


def _safetensors_header(rows: int, dtype: str = "F32") -> bytes:
    header = {"features": {"dtype": dtype, "shape": [rows, 4], "data_offsets": [0, 16 * rows]}}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(16 * 24)


def read_array_file(path: Path) -> None:
    if path.suffix == ".pth":
        load_model("torch.nn:Identity", path)
    measure(from_files(path), **QUICK)


def shard_file(draw: random.Random, folder: Path) -> Path:
    return array_file(draw, folder)


def read_shard_file(path: Path) -> None:
    measure(ShardSource.from_files([path]), **QUICK)


def extracted(draw: random.Random, folder: Path) -> Path:
    """What `extract` wrote, with a damaged manifest or shard."""
    x, y = data()
    extract(ArraySource(torch.from_numpy(x), torch.from_numpy(y), weight=np.ones((3, 4))), folder / "shards")
    manifest = folder / "shards" / "manifest.json"
    if draw.random() < 0.6:
        manifest.write_text(json.dumps(reshaped(json.loads(manifest.read_text()), draw)))
    else:
        path = draw.choice(sorted((folder / "shards").iterdir()))
        path.write_bytes(mutated(path.read_bytes(), draw))
    return folder / "shards"


def read_extracted(folder: Path) -> None:
    measure(ShardSource(folder), **QUICK)


def tree(draw: random.Random, folder: Path) -> Path:
    deep = '{"a": ' * 5000 + "{}" + "}" * 5000
    chain = "".join(f"n{place},n{place + 1}\n" for place in range(5000))
    crafted = [
        ("t.json", b'{"all": {"pet": ["cat", "dog"], "tool": {"saw": {}}}}'),
        ("t.json", deep.encode()),
        ("t.json", b"[3]"),
        ("t.json", ('{"x": "' + "\\ud800" + '"}').encode()),
        ("t.json", b"1" * 5000),
        ("t.json", b'{"a": NaN}'),
        ("t.csv", b"parent,child\nall,pet\npet,cat\npet,dog\n"),
        ("t.csv", b"a,b,1e999\n"),
        ("t.csv", chain.encode()),
        ("t.csv", b'"' + b"x" * 200_000 + b'",b\n'),
        ("t.csv", b"a,a\n"),
        ("t.csv", "père,fils\n".encode("latin-1")),
        ("t.txt", b"animal/dog\nanimal/cat\n"),
        ("t.txt", "animal/b\xeate\n".encode("latin-1")),
        ("t.txt", b"/".join([b"x"] * 99)),
        ("data.noun", b"00000001 03 n 01 thing 0 000 | x\n"),
        ("t.txt", b""),
        ("t.txt", b"\x00\x01\x02"),
    ]
    name, content = draw.choice(crafted)
    path = folder / name
    path.write_bytes(content if draw.random() < 0.4 else mutated(content, draw))
    return path


def read_tree(path: Path) -> None:
    Hierarchy.read(path).distances()


def cost(draw: random.Random, folder: Path) -> Path:
    crafted = [
        ("c.csv", b"0,1,2\n1,0,3\n2,3,0\n"),
        ("c.csv", b"0,1,1\n0,2,2\n1,2,3\n"),
        ("c.csv", b"0,1000000000000,1\n1,2,3\n"),
        ("c.csv", b"i,j,cost\n0,1,nan\n"),
        ("c.csv", b'"' + b"1" * 200_000 + b'",1\n'),
        ("c.csv", b"0,99999999,1\n0,1,1\n"),
        ("c.csv", b""),
        ("c.csv", b"0,1e400\n1,0\n"),
        ("c.npy", _npy(np.eye(3))),
        ("c.npz", _npz(a=np.eye(3), b=np.eye(4))),
        ("c.npy", _npy(np.array([["a", "b"]]))),
        ("c.pt", _pt(torch.eye(3))),
        ("c.csv", b"0,1e300,1\n0,1,1\n0,2,1\n1,2,1\n"),
    ]
    name, content = draw.choice(crafted)
    path = folder / name
    path.write_bytes(content if draw.random() < 0.4 else mutated(content, draw))
    return path


def read_a_cost(path: Path) -> None:
    require_cost(read_cost(path))


def saved_value(draw: random.Random, folder: Path) -> Path:
    """Saved statistics or prototypes, damaged."""
    path = folder / draw.choice(("statistics.safetensors", "prototypes.safetensors"))
    if path.stem == "statistics":
        x, y = data()
        ClassStatistics.from_features(x, y, 5).save(path)
    else:
        Prototypes(torch.eye(3), {"constructor": "by hand"}).save(path)
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    if draw.random() < 0.6:  # well-formed, with other entries
        name = draw.choice(list(header))
        match draw.randrange(4):
            case 0:
                header[f"{name}2"] = header.pop(name)
            case 1:
                del header[name]
            case 2 if name != "__metadata__":
                header[name]["shape"] = [*header[name]["shape"][::-1], 1]
            case _:
                header = reshaped(header, draw)
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    else:
        path.write_bytes(mutated(content, draw))
    return path


def read_saved_value(path: Path) -> None:
    if path.stem == "statistics":
        measure_of = ClassStatistics.load(path)
        Report.from_evidence(Evidence(measure_of)).to_json()
    else:
        from rich.console import Console

        Prototypes.load(path).to(torch.float32)
        read_prototypes(path, key=None, columns=False, console=Console(quiet=True))


RUN: dict[str, str] = {}


def run_folder(draw: random.Random, folder: Path) -> Path:
    """A run folder whose JSON has other types, is cut short, or is something else."""
    if not RUN:
        x, y = data()
        made = measure(x, y, test=(x, y), ood=x + 3, classifier=torch.eye(3, 4), context={"epoch": 1}, progress=False)
        RUN["line"] = json_text(made.to_dict())
    path = folder / "run"
    (path / "statistics").mkdir(parents=True)
    run = {"command": "demo", "arguments": {"seed": 0}, "versions": {}}
    lines = [json.dumps(reshaped(json.loads(RUN["line"]), draw)) for _ in range(2)]
    if draw.random() < 0.3:
        run = reshaped(run, draw)
    (path / "run.json").write_text(json.dumps(run))
    series = "".join(f"{line}\n" for line in lines).encode()
    (path / "series.jsonl").write_bytes(mutated(series, draw) if draw.random() < 0.3 else series)
    return path


def read_run_folder(path: Path) -> None:
    report = RunFolder(path).report()
    report.to_html()
    report.to_markdown()
    report.to_json()
    report.to_csv()
    report.to_terminal(everything=True, classes=True)


def idx_file(draw: random.Random, folder: Path) -> Path:
    header = struct.pack(">HBB2I", 0, 8, 2, 3, 4)
    crafted = [
        header + bytes(12),
        struct.pack(">HBB2I", 0, 8, 2, 2**31, 2**31),
        zlib.compress(header),
        b"",
        struct.pack(">HBB", 0, 8, 255) + b"\x7f\xff\xff\xff" * 255,
        struct.pack(">HBB", 0, 8, 0) + b"\x01",
    ]
    path = folder / "images"
    content = draw.choice(crafted)
    path.write_bytes(content if draw.random() < 0.3 else mutated(content, draw))
    return path


def read_idx_file(path: Path) -> None:
    read_idx(path)


KINDS: dict[str, tuple[Callable[[random.Random, Path], Any], Callable[[Any], None]]] = {
    "arrays": (odd_arrays, read_odd_arrays),
    "array files": (array_file, read_array_file),
    "shards": (shard_file, read_shard_file),
    "extractions": (extracted, read_extracted),
    "trees": (tree, read_tree),
    "costs": (cost, read_a_cost),
    "saved values": (saved_value, read_saved_value),
    "run folders": (run_folder, read_run_folder),
    "IDX files": (idx_file, read_idx_file),
}
"""By kind: what makes a case of a seed, and what reads it."""
