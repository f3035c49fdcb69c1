"""Dissection: concepts over photos with masks, measured by a scan."""

from __future__ import annotations

import functools
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from networks import seeded
from scans import (
    OPTIONS,
    Stop,
    contents,
    stopping_at,
)
from unitscope.atlas.atlas import Atlas
from unitscope.atlas.disk.manifest import read_manifest, write_manifest
from unitscope.atlas.intervals import Estimate
from unitscope.atlas.scan.options import Progress
from unitscope.atlas.scanning import scan
from unitscope.atlas.shards.concept_task import ConceptTask
from unitscope.atlas.shards.observing import Observer
from unitscope.atlas.summaries.concepts import (
    DETECTOR_THRESHOLD,
    ConceptCounts,
)
from unitscope.datasets import open_masks
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import Classifier, wrap
from unitscope.sources import load


class Reds(nn.Module):
    """Unit 0 is how red a place is, unit 1 how blue, unit 2 is noise of the place."""

    def __init__(self) -> None:
        super().__init__()
        convolution = nn.Conv2d(3, 3, 4, stride=4, bias=False)
        self.features = nn.Sequential(convolution, nn.ReLU())
        with torch.no_grad():
            weight = torch.zeros(3, 3, 4, 4)
            weight[0, 0], weight[0, 1], weight[0, 2] = 1, -1, -1
            weight[1, 2], weight[1, 0], weight[1, 1] = 1, -1, -1
            weight[2] = torch.randn(
                3, 4, 4, generator=torch.Generator().manual_seed(0)
            )
            convolution.weight.copy_(weight)
        self.fc = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.features(x).mean(dim=(2, 3)))
        return logits


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos with one red and one blue square each, and their index maps."""
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
    scanned = scan(
        reds, masked / "images", tmp_path / "out", concepts=masked, **CONCEPTS
    )
    units = scanned.table("units").to_pylist()
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
    rows = scanned.table("unit_concepts", where=[("unit", "=", 0)]).to_pylist()
    assert (
        rows[0]["name"] == "red"
        and rows[0]["chance"] < 0.2 < rows[0]["iou"] > rows[0]["chance_high"]
    )
    detectors = scanned.manifest["concepts"]["detectors"][scanned.layer().name]
    assert (
        detectors["units"] >= 2 and scanned.manifest["concepts"]["photos"] == 40
    )


def test_concepts_can_be_added_later_interrupted_and_resumed(
    reds: Classifier,
    masked: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("unitscope.atlas.shards.dissection.SHARD_SIZE", 8)
    whole = scan(
        reds, masked / "images", tmp_path / "whole", concepts=masked, **CONCEPTS
    )
    out = tmp_path / "out"
    assert not scan(reds, masked / "images", out, **CONCEPTS).has(
        "unit_concepts"
    )
    with pytest.raises(Stop):
        scan(
            reds,
            masked / "images",
            out,
            concepts=masked,
            progress=stopping_at(20, "concepts"),
        )
    reported: list[Progress] = []
    scan(
        reds, masked / "images", out, concepts=masked, progress=reported.append
    )
    assert 0 < reported[-1].total < 40
    assert contents(out) == contents(whole.path)
    reported.clear()
    scan(
        reds, masked / "images", out, concepts=masked, progress=reported.append
    )
    assert not reported


def test_an_atlas_with_other_intervals_gets_new_ones_without_counting_again(
    reds: Classifier, masked: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    scan(reds, masked / "images", out, concepts=masked, **CONCEPTS)
    new = contents(out)
    manifest = read_manifest(out)
    older = manifest["concepts"] | {"identity": "of an older version"}
    del older["intervals"]
    write_manifest(out, manifest | {"concepts": older})
    assert Atlas.open(out).units()[0]["iou"] > 0.5

    reported: list[Progress] = []
    scan(
        reds, masked / "images", out, concepts=masked, progress=reported.append
    )
    assert not reported and contents(out) == new


@pytest.mark.slow
def test_concepts_in_workers(
    reds: Classifier, masked: Path, tmp_path: Path
) -> None:
    one = scan(
        reds, masked / "images", tmp_path / "one", concepts=masked, **CONCEPTS
    )
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
    part = scan(
        reds, mine / "images", out, concepts=mine, part=(1, 2), **CONCEPTS
    )
    assert part.has("unit_concepts")
    whole = scan(reds, mine / "images", out)
    assert (
        not whole.has("unit_concepts")
        and not whole.concepts_of(0)
        and whole.manifest["concepts"] is None
    )
    before = scan(reds, mine / "images", out, concepts=mine).manifest[
        "concepts"
    ]["identity"]
    third, fourth = (
        (mine / "annotations" / name).read_bytes()
        for name in ("03.png", "04.png")
    )
    (mine / "annotations" / "03.png").write_bytes(
        fourth.ljust(len(third), b"\0")
    )
    assert (
        scan(reds, mine / "images", out, concepts=mine).manifest["concepts"][
            "identity"
        ]
        != before
    )


def test_few_masked_photos_are_not_significant(
    reds: Classifier, masked: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "masked"
    for number in range(6):
        for kind in ("images", "annotations"):
            (mine / kind).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(
                masked / kind / f"{number:02}.png",
                mine / kind / f"{number:02}.png",
            )
    shutil.copyfile(masked / "names.txt", mine / "names.txt")
    scanned = scan(
        reds, mine / "images", tmp_path / "out", concepts=mine, **CONCEPTS
    )
    assert not any(row["detector"] for row in scanned.units())
    assert (
        scanned.manifest["concepts"]["detectors"][scanned.layer().name]["units"]
        == 0
    )
    assert "too few to tell" in dict(scanned.facts())["detectors"]


def test_damaged_masks_are_skipped_and_listed(
    reds: Classifier, masked: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "masked"
    shutil.copytree(masked, mine)
    (mine / "annotations" / "05.png").write_bytes(b"no picture")
    scanned = scan(
        reds, mine / "images", tmp_path / "out", concepts=mine, **CONCEPTS
    )
    assert scanned.manifest["concepts"]["photos"] == 39
    (id_, reason), *more = scanned.manifest["concepts"]["skipped"]
    assert not more and "05" in id_ and "05.png" in reason


def test_the_documented_columns_are_the_written_ones(
    reds: Classifier, masked: Path, tmp_path: Path
) -> None:
    scanned = scan(
        reds, masked / "images", tmp_path / "out", concepts=masked, **CONCEPTS
    )
    text = (Path(__file__).parents[2] / "docs" / "atlas.md").read_text()
    for table in sorted(scanned.path.glob("*.parquet")):
        section = text.split(f"**{table.stem}** – ")[1].split("\n\n")[0]
        for column in scanned.table(table.stem).column_names:
            documented = (
                column in section
                or column.removesuffix("_low") in section
                or column.removesuffix("_high") in section
            )
            assert documented or column.startswith("quantile_"), (
                f"docs/atlas.md does not describe {table.stem}.{column}"
            )


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("unchecked")
def test_intervals_of_the_best_concepts_hold_on_held_out_photos(
    annotated: Path, tmp_path: Path
) -> None:
    """Concepts chosen and measured on one half of real photos, tried on the other."""
    model = load()
    scanned = scan(model, annotated / "images", tmp_path / "out", part=(1, 4))
    (layer,) = scanned.layers
    share = scanned.manifest["parameters"]["quantile"]
    histogram = scanned.summary(layer.name).histogram

    masked = open_masks(annotated)
    photos = np.random.default_rng(0).permutation(len(masked.dataset))
    parts = np.array_split(photos[:1600], 16)
    task = ConceptTask(
        Observer(model, masked.dataset, scanned.layers, 64),
        masked,
        {layer.name: histogram.thresholds(share)[0]},
        parts,
    )
    task.draws = 0
    counts = [task(part).counts[layer.name] for part in range(len(parts))]

    holds: list[np.ndarray] = []
    for seed in range(10):
        order = np.random.default_rng(seed).permutation(len(counts))
        half, other = (
            functools.reduce(merged, (counts[part] for part in chosen))
            for chosen in np.split(order, 2)
        )
        best = half.iou().argmax(axis=1)[:, None]
        here = half.chosen_interval(best)
        there = Estimate(
            *(np.take_along_axis(e, best, axis=1) for e in other.interval())
        )
        detects = here.value > DETECTOR_THRESHOLD
        below = np.hypot(here.value - here.low, there.high - there.value)
        above = np.hypot(here.high - here.value, there.value - there.low)
        difference = there.value - here.value
        both = (-below <= difference) & (difference <= above)
        holds.append(both[detects])
    # docs/atlas.md has the figures of all photos: 98 %, and 93 % without the correction.
    assert 0.95 <= np.concatenate(holds).mean()


def merged(one: ConceptCounts, other: ConceptCounts) -> ConceptCounts:
    both = ConceptCounts.from_arrays(one.arrays())
    both.merge(other)
    return both


@pytest.fixture(scope="module")
def annotated(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photos of MiniPlaces that carry object annotations."""
    root = tmp_path_factory.mktemp("annotated")
    with tarfile.open(data / "miniplaces" / "annotated-train.tar.xz") as tar:
        tar.extractall(root, filter="data")
    shutil.copy(data / "miniplaces" / "object_categories.txt", root)
    return root
