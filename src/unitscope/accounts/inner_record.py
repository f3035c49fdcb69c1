"""Inner record: screenings, and inputs of units, as plain data for JSON (docs/json.md)."""

from __future__ import annotations

from typing import Any

from unitscope.attribution.screening import (
    LayerStrength,
    Screening,
    UnitEstimate,
    Verified,
)
from unitscope.attribution.unit_inputs import (
    InputSource,
    Summand,
    UnitInputs,
)


def of_screening(
    screening: Screening, image: int, top: int, *, with_estimates: bool = True
) -> dict[str, Any]:
    """What the units of every layer carry on one photo."""
    layers = []
    for strength in screening.strengths(image):
        layer = of_strength(strength)
        if with_estimates:
            estimates = screening.estimates[strength.layer][image]
            layer["estimates"] = estimates.tolist()
        layers.append(layer)
    verified = screening.verified[image] if screening.verified else None
    return {
        "photo": screening.subjects[image].name,
        "label": screening.label(image),
        "index": screening.classes[image],
        "logit": screening.logit(image),
        "scores": str(screening.scores),
        "layers": layers,
        "left_out": dict(screening.left_out),
        "top": [_effect(each) for each in screening.top(top, image)],
        "verified": None if verified is None else _verified(verified),
    }


def of_strength(strength: LayerStrength) -> dict[str, Any]:
    """What the units of one layer carry, by their estimates."""
    return strength._asdict()


def of_unit_inputs(inputs: UnitInputs, top: int) -> dict[str, Any]:
    """What a unit is made of on one photo; the `top` earlier units."""
    return {
        "photo": inputs.subject.name,
        "layer": inputs.layer,
        "unit": inputs.unit,
        "cell": None if inputs.cell is None else list(inputs.cell),
        "value": inputs.value,
        "functions": list(inputs.functions),
        "output": inputs.output,
        "bias": inputs.bias,
        "error": inputs.error,
        "sources": [_source(source) for source in inputs.sources],
        "summands": [_summand(each) for each in inputs.top(top)],
        "summand_count": len(inputs.summands),
    }


def _effect(effect: UnitEstimate) -> dict[str, Any]:
    return effect._asdict()


def _verified(verified: Verified) -> dict[str, Any]:
    return {
        "sample": [_effect(each) for each in verified.sample],
        "correlation": verified.correlation,
        "top_correlation": verified.top_correlation,
    }


def _source(source: InputSource) -> dict[str, Any]:
    return {
        "name": source.name,
        "layer": source.layer,
        "reason": source.reason,
        "units": len(source.units),
        "total": source.total,
    }


def _summand(summand: Summand) -> dict[str, Any]:
    origin = summand.origin
    return {
        "source": summand.source,
        "unit": summand.unit,
        "contribution": summand.contribution,
        "origin": (
            None if origin is None else {"layer": origin[0], "unit": origin[1]}
        ),
    }
