"""Prepared: a network made ready to run again and again: normalisations folded, filters packed, functions fused."""

from __future__ import annotations

import contextlib
import math
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unitscope.graphs import Graph
from unitscope.guards import Guard, UnsteadyError, Witness
from unitscope.head import HeadPath, Passed, run_tapped
from unitscope.readout import is_finite, relative_difference
from unitscope.replay import NotReplayableError, Recording, Replay
from unitscope.trace import ASKERS, Call, Tap, logits_of, trace

# Relative to the largest logit, and to the largest activation of the map: what preparing may change in float32.
ALLOWED = 1e-5

# What bfloat16, with its eight digits, may do to a sound network.
ROUNDED = 0.05

# Photos go through together while the largest map of them stays below this, so that it need not leave the cache, nor
# the allocator ask the system for fresh memory.
_CHUNK_BYTES = 16 << 20

# In which pass with so many photos together it is written down: one of a kind need not pay for that.
_RECORDED = 2

# In which pass it is compiled, which takes the time of some ten passes.
_COMPILED = 8

# For some functions the compiler has slow code only: no graph is used that takes so many times what the replay takes.
# Far from 1, so that the same network always fares the same.
_SLOWER = 1.5

# Of filters with so few channels, or so few filters, all are looked at to see whether they have changed.
_THIN = 4

# Functions that the library behind convolutions on the processor computes together with them, and its names for them.
_ACTIVATIONS = {"relu": "relu", "relu_": "relu", "silu": "swish", "hardswish": "hardswish"}
# Torch's own functions, by these names.
_SPELLED: dict[str, Callable[..., Tensor]] = {
    "relu": F.relu,
    "swish": F.silu,
    "hardswish": F.hardswish,
    "hardtanh": F.hardtanh,
}
_IN_PLACE_SUMS = frozenset({"add_", "__iadd__"})
_SUMS = _IN_PLACE_SUMS | {"add", "__add__"}

# Where units are last in memory, torch's variances of groups lose all digits on photos of little contrast.
_ROWS_LAST = frozenset({"group_norm"})


class StaleError(Exception):
    """The network is no longer the one that was prepared."""


@dataclass(frozen=True, eq=False)
class _Chain:
    """A convolution and the calls that follow it with no other reader."""

    convolution: Call
    norm: Call | None = None
    sum: Call | None = None
    other: Call | None = None
    activation: Call | None = None

    @property
    def writes_into_other(self) -> bool:
        """Whether the sum is written into the summand that the convolution did not make."""
        return self.sum is not None and self.sum.name in _IN_PLACE_SUMS and self.sum.inputs[0] is self.other

    def tensors(self) -> tuple[Tensor, ...]:
        """The network's numbers in it."""
        given = (*_given(self.convolution), *(_given(self.norm) if self.norm else ()))
        return tuple(one for one in given if isinstance(one, Tensor))


@dataclass(frozen=True, eq=False)
class _Fused:
    """One call that computes a chain: `name` is the convolution's, `given` what it is called with behind the map.

    The sum is written `into` the other summand where the network's own code does so.

    `norm` are mean, variance, scale and shift of the normalisation that is folded in. `packs` holds the filters in the
    order in which the processor reads them, which depends on how many photos go through together.
    """

    name: str
    given: tuple[Any, ...]
    norm: tuple[Tensor | None, ...]
    eps: float
    weight: Tensor
    bias: Tensor
    shape: tuple[list[int], list[int], list[int], int]
    input_shape: tuple[int, ...]
    activation: str
    scalars: list[float]
    other: int | None
    into: bool
    packs: dict[int, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, chain: _Chain, dtype: torch.dtype) -> _Fused:
        """The call that computes a chain in a dtype."""
        call, norm = chain.convolution, chain.norm
        stride, padding, dilation = (
            _pair(call.argument(place, name, default))
            for place, name, default in ((3, "stride", 1), (4, "padding", 0), (5, "dilation", 1))
        )
        activation, scalars = _activation(chain.activation)
        numbers = () if norm is None else tuple(norm.argument(place, name) for place, name in _NORM)
        eps = 0.0 if norm is None else float(norm.argument(7, "eps", 1e-5))
        bias, weight = call.argument(2, "bias"), call.argument(1, "weight")
        offset = torch.zeros(len(weight), dtype=torch.float64) if bias is None else bias.detach().to(torch.float64)
        if numbers:
            mean, _, _, shift = numbers
            offset = (offset - mean) * _scale(numbers, eps) + (0.0 if shift is None else shift.detach())
        return cls(
            call.name,
            _given(call),
            numbers,
            eps,
            weight,
            offset.to(dtype),
            (padding, stride, dilation, int(call.argument(6, "groups", 1))),
            call.inputs[0].shape[1:],
            activation,
            scalars,
            chain.other.index if chain.other else None,
            chain.writes_into_other,
        )

    def __call__(self, x: Tensor, other: Tensor | None) -> Tensor:
        photos = x.shape[0]
        filters = self.packs.get(photos)
        if filters is None:
            filters = self.packs[photos] = self._packed(photos)
        x = x if x.dtype == self.bias.dtype else x.to(self.bias.dtype)
        run: Any = torch.ops.mkldnn._convolution_pointwise
        if other is None:
            made: Tensor = run.default(x, filters, self.bias, *self.shape, self.activation, self.scalars, "")
            return made
        after = ("add", 1.0, None if self.activation == "none" else self.activation, self.scalars, "")
        if self.into:
            run = torch.ops.mkldnn._convolution_pointwise_
            made = run.binary(other, x, filters, self.bias, *self.shape, *after)
        else:
            made = run.binary(x, other, filters, self.bias, *self.shape, *after)
        return made

    def spelled(self) -> Callable[[Tensor, Tensor | None], Tensor]:
        """The same in torch's own functions, with the normalisation folded in."""
        filters, (padding, stride, dilation, groups) = self._filters(), self.shape

        def run(x: Tensor, other: Tensor | None) -> Tensor:
            x = x if x.dtype == filters.dtype else x.to(filters.dtype)
            made = torch.conv2d(x, filters, self.bias, stride, padding, dilation, groups)
            made = made if other is None else made + other
            return made if self.activation == "none" else _SPELLED[self.activation](made, *self.scalars)

        return run

    def _packed(self, photos: int) -> Tensor:
        pack: Any = torch.ops.mkldnn._reorder_convolution_weight
        packed: Tensor = pack(self._filters(), *self.shape, [photos, *self.input_shape])
        return packed

    def _filters(self) -> Tensor:
        filters = self.weight.detach().to(torch.float64)
        if self.norm:
            filters = filters * _scale(self.norm, self.eps)[:, None, None, None]
        return filters.to(self.bias.dtype)


@dataclass(frozen=True, eq=False)
class _Checked:
    """A fused call that raises StaleError where numbers come in that are not finite.

    The library's rectifiers make numbers of NaN: where one could come from, the plain pass shall meet it.
    """

    fused: _Fused

    def __call__(self, x: Tensor, other: Tensor | None) -> Tensor:
        if not is_finite(x):
            raise StaleError
        return self.fused(x, other)

    def spelled(self) -> Callable[[Tensor, Tensor | None], Tensor]:
        """The fused call's; what comes in is looked at elsewhere."""
        return self.fused.spelled()


def _scale(norm: tuple[Tensor | None, ...], eps: float) -> Tensor:
    """γ/σ of a batch normalisation."""
    _, variance, gamma, _ = norm
    assert variance is not None
    inverse = (variance.detach().to(torch.float64) + eps).rsqrt()
    return inverse if gamma is None else inverse * gamma.detach()


@dataclass(frozen=True, eq=False)
class _Needless:
    """A call whose result the fused one of its `chain` has computed: it gives back what it is given at `position`.

    `given` is what else it is given: None for a sum, whose other summand must be the one that was fused.
    """

    name: str
    given: tuple[Any, ...] | None
    position: int
    chain: int

    @property
    def in_place(self) -> bool:
        """Whether what it gives is the very tensor that it was given."""
        named = self.name == "__iadd__" or (self.name.endswith("_") and not self.name.endswith("__"))
        return named or any(one is True for one in self.given or ())


class Prepared:
    """What to run in place of some calls of a network's forward pass, for inputs of one shape on the processor.

    Convolutions run with packed filters, with the batch normalisation that follows folded in (W·γ/σ and
    β + (b − μ)·γ/σ; Jacob et al., CVPR 2018, eq. 14), and with the sum and the activation after it computed on the way;
    maps have their units last in memory. The module is not touched: its own code runs, and its calls are watched. Fused
    is only what no other call reads, and only where the weights are the module's own.

    A pass of libraries' own code is written down the second time it is run with as many photos, and replayed from then
    on, without the code, for as long as its guard holds (see `Guard`). A replay is compiled the eighth time, where that
    can be and pays (see `Graph`).

    `error` is the largest difference from a plain pass, relative to the largest logit and the largest activation, that
    was found when it was tried, on `tried` photos.
    """

    def __init__(self, module: nn.Module, example: Tensor, path: HeadPath, dtype: torch.dtype = torch.float32) -> None:
        self._path, self._dtype = path, dtype
        self._fused: dict[int, _Fused] = {}
        self._needless: dict[int, _Needless] = {}
        self._numbers: list[Tensor] = []
        self._kept: list[weakref.ref[Tensor]] = []
        # By the number of photos that go through together: how often they did, and how they are replayed.
        self._passes: dict[int, int] = {}
        self._replays: dict[int, tuple[Guard, Replay | Graph]] = {}
        # In which pass with as many photos together a replay is compiled, and of how many photos it was tried.
        self.compiled_in: float = _COMPILED
        self._tried: set[int] = set()
        self.error, self._error, self.tried = math.nan, math.nan, len(example)
        traced = trace(module, example[:1])
        largest = max((math.prod(call.shape) for call in traced.calls if call.inputs), default=1)
        self.chunk = 1
        while 8 * largest * self.chunk <= _CHUNK_BYTES:
            self.chunk *= 2
        own = {id(tensor) for tensor in (*module.parameters(), *module.buffers())}
        for found in _chains(traced.calls, traced.output, path):
            # A tensor of somebody's own class may compute otherwise.
            if all(id(tensor) in own and type(tensor) in (Tensor, nn.Parameter) for tensor in found.tensors()):
                self._fuse(found)
        given = chain(
            *(fused.given for fused in self._fused.values()),
            *(needless.given or () for needless in self._needless.values()),
        )
        self._watched: dict[int, Tensor] = {}
        self._watch(one for one in given if isinstance(one, Tensor))

    @property
    def convolutions(self) -> int:
        """How many convolutions are packed."""
        return len(self._fused)

    def run(self, module: nn.Module, x: Tensor) -> Passed:
        """One forward pass of the module, prepared.

        Raises StaleError where the network has changed since.
        """
        if torch._C._len_torch_function_stack():  # somebody else watches the calls, and shall see all of them
            raise StaleError
        versions, sample = self._fingerprint()
        if versions != self._versions or not torch.equal(sample, self._sample):
            raise StaleError
        parts: list[tuple[Tensor, Tensor, Tap]] = []
        reduced = self._dtype is not torch.float32
        with torch.autocast("cpu", dtype=self._dtype if reduced else None, enabled=reduced):
            laid = x.to(self._dtype).contiguous(memory_format=torch.channels_last)
            for part in torch.split(laid, _parts(len(x), self.chunk)):
                parts.append(self._passed(module, part))
        logits, maps, taps = zip(*parts, strict=True)
        feature_map = _joined(maps)
        readout = self._path.readout(taps[-1], feature_map)
        # The network would round its logits once more.
        all_logits = readout.logits(feature_map.mean(dim=(2, 3))) if reduced else _joined(logits)
        layers = zip(*map(self._path.layer_maps, taps), strict=True)
        return Passed(all_logits, feature_map, readout, tuple(map(_joined, layers)))

    def _passed(self, module: nn.Module, part: Tensor) -> tuple[Tensor, Tensor, Tap]:
        """Logits, feature map and what was tapped of photos that go through together."""
        photos = len(part)
        guard, replay = self._replays.get(photos, (None, None))
        if guard is not None and replay is not None:
            # What has changed may also lead other tensors into what is fused.
            if not guard.holds():
                raise StaleError
            self._kept = []
            try:
                found = self._replayed(replay, part)
            except NotReplayableError:
                raise StaleError from None
            self._passes[photos] += 1
            due = self._passes[photos] >= self.compiled_in and photos not in self._tried
            if due and isinstance(replay, Replay):
                self._tried.add(photos)
                self._compile(guard, replay, part, found)
            return found
        if _is_hooked(module):
            raise StaleError
        if sys.getprofile() is None:  # else nobody can see which code runs
            self._passes[photos] = self._passes.get(photos, 0) + 1
            if self._passes[photos] == _RECORDED:
                recorded = self._recorded(module, part)
                if recorded is not None:
                    return recorded
        return self._coded(module, part.clone())[1]

    def _coded(
        self, run: Callable[[Tensor], Any], x: Tensor, recording: Recording | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor, Tap]]:
        """The network's own logits, and logits, feature map and what was tapped, of a pass of its code."""
        one, photos = _Pass(self._fused, self._needless, recording), len(x)
        with self._path.tap(one) as tap:
            logits = logits_of(run(x), photos)
        # What was written down holds on to some for a while.
        self._kept = one.kept if recording is None else []
        return logits, self._path.mapped(tap, logits, photos)

    def _replayed(self, replay: Replay | Graph, part: Tensor) -> tuple[Tensor, Tensor, Tap]:
        tap = self._path.tap()
        return self._path.mapped(tap, logits_of(replay(part.clone(), tap), len(part)), len(part))

    def _recorded(self, module: nn.Module, part: Tensor) -> tuple[Tensor, Tensor, Tap] | None:
        """A pass that is written down, to be replayed if that gives the very same; None where the network cannot be."""
        try:
            guard = Guard(module)
        except UnsteadyError:
            return None
        witness, x = Witness(), part.clone()
        recording = Recording(x, guard.tensors(), self._path.results())
        logits, found = self._coded(lambda given: witness.call(module, given), x, recording)
        with contextlib.suppress(Exception):  # it cannot be watched or written down, or is not what it was written from
            replay = recording.ended(logits)
            if witness.why is None and guard.holds():
                pairs = zip(self._numbers_of(found), self._numbers_of(self._replayed(replay, part)), strict=True)
                if all(torch.equal(*pair) for pair in pairs):
                    self._replays[len(part)] = guard, replay
        return found

    def _compile(self, guard: Guard, replay: Replay, part: Tensor, found: tuple[Tensor, Tensor, Tap]) -> None:
        """Compile a replay that `found` such numbers for a part, and run that in its place where it finds the same."""
        with contextlib.suppress(Exception):  # where it cannot be compiled it stays as it is
            graph = Graph(replay, part.clone(memory_format=torch.channels_last), self._path)
            off = _difference(self._numbers_of(self._replayed(graph, part)), self._numbers_of(found))
            # One of three must be soon enough, as other work may come between.
            pays = any(self._time(graph, part) <= _SLOWER * self._time(replay, part) for _ in range(3))
            if pays and self._error + off <= self._allowed:
                self._watch(graph.constants)
                self._replays[len(part)], self.error = (guard, graph), max(self.error, self._error + off)
                for fused in self._fused.values():
                    fused.packs.pop(len(part), None)

    def _time(self, replay: Replay | Graph, part: Tensor) -> float:
        begun = perf_counter()
        self._replayed(replay, part)
        return perf_counter() - begun

    def _numbers_of(self, passed: tuple[Tensor, Tensor, Tap]) -> tuple[Tensor, ...]:
        return (*passed[:2], *self._path.layer_maps(passed[2]))

    def is_kept(self) -> bool:
        """Whether somebody still holds, after a pass, what a fused call gave: it is not what that call is named for."""
        return any(reference() is not None for reference in self._kept)

    def agrees(self, plain: Passed, found: Passed) -> bool:
        """Whether a prepared pass gives what the plain one gave; notes in `error` how far it is off."""
        numbers, others = ((one.logits, one.feature_map, *one.layers) for one in (found, plain))
        self.error = self._error = _difference(numbers, others)
        return self.error <= self._allowed

    @property
    def _allowed(self) -> float:
        return ALLOWED if self._dtype is torch.float32 else ROUNDED

    def _fuse(self, chain: _Chain) -> None:
        index = chain.convolution.index
        self._fused[index] = _Fused.of(chain, self._dtype)
        if chain.norm is not None:
            self._needless[chain.norm.index] = _Needless(chain.norm.name, _given(chain.norm), 0, index)
        if chain.sum is not None:
            position = 1 if chain.sum.inputs[0] is chain.other else 0
            self._needless[chain.sum.index] = _Needless(chain.sum.name, None, position, index)
        if chain.activation is not None:
            given = _given(chain.activation)
            self._needless[chain.activation.index] = _Needless(chain.activation.name, given, 0, index)

    def _watch(self, tensors: Iterable[Tensor]) -> None:
        """Watch tensors of the network from now on."""
        # Versions tell of every write but those of batch normalisations in training and those through `.data` or numpy;
        # of these a number of every filter and of every input channel does, and all of every vector. Views, so that
        # they show what the network holds.
        new = {id(one): one for one in tensors if id(one) not in self._watched}
        self._watched |= new
        self._numbers += chain.from_iterable(_sample(one.detach()) for one in new.values())
        self._versions, self._sample = self._fingerprint()

    def _fingerprint(self) -> tuple[list[tuple[int, int]], Tensor]:
        versions = [(tensor.data_ptr(), tensor._version) for tensor in self._watched.values()]
        return versions, torch.cat(self._numbers) if self._numbers else torch.zeros(0)


def prepare(
    module: nn.Module,
    x: Tensor,
    path: HeadPath,
    plain: Passed,
    dtype: torch.dtype = torch.float32,
) -> Prepared | None:
    """The network prepared for inputs like `x`, tried on it against the `plain` pass; None where that cannot be.

    It cannot where the network is not float32 on the processor, where somebody's hooks would see fused results, where
    its own code does not take maps with their units last, and where the numbers are not those of the plain pass, to
    `ALLOWED` (in bfloat16 to `ROUNDED`).
    """
    usable = torch._C._get_mkldnn_enabled() and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if _is_hooked(module) or not usable or x.device.type != "cpu" or x.dtype is not torch.float32:
        return None
    try:
        prepared = Prepared(module, x, path, dtype)
        agrees = prepared.convolutions > 0 and prepared.agrees(plain, prepared.run(module, x))
        agrees = agrees and not prepared.is_kept()
        if agrees and len(x) > 1:  # photos go through in other company than the user's
            for place in (0, len(x) - 1):
                alone = run_tapped(module, x[place : place + 1], path).logits
                apart = float(relative_difference(alone, plain.logits[place : place + 1]).max())
                agrees = agrees and apart <= 10 * ALLOWED
    except Exception:  # it is the user's code, which ran without complaint as it was
        return None
    return prepared if agrees else None


class _Pass:
    """Runs the calls of one prepared forward pass, and sees to it that tensors go the way they went when it was tried.

    What a convolution gives is already what the calls behind it will give, so that nobody else may read it before
    them. `kept` are weak references to what was fused, by which to see whether somebody keeps it. The `recording` is
    told of every call that was made.
    """

    def __init__(
        self, fused: Mapping[int, _Fused], needless: Mapping[int, _Needless], recording: Recording | None = None
    ) -> None:
        self._fused, self._needless, self._recording = fused, needless, recording
        self._wanted = {one.other for one in fused.values()} - {None}
        # The last call of every chain: what it gives anybody may read.
        self._last = {one.chain: index for index, one in sorted(needless.items())}
        self._results: dict[int, Tensor] = {}
        # Of every chain what it gave, and the summand in it with its version.
        self._made: dict[int, tuple[weakref.ref[Tensor], Tensor | None, int]] = {}
        self._pending: dict[int, weakref.ref[Tensor]] = {}
        self._final: dict[int, weakref.ref[Tensor]] = {}
        self.kept: list[weakref.ref[Tensor]] = []

    def __call__(self, index: int, name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        fused, needless = self._fused.get(index), self._needless.get(index)
        if needless is not None:
            result = self._given_back(index, needless, name, args, kwargs)
            if self._recording is not None:
                self._recording.same(index, name, result, args[needless.position])
        else:
            if self._pending and name not in ASKERS and self._reads_pending((*args, *kwargs.values())):
                raise StaleError
            if fused is not None:
                result = self._computed(index, fused, name, args, kwargs)
            else:
                func = _rows_last(func) if name in _ROWS_LAST else func
                result = func(*args, **kwargs)
                if self._recording is not None:
                    self._recording.call(index, name, func, args, kwargs, result)
        if index in self._wanted:
            self._results[index] = result
        return result

    def _computed(self, index: int, fused: _Fused, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        if name != fused.name or not _same((*args[1:], *kwargs.values()), fused.given):
            raise StaleError
        other = None if fused.other is None else self._results[fused.other]
        if fused.into and (other is None or not _is(self._final.pop(id(other), None), other)):
            raise StaleError
        run = fused if _is(self._final.get(id(args[0])), args[0]) else _Checked(fused)
        result = run(args[0], other)
        if self._recording is not None:
            self._recording.call(index, name, run, (args[0], other), {}, result)
        if other is not None and fused.into:
            self._pending[id(other)] = weakref.ref(other)  # it holds the sum already
            result = other.detach()
            if self._recording is not None:
                self._recording.same(index, name, result, other)
        reference = weakref.ref(result)
        self._made[index] = (reference, other, 0 if other is None else other._version)
        (self._pending if index in self._last else self._final)[id(result)] = reference
        self.kept.append(reference)
        return result

    def _given_back(
        self, index: int, call: _Needless, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor:
        """What the chain gave, where the call is given that very tensor, and whatever else it was given before."""
        reference, other, version = self._made[call.chain]
        if name != call.name or len(args) <= call.position or not _is(reference, args[call.position]):
            raise StaleError
        made: Tensor = args[call.position]
        if call.given is not None:
            same = _same((*args[1:], *kwargs.values()), call.given)
        else:
            same = len(args) == 2 and not kwargs and args[1 - call.position] is other
            # Nor may anybody have written into the summand since it was added.
            same = same and other is not None and other._version == version
        if not same:
            raise StaleError
        self._pending.pop(id(made), None)
        if not call.in_place or call.position > 0:
            self._pending[id(made)] = reference  # it still stands for what came before this call
            # The summand that the sum was written into, or a tensor of its own.
            made = args[0] if call.in_place else made.detach()
            reference = weakref.ref(made)
            self._made[call.chain] = (reference, other, version)
            self._pending.pop(id(made), None)
            self.kept.append(reference)
        (self._final if self._last[call.chain] == index else self._pending)[id(made)] = reference
        return made

    def _reads_pending(self, given: Sequence[Any]) -> bool:
        for one in given:
            if isinstance(one, Tensor):
                if _is(self._pending.get(id(one)), one):
                    return True
            elif isinstance(one, (tuple, list)) and self._reads_pending(one):
                return True
        return False


def _rows_last(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that is given its tensors with their columns last in memory, as the plain network gives them."""

    def run(*args: Any, **kwargs: Any) -> Any:
        given = [one.contiguous() if isinstance(one, Tensor) else one for one in args]
        return function(
            *given, **{key: one.contiguous() if isinstance(one, Tensor) else one for key, one in kwargs.items()}
        )

    return run


def _is(reference: weakref.ref[Tensor] | None, one: Tensor) -> bool:
    return reference is not None and reference() is one


def _sample(numbers: Tensor) -> list[Tensor]:
    """Views that hold a number of every filter and of every input channel, or all numbers of a vector."""
    if numbers.ndim < 2 or not numbers.numel():
        return [numbers.flatten()]
    plane = numbers
    while plane.ndim > 2:
        plane = plane.select(-1, -1)
    filters, channels = plane.shape
    if min(filters, channels) <= _THIN:
        return list(plane.unbind(int(channels < filters)))
    # Diagonals, as few as there can be: every number comes from another part of memory.
    if filters >= channels:
        return [plane[begin : begin + channels].diagonal() for begin in range(0, filters, channels)]
    return [plane[:, begin : begin + filters].diagonal() for begin in range(0, channels, filters)]


def _difference(numbers: Sequence[Tensor], others: Sequence[Tensor]) -> float:
    """The largest difference of tensors from others, photo by photo, relative to the largest of these."""
    pairs = zip(numbers, others, strict=True)
    return max(float(relative_difference(one.flatten(1), other.flatten(1)).max()) for one, other in pairs)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _parts(photos: int, chunk: int) -> list[int]:
    """How many photos go through together, one part after the other: powers of two, so that few packs are needed."""
    parts = [chunk] * (photos // chunk)
    return parts + [1 << place for place in reversed(range(chunk.bit_length())) if photos % chunk >> place & 1]


_NORM = ((1, "running_mean"), (2, "running_var"), (3, "weight"), (4, "bias"))


def _chains(calls: Sequence[Call], output: Call | None, path: HeadPath) -> Iterator[_Chain]:
    """The convolutions of a pass, each with what can be computed together with it."""
    tapped, ends = path.calls(), path.results()
    readers: dict[int, list[Call]] = {}
    for call in calls:
        for before in call.inputs:
            readers.setdefault(id(before), []).append(call)

    def only_reader(call: Call) -> Call | None:
        found = readers.get(id(call), [])
        lone = len(found) == 1 and call is not output and found[0].index > 0 and found[0].index not in tapped
        return found[0] if lone and call.index not in ends else None  # what is kept must be what it is named for

    ends_of_chains: set[int] = set()
    for call in calls:
        if call.index in tapped or not _can_be_packed(call):
            continue
        made = _Chain(call)
        last, reader = call, only_reader(call)
        if reader is not None and _can_be_folded(reader, last):
            made, last, reader = replace(made, norm=reader), reader, only_reader(reader)
        other = None if reader is None else _other_of_sum(reader, last)
        if reader is not None and other is not None and 0 < other.index < call.index:
            summed = replace(made, sum=reader, other=other)
            # What is written into before its time must be ours alone.
            if not summed.writes_into_other or (id(other) in ends_of_chains and only_reader(other) is reader):
                made, last, reader = summed, reader, only_reader(reader)
        if reader is not None and reader.inputs == (last,) and _activation(reader)[0] != "none":
            # Behind a sum the library knows no other.
            if made.sum is None or _activation(reader)[0] == "relu":
                made, last = replace(made, activation=reader), reader
        ends_of_chains.add(id(last))
        yield made


def _can_be_packed(call: Call) -> bool:
    weight = call.argument(1, "weight")
    if call.name != "conv2d" or len(call.args) < 2 or len(call.inputs[0].shape) != 4:
        return False
    return weight.dtype is torch.float32 and not isinstance(call.argument(4, "padding", 0), str)


def _can_be_folded(call: Call, convolution: Call) -> bool:
    if (
        call.name != "batch_norm"
        or not call.args
        or call.inputs[0] is not convolution
        or call.argument(5, "training", False)
    ):
        return False
    return call.argument(1, "running_mean") is not None and call.argument(2, "running_var") is not None


def _other_of_sum(call: Call, last: Call) -> Call | None:
    """The other summand of a plain sum of two tensors of one shape."""
    if call.name not in _SUMS or len(call.inputs) != 2 or call.kwargs or len(call.args) != 2:
        return None
    one, other = call.inputs
    other = other if one is last else one
    return other if other is not last and other.shape == last.shape == call.shape else None


def _activation(call: Call | None) -> tuple[str, list[float]]:
    """The name that the processor's convolutions know a function by, and its numbers; "none" for any other."""
    if call is None:
        return "none", []
    if call.name == "relu6":
        return "hardtanh", [0.0, 6.0]
    if call.name == "hardtanh":
        return "hardtanh", [float(call.argument(1, "min_val", -1.0)), float(call.argument(2, "max_val", 1.0))]
    return _ACTIVATIONS.get(call.name, "none"), []


def _given(call: Call) -> tuple[Any, ...]:
    """What a call was given behind its first argument."""
    return (*call.args[1:], *call.kwargs.values())


def _same(found: tuple[Any, ...], expected: tuple[Any, ...] | None) -> bool:
    """Whether a call is given the same tensors and equal numbers; None expects anything."""
    if expected is None:
        return True
    return len(found) == len(expected) and all(
        one is other or (not isinstance(one, Tensor) and not isinstance(other, Tensor) and one == other)
        for one, other in zip(found, expected, strict=True)
    )


def _is_hooked(module: nn.Module) -> bool:
    everywhere = torch.nn.modules.module
    if everywhere._global_forward_hooks or everywhere._global_forward_pre_hooks:
        return True
    return any(one._forward_hooks or one._forward_pre_hooks for one in module.modules())


def _pair(value: Any) -> list[int]:
    return [int(side) for side in value] if isinstance(value, (tuple, list)) else [int(value)] * 2
