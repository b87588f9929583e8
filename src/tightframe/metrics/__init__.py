"""Every measure of neural collapse as a pure, differentiable function of what was collected; `METRICS` lists them."""

from tightframe.evidence import Evidence
from tightframe.metrics.agreement import (
    balanced_accuracy,
    binomial_error,
    classifier_accuracy,
    ncc_accuracy,
    ncc_agreement,
    ncc_agreement_per_class,
    ncc_mismatch,
)
from tightframe.metrics.conventions import CONVENTIONS, Convention
from tightframe.metrics.drilldown import ClassTable, PairTable, class_table, pair_table
from tightframe.metrics.duality import (
    bias_collapse,
    classifier_mean_cosines,
    classifier_mean_distances,
    classifier_mean_products,
    duality_distance,
    nc3_cosine,
    self_duality_distance,
    self_duality_error,
    unc3,
)
from tightframe.metrics.geometry import (
    classifier_equiangularity,
    classifier_equinorm,
    classifier_etf_error,
    classifier_mean_cosine,
    cosine_grid,
    distance_kernel,
    equiangularity,
    equinorm,
    etf_distance,
    etf_error,
    interference_grid,
    log_kernel,
    maximal_angle_deviation,
    mean_cosine,
    mean_norms,
    minimum_angle,
    nearest_etf,
    one_vs_rest_distance,
    participation_ratio,
    riesz_kernel,
    structure_error,
)
from tightframe.metrics.jackknife import Estimate, jackknife, standard_errors
from tightframe.metrics.layers import numerical_rank, principal_angle, principal_angles
from tightframe.metrics.levels import Level, levels, shuffled
from tightframe.metrics.metric import Metric, Setting, metric, plain, share
from tightframe.metrics.multilabel import TagSets, single_label_statistics, tag_sets, tagwise_average_error
from tightframe.metrics.orthogonality import ood_cosines, ood_orthogonality
from tightframe.metrics.predicted import classifier_seli_error, gram_distance, seli_error
from tightframe.metrics.regression import nrc1, nrc2, nrc3, nrc_null
from tightframe.metrics.table import METRICS, available, evaluate
from tightframe.metrics.variability import (
    between_covariance_debiased,
    between_trace,
    cdnv,
    cdnv_grid,
    cdnv_per_class,
    directional_cdnv,
    nc1,
    nc1_per_class,
    trace_ratio,
    trace_share,
    vci,
    within_in_mean_span,
    within_trace,
)

__all__ = [name for name in dir() if not name.startswith("_")]
