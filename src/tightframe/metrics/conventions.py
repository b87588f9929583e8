"""`CONVENTIONS`: the variant of each measure that a paper or package computes, under that paper's name."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tightframe.metrics.table import METRICS, Evidence, Metric


@dataclass(frozen=True)
class Convention:
    """A paper's variant of a quantity.

    Attributes:
        quantity: what the paper calls it.
        metric: the name in `METRICS` that computes it.
        source: paper or package.
        unit_features: the statistics must be taken of features scaled to unit length.
        without_bias: the decisions must be counted with bias None.
    """

    quantity: str
    metric: str
    source: str
    unit_features: bool = False
    without_bias: bool = False

    def __call__(self, evidence: Evidence) -> Tensor:
        """The convention's value, a 0-d tensor, for evidence collected as the two flags say."""
        return self.row(evidence)

    @property
    def row(self) -> Metric:
        """The metric that computes it."""
        return METRICS[self.metric]


_ROWS = [
    ("papyan-2020", "Papyan, Han & Donoho 2020", {
        "nc1": "nc1", "nc2-equinorm": "equinorm", "nc2-equiangularity": "equiangularity",
        "nc2-maximal-angle": "maximal_angle_deviation", "nc3": "self_duality_distance", "nc4": "ncc_mismatch",
    }),
    ("papyan-2020-notebook", "notebook of Papyan, Han & Donoho 2020", {
        "nc1": "nc1_undivided", "nc2-equinorm": "equinorm", "nc2-maximal-angle": "maximal_angle_deviation",
        "nc3": "self_duality_distance", "nc4": "ncc_mismatch",
    }),
    ("han-2022", "Han, Papyan & Donoho 2022", {"nc1": "nc1_undivided"}),
    ("zhu-2021", "Zhu et al. 2021", {
        "nc1": "nc1_sample_centred", "nc2": "classifier_etf_error", "nc3": "self_duality_error_sample_centred",
        "bias": "bias_collapse_sample_centred",
    }),
    ("zhou-2022", "Zhou et al. 2022", {"nc1": "nc1_sample_centred", "nc2": "classifier_etf_error_centred"}),
    ("yaras-2022", "Yaras et al. 2022", {"nc1": "nc1_sample_centred", "nc2": "classifier_etf_error"}),
    ("markou-2024", "Markou et al. 2024", {"nc1": "nc1_sample_centred", "nc2": "classifier_etf_error"}),
    ("discriminant", "linear discriminant analysis", {"nc1": "nc1_discriminant"}),
    ("tirer-2023", "Tirer, Huang & Niles-Weed 2023", {"nc1": "trace_ratio"}),
    ("beaglehole-2024", "Beaglehole et al. 2024 (recursive feature machines)", {"nc1": "trace_share"}),
    ("galanti-2022", "Galanti, György & Hutter 2022", {"cdnv": "cdnv"}),
    ("xu-liu-2023", "Xu & Liu 2023", {"vci": "vci"}),
    ("masarczyk-2023", "Masarczyk et al. 2023", {"numerical-rank": "numerical_rank"}),
    ("fang-2021", "Fang et al. 2021", {"nc2-equinorm": "equinorm_ddof0", "nc3": "self_duality_distance"}),
    ("haframe-2023", "Liang & Davis 2023", {"nc2-equinorm": "equinorm_ddof0", "nc3": "self_duality_distance"}),
    ("kothapalli-2023", "Kothapalli 2023", {"nc2": "etf_error", "nc3": "self_duality_error"}),
    ("liu-2023", "Liu et al. 2023", {
        "gnc2-distance": "distance_mean", "gnc2-distance-variance": "distance_variance",
        "gnc2-log": "log_kernel_mean", "gnc2-log-variance": "log_kernel_variance",
    }),
    ("wu-papyan-2024", "Wu & Papyan 2024", {
        "cdnv": "cdnv_dist4", "nc2-equinorm": "equinorm", "nc2-equiangularity": "equiangularity",
        "gnc2-distance-cv": "distance_cv", "gnc2-log-cv": "log_kernel_cv", "nc3": "nc3_cosine", "unc3": "unc3_cv",
    }),
    ("neural-collapse-package", "package released with Wu & Papyan 2024", {
        "nc1": "nc1", "cdnv": "cdnv", "nc2": "etf_error", "gnc2-distance": "distance_mean",
        "gnc2-distance-variance": "distance_variance", "gnc2-log": "log_kernel_mean",
        "gnc2-log-variance": "log_kernel_variance", "nc3": "self_duality_error", "unc3": "unc3_variance",
        "nc5": "ood_orthogonality",
    }),
    ("ammar-2024", "Ammar et al. 2024", {"nc5": "ood_orthogonality"}),
]  # fmt: skip

CONVENTIONS: dict[str, Convention] = {
    f"{key}/{quantity}": Convention(quantity, metric, source)
    for key, source, quantities in _ROWS
    for quantity, metric in quantities.items()
}
"""Conventions by "paper/quantity"."""

CONVENTIONS |= {
    "jiang-2023/nc1": Convention("nc1", "nc1_sample_centred", "Jiang et al. 2023", unit_features=True),
    "jiang-2023/gnc2": Convention("gnc2", "one_vs_rest_distance", "Jiang et al. 2023"),
    "jiang-2023/nc3": Convention("nc3", "nc3_cosine", "Jiang et al. 2023"),
    "jiang-2023/nc3-code": Convention("nc3", "nc3_misalignment", "released code of Jiang et al. 2023"),
    "wu-papyan-2024/nc4": Convention("nc4", "ncc_agreement", "Wu & Papyan 2024", without_bias=True),
    "neural-collapse-package/nc4": Convention(
        "nc4", "ncc_agreement", "package released with Wu & Papyan 2024", without_bias=True
    ),
}
