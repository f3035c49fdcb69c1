"""Gates: whether what multiplies a vector is a gate beside it, or made from the vector."""

from __future__ import annotations

from collections.abc import Sequence

from unitscope.residual.step import StreamStep
from unitscope.tracing.calls import Call


def is_made_from(call: Call, steps: Sequence[StreamStep], place: int) -> bool:
    """Whether a call computes with what the step at a place, or one before it, gave.

    What attention gave does not count: a gate may read the stream that attention reads.
    """
    walked = set()
    places = [place]
    while places:
        step = steps[places.pop()]
        if step.before:
            walked.add(step.index)
        places += step.before
    first = min(walked, default=call.index + 1)

    frontier = [call]
    seen: set[int] = set()
    while frontier:
        each = frontier.pop()
        if each.index in walked:
            return True
        if each.index >= first and id(each) not in seen:
            seen.add(id(each))
            frontier += each.inputs
    return False
