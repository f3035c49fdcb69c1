"""Shard pool: processes a list of shards, in this process or in several others."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeVar

import torch

from unitscope.errors import InputError, RunnerError, one_line

_Result = TypeVar("_Result")


@dataclass(kw_only=True)
class ShardTask:
    """The work on a shard, which may report its progress.

    `on_progress` is called with the numbers of images done and skipped since the last
    call. It is not copied to other processes, as only one of them draws a progress bar.
    """

    on_progress: Callable[[int, int], None] | None = field(
        default=None, repr=False
    )

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "on_progress": None}

    def report(self, done: int, skipped: int) -> None:
        """Report further images."""
        if self.on_progress is not None:
            self.on_progress(done, skipped)


class ShardPool(ABC):
    """Applies a task to shards; results come in any order, each shard once."""

    @property
    def in_process(self) -> bool:
        """Whether the work is done in this process, one shard after the other."""
        return False

    @abstractmethod
    def run(
        self, task: Callable[[int], _Result], shards: Sequence[int]
    ) -> Iterator[_Result]:
        """The results of `task(shard)`.

        An exception of a task is raised here; shards that were not started are then
        skipped.
        """


class LocalPool(ShardPool):
    """Processes shards on this machine: in this process, or in `workers` others.

    The others share the machine's processors. A task for other processes must be
    picklable. Raises RunnerError where it is not, or where a process dies.
    """

    def __init__(self, workers: int = 1) -> None:
        if workers < 1:
            raise InputError(
                f"the number of workers is at least 1, not {workers}"
            )
        self._workers = workers

    @property
    def in_process(self) -> bool:
        """Whether the work is done in this process, one shard after the other."""
        return self._workers == 1

    def run(
        self, task: Callable[[int], _Result], shards: Sequence[int]
    ) -> Iterator[_Result]:
        """See ShardPool."""
        if self.in_process:
            yield from map(task, shards)
            return

        payload = _pickled(task)
        threads = max(1, (os.cpu_count() or 1) // self._workers)
        # A fork would copy a process whose threads hold locks.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(
            self._workers,
            context,
            _start_worker,
            (payload, threads),
        ) as executor:
            try:
                yield from self._results(executor, shards)
            except BrokenProcessPool:
                raise RunnerError(
                    "a worker process died, perhaps for lack of memory: run the same "
                    "command again with fewer workers; it resumes where it stopped"
                ) from None
            finally:
                executor.shutdown(wait=True, cancel_futures=True)

    def _results(
        self, executor: ProcessPoolExecutor, shards: Sequence[int]
    ) -> Iterator[Any]:
        # Submit few at a time: a result stays in memory until it is taken.
        waiting = iter(shards)
        first = islice(waiting, 2 * self._workers)
        running = {executor.submit(_run_task, shard) for shard in first}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            following = islice(waiting, len(done))
            running |= {
                executor.submit(_run_task, shard) for shard in following
            }
            yield from (future.result() for future in done)


def _pickled(task: Callable[[int], Any]) -> bytes:
    try:
        return pickle.dumps(task)
    except Exception as error:  # the user's module may raise anything
        raise RunnerError(
            f"the model cannot be sent to other processes ({one_line(error)}): use "
            "one worker"
        ) from None


# The task of a worker process.
_task: Any = None


def _start_worker(payload: bytes, threads: int) -> None:
    global _task
    # A terminal sends Ctrl-C to all of its processes. The main process handles it and
    # stops the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    _task = pickle.loads(payload)


def _run_task(shard: int) -> Any:
    return _task(shard)
