"""Fonts: which characters can be drawn, and how wide a text is."""

from __future__ import annotations

import functools

from matplotlib import font_manager
from matplotlib.font_manager import FontProperties
from matplotlib.ft2font import FT2Font

from unitscope.render.words import clean

_FONT = "DejaVu Sans"
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
    fallbacks = [name for name in _FALLBACKS if name in known]
    return (_FONT, *fallbacks)


@functools.cache
def _drawable(character: str) -> bool:
    # Matplotlib warns and draws a box for a character that no font has.
    for family in families():
        font = _font(FontProperties(family=family))
        if _has(font, character):
            return True
    return False


def _font(properties: FontProperties) -> FT2Font:
    path = font_manager.findfont(properties)
    return font_manager.get_font(path)


def _has(font: FT2Font, character: str) -> bool:
    index: int = font.get_char_index(ord(character))
    return index != 0


def writable(text: str) -> str:
    """The text on one line, with a box for every character that no font can draw."""
    characters = [
        character if _drawable(character) else _MISSING
        for character in clean(text)
    ]
    return "".join(characters)


@functools.lru_cache(maxsize=4096)
def text_width(text: str, size: float, weight: str = "normal") -> float:
    """The width of a text in inches, at a size in points."""
    properties = FontProperties(family=_FONT, weight=weight)
    font = _font(properties)
    font.set_size(size, 72)

    known = [
        character if _has(font, character) else _WIDEST for character in text
    ]
    font.set_text("".join(known), 0.0)

    # Hinting at the size of the screen widens a text by a few percent.
    width, _ = font.get_width_height()
    return 1.04 * float(width) / 64 / 72


def fitted(text: str, room: float, size: float, weight: str = "normal") -> str:
    """The text, cut with … where it is wider than `room` inches."""
    text = writable(text)
    if len(text) <= _LONGEST and text_width(text, size, weight) <= room:
        return text

    low = 0
    high = min(len(text), _LONGEST)
    while low < high:
        middle = (low + high + 1) // 2
        shorter = text[:middle] + "…"
        if text_width(shorter, size, weight) <= room:
            low = middle
        else:
            high = middle - 1
    beginning = text[:low]
    return beginning.rstrip() + "…"


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
