"""Drawable: the one door from results to drawing, so that computing need not know how anything is drawn."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any


class Drawable:
    """A result that can be looked at: `.figure()`, `.save(path)`, and a rich picture of itself in a notebook.

    The drawing is in `unitscope.render`, which is imported when something is first
    drawn.
    """

    def figure(self, **options: Any) -> Any:
        """Draw the result as a matplotlib Figure; the options are those of the drawing function in unitscope.render."""
        return importlib.import_module("unitscope.render").figure(self, **options)

    def save(self, path: str | os.PathLike[str], **options: Any) -> Path:
        """Draw the result into a picture file (PNG, PDF, SVG … by its suffix); raises OutputError when that fails."""
        written: Path = importlib.import_module("unitscope.render").save(
            self, path, **options
        )
        return written

    def _repr_html_(self) -> str:
        html: str = importlib.import_module("unitscope.render").html(self)
        return html
