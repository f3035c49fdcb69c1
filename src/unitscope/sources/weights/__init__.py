"""Weights: read the files that people have, safely, and fit them to a network."""

from unitscope.sources.weights.class_count import infer_class_count
from unitscope.sources.weights.file import Weights, read_weights
from unitscope.sources.weights.fitting import fit_weights
from unitscope.sources.weights.foreign import ADAPTER, MERGE
from unitscope.sources.weights.names import match_names

__all__ = [
    "ADAPTER",
    "MERGE",
    "Weights",
    "fit_weights",
    "infer_class_count",
    "match_names",
    "read_weights",
]
