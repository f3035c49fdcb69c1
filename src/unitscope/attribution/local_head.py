"""LocalHead: what stands in for an exact head, a layer and the gradients at its map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from unitscope.attribution.head import Head
from unitscope.attribution.methods import METHODS, Method


@dataclass(frozen=True, eq=False, kw_only=True)
class LocalHead(Head):
    """A layer, and the gradients of the logits with respect to its feature map.

    `method` names one of `METHODS`. `reason` says why there is no exact head at this
    layer. `error` is the largest |logit − mean of its map|, over the first class of each
    probe. `found_on` names the photos on which the layer was found, where it does not
    count on random inputs; else it is empty. `start` is the layer from which the rest of
    the network is run: this one where everything that the logits depend on passes through
    it, else the last such layer before it; None where the whole network must run.
    `silent` says that a normalisation reads every cell of the map by itself, so that
    gradient · activation is 0 in each of them whatever the photo: what ignores a vector's
    length has a gradient at right angles to it. `instead` says, in a sentence, which answer
    that adds up the network has beside this one; it is empty where there is none.
    """

    kind = "local"
    exact = False
    adds_up = False

    method: str
    reason: str
    start: str | None
    silent: bool = False
    found_on: str = ""
    instead: str = ""

    @property
    def attributes_by(self) -> Method:
        """The method itself."""
        return METHODS[self.method]

    def describe(self) -> str:
        """One line in words."""
        units, rows, cols = self.map_shape
        title = self.attributes_by.title
        found = f", found on {self.found_on}" if self.found_on else ""
        return (
            f"local: gradient × activation ({title}) at '{self.layer}', "
            f"feature map {units}×{rows}×{cols}{found}"
        )

    def tried_on(self) -> str:
        """See Head."""
        return self.found_on or super().tried_on()

    def as_json(self) -> dict[str, Any]:
        """The head as plain data: the "answer" of docs/json.md."""
        return {
            **super().as_json(),
            "method": self.method,
            "reason": self.reason,
            "found_on": self.found_on or None,
        }
