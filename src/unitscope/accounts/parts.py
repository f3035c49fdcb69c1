"""Parts: what every part of a network's ending gives of one logit."""

from __future__ import annotations

from unitscope.attribution.explanation import Explanation


def parts_of(explanation: Explanation, index: int) -> dict[str, float]:
    """What every part gives of the logit of a class on the first photo, by name.

    They add up to the logit. With a local answer the layer's map is one part, and what
    it leaves out the other.
    """
    if explanation.adds_up:
        parts = explanation.parts
        return {name: float(part[0, index]) for name, part in parts.items()}
    # Maps of all classes would cost a backward pass each.
    left_out = float(explanation.left_out_of(index)[0, 0])
    logit = float(explanation.logits[0, index])
    return {explanation.layer: logit - left_out, "left out": left_out}
