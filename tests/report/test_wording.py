"""Numbers, captions and names as they are written."""

import math
from dataclasses import replace

import pytest

from tightframe import Report
from tightframe.report.wording import caption, name, number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (23.16234, "23.16"),
        (-0.39641, "-0.3964"),
        (0.001, "0.001"),
        (0.00099996, "1.000e-03"),
        (-1.23456e-05, "-1.235e-05"),
        (99999.0, "1e+05"),
        (1234567.0, "1.235e+06"),
        (math.nan, "nan"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
    ],
)
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize("exponent", range(-12, 13))
def test_numbers_keep_four_digits(exponent: int) -> None:
    for mantissa in (1.0004, 3.14159, 9.9994):
        value = mantissa * 10.0**exponent
        assert float(number(value)) == pytest.approx(value, rel=5e-4)
        assert float(number(-value)) == -float(number(value))
        assert len(number(-value)) <= 10  # what the narrow table has room for


def test_the_caption_says_what_was_measured(full_report: Report) -> None:
    assert caption(full_report) == (
        "epoch 3 · 46 samples · 4 classes (samples ≥1: 4, ≥2: 4, ≥10: 3, ≥50: 0) · 6 dimensions · input of fc"
    )


def test_the_caption_groups_thousands_and_names_the_mode(full_report: Report) -> None:
    facts = {**full_report.context, "samples": 60_000, "mode": "eval"}
    text = caption(replace(full_report, context=facts))
    assert "60,000 samples" in text
    assert text.endswith("eval mode")


def test_the_name_says_where_a_value_was_taken(full_report: Report) -> None:
    assert name(full_report["test/ncc_mismatch"]) == "NCC mismatch, held out"
    assert name(full_report["ncc_mismatch"]) == "NCC mismatch"
    assert name(full_report["ood_orthogonality"]) == "OOD orthogonality"
