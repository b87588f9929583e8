"""The verdict: one word for a measurement, by the first rule that holds, and the odd things a reader should look at.

Rules are data. Thresholds are on closeness, which says how many times nearer its best value a measure is than with
shuffled labels; they must hold two standard errors farther from it, too. Where they come from: docs/verdict.md.
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
from tightframe.report.series import terminal_phase
from tightframe.sections import Remark, Tone, Verdict, number, times
from tightframe.sources.normalisation import GAP

AT_MEANS = 20.0
"""Closeness of NC1 from which samples count as collapsed onto class means: within-class scatter is at most 5 % of what
shuffled labels have."""

BEGUN = 5.0
"""Closeness of NC1 from which collapse has begun."""

SIMPLEX = 5.0
"""Closeness of NC2 from which the means count as a simplex ETF, or as the best that D dimensions allow."""

NO_SIMPLEX = 2.0
"""Closeness of NC2 below which means at which samples have collapsed form something else."""

DISCERNIBLE = 0.9
"""Ratio of NC1 to its level with shuffled labels above which it is no better, however sure the difference."""

ENOUGH = 0.8
"""Share of within-class scatter, NC1 / (1 + NC1), that shuffled labels must have; they have less where samples are so
few that any labels look collapsed, below about five a class."""

HELD_OUT = 5.0
"""How many times larger the share of within-class scatter is on held-out data, for training to be far ahead of it."""

# ---------------------------------------------------------------------- what rules read


def _nc1(found: Findings) -> Entry | None:
    return entry_of(found, "NC1")


def _nc2(found: Findings) -> Entry | None:
    return entry_of(found, "NC2")


def sure_closeness(entry: Entry | None) -> float | None:
    """The closeness of a value two standard errors farther from the best; None where there is no such number."""
    if entry is None:
        return None
    return entry.closeness if entry.least_closeness is None else entry.least_closeness


def _scaled(found: Findings, entry: Entry, value: float | None) -> float:
    """A value of NC1 on the scale of its closeness, the share of within-class scatter; NaN where it isn't known."""
    metric, facts = METRICS.get(entry.name), found.facts
    if metric is None or value is None or entry.classes is None or facts.dimension is None:
        return math.nan
    return metric.scaled(value, Setting(torch.ones(entry.classes), facts.dimension, entry.classes))


def _like_shuffled_labels(entry: Entry | None) -> bool:
    if entry is None:
        return False
    return entry.chance or (entry.shuffled is not None and entry.value > DISCERNIBLE * entry.shuffled)


def _enough_samples(found: Findings) -> bool:
    entry = _nc1(found)
    if entry is None or math.isnan(entry.value) or entry.shuffled is None:
        return False
    return _scaled(found, entry, entry.shuffled) >= ENOUGH


def _at_means(found: Findings) -> bool:
    return (sure_closeness(_nc1(found)) or 0.0) >= AT_MEANS


def _trivial(found: Findings) -> bool:
    """Whether any labels have the geometry of NC2, as with two classes, whose centred means are always opposite."""
    entry = _nc2(found)
    return found.facts.classes == 2 or (entry is not None and entry.closeness is None and entry.chance)


def _simplex(found: Findings) -> bool:
    return _trivial(found) or (sure_closeness(_nc2(found)) or 0.0) >= SIMPLEX


def _crowded(found: Findings) -> bool:
    facts = found.facts
    return facts.classes is not None and facts.dimension is not None and facts.classes > facts.dimension + 1


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


def _few(found: Findings) -> str:
    entry, facts = _nc1(found), found.facts
    if entry is None:
        return "NC1 was not measured, so the collapse cannot be judged."
    if math.isnan(entry.value):
        return "NC1 cannot be told from these samples."
    size = f"{(facts.samples or 0) / max(facts.classes or 1, 1):.3g} samples a class in {facts.dimension} dimensions"
    return f"With {size}, shuffled labels look collapsed, too: their NC1 is {number(entry.shuffled)}."


def _collapsed(found: Findings) -> str:
    if _trivial(found):
        return "Samples sit at their class means. Two class means always form a simplex."
    if _crowded(found):
        return "Samples sit at their class means, which are as far apart as the dimension allows."
    return "Samples sit at their class means, which form a simplex ETF."


def _not_a_simplex(found: Findings) -> str:
    entry = _nc2(found)
    how = "" if entry is None else f" (NC2 {number(entry.value)}, shuffled {number(entry.shuffled)})"
    nearest = next((each for each in found.distances if each.what == "class means"), None)
    other = ""
    if (
        nearest is not None
        and nearest.nearest != "the simplex ETF"
        and nearest.distances[nearest.nearest] < nearest.level
    ):
        other = f" They are nearer to {nearest.nearest}."
    return f"Samples sit at their class means, but these form no simplex ETF{how}.{other}"


def _collapsing(found: Findings) -> str:
    said = [f"{label} is {times(entry.closeness)}" for label in ("NC1", "NC2") if (entry := entry_of(found, label))]
    return f"Collapse has begun: {' and '.join(said)} nearer its target than with shuffled labels."


def _regression(found: Findings) -> bool:
    return found.facts.task == "regression"


RULES = (
    Rule(
        "MEASURED",
        "unknown",
        _regression,
        lambda found: "A regression has no classes: see NRC1 to NRC3 beside their targets.",
    ),
    Rule(
        "TOO FEW SAMPLES",
        "unknown",
        lambda found: not _enough_samples(found),
        _few,
        "Measure more samples a class, or fewer feature dimensions.",
    ),
    Rule(
        "NO BETTER THAN SHUFFLED",
        "bad",
        lambda found: _like_shuffled_labels(_nc1(found)),
        lambda found: "Samples are as near to the means of shuffled labels as to those of their own classes.",
        "Check that labels belong to these samples, in this order.",
    ),
    Rule("COLLAPSED", "good", lambda found: _at_means(found) and _simplex(found), _collapsed),
    Rule(
        "NOT A SIMPLEX",
        "near",
        lambda found: _at_means(found) and (sure_closeness(_nc2(found)) or 0.0) < NO_SIMPLEX,
        _not_a_simplex,
    ),
    Rule(
        "COLLAPSING",
        "near",
        lambda found: (sure_closeness(_nc1(found)) or 0.0) >= BEGUN,
        _collapsing,
    ),
    Rule(
        "NOT COLLAPSED",
        "bad",
        lambda found: True,
        lambda found: (
            f"Samples spread around their class means: NC1 is {times(_closeness(found))} nearer to 0 than with "
            "shuffled labels."
        ),
    ),
)
"""The first that holds gives the word; the last holds always."""


def _closeness(found: Findings) -> float | None:
    entry = _nc1(found)
    return None if entry is None else entry.closeness


def verdict(found: Findings) -> Verdict:
    """The word for a measurement, with its sentence and advice, by the first of `RULES` that holds."""
    rule = next(rule for rule in RULES if rule.holds(found))
    return Verdict(rule.word, rule.sentence(found), rule.tone, rule.advice, state(found))


# ---------------------------------------------------------------------- odd things


@dataclass(frozen=True)
class Oddity:
    """Something that a reader should look at: its name, the sentence that says it or None, and what to do."""

    name: str
    find: Callable[[Findings], str | None]
    advice: str = ""


def _held_out_far(found: Findings) -> str | None:
    entry = _nc1(found)
    test = None if entry is None else found.get(f"test/{entry.name}")
    if entry is None or test is None or not _at_means(found):
        return None
    low = test.value - 2 * (test.standard_error or 0.0)
    if not _scaled(found, entry, low) >= HELD_OUT * _scaled(found, entry, entry.value):
        return None
    if entry.value == 0:
        return f"NC1 is 0 on the training data, {number(test.value)} on held-out data."
    return f"NC1 is {test.value / entry.value:,.0f} times larger on held-out data ({number(test.value)})."


def _nc2_lags(found: Findings) -> str | None:
    nc2 = sure_closeness(_nc2(found))
    if not _at_means(found) or _simplex(found) or nc2 is None or nc2 < NO_SIMPLEX:
        return None
    return f"NC2 lags NC1: {times(nc2)} against {times(sure_closeness(_nc1(found)))}."


def _coincident(found: Findings) -> str | None:
    geometry = measured(found)
    if geometry is None or found.evidence is None or found.evidence.statistics is None:
        return None
    cosines = geometry.mean_cosines
    if len(cosines) < 3 or _crowded(found):
        return None
    pairs = (cosines.triu(1) >= MERGED).nonzero().tolist()
    if not pairs:
        return None
    labels = found.evidence.statistics.populated().class_ids.tolist()
    expected = predicted(found)[-1].mean_cosines
    foreseen = all(expected[i, j] >= MERGED for i, j in pairs)
    named = listed(["–".join(found.facts.names_of([labels[i], labels[j]])) for i, j in pairs])
    many = (
        "The means of two classes coincide"
        if len(pairs) == 1
        else f"The means of {len(pairs)} pairs of classes coincide"
    )
    return f"{many}: {named}. Theory predicts {'it' if foreseen else 'otherwise'}."


def _rare_merged(found: Findings) -> str | None:
    pairs, facts = merged_pairs(found), found.facts
    if not pairs or found.evidence is None or found.evidence.statistics is None:
        return None
    statistics = found.evidence.statistics.populated()
    counts = dict(zip(statistics.class_ids.tolist(), statistics.counts.tolist(), strict=True))
    middle = float(statistics.counts.double().mean())
    rare = sorted({label for pair in pairs for label in pair if counts[label] < middle})
    if len(rare) < 2:
        return None
    merging = predicted_merging(found)
    known = merging is not None and set(rare) <= merging.labels
    said = "" if merging is None else f" Theory predicts {'it' if known else 'otherwise'} at these weight decays."
    return f"Classifier rows of rare classes have merged: {listed(facts.names_of(rare))}.{said}"


def _blip(found: Findings) -> str | None:
    gap = found.facts.normalisation_gap
    if gap is None or gap <= GAP:
        return None
    return f"Batch normalisation's running averages lag: features differ by {gap:.0%} from those of training mode."


def _other_decisions(found: Findings) -> str | None:
    share = found.facts.agreement
    if share is None:
        return None
    return f"The classifier {found.facts.classifier!r} decides as the model does for {share:.0%} of the samples only."


def _near_nothing(found: Findings) -> str | None:
    for each in found.distances:
        if each.what == "class means" and each.distances[each.nearest] >= each.level:
            return f"The class means are near no predicted geometry: the nearest is {each.nearest}."
    return None


def _too_many_classes(found: Findings) -> str | None:
    if not _crowded(found):
        return None
    facts = found.facts
    return f"{facts.classes:,} classes fit no simplex ETF in {facts.dimension} dimensions; NC2 has a floor."


def _undefined(found: Findings) -> str | None:
    lost = [entry.label for entry in found if entry.headline and entry.split == "train" and math.isnan(entry.value)]
    if not lost or found.facts.classes == 2:
        return None
    return f"Too few samples for {listed(lost)}."


def _like_shuffled(found: Findings) -> str | None:
    """Cards that tell nothing, apart from the word's own."""
    if not _enough_samples(found) or _like_shuffled_labels(_nc1(found)):
        return None
    there = [entry_of(found, each.label) for each in PHENOMENA]
    chance = [each.family for each in there if each is not None and each.remark.startswith("no better")]
    if not chance:
        return None
    who = " and ".join(chance) if len(chance) < 3 else f"{', '.join(chance[:-1])} and {chance[-1]}"
    return f"{who} {'is' if len(chance) == 1 else 'are'} no better than with shuffled labels."


ODDITIES = (
    Oddity("held-out", _held_out_far, "Report held-out numbers too."),
    Oddity("nc2-lags", _nc2_lags, "Train longer: NC2 comes after NC1."),
    Oddity("coincident-means", _coincident),
    Oddity("merged-rows", _rare_merged, "Rebalance the classes, or fix the classifier to a simplex ETF."),
    Oddity("batch-normalisation", _blip, "Measure at another epoch, or re-estimate the running averages."),
    Oddity("other-decisions", _other_decisions, 'Name the classifier with classifier="...".'),
    Oddity("near-nothing", _near_nothing),
    Oddity("crowded", _too_many_classes, "Use at least K − 1 feature dimensions for a simplex."),
    Oddity("undefined", _undefined, "Measure more samples a class."),
    Oddity("like-shuffled", _like_shuffled),
)
"""Each is silent unless its own condition holds."""


def oddities(found: Findings) -> tuple[Remark, ...]:
    """All that is odd about a measurement."""
    seen = ((each, each.find(found)) for each in ODDITIES)
    return tuple(Remark(each.name, sentence, each.advice) for each, sentence in seen if sentence is not None)


def state(found: Findings) -> str:
    """Where training is, in a few words: the terminal phase, and the accuracy on held-out data."""
    said = []
    begun = terminal_phase(found.series) if found.history and found.facts.session is None else None
    if begun is not None and found.value("classifier_accuracy") == 1:
        said.append(f"terminal phase since epoch {begun:g}")
    if (held_out := found.get("test/classifier_accuracy")) is not None:
        said.append(f"held-out accuracy {100 * held_out.value:.1f} %")
    elif (training := found.get("classifier_accuracy")) is not None:
        said.append(f"training accuracy {100 * training.value:.1f} %")
    return " · ".join(said)
