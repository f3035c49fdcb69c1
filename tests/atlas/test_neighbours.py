"""Neighbours: correlations over a data set, against NumPy's on all of it at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

from networks import Gap, seeded
from unitscope.atlas.atlas import Atlas
from unitscope.atlas.neighbours import _correlated, correlations
from unitscope.atlas.scanning import scan
from unitscope.errors import UnitError
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import wrap


def scanned(folder: Path, classes: int, photos: int, sample: int) -> Atlas:
    """An atlas of twelve units, two of them twins and one dead, and of an earlier layer."""
    noise = np.random.default_rng(1)
    for label in range(classes):
        for number in range(photos):
            path = folder / "photos" / f"class {label}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = noise.integers(0, 256, (4, 4, 3), np.uint8)
            Image.fromarray(pixels).resize((40, 40)).save(path)
    net = seeded(lambda: Gap(units=12, classes=classes))
    last = net.get_submodule("features.3")
    assert isinstance(last, nn.Conv2d) and last.bias is not None
    last.weight.data[7], last.bias.data[7] = (
        2 * last.weight.data[3],
        2 * last.bias.data[3],
    )
    last.weight.data[5], last.bias.data[5] = 0, -1
    model = wrap(
        net,
        labels=[f"class {label}" for label in range(classes)],
        preprocessing=Preprocessing(36, 32),
    )
    return scan(
        model,
        folder / "photos",
        folder / "atlas",
        engine="torch",
        layers=["features.2"],
        top=3,
        sample=sample,
        batch_size=4,
        shard_size=7,
    )


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    return scanned(
        tmp_path_factory.mktemp("few"), classes=3, photos=10, sample=8
    )


def slow(values: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        result = np.asarray(
            np.corrcoef(values.astype(np.float64), rowvar=False)
        )
    np.fill_diagonal(result, np.nan)
    return result


def test_the_heads_layer_is_compared_over_all_images(atlas: Atlas) -> None:
    pooled = np.concatenate([part for part, _ in atlas.pooled()])
    assert len(atlas.shards()) > 3 and len(pooled) == 30
    result = correlations(atlas, atlas.layer(), [3, 11, 5])
    np.testing.assert_allclose(
        result.values, slow(pooled)[[3, 11, 5]], rtol=0, atol=1e-12
    )
    assert (result.of, result.count) == ("images", 30)
    rows = atlas.neighbours(3, count=4)
    assert (
        rows[0]["unit"] == 7
        and rows[0]["correlation"] == pytest.approx(1, abs=1e-6)
        and len(rows) == 4
    )
    values = [row["correlation"] for row in rows]
    assert values == sorted(values, reverse=True) and all(
        row["unit"] not in (3, 5) for row in rows
    )
    assert {(row["of"], row["compared"]) for row in rows} == {("images", 30)}


def test_a_constant_unit_has_no_neighbours(atlas: Atlas) -> None:
    assert atlas.neighbours(5) == []
    assert len(atlas.neighbours(0, count=100)) == 10
    with pytest.raises(
        UnitError, match="there is no unit 12 in layer 'features'"
    ):
        atlas.neighbours(12)


def test_other_layers_are_compared_over_the_sample_where_classes_are_fewer(
    atlas: Atlas,
) -> None:
    layer = atlas.layer("features.2")
    result = correlations(atlas, layer, range(layer.units))
    np.testing.assert_allclose(
        result.values,
        slow(atlas.summary("features.2").sample.means),
        atol=1e-12,
    )
    assert (result.of, result.count) == ("sample", 8)


def test_other_layers_are_compared_over_classes_where_those_are_more(
    tmp_path: Path,
) -> None:
    atlas = scanned(tmp_path, classes=9, photos=2, sample=8)
    layer = atlas.layer("features.2")
    result = correlations(atlas, layer, [4, 2])
    means = atlas.summary("features.2").classes.means
    np.testing.assert_allclose(result.values, slow(means)[[4, 2]], atol=1e-12)
    assert (result.of, result.count) == ("classes", 9)
    assert {row["of"] for row in atlas.neighbours(1, "features.2")} == {
        "classes"
    }


def test_small_changes_about_a_large_mean_are_not_lost() -> None:
    values = (
        1000
        + np.random.default_rng(0).normal(size=(500, 6)).astype(np.float32)
        / 100
    )
    values[:, 4] = 1234.5
    parts = np.split(values, [1, 90, 400])
    result = _correlated(parts, range(6))
    wanted = slow(values)
    np.testing.assert_allclose(
        np.delete(result, 4, 1)[:4], np.delete(wanted, 4, 1)[:4], atol=1e-9
    )
    assert np.isnan(result[4]).all() and np.isnan(result[:, 4]).all()
