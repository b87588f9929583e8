"""NC1: within-class scatter relative to between-class scatter."""

from __future__ import annotations

import torch
from torch import Tensor

from tightframe import numerics
from tightframe.metrics.metric import Needs, Setting, metric, share
from tightframe.metrics.resolution import resolved
from tightframe.metrics.span import inverse_of_means, spanning_inverse
from tightframe.statistics import ClassStatistics, Weighting

__all__ = ["nc1", "nc1_per_class"]


def _mean_ratio(value: float, setting: Setting, divided: bool = True) -> float:
    """`share` of the mean scatter ratio over the min(K - 1, D) directions of the means."""
    return share(value * (setting.K if divided else 1) / min(setting.K - 1, setting.D), setting)


def _nc1_needs(within: Weighting = "sample") -> Needs:
    return "span scatter" if within == "sample" else "class scatter"


@metric(
    "NC1  tr(Σ_W Σ_B⁺)/K",
    "NC1",
    source="Papyan, Han & Donoho 2020",
    convention="÷K, Σ_B about the mean of class means",
    target=0.0,
    scale=_mean_ratio,
    needs=_nc1_needs,
    headline=True,
    held_out=True,
)
def nc1(
    statistics: ClassStatistics,
    *,
    weighting: Weighting = "class",
    centre: Weighting | None = None,
    within: Weighting = "sample",
    divided: bool = True,
) -> Tensor:
    """Within-class scatter relative to between-class scatter, tr(S_W S_B^+) / K.

    S_W pools samples (1/N); S_B weights classes equally about the mean of class means; K counts classes with samples.
    If class means coincide, S_B^+ uses the true rank and a GeometryWarning lists the classes.

    Shape: scalar, float64. Range: [0, inf], unitless; 0 = collapsed, inf if all class means coincide. Invariant to
    rotation, translation and common scale.
    Misleads: scatter outside the span of the class means does not count (`within_in_mean_span` is its share), and with
    one sample per class the value is 0 for any features.

    Args:
        weighting: weighting of the classes in S_B; "sample" is the convention of discriminant analysis, where S_W + S_B
            is the covariance of all samples.
        centre: centre of S_B. Default: as `weighting`. "sample" in Zhu et al. 2021, Zhou et al. 2022, Yaras et al. 2022
            and Markou et al. 2024.
        within: "sample" averages S_W over samples; "class" over classes, which needs the scatter per class.
        divided: divide by K; False in the notebook of Papyan et al. and in Han, Papyan & Donoho 2022.

    Raises: EmptyClassError if fewer than two classes have samples; ScatterError without the scatter.
    Source: Papyan, Han & Donoho 2020, NC1.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> features = torch.tensor([[0.0], [2.0], [10.0], [12.0]])
    >>> statistics = ClassStatistics.from_features(features, torch.tensor([0, 0, 1, 1]), 2)
    >>> round(metrics.nc1(statistics).item(), 4)  # S_W = 1, S_B = 25, K = 2
    0.02
    """
    statistics = statistics.populated()
    if within == "sample":
        scatter = statistics.require_within("nc1") / statistics.num_samples
    else:
        scatter = statistics.within_covariance(within)
    by = centre or weighting
    if weighting == by == "class":
        inverse, rank = spanning_inverse(statistics)
    else:
        rows, roots, mass = statistics.centred_means(by), None, statistics.class_weights(by)
        if weighting == "sample":
            roots = (statistics.class_weights("sample") * statistics.num_classes).sqrt()
            rows, mass = roots[:, None] * rows, mass / roots
        inverse, rank = inverse_of_means(statistics, numerics.condensed(numerics.contrasts(rows, mass)), roots)
    if rank == 0:  # all means coincide: infinite, though the pseudo-inverse of 0 is 0
        return statistics.spread.sum() / torch.zeros_like(scatter.trace())
    value, size = ((scatter @ inverse) * inverse).sum(), scatter.diagonal() @ inverse.square().sum(1)
    value = resolved(statistics, value, size, "NC1")
    return value if divided else value * statistics.num_classes


def nc1_per_class(statistics: ClassStatistics) -> Tensor:
    """tr(S_k S_B^+) / K with the covariance S_k of each class; needs per_class=True.

    The mean over classes is `nc1` with within="class"; the mean weighted by counts is `nc1`.

    Shape: (K present,), float64. Range: [0, inf), unitless; 0 = this class is collapsed.
    Raises: EmptyClassError if fewer than two classes have samples; ScatterError without the scatter per class.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> features, labels = torch.tensor([[0.0], [2.0], [11.0], [11.0]]), torch.tensor([0, 0, 1, 1])
    >>> statistics = ClassStatistics.from_features(features, labels, 2, per_class=True)
    >>> [round(value, 4) for value in metrics.nc1_per_class(statistics).tolist()]  # 1 / 25 / 2, and no scatter
    [0.02, 0.0]
    """
    statistics = statistics.populated()
    scatter = statistics.require_class_within("nc1_per_class")
    inverse, _ = spanning_inverse(statistics)
    traces = torch.stack([((each @ inverse) * inverse).sum() for each in scatter])
    sizes = torch.stack([each.diagonal() @ inverse.square().sum(1) for each in scatter])
    return resolved(statistics, traces, sizes, "NC1 of each class") / statistics.counts
