"""Where features come from: a model and loaders, arrays, files, shards, or a source of your own."""

from tightframe.sources.arrays import ArraySource
from tightframe.sources.batches import Batch
from tightframe.sources.extraction import Extraction, extract
from tightframe.sources.language_models import from_texts
from tightframe.sources.model import ModelSource
from tightframe.sources.shards import ShardSource
from tightframe.sources.source import FeatureBatch, FeatureSource, LinearClassifier

__all__ = [
    "ArraySource",
    "Batch",
    "Extraction",
    "FeatureBatch",
    "FeatureSource",
    "LinearClassifier",
    "ModelSource",
    "ShardSource",
    "extract",
    "from_texts",
]
