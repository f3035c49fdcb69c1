"""StreamPath: where the numbers of a residual stream pass in every forward pass."""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unitscope.attribution.arrays import without_autocast
from unitscope.attribution.readings import slices_of
from unitscope.errors import InputError
from unitscope.residual.attention import Attended, AttentionCall
from unitscope.residual.grounds import Attention, Neurons, Written
from unitscope.residual.patches import Patches
from unitscope.residual.step import StreamStep, Variants
from unitscope.residual.steps import Added, Linear
from unitscope.residual.sums import Sums
from unitscope.tracing.ending import Ending, another_path
from unitscope.tracing.outputs import first_tensor, with_tensor
from unitscope.tracing.taps import Arguments, CallCounter, uncounted

# A call, by index and name.
_Key: TypeAlias = tuple[int, str]


class Change(NamedTuple):
    """What is done to the heads in a pass.

    Every head is multiplied by its number in `keep`; of what is missing to 1, `by` is put
    in its place: what all tokens take from the heads of every block, of one photo or of
    as many as are changed.
    """

    keep: Float[Tensor, "photo unit"]
    by: Sequence[Float[Tensor, "photo2 _ _ _"]] | None = None


class StreamPass(NamedTuple):
    """One forward pass: the logits, and what every step of the stream read.

    `outputs` are what all tokens take from the heads of every block, where asked for.
    """

    logits: Float[Tensor, "photo class"]
    read: list[Any]
    outputs: tuple[Float[Tensor, "photo _ _ _"], ...] = ()


def as_variants(read: Sequence[Any]) -> tuple[Any, ...]:
    """What was read, without what single tokens gave: (photo, variant, head, unit)."""
    return tuple(
        own.by_head()[:, None] if isinstance(own, Attended) else own
        for own in read
    )


@dataclass(frozen=True, eq=False)
class StreamPath:
    """The steps from what was written into the stream to the logits, in their order.

    The last one gives the logits. `ending` says where these are in a pass, `patches`
    where the patches lie.
    """

    steps: tuple[StreamStep, ...]
    ending: Ending
    patches: Patches

    @property
    def attentions(self) -> list[Attention]:
        """The steps that read attention, in the order of their calls."""
        found = [step for step in self.steps if isinstance(step, Attention)]
        return sorted(found, key=lambda step: step.index)

    @property
    def calls(self) -> list[AttentionCall]:
        """The calls that mix tokens, in their order: each once, however often it is read."""
        calls = {step.index: step.call for step in self.attentions}
        return list(calls.values())

    @property
    def mlps(self) -> dict[int, int]:
        """The places of what MLPs wrote, by the call's index, in the order of calls."""
        found = {
            step.index: place
            for place, step in enumerate(self.steps)
            if isinstance(step, Written) and step.is_mlp
        }
        return dict(sorted(found.items()))

    @property
    def blocks_of_mlps(self) -> list[int]:
        """The block of every MLP: it writes behind its attention, and before the next."""
        calls = [call.index for call in self.calls]
        return [max(bisect.bisect(calls, index) - 1, 0) for index in self.mlps]

    def with_neurons(self, place: int) -> StreamPath:
        """The same path, of which one MLP is read neuron by neuron."""
        mlp = self.steps[place]
        assert isinstance(mlp, Written)
        steps = list(self.steps)
        steps[place] = Neurons(index=mlp.index, name=mlp.name, row=mlp.row)
        return replace(self, steps=tuple(steps))

    @property
    def heads(self) -> list[tuple[int, int]]:
        """All heads in the order of units: the block, and the head in it, from 0."""
        return [
            (block, head)
            for block, call in enumerate(self.calls)
            for head in range(call.heads)
        ]

    @property
    def units_by_call(self) -> dict[int, slice]:
        """The units that the heads of every attention call are, by the call's index."""
        slices = slices_of(call.heads for call in self.calls)
        return {
            call.index: units
            for call, units in zip(self.calls, slices, strict=True)
        }

    def run(
        self,
        module: nn.Module,
        x: Tensor,
        change: Change | None = None,
        *,
        with_outputs: bool = False,
    ) -> StreamPass:
        """One forward pass, read; some heads may be changed in it.

        Raises HeadError where the network takes another path than the traced one.
        """
        wanted = self._calls_by_key if with_outputs else {}
        tap = _StreamTap(self.steps, self._changed(change), wanted)
        logits = self._logits(module, x, tap)
        read = [tap.read.get(place) for place in range(len(self.steps))]
        return StreamPass(logits, read, self._outputs_of(tap))

    def logits_with(
        self, module: nn.Module, x: Tensor, change: Change
    ) -> Float[Tensor, "photo class"]:
        """The logits of a real pass in which some heads are changed."""
        return self._logits(module, x, _StreamTap((), self._changed(change)))

    def outputs(
        self, module: nn.Module, x: Tensor
    ) -> tuple[Float[Tensor, "photo _ _ _"], ...]:
        """What all tokens take from the heads of every block: (photo, head, token, unit)."""
        tap = _StreamTap((), {}, self._calls_by_key)
        self._logits(module, x, tap)
        return self._outputs_of(tap)

    @property
    def _calls_by_key(self) -> dict[_Key, AttentionCall]:
        return {(call.index, call.name): call for call in self.calls}

    def _outputs_of(self, tap: _StreamTap) -> tuple[Tensor, ...]:
        found = tap.outputs
        return tuple(
            found[call.index] for call in self.calls if call.index in found
        )

    def _logits(
        self, module: nn.Module, x: Tensor, tap: _StreamTap
    ) -> Float[Tensor, "photo class"]:
        x = x.clone()  # some networks normalise their input in place
        logits = self.ending.logits(lambda: module(x), len(x), tap)
        if not tap.met_all():
            raise another_path()
        return logits

    def sums(
        self, read: Sequence[Any], classes: Sequence[int] | None = None
    ) -> Sums:
        """The parts of the logits of a pass; of some classes where they are given."""
        read = list(read)
        layers = [] if classes is None else self._layers_of_classes()
        for place in layers:
            read[place] = read[place].of(classes)
        results: list[Sums] = []
        for step, own in zip(self.steps, read, strict=True):
            before = [results[place] for place in step.before]
            results.append(step.of_sums(before, own))
        if classes is None or layers:
            return results[-1]
        return results[-1].mapped(lambda vectors: vectors[..., list(classes)])

    def _layers_of_classes(self) -> list[int]:
        """The places of the linear layers that make the logits, or add up to them.

        None where anything else follows them, or they are read elsewhere, too.
        """
        walked = [len(self.steps) - 1]
        for place in walked:
            if isinstance(self.steps[place], Added):
                walked += self.steps[place].before
        layers = {
            place
            for place in walked
            if not isinstance(self.steps[place], Added)
        }
        read_elsewhere = any(
            before in walked
            for place, step in enumerate(self.steps)
            if place in layers or place not in walked
            for before in step.before
        )
        are_linear = all(
            isinstance(self.steps[place], Linear) for place in layers
        )
        return sorted(layers) if are_linear and not read_elsewhere else []

    def logits(self, read: Sequence[Any]) -> Variants:
        """The logits of whole vectors: of attention, what the heads gave is read."""
        results: list[Tensor] = []
        for step, own in zip(self.steps, read, strict=True):
            before = [results[place] for place in step.before]
            results.append(step.of_vectors(before, own))
        return results[-1]

    def _changed(self, change: Change | None) -> dict[_Key, _OfCall]:
        """The change of every call, where there is one."""
        changed: dict[_Key, _OfCall] = {}
        if change is None:
            return changed
        units = self.units_by_call
        for block, call in enumerate(self.calls):
            keep = change.keep[:, units[call.index]]
            if not bool((keep == 1).all()):
                by = None if change.by is None else change.by[block]
                changed[(call.index, call.name)] = _OfCall(call, keep, by)
        return changed


class _OfCall(NamedTuple):
    """What changes in one attention call: see Change."""

    call: AttentionCall
    keep: Float[Tensor, "photo head"]
    by: Float[Tensor, "photo2 head token unit"] | None

    def result(self, result: Any, arguments: Arguments) -> Any:
        """The changed result of the call."""
        tensor = first_tensor(result)
        assert tensor is not None
        outputs = self.call.outputs(tensor, arguments)
        keep = self.keep.to(outputs)[:, :, None, None]
        changed = outputs * keep
        if self.by is not None:
            check_fits(self.by, outputs)
            changed = changed + self.by.to(outputs) * (1 - keep)
        made = self.call.result_of(changed, tensor, arguments)
        return with_tensor(result, tensor, made)


class _StreamTap(CallCounter):
    """Reads the steps of a stream in a pass, and changes heads in it.

    Of the calls `wanted` it keeps what all tokens take from the heads.
    """

    def __init__(
        self,
        steps: Sequence[StreamStep],
        changed: Mapping[_Key, _OfCall],
        wanted: Mapping[_Key, AttentionCall] | None = None,
    ) -> None:
        super().__init__()
        self.read: dict[int, Any] = {}
        self.outputs: dict[int, Tensor] = {}
        self._by_call: dict[_Key, list[tuple[int, StreamStep]]]
        self._by_call = defaultdict(list)
        for place, step in enumerate(steps):
            if step.index >= 0:
                self._by_call[(step.index, step.name)].append((place, step))
        self._changed = changed
        self._wanted = wanted or {}
        self._unmet = {*self._by_call, *changed, *self._wanted}
        self._arguments: Arguments | None = None

    def met_all(self) -> bool:
        """Whether all of the calls were met."""
        return not self._unmet

    def meet(
        self,
        index: int,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> tuple[Any, ...]:
        """See CallCounter."""
        self._arguments = None
        key = (index, name)
        if key not in self._unmet:
            return args
        self._arguments = Arguments(args, kwargs)
        with torch.no_grad(), uncounted(), _plainly(args):
            for place, step in self._by_call.get(key, ()):
                read = step.meet(self._arguments)
                if isinstance(read, Attended) and key in self._changed:
                    read = read.scaled(self._changed[key].keep)
                self._take(place, read)
        return args

    def made(self, index: int, name: str, result: Any) -> Any:
        """See CallCounter."""
        if self._arguments is not None:
            result = self._met(self._arguments, (index, name), result)
            self._arguments = None
        return super().made(index, name, result)

    def _met(self, arguments: Arguments, key: _Key, result: Any) -> Any:
        with torch.no_grad(), uncounted(), _plainly(result):
            if key in self._changed:
                result = self._changed[key].result(result, arguments)
            if key in self._wanted:
                tensor = first_tensor(result)
                assert tensor is not None
                outputs = self._wanted[key].outputs(tensor, arguments)
                self.outputs[key[0]] = outputs.to(torch.float32).clone()
            for place, step in self._by_call.get(key, ()):
                self._take(place, step.made(result))
        self._unmet.discard(key)
        return result

    def _take(self, place: int, read: Any) -> None:
        if read is not None:
            self.read[place] = read


def _plainly(values: Any) -> AbstractContextManager[Any]:
    """A context in which a caller's autocast does not round."""
    tensor = first_tensor(values)
    return without_autocast(torch.empty(0) if tensor is None else tensor)


def check_fits(by: Tensor, own: Tensor) -> None:
    """Raise InputError where a replacement has other heads, tokens or widths."""
    theirs, ours = tuple(by.shape[1:]), tuple(own.shape[1:])
    if theirs != ours:
        raise other_network(
            "×".join(map(str, theirs)), "×".join(map(str, ours)), "numbers"
        )


def other_network(theirs: object, ours: object, what: str) -> InputError:
    """The error for a replacement from another network, or from inputs of another size."""
    return InputError(
        "heads cannot be replaced by those of another network, or of inputs of another "
        f"size: these have {theirs} {what}, those of this network {ours}; give what the "
        "same network did"
    )
