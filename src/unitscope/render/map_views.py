"""Map views: maps as a page shows them, over the photo."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from markupsafe import Markup

from unitscope.attribution.unit_maps import UnitMaps
from unitscope.render.colours import Scale
from unitscope.render.markup import colour_bar, data_uri
from unitscope.render.overlays import layer, shown
from unitscope.render.words import capitalised, number, place, quantity


@dataclass(frozen=True)
class MapView:
    """A map as the page shows it: two layers over the photo, and what a reader hears.

    `blank` is what is written on a map of zeros.
    """

    heat: str
    contour: str
    alt: str
    blank: str

    @classmethod
    def of(
        cls,
        laid: Float[np.ndarray, "height width"],
        scale: Scale,
        alt: str,
        blank: str = "",
    ) -> MapView:
        """The view of a map laid on the photo."""
        heat, contour = (
            layer(laid, scale, scale.style),
            layer(laid, scale, "contour"),
        )
        return cls(
            data_uri(heat, quality=75),
            data_uri(contour, quality=75),
            alt,
            blank,
        )


def unit_view(
    maps: UnitMaps,
    position: int,
    scale: Scale,
    size: tuple[int, int],
    unit: str = "",
) -> MapView:
    """The view of one unit's map on the first photo; evidence is in a `unit`."""
    laid = maps.on_photo(0, size)[position]
    cells = maps.maps[:, position]
    title = capitalised(maps.titles[position])
    if not bool(cells.any()):
        alt = f"{title}: 0 in every place of the photo."
        is_evidence = maps.hold in ("attention", "evidence")
        blank = "all 0" if is_evidence else "no activation (all 0)"
        return MapView.of(laid, scale, alt, blank=blank)
    if maps.hold == "evidence":
        return MapView.of(laid, scale, f"{title}: {evidence_alt(laid, unit)}")

    greatest, there = place(laid)
    mean = number(float(cells.mean()))
    held = quantity(maps.hold)
    alt = f"{title}: strongest {there} ({held} {number(greatest)}), {mean} on average."
    return MapView.of(laid, scale, alt)


def evidence_alt(laid: Float[np.ndarray, "height width"], unit: str) -> str:
    """Where a signed map is greatest and least, in words."""
    greatest, there = place(laid)
    least, elsewhere = place(laid, -1)
    return (
        f"greatest {there} ({number(greatest, sign=True)} {unit}), least {elsewhere} "
        f"({number(least, sign=True)} {unit})."
    )


def bar_of(scale: Scale, name: str, unit: str) -> Markup:
    """The colour bar of a scale; `name` is the id of its gradient."""
    if scale.is_blank:
        return Markup("")
    drawn, lut = shown(scale, scale.style)
    label = (
        f"Colour scale from {number(drawn.low)} to {number(drawn.high)} {unit}, "
        f"{scale.over}"
    )
    return colour_bar(drawn, lut, name, label)
