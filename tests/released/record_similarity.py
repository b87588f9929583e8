"""Runs released code of similarity and writes recorded_similarity.json: `python record_similarity.py FOLDER`.

FOLDER holds the repository ahwillia/netrep in ahwillia+netrep. Functions are taken out of the released files as they
are. The values of Kornblith et al. 2019 in the test are those that their notebook shows.
"""

import __future__

import ast
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from released_data import DATA
from scipy.linalg import subspace_angles
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_array, check_is_fitted

FOLDER = Path(sys.argv[1])
COMMITS = {"ahwillia/netrep": "0186b8a77ec1ebaf541cc8f7173cb2556df8a8f0"}


def taken(source: str, *names: str, **known: Any) -> SimpleNamespace:
    """The functions and classes of these names in a file's text."""
    body = [node for node in ast.parse(source).body if getattr(node, "name", None) in names]
    space: dict[str, Any] = {"np": np, **known}
    postponed = __future__.annotations.compiler_flag  # annotations name types that aren't here
    exec(compile(ast.Module(body, []), "released", "exec", postponed), space)
    return SimpleNamespace(**{name: space[name] for name in names})


def williams(x: Any, y: Any) -> dict[str, float]:
    package = FOLDER / "ahwillia+netrep" / "netrep"
    utils = taken((package / "utils.py").read_text(), "whiten", "angular_distance")
    valid = taken((package / "validation.py").read_text(), "check_equal_shapes", check_array=check_array)
    known = {**vars(utils), **vars(valid), "BaseEstimator": BaseEstimator, "check_is_fitted": check_is_fitted}
    metric = taken((package / "metrics" / "linear.py").read_text(), "LinearMetric", **known).LinearMetric
    cka = taken((package / "metrics" / "cka.py").read_text(), "LinearCKA", **known).LinearCKA
    x, y = x - x.mean(0), y - y.mean(0)
    unit = x / np.linalg.norm(x), y / np.linalg.norm(y)
    return {
        "LinearCKA": cka().score(x, y),
        "LinearMetric, angular": metric(alpha=1.0, score_method="angular").fit_score(x, y),
        "LinearMetric, euclidean, unit": metric(alpha=1.0, score_method="euclidean").fit_score(*unit),
    }


def means(kind: str) -> Any:
    data = DATA[kind]
    return np.stack([data.features[data.labels == label].mean(0).numpy() for label in range(6)])


def main() -> None:
    x = DATA["uneven"].features.numpy()[:48]
    y = DATA["even"].features.numpy()
    values: dict[str, dict[str, float]] = {
        "samples": williams(x, y[:, :5]),
        "class means": williams(means("uneven"), means("even")),
    }
    bases = [(each - each.mean(0)).T for each in (means("uneven"), means("even"))]
    angles = sorted(subspace_angles(*bases).tolist())
    rounded = {kind: {name: float(f"{value:.14g}") for name, value in row.items()} for kind, row in values.items()}
    content = {"commits": COMMITS, "values": {**rounded, "scipy.linalg.subspace_angles": angles}}
    (Path(__file__).parent / "recorded_similarity.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
