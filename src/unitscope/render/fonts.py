"""Fonts: which characters can be drawn, and how wide a text is."""

from __future__ import annotations

import functools

from matplotlib import font_manager
from matplotlib.font_manager import FontProperties

from unitscope.render.words import clean

_MISSING = "□"
_WIDEST = "W"
_LONGEST = 400  # characters: no line on a page holds more

# Fonts on many computers for scripts that matplotlib's own DejaVu Sans lacks.
_FALLBACKS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "PingFang SC", "Hiragino Sans",
    "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "WenQuanYi Zen Hei",
    "Arial Unicode MS", "Noto Sans Arabic", "Noto Sans Hebrew", "Noto Sans Devanagari",
    "Noto Sans Thai",
)  # fmt: skip


@functools.cache
def families() -> tuple[str, ...]:
    """The fonts of a text, the first one with a character drawing it."""
    known = set(font_manager.fontManager.get_font_names())
    return ("DejaVu Sans", *(name for name in _FALLBACKS if name in known))


@functools.cache
def _drawable(character: str) -> bool:
    # Matplotlib warns and draws a box for a character that no font has.
    paths = [
        font_manager.findfont(FontProperties(family=family)) for family in families()
    ]
    fonts = map(font_manager.get_font, paths)
    return any(font.get_char_index(ord(character)) for font in fonts)


def writable(text: str) -> str:
    """The text on one line, with a box for every character that no font can draw."""
    return "".join(
        character if _drawable(character) else _MISSING for character in clean(text)
    )


@functools.lru_cache(maxsize=4096)
def text_width(text: str, size: float, weight: str = "normal") -> float:
    """The width of a text in inches, at a size in points."""
    path = font_manager.findfont(FontProperties(family="DejaVu Sans", weight=weight))
    font = font_manager.get_font(path)
    font.set_size(size, 72)

    known = "".join(
        character if font.get_char_index(ord(character)) else _WIDEST
        for character in text
    )
    font.set_text(known, 0.0)

    # Hinting at the size of the screen widens a text by a few percent.
    return 1.04 * float(font.get_width_height()[0]) / 64 / 72


def fitted(text: str, room: float, size: float, weight: str = "normal") -> str:
    """The text, cut with … where it is wider than `room` inches."""
    text = writable(text)
    if len(text) <= _LONGEST and text_width(text, size, weight) <= room:
        return text

    low, high = 0, min(len(text), _LONGEST)
    while low < high:
        middle = (low + high + 1) // 2
        if text_width(text[:middle] + "…", size, weight) <= room:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + "…"


def wrapped(text: str, room: float, size: float) -> list[str]:
    """The text in lines of at most `room` inches; a word longer than a line is cut."""
    lines: list[str] = []
    for word in writable(text).split():
        if lines and text_width(f"{lines[-1]} {word}", size) <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(fitted(word, room, size))
    return lines


def line_height(size: float) -> float:
    """The distance between two baselines in inches, at a size in points."""
    return size * 1.45 / 72
