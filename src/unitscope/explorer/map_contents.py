"""Map contents: units' maps on images of an atlas, packed into a byte a cell."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from unitscope.atlas.storage import AtlasLayer, StoredAtlas
from unitscope.explorer.atlas_tables import plain_values

RANGE = 8
"""How many images of the uniform sample show a unit across its range."""

_MOST_CELLS = 32
_STEPS = 254


class TopImages:
    """Units' maps on their top images by one criterion.

    The summaries store each map as shares of its own peak, in half precision.
    """

    def __init__(
        self, atlas: StoredAtlas, layer: AtlasLayer, summary: str, images: int
    ) -> None:
        self._atlas = atlas
        self._name = f"{layer.name}/{summary}"
        self._most = images
        self._factor = pooling_factor(layer.cells)

    def plain(self, begin: int, end: int, signed: bool) -> list[dict[str, Any]]:
        """For each unit its images, with scores, peaks and maps."""
        images = self._read("images", begin, end)
        scores = self._read("scores", begin, end)
        peaks = self._read("peaks", begin, end)
        maps = self._read("maps", begin, end)

        units = []
        for unit in range(end - begin):
            places = np.flatnonzero(images[unit] >= 0)
            page = _page(
                images[unit, places],
                scores[unit, places],
                peaks[unit, places],
            )
            shares = maps[unit, places]
            page["maps"] = packed_maps(shares, self._factor, signed)
            units.append(page)
        return units

    def images(self, unit: int) -> list[int]:
        """A unit's top images."""
        (images,) = self._read("images", unit, unit + 1)
        return [int(image) for image in images[images >= 0]]

    def _read(self, array: str, begin: int, end: int) -> np.ndarray:
        name = f"{self._name}/{array}"
        return self._atlas.part(name, slice(begin, end), slice(self._most))


class SampleImages:
    """All units' maps on the same random images."""

    def __init__(self, atlas: StoredAtlas, layer: AtlasLayer) -> None:
        self._atlas = atlas
        self._name = f"{layer.name}/sample"
        self._factor = pooling_factor(layer.cells)
        self._images = atlas.part(f"{self._name}/images", slice(None))

    def plain(self, begin: int, end: int, signed: bool) -> list[dict[str, Any]]:
        """For each unit images from its lowest score to its highest, evenly by rank."""
        maxima = self._read("maxima", begin, end)
        peaks = self._read("peaks", begin, end)
        maps = self._read("maps", begin, end)

        count = len(self._images)
        even = np.linspace(0, count - 1, min(RANGE, count))
        even = even.round()
        ranks = np.unique(even.astype(np.int64))

        units = []
        for unit in range(end - begin):
            scores = maxima[:, unit]
            by_score = np.lexsort((self._images, scores))
            places = by_score[ranks]
            page = _page(
                self._images[places],
                scores[places],
                peaks[places, unit],
            )
            shares = maps[places, unit]
            page["maps"] = packed_maps(shares, self._factor, signed)
            page["ranks"] = (ranks + 1).tolist()
            page["of"] = count
            units.append(page)
        return units

    def _read(self, array: str, begin: int, end: int) -> np.ndarray:
        name = f"{self._name}/{array}"
        return self._atlas.part(name, slice(None), slice(begin, end))


def _page(
    images: Shaped[np.ndarray, " image"],
    scores: Float[np.ndarray, " image"],
    peaks: Float[np.ndarray, " image"],
) -> dict[str, Any]:
    return {
        "images": images.tolist(),
        "scores": plain_values(scores.tolist()),
        "peaks": plain_values(peaks.tolist()),
    }


def pooling_factor(cells: Sequence[int]) -> int:
    """The side of the squares of cells that large maps are reduced by."""
    return -(-max(cells) // _MOST_CELLS)


def packed_maps(
    shares: Float[np.ndarray, "image row col"], factor: int, signed: bool
) -> str:
    """Maps in 255 steps of their own peak, as base64.

    Of every square of `factor` cells a side the largest value is packed. The first step
    is 0, or minus the peak in a layer with negative values, where 0 is step 127.
    """
    values: np.ndarray = shares.astype(np.float32)
    if factor > 1:
        values = _max_pooled(values, factor)
    if signed:
        values = (values + 1) / 2
    values = values.clip(0, 1)
    steps = np.round(values * _STEPS)
    data = steps.astype(np.uint8).tobytes()
    return base64.b64encode(data).decode("ascii")


def _max_pooled(
    values: Float[np.ndarray, "image row col"], factor: int
) -> np.ndarray:
    _, rows, cols = values.shape
    row_padding = (0, -rows % factor)
    col_padding = (0, -cols % factor)
    padding = ((0, 0), row_padding, col_padding)
    padded = np.pad(values, padding, mode="edge")

    count, rows, cols = padded.shape
    squares = padded.reshape(
        count, rows // factor, factor, cols // factor, factor
    )
    pooled: np.ndarray = squares.max(axis=(2, 4))
    return pooled
