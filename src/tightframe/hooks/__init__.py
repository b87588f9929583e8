"""Inspect a model without changing it: find its classifier and layers, and capture their features."""

from tightframe.hooks.capture import CapturedFeatures, capture, features_in
from tightframe.hooks.classifier import Classifier, find_classifier
from tightframe.hooks.layers import Layer, Point, choose_layers, classifier_input
from tightframe.hooks.listing import LayerListing, list_layers
from tightframe.hooks.positions import POSITIONS
from tightframe.hooks.wrappers import bare_model, clean_name, device_of, evaluation, running_eagerly

__all__ = [
    "POSITIONS",
    "CapturedFeatures",
    "Classifier",
    "Layer",
    "LayerListing",
    "Point",
    "bare_model",
    "capture",
    "choose_layers",
    "classifier_input",
    "clean_name",
    "device_of",
    "evaluation",
    "features_in",
    "find_classifier",
    "list_layers",
    "running_eagerly",
]
