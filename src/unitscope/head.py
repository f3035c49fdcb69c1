"""Head: what turns the last feature map into logits, found by watching a forward pass and proved on numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unitscope.errors import HeadError
from unitscope.geometry import Grid
from unitscope.trace import Call, Caught, Switch, Tap, Trace, logits_of, trace

# What moves numbers about without changing them (dropout does nothing in evaluation mode).
_CARRIERS = frozenset(
    {"flatten", "view", "reshape", "squeeze", "contiguous", "dropout", "dropout2d", "feature_dropout", "alpha_dropout"}
    | {"to", "float", "double", "half", "bfloat16", "type", "clone", "detach", "data", "__getitem__", "unsqueeze"}
)
_EXPLANATIONS = {
    "relu": "a hidden layer (an MLP head, as in AlexNet or VGG)",
    "gelu": "a hidden layer (an MLP head)",
    "silu": "a hidden layer (an MLP head)",
    "hardswish": "a hidden layer (an MLP head, as in MobileNet v3)",
    "hardtanh": "a hidden layer (an MLP head)",
    "tanh": "a hidden layer (an MLP head)",
    "layer_norm": "a layer normalisation (as in ConvNeXt)",
    "batch_norm": "a batch normalisation",
    "softmax": "a softmax",
    "log_softmax": "a log-softmax",
    "sigmoid": "a sigmoid",
    "constant": "a tensor that torch did not compute from the photo",
    "normalize": "a normalisation to unit length",
    "cat": "a concatenation",
    **dict.fromkeys(("add", "add_", "__add__", "__radd__", "sub", "sub_"), "a sum"),
    **dict.fromkeys(("div", "div_", "true_divide", "__truediv__"), "a division"),
    **dict.fromkeys(("mul", "mul_", "__mul__", "__rmul__"), "a multiplication"),
    **dict.fromkeys(("adaptive_max_pool2d", "max_pool2d", "amax", "max"), "a maximum pool"),
}

_PROBABILITIES = ("softmax", "log_softmax", "sigmoid")


@dataclass(frozen=True, eq=False)
class Head:
    """The head of a classifier: feature map → global average pool → linear layer, verified on numbers.

    `kind` is "gap-linear" (units, then weights), "conv-gap" (a 1×1 convolution, then the pool: the same algebra with
    the convolution's weights) or "gap" (the pooled maps are the logits themselves, so that units and classes are one
    and `weight` is the identity, as in SqueezeNet).

    `layer` is the layer whose output is the feature map; where a function that no module owns still follows (DenseNet's
    ReLU), it is the last layer before it and `layer_is_map` is False. `weight` (class, unit) and `bias` (class) are
    float32 copies. `error` is the largest violation of  mean over cells of (weight · feature map) + bias = logits,
    relative to the largest logit, over `probes` inputs.
    """

    kind: str
    layer: str
    layer_is_map: bool
    weight: Float[Tensor, "class unit"] = field(repr=False)
    bias: Float[Tensor, "class"] = field(repr=False)
    error: float
    probes: int
    grid: Grid = field(repr=False)
    map_shape: tuple[int, int, int]

    def describe(self) -> str:
        """One line in words."""
        classes, units = self.weight.shape
        rows, cols = self.map_shape[1:]
        after = "" if self.layer_is_map else " and the function after it"
        feature_map = f"feature map {units}×{rows}×{cols}"
        shape = {
            "gap-linear": f"{feature_map} → global average pool → linear layer of {classes} classes",
            "conv-gap": f"{feature_map} → 1×1 convolution → global average pool: {classes} classes",
            "gap": f"one map a class, {classes}×{rows}×{cols} → global average pool",
        }[self.kind]
        return f"{shape}; the map is the output of '{self.layer}'{after}"


@dataclass(frozen=True)
class HeadPath:
    """Where the head's numbers pass in every forward: which calls to tap, and how to read map and weights there.

    Calls are known by (index, name); it holds none of the traced tensors.
    """

    kind: str
    map_call: tuple[int, str]
    linear_call: tuple[int, str] | None
    channels_last: bool

    def tap(self) -> Tap:
        """A fresh tap for one forward pass."""
        return Tap(dict(call for call in (self.map_call, self.linear_call) if call))

    def without_units(self, units: Sequence[int]) -> Switch:
        """A mode in which a forward pass runs with the feature maps of `units` set to zero, whatever makes the map."""

        def change(feature_map: Tensor) -> Tensor:
            changed = feature_map.clone()
            changed[(..., list(units)) if self.channels_last else (slice(None), list(units))] = 0
            return changed

        return Switch(*self.map_call, change)

    def read(self, tap: Tap) -> tuple[Tensor, Tensor, Tensor]:
        """Feature map (batch, unit, row, col), weight (class, unit), bias (class), float32, from a tapped forward."""
        if any(call and call[0] not in tap.caught for call in (self.map_call, self.linear_call)):
            raise another_path()
        feature_map = tap.caught[self.map_call[0]].first
        if self.channels_last:
            feature_map = feature_map.permute(0, 3, 1, 2)
        feature_map = feature_map.to(torch.float32).contiguous()
        if self.linear_call is None:
            identity = torch.eye(feature_map.shape[1], dtype=feature_map.dtype, device=feature_map.device)
            return feature_map, identity, torch.zeros_like(identity[0])
        weight, bias = _affine(self.linear_call[1], tap.caught[self.linear_call[0]])
        weight = weight.detach().to(torch.float32).clone()
        bias = torch.zeros_like(weight[:, 0]) if bias is None else bias.detach().to(torch.float32).clone()
        return feature_map, weight, bias


def another_path() -> HeadError:
    """Say that this forward pass made other calls than the one in which the head was found."""
    return HeadError(
        "the network took another path on this input than on the one its head was found with: "
        "wrap a network whose forward does not depend on the values of its input"
    )


def run_tapped(module: nn.Module, x: Tensor, path: HeadPath) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One forward pass: logits (batch, class), feature map, weight and bias, all float32."""
    with path.tap() as tap:
        logits = logits_of(module(x), len(x))
    feature_map, weight, bias = path.read(tap)
    if feature_map.shape[0] != len(x) or weight.shape != (logits.shape[1], feature_map.shape[1]):
        raise another_path()
    return logits.to(torch.float32).clone(), feature_map, weight, bias


def completeness_error(
    logits: Float[Tensor, "batch class"],
    feature_map: Float[Tensor, "batch unit row col"],
    weight: Float[Tensor, "class unit"],
    bias: Float[Tensor, "class"],
) -> Float[Tensor, " batch"]:
    """How far mean(feature map)·weight + bias is from the logits: largest difference over classes / largest |logit|."""
    return relative_difference(feature_map.mean(dim=(2, 3)) @ weight.T + bias, logits)


def relative_difference(
    rebuilt: Float[Tensor, "batch class"], logits: Float[Tensor, "batch class"]
) -> Float[Tensor, " batch"]:
    """For every photo, the largest difference over the classes, relative to the largest |logit|."""
    scale = logits.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny)
    return (rebuilt - logits).abs().amax(dim=1) / scale


def rounding_error(
    logits: Float[Tensor, "batch class"],
    feature_map: Float[Tensor, "batch unit row col"],
    weight: Float[Tensor, "class unit"],
    bias: Float[Tensor, "class"],
    dtype: torch.dtype,
) -> Float[Tensor, " batch"]:
    """The completeness error that rounding alone may cause in a network of this dtype, relative to the largest |logit|.

    It is 1e-5, or four units in the last place of the terms that are summed up, |W|·mean|A| + |b|, where that is more:
    in half precision, and where large contributions all but cancel, as near the boundary between two classes.
    """
    terms = (feature_map.abs().mean(dim=(2, 3)) @ weight.abs().T + bias.abs()).amax(dim=1)
    scale = logits.abs().amax(dim=1).clamp(min=torch.finfo(torch.float32).tiny)
    return (4 * torch.finfo(dtype).eps * terms / scale).clamp(min=1e-5)


def find_head(module: nn.Module, example: Tensor, traced: Trace | None = None) -> tuple[Head, HeadPath]:
    """Find the head and verify it on probe inputs; the module must be in evaluation mode, without gradients.

    `example` (batch, channel, row, col) gives shape, dtype and device. Raises HeadError, saying why, when the network
    does not end in a global average pool and one linear layer, or when the identity does not hold on every probe.
    """
    if isinstance(module, torch.jit.ScriptModule):
        raise HeadError(
            "the network is TorchScript, which cannot be watched: wrap the Python module that it was made from"
        )
    traced = traced or trace(module, example[:1])
    assert traced.output is not None
    path, source = _walk_back(traced.output)
    inputs = _probes(example)
    error = 0.0
    for batch in inputs:
        numbers = _, feature_map, weight, bias = run_tapped(module, batch, path)
        found, allowed = float(completeness_error(*numbers)), float(rounding_error(*numbers, example.dtype))
        if not found <= allowed:
            raise HeadError(
                f"the network seems to end in pooling and a linear layer, but its logits differ from that algebra by "
                f"{found:.1e} of the largest logit (rounding allows {allowed:.0e}): something else contributes to them"
            )
        error = max(error, found)
    layer, is_map = _layer_of(traced, source)
    rows, cols = (int(side) for side in feature_map.shape[2:])
    grid = source.grid or Grid.tiling(traced.input_size, (rows, cols))
    shape = (int(feature_map.shape[1]), rows, cols)
    head = Head(path.kind, layer, is_map, weight, bias, error, sum(len(batch) for batch in inputs), grid, shape)
    return head, path


def _probes(example: Tensor) -> list[Tensor]:
    """Three inputs of different scale, from a generator of their own: the user's random state is not touched."""
    generator = torch.Generator().manual_seed(0)
    shape = (1, *example.shape[1:])
    # On the CPU and in float32 whatever the user's defaults are, so that the probes are always the same.
    noise = [
        torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu") * scale for scale in (0.5, 1.0, 2.0)
    ]
    return [probe.to(example.device, example.dtype) for probe in noise]


def _walk_back(output: Call) -> tuple[HeadPath, Call]:
    """The path of the head, and the call that makes the feature map."""
    call = _carried(output)
    linear: Call | None = None
    if _is_linear(call):
        linear = call
        call = _carried(call.inputs[_input_position(call)])
    pool = _pooling(call)
    if pool is None:
        raise HeadError(_refusal(call, linear))
    map_call, source, channels_last = pool
    found = (map_call.index, map_call.name)
    if linear is not None:
        return HeadPath("gap-linear", found, (linear.index, linear.name), channels_last), source
    if source.name == "conv2d" and _is_pointwise(source) and not channels_last:
        # Pooling and a 1×1 convolution commute: the convolution's input is the map of units.
        convolution = (source.index, source.name)
        return HeadPath("conv-gap", convolution, convolution, False), source.inputs[0]
    return HeadPath("gap", found, None, channels_last), source


def _carried(call: Call) -> Call:
    """Walk back over calls that only carry numbers along."""
    while call.name in _CARRIERS and call.inputs and math.prod(call.inputs[0].shape) == math.prod(call.shape):
        call = call.inputs[0]
    return call


def _is_linear(call: Call) -> bool:
    if call.name == "conv2d":
        # On a 1×1 map a 1×1 convolution is a linear layer; on a larger map it belongs to the feature map.
        return call.shape[2:] == (1, 1) and call.inputs[0].shape[2:] == (1, 1) and _is_pointwise(call)
    return call.name in ("linear", "addmm") or (call.name in ("matmul", "__matmul__", "mm") and len(call.shape) <= 2)


def _is_pointwise(call: Call) -> bool:
    weight = call.argument(1, "weight")
    plain = all(
        _all_equal(call.argument(position, keyword, neutral), neutral)
        for position, keyword, neutral in ((3, "stride", 1), (4, "padding", 0), (6, "groups", 1))
    )
    return tuple(weight.shape[2:]) == (1, 1) and plain


def _all_equal(value: Any, neutral: int) -> bool:
    # A kernel of 1×1 has no padding, neither when it is "same" nor when it is "valid".
    if isinstance(value, (tuple, list)):
        return all(item == neutral for item in value)
    return value in (neutral, "valid", "same")


def _input_position(call: Call) -> int:
    return 1 if call.name == "addmm" else 0


def _affine(name: str, call: Caught) -> tuple[Tensor, Tensor | None]:
    """Weight (class, unit) and bias of a linear call."""
    if name == "addmm":
        return call.argument(2, "mat2").T, call.first
    if name in ("matmul", "__matmul__", "mm"):
        return call.argument(1, "mat2" if name == "mm" else "other").T, None
    weight = call.argument(1, "weight")
    return (weight[:, :, 0, 0] if weight.ndim == 4 else weight), call.argument(2, "bias")


def _pooling(call: Call) -> tuple[Call, Call, bool] | None:
    """The call whose first argument is the pooled map, the call that made the map, and whether channels come last."""
    if call.name in ("adaptive_avg_pool2d", "avg_pool2d"):
        source = call.inputs[0]
        whole = call.shape[2:] == (1, 1) and len(source.shape) == 4
        return (call, source, False) if whole else None
    if call.name != "mean" or not call.inputs:
        return None
    source = call.inputs[0]
    axes = _mean_axes(call, len(source.shape))
    if len(source.shape) == 4 and axes in ({2, 3}, {1, 2}):
        return call, source, axes == {1, 2}
    if not source.inputs or len(source.inputs[0].shape) != 4:
        return None
    if source.name == "mean" and axes < {2, 3}:  # over one side, then over the other; the first may have been kept
        first = _mean_axes(source, 4)
        kept = len(source.shape) == 4
        if (first | axes == {2, 3}) if kept else (first < {2, 3} and axes == {2}):
            return source, source.inputs[0], False
    if source.name in ("flatten", "view", "reshape") and len(source.shape) == 3 and axes == {2}:
        return (source, source.inputs[0], False) if source.shape[:2] == source.inputs[0].shape[:2] else None
    return None


def _mean_axes(call: Call, dimensions: int) -> set[int]:
    axes = call.argument(1, "dim", call.argument(1, "axis"))
    if axes is None:
        return set()
    return {axis % dimensions for axis in (axes if isinstance(axes, (tuple, list)) else [axes])}


def _refusal(call: Call, linear: Call | None) -> str:
    while call.name in ("permute", "transpose") and call.inputs:
        call = call.inputs[0]
    wanted = "exact maps need a feature map, a global average pool and one linear layer at the end"
    if linear is None:
        what = _EXPLANATIONS.get(call.name, f"'{call.name}'")
        remedy = "wrap it without that, so that it gives logits; " if call.name in _PROBABILITIES else ""
        return f"the network ends in {what}, not in a linear layer or a pool: {remedy}{wanted}"
    if len(call.shape) == 4 and math.prod(call.shape[1:]) != max(call.shape[1:]):
        shape = "×".join(map(str, call.shape[1:]))
        return f"the last linear layer reads a flattened {shape} map, cell by cell, not a pooled one: {wanted}"
    what = _EXPLANATIONS.get(call.name, f"'{call.name}'")
    if call.name == "__getitem__":
        tokens = bool(call.inputs) and len(call.inputs[0].shape) == 3
        what = "a token (as in ViT)" if tokens else "a selection of units"
    return f"before the last linear layer stands {what} instead of a global average pool: {wanted}"


def _layer_of(traced: Trace, source: Call) -> tuple[str, bool]:
    """The outermost layer whose output is the map, else the last layer whose output still leads to it."""
    made: dict[int, str] = {}
    for name, run in zip(traced.names(), traced.runs, strict=True):
        known = made.get(id(run.call), name)
        made[id(run.call)] = min(known, name, key=lambda name: (name.count("."), len(name)))
    itself = source
    while id(itself) not in made and itself.name in ("permute", "transpose", "contiguous") and itself.inputs:
        itself = itself.inputs[0]  # the same map in another order of axes
    if id(itself) in made:
        return made[id(itself)], True
    seen: set[int] = set()
    frontier = [source]
    while frontier:
        call = frontier.pop(0)
        if id(call) in made:
            return made[id(call)], False
        for parent in call.inputs:
            if id(parent) not in seen:
                seen.add(id(parent))
                frontier.append(parent)
    return "input", False
