"""Kills a command at its n-th file operation, and runs it again.

    python tests/killed.py COMMAND,COMMAND FOLDER POINTS

Every run is a fork of this process, so that libraries are imported once. It is killed as
by `kill -9`: no exception, no `finally`. POINTS is how many of the operations are tried,
spread evenly, or "all". Prints a line of JSON for each command: how many operations
there are, how many were tried, and what went wrong.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from scans import CLASSES, OPTIONS, make, photo
from unitscope.atlas.atlas import Atlas
from unitscope.atlas.merging import merge
from unitscope.atlas.scanning import scan
from unitscope.evaluation.evaluating import evaluate
from unitscope.explorer.static_copy import export
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import Classifier
from unitscope.render.reporting import report

_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link")
_OF_RUNS = ("runs.jsonl", "lock")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def model() -> Classifier:
    return make(Preprocessing(resize=36, crop=32))


def prepare(folder: Path) -> None:
    """What the commands read: photos, a finished atlas, and the two parts of one."""
    for number in range(20):
        path = folder / "photos" / CLASSES[number % 5] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo(number).save(path)
        write_masked(folder / "masked", number)
    scan(model(), folder / "photos", folder / "whole", **OPTIONS)
    for part in (1, 2):
        out = folder / f"part{part}"
        scan(model(), folder / "photos", out, part=(part, 2), **OPTIONS)


def write_masked(folder: Path, number: int) -> None:
    """A photo whose left half is concept 1, and its right half concept 2."""
    index = np.ones((36, 40), np.uint8)
    index[:, 20:] = 2
    for kind, image in (
        ("images", photo(number)),
        ("annotations", Image.fromarray(index)),
    ):
        path = folder / kind / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)


def run_scan(folder: Path, out: Path) -> None:
    scan(model(), folder / "photos", out, **OPTIONS)


def run_concepts(folder: Path, out: Path) -> None:
    masked = folder / "masked"
    names = ["left", "right"]
    scan(
        model(),
        masked / "images",
        out,
        concepts=masked,
        concept_names=names,
        **OPTIONS,
    )


def run_merge(folder: Path, out: Path) -> None:
    merge([folder / "part1", folder / "part2"], out)


def run_explain(folder: Path, out: Path) -> None:
    report(model(), photos_in(folder), out, top=1, unit_count=1)


def run_html(folder: Path, out: Path) -> None:
    export(Atlas.open(folder / "whole"), out, images=2)


def run_export(folder: Path, out: Path) -> None:
    atlas = Atlas.open(folder / "whole")
    photos = photos_in(folder)
    export(atlas, out, model=model(), photos=photos, images=2)


def run_evaluate(folder: Path, out: Path) -> None:
    evaluate(model(), folder / "photos", measures="deletion", out=out)


def photos_in(folder: Path) -> list[Path]:
    return sorted((folder / "photos" / "ash").iterdir())[:2]


COMMANDS: dict[str, Callable[[Path, Path], None]] = {
    "scan": run_scan,
    "concepts": run_concepts,
    "merge": run_merge,
    "explain": run_explain,
    "html": run_html,
    "export": run_export,
    "evaluate": run_evaluate,
}


class Operations:
    """Counts the changes to files in a folder, and kills the process at one of them."""

    def __init__(self, folder: Path, fatal: int | None) -> None:
        self.count = 0
        self._folder = str(folder)
        self._fatal = fatal

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            within = str(path).startswith(self._folder)
            if not within or not (flags or 0) & _WRITING:
                return
        elif event not in _CHANGES:
            return

        self.count += 1
        if self.count == self._fatal:
            os.kill(os.getpid(), signal.SIGKILL)


def forked(work: Callable[[], None]) -> int:
    """Do some work in a fork; returns its wait status."""
    child = os.fork()
    if child == 0:
        try:
            torch.set_num_threads(1)
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def contents(out: Path) -> dict[str, str]:
    """The hashes of all files, and the folders; not what tells of the runs."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if path.is_dir():
            found[name] = "a folder"
        elif path.name not in _OF_RUNS:
            digest = hashlib.sha256(path.read_bytes())
            found[name] = digest.hexdigest()
    return found


def count_operations(folder: Path, out: Path, command: str) -> int:
    """How many file operations a whole run takes; its result stays in `out`."""
    answer = folder / "operations"

    def work() -> None:
        operations = Operations(folder, fatal=None)
        sys.addaudithook(operations)
        COMMANDS[command](folder, out)
        answer.write_text(str(operations.count))

    assert forked(work) == 0
    return int(answer.read_text())


def fault_at(
    folder: Path, out: Path, command: str, fatal: int, expected: dict[str, str]
) -> str:
    """What is wrong after a kill at one operation and another run; empty if nothing."""
    shutil.rmtree(out, ignore_errors=True)

    def killed() -> None:
        sys.addaudithook(Operations(folder, fatal))
        COMMANDS[command](folder, out)

    status = forked(killed)
    if not os.WIFSIGNALED(status):
        return "" if status == 0 else "it failed before it was killed"
    if forked(lambda: COMMANDS[command](folder, out)) != 0:
        return "the same command fails afterwards"

    found = contents(out)
    names = sorted(
        name
        for name in {*found, *expected}
        if found.get(name) != expected.get(name)
    )
    return f"other contents: {', '.join(names[:5])}" if names else ""


def main(commands: str, folder: Path, points: str) -> None:
    assert forked(lambda: prepare(folder)) == 0
    for command in commands.split(","):
        try_out(command, folder, points)


def try_out(command: str, folder: Path, points: str) -> None:
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    operations = count_operations(folder, out, command)
    expected = contents(out)

    tried = range(1, operations + 1)
    if points != "all":
        step = max(1, operations // int(points))
        tried = range(1 + operations % step, operations + 1, step)
    faults = {
        fatal: fault
        for fatal in tried
        if (fault := fault_at(folder, out, command, fatal, expected))
    }
    document = {
        "command": command,
        "operations": operations,
        "tried": len(tried),
        "faults": faults,
    }
    print(json.dumps(document), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
