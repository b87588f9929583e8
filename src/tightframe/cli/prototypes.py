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
from tightframe.cli.failures import INTERRUPTED, in_flags
from tightframe.cli.matrices import read_cost, read_matrix
from tightframe.cli.output import require_writable, tell_written
from tightframe.codes import Certificate, certification_seconds, certify, largest_cosine
from tightframe.codes.bounds import cosine_bound
from tightframe.codes.pairs import pair_sections
from tightframe.errors import OptionError, RangeError, StateError
from tightframe.flags import flags_of
from tightframe.hierarchy import Hierarchy
from tightframe.numerics import norms
from tightframe.prototypes import Prototypes
from tightframe.prototypes.semantic import similarity_of
from tightframe.prototypes.table import MEANS, PROTOTYPES, STATISTICS
from tightframe.render.terminal import show
from tightframe.search import Progress, Search
from tightframe.sections import Column, Section, Table, as_text, signed

_CHARACTERS = 60  # maximum length of a printed value of the provenance
_LONG = 5.0  # seconds; a longer certificate is announced
_EVERY = 3.0  # seconds between lines of progress without a terminal
_EQUAL, _UNEQUAL = 1e-3, 1e-2  # relative spreads of lengths: maximum of equal ones, minimum of unequal ones
_COMPARED = 20_000  # maximum numbers of rows and columns whose cosines tell a transposed file

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
"""The options for each parameter of a construction."""
_SEPARATING = ("best", "separated")  # objectives whose score is the largest cosine
_PER_CLASS = ("cost", "similarity", "gram")  # parameters that fix the number of classes


# ---------------------------------------------------------------------- building


def build_prototypes(objective: str | None, given: Mapping[str, Any], console: Console) -> Prototypes:
    """The prototypes of an objective; shows the progress of a search.

    Args:
        objective: name of a construction. Default: "code" with --code, else the only construction that takes all given
            options, else "best".
        given: values by option, such as -k or --cost.

    Raises: ChoiceError listing the objectives; OptionError for options that are missing, exclude each other or belong
    to other objectives; the errors of the construction.
    """
    objectives, got = constructions(), "" if objective is None else f"; got {objective}"
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
        raise OptionError(f"{option} needs --objective {' or '.join(others)}{got}.")
    arguments = {accepted[option]: _read(option, value) for option, value in given.items()}
    if "warm_start" in arguments:
        sizes = zip(("num_classes", "dim"), arguments["warm_start"].shape, strict=True)
        arguments = {name: size for name, size in sizes if name in parameters} | arguments
    if missing := [
        " or ".join(_OPTIONS[name])
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty and name not in arguments
    ]:
        raise OptionError(f"--objective {objective} needs {' and '.join(missing)}.")
    if "num_classes" not in parameters and (K := arguments.pop("num_classes", None)) is not None:
        classes = next(_num_classes(arguments[name]) for name in _PER_CLASS if name in arguments)
        if classes != K:
            raise OptionError(f"-k is {K}, but the file has {classes} classes; leave out -k.")
    shown = (arguments["num_classes"], arguments["dim"]) if objective in _SEPARATING else None
    with warnings.catch_warnings(record=True) as caught, _Watch(console, shown) as watch:
        warnings.simplefilter("always")
        prototypes = construct(**arguments, **({"progress": watch} if "progress" in parameters else {}))
    for warning in caught:
        text = in_flags(str(warning.message), flags_by_argument(given))
        console.print(Text(as_text(f"warning: {text}"), "yellow"), soft_wrap=True)
    return prototypes


def constructions() -> dict[str, Construct]:
    """The constructions by name, without those from class means or statistics."""
    return {name: row.build for name, row in PROTOTYPES.items() if row.needs not in (STATISTICS, MEANS)}


def flags_by_argument(given: Mapping[str, Any], verified: Path | None = None) -> dict[str, str]:
    """The flag of each argument of the library, followed by the file that it reads, for messages.

    Args:
        given: values by option. verified: the file of --verify.
    """
    names = {"scale": "--scale", "one_vs_rest": "--one-vs-rest", "objective": "--objective"}
    for argument, options in _OPTIONS.items():
        option = next((each for each in options if each in given), options[0])
        names[argument] = f"{option} {given[option]}" if isinstance(given.get(option), Path) else option
    names |= {"costs": names["cost"], "word_vectors": names["similarity"]}
    return names if verified is None else names | {"vectors": f"--verify {verified}"}


def _accepted(construct: Construct) -> dict[str, str]:
    """The options of a construction, and the parameter for each."""
    names = list(inspect.signature(construct).parameters)
    if "num_classes" not in names and any(name in names for name in _PER_CLASS):
        names.append("num_classes")  # is compared with the file
    return {option: name for name in names for option in _OPTIONS.get(name, ())}


def _read(option: str, value: Any) -> Any:
    """The value of an option: the content of its file, or the value itself."""
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
    """Shows a search: on a terminal one line that is updated, elsewhere a line every few seconds for a better score.

    With the sizes (K, D) it prints the largest cosine and its bound, without sizes the objective's value.
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
        progress = self._progress
        if progress is None:
            return line.append(" · searching")
        if self._sizes is None:
            return line.append(
                f" · round {progress.round} · objective {signed(f'{progress.score:.9g}')} · {progress.start}"
            )
        bound = cosine_bound(*self._sizes).value
        angle, limit = (math.degrees(math.acos(min(max(cosine, -1.0), 1.0))) for cosine in (progress.score, bound))
        line.append(f" · round {progress.round} · ")
        line.append(f"cosine {signed(f'{progress.score:.9f}')} · angle {angle:.4f}°", "bold")
        return line.append(f" · gap {progress.score - bound:.2e}, {limit - angle:.4f}° · {progress.start}")


# ---------------------------------------------------------------------- reading


def read_prototypes(path: Path, *, key: str | None, columns: bool, console: Console) -> Prototypes:
    """Prototypes from a file that `Prototypes.save` or another program wrote; see `read_matrix` for `key`.

    Prints a warning if the matrix seems to be transposed.

    Args:
        columns: vectors are the columns of the matrix, not its rows.
    """
    if path.suffix == ".safetensors" and key is None and not columns:
        with suppress(StateError):  # a file of another program, or a damaged one: `read_matrix` reports that
            return Prototypes.load(path)
    matrix = read_matrix(path, key, flag="--key")
    vectors = matrix.mT.contiguous() if columns else matrix
    prototypes = Prototypes(vectors)
    if (evidence := transposition(vectors, "rows" if columns else "columns")) is not None:
        advice = "leave out --columns" if columns else "give --columns"
        text = f"warning: {path} looks transposed: {evidence}. If so, {advice}."
        console.print(Text(as_text(text), "yellow"))
    return prototypes


def transposition(vectors: torch.Tensor, others: str = "columns") -> str | None:
    """The evidence, in a phrase, that the vectors are the columns of a matrix (K, D) and not its rows; None without.

    Evidence is columns of equal lengths while the rows' lengths differ or, if all lengths are equal, columns that meet
    their bound while the rows don't. The shape is no evidence: an ETF may have fewer vectors than dimensions.

    Args:
        others: name of the columns in the phrase.
    """
    K, D = vectors.shape
    if K < 2 or D < 2 or not bool(vectors.any()):
        return None
    vectors_are = {"columns": "rows", "rows": "columns"}[others]
    spreads = [_spread(norms(one)) for one in (vectors, vectors.mT)]
    if spreads[1] > _EQUAL:
        return None
    if spreads[0] > _UNEQUAL:
        return f"its {D} {others} have equal lengths, and its {K} {vectors_are} have not"
    if D > _COMPARED or K > _COMPARED or _meets_bound(vectors) or not _meets_bound(vectors.mT):
        return None
    return f"its {D} {others} are as far apart as {D} vectors can be, and its {K} {vectors_are} are not"


def _spread(lengths: torch.Tensor) -> float:
    return ((lengths.max() - lengths.min()) / lengths.max()).item()


def _meets_bound(vectors: torch.Tensor) -> bool:
    return largest_cosine(vectors) - cosine_bound(*vectors.shape).value < 1e-5  # rounding of float32, with a margin


# ---------------------------------------------------------------------- showing


def show_prototypes(
    prototypes: Prototypes, console: Console, aside: Console, *, one_vs_rest: bool | None = None, pairs: bool = False
) -> Certificate | None:
    """Print the certificate of vectors and their provenance. Returns None if Ctrl-C ends the certificate's computation.

    Args:
        console: for the certificate. aside: for progress and remarks.
    """
    try:
        certificate = prototypes.judged(_certify(prototypes.vectors, one_vs_rest, aside))
    except KeyboardInterrupt:
        aside.print(Text("Stopped before the certificate was complete.", "yellow"))
        return None
    provenance = [_provenance(prototypes.provenance)] if prototypes.provenance else []
    document = certificate.document(*provenance, *(pair_sections(prototypes.vectors) if pairs else ()))
    notes = tuple(in_flags(note, flags_by_argument({})) for note in document.notes)
    show(replace(document, title="", notes=notes), console)  # the verdict first
    return certificate


def _provenance(provenance: Mapping[str, Any]) -> Section:
    """The provenance as a section: the reason for the construction, then its arguments and facts."""
    facts = dict(
        as_text({key: value for key, value in provenance.items() if key != "aim"})
    )  # `as_text`, because the file may come from anywhere
    sentences = tuple(f"{text[:1].upper()}{text[1:]}." for text in [facts.pop("reason", None)] if text)
    rows = tuple((key, _short(value)) for key, value in facts.items() if value is not None)
    return Section("made", "Construction", sentences, Table((Column("argument", "name"), Column("value")), rows))


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _CHARACTERS else f"{text[: _CHARACTERS - 1]}…"


def _certify(vectors: torch.Tensor, one_vs_rest: bool | None, console: Console) -> Certificate:
    """The certificate; a long computation is announced and has a progress bar."""
    seconds = certification_seconds(*vectors.shape, one_vs_rest=one_vs_rest)
    if seconds < _LONG:
        return certify(vectors, one_vs_rest=one_vs_rest)
    console.print(Text(f"The certificate takes about {seconds:.0f} s; Ctrl-C skips it.", "dim"))
    columns = (TextColumn("certifying"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("certifying", total=1.0)
        return certify(vectors, one_vs_rest=one_vs_rest, progress=lambda done: bar.update(task, completed=done))


def _save(prototypes: Prototypes, path: Path, console: Console) -> Path:
    """Save to a file, or to a temporary folder if that fails; returns the path of the file written."""
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
    """The command: build or read prototypes, save, show and draw them; returns the exit status.

    Ctrl-C during a search ends the search with the best vectors so far; during the certificate it skips the
    certificate.
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
        raise OptionError("--key and --columns read the file of --verify; give --verify, or leave them out.")
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
