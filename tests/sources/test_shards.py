"""Features in files give the report that the same features give in memory; files that don't fit are refused by name."""

import importlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tightframe import Report, errors, measure
from tightframe.sources import ArraySource, ShardSource, extract
from tightframe.sources.prefetch import BUFFERS, Prefetch

K, D, ROWS, FILES = 5, 12, 300, 4
CHOSEN: dict[str, Any] = {"metrics": ["nc1", "etf_error", "equinorm"], "progress": False}


def samples(seed: int = 0, rows: int = FILES * ROWS) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, K, (rows,), generator=generator)
    centres = 2 * torch.randn(K, D, generator=torch.Generator().manual_seed(99))
    return centres[labels] + torch.randn(rows, D, generator=generator), labels


def values(report: Report) -> dict[str, float]:
    return {
        f"{part.facts.layer} {name}": entry.value
        for part in (*report.layers, report)
        for name, entry in ((each, part[each]) for each in part.values)
    }


def assert_same(mine: Report, expected: Report, rtol: float = 1e-12) -> None:
    found, wanted = values(mine), values(expected)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, rel=rtol, nan_ok=True), name
    assert mine.facts.samples == expected.facts.samples


Paths = list[Path]


def npy_files(folder: Path, features: Tensor, labels: Tensor, size: int = ROWS) -> tuple[Paths, Paths]:
    pairs = list(zip(features.split(size), labels.split(size), strict=True))
    for number, (x, y) in enumerate(pairs):
        np.save(folder / f"x{number}.npy", x.numpy())
        np.save(folder / f"y{number}.npy", y.numpy())
    return tuple([folder / f"{letter}{number}.npy" for number in range(len(pairs))] for letter in "xy")  # type: ignore[return-value]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Paths, Paths]:
    return npy_files(tmp_path, *samples())


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `extract` wrote, of three splits."""
    folder = tmp_path_factory.mktemp("written")
    source = ArraySource(*samples(), test=samples(1, 200), ood=samples(2, 100)[0], weight=torch.eye(K, D))
    extract(source, folder, shard_bytes=20_000)
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return shutil.copytree(written, tmp_path / "copy")


# ---------------------------------------------------------------------- the same report as in memory


def test_a_folder_gives_the_report_of_the_features_in_memory(written: Path) -> None:
    expected = measure(
        ArraySource(*samples(), test=samples(1, 200), ood=samples(2, 100)[0], weight=torch.eye(K, D)), progress=False
    )
    assert len(list(written.glob("train-*.safetensors"))) == 4
    found = measure(ShardSource(written), progress=False)
    assert_same(found, expected)
    assert any(name.endswith("_auroc") for name in found.values)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_npy_files(tmp_path: Path, dtype: torch.dtype) -> None:
    features, labels = samples()
    x, y = npy_files(tmp_path, features.to(dtype), labels)
    source = ShardSource.from_files(x, y, test=(x[:1], y[:1]), ood=x[2:3])
    expected = measure(
        features.to(dtype), labels, test=(features[:ROWS].to(dtype), labels[:ROWS]),
        ood=features[2 * ROWS : 3 * ROWS].to(dtype), progress=False,
    )  # fmt: skip
    assert_same(measure(source, progress=False), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_safetensors_files(tmp_path: Path, dtype: torch.dtype) -> None:
    features, labels = samples()
    paths = [tmp_path / f"{number}.safetensors" for number in range(FILES)]
    for path, x, y in zip(paths, features.to(dtype).split(ROWS), labels.int().split(ROWS), strict=True):
        save_file({"features": x.contiguous(), "labels": y}, path)
    assert_same(
        measure(ShardSource.from_files(paths), **CHOSEN), measure(features.to(dtype), labels, num_classes=K, **CHOSEN)
    )


@pytest.mark.parametrize("form", ["lists", "fixed lists", "columns"])
@pytest.mark.parametrize("group", [64, 10_000])
def test_parquet_files(tmp_path: Path, form: str, group: int) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    features, labels = samples()
    paths = [tmp_path / f"{number}.parquet" for number in range(FILES)]
    for path, x, y in zip(paths, features.numpy().reshape(FILES, ROWS, D), labels.split(ROWS), strict=True):
        table: dict[str, Any] = {"labels": y.numpy()}
        if form == "columns":
            table |= {f"f{column}": x[:, column] for column in range(D)}
        elif form == "lists":
            table["features"] = list(x)
        else:
            table["features"] = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), D)
        pq.write_table(pa.table(table), path, row_group_size=group)
    source = ShardSource.from_files(paths, memory_bytes=2 * BUFFERS * 7 * (4 * D + 8))  # seven rows at a time
    assert_same(measure(source, **CHOSEN), measure(features, labels, **CHOSEN))


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(errors.MissingExtraError, match=r"tightframe\[parquet\]"):
        ShardSource.from_files([tmp_path / "x.parquet"])


def test_a_small_memory_gives_small_batches(files: tuple[Paths, Paths]) -> None:
    sample = 4 * D + 8
    source = ShardSource.from_files(*files, memory_bytes=2 * BUFFERS * 10 * sample)
    sizes = [len(batch.labels) for batch in source.batches("train")]
    assert max(sizes) == 10 and sum(sizes) == FILES * ROWS
    assert_same(measure(source, **CHOSEN), measure(*samples(), **CHOSEN))
    with pytest.raises(errors.RangeError, match=f"memory_bytes must be at least {2 * BUFFERS * sample}"):
        ShardSource.from_files(*files, memory_bytes=2 * BUFFERS * sample - 1)


def test_batches_that_are_kept_stay_as_they_are(files: tuple[Paths, Paths]) -> None:
    source = ShardSource.from_files(*files, memory_bytes=2 * BUFFERS * 10 * (4 * D + 8))
    batches = list(source.batches("train"))
    features, labels = samples()
    assert torch.equal(torch.cat([batch.features["features"] for batch in batches]), features)
    assert torch.equal(torch.cat([batch.labels for batch in batches]), labels)


def test_positions_and_ignored_labels(tmp_path: Path) -> None:
    features, labels = samples()
    labels[::7] = -100
    x, y = npy_files(tmp_path, features.view(-1, 6, D), labels.view(-1, 6), size=50)
    options = {"ignore_index": -100}
    found = measure(ShardSource.from_files(x, y, options=options), **CHOSEN)
    assert_same(found, measure(features.view(-1, 6, D), labels.view(-1, 6), **options, **CHOSEN))
    assert found["nc1"].standard_error == pytest.approx(
        measure(features.view(-1, 6, D), labels.view(-1, 6), **options, **CHOSEN)["nc1"].standard_error, rel=1e-9
    )


def test_the_classifier_of_files(files: tuple[Paths, Paths]) -> None:
    weight, bias = np.eye(K, D, dtype=np.float32), np.arange(K, dtype=np.float32)
    source = ShardSource.from_files(*files, weight=weight, bias=bias)
    expected = measure(ArraySource(*samples(), weight=weight, bias=bias), progress=False)
    assert_same(measure(source, progress=False), expected)
    with pytest.raises(errors.ClassifierError, match="weight must have shape"):
        ShardSource.from_files(*files, weight=weight[:, 1:])
    with pytest.raises(errors.ClassifierError, match="bias must come with"):
        ShardSource.from_files(*files, bias=bias)


# ---------------------------------------------------------------------- a folder that isn't whole


def refused(folder: Path) -> str:
    """What the error says that comes before any number."""
    with pytest.raises((errors.ShardError, errors.LabelError)) as caught:
        measure(ShardSource(folder), **CHOSEN)
    return str(caught.value)


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_no_manifest(tmp_path: Path) -> None:
    assert "has no manifest.json" in refused(tmp_path)
    assert "doesn't exist" in refused(tmp_path / "nowhere")
    (tmp_path / "manifest.json").write_text("{}")
    assert "isn't a manifest that this version of tightframe wrote" in refused(tmp_path)


def test_a_missing_shard(folder: Path) -> None:
    (folder / "train-00002.safetensors").unlink()
    assert "train-00002.safetensors is missing" in refused(folder)


def test_a_truncated_shard(folder: Path) -> None:
    os.truncate(folder / "train-00001.safetensors", 1000)
    assert "train-00001.safetensors is truncated: it has 1000 bytes" in refused(folder)


def test_a_foreign_shard_beside_the_others(folder: Path) -> None:
    shutil.copy(folder / "train-00001.safetensors", folder / "train-00009.safetensors")
    assert "train-00009.safetensors is foreign" in refused(folder)


def test_a_foreign_shard_of_the_same_size(folder: Path) -> None:
    """Its header says another dtype."""
    path = folder / "train-00001.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"F32"', b'"I32"'))
    assert "train-00001.safetensors is foreign: its header" in refused(folder)


@pytest.mark.parametrize("place", [-1, -3000, 5000])
def test_a_damaged_shard(folder: Path, place: int) -> None:
    flip(folder / "train-00002.safetensors", place)
    assert "train-00002.safetensors" in refused(folder)


def test_a_duplicate_in_another_place(folder: Path) -> None:
    shutil.copy(folder / "train-00001.safetensors", folder / "train-00002.safetensors")
    assert "train-00002.safetensors is damaged: the checksum" in refused(folder)


def test_a_duplicate_in_the_manifest(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    shards = manifest["splits"]["train"]["shards"]
    shards[1] = shards[0]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert "train-00000.safetensors is there twice" in refused(folder)


def test_a_damaged_or_missing_classifier(folder: Path) -> None:
    flip(folder / "classifier.safetensors", -1)
    assert "classifier.safetensors is damaged" in refused(folder)
    (folder / "classifier.safetensors").unlink()
    assert "classifier.safetensors is missing" in refused(folder)


def test_damage_in_out_of_distribution_samples(folder: Path) -> None:
    flip(folder / "ood-00000.safetensors", -1)
    assert "ood-00000.safetensors is damaged" in refused(folder)


def test_an_unfinished_extraction(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["complete"] = False
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert "isn't complete. Run it again" in refused(folder)


def test_a_missing_manifest_of_a_process(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["processes"] = 2
    (folder / "manifest.json").unlink()
    (folder / "manifest-0-of-2.json").write_text(json.dumps(manifest))
    assert "manifest-1-of-2.json is missing" in refused(folder)


# ---------------------------------------------------------------------- files that don't fit


def rejects(match: str, error: type[Exception], *arguments: Any, **options: Any) -> None:
    with pytest.raises(error, match=match):
        ShardSource.from_files(*arguments, **options)


def test_files_that_are_missing_or_no_arrays(files: tuple[Paths, Paths], tmp_path: Path) -> None:
    x, y = files
    rejects(r"x9\.npy doesn't exist", errors.StateError, [x[0].with_name("x9.npy")], y[:1])
    rejects("there is no file of features", errors.ShardError, [], [])
    rejects("features are read from", errors.StateError, [tmp_path], y[:1])
    (tmp_path / "x.npy").write_bytes(b"nonsense")
    rejects(r"can't read .*x\.npy as \.npy", errors.StateError, [tmp_path / "x.npy"], y[:1])
    (tmp_path / "x.safetensors").write_bytes(b"nonsense and more")
    rejects(r"x\.safetensors is damaged or truncated", errors.StateError, [tmp_path / "x.safetensors"])
    (tmp_path / "x.txt").touch()
    rejects(r"features are read from \.npy", errors.ShardError, [tmp_path / "x.txt"])
    save_file({"embeddings": torch.zeros(3, 2)}, tmp_path / "e.safetensors")
    rejects("has no array 'features'; it has: embeddings", errors.ShardError, [tmp_path / "e.safetensors"])
    rejects("has no labels: pass a file", errors.ShardError, x)


def test_files_of_another_layout(files: tuple[Paths, Paths], tmp_path: Path) -> None:
    _, y = files
    odd = tmp_path / "odd.npy"
    np.save(odd, np.asfortranarray(samples()[0][:ROWS].numpy()))
    rejects("columns one after the other; save np.ascontiguousarray", errors.ShardError, [odd], y[:1])
    np.save(odd, samples()[0][:ROWS].numpy().astype(">f4"))
    rejects("odd.npy holds >f4", errors.ShardError, [odd], y[:1])
    np.save(odd, np.zeros((ROWS, D), np.complex64))
    rejects("features must be floating point", errors.DtypeError, [odd], y[:1])
    np.save(odd, np.float32(1))
    rejects("a single number", errors.ShapeError, [odd], y[:1])


def test_truncated_and_longer_files(files: tuple[Paths, Paths]) -> None:
    x, y = files
    with x[1].open("ab") as file:
        file.write(b"more")
    rejects("x1.npy is damaged: it has .* 4 more than its header says", errors.StateError, x, y)
    os.truncate(x[1], x[1].stat().st_size - 5)
    rejects("x1.npy is truncated", errors.StateError, x, y)
    os.truncate(y[2], y[2].stat().st_size - 1)
    rejects("y2.npy is truncated", errors.StateError, x[2:], y[2:])


def test_another_dtype_or_width(files: tuple[Paths, Paths]) -> None:
    x, y = files
    features = np.load(x[2])
    np.save(x[2], features.astype(np.float16))
    rejects(r"x2.npy holds float16 \(N, 12\), but .*x0.npy holds float32", errors.ShardError, x, y)
    np.save(x[2], features[:, 1:])
    rejects(r"x2.npy holds float32 \(N, 11\), but", errors.ShardError, x, y)
    rejects(
        r"x2.npy: features are features \(11\), but those of the training", errors.ShardError, x[:2], y[:2], ood=x[2:3]
    )
    rejects("labels must be integers|floating point.*swapped", errors.DtypeError, y, y)


def test_pairs(files: tuple[Paths, Paths]) -> None:
    x, y = files
    rejects("4 files of features and 3 of labels: .*x2.npy has no labels", errors.ShardError, x, [y[0], y[1], y[3]])
    rejects("y3.npy has no features", errors.ShardError, x[:3], y)
    rejects("x1.npy is paired with .*y2.npy", errors.ShardError, x, [y[0], y[2], y[1], y[3]])
    np.save(y[1], np.load(y[1])[:-1])
    rejects(r"x1.npy has features \(300, 12\), but the labels in .*y1.npy are \(299,\)", errors.ShapeError, x, y)


def test_duplicates(files: tuple[Paths, Paths]) -> None:
    x, y = files
    rejects("x1.npy is there twice", errors.ShardError, [*x, x[1]], [*y, y[1]])
    shutil.copy(x[1], x[3])
    rejects("x3.npy holds the same as .*x1.npy", errors.ShardError, x, y)


def test_labels_beyond_k(files: tuple[Paths, Paths]) -> None:
    x, y = files
    labels = np.load(y[2])
    labels[17] = K
    np.save(y[2], labels)
    rejects(
        r"y2.npy, row 17: labels must lie in \[0, 5\); got 5 \(1 row\)", errors.LabelError, x, y,
        options={"num_classes": K},
    )  # fmt: skip
    assert ShardSource.from_files(x, y).num_classes == K + 1
    assert ShardSource.from_files(x, y, options={"ignore_index": K, "num_classes": K}).num_classes == K
    labels[17] = -1
    np.save(y[2], labels)
    rejects(r"y2.npy, row 17: labels must lie in \[0, K\); got -1", errors.LabelError, x, y)
    rejects("y2.npy, row 17: .* got -1", errors.LabelError, x[:2], y[:2], test=(x[2:], y[2:]))
    np.save(y[2], np.full(ROWS, -100))
    rejects("no training sample has a label", errors.LabelError, x[2:3], y[2:3], options={"ignore_index": -100})


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_values_that_arent_finite(files: tuple[Paths, Paths], value: float, dtype: type) -> None:
    x, y = files
    for path in x:
        np.save(path, np.load(path).astype(dtype))
    features = np.load(x[3])
    features[201, 7] = value
    np.save(x[3], features)
    source = ShardSource.from_files(x, y, memory_bytes=2 * BUFFERS * 10 * (4 * D + 8))
    with pytest.raises(errors.NonFiniteError, match=rf"x3.npy: .* row 201 holds {value} in column 7"):
        measure(source, **CHOSEN)


def test_a_file_that_shrinks_meanwhile(files: tuple[Paths, Paths]) -> None:
    source = ShardSource.from_files(*files)
    os.truncate(files[0][3], 2000)
    with pytest.raises(errors.ShardError, match=r"x3\.npy has become shorter"):
        measure(source, **CHOSEN)


# ---------------------------------------------------------------------- reading ahead


def test_buffers_are_used_again_and_threads_end() -> None:
    """Four of them, whatever is read; one that somebody keeps is replaced."""
    before = threading.active_count()
    seen: set[int] = set()

    def read(item: int, buffer: np.ndarray) -> None:
        buffer[:] = item

    for item, buffer in Prefetch(list(range(200)), read, 8):
        assert (buffer == item).all()
        seen.add(id(buffer))
    assert len(seen) == BUFFERS
    kept = [buffer for _, buffer in Prefetch(list(range(50)), read, 8)]
    assert [int(buffer[0]) for buffer in kept] == list(range(50))
    stream = iter(Prefetch(list(range(200)), read, 8))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_what_the_thread_raises_is_raised_here() -> None:
    def read(item: int, buffer: np.ndarray) -> None:
        if item == 3:
            raise OSError("a disk that fails")

    stream = iter(Prefetch(list(range(9)), read, 8))
    assert [next(stream)[0] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="a disk that fails"):
        next(stream)


# ---------------------------------------------------------------------- processes


def process(rank: int, world: int, folder: str, source: Callable[[str], ShardSource]) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting{world}", rank=rank, world_size=world
    )
    importlib.import_module("few_draws")
    opened = source(folder)
    rows = sum(len(batch.labels) for batch in opened.batches("train"))
    found = values(measure(opened, **CHOSEN))
    Path(folder, f"{rank}-of-{world}.json").write_text(json.dumps({"rows": rows, "values": found}))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def of_files(folder: str) -> ShardSource:
    x, y = (sorted(Path(folder).glob(f"{letter}?.npy")) for letter in "xy")
    return ShardSource.from_files(x, y, test=(x[:2], y[:2]))


def of_folder(folder: str) -> ShardSource:
    return ShardSource(Path(folder, "written"))


@pytest.mark.parametrize("world", [2, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("source", [of_files, of_folder])
def test_processes_share_the_blocks(
    world: int, source: Callable[[str], ShardSource], files: tuple[Paths, Paths], tmp_path: Path
) -> None:
    extract(ArraySource(*samples(), test=samples(1, 200)), tmp_path / "written", shard_bytes=10_000)
    torch.multiprocessing.start_processes(process, (world, str(tmp_path), source), world, start_method="forkserver")
    told = [json.loads((tmp_path / f"{rank}-of-{world}.json").read_text()) for rank in range(world)]
    assert sum(each["rows"] for each in told) == FILES * ROWS
    assert all(0 < each["rows"] < FILES * ROWS for each in told)
    expected = values(measure(source(str(tmp_path)), **CHOSEN))
    for each in told:
        assert each["values"] == pytest.approx(expected, rel=1e-9)


# ---------------------------------------------------------------------- memory

_MEASURED = """
import sys
from pathlib import Path
from tightframe import measure
from tightframe.sources import ShardSource
x, y = (sorted(Path(sys.argv[1]).glob(f"{letter}*.npy")) for letter in "xy")
report = measure(ShardSource.from_files(x, y), progress=False)
# not getrusage: its peak counts that of the process that started this one
peak = next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(report.facts.samples, peak)
"""


@pytest.mark.slow
def test_three_gigabytes_in_one(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    rows, width, classes = 125_000, 1024, 100
    means = generator.standard_normal((classes, width), np.float32)
    for number in range(12):
        labels = generator.integers(0, classes, rows)
        features = np.lib.format.open_memmap(tmp_path / f"x{number:02d}.npy", "w+", np.float16, (rows, width))
        for start in range(0, rows, 10_000):
            some = labels[start : start + 10_000]
            features[start : start + 10_000] = means[some] + generator.standard_normal((len(some), width), np.float32)
        del features
        np.save(tmp_path / f"y{number:02d}.npy", labels)
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, str(tmp_path)], capture_output=True, text=True, check=True, timeout=1700
    )
    number, peak = map(int, done.stdout.split())
    assert number == 12 * rows
    assert peak / 2**20 <= 1, f"{peak / 2**10:.0f} MiB"
