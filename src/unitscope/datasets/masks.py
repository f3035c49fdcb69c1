"""Concept masks: which pixels of a photo show what, as annotated by people."""

from __future__ import annotations

import contextlib
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from unitscope.datasets.base import Dataset
from unitscope.errors import PhotoError, one_line


@dataclass(frozen=True, slots=True)
class Concept:
    """Something annotated in photos, by name and category: Concept("sky", "object")."""

    name: str
    category: str


@dataclass(frozen=True, eq=False)
class Masks:
    """The concepts in one photo.

    `labels` are their indices among the data set's concepts, ascending; `pixels` say
    where each of them is, at the annotation's own resolution, which is to be stretched
    over the whole upright photo; a pixel may show several. `categories` are those that
    were annotated in this photo: the absence of another category's masks says nothing.
    """

    labels: tuple[int, ...]
    pixels: Bool[np.ndarray, "concept row col"]
    categories: frozenset[str]


class MaskedDataset(ABC):
    """A data set of photos with concept masks; `masks` may be called in any thread.

    `dataset` holds only the photos with masks; `kind` is "polygons" (MiniPlaces),
    "index maps" or "broden"; `concepts` are in the order of their indices.
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
        """The concepts of the photo at an index of `dataset`.

        Raises PhotoError where its annotation is damaged.
        """

    @abstractmethod
    def annotations(self, index: int) -> Sequence[Path | str]:
        """The sources of a photo's masks: files, and cells of an index."""

    def fingerprint(self) -> str:
        """A SHA-256 over the photos, the concepts, and the annotations' contents."""
        identity = f"{self.dataset.fingerprint()}{self.kind}{self.concepts!r}"
        digest = hashlib.sha256(identity.encode())
        for index in range(len(self)):
            for annotation in self.annotations(index):
                for part in _hashed_parts(annotation):
                    digest.update(part)
            digest.update(b"\n")
        return digest.hexdigest()


def _hashed_parts(annotation: Path | str) -> Iterator[bytes]:
    """The name and the contents of a file, or the text of a cell."""
    text = annotation.name if isinstance(annotation, Path) else annotation
    yield f"\n{text}".encode("utf-8", "surrogateescape")
    if isinstance(annotation, Path):
        with contextlib.suppress(PhotoError):
            yield read_annotation(annotation)


def gathered(
    masks: dict[int, Bool[np.ndarray, "row col"]],
    shape: tuple[int, int],
    categories: frozenset[str],
) -> Masks:
    """Put masks, by the index of their concept, in ascending order.

    `shape` is (rows, columns), for a photo without masks.
    """
    labels = tuple(sorted(masks))
    if not labels:
        return Masks((), np.zeros((0, *shape), bool), categories)
    ordered = [masks[label] for label in labels]
    return Masks(labels, np.stack(ordered), categories)


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
