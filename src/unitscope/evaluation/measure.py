"""Measure: a number by which maps are compared, with its unit, direction and source."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from jaxtyping import Float
from numpy import ndarray

from unitscope.evaluation.batch import Batch
from unitscope.evaluation.maps import Maps


class Measure(ABC):
    """A number for each photo and method; what is said of methods are means over photos.

    `better` is 1 where more is better, −1 where less is, and 0 where neither is. `unit`
    and `low`, `high` say what values are and between which they lie (None: no bound).
    `formula` and `source` are for readers. A measure that `needs_masks` compares the map
    of the photo's own class with where that is; others take the class explained.
    """

    name: ClassVar[str]
    formula: ClassVar[str]
    unit: ClassVar[str]
    better: ClassVar[int]
    low: ClassVar[float | None] = 0.0
    high: ClassVar[float | None] = 1.0
    source: ClassVar[str]
    needs_masks: ClassVar[bool] = False
    of_nulls: ClassVar[bool] = True

    @abstractmethod
    def of(
        self, batch: Batch, maps: Mapping[str, Maps]
    ) -> dict[str, Float[ndarray, " photo"]]:
        """The value of each photo by method, NaN where there is none."""
