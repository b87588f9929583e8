"""A section and a renderer of one's own, with public names only: the section appears in every format."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import tightframe as tf
from tightframe.report import RunFolder
from tightframe.sections import Bars, Column, Document, Section, Table

# ---------------------------------------------------------------------- what a user writes


def confusable(report: tf.Report) -> Section:
    """Classes by variance, the widest first."""
    statistics = report.evidence.statistics
    order = statistics.variances.argsort(descending=True).tolist()
    rows = [(f"class {label}", statistics.variances[label].item()) for label in order]
    return Section(
        "widest",
        "Widest classes",
        ("Classes by variance. All are alike in a collapsed network.",),
        Table((Column("class", "name"), Column("variance", "number")), tuple(rows)),
        (Bars("variance", tuple(name for name, _ in rows), tuple(value for _, value in rows), most=rows[0][1]),),
    )


def headings(document: Document) -> str:
    """The document as a table of contents."""
    return "\n".join([document.title, *(f"- {section.heading}" for section in document.sections)])


# ---------------------------------------------------------------------- where it appears


@pytest.fixture(scope="module")
def report() -> tf.Report:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(300) % 3
    features = 4 * torch.eye(3, 5)[labels] + torch.tensor([1.0, 2.0, 3.0])[labels, None] * torch.randn(
        300, 5, generator=generator
    )
    report = tf.measure(features, labels, progress=False)
    return report.with_sections(confusable(report))


def test_in_the_terminal(report: tf.Report, capsys: pytest.CaptureFixture[str]) -> None:
    report.to_terminal()
    text = capsys.readouterr().out
    assert "Widest classes" in text and "All are alike" in text
    assert text.index("class 2") < text.index("class 1") < text.index("class 0")
    assert f"{report.evidence.statistics.variances[2].item():.4g}" in text


def test_on_the_page(report: tf.Report) -> None:
    page = report.to_html()
    assert "Widest classes" in page and "class 2" in page and page.count("<svg") > 0
    assert page.index("All measures") < page.index("Widest classes")  # after the built-in ones


def test_in_json_markdown_and_a_run_folder(report: tf.Report, tmp_path: Path) -> None:
    (section,) = json.loads(report.to_json())["sections"]
    assert section["table"]["rows"][0][0] == "class 2"
    assert "Widest classes" in report.to_markdown()
    folder = RunFolder.create(tmp_path, {})
    folder.append(report)
    assert folder.report().sections == report.sections


def test_a_monitor_keeps_it(report: tf.Report) -> None:
    monitor = tf.Monitor(nn.Linear(5, 3), progress=False)
    monitor.record(report)
    assert monitor.report().section("widest") == confusable(report)


def test_a_renderer_loops_over_sections(report: tf.Report) -> None:
    text = headings(report.document())
    assert text.startswith("tightframe report\n- ")
    assert text.endswith("- Widest classes") and "- All measures" in text


def test_a_key_is_taken_once(report: tf.Report) -> None:
    with pytest.raises(tf.errors.ChoiceError, match="section keys must be unique; 'widest' is used twice"):
        report.with_sections(confusable(report))
    with pytest.raises(tf.errors.ChoiceError, match="section keys must be new; 'classes' is built in"):
        report.with_sections(Section("classes", "Mine"))
