"""Subjects: what was explained, a photo or a tensor, and where the network's input lies on it."""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from unitscope.geometry import Placement
from unitscope.inputs.photos import Photo, PhotoSource, open_photo
from unitscope.inputs.preprocessing import AnyPreprocessing, picture_of


@dataclass(frozen=True, eq=False)
class Subject:
    """One thing that was explained.

    `name` is shown; `size` is (width, height) in pixels of the upright photo, or of the
    network's input when a tensor was given; `preprocessing` is None for a tensor. A
    photo from a file is opened again when it is drawn, so that explaining thousands of
    photos keeps none of them in memory. `placed` says where the network's input lay on
    it, where that was recorded instead of the preprocessing.
    """

    name: str
    size: tuple[int, int]
    preprocessing: AnyPreprocessing | None
    source: PhotoSource | None = field(default=None, repr=False)
    tensor: Float[Tensor, "channel row col"] | None = field(default=None, repr=False)
    undo: AnyPreprocessing | None = field(default=None, repr=False)
    placed: Placement | None = field(default=None, repr=False)

    @classmethod
    def of_photo(cls, photo: Photo, preprocessing: AnyPreprocessing) -> Subject:
        """The subject of a photo."""
        return cls(photo.name, photo.size, preprocessing, source=photo.source)

    @classmethod
    def of_tensor(
        cls,
        tensor: Float[Tensor, "channel row col"],
        name: str,
        undo: AnyPreprocessing | None,
    ) -> Subject:
        """The subject of one input tensor; `undo` is the preprocessing that it is assumed to come from, for drawing."""
        return cls(
            name,
            (int(tensor.shape[2]), int(tensor.shape[1])),
            None,
            tensor=tensor,
            undo=undo,
        )

    @property
    def is_photo(self) -> bool:
        """Whether it was given as a photo, rather than as a tensor."""
        return self.source is not None

    def picture(self, longest: int | None = None) -> Image.Image:
        """The upright photo itself, or the input tensor turned back into a picture (RGB, 8 bits).

        With `longest` pixels to be drawn, a large photo may come smaller, though not
        smaller than that.
        """
        if self.source is not None:
            return open_photo(self.source, longest).image
        assert self.tensor is not None
        if self.undo is not None and self.undo.channels == self.tensor.shape[0]:
            return self.undo.undo(self.tensor)
        return picture_of(self.tensor)

    def placement(self, input_size: tuple[int, int]) -> Placement:
        """Where the network's input of `input_size` (rows, cols) lies on the picture."""
        if self.placed is not None:
            return self.placed
        if self.preprocessing is None:
            return Placement.whole(self.size, input_size)
        return self.preprocessing.placement(self.size)
