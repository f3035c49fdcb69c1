"""Head sums: what heads of attention gave over a data set, summed exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from unitscope.atlas.summaries.base import Arrays, Observed, Summary
from unitscope.atlas.summaries.exact_sums import ExactSums


@dataclass(frozen=True)
class HeadShape:
    """The sizes of what heads give.

    `outputs` are (head, token, width) of every block. The scales are the powers of two
    nearest to the largest output, and contribution, on noise.
    """

    outputs: tuple[tuple[int, int, int], ...]
    output_scale: float
    contribution_scale: float

    @property
    def units(self) -> int:
        """The number of heads of all blocks."""
        return sum(heads for heads, _, _ in self.outputs)


class HeadSums(Summary):
    """Sums over images: of what all tokens took from every head, and of contributions.

    Contributions are those of heads to the predicted class of each image; summed are
    themselves and their sizes.
    """

    def __init__(self, shape: HeadShape) -> None:
        self.shape = shape
        self.images = 0
        self._contributions = ExactSums(
            2, shape.units, shape.contribution_scale
        )
        self._outputs = [
            ExactSums(1, heads * tokens * width, shape.output_scale)
            for heads, tokens, width in shape.outputs
        ]

    def update(self, observed: Observed) -> None:
        """Add the images of a batch."""
        heads = observed.heads
        assert heads is not None
        given = heads.contributions.astype(np.float64)
        images = len(given)
        self.images += images
        first = np.zeros(images, np.int64)
        self._contributions.add(first, given)
        self._contributions.add(first + 1, np.abs(given))
        for sums, outputs in zip(self._outputs, heads.outputs, strict=True):
            sums.add(first, outputs.reshape(images, -1))

    def merge(self, other: HeadSums) -> None:
        """Add the images of another."""
        self.images += other.images
        self._contributions.merge(other._contributions)
        for own, others in zip(self._outputs, other._outputs, strict=True):
            own.merge(others)

    def following(self) -> HeadSums:
        """An empty summary for further images."""
        return HeadSums(self.shape)

    def arrays(self) -> Arrays:
        """`images`, and digits of `contributions` and of the `outputs` of every block."""
        arrays = {
            "images": np.array([self.images], np.int64),
            **self._contributions.arrays("contributions"),
        }
        for block, sums in enumerate(self._outputs):
            arrays |= sums.arrays(f"outputs.{block}")
        return arrays

    def restore(self, arrays: Mapping[str, Any]) -> None:
        """Replace the content by what `arrays` returned."""
        self.images = int(arrays["images"][0])
        self._contributions.restore(arrays, "contributions")
        for block, sums in enumerate(self._outputs):
            sums.restore(arrays, f"outputs.{block}")

    @property
    def contributions(self) -> Float[np.ndarray, "2 unit"]:
        """What heads gave to the predicted class, and how much of it, on average."""
        mean: np.ndarray = self._contributions.values / max(1, self.images)
        return mean

    @property
    def outputs(self) -> list[Float[np.ndarray, "_ _ _"]]:
        """What all tokens took from every head, on average: (head, token, width) by block."""
        pairs = zip(self._outputs, self.shape.outputs, strict=True)
        images = max(1, self.images)
        return [sums.values[0].reshape(shape) / images for sums, shape in pairs]
