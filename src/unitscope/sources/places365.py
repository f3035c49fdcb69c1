"""places365:NAME: the scene classifiers of the Places365 authors, from their site."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from unitscope.attribution.scores import Scores
from unitscope.errors import LabelsError, ModelError, WeightsError, near_matches
from unitscope.inputs.preprocessing import AnyPreprocessing, Preprocessing
from unitscope.labels import check_label_count, read_labels
from unitscope.model import Classifier
from unitscope.sources.downloads import fetch
from unitscope.sources.request import Request
from unitscope.sources.torchvision import build
from unitscope.sources.weights import (
    fit_weights,
    infer_class_count,
    read_weights,
)

WEIGHTS_URL = "http://places2.csail.mit.edu/models_places365"
LABELS_URL = "https://raw.githubusercontent.com/CSAILVision/places365/master"
URL_VARIABLE = "UNITSCOPE_PLACES365_URL"
"""The environment variable for a mirror: one address of the weights and the labels."""

NAMES = ("resnet50", "resnet18", "densenet161", "alexnet")
CLASS_COUNT = 365
LABELS_FILE = "categories_places365.txt"

SQUASH_256_CROP_224 = Preprocessing(
    resize=(256, 256),
    crop=224,
    note="Places365, run_placesCNN_basic.py of its authors: squash-256-crop-224",
)
SQUASH_224 = Preprocessing(
    resize=(224, 224),
    crop=None,
    note="Places365, run_placesCNN_unified.py of its authors: squash-224",
)
RESIZE_256_CROP_224 = Preprocessing(
    resize=256,
    crop=224,
    note=(
        "Places365, validation in train_placesCNN.py of its authors: "
        "resize-256-crop-224"
    ),
)

PREPROCESSINGS: Mapping[str, Preprocessing] = {
    "squash-256-crop-224": SQUASH_256_CROP_224,
    "squash-224": SQUASH_224,
    "resize-256-crop-224": RESIZE_256_CROP_224,
}
"""The three preprocessings in circulation for these models, the default first."""

_CREDIT = "Weights by the Places365 authors (Zhou et al., IEEE TPAMI 2017), under CC BY."


def load(request: Request) -> Classifier:
    """Load one of the Places365 authors' classifiers; see `unitscope.load`."""
    name = request.name
    if name not in NAMES:
        raise ModelError(
            f"Places365 has no network '{name}'{near_matches(name, NAMES)}: use one of "
            f"{', '.join(NAMES)}"
        )
    preprocessing = _preprocessing(request)
    # The user's labels first: a wrong file of them should not cost a large download.
    labels = request.own_labels()
    if labels is not None:
        check_label_count(labels, CLASS_COUNT)

    own_file = request.weights_file()
    weights = read_weights(own_file or _published_weights(request))
    classes = infer_class_count(lambda count: build(name, count), weights)
    if classes not in (None, CLASS_COUNT):
        raise WeightsError(
            f"'{weights.name}' is a {name} for {classes} classes, and Places365 has "
            f"{CLASS_COUNT}: load it as checkpoint:FILE with arch 'torchvision:{name}'"
        )

    module = build(name, CLASS_COUNT)
    repairs = fit_weights(module, weights)
    credit = [_CREDIT] if own_file is None else []
    notes = [*credit, *weights.notes, *repairs]
    return Classifier(
        module,
        labels or _published_labels(request),
        preprocessing,
        request.provenance(weights.name, weights.sha256, notes),
        scores=request.scores or Scores.SOFTMAX,
    )


def _preprocessing(request: Request) -> AnyPreprocessing:
    chosen = request.preprocessing
    if not isinstance(chosen, str) or "=" in chosen:
        return request.chosen_preprocessing(SQUASH_256_CROP_224)
    if chosen not in PREPROCESSINGS:
        raise ModelError(
            "Places365 has no preprocessing "
            f"'{chosen}'{near_matches(chosen, PREPROCESSINGS)}: use "
            f"{', '.join(PREPROCESSINGS)}, or pass unitscope.Preprocessing(…)"
        )
    return PREPROCESSINGS[chosen]


def _published_labels(request: Request) -> tuple[str, ...]:
    url = f"{_base(request, LABELS_URL)}/{LABELS_FILE}"
    file = fetch(url, "places365", progress=request.progress).path
    labels = read_labels(file)
    if len(labels) != CLASS_COUNT:
        raise LabelsError(
            f"'{file}' has {len(labels)} labels instead of {CLASS_COUNT}: delete it to "
            "fetch it again"
        )
    return labels


def _published_weights(request: Request) -> Path:
    url = f"{_base(request, WEIGHTS_URL)}/{request.name}_places365.pth.tar"
    return fetch(url, "places365", progress=request.progress).path


def _base(request: Request, official: str) -> str:
    return (
        request.base_url or os.environ.get(URL_VARIABLE) or official
    ).rstrip("/")
