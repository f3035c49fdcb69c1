"""Stream search: find the residual stream of a network, and prove its account on numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unitscope.attribution.constants import Constants
from unitscope.attribution.places import lie_in_place
from unitscope.attribution.probes import probes
from unitscope.errors import HeadError, kind_and_text
from unitscope.residual.account import StreamAccount
from unitscope.residual.attention import Attended
from unitscope.residual.grounds import Attention
from unitscope.residual.head import HEADS, ResidualHead
from unitscope.residual.patches import Patches
from unitscope.residual.path import Change, StreamPath, as_variants
from unitscope.residual.rows import PHOTOS
from unitscope.residual.step import StreamStep
from unitscope.residual.steps import Scaled, Sides
from unitscope.residual.walk import StreamWalk
from unitscope.tracing.blame import is_ours, is_passed_on
from unitscope.tracing.calls import Call
from unitscope.tracing.ending import Ending
from unitscope.tracing.trace import Trace, trace

# Give numbers of a tensor to Python.
_TAKING = ("item", "tolist", "__float__", "__int__")


def find_stream(
    module: nn.Module,
    example: Tensor,
    single: Trace,
    ending: Ending,
    reason: str,
) -> tuple[ResidualHead, StreamPath]:
    """Find the residual stream and prove its account on probe inputs.

    `single` traced one photo, `example` (batch, channel, row, col) gives shape, dtype and
    device. The module must be in evaluation mode, without gradients; `ending` says where
    its logits are. `reason` says why there is no exact head.

    Raises HeadError, saying why, where the token that is read cannot be followed, or the
    parts do not add up to the logits.
    """
    inputs = probes(example)
    traced = _traced(module, torch.cat(inputs)[:PHOTOS])
    walk = StreamWalk(traced, single)
    walk.walk(_logits_call(traced, ending))
    steps = list(walk.steps)
    if ending.complement is not None:
        last = len(steps) - 1
        steps.append(Sides(before=(last,), complement=ending.complement))
    path = StreamPath(tuple(steps), ending, Patches(walk.grids()))

    everything = torch.ones((1, len(path.heads)), device=example.device)
    errors = [_prove(module, x, path, everything) for x in inputs]
    half = everything.clone()
    half[:, ::2] = 0
    _prove(module, inputs[-1], path, half)
    if walk.assumed():
        first = min(walk.assumed(), key=lambda place: steps[place].index)
        _prove_places(module, inputs[-1], path, first)
    return (
        ResidualHead(
            layer=HEADS,
            layer_is_map=False,
            error=max(errors),
            probes=len(inputs),
            grid=path.patches.grid,
            map_shape=(len(path.heads), *path.patches.cells),
            reason=reason,
            blocks=_layers(traced, [call.index for call in path.calls]),
            mlps=_layers(traced, list(path.mlps)),
            unit_names=tuple(f"{block}.{head}" for block, head in path.heads),
            tokens=_tokens_read(path),
            held=_is_held(steps) or _takes_numbers(traced),
        ),
        path,
    )


def _traced(module: nn.Module, photos: Tensor) -> Trace:
    """A pass with several photos; raises HeadError where the network takes one only."""
    try:
        return trace(module, photos)
    except KeyboardInterrupt:
        raise
    # It is the user's code, and may raise anything.
    except BaseException as error:
        if is_passed_on(error) or is_ours(error):
            raise
        raise HeadError(
            f"the network fails with {len(photos)} photos at a time "
            f"({kind_and_text(error)})"
        ) from None


def _logits_call(traced: Trace, ending: Ending) -> Call:
    """The call that makes the logits."""
    if ending.call is None:
        return traced.makers[ending.output.path]
    found = [
        call for call in traced.calls if (call.index, call.name) == ending.call
    ]
    if not found:
        raise HeadError("it takes another path with two photos than with one")
    return found[0]


def _prove(
    module: nn.Module, x: Tensor, path: StreamPath, keep: Tensor
) -> float:
    """How far the parts of a real pass are from its logits, with every head as in `keep`.

    Raises HeadError where that is more than rounding, or where the logits computed anew
    from what was written are others.
    """
    try:
        passed = path.run(module, x, Change(keep))
    except HeadError:
        raise HeadError(
            "it takes another path with two photos than with one"
        ) from None
    account = StreamAccount.of(path, passed)
    error = account.check(passed.logits, x.dtype)
    anew = path.logits(as_variants(passed.read))[:, 0]
    account.check(anew, x.dtype)
    return error


def _prove_places(
    module: nn.Module, x: Tensor, path: StreamPath, place: int
) -> None:
    """Raise HeadError unless patches lie where they are assumed to, as they tile the input.

    `place` is that of the step of the first attention to them.
    """
    step = path.steps[place]
    assert isinstance(step, Attention)

    def map_of(x: Tensor) -> Tensor:
        attended: Attended = path.run(module, x).read[place]
        weights = attended.weights[..., None]
        # Nothing is taken where the weight is 0.
        values = attended.taken / torch.where(weights == 0, 1, weights)
        values = values.transpose(1, 2).flatten(2)
        patches = step.tokens.split(values)[0].transpose(1, 2)
        return patches.reshape(*patches.shape[:2], *step.tokens.patches)

    if not lie_in_place(map_of, x, slack=1):
        raise HeadError(
            "which token is which patch of the photo cannot be told: they are not in the "
            "order of rows and columns"
        )


def _layers(traced: Trace, indices: Sequence[int]) -> tuple[str, ...]:
    """The layer in which each of some calls runs."""
    names = []
    for index in indices:
        ends_next = [
            (name, run.leaf)
            for name, run in zip(traced.names(), traced.runs, strict=True)
            if run.call.index >= index
        ]
        name, is_leaf = ends_next[0] if ends_next else ("the network", False)
        # What follows the call is a part of the same layer.
        is_inside = is_leaf and "." in name
        names.append(name.rpartition(".")[0] if is_inside else name)
    return tuple(names)


def _tokens_read(path: StreamPath) -> int:
    """How many tokens are read by the head."""
    reads = {(step.index, step.call.query) for step in path.attentions}
    return max(
        sum(index == call.index for index, _ in reads) for call in path.calls
    )


def _is_held(steps: Sequence[StreamStep]) -> bool:
    """Whether numbers that the photo sets multiply the stream."""
    return any(isinstance(step, Scaled) and step.is_gate for step in steps)


def _takes_numbers(traced: Trace) -> bool:
    """Whether Python takes numbers out of tensors that the photo sets."""
    constants = Constants()
    return any(
        call.name in _TAKING and call not in constants for call in traced.calls
    )
