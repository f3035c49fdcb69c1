"""Runners: do the shards of some work, here or in processes beside."""

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
class Telling:
    """Work that says how far it is, by calling `told` with the images done and skipped since the last time."""

    told: Callable[[int, int], None] | None = field(default=None, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        # A bar is drawn in one process only.
        return {**vars(self), "told": None}

    def tell(self, images: int, skipped: int) -> None:
        """Tell of some more images."""
        if self.told is not None:
            self.told(images, skipped)


class Runner(ABC):
    """Maps work over shards; results come in any order, each shard once."""

    @property
    def alone(self) -> bool:
        """Whether the work is done in this process, one shard after the other."""
        return False

    @abstractmethod
    def run(
        self, work: Callable[[int], _Result], shards: Sequence[int]
    ) -> Iterator[_Result]:
        """The results of `work(shard)`; what it raises is raised here, and shards not begun are left."""


class LocalRunner(Runner):
    """Runs shards on this machine: in this process, or in `workers` processes that share its processors.

    Work that goes to other processes must be picklable. Raises RunnerError where it is
    not, or where a process dies.
    """

    def __init__(self, workers: int = 1) -> None:
        if workers < 1:
            raise InputError(f"the number of workers is at least 1, not {workers}")
        self._workers = workers

    @property
    def alone(self) -> bool:
        """Whether the work is done in this process, one shard after the other."""
        return self._workers == 1

    def run(
        self, work: Callable[[int], _Result], shards: Sequence[int]
    ) -> Iterator[_Result]:
        """See Runner."""
        if self._workers == 1:
            yield from map(work, shards)
            return
        try:
            packed = pickle.dumps(work)
        except Exception as error:  # it is the user's module, which may hold anything
            raise RunnerError(
                f"the model cannot be sent to other processes ({one_line(error)}): use "
                "one worker"
            ) from None
        threads = max(1, (os.cpu_count() or 1) // self._workers)
        # A fork would copy a process whose threads hold locks.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(
            self._workers, context, _begin, (packed, threads)
        ) as pool:
            waiting = iter(shards)
            # A few at a time: a finished shard's result stays in memory until it is
            # taken.
            running = {
                pool.submit(_do, shard) for shard in islice(waiting, 2 * self._workers)
            }
            try:
                while running:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    running |= {
                        pool.submit(_do, shard) for shard in islice(waiting, len(done))
                    }
                    yield from (future.result() for future in done)
            except BrokenProcessPool:
                raise RunnerError(
                    "a worker process died, perhaps for want of memory: run the same "
                    "command again, which goes on "
                    "where it stopped, with fewer workers"
                ) from None
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


_work: Any = None


def _begin(packed: bytes, threads: int) -> None:
    global _work
    # Ctrl-C is told to all processes of a terminal: the one that was asked to work says
    # so, and ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    _work = pickle.loads(packed)


def _do(shard: int) -> Any:
    return _work(shard)
