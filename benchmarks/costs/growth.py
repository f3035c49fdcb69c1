"""Growth: how an explanation by the bundled network grows with photos and classes."""

from __future__ import annotations

from typing import Any

import unitscope
from costs.networks import BUNDLED, inputs
from costs.timing import Timed, bind, measure

_PHOTOS = (1, 2, 4, 8, 16, 32)
_CLASSES = (1, 10, 100)


def growth(rounds: int) -> list[dict[str, Any]]:
    """Seconds for more and more photos, and for the maps of more and more classes."""
    model = unitscope.load().freeze()
    timed: Timed = {}
    for batch in _PHOTOS:
        x = inputs(BUNDLED, batch)
        timed[counted(batch, "photo")] = bind(lambda x: model.explain(x).cams, x)

    explanation = model.explain(inputs(BUNDLED, 8))
    for classes in _CLASSES:
        name = f"maps of {counted(classes, 'class', 'es')} of 8 photos"
        timed[name] = bind(explanation.cams_of, list(range(classes)))

    for run in timed.values():
        run()
    return [{"what": name, **result} for name, result in measure(timed, rounds).items()]


def counted(count: int, noun: str, plural: str = "s") -> str:
    """The count with its noun: "1 photo", "2 photos"."""
    return f"{count} {noun}{plural if count > 1 else ''}"
