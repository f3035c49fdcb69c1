"""Verification: what kind of answers a network gets, proved on random inputs by real forward passes."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from unitscope.attribution.probes import probes
from unitscope.attribution.rounding import ablation_difference
from unitscope.errors import HeadError
from unitscope.model import Classifier

# Units that are switched off, one by one, to compare algebra and network.
_UNITS = 3


@dataclass(frozen=True)
class Verification:
    """What `unitscope` can say of a network, and how well that holds.

    `kind` is the head's ("gap-linear", "gap-norm-linear", "conv-gap", "gap"), "local",
    or "refused"; `layer` the layer whose map, of `units` and `map_size` (row, col), is
    shown. `identity_error` is how far maps + bias are from the logits, relative to the
    largest logit, on random inputs (for a local answer, what the map of the first class
    leaves out); `ablation_error` how far the logits with a unit off are from a real
    forward pass of the whole network with its map set to zero, the largest over `tried`
    random units, each alone. `seconds` is the time that finding and verifying the head
    took, `forward_seconds` that of one plain forward pass. `reason` says why the answer
    is not exact.
    """

    kind: str
    layer: str
    exact: bool
    identity_error: float | None
    ablation_error: float | None
    tried: int
    units: int
    map_size: tuple[int, int]
    seconds: float
    forward_seconds: float
    reason: str


def verify(model: Classifier, seed: int = 0) -> Verification:
    """Find a classifier's head anew and prove it; raises ModelError where the network does not run at all."""
    started = time.perf_counter()
    head, reason = model.head_or_refusal()
    seconds = time.perf_counter() - started
    example = torch.empty(
        (1, *model.input_shape), dtype=model.like.dtype, device=model.like.device
    )
    x = probes(example)[1]
    if head is None:
        return Verification(
            "refused", "", False, None, None, 0, 0, (0, 0), seconds, 0.0, reason
        )
    units = head.map_shape[0]
    chosen = torch.randperm(units, generator=torch.Generator().manual_seed(seed))[
        :_UNITS
    ].tolist()
    started = time.perf_counter()
    real = [model.forward_without(x, [unit]) for unit in chosen]
    forward_seconds = (time.perf_counter() - started) / len(chosen)
    error = ablation_error(model, x, chosen, real)
    rows, cols = head.map_shape[1:]
    return Verification(
        kind=head.kind,
        layer=head.layer,
        exact=head.exact,
        identity_error=head.error,
        ablation_error=error,
        tried=len(chosen),
        units=units,
        map_size=(rows, cols),
        seconds=seconds,
        forward_seconds=forward_seconds,
        reason=reason,
    )


def ablation_error(
    model: Classifier, x: torch.Tensor, units: list[int], real: list[torch.Tensor]
) -> float | None:
    """The largest difference to real forward passes, relative to the largest logit; None where none can be had."""
    try:
        explanation = model.explain(x)
        each = explanation.ablate_each(units=units)
    except HeadError:
        return None
    pairs = enumerate(real)
    return max(
        float(ablation_difference(each[:, at], logits, explanation.logits).max())
        for at, logits in pairs
    )
