"""Subjects: what was explained, and where the network's input lies on it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Num
from PIL import Image
from torch import Tensor

from unitscope.geometry import Placement
from unitscope.inputs.decoding import Reading
from unitscope.inputs.further import Further
from unitscope.inputs.photos import Photo, PhotoSource, open_photo
from unitscope.inputs.pictures import picture_of, picture_of_shares
from unitscope.inputs.preprocessing import AnyPreprocessing


@dataclass(frozen=True, eq=False)
class Subject:
    """A photo or an input tensor that was explained.

    `name` is shown. `size` is (width, height) in pixels of the upright photo, or of the
    network's input for a tensor. `preprocessing` is None for a tensor. A photo from a
    file is opened again when it is drawn: explaining thousands of photos keeps none in
    memory. `placed` says where the network's input lies on the photo, where that was
    recorded instead of the preprocessing. `reading` is how the photo was read. `notes`
    say what was guessed of it, and what was left out. `further` is what the network was
    given beside it.
    """

    name: str
    size: tuple[int, int]
    preprocessing: AnyPreprocessing | None
    source: PhotoSource | None = field(default=None, repr=False)
    tensor: Num[Tensor, "channel row col"] | None = field(
        default=None, repr=False
    )
    undo: AnyPreprocessing | None = field(default=None, repr=False)
    placed: Placement | None = field(default=None, repr=False)
    reading: Reading = field(default=Reading(), repr=False)
    notes: tuple[str, ...] = ()
    further: Further = field(default_factory=Further, repr=False)

    @classmethod
    def of_photo(cls, photo: Photo, preprocessing: AnyPreprocessing) -> Subject:
        """The subject of a photo."""
        return cls(
            name=photo.name,
            size=photo.size,
            preprocessing=preprocessing,
            source=photo.source,
            reading=photo.reading,
            notes=photo.notes,
        )

    @classmethod
    def of_tensor(
        cls,
        tensor: Num[Tensor, "channel row col"],
        name: str,
        undo: AnyPreprocessing | None,
    ) -> Subject:
        """The subject of an input tensor.

        It is drawn as the photo that `undo`, a preprocessing, is assumed to have had.
        """
        _, rows, cols = tensor.shape
        return cls(
            name=name,
            size=(int(cols), int(rows)),
            preprocessing=None,
            tensor=tensor,
            undo=undo,
        )

    @property
    def is_photo(self) -> bool:
        """Whether it is a photo, not a tensor."""
        return self.source is not None

    def picture(self, longest: int | None = None) -> Image.Image:
        """The upright photo, or a picture of the input tensor (RGB, 8 bits).

        A large photo may come smaller, with at least `longest` pixels on its shorter
        side.
        """
        if self.source is not None:
            reading = replace(self.reading, resize=None)
            return open_photo(self.source, longest, reading).image

        assert self.tensor is not None
        channels = self.tensor.shape[0]
        if self.tensor.dtype is torch.uint8 and channels in (1, 3):
            return picture_of_shares(self.tensor / 255)
        if self.undo is not None and self.undo.channels == channels:
            return self.undo.undo(self.tensor)
        return picture_of(self.tensor)

    def placement(self, input_size: tuple[int, int]) -> Placement:
        """Where the network's input of `input_size` (rows, cols) lies on the photo."""
        if self.placed is not None:
            return self.placed
        if self.preprocessing is None:
            return Placement.whole(self.size, input_size)
        return self.preprocessing.placement(self.size)
