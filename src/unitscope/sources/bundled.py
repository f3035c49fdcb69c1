"""miniplaces (also: scenes): the scene classifier in the box, with its labels and preprocessing in the weights file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from unitscope.errors import ModelError, PreprocessingError
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.labels import check_label_count
from unitscope.model import Classifier
from unitscope.scenes import WEIGHTS
from unitscope.scenes.network import Architecture, SceneNetwork
from unitscope.sources.request import Request
from unitscope.sources.weights import fit_weights, read_weights


def load(request: Request) -> Classifier:
    """Load the bundled scene classifier, offline; see `unitscope.load`."""
    if not WEIGHTS.is_file():
        raise ModelError(
            "the bundled model is not in this build: install unitscope from a release, "
            "or name another model"
        )
    weights = read_weights(WEIGHTS)
    try:
        architecture = Architecture.from_json(weights.metadata["architecture"])
        labels = tuple(str(label) for label in json.loads(weights.metadata["labels"]))
        own = _preprocessing(json.loads(weights.metadata["preprocessing"]))
        card = json.loads(weights.metadata["card"])
    except (KeyError, ValueError, TypeError, PreprocessingError) as error:
        raise ModelError(
            f"the bundled model is damaged ({error}): install unitscope again"
        ) from None
    preprocessing = request.chosen_preprocessing(own)
    module = SceneNetwork(architecture)
    fit_weights(module, weights)
    given = request.own_labels() or labels
    check_label_count(given, architecture.classes)
    notes = [
        _accuracy(card),
        *(str(card[key]) for key in ("attribution", "data", "not_for") if key in card),
    ]
    return Classifier(
        module.eval(),
        given,
        preprocessing,
        request.provenance(f"bundled {weights.name}", weights.sha256, notes),
    )


def _accuracy(card: Mapping[str, Any]) -> str:
    """The card's accuracy in one line, with its 95 % intervals."""
    shares = []
    for key, name in (("top1", "top-1"), ("top5", "top-5")):
        low, high = card["accuracy"][key]["interval"]
        shares.append(
            f"{name} {card['accuracy'][key]['accuracy']:.1%} ({low:.1%}–{high:.1%})"
        )
    return f"Accuracy: {', '.join(shares)} on {card['measured_on']}; 95 % Wilson intervals."


def _preprocessing(settings: Mapping[str, Any]) -> Preprocessing:
    sides = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in settings.items()
    }
    return Preprocessing(
        resize=sides["resize"],
        crop=sides["crop"],
        mean=sides["mean"],
        std=sides["std"],
        interpolation=str(settings["interpolation"]),
        note="the bundled model's own",
    )
