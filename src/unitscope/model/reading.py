"""Reading: what users bring, photos or tensors, as batches for the network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

from unitscope.attribution.arrays import copied, recorded
from unitscope.errors import InputError, warn_user
from unitscope.inputs.batches import batches, stacked
from unitscope.inputs.photos import AnyPhoto, Photo, is_photo
from unitscope.inputs.preprocessing import AnyPreprocessing
from unitscope.inputs.subjects import Subject
from unitscope.model.checks import check_same_size
from unitscope.tracing.arguments import tensors_in

OnePhoto: TypeAlias = AnyPhoto | Photo
Input: TypeAlias = (
    OnePhoto | Tensor | Mapping[str, Any] | Iterable[OnePhoto | Any]
)
Batch: TypeAlias = tuple[Tensor, tuple[Subject, ...]]


def read_batches(
    x: Tensor | list[Any],
    preprocessing: AnyPreprocessing,
    batch_size: int,
    like: Tensor,
) -> Iterator[Batch]:
    """Inputs (batch, channel, row, col) with subjects.

    `x` is a checked tensor, or a list from `photos_of`. The inputs have the dtype and
    device of `like`; uint8 pixels stay uint8. They are linked to a tensor's gradients where
    gradients are recorded while they are read.

    Raises InputError and PhotoError for what cannot be explained.
    """
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, not {batch_size}")
    if isinstance(x, Tensor):
        return _tensor_batches(x, preprocessing, batch_size, like)
    return _photo_batches(x, preprocessing, batch_size, like)


def warn_of_detached(x: Input, also: Mapping[str, Any] | None) -> None:
    """Warn of inputs that want gradients, where the answer will carry none."""
    wants = any(tensor.requires_grad for tensor in tensors_in((x, also)))
    if wants and torch.is_grad_enabled():
        warn_user(
            "the input requires gradients, but this explanation is detached and carries "
            "none: explain(x, differentiable=True) gives maps for a loss"
        )


def photos_of(x: Any) -> list[Any]:
    """The photos of an input that holds no numbers, as a list.

    Raises InputError for anything that is no photo, and no list of them.
    """
    if is_photo(x):
        return [x]
    is_list = isinstance(x, Iterable) and not isinstance(x, Mapping)
    if not is_list:
        raise InputError(
            f"a {type(x).__name__} cannot be explained: give a path, a PIL "
            "image, the bytes of a file, a list of them, or a (batch, channel, row, col) tensor"
        )
    items = list(x)
    if not items:
        raise InputError(
            "there is nothing to explain: the list of photos is empty"
        )
    if isinstance(items[0], (Tensor, tuple, list, Mapping)):
        raise InputError(
            f"a {type(x).__name__} of {type(items[0]).__name__}s cannot be explained: "
            "give one batch of it, or a list of photos"
        )
    return items


def _photo_batches(
    items: list[Any],
    preprocessing: AnyPreprocessing,
    batch_size: int,
    like: Tensor,
) -> Iterator[Batch]:
    told: set[str] = set()
    for read in batches(items, preprocessing, batch_size):
        tensors = [tensor for _, tensor in read]
        check_same_size(
            (int(each.shape[1]), int(each.shape[2])) for each in tensors
        )
        subjects = tuple(
            Subject.of_photo(photo, preprocessing) for photo, _ in read
        )
        _tell(subjects, told)
        yield stacked(tensors).to(like.device, like.dtype), subjects


def _tell(subjects: Iterable[Subject], told: set[str]) -> None:
    """Warn of what was guessed of photos and left out, once of each kind."""
    for subject in subjects:
        for note in subject.notes:
            if note not in told:
                told.add(note)
                # Without the photo's name: Python shows a text once for each line.
                warn_user(f"photos: {note}")


def _tensor_batches(
    x: Tensor, preprocessing: AnyPreprocessing, batch_size: int, like: Tensor
) -> Iterator[Batch]:
    for start in range(0, len(x), batch_size):
        batch = recorded(x[start : start + batch_size])
        subjects = tuple(
            # A copy: the user may write over the tensor, and a view would keep the whole
            # batch alive.
            Subject.of_tensor(
                copied(item.cpu()), f"input {number}", preprocessing
            )
            for number, item in enumerate(batch, start)
        )
        dtype = batch.dtype if batch.dtype is torch.uint8 else like.dtype
        yield batch.to(like.device, dtype), subjects
