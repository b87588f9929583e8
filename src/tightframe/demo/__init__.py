"""The demonstration: a small network trained on real data with any head, measured along the way."""

from tightframe.demo.heads import HEADS, TRAINING_LOSSES, HeadChoice
from tightframe.demo.network import network
from tightframe.demo.run import measured_epochs, run
from tightframe.demo.settings import PROFILES, Progress, Settings

__all__ = [
    "HEADS",
    "PROFILES",
    "TRAINING_LOSSES",
    "HeadChoice",
    "Progress",
    "Settings",
    "measured_epochs",
    "network",
    "run",
]
