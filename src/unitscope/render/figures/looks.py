"""Looks: how the maps of a figure are coloured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from unitscope.render.colours import Scale, Table
from unitscope.render.overlays import POSITIVE_STYLES, overlay, shown
from unitscope.render.views import Pixels, View

ColourBar: TypeAlias = tuple[Scale, Table]


@dataclass(frozen=True)
class Look:
    """A style of `overlays`, and a colour map in place of the style's own.

    Where `style` is None, every scale has its default style: "signed" or "heat".
    """

    style: str | None = None
    colours: str | None = None

    @property
    def positive_only(self) -> bool:
        """Whether only values above 0 are drawn."""
        return self.style in POSITIVE_STYLES

    def overlay(
        self, view: View, laid: Float[np.ndarray, "height width"], scale: Scale
    ) -> Pixels:
        """A map of the view's size drawn on its photo."""
        return overlay(
            view,
            laid,
            scale,
            self._style_on(scale),
            self.colours,
        )

    def bar(self, scale: Scale) -> ColourBar:
        """The scale and the colours that a colour bar shows."""
        return shown(scale, self._style_on(scale), self.colours)

    def _style_on(self, scale: Scale) -> str:
        return self.style or scale.style
