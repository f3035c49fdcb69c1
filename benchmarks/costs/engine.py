"""The engine alone: a frozen network's compiled forward pass, with nothing around it."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from unitscope import Classifier


def compiled_pass(
    model: Classifier, shape: tuple[int, ...] | None = None
) -> Callable[[Tensor], object] | None:
    """The compiled pass for inputs of a shape (channel, row, col); None where it could
    not be compiled."""
    # No public name gives this: users have no need of a pass without its checks.
    passes = model._forward

    compiled = passes.compiled(shape or model.input_shape)
    if compiled is None:
        return None
    return compiled.run
