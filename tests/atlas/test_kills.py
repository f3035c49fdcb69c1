"""Kills: after one at any file operation the same command ends in the same bytes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

KILLED = Path(__file__).parents[1] / "killed.py"


def check(commands: list[str], folder: Path, points: str) -> None:
    command = [sys.executable, str(KILLED), ",".join(commands), str(folder)]
    done = subprocess.run(
        [*command, points], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["command"] for each in found] == commands
    for each in found:
        assert each["tried"] and not each["faults"], each


def test_a_kill_leaves_nothing_that_the_same_command_does_not_mend(
    tmp_path: Path,
) -> None:
    check(["merge"], tmp_path, "1")


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", ["scan", "concepts", "merge", "explain", "html", "export"]
)
def test_a_kill_anywhere_leaves_nothing(command: str, tmp_path: Path) -> None:
    check([command], tmp_path, "all")
