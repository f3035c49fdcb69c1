"""Worker: a thread that runs one function after the other, from a bounded queue."""

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


class _Ended(SystemExit):
    """Ends what the thread runs: a kind of our own, so that no network is blamed."""


@dataclass(eq=False)
class _Job:
    """A function to call, and the futures of all who share its result."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    key: Hashable | None
    waiters: list[asyncio.Future[Any]] = field(default_factory=list)


class Worker:
    """A thread that runs functions for an event loop, with `waiting` places in a queue."""

    def __init__(self, name: str, waiting: int = 32) -> None:
        self.name = name
        self._places = waiting
        self._queue: deque[_Job] = deque()
        self._jobs_by_key: dict[Hashable, _Job] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._running: _Job | None = None
        self._closed = False

    async def run(
        self,
        function: Callable[..., _T],
        *arguments: Any,
        key: Hashable | None = None,
    ) -> _T:
        """Run a function in the thread, and return or raise what it does.

        Calls with the `key` of a job that waits or runs share its result. A job whose
        callers were all cancelled before it began is dropped. Raises BusyError where
        the queue is full or the worker closed.
        """
        future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        with self._changed:
            job = None if key is None else self._jobs_by_key.get(key)
            if job is None:
                job = _Job(function, arguments, key)
                self._enqueue(job)
            job.waiters.append(future)
        try:
            return await future
        finally:
            with self._changed:
                self._leave(job, future)

    def close(self, patience: float = 1.0) -> None:
        """Drop the queue, interrupt the running job, and wait `patience` seconds for it."""
        with self._changed:
            self._closed = True
            dropped = [*self._queue]
            if self._running is not None:
                dropped.insert(0, self._running)
                self._interrupt()
            self._queue.clear()
            self._jobs_by_key.clear()
            self._changed.notify()

        for job in dropped:
            self._publish(job, None, self._closed_error())
        if self._thread is not None:
            self._thread.join(patience)

    def _interrupt(self) -> None:
        """Raise an exception in the thread, as Ctrl-C interrupts the main thread.

        Python cannot end cleanly while a thread of its own runs torch.
        """
        if self._thread is not None:
            thread = ctypes.c_ulong(self._thread.ident or 0)
            error = ctypes.py_object(_Ended)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, error)

    def _enqueue(self, job: _Job) -> None:
        if self._closed:
            raise self._closed_error()
        if len(self._queue) >= self._places:
            raise BusyError(
                f"{len(self._queue)} requests wait for the {self.name} already: try "
                "again in a moment"
            )

        if self._thread is None:
            # A daemon thread lets an interrupted program end, even in the middle of a
            # step of the network that takes minutes.
            self._thread = threading.Thread(
                target=self._work, name=f"unitscope {self.name}", daemon=True
            )
            self._thread.start()
        self._queue.append(job)
        if job.key is not None:
            self._jobs_by_key[job.key] = job
        self._changed.notify()

    def _leave(self, job: _Job, future: asyncio.Future[Any]) -> None:
        if future in job.waiters:
            job.waiters.remove(future)
        if not job.waiters and job in self._queue:
            self._queue.remove(job)
            self._forget(job)

    def _forget(self, job: _Job) -> None:
        """Let later calls with the job's key start a new one."""
        if job.key is not None and self._jobs_by_key.get(job.key) is job:
            del self._jobs_by_key[job.key]

    def _closed_error(self) -> BusyError:
        return BusyError(
            f"the {self.name} takes no more requests, as the program is ending: start "
            "it again"
        )

    def _work(self) -> None:
        # One job a call: its local variables must not outlive it while the next is
        # awaited.
        while self._run_next():
            pass

    def _run_next(self) -> bool:
        """Wait for a job and run it; False where the worker was closed instead."""
        with self._changed:
            while not self._queue and not self._closed:
                self._changed.wait()
            if self._closed:
                return False
            job = self._running = self._queue.popleft()

        result, error = _outcome(job)
        with self._changed:
            self._running = None
            self._forget(job)
        self._publish(job, result, error)
        return True

    def _publish(self, job: _Job, result: Any, error: Exception | None) -> None:
        with self._changed:
            waiters = list(job.waiters)
        for future in waiters:
            # An event loop that has been closed raises RuntimeError.
            with contextlib.suppress(RuntimeError):
                loop = future.get_loop()
                loop.call_soon_threadsafe(_complete, future, result, error)


def _outcome(job: _Job) -> tuple[Any, Exception | None]:
    """The result of a job, or its error in a form that an event loop passes on."""
    try:
        return job.function(*job.arguments), None
    # Somebody's network may raise SystemExit, which must not end the server.
    except BaseException as error:
        # Event loops give these a meaning of their own.
        if isinstance(error, StopIteration) or not isinstance(error, Exception):
            return None, RuntimeError(f"{type(error).__name__}: {error}")
        return None, error


def _complete(
    future: asyncio.Future[Any], result: Any, error: Exception | None
) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
