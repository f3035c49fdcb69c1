"""Refusals: what a scan rejects, and the images that it skips."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import filelock
import pytest
import torch
from PIL import Image
from torch import Tensor

from networks import Gap, seeded
from scans import (
    CLASSES,
    OPTIONS,
    PHOTOS,
    Stop,
    contents,
    make,
    paths,
    photo,
    refused,
    stopping_at,
)
from unitscope.atlas.atlas import Atlas
from unitscope.atlas.merging import merge
from unitscope.atlas.scan.options import Progress
from unitscope.atlas.scanning import scan
from unitscope.errors import (
    AtlasError,
    DatasetError,
    InputError,
    LayerError,
    NonFiniteError,
    OutputError,
    RunnerError,
    UnitscopeError,
)
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import Classifier


def test_an_atlas_is_never_resumed_with_other_inputs(
    folder: Path, model: Classifier, small: Preprocessing, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(Stop):
        scan(model, folder, out, progress=stopping_at(12), **OPTIONS)
    before = contents(out)
    other = make(small, seeded(Gap, 1))
    assert "another model" in refused(AtlasError, other, folder, out)
    assert "another preprocessing" in refused(
        AtlasError, make(Preprocessing(resize=40, crop=32)), folder, out
    )
    assert "another labels" in refused(
        AtlasError, make(small, labels=CLASSES[::-1]), folder, out
    )
    assert "other parameters (top was 4, not 9)" in refused(
        AtlasError, model, folder, out, top=9
    )
    asked = make(small, scores="sigmoid")
    assert "another kind of scores (softmax, not sigmoid)" in refused(
        AtlasError, asked, folder, out
    )
    assert "another layers" in refused(
        AtlasError, model, folder, out, layers="features.2"
    )
    assert "another data set" in refused(
        AtlasError, model, folder / "ash", out, **OPTIONS
    )
    assert contents(out) == before


class Two(Gap):
    """A network with two outputs of as many columns."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        logits = super().forward(x)
        return logits, 2 * logits


def test_a_scan_of_another_output_is_another_scan(
    folder: Path, small: Preprocessing, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    model = make(small, seeded(Two))
    model.output = "1"
    atlas = scan(model, folder, out, **OPTIONS)
    assert atlas.manifest["identity"]["output"] == "1"
    assert atlas.manifest["model"]["output"] == "1"

    model.output = "0"
    assert "another output (1, not 0)" in refused(
        AtlasError, model, folder, out
    )


def test_a_changed_photo_is_noticed_and_a_touched_one_is_not(
    folder: Path, model: Classifier, tmp_path: Path
) -> None:
    mine = tmp_path / "photos"
    shutil.copytree(folder, mine)
    out = tmp_path / "out"
    with pytest.raises(Stop):
        scan(model, mine, out, progress=stopping_at(12), **OPTIONS)
    first = paths(mine)[0]
    first.touch()
    with pytest.raises(Stop):
        scan(model, mine, out, progress=stopping_at(5))
    data = bytearray(first.read_bytes())
    data[-20] ^= 1
    first.write_bytes(data)
    assert "image 'ash/00.png' has changed" in refused(
        AtlasError, model, mine, out
    )
    photo(99).save(mine / "ash" / "new.png")
    assert "another data set" in refused(AtlasError, model, mine, out)


def test_unreadable_photos_are_listed_with_the_reason(
    folder: Path, model: Classifier, tmp_path: Path
) -> None:
    mine = tmp_path / "photos"
    shutil.copytree(folder, mine)
    damaged = paths(mine)[3]
    damaged.write_bytes(damaged.read_bytes()[:200])
    (mine / "elm" / "aaa.jpg").write_text("no photo")
    reported: list[Progress] = []
    scanned = scan(
        model, mine, tmp_path / "out", progress=reported.append, **OPTIONS
    )
    rows = {
        row["id"]: row["reason"] for row in scanned.table("skipped").to_pylist()
    }
    assert set(rows) == {damaged.relative_to(mine).as_posix(), "elm/aaa.jpg"}
    assert "damaged or cut short" in rows[damaged.relative_to(mine).as_posix()]
    assert (scanned.images, reported[-1].skipped) == (PHOTOS - 1, 2)
    assert scanned.table("images").num_rows == PHOTOS - 1
    # Without them it is the same, but for the places.
    damaged.unlink()
    (mine / "elm" / "aaa.jpg").unlink()
    rest = scan(model, mine, tmp_path / "rest", **OPTIONS)
    for name in ("maximum", "share_positive"):
        assert scanned.table("units").column(name).to_pylist() == pytest.approx(
            rest.table("units").column(name).to_pylist()
        )


def test_nothing_readable_is_an_error(
    model: Classifier, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(3):
        (tmp_path / "photos" / f"{number}.jpg").write_text("no photo")
    assert "none of the 3 images" in refused(
        AtlasError, model, tmp_path / "photos", tmp_path / "out", **OPTIONS
    )


def test_a_photo_on_which_the_network_fails_is_skipped(
    folder: Path, small: Preprocessing, tmp_path: Path
) -> None:
    class Sensitive(Gap):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(
                torch.sqrt(x.mean(dim=(1, 2, 3), keepdim=True) + 1.9) * x
            )

    mine = tmp_path / "photos"
    shutil.copytree(folder, mine)
    Image.new("RGB", (40, 40), "black").save(mine / "ash" / "black.png")
    plain = make(Preprocessing(resize=36, crop=32), seeded(Sensitive))
    scanned = scan(plain, mine, tmp_path / "out", **OPTIONS)
    rows = scanned.table("skipped").to_pylist()
    assert [row["id"] for row in rows] == ["ash/black.png"] and "NaN" in rows[
        0
    ]["reason"]
    assert scanned.images == PHOTOS


def test_broken_weights_stop_the_scan(
    folder: Path, small: Preprocessing, tmp_path: Path
) -> None:
    broken = seeded(Gap)
    with torch.no_grad():
        broken.get_parameter("fc.weight")[0, 0] = torch.nan
    refused(
        NonFiniteError, make(small, broken), folder, tmp_path / "out", **OPTIONS
    )


def test_two_scans_into_one_folder(
    folder: Path, model: Classifier, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(Stop):
        scan(model, folder, out, progress=stopping_at(12), **OPTIONS)
    with filelock.FileLock(out / ".scan" / "lock"):
        assert "is being scanned by another process" in refused(
            AtlasError, model, folder, out
        )


def test_a_folder_of_something_else_is_left_alone(
    folder: Path, model: Classifier, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert "holds other files" in refused(AtlasError, model, folder, tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        (
            {"layers": "features.9"},
            LayerError,
            "there is no layer 'features.9'",
        ),
        ({"layers": ["fc"]}, LayerError, "not a feature map"),
        ({"part": (4, 3)}, InputError, "part 4 of 3 does not exist"),
        (
            {"part": (1, 99)},
            InputError,
            "5 shards of 10 images, too few for 99 parts",
        ),
        ({"quantile": 1.5}, InputError, "quantile is a share"),
        ({"top": 0}, InputError, "top is at least 1"),
        ({"workers": 0}, InputError, "workers is at least 1"),
        ({"concept_names": ["sky"]}, InputError, "no photos with masks"),
    ],
)
def test_wrong_options(
    folder: Path,
    model: Classifier,
    tmp_path: Path,
    options: dict[str, Any],
    kind: type[UnitscopeError],
    words: str,
) -> None:
    assert words in refused(
        kind, model, folder, tmp_path / "out", **(OPTIONS | options)
    )


def test_inputs_of_several_sizes_are_refused(
    folder: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "photos"
    shutil.copytree(folder, mine)
    photo(1, (80, 40)).save(mine / "ash" / "wide.png")
    uncropped = make(Preprocessing(resize=32, crop=None))
    assert "add a crop" in refused(
        InputError, uncropped, mine, tmp_path / "out", **OPTIONS
    )


def test_a_model_that_cannot_be_sent_to_workers(
    folder: Path, small: Preprocessing, tmp_path: Path
) -> None:
    unpicklable = seeded(Gap)
    unpicklable.note = lambda: None  # type: ignore[assignment]
    words = refused(
        RunnerError,
        make(small, unpicklable),
        folder,
        tmp_path / "out",
        workers=2,
        **OPTIONS,
    )
    assert "use one worker" in words


def test_a_refused_scan_leaves_nothing_behind(
    folder: Path, model: Classifier, tmp_path: Path
) -> None:
    before = sorted(folder.rglob("*"))
    assert "holds other files" in refused(AtlasError, model, folder, folder)
    assert sorted(folder.rglob("*")) == before
    for options in (
        {"quantile": 0.0},
        {"part": (3, 2)},
        {"layers": "nosuch"},
        {"top": 10**12},
        {"batch_size": 10**8},
    ):
        refused(
            UnitscopeError,
            model,
            folder,
            tmp_path / "out",
            **(OPTIONS | options),
        )
        assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("mine")
    assert "it is a file" in refused(
        OutputError, model, folder, tmp_path / "file", **OPTIONS
    )
    mine = tmp_path / "empty"
    mine.mkdir()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("no photo")
    refused(AtlasError, model, tmp_path / "photos", mine, **OPTIONS)
    assert mine.is_dir() and not list(mine.iterdir())


def test_an_atlas_among_the_photos_is_none_of_them(
    folder: Path, model: Classifier, tmp_path: Path
) -> None:
    mine = tmp_path / "photos"
    shutil.copytree(folder, mine)
    scanned = scan(model, mine, mine / "atlas", **OPTIONS)
    photo(1).save(scanned.path / "picture.png")
    again = scan(model, mine, mine / "atlas")
    assert again.images == PHOTOS


def test_names_that_are_not_characters(
    folder: Path, model: Classifier, tmp_path: Path
) -> None:
    mine = tmp_path / "photos"
    shutil.copytree(folder, mine)
    odd = os.fsdecode(b"caf\xe9")
    try:
        (mine / odd).mkdir()
    except OSError:
        pytest.skip("this file system takes no such names")
    shutil.copyfile(paths(folder)[0], mine / odd / os.fsdecode(b"good\xff.png"))
    (mine / odd / os.fsdecode(b"bad\xff.jpg")).write_text("no photo")
    scanned = scan(model, mine, tmp_path / "out", **OPTIONS)
    assert (scanned.images, scanned.table("skipped").num_rows) == (
        PHOTOS + 1,
        1,
    ) and "caf\ufffd" in scanned.classes
    assert scan(model, mine, tmp_path / "out").images == PHOTOS + 1


def test_changed_code_is_noticed_and_changed_addresses_are_not(
    folder: Path, small: Preprocessing, tmp_path: Path
) -> None:
    class Changeable(Gap):
        power = 1

        def extra_repr(self) -> str:
            return f"{object()!r}"

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x**self.power)

    first, same, changed = (make(small, seeded(Changeable)) for _ in range(3))
    with pytest.raises(Stop):
        scan(
            first, folder, tmp_path / "out", progress=stopping_at(12), **OPTIONS
        )
    changed.module.power = 3  # type: ignore[assignment]
    assert "gives other logits" in refused(
        AtlasError, changed, folder, tmp_path / "out"
    )
    assert scan(same, folder, tmp_path / "out").complete


def test_two_classes_that_are_one_to_the_model_are_refused(
    folder: Path, model: Classifier, tmp_path: Path
) -> None:
    mine = tmp_path / "photos"
    shutil.copytree(folder, mine)
    (mine / "Ash").mkdir(exist_ok=True)
    shutil.copyfile(paths(folder)[0], mine / "Ash" / "0.png")
    assert "are both the model's 'ash'" in refused(
        DatasetError, model, mine, tmp_path / "out", **OPTIONS
    )


def test_parts_that_are_not_whole_are_refused(
    atlas: Atlas, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(atlas.path, copy)
    (copy / "rows" / "00001.parquet").unlink()
    with pytest.raises(AtlasError, match="is missing: copy the part again"):
        merge([copy], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
