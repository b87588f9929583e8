"""The pages of the reference, from the package's own declarations: `pages()` maps a page's path to its Markdown."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

import tightframe
from tightframe import codes, datasets, losses, metrics, ood, prototypes
from tightframe.metrics.metric import COLLECTED
from tightframe.metrics.table import FAMILIES
from tightframe.report.cards import PHENOMENA
from tightframe.sections import number, written

ROOT = "reference"
MODULES = (
    *("statistics", "metrics", "similarity", "theory", "codes", "prototypes", "heads", "losses", "ood", "sources"),
    *("hooks", "hierarchy", "datasets", "report", "options", "sections"),
)
"""Public modules in the order of the pages; `tightframe` and `errors` have pages of their own."""
COMMANDS = ("demo", "measure", "extract", "prototypes", "report", "compare", "rank", "metrics", "codes", "datasets")
SIMPLEX, CROWDED = (10, 64), (100, 16)  # classes and dimensions of the examples of targets, levels and floors
SAMPLES = 100  # per class
FAMILY_TITLES = {
    "scale": "Scale: sizes of the scatter",
    "GNC2": "GNC2: means on a sphere, for any number of classes",
    "accuracy": "Accuracy of the classifier",
    "transfer": "Transfer: how well features serve to classify",
}
TABLES = {
    "tightframe.metrics.METRICS", "tightframe.metrics.CONVENTIONS", "tightframe.prototypes.PROTOTYPES",
    "tightframe.losses.LOSSES", "tightframe.ood.DETECTORS", "tightframe.ood.CURVE", "tightframe.codes.CODES",
    "tightframe.datasets.DATASETS", "tightframe.datasets.OUTSIDE", "tightframe.heads.SIMILARITIES",
    "tightframe.heads.MARGINS",
}  # fmt: skip
"""Dictionaries that are shown as tables, not as source."""


@dataclass(frozen=True)
class Place:
    """Where a public name is described."""

    page: str
    identifier: str
    """Path of the object, which is also the anchor of its heading."""

    def seen_from(self, page: str) -> str:
        """Relative link from another page."""
        path = os.path.relpath(self.page, os.path.dirname(page) or ".").replace(os.sep, "/")
        return f"#{self.identifier}" if self.page == page else f"{path}#{self.identifier}"


# ---------------------------------------------------------------------- public names and their places


def module_of(name: str) -> ModuleType:
    return import_module(f"tightframe.{name}")


def public_names(name: str) -> list[str]:
    """The public names of a module: `__all__`, else the classes and functions that it defines."""
    module = module_of(name) if name != "tightframe" else tightframe
    if (listed := getattr(module, "__all__", None)) is not None:
        return list(listed)
    own = [key for key, each in vars(module).items() if getattr(each, "__module__", "") == module.__name__]
    return [key for key in own if not key.startswith("_") and callable(getattr(module, key))]


def family_page(family: str) -> str:
    return f"{ROOT}/metrics/{family.lower()}.md"


def page_of(module: str) -> str:
    return f"{ROOT}/{module}.md"


def identifier(module: str, name: str) -> str:
    """The path of a public name; of a function in a file of its own name, which hides it, the longer one."""
    path = f"tightframe.{module}.{name}"
    hidden = hasattr(module_of(module), "__path__") and find_spec(path) is not None
    return f"{path}.{name}" if hidden else path


@cache
def places() -> dict[str, Place]:
    """The place of every public name, by the name that users write, such as "metrics.nc1" or "Monitor"."""
    found: dict[str, Place] = {}
    homes: dict[int, Place] = {}  # a name that two modules export is described once

    def put(key: str, value: Any, page: str, identifier: str) -> None:
        found[key] = homes.setdefault(id(value), Place(page, identifier))

    for metric in metrics.METRICS.values():
        put(f"metrics.{metric.name}", metric, family_page(metric.family), f"tightframe.metrics.{metric.name}")
    for module in (*MODULES, "errors"):
        for name in public_names(module):
            put(f"{module}.{name}", getattr(module_of(module), name), page_of(module), identifier(module, name))
    for name in tightframe.__all__:
        value = getattr(tightframe, name)
        if isinstance(value, ModuleType):
            found[name] = Place(page_of(name), f"tightframe.{name}")
        elif name == "__version__":
            found[name] = Place(page_of("tightframe"), "tightframe.version")
        else:
            put(name, value, page_of("tightframe"), f"{value.__module__}.{name}")
    return found


def link(key: str, page: str, text: str = "") -> str:
    """A link from a page to the place of a public name."""
    return f"[`{text or key}`]({places()[key].seen_from(page)})"


# ---------------------------------------------------------------------- Markdown


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table. Bars in cells are escaped."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def described(identifier: str, level: int = 2) -> str:
    """The directive that describes an object from its docstring."""
    options = f"    options:\n      heading_level: {level}\n"
    if identifier in TABLES:
        options += "      show_attribute_values: false\n"
    return f"::: {identifier}\n{options}"


def first_sentence(text: str | None) -> str:
    """The first paragraph of a docstring, in one line."""
    return " ".join((inspect.cleandoc(text or "").split("\n\n")[0]).split())


def described_names(module: str, page: str) -> str:
    """Every public name of a module: described here, or in a table of those described elsewhere."""
    here, elsewhere = [], []
    for name in public_names(module):
        key = name if module == "tightframe" else f"{module}.{name}"
        place = places()[key]
        if name == "__version__" or place.page != page:
            elsewhere.append((key, name))
        elif not isinstance(getattr(tightframe, key, None), ModuleType):
            here.append(described(place.identifier))
    text = "\n".join(here)
    others = [(link(key, page, name), _summary_of(key)) for key, name in elsewhere if name != "__version__"]
    if others:
        text = (
            f"{text}\n## Described on other pages {{ #{module}-elsewhere }}\n\n{table(('name', 'what it is'), others)}"
        )
    return text


def value_of(key: str) -> Any:
    """The object with a key of `places`."""
    *modules, name = key.split(".")
    return getattr(module_of(modules[0]) if modules else tightframe, name)


def _summary_of(key: str) -> str:
    value = value_of(key)
    return first_sentence(value.__doc__) if callable(value) or isinstance(value, ModuleType) else ""


# ---------------------------------------------------------------------- metrics


def setting(classes: int, dims: int) -> metrics.Setting:
    """Classes of equal size."""
    return metrics.Setting(torch.full((classes,), float(SAMPLES), dtype=torch.float64), dims, classes)


def target_of(metric: metrics.Metric[Any]) -> str:
    if not callable(metric.target):
        return "none" if metric.target is None else number(metric.target)
    value = metric.target_in(setting(*SIMPLEX))
    where = "for {} classes of equal size in {} dimensions".format(*SIMPLEX)
    return f"depends on the setting; {number(value)} {where}" if value is not None else "depends on the setting"


def floor_of(metric: metrics.Metric[Any]) -> str:
    if metric.floor is None:
        return "none"
    value = metric.floor_in(setting(*CROWDED))
    text = "{} for {} classes in {} dimensions".format(number(value), *CROWDED)
    return text + ("" if metric.attainable else "; not attained in general")


@cache
def isotropic_levels() -> dict[str, metrics.Level]:
    """The levels of all metrics for features without structure, of equal variance in all directions."""
    classes, dim = SIMPLEX
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(classes * SAMPLES, dim, generator=generator, dtype=torch.float64)
    labels = torch.arange(len(features)) % classes
    statistics = tightframe.ClassStatistics.from_features(features, labels, classes, per_class=True)
    weight = torch.randn(classes, dim, generator=generator, dtype=torch.float64)
    decisions = tightframe.DecisionCounts(statistics, weight)
    decisions.update(features, labels)
    evidence = metrics.Evidence(statistics, weight, weight.new_zeros(classes), decisions, statistics)
    allowed = [name for name, each in metrics.METRICS.items() if each.available(evidence)]
    return metrics.levels(evidence, allowed)


def level_of(metric: metrics.Metric[Any]) -> str:
    """The level of isotropic features, with the spread of its draws."""
    level = isotropic_levels().get(metric.name)
    if level is None:
        return "" if metric.labelled else "none: labels do not matter"
    classes, dim = SIMPLEX
    where = f"for {classes} classes of {SAMPLES} samples in {dim} dimensions of equal variance"
    kind = "random directions, " if level.kind == "random" else ""
    return f"{kind}{number(level.value)} ± {number(level.spread)} {where}"


def error_of(metric: metrics.Metric[Any]) -> str:
    """The kind of standard error, as `standard_errors` chooses it."""
    if metric.hits is not None:
        return "binomial"
    if "statistics" not in metric.reads:
        return "none: the classifier alone has no sampling error"
    if not metric.smooth:
        return "none: not a smooth function of the moments"
    return "jackknife of both samples" if "outside" in metric.reads else "jackknife over folds of the samples"


def evidence_of(metric: metrics.Metric[Any]) -> str:
    read = ", ".join(f"`{name}` ({COLLECTED[name]})" for name in metric.reads)
    return f"{read}; of the statistics: {metric.needed}" if "statistics" in metric.reads else read


def call_of(metric: metrics.Metric[Any]) -> str:
    """The call with default options."""
    return f"metrics.{metric.name}({', '.join(metric.reads)})"


def options_of(metric: metrics.Metric[Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in metric.options.items())


def conventions_of(metric: metrics.Metric[Any]) -> list[tuple[str, metrics.Convention]]:
    """The conventions that bind options of this metric."""
    return [(key, each) for key, each in metrics.CONVENTIONS.items() if each.metric.function is metric.function]


def facts_of(metric: metrics.Metric[Any]) -> list[tuple[str, str]]:
    """What the declaration says, with a heading for each fact."""
    shown = [text for text, yes in (("short tables", metric.headline), ("held-out data", metric.held_out)) if yes]
    by_options: dict[str, list[str]] = {}
    for key, each in conventions_of(metric):
        by_options.setdefault(options_of(each.metric), []).append(f"`{key}`")
    bound = [(f"`{options}`: " if options else "") + ", ".join(keys) for options, keys in by_options.items()]
    facts = [
        ("label", metric.label),
        ("convention", metric.convention),
        ("call", f'`{call_of(metric)}`; in a report: `measure(..., metrics=["{metric.name}"])`'),
        ("target", target_of(metric)),
        ("floor if K > D + 1", floor_of(metric)),
        ("shuffled labels", level_of(metric)),
        ("reads", evidence_of(metric)),
        ("standard error", error_of(metric)),
        ("closeness", "on the share r / (1 + r)" if metric.scale is not metrics.plain else "on the value itself"),
        ("shown for", ", ".join(shown)),
        ("default for", default_of(metric)),
        ("papers' conventions", "; ".join(bound)),
    ]
    return [(heading, text) for heading, text in facts if text]


def default_of(metric: metrics.Metric[Any]) -> str:
    """When a metric is computed without being named; empty for always."""
    if not metric.by_default:
        return "none: name it"
    return "" if metric.most_classes is None else f"at most {metric.most_classes:,} classes"


def metric_pages() -> dict[str, str]:
    statements = {each.label: each.statement for each in PHENOMENA}
    made = {}
    for family in FAMILIES:
        members = [each for each in metrics.METRICS.values() if each.family == family]
        page = family_page(family)
        title = FAMILY_TITLES.get(family) or f"{family}: {statements[family]}"
        rows = [(link(f"metrics.{each.name}", page, each.name), each.label, target_of(each)) for each in members]
        sections = "\n".join(described(f"tightframe.metrics.{each.name}") for each in members)
        group = "nc1" if family == "scale" else family.lower()
        papers = (
            f"\nPapers' variants, with values: [Which number?](../../guides/which-number.md#conventions-{group}).\n"
            if any(conventions_of(each) for each in members)
            else ""
        )
        made[page] = f"# {title}\n\n{table(('metric', 'label', 'target'), rows)}{papers}\n{sections}"
    return made


def title_of_family(family: str) -> str:
    return metric_pages()[family_page(family)].splitlines()[0].removeprefix("# ")


# ---------------------------------------------------------------------- the tables that begin a module's page


def construction_table(page: str) -> str:
    rows = [
        (link(_key("prototypes", each.build), page, name), each.summary, each.needs, _tick(each.searches), each.source)
        for name, each in prototypes.PROTOTYPES.items()
    ]
    return table(("construction", "result", "input", "searches", "source"), rows)


def loss_table(page: str) -> str:
    rows = [
        (
            f"`{name}`",
            link(_key("losses", each.module), page, each.module.__name__),
            each.takes,
            each.summary,
            each.source,
        )
        for name, each in losses.LOSSES.items()
    ]
    return table(("name", "class", "takes", "loss", "source"), rows)


def detector_table(page: str) -> str:
    rows = [
        (f"`{name}`", each.label, each.convention, ", ".join(each.requires), each.source)
        for name, each in ood.DETECTORS.items()
    ]
    return table(("name", "label", "convention", "needs", "source"), rows)


def dataset_table(page: str) -> str:
    rows = [
        (f"`{name}`", each.description, f"{each.train_size:,}", f"{each.test_size:,}", each.num_classes,
         _tick(each.tree is not None), each.origin)
        for name, each in datasets.DATASETS.items()
    ]  # fmt: skip
    outside = [(f"`{name}`", each.description) for name, each in datasets.OUTSIDE.items()]
    columns = ("data set", "images", "training", "test", "classes", "tree", "files")
    return (
        f"{table(columns, rows)}\nOut-of-distribution images, for `--ood` and `load_outside`:\n\n"
        f"{table(('name', 'images'), sorted(outside))}"
    )


def head_choices(page: str) -> str:
    from tightframe.heads import MARGINS, SIMILARITIES

    logits = ", ".join(f"`{name}`" for name in SIMILARITIES)
    rows = [(f"`{name}`", each.summary, each.unit, each.source) for name, each in MARGINS.items()]
    margins = table(("margin_kind", "own class", "unit of the margin", "source"), rows)
    return f"Choices of `logits=`: {logits}.\n\nChoices of `margin_kind=`:\n\n{margins}"


def code_link(page: str) -> str:
    return f"[All {len(codes.CODES)} exact codes](exact-codes.md), by name.\n"


def metric_link(page: str) -> str:
    rows = [
        (f"[{title_of_family(family)}]({family_page(family).removeprefix(ROOT + '/')})",
         sum(each.family == family for each in metrics.METRICS.values()))
        for family in FAMILIES
    ]  # fmt: skip
    return f"{table(('family', 'metrics'), rows)}\nPapers' variants: [Which number?](../guides/which-number.md)\n"


FIRST = {
    "prototypes": construction_table,
    "losses": loss_table,
    "ood": detector_table,
    "datasets": dataset_table,
    "heads": head_choices,
    "codes": code_link,
    "metrics": metric_link,
}


def _key(module: str, value: Any) -> str:
    return next(f"{module}.{name}" for name in public_names(module) if getattr(module_of(module), name) is value)


def _tick(yes: bool) -> str:
    return "yes" if yes else ""


# ---------------------------------------------------------------------- pages


def module_page(module: str) -> str:
    page = page_of(module)
    first = FIRST[module](page) + "\n" if module in FIRST else ""
    name = module if module == "tightframe" else f"tightframe.{module}"
    doc = (tightframe if module == "tightframe" else module_of(module)).__doc__
    anchor = "" if module == "tightframe" else f" {{ #{name} }}"
    version = (
        "\n## `__version__` { #tightframe.version }\n\nThe installed version, as text.\n"
        if module == "tightframe"
        else ""
    )
    return f"# `{name}`{anchor}\n\n{inspect.cleandoc(doc or '')}\n\n{first}{described_names(module, page)}{version}"


def error_page() -> str:
    names = public_names("errors")
    rows = [
        (link(f"errors.{name}", page_of("errors"), name), first_sentence(getattr(tightframe.errors, name).__doc__))
        for name in names
    ]
    sections = "\n".join(described(f"tightframe.errors.{name}") for name in names)
    doc = inspect.cleandoc(tightframe.errors.__doc__ or "")
    return (
        f"# Errors and warnings {{ #tightframe.errors }}\n\n{doc}\n\n{table(('name', 'raised if'), rows)}\n{sections}"
    )


def integrations() -> dict[str, list[str]]:
    """The public classes and functions of each host's file, which is read but not imported: it needs the host."""
    found = {}
    for path in sorted(Path(import_module("tightframe.integrations").__path__[0]).glob("*.py")):
        if path.stem not in ("__init__", "scalars"):
            tree = ast.parse(path.read_text(encoding="utf-8")).body
            names = [node.name for node in tree if isinstance(node, ast.ClassDef | ast.FunctionDef)]
            found[path.stem] = [name for name in names if not name.startswith("_")]
    return found


def integration_page() -> str:
    text = f"# Integrations\n\n{inspect.cleandoc(import_module('tightframe.integrations').__doc__ or '')}\n"
    for host, names in integrations().items():
        text += f"\n## `tightframe.integrations.{host}` {{ #tightframe.integrations.{host} }}\n\n"
        text += "\n".join(described(f"tightframe.integrations.{host}.{name}", 3) for name in names)
    return text


def code_page() -> str:
    rows = [
        (
            f"`{name}`",
            str(each),
            f"{each.K:,}",
            f"{each.D:,}",
            written(each.cosine, "cosine"),
            _tick(each.optimal),
            each.source,
        )
        for name, each in codes.CODES.items()
    ]
    headings = ("name", "code", "vectors", "dimensions", "largest cosine", "proven optimal", "source")
    return (
        f"# Exact codes\n\n{len(codes.CODES)} codes, built from their mathematics by `prototypes.code(name)` and "
        f"`tightframe prototypes --code NAME`.\n\n{table(headings, rows)}"
    )


@cache
def help_text(*command: str) -> str:
    """What `tightframe COMMAND --help` prints."""
    run = [sys.executable, "-m", "tightframe", *command, "--help"]
    result = subprocess.run(run, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "100"})
    return result.stdout.rstrip()


def command_page() -> str:
    text = f"# Command line\n\n```text\n{help_text()}\n```\n"
    for command in COMMANDS:
        text += f"\n## {command} {{ #{command} }}\n\n```text\n{help_text(command)}\n```\n"
    return text


def pages() -> dict[str, str]:
    """Every page of the reference by its path, in the order of the navigation."""
    return {
        page_of("tightframe"): module_page("tightframe"),
        f"{ROOT}/command-line.md": command_page(),
        **{page_of(module): module_page(module) for module in ("statistics", "metrics")},
        **metric_pages(),
        **{page_of(module): module_page(module) for module in MODULES if module not in ("statistics", "metrics")},
        f"{ROOT}/exact-codes.md": code_page(),
        f"{ROOT}/integrations.md": integration_page(),
        page_of("errors"): error_page(),
    }


def navigation() -> list[Any]:
    """The reference's part of the navigation."""
    families = [{title_of_family(family): family_page(family)} for family in FAMILIES]
    modules = [{f"tightframe.{module}": page_of(module)} for module in MODULES if module != "metrics"]
    return [
        {"tightframe": page_of("tightframe")},
        {"Command line": f"{ROOT}/command-line.md"},
        {"Metrics": [{"All families": page_of("metrics")}, *families]},
        {"Exact codes": f"{ROOT}/exact-codes.md"},
        {"Modules": modules},
        {"Integrations": f"{ROOT}/integrations.md"},
        {"Errors and warnings": page_of("errors")},
    ]
