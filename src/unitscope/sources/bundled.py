"""miniplaces (also: scenes) and miniplaces-vit: the bundled scene classifiers.

Labels, preprocessing and model card are in the metadata of their weights files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from unitscope.attribution.scores import Scores
from unitscope.errors import ModelError, PreprocessingError
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.labels import check_label_count
from unitscope.model import Classifier
from unitscope.scenes import TRANSFORMER_WEIGHTS, WEIGHTS
from unitscope.scenes.transformer import network_from
from unitscope.sources.request import Request
from unitscope.sources.weights import fit_weights, read_weights

TRANSFORMER = "miniplaces-vit"

# The parts of the model card that become notes as they are.
_CARD_KEYS = ("attribution", "data", "not_for")


def load(request: Request) -> Classifier:
    """Load a bundled scene classifier, offline; see `unitscope.load`."""
    path = TRANSFORMER_WEIGHTS if request.name == TRANSFORMER else WEIGHTS
    if not path.is_file():
        raise ModelError(
            f"the bundled model {request.name} is not in this build: install "
            "unitscope from a release, or name another model"
        )
    weights = read_weights(path)
    metadata = weights.metadata
    try:
        module = network_from(metadata["architecture"])
        own_labels = tuple(
            str(label) for label in json.loads(metadata["labels"])
        )
        own_preprocessing = _preprocessing(
            json.loads(metadata["preprocessing"])
        )
        card = json.loads(metadata["card"])
    except (KeyError, ValueError, TypeError, PreprocessingError) as error:
        raise ModelError(
            f"the bundled model {request.name} is damaged ({error}): install "
            "unitscope again"
        ) from None

    preprocessing = request.chosen_preprocessing(own_preprocessing)
    fit_weights(module, weights)

    labels = request.own_labels() or own_labels
    check_label_count(labels, module.architecture.classes)

    notes = [_accuracy(card)]
    notes += [str(card[key]) for key in _CARD_KEYS if key in card]
    provenance = request.provenance(
        f"bundled {weights.name}", weights.sha256, notes
    )
    scores = request.scores or Scores.SOFTMAX
    return Classifier(
        module.eval(), labels, preprocessing, provenance, scores=scores
    )


def _accuracy(card: Mapping[str, Any]) -> str:
    """The card's accuracy in one line, with its 95 % intervals."""
    shares = []
    for key, name in (("top1", "top-1"), ("top5", "top-5")):
        measured = card["accuracy"][key]
        low, high = measured["interval"]
        shares.append(
            f"{name} {measured['accuracy']:.1%} ({low:.1%}–{high:.1%})"
        )
    return (
        f"Accuracy: {', '.join(shares)} on {card['measured_on']}; 95 % Wilson "
        "intervals."
    )


def _preprocessing(settings: Mapping[str, Any]) -> Preprocessing:
    tuples = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in settings.items()
    }
    return Preprocessing(
        resize=tuples["resize"],
        crop=tuples["crop"],
        mean=tuples["mean"],
        std=tuples["std"],
        interpolation=str(settings["interpolation"]),
        note="the bundled model's own",
    )
