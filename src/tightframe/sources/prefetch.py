"""Blocks that a thread reads ahead into reused memory."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator
from queue import Queue
from threading import Event, Thread
from typing import Generic, TypeVar

import numpy as np

Item = TypeVar("Item")

BUFFERS = 4  # one being read, one waiting, one in use, and one that the caller's loop may still reference
_OWN = 2  # references to an unused buffer: the deque, and the argument of `getrefcount`


class _Failed:
    def __init__(self, error: BaseException):
        self.error = error


class Prefetch(Generic[Item]):
    """Iterates over (item, buffer) pairs while a thread reads the next items into their buffers.

    A buffer is reused after two further draws, unless something still references it: a batch that the caller holds is
    never overwritten.

    Args:
        items: items to read.
        read: called in the thread with an item and the buffer to fill; the iteration raises its errors.
        size: size of each buffer in bytes.
    """

    def __init__(self, items: list[Item], read: Callable[[Item, np.ndarray], None], size: int):
        self._items, self._read, self._size = items, read, size

    def __iter__(self) -> Iterator[tuple[Item, np.ndarray]]:
        free: Queue[np.ndarray | None] = Queue()
        ready: Queue[tuple[Item, np.ndarray] | _Failed | None] = Queue()
        stopped = Event()
        for _ in range(min(BUFFERS, len(self._items))):
            free.put(np.empty(self._size, np.uint8))
        thread = Thread(target=self._work, args=(free, ready, stopped), daemon=True, name="tightframe prefetch")
        thread.start()
        lent: deque[np.ndarray] = deque()
        try:
            while (got := ready.get()) is not None:
                if isinstance(got, _Failed):
                    raise got.error
                lent.append(got[1])
                yield got
                del got
                while len(lent) > 1:
                    unused = sys.getrefcount(lent[0]) <= _OWN
                    buffer = lent.popleft()
                    free.put(buffer if unused else np.empty(self._size, np.uint8))
                    del buffer
        finally:
            stopped.set()
            free.put(None)  # wakes the thread
            thread.join()

    def _work(
        self,
        free: Queue[np.ndarray | None],
        ready: Queue[tuple[Item, np.ndarray] | _Failed | None],
        stopped: Event,
    ) -> None:
        try:
            for item in self._items:
                buffer = free.get()
                if buffer is None or stopped.is_set():
                    return
                self._read(item, buffer)
                ready.put((item, buffer))
                del buffer
            ready.put(None)
        except BaseException as error:  # the iteration raises it
            ready.put(_Failed(error))
