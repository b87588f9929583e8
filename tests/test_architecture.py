"""Imports run downward by layer and never in circles; importing the package costs nothing that isn't used."""

import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from xml.etree import ElementTree

import pytest

import floors
import tightframe
from floors import GRAPH, LAYER, MODULES, NAMED, PACKAGE, PICTURE, imports_of_parts, part_of

HOSTS = (
    *("matplotlib", "sklearn", "pandas", "pyarrow", "typer", "rich"),
    *("lightning", "transformers", "timm", "torchmetrics", "tensorboard", "wandb"),
)


def test_the_graph_is_read_right() -> None:
    """A few edges that are there, of each form of import; should they move, so must this test."""
    assert "tightframe.numerics" in GRAPH["tightframe.metrics.etf"]  # from tightframe import numerics
    assert "tightframe.metrics.pairs" in GRAPH["tightframe.metrics.table"]  # from a package, its modules
    assert "tightframe.errors" in GRAPH["tightframe.checks"]  # from a module, its names
    assert "tightframe" not in GRAPH["tightframe.metrics.etf"]


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
    try:
        TopologicalSorter(imports_of_parts()).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


# ---------------------------------------------------------------------- the picture


def test_the_picture_is_that_of_the_imports() -> None:
    assert PICTURE.read_text(encoding="utf-8") == floors.drawn(), "imports changed: run python scripts/floors.py"


def test_every_part_is_in_the_picture_above_what_it_imports() -> None:
    boxes = {text: y for group in ElementTree.fromstring(floors.drawn()) for text, y in texts(group)}
    assert set(boxes) == set(LAYER) == {path.stem for path in PACKAGE.iterdir() if is_part(path)}
    for part, others in imports_of_parts().items():
        assert all(boxes[part] < boxes[other] for other in others if LAYER[other] > 1), part


def texts(group: ElementTree.Element) -> Iterator[tuple[str, float]]:
    """The name in each box of a group, and its y."""
    for element in group.iter():
        if group.tag.endswith("}g") and element.tag.endswith("}text"):
            yield element.text or "", float(element.attrib["y"])


def is_part(path: Path) -> bool:
    return (path.suffix == ".py" and path.stem != "__init__") or (path / "__init__.py").exists()


def test_a_line_is_drawn_for_each_import_that_no_other_implies() -> None:
    parts = {"cli": {"demo", "codes", "report"}, "demo": {"report"}, "report": {"codes"}, "codes": set()}
    assert floors.without_detours(parts) == {"cli": {"demo"}, "demo": {"report"}, "report": {"codes"}, "codes": set()}
    assert floors.rows_of(parts) == {"codes": 0, "report": 1, "demo": 2, "cli": 3}


def test_a_new_import_changes_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    before = floors.drawn()
    monkeypatch.setitem(floors.NAMED, "tightframe.monitor", NAMED["tightframe.monitor"] | {"tightframe.render.page"})
    assert floors.drawn() != before


# ---------------------------------------------------------------------- what is loaded


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
