"""`Manifest`: what a folder of shards holds, and how far its extraction has come."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tightframe.errors import ShardError
from tightframe.plain import restored
from tightframe.reading import failures_of, read_json
from tightframe.reading.safetensors import DTYPES, NAMES
from tightframe.sources.tables import Kind
from tightframe.writing import write_whole

_FORMATS = "tightframe shards "
FORMAT = f"{_FORMATS}1"
LABELS, DECIDED = "labels", "decided"
_LAYER = "features/"
_NAME = re.compile(r"manifest(-\d+-of-\d+)?\.json")


def array_of(layer: str) -> str:
    """The name of a layer's array in a shard."""
    return _LAYER + layer


def layer_of(array: str) -> str | None:
    """The layer whose array has this name, or None."""
    return array.removeprefix(_LAYER) if array.startswith(_LAYER) else None


@dataclass
class ShardEntry:
    """A finished shard.

    Attributes:
        file: its name. rows, bytes: its size.
        checksums: CRC-32 of each block, by array.
        batches, taken: batches before the one that the next shard starts in, and rows of that one that are written.
    """

    file: str
    rows: int
    bytes: int
    checksums: dict[str, list[int]]
    batches: int
    taken: int


@dataclass
class SplitEntry:
    """The shards of a split.

    Attributes:
        arrays: dtype and shape of a sample, by array.
        shard_rows, block_rows: of each shard, and of each block in it, but the last.
        batches: of the split; None until it is complete.
    """

    arrays: dict[str, tuple[str, list[int]]] = field(default_factory=dict)
    shard_rows: int = 0
    block_rows: int = 0
    shards: list[ShardEntry] = field(default_factory=list)
    batches: int | None = None

    @property
    def rows(self) -> int:
        """Of the finished shards."""
        return sum(shard.rows for shard in self.shards)

    def kinds(self) -> dict[str, Kind]:
        """Kinds of the arrays."""
        return {name: Kind(DTYPES[dtype], tuple(shape)) for name, (dtype, shape) in self.arrays.items()}

    def set_kinds(self, kinds: dict[str, Kind]) -> None:
        """Inverse of `kinds`."""
        self.arrays = {name: (NAMES[kind.dtype], list(kind.shape)) for name, kind in kinds.items()}


@dataclass
class Manifest:
    """What one process extracted.

    Attributes:
        rank, processes: which one of how many.
        settings: what was asked for, and the source's `origin`: resumed, both must be the same.
        source: what the source said of itself once its first batch was drawn; empty until then.
        splits: by name. complete: whether all of them are.
    """

    rank: int
    processes: int
    settings: dict[str, Any]
    source: dict[str, Any] = field(default_factory=dict)
    splits: dict[str, SplitEntry] = field(default_factory=dict)
    complete: bool = False

    @property
    def shards(self) -> int:
        """The number of finished shards."""
        return sum(len(entry.shards) for entry in self.splits.values())

    @staticmethod
    def name(rank: int, processes: int) -> str:
        """Of the file."""
        return "manifest.json" if processes == 1 else f"manifest-{rank}-of-{processes}.json"

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Raises: StateError, or ShardError for a file that `write` has not written."""
        data = read_json(path)
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ShardError(f"{path} isn't a manifest that this version of tightframe wrote.")
        manifest = restored(cls, data, path.name)
        for split in manifest.splits.values():
            with failures_of(path):
                split.kinds()
            if min(split.shard_rows, split.block_rows, *(shard.rows for shard in split.shards)) < 0 or (
                split.shards and split.block_rows < 1
            ):
                raise ShardError(f"{path} is damaged: numbers of rows must be positive.")
            for shard in split.shards:
                if Path(shard.file).name != shard.file:
                    raise ShardError(f"{path} is damaged: {shard.file!r} is not the name of a file in its folder.")
        return manifest

    @staticmethod
    def require_own(path: Path) -> None:
        """Raise ShardError unless tightframe wrote the file, in this or an earlier version; StateError for no JSON."""
        data = read_json(path)
        if not isinstance(data, dict) or not str(data.get("format")).startswith(_FORMATS):
            raise ShardError(f"{path} isn't a manifest that tightframe wrote. Choose a different folder.")

    def write(self, folder: Path) -> None:
        """Replace the file as a whole."""
        text = json.dumps({"format": FORMAT, **asdict(self)}, indent=1)
        write_whole(folder / self.name(self.rank, self.processes), [text.encode()])


def manifests_in(folder: Path) -> list[Path]:
    """Those of all processes, in order of their names."""
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name)) if folder.is_dir() else []
