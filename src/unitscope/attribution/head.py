"""Head: what turns the last feature map into logits, found by watching a forward pass and proved on numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unitscope.attribution.readout import (
    Normalisation,
    Readout,
    ablation_difference,
    added,
    cell_means,
    completeness_error,
    rounding_error,
    scaled,
    shifted,
)
from unitscope.errors import HeadError
from unitscope.geometry import Grid
from unitscope.tracing.axes import Axes
from unitscope.tracing.calls import Call
from unitscope.tracing.layers import captured
from unitscope.tracing.outputs import logits_of
from unitscope.tracing.taps import Caught, Switch, Tap
from unitscope.tracing.trace import Trace, trace

# What moves numbers about without changing them (dropout does nothing in evaluation
# mode).
_CARRIERS = frozenset(
    {
        "flatten",
        "view",
        "reshape",
        "squeeze",
        "contiguous",
        "dropout",
        "dropout2d",
        "feature_dropout",
        "alpha_dropout",
    }
    | {
        "to",
        "float",
        "double",
        "half",
        "bfloat16",
        "type",
        "type_as",
        "clone",
        "detach",
        "data",
        "__getitem__",
    }
    | {"unsqueeze", "select", "unflatten", "_to_copy"}
)
_MOVERS = frozenset(
    {"permute", "transpose", "swapaxes", "swapdims", "movedim", "moveaxis", "T", "mT"}
)
_SUMS = {
    "add": 1.0,
    "add_": 1.0,
    "__add__": 1.0,
    "__radd__": 1.0,
    "__iadd__": 1.0,
    "sub": -1.0,
    "sub_": -1.0,
}
_SUMS |= {"__sub__": -1.0, "__isub__": -1.0, "__rsub__": -1.0, "rsub": -1.0}
_PRODUCTS = frozenset({"mul", "mul_", "multiply", "__mul__", "__rmul__", "__imul__"})
_QUOTIENTS = frozenset({"div", "div_", "true_divide", "__truediv__", "__itruediv__"})
_NORMS = {
    "layer_norm": "layer",
    "group_norm": "layer",
    "rms_norm": "root mean square",
    "normalize": "length",
}
_EXPLANATIONS = {
    "relu": "a hidden layer (an MLP head, as in AlexNet or VGG)",
    "gelu": "a hidden layer (an MLP head)",
    "silu": "a hidden layer (an MLP head)",
    "hardswish": "a hidden layer (an MLP head, as in MobileNet v3)",
    "hardtanh": "a hidden layer (an MLP head)",
    "tanh": "a hidden layer (an MLP head)",
    "layer_norm": "a layer normalisation of something other than pooled units",
    "group_norm": "a group normalisation of something other than pooled units",
    "rms_norm": "a normalisation of something other than pooled units",
    "batch_norm": "a batch normalisation",
    "softmax": "a softmax",
    "log_softmax": "a log-softmax",
    "sigmoid": "a sigmoid",
    "constant": "a tensor that torch did not compute from the photo",
    "normalize": "a normalisation to unit length",
    "cat": "a concatenation",
    **dict.fromkeys(_SUMS, "a sum"),
    **dict.fromkeys(_QUOTIENTS, "a division"),
    **dict.fromkeys(_PRODUCTS, "a multiplication"),
    **dict.fromkeys(
        ("adaptive_max_pool2d", "max_pool2d", "amax", "max"), "a maximum pool"
    ),
    "scaled_dot_product_attention": "an attention pool",
}

_WANTED = "exact maps need a feature map, a global average pool and one linear layer at the end"
_PROBABILITIES = ("softmax", "log_softmax", "sigmoid")


@dataclass(frozen=True, eq=False)
class Head:
    """The head of a classifier: feature map → global average pool → linear layer, verified on numbers.

    `kind` is "gap-linear" (pooled units, then weights), "gap-norm-linear" (a
    normalisation of the pooled units between the two, as in ConvNeXt), "conv-gap" (a
    1×1 convolution, then the pool: the same algebra with the convolution's weights) or
    "gap" (the pooled maps are the logits themselves, so that units and classes are one
    and the weight is the identity, as in SqueezeNet). What else is affine between the
    pool and the logits (a batch normalisation, a temperature, the sum of two linear
    layers) is in the weight and the bias.

    `layer` is the layer whose output is the feature map; where a function that no
    module owns still follows (DenseNet's ReLU), it is the last layer before it and
    `layer_is_map` is False. `readout` is how pooled units become logits, with float32
    copies of the weights. `error` is the largest violation of readout(mean over cells
    of the feature map) = logits, relative to the largest logit, over `probes` inputs.
    """

    kind: str
    layer: str
    layer_is_map: bool
    readout: Readout = field(repr=False)
    error: float
    probes: int
    grid: Grid = field(repr=False)
    map_shape: tuple[int, int, int]

    @property
    def exact(self) -> bool:
        """Whether maps and contributions add up to the logits and ablation needs no forward pass: always, here."""
        return True

    @property
    def weight(self) -> Float[Tensor, "class unit"]:
        """How much a unit's pooled activation adds to a logit (before the normalisation's divisor, with one)."""
        return self.readout.weight

    @property
    def bias(self) -> Float[Tensor, "class"]:
        """What the logits are when all units are at zero."""
        return self.readout.bias

    def describe(self) -> str:
        """One line in words."""
        classes, units = self.weight.shape
        rows, cols = self.map_shape[1:]
        after = "" if self.layer_is_map else " and the function after it"
        feature_map = f"feature map {units}×{rows}×{cols}"
        norm = f"{self.readout.norm.kind} normalisation" if self.readout.norm else ""
        shape = {
            "gap-linear": f"{feature_map} → global average pool → linear layer of {classes} classes",
            "gap-norm-linear": f"{feature_map} → global average pool → {norm} → linear layer of {classes} classes",
            "conv-gap": f"{feature_map} → 1×1 convolution → global average pool: {classes} classes",
            "gap": f"one map a class, {classes}×{rows}×{cols} → global average pool",
        }[self.kind]
        return f"{shape}; the map is the output of '{self.layer}'{after}"


@dataclass(frozen=True)
class Step:
    """One call between the pooled units and the logits, and the steps that its inputs came from.

    `kind`: "pooled" (the units themselves), "total" (pooled by a sum: so many times
    their mean), "linear", "norm", "batch norm", "shift", "scale", "divide" (by
    constants) or "sum" (of two steps). `position` says which of the call's tensor
    arguments comes from the photo.
    """

    kind: str
    index: int = -1
    name: str = ""
    of: tuple[Step, ...] = ()
    position: int = 0

    def calls(self) -> Iterator[tuple[int, str]]:
        """The calls whose arguments must be caught to compute this step."""
        if self.index >= 0:
            yield self.index, self.name
        for step in self.of:
            yield from step.calls()

    def has(self, kind: str) -> bool:
        """Whether this step or one before it is of a kind."""
        return self.kind == kind or any(step.has(kind) for step in self.of)


@dataclass(frozen=True)
class HeadPath:
    """Where the head's numbers pass in every forward: which calls to tap, and how to read map and weights there.

    Calls are known by (index, name); it holds none of the traced tensors. `assumed`
    says that the places of tokens could not be followed, and were taken for those of
    squares that tile the input.
    """

    kind: str
    map_call: tuple[int, str]
    last: Step
    axes: Axes
    assumed: bool = False

    def tap(self) -> Tap:
        """A fresh tap for one forward pass."""
        return Tap(self.calls())

    def calls(self) -> dict[int, str]:
        """The calls that are tapped: index and name."""
        return dict([self.map_call, *self.last.calls()])

    def without_units(self, units: Sequence[int]) -> Switch:
        """A mode in which a forward pass runs with the feature maps of `units` set to zero, whatever makes the map."""
        return Switch(
            *self.map_call, lambda feature_map: self.axes.without(feature_map, units)
        )

    def feature_map(self, tap: Tap) -> Float[Tensor, "batch unit row col"]:
        """The feature map, float32, from a tapped forward."""
        if any(index not in tap.caught for index in self.calls()):
            raise another_path()
        return (
            self.axes.units_first(tap.caught[self.map_call[0]].first)
            .to(torch.float32)
            .contiguous()
        )

    def readout(
        self, tap: Tap, feature_map: Float[Tensor, "batch unit row col"]
    ) -> Readout:
        """The readout, from a tapped forward that gave such a feature map."""
        return _readout(self.last, tap.caught, feature_map)


def another_path() -> HeadError:
    """Say that this forward pass made other calls than the one in which the head was found."""
    return HeadError(
        "the network took another path on this input than on the one its head was "
        "found with: "
        "wrap a network whose forward does not depend on the values of its input"
    )


class Passed(NamedTuple):
    """What one forward pass gave, in float32: logits, feature map, and the readout of this very pass."""

    logits: Float[Tensor, "batch class"]
    feature_map: Float[Tensor, "batch unit row col"]
    readout: Readout


def run_watched(
    module: nn.Module, x: Tensor, path: HeadPath
) -> tuple[Tensor, Tensor, Tap]:
    """One forward pass, watched along a path: logits (batch, class) and feature map, float32, and the tap."""
    photos = x.shape[
        0
    ]  # not len(x), which would make it a fixed number where the pass is exported as a graph
    x = x.clone()  # some networks normalise their input in place; before the tap, which counts calls
    with path.tap() as tap:
        logits = logits_of(module(x), photos)
    feature_map = path.feature_map(tap)
    if feature_map.shape[0] != photos:
        raise another_path()
    return logits.to(torch.float32).clone(), feature_map, tap


def run_tapped(module: nn.Module, x: Tensor, path: HeadPath) -> Passed:
    """One forward pass, watched along a path, with the readout of this very pass."""
    logits, feature_map, tap = run_watched(module, x, path)
    readout = path.readout(tap, feature_map)
    if readout.weight.shape != (logits.shape[1], feature_map.shape[1]):
        raise another_path()
    return Passed(logits, feature_map, readout)


def find_head(
    module: nn.Module, example: Tensor, traced: Trace | None = None
) -> tuple[Head, HeadPath]:
    """Find the head and verify it on probe inputs; the module must be in evaluation mode, without gradients.

    `example` (batch, channel, row, col) gives shape, dtype and device. Raises
    HeadError, saying why, when the network does not end in a global average pool and
    one linear layer, or when the identity does not hold on every probe.
    """
    if isinstance(module, torch.jit.ScriptModule):
        raise HeadError(
            "the network is TorchScript, which cannot be watched: wrap the Python "
            "module that it was made from"
        )
    traced = traced or trace(module, example[:1])
    assert traced.output is not None
    path, source = _walk_back(traced)
    inputs = probes(example)
    layer, is_map = _layer_of(traced, source)
    error = 0.0
    for batch in inputs:
        # What the layer gives is looked at in the last one.
        with captured(
            module, [layer] if is_map and batch is inputs[-1] else []
        ) as outputs:
            numbers = logits, feature_map, readout = run_tapped(module, batch, path)
        found, allowed = (
            float(completeness_error(*numbers)),
            float(rounding_error(*numbers, example.dtype)),
        )
        if not found <= allowed:
            raise HeadError(
                "the network seems to end in pooling and a linear layer, but its "
                "logits differ from that algebra by "
                f"{found:.1e} of the largest logit (rounding allows {allowed:.0e}): "
                "something else contributes to them"
            )
        error = max(error, found)
    _prove_ablation(module, batch, path, logits, feature_map, readout)
    if path.assumed:
        _prove_places(module, batch, path, feature_map)
    is_map = is_map and _is_pooled(outputs.get(layer), feature_map)
    rows, cols = (int(side) for side in feature_map.shape[2:])
    grid = source.grid or Grid.tiling(traced.input_size, (rows, cols))
    shape = (int(feature_map.shape[1]), rows, cols)
    return Head(
        path.kind,
        layer,
        is_map,
        readout,
        error,
        sum(len(batch) for batch in inputs),
        grid,
        shape,
    ), path


def probes(example: Tensor) -> list[Tensor]:
    """Three inputs of different scale, from a generator of their own: the user's random state is not touched."""
    generator = torch.Generator().manual_seed(0)
    shape = (1, *example.shape[1:])
    # On the CPU and in float32 whatever the user's defaults are, so that the probes are
    # always the same.
    noise = [
        torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
        * scale
        for scale in (0.5, 1.0, 2.0)
    ]
    return [probe.to(example.device, example.dtype) for probe in noise]


def _walk_back(traced: Trace) -> tuple[HeadPath, Call]:
    """The path of the head, and the call that makes the feature map."""
    assert traced.output is not None
    finder = _Finder(traced)
    last = finder.step(traced.output, linear=None)
    pool = finder.pool
    assert pool is not None
    map_call, source, axes = pool
    found = (map_call.index, map_call.name)
    assumed = len(source.shape) == 3 and source.axes is None
    if last.has("norm"):
        return HeadPath("gap-norm-linear", found, last, axes, assumed), source
    if last.has("linear"):
        return HeadPath("gap-linear", found, last, axes, assumed), source
    if source.name == "conv2d" and _is_pointwise(source) and axes == Axes():
        # Pooling and a 1×1 convolution commute: the convolution's input is the map of
        # units.
        convolution = (source.index, source.name)
        return HeadPath(
            "conv-gap",
            convolution,
            _grounded(last, Step("linear", *convolution, (POOLED,))),
            axes,
        ), (source.inputs[0])
    return HeadPath("gap", found, last, axes, assumed), source


POOLED = Step("pooled")


def _grounded(step: Step, ground: Step) -> Step:
    """The same steps, standing on `ground` instead of on the pooled units."""
    if step.kind == "pooled":
        return ground
    return replace(step, of=tuple(_grounded(before, ground) for before in step.of))


class _Finder:
    """Walks back from the logits through everything affine, to the one pool that all of it reads."""

    def __init__(self, traced: Trace) -> None:
        self._traced = traced
        self._constant: dict[int, bool] = {}
        self.pool: tuple[Call, Call, Axes] | None = None

    def step(self, call: Call, linear: Call | None) -> Step:
        """The step that makes a call's result; raises HeadError, saying why, where something else stands."""
        call = _carried(call)
        pool = _pooling(call, self._traced.input_size)
        if pool is not None:
            if self.pool is not None and self.pool[0] is not pool[0]:
                raise HeadError(_refusal(call, linear))
            self.pool = pool
            return Step("total", of=(POOLED,)) if call.name == "sum" else POOLED
        if _is_linear(call):
            given = [
                one
                for place, one in enumerate(call.inputs)
                if place != _input_position(call)
            ]
            if not all(map(self._is_constant, given)):
                raise HeadError(
                    "the weights of the last linear layer depend on the photo: "
                    f"{_WANTED}"
                )
            return Step(
                "linear",
                call.index,
                call.name,
                (self.step(call.inputs[_input_position(call)], call),),
            )
        found = self._arithmetic(call, linear) or self._normalisation(call, linear)
        if found is None:
            raise HeadError(_refusal(call, linear))
        return found

    def _arithmetic(self, call: Call, linear: Call | None) -> Step | None:
        kind = (
            "shift" if call.name in _SUMS else "scale" if call.name in _PRODUCTS else ""
        )
        kind = "divide" if call.name in _QUOTIENTS else kind
        moving = [before for before in call.inputs if not self._is_constant(before)]
        if (
            not kind
            or not moving
            or any(math.prod(m.shape) != math.prod(call.shape) for m in moving)
        ):
            return None
        if len(moving) == 1 and (kind != "divide" or call.inputs[0] is moving[0]):
            return self._under(call, kind, moving, linear)
        return (
            self._under(call, "sum", moving, linear)
            if len(moving) == 2 and kind == "shift"
            else None
        )

    def _normalisation(self, call: Call, linear: Call | None) -> Step | None:
        units = max(call.shape[1:], default=0)
        if (
            not call.inputs
            or math.prod(call.shape[1:]) != units
            or math.prod(call.inputs[0].shape[1:]) != units
        ):
            return None
        if not all(map(self._is_constant, call.inputs[1:])):
            return None  # scales and shifts that depend on the photo
        if call.name == "batch_norm":
            return self._under(call, "batch norm", [call.inputs[0]], linear)
        if call.name not in _NORMS or linear is None:
            return None
        if call.name == "group_norm":
            whole = call.argument(1, "num_groups") == 1
        elif call.name == "normalize":
            whole = call.argument(1, "p", 2.0) == 2 and call.argument(2, "dim", 1) in (
                1,
                -1,
            )
        else:
            whole = math.prod(call.argument(1, "normalized_shape", ())) == units
        found = self._under(call, "norm", [call.inputs[0]], linear) if whole else None
        # One divisor a photo: only the pooled units themselves may be normalised.
        return found if found is not None and found.of == (POOLED,) else None

    def _under(
        self, call: Call, kind: str, moving: Sequence[Call], linear: Call | None
    ) -> Step:
        try:
            of = tuple(self.step(before, linear) for before in moving)
            return Step(kind, call.index, call.name, of, call.inputs.index(moving[0]))
        except HeadError:
            # Said of this call, not of what a branch of it ends in.
            if len(moving) > 1:
                raise HeadError(_refusal(call, linear)) from None
            raise

    def _is_constant(self, call: Call) -> bool:
        """Whether a call does not depend on the photo."""
        stack = [call]
        while stack:
            one = stack[-1]
            unknown = [
                before for before in one.inputs if id(before) not in self._constant
            ]
            if unknown and id(one) not in self._constant:
                stack += unknown
                continue
            self._constant[id(one)] = one.name != "input" and all(
                self._constant[id(b)] for b in one.inputs
            )
            stack.pop()
        return self._constant[id(call)]


def _prove_ablation(
    module: nn.Module,
    x: Tensor,
    path: HeadPath,
    logits: Tensor,
    feature_map: Tensor,
    readout: Readout,
) -> None:
    """Raise HeadError unless the readout without half the units is a real forward pass without them.

    What is read off the very pass that it explains may depend on the units in ways that
    nobody saw: a divisor that left torch as a Python number, a gate in compiled code.
    The numbers are those of a tapped pass on `x`.
    """
    off = list(range(0, feature_map.shape[1], 2))
    fresh = x.clone()
    with path.without_units(off):
        real = logits_of(module(fresh), len(x)).to(torch.float32)
    feature_map = Axes().without(feature_map, off)
    error = ablation_difference(readout.logits(cell_means(feature_map)), real, logits)
    allowed = torch.maximum(
        rounding_error(real, feature_map, readout, x.dtype),
        rounding_error(logits, feature_map, readout, x.dtype),
    )
    if not bool((error <= allowed).all()):
        raise HeadError(
            "the network seems to end in pooling and a linear layer, but without half "
            "of the units its logits differ "
            f"from that algebra by {float(error.max()):.1e} of the largest logit: they "
            "depend on the units in another "
            "way too"
        )


def _prove_places(
    module: nn.Module, x: Tensor, path: HeadPath, feature_map: Tensor
) -> None:
    """Raise HeadError unless each of a few cells is the one that changes most when its square of the input does.

    The cells are such that no flip, transposition or order of windows keeps all of
    them.
    """
    rows, cols = feature_map.shape[2:]
    high, wide = x.shape[2] // rows, x.shape[3] // cols
    for row, col in (
        (0, cols - 1),
        (rows - 1, 0),
        (rows // 2, cols // 3),
        (1 % rows, 1 % cols),
    ):
        changed = x.clone()
        square = changed[
            :, :, row * high : (row + 1) * high, col * wide : (col + 1) * wide
        ]
        square.copy_(square.flip(0, 1, 2, 3) + 2)
        difference = (
            (run_tapped(module, changed, path)[1] - feature_map)
            .square()
            .sum(dim=(0, 1))
        )
        if int(difference.argmax()) != row * cols + col:
            raise HeadError(
                f"the network ends in a mean over {rows * cols} tokens and a linear "
                "layer, but its tokens could not be "
                "followed back to places on the photo"
            )


def _is_pooled(output: Tensor | None, feature_map: Tensor) -> bool:
    """Whether a layer's output is the map that is pooled, also where something was written into it since."""
    if output is None or output.numel() != feature_map.numel():
        return output is not None  # the same numbers with tokens before them
    # Sorted: a layer may give its axes in another order.
    return torch.equal(
        output.to(torch.float32).flatten().sort().values,
        feature_map.flatten().sort().values,
    )


def is_of_probabilities(traced: Trace) -> bool:
    """Whether the network ends in a softmax or a sigmoid, so that what it gives are no logits."""
    assert traced.output is not None
    return _carried(traced.output).name in _PROBABILITIES


def _readout(step: Step, caught: dict[int, Caught], feature_map: Tensor) -> Readout:
    """The readout that the caught arguments of a step, and of those before it, amount to."""
    if step.kind == "pooled":
        identity = torch.eye(
            feature_map.shape[1], dtype=feature_map.dtype, device=feature_map.device
        )
        return Readout(identity, torch.zeros_like(identity[0]))
    if step.kind == "linear" and step.of == (POOLED,):
        weight, bias = _float(_affine(step.name, caught[step.index]))
        return Readout(
            weight.clone(),
            torch.zeros_like(weight[:, 0]) if bias is None else bias.clone(),
        )
    before = _readout(step.of[0], caught, feature_map)
    if step.kind == "total":
        return scaled(before, torch.tensor(float(feature_map[0, 0].numel())))
    call = caught[step.index]
    if step.kind == "linear":
        return _composed(before, *_float(_affine(step.name, call)))
    if step.kind == "norm":
        return _normalised(step.name, call, before)
    if step.kind == "batch norm":
        scale, shift = _batch_norm(call)
        return shifted(scaled(before, scale), shift)
    if step.kind == "sum":
        return added(
            before,
            _readout(step.of[1], caught, feature_map),
            _SUMS[step.name] * _alpha(call),
        )
    constant = _other_argument(call, step.position).to(torch.float32)
    if step.kind == "divide":
        return scaled(before, constant.reciprocal())
    if step.kind == "scale":
        return scaled(before, constant)
    if step.name in ("rsub", "__rsub__") or (
        _SUMS[step.name] < 0 and step.position == 1
    ):
        return shifted(scaled(before, torch.tensor(-1.0)), constant)
    return shifted(before, _SUMS[step.name] * _alpha(call) * constant)


def _float(affine: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor | None]:
    weight, bias = affine
    return weight.detach().to(
        torch.float32
    ), None if bias is None else bias.detach().to(torch.float32)


def _composed(before: Readout, weight: Tensor, bias: Tensor | None) -> Readout:
    """The readout with a linear layer behind it."""
    constant = weight @ before.bias
    through = (
        weight * before.weight.diagonal()
        if _is_diagonal(before.weight)
        else weight @ before.weight
    )
    if before.norm is not None and before.norm.centred:
        through = through - through.mean(dim=1, keepdim=True)
    return Readout(through, constant if bias is None else constant + bias, before.norm)


def _is_diagonal(matrix: Tensor) -> bool:
    """Whether a matrix scales and mixes nothing, as that of a normalisation does."""
    square = matrix.shape[0] == matrix.shape[1]
    return square and int(matrix.count_nonzero()) == int(
        matrix.diagonal().count_nonzero()
    )


def _normalised(name: str, call: Caught, before: Readout) -> Readout:
    """The readout of a normalisation: its scale and shift, over the units divided by one number."""
    if name == "normalize":
        eps = call.argument(3, "eps")
        return Readout(
            before.weight,
            before.bias,
            Normalisation("length", 1e-12 if eps is None else float(eps)),
        )
    scale, shift = (
        call.argument(2, "weight"),
        None if name == "rms_norm" else call.argument(3, "bias"),
    )
    eps = call.argument(3 if name == "rms_norm" else 4, "eps")
    default = torch.finfo(call.first.dtype).eps if name == "rms_norm" else 1e-5
    norm = Normalisation(_NORMS[name], default if eps is None else float(eps))
    found = Readout(before.weight, before.bias, norm)
    found = found if scale is None else scaled(found, scale)
    return found if shift is None else shifted(found, shift)


def _batch_norm(call: Caught) -> tuple[Tensor, Tensor]:
    """What batch normalisation with fixed statistics multiplies by and adds."""
    mean, variance = call.argument(1, "running_mean"), call.argument(2, "running_var")
    if mean is None or variance is None or call.argument(5, "training"):
        raise HeadError(
            "the head normalises by the statistics of its batch: a photo's logits "
            "depend on the others"
        )
    gain, offset, eps = (
        call.argument(3, "weight"),
        call.argument(4, "bias"),
        call.argument(7, "eps"),
    )
    scale = (variance.to(torch.float32) + (1e-5 if eps is None else float(eps))).rsqrt()
    scale = scale if gain is None else scale * gain.to(torch.float32)
    shift = -mean.to(torch.float32) * scale
    return scale, shift if offset is None else shift + offset.to(torch.float32)


def _alpha(call: Caught) -> float:
    return float(call.kwargs.get("alpha", 1.0))


def _other_argument(call: Caught, position: int) -> Tensor:
    """The argument of a sum, product or quotient that does not come from the photo."""
    both = [
        *call.args[:2],
        *(call.kwargs[key] for key in ("input", "other") if key in call.kwargs),
    ][:2]
    tensors = [value for value in both if isinstance(value, Tensor)]
    if len(tensors) == 2:
        return tensors[1 - position]
    return torch.as_tensor(
        next(value for value in both if not isinstance(value, Tensor))
    )


def _carried(call: Call) -> Call:
    """Walk back over calls that only carry numbers along."""
    while call.inputs and math.prod(call.inputs[0].shape) == math.prod(call.shape):
        if call.name not in _CARRIERS and not (
            call.name in _MOVERS and _keeps_order(call)
        ):
            break
        call = call.inputs[0]
    return call


def _keeps_order(call: Call) -> bool:
    """Whether axes that changed places are all of length one but one, beside the batch."""
    return len([side for side in call.inputs[0].shape[1:] if side > 1]) <= 1


def _is_linear(call: Call) -> bool:
    if call.name == "conv2d":
        # On a 1×1 map a 1×1 convolution is a linear layer; on a larger map it belongs
        # to the feature map.
        return (
            call.shape[2:] == (1, 1)
            and call.inputs[0].shape[2:] == (1, 1)
            and _is_pointwise(call)
        )
    return call.name in ("linear", "addmm") or (
        call.name in ("matmul", "__matmul__", "mm") and len(call.shape) <= 2
    )


def _is_pointwise(call: Call) -> bool:
    weight = call.argument(1, "weight")
    plain = all(
        _all_equal(call.argument(position, keyword, neutral), neutral)
        for position, keyword, neutral in (
            (3, "stride", 1),
            (4, "padding", 0),
            (6, "groups", 1),
        )
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
    return (weight[:, :, 0, 0] if weight.ndim == 4 else weight), call.argument(
        2, "bias"
    )


def _pooling(call: Call, input_size: tuple[int, int]) -> tuple[Call, Call, Axes] | None:
    """The call whose first argument is the pooled map, the call that made the map, and the order of its axes."""
    if not call.inputs:
        return None
    source = call.inputs[0]
    if call.name in ("adaptive_avg_pool2d", "avg_pool2d"):
        whole = call.shape[2:] == (1, 1) and len(source.shape) == 4
        return (call, source, Axes()) if whole else None
    if (
        call.name == "adaptive_avg_pool1d"
        and call.shape[2:] == (1,)
        and len(source.shape) == 3
    ):
        return _pooled_tokens(call, source, 2, input_size)
    if call.name not in ("mean", "sum"):
        return None
    axes = _mean_axes(call, len(source.shape))
    if len(source.shape) == 4 and axes in ({2, 3}, {1, 2}):
        return call, source, Axes("units last") if axes == {1, 2} else Axes()
    if source.inputs and len(source.inputs[0].shape) == 4:
        found = _pooled_by_steps(call, source, axes)
        if found is not None:
            return found
    if len(source.shape) == 3 and axes in ({1}, {2}):
        return _pooled_tokens(call, source, 1 if axes == {1} else 2, input_size)
    return None


def _pooled_by_steps(
    call: Call, source: Call, axes: set[int]
) -> tuple[Call, Call, Axes] | None:
    """A mean over one side and then over the other, or over the cells of a map that was flattened."""
    if source.name == call.name and axes < {2, 3}:  # the first side may have been kept
        first = _mean_axes(source, 4)
        kept = len(source.shape) == 4
        if (first | axes == {2, 3}) if kept else (first < {2, 3} and axes == {2}):
            return source, source.inputs[0], Axes()
    if (
        source.name in ("flatten", "view", "reshape")
        and len(source.shape) == 3
        and axes == {2}
    ):
        same = source.shape[:2] == source.inputs[0].shape[:2]
        return (source, source.inputs[0], Axes()) if same else None
    return None


def _pooled_tokens(
    call: Call, source: Call, axis: int, input_size: tuple[int, int]
) -> tuple[Call, Call, Axes] | None:
    wanted = "tokens" if axis == 1 else "units, tokens"
    axes = source.axes or Axes.tiling(wanted, source.shape[axis], input_size)
    return (
        (call, source, axes)
        if axes and axes.order == wanted and not axes.others
        else None
    )


def _mean_axes(call: Call, dimensions: int) -> set[int]:
    axes = call.argument(1, "dim", call.argument(1, "axis"))
    if axes is None:
        return set()
    return {
        axis % dimensions
        for axis in (axes if isinstance(axes, (tuple, list)) else [axes])
    }


def _refusal(call: Call, linear: Call | None) -> str:
    while call.name in ("permute", "transpose") and call.inputs:
        call = call.inputs[0]
    wanted = _WANTED
    if linear is None:
        what = _EXPLANATIONS.get(call.name, f"'{call.name}'")
        remedy = (
            "wrap it without that, so that it gives logits; "
            if call.name in _PROBABILITIES
            else ""
        )
        return f"the network ends in {what}, not in a linear layer or a pool: {remedy}{wanted}"
    if len(call.shape) == 4 and math.prod(call.shape[1:]) != max(call.shape[1:]):
        shape = "×".join(map(str, call.shape[1:]))
        return f"the last linear layer reads a flattened {shape} map, cell by cell, not a pooled one: {wanted}"
    what = _EXPLANATIONS.get(call.name, f"'{call.name}'")
    if call.name == "__getitem__":
        tokens = bool(call.inputs) and len(call.inputs[0].shape) == 3
        what = "a token (as in ViT)" if tokens else "a selection of units"
    return f"before the last linear layer stands {what} instead of a global average pool: {wanted}"


_REORDERED = ("permute", "transpose", "contiguous")


def _drops_tokens(call: Call) -> bool:
    """Whether a call leaves out what stands before the tokens of the map, such as a class token."""
    return (
        call.name == "__getitem__"
        and len(call.shape) == 3
        and call.shape[2] == call.inputs[0].shape[-1]
    )


def _layer_of(traced: Trace, source: Call) -> tuple[str, bool]:
    """The outermost layer whose output is the map, else the last layer whose output still leads to it."""
    made: dict[int, str] = {}
    for name, run in zip(traced.names(), traced.runs, strict=True):
        known = made.get(id(run.call), name)
        made[id(run.call)] = min(
            known, name, key=lambda name: (name.count("."), len(name))
        )
    itself = source
    while (
        id(itself) not in made
        and itself.inputs
        and (itself.name in _REORDERED or _drops_tokens(itself))
    ):
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
