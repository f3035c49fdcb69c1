"""Profile: where the time of everything goes on ResNet-50."""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import Any

import unitscope
from costs.engine import compiled_pass
from costs.networks import inputs, network
from costs.timing import ENGINE, bind, seconds_of

CHECKS = "checks, and Python"
_NETWORK = "resnet50"


def profile(batches: list[int], rounds: int) -> list[dict[str, Any]]:
    """Median seconds of every part, one after the other, and their share of the
    engine's own time."""
    model = unitscope.wrap(network(_NETWORK)).freeze()
    engine = compiled_pass(model)
    if engine is None:
        raise SystemExit(
            "the network could not be compiled: install 'unitscope[fast]', or leave "
            "the part 'profile' out"
        )

    rows = []
    for batch in batches:
        laps = defaultdict[str, list[float]](list)
        for _ in range(rounds):
            x = inputs(_NETWORK, batch)
            laps[ENGINE].append(seconds_of(bind(engine, x)))
            for what, seconds in _parts(model, x, laps[ENGINE][-1]).items():
                laps[what].append(seconds)

        medians = {
            what: statistics.median(seconds) for what, seconds in laps.items()
        }
        for what, seconds in medians.items():
            share = seconds / medians[ENGINE]
            rows.append(
                {
                    "batch": batch,
                    "what": what,
                    "seconds": seconds,
                    "share": share,
                }
            )
    return rows


def _parts(
    model: unitscope.Classifier, x: Any, engine: float
) -> dict[str, float]:
    explained = seconds_of(lambda: model.explain(x))
    explanation = model.explain(x)
    return {
        CHECKS: max(0.0, explained - engine),
        "maps of all classes": seconds_of(lambda: explanation.cams),
        "contributions": seconds_of(
            lambda: [photo.contributions for photo in explanation]
        ),
        "ablations": seconds_of(
            lambda: [None for _ in explanation.ablations()]
        ),
    }
