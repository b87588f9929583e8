"""`VARIANTS`: every metric of the package, and every variant that its options give, by the oracle's names."""

from typing import Any

from tightframe import metrics
from tightframe.metrics import METRICS, Metric

_OPTIONS: dict[str, Metric[Any]] = {
    "nc1_undivided": metrics.nc1.having(divided=False),
    "nc1_sample_centred": metrics.nc1.having(centre="sample"),
    "nc1_discriminant": metrics.nc1.having(weighting="sample"),
    "nc1_separation": metrics.nc1.having(weighting="sample", divided=False),
    "nc1_class_balanced": metrics.nc1.having(within="class", needs="class scatter"),
    "trace_ratio_debiased": metrics.trace_ratio.having(debiased=True),
    "cdnv_debiased": metrics.cdnv.having(debiased=True),
    "cdnv_dist4": metrics.cdnv.having(distance_exponent=4),
    "h_score_shrunk": metrics.h_score.having(shrinkage=0.3),
    "h_score_ledoit_wolf": metrics.h_score.having(shrinkage="ledoit-wolf"),
    "effective_rank_within": metrics.effective_rank.having(of="within", labelled=True),
    "effective_rank_between": metrics.effective_rank.having(of="between", labelled=True),
    "participation_ratio_total": metrics.participation_ratio.having(of="total", labelled=False),
    "participation_ratio_within": metrics.participation_ratio.having(of="within"),
    "alpha_req_equal_weights": metrics.alpha_req.having(weighted=False),
    "alpha_req_range": metrics.alpha_req.having(last=3),
    "few_shot_error_1": metrics.few_shot_error.having(shots=1),
    "between_trace_debiased": metrics.between_trace.having(debiased=True),
    "equinorm_ddof0": metrics.equinorm.having(ddof=0),
    "equinorm_sample_centred": metrics.equinorm.having(ddof=0, centre="sample"),
    "equinorm_logarithmic": metrics.equinorm.having(logarithmic=True),
    "classifier_equinorm_ddof0": metrics.classifier_equinorm.having(ddof=0),
    "equiangularity_ddof0": metrics.equiangularity.having(ddof=0),
    "classifier_equiangularity_ddof0": metrics.classifier_equiangularity.having(ddof=0),
    "mean_cosine_uncentred": metrics.mean_cosine.having(centred=False),
    "classifier_mean_cosine_centred": metrics.classifier_mean_cosine.having(centred=True),
    "classifier_etf_error_centred": metrics.classifier_etf_error.having(centred=True),
    "log_kernel_variance": metrics.log_kernel.having(of="variance"),
    "log_kernel_cv": metrics.log_kernel.having(of="cv"),
    "distance_kernel_variance": metrics.distance_kernel.having(of="variance"),
    "distance_kernel_cv": metrics.distance_kernel.having(of="cv"),
    "riesz_kernel_variance": metrics.riesz_kernel.having(of="variance"),
    "riesz_kernel_cv": metrics.riesz_kernel.having(of="cv"),
    "riesz2_kernel": metrics.riesz_kernel.having(exponent=2.0),
    "self_duality_distance_root": metrics.self_duality_distance.having(squared=False),
    "self_duality_distance_sample_centred": metrics.self_duality_distance.having(centre="sample"),
    "self_duality_error_sample_centred": metrics.self_duality_error.having(centre="sample"),
    "self_duality_error_both_centred": metrics.self_duality_error.having(centre="sample", classifier_centred=True),
    "nc3_misalignment": metrics.nc3_cosine.having(complement=True),
    "unc3_variance": metrics.unc3.having(relative=False),
    "unc3_ddof1": metrics.unc3.having(ddof=1),
    "unc3_of_products": metrics.unc3.having(of="product", relative=False, ddof=1),
    "largest_principal_angle": metrics.principal_angle.having(largest=True),
    "bias_collapse_sample_centred": metrics.bias_collapse.having(centre="sample"),
    "ncc_mismatch_class_weighted": metrics.ncc_mismatch.having(weighting="class"),
    "ncc_agreement_class_weighted": metrics.ncc_agreement.having(weighting="class"),
    "ncc_accuracy_class_weighted": metrics.ncc_accuracy.having(weighting="class"),
}

VARIANTS: dict[str, Metric[Any]] = METRICS | {name: variant.having(name) for name, variant in _OPTIONS.items()}
