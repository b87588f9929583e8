"""Standard errors: the delete-a-fold jackknife for functions of moments, binomial errors for shares of decisions."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tightframe.errors import GeometryWarning
from tightframe.evidence import Evidence
from tightframe.metrics.agreement import binomial_error
from tightframe.metrics.metric import Metric
from tightframe.metrics.table import available, chosen, evaluate
from tightframe.statistics import ClassStatistics, FoldedStatistics


class Estimate(NamedTuple):
    """A value and its standard error, tensors of the same shape."""

    value: Tensor
    standard_error: Tensor


MANY_PAIRED = 10_000
"""Classes above which measures over pairs have no standard errors."""


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


def standard_errors(evidence: Evidence, metrics: Iterable[str | Metric[Any]] | None = None) -> dict[str, Tensor]:
    """Standard errors of the metrics, or of all that the evidence allows, by name.

    Metrics of moments have jackknife errors (see `jackknife` for what they mean, and when they are NaN) where the
    evidence has `folds`, and those of two samples where it has `outside_folds` too: the samples are independent, so
    their variances add. Metrics of decisions have binomial errors. Others are left out: those of the trained classifier
    alone, which has no sampling error, those that aren't smooth, those whose moments weren't kept by fold, such as NC1
    from `projected` moments, and measures over pairs of more than `MANY_PAIRED` classes, of which each fold would cost
    another sweep over all pairs.
    """
    wanted = available(evidence) if metrics is None else chosen(metrics)
    errors = {
        each.name: binomial_error(each, evidence.decisions)
        for each in wanted
        if each.hits is not None and evidence.decisions is not None and each.available(evidence)
    }
    folds, outside = evidence.folds, evidence.outside_folds
    if folds is not None:
        bare = replace(evidence, statistics=folds.total, decisions=None, projected=None, consumer=evidence.reader)
        rest = [each for each in wanted if "statistics" in each.reads and each.smooth]
        bare_folds = folds.parts[0].within is None and folds.parts[0].class_within is None
        kept = folds.without_scatter.total if bare_folds else folds.total
        rest = [each for each in rest if each.available(replace(bare, statistics=kept))]
        if int(folds.total.present.sum()) > MANY_PAIRED:
            rest = [each for each in rest if each.pairs is None]
        if evidence.projected is not None:  # whose moments weren't kept by fold
            rest = [each for each in rest if each.needed != "span scatter"]
        of_two = [each for each in rest if "outside" in each.reads]
        if outside is None:
            rest = [each for each in rest if each not in of_two]
        variances = _variances(folds, rest, lambda statistics: replace(bare, statistics=statistics))
        if outside is not None and of_two:
            more = _variances(outside, of_two, lambda statistics: replace(bare, outside=statistics))
            variances |= {name: variances[name] + more[name] for name in more}
        errors |= {name: variance.sqrt() for name, variance in variances.items()}
    return {each.name: errors[each.name] for each in wanted if each.name in errors}


def _variances(
    folded: FoldedStatistics, metrics: list[Metric[Any]], seen: Callable[[ClassStatistics], Evidence]
) -> dict[str, Tensor]:
    """Squared jackknife errors of metrics; `seen` makes evidence of the statistics without a fold."""
    if not metrics:
        return {}
    if _fixed(folded):
        return {each.name: folded.total.means.new_full((), torch.nan) for each in metrics}
    lean = all(each.needed == "means" for each in metrics)  # D x D matrices needn't be merged
    folded = folded.without_scatter if lean else folded
    with _no_geometry_warnings():
        replicates = [evaluate(seen(folded.without(fold)), metrics) for fold in range(folded.folds)]
    stacked = {
        each.name: torch.stack([torch.as_tensor(values[each.name], dtype=torch.float64) for values in replicates])
        for each in metrics
    }
    return {name: _error(values).square() for name, values in stacked.items()}


def _fixed(folded: FoldedStatistics) -> bool:
    """Whether every class is in one fold alone, so that no replicate differs from the whole."""
    return len(folded.undivided) == int(folded.total.present.sum())


def _error(replicates: Tensor) -> Tensor:
    """Jackknife standard error from (F, ...) values, each without one fold."""
    deviations = replicates - replicates.mean(0)
    return (deviations.square().sum(0) * ((len(replicates) - 1) / len(replicates))).sqrt()


@contextmanager
def _no_geometry_warnings() -> Iterator[None]:
    """Degenerate geometry, of which the value of all samples has told already, is passed over."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GeometryWarning)
        yield
