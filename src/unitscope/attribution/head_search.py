"""Head search: walk back from the logits to the pool, and prove the algebra on numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from unitscope.attribution.arrays import cell_means
from unitscope.attribution.exact_heads import (
    EXACT_KINDS,
    ExactHead,
    Source,
    common_grid,
    finest_of,
)
from unitscope.attribution.head_path import (
    HeadPath,
    TappedPass,
    run_tapped,
    run_with_tap,
)
from unitscope.attribution.head_walk import HeadWalk
from unitscope.attribution.places import lie_in_place
from unitscope.attribution.pooling import (
    Pool,
)
from unitscope.attribution.probes import probes
from unitscope.attribution.readings import Reading
from unitscope.attribution.refusal import WANTED
from unitscope.attribution.rounding import (
    ablation_difference,
    completeness_error,
    rounding_error,
)
from unitscope.attribution.steps import Step
from unitscope.errors import HeadError
from unitscope.tracing.calls import Call
from unitscope.tracing.ending import IN_OUTPUT, Ending
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
    ends there. Raises HeadError, saying why, where the network does not end in a global
    average pool and one linear layer, or where the identity does not hold on every probe.
    """
    reason = unwatchable(module)
    if reason:
        raise HeadError(reason)
    traced = traced or trace(module, example[:1]).read(THE_RESULT)
    kind, path, pools = _walk_back(traced, ending)
    layer, is_map = _layer_of(traced, finest_of(pools).source)
    is_map = is_map and all(reading.is_plain for reading in path.readings)
    is_map = is_map and len(path.readings) == 1

    inputs = probes(example)
    errors = []
    for x in inputs:
        compared = [layer] if is_map and x is inputs[-1] else []
        with captured(module, compared) as outputs:
            tapped = run_tapped(module, x, path)
        errors.append(_prove_completeness(tapped, x.dtype))
    _prove_ablation(module, inputs[-1], path, tapped)
    for pool, reading in zip(pools, path.readings, strict=True):
        if pool.source.grid is None:
            _prove_places(module, inputs[-1], path, pool.source, reading)

    feature_map = tapped.feature_map
    units, rows, cols = (int(side) for side in feature_map.shape[1:])
    head = kind(
        layer=layer,
        layer_is_map=is_map
        and _has_numbers_of(outputs.get(layer), feature_map),
        readout=tapped.readout,
        error=max(errors),
        probes=sum(len(x) for x in inputs),
        grid=common_grid(pools)[0],
        map_shape=(units, rows, cols),
        sources=_sources(traced, pools, path.readings),
    )
    return head, path


def _sources(
    traced: Trace, pools: Sequence[Pool], readings: Sequence[Reading]
) -> tuple[Source, ...]:
    """The parts of the head: named by their layers, and by their pools where these differ."""
    layers = [_layer_of(traced, pool.source)[0] for pool in pools]
    sources = []
    taken: set[str] = set()
    for layer, pool, reading in zip(layers, pools, readings, strict=True):
        kind = " + ".join(pool.kinds)
        name = layer if layers.count(layer) == 1 else f"{layer}, {kind}"
        again = 2
        while name in taken:
            name = f"{layer}, {kind} {again}"
            again += 1
        taken.add(name)
        shape = "×".join(map(str, pool.map_shape))
        words = f"{kind} pool of '{layer}' ({shape})"
        units = pool.map_shape[0]
        sources.append(Source(name, units, words, reading.is_plain))
    return tuple(sources)


def _walk_back(
    traced: Trace, ending: Ending
) -> tuple[type[ExactHead], HeadPath, tuple[Pool, ...]]:
    """The kind of head, its path, and the pools of the feature maps."""
    assert traced.output is not None
    walk = HeadWalk(traced)
    last = walk.step_of(traced.output, linear=None)
    if ending.complement is not None:
        last = Step("sides", before=(last,), complement=ending.complement)
    for kind in EXACT_KINDS:
        found = kind.path_to(last, walk.pools)
        if found is not None:
            path, pools = found
            return kind, replace(path, ending=ending), pools
    raise HeadError(f"no kind of exact head fits: {WANTED}")


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
    switch = path.changing(off)
    real = path.ending.logits(lambda: module(fresh), len(x), switch)

    ablated = feature_map.clone()
    ablated[:, off] = 0
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
    module: nn.Module,
    x: Tensor,
    path: HeadPath,
    source: Call,
    reading: Reading,
) -> None:
    """Raise HeadError unless cells lie where they are assumed to lie, as they tile the input.

    Tokens without axes do so exactly or not at all; strides put the cells of maps up to
    half a cell off.
    """
    are_followed = source.axes is not None or len(source.shape) == 4

    def map_of(x: Tensor) -> Tensor:
        return reading.map_of(run_with_tap(module, x, path)[2].caught)

    if lie_in_place(map_of, x, slack=1 if are_followed else 0):
        return
    what = "cells"
    if len(source.shape) == 3:
        what = "tokens"
    raise HeadError(
        f"the network ends in a mean over {reading.cells} {what} and a linear layer, but its "
        f"{what} could not be followed back to places on the photo"
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
