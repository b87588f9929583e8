"""NC5: orthogonality of out-of-distribution data to the class means."""

from __future__ import annotations

from torch import Tensor

from tightframe import numerics
from tightframe.checks import Array, as_tensor
from tightframe.errors import ShapeError
from tightframe.metrics.metric import metric
from tightframe.statistics import ClassStatistics

__all__ = ["ood_orthogonality", "ood_cosines"]


def ood_cosines(statistics: ClassStatistics, outside: ClassStatistics | Array) -> Tensor:
    """Cosines between the class means, not centred, and the mean out-of-distribution feature.

    Shape: (K present,), float64. Range: [-1, 1]; 0 = orthogonal.

    Args:
        outside: statistics of the out-of-distribution samples, whose labels are ignored, or their mean (D,).

    Raises: EmptyClassError if fewer than two classes have samples; ShapeError if the mean is not (D,).

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> statistics = ClassStatistics.from_features(torch.eye(2), torch.arange(2), 2)
    >>> [round(cosine, 6) for cosine in metrics.ood_cosines(statistics, torch.tensor([3.0, -4.0])).tolist()]
    [0.6, -0.8]
    """
    mean = outside.global_mean("sample") if isinstance(outside, ClassStatistics) else as_tensor(outside)
    if mean.shape != (statistics.num_features,):
        raise ShapeError(
            f"the mean of the out-of-distribution features must have shape ({statistics.num_features},); "
            f"got {tuple(mean.shape)}."
        )
    means = statistics.populated().means
    return numerics.unit_rows(means) @ numerics.unit_rows(mean.to(means))


@metric(
    "OOD orthogonality",
    "NC5",
    source="Ammar et al. 2024",
    convention="mean |cos|, not centred",
    target=0.0,
    headline=True,
)
def ood_orthogonality(statistics: ClassStatistics, outside: ClassStatistics | Tensor) -> Tensor:
    """Mean over classes of |cos(mu_k, mu_out)|; neither mean is centred.

    Shape: outside (D,) or statistics of D features; scalar, float64. Range: [0, 1], unitless; 0 = orthogonal. Depends
    on the origin of the features.
    Misleads: random directions in D dimensions give about sqrt(2/(pi D)), so a small value in many dimensions is no
    evidence; an offset common to all features makes it large.

    Args:
        outside: as in `ood_cosines`.

    Raises: EmptyClassError if fewer than two classes have samples; ShapeError if the mean is not (D,).
    Source: Ben Ammar et al. 2024 (NECO), eq. 5 (NC5).

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> statistics = ClassStatistics.from_features(torch.eye(2), torch.arange(2), 2)
    >>> round(metrics.ood_orthogonality(statistics, torch.tensor([3.0, -4.0])).item(), 6)  # (0.6 + 0.8) / 2
    0.7
    """
    return ood_cosines(statistics, outside).abs().mean()
