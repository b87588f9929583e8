"""Where features come from: a model and loaders, arrays, files, shards, or a source of your own."""

from tightframe.sources.arrays import ArraySource
from tightframe.sources.batches import Batch
from tightframe.sources.model import ModelSource
from tightframe.sources.source import FeatureBatch, FeatureSource, LinearClassifier

__all__ = ["ArraySource", "Batch", "FeatureBatch", "FeatureSource", "LinearClassifier", "ModelSource"]
