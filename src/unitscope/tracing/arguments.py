"""Arguments: those of a function call, by position or by keyword."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


class WithArguments:
    """What has the arguments of a function call."""

    __slots__ = ()
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def argument(self, position: int, keyword: str, default: Any = None) -> Any:
        """An argument, by position or by keyword."""
        if len(self.args) > position:
            return self.args[position]
        return self.kwargs.get(keyword, default)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors in a value and in the tuples, lists and dicts that it holds."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)


def without_numbers(value: Any) -> Any:
    """The same arguments with tensors of real numbers that have a shape only.

    What keeps the arguments of a whole pass must not keep its numbers. Whole numbers,
    which choose places, stay.
    """
    if isinstance(value, Tensor):
        if not value.is_floating_point():
            return value
        return torch.empty(value.shape, dtype=value.dtype, device="meta")
    if type(value) in (tuple, list):
        return type(value)(without_numbers(item) for item in value)
    if type(value) is dict:
        return {key: without_numbers(item) for key, item in value.items()}
    return value
