"""Growth: how an explanation by the bundled network grows with photos and classes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

import unitscope
from costs.networks import BUNDLED, inputs
from costs.timing import Timed, bind, measure

_PHOTOS = (1, 2, 4, 8, 16, 32)
_CLASSES = (1, 10, 100)


def growth(rounds: int) -> list[dict[str, Any]]:
    """Seconds for more and more photos, and for the maps of more and more classes."""
    model = unitscope.load().freeze()
    timed: Timed = {}

    def explain(x: Tensor) -> Tensor:
        return model.explain(x).cams

    for batch in _PHOTOS:
        name = counted(batch, "photo")
        x = inputs(BUNDLED, batch)
        timed[name] = bind(explain, x)

    explanation = model.explain(inputs(BUNDLED, 8))
    for count in _CLASSES:
        classes = counted(count, "class", "es")
        first = list(range(count))
        timed[f"maps of {classes} of 8 photos"] = bind(
            explanation.cams_of, first
        )

    for run in timed.values():
        run()

    rows = []
    for what, result in measure(timed, rounds).items():
        rows.append({"what": what, **result})
    return rows


def counted(count: int, noun: str, plural: str = "s") -> str:
    """The count with its noun: "1 photo", "2 photos"."""
    ending = plural if count > 1 else ""
    return f"{count} {noun}{ending}"
