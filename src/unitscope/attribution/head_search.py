"""Head search: walk back from the logits to the pool, and prove the algebra on numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from unitscope.attribution.arrays import cell_means
from unitscope.attribution.exact_heads import EXACT_KINDS, ExactHead
from unitscope.attribution.head_path import HeadPath, TappedPass, run_tapped
from unitscope.attribution.pooling import (
    Pool,
    carried_from,
    input_position,
    is_linear,
    pool_at,
)
from unitscope.attribution.probes import probes
from unitscope.attribution.refusal import WANTED, refusal
from unitscope.attribution.rounding import (
    ablation_difference,
    completeness_error,
    rounding_error,
)
from unitscope.attribution.steps import POOLED, Step
from unitscope.errors import HeadError
from unitscope.geometry import Grid
from unitscope.tracing.axes import Axes
from unitscope.tracing.calls import Call
from unitscope.tracing.ending import IN_OUTPUT, Ending
from unitscope.tracing.functions import (
    ELEMENTWISE_PRODUCTS,
    SUM_SIGNS,
    UNIT_NORMALISATIONS,
    UNIT_QUOTIENTS,
)
from unitscope.tracing.layers import captured, nesting
from unitscope.tracing.outputs import THE_RESULT
from unitscope.tracing.trace import Trace, trace, unwatchable


def find_head(
    module: nn.Module,
    example: Tensor,
    traced: Trace | None = None,
    ending: Ending = IN_OUTPUT,
) -> tuple[ExactHead, HeadPath]:
    """Find the exact head and prove it on probe inputs.

    `example` (batch, channel, row, col) gives shape, dtype and device. The module must be
    in evaluation mode, without gradients; `ending` says where its logits are, and `traced`
    ends there. Raises HeadError, saying why, where the network
    does not end in a global average pool and one linear layer, or where the identity does
    not hold on every probe.
    """
    reason = unwatchable(module)
    if reason:
        raise HeadError(reason)
    traced = traced or trace(module, example[:1]).read(THE_RESULT)
    kind, path, source = _walk_back(traced, ending)
    layer, is_map = _layer_of(traced, source)

    inputs = probes(example)
    errors = []
    for x in inputs:
        compared = [layer] if is_map and x is inputs[-1] else []
        with captured(module, compared) as outputs:
            tapped = run_tapped(module, x, path)
        errors.append(_prove_completeness(tapped, x.dtype))
    _prove_ablation(module, inputs[-1], path, tapped)
    if path.assumed:
        _prove_places(module, inputs[-1], path, tapped.feature_map)

    feature_map = tapped.feature_map
    units, rows, cols = (int(side) for side in feature_map.shape[1:])
    head = kind(
        layer=layer,
        layer_is_map=is_map
        and _has_numbers_of(outputs.get(layer), feature_map),
        readout=tapped.readout,
        error=max(errors),
        probes=sum(len(x) for x in inputs),
        grid=source.grid or Grid.tiling(traced.input_size, (rows, cols)),
        map_shape=(units, rows, cols),
    )
    return head, path


def _walk_back(
    traced: Trace, ending: Ending
) -> tuple[type[ExactHead], HeadPath, Call]:
    """The kind of head, its path, and the call that makes the feature map."""
    assert traced.output is not None
    walk = _Walk(traced)
    last = walk.step_of(traced.output, linear=None)
    if ending.complement is not None:
        last = Step("sides", before=(last,), complement=ending.complement)
    assert walk.pool is not None
    for kind in EXACT_KINDS:
        applies = kind.path_to(last, walk.pool)
        if applies is not None:
            path, source = applies
            return kind, replace(path, ending=ending), source
    raise HeadError(f"no kind of exact head fits: {WANTED}")


class _Walk:
    """Walks back from the logits through everything affine, to the one pool behind it."""

    def __init__(self, traced: Trace) -> None:
        self._traced = traced
        self._is_constant_known: dict[int, bool] = {}
        self.pool: Pool | None = None

    def step_of(self, call: Call, linear: Call | None) -> Step:
        """The step that makes a call's result; `linear` is a linear layer after it.

        Raises HeadError, saying why, where something else stands.
        """
        call = carried_from(call)
        pool = pool_at(call, self._traced.input_size)
        if pool is not None:
            if self.pool is not None and self.pool.call is not pool.call:
                raise HeadError(refusal(call, linear))
            self.pool = pool
            return (
                Step("total", before=(POOLED,))
                if call.name == "sum"
                else POOLED
            )

        if is_linear(call):
            return self._linear(call)
        step = self._arithmetic(call, linear) or self._normalisation(
            call, linear
        )
        if step is None:
            raise HeadError(refusal(call, linear))
        return step

    def _linear(self, call: Call) -> Step:
        position = input_position(call)
        weights = [
            each for place, each in enumerate(call.inputs) if place != position
        ]
        if not all(map(self._is_constant, weights)):
            raise HeadError(
                f"the weights of the last linear layer depend on the photo: {WANTED}"
            )
        before = self.step_of(call.inputs[position], call)
        return Step("linear", call.index, call.name, (before,))

    def _arithmetic(self, call: Call, linear: Call | None) -> Step | None:
        """A sum, product or quotient with a constant, or the sum of two steps."""
        if call.name in SUM_SIGNS:
            kind = "shift"
        elif call.name in ELEMENTWISE_PRODUCTS:
            kind = "scale"
        elif call.name in UNIT_QUOTIENTS:
            kind = "divide"
        else:
            return None
        moving = [each for each in call.inputs if not self._is_constant(each)]
        numbers = math.prod(call.shape)
        if not moving:
            return None
        if any(math.prod(each.shape) != numbers for each in moving):
            return None  # it is broadcast

        if len(moving) == 1:
            is_divisor = kind == "divide" and call.inputs[0] is not moving[0]
            if is_divisor:
                return None
            return self._after(call, kind, moving, linear)
        if len(moving) == 2 and kind == "shift":
            return self._after(call, "sum", moving, linear)
        return None

    def _normalisation(self, call: Call, linear: Call | None) -> Step | None:
        """A normalisation of the units by constants, or by one number for each photo."""
        if not call.inputs:
            return None
        units = max(call.shape[1:], default=0)
        for shape in (call.shape, call.inputs[0].shape):
            if math.prod(shape[1:]) != units:
                return None
        if not all(map(self._is_constant, call.inputs[1:])):
            return None  # its scale or shift depends on the photo
        if call.name == "batch_norm":
            return self._after(call, "batch norm", [call.inputs[0]], linear)
        if call.name not in UNIT_NORMALISATIONS or linear is None:
            return None
        if not _normalises_all(call, units):
            return None

        step = self._after(call, "norm", [call.inputs[0]], linear)
        # One divisor for each photo: only the pooled units themselves may be normalised.
        return step if step.before == (POOLED,) else None

    def _after(
        self, call: Call, kind: str, moving: Sequence[Call], linear: Call | None
    ) -> Step:
        try:
            before = tuple(self.step_of(each, linear) for each in moving)
        except HeadError:
            if len(moving) > 1:
                # The reason is this sum, not what one of its branches ends in.
                raise HeadError(refusal(call, linear)) from None
            raise
        position = call.inputs.index(moving[0])
        return Step(kind, call.index, call.name, before, position)

    def _is_constant(self, call: Call) -> bool:
        """Whether a call does not depend on the photo."""
        known = self._is_constant_known
        # A stack instead of recursion: networks may be thousands of calls deep.
        stack = [call]
        while stack:
            top = stack[-1]
            unknown = [each for each in top.inputs if id(each) not in known]
            if unknown and id(top) not in known:
                stack += unknown
                continue
            inputs_constant = all(known[id(each)] for each in top.inputs)
            known[id(top)] = top.name != "input" and inputs_constant
            stack.pop()
        return known[id(call)]


def _normalises_all(call: Call, units: int) -> bool:
    """Whether a normalisation divides all units of a photo by the same number."""
    if call.name == "group_norm":
        return bool(call.argument(1, "num_groups") == 1)
    if call.name == "normalize":
        is_length = bool(call.argument(1, "p", 2.0) == 2)
        return is_length and bool(call.argument(2, "dim", 1) in (1, -1))
    shape: tuple[int, ...] = call.argument(1, "normalized_shape", ())
    return math.prod(shape) == units


def _prove_completeness(tapped: TappedPass, dtype: torch.dtype) -> float:
    """The completeness error of a pass; raises HeadError where it is not rounding."""
    error = float(completeness_error(*tapped))
    allowed = float(rounding_error(*tapped, dtype))
    if not error <= allowed:
        raise HeadError(
            "the network seems to end in pooling and a linear layer, but its logits "
            f"differ from that algebra by {error:.1e} of the largest logit (rounding "
            f"allows {allowed:.0e}): something else contributes to them"
        )
    return error


def _prove_ablation(
    module: nn.Module, x: Tensor, path: HeadPath, tapped: TappedPass
) -> None:
    """Raise HeadError unless the readout without half the units is a real forward pass.

    A readout that is read off the very pass that it explains may depend on the units in
    ways that the trace does not show: a divisor that left torch as a Python number, a
    gate in compiled code. `tapped` is the pass on `x` with all units on.
    """
    logits, feature_map, readout = tapped
    off = list(range(0, feature_map.shape[1], 2))
    fresh = x.clone()
    switch = path.without_units(off)
    real = path.ending.logits(lambda: module(fresh), len(x), switch)

    ablated = Axes().without(feature_map, off)
    fast = readout.logits(cell_means(ablated))
    error = ablation_difference(fast, real, logits)
    allowed = torch.maximum(
        rounding_error(real, ablated, readout, x.dtype),
        rounding_error(logits, ablated, readout, x.dtype),
    )
    if not bool((error <= allowed).all()):
        raise HeadError(
            "the network seems to end in pooling and a linear layer, but "
            "without half of the units its logits differ from that algebra by "
            f"{float(error.max()):.1e} of the largest logit: they depend on "
            "the units in another way too"
        )


def _prove_places(
    module: nn.Module, x: Tensor, path: HeadPath, feature_map: Tensor
) -> None:
    """Raise HeadError unless tokens lie where they were assumed to lie.

    The square of the input under a cell is changed; that cell must change most. No flip,
    transposition or order of windows keeps all the cells that are tried in place.
    """
    rows, cols = feature_map.shape[2:]
    height, width = x.shape[2] // rows, x.shape[3] // cols
    tried = (
        (0, cols - 1),
        (rows - 1, 0),
        (rows // 2, cols // 3),
        (1 % rows, 1 % cols),
    )
    for row, col in tried:
        changed = x.clone()
        top, left = row * height, col * width
        square = changed[:, :, top : top + height, left : left + width]
        square.copy_(square.flip(0, 1, 2, 3) + 2)

        difference = run_tapped(module, changed, path).feature_map - feature_map
        change = difference.square().sum(dim=(0, 1))
        most_changed = int(change.argmax())
        if most_changed != row * cols + col:
            raise HeadError(
                f"the network ends in a mean over {rows * cols} tokens and a linear "
                "layer, but its tokens could not be followed back to places on the "
                "photo"
            )


def _has_numbers_of(output: Tensor | None, feature_map: Tensor) -> bool:
    """Whether a layer's output is the pooled map, and nothing was written into it since."""
    if output is None:
        return False
    if output.numel() != feature_map.numel():
        return True  # the same numbers with other tokens before them
    # Sorted: a layer may give its axes in another order.
    numbers = output.to(torch.float32).flatten().sort().values
    pooled_numbers = feature_map.flatten().sort().values
    return torch.equal(numbers, pooled_numbers)


def _layer_of(traced: Trace, source: Call) -> tuple[str, bool]:
    """The outermost layer whose output is the map, and True.

    Else the last layer whose output still leads to it, and False.
    """
    makers: dict[int, str] = {}
    for name, run in zip(traced.names(), traced.runs, strict=True):
        known = makers.get(id(run.call), name)
        makers[id(run.call)] = min(known, name, key=nesting)

    map_itself = source
    while id(map_itself) not in makers and _only_reorders(map_itself):
        map_itself = map_itself.inputs[0]
    if id(map_itself) in makers:
        return makers[id(map_itself)], True

    seen: set[int] = set()
    frontier = [source]
    while frontier:
        call = frontier.pop(0)
        if id(call) in makers:
            return makers[id(call)], False
        for before in call.inputs:
            if id(before) not in seen:
                seen.add(id(before))
                frontier.append(before)
    return "input", False


def _only_reorders(call: Call) -> bool:
    """Whether a call gives the same map in another order of axes, or without other tokens."""
    if not call.inputs:
        return False
    drops_tokens = (
        call.name == "__getitem__"
        and len(call.shape) == 3
        and call.shape[2] == call.inputs[0].shape[-1]
    )
    return drops_tokens or call.name in ("permute", "transpose", "contiguous")
