"""Head walk: the steps that make the logits, back to the pools of feature maps."""

from __future__ import annotations

import math
from collections.abc import Sequence

from unitscope.attribution.constants import Constants
from unitscope.attribution.pooling import (
    Pool,
    carried_from,
    input_position,
    is_linear,
    pool_at,
    reduced_axes,
)
from unitscope.attribution.refusal import WANTED, refusal
from unitscope.attribution.steps import Step
from unitscope.errors import HeadError
from unitscope.tracing.calls import Call
from unitscope.tracing.functions import (
    ADDITIONS,
    CARRIERS,
    CONCATENATIONS,
    ELEMENTWISE_PRODUCTS,
    LENGTHS,
    LIMITS_BELOW,
    REPETITIONS,
    SUM_SIGNS,
    UNIT_NORMALISATIONS,
    UNIT_QUOTIENTS,
)
from unitscope.tracing.trace import Trace


class HeadWalk:
    """Walks back from the logits through everything affine, to the pools behind it."""

    def __init__(self, traced: Trace) -> None:
        self._traced = traced
        self._constants = Constants()
        self.pools: list[Pool] = []

    def step_of(self, call: Call, linear: Call | None) -> Step:
        """The step that makes a call's result; `linear` is a linear layer after it.

        Raises HeadError, saying why, where something else stands.
        """
        call = carried_from(call)
        pool = pool_at(call, self._traced.input_size)
        if pool is not None:
            if pool not in self.pools:
                self.pools.append(pool)
            pooled = Step("pooled", position=self.pools.index(pool))
            is_total = call.name == "sum"
            return Step("total", before=(pooled,)) if is_total else pooled

        if is_linear(call):
            return self._linear(call)
        step = (
            self._over_length(call, linear)
            or self._cosine(call)
            or self._joined(call, linear)
            or self._arithmetic(call, linear)
            or self._normalisation(call, linear)
        )
        if step is None:
            raise HeadError(refusal(call, linear))
        return step

    def _linear(self, call: Call) -> Step:
        position = input_position(call)
        weights = [
            each for place, each in enumerate(call.inputs) if place != position
        ]
        if not self._are_constant(weights):
            raise HeadError(
                f"the weights of the last linear layer depend on the photo: {WANTED}"
            )
        before = self.step_of(call.inputs[position], call)
        return Step("linear", call.index, call.name, (before,))

    def _arithmetic(self, call: Call, linear: Call | None) -> Step | None:
        """A sum, product or quotient with a constant, or the sum of two steps."""
        if call.name in SUM_SIGNS:
            kind = "shift"
        elif call.name in ELEMENTWISE_PRODUCTS:
            kind = "scale"
        elif call.name in UNIT_QUOTIENTS:
            kind = "divide"
        else:
            return None
        moving = [each for each in call.inputs if each not in self._constants]
        numbers = math.prod(call.shape)
        if not moving:
            return None
        if any(math.prod(each.shape) != numbers for each in moving):
            return None  # it is broadcast

        if len(moving) == 1:
            is_divisor = kind == "divide" and call.inputs[0] is not moving[0]
            if is_divisor:
                return None
            return self._after(call, kind, moving, linear)
        if len(moving) == 2 and kind == "shift":
            return self._after(call, "sum", moving, linear)
        return None

    def _normalisation(self, call: Call, linear: Call | None) -> Step | None:
        """A normalisation of the units by constants, or by one number for each photo."""
        if not call.inputs:
            return None
        units = max(call.shape[1:], default=0)
        for shape in (call.shape, call.inputs[0].shape):
            if math.prod(shape[1:]) != units:
                return None
        if not self._are_constant(call.inputs[1:]):
            return None  # its scale or shift depends on the photo
        if call.name == "batch_norm":
            return self._after(call, "batch norm", [call.inputs[0]], linear)
        if call.name not in UNIT_NORMALISATIONS or linear is None:
            return None
        if not normalises_all(call, units):
            return None

        return self._after(call, "norm", [call.inputs[0]], linear)

    def _over_length(self, call: Call, linear: Call | None) -> Step | None:
        """A vector over its own length, which a call such as `norm` computed."""
        if call.name not in UNIT_QUOTIENTS or len(call.inputs) != 2:
            return None
        vector, divisor = call.inputs
        length = behind_guards(divisor)
        if length.name not in LENGTHS or linear is None:
            return None
        if carried_from(length.inputs[0]) is not carried_from(vector):
            return None
        before = self.step_of(vector, linear)
        return Step("norm", length.index, length.name, (before,))

    def _joined(self, call: Call, linear: Call | None) -> Step | None:
        """Numbers put one behind the other, or stacked and then summed or averaged."""
        if call.name in CONCATENATIONS:
            units = sum(math.prod(each.shape) for each in call.inputs)
            axis = call.argument(1, "dim", call.kwargs.get("axis", 0))
            if axis % len(call.shape) != 1:
                return None
            if units != call.shape[1]:
                return None
            parts = []
            for place, each in enumerate(call.inputs):
                if each not in self._constants:
                    before = (self.step_of(each, linear),)
                    parts.append(Step("part", before=before, position=place))
            return Step("cat", call.index, call.name, tuple(parts))

        if call.name not in ("mean", "sum") or not call.inputs:
            return None
        stack = call.inputs[0]
        if stack.name != "stack" or any(
            each in self._constants for each in stack.inputs
        ):
            return None
        axis = stack.argument(1, "dim", 0) % len(stack.shape)
        if reduced_axes(call, len(stack.shape)) != {axis}:
            return None
        terms = tuple(self.step_of(each, linear) for each in stack.inputs)
        return Step(f"stacked {call.name}", before=terms)

    def _cosine(self, call: Call) -> Step | None:
        """Cosine similarities with the constant vectors of classes."""
        if call.name != "cosine_similarity" or len(call.inputs) != 2:
            return None
        moving = [each for each in call.inputs if each not in self._constants]
        if len(moving) != 1 or len(call.shape) != 2:
            return None
        return self._after(call, "cosine", moving, call)

    def _after(
        self, call: Call, kind: str, moving: Sequence[Call], linear: Call | None
    ) -> Step:
        try:
            before = tuple(self.step_of(each, linear) for each in moving)
        except HeadError:
            if len(moving) > 1:
                # The reason is this sum, not what one of its branches ends in.
                raise HeadError(refusal(call, linear)) from None
            raise
        position = call.inputs.index(moving[0])
        return Step(kind, call.index, call.name, before, position)

    def _are_constant(self, calls: Sequence[Call]) -> bool:
        return all(call in self._constants for call in calls)


def behind_guards(divisor: Call) -> Call:
    """The call that computed a divisor, behind what keeps it from being zero."""
    guards = ADDITIONS | REPETITIONS | CARRIERS | LIMITS_BELOW
    while divisor.name in guards and divisor.inputs:
        divisor = divisor.inputs[0]
    return divisor


def normalises_all(call: Call, units: int) -> bool:
    """Whether a normalisation divides all units of a photo by the same number."""
    if call.name == "group_norm":
        return bool(call.argument(1, "num_groups") == 1)
    if call.name == "normalize":
        is_length = bool(call.argument(1, "p", 2.0) == 2)
        return is_length and bool(call.argument(2, "dim", 1) in (1, -1))
    shape: tuple[int, ...] = call.argument(1, "normalized_shape", ())
    return math.prod(shape) == units
