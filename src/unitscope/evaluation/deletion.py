"""Deletion and insertion: how fast a class goes, and comes, in the order of a map."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from unitscope.evaluation.batch import Batch
from unitscope.evaluation.maps import Maps, ranks
from unitscope.evaluation.measure import Measure

STEPS = 10
"""Steps of a curve, each of as many pixels."""

_AT_ONCE = 64

Score: TypeAlias = Callable[
    [Float[Tensor, "input channel row col"], Sequence[int]],
    Float[np.ndarray, " input"],
]
"""(inputs, the place of each one's photo) → the score of the photo's class."""


def areas(
    score: Score,
    begin: Float[Tensor, "photo channel row col"],
    end: Float[Tensor, "photo channel row col"],
    places: Int64[np.ndarray, "photo map row col"],
    steps: int = STEPS,
) -> Float[np.ndarray, "photo map"]:
    """The area under the score while pixels of `begin` become those of `end`.

    The pixel at place 0 of `places` changes first, as many pixels with every step. The
    area is by trapezoids over the share of pixels, so it is a mean score.
    """
    photos, maps = places.shape[:2]
    pixels = places.shape[2] * places.shape[3]
    counts = np.linspace(0, pixels, steps + 1).round().astype(np.int64)

    everyone = range(photos)
    curves = np.empty((photos, maps, steps + 1))
    curves[:, :, 0] = score(begin, everyone)[:, None]
    curves[:, :, -1] = score(end, everyone)[:, None]
    points = _distinct_points(places, counts)
    for some in _chunks(points):
        inputs = []
        for (photo, one, step), *_ in some:
            changed = places[photo, one] < counts[step]
            inputs.append(_mixed(begin[photo], end[photo], changed))
        owners = [photo for (photo, _, _), *_ in some]
        values = score(torch.stack(inputs), owners)
        for same, value in zip(some, values, strict=True):
            for point in same:
                curves[point] = value
    found: np.ndarray = np.trapezoid(curves, counts / pixels, axis=2)
    return found


def _mixed(begin: Tensor, end: Tensor, changed: np.ndarray) -> Tensor:
    return torch.where(torch.from_numpy(changed).to(begin.device), end, begin)


def _distinct_points(
    places: Int64[np.ndarray, "photo map row col"],
    counts: Int64[np.ndarray, " count"],
) -> list[list[tuple[int, int, int]]]:
    """The inner points (photo, map, step) of all curves, those of one input together.

    Methods often agree, and then need no passes of their own.
    """
    groups: dict[tuple[int, bytes], list[tuple[int, int, int]]] = {}
    for photo, one, step in np.ndindex(*places.shape[:2], len(counts) - 2):
        changed = places[photo, one] < counts[step + 1]
        key = (photo, np.packbits(changed).tobytes())
        groups.setdefault(key, []).append((photo, one, step + 1))
    return list(groups.values())


def _chunks(
    points: list[list[tuple[int, int, int]]],
) -> Iterator[list[list[tuple[int, int, int]]]]:
    for start in range(0, len(points), _AT_ONCE):
        yield points[start : start + _AT_ONCE]


def _areas_by_method(
    batch: Batch, maps: Mapping[str, Maps], begin: Tensor, end: Tensor
) -> dict[str, np.ndarray]:
    laid = {name: each.on_input() for name, each in maps.items()}
    places = np.stack(
        [
            [ranks(each[photo], batch.seed_of(photo)) for each in laid.values()]
            for photo in range(len(batch))
        ]
    )
    found = areas(batch.scores, begin, end, places)
    return dict(zip(maps, found.T, strict=True))


class Deletion(Measure):
    """The mean score of the class while pixels are hidden, largest first."""

    name: ClassVar[str] = "deletion"
    formula: ClassVar[str] = (
        "area under the class's score while pixels are hidden, the map's largest "
        f"first, in {STEPS} steps"
    )
    unit: ClassVar[str] = "score"
    better: ClassVar[int] = -1
    low: ClassVar[float | None] = None  # 0 to 1 where scores are probabilities
    high: ClassVar[float | None] = None
    source: ClassVar[str] = "Petsiuk et al., RISE, BMVC 2018"

    def of(
        self, batch: Batch, maps: Mapping[str, Maps]
    ) -> dict[str, np.ndarray]:
        """See Measure."""
        return _areas_by_method(batch, maps, batch.inputs, batch.hidden())


class Insertion(Measure):
    """The mean score of the class while pixels come back, largest first."""

    name: ClassVar[str] = "insertion"
    formula: ClassVar[str] = (
        "area under the class's score while pixels come back into the hidden photo, "
        f"the map's largest first, in {STEPS} steps"
    )
    unit: ClassVar[str] = "score"
    better: ClassVar[int] = 1
    low: ClassVar[float | None] = None
    high: ClassVar[float | None] = None
    source: ClassVar[str] = "Petsiuk et al., RISE, BMVC 2018"

    def of(
        self, batch: Batch, maps: Mapping[str, Maps]
    ) -> dict[str, np.ndarray]:
        """See Measure."""
        return _areas_by_method(batch, maps, batch.hidden(), batch.inputs)
