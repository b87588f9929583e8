"""`tightframe rank`: features in files, run folders, or models with a folder of images, as a ranking."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tightframe.cli.options import changed
from tightframe.cli.subject import Subject
from tightframe.errors import OptionError, StateError
from tightframe.options import Measuring
from tightframe.ranking import failures_of_subject, ranked
from tightframe.report import Ranking, Report, RunFolder
from tightframe.report.ranking import Ranked, require_measures
from tightframe.sources import FeatureSource, ShardSource
from tightframe.sources.files import from_files


def ranking(
    subjects: Sequence[str],
    subject: Subject,
    *,
    labels: Path | None,
    shots: Sequence[int],
    by: str | None,
    per_class: bool | None,
    options: Mapping[str, Any],
) -> Ranking:
    """The ranking of what the arguments of the command name.

    Args:
        subjects: files of features, folders that `extract` wrote, run folders, or models as --model names them, with
            =FILE for a checkpoint.
        subject: the data for models.

    Raises: OptionError for flags that exclude each other or lack another; and the errors of the sources.
    """
    settings = Measuring.of(options).having(decisions=None, detectors=False, conventions=())
    models = [each for each in subjects if _is_model(each)]
    if not models:
        flags = [f"--{name}" for name in ("images", "data") if getattr(subject, name)]
        flags += changed(options, [each for each in Measuring.flags() if each[1].metadata["of"] == "model"])
        if flags:
            raise OptionError(f"{flags[0]} needs a model: timm:NAME, hf:FOLDER or module:function.")
    elif subject.images is None and subject.data is None:
        raise OptionError(f"the model {models[0]} needs --images or --data.")
    for model in models:
        replace(subject, **_model(model)).require_consistent(options)
    for path in (Path(each) for each in subjects if not _is_model(each)):
        if not path.exists():
            raise StateError(f"{path} doesn't exist.")
    if len(subjects) == 1 and Path(subjects[0]).is_file():
        raise OptionError("a ranking needs at least two encoders or layers; got one file.")
    require_measures(shots, by)
    rows: list[Ranked] = []
    for name, each in zip(_names(subjects), subjects, strict=True):
        with (
            failures_of_subject(each if _is_model(each) else str(Path(each))),
            _source(each, subject, labels=labels, settings=settings, options=options) as source,
        ):
            rows += ranked(name, source, settings, shots, per_class)
    return Ranking.of(rows, by)


@contextmanager
def _source(
    each: str, subject: Subject, *, labels: Path | None, settings: Measuring, options: Mapping[str, Any]
) -> Iterator[Report | FeatureSource]:
    """The report or source that an argument names; failures in a model's forward pass name the model."""
    path = Path(each)
    if _is_model(each):
        model = replace(subject, **_model(each), own_classifier=settings.features is not None)
        with model.failures():
            yield model.source(options)
    elif (path / "run.json").is_file():
        yield RunFolder(path).report()
    elif path.is_dir():
        yield ShardSource(path, options=options)
    else:
        yield from_files([path], labels, options=options)


def _is_model(text: str) -> bool:
    """Whether an argument names a model: it has a colon, and no such file exists."""
    return ":" in text and not Path(text).exists()


def _model(text: str) -> dict[str, Any]:
    """The model and the checkpoint of MODEL=FILE: the first file that exists after an =, as names may have one."""
    splits = [(text[:place], Path(text[place + 1 :])) for place, each in enumerate(text) if each == "="]
    if not splits or Path(text.partition(":")[2]).exists():
        return {"model": text}
    model, checkpoint = next((each for each in splits if each[1].is_file()), splits[0])
    return {"model": model, "checkpoint": checkpoint}


def files_of(subjects: Sequence[str]) -> list[Path]:
    """The files and folders that the arguments of the command name, checkpoints among them."""
    named = [_model(each).get("checkpoint") if _is_model(each) else Path(each) for each in subjects]
    return [path for path in named if path is not None and path.exists()]


def _names(subjects: Sequence[str]) -> list[str]:
    """The shortest distinct ends of paths, without the suffix of files; models as they are given."""
    if repeated := [each for each in subjects if subjects.count(each) > 1]:
        raise OptionError(f"{repeated[0]} is given twice; name each subject once.")
    parts = {each: [each] if _is_model(each) else [*Path(os.path.abspath(each)).parts] for each in subjects}
    for length in range(1, max(map(len, parts.values())) + 1):
        ends = ["/".join(parts[each][-length:]) for each in subjects]
        bare = [end if ":" in end else end.removesuffix(Path(end).suffix) for end in ends]
        for names in (bare, ends):
            if len(set(names)) == len(names):
                return names
    return list(subjects)
