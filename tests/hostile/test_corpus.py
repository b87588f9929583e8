"""Whatever a file holds: it is read or refused in one typed line, at once, in little memory, without running it."""

from __future__ import annotations

import os
import random
import resource
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from hostile.corpus import KINDS
from tightframe.errors import TightframeError

CASES = 2000
SECONDS = 30  # for one case, on a machine that is busy
MEMORY = 512 << 20  # bytes that a case of a few kilobytes may take

pytestmark = pytest.mark.skipif(os.name != "posix", reason="limits of memory and time are POSIX's")


@contextmanager
def limits() -> Iterator[None]:
    """A limit of memory and of time; what exceeds it raises MemoryError or TimeoutError."""

    def late(*_: object) -> None:
        raise TimeoutError(f"it took more than {SECONDS} s")

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + MEMORY, hard))
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def outcome(kind: str, seed: int, folder: Path) -> str | None:
    """What is wrong with how a case ends; None if nothing is."""
    make, read = KINDS[kind]
    case = make(random.Random(f"{kind} {seed}"), folder)
    try:
        with limits(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(case)
    except TightframeError as error:
        message = str(error)
        if "\n" in message or len(message) > 1500:
            return f"{type(error).__name__} of more than a line: {message[:200]!r}"
        if "more memory than" in message or "TimeoutError" in message or "allocate" in message:
            return f"beyond the limits: {message[:200]}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    return "code was run" if (folder / "broken-in").exists() else None


def check(kind: str, seeds: range, tmp_path: Path) -> None:
    wrong = {}
    for seed in seeds:
        folder = tmp_path / str(seed)
        folder.mkdir()
        if (problem := outcome(kind, seed, folder)) is not None:
            wrong[seed] = problem
    assert not wrong, "\n".join(f"{kind} {seed}: {problem}" for seed, problem in wrong.items())


@pytest.mark.parametrize("kind", KINDS)
def test_some_cases(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(kind, range(100 // len(KINDS) + 1), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_all_cases(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(kind, range(CASES // len(KINDS) + 1), tmp_path)
