"""Summary: what is kept of a layer over a data set, put together from parts in any order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt64

Arrays = dict[str, np.ndarray]

_Own = TypeVar("_Own", bound="Summary")


@dataclass(frozen=True, eq=False)
class Observed:
    """What one layer did on some images.

    `maps` (image, unit, row, col) are float32 and finite, and `mean` their means over
    all cells; `images` are the images' places in the data set, `draws` random numbers
    that belong to the images (the same in every run), and `classes` their classes, −1
    for none.
    """

    maps: Float[np.ndarray, "image unit row col"]
    mean: Float[np.ndarray, "image unit"]
    images: Int64[np.ndarray, " image"]
    draws: UInt64[np.ndarray, " image"]
    classes: Int64[np.ndarray, " image"]

    @cached_property
    def maximum(self) -> Float[np.ndarray, "image unit"]:
        """The largest activation of each unit on each image."""
        return torch.from_numpy(self.maps).amax(dim=(2, 3)).numpy()


class Summary(ABC):
    """A monoid: `merge` is associative and commutative, and a fresh summary changes nothing.

    So that a data set may be taken in any parts, in any order, and the result is the
    same to the last bit: sums are of integers, and ties have an order of their own.
    """

    @abstractmethod
    def update(self, observed: Observed) -> None:
        """Take in some images, none of which was taken in before."""

    @abstractmethod
    def merge(self: _Own, other: _Own) -> None:
        """Take in what another summary has seen; no image may be in both."""

    def following(self: _Own) -> _Own:
        """An empty summary for further images of the same data set, which may leave out what cannot matter any more.

        Whatever it is merged with must in the end be merged with this one too, and the
        result is the same.
        """
        raise NotImplementedError

    @abstractmethod
    def arrays(self) -> Arrays:
        """All that it holds, by name."""

    @abstractmethod
    def restore(self, arrays: Mapping[str, Any]) -> None:
        """Hold what `arrays` gave."""
