"""Heads of attention are units of an atlas: their attention over a data set, what they give to
predictions, and the means that photos' heads can be replaced by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from scans import OPTIONS, PHOTOS, Stop, contents, make, refused, stopping_at
from transformer import BLOCKS, HEADS, small_vit
from unitscope.atlas.atlas import Atlas
from unitscope.atlas.merging import merge
from unitscope.atlas.scanning import scan
from unitscope.errors import AtlasError, InputError, LayerError, ModelError
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import Classifier
from unitscope.residual.explanation import ResidualExplanation
from unitscope.residual.head import HEADS as LAYER

UNITS = BLOCKS * HEADS


@pytest.fixture(scope="module")
def vit() -> Classifier:
    return make(Preprocessing(resize=36, crop=32), small_vit())


@pytest.fixture(scope="module")
def of_heads(
    vit: Classifier, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Atlas:
    """By default it is the heads that are scanned."""
    out = tmp_path_factory.mktemp("heads") / "atlas"
    return scan(vit, folder, out, **{**OPTIONS, "engine": None})


@pytest.fixture(scope="module")
def explained(vit: Classifier, of_heads: Atlas) -> ResidualExplanation:
    """All photos of the atlas, in its order."""
    dataset = of_heads.photos()
    photos = [dataset.read(image) for image in range(len(dataset))]
    folder = Path(dataset.source)
    paths = [folder / entry.id for entry in dataset.entries]
    assert len(photos) == PHOTOS
    explanation = vit.explain(paths)
    assert isinstance(explanation, ResidualExplanation)
    return explanation


def test_heads_are_the_units_of_a_network_without_an_exact_head(
    of_heads: Atlas, explained: ResidualExplanation
) -> None:
    (layer,) = of_heads.layers
    assert (layer.name, layer.units, layer.noun) == (LAYER, UNITS, "head")
    assert layer.unit_name(4) == "1.1" and not layer.is_head
    assert of_heads.manifest["engine"]["name"] == "torch"
    # Maps are attention to patches, and their means its share.
    maxima = explained.feature_map.amax(dim=(2, 3)).max(dim=0)
    rows = of_heads.units()
    top = of_heads.table("top_images").to_pylist()
    for row, maximum, image in zip(rows, *maxima, strict=True):
        assert row["head"] == layer.unit_name(row["unit"])
        assert row["maximum"] == pytest.approx(float(maximum), rel=1e-5)
        first = next(
            each
            for each in top
            if (each["unit"], each["criterion"], each["rank"])
            == (row["unit"], "maximum", 1)
        )
        assert first["image"] == int(image)
    shares = of_heads.summary().classes.overall_mean
    assert np.allclose(shares, explained.pooled.mean(dim=0), rtol=1e-5)
    assert (0 < shares).all() and (shares < 1).all()


def test_what_heads_give_to_predictions_is_kept(
    of_heads: Atlas, explained: ResidualExplanation
) -> None:
    predicted = explained.logits.argmax(dim=1)
    given = explained.contributions[range(PHOTOS), predicted]
    rows = of_heads.units()
    mean = [row["contribution_mean"] for row in rows]
    size = [row["contribution_size"] for row in rows]
    assert np.allclose(mean, given.mean(dim=0), atol=1e-6)
    assert np.allclose(size, given.abs().mean(dim=0), atol=1e-6)


def test_heads_can_be_replaced_by_their_means_over_the_data_set(
    vit: Classifier, of_heads: Atlas, explained: ResidualExplanation
) -> None:
    means = of_heads.head_means(vit)
    assert means.images == PHOTOS
    # The photos themselves as the replacement give the same means.
    units, photo = [1, 3], explained[7]
    assert isinstance(photo, ResidualExplanation)
    total = photo.total_logits(units, by=means)
    direct = photo.direct_logits(units, by=means)
    assert torch.allclose(
        total, photo.total_logits(units, by=explained), atol=1e-5
    )
    assert torch.allclose(
        direct, photo.direct_logits(units, by=explained), atol=1e-5
    )
    each = photo.ablate_each(units=units, by=means)
    alone = photo.total_logits([3], by=means)
    assert torch.allclose(each[:, 1], alone, atol=1e-5)
    # It is another thing than silence.
    assert not torch.allclose(total, photo.total_logits(units), atol=1e-3)


def test_means_of_another_network_are_refused(
    vit: Classifier,
    of_heads: Atlas,
    atlas: Atlas,
    model: Classifier,
    explained: ResidualExplanation,
    small: Preprocessing,
) -> None:
    other = make(small, small_vit(seed=1))
    with pytest.raises(AtlasError, match="is of another model"):
        of_heads.head_means(other)
    with pytest.raises(AtlasError, match="has no attention heads: scan them"):
        atlas.head_means(model)
    larger = make(
        Preprocessing(resize=40, crop=40), type(vit.network)(cells=5).eval()
    )
    by = larger.explain(torch.randn(1, 3, 40, 40))
    photo = explained[0]
    assert isinstance(by, ResidualExplanation)
    assert isinstance(photo, ResidualExplanation)
    with pytest.raises(InputError, match="another network, or of inputs of"):
        photo.total_logits([0], by=by)


@pytest.mark.slow
def test_any_number_of_workers_gives_the_same(
    vit: Classifier, folder: Path, of_heads: Atlas, tmp_path: Path
) -> None:
    options = {**OPTIONS, "engine": None}
    two = scan(vit, folder, tmp_path / "two", workers=2, **options)
    assert contents(two.path) == contents(of_heads.path)


def test_stops_and_parts_give_the_same(
    vit: Classifier, folder: Path, of_heads: Atlas, tmp_path: Path
) -> None:
    options = {**OPTIONS, "engine": None}
    whole = contents(of_heads.path)
    with pytest.raises(Stop):
        scan(
            vit,
            folder,
            tmp_path / "stopped",
            progress=stopping_at(24),
            **options,
        )
    assert contents(scan(vit, folder, tmp_path / "stopped").path) == whole
    parts = [
        scan(vit, folder, tmp_path / f"part{which}", part=(which, 2), **options)
        for which in (2, 1)
    ]
    merged = merge([part.path for part in parts], tmp_path / "merged")
    assert contents(merged.path) == whole


def test_heads_and_layers_come_from_one_pass(vit: Classifier) -> None:
    x = torch.randn(2, 3, 32, 32)
    calls = []
    hook = vit.network.register_forward_hook(lambda *_: calls.append(1))
    both = vit.activations(x, ["blocks.0", LAYER, "patches"])
    hook.remove()
    assert len(calls) == 1 and list(both.layers) == [
        "blocks.0",
        LAYER,
        "patches",
    ]
    alone = vit.activations(x, ["blocks.0", "patches"])
    for name, maps in alone.layers.items():
        assert torch.equal(both.layers[name], maps)
    explanation = vit.explain(x)
    assert torch.equal(both.layers[LAYER], explanation.feature_map)
    assert both.heads is not None and alone.heads is None
    assert torch.equal(both.heads.contributions, explanation.contributions)


def test_refusals(
    vit: Classifier, model: Classifier, folder: Path, tmp_path: Path
) -> None:
    said = refused(
        ModelError, vit, folder, tmp_path / "out", engine="onnxruntime"
    )
    assert said.startswith(
        "attention is read in passes of the network as it is"
    )
    said = refused(LayerError, model, folder, tmp_path / "out", layers=LAYER)
    assert LAYER in said
    assert not (tmp_path / "out").exists()
