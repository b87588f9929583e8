"""The documentation: its code runs, its links lead somewhere, and every public name has a place in the reference."""

import inspect
import os
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import pages
import site_docstrings
import site_numbers
import site_pages
import site_reference
import tightframe as tf
from tightframe import codes, datasets, losses, metrics, ood, prototypes
from tightframe.evidence import Evidence

ROOT = Path(__file__).parents[1]
DOCS, PACKAGE = ROOT / "docs", Path(tf.__file__).parent
WRITTEN = {path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.md"))}


@pytest.fixture(scope="module")
def reference() -> dict[str, str]:
    return site_reference.pages()


# ---------------------------------------------------------------------- code


def with_marks(name: str) -> Any:
    """A page; slow if one of its blocks is, and with as many draws as users get if it prints levels."""
    blocks = pages.blocks(WRITTEN[name])
    levels = any(re.search("shuffled|closeness", block.output or "") for block in blocks)
    slow = any(block.mark == "slow" for block in blocks)
    marks = [mark for mark, yes in ((pytest.mark.levels, levels), (pytest.mark.slow, slow)) if yes]
    return pytest.param(name, marks=marks)


@pytest.mark.parametrize("name", [with_marks(name) for name in WRITTEN if pages.blocks(WRITTEN[name])])
def test_python_blocks_run_in_order(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    pages.run(site_pages.completed(WRITTEN[name], only=("example",), marks=True), name)


NOT_RUN = {
    ("gallery/choosing_backbone.md", "part of examples/choosing_backbone.py"),
    ("gallery/collapse_curves.md", "part of examples/collapse_curves.py"),
    ("gallery/equi_separation.md", "part of examples/equi_separation.py"),
    ("gallery/hyperspherical.md", "part of examples/hyperspherical.py"),
    ("gallery/metric_guided.md", "part of examples/metric_guided.py"),
    ("gallery/hierarchical.md", "part of examples/hierarchical.py"),
    ("gallery/language_model.md", "part of examples/language_model.py"),
    ("gallery/pixels.md", "part of examples/pixels.py"),
    ("language-models.md", "needs the folder of a language model"),
    ("migration.md", "200 epochs; tests/test_migration.py runs one on digits"),
    ("migration.md", "features and labels are yours"),
    ("gallery/minority_collapse.md", "part of examples/minority_collapse.py"),
    ("gallery/seli_imbalance.md", "part of examples/seli_imbalance.py"),
    ("gallery/unconstrained_features.md", "part of examples/unconstrained_features.py"),
}


def test_blocks_that_are_not_run_are_listed_with_their_reasons() -> None:
    every = [(name, block) for name, text in WRITTEN.items() for block in pages.blocks(text)]
    assert {(name, block.reason) for name, block in every if block.reason is not None} == NOT_RUN
    marks = {block.mark for _, block in every}
    assert all(mark in ("", "slow") or re.fullmatch(r"no-run: \S.*", mark) for mark in marks), marks


@pytest.mark.parametrize(
    ("printed", "shown", "same"),
    [
        ("nc1 0.9431\n", "nc1 0.94\n", True),
        ("nc1 0.9431\n", "nc1 0.90\n", False),
        ("nc1 0.9431\n", "nc2 0.9431\n", False),
        ("a\nb\nc\n", "a\n…\nc\n", True),
        ("a\nb\nc\n", "a\nc\n", False),
        ("a\nb\nc\n", "a\n", False),
        ("a\nb\nc\n", "a\n…\n", True),
        ("a  1,400 \n", "a 1,401\n", True),
    ],
)
def test_what_is_printed_is_compared_with_the_page(printed: str, shown: str, same: bool) -> None:
    if same:
        pages.require_same(printed, shown)
    else:
        with pytest.raises(AssertionError):
            pages.require_same(printed, shown)


def test_a_block_that_fails_names_its_line() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        pages.run("# Title\n\n```python\na = 1\n1 / 0\n```\n", "page.md")
    assert (caught.traceback[-1].lineno, str(caught.traceback[-1].path)) == (4, "page.md")


# ---------------------------------------------------------------------- links


def slug(heading: str) -> str:
    """The anchor of a heading without one of its own, as Python-Markdown makes it."""
    plain = re.sub(r"`|\*|\[([^\]]*)\]\([^)]*\)", lambda found: found[1] or "", heading)
    ascii_only = unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", ascii_only).strip().lower())


def anchors(text: str) -> set[str]:
    """The anchors of a page: headings and described objects."""
    bare = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    headings = re.findall(r"^#{1,6} (.*?)(?:\s*\{\s*#(\S+)\s*\})?$", bare, flags=re.M)
    return {own or slug(title) for title, own in headings} | set(re.findall(r"^::: (\S+)$", bare, flags=re.M))


def links(text: str) -> list[str]:
    """The relative links of a page."""
    bare = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", bare) if "://" not in target]


def broken(site: dict[str, str]) -> list[str]:
    """The relative links of a site that lead nowhere."""
    lost = []
    for name, text in site.items():
        for target in links(text):
            path, _, anchor = target.partition("#")
            page = os.path.normpath(os.path.join(os.path.dirname(name), path)).replace(os.sep, "/") if path else name
            if page in site:
                fine = not anchor or anchor in anchors(site[page])
            else:
                fine = (DOCS / page).is_file() and not anchor
            if not fine:
                lost.append(f"{name}: {target}")
    return lost


def test_links_and_anchors_exist(reference: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site_numbers, "measured", lambda: {})  # links of the tables, without their numbers
    written = {name: site_pages.completed(text) for name, text in WRITTEN.items()}
    assert broken({**written, **reference, **site_pages.pages()}) == []


def test_a_broken_link_is_seen() -> None:
    first = "# Title\n[x](c.md) [y](c.md#no) [z](#title) [w](../d.md) [v](c.md#own)"
    assert broken({"a/b.md": first, "a/c.md": "# C { #own }"}) == ["a/b.md: c.md#no", "a/b.md: ../d.md"]


def navigated(entries: list[Any]) -> list[str]:
    """The pages of a navigation."""
    found = []
    for entry in entries:
        value = next(iter(entry.values())) if isinstance(entry, dict) else entry
        found += navigated(value) if isinstance(value, list) else [value]
    return found


def test_every_page_is_in_the_navigation(reference: dict[str, str]) -> None:
    assert sorted(navigated(site_reference.navigation())) == sorted(reference)
    assert sorted(navigated(site_pages.navigation())) == sorted(site_pages.pages())
    named = re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert sorted(named) == sorted(WRITTEN)


def test_insertions_are_complete() -> None:
    for name, text in WRITTEN.items():
        assert "<!-- insert" not in site_pages.completed(text, only=("readme", "example")).replace(
            "<!-- insert: conventions", ""
        ).replace("<!-- insert: papers", "").replace("<!-- insert: spread", ""), name
    assert "COLLAPSED" in site_pages.from_readme("measures it during training, and prints:")


# ---------------------------------------------------------------------- the reference


NAMES = [
    *((key, key.rpartition(".")[2]) for module in (*site_reference.MODULES, "errors")
      for key in (f"{module}.{name}" for name in site_reference.public_names(module))),
    *((name, name) for name in tf.__all__),
]  # fmt: skip


@pytest.mark.parametrize("module", ["metrics", "theory", "prototypes", "heads", "losses", "ood", "datasets", "sources",
                                    "hierarchy", "hooks", "codes", "statistics",
                                    "similarity"])  # fmt: skip
def test_every_public_module_has_a_page(module: str, reference: dict[str, str]) -> None:
    assert module in site_reference.MODULES
    assert site_reference.public_names(module) == list(site_reference.module_of(module).__all__)
    assert f"tightframe.{module}" in anchors(reference[site_reference.page_of(module)])


def test_modules_of_the_package_have_pages() -> None:
    modules = {name for name in tf.__all__ if isinstance(getattr(tf, name), ModuleType)}
    assert modules <= {*site_reference.MODULES, "errors"}


@pytest.mark.parametrize(("key", "name"), NAMES)
def test_every_public_name_has_a_place(key: str, name: str, reference: dict[str, str]) -> None:
    place = site_reference.places()[key]
    assert place.identifier in anchors(reference[place.page])
    module = key.rpartition(".")[0] or "tightframe"
    on_own_page = reference[site_reference.page_of(module)]
    on_family_page = place.page.startswith("reference/metrics/")
    assert name in on_own_page or on_family_page or f"`{name}`" in on_own_page, key


def test_described_names_are_no_modules(reference: dict[str, str]) -> None:
    """A file hides a function of its name, as prototypes/best.py does."""
    described = re.findall(r"^::: (\S+)$", "\n".join(reference.values()), flags=re.M)
    assert "tightframe.prototypes.best.best" in described
    files = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in PACKAGE.rglob("*.py")}
    assert not files & set(described)


def test_every_row_of_every_table_is_there(reference: dict[str, str]) -> None:
    tables = {
        "prototypes": prototypes.PROTOTYPES, "losses": losses.LOSSES, "ood": ood.DETECTORS,
        "datasets": {**datasets.DATASETS, **datasets.OUTSIDE}, "exact-codes": codes.CODES,
    }  # fmt: skip
    for page, rows in tables.items():
        for name in rows:
            assert f"`{name}`" in reference[f"reference/{page}.md"], (page, name)


def test_every_command_is_there(reference: dict[str, str]) -> None:
    commands = re.findall(r"^  ([a-z]+)  ", site_reference.help_text().partition("Commands:")[2], flags=re.M)
    assert tuple(commands) == site_reference.COMMANDS
    page = reference["reference/command-line.md"]
    assert "--weight-decay" in page and "--ignore-index" in page
    assert page.count("Usage: tightframe") == 1 + len(commands)


def test_hosts_that_a_guide_names_are_there(reference: dict[str, str]) -> None:
    page = reference["reference/integrations.md"]
    for name in ("CollapseCallback", "NeuralCollapse", "TensorBoardTracker", "WandbTracker"):
        assert f"{name}(" in WRITTEN["guides/during-training.md"] and f".{name}\n" in page


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(320, 6, generator=generator, dtype=torch.float64), torch.arange(320) % 4
    folded = tf.statistics.FoldedStatistics.from_features(features, labels, 4)
    outside = tf.statistics.FoldedStatistics.from_features(features + 1, labels, 4)
    full = tf.ClassStatistics.from_features(features, labels, 4, per_class=True)
    weight = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    decisions = tf.DecisionCounts(full, weight)
    decisions.update(features, labels)
    return Evidence(
        full, weight, torch.zeros(4, dtype=torch.float64), decisions, outside.total, folds=folded, outside_folds=outside
    )


def test_the_stated_errors_are_those_that_metrics_have(evidence: Evidence) -> None:
    errors = metrics.standard_errors(evidence)
    for metric in metrics.available(evidence):
        if metric.needed != "class scatter":  # these folds have no scatter per class
            assert (metric.name in errors) == (not site_reference.error_of(metric).startswith("none")), metric


def test_every_metric_states_its_level_with_shuffled_labels() -> None:
    for metric in metrics.METRICS.values():
        assert site_reference.level_of(metric).startswith("none") == (not metric.labelled), metric
    stated = float(site_reference.level_of(metrics.nc1).partition(" ")[0])
    assert stated == pytest.approx(16.5, rel=0.15)  # (n - 1)(K - 1) / (D - K); the draws have a spread of 7 %
    assert site_reference.level_of(metrics.nc1.having(labelled=True, name="new")) == ""


def test_the_stated_calls_give_the_values_that_reports_have(evidence: Evidence) -> None:
    """Every metric can be computed from this evidence."""
    usual = [metric.name for metric in metrics.METRICS.values() if metric.by_default]
    assert [metric.name for metric in metrics.available(evidence)] == usual
    for metric in metrics.METRICS.values():
        names = {name: getattr(evidence, name) for name in metric.reads}
        value = eval(site_reference.call_of(metric), {"metrics": metrics, **names})
        torch.testing.assert_close(value, metric.of(evidence), equal_nan=True, msg=metric.name)


@pytest.mark.parametrize("name", metrics.METRICS)
def test_a_metric_shows_its_declaration(name: str) -> None:
    metric = metrics.METRICS[name]
    text = site_docstrings.with_facts(metric.__doc__ or "", metric)
    first, table = text.split("\n\n")[:2]
    assert (metric.__doc__ or "").startswith(first)
    assert metric.label.replace("|", "\\|") in table
    assert ("| shuffled labels |" in table) == (site_reference.level_of(metric) != "")
    for key, convention in metrics.CONVENTIONS.items():
        assert (f"`{key}`" in table) == (convention.metric.function is metric.function)


@pytest.mark.parametrize("name", metrics.METRICS)
def test_a_metric_shows_levels_limits_and_an_example(name: str) -> None:
    metric = metrics.METRICS[name]
    text = site_docstrings.as_markdown(inspect.cleandoc(metric.__doc__ or ""), "metrics")
    page = site_docstrings.with_facts(text, metric)
    rows, fields = ("target", "floor if K > D + 1", "shuffled labels"), ("Shape", "Range", "Misleads", "Source")
    for part in (*(f"\n| {row} | " for row in rows), *(f"\n**{field}:** " for field in fields), "\n```pycon\n>>> "):
        assert page.count(part) == 1, part


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("See `nc1`.", "See [`nc1`][tightframe.metrics.nc1]."),
        ("`Hierarchy.from_nested`", "[`Hierarchy.from_nested`][tightframe.hierarchy.Hierarchy.from_nested]"),
        ("`CentreCollapse`, `Collapse`", "[`CentreCollapse`][tightframe.losses.CentreCollapse], `Collapse`"),
        ("`nonsense` and `Hierarchy.nonsense`", "`nonsense` and `Hierarchy.nonsense`"),
        ("`prototypes`, `tightframe.prototypes`", "`prototypes`, [`tightframe.prototypes`][tightframe.prototypes]"),
        ("Raises: ShapeError.", "\n**Raises:** [ShapeError][tightframe.errors.ShapeError]."),
        ("Range: [0, 1].\nMisleads: often.", "\n**Range:** [0, 1].\n\n**Misleads:** often."),
        ("Shape: scalar. Range: [0, 1].", "\n**Shape:** scalar. \n**Range:** [0, 1]."),
        ("Args:\n    a: b", "Args:\n    a: b"),
        ("Args:\n    a, b: c\n        d\n    e: f", "Args:\n    a: c\n        d\n    b: c\n        d\n    e: f"),
        ("Poses differ:\n    one: a\n    two: b\n\nx", "Poses differ:\n\n* one: a\n* two: b\n\nx"),
        ("Args:\n    gamma: > 0.", "Args:\n    gamma: \\> 0."),
        ("[x]_+ and [y]_+ of a_b", "[x]\\_+ and [y]\\_+ of a_b"),
        ("x\n\n>>> 1\n1\n\ny", "x\n\n\n```pycon\n>>> 1\n1\n```\n\ny"),
        (">>> `nc1`", "\n```pycon\n>>> `nc1`\n```"),
    ],
)
def test_docstrings_become_markdown(text: str, expected: str) -> None:
    module = "hierarchy" if "Hierarchy" in text else "metrics"
    assert site_docstrings.as_markdown(text, module) == expected


# ---------------------------------------------------------------------- numbers


@pytest.mark.slow
def test_numbers_of_conventions() -> None:
    """Every convention is in one table, with its value on the same features."""
    in_tables = [key for group in site_numbers.GROUPS for key in site_numbers.members_of(group)]
    assert sorted(in_tables) == sorted(metrics.CONVENTIONS)
    for key in metrics.CONVENTIONS:
        assert all(value is None or value == value for value in site_numbers.values_of(key).values()), key
        assert site_numbers.values_of(key)["network"] is not None
    assert "10 conventions" not in site_numbers.spread_sentence("NC1")


def test_only_files_of_the_project_are_loaded() -> None:
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "font: false" in config and "://" not in config
    for path in DOCS.rglob("*.css"):
        assert "url(" not in path.read_text(encoding="utf-8")


INSERTIONS: dict[str, Callable[[str], str]] = site_pages.INSERTIONS


@pytest.mark.parametrize("name", ["test_metric", "test_head", "test_source", "test_code", "test_section"])
def test_examples_come_from_the_tests(name: str) -> None:
    code = INSERTIONS["example"](f"tests/extending/{name}.py")
    assert code.startswith("```python\n") and "def test_" not in code and code.count("\n") > 8
