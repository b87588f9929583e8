"""Standard errors: the delete-a-fold jackknife for functions of moments, binomial errors for shares of decisions."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from tightframe.errors import GeometryWarning
from tightframe.metrics.agreement import Decisions, binomial_error, binomial_error_class_weighted
from tightframe.metrics.table import METRICS, Evidence, evaluate
from tightframe.statistics import ClassStatistics, FoldedStatistics

_TRAINED = "a function of the trained classifier's weight alone: no samples, no sampling error"
WITHOUT_ERROR = {
    "classifier_equinorm": _TRAINED,
    "classifier_equiangularity": _TRAINED,
    "classifier_mean_cosine": _TRAINED,
    "classifier_mean_cosine_centred": _TRAINED,
    "classifier_etf_error": _TRAINED,
    "classifier_etf_error_centred": _TRAINED,
    "classifier_seli_error": _TRAINED,
    "one_vs_rest_distance": _TRAINED,
    "numerical_rank": "a count, which jumps: the jackknife is for smooth functions of the moments",
}
"""Metrics that have no standard error, and why."""


class Estimate(NamedTuple):
    """A value and its standard error, tensors of the same shape."""

    value: Tensor
    standard_error: Tensor


def jackknife(function: Callable[[ClassStatistics], Tensor], folded: FoldedStatistics) -> Estimate:
    """A function of the statistics of all samples, with its delete-a-fold jackknife standard error.

    With theta_(-f) the value without fold f, s.e.^2 = (F-1)/F sum_f (theta_(-f) - their mean)^2. An interval is
    value +- t s.e. with Student's t of F-1 degrees of freedom, 2.13 for 95 % and F = 16. It is one for the function's
    expectation at these counts: a bias that the number of samples brings with it, as NC1 and equiangularity have near
    collapse, is not in it. The classes, and a classifier, count as given: only samples within classes are drawn.

    In simulations of 16 to 500 samples a class, balanced or not, 92 to 97 % of the 95 % intervals of NC1, CDNV,
    equiangularity and self-duality held that expectation. Limits: for classes with n < F samples the variance is too
    large, n/(n-1) (F-1)/F times the true one for a mean; where all of a value is bias, as the equiangularity of an
    exact simplex, s.e. was 1.5 times the true one. The function must be smooth: at a minimum over pairs that two pairs
    share, or where an absolute value is near zero next to its error, s.e. is no guide. NaN wherever a value without a
    fold is. Classes whose samples are all in one fold, as a single sample is, stay as they are in every replicate
    (`FoldedStatistics.without`): the error is that of the other classes alone, and NaN if there is no other class.
    `folded.undivided` lists them. GeometryWarnings are given once, for the value of all samples.

    Args:
        function: gives a tensor of any shape, always the same; a number for each class, for instance.

    Source: Quenouille 1956; Tukey 1958; Wu 1986; delete-a-group jackknife with strata: Kott 2001.

    >>> from tightframe import metrics
    >>> features, labels = torch.randn(600, 5, dtype=torch.float64), torch.arange(600) % 3
    >>> folded = FoldedStatistics.from_features(features, labels, 3)
    >>> value, error = jackknife(metrics.within_trace, folded)
    >>> bool(error / value < 0.1)
    True
    """
    value = function(folded.total)
    if _fixed(folded):
        return Estimate(value, torch.full_like(value, torch.nan))
    with _no_geometry_warnings():
        replicates = [function(folded.without(fold)) for fold in range(folded.folds)]
    return Estimate(value, _error(torch.stack(replicates)))


def standard_errors(evidence: Evidence, names: Iterable[str] | None = None) -> dict[str, Tensor]:
    """Standard errors of the named metrics, or of all that the evidence allows, by the metrics' names.

    Metrics of moments have jackknife errors (see `jackknife` for what they mean, and when they are NaN) where the
    evidence has `folds`, and those of two samples where it has `outside_folds` too: the samples are independent, so
    their variances add. Metrics of decisions have binomial errors. Others are left out: those in `WITHOUT_ERROR`, and
    those whose moments weren't kept by fold, such as NC1 from `projected` moments.
    """
    chosen = [name for name in (METRICS if names is None else names) if name not in WITHOUT_ERROR]
    errors = {
        name: _decision_error(name, evidence, evidence.decisions)
        for name in chosen
        if METRICS[name].arguments == ("decisions",) and evidence.decisions and METRICS[name].available(evidence)
    }
    if evidence.folds is None:
        return errors
    bare = replace(evidence, statistics=evidence.folds.total, decisions=None, projected=None)
    rest = [name for name in chosen if METRICS[name].available(replace(bare, statistics=evidence.folds.parts[0]))]
    if evidence.projected is not None:  # whose moments weren't kept by fold
        rest = [name for name in rest if "spanning" not in METRICS[name].arguments]
    of_two = [name for name in rest if "outside" in METRICS[name].arguments]
    if evidence.outside_folds is None:
        rest = [name for name in rest if name not in of_two]
    variances = _variances(evidence.folds, rest, lambda statistics: replace(bare, statistics=statistics))
    if evidence.outside_folds is not None and of_two:
        outside = _variances(evidence.outside_folds, of_two, lambda statistics: replace(bare, outside=statistics))
        variances |= {name: variances[name] + outside[name] for name in of_two}
    errors |= {name: variance.sqrt() for name, variance in variances.items()}
    return {name: errors[name] for name in chosen if name in errors}


def _variances(
    folded: FoldedStatistics, names: list[str], seen: Callable[[ClassStatistics], Evidence]
) -> dict[str, Tensor]:
    """Squared jackknife errors of metrics; `seen` makes evidence of the statistics without a fold."""
    if _fixed(folded):
        return {name: folded.total.means.new_full((), torch.nan) for name in names}
    with _no_geometry_warnings():
        replicates = [evaluate(seen(folded.without(fold)), names) for fold in range(folded.folds)]
    return {name: _error(torch.stack([values[name] for values in replicates])).square() for name in names}


def _fixed(folded: FoldedStatistics) -> bool:
    """Whether every class is in one fold alone, so that no replicate differs from the whole."""
    return len(folded.undivided) == int(folded.total.present.sum())


def _error(replicates: Tensor) -> Tensor:
    """Jackknife standard error from (F, ...) values, each without one fold."""
    deviations = replicates - replicates.mean(0)
    return (deviations.square().sum(0) * ((len(replicates) - 1) / len(replicates))).sqrt()


def _decision_error(name: str, evidence: Evidence, decisions: Decisions) -> Tensor:
    if name in ("ncc_agreement_class_weighted", "ncc_mismatch_class_weighted"):
        return binomial_error_class_weighted(decisions)
    return binomial_error(METRICS[name](evidence), decisions)


@contextmanager
def _no_geometry_warnings() -> Iterator[None]:
    """Degenerate geometry, of which the value of all samples has told already, is passed over."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GeometryWarning)
        yield
