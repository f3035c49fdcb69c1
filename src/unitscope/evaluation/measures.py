"""Measures: all of them by name, and those that are chosen.

To add one, add a line to `MEASURES`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from unitscope.errors import InputError, near_matches
from unitscope.evaluation.ablations import PatchCorrelation, UnitCorrelation
from unitscope.evaluation.boxes import BoxAccuracy
from unitscope.evaluation.completeness import LeftOut
from unitscope.evaluation.confidence import AverageDrop, Increase
from unitscope.evaluation.deletion import Deletion, Insertion
from unitscope.evaluation.inside import (
    EnergyInside,
    EqualAreaIoU,
    PixelPrecision,
)
from unitscope.evaluation.measure import Measure
from unitscope.evaluation.pointing import Pointing
from unitscope.evaluation.randomisation import (
    RandomisedAll,
    RandomisedHalf,
    RandomisedHead,
)
from unitscope.evaluation.stability import Stability

_ALL: tuple[Measure, ...] = (
    Deletion(),
    Insertion(),
    AverageDrop(),
    Increase(),
    PatchCorrelation(),
    UnitCorrelation(),
    LeftOut(),
    Stability(),
    RandomisedHead(),
    RandomisedHalf(),
    RandomisedAll(),
    Pointing(),
    EnergyInside(),
    PixelPrecision(),
    EqualAreaIoU(),
    BoxAccuracy(),
)

MEASURES: Mapping[str, Measure] = {measure.name: measure for measure in _ALL}
"""Every measure by its name."""

_DEFAULT = ("deletion", "insertion")
_DEFAULT_WITH_MASKS = (*_DEFAULT, "pointing game", "energy inside")


SomeMeasures: TypeAlias = str | Measure | Sequence[str | Measure] | None


def chosen_measures(names: SomeMeasures, with_masks: bool) -> list[Measure]:
    """The measures of names; raises InputError with near matches."""
    if names is None:
        names = _DEFAULT_WITH_MASKS if with_masks else _DEFAULT
    if isinstance(names, (str, Measure)):
        names = [names]
    chosen = [_measure(name) for name in names]
    if not chosen:
        raise InputError(
            f"there is no measure to take: name some of {', '.join(MEASURES)}"
        )
    return list({measure.name: measure for measure in chosen}.values())


def _measure(given: str | Measure) -> Measure:
    if isinstance(given, Measure):
        return given
    # Names of several words are written with dashes on a command line.
    by_name = {name.replace("-", " "): each for name, each in MEASURES.items()}
    by_lower = {name.lower(): each for name, each in by_name.items()}
    found = by_lower.get(str(given).replace("-", " ").lower())
    if found is None:
        raise InputError(
            f"there is no measure {given!r}{near_matches(str(given), list(MEASURES))}: "
            f"choose from {', '.join(MEASURES)}"
        )
    return found
