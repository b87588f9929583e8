"""`ShardSource`: features that don't fit in memory, from what `extract` wrote or from files of one's own."""

from __future__ import annotations

import filecmp
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tightframe.checks import (
    LARGEST,
    is_integer,
    labels_out_of_range,
    listed,
    number_of_classes,
    require_classifier,
)
from tightframe.errors import (
    DtypeError,
    EmptyBatchError,
    LabelError,
    NonFiniteError,
    RangeError,
    ShapeError,
    ShardError,
)
from tightframe.options import Measuring
from tightframe.plain import restored
from tightframe.processes import rank, world_size
from tightframe.reading import failures_of, read_safetensors
from tightframe.sources.manifest import DECIDED, LABELS, Manifest, SplitEntry, array_of, layer_of, manifests_in
from tightframe.sources.prefetch import BUFFERS, Prefetch
from tightframe.sources.source import (
    FEATURES,
    OOD,
    SPLITS,
    TEST,
    TRAIN,
    FeatureBatch,
    FeatureSource,
    LinearClassifier,
    with_progress,
)
from tightframe.sources.tables import PARQUET, ParquetTable, RawTable, Reader, Shard, Table, safetensors_table, table_of

MEMORY_BYTES = 256 << 20
BLOCK_BYTES = 16 << 20  # of a block, which one process reads as a whole
_ALIGNED = 64  # bytes, to which arrays in a buffer are aligned
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_LABELS_READ = 1 << 20  # at a time
_HEAD = 1 << 16  # bytes compared before whole files are

Files = Sequence[str | Path]


@dataclass
class _Contents:
    """What a source reads, and what is known of it."""

    splits: dict[str, list[Shard]]
    num_classes: int | None = None
    class_names: Sequence[str] | None = None
    ignore_index: int | None = None
    title: str | None = None
    notes: list[str] = field(default_factory=list)
    classifier: LinearClassifier | None = None
    consumers: Mapping[str, Tensor] = field(default_factory=dict)


class _Piece(NamedTuple):
    """Rows that are read together: of a shard, from the `block`-th of its blocks, and whether they are its last."""

    shard: int
    start: int
    stop: int
    block: int
    ends: bool


class ShardSource(FeatureSource):
    """Features in files, read block by block while the block before is summed up.

    Files are checked before the first batch: none may be missing, foreign, truncated or there twice, and all labels
    must lie in [0, K). What only reading can tell, checksums and values that aren't finite, is checked as each block is
    read for the first time, and raises. Under `torch.distributed` each process reads its share of the blocks.

    Args:
        folder: that `extract` wrote. For other files see `from_files`.
        memory_bytes: memory for the blocks that are read ahead and for their copies in float32. It doesn't include the
            sums: O(K D + D^2), by fold.
        options: num_classes, class_names, ignore_index, distributed and progress are used.

    Raises: ShardError naming the file; LabelError, DtypeError, ShapeError, NonFiniteError for what the files hold;
    ClassifierError; RangeError if a sample doesn't fit in the memory.

    >>> import torch
    >>> from tempfile import TemporaryDirectory
    >>> from tightframe import measure, sources
    >>> held = sources.ArraySource(torch.randn(60, 5), torch.arange(60) % 3)
    >>> with TemporaryDirectory() as folder:
    ...     written = sources.extract(held, folder)
    ...     report = measure(sources.ShardSource(folder), progress=False)
    >>> written.rows, report.facts.samples
    ({'train': 60}, 60)
    """

    cheap_to_read = True

    def __init__(
        self,
        folder: str | Path,
        *,
        memory_bytes: int = MEMORY_BYTES,
        options: Measuring | Mapping[str, Any] | None = None,
    ):
        self._open(_extracted(Path(folder)), memory_bytes, Measuring.of(options or {}))

    @classmethod
    def from_files(
        cls,
        features: Files,
        labels: Files | None = None,
        *,
        test: tuple[Files, Files] | Files | None = None,
        ood: Files | None = None,
        weight: Any = None,
        bias: Any = None,
        memory_bytes: int = MEMORY_BYTES,
        options: Measuring | Mapping[str, Any] | None = None,
        name: str = FEATURES,
    ) -> ShardSource:
        """Features in `.npy`, `.safetensors` (arrays "features" and "labels") or Parquet files (columns "features", of
        lists, or one for each feature, and "labels").

        Args:
            features: files (n, D) of the training samples, or (n, ..., D) with labels (n, ...).
            labels: a file for each file of features, in the same order; None if these have the labels too.
            test: held-out (features, labels), or files with both. ood: files out of distribution.
            weight, bias: (K, D) and (K,) of the linear classifier on these features.
            memory_bytes, options: as of the class.
            name: of the features, in the report.

        Raises: as the class; MissingExtraError for Parquet files without pyarrow.
        """
        array = array_of(name)
        splits = {TRAIN: _paired(features, labels, array)}
        if test is not None:
            pair = isinstance(test, tuple) and len(test) == 2 and not isinstance(test[0], str | Path)
            splits[TEST] = _paired(test[0], test[1], array) if pair else _paired(test, None, array)  # type: ignore[arg-type]
        if ood is not None:
            splits[OOD] = _paired(ood, None, array, labelled=False)
        self = cls.__new__(cls)
        classifier = LinearClassifier.of(weight, bias)
        self._open(_Contents(splits, classifier=classifier), memory_bytes, Measuring.of(options or {}))
        return self

    def _open(self, contents: _Contents, memory_bytes: int, options: Measuring) -> None:
        self._contents, self._options, self._memory = contents, options, memory_bytes
        self._shards = contents.splits
        self._checked: set[tuple[str, int, int, int]] = set()  # pieces that were read once: split, shard, rows
        self.splits = tuple(self._shards)
        self.title, self.notes = contents.title, contents.notes
        self.classifier = contents.classifier
        self.class_names = contents.class_names if options.class_names is None else options.class_names
        self.ignore_index = contents.ignore_index if options.ignore_index is None else options.ignore_index
        for split, shards in self._shards.items():
            _require_alike(shards, split)
            self._require_fits(shards[0])
        self._require_same_layers()
        known = options.num_classes or contents.num_classes
        if known is None and self.classifier is not None:
            known = len(self.classifier.weight)
        if known is None and self.class_names is not None:
            known = len(self.class_names)
        self.num_classes = self._require_labels(known)
        if self.classifier is not None:
            layer = [name for array in self._shards[TRAIN][0].arrays if (name := layer_of(array)) is not None][-1]
            width = self._shards[TRAIN][0].kind(array_of(layer)).shape[-1]
            require_classifier(self.classifier.weight, self.classifier.bias, self.num_classes, width)

    # ------------------------------------------------------------------ checks before the first batch

    def _require_fits(self, shard: Shard) -> None:
        size = _sample_bytes(shard)
        if self._memory < 2 * BUFFERS * size:
            raise RangeError(
                f"memory_bytes must be at least {2 * BUFFERS * size}, for samples of {size} bytes in {shard.path}; "
                f"got {self._memory}."
            )

    def _require_same_layers(self) -> None:
        """Raise ShardError unless every split has the layers of the training samples, as wide."""
        widths = {
            split: {name: shards[0].kind(name).shape[-1] for name in shards[0].arrays if layer_of(name) is not None}
            for split, shards in self._shards.items()
        }
        for split, found in widths.items():
            if found != widths[TRAIN]:
                raise ShardError(
                    f"{self._shards[split][0].path}: features are {_said(found)}, but those of the training samples "
                    f"are {_said(widths[TRAIN])} ({self._shards[TRAIN][0].path})."
                )

    def _require_labels(self, num_classes: int | None) -> int:
        """K, from all labels if it isn't known. Raises: LabelError naming the file."""
        extents, rows = [], 0
        for split, shards in self._shards.items():
            arrays = [name for name in (LABELS, DECIDED) if split != OOD and name in shards[0].arrays]
            for shard in shards:
                for array in arrays:
                    ignored = self.ignore_index if array == LABELS else None
                    extent = _checked_labels(shard, array, num_classes, ignored)
                    if extent is not None and split == TRAIN and array == LABELS:
                        extents.append(extent)
                        rows += shard.rows * prod(shard.kind(LABELS).shape)
        if not extents:
            raise LabelError(f"no training sample has a label other than {self.ignore_index}.")
        if num_classes is not None:
            return num_classes
        least, most = min(extent[0] for extent in extents), max(extent[1] for extent in extents)
        K = number_of_classes(least, most, rows, self.ignore_index)
        for shard in self._shards.get(TEST, ()):
            _checked_labels(shard, LABELS, K, self.ignore_index)
        return K

    # ------------------------------------------------------------------ reading

    def consumer(self, layer: str, num_features: int) -> Tensor | None:
        return self._contents.consumers.get(layer)

    def batches(self, split: str) -> Iterator[FeatureBatch]:
        """Raises: ShardError for blocks whose checksum is another; NonFiniteError naming the file and the row."""
        shards = self._shards[split]
        pieces = self._pieces(shards)
        size = max(
            (sum(_room(shards[p.shard], name, p.stop - p.start) for name in shards[p.shard].arrays) for p in pieces),
            default=0,
        )
        shown = self._options.progress and rank() == 0 and len(pieces) > 16
        with _Reading(split, shards, self._checked) as reading:
            stream = Prefetch(pieces, reading.read, size)
            for piece, buffer in with_progress(stream, split, len(pieces), show=shown):
                batch = _batch(shards[piece.shard], piece, buffer)
                del buffer  # which the batch alone refers to
                yield batch
                del batch

    def _pieces(self, shards: Sequence[Shard]) -> list[_Piece]:
        """What this process reads: its share of the blocks, in pieces for which there is memory."""
        world = world_size() if self._options.distributed else 1
        mine = rank() if self._options.distributed else 0
        sample = _sample_bytes(shards[0])
        rows = sum(shard.rows for shard in shards)
        block = max(1, min(BLOCK_BYTES // sample, -(-rows // (4 * world))))
        most = max(1, self._memory // (2 * BUFFERS) // sample)
        blocks = [(number, start, stop) for number, shard in enumerate(shards) for start, stop in shard.blocks(block)]
        pieces = []
        for shard, start, stop in blocks[mine::world]:
            for some in range(start, stop, most):
                end = min(some + most, stop)
                size = shards[shard].block_rows
                pieces.append(_Piece(shard, some, end, 0 if size is None else start // size, end == stop))
        return pieces


class _Reading:
    """Reads pieces of a split in order, one file open at a time, and checks those that weren't read before."""

    def __init__(self, split: str, shards: Sequence[Shard], checked: set[tuple[str, int, int, int]]):
        self._split, self._shards, self._checked = split, shards, checked
        self._stack = ExitStack()
        self._shard = -1
        self._readers: Mapping[str, tuple[Reader, str]] = {}
        self._sums: dict[str, int] = {}  # CRC-32 of the block so far

    def __enter__(self) -> _Reading:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def read(self, piece: _Piece, buffer: np.ndarray) -> None:
        """Into a buffer, checked."""
        shard = self._shards[piece.shard]
        if piece.shard != self._shard:
            self._stack.close()
            self._readers, self._shard = self._stack.enter_context(shard.opened()), piece.shard
        parts = _parts(shard, piece, buffer)
        key = (self._split, piece.shard, piece.start, piece.stop)
        for array, part in parts.items():
            reader, name = self._readers[array]
            reader.read(name, piece.start, piece.stop, part)
        if key in self._checked:
            return
        self._add_checksums(shard, piece, parts)
        for array, part in parts.items():
            if layer_of(array) is not None:
                _require_finite(shard, array, piece, part)
        self._checked.add(key)

    def _add_checksums(self, shard: Shard, piece: _Piece, parts: Mapping[str, np.ndarray]) -> None:
        if shard.checksums is None:
            return
        for array, part in parts.items():
            self._sums[array] = zlib.crc32(part.data, self._sums.get(array, 0))
        if not piece.ends:
            return
        sums, self._sums = self._sums, {}
        for array, found in sums.items():
            if found != shard.checksums[array][piece.block]:
                raise ShardError(
                    f"{shard.path} is damaged: the checksum of {array!r} is another in rows up to {piece.stop}. "
                    "Delete the folder and extract it again."
                )


def _parts(shard: Shard, piece: _Piece, buffer: np.ndarray) -> dict[str, np.ndarray]:
    """The bytes of a buffer that each array of a piece takes."""
    parts, end, rows = {}, 0, piece.stop - piece.start
    for array in shard.arrays:
        parts[array] = buffer[end : end + rows * shard.kind(array).bytes]
        end += _room(shard, array, rows)
    return parts


def _room(shard: Shard, array: str, rows: int) -> int:
    return -(-rows * shard.kind(array).bytes // _ALIGNED) * _ALIGNED


def _sample_bytes(shard: Shard) -> int:
    return max(1, sum(shard.kind(array).bytes for array in shard.arrays))


def _batch(shard: Shard, piece: _Piece, buffer: np.ndarray) -> FeatureBatch:
    """The arrays of a piece as tensors on the buffer's memory."""
    found = {}
    for array, part in _parts(shard, piece, buffer).items():
        kind = shard.kind(array)
        found[array] = torch.from_numpy(part).view(kind.dtype).view(piece.stop - piece.start, *kind.shape)
    layers = {name: rows for array, rows in found.items() if (name := layer_of(array)) is not None}
    labels, decided = (
        None if (rows := found.get(name)) is None else rows.to(torch.int64) for name in (LABELS, DECIDED)
    )
    return FeatureBatch(layers, labels, decided)


def _require_finite(shard: Shard, array: str, piece: _Piece, part: np.ndarray) -> None:
    kind = shard.kind(array)
    rows = torch.from_numpy(part).view(kind.dtype).view(piece.stop - piece.start, prod(kind.shape))
    if rows.numel() == 0:
        return
    least, most = torch.aminmax(rows)
    limit = min(LARGEST, torch.finfo(kind.dtype).max)
    if -limit <= float(least) and float(most) <= limit:  # neither, if one is NaN
        return
    wrong = ~(rows.abs() <= limit)
    row, column = wrong.nonzero()[0].tolist()
    raise NonFiniteError(
        f"{shard.path}: features must be finite and at most {LARGEST:g} in size; row {piece.start + row} holds "
        f"{rows[row, column].item()} in column {column}."
    )


# ---------------------------------------------------------------------- what files hold


def _require_alike(shards: Sequence[Shard], split: str) -> None:
    """Raise unless shards have the same arrays, of floats (N, ..., D), and no file is there twice."""
    if not shards or sum(shard.rows for shard in shards) == 0:
        where = f"{shards[0].path} has no rows" if shards else "there is no shard"
        raise EmptyBatchError(f"{where}: there are no {SPLITS.get(split, split)}.")
    first = shards[0]
    for shard in shards:
        for name in first.arrays.keys() | shard.arrays.keys():
            if (name in first.arrays) != (name in shard.arrays):
                raise ShardError(f"only one of {first.path} and {shard.path} has {name!r}.")
            if shard.kind(name) != first.kind(name):
                raise ShardError(
                    f"{_path_of(shard, name)} holds {shard.kind(name)}, but {_path_of(first, name)} holds "
                    f"{first.kind(name)}: all must have the same dtype and width."
                )
    for name in first.arrays:
        path, kind = _path_of(first, name), first.kind(name)
        if layer_of(name) is None:
            if not is_integer(torch.empty(0, dtype=kind.dtype)):
                raise DtypeError(f"{path}: labels must be integers; got {kind}.")
        elif kind.dtype not in _FLOATS:
            raise DtypeError(f"{path}: features must be floating point; got {kind}. Are features and labels swapped?")
        elif not kind.shape or kind.shape[-1] == 0:
            raise ShapeError(f"{path}: features must be (N, D); got {kind}.")


def _path_of(shard: Shard, array: str) -> Path:
    return shard.arrays[array][0].path


def _checked_labels(shard: Shard, array: str, num_classes: int | None, ignored: int | None) -> tuple[int, int] | None:
    """The smallest and the largest label in a shard; None if all are ignored. Raises: LabelError."""
    kind = shard.kind(array)
    table, name = shard.arrays[array]
    if isinstance(table, RawTable):
        step = max(1, _LABELS_READ // max(1, prod(kind.shape)))
        spans = [(start, min(start + step, shard.rows)) for start in range(0, shard.rows, step)]
    else:
        spans = shard.blocks(_LABELS_READ)
    bound = torch.iinfo(torch.int64).max if num_classes is None else num_classes
    extents: list[tuple[int, int]] = []
    wrong: tuple[int, int] | None = None  # the first row with a label out of range, and the label
    rows = others = 0
    with table.opened(name) as reader:
        for start, stop in spans:
            part = np.empty((stop - start) * kind.bytes, np.uint8)
            reader.read(name, start, stop, part)
            labels = torch.from_numpy(part).view(kind.dtype).to(torch.int64).view(stop - start, -1)
            counted = labels if ignored is None else labels[labels != ignored]
            if counted.numel() == 0:
                continue
            extents.append((int(counted.min()), int(counted.max())))
            if extents[-1][0] >= 0 and extents[-1][1] < bound:
                continue
            outside = (labels < 0) | (labels >= bound)
            outside = outside if ignored is None else outside & (labels != ignored)
            if wrong is None:
                row = int(outside.any(1).nonzero()[0])
                wrong = start + row, int(labels[row][outside[row]][0])
            same = int((labels == wrong[1]).sum())
            rows, others = rows + same, others + int(outside.sum()) - same
    if not extents:
        return None
    extent = min(low for low, _ in extents), max(high for _, high in extents)
    if wrong is not None:
        message = labels_out_of_range(wrong[1], rows, num_classes, extent, others=others > 0)
        raise LabelError(f"{table.path}, row {wrong[0]}: {message}")
    return extent


def _said(widths: Mapping[str, int]) -> str:
    return listed([f"{layer_of(name)} ({width})" for name, width in widths.items()])


# ---------------------------------------------------------------------- a user's own files


def _paired(features: Files | None, labels: Files | None, array: str, *, labelled: bool = True) -> list[Shard]:
    """Shards of a user's files, features with their labels."""
    paths = _paths(features, "features")
    within = LABELS if labelled and labels is None else None
    tables = [table_of(path, array, labels=within) for path in paths]
    _require_different(paths)
    if labels is None:
        if labelled:
            for table in tables:
                if LABELS not in table.arrays:
                    raise ShardError(f"{table.path} has no labels: pass a file of labels for each file of features.")
                _require_one_each(table, table, array, LABELS)
        return [Shard.of(table) for table in tables]
    label_paths = _paths(labels, "labels")
    _require_pairs(paths, label_paths)
    targets = [_labels_table(path) for path in label_paths]
    shards = []
    for table, target in zip(tables, targets, strict=True):
        _require_one_each(table, target, array, LABELS)
        shards.append(Shard(table.path, table.rows, {array: (table, array), LABELS: (target, LABELS)}))
    return shards


def _labels_table(path: Path) -> Table:
    """A file of labels: `.npy`, or the column or array "labels" of another."""
    if path.suffix == ".safetensors":
        table = safetensors_table(path)
        if LABELS not in table.arrays:
            raise ShardError(f"{path} has no array {LABELS!r}; it has: {listed(sorted(table.arrays))}.")
        return table
    return ParquetTable(path, None, LABELS) if path.suffix in PARQUET else table_of(path, LABELS, labels=None)


def _require_one_each(features: Table, labels: Table, array: str, name: str) -> None:
    kind, other = features.arrays[array], labels.arrays[name]
    if (features.rows, *kind.shape[:-1]) != (labels.rows, *other.shape):
        raise ShapeError(
            f"{features.path} has features {(features.rows, *kind.shape)}, but the labels in {labels.path} are "
            f"{(labels.rows, *other.shape)}: there must be a label for each row."
        )


def _paths(files: Files | str | Path | None, what: str) -> list[Path]:
    given = [files] if isinstance(files, str | Path) else list(files or ())
    if not given:
        raise ShardError(f"there is no file of {what}.")
    return [Path(each) for each in given]


def _require_pairs(features: Sequence[Path], labels: Sequence[Path]) -> None:
    """Raise ShardError unless each file of features has one of labels, in the same order by their numbers."""
    numbers = [[re.findall(r"\d+", path.stem) for path in paths] for paths in (features, labels)]
    if len(features) != len(labels):
        alone = [
            f"{path} has no labels"
            for path, number in zip(features, numbers[0], strict=True)
            if number not in numbers[1]
        ]
        alone += [
            f"{path} has no features"
            for path, number in zip(labels, numbers[1], strict=True)
            if number not in numbers[0]
        ]
        raise ShardError(
            f"there are {len(features)} files of features and {len(labels)} of labels"
            f"{': ' + listed(alone, 3) if alone else ''}. Each needs the other."
        )
    if sorted(numbers[0]) == sorted(numbers[1]) and numbers[0] != numbers[1]:
        x, y = next((x, y) for x, y, a, b in zip(features, labels, *numbers, strict=True) if a != b)
        raise ShardError(f"{x} is paired with {y}: name files of features and of labels in the same order.")


def _require_different(paths: Sequence[Path]) -> None:
    """Raise ShardError if a file is named twice, or if another holds the same bytes."""
    again = [path for path, number in Counter(path.resolve() for path in paths).items() if number > 1]
    if again:
        raise ShardError(f"{again[0]} is there twice.")
    alike: dict[tuple[int, bytes], list[Path]] = {}
    for path in paths:
        with path.open("rb") as file:
            head = file.read(_HEAD)
        others = alike.setdefault((path.stat().st_size, head), [])
        for other in others:
            if filecmp.cmp(path, other, shallow=False):
                raise ShardError(f"{path} holds the same as {other}: is a shard there twice?")
        others.append(path)


# ---------------------------------------------------------------------- what `extract` wrote


def _extracted(folder: Path) -> _Contents:
    """The contents of a folder. Raises: ShardError naming the file that is missing, foreign or damaged."""
    paths = manifests_in(folder)
    if not paths:
        what = "has no manifest.json" if folder.is_dir() else "doesn't exist"
        raise ShardError(f"{folder} {what}: it isn't a folder that tightframe.sources.extract wrote.")
    manifests = [Manifest.read(path) for path in paths]
    with failures_of(folder, "as shards"):
        return _contents(folder, paths, manifests)


def _contents(folder: Path, paths: Sequence[Path], manifests: Sequence[Manifest]) -> _Contents:
    """The contents that manifests list. Raises: ShardError, and an error of any type for damaged manifests."""
    _require_whole(folder, paths, manifests)
    described = next((each.source for each in manifests if each.source), {})
    splits: dict[str, list[Shard]] = {split: [] for split in manifests[0].settings["splits"]}
    named: set[str] = set()
    for path, manifest in zip(paths, manifests, strict=True):
        for split, entry in manifest.splits.items():
            for each in _shards_of(folder, path, split, entry, named):
                splits[split].append(each)
    if (file := described.get("classifier_file")) is not None:
        named.add(file["file"])
    if foreign := sorted(each.name for each in folder.glob("*.safetensors") if each.name not in named):
        raise ShardError(f"{folder / foreign[0]} is foreign: no manifest in the folder names it.")
    for split, shards in splits.items():
        if not shards:
            raise EmptyBatchError(f"{folder} has no {SPLITS[split]}.")

    def described_as(name: str, kind: Any, facts: Mapping[str, Any] = described) -> Any:
        return restored(kind, facts.get(name), f"source.{name}")

    classifier, consumers = _classifier(folder, described)
    return _Contents(
        splits,
        max((described_as("num_classes", int | None, each.source) or 0 for each in manifests), default=0) or None,
        described_as("class_names", tuple[str, ...] | None),
        described_as("ignore_index", int | None),
        described_as("title", str | None),
        list(described_as("notes", tuple[str, ...] | None) or ()),
        classifier,
        consumers,
    )


def _require_whole(folder: Path, paths: Sequence[Path], manifests: Sequence[Manifest]) -> None:
    """Raise ShardError unless there is a complete manifest of each process, of one extraction."""
    for path, manifest in zip(paths, manifests, strict=True):
        if manifest.processes != manifests[0].processes:
            raise ShardError(f"{paths[0]} and {path} are of extractions by other numbers of processes.")
        if manifest.settings != manifests[0].settings:
            raise ShardError(f"{paths[0]} and {path} are of different extractions.")
        if path.name != Manifest.name(manifest.rank, manifest.processes):
            raise ShardError(
                f"{path} is foreign: it is the manifest of process {manifest.rank} of {manifest.processes}."
            )
        if not manifest.complete:
            raise ShardError(f"{path}: the extraction isn't complete. Run it again; it goes on where it ended.")
    for rank_ in range(manifests[0].processes):
        expected = folder / Manifest.name(rank_, manifests[0].processes)
        if expected not in paths:
            raise ShardError(f"{expected} is missing.")


def _shards_of(folder: Path, manifest: Path, split: str, entry: SplitEntry, named: set[str]) -> Iterator[Shard]:
    """The shards of a split, each there with the size and the header that the manifest says."""
    kinds = entry.kinds()
    for each in entry.shards:
        path = folder / each.file
        if each.file in named:
            raise ShardError(f"{path} is there twice: the manifests name it more than once.")
        named.add(each.file)
        if not path.is_file():
            raise ShardError(f"{path} is missing; {manifest.name} names it.")
        size = path.stat().st_size
        if size != each.bytes:
            what = "truncated" if size < each.bytes else "foreign"
            raise ShardError(f"{path} is {what}: it has {size} bytes, and {manifest.name} says {each.bytes}.")
        table = safetensors_table(path)
        if dict(table.arrays) != kinds or table.rows != each.rows:
            raise ShardError(f"{path} is foreign: its header isn't that of {split} in {manifest.name}.")
        if each.checksums.keys() != kinds.keys():
            raise ShardError(f"{manifest} is damaged: {each.file} must have checksums of {listed(list(kinds))}.")
        for sums in each.checksums.values():
            if len(sums) != -(-each.rows // entry.block_rows):
                raise ShardError(f"{manifest} is damaged: {each.file} has checksums for {len(sums)} blocks.")
        arrays = {name: (table, name) for name in kinds}  # in the manifest's order, that of depth
        yield Shard(path, each.rows, arrays, entry.block_rows, each.checksums)


def _classifier(folder: Path, described: Mapping[str, Any]) -> tuple[LinearClassifier | None, dict[str, Tensor]]:
    """The classifier, and the weights that read other layers. Raises: ShardError."""
    file = described.get("classifier_file")
    if file is None:
        return None, {}
    path = folder / Path(file["file"]).name
    if not path.is_file():
        raise ShardError(f"{path} is missing; the manifest names it.")
    if zlib.crc32(path.read_bytes()) != file["checksum"]:
        raise ShardError(f"{path} is damaged or foreign: its checksum isn't the manifest's.")
    tensors, _ = read_safetensors(path)
    consumers = {name.removeprefix("consumer/"): rows for name, rows in tensors.items() if name.startswith("consumer/")}
    if "weight" not in tensors:
        return None, consumers
    facts = {name: file[name] for name in ("name", "fixed", "decides")}
    return LinearClassifier(tensors["weight"], tensors.get("bias"), **facts), consumers
