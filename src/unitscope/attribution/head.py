"""Head: how a network's answers are explained; one class for each kind.

The kinds of exact heads are in `exact_heads`; `local_head` has the local answer that
stands in for one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from unitscope.attribution.unit_maps import Held
from unitscope.errors import UnitError
from unitscope.geometry import Grid


@dataclass(frozen=True, eq=False, kw_only=True)
class Head(ABC):
    """How a network's answers are explained, and at which layer.

    `layer` is the layer whose output is the feature map. Where a function that no module
    owns still follows (DenseNet's ReLU), it is the last layer before that function, and
    `layer_is_map` is False. `map_shape` is (unit, row, col); `grid` says where the cells
    lie on the network's input. `error` was measured over `probes` random inputs, relative
    to the largest logit; each kind says of what.

    `exact` says that maps and a bias add up to the logits, and that ablation is algebra;
    `adds_up` that the parts do, of which the maps may be only one.
    """

    kind: ClassVar[str]
    exact: ClassVar[bool]
    adds_up: ClassVar[bool]
    has_linear_layer: ClassVar[bool] = False
    units_are_classes: ClassVar[bool] = False
    unit_noun: ClassVar[str] = "unit"

    layer: str
    layer_is_map: bool = True
    error: float
    probes: int
    grid: Grid = field(repr=False)
    map_shape: tuple[int, int, int]

    @property
    def map_name(self) -> str:
        """What the feature map is called."""
        return self.layer

    @property
    def maps_are_a_part(self) -> bool:
        """Whether parts add up to the logits, and the maps are only one of them."""
        return self.adds_up and not self.exact

    def unit_name(self, unit: int) -> str:
        """What a unit is called."""
        return str(unit)

    def unit_title(self, unit: int) -> str:
        """The same with its noun: "unit 41", "head 3.5"."""
        return f"{self.unit_noun} {self.unit_name(unit)}"

    def unit_of(self, name: str) -> int:
        """The unit of a number or a name in text. Raises UnitError, naming valid ones."""
        count = self.map_shape[0]
        names = [self.unit_name(unit) for unit in range(count)]
        if name in names:
            return names.index(name)
        if name.isdecimal() and int(name) < count:
            return int(name)
        noun, last = self.unit_noun, count - 1
        if names[0] == "0":
            raise UnitError(
                f"there is no {noun} '{name}' in {self.map_name}: its {count} {noun}s are "
                f"numbered 0 to {last}"
            )
        raise UnitError(
            f"there is no {noun} '{name}': the {count} {noun}s are named {names[0]} to "
            f"{names[-1]}, or numbered 0 to {last}"
        )

    def gives_activations(self, units: Sequence[int]) -> bool:
        """Whether the maps of these units hold activations, as the network computed them.

        Not those of a maximum pool, say: their cells hold shares of the pooled unit.
        """
        return True

    def maps_hold(self, units: Sequence[int]) -> Held:
        """What the cells of the maps of these units hold."""
        return "activations" if self.gives_activations(units) else "shares"

    @property
    def has_table(self) -> bool:
        """Whether weights, a bias and a norm are all that makes logits of pooled units.

        Atlases and the explorer keep those, and compute with them.
        """
        return False

    @abstractmethod
    def describe(self) -> str:
        """One line in words."""

    def sources_in_words(self) -> str:
        """Which units come from which pool; empty where all come from one."""
        return ""

    def tried_on(self) -> str:
        """The inputs on which the head was found and `error` was measured."""
        return f"{self.probes} random inputs"

    def as_json(self) -> dict[str, Any]:
        """The head as plain data: the "answer" of docs/json.md."""
        return {
            "kind": self.kind,
            "exact": self.exact,
            "norm": None,
            "sources": [],
            "method": None,
            "reason": None,
            "found_on": None,
            "layer": self.layer,
            "layer_is_map": self.layer_is_map,
            "map_shape": list(self.map_shape),
            "error": self.error,
            "probes": self.probes,
            "description": self.describe(),
        }
