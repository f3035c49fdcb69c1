"""Looking through: find the logits behind a last softmax or sigmoid, by numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from unitscope.attribution.scores import Scores
from unitscope.tracing.calls import Call
from unitscope.tracing.ending import Ending
from unitscope.tracing.outputs import OutputChoice
from unitscope.tracing.taps import Substitute
from unitscope.tracing.trace import Trace

# Calls between the logits and the output that are tried: more than any spelling of a
# softmax needs.
_MOST_CALLS = 32

# How far an output may be from the softmax of the numbers in the logits' place, beside
# rounding. Probabilities that are kept off 0 and 1 by 1e-7 or so count as such.
_RELATIVE = 1e-4
_ABSOLUTE = 1e-6

# The most that rounding changes, in units in the last place.
_ROUNDING = 16


class LastFunction(NamedTuple):
    """A function that ends networks: its name, and the scores that it stands for."""

    name: str
    scores: Scores
    of: Callable[[Tensor], Tensor]


_FUNCTIONS = (
    LastFunction("softmax", Scores.SOFTMAX, lambda z: z.softmax(1)),
    LastFunction("sigmoid", Scores.SIGMOID, torch.sigmoid),
    LastFunction("log-softmax", Scores.SOFTMAX, lambda z: z.log_softmax(1)),
    LastFunction("log-sigmoid", Scores.SIGMOID, F.logsigmoid),
)


class LookedThrough(NamedTuple):
    """A last function that was looked through, and the trace that ends at its argument."""

    function: LastFunction
    ending: Ending
    traced: Trace


def look_through(
    module: nn.Module, example: Tensor, traced: Trace
) -> LookedThrough | None:
    """The logits of a network that ends in a softmax, a sigmoid or the logarithm of one.

    However that is spelled: one of the last calls is made to give random numbers, and the
    network's output must then be the softmax (or sigmoid …) of those numbers, twice. So
    the output depends on nothing else. Of several such calls the first is taken. None for
    a network that ends otherwise. The module must be in evaluation mode, without gradients.
    """
    if traced.logits is None or traced.output is None:
        return None
    functions = [
        function
        for function in _FUNCTIONS
        if _may_come_from(traced.logits, function)
    ]
    if not functions:
        return None

    found: tuple[Call, LastFunction] | None = None
    for call in _last_calls(traced.output, traced.logits.numel()):
        outputs = _substituted(module, example, call, traced)
        for function in functions:
            if outputs and _all_equal(outputs, function, example.dtype):
                found = call, function
    if found is None:
        return None

    call, function = found
    ending = Ending((call.index, call.name), traced.choice)
    fresh = example.clone()  # before the pass, whose calls are counted
    logits = ending.logits(lambda: module(fresh), len(fresh))
    inner = replace(traced, output=call, logits=logits)
    return LookedThrough(function, ending, inner)


def _may_come_from(output: Tensor, function: LastFunction) -> bool:
    """Whether the numbers of an output are in the function's range."""
    slack = 1e-2
    shares = output.exp() if function.name.startswith("log") else output
    if float(shares.min()) < -slack or float(shares.max()) > 1 + slack:
        return False
    return function.scores is Scores.SIGMOID or adds_up_to_one(shares)


def adds_up_to_one(output: Float[Tensor, "batch class"]) -> bool:
    """Whether every photo's numbers are shares of a whole; one number alone is none."""
    if output.shape[1] == 1:
        return False  # the softmax of one number is 1, whatever the number
    return bool(((output.sum(dim=1) - 1).abs() < 1e-2).all())


def _last_calls(output: Call, numbers: int) -> Iterator[Call]:
    """The calls that lead to the output with as many numbers, the last first."""
    seen = {id(output)}
    waiting = [output]
    found = []
    while waiting and len(seen) <= _MOST_CALLS * 4:
        call = waiting.pop(0)
        if call.index >= 0 and math.prod(call.shape) == numbers:
            found.append(call)
        for before in call.inputs:
            # What leads to as many numbers, or to one for each photo or class.
            if id(before) not in seen and math.prod(before.shape) <= numbers:
                seen.add(id(before))
                waiting.append(before)
    found.sort(key=lambda call: call.index, reverse=True)
    yield from found[:_MOST_CALLS]


def _substituted(
    module: nn.Module, example: Tensor, call: Call, traced: Trace
) -> list[tuple[Tensor, Tensor]]:
    """Random numbers in the place of a call's result, and what the network then gives.

    Empty where it fails on them.
    """
    like = traced.logits
    assert like is not None
    generator = torch.Generator().manual_seed(3)
    pairs = []
    for scale in (1.0, 3.0):
        numbers = scale * torch.randn(
            like.shape, generator=generator, dtype=torch.float32, device="cpu"
        )
        numbers = numbers.to(example.dtype).to(like.device, torch.float32)
        substitute = Substitute(call.index, call.name, numbers)
        try:
            output = _output(module, example.clone(), substitute, traced.choice)
        except Exception:  # it is the user's code, and may raise anything
            return []
        pairs.append((numbers, output))
    return pairs


def _output(
    module: nn.Module, x: Tensor, substitute: Substitute, choice: OutputChoice
) -> Tensor:
    ending = Ending(output=choice)
    return ending.logits(lambda: module(x), len(x), substitute)


def _all_equal(
    outputs: list[tuple[Tensor, Tensor]],
    function: LastFunction,
    dtype: torch.dtype,
) -> bool:
    """Whether every output is the function of the numbers, up to rounding."""
    rounding = _ROUNDING * torch.finfo(dtype).eps
    relative = max(_RELATIVE, rounding)
    for numbers, output in outputs:
        expected = function.of(numbers)
        if output.shape != expected.shape:
            return False
        if not torch.allclose(output, expected, relative, _ABSOLUTE):
            return False
    return True
