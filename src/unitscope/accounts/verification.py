"""Verification: the kind of answers a network gets, proved by real forward passes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unitscope.attribution.explanation import Explanation
from unitscope.attribution.probes import probes
from unitscope.attribution.rounding import ablation_difference
from unitscope.errors import HeadError
from unitscope.model import Classifier

# Units that are switched off, one by one, to compare the algebra with the network.
_UNITS = 3


@dataclass(frozen=True)
class Verification:
    """What `unitscope` can say about a network, and how well it was verified.

    `kind` is that of the head ("gap-linear", "gap-norm-linear", "conv-gap", "gap", "pools-linear"),
    "residual", "local", or "refused". `layer` is the layer whose map, of `units` and
    `map_size` (row, col), is shown. `adds_up` says that the parts add up to the logits.

    On random inputs, `identity_error` is the difference between maps + bias and the
    logits, relative to the largest logit; for a residual stream that of all its parts;
    for a local answer, what the map of the first class leaves out. `ablation_error` is
    the largest difference between the logits with a unit off and a real forward pass
    with its map set to zero, over `tried` random units, each alone; for a residual
    stream, between the logits of a real pass with a head silent and the parts of that
    pass, without the head.

    `seconds` is the time that finding and verifying the head took, `forward_seconds`
    that of one plain forward pass. `reason` says why the answer is not exact.
    """

    kind: str
    layer: str
    exact: bool
    adds_up: bool
    identity_error: float | None
    ablation_error: float | None
    tried: int
    units: int
    map_size: tuple[int, int]
    seconds: float
    forward_seconds: float
    reason: str


def verify(model: Classifier, seed: int = 0) -> Verification:
    """Find a classifier's head anew and prove it.

    `seed` chooses the units that are switched off. Raises ModelError where the network
    does not run at all.
    """
    started = time.perf_counter()
    head, reason = model.head_or_refusal()
    seconds = time.perf_counter() - started
    if head is None:
        return _refused(reason, seconds)

    x = _random_input(model)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(head.map_shape[0], generator=generator)
    chosen = order[:_UNITS].tolist()

    started = time.perf_counter()
    real = [model.forward_without(x, [unit]) for unit in chosen]
    forward_seconds = (time.perf_counter() - started) / len(chosen)

    units, rows, cols = head.map_shape
    return Verification(
        kind=head.kind,
        layer=head.layer,
        exact=head.exact,
        adds_up=head.adds_up,
        identity_error=head.error,
        ablation_error=ablation_error(model, x, chosen, real),
        tried=len(chosen),
        units=units,
        map_size=(rows, cols),
        seconds=seconds,
        forward_seconds=forward_seconds,
        reason=reason,
    )


def _refused(reason: str, seconds: float) -> Verification:
    return Verification(
        kind="refused",
        layer="",
        exact=False,
        adds_up=False,
        identity_error=None,
        ablation_error=None,
        tried=0,
        units=0,
        map_size=(0, 0),
        seconds=seconds,
        forward_seconds=0.0,
        reason=reason,
    )


def _random_input(model: Classifier) -> Tensor:
    noise = torch.ones((1, *model.input_shape), device="cpu")
    return probes(model.as_input(noise))[1]


def ablation_error(
    model: Classifier, x: Tensor, units: list[int], real: Sequence[Tensor]
) -> float | None:
    """The largest difference to real forward passes with each of `units` off alone.

    It is relative to the largest logit, and None where the input has no explanation.
    """
    try:
        explanation = model.explain(x)
        if explanation.head.maps_are_a_part:
            # Both would be the same real pass, so that of its parts is asked.
            return _error_of_parts(explanation, units)
        ablated = explanation.ablate_each(units=units)
    except HeadError:
        return None

    differences = [
        ablation_difference(ablated[:, position], logits, explanation.logits)
        for position, logits in enumerate(real)
    ]
    return max(float(difference.max()) for difference in differences)


def _error_of_parts(explanation: Explanation, units: list[int]) -> float:
    """How far the parts of real passes are from their logits, each with one head silent."""
    errors = [
        float(explanation.ablate(unit).completeness_error.max())
        for unit in units
    ]
    return max(errors)
