"""Mode: how the calls of torch's functions are watched, so that Ctrl-C does no harm."""

from __future__ import annotations

import contextlib
import inspect
from types import TracebackType
from typing import Any

from torch import overrides

from unitscope.interrupts import UninterruptedIn


class Mode(overrides.TorchFunctionMode):
    """A mode of torch that an interrupt leaves as it should be.

    Torch takes a mode off its stack while the mode looks at a call. Interrupted just
    then, in its own code, it would leave the mode off, and at the end another one, the
    user's own, would be taken off for it. So Ctrl-C waits there, for the next call.
    """

    def raise_interrupt(self) -> None:
        """Raise a Ctrl-C that waits: `__torch_function__` begins with it."""
        self._interrupts.raise_waiting()

    def __enter__(self) -> Any:
        self._interrupts = UninterruptedIn(_FILES)
        self._interrupts.__enter__()
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, traceback)  # type: ignore[no-untyped-call]
        self._interrupts.__exit__(kind, error, traceback)


# Where modes are put on the stack and taken off.
_FILES = frozenset(
    inspect.unwrap(function).__code__.co_filename
    for function in (
        overrides.handle_torch_function,
        contextlib.contextmanager,
        Mode.__enter__,
    )
)
