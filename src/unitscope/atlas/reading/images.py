"""Atlas images: images of an atlas to draw, and a unit's maps on some of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from unitscope.atlas.image_hashes import digest_of
from unitscope.atlas.storage import StoredAtlas
from unitscope.atlas.summaries.top_images import CRITERIA
from unitscope.datasets import Dataset
from unitscope.errors import InputError, MissingError, PhotoError
from unitscope.geometry import Placement
from unitscope.inputs.decoding import Reading
from unitscope.inputs.photos import Encoded, shown_name
from unitscope.inputs.subjects import Subject


def images_and_maps(
    atlas: StoredAtlas, layer: str, unit: int, by: str, count: int
) -> tuple[Int64[np.ndarray, " image"], Float[np.ndarray, "image row col"]]:
    """Images that show a unit, chosen by a criterion or from the sample, and its maps.

    Raises InputError for another way to choose images.
    """
    if by == "sample":
        return _across_the_sample(atlas, layer, unit, count)
    if by in CRITERIA:
        top = atlas.summary(layer).top[by]
        images = top.images[unit]
        maps = top.maps()[unit]
        exists = images >= 0
        return images[exists][:count], maps[exists][:count]

    choices = ", ".join(map(repr, (*CRITERIA, "sample")))
    raise InputError(f"images are chosen by {choices}, not by {by!r}")


def _across_the_sample(
    atlas: StoredAtlas, layer: str, unit: int, count: int
) -> tuple[Int64[np.ndarray, " image"], Float[np.ndarray, "image row col"]]:
    """Images of the sample at equal steps of the rank by the unit's maximum."""
    sample = atlas.summary(layer).sample
    order = np.argsort(sample.maxima[:, unit], kind="stable")
    shown = min(count, len(order))
    steps = np.linspace(0, len(order) - 1, shown)
    chosen = order[steps.round().astype(int)]
    maps = sample.maps()[chosen, unit]
    return sample.images[chosen], maps


def subjects_of(
    atlas: StoredAtlas, images: Sequence[int], dataset: Dataset
) -> tuple[Subject, ...]:
    """Images by number, with the place of the network's input on each.

    See `Atlas.subjects`.
    """
    where = [("image", "in", list(images))]
    table = atlas.table("images", where=where).to_pylist()
    rows = {row["image"]: row for row in table}
    for image in images:
        if image not in rows:
            raise MissingError(
                f"there is no image {image} among the {atlas.images:,} of the atlas "
                f"in '{atlas.path}'"
            )
    input_size = input_size_of(atlas)
    reading = reading_in(atlas)
    return tuple(
        _subject(rows[image], dataset, input_size, reading) for image in images
    )


def input_size_of(atlas: StoredAtlas) -> tuple[int, int]:
    """The rows and columns of the network's input."""
    rows, cols = atlas.manifest["model"]["input_shape"][1:]
    return int(rows), int(cols)


def reading_in(atlas: StoredAtlas) -> Reading:
    """How the scan read photos of more than 8 bits, and of other bands."""
    # The first atlases did not say.
    return Reading(**atlas.manifest["model"].get("reading", {}))


def _subject(
    row: dict[str, Any],
    dataset: Dataset,
    input_size: tuple[int, int],
    reading: Reading,
) -> Subject:
    """An image of the data set, which is read when it is drawn."""
    place = dataset.places.get(row["id"])
    if place is None:
        raise PhotoError(
            f"image '{row['id']}' is not in '{dataset.source}' any more: open the data "
            "set from where it is now"
        )

    def read() -> bytes:
        data = dataset.read(place)
        if digest_of(data) != row["digest"]:
            raise PhotoError(
                f"image '{row['id']}' has changed since it was scanned: scan the data "
                "set again"
            )
        return data

    size = row["width"], row["height"]
    placement = Placement(
        size,
        input_size,
        row["left"],
        row["top"],
        row["right"],
        row["bottom"],
    )
    return Subject(
        shown_name(row["id"]),
        size,
        None,
        source=Encoded(row["id"], read, dataset.entries[place].size),
        placed=placement,
        reading=reading,
    )
