"""From a source of features to evidence: a first pass, a second look, held-out and out-of-distribution samples."""

from tightframe.measurement.collect import Collected, LayerEvidence, collect

__all__ = ["Collected", "LayerEvidence", "collect"]
