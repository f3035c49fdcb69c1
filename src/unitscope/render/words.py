"""Words: how numbers, labels and places are written in everything drawn."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

_MINUS = "−"

# 'C:\folder\file', with or without the drive, in quotes.
_QUOTED_PATH = re.compile(r"'(?:[A-Za-z]:)?[/\\][^']*[/\\]([^'/\\]+)[/\\]?'")

# The folders of an absolute path outside quotes; the address behind "://" is none.
_FOLDERS = re.compile(
    r"(?<![\w/.])(?<!:(?=//))(?:[A-Za-z]:)?"
    r"(?:[/\\][^\s/\\'\",;:]+)+[/\\](?=[^\s/\\])"
)


def number(value: float, digits: int = 2, *, sign: bool = False) -> str:
    """A number with a true minus sign, and with a plus sign where `sign` asks for one.

    A number that would round to zero, and one of 100 000 or more, is written in powers
    of ten.
    """
    size = abs(value)
    if value != 0 and size < 0.5 * 10**-digits:
        text = power(size, 2)
    elif size >= 100_000:
        text = power(size, 3)
    else:
        text = f"{size:.{digits}f}"

    if value < 0:
        return _MINUS + text
    return f"+{text}" if sign and value > 0 else text


def difference(before: float, after: float, digits: int = 2) -> str:
    """A difference with its sign; one below the rounding of float32 counts as 0."""
    change = after - before
    rounding = 1e-5 * max(abs(before), abs(after))
    return number(0.0 if abs(change) < rounding else change, digits, sign=True)


def power(value: float, digits: int = 2) -> str:
    """A number in powers of ten, "3.3 × 10⁻⁷", with `digits` significant digits."""
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    mantissa = mantissa.replace("-", _MINUS)
    return f"{mantissa} × 10{str(int(exponent)).translate(_SUPERSCRIPTS)}"


def percent(value: float) -> str:
    """A probability in percent, "31.2%"; 0% and 100% only where it is exactly that."""
    if 0 < value < 0.0005:
        return "<0.1%"
    if 0.9995 <= value < 1:
        return ">99.9%"
    return f"{value:.1%}"


def tick(value: float) -> str:
    """A number on a colour bar, as short as possible."""
    size = abs(value)
    if size >= 1e5:
        return number(value, 2)
    if value != 0 and size < 1e-3:
        return (_MINUS if value < 0 else "") + power(size, 2)
    return f"{value:g}".replace("-", _MINUS)


def clean(text: str) -> str:
    """A label or file name on one line.

    Control and direction characters are removed: they could disguise the text.
    """
    return " ".join("".join(map(_visible, text)).split())


def _visible(character: str) -> str:
    category = unicodedata.category(character)
    if category in ("Cf", "Cs"):
        return ""
    return " " if category[0] in "CZ" else character


def shorten(text: str, length: int) -> str:
    """The text cleaned, and cut with … where it has more than `length` characters."""
    text = clean(text)
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def without_folders(text: str) -> str:
    """The text, clean, without the folders of absolute paths, which are private."""
    quoted = _QUOTED_PATH.sub(r"'\1'", clean(text))
    return _FOLDERS.sub("", quoted)


def slug(text: str, length: int = 60) -> str:
    """The text as part of a file name: letters and digits of any script, dots, dashes.

    It is "photo" where nothing is left of the text.
    """
    text = re.sub(r"[^\w.-]+", "-", clean(text)).strip("-._")
    return text[:length].rstrip("-._") or "photo"


def plural(count: int, noun: str) -> str:
    """A count with its noun: "1 unit", "2 units", "1 024 classes"."""
    ending = "es" if noun.endswith("s") else "s"
    text = f"{count:,} {noun}{'' if count == 1 else ending}"
    return text.replace(",", " ")


def listing(items: Sequence[str], limit: int = 6) -> str:
    """A list in words, "a, b and c"; beyond `limit`, "a, b and 3 more"."""
    shown = list(items[:limit])
    if len(items) > limit:
        return f"{', '.join(shown)} and {len(items) - limit:,} more"
    if not shown:
        return "none"
    if len(shown) == 1:
        return shown[0]
    return f"{', '.join(shown[:-1])} and {shown[-1]}"


def numbers(items: Sequence[int]) -> str:
    """Numbers in words: "3", "0–7" for a run without gaps, else "1, 4 and 9"."""
    if len(items) > 2 and list(items) == list(range(items[0], items[0] + len(items))):
        return f"{items[0]}–{items[-1]}"
    return listing([str(item) for item in items])


def capitalised(text: str) -> str:
    """The text with a capital first letter, the others unchanged."""
    return text[:1].upper() + text[1:]


def shape(sides: Sequence[int]) -> str:
    """Sides of an array: "512 × 16 × 16"."""
    return " × ".join(map(str, sides))


def place(
    laid: Float[np.ndarray, "height width"], sign: float = 1.0
) -> tuple[float, str]:
    """The greatest value of a map laid on a photo, and in words where on it that lies.

    For a `sign` of −1 it is the least value.
    """
    if not np.isfinite(laid).any():
        return 0.0, "nowhere"

    index = int(np.nanargmax(sign * laid))
    row, column = divmod(index, laid.shape[1])
    down = ("upper", "middle", "lower")[min(2, 3 * row // laid.shape[0])]
    across = ("left", "centre", "right")[min(2, 3 * column // laid.shape[1])]

    central = (down, across) == ("middle", "centre")
    words = "in the centre" if central else f"at the {down} {across}"
    return float(laid.flat[index]), words
