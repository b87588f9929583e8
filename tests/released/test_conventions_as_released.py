"""Every convention that names released code equals that code's own number; recorded.json has them, see README.md.

Not run, as the code can't be had:
jiang-2023: the repository that the paper names (kongwanbianjinyu/...) holds a README only.
ammar-2024: NECO's repository (drti/neco) isn't among the stored ones; the package's `orthogonality_deviation` is NC5.
kothapalli-2023 is a survey: its formulas are those of the package. papyan-2020, han-2022, tirer-2023, galanti-2022,
xu-liu-2023, liu-2023 and masarczyk-2023 are the papers' formulas, of which no script was found.
haframe-2023/nc2-equinorm and wu-papyan-2024/gnc2-distance-cv are in the papers; the released scripts don't take them.
wu-papyan-2024/nc2-equiangularity is the paper's; the released script takes the variance of the inner products.
"""

import json
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from released_data import DATA

from tightframe import ClassStatistics, DecisionCounts
from tightframe.metrics import CONVENTIONS, METRICS, Evidence

RECORDED = json.loads((Path(__file__).parent / "recorded.json").read_text())["values"]
EVEN, BOTH, ALL = ("even",), ("even", "uneven"), ("even", "uneven", "crowded")


@cache
def evidence_of(kind: str, bias: bool = True) -> Evidence:
    data = DATA[kind]
    statistics = ClassStatistics.from_features(data.features, data.labels, len(data.weight))
    decisions = DecisionCounts(statistics, data.weight, data.bias if bias else None)
    decisions.update(data.features, data.labels)
    return Evidence(statistics, data.weight, data.bias if bias else None, decisions, data.outside.mean(0))


def cv(key: str) -> Callable[[dict[str, Any]], float]:
    """Of the mean and the variance that a table holds."""
    return lambda values: math.sqrt(values[f"{key}_var"]) / abs(values[f"{key}_mean"])


def second(key: str) -> Callable[[dict[str, Any]], float]:
    return lambda values: values[key][1]


# convention, repository, its name there or what is done with its numbers, and the data on which the two must agree:
# code that supposes classes of one size is compared on these
AS_RELEASED: list[tuple[str, str, str | Callable[[dict[str, Any]], float], tuple[str, ...]]] = [
    ("papyan-2020-notebook/nc1", "neuralcollapse/neuralcollapse", "Sw_invSb", BOTH),
    ("papyan-2020-notebook/nc2-equinorm", "neuralcollapse/neuralcollapse", "norm_M_CoV", BOTH),
    ("papyan-2020/nc2-equinorm-classifier", "neuralcollapse/neuralcollapse", "norm_W_CoV", BOTH),
    ("papyan-2020-notebook/nc2-maximal-angle", "neuralcollapse/neuralcollapse", "cos_M", BOTH),
    ("papyan-2020-notebook/nc3", "neuralcollapse/neuralcollapse", "W_M_dist", BOTH),
    ("papyan-2020-notebook/nc4", "neuralcollapse/neuralcollapse", "NCC_mismatch", BOTH),
    ("zhu-2021/nc1", "tding1/Neural-Collapse", "collapse_metric", BOTH),
    ("zhu-2021/nc2", "tding1/Neural-Collapse", "ETF_metric", BOTH),
    ("zhu-2021/nc3", "tding1/Neural-Collapse", "WH_relation_metric", BOTH),
    ("zhu-2021/bias", "tding1/Neural-Collapse", "Wh_b_relation_metric", BOTH),
    ("zhou-2022/nc1", "jinxinzhou/nc_loss", "collapse_metric", BOTH),
    ("zhou-2022/nc2", "jinxinzhou/nc_loss", "ETF_metric", BOTH),
    ("zhou-2022/nc3", "jinxinzhou/nc_loss", "WH_relation_metric", BOTH),
    ("yaras-2022/nc1", "cjyaras/normalized-neural-collapse", "nc1", BOTH),
    ("yaras-2022/nc2", "cjyaras/normalized-neural-collapse", "nc2", BOTH),
    ("markou-2024/nc1", "evanmarkou/Guiding-Neural-Collapse", "collapse_metric", BOTH),
    ("markou-2024/nc2", "evanmarkou/Guiding-Neural-Collapse", "ETF_metric", BOTH),
    ("xu-liu-2023/vci", "evanmarkou/Guiding-Neural-Collapse", "VCI", EVEN),
    ("fang-2021/nc2-equinorm", "HornHehhf/LPM", "std features norm over avg features norm", BOTH),
    ("fang-2021/nc3", "HornHehhf/LPM", "dual distance square", BOTH),
    ("haframe-2023/nc3", "ltong1130ztr/HAFrame", "cls_cfeat_duality", BOTH),
    ("beaglehole-2024/nc1", "dmbeaglehole/neural_collapse_rfm", "covW/covT", EVEN),
    ("tirer-2023/nc1", "dmbeaglehole/neural_collapse_rfm", "covW/covB", EVEN),
    ("wu-papyan-2024/cdnv", "rhubarbwu/linguistic-collapse", "cdnv", ALL),
    ("wu-papyan-2024/nc2-equinorm", "rhubarbwu/linguistic-collapse", cv("norms_log"), ALL),
    ("wu-papyan-2024/gnc2-log-cv", "rhubarbwu/linguistic-collapse", cv("log_kern"), ALL),
    ("wu-papyan-2024/nc3", "rhubarbwu/linguistic-collapse", "simcos_mean", ALL),
    ("wu-papyan-2024/unc3", "rhubarbwu/linguistic-collapse", cv("simcos"), ALL),
    (
        "wu-papyan-2024/nc4",
        "rhubarbwu/linguistic-collapse",
        lambda values: values["hits"] / (values["hits"] + values["misses"]),
        ALL,
    ),
    ("neural-collapse-package/nc1", "rhubarbwu/neural-collapse", "covariance_ratio", ALL),
    ("neural-collapse-package/cdnv", "rhubarbwu/neural-collapse", "variability_cdnv", ALL),
    ("galanti-2022/cdnv", "rhubarbwu/neural-collapse", "variability_cdnv", ALL),
    ("neural-collapse-package/nc2", "rhubarbwu/neural-collapse", "simplex_etf_error", ALL),
    ("kothapalli-2023/nc2", "rhubarbwu/neural-collapse", "simplex_etf_error", ALL),
    ("neural-collapse-package/gnc2-distance", "rhubarbwu/neural-collapse", lambda v: v["kernel_stats"][0], ALL),
    ("neural-collapse-package/gnc2-distance-variance", "rhubarbwu/neural-collapse", second("kernel_stats"), ALL),
    (
        "neural-collapse-package/gnc2-log",
        "rhubarbwu/neural-collapse",
        lambda v: v["kernel_stats, log_kernel"][0],
        ALL,
    ),
    (
        "neural-collapse-package/gnc2-log-variance",
        "rhubarbwu/neural-collapse",
        second("kernel_stats, log_kernel"),
        ALL,
    ),
    ("neural-collapse-package/nc3", "rhubarbwu/neural-collapse", "self_duality_error", ALL),
    ("kothapalli-2023/nc3", "rhubarbwu/neural-collapse", "self_duality_error", ALL),
    ("neural-collapse-package/unc3", "rhubarbwu/neural-collapse", "similarities, var", ALL),
    ("neural-collapse-package/nc4", "rhubarbwu/neural-collapse", "clf_ncc_agreement", ALL),
    ("neural-collapse-package/nc5", "rhubarbwu/neural-collapse", "orthogonality_deviation", ALL),
    ("ammar-2024/nc5", "rhubarbwu/neural-collapse", "orthogonality_deviation", ALL),
]
NOT_RUN = {
    *("jiang-2023/nc1", "jiang-2023/gnc2", "jiang-2023/nc3", "jiang-2023/nc3-code"),
    *("papyan-2020/nc1", "papyan-2020/nc2-equinorm", "papyan-2020/nc2-equiangularity"),
    *("papyan-2020/nc2-maximal-angle", "papyan-2020/nc3", "papyan-2020/nc4"),
    *("han-2022/nc1", "discriminant/nc1", "he-su-2023/separation", "masarczyk-2023/numerical-rank"),
    *("liu-2023/gnc2-distance", "liu-2023/gnc2-distance-variance", "liu-2023/gnc2-log", "liu-2023/gnc2-log-variance"),
    *("haframe-2023/nc2-equinorm", "wu-papyan-2024/gnc2-distance-cv", "wu-papyan-2024/nc2-equiangularity"),
}


@pytest.mark.parametrize(
    ("name", "repository", "key", "kind"),
    [(name, repository, key, kind) for name, repository, key, kinds in AS_RELEASED for kind in kinds],
)
def test_a_convention_is_the_released_number(
    name: str, repository: str, key: str | Callable[[dict[str, Any]], float], kind: str
) -> None:
    convention, values = CONVENTIONS[name], RECORDED[repository][kind]
    released = values[key] if isinstance(key, str) else key(values)
    ours = convention(evidence_of(kind, bias=not convention.without_bias))
    assert float(ours) == pytest.approx(released, rel=1e-9, abs=1e-12)


def test_every_convention_is_run_or_said_not_to_be() -> None:
    run = {name for name, *_ in AS_RELEASED}
    assert run | NOT_RUN == set(CONVENTIONS)
    assert not run & NOT_RUN


@pytest.mark.parametrize(
    ("name", "released"),
    [
        ("nc1", RECORDED["tding1/Neural-Collapse"]["uneven"]["collapse_metric"]),
        ("nc1", RECORDED["neuralcollapse/neuralcollapse"]["uneven"]["Sw_invSb"]),
        ("self_duality_distance", RECORDED["HornHehhf/LPM"]["uneven"]["dual distance square"]),
        ("self_duality_error", RECORDED["jinxinzhou/nc_loss"]["uneven"]["WH_relation_metric"]),
        ("bias_collapse", RECORDED["tding1/Neural-Collapse"]["uneven"]["Wh_b_relation_metric"]),
        ("classifier_etf_error", RECORDED["jinxinzhou/nc_loss"]["uneven"]["ETF_metric"]),
        ("equinorm", cv("norms_log")(RECORDED["rhubarbwu/linguistic-collapse"]["uneven"])),
        ("unc3", cv("simcos")(RECORDED["rhubarbwu/linguistic-collapse"]["uneven"])),
        ("cdnv", RECORDED["rhubarbwu/linguistic-collapse"]["uneven"]["cdnv"]),
        ("trace_share", RECORDED["dmbeaglehole/neural_collapse_rfm"]["uneven"]["covW/covT"]),
    ],
)
def test_the_options_matter_on_these_data(name: str, released: float) -> None:
    """The metric without a convention's options is another number, so the comparisons above can fail."""
    assert float(METRICS[name].of(evidence_of("uneven"))) != pytest.approx(released, rel=1e-3)


def test_other_numbers_of_the_released_scripts() -> None:
    """Which no convention is named after, but whose variants are here."""
    evidence, statistics = evidence_of("uneven"), evidence_of("uneven").statistics
    assert statistics is not None and evidence.weight is not None
    haframe = RECORDED["ltong1130ztr/HAFrame"]["uneven"]
    spread = METRICS["classifier_equiangularity"].having(ddof=0).of(evidence)
    assert float(spread) == pytest.approx(haframe["cls_cos_std"], rel=1e-9)
    zhou = RECORDED["jinxinzhou/nc_loss"]["uneven"]
    markou = RECORDED["evanmarkou/Guiding-Neural-Collapse"]["uneven"]
    bias = METRICS["bias_collapse"].having(centre="sample").of(evidence)
    duality = METRICS["self_duality_error"].having(centre="sample").of(evidence)
    lengths = METRICS["equinorm"].having(centre="sample").of(evidence)
    for released in (zhou, markou):
        assert float(bias) == pytest.approx(released["Wh_b_relation_metric"], rel=1e-9)
    assert float(duality) == pytest.approx(markou["WH_relation_metric"], rel=1e-9)
    assert float(lengths) == pytest.approx(markou["H_equinorm"], rel=1e-9)
    assert float(METRICS["classifier_equinorm"].of(evidence)) == pytest.approx(markou["W_equinorm"], rel=1e-9)
    fang = RECORDED["HornHehhf/LPM"]["uneven"]
    distance = METRICS["self_duality_distance"].having(centre="sample", squared=False).of(evidence)
    assert float(distance) == pytest.approx(fang["dual distance"], rel=1e-9)
    rows = METRICS["classifier_equinorm"].having(ddof=0).of(evidence)
    assert float(rows) == pytest.approx(fang["std weights norm over avg weights norm"], rel=1e-9)
    cosine = METRICS["classifier_mean_cosine"].of(evidence)
    assert float(cosine) == pytest.approx(fang["avg between-class weights cosine"], rel=1e-9)
    products = torch.tensor(RECORDED["rhubarbwu/neural-collapse"]["uneven"]["interference_grid"])
    upper = products[torch.triu(torch.ones_like(products, dtype=torch.bool), 1)]
    said = RECORDED["rhubarbwu/linguistic-collapse"]["uneven"]["interfere_var"]
    assert float(upper.var(correction=0)) == pytest.approx(said, rel=1e-5)  # their only number on equiangularity
