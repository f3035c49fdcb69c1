"""Interrupts: Ctrl-C waits until what was changed is as it was."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any

# Whose frames hold generators: torch takes a mode off its stack for every call by one.
_OF_CONTEXTS = ("contextlib", "torch.overrides")


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
                    error = sys.exception()
                    if isinstance(error, KeyboardInterrupt):
                        _finish(error)
                    undo()
                break
            except KeyboardInterrupt as again:
                interrupt = again
        if interrupt is not None:
            raise interrupt


def unbroken(
    context: contextlib.AbstractContextManager[Any],
) -> contextlib.AbstractContextManager[None]:
    """A `with` of a context that Ctrl-C neither enters nor leaves half-way.

    The context may be left twice, as torch's settings may.
    """

    def enter() -> Callable[[], object]:
        context.__enter__()
        return lambda: context.__exit__(None, None, None)

    return undone(enter)


def _finish(error: BaseException | None) -> None:
    """End contexts inside that a Ctrl-C left open, before those around them are ended.

    Where it comes just as a context made of a generator is entered or left, nothing but the
    exception's frames holds the generator, and it would end only when these are freed.
    """
    while error is not None:
        traceback = error.__traceback__
        while traceback is not None:
            frame = traceback.tb_frame
            traceback = traceback.tb_next
            if frame.f_globals.get("__name__") in _OF_CONTEXTS:
                with contextlib.suppress(RuntimeError):  # it still runs
                    frame.clear()
        error = error.__context__


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
