"""Worker: one thread that does one thing after the other, with a bounded queue before it."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import threading
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from unitscope.errors import BusyError

_T = TypeVar("_T")


@dataclass(eq=False)
class _Job:
    """Something to do, and who waits for it: those who asked for the same meanwhile wait for one result."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    key: Hashable | None
    waiters: list[asyncio.Future[Any]] = field(default_factory=list)


class Worker:
    """A thread that runs functions one by one for an event loop; at most `waiting` of them wait for their turn."""

    def __init__(self, name: str, waiting: int = 32) -> None:
        self.name, self._room = name, waiting
        self._waiting: deque[_Job] = deque()
        self._shared: dict[Hashable, _Job] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._running: _Job | None = None
        self._closed = False

    async def run(
        self, function: Callable[..., _T], *arguments: Any, key: Hashable | None = None
    ) -> _T:
        """Run a function in the thread and give back what it returns, or raise what it raises.

        Whoever asks with the `key` of something that waits or runs gets the result of
        that. When nobody waits for a result any more (the awaiting tasks were
        cancelled), what has not begun is left out. Raises BusyError when too many wait
        already, or the worker is closed.
        """
        future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        with self._changed:
            job = None if key is None else self._shared.get(key)
            if job is None:
                job = self._enter(_Job(function, arguments, key))
            job.waiters.append(future)
        try:
            return await future
        finally:
            with self._changed:
                self._leave(job, future)

    def close(self, patience: float = 1.0) -> None:
        """Begin nothing more, and break off what runs between two steps; wait so many seconds at most for that."""
        with self._changed:
            self._closed = True
            dropped = [
                *([] if self._running is None else [self._running]),
                *self._waiting,
            ]
            self._waiting.clear()
            self._shared.clear()
            self._changed.notify()
            if self._thread is not None and self._running is not None:
                # As Ctrl-C would in the main thread: Python cannot end cleanly while a
                # thread of its own is in torch.
                ident = ctypes.c_ulong(self._thread.ident or 0)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ident, ctypes.py_object(SystemExit)
                )
        for job in dropped:
            self._settle(job, None, self._ended())
        if self._thread is not None:
            self._thread.join(patience)

    def _enter(self, job: _Job) -> _Job:
        if self._closed:
            raise self._ended()
        if len(self._waiting) >= self._room:
            raise BusyError(
                f"{len(self._waiting)} requests wait for the {self.name} already: try "
                "again in a moment"
            )
        if self._thread is None:
            # A daemon: a program that is interrupted ends, even if a single step of a
            # network takes minutes.
            self._thread = threading.Thread(
                target=self._work, name=f"unitscope {self.name}", daemon=True
            )
            self._thread.start()
        self._waiting.append(job)
        if job.key is not None:
            self._shared[job.key] = job
        self._changed.notify()
        return job

    def _leave(self, job: _Job, future: asyncio.Future[Any]) -> None:
        if future in job.waiters:
            job.waiters.remove(future)
        if not job.waiters and job in self._waiting:
            self._waiting.remove(job)
            self._forget(job)

    def _forget(self, job: _Job) -> None:
        if job.key is not None and self._shared.get(job.key) is job:
            del self._shared[job.key]

    def _ended(self) -> BusyError:
        return BusyError(
            f"the {self.name} takes no more requests, as the program is ending: start "
            "it again"
        )

    def _work(self) -> None:
        while self._one():
            pass

    def _one(self) -> bool:
        """Do the next job; a function of its own, so that nothing of it is kept while the next is waited for."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            if self._closed:
                return False
            job = self._running = self._waiting.popleft()
        result: Any = None
        error: BaseException | None = None
        try:
            result = job.function(*job.arguments)
        except BaseException as raised:  # SystemExit too, which somebody's network may raise: it must end no server.
            error = raised
        if isinstance(error, StopIteration) or (
            error is not None and not isinstance(error, Exception)
        ):
            # These mean something else to an event loop, which would not hand them on.
            error = RuntimeError(f"{type(error).__name__}: {error}")
        with self._changed:
            self._running = None
            self._forget(job)
        self._settle(job, result, error)
        return True

    def _settle(self, job: _Job, result: Any, error: BaseException | None) -> None:
        with self._changed:
            waiters = list(job.waiters)
        for future in waiters:
            with contextlib.suppress(RuntimeError):  # the loop is closed already
                future.get_loop().call_soon_threadsafe(_tell, future, result, error)


def _tell(
    future: asyncio.Future[Any], result: Any, error: BaseException | None
) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
