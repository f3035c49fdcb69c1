"""Inside: how much of a map lies on what belongs to the class."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float

from unitscope.evaluation.batch import Batch
from unitscope.evaluation.maps import Maps
from unitscope.evaluation.measure import Measure


def energy_inside(
    values: Float[np.ndarray, "height width"],
    mask: Bool[np.ndarray, "height width"],
) -> float:
    """The share of the positive part of a map that lies in a mask; NaN without any."""
    positive = values.clip(min=0)
    total = positive.sum()
    return float(positive[mask].sum() / total) if total > 0 else float("nan")


def average_precision(
    values: Float[np.ndarray, "height width"],
    mask: Bool[np.ndarray, "height width"],
) -> float:
    """Σ (recall gained at a threshold) · (precision there), over a map's thresholds.

    Equal values share one threshold. NaN where the mask is empty.
    """
    if not mask.any():
        return float("nan")
    order = np.argsort(-values.ravel(), kind="stable")
    ordered, hits = values.ravel()[order], mask.ravel()[order]
    last_of_equals = np.flatnonzero(np.append(np.diff(ordered) != 0, True))
    found = hits.cumsum()[last_of_equals]
    precision = found / (last_of_equals + 1)
    recall_gained = np.diff(found, prepend=0) / hits.sum()
    return float((precision * recall_gained).sum())


def iou_of_equal_area(
    values: Float[np.ndarray, "height width"],
    mask: Bool[np.ndarray, "height width"],
) -> float:
    """Intersection over union of a mask and as many pixels of the map, the largest.

    Equal values at the edge count in proportion. NaN where the mask is empty.
    """
    area = int(mask.sum())
    if not area:
        return float("nan")
    threshold = np.partition(values.ravel(), -area)[-area]
    above, equal = values > threshold, values == threshold
    part = (area - above.sum()) / equal.sum()
    both = (above & mask).sum() + part * (equal & mask).sum()
    return float(both / (2 * area - both))


class _OfMapAndMask(Measure):
    """A measure that compares the map of each photo with its mask; NaN where it cannot."""

    needs_masks: ClassVar[bool] = True

    @staticmethod
    @abstractmethod
    def compare(
        values: Float[np.ndarray, "height width"],
        mask: Bool[np.ndarray, "height width"],
    ) -> float:
        """The value for a map on the input and a mask."""

    def of(
        self, batch: Batch, maps: Mapping[str, Maps]
    ) -> dict[str, np.ndarray]:
        """See Measure."""
        assert batch.masks is not None
        return {
            name: np.array(
                [
                    self.compare(values, mask)
                    for values, mask in zip(
                        each.on_input(), batch.masks, strict=True
                    )
                ]
            )
            for name, each in maps.items()
        }


class EnergyInside(_OfMapAndMask):
    """The share of the map's positive part that lies in the mask."""

    name: ClassVar[str] = "energy inside"
    formula: ClassVar[str] = "Σ max(0, map) in the mask / Σ max(0, map)"
    unit: ClassVar[str] = "share"
    better: ClassVar[int] = 1
    source: ClassVar[str] = "Wang et al., Score-CAM, CVPR workshops 2020"
    compare = staticmethod(energy_inside)


class PixelPrecision(_OfMapAndMask):
    """How well the map ranks the mask's pixels above all others."""

    name: ClassVar[str] = "pixel average precision"
    formula: ClassVar[str] = (
        "Σ recall gained · precision over the map's thresholds, pixel by pixel"
    )
    unit: ClassVar[str] = "average precision"
    better: ClassVar[int] = 1
    source: ClassVar[str] = (
        "PxAP of one photo: Choe et al., Evaluating WSOL, CVPR 2020"
    )
    compare = staticmethod(average_precision)


class EqualAreaIoU(_OfMapAndMask):
    """The overlap of the mask with as many of the map's largest pixels."""

    name: ClassVar[str] = "IoU"
    formula: ClassVar[str] = (
        "intersection over union of the mask and as many pixels, the map's largest"
    )
    unit: ClassVar[str] = "intersection over union"
    better: ClassVar[int] = 1
    source: ClassVar[str] = (
        "Jaccard index, the threshold set by the mask's area"
    )
    compare = staticmethod(iou_of_equal_area)
