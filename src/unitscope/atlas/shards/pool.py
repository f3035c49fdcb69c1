"""Shard pool: processes a list of shards, in this process or in several others."""

from __future__ import annotations

import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, TypeVar

from unitscope.atlas.shards import worker
from unitscope.atlas.shards.sending import packed
from unitscope.errors import InputError, RunnerError

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

        threads = max(1, (os.cpu_count() or 1) // self._workers)
        context = _Context()
        executor = ProcessPoolExecutor(
            self._workers, context, worker.start, (packed(task), threads)
        )
        try:
            yield from self._results(executor, shards)
        except BrokenProcessPool:
            executor.shutdown(wait=True)
            raise RunnerError(_cause_of_death(context.exit_codes())) from None
        except BaseException:
            # A shard is committed whole or not at all: the next scan begins it anew.
            context.terminate()
            raise
        finally:
            executor.shutdown(wait=True, cancel_futures=True)

    def _results(
        self, executor: ProcessPoolExecutor, shards: Sequence[int]
    ) -> Iterator[Any]:
        # Submit few at a time: a result stays in memory until it is taken.
        waiting = iter(shards)
        first = islice(waiting, 2 * self._workers)
        running = {executor.submit(worker.run, shard) for shard in first}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            following = islice(waiting, len(done))
            running |= {
                executor.submit(worker.run, shard) for shard in following
            }
            yield from (future.result() for future in done)


class _Context(SpawnContext):
    """Spawns processes and remembers them: an executor does not tell how one died.

    A fork would copy a process whose threads hold locks.
    """

    def __init__(self) -> None:
        super().__init__()
        self._processes: list[SpawnProcess] = []

    def Process(self, *args: Any, **options: Any) -> SpawnProcess:  # type: ignore[override]
        """A new process."""
        process = SpawnProcess(*args, **options)
        self._processes.append(process)
        return process

    def exit_codes(self) -> list[int]:
        """How the processes ended; negative for the signal that ended one."""
        codes = (process.exitcode for process in self._processes)
        return [code for code in codes if code is not None]

    def terminate(self) -> None:
        """End the processes, which remove what they have half written."""
        for process in self._processes:
            # One may be about to start.
            if process.is_alive():
                process.terminate()


def _cause_of_death(codes: Sequence[int]) -> str:
    """Why a worker died, and the remedy. The executor itself ends all the others."""
    again = "run the same command again; it resumes where it stopped"
    ended_by_executor = (0, -signal.SIGTERM, worker.TERMINATED)
    own = [code for code in codes if code not in ended_by_executor]
    if not own:
        return f"a worker process was stopped (SIGTERM): {again}"
    code = own[0]
    if code > 0:
        return (
            f"a worker process ended by itself (exit status {code}; what it said is "
            "above): a script that scans with workers must do so under if __name__ == "
            "'__main__', since every worker imports it; else use one worker"
        )
    name = _signal_name(-code)
    if name == "SIGKILL":
        return (
            "a worker process was killed (SIGKILL), as the system does when memory "
            "runs out: run the same command again with fewer workers; it resumes where "
            "it stopped"
        )
    return (
        f"a worker process crashed ({name}) in a library that the network uses: {again}, "
        "with one worker if it crashes again"
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
