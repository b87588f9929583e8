"""Measurements of the demonstration without what takes most of their time."""

from functools import partial

import pytest

from tightframe import measure


@pytest.fixture
def quick_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without standard errors and detectors, which the reports in `test_run.py` have."""
    quick = partial(measure, folds=None, detectors=False)
    monkeypatch.setattr("tightframe.demo.run.measure", quick)
