"""Interrupts: Ctrl-C waits until what was changed is as it was."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any


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
        self._waiting: list[tuple[int, FrameType | None]] = []

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        before = signal.getsignal(signal.SIGINT)
        if callable(before):
            self._before = before
            signal.signal(signal.SIGINT, self._wait)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._before is None:
            return
        signal.signal(signal.SIGINT, self._before)
        if self._waiting:
            self._before(*self._waiting[-1])

    def _wait(self, number: int, frame: FrameType | None) -> None:
        self._waiting.append((number, frame))
