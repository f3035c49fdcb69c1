"""Drawable: the one door from results to drawing.

Results import no drawing code: `unitscope.render` is imported when a result is first
drawn.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any


class Drawable:
    """A result that can be drawn, saved as a picture, and shown in a notebook."""

    def figure(self, **options: Any) -> Any:
        """Draw the result as a matplotlib Figure.

        `show` names one of its pictures in `unitscope.render.figures.FIGURES`; the
        other options are those of the function that draws it.
        """
        return _render().figure(self._drawn(), **options)

    def save(self, path: str | os.PathLike[str], **options: Any) -> Path:
        """Draw the result into a picture file: PNG, PDF, SVG … by its suffix.

        The options are those of `figure`. Raises OutputError when the file cannot be
        written.
        """
        written: Path = _render().save(self._drawn(), path, **options)
        return written

    def _repr_html_(self) -> str:
        html: str = _render().html(self._drawn())
        return html

    def _drawn(self) -> Drawable:
        """What is drawn: the result itself, or the same without gradients."""
        return self


def _render() -> Any:
    return importlib.import_module("unitscope.render")
