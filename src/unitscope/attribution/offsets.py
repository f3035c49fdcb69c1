"""Offsets: what every call of a pass adds of its own, y − ∂y/∂x · x.

Of a sum with constant weights that is the bias; of a ReLU or a maximum it is 0. Summed with
the gradients of a logit over all calls, and with input · gradient, offsets give the logit:
the sum telescopes (Srinivas & Fleuret 2019). Where a call is curved (GELU, softmax), what
it adds of its own is no bias; it is measured all the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.attribution.constants import Constants
from unitscope.attribution.replay import is_in_place, mapped
from unitscope.attribution.unit_walk import UnitWalk
from unitscope.geometry import Grid
from unitscope.tracing.arguments import WithArguments, tensors_in
from unitscope.tracing.axes import Axes
from unitscope.tracing.blame import called
from unitscope.tracing.calls import Call
from unitscope.tracing.functions import (
    CONCATENATIONS,
    CONSTRUCTORS,
    CONVOLUTIONS,
    ELEMENTWISE_PRODUCTS,
    MATRIX_PRODUCTS,
    MAXIMUM_POOLS,
    MEAN_POOLS,
    METADATA_QUERIES,
    QUOTIENTS,
    SUM_SIGNS,
)
from unitscope.tracing.sums import CARRYING, is_elementwise, summed
from unitscope.tracing.taps import Arguments, CallCounter
from unitscope.tracing.trace import Trace

Way: TypeAlias = Literal["argument", "at zeros", "slope", "measured"]
"""How an offset is computed.

Read from the arguments; the value of the call at zeros; y − slope · x of a function of
single numbers; or the gradients before and behind the call, which give its sum alone.
"""

# y = ∂y/∂x · x: nothing is added. Arguments that do not depend on the photo are weights.
_PROPORTIONAL = (
    MAXIMUM_POOLS
    | MEAN_POOLS
    | ELEMENTWISE_PRODUCTS
    | QUOTIENTS
    | (MATRIX_PRODUCTS - {"addmm", "baddbmm"})
    | (CARRYING - CONCATENATIONS - {"pad", "stack"})
    | frozenset(("mean", "sum", "neg", "neg_", "__neg__"))
    | frozenset(("interpolate", "upsample"))
)
_PROPORTIONAL_PIECES = frozenset(
    """
    relu relu_ leaky_relu leaky_relu_ prelu rrelu rrelu_ abs abs_ __abs__ absolute
    max_pool2d
    """.split()
)
_PIECEWISE_LINEAR = frozenset(
    """
    relu6 hardtanh hardtanh_ hardsigmoid hardsigmoid_ threshold threshold_ hardshrink
    softshrink maximum minimum clamp clamp_ clamp_min clamp_min_ clamp_max clamp_max_ clip
    clip_ round floor ceil sign
    """.split()
)
# Choose between numbers, by a mask that is held.
_CHOOSING = frozenset(("where", "masked_fill", "masked_fill_"))
_BIAS_AT = 2


@dataclass(frozen=True)
class Offset:
    """The offset of one call, known by its index and function; `name` says where it is.

    `axes` and `grid` say where it lies on the network's input; they are None where it
    has no place there. A bias counts in full; others are what curved functions leave out.
    """

    name: str
    function: str
    way: Way
    is_bias: bool
    moving: tuple[bool, ...]
    axes: Axes | None
    grid: Grid | None


@dataclass(frozen=True)
class Offsets:
    """The offsets of a pass by the index of their calls.

    With `one_by_one` some calls have no row for every photo: photos go through alone.
    """

    by_index: Mapping[int, Offset]
    one_by_one: bool

    @classmethod
    def of(cls, traced: Trace) -> Offsets:
        """The offsets of a traced pass, none of which has been computed yet."""
        names = _Names(traced)
        constants = Constants()
        found: dict[int, Offset] = {}
        alone = False
        for call in traced.calls:
            if call.index < 0 or call.place or not call.shape:
                continue
            moving = tuple(each not in constants for each in call.inputs)
            way = _way(call, moving)
            if way is None:
                continue
            alone |= call.shape[:1] != (1,)
            axes = call.axes if call.shape[:1] == (1,) else None
            is_map = axes is not None and way != "measured"
            found[call.index] = Offset(
                name=names.of(call),
                function=call.name,
                way=way,
                is_bias=_is_bias(call, way),
                moving=moving,
                axes=axes if is_map else None,
                grid=_grid(call, axes, traced) if axes and is_map else None,
            )
        return cls(found, alone)


def _grid(call: Call, axes: Axes, traced: Trace) -> Grid:
    _, rows, cols = axes.map_shape(call.shape)
    return call.grid or Grid.tiling(traced.input_size, (rows, cols))


def _way(call: Call, moving: Sequence[bool]) -> Way | None:
    """How the offset of a call is computed; None where it has none."""
    name = call.name
    if not any(moving) or name in METADATA_QUERIES | CONSTRUCTORS:
        return None
    if name in _PROPORTIONAL_PIECES and moving[0] and sum(moving) == 1:
        return None
    if name in MAXIMUM_POOLS:
        return None
    if summed(call, moving) is not None:
        return _way_of_sum(call, moving)
    if name in _CHOOSING:
        return "at zeros"
    return "slope" if is_elementwise(call, moving) else "measured"


def _way_of_sum(call: Call, moving: Sequence[bool]) -> Way | None:
    name = call.name
    if name in CONVOLUTIONS or name == "linear":
        return "argument"
    if name in _PROPORTIONAL:
        return None
    adds_two = name in SUM_SIGNS and len(moving) == 2
    joins = name in CONCATENATIONS or name == "stack"
    if all(moving) and (adds_two or joins):
        return None
    return "at zeros"


def _is_bias(call: Call, way: Way) -> bool:
    if way == "slope":
        return call.name in _PIECEWISE_LINEAR
    return way != "measured"


class _Names:
    """Names the calls of a pass: the innermost layer, or a function behind a layer."""

    def __init__(self, traced: Trace) -> None:
        self._walk = UnitWalk(traced)
        self._layers: dict[int, str] = {}
        for name, run in zip(traced.names(), traced.runs, strict=True):
            self._layers.setdefault(run.call.index, name)
        self._given: Counter[str] = Counter()

    def of(self, call: Call) -> str:
        """The name of a call that is asked for once."""
        name = self._layers.get(call.index)
        if name is None:
            before = self._walk.nearest_layer(call)
            function = call.name.strip("_")
            name = f"{function} after '{before}'" if before else function
        self._given[name] += 1
        count = self._given[name]
        return name if count == 1 else f"{name} ({count})"


@dataclass
class Gathered:
    """What one backward pass gave: sums (batch) and maps (batch, row, col) by name."""

    sums: dict[str, Float[Tensor, " batch"]] = field(default_factory=dict)
    maps: dict[str, Float[Tensor, "batch _ _"]] = field(default_factory=dict)
    curved: dict[str, Float[Tensor, " batch"]] = field(default_factory=dict)


class OffsetWatch(CallCounter):
    """Watches a pass with gradients; a backward pass then fills `gathered`.

    Nothing is kept on the network: the gradients of its intermediate results are looked
    at as they pass.
    """

    def __init__(self, offsets: Offsets, photos: int) -> None:
        super().__init__()
        self._offsets = offsets.by_index
        self._photos = photos
        self._met = 0
        self.gathered = Gathered()

    @property
    def missing(self) -> bool:
        """Whether the pass made other calls than the traced one."""
        return self._met != len(self._offsets)

    def run(
        self,
        index: int,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Run a call, and have the gradient of its result looked at."""
        offset = self._offsets.get(index)
        if offset is None or offset.function != getattr(func, "__name__", ""):
            return called(func, args, kwargs)
        self._met += 1
        if offset.way == "measured":
            return self._measured(offset, func, args, kwargs)

        before = None
        if offset.way == "slope":
            before = next(tensors_in((args, kwargs))).detach().clone()
        result = called(func, args, kwargs)
        made = next(tensors_in(result), None)
        if made is not None and made.requires_grad:
            own = self._own(offset, Arguments(args, kwargs), func, before)
            if own is not None and bool(own.any()):
                self._watch(offset, made, own.detach())
        return result

    def _own(
        self,
        offset: Offset,
        given: Arguments,
        func: Any,
        before: Tensor | None,
    ) -> Tensor | None:
        """The offset of a call, of the shape of its result or one that broadcasts."""
        if before is not None:
            return _beside_slope(func, given, before)
        if offset.way == "at zeros":
            return _at_zeros(offset, func, given)
        bias: Tensor | None = given.argument(_BIAS_AT, "bias")
        if bias is None or offset.function not in CONVOLUTIONS:
            return bias
        axes = int(offset.function.rstrip("d")[-1])
        return bias.reshape(-1, *[1] * axes)

    def _watch(self, offset: Offset, made: Tensor, own: Tensor) -> None:
        def look(gradient: Tensor) -> None:
            product = gradient.detach() * own
            total = self._by_photo(product)
            if not offset.is_bias:
                _add(self.gathered.curved, offset.function.strip("_"), total)
                return
            _add(self.gathered.sums, offset.name, total)
            if offset.axes is not None:
                cells = offset.axes.units_first(product)
                _add(self.gathered.maps, offset.name, _summed(cells, (1,)))

        made.register_hook(look)  # type: ignore[no-untyped-call]

    def _measured(
        self,
        offset: Offset,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Run a call between aliases, whose gradients are those through this call alone."""
        writes = is_in_place(offset.function) or kwargs.get("inplace")
        if writes or offset.function == "__setitem__":
            return called(func, args, kwargs)  # what it adds stays unnamed
        places = iter(offset.moving)
        aliases: dict[int, Tensor] = {}

        def alias(tensor: Tensor) -> Tensor:
            if not next(places, False) or not tensor.requires_grad:
                return tensor
            # Some functions look whether two arguments are the same one.
            if id(tensor) not in aliases:
                aliases[id(tensor)] = tensor.view_as(tensor)
            return aliases[id(tensor)]

        args, kwargs = mapped(args, alias), mapped(kwargs, alias)
        result = called(func, args, kwargs)
        for tensor in aliases.values():
            self._measure(offset, tensor, -1.0)
        for tensor in tensors_in(result):
            if tensor.requires_grad:
                self._measure(offset, tensor, 1.0)
        return result

    def _measure(self, offset: Offset, tensor: Tensor, sign: float) -> None:
        # Copied, since the network may write into it later.
        numbers = tensor.detach().clone()

        def look(gradient: Tensor) -> None:
            total = sign * self._by_photo(gradient.detach() * numbers)
            _add(self.gathered.curved, offset.function.strip("_"), total)

        tensor.register_hook(look)  # type: ignore[no-untyped-call]

    def _by_photo(self, product: Tensor) -> Float[Tensor, " batch"]:
        if self._photos == 1:
            return _summed(product.reshape(1, -1), (1,))
        return _summed(product.reshape(self._photos, -1), (1,))


def _add(kept: dict[str, Tensor], name: str, more: Tensor) -> None:
    kept[name] = kept[name] + more if name in kept else more


def _summed(numbers: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The sum over some axes, in float64 where the device has that."""
    has_doubles = numbers.device.type != "mps"
    dtype = torch.float64 if has_doubles else torch.float32
    return numbers.sum(dim=axes, dtype=dtype).cpu().to(torch.float64)


def _at_zeros(offset: Offset, func: Any, given: WithArguments) -> Tensor:
    """What a call gives where everything that depends on the photo is 0."""
    places = iter(offset.moving)

    def zeros(tensor: Tensor) -> Tensor:
        if not next(places, False) or not tensor.is_floating_point():
            return tensor.detach()
        if offset.function == "batch_norm":
            return tensor.new_zeros(
                (1, tensor.shape[1], *[1] * (tensor.ndim - 2))
            )
        return torch.zeros_like(tensor)

    with torch.no_grad():
        args, kwargs = mapped(given.args, zeros), mapped(given.kwargs, zeros)
        return next(tensors_in(func(*args, **kwargs)))


def _beside_slope(
    func: Callable[..., Any], given: WithArguments, before: Tensor
) -> Tensor:
    """The numbers y − slope · x of a function of single numbers."""
    numbers = before.requires_grad_()
    first = iter((True,))

    def swapped(tensor: Tensor) -> Tensor:
        # A copy, which the function may write into.
        return numbers.clone() if next(first, False) else tensor.detach()

    with torch.enable_grad():
        args = mapped(given.args, swapped)
        made: Tensor = func(*args, **mapped(given.kwargs, swapped))
        if not made.requires_grad:
            return made
        (slope,) = torch.autograd.grad(made.sum(), numbers, allow_unused=True)
    made, numbers = made.detach(), numbers.detach()
    return made if slope is None else made - slope * numbers
