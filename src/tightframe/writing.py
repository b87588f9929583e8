"""Writing files: whole or not at all, with the umask's permissions, and to a folder by one run at a time."""

from __future__ import annotations

import errno
import gc
import json
import os
import re
import secrets
import sys
import warnings
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tightframe.errors import DtypeError, FolderWarning, StateError
from tightframe.reading.safetensors import NAMES

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_PARTIAL = re.compile(r"\.[0-9a-f]{16}\.tightframe-partial")
_HELD_ELSEWHERE = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK}


def write_whole(path: str | os.PathLike[str], parts: Iterable[Any]) -> None:
    """Write a file of bytes that exists as a whole or not at all, even if the process or the machine stops.

    Raises: StateError for a folder, device or pipe at the path; OSError, which leaves the file as it was.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        kind = "folder" if path.is_dir() else "device or pipe"
        raise StateError(f"{path} is a {kind}, not a file; choose another name.")
    partial = path.with_name(f".{secrets.token_hex(8)}.tightframe-partial")
    try:
        with partial.open("xb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename == os.fspath(partial):
            raise OSError(error.errno, error.strerror, os.fspath(path)) from None
        raise
    if os.name == "posix":
        with suppress(OSError):  # the file is in its place; not every file system syncs folders
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def write_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file with `write_whole`, one tensor after the other, so that none is copied but those that
    are on another device or not contiguous.

    Raises: DtypeError for a dtype that the format lacks; as `write_whole`.
    """
    tensors = dict(sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])))  # all are aligned
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, tensor in tensors.items():
        if tensor.dtype not in NAMES:
            raise DtypeError(f"{name!r} has dtype {tensor.dtype}, which safetensors files lack; convert it first.")
        start, end = end, end + tensor.numel() * tensor.dtype.itemsize
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)
    write_whole(path, chain([len(text).to_bytes(8, "little"), text], map(_content, tensors.values())))


def _content(tensor: Tensor) -> Any:
    """The bytes of a tensor, in its own memory if possible."""
    own = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    return own.reshape(-1).view(torch.uint8).numpy()


def partials_in(folder: Path) -> Iterator[Path]:
    """Files that `write_whole` had not finished when its process was killed, or is writing now."""
    return (path for path in folder.glob(".*.tightframe-partial") if _PARTIAL.fullmatch(path.name) and path.is_file())


class WriteLock:
    """The right to write to a folder, which one run has at a time: a lock on an empty file in it.

    It ends with `release`, garbage collection, or the death of the process. Copies, pickles and forked processes don't
    hold it. Where the file system has no locks, a FolderWarning says so.

    Args:
        copied: a copy of another lock, maybe in another process; for the advice in errors.
    """

    def __init__(self, path: Path, copied: bool = False):
        self.path = path
        self._copied = copied
        self._descriptor: int | None = None

    def __reduce__(self) -> tuple[type[WriteLock], tuple[Path, bool]]:
        return WriteLock, (self.path, True)

    def __del__(self) -> None:
        self.release()

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    def acquire(self, *, create: bool = True, take_over: bool = False) -> None:
        """Take the lock, unless it is held already.

        Args:
            create: False: only if its file exists.
            take_over: take it from another holder in this process.

        Raises: StateError if another run holds it; OSError if the file can't be opened.
        """
        if self._descriptor is not None or not (create or self.path.exists()):
            return
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            here = self._lock(descriptor, take_over)
        except BaseException:
            os.close(descriptor)
            raise
        if not here:
            folder, local = self.path.parent, _holder(descriptor) is not None
            os.close(descriptor)
            where, advice = "", "wait for its end"
            if local:
                where, advice = " from this process", "call close() of its Monitor"
            elif self._copied:
                advice = "make the Monitor in the process that measures"
            raise StateError(f"another run writes to {folder}{where}: {advice}, or choose another folder.")
        self._descriptor = descriptor
        _HELD.add(self)

    def _lock(self, descriptor: int, take_over: bool) -> bool:
        """Whether the lock could be taken; True with a warning where there are no locks."""
        for attempt in range(2):
            try:
                if sys.platform == "win32":
                    msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
                else:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in _HELD_ELSEWHERE:
                    warnings.warn(
                        f"the file system of {self.path.parent} has no locks ({error.strerror}): make sure that no "
                        "other run writes to this folder.",
                        FolderWarning,
                        stacklevel=2,
                    )
                    return True
                holder = _holder(descriptor)
                if attempt or holder is None:
                    return False
                if take_over:
                    holder.release()
                else:
                    del holder
                    gc.collect()  # it may be garbage already
            else:
                return True
        return False

    def release(self) -> None:
        """Let other runs write."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)


_HELD: weakref.WeakSet[WriteLock] = weakref.WeakSet()


def _holder(descriptor: int) -> WriteLock | None:
    """The object in this process that holds the lock on the same file."""
    own = os.fstat(descriptor)
    for lock in list(_HELD):
        if (held := lock._descriptor) is not None and os.path.samestat(own, os.fstat(held)):
            return lock
    return None


def _let_go() -> None:
    """A forked process would go on holding the locks after the death of the one that took them."""
    for lock in list(_HELD):
        lock.release()
        lock._copied = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
