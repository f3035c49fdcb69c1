"""Stream walk: from the logits back along the token that is read, to what wrote into it."""

from __future__ import annotations

from unitscope.attribution.constants import Constants
from unitscope.attribution.head_walk import behind_guards, normalises_all
from unitscope.attribution.pooling import Pool, input_position, pool_at
from unitscope.errors import HeadError
from unitscope.geometry import Grid
from unitscope.residual.attention import (
    PRODUCTS,
    WHOLE,
    AttentionCall,
    attention_at,
    mixes_tokens,
    values_of,
)
from unitscope.residual.gates import is_made_from
from unitscope.residual.grounds import (
    Attention,
    Constant,
    JoinedConstant,
    Pooled,
    Tokens,
    Written,
)
from unitscope.residual.rows import PHOTO, PHOTOS, UNITS, Row
from unitscope.residual.step import StreamStep
from unitscope.residual.steps import (
    Added,
    BatchNormalised,
    Joined,
    Linear,
    Normalised,
    Scaled,
)
from unitscope.tracing.calls import Call
from unitscope.tracing.functions import (
    CONCATENATIONS,
    ELEMENTWISE_PRODUCTS,
    LENGTHS,
    LINEAR_FUNCTIONS,
    QUOTIENTS,
    SUM_SIGNS,
    UNIT_NORMALISATIONS,
)
from unitscope.tracing.roles import Tokens as TokenRole
from unitscope.tracing.trace import Trace


class StreamWalk:
    """Walks back from the logits through what is affine for the token that is read.

    `traced` is a pass with two photos, `single` one with one photo, whose cells were
    followed. `steps` are in the order in which they are computed.
    """

    def __init__(self, traced: Trace, single: Trace) -> None:
        self._single = {(call.index, call.place): call for call in single.calls}
        self._input_size = single.input_size
        # Before it, tokens are only made.
        self._first_attention = min(
            (call.index for call in traced.calls if mixes_tokens(call)),
            default=0,
        )
        self._constants = Constants()
        self._known: dict[tuple[int, Row], int] = {}
        self._pools: dict[int, Pool] = {}
        self.steps: list[StreamStep] = []

    @property
    def attentions(self) -> list[Attention]:
        """The steps that read attention, in the order of their calls."""
        found = [each for each in self.steps if isinstance(each, Attention)]
        return sorted(found, key=lambda step: step.index)

    def walk(self, logits: Call) -> int:
        """The place of the step that makes the logits (photo, class).

        Raises HeadError, saying why, where the token that is read cannot be followed to
        any attention.
        """
        place = self._step_of(logits, Row((PHOTO, UNITS)))
        if not self.attentions:
            raise HeadError(
                "the logits are not read from a token that attends to others"
            )
        return place

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
        split = self._split(call, row)
        if split is not None:
            return split
        pooled = self._pooled(call, row)
        if pooled is not None:
            return pooled
        try:
            found = self._affine(call, row)
        except _Ended:
            found = None
        if found is None:
            # What was walked in vain is no part of the way.
            self._forget(done)
            return self._written(call, row)
        return found

    def _written(self, call: Call, row: Row) -> int:
        if call.index < 0:
            raise _Ended(f"'{call.name}'")
        return self._add(Written(index=call.index, name=call.name, row=row))

    def _forget(self, done: int) -> None:
        del self.steps[done:]
        self._known = {
            key: place for key, place in self._known.items() if place < done
        }

    def _add(self, step: StreamStep) -> int:
        self.steps.append(step)
        return len(self.steps) - 1

    def _attention(self, call: Call, row: Row) -> int | None:
        found = attention_at(call, row)
        if found is None:
            return None
        tokens = self._tokens(call, found)
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

    def grids(self) -> dict[tuple[int, int], Grid]:
        """Where the patches lie, or may be taken to lie, by their (rows, cols)."""
        found = {}
        for step in self.steps:
            if isinstance(step, Pooled):
                pool = self._pools[step.index]
                found[pool.cells] = pool.grid
            elif isinstance(step, Attention):
                found.setdefault(step.tokens.patches, self._grid(step))
        return found

    def _grid(self, step: Attention) -> Grid:
        single = self._single[(step.index, 0)]
        axis = 0 if single.name == WHOLE else -2
        values = values_of(single)
        role = self._role_along(values, axis % len(values.shape))
        assert role is not None
        if role.row_axis is None or role.col_axis is None:
            return Grid.tiling(self._input_size, (role.rows, role.cols))
        return Grid(role.row_axis, role.col_axis)

    def _tokens(self, call: Call, found: AttentionCall) -> Tokens | None:
        """Which of the tokens that are attended to are patches."""
        single = self._single.get((call.index, call.place))
        if single is None or single.name != call.name:
            return None
        values = values_of(single)
        axis = 0 if found.name == WHOLE else len(values.shape) - 2
        role = self._role_along(values, axis)
        if role is None:
            return None
        count = values.shape[axis]
        queries = call.shape[0 if found.name == WHOLE else -2]
        own = found.query if queries == count else None
        if own is None and role.before == 1:
            own = 0
        return Tokens(role.before, role.rows, role.cols, own)

    def _role_along(self, values: Call, axis: int) -> TokenRole | None:
        """The role of the axis of tokens; of a call before where the own one was lost."""
        count = values.shape[axis]
        frontier: list[Call] = [values]
        seen: set[int] = set()
        while frontier and len(seen) < 40:
            call = frontier.pop(0)
            seen.add(id(call))
            layout = call.layout or ()
            for place, role in enumerate(layout):
                if isinstance(role, TokenRole) and len(layout) == len(
                    call.shape
                ):
                    if call.shape[place] == count and (
                        call is not values or place == axis
                    ):
                        return role
            frontier += [each for each in call.inputs if id(each) not in seen]
        return None

    def _split(self, call: Call, row: Row) -> int | None:
        """Behind a call that parts photos from heads, which shared an axis."""
        if not call.inputs or call.inputs[0].name not in PRODUCTS:
            return None
        product = call.inputs[0]
        if len(product.shape) != 3 or product.shape[0] % PHOTOS:
            return None
        shape = (PHOTOS, product.shape[0] // PHOTOS, *product.shape[1:])
        earlier = row.before(call, shape)
        if earlier is None:
            return None
        return self._attention(product, earlier)

    def _pooled(self, call: Call, row: Row) -> int | None:
        if row.axes != (PHOTO, UNITS):
            return None
        single = self._single.get((call.index, call.place))
        if single is None or single.name != call.name:
            return None
        pool = pool_at(single, self._input_size)
        if pool is None or len(pool.calls) != 1 or call.name == "sum":
            return None
        read = pool.calls[0]
        self._pools[read.index] = pool
        return self._add(
            Pooled(index=read.index, name=read.name, reading=pool.reading())
        )

    def _affine(self, call: Call, row: Row) -> int | None:
        """The step of a call that is affine in what came before; None where it is not."""
        if call.name in SUM_SIGNS:
            return self._sum(call, row)
        if call.name in CONCATENATIONS:
            return self._joined(call, row)
        if call.name in ELEMENTWISE_PRODUCTS | QUOTIENTS:
            return self._scaled(call, row)
        if call.name in UNIT_NORMALISATIONS:
            return self._normalised(call, row)
        if call.name == "batch_norm" and row.axes == (PHOTO, UNITS):
            return self._behind(BatchNormalised, call, call.inputs[0], row)
        if call.name in LINEAR_FUNCTIONS and row.units_are_last:
            return self._linear(call, row)
        return None

    def _sum(self, call: Call, row: Row) -> int | None:
        sign = SUM_SIGNS[call.name]
        alpha = call.kwargs.get("alpha", 1)
        if not isinstance(alpha, (int, float)) or sign < 0:
            return None
        before, factors = [], []
        for position, each in enumerate(call.inputs):
            factor = float(alpha) if position == 1 else 1.0
            if each in self._constants:
                before.append(self._constant(call, row, position))
            elif each.shape == call.shape:
                before.append(self._step_of(each, row))
            else:
                return None
            factors.append(factor)
        number = 0.0
        if len(call.inputs) == 1:
            plain = [
                each
                for each in (*call.args, *call.kwargs.values())
                if isinstance(each, (int, float))
            ]
            number = float(plain[0]) if plain else 0.0
        return self._add(
            Added(
                index=call.index,
                name=call.name,
                before=tuple(before),
                factors=tuple(factors),
                number=number,
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
        axis = call.argument(1, "dim", call.kwargs.get("axis", 0))
        axis %= len(call.shape)
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
        if divides and call.inputs and len(call.inputs) == 2 and moving:
            length = behind_guards(call.inputs[1])
            if length.name in LENGTHS and length.inputs[0] is call.inputs[0]:
                return self._behind(
                    Normalised, call, call.inputs[0], row, kind="length"
                )
        attending = []
        for position in moving:
            done = len(self.steps)
            found = self._step_of(call.inputs[position], row)
            if self._attends(done, found) or len(call.inputs) == 1:
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
                is_gate=any(
                    each not in self._constants
                    for place, each in enumerate(call.inputs)
                    if place != position
                ),
            )
        )

    def _attends(self, done: int, found: int) -> bool:
        """Whether a step goes back to attention."""
        places = [found]
        while places:
            step = self.steps[places.pop()]
            if isinstance(step, (Attention, Pooled)):
                return True
            places += step.before
        return False

    def _normalised(self, call: Call, row: Row) -> int | None:
        if not all(each in self._constants for each in call.inputs[1:]):
            return None
        if not row.units_are_last and row.axes != (PHOTO, UNITS):
            return None
        if not normalises_all(call, call.shape[-1]):
            return None
        kind = {"root mean square": "root mean square", "length": "length"}.get(
            UNIT_NORMALISATIONS[call.name], "layer"
        )
        if call.name == "group_norm" and len(call.shape) != 2:
            return None
        return self._behind(Normalised, call, call.inputs[0], row, kind=kind)

    def _linear(self, call: Call, row: Row) -> int | None:
        position = input_position(call)
        weights = [
            each for place, each in enumerate(call.inputs) if place != position
        ]
        if not all(each in self._constants for each in weights):
            return None
        before = call.inputs[position]
        if before.shape[:-1] != call.shape[:-1]:
            return None
        found = self._step_of(before, row)
        if not self._attends(0, found):
            # Not the stream, but a layer that writes into it.
            raise _Ended("a linear layer of something else")
        return self._add(
            Linear(index=call.index, name=call.name, before=(found,))
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
