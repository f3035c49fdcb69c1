"""Render: figures, notebook fragments and the one-file report.

Only colours and layout are computed here.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from unitscope.errors import OutputError
from unitscope.files import written_whole
from unitscope.render.figures import figure
from unitscope.render.fragments import html
from unitscope.render.report import write_report
from unitscope.render.sheets import DPI

__all__ = ["figure", "html", "save", "write_report"]

# The name that matplotlib has for the format of each kind of file.
_FORMATS = {
    ".png": "png",
    ".pdf": "pdf",
    ".svg": "svg",
    ".jpg": "jpg",
    ".jpeg": "jpg",
    ".webp": "webp",
}


def save(
    result: Any,
    path: str | os.PathLike[str],
    *,
    dpi: float = DPI,
    **options: Any,
) -> Path:
    """Draw a result into a picture file: PNG, PDF, SVG, JPEG or WebP, by its suffix.

    `dpi` is dots an inch; the other options are `figure`'s. Raises OutputError when the
    file cannot be written.
    """
    path = Path(path)
    kind = _FORMATS.get(path.suffix.lower())
    if kind is None:
        raise OutputError(
            f"cannot write '{path}': a picture's name ends in one of "
            f"{', '.join(_FORMATS)}"
        )

    drawn = figure(result, **options)
    with written_whole(path) as temporary:
        drawn.savefig(temporary, dpi=dpi, format=kind)
    return path
