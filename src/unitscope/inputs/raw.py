"""Raw pictures: a user's own callable that takes pictures as files have them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from unitscope.inputs.depths import DEEP_GREY


class RawPictures:
    """A preprocessing whose callable takes the picture in the file's own mode.

    `transform` gets an upright PIL image as Pillow decodes it: "I;16" with the samples
    of the file, "F", "RGBA" with its alpha, "CMYK" … and maps it to a (channel, row,
    col) tensor. Where it puts the photo is measured by patterns, which come in the mode
    of the picture before them; `mode` is that mode before the first picture.
    """

    def __init__(
        self, transform: Callable[[Image.Image], Any], mode: str = "RGB"
    ) -> None:
        self.transform = transform
        self.__name__ = getattr(transform, "__name__", type(transform).__name__)
        self._mode = mode
        self._white = 65535.0 if mode.startswith("I") else 1.0

    def __repr__(self) -> str:
        return f"RawPictures({self.transform!r})"

    def __call__(self, image: Image.Image) -> Any:
        """Apply the callable to a raw picture, or to a pattern of mode RGB."""
        if image.mode != self._mode and image.mode == "RGB":
            image = self._in_mode(image)
        return self.transform(image)

    def expect(self, picture: Image.Image) -> None:
        """Take note of the mode and the range of the picture that comes next."""
        self._mode = picture.mode
        if picture.mode in DEEP_GREY:
            high = float(np.nanmax(np.asarray(picture)))
            self._white = high if high > 0 else 1.0

    def _in_mode(self, pattern: Image.Image) -> Image.Image:
        """A pattern as a picture of the mode, as bright as the picture before it."""
        if self._mode not in DEEP_GREY:
            return pattern.convert(self._mode)
        grey = np.asarray(pattern.convert("L"), dtype=np.float64)
        samples = grey * (self._white / 255)
        kinds = {"F": np.float32, "I": np.int32}
        kind = kinds.get(self._mode, np.uint16)
        return Image.fromarray(samples.astype(kind))
