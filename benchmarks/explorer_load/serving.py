"""The explorer's server, as a process of its own."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator

Address = tuple[str, int]


@contextlib.contextmanager
def server(arguments: list[str]) -> Iterator[Address]:
    """`unitscope explore`, on a free port, and the address of it."""
    options = ["--port", "0", "--no-browser", *arguments]
    command = [sys.executable, "-m", "unitscope", "explore", *options]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    try:
        match = re.search(r"http://([^:]+):(\d+)/", program.stdout.readline())
        if match is None:
            raise SystemExit("the server did not start")
        yield match[1], int(match[2])
    finally:
        program.send_signal(signal.SIGINT)
        program.wait()
