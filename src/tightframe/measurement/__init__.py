"""Model and loader in, report out: the main job as a function."""

from tightframe.measurement.loading import Batch, split_batch
from tightframe.measurement.measuring import measure

__all__ = ["Batch", "measure", "split_batch"]
