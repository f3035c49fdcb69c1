"""Memory: peaks of processes that explain more and more photos, 16 at a time.

Run as a module with a number of photos, it prints the peak of its memory in MiB before
and after.
"""

from __future__ import annotations

import math
import sys
from typing import Any

import unitscope
from costs.networks import BUNDLED, inputs
from costs.processes import fresh, resident

_PHOTOS = (160, 1600, 9600)
_BATCH = 16
_WARM_UP = 10


def memory() -> list[dict[str, Any]]:
    """Peak memory, and what that is above the warm start; nothing where the system
    does not tell."""
    if math.isnan(resident("VmHWM")):
        return []

    rows = []
    for photos in _PHOTOS:
        before, after = fresh("costs.memory", str(photos))
        rows.append(
            {
                "photos": photos,
                "mebibytes": after,
                "above_start": after - before,
            }
        )
    return rows


def _peaks(photos: int) -> tuple[float, float]:
    model = unitscope.load().freeze()
    x = inputs(BUNDLED, _BATCH)
    for _ in range(_WARM_UP):
        model.explain(x).cams  # noqa: B018
    before = resident("VmHWM")

    for _ in range(photos // _BATCH):
        explanation = model.explain(x)
        explanation.cams  # noqa: B018
        explanation.contributions  # noqa: B018
        explanation.ablate_each()
    return before, resident("VmHWM")


if __name__ == "__main__":
    print(*_peaks(int(sys.argv[1])))
