"""Batches: photos decoded and preprocessed side by side, a batch ahead of whoever works on them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from unitscope.errors import UnitscopeError
from unitscope.inputs.photos import Encoded, Photo, PhotoSource, opened
from unitscope.inputs.preprocessing import AnyPreprocessing, Preprocessing

# Decoding and resizing leave Python's lock alone, so that threads share the processors;
# more only take memory.
_MOST_THREADS = 8

# Of photos with fewer bytes than this on average much is Python's own work, which is
# done for a whole batch at once; the two batches in memory need no more threads.
_SMALL = 32 << 10

Read: TypeAlias = tuple[Photo, Tensor]
_Opener: TypeAlias = Callable[[], Photo] | Exception
# What became of a photo, told when its turn comes: read, decoded only, or an error.
_Outcome: TypeAlias = Read | Photo | Exception


def batches(
    sources: Sequence[PhotoSource | Photo],
    preprocessing: AnyPreprocessing,
    size: int,
    skip: Callable[[int, UnitscopeError], None] | None = None,
) -> Iterator[list[Read]]:
    """Photos and their preprocessed inputs, `size` at a time, in order; the next batch is read meanwhile.

    Our own preprocessing runs in threads beside the decoding, anybody else's in the
    caller's. At most two batches are in memory, of which our own preprocessing keeps
    the inputs only. Raises PhotoError for the first photo, in order, that cannot be
    read; with `skip`, that is told of each such photo by its place in `sources`, before
    the batch that then lacks it.
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
        yield list(told(0, [_decoded(_opener(sources[0]))]))
        return
    threads, at_once = (2, size) if _are_small(sources[:size]) else (_MOST_THREADS, 1)
    threads = min(threads, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads, "unitscope-photos") as pool:

        def begun(start: int) -> list[Future[list[_Outcome]]]:
            openers = [_opener(source) for source in sources[start : start + size]]
            few = [
                openers[begin : begin + at_once]
                for begin in range(0, len(openers), at_once)
            ]
            own = preprocessing if isinstance(preprocessing, Preprocessing) else None
            return [pool.submit(_outcomes, some, own) for some in few]

        try:
            waiting = begun(0)
            for start in range(0, len(sources), size):
                current, waiting = waiting, begun(start + size)
                yield list(
                    told(
                        start,
                        (outcome for future in current for outcome in future.result()),
                    )
                )
        except (
            BaseException
        ):  # who stops early need not wait for what nobody will look at
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _are_small(sources: Sequence[PhotoSource | Photo]) -> bool:
    paths = [
        Path(source) for source in sources if isinstance(source, (str, os.PathLike))
    ]
    sizes = [path.stat().st_size for path in paths if path.is_file()]
    sizes += [source.size for source in sources if isinstance(source, Encoded)]
    return bool(sizes) and sum(sizes) < _SMALL * len(sizes)


def _opener(source: PhotoSource | Photo) -> _Opener:
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


def _outcomes(openers: list[_Opener], own: Preprocessing | None) -> list[_Outcome]:
    outcomes: list[_Outcome] = [_decoded(opener) for opener in openers]
    alike: dict[tuple[int, int], list[tuple[int, Photo]]] = {}
    for place, outcome in enumerate(outcomes if own else ()):
        if isinstance(outcome, Photo):
            alike.setdefault(outcome.size, []).append((place, outcome))
    for some in alike.values():
        assert own is not None
        with contextlib.suppress(
            Exception
        ):  # each is tried by itself, and told, when its turn comes
            inputs = own.together([photo.held for _, photo in some])
            for (place, photo), tensor in zip(some, inputs, strict=True):
                # Whoever draws a photo decodes it again: its pixels are many times
                # those of the input.
                outcomes[place] = (photo.without_pixels(), tensor)
    return outcomes


def _decoded(decode: _Opener) -> Photo | Exception:
    if isinstance(decode, Exception):
        return decode
    try:
        return decode()
    except Exception as error:
        return error


def _told(outcome: _Outcome, preprocessing: AnyPreprocessing) -> Read:
    if isinstance(outcome, Exception):
        raise outcome
    if not isinstance(outcome, Photo):
        return outcome
    if isinstance(preprocessing, Preprocessing):
        return outcome.without_pixels(), preprocessing(outcome.held)
    return outcome.without_pixels(), preprocessing(
        outcome.image
    )  # Anybody's may be for PIL images only.


def stacked(
    inputs: Sequence[Float[Tensor, "channel row col"]],
) -> Float[Tensor, "photo channel row col"]:
    """The inputs as one tensor, as torch.stack makes it; without a copy where they were made together.

    A copy by torch costs more than itself: its threads then look out for more to do for
    some milliseconds, on the processors that are reading the next photos.
    """
    first = inputs[0]
    step, storage = (
        first.numel() * first.element_size(),
        first.untyped_storage().data_ptr(),
    )
    beside = all(
        one.shape == first.shape
        and one.dtype == first.dtype
        and one.is_contiguous()
        and one.untyped_storage().data_ptr() == storage
        and one.data_ptr() == first.data_ptr() + place * step
        for place, one in enumerate(inputs)
    )
    if beside:
        return first.as_strided(
            (len(inputs), *first.shape), (first.numel(), *first.stride())
        )
    return torch.stack(list(inputs))
