"""The base of all summaries: facts over a data set that merge in any order."""

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
class ObservedHeads:
    """What heads of attention gave on some images, as float32.

    `contributions` are to the predicted class of each image. `outputs` are what all
    tokens took from the heads, (image, head, token, width) block by block.
    """

    contributions: Float[np.ndarray, "image unit"]
    outputs: tuple[Float[np.ndarray, "image _ _ _"], ...]


@dataclass(frozen=True, eq=False)
class Observed:
    """The activations of one layer on some images.

    `maps` (image, unit, row, col) are float32 and finite, and `mean` (image, unit) are
    their means over all cells. `images` are the images' places in the data set,
    `hash_keys` random numbers that belong to the images and are the same in every run,
    and `classes` their classes, −1 for none. `heads` is None unless the units are heads.
    """

    maps: Float[np.ndarray, "image unit row col"]
    mean: Float[np.ndarray, "image unit"]
    images: Int64[np.ndarray, " image"]
    hash_keys: UInt64[np.ndarray, " image"]
    classes: Int64[np.ndarray, " image"]
    heads: ObservedHeads | None = None

    @cached_property
    def maximum(self) -> Float[np.ndarray, "image unit"]:
        """The largest activation of each unit on each image."""
        maps = torch.from_numpy(self.maps)
        maximum = maps.amax(dim=(2, 3))
        return maximum.numpy()


class Summary(ABC):
    """A monoid: `merge` is associative and commutative, its identity a fresh summary.

    A data set can therefore be split into any parts, in any order, and the result is
    the same to the last bit: sums are of integers, and ties have a fixed order.
    """

    @abstractmethod
    def update(self, observed: Observed) -> None:
        """Add some images, none of which was added before."""

    @abstractmethod
    def merge(self: _Own, other: _Own) -> None:
        """Add the images of another summary; no image may be in both."""

    def following(self: _Own) -> _Own:
        """An empty summary for further images of the same data set.

        It may skip what cannot matter any more. Any summary that it is merged into must
        in the end include this one too; then the result is the same.
        """
        raise NotImplementedError

    @abstractmethod
    def arrays(self) -> Arrays:
        """The whole content, by name."""

    @abstractmethod
    def restore(self, arrays: Mapping[str, Any]) -> None:
        """Replace the content by what `arrays` returned."""
