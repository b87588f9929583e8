"""The floors of the package: which parts stand on which, read from the imports, and their picture.

    python scripts/floors.py        # writes docs/architecture.svg

`tests/test_architecture.py` enforces the floors and compares the picture with the imports.
"""

import ast
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "tightframe"
PICTURE = Path(__file__).parents[1] / "docs" / "architecture.svg"
LAYERS = {
    1: (
        *("numerics", "checks", "layout", "errors", "version", "processes", "device_state", "fixed", "sharing", "head"),
        *("sections", "plain", "reading", "writing", "memory", "choices", "flags", "search"),
    ),
    2: ("codes",),
    3: ("statistics", "decisions", "hooks", "hierarchy", "datasets"),
    4: ("evidence",),
    5: ("metrics", "theory", "prototypes"),
    6: ("options", "heads", "losses", "ood", "similarity"),
    7: ("sources",),
    8: ("measurement",),
    9: ("report", "render"),
    10: ("measuring", "ranking", "tasks"),
    11: ("monitor",),
    12: ("demo",),
    13: ("cli", "integrations"),
    14: ("__main__",),
}
LAYER = {part: layer for layer, parts in LAYERS.items() for part in parts}

# ---------------------------------------------------------------------- the imports


def name_of(path: Path) -> str:
    """The name of a module."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(module: str, *, annotations: bool = False) -> set[str]:
    """Modules of the package that a module imports, wherever in the file; with those for annotations only, or not."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
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


def imports_of_parts() -> dict[str, set[str]]:
    """The other parts that each part imports, annotations included."""
    parts: dict[str, set[str]] = {part: set() for module in NAMED if (part := part_of(module)) is not None}
    for module, others in NAMED.items():
        mine = part_of(module)
        if mine is not None:
            parts[mine] |= {theirs for other in others if (theirs := part_of(other)) is not None} - {mine}
    return parts


# ---------------------------------------------------------------------- the picture


@dataclass(frozen=True, order=True)
class Node:
    """A part in its row, or the line from a part to `other` where it crosses a row."""

    part: str
    row: int
    other: str = ""

    @property
    def width(self) -> int:
        """In pixels; even, so that all coordinates are whole."""
        return BOX if self.other else 2 * round(LETTER * len(self.part) / 2) + 18


WIDTH, LEFT, ROW, BOX, GAP, LETTER = 860, 44, 52, 26, 36, 7.3
STYLE = """
  text { font: 12px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; fill: #1f2328; text-anchor: middle }
  .number { font-size: 11px; fill: #59636e }
  .floor { fill: #818b981a }
  .part { fill: #ffffff; stroke: #59636e }
  .line { fill: none; stroke: #0969da; stroke-opacity: 0.7 }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc }
    .number { fill: #9198a1 }
    .floor { fill: #9198a126 }
    .part { fill: #151b23; stroke: #9198a1 }
    .line { stroke: #4493f8 }
  }
"""


def without_detours(parts: dict[str, set[str]]) -> dict[str, set[str]]:
    """Only the imports that no chain of other imports implies."""

    def below(part: str) -> set[str]:
        return set().union(*({other} | below(other) for other in parts[part]))

    under = {part: below(part) for part in parts}
    return {part: {o for o in others if not any(o in under[p] for p in others)} for part, others in parts.items()}


def rows_of(parts: dict[str, set[str]]) -> dict[str, int]:
    """The row of each part, from 0 at the bottom: above what it imports, and above all lower floors."""
    rows: dict[str, int] = {}
    for layer in sorted({LAYER[part] for part in parts}):
        lowest = max(rows.values(), default=-1) + 1
        waiting = sorted(part for part in parts if LAYER[part] == layer)
        while ready := [part for part in waiting if parts[part] <= rows.keys()]:
            rows |= {part: max([lowest, *(rows[other] + 1 for other in parts[part])]) for part in ready}
            waiting = [part for part in waiting if part not in ready]
        assert not waiting, f"{waiting} import each other in a circle, or parts of higher floors"
    return rows


def chains_of(parts: dict[str, set[str]], rows: dict[str, int]) -> list[list[Node]]:
    """For each import the nodes of its line, downward."""
    return [
        [
            Node(part, rows[part]),
            *(Node(part, row, other) for row in range(rows[part] - 1, rows[other], -1)),
            Node(other, rows[other]),
        ]
        for part, others in sorted(parts.items())
        for other in sorted(others)
    ]


def arranged(parts: dict[str, set[str]], chains: list[list[Node]], rows: dict[str, int]) -> dict[Node, float]:
    """The x of every node: each row is centred, and ordered by the mean of the neighbours in the row before."""
    near: dict[Node, list[Node]] = {Node(part, rows[part]): [] for part in parts}
    for chain in chains:
        for upper, lower in pairwise(chain):
            near.setdefault(upper, []).append(lower)
            near.setdefault(lower, []).append(upper)
    order = [sorted(node for node in near if node.row == row) for row in range(max(rows.values()) + 1)]
    place: dict[Node, float] = {}

    def spread(nodes: list[Node]) -> None:
        x = (WIDTH + LEFT - sum(node.width for node in nodes) - GAP * (len(nodes) - 1)) / 2
        for node in nodes:
            place[node] = x + node.width / 2
            x += node.width + GAP

    def aim(node: Node, step: int) -> float:
        beside = [place[other] for other in near[node] if other.row == node.row - step]
        return sum(beside) / len(beside) if beside else place[node]

    for nodes in order:
        spread(nodes)
    for sweep in range(24):
        step = 1 if sweep % 2 == 0 else -1
        for nodes in order[::step]:
            nodes.sort(key=lambda node: (aim(node, step), node))
            spread(nodes)
    return place


def drawn() -> str:
    """The picture. Every part stands on floor 1, so that its imports are not drawn; nor are implied ones."""
    everything = imports_of_parts()
    upper = {part: {o for o in others if LAYER[o] > 1} for part, others in everything.items() if LAYER[part] > 1}
    rows = rows_of(upper)
    chains = chains_of(without_detours(upper), rows)
    place = arranged(upper, chains, rows)
    top = max(rows.values())
    ground = wrapped(sorted(part for part in everything if LAYER[part] == 1))
    base = 8 + (top + 1) * ROW
    height = base + len(ground) * (BOX + 10) + 18

    def middle(row: int) -> int:
        return 8 + (top - row) * ROW + ROW // 2

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH + LEFT} {height}" role="img">',
        "<title>The floors of tightframe: each part, and the parts below that it imports</title>",
        f"<style>{STYLE}</style>",
    ]
    for layer in sorted({LAYER[part] for part in upper}, reverse=True):
        own = [rows[part] for part in upper if LAYER[part] == layer]
        out.append(band(layer, middle(max(own)) - ROW // 2 + 2, ROW * (max(own) - min(own) + 1) - 4))
    out.append(band(1, base + 2, len(ground) * (BOX + 10) + 8))
    out += [line([(place[node], middle(node.row)) for node in chain]) for chain in chains]
    out += [box(part, place[Node(part, row)], middle(row)) for part, row in sorted(rows.items())]
    for number, row in enumerate(ground):
        out += [box(part, x, base + 11 + number * (BOX + 10) + BOX // 2) for part, x in row]
    return "\n".join([*out, "</svg>", ""])


def wrapped(parts: list[str]) -> list[list[tuple[str, float]]]:
    """Rows of parts with their x, in reading order."""
    rows: list[list[tuple[str, float]]] = [[]]
    x = start = LEFT + 14
    for part in parts:
        width = Node(part, 0).width
        if x + width > WIDTH + LEFT - 26:
            rows.append([])
            x = start
        rows[-1].append((part, x + width / 2))
        x += width + 10
    return rows


def band(layer: int, y: int, height: int) -> str:
    """A floor with its number."""
    return (
        f'<rect class="floor" x="{LEFT - 12}" y="{y}" width="{WIDTH}" height="{height}" rx="4"/>'
        f'<text class="number" x="{LEFT // 2 - 6}" y="{y + height // 2 + 4}">{layer}</text>'
    )


def box(part: str, x: float, y: int) -> str:
    """A part; its first sentence shows under the pointer."""
    tree = ast.parse(MODULES[f"tightframe.{part}"].read_text(encoding="utf-8"))
    sentence = (ast.get_docstring(tree) or "").partition("\n")[0]
    width = Node(part, 0).width
    return (
        f"<g><title>{escape(sentence)}</title>"
        f'<rect class="part" x="{x - width / 2:g}" y="{y - BOX // 2}" width="{width}" height="{BOX}" rx="4"/>'
        f'<text x="{x:g}" y="{y + 4}">{part}</text></g>'
    )


def line(points: list[tuple[float, int]]) -> str:
    """A curve through the middles of rows, upright where it crosses a row."""
    path = f"M{points[0][0]:g} {points[0][1] + BOX // 2}"
    for (above, _), (x, y) in pairwise(points):
        turn = y - ROW // 2
        path += f"C{above:g} {turn} {x:g} {turn} {x:g} {y - BOX // 2}"
        path += f"V{y + BOX // 2}" if (x, y) != points[-1] else ""
    return f'<path class="line" d="{path}"/>'


if __name__ == "__main__":
    PICTURE.write_text(drawn(), encoding="utf-8")
