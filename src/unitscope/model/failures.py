"""Failures: why a network fails on an input, found by trying others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from torch import Tensor, nn

from unitscope.errors import ModelError, kind_and_text
from unitscope.tracing.layers import evaluating

# (channel, row, col)
_Shape = tuple[int, ...]

# Noise of a shape, for a number of photos.
_Noise = Callable[[_Shape, int], Tensor]

# The sides of usual inputs, the most usual one first.
_USUAL_SIDES = (224, 256, 384, 299, 336, 448, 512, 128, 96, 64, 32, 28)
_USUAL_CHANNELS = (3, 1, 4)

# What torch's allocator on the processor says, in a RuntimeError.
_NO_MEMORY = "can't allocate memory"


def failure(
    module: nn.Module, error: Exception, shape: tuple[int, ...], noise: _Noise
) -> ModelError:
    """The error for a network that failed on an input of `shape` (channel, row, col).

    The remedy is what other inputs show: `noise` makes them.
    """
    reason = reason_of(error)
    failed = failed_on(shape)
    if isinstance(error, MemoryError) or _NO_MEMORY in reason:
        return ModelError(
            f"{failed}: memory ran out ({reason}): use a smaller batch_size, or smaller "
            "inputs"
        )

    def runs(photos: int, shape: _Shape) -> bool:
        # Noise may break the network's own conditions for its input, and 0 may not.
        return any(
            _runs(module, scale * noise(shape, photos)) for scale in (1, 0)
        )

    if not runs(1, shape):
        others = _others(shape, _channels_of(module))
        return ModelError(f"{failed}: {reason} — {_remedy(runs, others)}")
    if not runs(2, shape):
        return ModelError(
            f"{failed}: {reason} — it takes one photo at a time: use batch_size=1"
        )
    return ModelError(
        f"{failed}: {reason} — it takes other inputs of this shape, so the cause is in "
        "this one's numbers or in the network's own code: run the network by itself on "
        "it to see where"
    )


def reason_of(error: Exception) -> str:
    """An error of the user's code on one line: its text, and its kind where that helps."""
    if type(error) is RuntimeError and str(error):
        # Torch's own words say enough.
        return " ".join(str(error).split())[:300]
    return kind_and_text(error)


def failed_on(shape: _Shape) -> str:
    """The begin of an error about a network that failed on an input of `shape`."""
    return f"the network failed on an input of {_in_words(shape)}"


def _runs(module: nn.Module, batch: Tensor) -> bool:
    try:
        with evaluating(module):
            module(batch)
    except Exception:  # the user's code may raise anything
        return False
    return True


def _remedy(
    runs: Callable[[int, _Shape], bool], others: Iterable[_Shape]
) -> str:
    """What to do about a network that may take inputs of other shapes."""
    for other in others:
        if runs(1, other):
            return f"it takes {_in_words(other)}: give its own preprocessing or input size"
    return (
        "it fails on inputs of other usual sizes and channels too: run the network by "
        "itself, to see whether the cause is in its own code or it takes inputs of "
        "another kind"
    )


def _channels_of(module: nn.Module) -> list[int]:
    """The channels that a network may take, those of its first filters first."""
    filters = (
        parameter for parameter in module.parameters() if parameter.ndim == 4
    )
    first = [parameter.shape[1] for parameter in islice(filters, 1)]
    return [*first, *_USUAL_CHANNELS]


def _others(shape: _Shape, channels: Sequence[int]) -> Iterator[_Shape]:
    """Usual shapes: of as many channels first, then of others."""
    own, *size = shape
    for side in _USUAL_SIDES:
        yield own, side, side
    for other in dict.fromkeys(channels):
        if other != own:
            yield other, *size
            for side in _USUAL_SIDES:
                yield other, side, side


def _in_words(shape: _Shape) -> str:
    return f"{'×'.join(map(str, shape))} (channel × row × col)"
