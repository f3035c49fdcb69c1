"""Arguments: those of a function call, by position or by keyword."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

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
