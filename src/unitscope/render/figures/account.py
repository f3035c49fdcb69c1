"""Accounts: everything about one photo on one page, and each piece of it alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from matplotlib.figure import Figure

from unitscope.accounts.account import Account
from unitscope.accounts.heads import HeadsStory
from unitscope.render.colours import Scale
from unitscope.render.figures.ablation import ablation_blocks
from unitscope.render.figures.blocks import Block, heading, lead, note, page
from unitscope.render.figures.cams import cam_blocks
from unitscope.render.figures.contrast import contrast_blocks
from unitscope.render.figures.contributions import contribution_blocks
from unitscope.render.figures.filters import filter_blocks
from unitscope.render.figures.looks import Look
from unitscope.render.figures.network import network_blocks
from unitscope.render.figures.panels import grid
from unitscope.render.figures.predictions import prediction_block
from unitscope.render.figures.units import (
    unit_blocks,
    unit_panels,
    unit_scale,
)
from unitscope.render.words import capitalised, number, quantity_in_full

_OVERVIEW = ("predictions", "cams", "units", "ablation")


def overview_figure(account: Account, *, style: str = "signed") -> Figure:
    """The account of a photo on one page: predictions, maps, units and ablation."""
    blocks = [lead(account.sentence())]
    for piece in _OVERVIEW:
        blocks += _PIECES[piece](account, style)
    return page(blocks, gap=0.08)


def piece_figure(
    account: Account, piece: str, *, style: str = "signed"
) -> Figure:
    """One piece of an account; `style` is that of its class activation maps."""
    return page(_PIECES[piece](account, style))


def account_unit_scale(account: Account) -> Scale:
    """The one scale of all unit maps of an account, those switched off included.

    A common scale makes their colours comparable.
    """
    carrying = [story.unit for story in account.units]
    units = list(dict.fromkeys([*carrying, *account.ablation.units]))
    over = f"shared over all {len(units)} unit maps of this account"
    return unit_scale(account.explanation.unit_maps(units), over=over)


def _predictions(account: Account, style: str) -> list[Block]:
    return [prediction_block(account.explanation, 0, len(account.predictions))]


def _cams(account: Account, style: str) -> list[Block]:
    return cam_blocks(
        account.explanation,
        [0],
        [account.classes],
        Look(style),
    )


def evidence_scale(account: Account) -> Scale:
    """The one scale of all signed maps of attention heads of an account."""
    assert account.heads is not None
    maps = account.heads.maps
    over = f"shared over all {len(maps.units)} maps of heads of this account"
    return unit_scale(maps, over=over, signed=True)


def _heads(account: Account, heads: HeadsStory) -> list[Block]:
    """What the patches gave through the heads that give most, and where those look."""
    label = account.label(account.classes[0])
    unit = account.explanation.scores.numbers
    shown = heads.maps.first(len(account.units))
    lines = [
        f"{number(story.contribution.contribution, sign=True)} {unit}, "
        f"{number(story.from_patches or 0.0, sign=True)} from the patches"
        for story in account.units
    ]
    return [
        heading(
            f"What the heads that give most to {label} take from the patches"
        ),
        *unit_blocks(shown, 0, evidence_scale(account), 4, lines),
    ]


def _attention(account: Account, style: str) -> list[Block]:
    """Where the heads that give most look, each map on its own scale."""
    maps = account.explanation.unit_maps(
        [story.unit for story in account.units]
    )
    held = quantity_in_full(maps.hold)
    return [
        heading(
            "The attention of the heads that give most to "
            f"{account.label(account.classes[0])}"
        ),
        *grid(unit_panels(maps, 0, None), 4),
        note(f"{held}; each map has its own scale."),
    ]


def _units(account: Account, style: str) -> list[Block]:
    if account.heads is not None:
        return _heads(account, account.heads)
    maps = account.explanation.unit_maps(
        [story.unit for story in account.units]
    )
    scale = account_unit_scale(account)
    unit = account.explanation.scores.numbers
    lines = [
        f"{number(story.contribution.contribution, sign=True)} {unit}"
        for story in account.units
    ]
    return [
        heading(
            f"The units that add most to {account.label(account.classes[0])}"
        ),
        *unit_blocks(maps, 0, scale, 4, lines),
    ]


def _contributions(account: Account, style: str) -> list[Block]:
    first = account.classes[0]
    return contribution_blocks(
        account.explanation,
        first,
        0,
        len(account.units),
    )


def _contrast(account: Account, style: str) -> list[Block]:
    if account.contrast is None:
        return [note("There is no other class to compare the first one with.")]
    flip = "" if account.flip is None else capitalised(account.flip.sentence())
    return [
        *contrast_blocks(account.contrast, 0, 5, Look(style)),
        note(f"{flip}."),
    ]


def _ablation(account: Account, style: str) -> list[Block]:
    ablation, scale = account.ablation, account_unit_scale(account)
    if account.heads is not None:
        # The signed maps say more than where a head looks.
        maps = account.heads.maps.of(ablation.units)
        ablation = replace(ablation, maps=maps)
        scale = evidence_scale(account)
    return ablation_blocks(
        ablation,
        0,
        5,
        scale=scale,
    )


def _filters(account: Account, style: str) -> list[Block]:
    blocks = []
    for filters in account.filters:
        blocks += filter_blocks(filters)
    return blocks


def _network(account: Account, style: str) -> list[Block]:
    return network_blocks(account.network)


_PIECES: dict[str, Callable[[Account, str], list[Block]]] = {
    "predictions": _predictions,
    "cams": _cams,
    "units": _units,
    "attention": _attention,
    "contributions": _contributions,
    "contrast": _contrast,
    "ablation": _ablation,
    "filters": _filters,
    "network": _network,
}

ACCOUNT_FIGURES: dict[str, Callable[..., Figure]] = {
    "overview": overview_figure,
    **{piece: partial(piece_figure, piece=piece) for piece in _PIECES},
}
"""The pictures of an account by their names."""
