"""Scans: the results are those of a slow scan, also for networks of other kinds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from networks import (
    Dense,
    Flattened,
    Gap,
    MaximumBesideAverage,
    ProjectedCosine,
    seeded,
)
from scans import (
    CLASSES,
    OPTIONS,
    PHOTOS,
    make,
    paths,
)
from unitscope.atlas.ablation.unit_sets import confusion_without
from unitscope.atlas.atlas import Atlas
from unitscope.atlas.findings.ablation_tables import pooled_features
from unitscope.atlas.findings.precisions import average_precision
from unitscope.atlas.reading.description import facts_of
from unitscope.atlas.scanning import scan
from unitscope.errors import AtlasError, MissingError, UnitscopeWarning
from unitscope.explorer.documents import Documents
from unitscope.explorer.tiles import Tiles
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import Classifier


def test_it_finds_what_explaining_every_photo_finds(
    atlas: Atlas, folder: Path, model: Classifier
) -> None:
    explanation = model.explain(paths(folder))
    maps = explanation.feature_map.numpy()
    units = atlas.table(
        "units", where=[("layer", "=", "features.4")]
    ).to_pydict()
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
    pooled = np.concatenate([part for part, _ in atlas.pooled()])
    assert pooled == pytest.approx(
        explanation.pooled.numpy(), rel=1e-4, abs=1e-6
    )
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
        assert [scanned.name for scanned in atlas.layers] == [
            "features.2",
            "features.4",
        ]
        for criterion, scores in (
            ("maximum", maps.max((2, 3))),
            ("mean", maps.mean((2, 3))),
        ):
            top = summary.top[criterion]
            for unit in range(6):
                assert top.scores[unit] == pytest.approx(
                    np.sort(scores[:, unit])[::-1][:4], rel=1e-4, abs=1e-6
                )
                stored = top.maps()[unit]
                real = maps[top.images[unit], unit]
                assert stored == pytest.approx(
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
            for right, label in zip(
                images["correct"], images["class_name"], strict=True
            )
            if label == name
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
    pooled = np.concatenate([part for part, _ in atlas.pooled()])[:, 2]
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
    assert int(several.tp.sum()) == int(
        (real == np.array(images["target"])).sum()
    )


def test_a_head_behind_a_function_has_a_map_of_its_own(
    folder: Path, small: Preprocessing, tmp_path: Path
) -> None:
    dense = make(small, seeded(Dense), labels=None)
    layer = dense.head.layer
    assert not dense.head.layer_is_map
    scanned = scan(dense, folder, tmp_path / "out", layers=[layer], **OPTIONS)
    assert [(layer_.name, layer_.is_head) for layer_ in scanned.layers] == [
        (layer, False),
        (f"{layer}+", True),
    ]
    units = scanned.table("units").to_pydict()
    explained = dense.explain(paths(folder)).feature_map.numpy()
    own = [
        value
        for value, name in zip(units["maximum"], units["layer"], strict=True)
        if name == f"{layer}+"
    ]
    assert own == pytest.approx(explained.max((0, 2, 3)), rel=1e-5)


def test_a_head_of_several_maps_is_named_by_all_of_them(
    folder: Path, small: Preprocessing, tmp_path: Path
) -> None:
    several = make(small, seeded(MaximumBesideAverage), labels=None)
    scanned = scan(several, folder, tmp_path / "out", **OPTIONS)
    (layer,) = scanned.layers
    assert layer.name == "features, maximum + features, average"
    assert layer.is_head and layer.units == 12

    off = [0, 7]
    assert scanned.readout is not None
    pooled = torch.cat([torch.from_numpy(part) for part, _ in scanned.pooled()])
    pooled[:, off] = 0
    torch.testing.assert_close(
        scanned.readout.logits(pooled),
        several.forward_without(paths(folder), off),
        rtol=1e-4,
        atol=1e-5,
    )


def test_units_of_a_maximum_are_told_by_their_activations(
    folder: Path, small: Preprocessing, tmp_path: Path
) -> None:
    several = make(small, seeded(MaximumBesideAverage), labels=None)
    scanned = scan(
        several, folder, tmp_path / "out", layers=["features"], **OPTIONS
    )
    units = scanned.table("units").to_pydict()
    of_layer = [name == "features" for name in units["layer"]]
    assert sum(of_layer) == 6 and len(of_layer) == 6 + 12
    for name in ("maximum", "mean", "threshold", "share_positive"):
        numbers = np.array(units[name])
        plain, of_head = numbers[of_layer], numbers[~np.array(of_layer)]
        np.testing.assert_allclose(of_head, np.tile(plain, 2), rtol=1e-5)

    # What the pools make of the maps is kept for ablation alone.
    assert not scanned.head_pools_means
    pooled = np.concatenate([part for part, _ in scanned.pooled()])
    explained = several.explain(paths(folder))
    np.testing.assert_allclose(pooled, explained.pooled, rtol=1e-4, atol=1e-6)
    (alike, *_) = scanned.neighbours(0, layer=scanned.layer().name)
    assert alike["of"] != "images" and alike["unit"] == 6

    alone = Documents(None, scanned, dataset=scanned.photos(), folder=tmp_path)
    assert not alone.index()["photos"]
    with pytest.raises(MissingError, match="pools them in other ways"):
        alone.photo("image-0")
    live = Documents(
        several, scanned, dataset=scanned.photos(), folder=tmp_path
    )
    shown = live.index()["photos"][0]["id"]
    assert live.photo(shown)["shares"]


def test_a_head_that_tables_cannot_hold_leaves_no_pooled_units(
    folder: Path, small: Preprocessing, tmp_path: Path
) -> None:
    cosine = make(small, seeded(ProjectedCosine), labels=None)
    assert cosine.head.exact and not cosine.head.has_table
    scanned = scan(cosine, folder, tmp_path / "out", **OPTIONS)
    assert not list((tmp_path / "out" / "pooled").glob("*"))
    with pytest.raises(AtlasError, match="a projection before a normal"):
        scanned.without([0])


def test_without_an_exact_head_there_is_no_ablation(
    folder: Path, small: Preprocessing, tmp_path: Path
) -> None:
    local = make(small, seeded(Flattened), labels=None)
    assert not local.head.exact
    scanned = scan(local, folder, tmp_path / "out", **OPTIONS)
    assert (
        scanned.readout is None
        and scanned.manifest["ablation"] is None
        and not scanned.has("unit_ablation")
    )
    assert scanned.table("units").num_rows == scanned.layers[0].units


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
        torch.equal(value, state[name])
        for name, value in module.state_dict().items()
    )
    assert not any(part._forward_hooks for part in module.modules())


def test_an_atlas_without_probabilities_has_no_column_of_them(
    folder: Path, small: Preprocessing, tmp_path: Path
) -> None:
    model = make(small, scores="none")
    atlas = scan(model, folder, tmp_path / "out", **OPTIONS)
    assert "probability" not in atlas.table("images").column_names
    assert atlas.scores == atlas.manifest["model"]["scores"] == "none"
    assert atlas.manifest["identity"]["kind of scores"] == "none"
    assert Tiles(atlas, None, tmp_path).row(0)[3] is None
    with pytest.raises(AtlasError, match="load it with scores 'none'"):
        Documents(make(small), atlas, folder=tmp_path)


def test_classes_of_their_own_have_a_precision_each(
    folder: Path, small: Preprocessing, tmp_path: Path
) -> None:
    scanned = scan(
        make(small, scores="sigmoid"), folder, tmp_path / "out", **OPTIONS
    )
    classes = scanned.table("classes").to_pydict()
    logits = make(small).explain(paths(folder)).logits.numpy()
    own = np.array([CLASSES.index(path.parent.name) for path in paths(folder)])
    for index, told in enumerate(classes["average_precision"]):
        order = np.argsort(-logits[:, index])
        hits = own[order] == index
        precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
        assert told == pytest.approx(precision[hits].mean())
    facts = dict(facts_of(scanned))
    assert "of the largest logit; each class" in " ".join(facts)
    assert facts["mean average precision"].endswith("each by its own logit")
    document = Documents(None, scanned, folder=tmp_path).index()
    assert document["atlas"]["classes"]["average_precision"] == pytest.approx(
        classes["average_precision"], abs=1e-4
    )


def test_precision_counts_equal_scores_together() -> None:
    scores = np.array([3.0, 2.0, 2.0, 1.0])
    of_class = np.array([True, False, True, False])
    # At 3: recall 1/2, precision 1; at 2: recall 1, precision 2/3.
    assert average_precision(scores, of_class) == pytest.approx(
        0.5 + 0.5 * 2 / 3
    )
    assert np.isnan(average_precision(scores, np.zeros(4, bool)))


@pytest.mark.parametrize(
    ("labels", "classes", "scores", "reason"),
    [
        (CLASSES, 5, "none", "no classes"),
        (("elm",), 1, None, "always the largest"),
    ],
)
def test_what_cannot_be_right_has_no_accuracy(
    labels: tuple[str, ...],
    classes: int,
    scores: str | None,
    reason: str,
    folder: Path,
    small: Preprocessing,
    tmp_path: Path,
) -> None:
    net = seeded(lambda: Gap(classes=classes))
    model = make(small, net, labels, scores)
    scanned = scan(model, folder, tmp_path / "out", **OPTIONS)
    assert set(scanned.table("classes").to_pydict()["judged"]) == {0}
    assert set(scanned.table("images").to_pydict()["correct"]) == {None}
    assert not scanned.has("unit_ablation")
    with pytest.raises(AtlasError, match=reason):
        scanned.without([0])
    facts = facts_of(scanned)
    assert any(name == "accuracy" and reason in text for name, text in facts)
    precise = "mean average precision" in dict(facts)
    assert precise is (classes == 1)


def test_how_photos_were_read_is_noted_with_their_number(
    small: Preprocessing, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, top in enumerate((4095, 4000, 250)):
        samples = np.linspace(0, top, 900).astype(np.uint16).reshape(30, 30)
        Image.fromarray(samples).save(photos / f"{number}.png")
    with pytest.warns(UnitscopeWarning) as caught:
        scanned = scan(make(small), photos, tmp_path / "out", **OPTIONS)
    several, one = scanned.manifest["scanned"]["notes"]
    told = [str(each.message) for each in caught]
    assert {several, one} <= set(told)
    assert several.startswith("2 photos: samples of 16 bits that fit 12 bits")
    assert one.startswith("1 photos: samples of 16 bits that fit 8 bits")
