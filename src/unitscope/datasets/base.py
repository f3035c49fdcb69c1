"""Data set: images that have stable ids, perhaps labels, and can be read again by their place."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True, slots=True)
class Entry:
    """One image of a data set, before it is read.

    `id` names it within the data set, the same wherever the data set lies (a path
    relative to its root, a tar member, a row); `label` is the index of its class in the
    data set's own `classes`, None where it has none; `size` is that of its encoded
    bytes and `stamp` tells whether the file that holds it was written anew (its
    modification time, ns).
    """

    id: str
    label: int | None
    size: int
    stamp: int


class Dataset(ABC):
    """Images in a fixed order, each with an id of its own; `read` may be called from any thread.

    `source` is what it was opened from, `kind` how ("folder", "list", "miniplaces",
    "tar", "parquet"); `classes` are the names of its own classes in the order of their
    indices, None where labels are indices without names, or there are no labels;
    `notes` are lines that a reader of results should see (what was left out, how labels
    were found). `given` and `split` are what `open_dataset` was given, absolute, by
    which it can be opened again.
    """

    source: str
    kind: str
    entries: Sequence[Entry]
    classes: tuple[str, ...] | None
    notes: tuple[str, ...]
    given: tuple[str, ...] = ()
    split: str | None = None

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def labelled(self) -> bool:
        """Whether any image has a label."""
        return any(entry.label is not None for entry in self.entries)

    @abstractmethod
    def read(self, index: int) -> bytes:
        """The encoded bytes of an image by its place; raises PhotoError where they cannot be had any more."""

    @cached_property
    def places(self) -> dict[str, int]:
        """The place of every image by its id as `shown_id` shows it: ids stay where other images come or go."""
        return {shown_id(entry.id): place for place, entry in enumerate(self.entries)}

    def fingerprint(self) -> str:
        """A SHA-256 over the ids, labels and sizes in order and the classes: another data set has another one."""
        digest = hashlib.sha256(repr(self.classes).encode())
        for entry in self.entries:
            digest.update(
                f"\n{entry.id}\0{entry.label}\0{entry.size}".encode(
                    "utf-8", "surrogateescape"
                )
            )
        return digest.hexdigest()


def shown_id(id_: str) -> str:
    """An id as text that can be written anywhere: bytes that are no characters become \\ufffd."""
    return id_.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
