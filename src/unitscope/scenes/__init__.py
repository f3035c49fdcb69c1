"""Scenes: the bundled scene network, with its weights."""

from pathlib import Path

WEIGHTS = Path(__file__).with_name("miniplaces.safetensors")
"""The bundled weights, in half precision.

Labels, preprocessing and model card are in the file's metadata.
"""
