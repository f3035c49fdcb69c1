"""Local: the rest of a network after one layer, run and differentiated on its own, for answers that are not exact."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from unitscope.attribution.head import probes
from unitscope.attribution.readout import relative_difference
from unitscope.errors import HeadError, LayerError, ModelError, UnitscopeError, one_line
from unitscope.geometry import Grid
from unitscope.tracing.calls import Call
from unitscope.tracing.layers import Layer, captured, evaluating, replacing
from unitscope.tracing.outputs import logits_of
from unitscope.tracing.trace import Trace

METHODS = ("hirescam", "gradcam")
"""How gradients become maps: cell by cell (HiResCAM), or averaged over the cells first (Grad-CAM)."""

# The share of |gradient|·|activation| below which gradient · activation is rounding and
# nothing else.
_SILENT = 1e-3

# Copies of a map that go through the rest of the network at a time.
_COPIES = 32


@dataclass(frozen=True, eq=False)
class LocalHead:
    """What stands in for an exact head: a layer, and the gradients of the logits with respect to its feature map.

    `reason` says why there is no exact head at this layer; `method` is "hirescam" or
    "gradcam". `error` is measured: the largest |logit − mean of its map|, over the
    first class of each of `probes` inputs, relative to the largest logit. `start` is
    the layer from which the rest of the network is run: this one where everything that
    the logits depend on passes through it, else the last such layer before it; None
    where the whole network must run. `silent` says that a normalisation reads every
    cell of the map by itself, so that gradient · activation is 0 in each of them
    whatever the photo (what does not change with a vector's length has a gradient at
    right angles to it).
    """

    layer: str
    method: str
    reason: str
    error: float
    probes: int
    grid: Grid = field(repr=False)
    map_shape: tuple[int, int, int]
    start: str | None
    silent: bool = False
    kind: str = "local"
    layer_is_map: bool = True

    @property
    def exact(self) -> bool:
        """Whether maps and contributions add up to the logits and ablation needs no forward pass: never, here."""
        return False

    def describe(self) -> str:
        """One line in words."""
        units, rows, cols = self.map_shape
        name = {"hirescam": "HiResCAM", "gradcam": "Grad-CAM"}[self.method]
        return f"local: gradient × activation ({name}) at '{self.layer}', feature map {units}×{rows}×{cols}"


@dataclass(frozen=True, eq=False)
class Suffix:
    """What remains of a network after one layer, for some photos: from the layer's feature map to the logits.

    The network itself is run, on a stand-in for the photos that has a shape and no
    numbers (torch's meta device), until the layer is reached; there the feature map is
    handed over, and from there on it computes. Where something bypasses the layer, the
    output that a layer before it had on these photos (`start`, `held`) is handed over
    first; where that cannot be, the whole network runs on the photos (`inputs`). What
    bypasses the layer stays as it was.

    `others` are the tokens that stand before those of the map, (batch, token, unit).
    """

    network: nn.Module = field(repr=False)
    layer: Layer
    input_shape: tuple[int, int, int]
    like: Tensor = field(repr=False)
    others: Tensor | None = field(repr=False, default=None)
    start: Layer | None = None
    held: Tensor | None = field(repr=False, default=None)
    inputs: Tensor | None = field(repr=False, default=None)

    def __getitem__(self, image: int) -> Suffix:
        """The rest of the network for one photo, as a batch of one."""
        return self._chosen(torch.tensor([image]))

    def _chosen(self, images: Tensor) -> Suffix:
        def rows(values: Tensor | None) -> Tensor | None:
            return None if values is None else values[images.to(values.device)]

        return dataclasses.replace(
            self,
            others=rows(self.others),
            held=rows(self.held),
            inputs=rows(self.inputs),
        )

    def joined(self, rest: Sequence[Suffix]) -> Suffix:
        """The rest of the network for these photos and those of others behind them."""

        def together(name: str) -> Tensor | None:
            values = [getattr(suffix, name) for suffix in (self, *rest)]
            return None if values[0] is None else torch.cat(values)

        return dataclasses.replace(
            self,
            others=together("others"),
            held=together("held"),
            inputs=together("inputs"),
        )

    def without(self, units: Sequence[int]) -> Suffix:
        """The same with units off in the tokens before the map as well."""
        if self.others is None:
            return self
        others = self.others.clone()
        others[..., list(units)] = 0
        return dataclasses.replace(self, others=others)

    def logits(
        self, feature_map: Float[Tensor, "batch unit row col"]
    ) -> Float[Tensor, "batch class"]:
        """A real forward pass of the rest of the network, for feature maps of these photos; float32."""
        with evaluating(self.network):
            return self._run(feature_map)

    def logits_without_each(
        self,
        feature_map: Float[Tensor, "unit row col"],
        logits: Float[Tensor, "class"],
        units: Sequence[int],
    ) -> Float[Tensor, "unit2 class"]:
        """The logits of one photo with each of `units` off in turn, by real forward passes, some at a time.

        A network that mixes what is in a batch gets one copy at a time.
        """
        at_once = 1 if self._mixes(feature_map, logits) else _COPIES
        chunks = [
            list(units[start : start + at_once])
            for start in range(0, len(units), at_once)
        ]
        return torch.cat([self._without_some(feature_map, chunk) for chunk in chunks])

    def _mixes(self, feature_map: Tensor, logits: Tensor) -> bool:
        """Whether a map's logits depend on what else is in the batch: tried on the map and a fainter copy of it."""
        faint = dataclasses.replace(
            self, others=None if self.others is None else self.others / 2
        )
        alone = faint.logits(feature_map[None] / 2)
        pair = self.joined([faint]).logits(torch.stack([feature_map, feature_map / 2]))
        difference = relative_difference(pair, torch.cat([logits[None], alone]))
        return float(difference.max()) > same_enough(self.like.dtype)

    def _without_some(self, feature_map: Tensor, units: Sequence[int]) -> Tensor:
        """One copy of a photo's map for each unit, with that unit off."""
        copies = self._chosen(torch.zeros(len(units), dtype=torch.long))
        maps = feature_map.expand(len(units), *feature_map.shape).clone()
        maps[range(len(units)), list(units)] = 0
        if copies.others is not None:
            others = copies.others.clone()
            others[range(len(units)), :, list(units)] = 0
            copies = dataclasses.replace(copies, others=others)
        return copies.logits(maps)

    def gradients(
        self,
        feature_map: Float[Tensor, "batch unit row col"],
        logits: Float[Tensor, "batch class"],
        classes: Sequence[int],
        take: Callable[[int, Tensor], None],
    ) -> None:
        """Call `take` with each class and ∂logit[c]/∂A (batch, unit, row, col).

        One forward pass of the rest for all classes, and one backward pass for each.
        """
        # Gradients flow whatever the user's contexts say; none reaches a parameter.
        with evaluating(self.network), torch.inference_mode(False), torch.enable_grad():
            leaf = feature_map.clone().requires_grad_()
            found = self._run(leaf)
            if not found.requires_grad:
                raise HeadError(
                    "the logits have no gradient with respect to layer "
                    f"'{self.layer.name}': the network computes "
                    "them outside autograd, and local answers need their gradients"
                )
            self._check_same(found, logits)
            for position, index in enumerate(classes):
                last = position == len(classes) - 1
                (gradient,) = torch.autograd.grad(
                    found[:, index].sum(),
                    leaf,
                    retain_graph=not last,
                    allow_unused=True,
                )
                take(
                    index,
                    torch.zeros_like(feature_map)
                    if gradient is None
                    else gradient.detach(),
                )

    def check_unchanged(self, feature_map: Tensor, logits: Tensor) -> None:
        """Raise ModelError where the rest of the network no longer gives the logits that were explained."""
        self._check_same(self.logits(feature_map), logits)

    def _check_same(self, found: Tensor, logits: Tensor) -> None:
        difference = float(relative_difference(found.detach(), logits).max())
        if not difference <= same_enough(self.like.dtype):
            raise ModelError(
                "the network no longer gives the logits that were explained (off by "
                f"{difference:.1e} of the largest): "
                "it has changed since, or gives another result each time; explain again"
            )

    def _run(self, feature_map: Tensor) -> Tensor:
        count = len(feature_map)
        axes = self.layer.axes
        assert axes is not None
        # A copy, since what follows may write into it.
        tensor = axes.laid_back(feature_map, self.others).clone()
        try:
            with contextlib.ExitStack() as stack:
                stack.enter_context(_kept_of_numbers(self.network))
                if self.inputs is not None:
                    x = (
                        self.inputs.clone()
                    )  # some networks normalise their input in place
                else:
                    x = torch.empty(
                        (count, *self.input_shape), device="meta", dtype=self.like.dtype
                    )
                    stack.enter_context(_Shapes())
                if self.start is not None and self.held is not None:
                    stack.enter_context(
                        replacing(self.network, self.start, self.held.clone())
                    )
                stack.enter_context(replacing(self.network, self.layer, tensor))
                output = self.network(x)
        except UnitscopeError:
            raise
        except Exception as error:  # it is the user's code, and may raise anything
            raise ModelError(
                f"what follows layer '{self.layer.name}' failed: {one_line(error)}"
            ) from error
        found = logits_of(output, count, detach=False).to(torch.float32)
        if found.is_meta:
            raise ModelError(
                f"something bypasses layer '{self.layer.name}' on the way to the logits"
            )
        return found


@contextlib.contextmanager
def _kept_of_numbers(network: nn.Module) -> Iterator[None]:
    """Give modules back what they kept on themselves, where a pass without numbers put a tensor without numbers."""
    kept = [
        (module, dict(vars(module)), dict(module._buffers))
        for module in network.modules()
    ]
    try:
        yield
    finally:
        for module, attributes, buffers in kept:
            for now, before in ((vars(module), attributes), (module._buffers, buffers)):
                for name in [
                    name
                    for name, value in now.items()
                    if isinstance(value, Tensor) and value.is_meta
                ]:
                    if name in before:
                        now[name] = before[name]
                    else:
                        del now[name]


class _Shapes(TorchFunctionMode):
    """Runs every call that a stand-in without numbers takes part in on shapes alone, and all others as they are."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in ("__get__", "__set__") or not _any_meta((args, kwargs)):
            return func(*args, **kwargs)
        if name in ("to", "cpu", "cuda", "type_as"):
            dtypes = [
                item.dtype if isinstance(item, Tensor) else item
                for item in (*args[1:], *kwargs.values())
            ]
            dtype = next(
                (item for item in dtypes if isinstance(item, torch.dtype)),
                args[0].dtype,
            )
            return torch.empty_like(args[0], dtype=dtype)
        if name in _SAME_SHAPE and isinstance(args[0], Tensor):
            return torch.empty_like(args[0], device="meta")
        args, kwargs = _map_tensors(_without_numbers, (args, kwargs))
        return func(*args, **kwargs)


# What they give has the shape and dtype of their first argument. Torch would work that
# out by running, without numbers, everything that they are made of, which takes longer
# than the network takes.
_SAME_SHAPE = frozenset(
    {
        "batch_norm",
        "layer_norm",
        "group_norm",
        "instance_norm",
        "relu",
        "gelu",
        "silu",
        "dropout",
    }
)


def _any_meta(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.is_meta
    if isinstance(value, (tuple, list)):
        return any(map(_any_meta, value))
    return isinstance(value, dict) and any(map(_any_meta, value.values()))


def _map_tensors(function: Any, value: Any) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, (tuple, list)) and not hasattr(value, "_fields"):
        return type(value)(_map_tensors(function, item) for item in value)
    if isinstance(value, dict):
        return {key: _map_tensors(function, item) for key, item in value.items()}
    return torch.device("meta") if isinstance(value, torch.device) else value


def _without_numbers(tensor: Tensor) -> Tensor:
    return tensor if tensor.is_meta else torch.empty_like(tensor, device="meta")


def same_enough(dtype: torch.dtype) -> float:
    """How far two forward passes of the same numbers may be apart, relative to the largest logit."""
    return max(1e-4, 64 * torch.finfo(dtype).eps)


def find_local(
    module: nn.Module,
    example: Tensor,
    traced: Trace,
    layers: Sequence[Layer],
    reason: str,
    layer: Layer | None = None,
    method: str = "hirescam",
) -> LocalHead:
    """Find where a local answer is best given, or try the `layer` that is named; measured on probe inputs.

    The last layer with several cells that everything passes through (else any) and of
    whose cells more than one counts: after the last attention block of a ViT only the
    class token does, so that it is the block before. Where a normalisation then reads
    every cell by itself (in a ViT's next block), it is that normalisation's output.

    Raises HeadError where there is none.
    """
    finder = _Finder(module, example, traced, layers, reason, method)
    if layer is not None:
        return finder.measured(layer)
    refused: HeadError | ModelError | None = None
    for candidate in finder.candidates():
        try:
            found = finder.measured(candidate)
        except (HeadError, ModelError) as error:
            if refused is None and finder.is_constant():
                raise HeadError(
                    f"{reason}; nor can a local answer be given: the logits are the "
                    "same whatever the photo shows "
                    "(a last layer of zeros, or a network that was not trained): load "
                    "its weights"
                ) from None
            refused = refused or error
            continue
        return finder.after_normalisation(candidate) or found if found.silent else found
    # A search that found layers and could use none says what was wrong with the first,
    # the last layer.
    nothing = "and there is no layer with several cells"
    if any(len(run.shape) == 4 and run.shape[0] > 1 for run in traced.runs):
        nothing = "and its layers work on several inputs for one photo (crops, flips or windows put in one batch)"
    why = f"; nor can a local answer be given: {refused}" if refused else f", {nothing}"
    raise HeadError(reason + why) from None


class _Finder:
    """Looks, in a traced network, for the layer at which a local answer is best given."""

    def __init__(
        self,
        module: nn.Module,
        example: Tensor,
        traced: Trace,
        layers: Sequence[Layer],
        reason: str,
        method: str,
    ) -> None:
        self._module, self._reason, self._method = module, reason, method
        self._inputs = probes(example)
        self._traced = traced
        self._calls = {
            layer.name: run.call for run, layer in zip(traced.runs, layers, strict=True)
        }
        best: dict[int, Layer] = {}
        for layer in layers:
            if layer.is_map:
                call = self._calls[layer.name]
                known = best.get(id(call), layer)
                # Of several layers with one output the outermost.
                best[id(call)] = min(
                    known,
                    layer,
                    key=lambda layer: (layer.name.count("."), len(layer.name)),
                )
        self._maps = sorted(
            best.values(), key=lambda layer: self._calls[layer.name].index
        )

    def is_constant(self) -> bool:
        """Whether the logits are the same on inputs as different as noise and the traced one."""
        x = self._inputs[-1]
        logits = logits_of(self._module(x.clone()), len(x)).to(torch.float32)
        return self._traced.logits is not None and torch.equal(
            logits, self._traced.logits
        )

    def candidates(self) -> Iterator[Layer]:
        """Layers with a map, the last first: those that everything passes through, then those that are bypassed."""
        bypassed = []
        for layer in reversed(self._maps):
            if is_cut(self._traced, self._calls[layer.name]):
                yield layer
            else:
                bypassed.append(layer)
        yield from bypassed

    def after_normalisation(self, layer: Layer) -> LocalHead | None:
        """The first layer after this one, with as many cells, at which gradient · activation says something."""
        later = self._maps[self._maps.index(layer) + 1 :]
        for candidate in later:
            if candidate.shape[1:] == layer.shape[1:]:
                with contextlib.suppress(HeadError, ModelError):
                    found = self.measured(candidate)
                    if not found.silent:
                        return found
        return None

    def measured(self, layer: Layer) -> LocalHead:
        """The local answer at a layer, tried on probe inputs; raises HeadError where it counts for nothing."""
        call = self._calls[layer.name]
        earlier = [
            one for one in self._maps if self._calls[one.name].index < call.index
        ]
        start = layer if is_cut(self._traced, call) else None
        start = start or next(
            (
                one
                for one in reversed(earlier)
                if is_cut(self._traced, self._calls[one.name])
            ),
            None,
        )
        gaps, silences = [], []
        for x in self._inputs:
            names = [layer.name, *([start.name] if start else [])]
            with captured(self._module, names) as outputs:
                logits = logits_of(self._module(x.clone()), len(x)).to(torch.float32)
            if any(name not in outputs for name in names):
                raise HeadError(f"layer '{layer.name}' does not run on every input")
            feature_map, suffix = started(self._module, layer, outputs, x, start)
            if start is not None and not _runs_alone(suffix, feature_map, logits):
                start = None
                feature_map, suffix = started(self._module, layer, outputs, x, None)
            first = int(logits[0].argmax())
            found: dict[int, Tensor] = {}
            suffix.gradients(feature_map, logits, [first], found.__setitem__)
            gradient = found[first]
            reached = int((gradient != 0).any(dim=1).sum())
            if reached <= 1:
                which = "only one cell" if reached else "no cell"
                raise HeadError(
                    f"{which} of layer '{layer.name}' counts for the logits: choose a "
                    "layer before it"
                )
            product = (gradient * feature_map).sum(dim=1)
            gaps.append(
                float((logits[0, first] - product.sum()).abs() / logits.abs().max())
            )
            lengths = gradient.norm(dim=1) * feature_map.norm(dim=1)
            silences.append(
                float(
                    product.abs().sum()
                    / lengths.sum().clamp(min=torch.finfo(torch.float32).tiny)
                )
            )
        shape = (layer.shape[0], layer.shape[1], layer.shape[2])
        return LocalHead(
            layer=layer.name,
            method=self._method,
            reason=self._reason,
            error=max(gaps),
            probes=len(self._inputs),
            grid=layer.grid,
            map_shape=shape,
            start=start.name if start else None,
            silent=0 < max(silences) < _SILENT,
        )


def is_cut(traced: Trace, call: Call) -> bool:
    """Whether everything that leads from the input to the logits passes through a call."""
    assert traced.output is not None
    seen: set[int] = set()
    frontier = [traced.output]
    while frontier:
        one = frontier.pop()
        if one is call or id(one) in seen:
            continue
        if one.name == "input":
            return False
        seen.add(id(one))
        frontier += one.inputs
    return True


def _runs_alone(suffix: Suffix, feature_map: Tensor, logits: Tensor) -> bool:
    """Whether the rest of the network, from the map alone, gives the logits; no for one that looks at its input."""
    try:
        found = suffix.logits(feature_map)
    except ModelError:
        return False
    return float(relative_difference(found, logits).max()) <= same_enough(
        suffix.like.dtype
    )


def started(
    module: nn.Module,
    layer: Layer,
    outputs: Mapping[str, Tensor],
    x: Tensor,
    start: Layer | None,
) -> tuple[Tensor, Suffix]:
    """The feature map (batch, unit, row, col) of a layer, float32, and the rest of the network for these photos.

    `outputs` holds the captured outputs of the layer and of `start`, from which the
    rest is run.
    """
    axes, output = layer.axes, outputs[layer.name]
    if axes is None or not layer.is_map:
        raise LayerError(
            f"layer '{layer.name}' gives no feature map with several cells: choose a "
            "layer before it"
        )
    feature_map = axes.units_first(output).to(torch.float32).contiguous()
    shape = (int(x.shape[1]), int(x.shape[2]), int(x.shape[3]))
    others = axes.other_tokens(output)
    earlier = start if start is not None and start.name != layer.name else None
    held = outputs[earlier.name] if earlier else None
    inputs = x.clone() if start is None else None
    return feature_map, Suffix(
        module, layer, shape, x[:0].to(output.dtype), others, earlier, held, inputs
    )
