"""Atlas: opening an atlas, and reading it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from scans import (
    CLASSES,
    OPTIONS,
    photo,
)
from unitscope.atlas.atlas import Atlas
from unitscope.atlas.scanning import scan
from unitscope.errors import (
    AtlasError,
    InputError,
    PhotoError,
    UnitError,
)
from unitscope.inputs.photos import Encoded
from unitscope.model import Classifier


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
        drawn = atlas.unit_maps(2, by=by, count=3)
        photos = []
        for subject in drawn.subjects:
            assert isinstance(subject.source, Encoded)
            photos.append(folder / subject.source.name)
        real = model.units(photos, None, 2)
        assert drawn.maps.numpy() == pytest.approx(
            real.maps.numpy(), abs=2e-3 * float(real.maps.max())
        )
        for image, (ours, theirs) in enumerate(
            zip(drawn.subjects, real.subjects, strict=True)
        ):
            assert ours.placement(drawn.input_size) == theirs.placement(
                real.input_size
            )
            assert np.array_equal(
                np.asarray(ours.picture()), np.asarray(theirs.picture())
            ), image
        if by != "sample":
            scores = [row["score"] for row in top if row["criterion"] == by][:3]
            pooled = (
                drawn.maps.amax((2, 3))
                if by == "maximum"
                else drawn.maps.mean((2, 3))
            )
            assert pooled[:, 0].tolist() == pytest.approx(scores, rel=2e-3)
    drawn.save(tmp_path / "unit.png")
    assert "<img" in drawn._repr_html_()
    with pytest.raises(InputError, match="not by 'beauty'"):
        atlas.unit_maps(2, by="beauty")
    with pytest.raises(UnitError, match="there is no unit 6"):
        atlas.unit_maps(6)


def test_a_photo_that_changed_is_not_drawn_as_another(
    folder: Path, model: Classifier, tmp_path: Path
) -> None:
    mine = tmp_path / "photos"
    shutil.copytree(folder, mine)
    scanned = scan(model, mine, tmp_path / "out", **OPTIONS)
    maps = scanned.unit_maps(0, count=1)
    path = mine / maps.subjects[0].source.name  # type: ignore[union-attr]
    photo(77).save(path)
    with pytest.raises(PhotoError, match="has changed since it was scanned"):
        maps.figure()


def test_a_folder_without_an_atlas_is_refused(
    tmp_path: Path, atlas: Atlas
) -> None:
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
    with pytest.raises(
        AtlasError, match=r"has no table 'unit' \(did you mean 'units'"
    ):
        atlas.table("unit")
    with pytest.raises(
        AtlasError, match=r"layer 'features\.5' is not in this atlas"
    ):
        atlas.layer("features.5")


def test_damaged_files_are_refused(atlas: Atlas, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(atlas.path, copy)
    for name in ("summaries.safetensors", "units.parquet"):
        (copy / name).write_bytes(b"nothing of the kind")
    with pytest.raises(AtlasError, match="is damaged"):
        Atlas.open(copy).summary()
    with pytest.raises(AtlasError, match="cannot be read"):
        Atlas.open(copy).table("units")
