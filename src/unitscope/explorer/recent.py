"""Recent: a bounded cache from which the least recently used values are dropped."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """The `count` most recently used values, of `total` bytes together.

    `size_of` is the size of a value in bytes. For one thread at a time.
    """

    def __init__(
        self,
        count: int,
        total: float = float("inf"),
        size_of: Callable[[V], int] = lambda _: 0,
    ) -> None:
        self._count = count
        self._total = total
        self._size_of = size_of
        self._values: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: K) -> bool:
        return key in self._values

    def get(self, key: K) -> V | None:
        """The value of a key, now the most recently used one; None where it is gone."""
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key]

    def put(self, key: K, value: V) -> None:
        """Add or replace a value, and drop as many others as that takes."""
        self._values[key] = value
        self._values.move_to_end(key)
        while self._is_too_large():
            self._values.popitem(last=False)

    def _is_too_large(self) -> bool:
        values = self._values.values()
        if len(values) > self._count:
            return True
        size = sum(self._size_of(value) for value in values)
        return size > self._total
