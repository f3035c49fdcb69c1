"""Arrays: small work on tensors beside a forward pass.

On the processor it is numpy's. Torch would wake its threads for it; they stay busy for
some milliseconds and hold up the network's next pass.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor


def recorded(values: Tensor) -> Tensor:
    """The values with their gradients where gradients are recorded, else without."""
    return values if torch.is_grad_enabled() else values.detach()


def in_float64(values: Float[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
    """The values in float64, on the processor, since not every device has float64."""
    if values.requires_grad:
        return values.cpu().to(torch.float64)
    # Through numpy: a tensor subclass that stands for a device keeps its restrictions,
    # also when it is copied.
    return torch.from_numpy(values.detach().cpu().numpy()).to(torch.float64)


def blank(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """An uninitialised tensor of the dtype and on the device of another.

    On the processor it is numpy's, which asks for huge pages: writing to fresh memory is
    then several times faster.
    """
    if not _is_numpys(like):
        return like.new_empty(shape)
    return torch.from_numpy(np.empty(shape, dtype=np.float32))


def copied(numbers: Num[Tensor, "*axes"]) -> Num[Tensor, "*axes"]:
    """A copy of a tensor on the processor, without its gradient."""
    if numbers.dtype is not torch.float32:
        return numbers.detach().clone()
    return torch.from_numpy(numbers.detach().numpy().copy())


def is_finite(numbers: Float[Tensor, "*axes"]) -> bool:
    """Whether all numbers are finite."""
    if _is_numpys(numbers):
        with np.errstate(over="ignore", invalid="ignore"):
            # A finite sum, which takes one reading, proves it. An infinite one does not
            # disprove it: large finite numbers can overflow.
            if np.isfinite(numbers.detach().numpy().sum()):
                return True
    return bool(torch.isfinite(numbers).all())


def cell_means(
    feature_map: Float[Tensor, "batch unit row col"],
) -> Float[Tensor, "batch unit"]:
    """The mean of every unit's map over its cells: what a global average pool gives."""
    if feature_map.requires_grad or not _is_numpys(feature_map):
        return feature_map.mean(dim=(2, 3))
    with np.errstate(over="ignore", invalid="ignore"):
        return torch.from_numpy(feature_map.detach().numpy().mean(axis=(2, 3)))


def without_autocast(like: Tensor) -> contextlib.AbstractContextManager[Any]:
    """A context in which a caller's autocast does not round, on the device of a tensor."""
    if like.device.type in ("cpu", "cuda"):
        return torch.autocast(like.device.type, enabled=False)
    return contextlib.nullcontext()


def _is_numpys(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.dtype is torch.float32
