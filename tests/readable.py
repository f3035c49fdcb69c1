"""Whether a figure can be read."""

from __future__ import annotations

import itertools

from matplotlib.figure import Figure
from matplotlib.text import Text


def assert_readable(drawn: Figure) -> None:
    """No text leaves the page, and no two texts overlap."""
    renderer = drawn.canvas.get_renderer()  # type: ignore[attr-defined]
    width, height = drawn.get_size_inches() * drawn.dpi
    boxes = []
    for artist in drawn.findobj(Text):
        if not artist.get_text():
            continue
        box = artist.get_window_extent(renderer)
        assert (
            box.x0 >= -1
            and box.y0 >= -1
            and box.x1 <= width + 1
            and box.y1 <= height + 1
        ), artist.get_text()
        boxes.append((box.padded(-1), artist.get_text()))
    for (one, first), (other, second) in itertools.combinations(boxes, 2):
        assert not one.overlaps(other), (first, second)
