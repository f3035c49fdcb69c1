"""Batches: photos decoded and preprocessed in threads, a batch ahead."""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from unitscope.errors import UnitscopeError
from unitscope.inputs.decoding import Reading
from unitscope.inputs.photos import AnyPhoto, Encoded, Photo, image_of, opened
from unitscope.inputs.preprocessing import (
    AnyPreprocessing,
    Preprocessing,
    reading_of,
)
from unitscope.inputs.raw import RawPictures

# Decoding and resizing release Python's lock, so threads share the processors. More
# threads would only take memory.
_MOST_THREADS = 8

# Photos of fewer bytes on average are small: much of their cost is Python's own, which
# is lower for a whole batch at once. Two batches in memory need no more threads.
_SMALL = 32 << 10
_THREADS_FOR_SMALL = 2

Read: TypeAlias = tuple[Photo, Tensor]
_Opener: TypeAlias = Callable[[], Photo] | Exception
# What became of a photo: read, only decoded, or an error to raise when its turn comes.
_Outcome: TypeAlias = Read | Photo | Exception
_Skip: TypeAlias = Callable[[int, UnitscopeError], None]


def batches(
    sources: Sequence[AnyPhoto | Photo],
    preprocessing: AnyPreprocessing,
    size: int,
    skip: _Skip | None = None,
) -> Iterator[list[Read]]:
    """Photos and their preprocessed inputs in order, `size` at a time.

    The next batch is read meanwhile. A `Preprocessing` runs in the threads that decode,
    any other one in the caller's thread. At most two batches are in memory; a
    `Preprocessing` keeps only the inputs of its photos.

    Raises PhotoError for the first photo, in order, that cannot be read. With `skip`,
    the batch lacks such photos instead, and `skip` is called with their places in
    `sources` before the batch comes.
    """
    reader = _Reader(preprocessing, skip)
    if len(sources) == 1:
        (source,) = sources
        photo = _decoded(_opener(source, reader.reading))
        yield list(reader.read(0, [photo]))
        return

    threads, at_once = _schedule(sources[:size], size)
    with ThreadPoolExecutor(threads, "unitscope-photos") as pool:

        def begin(start: int) -> list[Future[list[_Outcome]]]:
            batch = sources[start : start + size]
            return reader.begin(pool, batch, at_once)

        try:
            upcoming = begin(0)
            for start in range(0, len(sources), size):
                current = upcoming
                upcoming = begin(start + size)
                outcomes = _results(current)
                yield list(reader.read(start, outcomes))
        except BaseException:
            # A caller that stops early does not wait for photos that it will not use.
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _schedule(
    first_batch: Sequence[AnyPhoto | Photo], size: int
) -> tuple[int, int]:
    """How many threads read photos, and how many photos a thread takes at once."""
    threads, at_once = _MOST_THREADS, 1
    if _are_small(first_batch):
        threads, at_once = _THREADS_FOR_SMALL, size
    processors = os.cpu_count() or 1
    return min(threads, processors), at_once


def _are_small(sources: Sequence[AnyPhoto | Photo]) -> bool:
    sizes = []
    for source in sources:
        if isinstance(source, Encoded):
            sizes.append(source.size)
        elif isinstance(source, (str, os.PathLike)):
            path = Path(source)
            if path.is_file():
                sizes.append(path.stat().st_size)
    return bool(sizes) and sum(sizes) < _SMALL * len(sizes)


def _results(futures: Iterable[Future[list[_Outcome]]]) -> Iterator[_Outcome]:
    for future in futures:
        yield from future.result()


@dataclass(frozen=True)
class _Reader:
    """Turns photos into inputs; `skip` is called for those that cannot be read."""

    preprocessing: AnyPreprocessing
    skip: _Skip | None

    @property
    def reading(self) -> Reading:
        """How photos are read for the preprocessing."""
        return reading_of(self.preprocessing)

    def begin(
        self,
        pool: ThreadPoolExecutor,
        sources: Sequence[AnyPhoto | Photo],
        at_once: int,
    ) -> list[Future[list[_Outcome]]]:
        """Start to read photos in threads, so many in each task."""
        reading = self.reading
        openers = [_opener(source, reading) for source in sources]
        own = None
        if isinstance(self.preprocessing, Preprocessing):
            own = self.preprocessing

        futures = []
        for start in range(0, len(openers), at_once):
            task = openers[start : start + at_once]
            futures.append(pool.submit(_outcomes, task, own))
        return futures

    def read(self, first: int, outcomes: Iterable[_Outcome]) -> Iterator[Read]:
        """The photos that could be read; `first` is the place of the first outcome."""
        for place, outcome in enumerate(outcomes, first):
            try:
                yield self._finished(outcome)
            except UnitscopeError as error:
                if self.skip is None:
                    raise
                self.skip(place, error)

    def _finished(self, outcome: _Outcome) -> Read:
        if isinstance(outcome, Exception):
            raise outcome
        if not isinstance(outcome, Photo):
            return outcome

        photo = outcome.without_pixels()
        if isinstance(self.preprocessing, Preprocessing):
            return photo, self.preprocessing(outcome.given)

        # A user's callable may take PIL images only.
        picture = image_of(outcome.given)
        if isinstance(self.preprocessing.transform, RawPictures):
            self.preprocessing.transform.expect(picture)
        return photo, self.preprocessing(picture)


def _opener(source: AnyPhoto | Photo, reading: Reading) -> _Opener:
    """What decodes a photo whose header was read, or what went wrong with it."""
    if isinstance(source, Photo):
        photo = source
        if photo.is_read_by(reading):
            return lambda: photo
        source = photo.source
    try:
        decode = opened(source, reading=reading)
        if not isinstance(source, Image.Image):
            return decode
        # Decoded at once: the list may hold one image twice, and two threads must not
        # load it.
        made = decode()
        return lambda: made
    except Exception as error:
        return error


def _decoded(opener: _Opener) -> Photo | Exception:
    if isinstance(opener, Exception):
        return opener
    try:
        return opener()
    except Exception as error:
        return error


def _outcomes(
    openers: list[_Opener], own: Preprocessing | None
) -> list[_Outcome]:
    """Decode photos, and preprocess those of one size together where that is ours."""
    outcomes: list[_Outcome] = [_decoded(opener) for opener in openers]
    if own is None:
        return outcomes

    photos_by_size: dict[tuple[int, int], dict[int, Photo]] = defaultdict(dict)
    for place, outcome in enumerate(outcomes):
        if isinstance(outcome, Photo):
            photos_by_size[outcome.size][place] = outcome
    for photos in photos_by_size.values():
        # Where this fails, each photo is tried alone when its turn comes, and its error
        # is raised then.
        with contextlib.suppress(Exception):
            read = _preprocessed(photos, own)
            for place in read:
                outcomes[place] = read[place]
    return outcomes


def _preprocessed(
    photos: dict[int, Photo], own: Preprocessing
) -> dict[int, Read]:
    """Photos of one size, by their places, preprocessed together."""
    pixels = [photo.given for photo in photos.values()]
    inputs = own.together(pixels)
    read: dict[int, Read] = {}
    for place, tensor in zip(photos, inputs, strict=True):
        # The pixels are many times those of the input. A photo that is drawn is decoded
        # again.
        photo = photos[place].without_pixels()
        read[place] = (photo, tensor)
    return read


def stacked(
    inputs: Sequence[Float[Tensor, "channel row col"]],
) -> Float[Tensor, "photo channel row col"]:
    """The inputs as one tensor, as by torch.stack; not copied where made together.

    A copy by torch costs more than itself: its threads then look for work for some
    milliseconds, on the processors that read the next photos.
    """
    first = inputs[0]
    if not _are_consecutive(inputs):
        return torch.stack(list(inputs))
    shape = (len(inputs), *first.shape)
    strides = (first.numel(), *first.stride())
    return first.as_strided(shape, strides)


def _are_consecutive(inputs: Sequence[Tensor]) -> bool:
    """Whether tensors lie one behind the other in one storage."""
    first = inputs[0]
    storage = first.untyped_storage().data_ptr()
    address = first.data_ptr()
    for tensor in inputs:
        if tensor.shape != first.shape or tensor.dtype != first.dtype:
            return False
        if tensor.untyped_storage().data_ptr() != storage:
            return False
        if tensor.data_ptr() != address or not tensor.is_contiguous():
            return False
        address += first.numel() * first.element_size()
    return True
