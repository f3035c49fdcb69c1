"""Mode: sees every torch call inside it, and leaves torch's stack as it was after Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from unitscope.interrupts import undone


class Mode(TorchFunctionMode):
    """Sees every torch call that is made while it is `on`."""

    _is_asked = _is_there = False

    def on(self) -> AbstractContextManager[None]:
        """A `with` inside which every torch call is seen, and after which none is.

        Torch takes a mode off its stack while that sees a call. A Ctrl-C in that very
        moment leaves it off, or has it put back when nobody expects it.
        """
        return undone(self._begin)

    def watch(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Make a call of a torch function, and return what it gives."""
        raise NotImplementedError

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if self._is_asked:
            self._is_there = True
            return func(*args, **(kwargs or {}))
        return self.watch(func, args, kwargs or {})

    def _begin(self) -> Callable[[], object]:
        self.__enter__()  # type: ignore[no-untyped-call]
        return self._end

    def _end(self) -> None:
        if self._is_on_stack():
            self.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def _is_on_stack(self) -> bool:
        self._is_asked, self._is_there = True, False
        torch.empty(0).dim()
        self._is_asked = False
        return self._is_there
