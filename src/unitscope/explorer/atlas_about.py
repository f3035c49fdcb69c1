"""Atlas about: how an atlas was made, as terms and texts for its page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, TypeAlias

from unitscope.atlas.atlas import Atlas
from unitscope.attribution.scores import Scores
from unitscope.plurals import plural
from unitscope.render.words import (
    number,
    percent,
    power,
    shape,
    shorten,
    without_folders,
)

# A term, and a text or a list of texts.
Entry: TypeAlias = tuple[str, str | list[str]]

_NOT_PARAMETERS = ("identity", "detectors", "notes")


def about(atlas: Atlas) -> list[list[Any]]:
    """What was scanned and how: pairs of a term, and a text or a list of texts."""
    manifest = atlas.manifest
    model, data = manifest["model"], manifest["data"]

    entries = [
        *_model_entries(model),
        *_data_entries(manifest),
        ("layers", _layer_lines(atlas)),
        ("parameters", " · ".join(_settings(manifest["parameters"]))),
    ]
    if manifest.get("concepts"):
        entries.append(("concepts", _concept_lines(manifest["concepts"])))
    if manifest.get("ablation"):
        lines = _ablation_lines(manifest["ablation"], atlas.scores)
        entries.append(("ablation", lines))
    entries += [
        ("versions", _versions(manifest["versions"])),
        ("notes on the model", list(model["notes"])),
        ("notes on the data set", list(data["notes"])),
        ("notes on photos", list(manifest["scanned"].get("notes", ()))),
    ]
    return [[term, _public(text)] for term, text in entries if text]


def last_part(path: str) -> str:
    """The last part of a path of any system."""
    *_, last = re.split(r"[/\\]", path.rstrip("/\\"))
    return shorten(last, 120) or "the data set"


def _model_entries(model: dict[str, Any]) -> Iterator[Entry]:
    parameters = f"{model['parameters']:,} parameters"
    yield "model", f"{model['architecture']} ({model['spec']}), {parameters}"
    yield "weights", model["weights"]
    yield "SHA-256 of the weights", model["sha256"] or "not known"
    if model.get("output") is not None:
        yield "logits", f"output '{model['output']}', of several"
    yield "head", _head_text(model["head"])
    yield "scores", Scores.read(model.get("scores", "softmax")).describe()
    yield "preprocessing", model["preprocessing"]


def _head_text(head: dict[str, Any] | None) -> str:
    if head is None:
        return "no exact head: contributions to logits were not measured"
    error = head["error"]
    accuracy = f"to {power(error)} of their size" if error else "exactly"
    return (
        f"{head['kind']}, reads {head['layer']}; it gives the network's logits "
        f"{accuracy}"
    )


def _data_entries(manifest: dict[str, Any]) -> Iterator[Entry]:
    data, scanned = manifest["data"], manifest["scanned"]
    images = plural(data["images"], "image")
    yield "data set", f"{last_part(data['source'])} ({data['kind']}), {images}"
    yield "fingerprint of the data set", manifest["identity"]["data set"]
    yield "labels", _labels_text(data)
    yield (
        "images scanned",
        f"{scanned['images']:,}; {scanned['skipped']:,} unreadable images were skipped",
    )


def _labels_text(data: dict[str, Any]) -> str:
    text = f"{data['labels']}, {plural(len(data['classes']), 'class')}"
    if data["labels"] == "given":
        return text
    return f"{text}: the data set has none, so the model's predictions are the classes"


def _layer_lines(atlas: Atlas) -> list[str]:
    lines = []
    for layer in atlas.layers:
        units, cells = plural(layer.units, layer.noun), shape(layer.cells)
        if layer.heads is not None:
            lines.append(
                f"{layer.name}: {units}, and the attention that they pay to {cells} patches"
            )
            continue
        line = f"{layer.name} ({layer.kind}): {units} of {cells} cells"
        if layer.is_head:
            line += ", read by the head"
            if not atlas.head_pools_means:
                line += (
                    "; maps and numbers are activations, before the head's pools make "
                    "something else of them than a mean"
                )
        lines.append(line)
    return lines


def _concept_lines(measured: dict[str, Any]) -> list[str]:
    """The source of the masks, the parameters, and the detectors of each layer."""
    settings = {
        name: value
        for name, value in measured.items()
        if name not in _NOT_PARAMETERS
    }
    if "source" in settings:
        settings["source"] = last_part(settings["source"])

    lines = _settings(settings)
    for layer, detectors in measured.get("detectors", {}).items():
        lines.append(f"{layer}: {_detectors_text(detectors)}")
    return [*lines, *measured.get("notes", [])]


def _detectors_text(detectors: dict[str, Any]) -> str:
    units = plural(detectors["units"], "detector")
    concepts = plural(detectors["concepts"], "concept")
    by_chance = detectors["units_by_chance"][0]
    chance = (
        "not counted, as there are too few images"
        if by_chance is None
        else f"{number(by_chance)} on average"
    )
    return f"{units} of {concepts}; with masks of other images {chance}"


def _ablation_lines(measured: dict[str, Any], scores: Scores) -> list[str]:
    """What the ablation was measured on, for single units and for sets of them."""
    accuracy, low, high = map(percent, measured["accuracy"])
    images = plural(measured["images"], "image")
    ranking = plural(measured["ranking"], "image")
    reporting = plural(measured["reporting"], "image")
    return [
        f"each unit of the head's map off in turn, over {images}, labels "
        f"{measured['labels']}; {scores.accuracy} with all units on {accuracy} "
        f"(95% interval {low}–{high})",
        f"many units off: ranked on {ranking}, measured on the other {reporting}; "
        f"units off: {_value(measured['sizes'])}",
    ]


def _versions(versions: dict[str, str]) -> str:
    return " · ".join(f"{name} {version}" for name, version in versions.items())


def _settings(settings: dict[str, Any]) -> list[str]:
    return [
        f"{name.replace('_', ' ')}: {_value(value)}"
        for name, value in settings.items()
        if value not in (None, [])
    ]


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)


def _public(text: str | list[str]) -> str | list[str]:
    """A text that may be published: without folders of this machine."""
    if isinstance(text, list):
        return [without_folders(line) for line in text]
    return without_folders(text)
