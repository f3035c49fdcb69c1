"""Targets: the photos of a data set that show where what belongs to their class is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from unitscope.atlas.matching import matched
from unitscope.datasets import MaskedDataset, Masks
from unitscope.errors import DatasetError, PhotoError
from unitscope.geometry import Placement

OFTENER = 5.0
"""How many times as frequent a typical concept is in its class as in other photos."""
SHARE = 0.3
"""The share of its class's photos that a typical concept is in."""
LARGEST = 0.4
"""The share of a photo from which on a target is too large to miss."""


@dataclass(frozen=True)
class Target:
    """A photo by its index, the model's class that it shows, and the concepts of that."""

    index: int
    label: int
    concepts: tuple[int, ...]

    def mask(self, masks: Masks) -> Bool[np.ndarray, "row col"]:
        """Where any of the concepts is, on the whole photo."""
        chosen = np.isin(masks.labels, self.concepts)
        return np.asarray(masks.pixels[chosen].any(axis=0))


def targets_of(
    masked: MaskedDataset, labels: Sequence[str]
) -> tuple[list[Target], str]:
    """The photos with a target, and in words what targets are.

    Where a concept has the name of a class, it is the target of that class. Classes
    without outlines, as scenes are, have typical concepts: those in at least 30 % of
    their photos and 5 times as often as in those of other classes. Photos whose targets
    cover more than 40 % of them, or nothing, are left out. Raises DatasetError where none is left.
    """
    classes = _classes(masked, labels)
    photos: list[tuple[int, int, Masks]] = []
    for index, label in enumerate(classes):
        if label is None:
            continue
        try:
            photos.append((index, label, _shrunk(masked.masks(index))))
        except PhotoError:
            continue  # a damaged annotation says nothing of what the photo shows

    concepts, words = _concepts_of_classes(masked, labels, photos)
    found = []
    for index, label, masks in photos:
        target = Target(index, label, concepts.get(label, ()))
        if masks.labels and 0 < target.mask(masks).mean() <= LARGEST:
            found.append(target)
    if not found:
        raise DatasetError(
            f"none of the {len(masked)} annotated photos of {masked.source} shows {words}: "
            "give masks of the classes themselves, or leave out the measures that need masks"
        )
    return found, words


def _classes(masked: MaskedDataset, labels: Sequence[str]) -> list[int | None]:
    """The model's class of each photo, None where it has none."""
    if not masked.dataset.labelled:
        raise DatasetError(
            f"the annotated photos of {masked.source} have no classes: put them in class "
            "folders, or leave out the measures that need masks"
        )
    targets = matched(masked.dataset, labels).targets
    return [
        None if entry.label is None else targets[entry.label]
        for entry in masked.dataset.entries
    ]


def _shrunk(masks: Masks) -> Masks:
    """Masks at half the resolution: enough to judge areas, and less to keep."""
    return Masks(masks.labels, masks.pixels[:, ::2, ::2], masks.categories)


def _concepts_of_classes(
    masked: MaskedDataset,
    labels: Sequence[str],
    photos: Sequence[tuple[int, int, Masks]],
) -> tuple[dict[int, tuple[int, ...]], str]:
    """The concepts of every class, and in words what they are."""
    names = [concept.name.casefold() for concept in masked.concepts]
    by_name: dict[int, tuple[int, ...]] = {
        index: (names.index(label.casefold()),)
        for index, label in enumerate(labels)
        if label.casefold() in names
    }
    present = {label for _, label, _ in photos}
    # Scenes may share a name or two with objects (a bridge): that is no set of outlines.
    if present and len(present & by_name.keys()) >= len(present) / 2:
        return by_name, "what its own class names"

    shows = np.zeros((len(photos), len(masked.concepts)), dtype=bool)
    for row, (_, _, masks) in enumerate(photos):
        shows[row, list(masks.labels)] = True
    of_photo = np.array([label for _, label, _ in photos])
    typical = {
        label: typical_concepts(
            shows[of_photo == label], _shares(shows[of_photo != label])
        )
        for label in present
    }
    words = (
        f"objects that are typical of its class (in at least {SHARE:.0%} of its photos and "
        f"{OFTENER:g} times as often as in others, on at most {LARGEST:.0%} of the photo)"
    )
    return typical, words


def typical_concepts(
    shows: Bool[np.ndarray, "photo concept"],
    elsewhere: Float[np.ndarray, " concept"],
) -> tuple[int, ...]:
    """The concepts typical of a class, of whose photos `shows` says what each shows.

    `elsewhere` are the shares of the photos to compare with that show each concept.
    """
    share = _shares(shows)
    is_typical = (share >= SHARE) & (share >= OFTENER * elsewhere)
    return tuple(np.flatnonzero(is_typical).tolist())


def _shares(
    shows: Bool[np.ndarray, "photo concept"],
) -> Float[np.ndarray, " concept"]:
    """The share of the photos that show each concept."""
    shares: np.ndarray = shows.sum(axis=0) / max(1, len(shows))
    return shares


def on_input(
    mask: Bool[np.ndarray, "row col"], placement: Placement
) -> Bool[np.ndarray, "height width"]:
    """A mask of a whole photo on the network's input; nothing where the photo ends."""
    width, height = placement.photo_size
    rows, cols = placement.input_size
    down = (np.arange(rows) + 0.5) / rows
    across = (np.arange(cols) + 0.5) / cols
    y = (placement.top + down * (placement.bottom - placement.top)) / height
    x = (placement.left + across * (placement.right - placement.left)) / width

    row = np.floor(y * mask.shape[0]).astype(np.int64)
    col = np.floor(x * mask.shape[1]).astype(np.int64)
    sampled = mask[
        row.clip(0, mask.shape[0] - 1)[:, None], col.clip(0, mask.shape[1] - 1)
    ]
    inside = ((y >= 0) & (y < 1))[:, None] & ((x >= 0) & (x < 1))
    laid: np.ndarray = sampled & inside
    return laid
