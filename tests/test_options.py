"""`Measuring`: an option is declared once, and is then everywhere; wrong ones are refused before anything runs."""

import inspect
import re
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tightframe import Monitor, measure
from tightframe.cli import main
from tightframe.cli.options import spread
from tightframe.errors import ChoiceError, RangeError
from tightframe.options import Measuring

NAMES = [each.name for each in fields(Measuring)]


def test_every_option_is_described_and_an_argument_of_measure() -> None:
    described = inspect.getdoc(Measuring) or ""
    parameters = inspect.signature(measure).parameters
    for name in NAMES:
        assert re.search(rf"^ +(\w+, )*{name}(, \w+)*: ", described, re.M), name
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
        assert parameters[name].default == next(each.default for each in fields(Measuring) if each.name == name)


def test_every_option_with_a_sentence_is_a_flag_and_every_flag_an_option(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["tightframe", "measure", "--help"])
    with pytest.raises(SystemExit):
        main()
    page = " ".join(capsys.readouterr().out.split())
    for flag, field in Measuring.flags():
        assert flag in page and field.metadata["help"].split(".")[0][:40] in page, flag
    silent = {each.name for each in fields(Measuring) if each.metadata["flag"] == ""}
    assert silent == {"class_names", "training", "unpack", "second_pass", "distributed", "context"}


def test_flags_reach_the_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []

    def record(files: Any, subject: Any, *, options: dict[str, Any], **_: Any) -> Any:
        seen.append(options)
        raise RangeError("stop")

    monkeypatch.setattr("tightframe.cli.measure.measured", record)
    flags = ["--min-count", "3", "--no-covariance", "--metric", "nc1", "--metric", "cdnv", "--decisions", "200"]
    monkeypatch.setattr(sys, "argv", ["tightframe", "measure", "a.npz", *flags, "--folds", "0"])
    with pytest.raises(SystemExit):
        main()
    settings = Measuring.of(seen[0])
    assert settings.min_count == 3 and settings.covariance is False and settings.decisions == 200
    assert [getattr(each, "name", each) for each in settings.metrics or ()] == ["nc1", "cdnv"]
    assert settings.folds is None


def test_the_monitor_takes_every_option() -> None:
    model, x, labels = nn.Linear(4, 3), torch.randn(30, 4), torch.arange(30) % 3
    for changes in ({"min_count": 2}, {"decisions": None}, {"metrics": ["nc1"]}, {"ignore_index": 2}):
        options = {**Measuring().to_dict(), **changes, "progress": False}
        report = Monitor(nn.Sequential(nn.Identity(), model), **options).measure([(x, labels)])
        expected = measure(nn.Sequential(nn.Identity(), model), [(x, labels)], **{**changes, "progress": False})
        assert report.values == pytest.approx(expected.values, nan_ok=True)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"metric": "nc1"}, TypeError, "unknown option 'metric'; choose from layers, features"),
        ({"metrics": ["nc9"]}, ChoiceError, "got 'nc9'. Did you mean 'nc1"),
        ({"conventions": ["papyan"]}, ChoiceError, "name in .*CONVENTIONS; got 'papyan'"),
        ({"positions": "middle"}, ChoiceError, "positions must be one of"),
        ({"task": "ranking"}, ChoiceError, "task must be one of classification, multilabel, regression; got 'ranking'"),
        ({"decisions": "some"}, ChoiceError, "decisions must be \"all\", .*0 for none; got 'some'"),
        ({"decisions": -3}, RangeError, "or a number of samples >= 0; got -3"),
        ({"min_count": 0}, RangeError, "min_count must be at least 1; got 0"),
        ({"folds": 1}, RangeError, "folds must be at least 2, or 0 for none; got 1"),
        ({"num_classes": 0}, RangeError, "num_classes must be at least 1; got 0"),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    class Untouched(nn.Module):
        def forward(self, x: object) -> None:
            raise AssertionError("run")

    with pytest.raises(error, match=message):
        measure(Untouched(), [(1, 2)], **options)


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ("measure x0 x1 --labels y0 y1 --all", "measure x0 x1 --labels y0 --labels y1 --all"),
        ("measure x0 --labels y0 --html p", "measure x0 --labels y0 --html p"),
        ("measure --labels y0 x0", "measure --labels y0 x0"),
        ("measure x0 x1 --labels y0 --labels y1", "measure x0 x1 --labels y0 --labels y1"),
    ],
)
def test_a_flag_of_several_files_as_shells_write_it(arguments: str, found: str) -> None:
    assert spread(arguments.split(), "--labels") == found.split()
