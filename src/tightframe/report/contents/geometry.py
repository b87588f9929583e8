"""Measured and predicted Gram matrices, and their difference."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from tightframe.report import predicted
from tightframe.report.findings import Findings
from tightframe.sections import Matrix, Section, signed

HEADING = "Gram matrices"

_WORST = 3  # number of outlined pairs
_AGREE = 1e-9  # differences of cosines up to this are rounding


def geometry(report: Findings) -> Section | None:
    """Cosines between class means and between classifier rows; None without statistics or with too many classes."""
    measured, theory = predicted.measured(report), predicted.predicted(report)
    if measured is None or not theory or report.evidence is None or report.evidence.statistics is None:
        return None
    expected = theory[-1]
    labels = report.evidence.statistics.populated().class_ids.tolist()
    names = tuple(report.facts.names_of(labels))
    kinds = [("class means", measured.mean_cosines, expected.mean_cosines)]
    if measured.classifier_cosines is not None and expected.classifier_cosines is not None:
        kinds.append(("classifier rows", measured.classifier_cosines, expected.classifier_cosines))
    figures: list[Matrix] = []
    ideal = -1 / (len(names) - 1)
    same = len(kinds) > 1 and bool((kinds[0][2] - kinds[1][2]).abs().max() < 1e-9)
    farthest: dict[str, str] = {}
    for what, cosines, prediction in kinds:
        worst = _worst_pairs(cosines, prediction)
        if worst:
            farthest[what] = ", ".join(f"{names[i]}–{names[j]}" for i, j in worst[::2])
        figures.append(_matrix(what, cosines, names, ideal, worst))
        if what == "class means" or not same:
            figures.append(_matrix(f"predicted, {what if not same else expected.name}", prediction, names, ideal))
        figures.append(_difference(f"{what}: measured − predicted", cosines - prediction, names, worst))
    hint = (
        f"Cosines of centred vectors. In a simplex ETF every pair has {signed(f'{ideal:.4f}')} = −1/(K − 1). "
        f"Predicted: {expected.name}.{_farthest(farthest)}"
    )
    return Section("geometry", HEADING, (hint, *predicted.statements(report)), figures=tuple(figures))


def _farthest(pairs: Mapping[str, str]) -> str:
    """A sentence with the pairs farthest from the prediction, for class means and classifier rows."""
    if not pairs:
        return ""
    if len(pairs) == 1:
        return f" Farthest from the prediction: {next(iter(pairs.values()))}."
    return f" Farthest from the prediction: {'; '.join(f'{what} {named}' for what, named in pairs.items())}."


def _matrix(
    title: str, cosines: Tensor, names: tuple[str, ...], ideal: float, outlined: tuple[tuple[int, int], ...] = ()
) -> Matrix:
    reach = 1 - ideal
    note = _note("the cosine of a simplex ETF", outlined)
    return Matrix(title, _values(cosines), names, ideal - reach, ideal, ideal + reach, outlined, note)


def _difference(title: str, gaps: Tensor, names: tuple[str, ...], outlined: tuple[tuple[int, int], ...]) -> Matrix:
    reach = max(float(gaps.nan_to_num().abs().max()), 1e-3)
    return Matrix(title, _values(gaps), names, -reach, 0.0, reach, outlined, _note("no difference", outlined))


def _note(white: str, outlined: tuple[tuple[int, int], ...]) -> str:
    return f"White: {white}." + (" Outlined: the pairs farthest from the prediction." if outlined else "")


def _values(grid: Tensor) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, grid.tolist()))


def _worst_pairs(cosines: Tensor, prediction: Tensor) -> tuple[tuple[int, int], ...]:
    """The pairs farthest from the prediction, each in both triangles; pairs that agree with it are left out."""
    gaps = (cosines - prediction).nan_to_num().abs().triu(1)
    count = min(_WORST, len(gaps) * (len(gaps) - 1) // 2)
    values, indices = gaps.flatten().topk(count)
    places = [divmod(place, len(gaps)) for place in indices[values > _AGREE].tolist()]
    return tuple(pair for i, j in places for pair in ((i, j), (j, i)))
