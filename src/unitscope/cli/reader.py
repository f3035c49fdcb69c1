"""Reader: the photos of a command, opened one by one."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unitscope.cli.output import complain, file_name
from unitscope.errors import PhotoError

if TYPE_CHECKING:
    from unitscope.inputs.photos import Photo
    from unitscope.inputs.preprocessing import AnyPreprocessing


class Reader:
    """Opens photos; of several, unreadable ones are reported and left out."""

    def __init__(
        self, paths: Sequence[str], preprocessing: AnyPreprocessing
    ) -> None:
        self._paths = paths
        self._preprocessing = preprocessing
        self._failed = 0
        self._stems: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Photo]:
        from unitscope.inputs.photos import open_photo
        from unitscope.inputs.preprocessing import reading_of

        reading = reading_of(self._preprocessing)
        for path in self._paths:
            try:
                yield open_photo(path, reading=reading)
            except PhotoError as error:
                if len(self._paths) == 1:
                    raise
                self._failed += 1
                complain(error)
        if self._failed == len(self._paths):
            raise PhotoError(f"none of the {self._failed} photos could be read")

    @contextlib.contextmanager
    def bar(self) -> Iterator[Callable[[int], Any]]:
        """A progress bar on standard error, in a terminal and for several photos."""
        from tqdm import tqdm

        total = len(self._paths)
        is_hidden = total < 2 or not sys.stderr.isatty()
        with tqdm(total=total, unit="photo", disable=is_hidden) as bar:
            yield bar.update

    def unique(self, name: str) -> str:
        """A photo's name without its ending, numbered where it occurs again."""
        stem = file_name(Path(name).stem)
        self._stems[stem] += 1
        count = self._stems[stem]
        return stem if count == 1 else f"{stem}-{count}"

    def finish(self) -> None:
        """Exit with status 1 where a photo could not be read."""
        if self._failed:
            raise click.exceptions.Exit(1)
