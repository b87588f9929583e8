"""Classifier heads on prototypes: modules that replace a model's last linear layer."""

from tightframe.head import Head, is_head
from tightframe.heads.class_means import ClassMeans, CondensedMeans, DecayedMeans, OnlineMeans
from tightframe.heads.comparison import ComparisonHead
from tightframe.heads.exchange import UnitLength, decision_layer, fold, replace_classifier
from tightframe.heads.following import DeepNCM, GuidedHead
from tightframe.heads.hierarchical import HierarchicalHead
from tightframe.heads.margin import MARGINS, MarginKind, class_margins
from tightframe.heads.prototype_head import PrototypeHead, PrototypeModel, SampledLogits
from tightframe.heads.similarity import SIMILARITIES, Similarity

__all__ = [
    "MARGINS",
    "SIMILARITIES",
    "ClassMeans",
    "ComparisonHead",
    "CondensedMeans",
    "DecayedMeans",
    "DeepNCM",
    "GuidedHead",
    "Head",
    "HierarchicalHead",
    "MarginKind",
    "OnlineMeans",
    "PrototypeHead",
    "PrototypeModel",
    "SampledLogits",
    "Similarity",
    "UnitLength",
    "class_margins",
    "decision_layer",
    "fold",
    "is_head",
    "replace_classifier",
]
