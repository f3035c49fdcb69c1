"""Explained: what contrasts and flips read of an explanation, whatever its kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from unitscope.attribution.classes import Classes
from unitscope.attribution.head import Head
from unitscope.attribution.map_change import MapChange
from unitscope.attribution.scores import Scores
from unitscope.geometry import Grid
from unitscope.inputs.photos import PhotoSource
from unitscope.inputs.subjects import Subject


@runtime_checkable
class Explained(Protocol):
    """An explanation, seen from the parts of `attribution` that it is built on.

    `Explanation` says what each member is.
    """

    @property
    def logits(self) -> Float[Tensor, "batch class"]:
        """What the network gave."""

    @property
    def feature_map(self) -> Float[Tensor, "batch unit row col"]:
        """The map that the head reads."""

    @property
    def head(self) -> Head:
        """How it was explained."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes."""

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """The photos."""

    @property
    def input_size(self) -> tuple[int, int]:
        """(rows, cols) of the network's input."""

    @property
    def scores(self) -> Scores:
        """How logits become probabilities."""

    @property
    def grid(self) -> Grid:
        """Where cells lie."""

    @property
    def off(self) -> tuple[int, ...]:
        """The units that are off."""

    @property
    def altered(self) -> tuple[int, ...]:
        """The units that have another value, or have it in some cells."""

    @property
    def also(self) -> Mapping[str, Any]:
        """The further inputs."""

    def __len__(self) -> int: ...

    def __getitem__(self, image: int) -> Explained: ...

    def cams_of(
        self, classes: Classes | None
    ) -> Float[Tensor, "batch class row col"]:
        """Signed maps."""

    def contributions_of(
        self, classes: Classes | None
    ) -> Float[Tensor, "batch class unit"]:
        """What units add."""

    def left_out_of(
        self, classes: Classes | None
    ) -> Float[Tensor, "batch class"]:
        """What the maps leave out."""

    def parts_of(
        self, classes: Classes | None
    ) -> dict[str, Float[Tensor, "batch class"]]:
        """What every part gives."""

    def logits_without(self, units: list[int]) -> Float[Tensor, "batch class"]:
        """The logits with units off."""

    def changed(self, units: list[int], change: MapChange) -> Explained:
        """The explanation with the map changed."""

    def inputs(self) -> list[PhotoSource] | Tensor:
        """What was explained."""

    def detach(self) -> Explained:
        """The same without gradients."""
