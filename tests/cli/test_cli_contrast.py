"""`explain --against`, run for real: the margin in text, JSON and reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_cli import SCHEMA, model, photo, refused, run

__all__ = ["model", "photo"]


def asked(
    capsys: pytest.CaptureFixture[str], *arguments: object
) -> dict[str, Any]:
    """The first photo of a JSON document, which has the schema."""
    status, out, _ = run(capsys, "explain", *arguments, "--json")
    assert status == 0
    document = json.loads(out)
    SCHEMA.validate(document)
    result: dict[str, Any] = document["photos"][0]
    return result


def test_numbers_in_json_add_up(
    capsys: pytest.CaptureFixture[str], photo: Path, model: list[str]
) -> None:
    answer = asked(capsys, photo, *model)
    contrast, flip = answer["contrast"], answer["flip"]
    first, second = answer["predictions"][:2]
    assert contrast["a"]["index"] == first["index"]
    assert contrast["b"]["index"] == second["index"]
    margin = first["logit"] - second["logit"]
    sides = contrast["units_for_a"] + contrast["units_for_b"]
    total = sum(unit["contribution"] for unit in sides)
    for rebuilt in (
        contrast["margin"],
        total + contrast["other_units"] + contrast["left_out"],
        sum(contrast["parts"].values()),
    ):
        assert rebuilt == pytest.approx(margin, abs=1e-5)
    cells = [cell for row in contrast["map"] for cell in row]
    mean = sum(cells) / len(cells)
    assert mean + contrast["left_out"] == pytest.approx(margin, abs=1e-5)
    assert flip["from"]["index"] == first["index"] and flip["of"] == "units"
    assert flip["minimal"] and flip["most"] is None
    if flip["to"] is not None:
        assert flip["confirmed"] is True
        assert flip["margin_before"] > 0 > flip["margin_after"]


def test_a_class_is_asked_for_in_text_and_json(
    capsys: pytest.CaptureFixture[str],
    photo: Path,
    model: list[str],
    tmp_path: Path,
) -> None:
    answer = asked(capsys, photo, *model)
    first, last = answer["predictions"][0], answer["predictions"][-1]
    against = asked(capsys, photo, *model, "--against", last["label"])
    contrast = against["contrast"]
    assert contrast["b"] == {
        key: last[key] for key in ("label", "index", "logit")
    }
    assert contrast["question"] == f"why {first['label']}, not {last['label']}"

    out = tmp_path / "out"
    status, text, _ = run(
        capsys,
        *("explain", photo, *model, "--no-pieces"),
        *("--against", last["index"], "--out", out),
    )
    assert status == 0
    assert f"why {first['label']}, not {last['label']}: " in text
    assert "= margin" in text and "bias" in text and " logits\n" in text
    assert "overtakes" in text or "lets" in text
    page = (out / "report.html").read_text("utf-8")
    assert f"Why {first['label']}, not {last['label']}" in page
    # Without the option the text is as short as ever.
    _, text, _ = run(capsys, "explain", photo, *model, "--out", out)
    assert "margin" not in text and (out / "contrast.png").exists()


def test_a_local_answer_says_so(
    capsys: pytest.CaptureFixture[str],
    photo: Path,
    model: list[str],
    tmp_path: Path,
) -> None:
    options = (*model, "--layer", "conv1", "--against", "0", "--no-pieces")
    status, text, _ = run(
        capsys, "explain", photo, *options, "--out", tmp_path / "out"
    )
    assert status == 0 and "(a local answer): " in text and "left out" in text


def test_classes_that_make_no_contrast_are_refused(
    capsys: pytest.CaptureFixture[str],
    photo: Path,
    model: list[str],
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    line = refused(
        capsys, "explain", photo, *model, "--against", "clas 3", "--out", out
    )
    assert "there is no class 'clas 3'" in line and "class 3" in line
    line = refused(
        capsys,
        *("explain", photo, *model, "--class", "2", "--against", "class 2"),
        *("--out", out),
    )
    assert "both classes of the contrast are 'class 2'" in line
    assert not out.exists()
