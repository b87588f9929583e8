"""The commands and how their errors are shown."""

from __future__ import annotations

import codecs
import os
import sys
import warnings
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from textwrap import TextWrapper
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from tightframe.cli.failures import (
    INTERRUPTED,
    errors_in_flags,
    is_mendable,
    one_line,
    stopped,
    tell,
    told,
    warn_in_a_line,
)
from tightframe.cli.options import Command, given, spread, takes
from tightframe.cli.output import Output, tell_written, write_figures
from tightframe.cli.runs import require_runs
from tightframe.cli.subject import Subject
from tightframe.demo.settings import Settings
from tightframe.errors import OptionError, StateError
from tightframe.flags import flags_of
from tightframe.options import Measuring
from tightframe.search import Search
from tightframe.sections import as_text
from tightframe.version import __version__

app = typer.Typer(
    help="Measure the geometry of class representations, build class prototypes, and train with them.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: no flag is cut in a narrow terminal
)


def _replaced(error: UnicodeError) -> tuple[str, int]:
    """A hyphen for each minus sign and a question mark for each other letter that a console lacks."""
    assert isinstance(error, UnicodeEncodeError)
    return "".join("-" if each == "−" else "?" for each in error.object[error.start : error.end]), error.end


codecs.register_error("tightframe", _replaced)


def main() -> None:
    """Run the command line. What a user can mend becomes one line and exit status 2, Ctrl-C exit status 130."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="tightframe")
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  (closed by the caller)
    told.clear()
    TextWrapper.wordsep_re = TextWrapper.wordsep_simple_re  # help breaks no name in two
    warnings.showwarning = warn_in_a_line  # type: ignore[assignment]
    arguments = spread(sys.argv[1:], "--labels")
    for flag in ("--texts", "--splits"):
        arguments = spread(arguments, flag, alone=True)
    try:
        status = app(arguments, prog_name="tightframe", standalone_mode=False)
    except KeyboardInterrupt:
        status = INTERRUPTED
    except Exception as error:
        Console(stderr=True, soft_wrap=True).print(Text.assemble(("error:", "bold red"), f" {one_line(error)}"))
        status = 2 if is_mendable(error) else 1
    if status == INTERRUPTED and not told:
        tell("stopped: nothing was written.")
    sys.exit(status)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


AllOption = Annotated[bool, typer.Option("--all", help="Print all metrics, sections and notes.")]

DEMO = flags_of(Settings)


def demo(
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Write the run to this folder. Default: a new one, runs/DATA or runs/DATA-HEAD."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier run in the folder.")] = False,
    seeds: Annotated[
        int,
        typer.Option(
            help="Number of runs, with consecutive seeds, each below --out; prints means and standard deviations."
        ),
    ] = 1,
    everything: AllOption = False,
    **options: Any,
) -> None:
    """Train a small network on real data, measure neural collapse during training, and write a report."""
    with errors_in_flags(DEMO, "overwrite", "seeds"):
        settings = Settings(**given(options, DEMO))
        from tightframe.cli.demo import show_demo

        raise typer.Exit(show_demo(settings, out, seeds=seeds, overwrite=overwrite, everything=everything))


app.command(cls=Command)(takes(DEMO)(demo))

SUBJECT = flags_of(Subject)

HtmlOption = Annotated[Path | None, typer.Option("--html", help="Write the HTML page to this file.")]
JsonOption = Annotated[Path | None, typer.Option("--json", help="Write JSON to this file; - for standard output.")]
CsvOption = Annotated[Path | None, typer.Option("--csv", help="Write CSV to this file; - for standard output.")]
MarkdownOption = Annotated[
    Path | None, typer.Option("--md", help="Write Markdown to this file; - for standard output.")
]


def measure(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FEATURES",
            help="File with features (N, D) and labels (N,): .npz, .npy, .safetensors, .pt or .parquet; or several "
            ".npy, .safetensors or .parquet files, read in order; or a folder that `tightframe extract` wrote.",
            show_default=False,
        ),
    ] = None,
    labels: Annotated[
        list[Path] | None,
        typer.Option(
            help="Read the labels (N,) from this file; for several FEATURES, one file for each. Default: in FEATURES.",
        ),
    ] = None,
    weight: Annotated[
        Path | None,
        typer.Option(help="Read the classifier's weight (K, D), and its bias (K,) if it is there, from this file."),
    ] = None,
    bias: Annotated[
        Path | None, typer.Option(help="Read the classifier's bias (K,) from this file. Needs --weight.")
    ] = None,
    weight_decay: Annotated[
        float | None,
        typer.Option(
            help="Compare with the optimum that theory predicts for this weight decay, > 0. Needs a classifier."
        ),
    ] = None,
    loss: Annotated[
        str, typer.Option(help="Training loss that --weight-decay assumes: cross-entropy or squared error.")
    ] = "cross-entropy",
    everything: AllOption = False,
    classes: Annotated[
        bool, typer.Option("--classes", help="Print the tables of classes and of the nearest pairs.")
    ] = False,
    html: HtmlOption = None,
    json: JsonOption = None,
    csv: CsvOption = None,
    md: MarkdownOption = None,
    **options: Any,
) -> None:
    """Measure features in files, or a model on images or texts. Under torchrun, each process reads a part."""
    if not files and options["model"] is None:
        raise OptionError("give files of features, or a model with --model.")
    from tightframe.cli.measure import measured, torchrun_processes
    from tightframe.theory import Training

    settings = given(options, Measuring.flags())
    subject = Subject(**given(options, SUBJECT))
    inputs = [*(files or ()), *(labels or ()), *filter(None, (weight, bias, subject.test, subject.ood))]
    output = Output({"--html": html, "--json": json, "--csv": csv, "--md": md}, inputs=inputs)
    flags = [*SUBJECT, *Measuring.flags()]
    with (
        errors_in_flags(flags, "weight", "weight_decay", "loss"),
        stopped("nothing was measured."),
        torchrun_processes() as speaks,
    ):
        if weight_decay is not None:
            settings["training"] = Training(weight_decay, loss=loss)
        with output.alone():
            report = measured(files or [], subject, labels=labels, weight=weight, bias=bias, options=settings)
    if not speaks:
        return
    _deliver(report, output, everything=everything, classes=classes)


def _deliver(report: Any, output: Output, **shown: bool) -> None:
    """Print a report or a comparison, unless a file is the standard output; then write its files.

    Args:
        shown: what is printed, as in its `to_terminal`.
    """
    if not output.piped:
        report.to_terminal(**shown)
    paths = output.write(
        {"--html": report.to_html, "--json": report.to_json, "--csv": report.to_csv, "--md": report.to_markdown}
    )
    if not output.piped:
        for path in paths:
            tell_written(path)


app.command(cls=Command)(takes([*SUBJECT, *Measuring.flags()])(measure))

EXTRACTED = [each for each in Measuring.flags() if each[1].metadata["of"] != "report"]


def extract(
    out: Annotated[Path, typer.Option("--out", "-o", help="Write the shards to this folder, or continue there.")],
    dtype: Annotated[
        str | None,
        typer.Option(help="Store features as float16, bfloat16, float32 or float64. Default: the model's dtype."),
    ] = None,
    shard_bytes: Annotated[
        int | None, typer.Option(help="Limit the size of a file, in bytes. Default: 256 MiB.")
    ] = None,
    splits: Annotated[
        list[str] | None,
        typer.Option(help="Write only these splits: train, test, ood; for example --splits train test. Default: all."),
    ] = None,
    flatten: Annotated[bool, typer.Option("--flatten", help="Store each token or pixel as a separate sample.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the earlier extraction in --out.")] = False,
    **options: Any,
) -> None:
    """Write a model's features to files. The same command continues an extraction that was stopped."""
    if options["model"] is None:
        raise OptionError("give a model with --model.")
    from tightframe.cli.extract import write_shards
    from tightframe.cli.measure import torchrun_processes

    subject = Subject(**given(options, SUBJECT))
    how = {"shard_bytes": shard_bytes, "splits": splits or None}
    kept = f"complete shards in {out} are kept. Run the same command again to continue."
    flags = errors_in_flags([*SUBJECT, *EXTRACTED], "dtype", "overwrite", "flatten", "shard_bytes", "splits")
    with flags, stopped(kept), torchrun_processes() as speaks:
        written = write_shards(
            subject,
            out,
            dtype=dtype,
            flatten=flatten,
            overwrite=overwrite,
            options=given(options, EXTRACTED),
            **{name: value for name, value in how.items() if value is not None},
        )
    if speaks:
        for line in written:
            print(as_text(line))


app.command(cls=Command)(takes([*SUBJECT, *EXTRACTED])(extract))


class _Prototypes(Command):
    """A command whose help lists the constructions, which are imported (with torch) only if it is printed."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from tightframe.cli.prototypes import constructions

        objectives = ", ".join(constructions())
        for parameter in self.params:
            text = getattr(parameter, "help", None) or ""
            parameter.help = text.replace("{objectives}", objectives)  # type: ignore[attr-defined]
        super().format_help(ctx, formatter)


SEARCH = flags_of(Search)


def prototypes(
    num_classes: Annotated[
        int | None,
        typer.Option(
            "--num-classes",
            "-k",
            help="Number of vectors, K; for --objective poles the number of targets. Default: as in the file of "
            "--cost, --tree, --vectors, --gram or --warm-start, or the size of --code.",
        ),
    ] = None,
    dim: Annotated[
        int | None,
        typer.Option(
            "--dim",
            "-d",
            help="Number of dimensions, D. Default: as in the file of --warm-start; else the smallest that the "
            "construction needs, except for searches, --vectors and --objective metric-guided, which need -d.",
        ),
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            help="Construction: {objectives}. Default: the only one that takes the given options (code for --code, "
            "semantic for --vectors, gram-matching for --gram, equiangular for --alpha, hierarchical for --gamma), "
            "else best."
        ),
    ] = None,
    code: Annotated[str | None, typer.Option(help="Build this exact code; `tightframe codes` lists the names.")] = None,
    cost: Annotated[
        Path | None,
        typer.Option(
            help="Read the costs between classes from this file: .csv (a square matrix, or lines i,j,cost), .npy, "
            ".npz, .safetensors or .pt. Needs --objective metric-guided or hierarchical."
        ),
    ] = None,
    tree: Annotated[
        Path | None,
        typer.Option(
            help="Read the class hierarchy from this file: .json, .csv with lines parent,child, or text with one path "
            "per line, such as root/animal/cat. Needs --objective metric-guided or hierarchical."
        ),
    ] = None,
    vectors: Annotated[
        Path | None, typer.Option(help="Read word vectors (K, E) or similarities (K, K) of the classes from this file.")
    ] = None,
    gram: Annotated[Path | None, typer.Option(help="Read the target Gram matrix (K, K) from this file.")] = None,
    alpha: Annotated[
        float | None,
        typer.Option(
            help="Stop the search for an equiangular frame once every |cosine| is at most this, in [0, 1). Default: "
            "search for the smallest."
        ),
    ] = None,
    gamma: Annotated[
        float | None,
        typer.Option(
            help="Rate, > 0, at which the cosines of a hierarchical frame decrease with the cost. Default: 2."
        ),
    ] = None,
    scale: Annotated[float | None, typer.Option(help="Multiply the vectors by this number, > 0. Default: 1.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the vectors to this .safetensors file.")
    ] = None,
    verify: Annotated[
        Path | None,
        typer.Option(
            help="Certify the vectors in this .npy, .npz, .pt, .pth or .safetensors file instead of building vectors."
        ),
    ] = None,
    key: Annotated[str | None, typer.Option(help="Name of the array in the file of --verify.")] = None,
    columns: Annotated[
        bool, typer.Option("--columns", help="Read the vectors from the columns (D, K) of the file of --verify.")
    ] = False,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="Print the lengths of the vectors and the smallest angles.")
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw the Gram matrix, the angles and the vectors in this .png, .pdf or .svg file."),
    ] = None,
    one_vs_rest: Annotated[
        bool | None,
        typer.Option(help="Compute or skip the one-vs-rest distance. Default: compute it if that takes at most 5 s."),
    ] = None,
    **options: Any,
) -> None:
    """Build class prototypes, or certify the vectors in a file: compare them with the best possible."""
    from tightframe.cli.prototypes import flags_by_argument, run

    own = {
        "-k": num_classes,
        "-d": dim,
        "--code": code,
        "--cost": cost,
        "--tree": tree,
        "--vectors": vectors,
        "--gram": gram,
        "--alpha": alpha,
        "--gamma": gamma,
    }
    wanted = {flag: value for flag, value in own.items() if value is not None}
    wanted |= {flag: options[field.name] for flag, field in SEARCH if options[field.name] not in (None, field.default)}
    with errors_in_flags((), **flags_by_argument(wanted, verify)):
        status = run(
            objective,
            wanted,
            scale=scale,
            out=out,
            verify=verify,
            key=key,
            columns=columns,
            pairs=pairs,
            plot=plot,
            one_vs_rest=one_vs_rest,
        )
    raise typer.Exit(status)


app.command(cls=_Prototypes)(takes(SEARCH)(prototypes))


@app.command(cls=Command)
@takes()
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    html: HtmlOption = None,
    json: JsonOption = None,
    csv: CsvOption = None,
    md: MarkdownOption = None,
    figures: Annotated[Path | None, typer.Option(help="Write each figure to this folder as a .pdf file.")] = None,
    everything: AllOption = False,
    classes: Annotated[
        bool, typer.Option("--classes", help="Print the tables of classes and of the nearest pairs.")
    ] = False,
) -> None:
    """Print the last measurement of a run folder, and write its page to the folder or, with --html, elsewhere.

    With - as a file, standard output contains only that file, and report.html is not written.
    """
    require_runs([run])
    output = Output({"--html": html, "--json": json, "--csv": csv, "--md": md}, figures, inputs=[run])
    if figures is not None:
        import_module("tightframe.render.figures")  # says at once that matplotlib is missing
    from tightframe.reading import reason_of
    from tightframe.report import RunFolder

    folder = RunFolder(run)
    last = folder.report()
    _deliver(last, output, everything=everything, classes=classes)
    written = []
    if html is None and not output.piped:
        try:
            written.append(folder.write_html(last))
        except (OSError, StateError) as error:  # the report is printed all the same
            tell(f"warning: could not write {folder.report_path}: {reason_of(error)}")
    if figures is not None:
        written += write_figures(last.to_figures(), figures)
    if not output.piped:
        for path in written:
            tell_written(path)


@app.command(cls=Command)
@takes()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Two or more run folders.")],
    html: HtmlOption = None,
    json: JsonOption = None,
    csv: CsvOption = None,
    md: MarkdownOption = None,
    everything: AllOption = False,
) -> None:
    """Show the last measurements of several runs side by side."""
    if len(runs) > 1:
        require_runs(runs)
    output = Output({"--html": html, "--json": json, "--csv": csv, "--md": md}, inputs=runs)
    from tightframe.report import Comparison

    comparison = Comparison.of(runs)
    _deliver(comparison, output, everything=everything)


RANKED_DATA = ("images", "data", "data_folder", "image_size", "batch_size", "workers", "device")
RANKED = ("layers", "features", "positions", "num_classes", "folds", "min_count", "ignore_index", "progress")
RANKING = [
    *(each for each in SUBJECT if each[1].name in RANKED_DATA),
    *(each for each in Measuring.flags() if each[1].name in RANKED),
]


def rank(
    subjects: Annotated[
        list[str],
        typer.Argument(
            metavar="ENCODER",
            help="Two or more of: a file with features and labels, a folder of `tightframe extract`, a run folder, or "
            "a model (timm:NAME, hf:FOLDER, module:function; needs --images or --data), with =FILE to load its weights "
            "from a .safetensors, .pt or .pth file. Of a model the features before its classifier are ranked; "
            "--features-of selects another layer.",
            show_default=False,
        ),
    ],
    labels: Annotated[
        Path | None,
        typer.Option(help="Read the labels (N,) of all files from this file. Default: in each file."),
    ] = None,
    shots: Annotated[
        list[int] | None,
        typer.Option(
            help="Forecast accuracy with this many labelled samples per class; repeatable. Default: 1, 5, 20."
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            help="Order by this measure: log_me, h_score, or 5-shot and so on, as in --shots. Default: 5-shot."
        ),
    ] = None,
    per_class: Annotated[
        bool | None,
        typer.Option(
            "--per-class/--no-per-class",
            help="Forecast with the scatter of each class, or with the pooled one. Default: that of each class if all "
            "encoders have it, and classes times features squared is at most 6 million.",
        ),
    ] = None,
    html: HtmlOption = None,
    json: JsonOption = None,
    csv: CsvOption = None,
    md: MarkdownOption = None,
    **options: Any,
) -> None:
    """Rank encoders or layers by a forecast of their accuracy with few labelled samples; nothing is trained."""
    from tightframe.cli.rank import files_of, ranking
    from tightframe.report.ranking import SHOTS

    flags = [each for each in RANKING if each[1].name in RANKED]
    settings = given(options, flags)
    subject = Subject(**given(options, [each for each in RANKING if each[1].name in RANKED_DATA]))
    paths = files_of(subjects) + ([labels] if labels is not None else [])
    output = Output({"--html": html, "--json": json, "--csv": csv, "--md": md}, inputs=paths)
    with errors_in_flags(RANKING, "shots", "by"), stopped("nothing was ranked."), output.alone():
        order = ranking(
            subjects, subject, labels=labels, shots=shots or SHOTS, by=by, per_class=per_class, options=settings
        )
    _deliver(order, output)


app.command(cls=Command)(takes(RANKING)(rank))


@app.command(name="metrics")
def list_metrics() -> None:
    """List the metrics that `measure --metric` takes and the conventions that `measure --convention` takes."""
    from tightframe.cli.tables import metric_tables
    from tightframe.render.terminal import show

    show(metric_tables(), Console(highlight=False))


@app.command(name="codes")
def list_codes() -> None:
    """List the exact codes that `prototypes --code` builds."""
    from tightframe.cli.tables import code_table
    from tightframe.render.terminal import show

    show(code_table(), Console(highlight=False))


@app.command(name="datasets")
def list_datasets() -> None:
    """List the real data sets that `demo --data` can use, and where their files are."""
    from tightframe.cli.datasets import print_datasets

    print_datasets()
