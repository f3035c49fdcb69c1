"""Trial: a Parquet file read in another process first, which its damage may crash."""

from __future__ import annotations

import atexit
import contextlib
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

from unitscope.datasets.parquet import ParquetFile
from unitscope.errors import DatasetError

_CODE = (
    "import sys; sys.path[:] = {path!r}; "
    "from unitscope.datasets.trial import serve; serve()"
)


# Seconds for any file, and the bytes that another second is given for.
_PATIENCE = 60
_SLOWEST = 5_000_000


def check_readable(file: Path) -> None:
    """Raise DatasetError where reading a file crashes pyarrow.

    A file is tried once in a run, unless it is written anew. Damage that pyarrow
    itself notices is told by whoever reads the file.
    """
    try:
        status = file.stat()
    except OSError:
        return
    key = str(file.absolute()), status.st_size, status.st_mtime_ns
    with _LOCK:
        if key not in _SOUND:
            _READER.read(file.absolute())
            _SOUND.add(key)


def serve() -> None:
    """Read each file that standard input names, and answer with a line."""
    for line in sys.stdin:
        file = Path(json.loads(line))
        with contextlib.suppress(Exception):
            if hasattr(signal, "alarm"):
                # Damage may also keep pyarrow busy for ever.
                signal.alarm(_PATIENCE + file.stat().st_size // _SLOWEST)
            _read_all(file)
        print(flush=True)


def _read_all(file: Path) -> None:
    """Read what a data set reads of a file."""
    table = ParquetFile(file)
    table.labels()
    table.paths()
    for group in range(len(table.group_rows)):
        table.images(group).to_pylist()


class _Reader:
    """The other process, which is started for the first file, and again after a crash."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def read(self, file: Path) -> None:
        process = self._process or _started()
        if process is None:
            return
        self._process = process
        assert process.stdin is not None and process.stdout is not None
        try:
            with contextlib.suppress(OSError):
                print(json.dumps(str(file)), file=process.stdin, flush=True)
            has_answered = process.stdout.readline() == "\n"
        except BaseException:
            # The answer would be taken for that of the next file.
            self.close()
            raise
        if not has_answered:
            self.close()
            raise DatasetError(
                f"'{file}' is damaged, and reading it crashes or stops pyarrow: get a "
                "whole copy"
            )

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


def _started() -> subprocess.Popen[str] | None:
    """A new process; None where the system starts none, and files are read untried."""
    # No module of the user's is imported, as multiprocessing would.
    code = _CODE.format(path=sys.path)
    try:
        return subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
    except (OSError, ValueError):
        return None


_LOCK = threading.Lock()
_SOUND: set[tuple[str, int, int]] = set()
_READER = _Reader()
atexit.register(_READER.close)
