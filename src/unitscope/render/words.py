"""Words: how numbers, labels and places are written in everything drawn."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from unitscope.attribution.effects import Effect
from unitscope.attribution.unit_maps import Held

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

_MINUS = "−"

# Numbers from here on are written in powers of ten.
_LARGE = 100_000

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
    unit = 10**-digits
    smallest = 0.5 * unit
    if 0 < size < smallest:
        text = power(size, 2)
    elif size >= _LARGE:
        text = power(size, 3)
    else:
        text = f"{size:.{digits}f}"

    if value < 0:
        return _MINUS + text
    if value > 0 and sign:
        return f"+{text}"
    return text


def difference(before: float, after: float, digits: int = 2) -> str:
    """A difference with its sign; one below the rounding of float32 counts as 0."""
    change = after - before
    larger = max(abs(before), abs(after))
    if abs(change) < 1e-5 * larger:
        change = 0.0
    return number(change, digits, sign=True)


def power(value: float, digits: int = 2) -> str:
    """A number in powers of ten, "3.3 × 10⁻⁷", with `digits` significant digits."""
    if value == 0:
        return "0"
    decimals = digits - 1
    scientific = f"{value:.{decimals}e}"
    mantissa, exponent = scientific.split("e")
    mantissa = mantissa.replace("-", _MINUS)
    raised = str(int(exponent)).translate(_SUPERSCRIPTS)
    return f"{mantissa} × 10{raised}"


def percent(value: float | None) -> str:
    """A probability in percent, "31.2%"; 0% and 100% only where it is exactly that.

    "" where there is no probability.
    """
    if value is None:
        return ""
    if 0 < value < 0.0005:
        return "<0.1%"
    if 0.9995 <= value < 1:
        return ">99.9%"
    return f"{value:.1%}"


_QUANTITIES: dict[Held, str] = {
    "activations": "activation",
    "shares": "share × cells",
    "attention": "attention × patches",
    "evidence": "evidence at every place",
}
_MEANS: dict[Held, str] = {
    "activations": "mean activation",
    "shares": "pooled activation",
    "attention": "attention to patches",
    "evidence": "from the patches",
}
_IN_FULL: dict[Held, str] = {
    "activations": "Activations as the network computed them",
    "shares": (
        "What every cell gives of the pooled unit, times the number of cells, so that the "
        "mean of the map is the pooled unit"
    ),
    "attention": (
        "The share of its attention that a head pays to every patch, times the number of "
        "patches: 1 is attention spread evenly over the patches"
    ),
    "evidence": (
        "What every patch gives to the class through the head, times the number of patches, "
        "so that the mean of the map is what all patches give"
    ),
}


EFFECTS_IN_WORDS: dict[Effect, str] = {
    "direct": (
        "the direct effect: the logits without what these heads write to them, all else held "
        "and the divisors of normalisations following; algebra on one forward pass"
    ),
    "total": (
        "the total effect: a real forward pass in which all tokens take nothing from these "
        "heads, so that later blocks react"
    ),
}


def quantity(hold: Held) -> str:
    """What the cells of a unit's map hold, for a colour bar."""
    return _QUANTITIES[hold]


def mean_of(hold: Held) -> str:
    """What the mean of a unit's map is called."""
    return _MEANS[hold]


def quantity_in_full(hold: Held) -> str:
    """What the cells of a unit's map hold, for a legend."""
    return _IN_FULL[hold]


def tick(value: float) -> str:
    """A number on a colour bar, as short as possible."""
    size = abs(value)
    if size >= _LARGE:
        return number(value, 2)
    if 0 < size < 1e-3:
        sign = _MINUS if value < 0 else ""
        return sign + power(size, 2)
    text = f"{value:g}"
    return text.replace("-", _MINUS)


def clean(text: str) -> str:
    """A label or file name on one line.

    Control and direction characters are removed: they could disguise the text.
    """
    visible = "".join(map(_visible, text))
    return " ".join(visible.split())


def _visible(character: str) -> str:
    category = unicodedata.category(character)
    if category in ("Cf", "Cs"):
        return ""
    return " " if category[0] in "CZ" else character


def shorten(text: str, length: int) -> str:
    """The text cleaned, and cut with … where it has more than `length` characters."""
    text = clean(text)
    if len(text) <= length:
        return text
    beginning = text[: length - 1]
    return beginning.rstrip() + "…"


def without_folders(text: str) -> str:
    """The text, clean, without the folders of absolute paths, which are private."""
    quoted = _QUOTED_PATH.sub(r"'\1'", clean(text))
    return _FOLDERS.sub("", quoted)


def slug(text: str, length: int = 60) -> str:
    """The text as part of a file name: letters and digits of any script, dots, dashes.

    It is "photo" where nothing is left of the text.
    """
    dashed = re.sub(r"[^\w.-]+", "-", clean(text))
    beginning = dashed.strip("-._")[:length]
    return beginning.rstrip("-._") or "photo"


def listing(items: Sequence[str], limit: int = 6) -> str:
    """A list in words, "a, b and c"; beyond `limit`, "a, b and 3 more"."""
    if not items:
        return "none"
    if len(items) == 1:
        return items[0]

    shown = items[:-1]
    last = items[-1]
    if len(items) > limit:
        shown = items[:limit]
        last = f"{len(items) - limit:,} more"
    return f"{', '.join(shown)} and {last}"


def numbers(items: Sequence[int]) -> str:
    """Numbers in words: "3", "0–7" for a run without gaps, else "1, 4 and 9"."""
    if len(items) > 2:
        first, last = items[0], items[-1]
        run = range(first, first + len(items))
        if list(items) == list(run):
            return f"{first}–{last}"
    return listing([str(item) for item in items])


def capitalised(text: str) -> str:
    """The text with a capital first letter, the others unchanged."""
    return text[:1].upper() + text[1:]


def shape(sides: Sequence[int]) -> str:
    """Sides of an array: "512 × 16 × 16"."""
    return " × ".join(map(str, sides))


_DOWN = ("upper", "middle", "lower")
_ACROSS = ("left", "centre", "right")


def place(
    laid: Float[np.ndarray, "height width"], sign: float = 1.0
) -> tuple[float, str]:
    """The greatest value of a map laid on a photo, and in words where on it that lies.

    For a `sign` of −1 it is the least value.
    """
    if not np.isfinite(laid).any():
        return 0.0, "nowhere"

    height, width = laid.shape
    index = int(np.nanargmax(sign * laid))
    value = float(laid.flat[index])
    row, column = divmod(index, width)

    down = _DOWN[3 * row // height]
    across = _ACROSS[3 * column // width]
    if down == "middle" and across == "centre":
        return value, "in the centre"
    return value, f"at the {down} {across}"
