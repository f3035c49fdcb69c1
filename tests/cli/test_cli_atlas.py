"""Scanning and reading atlases from the command line, run for real."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_cli import NETWORK, SCHEMA, model, photo, refused, run

from unitscope.atlas.atlas import Atlas
from unitscope.cli import cli, main

__all__ = ["model", "photo"]

SMALL = [
    "--engine",
    "torch",
    "--batch-size",
    4,
    "--shard-size",
    8,
    "--top",
    3,
    "--sample",
    4,
]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return photos_in(tmp_path)


def photos_in(folder: Path) -> Path:
    """Photos of three classes with masks of two concepts, and a file that is none."""
    random = np.random.default_rng(0)
    for number in range(24):
        name = f"{('class 1', 'class 4', 'else')[number % 3]}/{number:02}.png"
        pixels = random.integers(0, 255, (40, 48, 3), dtype=np.uint8)
        mask = np.zeros((40, 48), np.uint8)
        mask[10:30, 10:20], mask[:10] = 1, 2
        for kind, array in (("images", pixels), ("annotations", mask)):
            path = folder / "set" / kind / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
    (folder / "set" / "names.txt").write_text("pole\nsky\n")
    (folder / "set" / "images" / "else" / "broken.jpg").write_text("no photo")
    return folder / "set"


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An atlas with concepts, which the tests only read."""
    root = tmp_path_factory.mktemp("atlas")
    photos, out, net = photos_in(root), root / "atlas", root / "net.py"
    net.write_text(NETWORK)
    arguments = [
        "scan",
        photos / "images",
        "--model",
        f"python:{net}:Net",
        "--preprocessing",
        "resize=40,crop=32",
        "--out",
        out,
        "--concepts",
        photos,
        *SMALL,
    ]
    printed, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(err):
        status = main([str(argument) for argument in arguments])
    assert (status, err.getvalue()) == (0, "")
    assert (
        "24 images, 1 skipped" in printed.getvalue()
        and "2 of the data set's 3 classes are classes of the model"
        in printed.getvalue()
    )
    assert (
        "detectors" in printed.getvalue() and "by chance" in printed.getvalue()
    )
    return out


def rows(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    status, out, err = run(capsys, "atlas", *arguments, "--json")
    assert (status, err) == (0, "")
    document = json.loads(out)
    SCHEMA.validate(document)
    return document["rows"] if document["kind"] == "rows" else document


def test_what_is_read_out_of_an_atlas(
    capsys: pytest.CaptureFixture[str], atlas: Path
) -> None:
    opened = Atlas.open(atlas)
    assert rows(capsys, "info", atlas)["manifest"]["scanned"] == {
        "images": 24,
        "skipped": 1,
        "notes": [],
    }
    units = rows(capsys, "units", atlas)
    assert [row["unit"] for row in units] == list(range(12))
    best = rows(capsys, "units", atlas, "--sort", "maximum", "--top", 3)
    assert [row["maximum"] for row in best] == sorted(
        (row["maximum"] for row in units), reverse=True
    )[:3]
    of_class = rows(capsys, "units", atlas, "--class", "class 4")
    importance = [row["importance"] for row in of_class]
    assert importance == sorted(importance, reverse=True) and all(
        "class_mean" in row for row in of_class
    )
    assert {
        row["name"] for row in rows(capsys, "units", atlas, "--detectors")
    } <= {
        "pole",
        "sky",
    }
    assert (
        not rows(capsys, "units", atlas, "--dead")
        or opened.table("units").column("dead").to_pylist()
    )
    assert [row["name"] for row in rows(capsys, "classes", atlas)] == [
        "class 1",
        "class 4",
        "else",
    ]
    assert len(rows(capsys, "classes", atlas, "--unit", 5)) == 3
    assert {row["name"] for row in rows(capsys, "concepts", atlas)} == {
        "pole",
        "sky",
    }
    assert {
        row["name"] for row in rows(capsys, "concepts", atlas, "--unit", 5)
    } <= {
        "pole",
        "sky",
    }
    without = rows(
        capsys, "ablation", atlas, "--unit", 3, "--unit", 3, "--unit", 7
    )
    assert {row["class"] for row in without["classes"]} == {
        "class 1",
        "class 4",
    } and 0 <= without["after"]["value"] <= 1
    removed = rows(capsys, "ablation", atlas, "--class", "class 1")
    assert (
        removed[0]["removed"] == "none" and removed[-1]["removed"] == "chance"
    )


@pytest.mark.parametrize(
    "query",
    [
        ["info"],
        ["units"],
        ["units", "--class", "class 4"],
        ["classes"],
        ["concepts"],
        ["ablation", "--unit", "1"],
    ],
)
def test_the_same_as_text(
    capsys: pytest.CaptureFixture[str], atlas: Path, query: list[str]
) -> None:
    status, out, err = run(capsys, "atlas", query[0], atlas, *query[1:])
    assert (
        (status, err) == (0, "")
        and len(out.splitlines()) > 2
        and "None" not in out
        and "nan" not in out
    )


def test_parts_are_merged(
    capsys: pytest.CaptureFixture[str],
    photos: Path,
    model: list[str],
    tmp_path: Path,
    atlas: Path,
) -> None:
    parts = [tmp_path / f"part{which}" for which in (1, 2)]
    for which, part in enumerate(parts, 1):
        arguments = (
            "scan",
            photos / "images",
            *model,
            "--out",
            part,
            "--part",
            f"{which}/2",
            *SMALL,
        )
        assert run(capsys, *arguments)[0] == 0
    status, out, _ = run(
        capsys, "atlas", "merge", *parts, "--out", tmp_path / "merged"
    )
    assert status == 0 and "24 images" in out
    assert rows(capsys, "classes", tmp_path / "merged") == rows(
        capsys, "classes", atlas
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["units", "{atlas}", "--class", "class 9"],
            "no class 'class 9' among the 3 labels",
        ),
        (["units", "{atlas}", "--concept", "skye"], "did you mean 'sky'"),
        (
            ["units", "{atlas}", "--layer", "conv9"],
            "layer 'conv9' is not in this atlas",
        ),
        (["classes", "{atlas}", "--unit", "99"], "there is no unit 99"),
        (["ablation", "{atlas}", "--unit", "99"], "there is no unit 99"),
        (["info", "nowhere"], "unitscope scan SOURCE --out"),
        (
            ["merge", "{atlas}", "nowhere", "--out", "x"],
            "there is no atlas in 'nowhere'",
        ),
    ],
)
def test_wrong_questions(
    capsys: pytest.CaptureFixture[str],
    atlas: Path,
    arguments: list[str],
    words: str,
) -> None:
    assert words in refused(
        capsys, "atlas", *(one.format(atlas=atlas) for one in arguments)
    )


def test_wrong_usage_exits_with_two(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for arguments in (
        ["scan", tmp_path],
        ["scan", tmp_path, "--out", tmp_path / "x", "--part", "one"],
        ["scan", tmp_path, "--out", tmp_path / "x", "--workers", "0"],
        ["atlas", "ablation", tmp_path],
        ["atlas", "ablation", tmp_path, "--unit", 1, "--class", "x"],
        ["atlas", "units", tmp_path, "--sort", "beauty"],
    ):
        assert run(capsys, *arguments)[0] == 2


def test_a_source_that_is_none(
    capsys: pytest.CaptureFixture[str], model: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "atlas"
    assert "nothing" in refused(
        capsys, "scan", tmp_path / "nothing", *model, "--out", out
    )
    (tmp_path / "empty").mkdir()
    refused(capsys, "scan", tmp_path / "empty", *model, "--out", out)
    assert not out.exists()


def test_every_verb_of_the_group_documents_itself_with_an_example(
    capsys: pytest.CaptureFixture[str],
) -> None:
    group: Any = cli.commands["atlas"]
    for name in group.commands:
        status, out, _ = run(capsys, "atlas", name, "--help")
        assert status == 0 and f"unitscope atlas {name}" in out


def test_ctrl_c_stops_a_scan_and_the_same_command_goes_on(
    capsys: pytest.CaptureFixture[str], photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "net.py").write_text(
        NETWORK.replace(
            "x = self.conv2",
            "__import__('time').sleep(0.05)\n        x = self.conv2",
        )
    )
    command = [
        sys.executable, "-m", "unitscope", "scan", str(photos / "images"),
        "--out", str(tmp_path / "out"),
        "--model", f"python:{tmp_path / 'net.py'}:Net", "--preprocessing", "resize=40,crop=32",
        "--batch-size", "1", "--shard-size", "2", "--engine", "torch",
    ]  # fmt: skip
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )
    summaries = tmp_path / "out" / "summaries.safetensors"
    limit = time.monotonic() + 60
    while not summaries.exists() and time.monotonic() < limit:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (
        process.returncode == 130
        and err.strip() == "unitscope: interrupted"
        and out == ""
    )
    status, printed, _ = run(capsys, *command[3:])
    assert status == 0 and "24 images, 1 skipped" in printed
