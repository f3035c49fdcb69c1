"""Record: results as plain data for JSON, in the schema of docs/json.md."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

from jaxtyping import Float
from torch import Tensor

from unitscope.accounts.account import Account, UnitStory
from unitscope.accounts.checks import Check
from unitscope.accounts.inner_record import of_screening
from unitscope.accounts.parts import parts_of
from unitscope.accounts.verification import Verification
from unitscope.attribution.ablation import Ablation
from unitscope.attribution.classes import ranked
from unitscope.attribution.contrast import Contrast, UnitContrast
from unitscope.attribution.explanation import Explanation
from unitscope.attribution.flip import Flip
from unitscope.attribution.head import Head
from unitscope.attribution.unit_ablations import UnitAblations
from unitscope.attribution.unit_maps import UnitMaps
from unitscope.kernels import Filters
from unitscope.network_facts import NetworkFacts
from unitscope.tracing.layers import Layer
from unitscope.tracing.stages import Stage

SCHEMA = "unitscope/1"


def document(kind: str, **content: Any) -> dict[str, Any]:
    """A JSON document: the version of the schema, the kind of result, the result."""
    return {"schema": SCHEMA, "kind": kind, **content}


def of_accounts(accounts: Iterable[Account]) -> dict[str, Any]:
    """The document "explanation": the network once, and the account of every photo."""
    network, photos = None, []
    for account in accounts:
        network = network or of_network(account.network)
        photos.append(of_account(account))
    return document("explanation", network=network, photos=photos)


def of_account(account: Account) -> dict[str, Any]:
    """The account of one photo."""
    explanation = account.explanation
    count = len(account.predictions)
    turning = account.turning
    return {
        "photo": _photo(explanation),
        "answer": explanation.head.as_json(),
        "sentence": account.sentence(),
        "predictions": _predictions(explanation, count),
        "cams": [_cam(explanation, index) for index in account.classes],
        "units": [_unit(story, explanation.head) for story in account.units],
        **_heads(account),
        "turning_units": None if turning is None else list(turning),
        "ablation": of_ablation(account.ablation, 0, count),
        "contrast": _or_none(of_contrast, account.contrast),
        "flip": _or_none(of_flip, account.flip),
        "checks": [_check(check) for check in account.checks],
        **_screening(account),
    }


def of_network(facts: NetworkFacts) -> dict[str, Any]:
    """What a reader needs to know about the network to reproduce its numbers."""
    return {
        "model": facts.provenance.spec,
        "weights": facts.provenance.weights,
        "sha256": facts.provenance.sha256,
        "notes": list(facts.notes),
        "architecture": facts.architecture,
        "parameters": facts.parameters,
        "classes": facts.classes,
        "scores": str(facts.scores),
        "preprocessing": facts.preprocessing,
        "input_shape": list(facts.input_shape),
        "output": facts.output,
        "dtype": facts.dtype,
        "device": facts.device,
        "head": None if facts.head is None else facts.head.as_json(),
        "refusal": facts.refusal or None,
        "stages": [_stage(stage) for stage in facts.stages],
        "layers": [_layer(layer) for layer in facts.layers],
        "versions": dict(facts.versions),
    }


def of_verification(verification: Verification) -> dict[str, Any]:
    """The kind of answers a network gets, and how well real forward passes agree."""
    return {
        **asdict(verification),
        "map_size": list(verification.map_size),
        "reason": verification.reason or None,
    }


def of_ablation(ablation: Ablation, image: int, top: int) -> dict[str, Any]:
    """One photo's prediction before and after units were switched off."""
    names = [] if ablation.effect is None else ablation.maps.names
    return {
        "layer": ablation.layer,
        "units": list(ablation.units),
        **({"unit_names": list(names)} if names else {}),
        "exact": ablation.exact,
        **_without_none({"effect": ablation.effect}),
        **_put(ablation),
        "scores": str(ablation.scores),
        "changes": [
            _without_none(change._asdict())
            for change in ablation.changes(top, image)
        ],
    }


def of_unit_ablations(
    ablations: UnitAblations, image: int, top: int
) -> dict[str, Any]:
    """One photo's logits of its top classes with every unit off in turn."""
    logits = ablations.before[image].cpu()
    first = ranked(logits, ablations.labels, top, ablations.scores)
    classes = [entry.index for entry in first]
    after = ablations.after[image][:, classes].tolist()
    done = ablations.done[image].tolist()
    return {
        "layer": ablations.layer,
        "exact": ablations.exact,
        **_without_none({"effect": ablations.effect}),
        **_put(ablations),
        "scores": str(ablations.scores),
        "complete": ablations.complete,
        "classes": [
            {"label": each.label, "index": each.index, "logit": each.logit}
            for each in first
        ],
        "units": [
            {"unit": unit, **_name_of(name, unit), "logits": values}
            for unit, name, values, is_done in zip(
                ablations.units, ablations.unit_names, after, done, strict=True
            )
            if is_done
        ],
        "turning_units": list(ablations.turning(image)),
    }


def of_contrast(
    contrast: Contrast, image: int = 0, count: int = 8
) -> dict[str, Any]:
    """Why one class and not another on one photo: numbers that add up to the margin."""
    top = contrast.top_units(count, image)
    given = contrast.contributions[image].cpu()
    shown = [each.contribution for each in (*top.for_a, *top.for_b)]
    logits = contrast.explanation.logits[image]
    a, b = contrast.pairs[image]
    return {
        "question": contrast.question(image),
        "a": _class(contrast.explanation.labels, a, logits),
        "b": _class(contrast.explanation.labels, b, logits),
        "margin": float(contrast.margin[image]),
        "units_for_a": _unit_contrasts(contrast, top.for_a),
        "units_for_b": _unit_contrasts(contrast, top.for_b),
        "other_units": float(given.sum()) - sum(shown),
        "left_out": float(contrast.left_out[image]),
        "parts": {
            name: float(part[image]) for name, part in contrast.parts.items()
        },
        "map": contrast.cams[image].cpu().tolist(),
    }


def of_flip(flip: Flip) -> dict[str, Any]:
    """The smallest set whose switching off turns the prediction, or that there is none."""
    labels, head = flip.explanation.labels, flip.explanation.head
    before, after = flip.margins
    names = [head.unit_name(unit) for unit in flip.units]
    is_named = names != list(map(str, flip.units))
    return {
        "sentence": flip.sentence(),
        "of": flip.of,
        "from": {"label": labels[flip.a], "index": flip.a},
        "to": (
            None
            if flip.b is None
            else {"label": labels[flip.b], "index": flip.b}
        ),
        "units": list(flip.units),
        **({"unit_names": names} if is_named else {}),
        "cells": [list(cell) for cell in flip.cells],
        "minimal": flip.minimal,
        "most": flip.most,
        "margin_before": before,
        "margin_after": after,
        "confirmed": flip.holds,
    }


def of_unit_maps(maps: UnitMaps, image: int) -> dict[str, Any]:
    """The maps of chosen units on one photo."""
    subject = maps.subjects[image]
    values = maps.maps[image].cpu()
    return {
        "photo": {
            "name": subject.name,
            "size": list(subject.size),
        },
        "layer": maps.layer,
        "units": [
            {
                "unit": unit,
                **_name_of(name, unit),
                "min": float(cells.min()),
                "mean": float(cells.mean()),
                "max": float(cells.max()),
                "map": cells.tolist(),
            }
            for unit, name, cells in zip(
                maps.units, maps.unit_names, values, strict=True
            )
        ],
    }


def of_filters(filters: Filters) -> dict[str, Any]:
    """Kernels of one convolution: raw weights, and the range of every picture."""
    return {
        "layer": filters.layer,
        "convolution": filters.kind,
        "groups": filters.groups,
        "scale": filters.scale,
        "rgb": filters.rgb,
        "filters": list(filters.filters),
        "channels": list(filters.channels),
        "low": filters.low.tolist(),
        "high": filters.high.tolist(),
        "weights": filters.weights.tolist(),
    }


def _photo(explanation: Explanation) -> dict[str, Any]:
    subject = explanation.subjects[0]
    placement = subject.placement(explanation.input_size)
    return {
        "name": subject.name,
        "size": list(subject.size),
        "input_size": list(explanation.input_size),
        "input_box": list(placement.box),
        "notes": list(subject.notes),
    }


def _predictions(explanation: Explanation, count: int) -> list[dict[str, Any]]:
    return [
        {"rank": rank, **_without_none(prediction._asdict())}
        for rank, prediction in enumerate(explanation.top(count)[0], 1)
    ]


def _or_none(
    of: Callable[[Any], dict[str, Any]], value: Any
) -> dict[str, Any] | None:
    return None if value is None else of(value)


def _class(
    labels: Sequence[str], index: int, logits: Float[Tensor, " class"]
) -> dict[str, Any]:
    return {
        "label": labels[index],
        "index": index,
        "logit": float(logits[index]),
    }


def _unit_contrasts(
    contrast: Contrast, units: Sequence[UnitContrast]
) -> list[dict[str, Any]]:
    head = contrast.explanation.head
    return [
        {
            "unit": each.unit,
            **_name_of(head.unit_name(each.unit), each.unit),
            "contribution": each.contribution,
            "to_a": each.to_a,
            "to_b": each.to_b,
        }
        for each in units
    ]


def _without_none(entries: dict[str, Any]) -> dict[str, Any]:
    """The entries that there are: without probabilities where the scores have none."""
    return {name: value for name, value in entries.items() if value is not None}


def _cam(explanation: Explanation, index: int) -> dict[str, Any]:
    cam = explanation.cams_of(index)[0, 0].cpu()
    left_out = float(explanation.left_out_of(index)[0, 0])
    return {
        "label": explanation.labels[index],
        "index": index,
        "logit": float(explanation.logits[0, index]),
        "bias": left_out if explanation.exact else None,
        "left_out": left_out,
        "parts": parts_of(explanation, index),
        "mean": float(cam.mean()),
        "min": float(cam.min()),
        "max": float(cam.max()),
        "map": cam.tolist(),
    }


def _unit(story: UnitStory, head: Head) -> dict[str, Any]:
    contribution = story.contribution
    return {
        "unit": story.unit,
        **_name_of(head.unit_name(story.unit), story.unit),
        "contribution": contribution.contribution,
        "weight": contribution.weight,
        "mean_activation": contribution.mean_activation,
        "logit_without": story.logit_without,
        **_without_none(
            {
                "direct_logit_without": story.direct_without,
                "from_patches": story.from_patches,
            }
        ),
        "serves": [
            {"label": label, "weight": weight} for label, weight in story.serves
        ],
    }


def _heads(account: Account) -> dict[str, Any]:
    """What the attention heads of every block gave to the first class shown."""
    heads = account.heads
    return {} if heads is None else {"blocks": list(heads.by_block)}


def _put(ablation: Ablation | UnitAblations) -> dict[str, str]:
    """What was put in place of units, and where, in words; empty where they are off."""
    words = {"replaced": ablation.replaced, "where": ablation.where}
    return {name: value for name, value in words.items() if value}


def _screening(account: Account) -> dict[str, Any]:
    """What the units of every layer carry, without the estimates of all units."""
    screening = account.screening
    if screening is None:
        return {}
    return {"screening": of_screening(screening, 0, 8, with_estimates=False)}


def _name_of(name: str, unit: int) -> dict[str, str]:
    """What a unit is called, where that is not its number."""
    return {} if name == str(unit) else {"name": name}


def _check(check: Check) -> dict[str, Any]:
    return {
        "name": check.name,
        "statement": check.statement,
        "error": check.error,
        "allowed": check.allowed,
        "holds": check.holds,
    }


def _stage(stage: Stage) -> dict[str, Any]:
    return {
        "first": stage.first,
        "last": stage.last,
        "shape": list(stage.shape),
        "convolutions": stage.convolutions,
    }


def _layer(layer: Layer) -> dict[str, Any]:
    return {"name": layer.name, "kind": layer.kind, "shape": list(layer.shape)}
