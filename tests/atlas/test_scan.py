"""Scans: what they find is what a slow look finds, and however they are stopped and split, it is the same."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from networks import Dense, Flattened, Gap, seeded
from unitscope.atlas.ablation_study import confusion_without
from unitscope.atlas.atlas import Atlas
from unitscope.atlas.findings import pooled_features
from unitscope.atlas.merging import merge
from unitscope.atlas.scanning import Progress, scan
from unitscope.errors import (
    AtlasError,
    DatasetError,
    InputError,
    LayerError,
    NonFiniteError,
    OutputError,
    PhotoError,
    RunnerError,
    UnitError,
    UnitscopeError,
)
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import Classifier, wrap

CLASSES = ("ash", "birch", "cedar", "elm", "fir")
PHOTOS = 45
# By torch: compiling takes longer than these scans; what is compiled has its tests in
# test_engine.py.
OPTIONS: dict[str, Any] = {
    "top": 4,
    "sample": 6,
    "batch_size": 4,
    "shard_size": 10,
    "engine": "torch",
}


def photo(seed: int, size: tuple[int, int] = (40, 36)) -> Image.Image:
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (6, 6, 3)).astype(np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of five classes, nine of each."""
    root = tmp_path_factory.mktemp("photos")
    for number in range(PHOTOS):
        path = root / CLASSES[number % 5] / f"{number:02}.png"
        path.parent.mkdir(exist_ok=True)
        photo(number).save(path)
    return root


@pytest.fixture
def model(small: Preprocessing) -> Classifier:
    """A small classifier of the same five classes."""
    return make(small)


def make(
    preprocessing: Preprocessing, module: nn.Module | None = None, labels: Any = CLASSES
) -> Classifier:
    return wrap(module or seeded(Gap), labels=labels, preprocessing=preprocessing)


@pytest.fixture(scope="module")
def atlas(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    """An atlas of two layers, scanned at a stretch."""
    plain = make(Preprocessing(resize=36, crop=32))
    return scan(
        plain,
        folder,
        tmp_path_factory.mktemp("atlas") / "whole",
        layers=["features.2", "features.4"],
        **OPTIONS,
    )


def contents(path: Path) -> dict[str, str]:
    """What is in every file of an atlas but the log of its runs and the lock."""
    files = (
        file
        for file in path.rglob("*")
        if file.is_file() and file.name not in ("runs.jsonl", "lock")
    )
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
    }


class Stop(Exception):
    """What stops a scan in these tests."""


def stopping_at(photos: int, stage: str = "scan") -> Callable[[Progress], None]:
    def progress(now: Progress) -> None:
        if now.stage == stage and now.done >= photos:
            raise Stop

    return progress


def paths(folder: Path) -> list[Path]:
    return sorted(
        folder.rglob("*.png"), key=lambda path: path.relative_to(folder).as_posix()
    )


# --- what it finds -----------------------------------------------------------------------------------------------


def test_it_finds_what_explaining_every_photo_finds(
    atlas: Atlas, folder: Path, model: Classifier
) -> None:
    explanation = model.explain(paths(folder))
    maps = explanation.feature_map.numpy()
    units = atlas.table("units", where=[("layer", "=", "features.4")]).to_pydict()
    assert units["maximum"] == pytest.approx(maps.max((0, 2, 3)), rel=1e-5)
    assert units["mean"] == pytest.approx(maps.mean((0, 2, 3)), rel=1e-4)
    assert units["share_positive"] == pytest.approx(
        (maps > 0).mean((0, 2, 3)), abs=1e-3
    )
    for unit, (threshold, share) in enumerate(
        zip(units["threshold"], units["share_above"], strict=True)
    ):
        assert (maps[:, unit] >= threshold).mean() == pytest.approx(
            share, abs=1e-3
        ) and share <= 0.005
    images = atlas.table("images").to_pydict()
    assert images["prediction"] == explanation.logits.argmax(1).tolist()
    assert images["probability"] == pytest.approx(
        explanation.logits.softmax(1).amax(1).tolist(), rel=1e-4
    )
    assert images["class_name"] == [path.parent.name for path in paths(folder)]
    assert images["id"] == [
        path.relative_to(folder).as_posix() for path in paths(folder)
    ]
    pooled = np.concatenate([one for one, _ in atlas.pooled()])
    assert pooled == pytest.approx(explanation.pooled.numpy(), rel=1e-4, abs=1e-6)
    assert (
        atlas.images == PHOTOS
        and atlas.complete
        and atlas.manifest["data"]["labels"] == "given"
    )


def test_several_layers_come_out_of_one_pass(
    atlas: Atlas, folder: Path, model: Classifier
) -> None:
    for layer in ("features.2", "features.4"):
        maps = model.units(paths(folder), layer, list(range(6))).maps.numpy()
        summary = atlas.summary(layer)
        assert [one.name for one in atlas.layers] == ["features.2", "features.4"]
        for criterion, scores in (
            ("maximum", maps.max((2, 3))),
            ("mean", maps.mean((2, 3))),
        ):
            top = summary.top[criterion]
            for unit in range(6):
                assert top.scores[unit] == pytest.approx(
                    np.sort(scores[:, unit])[::-1][:4], rel=1e-4, abs=1e-6
                )
                found = top.maps()[unit]
                real = maps[top.images[unit], unit]
                assert found == pytest.approx(
                    real, abs=1e-3 * float(np.abs(real).max()) + 1e-6
                )


def test_classes_and_their_intervals(atlas: Atlas) -> None:
    images, classes = (
        atlas.table("images").to_pydict(),
        atlas.table("classes").to_pydict(),
    )
    for index, name in enumerate(CLASSES):
        own = [
            right
            for right, one in zip(images["correct"], images["class_name"], strict=True)
            if one == name
        ]
        assert (classes["images"][index], classes["found"][index]) == (
            len(own),
            sum(own),
        )
        assert (
            classes["accuracy_low"][index]
            <= classes["accuracy"][index]
            <= classes["accuracy_high"][index]
        )
    rows = atlas.table(
        "unit_classes", where=[("layer", "=", "features.4"), ("unit", "=", 2)]
    ).to_pylist()
    pooled = np.concatenate([one for one, _ in atlas.pooled()])[:, 2]
    of = np.array(images["class"])
    expected = {index: pooled[of == index].mean() for index in range(5)}
    assert {row["class"]: row["mean"] for row in rows} == pytest.approx(
        expected, rel=1e-5
    )
    assert [row["mean"] for row in rows] == sorted(
        (row["mean"] for row in rows), reverse=True
    )


def test_units_off_over_the_data_set_are_real_forward_passes(
    atlas: Atlas, folder: Path, model: Classifier
) -> None:
    rows = atlas.table("unit_ablation").to_pydict()
    images = atlas.table("images").to_pydict()
    for unit in range(6):
        real = model.forward_without(paths(folder), [unit]).argmax(1).numpy()
        assert rows["accuracy"][unit] == pytest.approx(
            (real == np.array(images["target"])).mean()
        )
    source = pooled_features(atlas)
    assert source is not None and atlas.readout is not None
    several = confusion_without(atlas.readout, source, [[0, 3]], on="all")
    real = model.forward_without(paths(folder), [0, 3]).argmax(1).numpy()
    assert int(several.tp.sum()) == int((real == np.array(images["target"])).sum())


# --- stopped, split, spread --------------------------------------------------------------------------------------


@pytest.mark.parametrize("photos", [1, 17, 30, 44])
def test_stopped_anywhere_it_goes_on_to_the_same_atlas(
    atlas: Atlas, folder: Path, model: Classifier, tmp_path: Path, photos: int
) -> None:
    out = tmp_path / "out"
    layers = ["features.2", "features.4"]
    with pytest.raises(Stop):
        scan(model, folder, out, layers=layers, progress=stopping_at(photos), **OPTIONS)
    again = scan(
        make(Preprocessing(resize=36, crop=32)), folder, out, layers=layers
    )  # its parameters are the atlas's own
    assert again.complete and contents(out) == contents(atlas.path)


def test_once_done_nothing_is_done_again(
    atlas: Atlas, folder: Path, model: Classifier
) -> None:
    before = contents(atlas.path)
    told: list[Progress] = []
    scan(
        model,
        folder,
        atlas.path,
        layers=["features.2", "features.4"],
        progress=told.append,
    )
    assert not told and contents(atlas.path) == before


def test_any_number_of_workers_gives_the_same(
    atlas: Atlas, folder: Path, model: Classifier, tmp_path: Path
) -> None:
    told: list[Progress] = []
    layers = ["features.2", "features.4"]
    out = scan(
        model,
        folder,
        tmp_path / "out",
        layers=layers,
        workers=2,
        progress=told.append,
        **OPTIONS,
    )
    assert contents(out.path) == contents(atlas.path) and told[-1].done == PHOTOS


def test_parts_in_any_order_are_the_whole(
    atlas: Atlas, folder: Path, model: Classifier, tmp_path: Path
) -> None:
    layers = ["features.2", "features.4"]
    parts = [
        scan(
            model,
            folder,
            tmp_path / f"part{which}",
            layers=layers,
            part=(which, 3),
            **OPTIONS,
        ).path
        for which in (3, 1, 2)
    ]
    assert not Atlas.open(parts[0]).complete
    assert contents(merge(parts, tmp_path / "merged").path) == contents(atlas.path)
    # What is not there yet is scanned into the merged one.
    some = merge(parts[:2], tmp_path / "some")
    assert not some.complete
    scan(model, folder, some.path, layers=layers)
    assert contents(some.path) == contents(atlas.path)
    with pytest.raises(AtlasError, match=r"shard 0 is in .* and in"):
        merge([parts[1], atlas.path], tmp_path / "twice")
    other = scan(
        model, folder, tmp_path / "other", part=(1, 3), **(OPTIONS | {"top": 5})
    )
    with pytest.raises(AtlasError, match="no parts of one scan: they differ in"):
        merge([parts[0], other.path], tmp_path / "mixed")
    assert not (tmp_path / "twice").exists() and not (tmp_path / "mixed").exists()


def test_killed_outright_it_goes_on_to_the_same_atlas(
    folder: Path, tmp_path: Path
) -> None:
    script = textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        from pathlib import Path
        from networks import Gap, seeded
        from unitscope import Preprocessing, scan, wrap
        from unitscope.atlas.scanning import Progress

        def told(now):
            print(now.done, flush=True)

        model = wrap(seeded(Gap), labels={CLASSES!r}, preprocessing=Preprocessing(resize=36, crop=32))
        scan(model, {str(folder)!r}, sys.argv[1], progress=told, **{OPTIONS!r})
    """)
    killed = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(killed)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) > 20:
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    process.stdout.close()
    assert Atlas.open(killed).manifest["status"] == "scanning"
    plain = make(Preprocessing(resize=36, crop=32))
    scan(plain, folder, killed)
    whole = scan(plain, folder, tmp_path / "whole", **OPTIONS)
    assert contents(killed) == contents(whole.path)


def test_a_full_disk_loses_nothing(
    atlas: Atlas, folder: Path, model: Classifier, tmp_path: Path
) -> None:
    out, layers = tmp_path / "out", ["features.2", "features.4"]
    with pytest.raises(Stop):
        scan(model, folder, out, layers=layers, progress=stopping_at(12), **OPTIONS)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OutputError, match="cannot write"):
            scan(model, folder, out, layers=layers)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not [
        path
        for path in out.rglob("*")
        if path.name.startswith(".") and path.name != ".scan"
    ]
    scan(model, folder, out, layers=layers)
    assert contents(out) == contents(atlas.path)


# --- what it refuses, and what it skips --------------------------------------------------------------------------


def refused(kind: type[UnitscopeError], *arguments: Any, **options: Any) -> str:
    # Compiling a network that is then refused would take seconds.
    with pytest.raises(kind) as caught:
        scan(*arguments, **{"engine": "torch", **options})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_atlas_is_never_gone_on_with_for_something_else(
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
    assert "another layers" in refused(
        AtlasError, model, folder, out, layers="features.2"
    )
    assert "another data set" in refused(
        AtlasError, model, folder / "ash", out, **OPTIONS
    )
    assert contents(out) == before


def test_a_photo_that_changed_is_noticed_and_one_that_was_only_touched_is_not(
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
    assert "image 'ash/00.png' has changed" in refused(AtlasError, model, mine, out)
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
    told: list[Progress] = []
    found = scan(model, mine, tmp_path / "out", progress=told.append, **OPTIONS)
    rows = {row["id"]: row["reason"] for row in found.table("skipped").to_pylist()}
    assert set(rows) == {damaged.relative_to(mine).as_posix(), "elm/aaa.jpg"}
    assert "damaged or cut short" in rows[damaged.relative_to(mine).as_posix()]
    assert (found.images, told[-1].skipped) == (PHOTOS - 1, 2)
    assert found.table("images").num_rows == PHOTOS - 1
    # Without them it is the same, but for the places.
    damaged.unlink()
    (mine / "elm" / "aaa.jpg").unlink()
    rest = scan(model, mine, tmp_path / "rest", **OPTIONS)
    for name in ("maximum", "share_positive"):
        assert found.table("units").column(name).to_pylist() == pytest.approx(
            rest.table("units").column(name).to_pylist()
        )


def test_nothing_readable_is_an_error(model: Classifier, tmp_path: Path) -> None:
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
    found = scan(plain, mine, tmp_path / "out", **OPTIONS)
    rows = found.table("skipped").to_pylist()
    assert [row["id"] for row in rows] == ["ash/black.png"] and "NaN" in rows[0][
        "reason"
    ]
    assert found.images == PHOTOS


def test_broken_weights_stop_the_scan(
    folder: Path, small: Preprocessing, tmp_path: Path
) -> None:
    broken = seeded(Gap)
    with torch.no_grad():
        broken.fc.weight[0, 0] = torch.nan
    refused(NonFiniteError, make(small, broken), folder, tmp_path / "out", **OPTIONS)


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
        ({"layers": "features.9"}, LayerError, "there is no layer 'features.9'"),
        ({"layers": ["fc"]}, LayerError, "not a feature map"),
        ({"part": (4, 3)}, InputError, "part 4 of 3 does not exist"),
        (
            {"part": (1, 99)},
            InputError,
            "5 shards of 10 images, which make no 99 parts",
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


def test_inputs_of_several_sizes_are_refused(folder: Path, tmp_path: Path) -> None:
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


def test_what_is_refused_leaves_nothing_behind(
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
        refused(UnitscopeError, model, folder, tmp_path / "out", **(OPTIONS | options))
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
    found = scan(model, mine, mine / "atlas", **OPTIONS)
    photo(1).save(found.path / "picture.png")
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
    found = scan(model, mine, tmp_path / "out", **OPTIONS)
    assert (found.images, found.table("skipped").num_rows) == (
        PHOTOS + 1,
        1,
    ) and "caf\ufffd" in found.classes
    assert scan(model, mine, tmp_path / "out").images == PHOTOS + 1


def test_code_that_changed_is_noticed_and_addresses_are_not(
    folder: Path, small: Preprocessing, tmp_path: Path
) -> None:
    class Told(Gap):
        power = 1

        def extra_repr(self) -> str:
            return f"{object()!r}"

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x**self.power)

    first, same, changed = (make(small, seeded(Told)) for _ in range(3))
    with pytest.raises(Stop):
        scan(first, folder, tmp_path / "out", progress=stopping_at(12), **OPTIONS)
    changed.module.power = 3  # type: ignore[assignment]
    assert "answers otherwise" in refused(AtlasError, changed, folder, tmp_path / "out")
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


def test_parts_that_are_not_whole_are_refused(atlas: Atlas, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(atlas.path, copy)
    (copy / "rows" / "00001.parquet").unlink()
    with pytest.raises(AtlasError, match="is missing: the part is not whole"):
        merge([copy], tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


# --- labels ------------------------------------------------------------------------------------------------------


def test_classes_are_matched_by_name_never_by_index(
    folder: Path, small: Preprocessing, tmp_path: Path
) -> None:
    names = ("Fir", "/e/elm", "oak", "CEDAR", "birch")
    found = scan(make(small, labels=names), folder, tmp_path / "out", **OPTIONS)
    assert found.classes == CLASSES and found.manifest["data"]["targets"] == [
        None,
        4,
        3,
        1,
        0,
    ]
    assert "4 of the data set's 5 classes" in found.manifest["data"]["notes"][-1]
    images = found.table("images").to_pydict()
    assert {(own, target) for own, target in zip(images["class_name"], images["target"], strict=True)} == {
        ("ash", None), ("birch", 4), ("cedar", 3), ("elm", 1), ("fir", 0)
    }  # fmt: skip
    assert sum(one is None for one in images["correct"]) == 9
    assert found.table("classes").column("judged").to_pylist() == [0, 9, 9, 9, 9]
    rows = found.table("class_ablation").to_pydict()
    assert set(zip(rows["class"], rows["class_name"], strict=True)) == {
        (1, "birch"),
        (2, "cedar"),
        (3, "elm"),
        (4, "fir"),
    }


def test_without_labels_the_predictions_tell_images_apart(
    folder: Path, model: Classifier, tmp_path: Path
) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, path in enumerate(paths(folder)):
        shutil.copyfile(path, flat / f"{number:02}.png")
    found = scan(model, flat, tmp_path / "out", **OPTIONS)
    assert found.manifest["data"]["labels"] == "predicted" and found.classes == CLASSES
    images = found.table("images").to_pydict()
    assert images["class"] == images["prediction"] and set(images["correct"]) == {None}
    # With all units on every image is in the class that was predicted for it.
    assert found.manifest["ablation"]["accuracy"][0] == 1.0


def test_numbers_without_names_must_be_the_models_own(
    folder: Path, small: Preprocessing, tmp_path: Path
) -> None:
    listing = tmp_path / "list.txt"
    listing.write_text(
        "".join(f"{path} {number % 5}\n" for number, path in enumerate(paths(folder)))
    )
    found = scan(make(small), listing, tmp_path / "out", **OPTIONS)
    assert "taken for the model's own" in found.manifest["data"]["notes"][-1]
    listing.write_text(
        "".join(f"{path} {number % 7}\n" for number, path in enumerate(paths(folder)))
    )
    assert "give the names" in refused(
        DatasetError, make(small), listing, tmp_path / "other", **OPTIONS
    )


# --- networks of other kinds -------------------------------------------------------------------------------------


def test_a_head_behind_a_function_has_a_map_of_its_own(
    folder: Path, small: Preprocessing, tmp_path: Path
) -> None:
    dense = make(small, seeded(Dense), labels=None)
    layer = dense.head.layer
    assert not dense.head.layer_is_map
    found = scan(dense, folder, tmp_path / "out", layers=[layer], **OPTIONS)
    assert [(one.name, one.is_head) for one in found.layers] == [
        (layer, False),
        (f"{layer}+", True),
    ]
    units = found.table("units").to_pydict()
    explained = dense.explain(paths(folder)).feature_map.numpy()
    own = [
        value
        for value, name in zip(units["maximum"], units["layer"], strict=True)
        if name == f"{layer}+"
    ]
    assert own == pytest.approx(explained.max((0, 2, 3)), rel=1e-5)


def test_without_an_exact_head_there_is_no_ablation(
    folder: Path, small: Preprocessing, tmp_path: Path
) -> None:
    local = make(small, seeded(Flattened), labels=None)
    assert not local.head.exact
    found = scan(local, folder, tmp_path / "out", **OPTIONS)
    assert (
        found.readout is None
        and found.manifest["ablation"] is None
        and not found.has("unit_ablation")
    )
    assert found.table("units").num_rows == found.layers[0].units


def test_the_users_network_is_left_alone(folder: Path, tmp_path: Path) -> None:
    module = seeded(Gap).train()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    scan(
        make(Preprocessing(resize=36, crop=32), module),
        folder,
        tmp_path / "out",
        **OPTIONS,
    )
    assert module.training and all(
        torch.equal(value, state[name]) for name, value in module.state_dict().items()
    )
    assert not any(one._forward_hooks for one in module.modules())


# --- concepts ----------------------------------------------------------------------------------------------------


class Reds(nn.Module):
    """Unit 0 is how red a place is, unit 1 how blue, unit 2 is noise of the place."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 3, 4, stride=4, bias=False), nn.ReLU()
        )
        with torch.no_grad():
            weight = torch.zeros(3, 3, 4, 4)
            weight[0, 0], weight[0, 1], weight[0, 2] = 1, -1, -1
            weight[1, 2], weight[1, 0], weight[1, 1] = 1, -1, -1
            weight[2] = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0))
            self.features[0].weight.copy_(weight)
        self.fc = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).mean(dim=(2, 3)))


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos with one red and one blue square each, and index maps of them; a tenth of them green."""
    root = tmp_path_factory.mktemp("masked")
    random = np.random.default_rng(0)
    for number in range(40):
        pixels = random.integers(90, 130, (32, 32, 3)).astype(np.uint8)
        index = np.zeros((32, 32), np.uint8)
        for concept, colour in ((1, (250, 10, 10)), (2, (10, 10, 250))):
            row, col = random.integers(0, 24, 2) // 4 * 4
            pixels[row : row + 8, col : col + 8] = colour
            index[row : row + 8, col : col + 8] = concept
        for kind, array in (("images", pixels), ("annotations", index)):
            path = root / kind / f"{number:02}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(array).save(path)
    (root / "names.txt").write_text("red\nblue\n")
    return root


@pytest.fixture
def reds() -> Classifier:
    """The network that sees red and blue."""
    return wrap(
        seeded(Reds),
        preprocessing=Preprocessing(
            resize=None, crop=32, mean=(0.5,) * 3, std=(0.25,) * 3
        ),
    )


CONCEPTS: dict[str, Any] = OPTIONS | {"quantile": 0.07}


def test_units_are_named_by_what_they_detect(
    reds: Classifier, masked: Path, tmp_path: Path
) -> None:
    found = scan(reds, masked / "images", tmp_path / "out", concepts=masked, **CONCEPTS)
    units = found.table("units").to_pylist()
    assert [(unit["name"], unit["named_by"]) for unit in units[:2]] == [
        ("red", "concept"),
        ("blue", "concept"),
    ]
    for unit in units[:2]:
        assert (
            unit["iou"] > 0.5
            and unit["iou_low"] <= unit["iou"] <= unit["iou_high"]
            and unit["p_value"] == 1 / 21
        )
    assert units[2]["named_by"] != "concept" or units[2]["iou"] < 0.3
    rows = found.table("unit_concepts", where=[("unit", "=", 0)]).to_pylist()
    assert (
        rows[0]["name"] == "red"
        and rows[0]["chance"] < 0.2 < rows[0]["iou"] > rows[0]["chance_high"]
    )
    detectors = found.manifest["concepts"]["detectors"][found.layer().name]
    assert detectors["units"] >= 2 and found.manifest["concepts"]["photos"] == 40


def test_concepts_are_added_later_and_stopped_and_gone_on_with(
    reds: Classifier, masked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unitscope.atlas.dissection._SHARD", 8)
    whole = scan(
        reds, masked / "images", tmp_path / "whole", concepts=masked, **CONCEPTS
    )
    out = tmp_path / "out"
    assert not scan(reds, masked / "images", out, **CONCEPTS).has("unit_concepts")
    with pytest.raises(Stop):
        scan(
            reds,
            masked / "images",
            out,
            concepts=masked,
            progress=stopping_at(20, "concepts"),
        )
    told: list[Progress] = []
    scan(reds, masked / "images", out, concepts=masked, progress=told.append)
    assert 0 < told[-1].total < 40
    assert contents(out) == contents(whole.path)
    told.clear()
    scan(reds, masked / "images", out, concepts=masked, progress=told.append)
    assert not told


@pytest.mark.slow
def test_concepts_in_workers(reds: Classifier, masked: Path, tmp_path: Path) -> None:
    one = scan(reds, masked / "images", tmp_path / "one", concepts=masked, **CONCEPTS)
    two = scan(
        reds,
        masked / "images",
        tmp_path / "two",
        concepts=masked,
        workers=2,
        **CONCEPTS,
    )
    assert contents(one.path) == contents(two.path)


def test_concepts_are_of_the_masks_and_the_thresholds_they_were_measured_at(
    reds: Classifier, masked: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "masked"
    shutil.copytree(masked, mine)
    out = tmp_path / "out"
    part = scan(reds, mine / "images", out, concepts=mine, part=(1, 2), **CONCEPTS)
    assert part.has("unit_concepts")
    whole = scan(reds, mine / "images", out)
    assert (
        not whole.has("unit_concepts")
        and not whole.concepts_of(0)
        and whole.manifest["concepts"] is None
    )
    before = scan(reds, mine / "images", out, concepts=mine).manifest["concepts"][
        "identity"
    ]
    one, other = (
        (mine / "annotations" / name).read_bytes() for name in ("03.png", "04.png")
    )
    (mine / "annotations" / "03.png").write_bytes(other.ljust(len(one), b"\0"))
    assert (
        scan(reds, mine / "images", out, concepts=mine).manifest["concepts"]["identity"]
        != before
    )


def test_with_few_masked_photos_nothing_can_be_told_from_chance(
    reds: Classifier, masked: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "masked"
    for number in range(6):
        for kind in ("images", "annotations"):
            (mine / kind).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(
                masked / kind / f"{number:02}.png", mine / kind / f"{number:02}.png"
            )
    shutil.copyfile(masked / "names.txt", mine / "names.txt")
    found = scan(reds, mine / "images", tmp_path / "out", concepts=mine, **CONCEPTS)
    assert not any(row["detector"] for row in found.units())
    assert found.manifest["concepts"]["detectors"][found.layer().name]["units"] == 0
    assert "too few to tell" in dict(found.facts())["detectors"]


def test_damaged_masks_are_skipped_and_told(
    reds: Classifier, masked: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "masked"
    shutil.copytree(masked, mine)
    (mine / "annotations" / "05.png").write_bytes(b"no picture")
    found = scan(reds, mine / "images", tmp_path / "out", concepts=mine, **CONCEPTS)
    assert found.manifest["concepts"]["photos"] == 39
    (id_, reason), *more = found.manifest["concepts"]["skipped"]
    assert not more and "05" in id_ and "05.png" in reason


# --- reading -----------------------------------------------------------------------------------------------------


def test_opening_reads_the_manifest_only(atlas: Atlas, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    shutil.copyfile(atlas.path / "atlas.json", copy / "atlas.json")
    opened = Atlas.open(copy)
    assert "features.4 (6 units)" in repr(opened) and opened.classes == CLASSES
    with pytest.raises(AtlasError, match="has no table 'units'"):
        opened.table("units")
    with pytest.raises(AtlasError, match="is missing"):
        opened.summary()


def test_a_units_maps_are_drawn_on_the_photos(
    atlas: Atlas, folder: Path, model: Classifier, tmp_path: Path
) -> None:
    top = atlas.table(
        "top_images", where=[("layer", "=", "features.4"), ("unit", "=", 2)]
    ).to_pylist()
    for by in ("maximum", "mean", "sample"):
        found = atlas.unit_maps(2, by=by, count=3)
        real = model.units(
            [folder / subject.source.name for subject in found.subjects], None, 2
        )  # type: ignore[union-attr]
        assert found.maps.numpy() == pytest.approx(
            real.maps.numpy(), abs=2e-3 * float(real.maps.max())
        )
        for image, (one, other) in enumerate(
            zip(found.subjects, real.subjects, strict=True)
        ):
            assert one.placement(found.input_size) == other.placement(real.input_size)
            assert np.array_equal(
                np.asarray(one.picture()), np.asarray(other.picture())
            ), image
        if by != "sample":
            scores = [row["score"] for row in top if row["criterion"] == by][:3]
            pooled = (
                found.maps.amax((2, 3)) if by == "maximum" else found.maps.mean((2, 3))
            )
            assert pooled[:, 0].tolist() == pytest.approx(scores, rel=2e-3)
    found.save(tmp_path / "unit.png")
    assert "<img" in found._repr_html_()
    with pytest.raises(InputError, match="not by 'beauty'"):
        atlas.unit_maps(2, by="beauty")
    with pytest.raises(UnitError, match="there is no unit 6"):
        atlas.unit_maps(6)


def test_a_photo_that_changed_is_not_drawn_as_another(
    folder: Path, model: Classifier, tmp_path: Path
) -> None:
    mine = tmp_path / "photos"
    shutil.copytree(folder, mine)
    found = scan(model, mine, tmp_path / "out", **OPTIONS)
    maps = found.unit_maps(0, count=1)
    path = mine / maps.subjects[0].source.name  # type: ignore[union-attr]
    photo(77).save(path)
    with pytest.raises(PhotoError, match="has changed since it was scanned"):
        maps.figure()


def test_what_is_no_atlas(tmp_path: Path, atlas: Atlas) -> None:
    with pytest.raises(AtlasError, match="there is no atlas in"):
        Atlas.open(tmp_path)
    (tmp_path / "atlas.json").write_text("{")
    with pytest.raises(AtlasError, match="cannot be read"):
        Atlas.open(tmp_path)
    manifest = json.loads((atlas.path / "atlas.json").read_text())
    (tmp_path / "atlas.json").write_text(
        json.dumps(manifest | {"schema": "unitscope-atlas/9"})
    )
    with pytest.raises(AtlasError, match="unitscope-atlas/9"):
        Atlas.open(tmp_path)
    with pytest.raises(AtlasError, match=r"has no table 'unit' \(did you mean 'units'"):
        atlas.table("unit")
    with pytest.raises(AtlasError, match=r"layer 'features\.5' is not in this atlas"):
        atlas.layer("features.5")


def test_damaged_files_are_told(atlas: Atlas, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(atlas.path, copy)
    for name in ("summaries.safetensors", "units.parquet"):
        (copy / name).write_bytes(b"nothing of the kind")
    with pytest.raises(AtlasError, match="is damaged"):
        Atlas.open(copy).summary()
    with pytest.raises(AtlasError, match="cannot be read"):
        Atlas.open(copy).table("units")


def test_the_documented_columns_are_the_written_ones(
    reds: Classifier, masked: Path, tmp_path: Path
) -> None:
    found = scan(reds, masked / "images", tmp_path / "out", concepts=masked, **CONCEPTS)
    text = (Path(__file__).parents[2] / "docs" / "atlas.md").read_text()
    for table in sorted(found.path.glob("*.parquet")):
        section = text.split(f"**{table.stem}** – ")[1].split("\n\n")[0]
        for column in found.table(table.stem).column_names:
            told = (
                column in section
                or column.removesuffix("_low") in section
                or column.removesuffix("_high") in section
            )
            assert told or column.startswith("quantile_"), (
                f"docs/atlas.md does not tell of {table.stem}.{column}"
            )
