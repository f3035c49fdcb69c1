"""Networks that print, exit and raise: standard output stays the command's own."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unitscope.cli import main

NETWORK = """
import ctypes, os, sys
from torch import nn
{import_}
class Odd(BaseException):
    pass
class Net(nn.Module):
    def __init__(self, num_classes=5):
        super().__init__()
        {build}
        self.conv = nn.Conv2d(3, 4, 3, stride=2)
        self.fc = nn.Linear(4, num_classes)
    def forward(self, x):
        {forward}
        return self.fc(self.conv(x).relu().mean((2, 3)))
"""
PRINTING = (
    'print("words"); os.write(1, b"words"); ctypes.CDLL(None).printf(b"words"); '
    'sys.__stdout__.write("words")'
)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def network(
    folder: Path, import_: str = "", build: str = "pass", forward: str = "pass"
) -> list[str]:
    path = folder / "net.py"
    path.write_text(
        NETWORK.format(import_=import_, build=build, forward=forward)
    )
    return [
        *("--model", f"python:{path}:Net"),
        *("--preprocessing", "resize=36,crop=32"),
    ]


@pytest.mark.parametrize("verb", ["explain", "ablate", "info"])
def test_what_a_network_prints_stays_out_of_json(
    verb: str,
    photo: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = network(tmp_path, PRINTING, PRINTING, PRINTING)
    photos = [] if verb == "info" else [str(photo)]
    with open(1, "w", closefd=False) as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert main([verb, *photos, *options, "--json"]) == 0
        assert sys.stdout is stream
        print("afterwards")
    printed, told = capfd.readouterr()
    document, end = json.JSONDecoder().raw_decode(printed)
    assert document and printed[end:].split() == ["afterwards"]
    assert "words" in told


@pytest.mark.parametrize("place", ["import_", "build", "forward"])
@pytest.mark.parametrize(
    "fault", ["raise SystemExit(3)", "raise GeneratorExit", "raise OWN"]
)
def test_whatever_a_network_raises_is_one_line(
    place: str,
    fault: str,
    photo: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    own = "type('Odd', (BaseException,), {})('odd')"
    fault = fault.replace("OWN", own)
    options = network(tmp_path, **{place: fault})
    assert main(["explain", str(photo), *options, "--json"]) == 1
    printed, told = capsys.readouterr()
    assert not printed and told.count("\n") == 1
    assert told.startswith("unitscope: ") and "internal" not in told
