"""Scenes: the bundled scene network with its weights, and procedural scenes with exact object masks."""

from pathlib import Path

WEIGHTS = Path(__file__).with_name("miniplaces.safetensors")
"""The bundled weights, half precision, with labels, preprocessing and model card in the file's metadata."""
