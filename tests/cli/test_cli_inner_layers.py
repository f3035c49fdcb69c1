"""ablate --screen, units --inputs, and the strip of layers in reports, run for real."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from test_cli import NETWORK, SCHEMA, photo, run

from report_page import check

__all__ = ["photo"]


@pytest.fixture
def model(tmp_path: Path) -> list[str]:
    """The network of the other tests, with its first activation as a layer."""
    path = tmp_path / "net.py"
    written = NETWORK.replace(
        "self.fc =", "self.relu1 = nn.ReLU()\n        self.fc ="
    ).replace("self.conv1(x).relu()", "self.relu1(self.conv1(x))")
    path.write_text(written)
    chosen = ["--preprocessing", "resize=40,crop=32"]
    return ["--model", f"python:{path}:Net", *chosen]


def test_a_screening_is_printed_drawn_and_written_as_json(
    capsys: pytest.CaptureFixture[str],
    photo: Path,
    model: list[str],
    tmp_path: Path,
) -> None:
    out = tmp_path / "pictures"
    screen = ["ablate", photo, *model, "--screen", "--verify", 4, "--top", 3]
    status, printed, _ = run(capsys, *screen, "--out", out)
    assert status == 0
    assert "28 units of 3 layers, estimated to first order" in printed
    assert printed.count("measured") == 3 and "drawn at random" in printed
    assert [path.name for path in out.glob("*")] == ["a-photo-layers.png"]

    _, printed, _ = run(capsys, *screen, "--json")
    document = json.loads(printed)
    SCHEMA.validate(document)
    (record,) = document["photos"]
    names = [layer["layer"] for layer in record["layers"]]
    assert names == ["conv1", "relu1", "conv2"]
    for layer in record["layers"]:
        sizes = np.abs(layer["estimates"])
        assert layer["total"] == pytest.approx(float(sizes.sum()))
        assert layer["largest"] == pytest.approx(float(sizes.max()))
    assert len(record["top"]) == 3 and len(record["verified"]["sample"]) == 4

    _, printed, _ = run(
        capsys,
        *["ablate", photo, *model, "--screen", "--layer", "conv2"],
        *["--class", "class 3", "--json"],
    )
    (record,) = json.loads(printed)["photos"]
    assert (record["label"], record["verified"]) == ("class 3", None)
    assert [layer["layer"] for layer in record["layers"]] == ["conv2"]


def test_the_inputs_of_units_are_printed_drawn_and_written_as_json(
    capsys: pytest.CaptureFixture[str],
    photo: Path,
    model: list[str],
    tmp_path: Path,
) -> None:
    out = tmp_path / "pictures"
    inputs = ["units", photo, *model, "--layer", "conv2", "--inputs"]
    status, printed, _ = run(
        capsys, *inputs, "--unit", "3,5", "--cell", "1,2", "--out", out
    )
    assert status == 0
    assert "unit 3 of 'conv2', cell 1,2: pre-activation" in printed
    assert "of relu1" in printed and "bias" in printed
    assert len(list(out.glob("*-conv2-unit-*-inputs.png"))) == 2

    _, printed, _ = run(
        capsys, *inputs, "--unit", 3, "--cell", "mean", "--json"
    )
    document = json.loads(printed)
    SCHEMA.validate(document)
    (record,) = document["units"]
    assert record["cell"] is None and record["summand_count"] == 8
    total = sum(each["contribution"] for each in record["summands"])
    assert record["value"] == pytest.approx(total + record["bias"], abs=1e-5)


_OF_CONV2 = ("--layer", "conv2", "--inputs")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ablate", "--verify", "3"], "--screen"),
        (["ablate", "--screen", "--unit", "1"], "leave out --unit"),
        (["ablate", "--screen", "--maximal"], "leave out --maximal"),
        (["ablate", "--screen", "--effect", "direct"], "--effect direct"),
        (["units", "--unit", "1", "--inputs"], "--layer"),
        (["units", "--unit", "1", "--cell", "1,2"], "--inputs"),
        (
            ["units", "--unit", "1", *_OF_CONV2, "--cell", "one"],
            "ROW,COL",
        ),
        (
            ["units", "--unit", "1.2", *_OF_CONV2],
            "not the number of a unit",
        ),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(
    capsys: pytest.CaptureFixture[str],
    photo: Path,
    model: list[str],
    arguments: list[str],
    message: str,
) -> None:
    verb, *others = arguments
    status, printed, said = run(capsys, verb, photo, *model, *others)
    assert status == 2 and not printed
    assert message in said


def test_what_is_no_sum_fails_with_one_line(
    capsys: pytest.CaptureFixture[str], photo: Path, model: list[str]
) -> None:
    status, _, said = run(
        capsys,
        *["units", photo, *model, "--layer", "conv2", "--unit", 1],
        *["--inputs", "--cell", "99,0"],
    )
    assert status == 1 and said.count("\n") == 1
    assert "there is no cell (99, 0): the map has 8×8 cells" in said


def test_the_report_of_one_photo_has_the_strip_and_that_of_several_has_not(
    capsys: pytest.CaptureFixture[str],
    photo: Path,
    model: list[str],
    tmp_path: Path,
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    run(capsys, "explain", photo, *model, "--out", one)
    page = check((one / "report.html").read_text("utf-8"))
    assert "Which layers carry the prediction" in page.text
    assert "layers" in page.ids and (one / "layers.png").exists()
    record = json.loads((one / "explanation.json").read_text("utf-8"))
    SCHEMA.validate(record)
    (account,) = record["photos"]
    layers = account["screening"]["layers"]
    assert [each["layer"] for each in layers] == ["conv1", "relu1", "conv2"]
    assert "estimates" not in layers[0]
    first = account["cams"][0]
    assert account["screening"]["label"] == first["label"]

    run(
        capsys,
        *["explain", photo, photo, *model, "--out", two, "--no-pieces"],
    )
    for report in two.glob("*/report.html"):
        page = check(report.read_text("utf-8"))
        assert "Which layers carry" not in page.text
        assert "layers" not in page.ids
