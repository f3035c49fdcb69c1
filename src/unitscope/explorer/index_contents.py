"""Index contents: the network, its head and its classes, as every page needs them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from unitscope.atlas.atlas import Atlas
from unitscope.attribution.scores import Scores
from unitscope.model import Classifier
from unitscope.network_facts import NetworkFacts
from unitscope.render.colours import HEAT, SIGNED, table
from unitscope.render.words import shorten

Plain = dict[str, Any]

_SCALES = {"heat": HEAT, "signed": SIGNED}


def network_of_model(model: Classifier) -> Plain:
    """The network's name, its classes, the sides of its input, and the head's kind."""
    head, reason = model.head_or_refusal()
    return {
        **_network(
            type(model.network).__name__,
            model.labels,
            model.input_shape,
            model.provenance.weights,
            model.scores,
        ),
        "model": _model(model),
        "head": {
            "exact": head is not None and head.has_table,
            "layer": None if head is None else head.layer,
            "kind": "none" if head is None else head.kind,
            "reason": reason,
        },
    }


def network_of_atlas(atlas: Atlas) -> Plain:
    """The same from the notes of an atlas, where its model is not loaded."""
    notes = atlas.manifest["model"]
    head = notes["head"]
    return {
        **_network(
            notes["architecture"],
            atlas.labels,
            notes["input_shape"],
            notes["weights"],
            atlas.scores,
        ),
        "model": None,
        "head": None if head is None else _noted_head(head),
    }


def colour_scales() -> dict[str, list[str]]:
    """The colours of the pages' scales by name, as hexadecimal texts."""
    return {name: _hexadecimal(scale) for name, scale in _SCALES.items()}


def distinct_labels(labels: Sequence[str]) -> list[str]:
    """Labels as pages show them, with the number of each class where that is needed.

    Labels that look the same get their numbers, and empty ones are only a number.
    """
    cleaned = [shorten(label, 120).strip() for label in labels]
    counts = Counter(cleaned)

    distinct = []
    for index, label in enumerate(cleaned):
        if not label:
            distinct.append(f"class {index}")
        elif counts[label] > 1:
            distinct.append(f"{label} · {index}")
        else:
            distinct.append(label)
    return distinct


def _network(
    architecture: str,
    labels: Sequence[str],
    shape: Sequence[int],
    weights: str,
    scores: Scores,
) -> Plain:
    return {
        "architecture": shorten(architecture, 60),
        "labels": distinct_labels(labels),
        "input": [int(side) for side in shape[-2:]],
        "random": "random" in weights.lower(),
        "scores": {
            "kind": str(scores),
            "number": scores.number,
            "numbers": scores.numbers,
            "words": scores.describe(),
        },
    }


def _model(model: Classifier) -> Plain:
    facts = NetworkFacts.of(model)
    provenance = facts.provenance
    notes = [shorten(note, 400) for note in facts.notes]
    if facts.output is not None:
        output = shorten(facts.output, 60)
        notes.append(
            f"Of several outputs of the network, '{output}' is read as logits."
        )
    return {
        "spec": shorten(provenance.spec, 200),
        "weights": shorten(provenance.weights, 200),
        "preprocessing": facts.preprocessing,
        "layers": [layer.name for layer in facts.layers if layer.is_map],
        "notes": notes,
    }


def _noted_head(head: Plain) -> Plain:
    return {
        "exact": True,
        "layer": head["layer"],
        "kind": head["kind"],
        "reason": "",
    }


def _hexadecimal(scale: str) -> list[str]:
    return [bytes(colour).hex() for colour in table(scale)]
