"""Figures for papers: values are where they are, sizes are a column's, text stays text."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex

from tightframe.render import figures
from tightframe.render.matrices import BLUE, ORANGE, WHITE
from tightframe.render.styles import LIGHT
from tightframe.sections import Bars, Curves, Document, Figure, Matrix, Section, Series

NAN, INF = math.nan, math.inf


def drawn(figure: Figure, **options: Any) -> Any:
    """The axes of the only figure of a document."""
    (found,) = figures.render(Document("t", sections=(Section("a", "A", figures=(figure,)),)), **options).values()
    found.canvas.draw()
    return found.axes[0]


def curve(axes: Any, label: str) -> Any:
    (line,) = (line for line in axes.lines if line.get_label() == label)
    return line


def test_keys_and_sizes(document: Document) -> None:
    found = figures.render(document)
    training = ["training", *(f"training-{place}" for place in range(2, 7))]
    assert list(found) == [*training, "gram", "gram-2", "gram-3", "gram-4", "accuracy"]
    assert found["training"].get_size_inches().tolist() == [3.3, 2.4]
    assert found["training-6"].axes[0].get_title(loc="left") == "f"


def test_unusual_values(unusual: Document, recwarn: pytest.WarningsRecorder) -> None:
    for figure in figures.render(unusual, variants=True).values():
        figure.canvas.draw()
    assert not [str(warning.message) for warning in recwarn if "Glyph" not in str(warning.message)]


def test_values_roles_and_levels() -> None:
    main, held = Series("train", (1.0, 2.0, 3.0), (9.0, NAN, 0.5)), Series("test", (1.0, 2.0), (8.0, 4.0), "held-out")
    other = Series("other", (1.0, 2.0), (1.0, 2.0), "variant")
    figure = Curves("t", "epoch", (main, held, other), "nats", target=0.25, shuffled=8.5, marks=((2.0, "drop"),))
    axes = drawn(figure)
    np.testing.assert_array_equal(curve(axes, "train").get_ydata(), main.y)
    np.testing.assert_array_equal(curve(axes, "train").get_xdata(), main.x)
    assert curve(axes, "test").get_color() == LIGHT["held-out"] and curve(axes, "test").is_dashed()
    assert not curve(axes, "train").is_dashed()
    assert not [line for line in axes.lines if line.get_label() == "other"]
    np.testing.assert_array_equal(curve(drawn(figure, variants=True), "other").get_ydata(), other.y)
    assert {text.get_text() for text in axes.texts} >= {"target\n0.25", "shuffled\n8.5", "drop"}
    level = [line.get_ydata()[0] for line in axes.lines if list(line.get_xdata()) == [0, 1]]
    assert level == [0.25, 8.5]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "nats")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["train", "test"]


def test_zeros_on_a_logarithmic_axis() -> None:
    axes = drawn(Curves("t", "epoch", (Series("a", (1.0, 2.0, 3.0), (300.0, 1.0, 0.0)),), log_y=True))
    bottom = axes.get_ylim()[0]
    assert axes.get_yscale() == "log" and 0 < bottom < 1
    assert [text.get_text() for text in axes.get_yticklabels()] == ["0", "10⁰", "10¹", "10²"]
    assert axes.get_yticks()[0] == bottom
    (zeros,) = (line for line in axes.lines if line.get_marker() == "v")
    assert list(zeros.get_xdata()) == [3.0] and list(zeros.get_ydata()) == [bottom]
    assert zeros.get_markerfacecolor() == "white"
    assert curve(axes, "a").get_markevery() == [0, 1]


def test_points_that_no_line_reaches_have_markers() -> None:
    y = np.sin(np.arange(100.0))
    y[[49, 51]] = NAN
    axes = drawn(Curves("t", "x", (Series("a", tuple(np.arange(100.0)), tuple(y)),)))
    assert curve(axes, "a").get_markevery() == [50] and curve(axes, "a").get_marker() == "o"


def test_bands() -> None:
    axes = drawn(Curves("t", "x", (Series("a", (0.0, 1.0), (5.0, 5.0), error=(2.0, 1.0)),)))
    heights = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert {3.0, 7.0, 4.0, 6.0} <= set(heights.tolist())


def test_categories() -> None:
    names = tuple(f"model.encoder.layers.{place}.attention" for place in range(6))
    axes = drawn(Curves("t", "layer", (Series("a", (0.0, 5.0), (1.0, 2.0)),), categories=names))
    labels = [text.get_text() for text in axes.get_xticklabels()]
    assert list(axes.get_xticks()) == list(range(6)) and len(set(labels)) == 6
    assert all(len(label) <= 15 and label.startswith("…") and label.endswith("attention") for label in labels)


def test_bars() -> None:
    axes = drawn(Bars("t", ("a", "b", "c"), (1.5, None, 0.5), ("n = 1", "n = 2", "n = 3"), most=2.0))
    assert [bar.get_height() for bar in axes.patches][::2] == [1.5, 0.5] and math.isnan(axes.patches[1].get_height())
    assert axes.get_ylim() == (0.0, 2.0)
    assert [text.get_text() for text in axes.get_xticklabels()] == ["a · n = 1", "b · n = 2", "c · n = 3"]
    assert [text.get_text() for text in axes.texts] == ["–"]


def test_matrix_has_the_colours_of_the_page() -> None:
    values = ((-2.0, 0.5, 3.0), (NAN, 9.0, 0.5), (0.5, 0.5, 0.5))
    axes = drawn(Matrix("t", values, ("a", "b", "c"), -2, 0.5, 3, outlined=((0, 2),)))
    (image,) = axes.images
    pixels = image.cmap(image.norm(image.get_array()))
    colours = [to_hex(tuple(channel / 255 for channel in colour)) for colour in (ORANGE, WHITE, BLUE)]
    assert [to_hex(pixel) for pixel in pixels[0]] == colours
    assert [to_hex(pixel) for pixel in pixels[1]] == [LIGHT["line"], colours[2], colours[1]]
    assert [patch.get_xy() for patch in axes.patches] == [(1.5, -0.5)] * 2
    assert [text.get_text() for text in axes.get_xticklabels()] == ["a", "b", "c"]
    bar = axes.figure.axes[1]
    assert [text.get_text() for text in bar.get_yticklabels()] == ["−2", "0.5", "3"]


@pytest.mark.parametrize("figure", [Bars("t", ("a",), (0.5,)), Matrix("t", ((1.0,),), ("a",), -1, 0, 1)])
def test_how_to_read_a_picture_is_below_its_title(figure: Bars | Matrix) -> None:
    note = "White: no $difference$. Outlined: the pairs of classes that are farthest from the prediction."
    axes = drawn(replace(figure, note=note))
    texts = [text.get_text().replace("\n", " ") for text in axes.texts]
    assert texts == [note.replace("$", r"\$")]
    assert axes.get_title(loc="left") == "t"
    axes.figure.canvas.draw()
    (title,) = (each for each in axes.get_children() if hasattr(each, "get_text") and each.get_text() == "t")
    assert title.get_window_extent().y0 >= axes.texts[0].get_window_extent().y1 - 1
    assert not drawn(figure).texts


def test_text_is_no_formula() -> None:
    axes = drawn(Curves("cost $x_1$ in $", "epoch $", (Series("$a$", (1.0,), (1.0,)),)))
    assert axes.get_title(loc="left") == r"cost \$x_1\$ in \$"


def test_saved_text_stays_text(document: Document, tmp_path: Path) -> None:
    paths = figures.save(document, tmp_path / "figures", suffix=".svg")
    assert [path.name for path in paths][:2] == ["training.svg", "training-2.svg"]
    text = paths[0].read_text(encoding="utf-8")
    assert ">trace ratio<" in text and "10⁻²" in text
    (pdf,) = figures.save(Document("t", sections=(document.sections[2],)), tmp_path)
    content = pdf.read_bytes()
    assert content.startswith(b"%PDF") and b"/Type3" not in content


def test_without_matplotlib_the_extra_is_named() -> None:
    program = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "try:\n    import tightframe.render.figures\n"
        "except ImportError as error:\n    print(type(error).__name__, error)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (
        result.stdout.strip() == "MissingExtraError matplotlib is not installed. Run: pip install 'tightframe[figures]'"
    )


def test_pages_and_markdown_need_no_host() -> None:
    program = "import sys, tightframe.render.page, tightframe.render.markdown; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"matplotlib", "plotly", "torch"} & set(result.stdout.split())
