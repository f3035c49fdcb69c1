"""Data set: images that have stable ids, perhaps labels, and can be read by index."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

EXPECTED = (
    "a folder of photos or of class folders, a list of photos (.txt, .csv, .tsv), tar "
    "shards, or Parquet files"
)
"""The forms of data sets, for errors."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One image of a data set, before it is read.

    `id` names it within the data set, the same wherever the data set lies (a path
    relative to its root, a tar member, a row); `label` is the index of its class in the
    data set's own `classes`, None where it has none; `size` is that of its encoded
    bytes; `stamp` is the modification time (ns) of the file that holds it, which
    changes when that is written anew.
    """

    id: str
    label: int | None
    size: int
    stamp: int


class Dataset(ABC):
    """Images in a fixed order, each with an id; `read` may be called from any thread.

    `source` is what it was opened from, `kind` how ("folder", "list", "miniplaces",
    "tar", "parquet"); `classes` are the names of its own classes in the order of their
    indices, None where labels are indices without names, or there are no labels;
    `notes` are lines that a reader of results should see (what was left out, how labels
    were found). `opened_paths` (absolute) and `split` are the arguments of
    `open_dataset`, by which it can be opened again.
    """

    source: str
    kind: str
    entries: Sequence[Entry]
    classes: tuple[str, ...] | None
    notes: tuple[str, ...]
    opened_paths: tuple[str, ...] = ()
    split: str | None = None

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def labelled(self) -> bool:
        """Whether any image has a label."""
        labels = (entry.label for entry in self.entries)
        return any(label is not None for label in labels)

    @abstractmethod
    def read(self, index: int) -> bytes:
        """The encoded bytes of an image; raises PhotoError where it cannot be read."""

    @cached_property
    def places(self) -> dict[str, int]:
        """The index of every image by its id as `shown_id` shows it.

        Ids stay the same where other images come or go; indices do not.
        """
        places = {}
        for place, entry in enumerate(self.entries):
            shown = shown_id(entry.id)
            places[shown] = place
        return places

    def fingerprint(self) -> str:
        """A SHA-256 over the classes, and the ids, labels and sizes in order."""
        digest = hashlib.sha256()
        classes = repr(self.classes)
        digest.update(classes.encode())
        for entry in self.entries:
            line = f"\n{entry.id}\0{entry.label}\0{entry.size}"
            data = line.encode("utf-8", "surrogateescape")
            digest.update(data)
        return digest.hexdigest()


def shown_id(id_: str) -> str:
    """An id as text that can be written anywhere.

    Bytes of a file name that are no characters become \\ufffd.
    """
    data = id_.encode("utf-8", "surrogateescape")
    return data.decode("utf-8", "replace")
