"""Layer summary: everything that is kept of one layer, as one monoid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from unitscope.atlas.summaries.base import Arrays, Observed, Summary
from unitscope.atlas.summaries.class_sums import ClassSums
from unitscope.atlas.summaries.histogram import Histogram
from unitscope.atlas.summaries.sample import Sample
from unitscope.atlas.summaries.top_images import CRITERIA, TopImages


@dataclass(frozen=True)
class LayerShape:
    """How large the summaries of a layer are, and the scale of its activations (a power of two)."""

    units: int
    cells: tuple[int, int]
    classes: int
    top: int
    sample: int
    unit: float


@dataclass
class LayerSummary(Summary):
    """The summaries of one layer, which are updated and merged each for itself."""

    shape: LayerShape
    histogram: Histogram = field(init=False)
    top: dict[str, TopImages] = field(init=False)
    sample: Sample = field(init=False)
    classes: ClassSums = field(init=False)

    def __post_init__(self) -> None:
        """Begin with nothing seen."""
        shape = self.shape
        self.histogram = Histogram(shape.units)
        self.top = {
            one: TopImages(shape.units, shape.top, shape.cells, one) for one in CRITERIA
        }
        self.sample = Sample(shape.units, shape.sample, shape.cells)
        self.classes = ClassSums(shape.units, shape.classes, shape.unit)

    @property
    def parts(self) -> dict[str, Summary]:
        """The summaries by the names under which their arrays are stored."""
        tops = {f"top.{criterion}": top for criterion, top in self.top.items()}
        return {
            "histogram": self.histogram,
            **tops,
            "sample": self.sample,
            "classes": self.classes,
        }

    def update(self, observed: Observed) -> None:
        """Take in some images."""
        for part in self.parts.values():
            part.update(observed)

    def merge(self, other: LayerSummary) -> None:
        """Take in what another has seen."""
        for own, others in zip(self.parts.values(), other.parts.values(), strict=True):
            own.merge(others)

    def following(self) -> LayerSummary:
        """An empty summary for further images of the same data set."""
        fresh = LayerSummary(self.shape)
        fresh.histogram, fresh.sample, fresh.classes = (
            self.histogram.following(),
            self.sample.following(),
            self.classes.following(),
        )
        fresh.top = {criterion: top.following() for criterion, top in self.top.items()}
        return fresh

    def arrays(self) -> Arrays:
        """All arrays, each named `part/array`."""
        return {
            f"{name}/{key}": array
            for name, part in self.parts.items()
            for key, array in part.arrays().items()
        }

    def restore(self, arrays: Mapping[str, Any]) -> None:
        """Hold what `arrays` gave."""
        for name, part in self.parts.items():
            part.restore(
                {
                    key.removeprefix(f"{name}/"): arrays[key]
                    for key in arrays
                    if key.startswith(f"{name}/")
                }
            )
