"""Concept masks: which pixels of a photo show what, as annotated by people."""

from __future__ import annotations

import contextlib
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from unitscope.datasets.base import Dataset
from unitscope.errors import PhotoError, one_line


@dataclass(frozen=True, slots=True)
class Concept:
    """Something that is annotated in photos: its name and its category, e.g. Concept("sky", "object")."""

    name: str
    category: str


@dataclass(frozen=True, eq=False)
class Masks:
    """The concepts in one photo.

    `labels` are their indices among the data set's concepts, ascending; `pixels` say
    where each of them is, at the annotation's own resolution, which is to be stretched
    over the whole upright photo; a pixel may show several. `categories` are those that
    were annotated in this photo at all: no mask of another category says nothing.
    """

    labels: tuple[int, ...]
    pixels: Bool[np.ndarray, "concept row col"]
    categories: frozenset[str]


class MaskedDataset(ABC):
    """A data set of photos with concept masks: `dataset` holds those photos only; `masks` may be called in any thread.

    `kind` is "polygons" (MiniPlaces), "index maps" or "broden"; `concepts` are in the
    order of their indices.
    """

    dataset: Dataset
    concepts: tuple[Concept, ...]
    source: str
    kind: str
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.dataset)

    @abstractmethod
    def masks(self, index: int) -> Masks:
        """The concepts of a photo by its place in `dataset`; raises PhotoError where its annotation is damaged."""

    @abstractmethod
    def annotations(self, index: int) -> Sequence[Path | str]:
        """What the masks of a photo are read from: files, and what is written of it in an index."""

    def fingerprint(self) -> str:
        """A SHA-256 over the photos, the concepts, and the annotations with all that is in them."""
        digest = hashlib.sha256(
            f"{self.dataset.fingerprint()}{self.kind}{self.concepts!r}".encode()
        )
        for index in range(len(self)):
            for item in self.annotations(index):
                text = item.name if isinstance(item, Path) else item
                digest.update(f"\n{text}".encode("utf-8", "surrogateescape"))
                if isinstance(item, Path):
                    with contextlib.suppress(PhotoError):
                        digest.update(read_annotation(item))
            digest.update(b"\n")
        return digest.hexdigest()


def gathered(
    masks: dict[int, Bool[np.ndarray, "row col"]],
    shape: tuple[int, int],
    categories: frozenset[str],
) -> Masks:
    """Masks by the index of their concept, in ascending order; `shape` is (rows, columns), for where there are none."""
    labels = tuple(sorted(masks))
    pixels = (
        np.stack([masks[label] for label in labels])
        if labels
        else np.zeros((0, *shape), bool)
    )
    return Masks(labels, pixels, categories)


def read_annotation(path: Path) -> bytes:
    """The contents of an annotation file; raises PhotoError."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise PhotoError(
            f"there is no annotation '{path}': check the data set"
        ) from None
    except (OSError, ValueError) as error:
        raise PhotoError(
            f"the annotation '{path}' cannot be read ({one_line(error)}): check its "
            "permissions"
        ) from None
