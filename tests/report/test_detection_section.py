import math
import sys
from dataclasses import replace

import pytest

from tightframe.errors import MissingExtraError, StateError
from tightframe.ood import ComponentCurve, DetectionRow, DetectionTable
from tightframe.report.detection import (
    COLUMNS,
    detection_caption,
    detection_cells,
    detection_html,
    detection_panels,
)

CURVE = ComponentCurve(
    (1, 3, 9, 64), (0.6, 0.93, 0.9, 0.5), (0.02, 0.01, 0.015, 0.0), (0.9, 0.3, 0.4, 1.0), (0.03, 0.02, 0.02, 0.0), 9
)
SETTINGS = {"components": 9, "centred": True, "scaled": True, "max_logit": False, "rank": 60}
ROWS = (
    DetectionRow("max_softmax", "MSP", {}, "log of the probability", "A & B", 0.8, 0.01, 0.7, 0.02),
    DetectionRow("mahalanobis", "Maha", {"rank": 60}, "pooled", "Lee", 0.75, 0.01, 0.8, 0.02),
    DetectionRow("neco", "NECO", SETTINGS, "centred, scaled, p = K − 1", "C", 0.9, 0.015, 0.4, 0.02),
    DetectionRow("neco_raw", "NECO <raw>", SETTINGS, "raw, p = K − 1", "C", *[math.nan] * 4),
)
TABLE = DetectionTable(ROWS, CURVE, 1000, 200, ("NECO: a note.",))


def test_cells() -> None:
    cells = detection_cells(TABLE.to_dict())
    assert [len(line) for line in cells] == [len(COLUMNS)] * 4
    assert cells[0] == ["MSP", "log of the probability", "80.00", "1.00", "70.00", "2.00", "A & B"]
    assert cells[1][1] == "pooled, rank 60"
    assert cells[2][1] == "centred, scaled, p = 9 of 60"
    assert cells[3][2:6] == ["–"] * 4


def test_the_caption_says_that_the_best_is_optimistic() -> None:
    caption = detection_caption(TABLE.to_dict())
    assert "1,000 held-out samples against 200" in caption
    assert "settled at 9 beforehand. 3 would be best on these samples, which is optimistic" in caption
    assert caption.endswith("NECO: a note.")
    assert "hyper-parameter" not in detection_caption(replace(TABLE, curve=None).to_dict())


def test_html_is_escaped() -> None:
    text = detection_html(TABLE.to_dict())
    assert text.count("<tr>") == 5
    assert "NECO &lt;raw&gt;" in text and "A &amp; B" in text
    assert text.count("<th>") * 4 == text.count("<td>")


def test_panels() -> None:
    pytest.importorskip("plotly")
    auroc, fpr95 = detection_panels(TABLE.to_dict())
    for figure, values, errors in ((auroc, CURVE.auroc, CURVE.auroc_error), (fpr95, CURVE.fpr95, CURVE.fpr95_error)):
        band, line, best, *references = figure.data
        assert list(line.x) == [1, 3, 9, 64]
        assert list(line.y) == [100 * value for value in values]
        upper = [100 * (value + 1.96 * error) for value, error in zip(values, errors, strict=True)]
        lower = [100 * (value - 1.96 * error) for value, error in zip(values, errors, strict=True)]
        assert list(band.y) == pytest.approx(upper + lower[::-1], abs=1e-12)
        assert (best.x[0], best.y[0]) == (3, 100 * values[1])
        assert [trace.name for trace in references] == ["MSP", "Maha"]
        assert figure.layout.shapes[0].x0 == 9
        assert figure.layout.annotations[0].x == pytest.approx(math.log10(9))
    assert list(auroc.data[3].y) == [80.0, 80.0]
    assert list(fpr95.data[3].y) == [70.0, 70.0]


def test_no_curve_no_panels() -> None:
    assert detection_panels(replace(TABLE, curve=None).to_dict()) == []


def test_an_undefined_curve_has_no_best() -> None:
    pytest.importorskip("plotly")
    undefined = replace(CURVE, auroc=(math.nan,) * 4, fpr95=(math.nan,) * 4)
    names = [trace.name for trace in detection_panels(replace(TABLE, curve=undefined).to_dict())[0].data]
    assert "highest AUROC on these samples" not in names
    assert "hyper-parameter" not in detection_caption(replace(TABLE, curve=undefined).to_dict())


def test_what_is_no_table() -> None:
    with pytest.raises(StateError):
        detection_cells({"rows": 3})


def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    with pytest.raises(MissingExtraError, match="plotly"):
        detection_panels(TABLE.to_dict())
    assert detection_cells(TABLE.to_dict())
