"""`CONVENTIONS`: every published variant equals the oracle's value of the quantity it names."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from laws.scenarios import SCENARIOS, draw, evidence_of, truth
from oracle import Sample
from tightframe.evidence import Evidence
from tightframe.metrics import CONVENTIONS, Convention
from variants import VARIANTS


def samples() -> dict[str, Sample]:
    plain = draw(SCENARIOS["zipf"], spread=0.5)
    lengths = np.linalg.norm(plain.features, axis=1, keepdims=True)
    return {
        "plain": plain,
        "unit features": replace(plain, features=plain.features / lengths),
        "without bias": replace(plain, bias=np.zeros(8)),
    }


@cache
def collected(kind: str) -> tuple[Evidence, dict[str, float]]:
    """The evidence that a convention's flags ask for, and the oracle's values of it."""
    return evidence_of(samples()[kind]), truth(samples()[kind])


def variant_of(convention: Convention) -> str:
    """Under which name the oracle has the convention's metric."""
    metric = convention.metric
    (name,) = [
        name
        for name, variant in VARIANTS.items()
        if variant.function is metric.function and variant.options == metric.options
    ]
    return name


def kind_of(convention: Convention) -> str:
    return "unit features" if convention.unit_features else "without bias" if convention.without_bias else "plain"


@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_convention_equals_its_oracle(name: str) -> None:
    convention = CONVENTIONS[name]
    evidence, expected = collected(kind_of(convention))
    truth = expected[variant_of(convention)]
    assert abs(convention(evidence).item() - truth) <= 1e-10 * abs(truth)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_convention_has_its_source(name: str) -> None:
    convention = CONVENTIONS[name]
    assert name.split("/")[1].startswith(convention.quantity)
    assert convention.source


def test_flags_change_the_number() -> None:
    """Unit features and the missing bias are part of a convention, as these data show."""
    (_, plain), (_, unit), (_, without) = (collected(kind) for kind in samples())
    assert unit["nc1_sample_centred"] != pytest.approx(plain["nc1_sample_centred"], rel=0.01)
    assert without["ncc_agreement"] != plain["ncc_agreement"]


@pytest.mark.parametrize(
    ("quantity", "metrics"),
    [
        ("nc1", {"nc1", "nc1_undivided", "nc1_sample_centred", "nc1_discriminant", "trace_ratio", "trace_share"}),
        ("cdnv", {"cdnv", "cdnv_dist4"}),
        ("nc2-equinorm", {"equinorm", "equinorm_sample_centred", "equinorm_logarithmic"}),
    ],
)
def test_one_name_many_numbers(quantity: str, metrics: set[str]) -> None:
    """Section C: under one name, papers print different numbers; all of them are here, and they do differ."""
    rows = {variant_of(each) for each in CONVENTIONS.values() if each.quantity == quantity}
    assert rows == metrics
    values = [collected("plain")[1][name] for name in rows]
    assert len({float(f"{value:.6g}") for value in values}) == len(values)


def test_the_table_of_the_sheet_is_covered() -> None:
    """Section C, row by row: which metric each source computes."""
    table = {
        "papyan-2020/nc1": "nc1",
        "neural-collapse-package/nc1": "nc1",
        "zhu-2021/nc1": "nc1_sample_centred",
        "zhou-2022/nc1": "nc1_sample_centred",
        "markou-2024/nc1": "nc1_sample_centred",
        "yaras-2022/nc1": "nc1_sample_centred",
        "jiang-2023/nc1": "nc1_sample_centred",
        "discriminant/nc1": "nc1_discriminant",
        "papyan-2020-notebook/nc1": "nc1_undivided",
        "han-2022/nc1": "nc1_undivided",
        "tirer-2023/nc1": "trace_ratio",
        "galanti-2022/cdnv": "cdnv",
        "wu-papyan-2024/cdnv": "cdnv_dist4",
        "xu-liu-2023/vci": "vci",
        "fang-2021/nc2-equinorm": "equinorm_sample_centred",
        "haframe-2023/nc2-equinorm": "equinorm_sample_centred",
        "papyan-2020/nc2-equinorm": "equinorm",
        "papyan-2020/nc2-maximal-angle": "maximal_angle_deviation",
        "papyan-2020/nc2-equiangularity": "equiangularity",
        "kothapalli-2023/nc2": "etf_error",
        "neural-collapse-package/nc2": "etf_error",
        "zhu-2021/nc2": "classifier_etf_error",
        "markou-2024/nc2": "classifier_etf_error",
        "yaras-2022/nc2": "classifier_etf_error",
        "zhou-2022/nc2": "classifier_etf_error_centred",
        "liu-2023/gnc2-distance": "distance_kernel",
        "liu-2023/gnc2-distance-variance": "distance_kernel_variance",
        "liu-2023/gnc2-log": "log_kernel",
        "liu-2023/gnc2-log-variance": "log_kernel_variance",
        "wu-papyan-2024/gnc2-log-cv": "log_kernel_cv",
        "wu-papyan-2024/gnc2-distance-cv": "distance_kernel_cv",
        "jiang-2023/gnc2": "one_vs_rest_distance",
        "papyan-2020-notebook/nc3": "self_duality_distance",
        "zhu-2021/nc3": "self_duality_error_sample_centred",
        "zhou-2022/nc3": "self_duality_error_both_centred",
        "neural-collapse-package/nc3": "self_duality_error",
        "jiang-2023/nc3": "nc3_cosine",
        "jiang-2023/nc3-code": "nc3_misalignment",
        "wu-papyan-2024/nc3": "nc3_cosine",
        "neural-collapse-package/unc3": "unc3_of_products",
        "wu-papyan-2024/unc3": "unc3_ddof1",
        "papyan-2020/nc4": "ncc_mismatch",
        "wu-papyan-2024/nc4": "ncc_agreement",
        "zhu-2021/bias": "bias_collapse_sample_centred",
        "ammar-2024/nc5": "ood_orthogonality",
    }
    assert {name: variant_of(CONVENTIONS[name]) for name in table} == table
    assert [name for name, convention in CONVENTIONS.items() if convention.unit_features] == ["jiang-2023/nc1"]
    assert {name for name, convention in CONVENTIONS.items() if convention.without_bias} == {
        "wu-papyan-2024/nc4",
        "neural-collapse-package/nc4",
    }
