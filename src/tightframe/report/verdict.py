"""The verdict: one word for a measurement, from the first rule that holds; and oddities, which need a second look.

Rules are data. Their thresholds apply to closeness: how many times nearer its best value a measure is than with
shuffled labels. A rule must also hold two standard errors farther from the best. docs/verdict.md gives their origin.

Whether samples sit at their class means is judged by tr S_W / tr S_B. NC1, which the card shows, weighs directions by
the inverse of S_B: it ignores scatter outside the span of the class means, and coincident means make it large.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from tightframe.checks import listed
from tightframe.metrics import METRICS, Setting
from tightframe.report.cards import PHENOMENA, entry_of
from tightframe.report.entry import Entry
from tightframe.report.findings import Findings
from tightframe.report.predicted import MERGED, measured, merged_pairs, predicted, predicted_merging
from tightframe.report.series import training_error_gone
from tightframe.sections import Remark, Tone, Verdict, number, times
from tightframe.sources.model import blip
from tightframe.sources.normalisation import GAP

AT_MEANS = 20.0
"""Least closeness of the scatter ratio at which samples count as collapsed onto their class means. The within-class
share of scatter is then at most 5 % of its value with shuffled labels."""

BEGUN = 5.0
"""Least closeness of the scatter ratio at which collapse has begun."""

SIMPLEX = 5.0
"""Least closeness of NC2 at which the means count as a simplex ETF, or as the best that D dimensions allow."""

NO_SIMPLEX = 2.0
"""Closeness of NC2 below which collapsed class means form no simplex ETF."""

DISCERNIBLE = 0.9
"""A scatter ratio above this share of its level with shuffled labels is no better, however significant."""

ENOUGH = 5.0
"""Minimum average number of samples per class. With fewer, even shuffled labels look collapsed: less than four fifths
of the scatter lie within classes."""

HELD_OUT = 5.0
"""Training is far ahead if the within-class share of scatter is at least this many times larger on held-out data."""

APART = 5.0
"""Factor between the closeness of NC1 and of the scatter ratio from which the difference is odd."""

_SCATTER = ("trace_ratio", "nc1", "cdnv")
"""Measures of within-class to between-class scatter; the first that was measured and is defined decides."""


# ---------------------------------------------------------------------- conditions


def _scatter(report: Findings) -> Entry | None:
    """The entry that decides whether samples sit at their class means."""
    entries = [entry for key in _SCATTER if (entry := report.get(key)) is not None]
    return next((entry for entry in entries if not math.isnan(entry.value)), entries[0] if entries else None)


def _nc2(report: Findings) -> Entry | None:
    entry = entry_of(report, "NC2")
    return None if entry is None or math.isnan(entry.value) else entry


def sure_closeness(entry: Entry | None) -> float:
    """The closeness of a value two standard errors farther from the best; 0 if undefined."""
    if entry is None:
        return 0.0
    return (entry.closeness if entry.least_closeness is None else entry.least_closeness) or 0.0


def _share(report: Findings, entry: Entry, value: float | None) -> float:
    """The within-class share of scatter at a value of the entry; NaN if unknown."""
    metric, facts = METRICS.get(entry.name), report.facts
    if metric is None or value is None or entry.classes is None or facts.dimension is None:
        return math.nan
    return metric.scaled(value, Setting(torch.ones(entry.classes), facts.dimension, entry.classes))


def _enough_samples(report: Findings) -> bool:
    entry, samples = _scatter(report), report.facts.samples
    if entry is None or math.isnan(entry.value) or not entry.classes or samples is None:
        return False
    return samples >= ENOUGH * entry.classes


def _unjudged(entry: Entry | None) -> bool:
    return entry is None or (entry.shuffled is None and not math.isnan(entry.value))


def _like_shuffled_labels(report: Findings) -> bool:
    entry = _scatter(report)
    if entry is None:
        return False
    return entry.standing == "no better" or (entry.shuffled is not None and entry.value > DISCERNIBLE * entry.shuffled)


def _at_means(report: Findings) -> bool:
    return sure_closeness(_scatter(report)) >= AT_MEANS


def _undecided(report: Findings) -> bool:
    """Whether NC2 decides nothing: it was not measured, or it is no better than with shuffled labels."""
    entry = _nc2(report)
    return entry is None or (entry.closeness is None and report.facts.classes != 2)


def _simplex(report: Findings) -> bool:
    """Whether the means form a simplex ETF; two centred means always do."""
    return report.facts.classes == 2 or sure_closeness(_nc2(report)) >= SIMPLEX


def _crowded(report: Findings) -> bool:
    facts = report.facts
    return facts.classes is not None and facts.dimension is not None and facts.classes > facts.dimension + 1


def _constant(report: Findings) -> bool:
    return report.value("within_trace") == 0 and report.value("between_trace") == 0


def _nearness(name: str, entry: Entry) -> str:
    """A clause: how near an entry is to its target."""
    if entry.closeness is None:
        return f"{name} is {number(entry.value)}"
    if math.isinf(entry.closeness):
        return f"{name} is exactly at its target"
    return f"{name} is {times(entry.closeness)} nearer its target than with shuffled labels"


# ---------------------------------------------------------------------- the word


@dataclass(frozen=True)
class Rule:
    """A verdict and its condition.

    Attributes:
        word, tone: as in `Verdict`; holds: the condition; sentence: what the word means here; advice: what to do.
    """

    word: str
    tone: Tone
    holds: Callable[[Findings], bool]
    sentence: Callable[[Findings], str]
    advice: str = ""


def _few(report: Findings) -> str:
    entry, facts = _scatter(report), report.facts
    assert entry is not None
    if math.isnan(entry.value):
        return f"{entry.label} cannot be computed from these samples."
    each = (facts.samples or 0) / max(entry.classes or 1, 1)
    size = f"{each:.3g} sample{'' if each == 1 else 's'} per class"
    return f"With {size}, even shuffled labels look collapsed: their {entry.label} is {number(entry.shuffled)}."


def _collapsed(report: Findings) -> str:
    if report.facts.classes == 2:
        return "Samples sit at their class means. Two class means always form a simplex."
    if _crowded(report):
        return "Samples sit at their class means, which are as far apart as the dimension allows."
    return "Samples sit at their class means, which form a simplex ETF."


def _at_means_only(report: Findings) -> str:
    why = "NC2 was not measured" if _nc2(report) is None else "NC2 is no better than with shuffled labels"
    return f"Samples sit at their class means; {why}."


def _not_a_simplex(report: Findings) -> str:
    entry = _nc2(report)
    assert entry is not None
    nearer = ""
    for each in report.distances:
        if (
            each.what == "class means"
            and each.nearest != "the simplex ETF"
            and each.distances[each.nearest] < each.level
        ):
            nearer = f" They are nearer to {each.nearest}."
    values = f"NC2 {number(entry.value)}, shuffled {number(entry.shuffled)}"
    return f"Samples sit at their class means, but these form no simplex ETF ({values}).{nearer}"


def _collapsing(report: Findings) -> str:
    scatter, nc2 = _scatter(report), _nc2(report)
    assert scatter is not None
    if _at_means(report) and nc2 is not None:
        return f"Samples sit at their class means, which approach a simplex ETF: {_nearness('NC2', nc2)}."
    return f"Samples approach their class means: {_nearness(scatter.label, scatter)}."


def _not_collapsed(report: Findings) -> str:
    entry = _scatter(report)
    assert entry is not None
    return f"Samples spread around their class means: {_nearness(entry.label, entry)}."


RULES = (
    Rule(
        "MEASURED",
        "unknown",
        lambda report: report.facts.task == "regression",
        lambda report: "A regression has no classes. Compare NRC1 to NRC3 with their targets.",
    ),
    Rule(
        "MEASURED",
        "unknown",
        lambda report: _unjudged(_scatter(report)),
        lambda report: "There is no verdict: the scatter ratio, or its level with shuffled labels, was not measured.",
        "Also measure trace_ratio and nc1.",
    ),
    Rule(
        "CONSTANT FEATURES",
        "bad",
        _constant,
        lambda report: "All samples have the same features.",
        "Check the layer, and check that the data reach it.",
    ),
    Rule(
        "TOO FEW SAMPLES",
        "unknown",
        lambda report: not _enough_samples(report),
        _few,
        "Measure more samples of each class.",
    ),
    Rule(
        "NO BETTER THAN SHUFFLED",
        "bad",
        _like_shuffled_labels,
        lambda report: "Samples are as near to the means of shuffled labels as to those of their own classes.",
        "Check that labels belong to these samples, in this order.",
    ),
    Rule("AT CLASS MEANS", "near", lambda report: _at_means(report) and _undecided(report), _at_means_only),
    Rule("COLLAPSED", "good", lambda report: _at_means(report) and _simplex(report), _collapsed),
    Rule(
        "NOT A SIMPLEX",
        "near",
        lambda report: _at_means(report) and sure_closeness(_nc2(report)) < NO_SIMPLEX,
        _not_a_simplex,
    ),
    Rule("COLLAPSING", "near", lambda report: sure_closeness(_scatter(report)) >= BEGUN, _collapsing),
    Rule("NOT COLLAPSED", "bad", lambda report: True, _not_collapsed),
)
"""The first rule that holds gives the word; the last always holds."""


def verdict(report: Findings) -> Verdict:
    """The word for a measurement, with its sentence and advice, from the first of `RULES` that holds."""
    rule = next(rule for rule in RULES if rule.holds(report))
    return Verdict(rule.word, rule.sentence(report), rule.tone, rule.advice, state(report))


def state(report: Findings) -> str:
    """The state of training in a few words: terminal phase and held-out accuracy."""
    phrases = []
    if (begun := training_error_gone(report)) is not None:
        phrases.append(f"terminal phase since epoch {begun:g}")
    if (held_out := report.get("test/classifier_accuracy")) is not None:
        phrases.append(f"held-out accuracy {100 * held_out.value:.1f} %")
    elif (training := report.get("classifier_accuracy")) is not None:
        phrases.append(f"training accuracy {100 * training.value:.1f} %")
    return " · ".join(phrases)


# ---------------------------------------------------------------------- oddities


@dataclass(frozen=True)
class Oddity:
    """An unusual result: its name, a function that returns its sentence or None, and what to do."""

    name: str
    find: Callable[[Findings], str | None]
    advice: str = ""


def _held_out_far(report: Findings) -> str | None:
    entry = _scatter(report)
    test = None if entry is None else report.get(f"test/{entry.name}")
    if entry is None or test is None or not _at_means(report):
        return None
    low = test.value - 2 * (test.standard_error or 0.0)
    if not _share(report, entry, low) >= HELD_OUT * _share(report, entry, entry.value):
        return None
    shown, held = entry_of(report, "NC1"), report.get("test/nc1")
    if shown is None or held is None or shown.name != "nc1":  # NC1, if its card shows it and both splits have it
        shown, held = entry, test
    name = "NC1" if shown.name == "nc1" else shown.label
    if shown.value == 0:
        return f"{name} is 0 on the training data, {number(held.value)} on held-out data."
    return f"{name} is {held.value / shown.value:,.0f} times larger on held-out data ({number(held.value)})."


def _outside_the_span(report: Findings) -> str | None:
    """NC1 and the scatter ratio disagree; for a simplex ETF they agree."""
    nc1, ratio = report.get("nc1"), report.get("trace_ratio")
    if nc1 is None or ratio is None or not nc1.closeness or not ratio.closeness:
        return None
    both = f"NC1 is {times(nc1.closeness)} nearer its target, {ratio.label} is {times(ratio.closeness)} nearer"
    if nc1.closeness > APART * ratio.closeness:
        return f"{both}: most scatter lies outside the span of the class means, which NC1 does not see."
    if ratio.closeness > APART * nc1.closeness and (sure_closeness(ratio) >= AT_MEANS):
        return f"{both}: some class means nearly coincide, which NC1 weighs heavily."
    return None


def _nc2_lags(report: Findings) -> str | None:
    entry, scatter = _nc2(report), _scatter(report)
    if entry is None or scatter is None or not _at_means(report) or _simplex(report):
        return None
    if sure_closeness(entry) < NO_SIMPLEX:
        return None
    return f"NC2 lags NC1: {times(entry.closeness)} against {times(scatter.closeness)}."


def _coincident(report: Findings) -> str | None:
    geometry = measured(report)
    if geometry is None or report.evidence is None or report.evidence.statistics is None:
        return None
    cosines = geometry.mean_cosines
    if len(cosines) < 3 or _crowded(report):
        return None
    pairs = (cosines.triu(1) >= MERGED).nonzero().tolist()
    if not pairs:
        return None
    labels = report.evidence.statistics.populated().class_ids.tolist()
    expected = predicted(report)[-1].mean_cosines
    foreseen = all(expected[i, j] >= MERGED for i, j in pairs)
    theory = "as theory predicts" if foreseen else "where theory predicts separate means"
    groups = [report.facts.names_of([labels[k] for k in group]) for group in _joined(pairs)]
    return f"The means of classes {'; '.join(listed(group) for group in groups)} coincide, {theory}."


def _joined(pairs: list[list[int]]) -> list[list[int]]:
    """Connected groups of the pairs, each sorted."""
    groups: list[set[int]] = []
    for pair in map(set, pairs):
        for group in [group for group in groups if group & pair]:
            groups.remove(group)
            pair |= group
        groups.append(pair)
    return sorted(map(sorted, groups))


def _rare_merged(report: Findings) -> str | None:
    pairs = merged_pairs(report)
    if not pairs or report.evidence is None or report.evidence.statistics is None:
        return None
    statistics = report.evidence.statistics.populated()
    counts = dict(zip(statistics.class_ids.tolist(), statistics.counts.tolist(), strict=True))
    middle = float(statistics.counts.double().mean())
    rare = sorted({label for pair in pairs for label in pair if counts[label] < middle})
    if len(rare) < 2:
        return None
    merging = predicted_merging(report)
    theory = ""
    if merging is not None:
        foreseen = set(rare) <= merging.labels
        theory = ", as theory predicts" if foreseen else ", where theory predicts separate rows"
        theory += " at these weight decays"
    return f"The classifier rows of rare classes {listed(report.facts.names_of(rare))} have merged{theory}."


def _blip(report: Findings) -> str | None:
    gap = report.facts.normalisation_gap
    if gap is None or gap <= GAP:
        return None
    text = blip(gap)
    return f"{text[:1].upper()}{text[1:]}"


def _other_decisions(report: Findings) -> str | None:
    share = report.facts.agreement
    if share is None:
        return None
    return (
        f"The classifier {report.facts.classifier!r} agrees with the model's decisions on only {share:.0%} of samples."
    )


def _near_nothing(report: Findings) -> str | None:
    for each in report.distances:
        if each.what == "class means" and each.distances[each.nearest] >= each.level:
            return f"The class means are not near any predicted geometry; the nearest is {each.nearest}."
    return None


def _too_many_classes(report: Findings) -> str | None:
    if not _crowded(report):
        return None
    facts = report.facts
    return f"{facts.classes:,} classes cannot form a simplex ETF in {facts.dimension} dimensions; NC2 has a floor."


def _undefined(report: Findings) -> str | None:
    trivial = ("equiangularity",) if report.facts.classes == 2 else ()  # one pair of means has one angle
    undefined = [
        entry.label
        for entry in report
        if entry.headline and entry.split != "test" and math.isnan(entry.value) and entry.name not in trivial
    ]
    if not undefined:
        return None
    return f"{'This measure is' if len(undefined) == 1 else 'These measures are'} undefined: {'; '.join(undefined)}."


def _like_shuffled(report: Findings) -> str | None:
    """Phenomena no better than with shuffled labels, apart from the one that decides the verdict."""
    if not _enough_samples(report) or _like_shuffled_labels(report):
        return None
    shown = [(each.label, entry_of(report, each.label)) for each in PHENOMENA]
    chance = [label for label, entry in shown if entry is not None and entry.standing == "no better"]
    if not chance:
        return None
    names = " and ".join(chance) if len(chance) < 3 else f"{', '.join(chance[:-1])} and {chance[-1]}"
    return f"{names} {'is' if len(chance) == 1 else 'are'} no better than with shuffled labels."


ODDITIES = (
    Oddity("held-out", _held_out_far, "Also report held-out numbers."),
    Oddity("scatter", _outside_the_span, "Report both measures."),
    Oddity("nc2-lags", _nc2_lags, "NC2 usually falls later than NC1."),
    Oddity("coincident-means", _coincident),
    Oddity("merged-rows", _rare_merged, "Rebalance the classes, or fix the classifier to a simplex ETF."),
    Oddity("batch-normalisation", _blip, "Measure at another epoch, or re-estimate the running averages."),
    Oddity("other-decisions", _other_decisions, 'Name the classifier with classifier="...".'),
    Oddity("near-nothing", _near_nothing),
    Oddity("crowded", _too_many_classes, "Use at least K − 1 feature dimensions for a simplex."),
    Oddity("undefined", _undefined, "The notes say why."),
    Oddity("like-shuffled", _like_shuffled),
)
"""Each is reported only if its condition holds."""


def oddities(report: Findings) -> tuple[Remark, ...]:
    """The oddities of a measurement."""
    sentences = ((each, each.find(report)) for each in ODDITIES)
    return tuple(Remark(each.name, sentence, each.advice) for each, sentence in sentences if sentence is not None)
