"""Guess: what kind of scores a network gives, from its numbers on noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.attribution.look_through import LastFunction, adds_up_to_one
from unitscope.attribution.pooling import carried_from, is_linear, pool_at
from unitscope.attribution.probes import probes
from unitscope.attribution.scores import Scores
from unitscope.errors import ModelError
from unitscope.tracing.calls import Call
from unitscope.tracing.functions import (
    ACTIVATIONS,
    CELLWISE,
    ELEMENTWISE_PRODUCTS,
    NORMALISATIONS,
    QUOTIENTS,
    SELECTIONS,
    SOFTMAXES,
    SUM_SIGNS,
)
from unitscope.tracing.trace import Trace

# Noise so loud that no logits stay between 0 and 1 by chance.
_LOUD = 30.0

# Training with a softmax leaves the mean over the classes where it was drawn, near zero,
# since its gradients add up to zero. A mean that is so many standard errors, and so many
# logits, away from zero is no chance.
_STANDARD_ERRORS = 5.0
_LOGITS_AWAY = 0.5

# So many standard deviations away, the classes have no share of a whole in common.
_DEVIATIONS_AWAY = 2.0

# The fewest outputs that may be features: a vector of unit length with fewer numbers may
# be one by chance.
_FEWEST_FEATURES = 8

# A tanh of the outputs beyond that caps logits; one within it makes them other numbers.
_MOST_SQUASHED = 1.0

# How far the steps between the thresholds of an ordinal regression may vary by rounding,
# relative to the thresholds themselves.
_SAME_STEPS = 1e-3

# The last calls that are looked at.
_MOST_CALLS = 32

# Pass numbers without bounds on as such.
_BOUNDED = {
    "sigmoid",
    "sigmoid_",
    "hardsigmoid",
    "hardsigmoid_",
    "tanh",
    "tanh_",
}
_UNBOUNDED = (
    (ACTIVATIONS - _BOUNDED)
    | SUM_SIGNS.keys()
    | ELEMENTWISE_PRODUCTS
    | QUOTIENTS
)


class Guess(NamedTuple):
    """A kind of scores, and why.

    `note` is a line for reports, "" where there is nothing to add. `is_doubtful` says
    that users should be warned: another reading is as likely.
    """

    scores: Scores
    note: str = ""
    is_doubtful: bool = False


_SOFTMAX = Guess(
    Scores.SOFTMAX,
    "Probabilities are a softmax: a guess. Give scores='sigmoid' if several classes may be "
    "right at once, 'none' if the outputs are no class scores.",
)

PROBABILITIES = Guess(
    Scores.PROBABILITIES,
    "The network gives probabilities that are no softmax or sigmoid of one tensor (an "
    "average, perhaps): they are shown as they are, and maps are in units of probability. "
    "Wrap the part that gives logits for exact maps.",
    is_doubtful=True,
)


def looked_through(function: LastFunction) -> Guess:
    """The scores of a network whose last function was looked through."""
    return Guess(
        function.scores,
        f"The network ends in a {function.name}, which is looked through: logits are "
        "what goes into it.",
    )


def guessed(
    traced: Trace,
    example: Float[Tensor, "batch channel row col"],
    run: Callable[[Tensor], Float[Tensor, "batch class"]],
    *,
    is_named: bool,
) -> Guess:
    """The kind of scores of a network that ends as `traced`, whose inputs are like `example`.

    `run` gives its logits. A network whose classes have labels (`is_named`) gives no
    embeddings.
    """
    assert traced.logits is not None and traced.output is not None
    logits = traced.logits
    if are_probabilities(traced, example, run):
        return PROBABILITIES
    if _is_squashed(traced):
        low, high = float(logits.min()), float(logits.max())
        return Guess(
            Scores.NONE,
            f"The network ends in a bounded function (here from {low:.3g} to {high:.3g}) "
            "whose values are no logits, so there are no probabilities. Give scores= if "
            "there are, or wrap the part that gives logits.",
            is_doubtful=True,
        )
    if logits.shape[1] == 1:
        return Guess(
            Scores.SIGMOID,
            "One logit is taken for a yes or no, with a sigmoid: a guess. Give "
            "scores='none' if it is a regression.",
        )
    if not is_named and _are_features(traced, example, run):
        return Guess(
            Scores.NONE,
            f"The network has no classes: its {logits.shape[1]} outputs are features "
            "(there is no layer of class scores at its end), so there are no "
            "probabilities. Give labels, or scores=, if they are classes.",
            is_doubtful=True,
        )
    several = [logits, *map(run, probes(example))]
    if _are_shares([(-each).exp() for each in several]):
        raise ModelError(
            "the network gives the negative logarithms of probabilities, so that the "
            "largest number is the least likely class: wrap a module that gives their "
            "negative, or say scores='none' (--scores none) if they are no class scores"
        )
    if _are_thresholds(several):
        return Guess(
            Scores.SIGMOID,
            "The outputs differ from each other by the same amounts on every input, as the "
            "thresholds of an ordinal regression do: each has a sigmoid of its own, which "
            "says how likely the photo is beyond it, and the first or last is always the "
            "largest. Give scores= if they are something else.",
            is_doubtful=True,
        )
    if _are_shares([each.exp() for each in several]):
        return Guess(
            Scores.SOFTMAX,
            "The network gives the logarithms of probabilities, whose softmax are the "
            "probabilities.",
        )
    if _is_rectified(traced):
        return _SOFTMAX
    return _of_classes(logits, example, run)


def _of_classes(
    logits: Tensor, example: Tensor, run: Callable[[Tensor], Tensor]
) -> Guess:
    """Softmax; or sigmoid, where the numbers say that classes are independent."""
    if not _is_off_centre(logits):
        return _SOFTMAX
    several = [run(x) for x in probes(example)]
    if not all(map(_is_off_centre, several)):
        return _SOFTMAX

    mean = float(torch.cat(several).mean())
    spread = float(torch.cat(several).std(dim=1).mean())
    numbers = (
        f"on noise the mean logit is {mean:.1f}, and the spread {spread:.1f}"
    )
    if all(map(_are_several, several)):
        return Guess(
            Scores.SIGMOID,
            "Every class has a sigmoid of its own: a guess, since several are above one "
            f"half at once ({numbers}). Give scores='softmax' if only one class is right.",
        )
    return Guess(
        Scores.SOFTMAX,
        "Probabilities are a softmax, but these logits may also be independent (sigmoid): "
        f"{numbers}, as after training each class for itself. Give scores='softmax' if "
        "one class is right, scores='sigmoid' if several may be.",
        is_doubtful=True,
    )


def _is_off_centre(logits: Float[Tensor, "batch class"]) -> bool:
    """Whether the mean over the classes is too far from zero for a softmax's training."""
    mean = logits.mean(dim=1).abs()
    error = logits.std(dim=1) / math.sqrt(logits.shape[1])
    far = (mean > _STANDARD_ERRORS * error) & (mean > _LOGITS_AWAY)
    return bool(far.all())


def _are_several(logits: Float[Tensor, "batch class"]) -> bool:
    """Whether classes are likely together: the mean is above zero by more than the spread."""
    mean, spread = logits.mean(dim=1), logits.std(dim=1)
    return bool((mean > _DEVIATIONS_AWAY * spread).all())


def are_probabilities(
    traced: Trace, example: Tensor, run: Callable[[Tensor], Tensor]
) -> bool:
    """Whether outputs are between 0 and 1 on all noise, and add up to 1 or have bounds."""
    output = traced.logits
    assert output is not None
    if not _within_bounds(output):
        return False
    is_unbounded = _is_unbounded(traced)
    if is_unbounded and not adds_up_to_one(output):
        return False
    loud = [_LOUD * x for x in probes(example) if x.is_floating_point()]
    outputs = [output, *map(run, [*probes(example), *loud])]
    if not all(map(_within_bounds, outputs)):
        return False
    return _are_shares(outputs) or not is_unbounded


def _is_unbounded(traced: Trace) -> bool:
    """Whether the outputs have no bounds: linear layers, feature maps, sums of such."""
    assert traced.output is not None
    waiting, seen = [traced.output], 0
    while waiting and seen < _MOST_CALLS:
        call = carried_from(waiting.pop())
        seen += 1
        if is_linear(call) or call.name in NORMALISATIONS | {"conv2d"}:
            return True
        pool = pool_at(call, traced.input_size)
        if pool is not None:
            waiting.append(pool.source)
        elif call.name in _UNBOUNDED:
            waiting += call.inputs
    return False


def _is_squashed(traced: Trace) -> bool:
    """Whether a bounded function gives the outputs, scaled or shifted by numbers.

    As in a regression between two bounds, or for percents. Logits that are softly
    capped far from zero (30 · tanh) are none of these.
    """
    assert traced.output is not None and traced.logits is not None
    call = carried_from(traced.output)
    scaling = SUM_SIGNS.keys() | ELEMENTWISE_PRODUCTS | QUOTIENTS
    for _ in range(_MOST_CALLS):
        if call.name not in scaling or len(call.inputs) != 1:
            break
        call = carried_from(call.inputs[0])
    if call.name in ("tanh", "tanh_"):
        return float(traced.logits.abs().max()) <= _MOST_SQUASHED
    return call.name in _BOUNDED | (SOFTMAXES - {"log_softmax"})


def _within_bounds(output: Tensor) -> bool:
    slack = 1e-3
    return float(output.min()) >= -slack and float(output.max()) <= 1 + slack


def _are_shares(outputs: list[Tensor]) -> bool:
    return all(map(adds_up_to_one, outputs))


def _are_features(
    traced: Trace, example: Tensor, run: Callable[[Tensor], Tensor]
) -> bool:
    """Whether outputs are the features before a layer of class scores, or a unit vector."""
    assert traced.logits is not None and traced.output is not None
    if traced.logits.shape[1] < _FEWEST_FEATURES:
        return False
    if _ends_in_features(traced.output, traced.input_size):
        return True
    if not _has_unit_length(traced.logits):
        return False
    return all(_has_unit_length(run(x)) for x in probes(example))


def _are_thresholds(several: list[Tensor]) -> bool:
    """Whether columns are in order, by steps that are the same on all inputs."""
    outputs = torch.cat(several).double()
    steps = outputs.diff(dim=1)
    if not bool((steps[0] > 0).all() or (steps[0] < 0).all()):
        return False
    varies = outputs[:, 0].std()
    return bool(varies > 0) and bool(
        (steps.std(dim=0) <= _SAME_STEPS * varies).all()
    )


def _has_unit_length(output: Tensor) -> bool:
    lengths = output.norm(dim=1)
    return bool(((lengths - 1).abs() < 1e-3).all())


def _is_rectified(traced: Trace) -> bool:
    """Whether logits are never negative (SqueezeNet), so that their mean is no hint."""
    assert traced.output is not None
    call = carried_from(traced.output)
    pool = pool_at(call, traced.input_size)
    source = call if pool is None else carried_from(pool.source)
    return source.name in ("relu", "relu_")


def _ends_in_features(output: Call, input_size: tuple[int, int]) -> bool:
    """Whether what computes the outputs is no linear layer and no convolution.

    A map of class scores may pass a rectifier before it is pooled (SqueezeNet).
    """
    call = carried_from(output)
    pool = pool_at(call, input_size)
    if pool is not None:
        call = carried_from(pool.source)
        if call.name in ("relu", "relu_") and call.inputs:
            call = carried_from(call.inputs[0])
        return call.name != "conv2d" and _makes_features(call)
    if is_linear(call):
        return False
    has_cells = len(call.shape) == 4 and math.prod(call.shape[2:]) > 1
    return has_cells or _makes_features(call)


def _makes_features(call: Call) -> bool:
    """Whether a call is of the kind that ends a block of layers."""
    while call.name in SELECTIONS and call.inputs:
        call = call.inputs[0]
    if call.name in NORMALISATIONS | ACTIVATIONS:
        return True
    return len(call.shape) >= 3 and call.name in CELLWISE
