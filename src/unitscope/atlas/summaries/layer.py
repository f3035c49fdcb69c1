"""Layer summary: all summaries of one layer together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from unitscope.atlas.summaries.base import Arrays, Observed, Summary
from unitscope.atlas.summaries.class_sums import ClassSums
from unitscope.atlas.summaries.head_sums import HeadShape, HeadSums
from unitscope.atlas.summaries.histogram import Histogram
from unitscope.atlas.summaries.sample import Sample
from unitscope.atlas.summaries.top_images import CRITERIA, TopImages


@dataclass(frozen=True)
class LayerShape:
    """The sizes of a layer's summaries.

    `scale` is the power of two nearest to the layer's largest activation on noise.
    """

    units: int
    cells: tuple[int, int]
    classes: int
    top: int
    sample: int
    scale: float
    heads: HeadShape | None = None


@dataclass
class LayerSummary(Summary):
    """The summaries of one layer; each is updated and merged on its own.

    `heads` is None unless the units are heads of attention.
    """

    shape: LayerShape
    histogram: Histogram = field(init=False)
    top: dict[str, TopImages] = field(init=False)
    sample: Sample = field(init=False)
    classes: ClassSums = field(init=False)
    heads: HeadSums | None = field(init=False)

    def __post_init__(self) -> None:
        """Start with empty summaries."""
        shape = self.shape
        self.histogram = Histogram(shape.units)
        self.top = {
            criterion: TopImages(shape.units, shape.top, shape.cells, criterion)
            for criterion in CRITERIA
        }
        self.sample = Sample(shape.units, shape.sample, shape.cells)
        self.classes = ClassSums(shape.units, shape.classes, shape.scale)
        self.heads = None if shape.heads is None else HeadSums(shape.heads)

    @property
    def parts(self) -> dict[str, Summary]:
        """The summaries by the names under which their arrays are stored."""
        tops = {f"top.{criterion}": top for criterion, top in self.top.items()}
        heads = {} if self.heads is None else {"heads": self.heads}
        return {
            "histogram": self.histogram,
            **tops,
            "sample": self.sample,
            "classes": self.classes,
            **heads,
        }

    def update(self, observed: Observed) -> None:
        """Add some images."""
        for part in self.parts.values():
            part.update(observed)

    def merge(self, other: LayerSummary) -> None:
        """Add the images of another summary."""
        pairs = zip(self.parts.values(), other.parts.values(), strict=True)
        for own_part, other_part in pairs:
            own_part.merge(other_part)

    def following(self) -> LayerSummary:
        """An empty summary for further images of the same data set."""
        fresh = LayerSummary(self.shape)
        fresh.histogram = self.histogram.following()
        fresh.top = {
            criterion: top.following() for criterion, top in self.top.items()
        }
        fresh.sample = self.sample.following()
        fresh.classes = self.classes.following()
        if self.heads is not None:
            fresh.heads = self.heads.following()
        return fresh

    def arrays(self) -> Arrays:
        """All arrays, each named `part/array`."""
        return {
            f"{name}/{key}": array
            for name, part in self.parts.items()
            for key, array in part.arrays().items()
        }

    def restore(self, arrays: Mapping[str, Any]) -> None:
        """Replace the content by what `arrays` returned."""
        for name, part in self.parts.items():
            prefix = f"{name}/"
            own_arrays = {
                key.removeprefix(prefix): array
                for key, array in arrays.items()
                if key.startswith(prefix)
            }
            part.restore(own_arrays)
