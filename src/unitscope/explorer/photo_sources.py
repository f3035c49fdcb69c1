"""Photo sources: the files, uploads and images of an atlas that pages can show, by id."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from unitscope.atlas.atlas import Atlas
from unitscope.atlas.summaries.sample import Sample
from unitscope.datasets import Dataset
from unitscope.errors import MissingError, PhotoError
from unitscope.explorer.shelf import Shelf
from unitscope.inputs.photos import Encoded, shown_name
from unitscope.inputs.subjects import Subject
from unitscope.render.words import shorten

Plain = dict[str, Any]

OFFERED_IMAGES = 24
"""How many images of an atlas the first page offers."""

_ATLAS_IMAGE = re.compile(r"image-(\d+)")
_LONGEST_NAME = 120


class PhotoSources:
    """All photos by id: "photo-N" a named file, "image-N" an image of the atlas.

    Other ids are those of the shelf, which holds uploads. May be used from several
    threads.
    """

    def __init__(
        self,
        atlas: Atlas | None,
        dataset: Dataset | None,
        files: Sequence[Path],
    ) -> None:
        self._atlas = atlas
        self._dataset = dataset
        self._shelf = Shelf()
        self._files = {
            f"photo-{place}": _named_file(path)
            for place, path in enumerate(files)
        }

    def add(
        self, data: bytes, name: str, decode: Callable[[str, Encoded], object]
    ) -> str:
        """Put an upload on the shelf, and return its id, see `Shelf.add`."""
        return self._shelf.add(data, name, decode)

    def find(self, id: str) -> Encoded:
        """The photo of an id; raises MissingError."""
        if id in self._files:
            return self._files[id]
        image = image_number(id)
        if image is None:
            return self._shelf.find(id)
        source = self.subject(image).source
        assert isinstance(source, Encoded)
        return source

    def subject(self, image: int) -> Subject:
        """An image of the atlas, as the network saw it.

        Raises MissingError where it is gone, and PhotoError where it has changed since
        the scan.
        """
        if self._atlas is None:
            raise MissingError(f"there is no image {image}: no atlas is open")
        if self._dataset is None:
            raise MissingError(
                f"image {image} has moved since the scan: say where the photos "
                "lie with --source"
            )
        return self._atlas.subjects([image], self._dataset)[0]

    @functools.cached_property
    def sample(self) -> Sample | None:
        """Random images of an atlas, with the activations that its exact head reads."""
        if self._atlas is None or self._atlas.readout is None:
            return None
        head_layer = self._atlas.layer().name
        return self._atlas.summary(head_layer).sample

    def offered(self) -> list[Plain]:
        """The photos that the first page offers: the files, then images of the atlas."""
        return [*self._offered_files(), *self._offered_images()]

    def _offered_files(self) -> Iterator[Plain]:
        for id, photo in self._files.items():
            yield _offer(id, photo.name, class_label="", in_atlas=False)

    def _offered_images(self) -> Iterator[Plain]:
        if self._atlas is None or self._dataset is None or self.sample is None:
            return

        classes = self._atlas.classes
        has_labels = self._atlas.manifest["data"]["labels"] == "given"
        for row in self._image_rows(
            self.sample.images[:OFFERED_IMAGES].tolist()
        ):
            if row["id"] not in self._dataset.places:
                continue
            index = row["class"]
            label = ""
            if has_labels and index is not None:
                label = classes[index]
            id = f"image-{row['image']}"
            yield _offer(id, row["id"], label, in_atlas=True)

    def _image_rows(self, images: Sequence[int]) -> Iterable[Plain]:
        assert self._atlas is not None
        columns = ["image", "id", "class"]
        where = [("image", "in", images)]
        rows: list[Plain] = self._atlas.table(
            "images", columns, where=where
        ).to_pylist()
        return rows


def image_number(id: str) -> int | None:
    """The number of an image of the atlas, None for the id of another photo."""
    match = _ATLAS_IMAGE.fullmatch(id)
    return None if match is None else int(match[1])


def _offer(id: str, name: str, class_label: str, in_atlas: bool) -> Plain:
    return {
        "id": id,
        "name": shorten(name, _LONGEST_NAME),
        "class": class_label,
        "kept": in_atlas,
    }


def _named_file(path: Path) -> Encoded:
    """A file of the user, in any format; errors give its name without its folder."""
    path, name = path.absolute(), shown_name(path)

    def read() -> bytes:
        try:
            return path.read_bytes()
        except FileNotFoundError:
            raise PhotoError(
                f"there is no photo '{name}' (any more): check its path"
            ) from None
        except IsADirectoryError:
            raise PhotoError(
                f"'{name}' is a folder: name the photos in it"
            ) from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise PhotoError(
                f"'{name}' cannot be read ({reason}): check the file and its "
                "permissions"
            ) from None

    try:
        size = path.stat().st_size
    except (OSError, ValueError):
        size = 0
    return Encoded(name, read, size)
