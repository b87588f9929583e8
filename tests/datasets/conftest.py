"""IDX files written by the tests themselves, and a machine on which no dataset lies about."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

CODES = {"B": 0x08, "b": 0x09, "h": 0x0B, "i": 0x0C, "f": 0x0D, "d": 0x0E}  # struct's letter to IDX's code

Writer = Callable[..., Path]


@pytest.fixture
def write_idx() -> Writer:
    """Writes values one at a time, big-endian, after the header; gzipped if the name ends in .gz."""

    def write(path: Path, letter: str, shape: tuple[int, ...], values: list[float], cut: int = 0) -> Path:
        content = bytes([0, 0, CODES[letter], len(shape)])
        content += b"".join(struct.pack(">I", size) for size in shape)
        content += b"".join(struct.pack(f">{letter}", value) for value in values)
        content = content[: len(content) - cut]
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
        return path

    return write


@pytest.fixture
def write_mnist(write_idx: Writer) -> Callable[..., Path]:
    """Writes the four files of a tiny dataset: 2x3 images counting 0, 1, 2, ... modulo 256."""

    def write(folder: Path, labels: tuple[int, ...], mark: str = "-", suffix: str = "") -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for part, chosen in (("train", labels), ("t10k", labels[:4])):
            count = len(chosen)
            pixels = [value % 256 for value in range(count * 6)]
            write_idx(folder / f"{part}-images{mark}idx3-ubyte{suffix}", "B", (count, 2, 3), pixels)
            write_idx(folder / f"{part}-labels{mark}idx1-ubyte{suffix}", "B", (count,), list(chosen))
        return folder

    return write


@pytest.fixture
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is both the current and the home directory, with TIGHTFRAME_DATA unset."""
    empty = tmp_path / "bare"
    empty.mkdir()
    monkeypatch.chdir(empty)
    monkeypatch.setenv("HOME", str(empty))
    monkeypatch.setenv("USERPROFILE", str(empty))
    monkeypatch.delenv("TIGHTFRAME_DATA", raising=False)
    return empty
