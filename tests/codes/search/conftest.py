"""Searches by a clock that is the same on every machine, and with few draws."""

import sys
from types import SimpleNamespace

import pytest
from fake_clock import Clock

from tightframe.codes.search import energy, search


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of searches."""
    made = Clock()
    monkeypatch.setattr(search, "time", SimpleNamespace(monotonic=made))
    monkeypatch.setattr(energy, "monotonic", made)
    return made


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Complete layers are looked for in 20 caps and sections of a code instead of 1000."""
    monkeypatch.setattr(sys.modules["tightframe.codes.search.from_codes"], "_DRAWS", (10, 20))
