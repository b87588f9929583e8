"""NC5: orthogonality of out-of-distribution data to the class means."""

from __future__ import annotations

from torch import Tensor

from tightframe import numerics
from tightframe.checks import Array, as_tensor
from tightframe.errors import ShapeError
from tightframe.metrics.metric import metric
from tightframe.statistics import ClassStatistics

__all__ = ["ood_cosines", "ood_orthogonality"]


def ood_cosines(statistics: ClassStatistics, outside: ClassStatistics | Array) -> Tensor:
    """(K present,) cosines between the class means, not centred, and the mean out-of-distribution feature.

    Args:
        outside: statistics of the out-of-distribution samples, whose labels are ignored, or their mean (D,).
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

    Shape: scalar. Range: [0, 1]; 0 = orthogonal. Depends on the origin of the features.
    Source: Ammar et al. 2024 (NECO), NC5.
    """
    return ood_cosines(statistics, outside).abs().mean()


METRICS = (ood_orthogonality,)
