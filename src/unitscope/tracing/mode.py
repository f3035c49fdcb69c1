"""Mode: how the calls of torch's functions are watched, with Ctrl-C kept out."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from torch.overrides import TorchFunctionMode

from unitscope.interrupts import Uninterrupted


class Mode(TorchFunctionMode):
    """A mode of torch in which Ctrl-C waits for the end; a second one does not.

    Torch takes a mode off its stack while the mode looks at a call. An interrupt just
    then leaves it off: another mode, the user's own, would be taken off for it.
    """

    def __enter__(self) -> Any:
        self._waiting = Uninterrupted(but_for_the_second=True)
        self._waiting.__enter__()
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            super().__exit__(kind, error, traceback)  # type: ignore[no-untyped-call]
        except RuntimeError:
            # A second Ctrl-C left the stack empty.
            if not isinstance(error, KeyboardInterrupt):
                raise
        finally:
            self._waiting.__exit__(kind, error, traceback)
