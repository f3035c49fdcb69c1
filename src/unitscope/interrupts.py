"""Interrupts: Ctrl-C waits until what was changed is as it was."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Collection, Iterator
from types import FrameType, TracebackType
from typing import Any, Self


@contextlib.contextmanager
def undone(do: Callable[[], Callable[[], object]]) -> Iterator[None]:
    """Do something now, and undo it at the end, whatever happens inside.

    `do` returns the function that undoes it, which may be called again. A Ctrl-C that
    comes during either is raised when it is over.
    """
    undo: Callable[[], object] = _nothing
    try:
        with Uninterrupted():
            undo = do()
        yield
    finally:
        interrupt: KeyboardInterrupt | None = None
        while True:
            # Another Ctrl-C may come in every line that is not yet, or no longer, safe.
            try:
                with Uninterrupted():
                    undo()
                break
            except KeyboardInterrupt as again:
                interrupt = again
        if interrupt is not None:
            raise interrupt


def _nothing() -> None:
    """Nothing was done yet."""


class Uninterrupted:
    """A `with` in which Ctrl-C waits for the end.

    Python handles signals in its main thread only: others are never interrupted.
    """

    def __init__(self) -> None:
        self._before: Any = None
        # Its number alone: its frame would keep what runs there from being undone.
        self._waiting: int | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self
        before = signal.getsignal(signal.SIGINT)
        if callable(before):
            self._before = before
            signal.signal(signal.SIGINT, self._wait)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._before is None:
            return
        signal.signal(signal.SIGINT, self._before)
        self.raise_waiting()

    def raise_waiting(self) -> None:
        """Do what a Ctrl-C that waits would have done."""
        if self._waiting is not None:
            number, self._waiting = self._waiting, None
            self._before(number, None)

    def _wait(self, number: int, frame: FrameType | None) -> None:
        self._waiting = number


class UninterruptedIn(Uninterrupted):
    """A `with` in which Ctrl-C waits where it comes while one of the `files` runs.

    `files` are named as in code objects. What waits is raised at the end, or earlier, by
    `raise_waiting`.
    """

    def __init__(self, files: Collection[str]) -> None:
        super().__init__()
        self._files = {*files, __file__}
        self._is_inside = False

    def __enter__(self) -> Self:
        super().__enter__()
        self._is_inside = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_inside = False
        super().__exit__(kind, error, traceback)

    def _wait(self, number: int, frame: FrameType | None) -> None:
        runs = "" if frame is None else frame.f_code.co_filename
        if not self._is_inside or runs in self._files:
            self._waiting = number
        else:
            self._waiting = None
            self._before(number, frame)
