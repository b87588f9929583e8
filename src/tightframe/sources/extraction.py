"""`extract`: a source's features written to shards, which `ShardSource` reads."""

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
_ALIKE = 1e-3  # share of the largest entry by which features may differ when they are made again
_COMPARED = 256  # rows


@dataclass(frozen=True)
class Extraction:
    """What `extract` wrote.

    Attributes:
        folder: for `ShardSource`.
        rows: samples of each split, over all processes.
        shards: the number of files, over all processes.
        notes: what the source remarks on all the samples that it was run on, such as a model that is measured in a bad
            moment; it isn't in the folder, as a resumed extraction doesn't run on all.
    """

    folder: Path
    rows: Mapping[str, int]
    shards: int
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

    A folder holds `.safetensors` files of equal size and `manifest.json`, which is replaced after each file. An
    extraction that was killed goes on where it ended when it is called again, without running the model on what is
    written; the files are then the same, bit for bit, as those of one that wasn't. Under `torch.distributed` every
    process calls this and writes its own samples, with a manifest of its own.

    Args:
        splits: which of the source's; "train" must be one. Default: all.
        dtype: of the features; default: as they come.
        shard_bytes: bytes of a file, and of memory for it.
        flatten: write each position (token, pixel) as a sample of its own. Without it, positions of a sample stay
            together, and all samples must have as many; with it, standard errors take them for independent.
        overwrite: delete what an earlier extraction wrote.
        distributed: whether the processes of `torch.distributed` share the folder.

    Raises: ShardError if the folder holds another extraction, or if features aren't what they were when it began;
    ChoiceError for splits that the source lacks; DtypeError; NonFiniteError, LabelError, ShapeError for what the source
    gives; EmptyBatchError; and what the source raises.
    """
    require_positive(shard_bytes, "shard_bytes")
    if dtype is not None and (dtype not in NAMES or not dtype.is_floating_point):
        raise DtypeError(f"dtype must be torch.float16, bfloat16, float32 or float64; got {dtype}.")
    splits = tuple(source.splits if splits is None else splits)
    if unknown := [split for split in splits if split not in source.splits]:
        raise ChoiceError(f"the source has no split {unknown[0]!r}; it has: {listed(sorted(source.splits))}.")
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
    notes: list[str] = []
    if not all(every_process(manifest.complete, "the start of an extraction", shared=shared)):
        with source.opened():
            _Writer(source, folder, manifest, dtype).run()
            notes = source.remarks()[1]
        manifest.complete = True
        manifest.write(folder)
    mine = {split: entry.rows for split, entry in manifest.splits.items()}
    told = every_process((mine, sum(len(entry.shards) for entry in manifest.splits.values())), "the end", shared=shared)
    rows = {split: sum(each.get(split, 0) for each, _ in told) for split in settings["splits"]}
    return Extraction(folder, rows, sum(shards for _, shards in told), tuple(notes))


def _begun(folder: Path, settings: dict[str, Any], *, shared: bool, overwrite: bool) -> Manifest:
    """This process's manifest, new or as it was left. Raises: ShardError if the folder holds something else."""
    mine, processes = (rank(), world_size()) if shared else (0, 1)
    if mine == 0:
        folder.mkdir(parents=True, exist_ok=True)
        if overwrite:
            _clear(folder)
        for partial in partials_in(folder):
            partial.unlink()
    every_process(None, "the start of an extraction", shared=shared)  # nobody looks before the folder is cleared
    path = folder / Manifest.name(mine, processes)
    for other in manifests_in(folder):
        before = Manifest.read(other)
        if before.processes != processes:
            raise ShardError(
                f"{folder} holds an extraction by {before.processes} process{'es' * (before.processes > 1)}; this one "
                f"has {processes}. Use as many, another folder, or overwrite=True."
            )
        _require_same(folder, "", before.settings, settings)
    strange = sorted(each.name for each in folder.glob("*.safetensors"))
    if strange and not manifests_in(folder):
        raise ShardError(f"{folder} holds {strange[0]}, which no manifest names: choose another folder.")
    every_process(None, "the start of an extraction", shared=shared)  # nobody writes before all have looked
    return Manifest.read(path) if path.exists() else Manifest(mine, processes, settings)


def _clear(folder: Path) -> None:
    """Delete an earlier extraction: manifests first, so that what is left is never taken for a whole one."""
    manifests = manifests_in(folder)
    for path in manifests:
        path.unlink()
    for path in folder.iterdir() if manifests else ():
        if _WRITTEN.fullmatch(path.name):
            path.unlink()


def _require_same(folder: Path, where: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise ShardError naming the first entry that differs."""
    for name in {**before, **now}:
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            _require_same(folder, f"{name} ", old, new)
        elif old != new:
            raise ShardError(
                f"{folder} holds an extraction with {where}{name} = {old!r}; this one has {new!r}. Choose another "
                "folder, or pass overwrite=True."
            )


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each) for each in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


class _Writer:
    """Writes the splits of an opened source that aren't complete."""

    def __init__(self, source: FeatureSource, folder: Path, manifest: Manifest, dtype: torch.dtype | None):
        self._source, self._folder, self._manifest, self._dtype = source, folder, manifest, dtype
        self._flatten = manifest.settings["flatten"]

    def run(self) -> None:
        """Raises: as `extract`."""
        manifest = self._manifest
        drawn = iter(self._source.batches(TRAIN))
        stream = map(FeatureBatch.of, drawn)
        first = next(stream, None)  # drawn even if all is written: it tells what the source is
        if first is not None:
            self._meet(first)
        elif manifest.processes == 1:
            raise EmptyBatchError("the source gave no training samples.")
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
                _close(drawn)  # what it has open, as random generators, is put back
                batches = self._source.batches_from(split, start)
            self._write_split(split, entry, map(FeatureBatch.of, batches), start)
        _close(drawn)

    # ------------------------------------------------------------------ the first batch

    def _meet(self, first: FeatureBatch) -> None:
        """Take down what the source is, or compare it with what it was."""
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
            given = source.classifier
            facts = {} if given is None else {"name": given.name, "fixed": given.fixed, "decides": given.decides}
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
        """The classifier, and the weights that read other layers, as a safetensors file."""
        from safetensors.torch import save

        given, tensors = self._source.classifier, {}
        if given is not None:
            tensors["weight"] = given.weight
            if given.bias is not None:
                tensors["bias"] = given.bias
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
        """Raise ShardError unless the first batch is the one that the first shard begins with."""
        entry = self._manifest.splits.get(TRAIN)
        if entry is None or not entry.shards:
            return
        path = self._folder / entry.shards[0].file
        if not path.is_file():
            raise ShardError(f"{path} is missing; the manifest names it. Pass overwrite=True to begin again.")
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
                    f"the source's first batch isn't the one in {path} ({name!r} differs): another model, other "
                    "data or another order. An extraction is resumed with data in the same order; choose another "
                    "folder, or pass overwrite=True."
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
        """A batch's arrays by name, on the CPU. Raises: ShapeError if they don't fit each other, or those before."""
        layers = dict(batch.by_layer)
        arrays = {array_of(name): rows.detach() for name, rows in layers.items()}
        if split != OOD:
            if batch.labels is None:
                raise ShapeError(f"a batch of {SPLITS[split]} has no labels.")
            arrays[LABELS] = batch.labels.to(torch.int64)
            if batch.decided is not None:
                arrays[DECIDED] = batch.decided.to(torch.int64)
        if self._flatten:
            positions = {
                name: tuple(a.shape[:-1] if layer_of(name) is not None else a.shape) for name, a in arrays.items()
            }
            if len(set(positions.values())) > 1:
                raise ShapeError(f"flatten=True needs layers and labels at the same positions; got {positions}.")
            arrays = {
                name: a.flatten(0, -2) if layer_of(name) is not None else a.flatten() for name, a in arrays.items()
            }
        for name, rows in arrays.items():
            if layer_of(name) is not None and self._dtype is not None:
                rows = rows.to(self._dtype)
            arrays[name] = rows = rows.cpu()
            if len(rows) != len(next(iter(arrays.values()))):
                raise ShapeError(
                    f"a batch has {len(next(iter(arrays.values())))} samples, but {len(rows)} in {name!r}."
                )
            kind = Kind(rows.dtype, tuple(rows.shape[1:]))
            if kinds and kind != kinds.get(name):
                raise ShapeError(
                    f"{name!r} of a batch of {SPLITS[split]} is {kind}, but before it was {kinds.get(name)}. If "
                    "samples have other numbers of positions, pass flatten=True."
                )
        if missing := [name for name in kinds if name not in arrays]:
            raise ShapeError(f"a batch of {SPLITS[split]} has no {missing[0]!r}, but others have.")
        return arrays

    def _require_valid(self, split: str, arrays: Mapping[str, Tensor], number: int) -> None:
        """Raise NonFiniteError or LabelError for what couldn't be measured."""
        for name, rows in arrays.items():
            if not rows.numel():
                continue
            if layer_of(name) is not None:
                if not bool(torch.stack(torch.aminmax(rows)).isfinite().all()):
                    advice = "" if self._dtype is None else f", or too large for dtype={self._dtype}"
                    raise NonFiniteError(
                        f"{name!r} of batch {number} of {SPLITS[split]} has a NaN or an infinity{advice}."
                    )
            elif self._source.num_classes is not None:
                labels, ignored = rows.flatten(), self._source.ignore_index
                kept = labels if ignored is None or name != LABELS else labels[labels != ignored]
                require_labels(kept, self._source.num_classes, "labels" if name == LABELS else "decisions")

    def _write(self, split: str, entry: SplitEntry, buffer: _Buffer, batches: int, taken: int) -> None:
        """A shard, and the manifest that names it."""
        process = "" if self._manifest.processes == 1 else f"-{self._manifest.rank}"
        path = self._folder / f"{split}{process}-{len(entry.shards):05d}.safetensors"
        rows, kinds = buffer.rows, entry.kinds()
        tensors = buffer.tensors()
        if shutil.disk_usage(self._folder).free < (size := sum(each.nbytes for each in tensors.values())):
            raise ShardError(f"{self._folder} has no room for {path.name}, {size} bytes.")
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
        """Take rows from `start` on, as many as there is room for; how many."""
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
