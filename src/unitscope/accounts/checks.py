"""Checks: the identities behind an explanation, tested on its own photo."""

from __future__ import annotations

from dataclasses import dataclass

from unitscope.attribution.ablation import Ablation
from unitscope.attribution.explanation import Explanation
from unitscope.attribution.rounding import (
    ablation_difference,
    relative_difference,
)
from unitscope.engine.passes import ROUNDED
from unitscope.model import Classifier
from unitscope.residual.explanation import ResidualExplanation


@dataclass(frozen=True)
class Check:
    """One identity, tested on one photo.

    `error` and `allowed` are relative to the largest |logit|; `allowed` is the error
    that rounding can cause.
    """

    name: str
    statement: str
    error: float
    allowed: float

    @property
    def holds(self) -> bool:
        """Whether the error is within what rounding allows."""
        return self.error <= self.allowed


def checks_of(
    model: Classifier, explanation: Explanation, ablation: Ablation
) -> list[Check]:
    """The identities of one photo's explanation, one of them by a real forward pass."""
    allowed = explanation.rounding_error(model.like.dtype)
    checks = [_ablation_check(model, explanation, ablation, allowed)]
    if explanation.rounded:
        checks.append(_precision_check(explanation.rounded))
    if isinstance(explanation, ResidualExplanation):
        return [*_stream_checks(explanation, allowed), *checks]
    if not explanation.exact:
        return checks
    return [
        _maps_check(explanation, allowed),
        _contributions_check(explanation, allowed),
        *checks,
    ]


def _maps_check(explanation: Explanation, allowed: float) -> Check:
    return Check(
        name="maps",
        statement="mean of every class's map + its bias = its logit",
        error=float(explanation.completeness_error.max()),
        allowed=allowed,
    )


def _contributions_check(explanation: Explanation, allowed: float) -> Check:
    summed = explanation.contributions.sum(dim=2) + explanation.left_out
    error = relative_difference(summed, explanation.logits)
    return Check(
        name="contributions",
        statement="contributions of all units + bias = logit, for every class",
        error=float(error.max()),
        allowed=allowed,
    )


def _stream_checks(
    explanation: ResidualExplanation, allowed: float
) -> list[Check]:
    *others, last = explanation.parts
    direct = explanation.direct_logits([])
    return [
        Check(
            name="parts",
            statement=f"{', '.join(others)} and {last} add up to the logit of every class",
            error=explanation.parts_error(),
            allowed=allowed,
        ),
        Check(
            name="maps",
            statement="mean of every class's map + all other parts = its logit",
            error=float(explanation.completeness_error.max()),
            allowed=allowed,
        ),
        Check(
            name="direct effects",
            statement=(
                "logits computed again from what every head writes, as for direct effects, "
                "with no head off = the network's logits"
            ),
            error=float(relative_difference(direct, explanation.logits).max()),
            allowed=allowed,
        ),
    ]


def _ablation_check(
    model: Classifier,
    explanation: Explanation,
    ablation: Ablation,
    allowed: float,
) -> Check:
    units = list(ablation.units)
    layer = None if explanation.exact else explanation.layer
    real = model.forward_without(
        explanation.inputs(), units, layer, also=explanation.also
    )
    error = ablation_difference(ablation.after, real, explanation.logits)

    if isinstance(explanation, ResidualExplanation):
        heads = "the head" if len(units) == 1 else f"the {len(units)} heads"
        return Check(
            name="ablation",
            statement=(
                f"total effect: logits with {heads} switched off = those of another real "
                f"forward pass in which all tokens take nothing from {heads}"
            ),
            error=float(error.max()),
            allowed=allowed,
        )

    logits = "logits"
    if not explanation.exact:
        logits = "logits from the rest of the network after the layer,"
    off, maps = "unit off", "its map"
    if len(units) != 1:
        off, maps = f"{len(units)} units off", "their maps"
    return Check(
        name="ablation",
        statement=(
            f"{logits} with the {off} = a real forward pass with {maps} set to zero"
        ),
        error=float(error.max()),
        # The real pass is float32, also where the explanation is not.
        allowed=max(allowed, 4 * explanation.rounded),
    )


def _precision_check(rounded: float) -> Check:
    return Check(
        name="precision",
        statement=(
            "logits and feature map, computed in bfloat16 = those in float32, on the "
            "first photos"
        ),
        error=rounded,
        allowed=ROUNDED,
    )
