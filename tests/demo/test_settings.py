"""Settings: what doesn't fit is refused before anything is loaded, and every option is a flag."""

import math
import subprocess
import sys
from dataclasses import fields
from typing import Any

import pytest

from tightframe.datasets import DATASETS, exponential_counts, step_counts
from tightframe.demo.settings import PROFILES, Settings
from tightframe.errors import ChoiceError, OptionError, RangeError, TightframeError


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"data": "digitz"}, ChoiceError, r"data must be one of digits, .*'digitz'\. Did you mean digits\?"),
        ({"ood": "nois"}, ChoiceError, r"ood must be one of photographs, .* Did you mean noise"),
        ({"head": "nothing"}, ChoiceError, "head must be one of linear, .*'nothing'"),
        ({"loss": "nothing"}, ChoiceError, "loss must be one of cross-entropy, .*'nothing'"),
        ({"profile": "nothing", "long_tail": 2.0}, ChoiceError, "one of step, exponential; got 'nothing'"),
        ({"loss": "dot-regression"}, OptionError, "head='linear' limits .* loss must be one of .* 'dot-regression'"),
        ({"head": "ncm", "loss": "hyperspherical"}, OptionError, "loss must be one of cross-entropy; got"),
        ({"head": "ncm", "loss": "expected-cost"}, OptionError, "loss must be one of cross-entropy; got"),
        ({"head": "hierarchical", "dim": 3}, OptionError, "dim needs prototypes: head must be one of etf, "),
        ({"scale": 3.0}, OptionError, "scale needs prototypes: .*; got 'linear'"),
        ({"dim": 3}, OptionError, "dim needs prototypes: .*; got 'linear'"),
        (
            {"head": "etf", "loss": "squared-earth-mover", "incremental": 5},
            OptionError,
            "incremental adds classes: loss must be one of cross-entropy, dot.*; got 'squared-earth-mover'",
        ),
        (
            {"head": "hierarchical", "incremental": 5},
            OptionError,
            "incremental adds classes: head must be one of linear, .*; got 'hierarchical'",
        ),
        ({"memory": 3}, OptionError, "memory needs incremental="),
        ({"profile": "step"}, OptionError, "profile needs long_tail="),
        ({"incremental": 11}, RangeError, "at most 6, so that the first session has 2 of the 10 classes; got 11"),
        ({"incremental": 0}, RangeError, "incremental must be at least 1; got 0"),
        ({"epochs": 0}, RangeError, "epochs must be at least 1; got 0"),
        ({"batch_size": 1}, RangeError, "batch_size must be at least 2; got 1"),
        ({"measurements": 1}, RangeError, "measurements must be at least 2; got 1"),
        ({"long_tail": math.nan}, RangeError, "long_tail must be at least 1; got nan"),
        ({"weight_decay": math.inf}, RangeError, "weight_decay must be at least 0; got inf"),
        ({"learning_rate": math.nan}, RangeError, "learning_rate must be finite and above 0; got nan"),
        ({"learning_rate": math.inf}, RangeError, "learning_rate must be finite and above 0; got inf"),
        ({"learning_rate": -1.0}, RangeError, "learning_rate must be finite and above 0; got -1"),
        ({"head": "etf", "scale": 0.0}, RangeError, "scale must be finite and above 0; got 0"),
        ({"seed": -1}, RangeError, "seed must be at least 0; got -1"),
        ({"seed": 2**63}, RangeError, r"seed must be below 2\^63; got"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, Any], error: type[TightframeError], message: str) -> None:
    with pytest.raises(error, match=message):
        Settings(**settings)


def test_as_many_sessions_as_leave_two_classes_for_the_first() -> None:
    for sessions in range(1, 7):
        assert round(DATASETS["digits"].num_classes / Settings(incremental=sessions).incremental) >= 2


def test_defaults_come_from_the_data_set_and_the_head() -> None:
    filled = Settings().filled()
    assert (filled.epochs, filled.weight_decay, filled.loss) == (300, 1e-2, "cross-entropy")
    assert (filled.profile, filled.memory) == (None, None)
    filled = Settings(data="mnist", head="etf", long_tail=2, incremental=5).filled()
    assert (filled.epochs, filled.weight_decay, filled.loss) == (2, 5e-4, "balanced-dot-regression")
    assert (filled.profile, filled.memory) == ("step", 10)
    own = Settings(epochs=7, weight_decay=0.0, head="etf", loss="dot-regression", incremental=5, memory=0)
    assert own.filled() == own.filled().filled() == own


@pytest.mark.parametrize("K", [2, 3, 7, 10])
def test_the_groups_of_a_profile_are_all_classes(K: int) -> None:
    for profile, counts in (("step", step_counts), ("exponential", exponential_counts)):
        groups = PROFILES[profile].classes(K)
        assert PROFILES[profile].counts is counts
        assert [label for group in groups.values() for label in group] == list(range(K))
    minority = PROFILES["step"].classes(K)["minority"]
    assert [k for k, count in enumerate(step_counts(100, K, 10)) if count == 10] == list(minority)


def test_every_option_has_a_flag_that_says_its_choices() -> None:
    program = (
        "import runpy, sys\nsys.argv = ['tightframe', 'demo', '--help']\n"
        "try:\n    runpy.run_module('tightframe.cli', run_name='__main__')\n"
        "except SystemExit:\n    print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    page = " ".join(done.stdout.replace("│", " ").split())
    assert page.endswith("False False")
    for field in fields(Settings):
        assert f"--{field.name.replace('_', '-')} " in page
    from tightframe.demo import settings

    for choices in settings._CHOICES.values():
        assert ", ".join(choices) in page
