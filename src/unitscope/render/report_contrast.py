"""Report contrast: what the template shows of why one class and not another."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from unitscope.accounts.account import Account
from unitscope.attribution.contrast import Contrast
from unitscope.attribution.flip import Flip
from unitscope.plurals import plural
from unitscope.render.colours import Scale
from unitscope.render.figures.contrast import contrast_scale
from unitscope.render.map_views import MapView, bar_of, evidence_alt
from unitscope.render.margins import MarginRow, adding_up, lead, margin_rows
from unitscope.render.markup import bar
from unitscope.render.words import capitalised, clean, number, shorten

# Units that are named for each of the two classes.
_NAMED = 5
_LABEL = 60


@dataclass(frozen=True)
class ContrastView:
    """The contrast of two classes as the page shows it.

    `rows` add up to the margin, each with its bar. `flip` are sentences.
    """

    question: str
    a: str
    b: str
    lead: str
    margin: float
    logits: tuple[float, float]
    map: MapView
    scale: Scale
    colour_bar: Markup
    rows: list[tuple[MarginRow, Markup]]
    words: str
    flip: str


def contrast_view(
    account: Account, size: tuple[int, int]
) -> ContrastView | None:
    """The contrast of an account; None where it has none."""
    contrast, flip = account.contrast, account.flip
    if contrast is None:
        return None

    numbers = account.explanation.scores.numbers
    a, b = (shorten(label, _LABEL) for label in contrast.labels())
    logits = account.explanation.logits[0]
    of_a, of_b = contrast.pairs[0]
    scale = contrast_scale(contrast, 0)
    return ContrastView(
        question=capitalised(contrast.question()),
        a=a,
        b=b,
        lead=lead(contrast, 0),
        margin=float(contrast.margin[0]),
        logits=(float(logits[of_a]), float(logits[of_b])),
        map=_map(contrast, scale, size, f"What speaks for {a} and not {b}"),
        scale=scale,
        colour_bar=bar_of(scale, "scale-contrast", numbers),
        rows=_rows(contrast),
        words=adding_up(contrast, clean(account.explanation.layer)),
        flip="" if flip is None else _flip_words(flip),
    )


def _map(
    contrast: Contrast, scale: Scale, size: tuple[int, int], title: str
) -> MapView:
    laid = contrast.on_photo(0, size)
    numbers = contrast.explanation.scores.numbers
    if scale.is_blank:
        alt = f"{title}: nothing, the map is 0 in every place."
        return MapView.of(laid, scale, alt, blank="no difference (all 0)")
    return MapView.of(laid, scale, f"{title}: {evidence_alt(laid, numbers)}")


def _rows(contrast: Contrast) -> list[tuple[MarginRow, Markup]]:
    rows = margin_rows(contrast, 0, _NAMED)
    values = [row.value for row in rows]
    low, high = min(values), max(values)
    return [
        (
            row,
            bar(row.value, low, high, "for" if row.value >= 0 else "against"),
        )
        for row in rows
    ]


def _flip_words(flip: Flip) -> str:
    """What flips the prediction, in sentences."""
    if flip.b is None:
        return f"{capitalised(flip.sentence())}."

    a, b = (shorten(label, _LABEL) for label in flip.labels(flip.b))
    noun = flip.explanation.head.unit_noun
    before, after = (number(margin, 3, sign=True) for margin in flip.margins)
    if flip.minimal and len(flip) == 1:
        begin = f"One {noun} is enough: without {flip.what()},"
    elif flip.minimal:
        begin = (
            f"{capitalised(plural(len(flip), noun))} are enough, and no fewer: without "
            f"{flip.what()},"
        )
    else:
        begin = f"Without {flip.what()} (found greedily, so a smaller set may exist),"
    return (
        f"{begin} {b} overtakes {a}; the lead of {a} over {b} goes from {before} to "
        f"{after}. {_confirmation(flip)}"
    )


def _confirmation(flip: Flip) -> str:
    if flip.holds is None:
        return ""
    if flip.holds:
        return "A real forward pass confirms it."
    return "A real forward pass does NOT confirm it."
