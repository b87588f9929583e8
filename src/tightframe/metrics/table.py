"""`METRICS`: every scalar measure as a row, what it needs, and the evaluation of many of them at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tightframe.errors import EvidenceError
from tightframe.metrics import agreement, duality, geometry, layers, orthogonality, pairs, predicted, variability
from tightframe.metrics.agreement import Decisions
from tightframe.metrics.pairs import Kernel
from tightframe.statistics import ClassStatistics, FoldedStatistics


@dataclass(frozen=True)
class Evidence:
    """What a measurement collected, and so what metrics may use; None where it wasn't collected.

    Attributes:
        statistics: moments of the training features.
        weight, bias: the linear classifier on these features, (K, D) and (K,).
        decisions: its decisions and the nearest centre's.
        outside: statistics, or the mean (D,), of out-of-distribution features.
        consumer: weight (M, D) of the layer that reads the features, where that isn't the classifier.
        projected: moments of the same features in an orthonormal basis of the span of the centred class means, with the
            spread of the whole features: what NC1 needs where `statistics` holds no scatter, or doesn't resolve it.
        folds: `statistics` by folds of the samples, for standard errors.
        outside_folds: `outside` by folds of the samples, likewise.
    """

    statistics: ClassStatistics | None = None
    weight: Tensor | None = None
    bias: Tensor | None = None
    decisions: Decisions | None = None
    outside: ClassStatistics | Tensor | None = None
    consumer: Tensor | None = None
    projected: ClassStatistics | None = None
    folds: FoldedStatistics | None = None
    outside_folds: FoldedStatistics | None = None

    @property
    def spanning(self) -> ClassStatistics | None:
        """Moments with the scatter in the span of the centred class means: `projected`, or else `statistics`."""
        if self.projected is not None:
            return self.projected
        return self.statistics if self.offers("scatter") else None

    @property
    def reader(self) -> Tensor | None:
        """`consumer`, or else the classifier's rows of the classes with samples, less their mean.

        The means are centred too, and softmax doesn't see a common row: it would only displace a singular vector.
        """
        if self.consumer is not None or self.weight is None or self.statistics is None:
            return self.consumer
        rows = geometry.classifier_rows(self.statistics, self.weight)
        return rows - rows.mean(0)

    def offers(self, need: str) -> bool:
        """Whether a field or property is there, or "scatter" (pooled), "class scatter" or "agreement" can be had."""
        if need == "bias":
            return True  # None counts as zero
        if need == "reader":
            return self.consumer is not None or self.weight is not None
        if need == "agreement":
            return self.decisions is not None and agreement.has_classifier(self.decisions)
        if need == "class scatter":
            return self.statistics is not None and self.statistics.class_within is not None
        if need == "scatter":
            pooled = self.statistics is not None and self.statistics.within is not None
            return pooled or self.offers("class scatter")
        return getattr(self, need) is not None


_COLLECTED = {
    "statistics": "class statistics",
    "weight": "the classifier's weight",
    "decisions": "decisions (DecisionCounts)",
    "outside": "out-of-distribution data (ood=)",
    "spanning": "the within-class scatter (covariance=True; for a subset of the classes, per_class=True)",
    "reader": "the weight of the layer that reads the features",
}


@dataclass(frozen=True)
class Metric:
    """One row: a scalar function of evidence.

    Attributes:
        label: short name for tables, in the field's terms.
        family: the phenomenon it measures, NC1 ... NC5 or GNC2, or what explains it: "scale", "accuracy".
        function: called with the evidence's fields named in `arguments`; returns a 0-d tensor.
        arguments: names of fields and properties of `Evidence`, in the function's order.
        convention: what distinguishes it from its variants, in a few words.
        source: the paper.
        requires: what the arguments must offer besides being there, see `Evidence.offers`.
        headline: whether short tables show it.
        largest: number of classes beyond which it is left out unless asked for by name, as it takes too long.
    """

    label: str
    family: str
    function: Callable[..., Tensor]
    arguments: tuple[str, ...]
    convention: str
    source: str
    requires: tuple[str, ...] = ()
    headline: bool = False
    largest: int | None = None

    def __call__(self, evidence: Evidence) -> Tensor:
        """The metric's value for this evidence; errors are the function's own.

        Raises: EvidenceError if something it needs was not collected.
        """
        for name in self.arguments:
            if not evidence.offers(name):
                raise EvidenceError(f"{self.label} needs {_COLLECTED[name]}, which wasn't given.")
        return self.function(*(getattr(evidence, name) for name in self.arguments))

    def available(self, evidence: Evidence) -> bool:
        """Whether the evidence has all that the metric needs, and few enough classes."""
        statistics = evidence.statistics
        if self.largest is not None and statistics is not None and statistics.num_classes > self.largest:
            return False
        return all(evidence.offers(need) for need in (*self.arguments, *self.requires))


_S, _SW, _SWB = ("statistics",), ("statistics", "weight"), ("statistics", "weight", "bias")
_D, _SO, _SC, _P = ("decisions",), ("statistics", "outside"), ("statistics", "reader"), ("spanning",)
_POOLED, _OWN, _BOTH = ("scatter",), ("class scatter",), ("agreement",)
_PAPYAN, _LIU, _WU = "Papyan, Han & Donoho 2020", "Liu et al. 2023", "Wu & Papyan 2024"
_CENTRED = "about the mean of class means"
_POPULATION = "unit centred means, over pairs, ddof 0"

METRICS: dict[str, Metric] = {
    "nc1": Metric(
        "NC1  tr(Σ_W Σ_B⁺)/K",
        "NC1",
        variability.nc1,
        _P,
        f"÷K, Σ_B {_CENTRED}",
        _PAPYAN,
        headline=True,
    ),
    "nc1_undivided": Metric("tr(Σ_W Σ_B⁺)", "NC1", variability.nc1_undivided, _P, "not ÷K", f"{_PAPYAN} (notebook)"),
    "nc1_sample_centred": Metric(
        "NC1, sample mean",
        "NC1",
        variability.nc1_sample_centred,
        _P,
        "Σ_B about the sample mean",
        "Zhu et al. 2021",
    ),
    "nc1_discriminant": Metric(
        "NC1, weighted Σ_B",
        "NC1",
        variability.nc1_discriminant,
        _P,
        "Σ_B weighted by n_k/N",
        "discriminant analysis",
    ),
    "nc1_class_balanced": Metric(
        "NC1, balanced Σ_W",
        "NC1",
        variability.nc1_class_balanced,
        _S,
        "Σ_W averaged over classes",
        "class-balanced variant",
        _OWN,
    ),
    "trace_ratio": Metric(
        "tr Σ_W / tr Σ_B",
        "NC1",
        variability.trace_ratio,
        _S,
        f"Σ_B {_CENTRED}",
        "Tirer et al. 2023",
        headline=True,
    ),
    "trace_ratio_debiased": Metric(
        "tr Σ_W / tr Σ_B, debiased",
        "NC1",
        variability.trace_ratio_debiased,
        _S,
        "N − K, sampling taken off Σ_B",
        "Tirer et al. 2023, few samples",
    ),
    "trace_share": Metric(
        "tr Σ_W / tr Σ_T",
        "NC1",
        variability.trace_share,
        _S,
        "Σ_T over all samples",
        "Beaglehole et al. 2024",
    ),
    "cdnv": Metric("CDNV", "NC1", variability.cdnv, _S, "÷2, distance², ddof 0", "Galanti et al. 2022", headline=True),
    "cdnv_debiased": Metric(
        "CDNV, debiased",
        "NC1",
        variability.cdnv_debiased,
        _S,
        "÷2, corrected distance², ddof 1",
        "Galanti et al. 2022, few samples",
    ),
    "cdnv_dist4": Metric("CDNV, distance⁴", "NC1", variability.cdnv_dist4, _S, "÷2, distance⁴, ddof 0", _WU),
    "directional_cdnv": Metric(
        "directional CDNV",
        "NC1",
        variability.directional_cdnv,
        _S,
        "variance along the pair's line",
        "Luthra & Galanti 2026",
        _OWN,
    ),
    "vci": Metric(
        "VCI",
        "NC1",
        variability.vci,
        _S,
        f"true rank of Σ_B, {_CENTRED}",
        "Xu & Liu 2023",
        _POOLED,
        headline=True,
    ),
    "within_trace": Metric("tr Σ_W", "scale", variability.within_trace, _S, "pooled over samples", "", headline=True),
    "between_trace": Metric("tr Σ_B", "scale", variability.between_trace, _S, _CENTRED, "", headline=True),
    "between_trace_debiased": Metric(
        "tr Σ_B, debiased", "scale", variability.between_trace_debiased, _S, "sampling taken off Σ_B", ""
    ),
    "within_in_mean_span": Metric(
        "share of tr Σ_W in span of means",
        "scale",
        variability.within_in_mean_span,
        _P,
        "what NC1 sees",
        "",
        headline=True,
    ),
    "numerical_rank": Metric(
        "numerical rank of Σ_T",
        "scale",
        layers.numerical_rank,
        _S,
        "variances > 10⁻³ of the largest",
        "Masarczyk et al. 2023",
        _POOLED,
        headline=True,
    ),
    "equinorm": Metric("equinorm, means", "NC2", geometry.equinorm, _S, "std/mean, ddof 1", _PAPYAN, headline=True),
    "equinorm_ddof0": Metric(
        "equinorm, means, ddof 0", "NC2", geometry.equinorm_ddof0, _S, "std/mean, ddof 0", "Fang et al. 2021"
    ),
    "classifier_equinorm": Metric(
        "equinorm, classifier",
        "NC2",
        geometry.classifier_equinorm,
        _SW,
        "std/mean, ddof 1",
        _PAPYAN,
        headline=True,
    ),
    "equiangularity": Metric(
        "equiangularity, means",
        "NC2",
        geometry.equiangularity,
        _S,
        "std of cosines, ddof 1",
        _PAPYAN,
        headline=True,
    ),
    "equiangularity_ddof0": Metric(
        "equiangularity, means, ddof 0",
        "NC2",
        geometry.equiangularity_ddof0,
        _S,
        "std of cosines, ddof 0",
        _PAPYAN,
    ),
    "classifier_equiangularity": Metric(
        "equiangularity, classifier",
        "NC2",
        geometry.classifier_equiangularity,
        _SW,
        "std of cosines, ddof 1",
        _PAPYAN,
        headline=True,
    ),
    "maximal_angle_deviation": Metric(
        "maximal-angle deviation",
        "NC2",
        geometry.maximal_angle_deviation,
        _S,
        "mean |cos + 1/(K−1)|",
        _PAPYAN,
        headline=True,
    ),
    "mean_cosine": Metric("mean cosine of means", "NC2", geometry.mean_cosine, _S, _CENTRED, ""),
    "mean_cosine_uncentred": Metric(
        "mean cosine of means, uncentred",
        "NC2",
        geometry.mean_cosine_uncentred,
        _S,
        "from the origin: −1/(K−1) simplex, 0 orthogonal",
        "Tirer & Bruna 2022",
    ),
    "classifier_mean_cosine": Metric(
        "mean cosine of classifier",
        "NC2",
        geometry.classifier_mean_cosine,
        _SW,
        "rows not centred: −1/(K−1) simplex, 0 orthogonal",
        "Tirer & Bruna 2022",
    ),
    "classifier_mean_cosine_centred": Metric(
        "mean cosine of centred classifier",
        "NC2",
        geometry.classifier_mean_cosine_centred,
        _SW,
        "rows centred",
        "",
    ),
    "minimum_angle": Metric("smallest angle of means (°)", "NC2", geometry.minimum_angle, _S, _CENTRED, ""),
    "etf_error": Metric(
        "ETF error, means",
        "NC2",
        geometry.etf_error,
        _S,
        "Gram matrices, Frobenius",
        "Kothapalli 2023",
        headline=True,
    ),
    "classifier_etf_error": Metric(
        "ETF error, classifier",
        "NC2",
        geometry.classifier_etf_error,
        _SW,
        "rows not centred",
        "Zhu et al. 2021",
        headline=True,
    ),
    "classifier_etf_error_centred": Metric(
        "ETF error, centred classifier",
        "NC2",
        geometry.classifier_etf_error_centred,
        _SW,
        "rows centred",
        "Zhou et al. 2022",
    ),
    "etf_distance": Metric(
        "distance to nearest ETF",
        "NC2",
        geometry.etf_distance,
        _S,
        "Procrustes, Frobenius",
        "closed form",
        headline=True,
    ),
    "seli_error": Metric(
        "distance to SELI, means",
        "NC2",
        predicted.seli_error,
        _S,
        "Gram matrices, Frobenius, for these counts",
        "Thrampoulidis et al. 2022",
        largest=500,
    ),
    "classifier_seli_error": Metric(
        "distance to SELI, classifier",
        "NC2",
        predicted.classifier_seli_error,
        _SW,
        "rows centred, for these counts",
        "Thrampoulidis et al. 2022",
        largest=500,
    ),
    "participation_ratio": Metric(
        "participation ratio of means", "NC2", geometry.participation_ratio, _S, _CENTRED, ""
    ),
    "one_vs_rest_distance": Metric(
        "one-vs-rest distance",
        "GNC2",
        geometry.one_vs_rest_distance,
        _SW,
        "unit classifier rows",
        "Jiang et al. 2023",
        largest=100,
    ),
    "log_kernel_mean": Metric(
        "log kernel, mean", "GNC2", geometry.log_kernel_mean, _S, _POPULATION, _LIU, headline=True
    ),
    "log_kernel_variance": Metric("log kernel, variance", "GNC2", geometry.log_kernel_variance, _S, _POPULATION, _LIU),
    "log_kernel_cv": Metric("log kernel, CV", "GNC2", geometry.log_kernel_cv, _S, _POPULATION, _WU),
    "distance_mean": Metric("distance kernel, mean", "GNC2", geometry.distance_mean, _S, _POPULATION, _LIU),
    "distance_variance": Metric("distance kernel, variance", "GNC2", geometry.distance_variance, _S, _POPULATION, _LIU),
    "distance_cv": Metric("distance kernel, CV", "GNC2", geometry.distance_cv, _S, _POPULATION, _WU),
    "riesz_mean": Metric("Riesz kernel s=1, mean", "GNC2", geometry.riesz_mean, _S, _POPULATION, _LIU),
    "riesz_cv": Metric("Riesz kernel s=1, CV", "GNC2", geometry.riesz_cv, _S, _POPULATION, _LIU),
    "self_duality_distance": Metric(
        "self-duality ‖Ŵ − M̂‖²",
        "NC3",
        duality.self_duality_distance,
        _SW,
        "squared Frobenius",
        _PAPYAN,
        headline=True,
    ),
    "self_duality_distance_root": Metric(
        "self-duality ‖Ŵ − M̂‖", "NC3", duality.self_duality_distance_root, _SW, "Frobenius", _PAPYAN
    ),
    "self_duality_error": Metric(
        "self-duality error E(M, W)",
        "NC3",
        duality.self_duality_error,
        _SW,
        _CENTRED,
        "Zhu et al. 2021; " + _WU,
        headline=True,
    ),
    "self_duality_error_sample_centred": Metric(
        "self-duality error, sample mean",
        "NC3",
        duality.self_duality_error_sample_centred,
        _SW,
        "about the sample mean",
        "Zhu et al. 2021",
    ),
    "nc3_cosine": Metric("cos(w, μ), mean", "NC3", duality.nc3_cosine, _SW, _CENTRED, _WU, headline=True),
    "nc3_misalignment": Metric(
        "1 − cos(w, μ), mean", "NC3", duality.nc3_misalignment, _SW, _CENTRED, "Jiang et al. 2023"
    ),
    "unc3_variance": Metric(
        "UNC3  variance of cos(w, μ)", "NC3", duality.unc3_variance, _SW, "ddof 0", f"{_WU} (package)"
    ),
    "unc3_cv": Metric("UNC3  CV of cos(w, μ)", "NC3", duality.unc3_cv, _SW, "ddof 0", _WU),
    "duality_distance": Metric(
        "‖ŵ − μ̂‖, mean", "NC3", duality.duality_distance, _SW, "unit vectors", f"{_WU} (package)"
    ),
    "mean_principal_angle": Metric(
        "angle to weights, mean (°)",
        "NC3",
        layers.mean_principal_angle,
        _SC,
        "span of means, top singular vectors",
        "Rangamani et al. 2023",
        headline=True,
    ),
    "largest_principal_angle": Metric(
        "angle to weights, largest (°)",
        "NC3",
        layers.largest_principal_angle,
        _SC,
        "span of means, top singular vectors",
        "Rangamani et al. 2023",
    ),
    "bias_collapse": Metric(
        "bias collapse ‖Wμ_G + b‖",
        "NC3",
        duality.bias_collapse,
        _SWB,
        _CENTRED,
        "Zhu et al. 2021",
        headline=True,
    ),
    "bias_collapse_sample_centred": Metric(
        "bias collapse, sample mean",
        "NC3",
        duality.bias_collapse_sample_centred,
        _SWB,
        "about the sample mean",
        "Zhu et al. 2021",
    ),
    "ncc_mismatch": Metric(
        "NCC mismatch",
        "NC4",
        agreement.ncc_mismatch,
        _D,
        "classifier with bias, pooled",
        _PAPYAN,
        _BOTH,
        headline=True,
    ),
    "ncc_agreement": Metric(
        "NCC agreement", "NC4", agreement.ncc_agreement, _D, "classifier with bias, pooled", _WU, _BOTH
    ),
    "ncc_mismatch_class_weighted": Metric(
        "NCC mismatch, classes equal",
        "NC4",
        agreement.ncc_mismatch_class_weighted,
        _D,
        "mean over classes",
        _PAPYAN,
        _BOTH,
    ),
    "ncc_agreement_class_weighted": Metric(
        "NCC agreement, classes equal",
        "NC4",
        agreement.ncc_agreement_class_weighted,
        _D,
        "mean over classes",
        _WU,
        _BOTH,
    ),
    "ncc_accuracy": Metric("nearest-centre accuracy", "NC4", agreement.ncc_accuracy, _D, "pooled", "", headline=True),
    "classifier_accuracy": Metric(
        "classifier accuracy",
        "accuracy",
        agreement.classifier_accuracy,
        _D,
        "pooled",
        "",
        _BOTH,
        headline=True,
    ),
    "ood_orthogonality": Metric(
        "OOD orthogonality",
        "NC5",
        orthogonality.ood_orthogonality,
        _SO,
        "mean |cos|, not centred",
        "Ammar et al. 2024",
        headline=True,
    ),
}
"""Every scalar metric by the name of its function."""

_PAIRWISE: dict[str, tuple[Kernel, Callable[[Any], Tensor]]] = {
    "cdnv": (pairs.cdnv_kernel(2), lambda r: r.mean),
    "cdnv_debiased": (pairs.CDNV_DEBIASED, lambda r: r.mean),
    "cdnv_dist4": (pairs.cdnv_kernel(4), lambda r: r.mean),
    "equiangularity": (pairs.COSINE, lambda r: r.standard_deviation(1)),
    "equiangularity_ddof0": (pairs.COSINE, lambda r: r.standard_deviation(0)),
    "mean_cosine": (pairs.COSINE, lambda r: r.mean),
    "maximal_angle_deviation": (pairs.ANGLE_DEVIATION, lambda r: r.mean),
    "minimum_angle": (pairs.NEAREST, lambda r: r.degrees),
    "distance_mean": (pairs.DISTANCE, lambda r: r.mean),
    "distance_variance": (pairs.DISTANCE, lambda r: r.variance),
    "distance_cv": (pairs.DISTANCE, lambda r: r.cv),
    "log_kernel_mean": (pairs.LOG, lambda r: r.mean),
    "log_kernel_variance": (pairs.LOG, lambda r: r.variance),
    "log_kernel_cv": (pairs.LOG, lambda r: r.cv),
    "riesz_mean": (pairs.riesz_kernel(1), lambda r: r.mean),
    "riesz_cv": (pairs.riesz_kernel(1), lambda r: r.cv),
}


def pairwise(
    statistics: ClassStatistics, names: Iterable[str] | None = None, *, tile_size: int = pairs.TILE_SIZE
) -> dict[str, Tensor]:
    """Several pairwise metrics (default: all of them) from one pass over one tiled Gram matrix.

    The values equal the functions of the same names. Raises: KeyError for a name that is not a pairwise metric.
    """
    chosen = {name: _PAIRWISE[name] for name in (_PAIRWISE if names is None else names)}
    kernels = {str(id(kernel)): kernel for kernel, _ in chosen.values()}  # one reduction for metrics that share it
    reduced = pairs.reduce_pairs(statistics, kernels, tile_size)
    return {name: read(reduced[str(id(kernel))]) for name, (kernel, read) in chosen.items()}


def evaluate(evidence: Evidence, names: Iterable[str] | None = None) -> dict[str, Tensor]:
    """The named metrics, or all that the evidence allows, with one Gram matrix for all pairwise ones."""
    chosen = [n for n, m in METRICS.items() if m.available(evidence)] if names is None else list(names)
    together = [name for name in chosen if name in _PAIRWISE]
    shared: dict[str, Tensor] = {}
    if together and evidence.statistics is not None:
        shared = pairwise(evidence.statistics, together)
    return {name: shared[name] if name in shared else METRICS[name](evidence) for name in chosen}
