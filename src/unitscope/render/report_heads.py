"""Report heads: what the template shows of an account of a residual stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from unitscope.accounts.account import Account, UnitStory
from unitscope.accounts.parts import parts_of
from unitscope.render.colours import THIS_MAP
from unitscope.render.figures.account import evidence_scale
from unitscope.render.figures.units import unit_scale
from unitscope.render.map_views import MapView, bar_of, unit_view
from unitscope.render.markup import bar
from unitscope.render.stacks import MEANINGS, colours_of, reach, stack
from unitscope.render.words import clean, listing, number
from unitscope.residual.explanation import ResidualExplanation

# Pixels: one block of the strip, and the height of its bars.
_BLOCK = 80
_TALL = 84
# How far the bars of a block's heads and of its MLPs are from its middle.
_BESIDE = 18


@dataclass(frozen=True)
class PartsRow:
    """What every part gives of one class's logit, as a stack and as numbers."""

    label: str
    parts: dict[str, float]
    logit: float
    stack: Markup

    @property
    def difference(self) -> float:
        """How far the sum of the parts is from the logit."""
        return sum(self.parts.values()) - self.logit


@dataclass(frozen=True)
class HeadView:
    """One head: its maps, its bar, and the classes that it gives most to.

    `most` is the end of the scale of its attention.
    """

    story: UnitStory
    name: str
    map: MapView
    attention: MapView
    most: float
    bar: Markup
    serves: str


def head_contents(account: Account, size: tuple[int, int]) -> dict[str, Any]:
    """What the template shows of a residual stream, and cannot take from the account."""
    explanation, heads = account.explanation, account.heads
    assert heads is not None and isinstance(explanation, ResidualExplanation)
    scale = evidence_scale(account)
    unit = explanation.scores.numbers
    rows = _parts_rows(account)
    names = list(rows[0].parts)
    colours = colours_of(names)
    off = list(account.ablation.units)
    first = account.classes[0]
    given = explanation.contributions_of(first)[0, 0]
    return {
        "parts": rows,
        "keys": [
            (name, colours[name], MEANINGS.get(name, "")) for name in names
        ],
        "error": explanation.parts_error(),
        "views": _head_views(account, size),
        "scale": scale,
        "bar": bar_of(scale, "scale-heads", unit),
        "all_heads": float(given.sum()),
        "blocks": _strip(heads.by_block, heads.mlps_by_block),
        "all_mlps": sum(heads.mlps_by_block),
        "off_titles": account.ablation.maps.called(8),
        "direct": float(explanation.direct_logits(off)[0, first]),
        "turning": listing(
            [
                explanation.head.unit_name(unit)
                for unit in account.turning or ()
            ],
            12,
        ),
    }


def _parts_rows(account: Account) -> list[PartsRow]:
    explanation = account.explanation
    several = [parts_of(explanation, index) for index in account.classes]
    low, high = reach(several)
    return [
        PartsRow(
            account.label(index),
            parts,
            float(explanation.logits[0, index]),
            _stack(parts, low, high),
        )
        for index, parts in zip(account.classes, several, strict=True)
    ]


def _stack(parts: dict[str, float], low: float, high: float) -> Markup:
    """A stack on a line from low to high, as wide as its place, with the sum marked."""
    span = (high - low) or 1.0
    drawn = "".join(
        _rectangle(segment.begin, segment.end, segment.colour, low, span)
        for segment in stack(parts)
    )
    lines = "".join(
        f'<path d="M{100 * (value - low) / span:.2f} {top}V{bottom}" class="{kind}"/>'
        for value, kind, top, bottom in (
            (0.0, "zero", 0, 16),
            (sum(parts.values()), "sum", 0, 16),
        )
    )
    return Markup(
        '<svg class="stack" viewBox="0 0 100 16" preserveAspectRatio="none" '
        f'aria-hidden="true">{drawn}{lines}</svg>'
    )


def _rectangle(
    begin: float, end: float, colour: str, low: float, span: float
) -> str:
    left, right = sorted((begin, end))
    x = 100 * (left - low) / span
    width = 100 * (right - left) / span
    return f'<rect x="{x:.2f}" y="3" width="{width:.2f}" height="10" fill="{colour}"/>'


def _head_views(account: Account, size: tuple[int, int]) -> list[HeadView]:
    units = [story.unit for story in account.units]
    values = [story.contribution.contribution for story in account.units]
    views = views_of_heads(account, units, size)
    attention = account.explanation.unit_maps(units)
    scales = [unit_scale(attention.of([unit]), over=THIS_MAP) for unit in units]
    return [
        HeadView(
            story,
            account.explanation.head.unit_name(story.unit),
            view,
            unit_view(attention, place, scales[place], size),
            scales[place].high,
            bar(story.contribution.contribution, min(values), max(values)),
            listing([clean(label) for label, _ in story.serves], 3),
        )
        for place, (story, (_, view)) in enumerate(
            zip(account.units, views, strict=True)
        )
    ]


def views_of_heads(
    account: Account, units: Sequence[int], size: tuple[int, int]
) -> list[tuple[str, MapView]]:
    """The signed maps of some heads, with their titles."""
    assert account.heads is not None
    maps = account.heads.maps
    scale = evidence_scale(account)
    unit = account.explanation.scores.numbers
    places = [maps.units.index(unit) for unit in units]
    return [
        (maps.titles[place], unit_view(maps, place, scale, size, unit))
        for place in places
    ]


def _strip(heads: Sequence[float], mlps: Sequence[float]) -> Markup:
    """What heads and MLPs of every block give, as pairs of bars beside each other."""
    most = max(*heads, *mlps, 0.0)
    least = min(*heads, *mlps, 0.0)
    span = (most - least) or 1.0
    zero = 18 + _TALL * most / span
    bars = "".join(
        _bar_of_block(middle, value, zero, _TALL / span, kind)
        for middle, value, kind in _bars(heads, mlps)
    )
    names = "".join(
        f'<text x="{block * _BLOCK + _BLOCK / 2:.1f}" y="{18 + _TALL + 30}" '
        f'class="name">{block}</text>'
        for block in range(len(heads))
    )
    width = _BLOCK * len(heads)
    height = 18 + _TALL + 36
    words = ", ".join(
        f"block {block}: heads {number(of_heads, sign=True)}, "
        f"MLPs {number(of_mlps, sign=True)}"
        for block, (of_heads, of_mlps) in enumerate(
            zip(heads, mlps, strict=True)
        )
    )
    return Markup(
        f'<svg class="blocks" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-label="{escape(words)}">{bars}{names}'
        f'<path d="M0 {zero:.1f}H{width}" class="zero"/></svg>'
    )


def _bars(
    heads: Sequence[float], mlps: Sequence[float]
) -> Iterator[tuple[float, float, str]]:
    """The middle, value and kind of every bar."""
    for block, (of_heads, of_mlps) in enumerate(zip(heads, mlps, strict=True)):
        middle = block * _BLOCK + _BLOCK / 2
        yield middle - _BESIDE, of_heads, "for" if of_heads >= 0 else "against"
        if of_mlps:
            yield middle + _BESIDE, of_mlps, "mlp"


def _bar_of_block(
    middle: float, value: float, zero: float, unit: float, kind: str
) -> str:
    length = abs(value) * unit
    top = zero - length if value >= 0 else zero
    beside = top - 5 if value >= 0 else top + length + 13
    return (
        f'<rect x="{middle - 10:.1f}" y="{top:.1f}" width="20" '
        f'height="{max(length, 0.5):.1f}" class="{kind}"/>'
        f'<text x="{middle:.1f}" y="{beside:.1f}">{number(value, sign=True)}</text>'
    )
