"""Model: an image classifier that can be explained, and what is known of its network."""

from unitscope.model.classifier import Classifier, wrap
from unitscope.model.provenance import Provenance
from unitscope.model.reading import Input, OnePhoto

__all__ = ["Classifier", "Input", "OnePhoto", "Provenance", "wrap"]
