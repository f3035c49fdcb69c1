"""Boxes: whether the box around a map's hottest part is that of the object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int64

from unitscope.evaluation.batch import Batch
from unitscope.evaluation.maps import Maps
from unitscope.evaluation.measure import Measure

THRESHOLD = 0.2
"""Where a map's hot part begins, between its smallest value (0) and its largest (1)."""

OVERLAP = 0.5
"""The least intersection over union of two boxes that are the same."""

Box: TypeAlias = tuple[int, int, int, int]
"""(top, left, bottom, right), the last two exclusive."""


def components(
    mask: Bool[np.ndarray, "row col"],
) -> Int64[np.ndarray, "row col"]:
    """A number for each part of a mask that hangs together by sides; −1 outside.

    Every pixel takes the largest number among itself and its neighbours, until nothing
    changes.
    """
    numbers = np.where(mask, np.arange(mask.size).reshape(mask.shape), -1)
    while True:
        before = numbers
        padded = np.pad(numbers, 1, constant_values=-1)
        around = (
            numbers,
            padded[:-2, 1:-1],
            padded[2:, 1:-1],
            padded[1:-1, :-2],
            padded[1:-1, 2:],
        )
        numbers = np.where(mask, np.maximum.reduce(around), -1)
        # A number that has arrived somewhere is replaced by what its own pixel has now.
        numbers = np.where(mask, numbers.ravel()[numbers], -1)
        if np.array_equal(numbers, before):
            return numbers


def _boxes(mask: Bool[np.ndarray, "row col"]) -> Iterator[tuple[int, Box]]:
    """The pixels and the box of every part of a mask."""
    numbers = components(mask)
    for number in np.unique(numbers[mask]):
        part = numbers == number
        rows, cols = np.flatnonzero(part.any(1)), np.flatnonzero(part.any(0))
        box = (rows[0], cols[0], rows[-1] + 1, cols[-1] + 1)
        yield int(part.sum()), (*map(int, box),)  # type: ignore[misc]


def hottest_box(
    values: Float[np.ndarray, "row col"], threshold: float = THRESHOLD
) -> Box:
    """The box of the largest part of a map above the threshold.

    A map that is the same everywhere has the box of the whole input.
    """
    low, high = values.min(), values.max()
    hot = values >= low + threshold * (high - low)
    return max(_boxes(hot))[1]


def box_overlap(one: Box, other: Box) -> float:
    """The intersection over union of two boxes."""
    height = min(one[2], other[2]) - max(one[0], other[0])
    width = min(one[3], other[3]) - max(one[1], other[1])
    both = max(0, height) * max(0, width)
    return both / (_area(one) + _area(other) - both)


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


class BoxAccuracy(Measure):
    """Whether the box around the map's hot part overlaps one of the mask's by half."""

    name: ClassVar[str] = "box accuracy"
    formula: ClassVar[str] = (
        f"1 where the box of the largest part of the map above {THRESHOLD:.0%} of its range "
        f"has an IoU of at least {OVERLAP:g} with the box of a part of the mask"
    )
    unit: ClassVar[str] = "share of photos"
    better: ClassVar[int] = 1
    source: ClassVar[str] = (
        "Zhou et al., CAM, CVPR 2016; GT-known BoxAcc of Choe et al., CVPR 2020, at one "
        "threshold"
    )
    needs_masks: ClassVar[bool] = True

    def of(
        self, batch: Batch, maps: Mapping[str, Maps]
    ) -> dict[str, np.ndarray]:
        """See Measure. NaN where the mask is empty."""
        assert batch.masks is not None
        wanted = [[box for _, box in _boxes(mask)] for mask in batch.masks]
        return {
            name: np.array(
                [
                    _is_found(values, boxes)
                    for values, boxes in zip(
                        each.on_input(), wanted, strict=True
                    )
                ]
            )
            for name, each in maps.items()
        }


def _is_found(values: np.ndarray, boxes: list[Box]) -> float:
    if not boxes:
        return float("nan")
    found = hottest_box(values)
    return float(max(box_overlap(found, box) for box in boxes) >= OVERLAP)
