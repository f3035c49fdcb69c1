"""Stream walk: from the logits back along the token that is read, to what wrote into it."""

from __future__ import annotations

from dataclasses import replace

from unitscope.attribution.constants import Constants
from unitscope.errors import HeadError
from unitscope.geometry import Grid
from unitscope.residual.attention import attention_at, mixes_tokens
from unitscope.residual.branches import Branches
from unitscope.residual.divisors import divisor_at, is_centred, normalisation_at
from unitscope.residual.gates import is_made_from
from unitscope.residual.grounds import (
    Attention,
    Constant,
    JoinedConstant,
    Pooled,
    Written,
    attends_at,
)
from unitscope.residual.places import Places, check_same_order
from unitscope.residual.projections import averaged_rows, projection_at
from unitscope.residual.rows import MOVING, PHOTO, PHOTOS, UNITS, Row
from unitscope.residual.step import StreamStep
from unitscope.residual.steps import (
    Added,
    BatchNormalised,
    Centred,
    Joined,
    Linear,
    Normalised,
    Scaled,
)
from unitscope.residual.token_axis import joined_axis
from unitscope.residual.unfollowed import NoAttentionError, attends
from unitscope.tracing.calls import Call
from unitscope.tracing.functions import (
    CONCATENATIONS,
    ELEMENTWISE_PRODUCTS,
    LINEAR_FUNCTIONS,
    QUOTIENTS,
    SUM_SIGNS,
    UNIT_NORMALISATIONS,
)
from unitscope.tracing.trace import Trace

# Tokens, or networks of an ensemble, whose mean or sum is followed one by one.
_MOST_AVERAGED = 8


class StreamWalk:
    """Walks back from the logits through what is affine for the token that is read.

    `traced` is a pass with two photos, `single` one with one photo, whose cells were
    followed. `steps` are in the order in which they are computed.
    """

    def __init__(self, traced: Trace, single: Trace) -> None:
        # Before it, tokens are only made.
        self._first_attention = min(
            (call.index for call in traced.calls if mixes_tokens(call)),
            default=0,
        )
        self._has_attention = any(map(attends, traced.calls))
        self._constants = Constants()
        self._known: dict[tuple[int, Row], int] = {}
        self._ends: list[Call] = []
        self._made: dict[int, Call] = {}
        self._places = Places(single)
        self.steps: list[StreamStep] = []

    def walk(self, logits: Call) -> int:
        """The place of the step that makes the logits (photo, class).

        Raises HeadError, saying why, where the token that is read cannot be followed to
        any attention, or not to all that it pays.
        """
        try:
            return self._walked(logits)
        except RecursionError:
            raise HeadError("the network is too deep to be followed") from None
        except _Ended:
            raise NoAttentionError(
                "the logits are not computed from any layer's output by torch"
            ) from None
        except HeadError:
            if self._has_attention:
                raise
            # Products that mix tokens without a softmax may be no attention at all.
            raise NoAttentionError("the network has no attention") from None

    def _walked(self, logits: Call) -> int:
        place = self._step_of(logits, Row((PHOTO, UNITS)))
        stream = {call for call, _ in self._known}
        branches = Branches(stream, self._constants, self._places)
        if not any(isinstance(each, Attention) for each in self.steps):
            raise HeadError(branches.why(self._ends, self._made))
        branches.mark(self.steps, self._made, self._first_attention)
        return place

    def grids(self) -> dict[tuple[int, int], Grid]:
        """Where the patches lie, or may be taken to lie, by their (rows, cols)."""
        found: dict[tuple[int, int], Grid] = {}
        for step in self.steps:
            if isinstance(step, Attention):
                grid = self._places.grid(step)
                known = found.setdefault(step.tokens.patches, grid)
                check_same_order(known, grid)
        return found

    def assumed(self) -> list[int]:
        """The places of the attention steps whose patches are assumed to tile the photo."""
        return [
            place
            for place, step in enumerate(self.steps)
            if isinstance(step, Attention) and not self._places.is_known(step)
        ]

    def _step_of(self, call: Call, row: Row) -> int:
        key = (id(call), row)
        if key not in self._known:
            self._known[key] = self._find(call, row)
        return self._known[key]

    def _find(self, call: Call, row: Row) -> int:
        done = len(self.steps)
        attended = self._attention(call, row)
        if attended is not None:
            return attended
        earlier = row.before(call)
        if earlier is not None:
            return self._step_of(call.inputs[0], earlier)
        for found in (self._split, self._averaged, self._pool):
            place = found(call, row)
            if place is not None:
                return place
        try:
            affine = self._affine(call, row)
        except _Ended:
            affine = None
        if affine is None:
            # What was walked in vain is no part of the way.
            self._forget(done)
            return self._written(call, row)
        return affine

    def _written(self, call: Call, row: Row) -> int:
        if call.index < 0:
            raise _Ended
        self._ends.append(call)
        step = Written(index=call.index, name=call.name, row=row)
        self._made[len(self.steps)] = call
        return self._add(step)

    def _forget(self, done: int) -> None:
        del self.steps[done:]
        self._made = {
            place: call for place, call in self._made.items() if place < done
        }
        self._known = {
            key: place for key, place in self._known.items() if place < done
        }

    def _add(self, step: StreamStep) -> int:
        self.steps.append(step)
        return len(self.steps) - 1

    def _attention(self, call: Call, row: Row, merged: str = "") -> int | None:
        found = attention_at(call, row, merged)
        if found is None or found.values_of(call) in self._constants:
            return None
        tokens = self._places.tokens(call, found)
        if tokens is None:
            return None
        place = self._add(
            Attention(
                index=call.index, name=call.name, call=found, tokens=tokens
            )
        )
        if found.projects:
            return self._add(
                Linear(
                    index=call.index,
                    name=call.name,
                    before=(place,),
                    attention=found,
                )
            )
        return place

    def _split(self, call: Call, row: Row) -> int | None:
        """Behind a call that parts photos from heads, which shared an axis."""
        moves = [call]
        while moves[-1].name in MOVING and moves[-1].inputs:
            moves.append(moves[-1].inputs[0])
        product = moves.pop()
        if not moves or len(product.shape) != 3 or not mixes_tokens(product):
            return None
        length, *others = product.shape
        if length % PHOTOS:
            return None
        heads = length // PHOTOS
        for merged, pair in (("bh", (PHOTOS, heads)), ("hb", (heads, PHOTOS))):
            earlier = row.before_all(moves, (*pair, *others))
            if earlier is not None:
                found = self._attention(product, earlier, merged)
                if found is not None:
                    return found
        return None

    def _averaged(self, call: Call, row: Row) -> int | None:
        """The mean or sum of a few tokens, or of the networks of an ensemble."""
        if call.name == "stack":
            return self._stacked(call, row)
        if call.name not in ("mean", "sum") or len(call.inputs) != 1:
            return None
        (source,) = call.inputs
        rows = averaged_rows(call, row, self._places)
        if not 1 <= len(rows) <= _MOST_AVERAGED:
            return None
        factor = 1 / len(rows) if call.name == "mean" else 1.0
        if source in self._constants:
            return None
        before = tuple(self._step_of(source, each) for each in rows)
        return self._add(Added(before=before, factors=(factor,) * len(before)))

    def _stacked(self, call: Call, row: Row) -> int | None:
        axis = int(call.argument(1, "dim", 0)) % len(call.shape)
        index = row.axes[axis]
        if index < 0:
            return None
        before = Row(row.axes[:axis] + row.axes[axis + 1 :])
        source = call.inputs[index]
        if source in self._constants:
            return self._constant(call, before, index, JoinedConstant)
        return self._step_of(source, before)

    def _pool(self, call: Call, row: Row) -> int | None:
        pool = self._places.pool(call) if row.axes == (PHOTO, UNITS) else None
        if pool is None:
            return None
        read = pool.calls[0]
        return self._add(
            Pooled(index=read.index, name=read.name, reading=pool.reading())
        )

    def _affine(self, call: Call, row: Row) -> int | None:
        """The step of a call that is affine in what came before; None where it is not."""
        if call.name in SUM_SIGNS:
            if is_centred(call) and row.units_are_last:
                return self._behind(Centred, call, call.inputs[0], row)
            return self._sum(call, row)
        if call.name in CONCATENATIONS:
            return self._joined(call, row)
        if call.name in ELEMENTWISE_PRODUCTS | QUOTIENTS:
            return self._scaled(call, row)
        if call.name in UNIT_NORMALISATIONS:
            return self._normalised(call, row)
        if call.name == "batch_norm" and row.axes == (PHOTO, UNITS):
            return self._behind(BatchNormalised, call, call.inputs[0], row)
        if call.name == "einsum" or (
            call.name in LINEAR_FUNCTIONS and row.units_are_last
        ):
            return self._linear(call, row)
        return None

    def _sum(self, call: Call, row: Row) -> int | None:
        alpha = call.kwargs.get("alpha", 1)
        if not isinstance(alpha, (int, float)):
            return None
        signs = [1.0, SUM_SIGNS[call.name] * alpha]
        if call.name in ("rsub", "__rsub__"):
            signs = signs[::-1]
        before, factors = [], []
        for position, each in enumerate(call.inputs):
            if each in self._constants:
                before.append(self._constant(call, row, position))
            elif each.shape == call.shape:
                before.append(self._step_of(each, row))
            else:
                return None
            factors.append(signs[position])
        return self._add(
            Added(
                index=call.index,
                name=call.name,
                before=tuple(before),
                factors=tuple(factors),
                number=signs[1] if len(call.inputs) == 1 else None,
            )
        )

    def _constant(
        self,
        call: Call,
        row: Row,
        position: int,
        kind: type[Constant] = Constant,
    ) -> int:
        return self._add(
            kind(
                index=call.index,
                name=call.name,
                row=row,
                position=position,
                is_embedding=call.index < self._first_attention,
            )
        )

    def _joined(self, call: Call, row: Row) -> int | None:
        axis = joined_axis(call)
        if row.axes[axis] == PHOTO:
            return None
        if row.axes[axis] == UNITS:
            if row.axes.count(UNITS) > 1:
                return None
            if any(each in self._constants for each in call.inputs):
                return None
            before = tuple(self._step_of(each, row) for each in call.inputs)
            widths = tuple(each.shape[axis] for each in call.inputs)
            return self._add(
                Joined(
                    index=call.index,
                    name=call.name,
                    before=before,
                    widths=widths,
                )
            )
        # The token is one of those that are put one behind the other.
        index = row.axes[axis]
        for position, each in enumerate(call.inputs):
            if index < each.shape[axis]:
                axes = list(row.axes)
                axes[axis] = index
                here = Row(tuple(axes))
                if each not in self._constants:
                    return self._step_of(each, here)
                return self._constant(call, here, position, JoinedConstant)
            index -= each.shape[axis]
        return None

    def _scaled(self, call: Call, row: Row) -> int | None:
        divides = call.name in QUOTIENTS
        moving = [
            position
            for position, each in enumerate(call.inputs)
            if each not in self._constants and each.shape == call.shape
        ]
        if divides:
            moving = [position for position in moving if position == 0]
        for position in moving if row.units_are_last else ():
            place = self._divided(call, position, row)
            if place is not None:
                return place
        varying = [each for each in call.inputs if each not in self._constants]
        attending = []
        for position in moving:
            found = self._step_of(call.inputs[position], row)
            if attends_at(self.steps, found) or len(varying) == 1:
                attending.append((position, found))
        if len(attending) != 1:
            return None
        ((position, found),) = attending
        if any(
            is_made_from(each, self.steps, found)
            for place, each in enumerate(call.inputs)
            if place != position and each.shape == call.shape
        ):
            # An activation (x · sigmoid(x), SwiGLU), which layers inside an MLP have.
            return None
        return self._add(
            Scaled(
                index=call.index,
                name=call.name,
                before=(found,),
                row=row,
                position=position,
                divides=divides,
                is_gate=len(varying) > 1,
            )
        )

    def _divided(self, call: Call, position: int, row: Row) -> int | None:
        """A vector over a number of its own, written out; scaled first, maybe."""
        vector = call.inputs[position]
        scale: Scaled | None = None
        divisor = divisor_at(call, position, vector)
        if divisor is None and vector.name in ELEMENTWISE_PRODUCTS:
            moving = [each not in self._constants for each in vector.inputs]
            if len(moving) != 2 or moving.count(True) != 1:
                return None
            at = moving.index(True)
            scale = Scaled(
                index=vector.index, name=vector.name, row=row, position=at
            )
            vector = vector.inputs[at]
            divisor = divisor_at(call, position, vector)
        if divisor is None or vector.shape != call.shape:
            return None
        place = self._add(
            Normalised(
                index=call.index,
                name=call.name,
                before=(self._step_of(vector, row),),
                kind=divisor.kind,
                written=divisor.eps,
                factor=divisor.factor,
                beside=divisor.beside,
            )
        )
        return (
            place
            if scale is None
            else self._add(replace(scale, before=(place,)))
        )

    def _normalised(self, call: Call, row: Row) -> int | None:
        kind = normalisation_at(call)
        if kind is None or not (
            row.units_are_last or row.axes == (PHOTO, UNITS)
        ):
            return None
        if not all(each in self._constants for each in call.inputs[1:]):
            return None
        return self._behind(Normalised, call, call.inputs[0], row, kind=kind)

    def _linear(self, call: Call, row: Row) -> int | None:
        spelled = projection_at(call, row, self._constants)
        if spelled is None:
            return None
        found = self._step_of(call.inputs[spelled.input], spelled.row)
        if not attends_at(self.steps, found):
            # Not the stream, but a layer that writes into it.
            raise _Ended
        return self._add(
            Linear(
                index=call.index,
                name=call.name,
                before=(found,),
                position=1 - spelled.input,
                axes=spelled.axes,
            )
        )

    def _behind(
        self,
        step: type[StreamStep],
        call: Call,
        before: Call,
        row: Row,
        **options: str,
    ) -> int:
        found = self._step_of(before, row)
        return self._add(
            step(index=call.index, name=call.name, before=(found,), **options)
        )


class _Ended(Exception):
    """The walk ended at something that is not affine."""
