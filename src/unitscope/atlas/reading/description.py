"""Description: what an atlas is of and what it found, in words."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from unitscope.atlas.storage import StoredAtlas
from unitscope.atlas.summaries.concepts import SIGNIFICANCE

# With fewer draws from the null nothing can be significant.
_LEAST_DRAWS = round(1 / SIGNIFICANCE) - 1


def facts_of(atlas: StoredAtlas) -> list[tuple[str, str]]:
    """The facts of an atlas, each as a name and a text."""
    return [
        *_scan_facts(atlas),
        *_layer_facts(atlas),
        *_accuracy_facts(atlas),
        *_detector_facts(atlas),
    ]


def _scan_facts(atlas: StoredAtlas) -> Iterator[tuple[str, str]]:
    manifest = atlas.manifest
    model = manifest["model"]
    data = manifest["data"]
    scanned = manifest["scanned"]

    incomplete = ""
    if not atlas.complete:
        shards = manifest["parameters"]["shards"]
        incomplete = f"; only {len(atlas.shards())} of {shards} shards"
    yield "atlas", f"{atlas.path}{incomplete}"
    yield (
        "model",
        f"{model['spec']} ({model['architecture']}, {len(atlas.labels)} classes)",
    )
    yield "scores", atlas.scores.describe()
    yield (
        "data set",
        f"{data['source']} ({data['kind']}): {scanned['images']:,} images, "
        f"{scanned['skipped']:,} skipped",
    )
    yield "labels", f"{data['labels']}, {len(atlas.classes)} classes"
    for note in (*data["notes"], *scanned.get("notes", ())):
        yield "note", note


def _layer_facts(atlas: StoredAtlas) -> Iterator[tuple[str, str]]:
    units = atlas.table("units", ["layer", "dead"]).to_pydict()
    for layer in atlas.layers:
        rows = zip(units["layer"], units["dead"], strict=True)
        dead = sum(is_dead for name, is_dead in rows if name == layer.name)
        cells = "×".join(map(str, layer.cells))
        if layer.heads is not None:
            words = f"{layer.units} heads, their attention to {cells} patches"
        else:
            words = f"{layer.units} units of {cells} cells, {dead} dead"
        yield "layer", f"{layer.name}: {words}"


def _accuracy_facts(atlas: StoredAtlas) -> Iterator[tuple[str, str]]:
    if not atlas.labelled:
        return
    if atlas.no_accuracy:
        yield "accuracy", f"none: {atlas.no_accuracy}"
    yield from _precision_facts(atlas)
    targets = atlas.manifest["data"]["targets"]
    if all(target is None for target in targets):
        yield (
            "accuracy",
            "none: no class of the data set is one of the model's, by name",
        )
        return

    ablation = atlas.manifest["ablation"]
    if ablation is not None:
        value, low, high = ablation["accuracy"]
        yield (
            atlas.scores.accuracy,
            f"{value:.1%} ({low:.1%}–{high:.1%}, 95 %) on "
            f"{ablation['images']:,} images",
        )


def _precision_facts(atlas: StoredAtlas) -> Iterator[tuple[str, str]]:
    classes = atlas.table("classes").to_pydict()
    known = [
        value
        for value in classes.get("average_precision", ())
        if value is not None
    ]
    if known:
        yield (
            "mean average precision",
            f"{np.mean(known):.1%} of {len(known)} classes, each by its own logit",
        )


def _detector_facts(atlas: StoredAtlas) -> Iterator[tuple[str, str]]:
    concepts = atlas.manifest["concepts"]
    if concepts is None:
        return
    for layer, detectors in concepts["detectors"].items():
        if concepts["draws"] < _LEAST_DRAWS:
            yield (
                "detectors",
                f"{layer}: {concepts['photos']} photos with masks are too few "
                "to tell from chance",
            )
            continue
        mean, low, high = detectors["units_by_chance"]
        yield (
            "detectors",
            f"{layer}: {detectors['units']} units of {detectors['concepts']} concepts; "
            f"by chance {mean:.1f} ({low:.0f}–{high:.0f})",
        )
