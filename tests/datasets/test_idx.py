import gzip
import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tightframe.datasets import idx
from tightframe.datasets.idx import read_idx
from tightframe.errors import DatasetError

Writer = Callable[..., Path]


@pytest.mark.parametrize("name", ["array", "array.gz"])
@pytest.mark.parametrize(
    ("letter", "dtype", "values"),
    [
        ("B", torch.uint8, [0, 1, 127, 128, 254, 255]),
        ("b", torch.int8, [-128, -1, 0, 1, 2, 127]),
        ("h", torch.int16, [-32768, -2, 0, 1, 258, 32767]),
        ("i", torch.int32, [-(2**31), -2, 0, 1, 66051, 2**31 - 1]),
        ("f", torch.float32, [-1.5, 0.0, 0.25, 3.0, 2.0**-100, float("inf")]),
        ("d", torch.float64, [-1.5, 0.0, 0.1, 3.0, 2.0**-1000, float("-inf")]),
    ],
)
def test_round_trip(
    write_idx: Writer, tmp_path: Path, name: str, letter: str, dtype: torch.dtype, values: list[float]
) -> None:
    array = read_idx(write_idx(tmp_path / name, letter, (2, 1, 3), values)).tensor()
    assert array.dtype == dtype
    assert array.shape == (2, 1, 3)
    assert array.flatten().tolist() == values


def test_no_values(write_idx: Writer, tmp_path: Path) -> None:
    assert read_idx(write_idx(tmp_path / "none", "h", (0, 5), [])).tensor().shape == (0, 5)


def test_gzip_is_told_by_content(write_idx: Writer, tmp_path: Path) -> None:
    packed = write_idx(tmp_path / "array.gz", "B", (2,), [3, 4])
    assert read_idx(packed.rename(tmp_path / "array")).tensor().tolist() == [3, 4]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "got an empty file"),
        (b"\0\0\x08", "got 00 00 08"),
        (b"<html>", "{08, 09, 0b, 0c, 0d, 0e}.* got 3c 68 74 6d"),
        (b"\0\0\x0a\1\0\0\0\0", "got 00 00 0a 01"),
        (b"\0\0\x08\3\0\0\0\1", "header of 3 dimensions takes 16 bytes; got 8"),
        (b"\0\0\x08\1\0\0\0\5abcd", r"uint8 of shape \(5,\) takes 13 bytes with its header; got 12"),
        (b"\0\0\x0b\1\0\0\0\2abcde", r"int16 of shape \(2,\) takes 12 bytes with its header; got 13"),
        (gzip.compress(b"\0\0\x08\1\0\0\0\x64" + bytes(range(100)))[:-9], "gzip stream is damaged or cut short"),
        (b"\0\0\x08\3" + b"\xff" * 12, f"takes {(2**32 - 1) ** 3 + 16} bytes with its header; got 16"),
        (b"\0\0\x08\3" + bytes(4) + b"\xff" * 8, "got no array that large"),
        (gzip.compress(b"\0\0\x08\3" + b"\xff" * 12), "got 26 compressed ones, which can't hold as many"),
        (gzip.compress(b"\0\0\x08\1\0\0\0\2" + bytes(10**7)), "takes 10 bytes with its header; got more"),
        (gzip.compress(b"\0\0\x08\1\0\0\0\5ab"), "takes 13 bytes with its header; got 10"),
        (b"\x1f\x8bnot gzip at all", "gzip stream is damaged or cut short"),
        (gzip.compress(b"")[:10] + b"\xff" * 20, "gzip stream is damaged or cut short"),
    ],
    ids=[
        "empty",
        "three-bytes",
        "html",
        "dtype",
        "header",
        "short",
        "long",
        "cut-gzip",
        "huge",
        "huge-and-empty",
        "huge-gzip",
        "gzip-bomb",
        "short-gzip",
        "not-gzip",
        "deflate",
    ],
)
def test_damage_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "damaged-idx"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=f"damaged-idx: .*{message}"):
        read_idx(path)


def test_a_pipe_or_a_folder_is_no_file(tmp_path: Path) -> None:
    """A pipe that nobody writes to would never end."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(DatasetError, match=f"{name} is not a file"):
            read_idx(tmp_path / name)


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    """No more than the header's size and one byte are taken from the stream."""
    taken = []

    class Stream(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            content = super().read(size)
            taken.append(len(content))
            return content

    with pytest.raises(DatasetError, match="got more"):
        idx._read(tmp_path, Stream(b"\0\0\x08\1\0\0\0\2" + bytes(1000)), 1000, packed=True)
    assert sum(taken) == 11
