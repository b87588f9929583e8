"""The verdict: one word for a measurement, by the first rule that holds, and the odd things a reader should look at.

Rules are data. Thresholds are on closeness, which says how many times nearer its best value a measure is than with
shuffled labels; they must hold two standard errors farther from it, too. Where they come from: docs/verdict.md.

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
"""Closeness of the ratio of scatter from which samples count as collapsed onto their class means: the share of scatter
within classes is at most 5 % of what shuffled labels have."""

BEGUN = 5.0
"""Closeness of the ratio of scatter from which collapse has begun."""

SIMPLEX = 5.0
"""Closeness of NC2 from which the means count as a simplex ETF, or as the best that D dimensions allow."""

NO_SIMPLEX = 2.0
"""Closeness of NC2 below which means at which samples have collapsed form something else."""

DISCERNIBLE = 0.9
"""Ratio of scatter to its level with shuffled labels above which it is no better, however sure the difference."""

ENOUGH = 5.0
"""Samples a class, on average. With fewer, any labels look collapsed: with shuffled ones, too, less than four fifths of
the scatter are within classes."""

HELD_OUT = 5.0
"""How many times larger the share of scatter within classes is on held-out data, for training to be far ahead of it."""

APART = 5.0
"""How many times the closeness of NC1 and of the ratio of scatter differ, for that to be odd."""

_SCATTER = ("trace_ratio", "nc1", "cdnv")
"""Measures of scatter within classes to that between them; the first that is there and defined decides."""


# ---------------------------------------------------------------------- what rules read


def _scatter(report: Findings) -> Entry | None:
    """The entry that tells whether samples sit at their class means."""
    there = [entry for key in _SCATTER if (entry := report.get(key)) is not None]
    return next((entry for entry in there if not math.isnan(entry.value)), there[0] if there else None)


def _nc2(report: Findings) -> Entry | None:
    entry = entry_of(report, "NC2")
    return None if entry is None or math.isnan(entry.value) else entry


def sure_closeness(entry: Entry | None) -> float:
    """The closeness of a value two standard errors farther from the best; 0 where there is no such number."""
    if entry is None:
        return 0.0
    return (entry.closeness if entry.least_closeness is None else entry.least_closeness) or 0.0


def _share(report: Findings, entry: Entry, value: float | None) -> float:
    """The share of scatter within classes that a value means; NaN where it isn't known."""
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
    """Whether NC2 says nothing: it wasn't measured, or shuffled labels do as well."""
    entry = _nc2(report)
    return entry is None or (entry.closeness is None and report.facts.classes != 2)


def _simplex(report: Findings) -> bool:
    """Whether the means form a simplex ETF; two, which are centred, always do."""
    return report.facts.classes == 2 or sure_closeness(_nc2(report)) >= SIMPLEX


def _crowded(report: Findings) -> bool:
    facts = report.facts
    return facts.classes is not None and facts.dimension is not None and facts.classes > facts.dimension + 1


def _constant(report: Findings) -> bool:
    return report.value("within_trace") == 0 and report.value("between_trace") == 0


def _nearness(name: str, entry: Entry) -> str:
    """How near an entry is to its target, as a part of a sentence."""
    if entry.closeness is None:
        return f"{name} is {number(entry.value)}"
    if math.isinf(entry.closeness):
        return f"{name} is exactly at its target"
    return f"{name} is {times(entry.closeness)} nearer its target than with shuffled labels"


# ---------------------------------------------------------------------- the word


@dataclass(frozen=True)
class Rule:
    """A word, and when it is said.

    Attributes:
        word, tone: as in `Verdict`; holds: of a measurement; sentence: what the word means here; advice: what to do.
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
        return f"{entry.label} cannot be told from these samples."
    each = (facts.samples or 0) / max(entry.classes or 1, 1)
    size = f"{each:.3g} sample{'' if each == 1 else 's'} a class"
    return f"With {size}, shuffled labels look collapsed, too: their {entry.label} is {number(entry.shuffled)}."


def _collapsed(report: Findings) -> str:
    if report.facts.classes == 2:
        return "Samples sit at their class means. Two class means always form a simplex."
    if _crowded(report):
        return "Samples sit at their class means, which are as far apart as the dimension allows."
    return "Samples sit at their class means, which form a simplex ETF."


def _at_means_only(report: Findings) -> str:
    why = "NC2 was not measured" if _nc2(report) is None else "with shuffled labels NC2 is as good, so it says nothing"
    return f"Samples sit at their class means; {why}."


def _not_a_simplex(report: Findings) -> str:
    entry = _nc2(report)
    assert entry is not None
    other = ""
    for each in report.distances:
        if (
            each.what == "class means"
            and each.nearest != "the simplex ETF"
            and each.distances[each.nearest] < each.level
        ):
            other = f" They are nearer to {each.nearest}."
    values = f"NC2 {number(entry.value)}, shuffled {number(entry.shuffled)}"
    return f"Samples sit at their class means, but these form no simplex ETF ({values}).{other}"


def _collapsing(report: Findings) -> str:
    scatter, nc2 = _scatter(report), _nc2(report)
    assert scatter is not None
    if _at_means(report) and nc2 is not None:
        return f"Samples sit at their class means, which are only on the way to a simplex ETF: {_nearness('NC2', nc2)}."
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
        lambda report: "A regression has no classes: see NRC1 to NRC3 beside their targets.",
    ),
    Rule(
        "MEASURED",
        "unknown",
        lambda report: _unjudged(_scatter(report)),
        lambda report: (
            "The scatter of samples, or its level with shuffled labels, was not measured: nothing is judged."
        ),
        "Measure trace_ratio and nc1, too.",
    ),
    Rule(
        "CONSTANT FEATURES",
        "bad",
        _constant,
        lambda report: "All samples have the same features.",
        "Check the layer, and that the data reach it.",
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
"""The first that holds gives the word; the last holds always."""


def verdict(report: Findings) -> Verdict:
    """The word for a measurement, with its sentence and advice, by the first of `RULES` that holds."""
    rule = next(rule for rule in RULES if rule.holds(report))
    return Verdict(rule.word, rule.sentence(report), rule.tone, rule.advice, state(report))


def state(report: Findings) -> str:
    """Where training is, in a few words: the terminal phase, and the accuracy on held-out data."""
    phrases = []
    if (begun := training_error_gone(report)) is not None:
        phrases.append(f"terminal phase since epoch {begun:g}")
    if (held_out := report.get("test/classifier_accuracy")) is not None:
        phrases.append(f"held-out accuracy {100 * held_out.value:.1f} %")
    elif (training := report.get("classifier_accuracy")) is not None:
        phrases.append(f"training accuracy {100 * training.value:.1f} %")
    return " · ".join(phrases)


# ---------------------------------------------------------------------- odd things


@dataclass(frozen=True)
class Oddity:
    """Something that a reader should look at: its name, the sentence that says it or None, and what to do."""

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
    if shown is None or held is None or shown.name != "nc1":  # the card's, where it was measured on both
        shown, held = entry, test
    name = "NC1" if shown.name == "nc1" else shown.label
    if shown.value == 0:
        return f"{name} is 0 on the training data, {number(held.value)} on held-out data."
    return f"{name} is {held.value / shown.value:,.0f} times larger on held-out data ({number(held.value)})."


def _outside_the_span(report: Findings) -> str | None:
    """NC1 and the ratio of scatter, which say the same of a simplex, say different things."""
    nc1, ratio = report.get("nc1"), report.get("trace_ratio")
    if nc1 is None or ratio is None or not nc1.closeness or not ratio.closeness:
        return None
    both = f"NC1 is {times(nc1.closeness)} nearer its target, {ratio.label} {times(ratio.closeness)}"
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
    """Groups of what pairs connect, each in order."""
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
    return f"The classifier {report.facts.classifier!r} decides as the model does for {share:.0%} of the samples only."


def _near_nothing(report: Findings) -> str | None:
    for each in report.distances:
        if each.what == "class means" and each.distances[each.nearest] >= each.level:
            return f"The class means are near no predicted geometry; the nearest is {each.nearest}."
    return None


def _too_many_classes(report: Findings) -> str | None:
    if not _crowded(report):
        return None
    facts = report.facts
    return f"{facts.classes:,} classes fit no simplex ETF in {facts.dimension} dimensions; NC2 has a floor."


def _undefined(report: Findings) -> str | None:
    trivial = ("equiangularity",) if report.facts.classes == 2 else ()  # one pair of means has one angle
    lost = [
        entry.label
        for entry in report
        if entry.headline and entry.split != "test" and math.isnan(entry.value) and entry.name not in trivial
    ]
    if not lost:
        return None
    return f"{'This measure is' if len(lost) == 1 else 'These measures are'} undefined: {'; '.join(lost)}."


def _like_shuffled(report: Findings) -> str | None:
    """Cards that tell nothing, apart from the word's own."""
    if not _enough_samples(report) or _like_shuffled_labels(report):
        return None
    there = [(each.label, entry_of(report, each.label)) for each in PHENOMENA]
    chance = [label for label, entry in there if entry is not None and entry.standing == "no better"]
    if not chance:
        return None
    who = " and ".join(chance) if len(chance) < 3 else f"{', '.join(chance[:-1])} and {chance[-1]}"
    return f"{who} {'is' if len(chance) == 1 else 'are'} no better than with shuffled labels."


ODDITIES = (
    Oddity("held-out", _held_out_far, "Report held-out numbers, too."),
    Oddity("scatter", _outside_the_span, "Report both."),
    Oddity("nc2-lags", _nc2_lags, "NC2 usually falls after NC1."),
    Oddity("coincident-means", _coincident),
    Oddity("merged-rows", _rare_merged, "Rebalance the classes, or fix the classifier to a simplex ETF."),
    Oddity("batch-normalisation", _blip, "Measure at another epoch, or re-estimate the running averages."),
    Oddity("other-decisions", _other_decisions, 'Name the classifier with classifier="...".'),
    Oddity("near-nothing", _near_nothing),
    Oddity("crowded", _too_many_classes, "Use at least K − 1 feature dimensions for a simplex."),
    Oddity("undefined", _undefined, "The notes say why."),
    Oddity("like-shuffled", _like_shuffled),
)
"""Each is silent unless its own condition holds."""


def oddities(report: Findings) -> tuple[Remark, ...]:
    """All that is odd about a measurement."""
    seen = ((each, each.find(report)) for each in ODDITIES)
    return tuple(Remark(each.name, sentence, each.advice) for each, sentence in seen if sentence is not None)
