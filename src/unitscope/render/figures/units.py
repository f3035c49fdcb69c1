"""Unit maps: where on a photo units respond."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from unitscope.attribution.unit_maps import Held, UnitMaps
from unitscope.render.colours import THIS_MAP, Scale, shared_over
from unitscope.render.figures.blocks import (
    Block,
    colour_bar,
    heading,
    note,
    page,
)
from unitscope.render.figures.looks import Look
from unitscope.render.figures.panels import (
    PIXELS,
    Panel,
    check_count,
    grid,
    photos_shown,
)
from unitscope.render.views import View
from unitscope.render.words import (
    number,
    percent,
    quantity,
    quantity_in_full,
)

UnitScale = Literal["map", "unit", "photo", "shared"]


def units_figure(
    maps: UnitMaps,
    *,
    image: int | None = None,
    scale: UnitScale | Scale = "map",
    style: str | None = None,
    colours: str | None = None,
    columns: int | None = None,
    lines: Sequence[str] = (),
) -> Figure:
    """Maps of units on their photos, in activations.

    `image` is one photo of the batch (all when None). `scale` is "map" (each map has
    its own, with a colour bar of its own), "unit" (a unit's maps of all photos share
    one), "photo" (all maps of a photo share one), "shared" (all maps drawn share one),
    or a Scale. `style` is "heat" by default, and "signed" where maps have negative
    values. `lines` are written below the titles, one a unit.
    """
    photos = photos_shown(len(maps.subjects), image)
    check_count(len(photos) * len(maps.units), "units")
    look = Look(style, colours)
    if scale == "shared":
        scale = unit_scale(maps, photos, signed=_signed(look))

    blocks = []
    for photo in photos:
        common = scale if isinstance(scale, Scale) else None
        if scale == "photo":
            common = unit_scale(maps, [photo], signed=_signed(look))

        alike = photos if scale == "unit" else None
        panels = unit_panels(
            maps,
            photo,
            common,
            look,
            lines,
            alike=alike,
        )
        own = "each unit has" if scale == "unit" else "each map has"
        over = common.over if common else f"{own} its own scale"

        name = maps.subjects[photo].name
        blocks.append(heading(f"{units_title(maps)}: {name}"))
        blocks += grid(panels, columns)
        blocks += _legend(maps, photo, common, over, look)
    return page(blocks)


def units_title(maps: UnitMaps) -> str:
    """What some maps are, for a heading."""
    if maps.hold == "attention":
        return "Attention of heads to the patches"
    return f"Units of {maps.layer}"


def unit_blocks(
    maps: UnitMaps,
    photo: int,
    common: Scale,
    columns: int,
    lines: Sequence[str],
) -> list[Block]:
    """The maps of one photo on a common scale, without a heading."""
    check_count(len(maps.units), "units")
    panels = unit_panels(
        maps,
        photo,
        common,
        lines=lines,
    )
    legend = _legend(
        maps,
        photo,
        common,
        common.over,
        Look(),
    )
    return [*grid(panels, columns), *legend]


def _legend(
    maps: UnitMaps, photo: int, common: Scale | None, over: str, look: Look
) -> list[Block]:
    held = quantity_in_full(maps.hold)
    words = f"{held}; scale: {over}"
    negative = maps.maps[photo] < 0
    if look.positive_only and bool(negative.any()):
        words += "; values below 0 are left out"

    blocks = [note(f"{words}.")]
    if common is not None:
        name = quantity(maps.hold)
        blocks.insert(0, colour_bar(common, name, look))
    return blocks


def unit_scale(
    maps: UnitMaps,
    photos: Sequence[int] | None = None,
    over: str = "",
    *,
    signed: bool | None = None,
) -> Scale:
    """The scale that all maps of some photos (all when None) share, in activations."""
    chosen = maps.maps
    if photos is not None:
        chosen = chosen[list(photos)]
    cells = chosen.cpu().numpy()

    batch, units = cells.shape[:2]
    words = over or shared_over(batch * units)
    return Scale.of(cells, words, signed=signed)


def _signed(look: Look) -> bool | None:
    """Whether a scale is to be signed; None leaves it to the values."""
    return False if look.positive_only else None


def unit_panels(
    maps: UnitMaps,
    photo: int,
    common: Scale | None,
    look: Look | None = None,
    lines: Sequence[str] = (),
    pixels: int = PIXELS,
    *,
    alike: Sequence[int] | None = None,
) -> list[Panel]:
    """A panel for every unit's map on one photo.

    The maps have the `common` scale. Where that is None, each map has its own, or one
    with the same unit's maps of the photos `alike`.
    """
    look = look or Look()
    view = View.of(maps.subjects[photo], maps.input_size, pixels)

    panels = []
    for position, laid in enumerate(maps.on_photo(photo, view.size)):
        scale = common or _own_scale(maps, photo, position, look, alike)
        cells = maps.maps[photo, position].cpu().numpy()
        line = (
            lines[position]
            if position < len(lines)
            else _measured(cells, maps.hold)
        )
        panels.append(
            Panel(
                pixels=look.overlay(view, laid, scale),
                title=maps.titles[position],
                line=line,
                bar=None if common else look.bar(scale),
                note=_note_on(cells, scale, maps.hold),
            )
        )
    return panels


def _own_scale(
    maps: UnitMaps,
    photo: int,
    position: int,
    look: Look,
    alike: Sequence[int] | None,
) -> Scale:
    photos = [photo]
    over = THIS_MAP
    if alike is not None:
        photos = list(alike)
        over = "shared over this unit's maps"

    chosen = maps.maps[photos, position]
    cells = chosen.cpu().numpy()
    return Scale.of(cells, over, signed=_signed(look))


def _measured(cells: Float[np.ndarray, "row col"], hold: Held) -> str:
    if not cells.any():
        return ""
    mean = number(float(cells.mean()))
    highest = number(float(cells.max()))
    if hold == "attention":
        return f"{percent(float(cells.mean()))} on patches, up to {highest}"
    return f"mean {mean}, max {highest}"


def _note_on(
    cells: Float[np.ndarray, "row col"], scale: Scale, hold: Held
) -> str:
    if hold in ("attention", "evidence") and not cells.any():
        return "all 0"
    if not cells.any():
        return "no activation (all 0)"
    return "nothing above 0" if scale.is_blank else ""
