"""Photos with objects that are typical of their scenes, for the pointing game."""

from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from miniplaces.photos import class_of, name_in_split
from unitscope.datasets.masks import MaskedDataset
from unitscope.errors import PhotoError
from unitscope.evaluation.targets import (
    LARGEST,
    OFTENER,
    SHARE,
    typical_concepts,
)

__all__ = ["LARGEST", "OFTENER", "SHARE", "Scene", "scenes"]


@dataclass(frozen=True)
class Scene:
    """A photo, the index of its class, and where the typical objects of the class are."""

    id: str
    index: int
    label: int
    mask: NDArray[np.bool_]
    """(row, column)"""


def scenes(masked: MaskedDataset, labels: list[str], seed: int) -> list[Scene]:
    """The photos that show typical objects of their own class, in a random order."""
    photos = []
    for index, entry in enumerate(
        tqdm(masked.dataset.entries, desc="reading objects", disable=None)
    ):
        label = labels.index(class_of(name_in_split(entry.id)))
        try:
            photos.append((index, entry.id, label, masked.masks(index)))
        except PhotoError:
            continue  # a damaged annotation tells nothing of what it shows

    there = np.zeros((len(photos), len(masked.concepts)), bool)
    for row, (_, _, _, masks) in enumerate(photos):
        there[row, list(masks.labels)] = True
    of_class = np.array([label for _, _, label, _ in photos])

    found = []
    for index, id_, label, masks in photos:
        of_scene = there[of_class == label]
        typical = typical_concepts(of_scene, there.mean(axis=0))
        chosen = np.isin(masks.labels, typical)
        mask = np.asarray(masks.pixels[chosen].any(axis=0))
        if 0 < mask.mean() <= LARGEST:
            name = PurePosixPath(id_).as_posix()
            found.append(Scene(name, index, label, mask))
    order = np.random.default_rng(seed).permutation(len(found))
    return [found[place] for place in order]
