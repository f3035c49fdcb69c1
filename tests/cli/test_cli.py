"""The command line, run for real: what it prints, what it writes, and how it fails."""

from __future__ import annotations

import html
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import jsonschema
import numpy as np
import pytest
import torch
from PIL import Image

from unitscope.attribution.exact_heads import EXACT_KINDS
from unitscope.attribution.local_head import LocalHead
from unitscope.attribution.methods import METHODS
from unitscope.cli import cli, main
from unitscope.cli.output import print_rows
from unitscope.residual.head import ResidualHead

ROOT = Path(__file__).parents[2]
SCHEMA = jsonschema.Draft202012Validator(
    json.loads((ROOT / "docs" / "unitscope.schema.json").read_text())
)

NETWORK = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes=7):
        super().__init__()
        torch.manual_seed(3)
        self.conv1 = nn.Conv2d(3, 8, 7, stride=2, padding=3)
        self.conv2 = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.fc = nn.Linear(12, num_classes)

    def forward(self, x):
        x = self.conv2(self.conv1(x).relu()).relu()
        return self.fc(x.mean((2, 3)))
"""


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(
        0, 255, (60, 90, 3), dtype=np.uint8
    )
    path = tmp_path / "a photo.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def model(tmp_path: Path) -> list[str]:
    path = tmp_path / "net.py"
    path.write_text(NETWORK)
    return [
        "--model",
        f"python:{path}:Net",
        "--preprocessing",
        "resize=40,crop=32",
    ]


def run(
    capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str, str]:
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line with which a call fails: on standard error, without a traceback,
    with status 1."""
    status, out, err = run(capsys, *arguments)
    assert status == 1, (out, err)
    assert err.count("\n") == 1, err
    assert err.startswith("unitscope: ")
    assert "Traceback" not in err
    return err


@pytest.mark.slow
def test_one_of_several_outputs_is_named_on_the_command_line(
    capsys: pytest.CaptureFixture[str],
    photo: Path,
    model: list[str],
    tmp_path: Path,
) -> None:
    pooled = "x.mean((2, 3))"
    (tmp_path / "net.py").write_text(
        NETWORK.replace(
            f"return self.fc({pooled})",
            f"return {pooled}, self.fc({pooled})",
        )
    )
    message = refused(capsys, "explain", photo, *model, "--json")
    assert "'0' (batch, 12), '1' (batch, 7): which" in message
    assert "(command line: --output 1)" in message

    _, printed, _ = run(capsys, "info", *model, "--output", "1")
    assert "\nlogits         output '1', of several\n" in printed

    out = tmp_path / "report"
    run(capsys, "explain", photo, *model, "--output", "1", "--out", out)
    record = json.loads((out / "explanation.json").read_text())
    SCHEMA.validate(record)
    assert record["network"]["output"] == "1"
    assert record["network"]["classes"] == 7
    report = (out / "report.html").read_text()
    assert "“1” was read as logits" in report


def test_explain_writes_a_report_its_pieces_and_json_and_says_what_it_found(
    capsys: pytest.CaptureFixture[str],
    photo: Path,
    model: list[str],
    tmp_path: Path,
) -> None:
    out = tmp_path / "report"
    status, printed, err = run(capsys, "explain", photo, *model, "--out", out)
    assert (status, err) == (0, "")
    assert "a photo.png: class " in printed
    assert f"report: {out / 'report.html'}" in printed
    html = (out / "report.html").read_text(encoding="utf-8")
    assert "a photo.png" in html
    document = json.loads((out / "explanation.json").read_text())
    SCHEMA.validate(document)
    assert all(check["holds"] for check in document["photos"][0]["checks"])
    assert list(out.glob("*.png"))


def test_the_schema_names_every_kind_of_head_and_every_method() -> None:
    schema = SCHEMA.schema
    assert isinstance(schema, Mapping)
    definitions = schema["$defs"]
    kinds = {kind.kind for kind in EXACT_KINDS}
    kinds |= {ResidualHead.kind, LocalHead.kind}
    assert set(definitions["kind"]["enum"]) == kinds
    methods = definitions["head"]["properties"]["method"]["enum"]
    assert set(methods) == {*METHODS, None}


def test_explain_json_alone_prints_one_document_and_writes_nothing(
    capsys: pytest.CaptureFixture[str],
    photo: Path,
    model: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.rglob("*"))
    status, printed, _ = run(
        capsys, "explain", photo, *model, "--json", "--top", 3
    )
    assert status == 0
    document = json.loads(printed)
    SCHEMA.validate(document)
    told = document["photos"][0]
    assert [prediction["rank"] for prediction in told["predictions"]] == [
        1,
        2,
        3,
    ]
    for cam in told["cams"]:
        assert np.mean(cam["map"]) + cam["bias"] == pytest.approx(
            cam["logit"], abs=1e-5
        )
    assert {
        path for path in tmp_path.rglob("*") if "__pycache__" not in str(path)
    } == before


def test_several_photos_give_a_report_each_and_an_index(
    capsys: pytest.CaptureFixture[str],
    photo: Path,
    model: list[str],
    tmp_path: Path,
) -> None:
    elsewhere = tmp_path / "other" / photo.name
    elsewhere.parent.mkdir()
    Image.new("RGB", (50, 80), "teal").save(elsewhere)
    out = tmp_path / "reports"
    status, printed, _ = run(
        capsys, "explain", photo, elsewhere, *model, "--out", out, "--no-pieces"
    )
    assert status == 0
    assert (out / "index.html").is_file()
    assert len(list(out.glob("*/report.html"))) == 2
    assert str(out / "index.html") in printed


def test_a_bad_photo_among_good_ones_is_named_and_the_others_are_explained(
    capsys: pytest.CaptureFixture[str],
    photo: Path,
    model: list[str],
    tmp_path: Path,
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff\xe0 cut short")
    status, printed, err = run(
        capsys,
        "explain",
        broken,
        photo,
        tmp_path / "missing.jpg",
        *model,
        "--json",
    )
    assert status == 1
    assert len(json.loads(printed)["photos"]) == 1
    assert "broken.jpg" in err and "missing.jpg" in err


def test_ablate_prints_ranks_before_and_after_and_json_agrees_with_the_library(
    capsys: pytest.CaptureFixture[str], photo: Path, model: list[str]
) -> None:
    status, printed, _ = run(
        capsys, "ablate", photo, *model, "--unit", 3, "--unit", 5
    )
    assert status == 0
    assert "→" in printed and "exact" in printed
    status, printed, _ = run(
        capsys,
        "ablate",
        photo,
        *model,
        "--layer",
        "conv1",
        "--unit",
        2,
        "--json",
    )
    document = json.loads(printed)
    SCHEMA.validate(document)
    assert document["photos"][0]["exact"] is False


def test_ablate_without_units_switches_the_maximal_one_off(
    capsys: pytest.CaptureFixture[str],
    photo: Path,
    model: list[str],
    tmp_path: Path,
) -> None:
    _, printed, _ = run(capsys, "ablate", photo, *model, "--json")
    default = json.loads(printed)["photos"][0]["units"]
    _, printed, _ = run(
        capsys,
        "ablate",
        photo,
        *model,
        "--maximal",
        "--json",
        "--out",
        tmp_path / "pictures",
    )
    assert json.loads(printed)["photos"][0]["units"] == default
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 1


def test_units_and_filters_draw_pictures_and_print_json(
    capsys: pytest.CaptureFixture[str],
    photo: Path,
    model: list[str],
    tmp_path: Path,
) -> None:
    out = tmp_path / "pictures"
    status, printed, _ = run(
        capsys,
        "units",
        photo,
        *model,
        "--layer",
        "conv1",
        "--unit",
        0,
        "--unit",
        7,
        "--out",
        out,
    )
    assert status == 0 and ".png" in printed
    _, printed, _ = run(capsys, "units", photo, *model, "--unit", 0, "--json")
    SCHEMA.validate(json.loads(printed))
    status, printed, _ = run(
        capsys, "filters", *model, "--layer", "conv1", "--out", out
    )
    assert status == 0 and ".png" in printed
    _, printed, _ = run(
        capsys,
        "filters",
        *model,
        "--layer",
        1,
        "--channel",
        0,
        "--filter",
        2,
        "--json",
    )
    document = json.loads(printed)
    SCHEMA.validate(document)
    assert document["layer"] == "conv2" and document["filters"] == [2]
    assert len(list(out.glob("*.png"))) == 2


def test_info_says_what_the_head_is_and_how_well_it_holds(
    capsys: pytest.CaptureFixture[str], model: list[str]
) -> None:
    status, printed, _ = run(capsys, "info", *model)
    assert status == 0
    assert "global average pool" in printed and "conv1" in printed
    _, printed, _ = run(capsys, "info", *model, "--json")
    document = json.loads(printed)
    SCHEMA.validate(document)
    assert document["head"]["error"] < 1e-5


def test_a_network_without_an_exact_head_is_explained_locally_and_says_so(
    capsys: pytest.CaptureFixture[str], photo: Path, tmp_path: Path
) -> None:
    path = tmp_path / "mlp.py"
    path.write_text(
        NETWORK.replace(
            "self.fc(x.mean((2, 3)))", "self.fc(x.mean((2, 3)).relu() * 2)"
        )
    )
    model = [
        "--model",
        f"python:{path}:Net",
        "--preprocessing",
        "resize=40,crop=32",
    ]
    status, printed, _ = run(capsys, "info", *model)
    assert (
        status == 0
        and "\nnot exact      before the last linear layer stands a hidden layer"
        in printed
    )
    assert (
        "local: gradient × activation (HiResCAM) at" in printed
        and "leave out up to" in printed
    )
    assert (
        "3 random units switched off one by one = real forward passes"
        in printed
    )
    for options in ([], ["--method", "gradcam"], ["--layer", "conv1"]):
        out = tmp_path / "report"
        status, printed, _ = run(
            capsys,
            "explain",
            photo,
            *model,
            "--out",
            out,
            "--no-pieces",
            *options,
        )
        assert status == 0 and "report: " in printed
        page = (out / "report.html").read_text("utf-8")
        assert "A local answer." in page and "The maps are complete" not in page
        record = json.loads((out / "explanation.json").read_text("utf-8"))
        (told,) = record["photos"]
        assert (
            record["network"]["head"]["kind"] == "local"
            and told["turning_units"] is None
        )
        for cam in told["cams"]:
            assert cam["bias"] is None and cam["mean"] + cam[
                "left_out"
            ] == pytest.approx(cam["logit"], rel=1e-4)
        assert all(check["holds"] for check in told["checks"])
        assert (
            told["answer"]["kind"] == "local"
            and told["answer"]["reason"].lower() in html.unescape(page).lower()
        )
    status, printed, _ = run(
        capsys, "ablate", photo, *model, "--layer", "conv1", "--unit", 1
    )
    assert status == 0 and "measured" in printed
    status, printed, _ = run(capsys, "ablate", photo, *model, "--maximal")
    assert status == 0 and "measured" in printed


def test_a_local_answer_may_be_asked_of_a_network_with_an_exact_head(
    capsys: pytest.CaptureFixture[str],
    photo: Path,
    model: list[str],
    tmp_path: Path,
) -> None:
    out = tmp_path / "report"
    for options, layer, method in (
        (["--method", "gradcam"], None, "gradcam"),
        (["--layer", "conv1"], "conv1", "hirescam"),
    ):
        status, printed, _ = run(
            capsys,
            "explain",
            photo,
            *model,
            "--out",
            out,
            "--no-pieces",
            *options,
        )
        assert status == 0
        also = (
            "The network also has an exact answer, whose maps add up to the logits: leave "
            "out --method and --layer for it."
        )
        assert printed.count(also) == 1
        assert also in " ".join(
            (out / "report.html").read_text("utf-8").split()
        )
        record = json.loads((out / "explanation.json").read_text("utf-8"))
        answer = record["photos"][0]["answer"]
        assert record["network"]["head"]["exact"] and not answer["exact"]
        assert answer["method"] == method and answer["layer"] == (
            layer or record["network"]["head"]["layer"]
        )
        page = (out / "report.html").read_text("utf-8")
        assert "A local answer was asked for." in page
        assert "The maps are gradient × activation" in page


def test_a_last_softmax_is_looked_through_and_scores_can_be_chosen(
    capsys: pytest.CaptureFixture[str], photo: Path, tmp_path: Path
) -> None:
    path = tmp_path / "soft.py"
    path.write_text(
        NETWORK.replace(
            "self.fc(x.mean((2, 3)))", "self.fc(x.mean((2, 3))).softmax(1)"
        )
    )
    model = [
        "--model",
        f"python:{path}:Net",
        "--preprocessing",
        "resize=40,crop=32",
    ]
    status, printed, _ = run(capsys, "info", *model)
    assert status == 0 and "scores         softmax, so that" in printed
    assert "The network ends in a softmax, which is looked through" in printed
    assert "gap-linear: mean of every map + bias = logit" in printed

    chosen = [*model, "--scores", "none"]
    status, printed, _ = run(capsys, "explain", photo, *chosen, "--json")
    record = json.loads(printed)
    assert status == 0 and record["network"]["scores"] == "none"
    assert "probability" not in record["photos"][0]["predictions"][0]
    status, printed, _ = run(capsys, "explain", photo, *chosen)
    assert status == 0 and "output" in printed and "%" not in printed
    assert (
        "there are no scores 'sofmax' (did you mean 'softmax'?): choose softmax, "
        "sigmoid, none or probabilities"
    ) in refused(capsys, "info", *model, "--scores", "sofmax")


def test_warnings_are_told_on_one_line(
    capsys: pytest.CaptureFixture[str], photo: Path, tmp_path: Path
) -> None:
    path = tmp_path / "dead.py"
    path.write_text(
        NETWORK.replace(
            "self.fc(x.mean((2, 3)))", "self.fc(x.mul(0).mean((2, 3)))"
        )
    )
    model = [
        "--model",
        f"python:{path}:Net",
        "--preprocessing",
        "resize=40,crop=32",
    ]
    status, _, said = run(capsys, "explain", photo, *model, "--json")
    assert status == 0
    assert (
        said.count("\n") == 1
        and said.startswith("unitscope: warning: on ")
        and "its maps show nothing" in said
    )


def test_wrong_input_is_answered_in_one_line_with_the_remedy(
    capsys: pytest.CaptureFixture[str],
    photo: Path,
    model: list[str],
    tmp_path: Path,
) -> None:
    assert "did you mean 'conv1'" in refused(
        capsys, "units", photo, *model, "--layer", "conv", "--unit", 0
    )
    assert "numbered 0 to 7" in refused(
        capsys, "units", photo, *model, "--layer", "conv1", "--unit", 8
    )
    assert "numbered 0 to 11" in refused(
        capsys, "ablate", photo, *model, "--unit", -1
    )
    assert "there is no class 'class 9'" in refused(
        capsys, "explain", photo, *model, "--class", "class 9", "--json"
    )
    assert "did you mean" in refused(
        capsys, "explain", photo, "--model", "torchvison:resnet18"
    )
    assert "did you mean" in refused(
        capsys, "info", "--model", "torchvision:resnet81"
    )
    labels = tmp_path / "labels.txt"
    labels.write_text("a\nb\n")
    assert "2 labels" in refused(capsys, "info", *model, "--labels", labels)
    assert "preprocessing 'size=3'" in refused(
        capsys, "info", *model[:2], "--preprocessing", "size=3"
    )
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert "is a file" in refused(
        capsys, "explain", photo, *model, "--out", blocked
    )
    assert "no convolution" in refused(
        capsys, "filters", *model, "--layer", "conv9"
    )


def test_weights_that_do_not_fit_say_which_keys(
    capsys: pytest.CaptureFixture[str], model: list[str], tmp_path: Path
) -> None:
    weights = tmp_path / "weights.pth"
    torch.save(
        {
            "conv1.weight": torch.zeros(8, 3, 7, 7),
            "stranger.bias": torch.zeros(2),
        },
        weights,
    )
    assert "stranger.bias" in refused(
        capsys, "info", *model, "--weights", weights
    )


def test_a_missing_number_is_null_in_json_and_a_dash_in_a_table(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [{"unit": 3, "low": float("nan"), "name": "bed"}]
    print_rows(rows, ["unit", "low"], as_json=True)
    document = json.loads(capsys.readouterr().out)
    SCHEMA.validate(document)
    assert document["rows"] == [{"unit": 3, "low": None, "name": "bed"}]
    print_rows(rows, ["unit", "low"], as_json=False)
    assert capsys.readouterr().out == "unit  low\n   3    –\n"


def test_wrong_usage_exits_with_two(
    capsys: pytest.CaptureFixture[str], photo: Path
) -> None:
    assert run(capsys, "explain")[0] == 2
    assert run(capsys, "explian")[0] == 2
    assert run(capsys, "units", photo)[0] == 2
    assert run(capsys, "ablate", photo, "--maximal", "--unit", 1)[0] == 2
    assert run(capsys, "explain", photo, "--top", 0)[0] == 2


def test_every_verb_documents_itself_with_an_example(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, command in cli.commands.items():
        assert f"unitscope {name}" in (command.help or ""), name
        status, printed, _ = run(capsys, name, "--help")
        assert status == 0 and "Usage" in printed


def test_help_does_not_import_torch() -> None:
    code = (
        "import sys; from unitscope.cli import main; main(['--help']); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True
    )


def test_ctrl_c_exits_with_130_and_leaves_nothing_half_written(
    photo: Path, tmp_path: Path
) -> None:
    slow = NETWORK.replace(
        "def forward(self, x):",
        "def forward(self, x):\n        import time; print('running', flush=True); "
        "time.sleep(30)",
    )
    path = tmp_path / "slow.py"
    path.write_text(slow)
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "unitscope",
        "explain",
        str(photo),
        "--model",
        f"python:{path}:Net",
        "--out",
        str(out),
    ]
    process = subprocess.Popen(
        [*command, "--preprocessing", "resize=32"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    # What a network prints stays out of standard output.
    assert process.stderr.readline().strip() == "running"
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert not out.exists() or not list(out.iterdir())


def command(
    *arguments: str | Path,
    env: dict[str, str] | None = None,
    input: bytes | None = None,
    stdout: int | IO[bytes] = subprocess.PIPE,
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "unitscope",
            *map(os.fsdecode, arguments),
        ],
        env=env,
        input=input,
        stdout=stdout,
        stderr=subprocess.PIPE,
        timeout=120,
    )


def test_any_file_name_can_be_explained_and_is_shown_as_text(
    capsys: pytest.CaptureFixture[str],
    photo: Path,
    model: list[str],
    tmp_path: Path,
) -> None:
    names = [
        os.fsdecode(b"bad\xff\xfe.png"),
        "two\nlines.png",
        "<script>alert(1)</script>.png",
        "ünï 🙂.png",
    ]
    paths = []
    for name in names:
        path = tmp_path / name.replace("/", "∕")
        path.write_bytes(photo.read_bytes())
        paths.append(path)
    out = tmp_path / "out"
    status, printed, err = run(
        capsys, "explain", *paths, *model, "--out", out, "--no-pieces"
    )
    assert (status, err) == (0, "")
    assert "bad��.png: class" in printed and "two lines.png: class" in printed
    assert len(list(out.glob("*/report.html"))) == 4
    assert not any(
        "<script>alert" in page.read_text() for page in out.rglob("*.html")
    )


def test_json_loses_no_character_where_standard_output_is_ascii(
    photo: Path,
    model: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "ünï.png"
    path.write_bytes(photo.read_bytes())
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding="ascii"))
    assert main(["ablate", str(path), *model, "--json"]) == 0
    sys.stdout.flush()
    document = json.loads(out.getvalue().decode("ascii"))
    assert document["photos"][0]["photo"] == "ünï.png"


@pytest.mark.slow
def test_json_loses_no_character_in_a_process_whose_standard_output_is_ascii(
    photo: Path, model: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "ünï.png"
    path.write_bytes(photo.read_bytes())
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = command("ablate", path, *model, "--json", env=environment)
    assert (
        json.loads(done.stdout.decode("ascii"))["photos"][0]["photo"]
        == "ünï.png"
    )


@pytest.mark.slow
def test_text_is_told_where_standard_output_is_ascii(
    photo: Path, model: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "ünï.png"
    path.write_bytes(photo.read_bytes())
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = command("ablate", path, *model, env=environment)
    assert done.returncode == 0 and b"Traceback" not in done.stderr


@pytest.mark.skipif(
    not Path("/dev/full").exists(),
    reason="there is no /dev/full on this system",
)
def test_a_full_disk_behind_standard_output_is_one_line(
    model: list[str],
) -> None:
    with Path("/dev/full").open("wb") as full:
        done = command("info", *model, stdout=full)
    assert done.returncode == 1
    assert (
        b"Traceback" not in done.stderr and b"cannot be written" in done.stderr
    )


def test_a_photo_can_come_through_a_pipe(
    capsys: pytest.CaptureFixture[str], photo: Path, model: list[str]
) -> None:
    if not Path("/dev/fd").exists():
        pytest.skip("there is no /dev/fd on this system")
    reader, writer = os.pipe()
    try:
        assert photo.stat().st_size < 65536, "what a pipe holds"
        os.write(writer, photo.read_bytes())
        os.close(writer)
        status, _, err = run(
            capsys, "ablate", f"/dev/fd/{reader}", *model, "--json"
        )
    finally:
        os.close(reader)
    assert status == 0, err


@pytest.mark.slow
def test_a_photo_can_come_from_standard_input(
    photo: Path, model: list[str]
) -> None:
    if not Path("/dev/stdin").exists():
        pytest.skip("there is no /dev/stdin on this system")
    done = command(
        "ablate",
        "/dev/stdin",
        *model,
        "--json",
        input=photo.read_bytes(),
    )
    assert done.returncode == 0, done.stderr


def test_an_impossible_folder_is_one_line(
    capsys: pytest.CaptureFixture[str],
    photo: Path,
    model: list[str],
    tmp_path: Path,
) -> None:
    assert "a" * 50 in refused(
        capsys, "explain", photo, *model, "--out", tmp_path / ("a" * 300)
    )
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert "file" in refused(
        capsys, "units", photo, *model, "--unit", 0, "--out", blocked / "below"
    )
    assert "is empty" in refused(capsys, "explain", "", *model, "--json")


@pytest.fixture
def transformer(tmp_path: Path) -> list[str]:
    source = Path(__file__).parents[1] / "tiny_vit.py"
    path = tmp_path / "vit.py"
    path.write_text(source.read_text())
    return [
        "--model",
        f"python:{path}:TinyVit",
        "--preprocessing",
        "resize=36,crop=32",
    ]


def test_heads_are_named_on_the_command_line(
    capsys: pytest.CaptureFixture[str], photo: Path, transformer: list[str]
) -> None:
    verb = ["ablate", str(photo), *transformer]
    status, printed, _ = run(
        capsys, *verb, "--units", "1.0,1", "--effect", "direct"
    )
    assert status == 0
    assert "2 of the attention heads off (1.0, 0.1); direct effect" in printed
    _, printed, _ = run(capsys, *verb, "--unit", "1.0", "--json")
    document = json.loads(printed)
    SCHEMA.validate(document)
    (record,) = document["photos"]
    assert record["effect"] == "total" and record["units"] == [2]
    assert record["unit_names"] == ["1.0"]
    status, _, complaint = run(capsys, *verb, "--units", "2.0")
    assert status == 1 and "named 0.0 to 1.1, or numbered 0 to 3" in complaint
    status, _, complaint = run(
        capsys, *verb, "--layer", "patch", "--unit", "1", "--effect", "direct"
    )
    assert status == 1 and "leave out effect='direct'" in complaint


def test_a_transformer_is_explained_by_its_heads(
    capsys: pytest.CaptureFixture[str], photo: Path, transformer: list[str]
) -> None:
    status, printed, _ = run(
        capsys, "explain", str(photo), *transformer, "--units", "0.1", "--json"
    )
    document = json.loads(printed)
    SCHEMA.validate(document)
    assert status == 0 and document["photos"][0]["ablation"]["units"] == [1]
    assert "Without head 0.1 " in document["photos"][0]["sentence"]
    _, printed, _ = run(
        capsys, "units", str(photo), *transformer, "--units", "1.1", "--json"
    )
    document = json.loads(printed)
    SCHEMA.validate(document)
    assert document["photos"][0]["units"][0]["name"] == "1.1"
    _, printed, _ = run(capsys, "info", *transformer)
    for words in (
        "residual: ",
        "2, from blocks.0",
        "0.0 to 1.1",
        "4×4 patches",
    ):
        assert words in printed
    _, printed, _ = run(capsys, "info", *transformer, "--json")
    SCHEMA.validate(json.loads(printed))
