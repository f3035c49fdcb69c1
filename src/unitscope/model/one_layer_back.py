"""One layer back: what a unit of any layer is made of on one photo."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.attribution.replay import Keeper, Kept, Replay, precise
from unitscope.attribution.suffix import same_enough
from unitscope.attribution.unit_inputs import Cell, InputSource, UnitInputs
from unitscope.attribution.unit_maps import UnitMaps
from unitscope.attribution.unit_walk import Ground, UnitSum, UnitWalk, unit_axis
from unitscope.errors import HeadError, InputError, LayerError
from unitscope.model.explaining import Asked, size_of
from unitscope.model.network import Network
from unitscope.tracing.calls import Call
from unitscope.tracing.ending import another_path
from unitscope.tracing.layers import (
    Layer,
    check_units,
    find_layer,
    layers_of,
    recording,
)
from unitscope.tracing.trace import Trace, trace, unwatchable

MEAN = "mean"
"""Instead of a cell: the mean over the map."""

# The name of the network's input among sources; no module can have it.
_PHOTO = "the photo"


def inputs_of(
    asked: Asked, layer: str, unit: int, cell: Sequence[int] | str | None
) -> UnitInputs:
    """The inputs of a unit; see `Classifier.inputs_of`."""
    network, batch = asked.explainer.network, asked.inputs
    if len(batch) != 1:
        raise InputError(
            "the inputs of a unit are those on one photo, not on several: ask for each "
            "photo by itself"
        )
    if unwatchable(network.module):
        raise HeadError(unwatchable(network.module))
    with network.running():
        traced = network.guarded(
            lambda: trace(network.module, batch), tuple(batch.shape[1:])
        )
    return _Photo(asked, traced).inputs_of(layer, unit, cell)


@dataclass(frozen=True, eq=False)
class _Numbers:
    """What a pass gave at the calls of a sum: `grounds` are the earlier units."""

    kept: Mapping[int, Kept]
    grounds: tuple[Tensor, ...]
    output: Tensor


class _Photo:
    """One traced pass on one photo, in which units are followed back."""

    def __init__(self, asked: Asked, traced: Trace) -> None:
        self.asked, self._traced = asked, traced
        self.walk = UnitWalk(traced)
        # What has no layer of its own is known by the name that it was given here.
        self._nameless: dict[str, Call] = {}

    @property
    def _network(self) -> Network:
        return self.asked.explainer.network

    @cached_property
    def _calls(self) -> dict[str, Call]:
        """The calls that make the outputs of layers, by name."""
        runs = zip(self._traced.names(), self._traced.runs, strict=True)
        return {name: run.call for name, run in runs}

    @cached_property
    def _layers(self) -> list[Layer]:
        return layers_of(self._traced)

    def inputs_of(
        self, name: str, unit: int, cell: Sequence[int] | str | None
    ) -> UnitInputs:
        """The inputs of a unit of a layer, or of what was named without one."""
        call = self._nameless.get(name)
        if call is None:
            call = self._calls[find_layer(self._layers, name).name]
        if call.name == "input":
            raise LayerError(
                "nothing is before the network's input, which is the photo itself"
            )
        found = self.walk.behind(call)
        self._check(name, call, found)
        numbers = self._numbers(found)
        return _Answer(self, name, call, found, numbers).of(unit, cell)

    def _check(self, name: str, call: Call, found: UnitSum) -> None:
        """Refuse what is no sum, and what has no units that can be told apart."""
        if found.obstacle:
            before = self.walk.nearest_layer(found.grounds[0].call)
            remedy = f": ask for the inputs of '{before}'" if before else ""
            raise LayerError(
                f"the units of '{name}' are no sums of earlier ones, but "
                f"{found.obstacle}{remedy}"
            )
        if unit_axis(call) is None or call.shape[:1] != (1,):
            shape = "×".join(map(str, call.shape))
            raise LayerError(
                f"layer '{name}' gives {shape}, in which units and cells could not be "
                "followed: choose a layer with a map (unit, row, col) or a vector"
            )

    def _numbers(self, found: UnitSum) -> _Numbers:
        """The numbers of the sum, from one more pass."""
        calls = [ground.call for ground in found.grounds]
        wanted = dict(found.kept)
        for call in (*calls, found.output):
            if call.index >= 0:
                wanted[call.index] = call.name
        keeper = Keeper(wanted)
        network, batch = self._network, self.asked.inputs
        fresh = batch.clone()
        with network.running(), keeper:
            network.guarded(
                lambda: network.module(fresh), tuple(batch.shape[1:])
            )
        if keeper.missing:
            raise another_path()

        def made(call: Call) -> Tensor:
            if call.name == "input":
                return batch
            if call.index < 0:
                raise LayerError(
                    f"the numbers of .{call.name} cannot be caught: spell it as a "
                    "function, tensor.permute(…)"
                )
            return keeper.kept_calls[call.index].results[call.place]

        return _Numbers(
            keeper.kept_calls,
            tuple(made(call) for call in calls),
            made(found.output),
        )

    def named(self, call: Call) -> tuple[str, str | None]:
        """What the numbers of a call are called, and the layer that returns them."""
        if call.name == "input":
            self._nameless[_PHOTO] = call
            return _PHOTO, None
        layer = self.walk.name_of(call)
        if layer is not None:
            return layer, layer
        before = self.walk.nearest_layer(call)
        name = self.walk.maker(call).name.strip("_")
        name = f"{name} after '{before}'" if before else f"{name} {call.index}"
        known = self._nameless.setdefault(name, call)
        if known is not call:
            name = f"{name} ({call.index})"
            self._nameless[name] = call
        return name, None

    def maps_of(self, name: str, unit: int, output: Tensor) -> UnitMaps | None:
        """The map of the unit itself, for pictures."""
        layer = next((each for each in self._layers if each.name == name), None)
        if layer is None or not layer.is_map:
            return None
        maps = layer.units_first(output).to(torch.float32)
        return UnitMaps(
            layer.name,
            (unit,),
            maps[:, [unit]].contiguous(),
            layer.grid,
            size_of(self.asked.inputs),
            self.asked.subjects,
        )


@dataclass(frozen=True, eq=False)
class _Answer:
    """Computes the sum from the numbers of the pass."""

    photo: _Photo
    name: str
    call: Call
    found: UnitSum
    numbers: _Numbers

    def of(self, unit: int, cell: Sequence[int] | str | None) -> UnitInputs:
        """The sum of one unit, at a cell or on average over the map."""
        before = self._before()
        (chosen,) = check_units(unit, before.shape[0], f"layer '{self.name}'")
        place = _cell(cell, before[chosen])
        weights, bias = self._differentiated(chosen, place)
        contributions = [
            weight * precise(values)
            for weight, values in zip(
                weights, self.numbers.grounds, strict=True
            )
        ]
        value = float(_at(before[chosen], place))
        error = self._gap(value, contributions, bias)
        sources = [
            self._source(ground, weight, given)
            for ground, weight, given in zip(
                self.found.grounds, weights, contributions, strict=True
            )
            if bool((weight != 0).any())
        ]
        output = as_map(precise(self.numbers.output), self.call)[0]
        return UnitInputs(
            layer=self.name,
            unit=chosen,
            cell=place,
            value=value,
            output=float(_at(output[chosen], place)),
            functions=tuple(self.found.functions),
            bias=bias,
            sources=tuple(sources),
            error=error,
            subject=self.photo.asked.subjects[0],
            maps=self.photo.maps_of(self.name, chosen, self.numbers.output),
            again=self.photo.inputs_of,
        )

    def _replay(
        self, values: dict[int, Tensor]
    ) -> Float[Tensor, "unit row col"]:
        """The sums of all units and cells, from other numbers at some calls."""
        replay = Replay(
            self.numbers.kept,
            self.photo.walk.constants,
            self.found.passed,
            values,
        )
        return as_map(replay.of(self.call), self.call)[0]

    def _before(self) -> Float[Tensor, "unit row col"]:
        """The pre-activations as the network computed them."""
        values = {
            id(ground.call): precise(given)
            for ground, given in zip(
                self.found.grounds, self.numbers.grounds, strict=True
            )
        }
        for top in self.found.tops:
            made = self.numbers.kept[top.index].results[top.place]
            values[id(top)] = precise(made)
        return self._replay(values)

    def _differentiated(
        self, unit: int, cell: Cell | None
    ) -> tuple[list[Tensor], float]:
        """The weight of every number of the grounds in the sum, and the sum of zeros.

        The sum has constant weights, so its gradient is these weights.
        """
        calls = [ground.call for ground in self.found.grounds]
        with recording():
            leaves = [
                precise(values).clone().requires_grad_()
                for values in self.numbers.grounds
            ]
            by_call = {
                id(call): leaf for call, leaf in zip(calls, leaves, strict=True)
            }
            total = _at(self._replay(dict(by_call))[unit], cell)
            gradients = torch.autograd.grad(total, leaves, allow_unused=True)
        weights = [
            torch.zeros_like(leaf) if gradient is None else gradient
            for leaf, gradient in zip(leaves, gradients, strict=True)
        ]
        zeros = {key: torch.zeros_like(leaf) for key, leaf in by_call.items()}
        with torch.no_grad():
            bias = float(_at(self._replay(zeros)[unit], cell))
        return weights, bias

    def _gap(
        self, value: float, contributions: Sequence[Tensor], bias: float
    ) -> float:
        """How far the sum is from the network's number; refused beyond rounding."""
        total = bias + sum(float(each.sum()) for each in contributions)
        sizes = abs(bias) + sum(
            float(each.abs().sum()) for each in contributions
        )
        gap = abs(value - total) / max(sizes, torch.finfo(torch.float32).tiny)
        if not gap <= same_enough(self.numbers.output.dtype):
            raise HeadError(
                f"the earlier units do not add up to unit sums of '{self.name}' (off by "
                f"{gap:.1e} of the sizes that are added): the network writes into a "
                "tensor by another name, or is random; choose another layer"
            )
        return gap

    def _source(
        self, ground: Ground, weight: Tensor, given: Tensor
    ) -> InputSource:
        name, layer = self.photo.named(ground.call)
        by_unit = given.movedim(ground.axis, 0).flatten(1)
        has_weight = weight.movedim(ground.axis, 0).flatten(1).any(dim=1)
        units = torch.nonzero(has_weight).flatten().tolist()
        has_map = unit_axis(ground.call) is not None
        origins = [
            self.photo.walk.origin(ground.call, unit)
            for unit in range(len(by_unit))
        ]
        return InputSource(
            name=name,
            layer=layer,
            reason=ground.reason,
            units=tuple(units),
            contributions=by_unit.sum(dim=1),
            maps=as_map(given, ground.call)[0] if has_map else None,
            origins=tuple(origins) if any(origins) else (),
        )


def as_map(tensor: Tensor, call: Call) -> Float[Tensor, "batch unit row col"]:
    """What a call gives as a map; a vector is a map of one cell."""
    if call.axes is not None:
        return call.axes.units_first(tensor)
    if tensor.ndim == 2:
        return tensor[:, :, None, None]
    return tensor


def _cell(
    cell: Sequence[int] | str | None, values: Float[Tensor, "row col"]
) -> Cell | None:
    """The chosen cell; the one with the largest value by default, None for the mean."""
    rows, cols = values.shape
    if isinstance(cell, str):
        if cell == MEAN:
            return None
        raise InputError(
            f"a cell is (row, col) or '{MEAN}', the mean over the map, not {cell!r}"
        )
    if cell is None:
        row, col = divmod(int(values.argmax()), cols)
        return row, col
    numbers = list(cell) if isinstance(cell, Iterable) else []
    if len(numbers) != 2 or not all(
        hasattr(each, "__index__") for each in numbers
    ):
        raise InputError(
            f"a cell is (row, col) or '{MEAN}', the mean over the map, not {cell!r}"
        )
    row, col = map(int, numbers)
    if not (0 <= row < rows and 0 <= col < cols):
        raise InputError(
            f"there is no cell ({row}, {col}): the map has {rows}×{cols} cells, numbered "
            "from (0, 0)"
        )
    return row, col


def _at(values: Float[Tensor, "row col"], cell: Cell | None) -> Tensor:
    return values.mean() if cell is None else values[cell]
