"""Worker: a process that applies a task to shards, and ends when its parent does."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable
from functools import cache
from types import FrameType
from typing import Any, NoReturn

import torch

from unitscope.atlas.shards.sending import Packed, unpacked
from unitscope.errors import RunnerError, one_line

TERMINATED = 128 + signal.SIGTERM
"""The exit status of a worker that was ended by SIGTERM."""
# How long the step that runs may clean up after itself, in seconds.
_PATIENCE = 5.0

_packed: Packed = b"", b""


class _Stopped(SystemExit):
    """Raised by SIGTERM in the main thread, so that half-written files are removed."""


def start(packed: Packed, threads: int) -> None:
    """Prepare this process; the task is unpacked when the first shard comes.

    An exception here would reach nobody.
    """
    global _packed
    _packed = packed
    # A terminal sends Ctrl-C to all of its processes. The main process handles it and
    # stops the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    signal.signal(signal.SIGTERM, _stop)


def run(shard: int) -> Any:
    """The result of the task on a shard; all it raises can be sent to the parent."""
    try:
        return _task()(shard)
    except _Stopped:
        # The executor would take it for an answer, and go on.
        os._exit(TERMINATED)
    except BaseException as error:
        if _can_be_sent(error):
            raise
        raise RunnerError(
            f"a worker process failed ({type(error).__name__}: {one_line(error)}): run "
            "with one worker to see where"
        ) from error


@cache
def _task() -> Callable[[int], Any]:
    return unpacked(_packed)


def _can_be_sent(error: BaseException) -> bool:
    """Whether an exception arrives in the parent as it is, and does not end that."""
    if not isinstance(error, Exception):
        return False
    try:
        arrived = pickle.loads(pickle.dumps(error))
    except Exception:  # Anybody's exception class may raise anything.
        return False
    return type(arrived) is type(error) and str(arrived) == str(error)


def _end_with_parent() -> None:
    """Wait for the end of the parent, however it comes, and end."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _stop(_signal: int, _frame: FrameType | None) -> NoReturn:
    # The network's own code may catch anything, or take minutes for one step.
    timer = threading.Timer(_PATIENCE, os._exit, (TERMINATED,))
    timer.daemon = True
    timer.start()
    raise _Stopped(TERMINATED)
