"""Unit walk: from a layer's output back to what it is a sum of, in the graph of a pass."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from unitscope.attribution.constants import Constants
from unitscope.tracing.calls import Call
from unitscope.tracing.functions import (
    ACTIVATIONS,
    ADDITIONS,
    CONCATENATIONS,
    CONVOLUTIONS,
    MAXIMUM_POOLS,
    MEAN_POOLS,
    SUBTRACTIONS,
)
from unitscope.tracing.layers import nesting
from unitscope.tracing.sums import (
    CARRYING,
    SAME_NUMBERS,
    WEIGHTED,
    is_elementwise,
    summed,
    why_no_sum,
)
from unitscope.tracing.trace import Trace

_TERMS = ADDITIONS | SUBTRACTIONS

# Leave every unit in its place.
_UNIT_BY_UNIT = (
    ACTIVATIONS
    | SAME_NUMBERS
    | MAXIMUM_POOLS
    | MEAN_POOLS
    | frozenset(("batch_norm",))
) - {"glu"}

# Why a walk ends at what the weights read.
_BEFORE = "the layer before"

# Modules that only pass on what they are given, and give no name to it.
_NAMELESS = ("Identity", "Dropout", "Dropout2d", "AlphaDropout", "DropPath")


class Ground(NamedTuple):
    """A call at which a sum ends: its numbers are the earlier units, along `axis`.

    `reason` says why the walk ends there.
    """

    call: Call
    axis: int
    reason: str


@dataclass
class UnitSum:
    """The part of a pass that makes a layer's output from the `grounds`.

    `passed` are the activations on the way from the sum to the output, by the identity of
    their calls, each with the call that it reads; `functions` are their names, the first
    one first. `tops` are the calls that make the sum itself, `kept` the names of all
    calls between by their index.
    """

    output: Call
    grounds: list[Ground] = field(default_factory=list)
    passed: dict[int, Call] = field(default_factory=dict)
    functions: list[str] = field(default_factory=list)
    tops: list[Call] = field(default_factory=list)
    kept: dict[int, str] = field(default_factory=dict)

    @property
    def obstacle(self) -> str:
        """Why there is no sum behind the output; empty where there is one."""
        return "" if self.tops else self.grounds[0].reason


class UnitWalk:
    """Finds the sums in the graph of one pass."""

    def __init__(self, traced: Trace) -> None:
        self.constants = Constants()
        self.names: dict[int, str] = {}
        self._other_names: dict[int, str] = {}
        for name, run in zip(traced.names(), traced.runs, strict=True):
            names = self._other_names if run.kind in _NAMELESS else self.names
            known = names.get(id(run.call), name)
            names[id(run.call)] = min(known, name, key=nesting)

    def behind(self, output: Call) -> UnitSum:
        """The sum behind the output of a layer."""
        walk = _Walk(self, UnitSum(output))
        walk.visit(output, _Place())
        walk.sum.functions.reverse()
        return walk.sum

    def name_of(self, call: Call) -> str | None:
        """The layer that returns what a call makes; None where none does."""
        name = self.names.get(id(call))
        return self._other_names.get(id(call)) if name is None else name

    def maker(self, call: Call) -> Call:
        """The call that computed the numbers that a call may only have put elsewhere."""
        moving = self._moving(call)
        while call.name in CARRYING and len(moving) == 1:
            (call,) = moving
            moving = self._moving(call)
        return call

    def origin(self, call: Call, unit: int) -> tuple[str, int] | None:
        """The layer and unit that a concatenation put in the place of a unit.

        Followed through what leaves units in their places. None where no concatenation is
        met.
        """
        met = False
        while True:
            if met and id(call) in self.names:
                return self.names[id(call)], unit
            moving = self._moving(call)
            if call.name in CONCATENATIONS:
                found = self._operand(call, unit)
                if found is None:
                    return None
                call, unit = found
                met = True
            elif call.name in _UNIT_BY_UNIT and len(moving) == 1:
                call = moving[0]
            else:
                return None

    def nearest_layer(self, call: Call) -> str | None:
        """The nearest layer with a map, or units, before a call."""
        seen: set[int] = set()
        waiting = list(call.inputs)
        while waiting:
            each = waiting.pop(0)
            if id(each) in self.names and each.axes is not None:
                return self.names[id(each)]
            if id(each) not in seen:
                seen.add(id(each))
                waiting += each.inputs
        return None

    def _moving(self, call: Call) -> list[Call]:
        return [each for each in call.inputs if each not in self.constants]

    def _operand(self, call: Call, unit: int) -> tuple[Call, int] | None:
        """The operand of a concatenation of units that holds one, and its number there."""
        others = [each.shape[:1] + each.shape[2:] for each in call.inputs]
        whole = call.shape[:1] + call.shape[2:]
        if any(other != whole for other in others):
            return None
        for each in call.inputs:
            if unit < each.shape[1]:
                return each, unit
            unit -= each.shape[1]
        return None


class _Place(NamedTuple):
    """Where a walk is: what it has passed on its way from the output.

    `is_tail`: only activations, and what puts numbers elsewhere. `weighted`: the weights
    of a convolution or a linear layer. `added`: a sum of branches. `read` is what the
    weights, or the sum, read, with its axis of units.
    """

    is_tail: bool = True
    weighted: bool = False
    added: bool = False
    read: tuple[int, int] | None = None


class _Walk:
    """One walk, from an output back to the grounds of its sum."""

    def __init__(self, walk: UnitWalk, found: UnitSum) -> None:
        self._walk, self.sum = walk, found
        self._seen: set[tuple[int, _Place]] = set()
        self._read: dict[int, Call] = {}

    def visit(self, call: Call, place: _Place) -> None:
        """Walk on from a call."""
        key = (id(call), place)
        if key in self._seen:
            return
        self._seen.add(key)
        moving = [each not in self._walk.constants for each in call.inputs]
        if place.is_tail and is_elementwise(call, moving):
            self.sum.passed[id(call)] = call.inputs[0]
            self.sum.functions.append(call.name.strip("_"))
            self.visit(call.inputs[0], place)
            return

        if self._ends(call, place):
            self._end(call, place, _BEFORE)
            return
        terms = summed(call, moving)
        if not terms:
            self._end(call, place, why_no_sum(call, moving))
            return
        self._pass(call, terms, place)

    def _ends(self, call: Call, place: _Place) -> bool:
        """Whether a call that may be a sum itself is the ground of this one."""
        if place.is_tail or call.name == "input":
            return False
        is_layer = id(call) in self._walk.names and call.axes is not None
        if place.weighted:
            return is_layer or call.name not in CARRYING
        return is_layer and place.added and call.name in _TERMS

    def _pass(self, call: Call, terms: list[int], place: _Place) -> None:
        carries = call.name in CARRYING
        if place.is_tail and not carries:
            self.sum.tops.append(call)
        if call.index >= 0 and call.name not in SAME_NUMBERS:
            self.sum.kept[call.index] = call.name

        is_branching = call.name in _TERMS and len(terms) > 1
        after = _Place(
            is_tail=place.is_tail and carries,
            weighted=place.weighted or call.name in WEIGHTED,
            added=place.added or is_branching,
            read=place.read,
        )
        operands = [call.inputs[term] for term in terms]
        for number, operand in enumerate(operands):
            others = operands[:number] + operands[number + 1 :]
            if call.name in WEIGHTED or is_branching:
                after = after._replace(read=self._note_read(call, operand))
            if is_branching and self._is_skip(operand, others):
                self._end(operand, after, "the skip around a branch")
            else:
                self.visit(operand, after)

    def _note_read(self, call: Call, operand: Call) -> tuple[int, int] | None:
        """Note that weights, or a sum of branches, read an operand; its axis of units."""
        axis = unit_axis(operand)
        if axis is None and call.name in CONVOLUTIONS:
            axis = 1
        elif axis is None and call.name in WEIGHTED:
            axis = len(operand.shape) - 1
        elif axis is None and operand.shape == call.shape:
            axis = unit_axis(call)
        if axis is None:
            return None
        self._read[id(operand)] = operand
        return id(operand), axis

    def _is_skip(self, operand: Call, others: Iterable[Call]) -> bool:
        """Whether the other branches of a sum are computed from a layer's output."""
        if id(operand) not in self._walk.names:
            return False
        return any(_depends(other, operand) for other in others)

    def _end(self, call: Call, place: _Place, reason: str) -> None:
        """End at a call; at what was read of it, where its own units are unknown."""
        axis = unit_axis(call)
        if axis is None and place.read is not None:
            identity, axis = place.read
            call = self._read[identity]
        ground = Ground(
            call, len(call.shape) - 1 if axis is None else axis, reason
        )
        if all(known.call is not call for known in self.sum.grounds):
            self.sum.grounds.append(ground)


def unit_axis(call: Call) -> int | None:
    """The axis of units in what a call gives; None where that is unknown."""
    axes = call.axes
    if axes is not None:
        is_last = axes.order in ("units last", "tokens")
        return len(call.shape) - 1 if is_last else 1
    if len(call.shape) == 2 or call.shape[2:] == (1, 1):
        return 1
    return None


def _depends(call: Call, earlier: Call) -> bool:
    """Whether a call is computed from an earlier one."""
    seen: set[int] = set()
    waiting = [call]
    while waiting:
        each = waiting.pop()
        if each is earlier:
            return True
        is_before = 0 <= each.index < earlier.index
        if not is_before and id(each) not in seen:
            seen.add(id(each))
            waiting += each.inputs
    return False
