"""The examples in docstrings run as a reader pastes them, with no names but their own, and print what they say."""

import doctest
import importlib
import pkgutil

import pytest

import tightframe

MODULES = sorted(
    module.name for module in pkgutil.walk_packages(tightframe.__path__, "tightframe.") if "__main__" not in module.name
)


def examples(name: str) -> list[doctest.DocTest]:
    """The docstrings of a module with examples."""
    tests = doctest.DocTestFinder().find(importlib.import_module(name), globs={}, extraglobs={})
    return [test for test in tests if test.examples]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    runner = doctest.DocTestRunner()
    for test in examples(name):
        runner.run(test)
    assert runner.summarize(verbose=False).failed == 0


@pytest.mark.parametrize("text", ["1 + 1\n3", "ClassStatistics.empty(2, 2)\nClassStatistics(0 samples)"])
def test_wrong_examples_and_missing_imports_fail(text: str) -> None:
    test = doctest.DocTestParser().get_doctest(f">>> {text}\n", {}, "example", None, 0)
    assert doctest.DocTestRunner(verbose=False).run(test, out=lambda _: None).failed == 1
