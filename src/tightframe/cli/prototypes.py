"""`tightframe prototypes`: from options or a file to prototypes, with what they prove about themselves."""

from __future__ import annotations

import inspect
import json
import math
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

from tightframe.choices import require_choice
from tightframe.cli.failures import INTERRUPTED
from tightframe.cli.matrices import read_cost, read_matrix
from tightframe.cli.output import require_writable, tell_written
from tightframe.codes import Certificate, certification_seconds, certify, largest_cosine
from tightframe.codes.bounds import cosine_bound
from tightframe.codes.pairs import pair_sections
from tightframe.errors import OptionError, RangeError, StateError
from tightframe.flags import flags_of
from tightframe.hierarchy import Hierarchy
from tightframe.memory import require_memory
from tightframe.numerics import norms
from tightframe.prototypes import Prototypes
from tightframe.prototypes.semantic import similarity_of
from tightframe.prototypes.table import MEANS, PROTOTYPES, STATISTICS
from tightframe.render.terminal import show
from tightframe.search import Progress, Search
from tightframe.sections import Column, Section, Table, as_text

_CHARACTERS = 60  # of a value in a provenance
_LONG = 5.0  # seconds that a certificate may take without a word about it
_EVERY = 3.0  # seconds between lines of progress where there is no terminal
_EQUAL, _UNEQUAL = 1e-3, 1e-2  # relative spreads of lengths that are meant to be equal, and that aren't
_COMPARED = 20_000  # columns up to which their cosines are looked at to find a transposed file

Construct = Callable[..., Prototypes]
_OPTIONS = {
    "num_classes": ("-k",),
    "num_targets": ("-k",),
    "dim": ("-d",),
    "name": ("--code",),
    "cost": ("--cost", "--tree"),
    "similarity": ("--vectors",),
    "gram": ("--gram",),
    "alpha": ("--alpha",),
    "gamma": ("--gamma",),
    **{field.name: (flag,) for flag, field in flags_of(Search)},
}
"""The options that give a parameter of a construction."""
_SEPARATING = ("best", "separated")  # objectives whose score is the largest cosine
_PER_CLASS = ("cost", "similarity", "gram")  # parameters that say how many classes there are


# ---------------------------------------------------------------------- building


def build_prototypes(objective: str | None, given: Mapping[str, Any], console: Console) -> Prototypes:
    """The prototypes of an objective, with live progress where they are searched for.

    Args:
        objective: its name; None for the only one that has all the options given, or else for the strongest route.
        given: values of options by their name, such as -k or --cost.

    Raises: ChoiceError listing the objectives; OptionError for options that are missing, exclude each other or belong
    to other objectives; the errors of the construction.
    """
    objectives, asked = constructions(), objective is not None
    if objective is None:
        fitting = [name for name, construct in objectives.items() if given.keys() <= _accepted(construct).keys()]
        objective = "code" if "--code" in given else fitting[0] if len(fitting) == 1 else "best"
    require_choice(objective, objectives, "--objective")
    construct = objectives[objective]
    parameters = inspect.signature(construct).parameters
    accepted = _accepted(construct)
    if {"--cost", "--tree"} <= given.keys():
        raise OptionError("--cost and --tree exclude each other: a tree has costs of its own.")
    for option in (option for option in given if option not in accepted):
        others = [name for name, other in objectives.items() if option in _accepted(other)]
        got = f"; got {objective}" if asked else ""
        raise OptionError(f"{option} needs --objective {' or '.join(others)}{got}.")
    arguments = {accepted[option]: _read(option, value) for option, value in given.items()}
    if "num_classes" in arguments and "dim" in arguments:
        K, D = arguments["num_classes"], arguments["dim"]
        require_memory(16 * K * D, f"a search for {K:,} vectors in {D:,} dimensions")
    if missing := [
        " or ".join(_OPTIONS[name])
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty and name not in arguments
    ]:
        raise OptionError(f"--objective {objective} needs {' and '.join(missing)}.")
    if "num_classes" not in parameters and (K := arguments.pop("num_classes", None)) is not None:
        found = next(_num_classes(arguments[name]) for name in _PER_CLASS if name in arguments)
        if found != K:
            raise OptionError(f"-k is {K}, but the file has {found} classes; leave out -k.")
    if "progress" not in parameters:
        return _build(console, construct, arguments)
    sizes = (arguments["num_classes"], arguments["dim"]) if objective in _SEPARATING else None
    with _Watch(console, sizes) as watch:
        return _build(console, construct, {**arguments, "progress": watch})


def _build(console: Console, construct: Construct, arguments: Mapping[str, Any]) -> Prototypes:
    """What a construction makes; its warnings become lines."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        prototypes = construct(**arguments)
    for warning in caught:
        console.print(Text(as_text(f"warning: {warning.message}"), "yellow"), soft_wrap=True)
    return prototypes


def constructions() -> dict[str, Construct]:
    """The constructions by name but for those that begin with data rather than with files of a few numbers."""
    return {name: row.build for name, row in PROTOTYPES.items() if row.needs not in (STATISTICS, MEANS)}


def _accepted(construct: Construct) -> dict[str, str]:
    """The options that a construction has, and the parameter that each one gives."""
    names = list(inspect.signature(construct).parameters)
    if "num_classes" not in names and any(name in names for name in _PER_CLASS):
        names.append("num_classes")  # to be checked
    return {option: name for name in names for option in _OPTIONS.get(name, ())}


def _read(option: str, value: Any) -> Any:
    """What an option stands for: the content of its file, or itself."""
    if option == "--tree":
        return Hierarchy.read(value)
    if option == "--cost":
        return read_cost(value)
    if option == "--vectors":
        matrix = read_matrix(value)
        symmetric = matrix.shape[0] == matrix.shape[1] and torch.allclose(matrix, matrix.mT)
        return matrix if symmetric else similarity_of(matrix)  # word vectors are never symmetric
    return read_matrix(value) if isinstance(value, Path) else value


def _num_classes(cost: torch.Tensor | Hierarchy) -> int:
    return cost.num_classes if isinstance(cost, Hierarchy) else len(cost)


class _Watch:
    """Shows a search: a line that is always current on a terminal, elsewhere a new one every few seconds if it is
    better. For K vectors in R^D with their largest cosine beside its bound, or without sizes the objective's value.
    """

    def __init__(self, console: Console, sizes: tuple[int, int] | None):
        self._console, self._sizes = console, sizes
        self._begin = self._last = time.monotonic()
        self._progress: Progress | None = None
        self._printed = math.inf
        self._live = Live(get_renderable=self._line, console=console, refresh_per_second=5, transient=True)

    def __enter__(self) -> _Watch:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def __call__(self, progress: Progress) -> None:
        self._progress = progress
        now = time.monotonic()
        if not self._console.is_terminal and now - self._last >= _EVERY and progress.score < self._printed:
            self._last, self._printed = now, progress.score
            self._console.print(self._line(), soft_wrap=True)

    def _line(self) -> Text:
        line = Text(f"{time.monotonic() - self._begin:5.1f} s", no_wrap=True, overflow="ellipsis")
        found = self._progress
        if found is None:
            return line.append(" · searching")
        if self._sizes is None:
            return line.append(f" · round {found.round} · objective {found.score:.9g} · {found.start}")
        bound = cosine_bound(*self._sizes).value
        angle, most = (math.degrees(math.acos(min(max(cosine, -1.0), 1.0))) for cosine in (found.score, bound))
        line.append(f" · round {found.round} · ").append(f"cosine {found.score:.9f} · angle {angle:.4f}°", "bold")
        line.append(f" · to the bound {found.score - bound:.2e}, {most - angle:.4f}° · {found.start}")
        return line


# ---------------------------------------------------------------------- reading


def read_prototypes(path: Path, *, key: str | None, columns: bool, console: Console) -> Prototypes:
    """Prototypes from a file that `Prototypes.save` or another program wrote; see `read_matrix` for `key`.

    With `columns`, vectors are the columns of the matrix. Prints a warning where they seem to be the other ones.
    """
    if path.suffix == ".safetensors" and key is None and not columns:
        with suppress(StateError):  # another program wrote it, or it is damaged, which `read_matrix` says
            return Prototypes.load(path)
    matrix = read_matrix(path, key)
    vectors = matrix.mT.contiguous() if columns else matrix
    prototypes = Prototypes(vectors)
    if (evidence := transposition(vectors, "rows" if columns else "columns")) is not None:
        advice = "leave out --columns" if columns else "give --columns"
        text = f"warning: {path} looks transposed: {evidence}. If so, {advice}."
        console.print(Text(as_text(text), "yellow"))
    return prototypes


def transposition(vectors: torch.Tensor, others: str = "columns") -> str | None:
    """What speaks for vectors being the columns of a matrix rather than its rows; None if nothing does.

    Its shape doesn't: an ETF may have fewer vectors than dimensions. Columns of equal length do, if the rows' differ;
    and where all are equal, columns that meet their bound, if the rows don't meet theirs.
    """
    K, D = vectors.shape
    if K < 2 or D < 2 or not bool(vectors.any()):
        return None
    spreads = [_spread(norms(one)) for one in (vectors, vectors.mT)]
    if spreads[1] > _EQUAL:
        return None
    if spreads[0] > _UNEQUAL:
        return f"its {D} {others} have equal lengths, and what was taken for {K} vectors hasn't"
    if D > _COMPARED or K > _COMPARED or _meets_bound(vectors) or not _meets_bound(vectors.mT):
        return None
    return f"its {D} {others} are as far apart as {D} vectors can be, and what was taken for {K} vectors isn't"


def _spread(lengths: torch.Tensor) -> float:
    return ((lengths.max() - lengths.min()) / lengths.max()).item()


def _meets_bound(vectors: torch.Tensor) -> bool:
    return largest_cosine(vectors) - cosine_bound(*vectors.shape).value < 1e-5  # float32 and half a digit


# ---------------------------------------------------------------------- showing


def show_prototypes(
    prototypes: Prototypes, console: Console, aside: Console, *, one_vs_rest: bool | None = None, pairs: bool = False
) -> Certificate | None:
    """Print the certificate of vectors, then how they were made; None if Ctrl-C ended its computation.

    Args: aside: console for progress and remarks.
    """
    try:
        certificate = _certify(prototypes.vectors, one_vs_rest, aside)
    except KeyboardInterrupt:
        aside.print(Text("Stopped before the certificate was complete.", "yellow"))
        return None
    made = [_made(prototypes.provenance)] if prototypes.provenance else []
    document = certificate.document(*made, *(pair_sections(prototypes.vectors) if pairs else ()))
    show(replace(document, title=""), console)  # the verdict first
    return certificate


def _made(provenance: Mapping[str, Any]) -> Section:
    """How vectors were made: the constructor, its reasons and source, then its arguments."""
    facts = dict(as_text(provenance))  # of a file that anything may have written
    sentences = tuple(f"{text[:1].upper()}{text[1:]}." for text in [facts.pop("reason", None)] if text)
    rows = tuple((key, _short(value)) for key, value in facts.items() if value is not None)
    return Section("made", "Construction", sentences, Table((Column("argument", "name"), Column("value")), rows))


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _CHARACTERS else f"{text[: _CHARACTERS - 1]}…"


def _certify(vectors: torch.Tensor, one_vs_rest: bool | None, console: Console) -> Certificate:
    """The certificate; if it takes long, with a word about how long, and a bar."""
    seconds = certification_seconds(*vectors.shape, one_vs_rest=one_vs_rest)
    if seconds < _LONG:
        return certify(vectors, one_vs_rest=one_vs_rest)
    console.print(Text(f"The certificate takes about {seconds:.0f} s; Ctrl-C leaves it out.", "dim"))
    columns = (TextColumn("certifying"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("certifying", total=1.0)
        return certify(vectors, one_vs_rest=one_vs_rest, progress=lambda done: bar.update(task, completed=done))


def _save(prototypes: Prototypes, path: Path, console: Console) -> Path:
    """Save to a file, or if it can't be written any more to the folder of temporary files; returns where."""
    try:
        prototypes.save(path)
    except OSError as error:
        other = Path(tempfile.mkdtemp(prefix="tightframe-")) / path.name
        prototypes.save(other)
        text = f"warning: could not write {path}: {error.strerror or error}."
        console.print(Text(as_text(text), "yellow"), soft_wrap=True)
        path = other
    return path


def run(
    objective: str | None,
    given: Mapping[str, Any],
    *,
    scale: float | None = None,
    out: Path | None = None,
    verify: Path | None = None,
    key: str | None = None,
    columns: bool = False,
    pairs: bool = False,
    plot: Path | None = None,
    one_vs_rest: bool | None = None,
) -> int:
    """The command: build or read prototypes, save, show and draw them; its exit status.

    Ctrl-C during a search goes on with the best so far, during the certificate without it.
    """
    console, aside = Console(highlight=False), Console(highlight=False, stderr=True)
    if verify is not None:
        others = {"--objective": objective, "--out": out, "--scale": scale}
        named = [*(flag for flag, value in others.items() if value is not None), *given]
        if named:
            raise OptionError(f"--verify reads vectors and builds none; leave out {', '.join(named)}.")
    if scale is not None and not 0 < scale < math.inf:  # before a search that takes long
        raise RangeError(f"--scale must be positive and finite; got {scale}.")
    if verify is None and (key or columns):
        raise OptionError("--key and --columns say how to read a file; they need --verify.")
    if out is not None:
        require_writable("--out", out, (".safetensors",))
    if plot is not None:
        require_writable("--plot", plot, (".png", ".pdf", ".svg"))
        from tightframe.render.prototype_figures import save_figure
    if verify is not None:
        prototypes = read_prototypes(verify, key=key, columns=columns, console=aside)
    else:
        prototypes = build_prototypes(objective, given, aside)
        prototypes = prototypes if scale is None else prototypes.scaled(scale)
    written = None if out is None else _save(prototypes, out, aside)  # before the certificate, which may take long
    certificate = show_prototypes(prototypes, console, aside, one_vs_rest=one_vs_rest, pairs=pairs)
    if prototypes.provenance.get("interrupted") and verify is None:
        aside.print(Text("The search was stopped early; these are its best vectors.", "yellow"))
    if written is not None:
        tell_written(written)
    if certificate is None:
        return INTERRUPTED
    if plot is not None:
        save_figure(prototypes.vectors, certificate, plot)
        tell_written(plot)
    return 0
