"""Parts: what every part of a network's ending gives of one logit."""

from __future__ import annotations

from unitscope.attribution.explanation import Explanation


def parts_of(explanation: Explanation, index: int) -> dict[str, float]:
    """What every part gives of the logit of a class on the first photo, by name.

    They add up to the logit. With a local answer the layer's map is one part, and what
    it leaves out the other.
    """
    parts = explanation.parts_of(index)
    return {name: float(part[0, 0]) for name, part in parts.items()}
