"""Files are written whole, with the umask's permissions; a lock is one run's, and dies with its process."""

import copy
import errno
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tightframe import ClassStatistics, prototypes, writing
from tightframe.errors import DtypeError, FolderWarning, StateError
from tightframe.reading.safetensors import DTYPES
from tightframe.writing import WriteLock, partials_in, write_tensors, write_whole

TENSORS = {
    "odd": torch.tensor([True, False, True]),
    "scalar": torch.tensor(1.5, dtype=torch.float64),
    "empty": torch.empty(0, 3),
    "turned": torch.arange(6.0).reshape(2, 3).T,
    "conjugate": torch.tensor([1 + 2j, 3 - 1j]).conj(),
}


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_permissions_are_the_umasks(tmp_path: Path, mask: int) -> None:
    statistics = ClassStatistics.from_features(torch.randn(6, 2), torch.arange(6) % 3, 3)
    before = os.umask(mask)
    try:
        write_whole(tmp_path / "a", [b"1"])
        statistics.save(tmp_path / "b")
        prototypes.simplex(3, 4).save(tmp_path / "c")
        (tmp_path / "plain").touch()
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("a", "b", "c", "plain"), 0o666 & ~mask)


def test_tensors_come_back(tmp_path: Path) -> None:
    path = tmp_path / "tensors.safetensors"
    write_tensors(path, TENSORS, {"of": "é"})
    back = load_file(path)
    assert back.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name], tensor.resolve_conj())
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"of": "é"}


@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype_comes_back(tmp_path: Path, name: str) -> None:
    tensor = torch.tensor([[1.0, 0.0, 1.0]]).to(DTYPES[name])
    write_tensors(tmp_path / "t", {"one": torch.ones(1, dtype=torch.bool), "values": tensor})
    back = load_file(tmp_path / "t")["values"]
    assert back.dtype == tensor.dtype
    assert torch.equal(back.to(torch.complex64), tensor.to(torch.complex64))


def test_a_dtype_that_the_format_lacks(tmp_path: Path) -> None:
    with pytest.raises(DtypeError, match=r"'w' has dtype torch.complex128, which safetensors files lack"):
        write_tensors(tmp_path / "t", {"w": torch.zeros(1, dtype=torch.complex128)})
    assert list(tmp_path.iterdir()) == []


def test_contiguous_tensors_are_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written is the tensors' own memory, one after the other."""
    tensors = {name: torch.randn(1000) for name in "ab"}
    written = []

    def look(path: Path, parts: Any) -> None:
        written.extend(part.__array_interface__["data"][0] for part in list(parts)[2:])

    monkeypatch.setattr(writing, "write_whole", look)
    write_tensors(tmp_path / "t", tensors)
    assert written == [tensor.data_ptr() for tensor in tensors.values()]


class StopError(Exception):
    pass


@pytest.mark.parametrize("failure", [StopError(), KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left")])
def test_a_failure_leaves_the_file_as_it_was(tmp_path: Path, failure: BaseException) -> None:
    def parts() -> Iterator[bytes]:
        yield b"new" * 10_000
        raise failure

    path = tmp_path / "file"
    write_whole(path, [b"old"])
    with pytest.raises(type(failure)):
        write_whole(path, parts())
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"old"


def test_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    """The kernel itself refuses."""
    program = f"""
import resource, torch
from tightframe.writing import write_tensors
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    write_tensors({str(tmp_path / "t")!r}, {{"w": torch.zeros(4000)}})
except OSError as error:
    print(error.errno)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) == errno.EFBIG
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_only_files_are_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(StateError, match=f"{path} is a ({kind}|device or pipe), not a file; choose another name"):
        write_whole(path, [b"1"])
    assert path.exists() and not path.is_file()


@pytest.mark.parametrize("folder", ["missing", "file"])
def test_a_missing_folder_is_told_by_the_files_name(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / folder / "name"
    with pytest.raises((FileNotFoundError, NotADirectoryError)) as failure:
        write_whole(path, [b"1"])
    assert failure.value.filename == str(path)
    assert "partial" not in str(failure.value)


def test_a_link_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    write_whole(tmp_path / "link", [b"new"])
    assert (tmp_path / "mine").read_bytes() == b"mine"
    assert (tmp_path / "link").read_bytes() == b"new"


def test_partial_files_are_known_by_their_names(tmp_path: Path) -> None:
    seen = []

    def parts() -> Iterator[bytes]:
        yield b"half"
        seen.extend(partials_in(tmp_path))
        yield b"whole"

    for name in (".0123456789abcdef.partial", "0123456789abcdef.tightframe-partial", ".0123.tightframe-partial"):
        (tmp_path / name).touch()
    write_whole(tmp_path / "file", parts())
    assert len(seen) == 1 and not seen[0].exists()


# ---------------------------------------------------------------------- locks


HOLD = """
import sys, time
from pathlib import Path
from tightframe.writing import WriteLock
lock = WriteLock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.lock"


def held(path: Path) -> WriteLock:
    lock = WriteLock(path)
    lock.acquire()
    lock.acquire()  # once more is nothing
    return lock


def test_a_lock_in_one_process(path: Path) -> None:
    first, second = held(path), WriteLock(path)
    with pytest.raises(StateError, match=f"another run writes to {path.parent} from this process: call close"):
        second.acquire()
    first.release()
    second.acquire()
    assert path.read_bytes() == b""


def test_a_lock_is_taken_over_in_one_process_only(path: Path) -> None:
    first, second = held(path), WriteLock(path)
    second.acquire(take_over=True)
    assert (first.held, second.held) == (False, True)
    with pytest.raises(StateError, match="from this process"):
        first.acquire()
    second.release()
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        with pytest.raises(StateError, match="wait for its end"):
            second.acquire(take_over=True)
        process.kill()


def test_a_lock_of_another_process_dies_with_it(path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        with pytest.raises(StateError, match=f"another run writes to {path.parent}: wait for its end, or choose"):
            held(path)
        process.send_signal(signal.SIGKILL)
    held(path)


def test_garbage_holds_no_lock(path: Path) -> None:
    lock = held(path)
    del lock
    lock = held(path)
    lock.itself = lock  # type: ignore[attr-defined]  # only the collector of cycles finds it
    del lock
    held(path)


def test_copies_hold_no_lock(path: Path) -> None:
    lock = held(path)
    for other in (copy.copy(lock), copy.deepcopy(lock), pickle.loads(pickle.dumps(lock))):
        other.release()
        with pytest.raises(StateError, match="another run"):
            other.acquire()


def test_a_forked_process_holds_no_lock(path: Path) -> None:
    """Nor does it release that of the process which forked it, and it may go on living after that one."""
    lock = held(path)
    reading, writing_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            lock.release()
            try:
                lock.acquire()
                os.write(writing_end, b"taken")
            except StateError:
                os.write(writing_end, b"refused")
            signal.pause()
        finally:
            os._exit(1)
    try:
        assert os.read(reading, 10) == b"refused"
        lock.release()
        held(path)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
        os.close(writing_end)


def test_a_lock_is_only_taken_where_one_is(path: Path) -> None:
    WriteLock(path).acquire(create=False)
    assert not path.exists()
    lock = held(path)
    with pytest.raises(StateError, match="another run"):
        WriteLock(path).acquire(create=False)
    lock.release()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
def test_a_file_system_without_locks(path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(writing.fcntl, "flock", refuse)
    with pytest.warns(FolderWarning, match=rf"the file system of {path.parent} has no locks \(.*\): make sure") as seen:
        lock = held(path)
    assert len(seen) == 1
    lock.release()


def test_threads_take_one_lock(path: Path) -> None:
    taken: list[bool] = []
    locks = [WriteLock(path) for _ in range(8)]

    def take(lock: WriteLock) -> None:
        try:
            lock.acquire()
            taken.append(True)
        except StateError:
            taken.append(False)

    threads = [threading.Thread(target=take, args=(lock,)) for lock in locks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == [False] * 7 + [True]
