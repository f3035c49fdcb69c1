"""Scenes: the bundled scene networks, with their weights."""

from pathlib import Path

_FOLDER = Path(__file__).parent

WEIGHTS = _FOLDER / "miniplaces.safetensors"
"""The bundled network's weights, in half precision.

Labels, preprocessing and model card are in the file's metadata.
"""

TRANSFORMER_WEIGHTS = _FOLDER / "miniplaces-vit.safetensors"
"""The same of the bundled transformer."""
