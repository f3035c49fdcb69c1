"""Tensors: the photos in what programs and loaders hand over as numbers.

What cannot be taken is refused, with the remedy that fits.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Num
from torch import Tensor
from torch.utils.data import DataLoader

from unitscope.attribution.arrays import is_finite
from unitscope.errors import InputError, NonFiniteError

_AXES = "(batch, channel, row, col)"


def tensor_in(
    x: Any, channels: int | None, names: Collection[str]
) -> tuple[Tensor, Any] | None:
    """The tensor of photos in `x`, and its key there; None where it holds no numbers.

    `x` is a tensor, an array, or a loader's batch: a tuple, list or dict that holds one.
    `channels` is how many the network's first convolution takes, `names` are those of its
    forward's parameters. Raises InputError where none of the tensors fits, or several do.
    """
    if isinstance(x, DataLoader):
        raise InputError(
            "a DataLoader gives many batches: explain one of them, "
            "next(iter(loader)), or scan a folder of photos"
        )
    if isinstance(x, Mapping) and any(map(_has_numbers, x.values())):
        return _photos_among(x, x, channels, names)
    if isinstance(x, (tuple, list)) and any(map(_has_numbers, x)):
        return _photos_among(dict(enumerate(x)), x, channels, ())
    return (_as_tensor(x), None) if _has_numbers(x) else None


def check_tensor(x: Tensor, channels: int | None = None) -> None:
    """Raise unless a tensor holds finite inputs (batch, channel, row, col), or pixels.

    `channels` is how many the network's first convolution takes.
    """
    if x.is_meta or x.layout is not torch.strided or x.is_quantized:
        raise InputError(
            f"a tensor of inputs holds plain numbers, not those of a "
            f"{_kind(x)} tensor: convert it first"
        )
    if x.ndim != 4:
        raise InputError(
            f"a tensor of inputs has the shape {_AXES}, not {tuple(x.shape)}: "
            f"{_remedy_for_axes(x, channels)}"
        )
    if x.shape[0] == 0:
        raise InputError("there is nothing to explain: the batch is empty")
    if 0 in x.shape:
        raise InputError(
            f"a tensor of inputs has the shape {_AXES}, not {tuple(x.shape)}: "
            "it has no pixels"
        )
    _check_channels_first(x, channels)
    if not x.is_floating_point() and x.dtype is not torch.uint8:
        raise InputError(
            "a tensor of inputs holds preprocessed floating-point numbers, not "
            f"{x.dtype}: scale and normalise it as in training"
        )
    if x.is_floating_point() and not is_finite(x):
        broken = ~torch.isfinite(x).flatten(1).all(dim=1)
        raise NonFiniteError(
            f"input {int(broken.nonzero()[0])} of the batch holds NaN or "
            "infinite numbers: check what made it"
        )


def _kind(x: Tensor) -> str:
    if x.is_meta:
        return "meta"
    if x.is_quantized:
        return "quantised"
    return str(x.layout).removeprefix("torch.")


def _remedy_for_axes(x: Tensor, channels: int | None) -> str:
    """What to do about a tensor that has not four axes."""
    shape = x.shape
    if x.ndim == 5:
        reorder = ""
        if channels == shape[1] and channels != shape[2]:
            reorder = ".transpose(1, 2)"
        return (
            "five axes are those of videos or crops; explain their pictures "
            f"one by one, x{reorder}.flatten(0, 1)"
        )
    if x.ndim == 3:
        if _is_channels_last(shape, channels):
            if x.dtype is torch.uint8:
                return "give a picture as a PIL image, Image.fromarray(x)"
            return "put the channels first, x.permute(2, 0, 1)[None]"
        if channels == 1 and shape[0] != 1:
            return "add an axis for the one channel, x[:, None]"
        return "add a batch axis with x[None]"
    if x.ndim == 2:
        return "add axes for the batch and the channel, x[None, None]"
    return "give pictures"


def _is_channels_last(shape: torch.Size, channels: int | None) -> bool:
    """Whether only the last axis can be that of the channels."""
    if channels is not None:
        return shape[-1] == channels and shape[-3] != channels
    return shape[-1] in (1, 3, 4) and shape[-3] > 4 and shape[-2] > 4


def _check_channels_first(x: Tensor, channels: int | None) -> None:
    if not _is_channels_last(x.shape, channels):
        return
    raise InputError(
        f"a tensor of inputs has the shape {_AXES}, not {tuple(x.shape)}, whose "
        "last axis seems to be the channels: put them first, "
        "x.permute(0, 3, 1, 2)"
    )


def _photos_among(
    items: Mapping[Any, Any],
    x: Any,
    channels: int | None,
    names: Collection[str],
) -> tuple[Tensor, Any]:
    """The one tensor of a loader's batch that can be photos, and its key."""
    tensors = {
        key: _as_tensor(item)
        for key, item in items.items()
        if _has_numbers(item)
    }
    pictures = {
        key: tensor
        for key, tensor in tensors.items()
        if tensor.ndim == 4
        and (tensor.is_floating_point() or tensor.dtype is torch.uint8)
    }
    fitting = {
        key: tensor
        for key, tensor in pictures.items()
        if tensor.shape[1] == channels
    }
    found = fitting or pictures
    named = [key for key in found if key in names]
    keys = named if len(named) == 1 else list(found)
    if len(keys) == 1:
        return found[keys[0]], keys[0]
    raise InputError(_why_none(tensors, found, x))


def _why_none(
    tensors: Mapping[Any, Tensor], found: Mapping[Any, Tensor], x: Any
) -> str:
    kind = type(x).__name__
    if found:
        keys = list(found)
        listed = ", ".join(
            f"x[{key!r}] {tuple(tensor.shape)}" for key, tensor in found.items()
        )
        several = ""
        if not isinstance(x, Mapping):
            several = "; join several batches, torch.cat(x)"
        return (
            f"a {kind} with {len(keys)} tensors that can be the photos, "
            f"{listed}: give one of them, x[{keys[0]!r}]{several}"
        )

    ranks = {tensor.ndim for tensor in tensors.values()}
    if not isinstance(x, Mapping) and len(tensors) == len(x) and ranks == {3}:
        first = next(iter(tensors.values()))
        if first.dtype is torch.uint8 and _is_channels_last(first.shape, None):
            return (
                f"a {kind} of arrays cannot be explained: give pictures as PIL images, "
                "[Image.fromarray(each) for each in x]"
            )
        return f"a {kind} of tensors cannot be explained: stack them, torch.stack(x)"
    singles = [key for key, tensor in tensors.items() if tensor.ndim == 3]
    if len(singles) == 1:
        return (
            f"a {kind} that holds one picture without a batch axis: give "
            f"x[{singles[0]!r}][None]"
        )
    shapes = ", ".join(str(tuple(each.shape)) for each in tensors.values())
    return (
        f"a {kind} without a floating-point tensor {_AXES}"
        f"{f', but with {shapes}' if shapes else ''}: give the photos alone, as "
        "a path, a PIL image, a list of them, or such a tensor"
    )


def _has_numbers(item: Any) -> bool:
    if isinstance(item, Tensor):
        return True
    if not hasattr(item, "__array__") or not hasattr(item, "shape"):
        return False
    return np.asarray(item).dtype.kind in "biufc"


def _as_tensor(item: Any) -> Num[Tensor, "*axes"]:
    if isinstance(item, Tensor):
        return item
    # A copy: an array may be read-only, or run backwards.
    return torch.tensor(np.array(item))
