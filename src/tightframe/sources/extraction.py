"""`extract`: writes a source's features to shards for `ShardSource`."""

from __future__ import annotations

import re
import shutil
import zlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tightframe.checks import listed, require_labels, require_positive
from tightframe.errors import ChoiceError, DtypeError, EmptyBatchError, NonFiniteError, ShapeError, ShardError
from tightframe.processes import every_process, rank, world_size
from tightframe.reading.safetensors import NAMES
from tightframe.sources.manifest import (
    DECIDED,
    LABELS,
    Manifest,
    ShardEntry,
    SplitEntry,
    array_of,
    layer_of,
    manifests_in,
)
from tightframe.sources.shards import BLOCK_BYTES
from tightframe.sources.source import OOD, SPLITS, TRAIN, FeatureBatch, FeatureSource
from tightframe.sources.tables import Kind, RawTable, safetensors_table
from tightframe.writing import partials_in, write_tensors, write_whole

SHARD_BYTES = 256 << 20
_CLASSIFIER = "classifier.safetensors"
_WRITTEN = re.compile(r"((train|test|ood)(-\d+)?-\d{5,}|classifier)\.safetensors")
_ALIKE = 1e-3  # largest difference of recomputed features, relative to the largest entry
_COMPARED = 256  # number of compared rows


@dataclass(frozen=True)
class Extraction:
    """The result of `extract`.

    Attributes:
        folder: the folder, for `ShardSource`.
        rows: number of samples per split, over all processes.
        shards: number of files, over all processes.
        new_shards: number of files that this run wrote, over all processes; 0 if all were there already.
        notes: the source's remarks on all samples of this run. They are not stored in the folder, since a resumed
            extraction does not run on all samples.
    """

    folder: Path
    rows: Mapping[str, int]
    shards: int
    new_shards: int
    notes: tuple[str, ...] = ()


def extract(
    source: FeatureSource,
    folder: str | Path,
    *,
    splits: Sequence[str] | None = None,
    dtype: torch.dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
    flatten: bool = False,
    overwrite: bool = False,
    distributed: bool = True,
) -> Extraction:
    """Write a source's features, labels and decisions to shards, to measure them later or more than once.

    A folder contains `.safetensors` files of equal size and `manifest.json`, which is replaced after each file. Call
    again to resume a killed extraction: the model does not run again on written samples, and the files are the same,
    bit for bit, as without the kill. Under `torch.distributed` every process calls this and writes its own samples with
    its own manifest.

    Args:
        splits: splits of the source, including "train". Default: all.
        dtype: dtype of the features. Default: unchanged.
        shard_bytes: maximum bytes of a file, and of its buffer in memory.
        flatten: write each position (token, pixel) as a separate sample; standard errors then treat positions as
            independent. Otherwise positions of a sample stay together, and all samples must have the same number.
        overwrite: delete the files of an earlier extraction, which its manifest shows to be tightframe's.
        distributed: whether the processes of `torch.distributed` share the folder.

    Raises: ShardError if the folder holds a different extraction, or if features have changed since its start;
    ChoiceError for splits that the source lacks; DtypeError; NonFiniteError, LabelError, ShapeError for invalid data of
    the source; EmptyBatchError; and errors of the source.

    >>> import tempfile, torch
    >>> from tightframe.sources import ArraySource, ShardSource, extract
    >>> source = ArraySource(torch.zeros(6, 3), torch.arange(6) % 2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     extraction = extract(source, folder)
    ...     print(dict(extraction.rows), ShardSource(folder).num_classes)
    {'train': 6} 2
    """
    require_positive(shard_bytes, "shard_bytes")
    if dtype is not None and (dtype not in NAMES or not dtype.is_floating_point):
        raise DtypeError(f"dtype must be torch.float16, bfloat16, float32 or float64; got {dtype}.")
    splits = tuple(source.splits if splits is None else splits)
    if unknown := [split for split in splits if split not in source.splits]:
        raise ChoiceError(f"splits must be among {listed(sorted(source.splits))}; got {unknown[0]!r}.")
    if TRAIN not in splits:
        raise ChoiceError(f"splits must include {TRAIN!r}; got {listed(splits)}.")
    folder = Path(folder)
    shared = distributed and world_size() > 1
    settings = {
        "splits": [split for split in SPLITS if split in splits],
        "dtype": None if dtype is None else NAMES[dtype],
        "shard_bytes": shard_bytes,
        "flatten": flatten,
        "origin": _plain(source.origin),
    }
    manifest = _begun(folder, settings, shared=shared, overwrite=overwrite)
    before, notes = manifest.shards, list[str]()
    if not all(every_process(manifest.complete, "the start of an extraction", shared=shared)):
        with source.opened():
            _Writer(source, folder, manifest, dtype).run()
            notes = source.remarks()[1]
        manifest.complete = True
        manifest.write(folder)
    part = {split: entry.rows for split, entry in manifest.splits.items()}
    sizes = every_process((part, manifest.shards, manifest.shards - before), "the end", shared=shared)
    parts, shards, new = zip(*sizes, strict=True)
    rows = {split: sum(each.get(split, 0) for each in parts) for split in settings["splits"]}
    return Extraction(folder, rows, sum(shards), sum(new), tuple(notes))


def _begun(folder: Path, settings: dict[str, Any], *, shared: bool, overwrite: bool) -> Manifest:
    """This process's manifest, new or resumed. Raises: ShardError if the folder holds a different extraction."""
    own_rank, processes = (rank(), world_size()) if shared else (0, 1)
    for path in manifests_in(folder):
        Manifest.require_own(path)
    every_process(None, "the start of an extraction", shared=shared)  # all processes check before one deletes
    if own_rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
        if overwrite:
            _clear(folder)
        for partial in partials_in(folder):
            partial.unlink()
    every_process(None, "the start of an extraction", shared=shared)  # all processes wait until the folder is cleared
    path = folder / Manifest.name(own_rank, processes)
    for other in manifests_in(folder):
        before = Manifest.read(other)
        if before.processes != processes:
            raise ShardError(
                f"{folder} holds an extraction by {before.processes} process{'es' * (before.processes > 1)}; this one "
                f"has {processes}. Use the same number, a different folder, or overwrite=True."
            )
        _require_same(folder, "", before.settings, settings)
    strange = sorted(each.name for each in folder.glob("*.safetensors"))
    if strange and not manifests_in(folder):
        raise ShardError(f"{folder} holds {strange[0]}, which no manifest lists. Choose a different folder.")
    every_process(None, "the start of an extraction", shared=shared)  # all processes wait until every check is done
    return Manifest.read(path) if path.exists() else Manifest(own_rank, processes, settings)


def _clear(folder: Path) -> None:
    """Delete an earlier extraction, manifests last, so that after a kill it can be deleted again."""
    manifests = manifests_in(folder)
    for path in folder.iterdir() if manifests else ():
        if _WRITTEN.fullmatch(path.name):
            path.unlink()
    for path in manifests:
        path.unlink()


def _require_same(folder: Path, where: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise ShardError that names the first different entry."""
    for name in {**before, **now}:
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            _require_same(folder, "" if name == "origin" else f"{name} ", old, new)
        elif old != new:
            raise ShardError(
                f"{folder} holds an extraction with {where}{name}={old!r}; this one has {new!r}. Choose a different "
                "folder, or pass overwrite=True."
            )


def _plain(value: Any) -> Any:
    """The value after a round trip through JSON."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each) for each in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


class _Writer:
    """Writes the incomplete splits of an opened source."""

    def __init__(self, source: FeatureSource, folder: Path, manifest: Manifest, dtype: torch.dtype | None):
        self._source, self._folder, self._manifest, self._dtype = source, folder, manifest, dtype
        self._flatten = manifest.settings["flatten"]

    def run(self) -> None:
        """Raises: as `extract`."""
        manifest = self._manifest
        drawn = iter(self._source.batches(TRAIN))
        stream = map(FeatureBatch.of, drawn)
        first = next(stream, None)  # needed even if all is written, to identify the source
        if first is not None:
            self._meet(first)
        elif manifest.processes == 1:
            raise EmptyBatchError("the source must yield training samples; it yielded none.")
        for split in manifest.settings["splits"]:
            entry = manifest.splits.setdefault(split, SplitEntry())
            if entry.batches is not None:
                continue
            start = entry.shards[-1].batches if entry.shards else 0
            if split == TRAIN and start == 0:
                batches: Iterable[Any] = stream if first is None else chain([first], stream)
            elif split == TRAIN and not self._source.repeatable:
                batches = islice(stream, start - 1, None)
            else:
                _close(drawn)  # restores its state, such as random generators
                batches = self._source.batches_from(split, start)
            self._write_split(split, entry, map(FeatureBatch.of, batches), start)
        _close(drawn)

    # ------------------------------------------------------------------ the first batch

    def _meet(self, first: FeatureBatch) -> None:
        """Record the source's description, or compare it with the recorded one."""
        source, manifest = self._source, self._manifest
        described: dict[str, Any] = {
            "num_classes": source.num_classes,
            "class_names": None if source.class_names is None else list(source.class_names),
            "ignore_index": source.ignore_index,
            "title": source.title,
            "notes": list(source.notes),
            "layers": {name: rows.shape[-1] for name, rows in first.by_layer.items()},
        }
        content = self._classifier(first)
        if content is not None:
            head = source.classifier
            facts = {} if head is None else {"name": head.name, "fixed": head.fixed, "decides": head.decides}
            described["classifier_file"] = {"file": _CLASSIFIER, "checksum": zlib.crc32(content), **facts}
        described = _plain(described)
        if manifest.source:
            _require_same(self._folder, "", manifest.source, described)
            self._require_alike(first)
        else:
            manifest.source = described
            manifest.write(self._folder)
        if content is not None and manifest.rank == 0:
            write_whole(self._folder / _CLASSIFIER, [content])

    def _classifier(self, first: FeatureBatch) -> bytes | None:
        """The classifier, and the weights of layers that read measured ones, as a safetensors file."""
        from safetensors.torch import save

        head, tensors = self._source.classifier, {}
        if head is not None:
            tensors["weight"] = head.weight
            if head.bias is not None:
                tensors["bias"] = head.bias
        for layer, rows in first.by_layer.items():
            weight = self._source.consumer(layer, rows.shape[-1])
            if weight is not None:
                tensors[f"consumer/{layer}"] = weight
        return (
            save({name: rows.detach().cpu().contiguous().clone() for name, rows in tensors.items()})
            if tensors
            else None
        )

    def _require_alike(self, first: FeatureBatch) -> None:
        """Raise ShardError unless the first batch equals the start of the first shard."""
        entry = self._manifest.splits.get(TRAIN)
        if entry is None or not entry.shards:
            return
        path = self._folder / entry.shards[0].file
        if not path.is_file():
            raise ShardError(f"{path} is missing, but the manifest lists it. Pass overwrite=True to start again.")
        table = safetensors_table(path)
        arrays = self._arrays(TRAIN, first, entry.kinds())
        for name, now in arrays.items():
            size = min(len(now), table.rows, _COMPARED)
            before = _read(table, name, size)
            now = now[:size]
            if before.dtype.is_floating_point:
                scale = float(before.abs().max().double())
                same = bool(((before.double() - now.double()).abs() <= _ALIKE * scale).all())
            else:
                same = torch.equal(before, now)
            if not same:
                raise ShardError(
                    f"the source's first batch must equal the one in {path}; {name!r} differs. The model, the data or "
                    "their order have changed. Resume with the same ones, choose a different folder, or pass "
                    "overwrite=True."
                )

    # ------------------------------------------------------------------ splits

    def _write_split(self, split: str, entry: SplitEntry, batches: Iterator[FeatureBatch], start: int) -> None:
        drawn, skipped = start, entry.shards[-1].taken if entry.shards else 0
        buffer: _Buffer | None = None
        for batch in batches:
            arrays = self._arrays(split, batch, entry.kinds())
            if not entry.arrays:
                self._learn(entry, arrays)
            self._require_valid(split, arrays, drawn)
            if buffer is None:
                buffer = _Buffer(entry)
            rows, place = len(next(iter(arrays.values()))), skipped
            while place < rows:
                place += buffer.add(arrays, place)
                if buffer.full:
                    whole = place == rows
                    self._write(split, entry, buffer, drawn + whole, 0 if whole else place)
            drawn, skipped = drawn + 1, 0
        if buffer is not None and buffer.rows:
            self._write(split, entry, buffer, drawn, 0)
        if not entry.shards and self._manifest.processes == 1:
            raise EmptyBatchError(f"the source gave no {SPLITS[split]}.")
        entry.batches = drawn
        self._manifest.write(self._folder)

    def _learn(self, entry: SplitEntry, arrays: Mapping[str, Tensor]) -> None:
        entry.set_kinds({name: Kind(rows.dtype, tuple(rows.shape[1:])) for name, rows in arrays.items()})
        sample = max(1, sum(kind.bytes for kind in entry.kinds().values()))
        entry.shard_rows = max(1, self._manifest.settings["shard_bytes"] // sample)
        entry.block_rows = max(1, min(BLOCK_BYTES // sample, entry.shard_rows))

    def _arrays(self, split: str, batch: FeatureBatch, kinds: Mapping[str, Kind]) -> dict[str, Tensor]:
        """A batch's arrays by name, on the CPU. Raises: ShapeError if they don't fit each other or earlier batches."""
        layers = dict(batch.by_layer)
        arrays = {array_of(name): rows.detach() for name, rows in layers.items()}
        if split != OOD:
            if batch.labels is None:
                raise ShapeError(f"batches of {SPLITS[split]} must have labels; one has none.")
            arrays[LABELS] = batch.labels.to(torch.int64)
            if batch.decided is not None:
                arrays[DECIDED] = batch.decided.to(torch.int64)
        if self._flatten:
            positions = {
                name: tuple(a.shape[:-1] if layer_of(name) is not None else a.shape) for name, a in arrays.items()
            }
            if len(set(positions.values())) > 1:
                raise ShapeError(f"flatten=True requires layers and labels at the same positions; got {positions}.")
            arrays = {
                name: a.flatten(0, -2) if layer_of(name) is not None else a.flatten() for name, a in arrays.items()
            }
        for name, rows in arrays.items():
            if layer_of(name) is not None and self._dtype is not None:
                rows = rows.to(self._dtype)
            arrays[name] = rows = rows.cpu()
            if len(rows) != len(next(iter(arrays.values()))):
                raise ShapeError(
                    f"a batch has {len(next(iter(arrays.values())))} samples, but {len(rows)} rows of {name!r}."
                )
            kind = Kind(rows.dtype, tuple(rows.shape[1:]))
            if kinds and kind != kinds.get(name):
                raise ShapeError(
                    f"{name!r} must be {kinds.get(name)} in every batch of {SPLITS[split]}; got {kind}. If the number "
                    "of positions varies, pass flatten=True."
                )
        if missing := [name for name in kinds if name not in arrays]:
            raise ShapeError(f"every batch of {SPLITS[split]} must have {missing[0]!r}; one has none.")
        return arrays

    def _require_valid(self, split: str, arrays: Mapping[str, Tensor], number: int) -> None:
        """Raise NonFiniteError or LabelError for invalid features or labels."""
        for name, rows in arrays.items():
            if not rows.numel():
                continue
            if layer_of(name) is not None:
                if not bool(torch.stack(torch.aminmax(rows)).isfinite().all()):
                    advice = "" if self._dtype is None else f", or a value too large for {self._dtype}"
                    raise NonFiniteError(
                        f"{name!r} of batch {number} of {SPLITS[split]} has a NaN or an infinity{advice}."
                    )
            elif self._source.num_classes is not None:
                labels, ignored = rows.flatten(), self._source.ignore_index
                valid = labels if ignored is None or name != LABELS else labels[labels != ignored]
                require_labels(valid, self._source.num_classes, "labels" if name == LABELS else "decisions")

    def _write(self, split: str, entry: SplitEntry, buffer: _Buffer, batches: int, taken: int) -> None:
        """Write a shard, then the manifest that lists it."""
        process = "" if self._manifest.processes == 1 else f"-{self._manifest.rank}"
        path = self._folder / f"{split}{process}-{len(entry.shards):05d}.safetensors"
        rows, kinds = buffer.rows, entry.kinds()
        tensors = buffer.tensors()
        if shutil.disk_usage(self._folder).free < (size := sum(each.nbytes for each in tensors.values())):
            raise ShardError(f"{self._folder} has no space for {path.name} ({size} bytes). Free some, then resume.")
        write_tensors(path, tensors)
        contents = {name: each.reshape(-1).view(torch.uint8).numpy() for name, each in tensors.items()}
        checksums = {
            name: [
                zlib.crc32(content[start : start + entry.block_rows * kinds[name].bytes].data)
                for start in range(0, content.nbytes, entry.block_rows * kinds[name].bytes)
            ]
            for name, content in contents.items()
        }
        entry.shards.append(ShardEntry(path.name, rows, path.stat().st_size, checksums, batches, taken))
        self._manifest.write(self._folder)
        buffer.rows = 0


def _close(batches: Iterator[Any]) -> None:
    if isinstance(batches, Generator):
        batches.close()


class _Buffer:
    """The rows of the next shard."""

    def __init__(self, entry: SplitEntry):
        self.rows, self._room = 0, entry.shard_rows
        self._arrays = {
            name: torch.empty(entry.shard_rows, *kind.shape, dtype=kind.dtype) for name, kind in entry.kinds().items()
        }

    @property
    def full(self) -> bool:
        return self.rows == self._room

    def add(self, arrays: Mapping[str, Tensor], start: int) -> int:
        """Add rows from `start` on until the buffer is full; returns their number."""
        size = min(len(next(iter(arrays.values()))) - start, self._room - self.rows)
        for name, rows in arrays.items():
            self._arrays[name][self.rows : self.rows + size].copy_(rows[start : start + size])
        self.rows += size
        return size

    def tensors(self) -> dict[str, Tensor]:
        """The rows of each array."""
        return {name: rows[: self.rows] for name, rows in self._arrays.items()}


def _read(table: RawTable, name: str, rows: int) -> Tensor:
    """The first rows of an array."""
    kind = table.arrays[name]
    content = np.empty(rows * kind.bytes, np.uint8)
    with table.opened() as reader:
        reader.read(name, 0, rows, content)
    return torch.from_numpy(content).view(kind.dtype).view(rows, *kind.shape)
