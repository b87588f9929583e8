"""`CONVENTIONS`: the variant of each measure in a paper or package, under the name of the paper or package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tightframe.evidence import Evidence
from tightframe.metrics.agreement import ncc_agreement, ncc_mismatch
from tightframe.metrics.angles import equiangularity, maximal_angle_deviation
from tightframe.metrics.duality import bias_collapse, nc3_cosine, self_duality_distance, self_duality_error, unc3
from tightframe.metrics.etf import classifier_etf_error, etf_error
from tightframe.metrics.kernels import distance_kernel, log_kernel
from tightframe.metrics.layers import numerical_rank
from tightframe.metrics.lengths import classifier_equinorm, equinorm
from tightframe.metrics.metric import Metric
from tightframe.metrics.normalised_variance import cdnv
from tightframe.metrics.one_vs_rest import one_vs_rest_distance
from tightframe.metrics.orthogonality import ood_orthogonality
from tightframe.metrics.scatter_ratio import nc1
from tightframe.metrics.total_scatter import vci
from tightframe.metrics.traces import trace_ratio, trace_share


@dataclass(frozen=True)
class Convention:
    """A paper's variant of a quantity.

    Attributes:
        quantity: name in the paper.
        metric: the metric with the paper's options.
        source: paper or package.
        unit_features: whether the statistics must be of features scaled to unit length.
        without_bias: whether the decisions must be counted with bias None.

    >>> import torch
    >>> from tightframe import ClassStatistics, metrics
    >>> features = torch.tensor([[0.0], [2.0], [10.0], [12.0]])
    >>> statistics = ClassStatistics.from_features(features, torch.tensor([0, 0, 1, 1]), 2)
    >>> convention = metrics.CONVENTIONS["han-2022/nc1"]  # not divided by K
    >>> convention.source, round(convention(metrics.Evidence(statistics)).item(), 4)
    ('Han, Papyan & Donoho 2022', 0.04)
    """

    quantity: str
    metric: Metric[Any]
    source: str
    unit_features: bool = False
    without_bias: bool = False

    def __call__(self, evidence: Evidence) -> Tensor:
        """The value, a 0-d tensor, for evidence collected according to `unit_features` and `without_bias`."""
        return self.metric.of(evidence)


_UNDIVIDED, _ABOUT_SAMPLES = nc1.having(divided=False), nc1.having(centre="sample")
_LENGTHS, _DUALITY = equinorm.having(ddof=0, centre="sample"), self_duality_distance.having(centre="sample")

_ROWS: list[tuple[str, str, Mapping[str, Metric[Any]]]] = [
    ("papyan-2020", "Papyan, Han & Donoho 2020", {
        "nc1": nc1, "nc2-equinorm": equinorm, "nc2-equinorm-classifier": classifier_equinorm,
        "nc2-equiangularity": equiangularity, "nc2-maximal-angle": maximal_angle_deviation,
        "nc3": self_duality_distance, "nc4": ncc_mismatch,
    }),
    ("papyan-2020-notebook", "notebook of Papyan, Han & Donoho 2020", {
        "nc1": _UNDIVIDED, "nc2-equinorm": equinorm, "nc2-maximal-angle": maximal_angle_deviation,
        "nc3": self_duality_distance, "nc4": ncc_mismatch,
    }),
    ("han-2022", "Han, Papyan & Donoho 2022", {"nc1": _UNDIVIDED}),
    ("zhu-2021", "Zhu et al. 2021", {
        "nc1": _ABOUT_SAMPLES, "nc2": classifier_etf_error, "nc3": self_duality_error.having(centre="sample"),
        "bias": bias_collapse.having(centre="sample"),
    }),
    ("zhou-2022", "Zhou et al. 2022", {
        "nc1": _ABOUT_SAMPLES, "nc2": classifier_etf_error.having(centred=True),
        "nc3": self_duality_error.having(centre="sample", classifier_centred=True),
    }),
    ("yaras-2022", "Yaras et al. 2022", {"nc1": _ABOUT_SAMPLES, "nc2": classifier_etf_error}),
    ("markou-2024", "Markou et al. 2024", {"nc1": _ABOUT_SAMPLES, "nc2": classifier_etf_error}),
    ("discriminant", "linear discriminant analysis", {"nc1": nc1.having(weighting="sample")}),
    ("he-su-2023", "He & Su 2023", {"separation": nc1.having(weighting="sample", divided=False)}),
    ("tirer-2023", "Tirer, Huang & Niles-Weed 2023", {"nc1": trace_ratio}),
    ("beaglehole-2024", "Beaglehole et al. 2024 (recursive feature machines)", {"nc1": trace_share}),
    ("galanti-2022", "Galanti, György & Hutter 2022", {"cdnv": cdnv}),
    ("xu-liu-2023", "Xu & Liu 2023", {"vci": vci}),
    ("masarczyk-2023", "Masarczyk et al. 2023", {"numerical-rank": numerical_rank}),
    ("fang-2021", "Fang et al. 2021", {"nc2-equinorm": _LENGTHS, "nc3": _DUALITY}),
    ("haframe-2023", "Liang & Davis 2023", {"nc2-equinorm": _LENGTHS, "nc3": _DUALITY}),
    ("kothapalli-2023", "Kothapalli 2023", {"nc2": etf_error, "nc3": self_duality_error}),
    ("liu-2023", "Liu et al. 2023", {
        "gnc2-distance": distance_kernel, "gnc2-distance-variance": distance_kernel.having(of="variance"),
        "gnc2-log": log_kernel, "gnc2-log-variance": log_kernel.having(of="variance"),
    }),
    ("wu-papyan-2024", "Wu & Papyan 2024", {
        "cdnv": cdnv.having(distance_exponent=4.0), "nc2-equinorm": equinorm.having(logarithmic=True),
        "nc2-equiangularity": equiangularity, "gnc2-distance-cv": distance_kernel.having(of="cv"),
        "gnc2-log-cv": log_kernel.having(of="cv"), "nc3": nc3_cosine, "unc3": unc3.having(ddof=1),
    }),
    ("neural-collapse-package", "package released with Wu & Papyan 2024", {
        "nc1": nc1, "cdnv": cdnv, "nc2": etf_error, "gnc2-distance": distance_kernel,
        "gnc2-distance-variance": distance_kernel.having(of="variance"),
        "gnc2-log": log_kernel, "gnc2-log-variance": log_kernel.having(of="variance"),
        "nc3": self_duality_error, "unc3": unc3.having(of="product", relative=False, ddof=1), "nc5": ood_orthogonality,
    }),
    ("ammar-2024", "Ammar et al. 2024", {"nc5": ood_orthogonality}),
]  # fmt: skip

CONVENTIONS: dict[str, Convention] = {
    f"{key}/{quantity}": Convention(quantity, metric, source)
    for key, source, quantities in _ROWS
    for quantity, metric in quantities.items()
}
"""Conventions by "paper/quantity"."""

CONVENTIONS |= {
    "jiang-2023/nc1": Convention("nc1", _ABOUT_SAMPLES, "Jiang et al. 2023", unit_features=True),
    "jiang-2023/gnc2": Convention("gnc2", one_vs_rest_distance, "Jiang et al. 2023"),
    "jiang-2023/nc3": Convention("nc3", nc3_cosine, "Jiang et al. 2023"),
    "jiang-2023/nc3-code": Convention("nc3", nc3_cosine.having(complement=True), "released code of Jiang et al. 2023"),
    "wu-papyan-2024/nc4": Convention("nc4", ncc_agreement, "Wu & Papyan 2024", without_bias=True),
    "neural-collapse-package/nc4": Convention(
        "nc4", ncc_agreement, "package released with Wu & Papyan 2024", without_bias=True
    ),
}
