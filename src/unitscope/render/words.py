"""Words: how numbers, labels and places are written in everything drawn."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float, digits: int = 2, *, sign: bool = False) -> str:
    """A number with a true minus sign; `sign` also writes the plus. What rounds to zero but is not keeps two digits."""
    if value != 0 and abs(value) < 0.5 * 10**-digits:
        text = power(abs(value), 2)
    elif abs(value) >= 100_000:
        text = power(abs(value), 3)
    else:
        text = f"{abs(value):.{digits}f}"
    return f"{'−' if value < 0 else '+' if sign and value > 0 else ''}{text}"


def change(before: float, after: float, digits: int = 2) -> str:
    """A difference with its sign; what is below the rounding of float32 arithmetic is none."""
    difference = after - before
    return number(
        0.0 if abs(difference) < 1e-5 * max(abs(before), abs(after)) else difference,
        digits,
        sign=True,
    )


def power(value: float, digits: int = 2) -> str:
    """A number in powers of ten, "3.3 × 10⁻⁷", with `digits` significant digits."""
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{mantissa.replace('-', '−')} × 10{str(int(exponent)).translate(_SUPERSCRIPTS)}"


def percent(value: float) -> str:
    """A probability in percent: 31.2%, "<0.1%" below that, and never 100% for less."""
    if 0 < value < 0.0005:
        return "<0.1%"
    if 0.9995 <= value < 1:
        return ">99.9%"
    return f"{value:.1%}"


def tick(value: float) -> str:
    """A number on a colour bar, as short as it can be."""
    if value != 0 and (abs(value) < 1e-3 or abs(value) >= 1e5):
        return (
            number(value, 2)
            if abs(value) >= 1e5
            else ("−" if value < 0 else "") + power(abs(value), 2)
        )
    return f"{value:g}".replace("-", "−")


def clean(text: str) -> str:
    """A label or file name on one line, without control and direction characters, which could disguise it."""
    kept = (
        ""
        if unicodedata.category(c) in ("Cf", "Cs")
        else " "
        if unicodedata.category(c)[0] in "CZ"
        else c
        for c in text
    )
    return " ".join("".join(kept).split())


def shorten(text: str, length: int) -> str:
    """The text cleaned, and cut with … when it has more than `length` characters."""
    text = clean(text)
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def without_folders(text: str) -> str:
    """The text, clean, without the folders of absolute paths, which are nobody's business but the writer's."""
    quoted = re.sub(
        r"'(?:[A-Za-z]:)?[/\\][^']*[/\\]([^'/\\]+)[/\\]?'", r"'\1'", clean(text)
    )
    return re.sub(
        r"(?<![\w/.])(?<!:(?=//))(?:[A-Za-z]:)?(?:[/\\][^\s/\\'\",;:]+)+[/\\](?=[^\s/\\])",
        "",
        quoted,
    )


def slug(text: str, length: int = 60) -> str:
    """The text as part of a file name: letters and digits of any script, dots, dashes; "photo" if nothing is left."""
    text = re.sub(r"[^\w.-]+", "-", clean(text)).strip("-._")
    return text[:length].rstrip("-._") or "photo"


def plural(count: int, noun: str) -> str:
    """A count with its noun: "1 unit", "2 units"; thousands are set apart."""
    return f"{count:,} {noun}{'' if count == 1 else 'es' if noun.endswith('s') else 's'}".replace(
        ",", " "
    )


def listing(items: Sequence[str], limit: int = 6) -> str:
    """A list in words, "a, b and c"; beyond `limit` the rest is counted."""
    shown = list(items[:limit])
    if len(items) > limit:
        return f"{', '.join(shown)} and {len(items) - limit:,} more"
    return (
        shown[0]
        if len(shown) == 1
        else f"{', '.join(shown[:-1])} and {shown[-1]}"
        if shown
        else "none"
    )


def numbers(items: Sequence[int]) -> str:
    """Numbers in words: "3", "0–7" for a run without gaps, else "1, 4 and 9"."""
    if len(items) > 2 and list(items) == list(range(items[0], items[0] + len(items))):
        return f"{items[0]}–{items[-1]}"
    return listing([str(item) for item in items])


def shape(sides: Sequence[int]) -> str:
    """Sides of an array: "512 × 16 × 16"."""
    return " × ".join(map(str, sides))


def place(
    laid: Float[np.ndarray, "height width"], sign: float = 1.0
) -> tuple[float, str]:
    """Where a map laid on a photo is strongest (weakest for `sign` −1): the value there and the place in words."""
    if not np.isfinite(laid).any():
        return 0.0, "nowhere"
    index = int(np.nanargmax(sign * laid))
    row, column = divmod(index, laid.shape[1])
    down = ("upper", "middle", "lower")[min(2, 3 * row // laid.shape[0])]
    across = ("left", "centre", "right")[min(2, 3 * column // laid.shape[1])]
    words = (
        "in the centre"
        if (down, across) == ("middle", "centre")
        else f"at the {down} {across}"
    )
    return float(laid.flat[index]), words
