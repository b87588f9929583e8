"""From a source of features to evidence: two passes over the training samples, held-out and outside samples."""

from tightframe.measurement.collect import Collected, LayerEvidence, collect
from tightframe.measurement.plan import Keep

__all__ = ["Collected", "Keep", "LayerEvidence", "collect"]
