"""Precisions: how well each class's logit finds its images, for classes of their own."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped

from unitscope.atlas.ablation.pooled_features import on_processor
from unitscope.atlas.disk.layout import table_file
from unitscope.atlas.disk.tables import table_batches
from unitscope.atlas.storage import StoredAtlas
from unitscope.attribution.readout import Readout

# So many logits are sorted at once.
_NUMBERS = 1 << 24

# Of images that have no label, and of those whose class the model lacks.
_UNLABELLED, _OTHER = -2, -1


def average_precisions(
    atlas: StoredAtlas,
) -> Float[np.ndarray, " class"] | None:
    """The average precision of each of the model's classes over the labelled images.

    Images with another label count as those without the class. It is nan for a class
    without images, or with all of them. None where the logits were not kept, since the
    head is not exact.
    """
    if atlas.readout is None or not atlas.labelled:
        return None
    readout = on_processor(atlas.readout)
    targets = _targets(atlas)
    classes = len(atlas.labels)
    at_once = max(1, _NUMBERS // max(len(targets), 1))
    found = [
        _of_columns(atlas, readout, targets, slice(begin, begin + at_once))
        for begin in range(0, classes, at_once)
    ]
    return np.concatenate(found)


def average_precision(
    scores: Float[np.ndarray, " image"],
    is_of_class: Shaped[np.ndarray, " image"],
) -> float:
    """Σ (recall − recall before) · precision over all thresholds; nan without both kinds."""
    positives = int(is_of_class.sum())
    if not 0 < positives < len(scores):
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    # Images of one score are found together.
    ends = np.flatnonzero(np.append(np.diff(ordered) != 0, True))
    hits = np.cumsum(is_of_class[order])[ends]
    recall_steps = np.diff(hits, prepend=0) / positives
    return float((recall_steps * hits / (ends + 1)).sum())


def _of_columns(
    atlas: StoredAtlas,
    readout: Readout,
    targets: Int64[np.ndarray, " image"],
    columns: slice,
) -> Float[np.ndarray, " class"]:
    logits, own = [], []
    for pooled, places in atlas.pooled():
        labelled = targets[places] != _UNLABELLED
        units = torch.from_numpy(pooled[labelled])
        logits.append(readout.logits(units)[:, columns].numpy())
        own.append(targets[places[labelled]])
    scores, classes = np.concatenate(logits), np.concatenate(own)
    return np.array(
        [
            average_precision(column, classes == columns.start + place)
            for place, column in enumerate(scores.T)
        ]
    )


def _targets(atlas: StoredAtlas) -> Int64[np.ndarray, " image"]:
    """The model's class of each image of the data set."""
    targets = np.full(atlas.manifest["data"]["images"], _UNLABELLED, np.int64)
    of_class = atlas.manifest["data"]["targets"]
    images = table_file(atlas.path, "images")
    for batch in table_batches(images, ["image", "class"]):
        classes = batch.column("class").to_pylist()
        targets[batch.column("image").to_numpy()] = [
            _UNLABELLED if index is None else _target(of_class[index])
            for index in classes
        ]
    return targets


def _target(index: int | None) -> int:
    return _OTHER if index is None else index
