"""Files: whole or not at all, also when a process is killed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from unitscope.errors import OutputError
from unitscope.files import (
    clean_up,
    folder_written_whole,
    staging_folder,
    written_whole,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def abandoned(folder: Path, name: str) -> Path:
    """What a killed process leaves: a temporary folder whose lock nobody holds."""
    top = folder / ".unitscope-killed"
    (top / name).mkdir(parents=True)
    (top / "lock").touch()
    (top / name / "new.txt").write_text("new")
    return top


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with written_whole(path) as temporary:
        temporary.write_text("first")
    with pytest.raises(ZeroDivisionError), written_whole(path) as temporary:
        temporary.write_text("second")
        raise ZeroDivisionError
    assert path.read_text() == "first" and names(tmp_path) == ["a.txt"]


def test_a_file_is_as_readable_as_the_users_others(tmp_path: Path) -> None:
    usual, path = tmp_path / "usual.txt", tmp_path / "a.txt"
    usual.touch()
    with written_whole(path) as temporary:
        temporary.touch()
    assert path.stat().st_mode == usual.stat().st_mode


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "a.txt"
    with (
        pytest.raises(
            OutputError, match=r"there is no folder .*missing': make"
        ),
        written_whole(path),
    ):
        pass


def test_temporary_files_of_killed_processes_are_removed(
    tmp_path: Path,
) -> None:
    abandoned(tmp_path, "files")
    with written_whole(tmp_path / "a.txt") as temporary:
        temporary.touch()
    assert names(tmp_path) == ["a.txt"]


def test_files_that_only_had_to_be_moved_are_moved(tmp_path: Path) -> None:
    abandoned(tmp_path, "finished")
    (tmp_path / "new.txt").write_text("old")
    clean_up(tmp_path)
    assert names(tmp_path) == ["new.txt"]
    assert (tmp_path / "new.txt").read_text() == "new"


def test_temporary_files_of_living_processes_stay(tmp_path: Path) -> None:
    with staging_folder(tmp_path) as first, staging_folder(tmp_path) as second:
        (first / "a.txt").touch()
        command = [
            sys.executable,
            "-c",
            "import sys, pathlib; from unitscope.files import clean_up; "
            "clean_up(pathlib.Path(sys.argv[1]))",
            str(tmp_path),
        ]
        subprocess.run(command, check=True)
        assert (first / "a.txt").is_file() and second.is_dir()
    assert not list(tmp_path.iterdir())


def test_an_interrupted_move_leaves_a_new_folder_away(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    with pytest.raises(KeyboardInterrupt), folder_written_whole(out) as staging:
        (staging / "a.txt").touch()
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def killed(command: str, folder: Path, points: str) -> None:
    """Kill a command at several or all of its file operations; see killed.py."""
    done = subprocess.run(
        [
            sys.executable,
            str(Path(__file__).with_name("killed.py")),
            command,
            str(folder),
            points,
        ],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    document = json.loads(done.stdout)
    assert document["operations"] > 50 and document["tried"] > 0
    assert document["faults"] == {}


@pytest.mark.parametrize(
    "command",
    [
        "merge",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("scan", "export")
        ),
    ],
)
def test_the_same_command_ends_in_the_same_bytes_after_a_kill(
    command: str, tmp_path: Path
) -> None:
    killed(command, tmp_path, "3")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "command", ["scan", "concepts", "merge", "explain", "html", "export"]
)
def test_a_kill_at_any_file_operation_loses_nothing(
    command: str, tmp_path: Path
) -> None:
    killed(command, tmp_path, "all")


def test_a_file_that_is_never_written_is_an_error_in_one_line(
    tmp_path: Path,
) -> None:
    with (
        pytest.raises(OutputError, match=r"cannot write '.*a\.txt'"),
        written_whole(tmp_path / "a.txt"),
    ):
        pass
    assert not list(tmp_path.iterdir())
