"""Rows of the public tables are values: pickled and copied, they are equal, and spawned processes can receive them."""

import copy
import pickle
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from laws.scenarios import SCENARIOS, draw, evidence_of
from tightframe.datasets import DATASETS
from tightframe.heads import MARGINS, SIMILARITIES
from tightframe.hooks import POSITIONS
from tightframe.losses import LOSSES
from tightframe.ood import DETECTORS
from tightframe.prototypes import PROTOTYPES

TABLES = {
    "data sets": DATASETS,
    "detectors": DETECTORS,
    "losses": LOSSES,
    "margins": MARGINS,
    "positions": POSITIONS,
    "prototypes": PROTOTYPES,
    "similarities": SIMILARITIES,
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_rows_are_equal_once_pickled_or_copied(table: Mapping[str, Any]) -> None:
    own = dict(table)
    assert own
    assert pickle.loads(pickle.dumps(own)) == own
    assert copy.deepcopy(own) == own


@pytest.mark.parametrize("name", DETECTORS)
def test_fitted_detectors_score_the_same_once_pickled(name: str) -> None:
    evidence = evidence_of(draw(SCENARIOS["balanced"]))
    assert evidence.statistics is not None
    detector = DETECTORS[name](evidence)
    rows = evidence.statistics.means + 0.5
    assert torch.equal(pickle.loads(pickle.dumps(detector)).scores(rows), detector.scores(rows))
