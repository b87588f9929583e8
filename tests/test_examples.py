"""The examples in docstrings run as they stand and give what they say."""

import doctest
import importlib
import pkgutil

import pytest

import tightframe

MODULES = sorted(
    module.name for module in pkgutil.walk_packages(tightframe.__path__, "tightframe.") if "__main__" not in module.name
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    outcome = doctest.testmod(importlib.import_module(name))
    assert outcome.failed == 0
