"""Usual input: the shape of the inputs that a network is usually given."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from unitscope.inputs.preprocessing import AnyPreprocessing
from unitscope.model.network import Network

_USUAL_SIZE = (224, 224)


class UsualInput:
    """The shape (channel, row, col) of a network's usual input.

    Where no preprocessing is known, the inputs themselves show it.
    """

    def __init__(self, network: Network, from_inputs: bool) -> None:
        self._network, self._from_inputs = network, from_inputs
        self._seen: tuple[int, int, int] | None = None

    def see(self, photos: Tensor | list[Any]) -> None:
        """Take note of inputs that are explained."""
        if isinstance(photos, Tensor) and self._from_inputs:
            channels, rows, cols = map(int, photos.shape[1:])
            self._seen = channels, rows, cols

    def shape(self, preprocessing: AnyPreprocessing) -> tuple[int, int, int]:
        """That of the last inputs seen; else the preprocessing's, or 224×224."""
        if self._seen is not None:
            return self._seen
        rows, cols = preprocessing.input_size or _USUAL_SIZE
        channels = preprocessing.channels
        if self._from_inputs:
            channels = self._network.usual_channels(channels, (rows, cols))
        return channels, rows, cols
