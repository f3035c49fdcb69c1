"""Batches: photos decoded and preprocessed side by side, a batch ahead of whoever works on them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

from PIL import Image
from torch import Tensor

from unitscope.errors import UnitscopeError
from unitscope.photos import Encoded, Photo, PhotoSource, opened
from unitscope.preprocessing import AnyPreprocessing, Preprocessing

# Decoding and resizing leave Python's lock alone, so that threads share the processors; more only take memory.
_MOST_THREADS = 8

# Photos that one thread reads one after the other: handing each over would cost more.
_AT_ONCE = 4

# Of photos with fewer bytes than this on average most is Python's own work: threads would stand in each other's way.
_SMALL = 32 << 10

Read: TypeAlias = tuple[Photo, Tensor]
# What became of a photo, told when its turn comes: read, decoded only, or an error.
_Outcome: TypeAlias = Read | Photo | Exception


def batches(
    sources: Sequence[PhotoSource | Photo],
    preprocessing: AnyPreprocessing,
    size: int,
    skip: Callable[[int, UnitscopeError], None] | None = None,
) -> Iterator[list[Read]]:
    """Photos and their preprocessed inputs, `size` at a time, in order; the next batch is read meanwhile.

    Our own preprocessing runs in threads beside the decoding, anybody else's in the caller's. At most two batches of
    decoded photos are in memory. Raises PhotoError for the first photo, in order, that cannot be read; with `skip`,
    that is told of each such photo by its place in `sources`, before the batch that then lacks it.
    """

    def told(first: int, outcomes: Iterable[_Outcome]) -> Iterator[Read]:
        for place, outcome in enumerate(outcomes, first):
            try:
                yield _told(outcome, preprocessing)
            except UnitscopeError as error:
                if skip is None:
                    raise
                skip(place, error)

    if len(sources) == 1:
        yield list(told(0, [_outcome(_opener(sources[0]), preprocessing)]))
        return
    threads = 1 if _are_small(sources[:size]) else min(_MOST_THREADS, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads, "unitscope-photos") as pool:

        def begun(start: int) -> list[Future[list[_Outcome]]]:
            openers = [_opener(source) for source in sources[start : start + size]]
            few = [openers[begin : begin + _AT_ONCE] for begin in range(0, len(openers), _AT_ONCE)]
            own = preprocessing if isinstance(preprocessing, Preprocessing) else None
            return [pool.submit(lambda some: [_outcome(one, own) for one in some], some) for some in few]

        try:
            waiting = begun(0)
            for start in range(0, len(sources), size):
                current, waiting = waiting, begun(start + size)
                yield list(told(start, (outcome for future in current for outcome in future.result())))
        except BaseException:  # who stops early need not wait for what nobody will look at
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _are_small(sources: Sequence[PhotoSource | Photo]) -> bool:
    paths = [Path(source) for source in sources if isinstance(source, (str, os.PathLike))]
    sizes = [path.stat().st_size for path in paths if path.is_file()]
    sizes += [source.size for source in sources if isinstance(source, Encoded)]
    return bool(sizes) and sum(sizes) < _SMALL * len(sizes)


def _opener(source: PhotoSource | Photo) -> Callable[[], Photo] | Exception:
    if isinstance(source, Photo):
        return lambda: source
    try:
        if isinstance(source, Image.Image):
            # Two threads must not load one image, which may be in the list twice.
            photo = opened(source)()
            return lambda: photo
        return opened(source)
    except Exception as error:
        return error


def _outcome(decode: Callable[[], Photo] | Exception, preprocessing: AnyPreprocessing | None) -> _Outcome:
    if isinstance(decode, Exception):
        return decode
    try:
        photo = decode()
        return photo if preprocessing is None else (photo, preprocessing(photo.image))
    except Exception as error:
        return error


def _told(outcome: _Outcome, preprocessing: AnyPreprocessing) -> Read:
    if isinstance(outcome, Exception):
        raise outcome
    return (outcome, preprocessing(outcome.image)) if isinstance(outcome, Photo) else outcome
