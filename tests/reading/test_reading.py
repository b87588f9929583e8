"""Arrays come back from every format as they were; what is no regular file is refused without waiting for it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tightframe.errors import DtypeError, StateError
from tightframe.reading import read_arrays, read_checkpoint, read_json, read_rows, read_safetensors, read_text

X = np.random.default_rng(0).normal(size=(7, 3))


def equal(array: object, expected: np.ndarray) -> bool:
    values = np.asarray(array)
    return values.dtype == expected.dtype and np.array_equal(values, expected)


@pytest.mark.parametrize("array", [X, X.astype("f2"), np.asfortranarray(X), X[:0], X[:, :0], X.astype(">f4"), X[0, 0]])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_numpy_archives(tmp_path: Path, array: np.ndarray, save: object) -> None:
    save(tmp_path / "a.npz", one=array, two=np.array(["a", "bc"]), none=np.array([], dtype="U0"))  # type: ignore[operator]
    arrays = read_arrays(tmp_path / "a.npz")
    assert arrays.shapes == {"one": array.shape, "two": (2,), "none": (0,)}
    assert equal(arrays["one"], np.asarray(array))
    assert list(arrays["two"]) == ["a", "bc"]
    assert len(arrays["none"]) == 0


@pytest.mark.parametrize("array", [X, np.asfortranarray(X), X[:0], X.astype(">i8"), np.array(["a", "bc"])])
def test_numpy_files_are_mapped(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    mapped = read_arrays(tmp_path / "a.npy")[""]
    assert equal(mapped, array)
    assert isinstance(mapped, np.memmap) or array.size == 0


def test_safetensors(tmp_path: Path) -> None:
    tensors = {
        "a": torch.randn(3, 2),
        "b": torch.arange(4),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "n": torch.ones(()),
    }
    save_file(tensors, tmp_path / "a.safetensors", {"format": "mine"})
    arrays, metadata = read_safetensors(tmp_path / "a.safetensors", "mine")
    assert metadata == {"format": "mine"}
    assert all(torch.equal(arrays[name], tensors[name]) for name in tensors)
    with pytest.raises(StateError, match="must have the format 'other'; it has 'mine'"):
        read_safetensors(tmp_path / "a.safetensors", "other")
    assert "a (3, 2)" in str(read_arrays(tmp_path / "a.safetensors"))


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_with_nested_names(tmp_path: Path, zipped: bool) -> None:
    content = {"model": {"fc.weight": torch.ones(2, 3), "epoch": 3}, "x": torch.arange(3), 5: torch.zeros(1)}
    content |= {"y": [2, 0, 1], "names": ["a", "bc"], "empty": [], "mixed": [1, "a"], "shares": [0.5], "list": [[1, 2]]}
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    arrays = read_arrays(tmp_path / "a.pt")
    assert set(arrays) == {"model.fc.weight", "x", "5", "y", "names"}
    assert equal(arrays["y"], np.array([2, 0, 1])) and equal(arrays["names"], np.array(["a", "bc"]))
    assert torch.equal(torch.as_tensor(arrays["model.fc.weight"]), torch.ones(2, 3))
    assert read_checkpoint(tmp_path / "a.pt")["model"]["epoch"] == 3
    torch.save(torch.ones(2), tmp_path / "b.pt", _use_new_zipfile_serialization=zipped)
    assert set(read_arrays(tmp_path / "b.pt")) == {""}


def test_an_expanded_tensor_is_refused(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(1).expand(1000)}, tmp_path / "a.pt")
    with pytest.raises(DtypeError, match=r"'x' is an expanded view; save x.contiguous\(\)"):
        read_arrays(tmp_path / "a.pt")["x"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX has FIFOs")
@pytest.mark.parametrize("suffix", [".npz", ".npy", ".safetensors", ".pt", ".json", ".csv", ".txt"])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, suffix: str) -> None:
    readers = {".json": read_json, ".csv": read_rows, ".txt": read_text}
    read = readers.get(suffix, read_arrays)
    fifo, folder, missing = (tmp_path / f"{name}{suffix}" for name in ("fifo", "folder", "missing"))
    os.mkfifo(fifo)
    folder.mkdir()
    with pytest.raises(StateError, match="is a device or pipe, not a file"):
        read(fifo)
    with pytest.raises(StateError, match="is a folder, not a file"):
        read(folder)
    with pytest.raises(StateError, match="doesn't exist"):
        read(missing)


def test_text(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes("\ufeffä\n".encode())
    assert read_text(path) == "ä\n"
    path.write_bytes("a\nb\xe4".encode("latin-1"))
    with pytest.raises(StateError, match="isn't UTF-8 text: line 2 has the byte 0xe4"):
        read_text(path)
    path.write_text('{"a": ' * 5000 + "1" + "}" * 5000)
    with pytest.raises(StateError, match="nested too deeply"):
        read_json(path)
    path.write_text("a, b\n\n c,d\n")
    assert read_rows(path) == [(1, ["a", "b"]), (3, ["c", "d"])]
