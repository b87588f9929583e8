"""Imports run downward by layer and never in circles; importing the package costs nothing that isn't used."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import tightframe

ROOT = Path(tightframe.__file__).parent
LAYERS = {
    1: (
        *("numerics", "checks", "layout", "errors", "version", "processes", "device_state", "fixed", "sharing", "head"),
        *("sections", "plain", "reading", "writing", "memory", "choices", "flags", "search"),
    ),
    2: ("codes",),
    3: ("statistics", "decisions", "hooks", "hierarchy", "datasets"),
    4: ("evidence",),
    5: ("metrics", "theory", "prototypes"),
    6: ("options", "heads", "losses", "ood"),
    7: ("sources",),
    8: ("measurement",),
    9: ("report", "render"),
    10: ("measuring", "tasks"),
    11: ("monitor",),
    12: ("demo",),
    13: ("cli", "integrations"),
    14: ("__main__",),
}
LAYER = {part: layer for layer, parts in LAYERS.items() for part in parts}
HOSTS = (
    *("matplotlib", "sklearn", "pandas", "pyarrow", "typer", "rich"),
    *("lightning", "transformers", "timm", "torchmetrics", "tensorboard", "wandb"),
)


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}


def imports(module: str, *, annotations: bool = False) -> set[str]:
    """Modules of the package that a module imports, wherever in the file; with those for annotations only, or not."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    tree = ast.parse(path.read_text())
    for block in [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]:
        if not annotations:
            tree.body.remove(block)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.rsplit(".", node.level - 1)[0] if node.level > 1 else package
                base = f"{above}.{base}".rstrip(".")
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            while name and name not in MODULES:  # a name in a module, or a module that isn't ours
                name = name.rpartition(".")[0]
            if name:
                found.add(name)
    return found - {module}


def part_of(module: str) -> str | None:
    """The top-level part of the package that a module belongs to; None for the package itself."""
    return module.split(".")[1] if "." in module else None


GRAPH = {module: imports(module) for module in MODULES}
NAMED = {module: imports(module, annotations=True) for module in MODULES}
"""With the imports for annotations only: what a module must know of."""


def test_the_graph_is_read_right() -> None:
    """A few edges that are there, of each form of import; should they move, so must this test."""
    assert "tightframe.numerics" in GRAPH["tightframe.metrics.geometry"]  # from tightframe import numerics
    assert "tightframe.metrics.pairs" in GRAPH["tightframe.metrics.table"]  # from a package, its modules
    assert "tightframe.errors" in GRAPH["tightframe.checks"]  # from a module, its names
    assert "tightframe" not in GRAPH["tightframe.metrics.geometry"]


@pytest.mark.parametrize("module", [module for module in MODULES if module != "tightframe"])
def test_imports_run_downward(module: str) -> None:
    mine = part_of(module)
    assert mine in LAYER, f"{module} belongs to no layer; add {mine} to one"
    for other in NAMED[module]:
        theirs = part_of(other)
        if theirs is None:
            assert other == "tightframe"  # its version and public names
            assert LAYER[mine] == 8, f"{module} imports the whole package"
        else:
            assert LAYER[theirs] <= LAYER[mine], f"{module} (layer {LAYER[mine]}) imports {other} ({LAYER[theirs]})"


def test_imports_run_in_no_circle() -> None:
    """Nor do annotations."""
    try:
        TopologicalSorter(NAMED).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("module", [module for module in MODULES if part_of(module) in ("report", "render")])
def test_reports_and_renderers_know_nothing_of_each_other(module: str) -> None:
    """They share documents; a document names the renderer that it wants by its file. Nothing is hidden in annotations
    alone, and no renderer is named in a report's imports, wherever in the file."""
    other = {"report": "render", "render": "report"}[part_of(module) or ""]
    assert [name for name in NAMED[module] if part_of(name) == other] == []


def test_nothing_of_reports_is_imported_for_annotations_alone() -> None:
    hidden = {module: NAMED[module] - GRAPH[module] for module in MODULES if part_of(module) == "report"}
    assert {module: names for module, names in hidden.items() if names} == {}


def test_parts_of_the_package_import_each_other_in_no_circle() -> None:
    parts: dict[str, set[str]] = {}
    for module, others in NAMED.items():
        mine = part_of(module)
        if mine is not None:
            parts.setdefault(mine, set()).update({part_of(other) for other in others} - {None, mine})
    try:
        TopologicalSorter(parts).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def loaded_after(statement: str) -> set[str]:
    """Top-level packages loaded in a fresh interpreter by a statement."""
    script = f"import sys\n{statement}\nprint(*{{name.split('.')[0] for name in sys.modules}}, file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(result.stderr.split())


def test_importing_loads_no_optional_host() -> None:
    """What all of these load together has no host, so what each loads has none."""
    parts = ("statistics", "metrics", "theory", "monitor", "integrations", "sources")
    loaded = loaded_after("import tightframe, " + ", ".join(f"tightframe.{part}" for part in parts))
    assert {"tightframe", "torch"} <= loaded
    assert not loaded & set(HOSTS)


def test_importing_the_package_alone_loads_no_torch() -> None:
    assert "torch" not in loaded_after("import tightframe; tightframe.__version__; dir(tightframe)")


@pytest.mark.parametrize("name", sorted(set(tightframe.__all__) - {"__version__"}))
def test_public_names_resolve(name: str) -> None:
    assert getattr(tightframe, name) is not None
    assert name in dir(tightframe)


def test_other_names_do_not() -> None:
    with pytest.raises(AttributeError, match="'nonsense'"):
        _ = tightframe.nonsense


def test_the_command_line_helps_without_torch() -> None:
    program = (
        "import runpy\nsys.argv = ['tightframe', '--help']\n"
        "try:\n    runpy.run_module('tightframe.cli', run_name='__main__')\n"
        "except SystemExit as stop:\n    assert not stop.code, stop.code"
    )
    assert "torch" not in loaded_after(program)
