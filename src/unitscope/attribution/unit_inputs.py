"""UnitInputs: what a unit's pre-activation is the sum of, one layer back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from unitscope.attribution.unit_maps import UnitMaps
from unitscope.counts import is_count
from unitscope.drawable import Drawable
from unitscope.errors import InputError, near_matches
from unitscope.inputs.subjects import Subject
from unitscope.plurals import plural

Cell = tuple[int, int]


class Summand(NamedTuple):
    """What one earlier unit gives to the sum, over all its cells.

    `source` is the layer that returns it, or a description where none does. `origin` is
    the layer and the unit that a concatenation put in its place, where one did.
    """

    source: str
    unit: int
    contribution: float
    origin: tuple[str, int] | None = None


@dataclass(frozen=True, eq=False)
class InputSource:
    """Earlier units that feed a unit: those of one layer, or of one function of the network.

    `layer` is None where no layer returns them. `units` have a weight that is not 0 at
    this cell; `contributions` (unit) and `maps` (unit, row, col) are of all units of the
    source, in the unit of the sum; `maps` is None where its cells have no known places.
    Tokens that are no cells, such as a class token, count in `contributions` alone.
    `reason` says why the sum ends there.
    """

    name: str
    layer: str | None
    reason: str
    units: tuple[int, ...]
    contributions: Float[Tensor, " unit"]
    maps: Float[Tensor, "unit row col"] | None
    origins: tuple[tuple[str, int] | None, ...] = ()

    @property
    def total(self) -> float:
        """What all its units give together."""
        return float(self.contributions.sum())


@dataclass(frozen=True, eq=False, repr=False)
class UnitInputs(Drawable):
    """What a unit is made of on one photo: an exact sum over earlier units and cells.

    `value` is the pre-activation at `cell` (row, col), or its mean over the map where
    `cell` is None, as the network computed it. The contributions of all `sources` and the
    `bias` add up to it; `error` is the measured gap, relative to the sum of their sizes.
    `functions` are applied to the sum, and give `output`. Batch normalisations in
    evaluation mode, and constant factors, are folded into the weights. `maps` is the map
    of the unit itself; None where it has one cell.
    """

    layer: str
    unit: int
    cell: Cell | None
    value: float
    output: float
    functions: tuple[str, ...]
    bias: float
    sources: tuple[InputSource, ...]
    error: float
    subject: Subject
    maps: UnitMaps | None = None
    again: Callable[[str, int, Cell | None], UnitInputs] = field(
        kw_only=True, repr=False
    )

    def __repr__(self) -> str:
        where = "mean" if self.cell is None else f"cell {self.cell}"
        return (
            f"<UnitInputs of unit {self.unit} of '{self.layer}', {where}: "
            f"{plural(len(self.summands), 'unit')} of {plural(len(self.sources), 'source')} "
            f"and the bias give {self.value:.4g}>"
        )

    @property
    def summands(self) -> list[Summand]:
        """All earlier units with what they give, the largest |contribution| first."""
        summands = []
        for source in self.sources:
            contributions = source.contributions.tolist()
            for unit in source.units:
                origin = source.origins[unit] if source.origins else None
                summands.append(
                    Summand(source.name, unit, contributions[unit], origin)
                )
        return sorted(
            summands, key=lambda each: abs(each.contribution), reverse=True
        )

    def top(self, count: int = 10) -> list[Summand]:
        """The earlier units with the largest |contribution|."""
        if not is_count(count, 1):
            raise InputError(
                f"the number of units to list is a whole number from 1, not {count!r}"
            )
        return self.summands[:count]

    def source(self, name: str) -> InputSource:
        """One of the sources; raises InputError for others."""
        for source in self.sources:
            if source.name == name:
                return source
        names = [source.name for source in self.sources]
        raise InputError(
            f"'{name}' does not feed unit {self.unit} of '{self.layer}'"
            f"{near_matches(name, names)}: {', '.join(map(repr, names))} do"
        )

    def of(self, name: str) -> Float[Tensor, "unit row col"]:
        """What every unit and cell of a source gives to the sum.

        Raises InputError for what is no source, or has no map.
        """
        source = self.source(name)
        if source.maps is None:
            raise InputError(
                f"the units of '{name}' have no cells with known places: "
                ".source(name).contributions has what each of them gives"
            )
        return source.maps

    def by_origin(self) -> dict[str, float]:
        """What the units of every layer give that concatenations brought here."""
        totals: defaultdict[str, float] = defaultdict(float)
        for summand in self.summands:
            name = summand.origin[0] if summand.origin else summand.source
            totals[name] += summand.contribution
        return dict(totals)

    def follow(self, which: int = 0) -> UnitInputs:
        """The inputs of one of the `summands`, by its place among them (0: the largest).

        At the cell that gives most to this sum. Raises as `Classifier.inputs_of` does.
        """
        summands = self.summands
        if isinstance(which, bool) or not hasattr(which, "__index__"):
            raise InputError(f"name a summand by its place, not {which!r}")
        if not 0 <= which < len(summands):
            raise InputError(
                f"there is no summand {which}: the {len(summands)} are numbered from 0"
            )
        summand = summands[which]
        return self.again(summand.source, summand.unit, self._cell_of(summand))

    def _cell_of(self, summand: Summand) -> Cell | None:
        """The cell of an earlier unit that gives most; None where it has no map."""
        maps = self.source(summand.source).maps
        if maps is None:
            return None
        of_unit = maps[summand.unit]
        if summand.contribution and not of_unit.any():
            raise InputError(
                f"unit {summand.unit} of '{summand.source}' gives through a token that is "
                "no cell of its map (a class token), and only cells can be followed: ask "
                "inputs_of for a cell of your choice"
            )
        row, col = divmod(int(of_unit.abs().argmax()), of_unit.shape[1])
        return row, col
