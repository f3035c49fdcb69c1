"""CompiledRest: what follows a layer of a network, run by ONNX Runtime."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from unitscope.attribution.rounding import relative_difference
from unitscope.engine.compiled import ALLOWED, check_can_compile
from unitscope.engine.exporting import NotCompiledError, exported, session_of
from unitscope.errors import one_line
from unitscope.tracing.ending import Ending
from unitscope.tracing.layers import Layer, captured, replacing


@dataclass(frozen=True, eq=False)
class CompiledRest:
    """What follows a layer, for outputs of that layer in batches of any size.

    It gives what the network gives from there on, to 1e-5 of the largest logit: that was
    measured on noise when it was compiled. `shape` is that of the network's input, which
    the session takes and does not read.
    """

    session: Any = field(repr=False)
    shape: tuple[int, ...]

    def logits(
        self, outputs: Sequence[Shaped[Tensor, "batch ..."]]
    ) -> Float[Tensor, "batch class"]:
        """The logits for outputs of the layer, and of the one that is held before it."""
        unread = torch.zeros((len(outputs[0]), *self.shape))
        names = [each.name for each in self.session.get_inputs()]
        feed = {
            name: given.detach().contiguous().numpy()
            for name, given in zip(names, (unread, *outputs), strict=True)
        }
        (logits,) = self.session.run(None, feed)
        return torch.from_numpy(logits)


class _Rest(nn.Module):
    """The network with the outputs of one or two of its layers given."""

    def __init__(
        self, network: nn.Module, layers: Sequence[Layer], ending: Ending
    ) -> None:
        super().__init__()
        self.network = network
        self._layers, self._ending = layers, ending

    def forward(
        self, x: Tensor, output: Tensor, held: Tensor | None = None
    ) -> Tensor:
        outputs = [output] if held is None else [output, held]
        with contextlib.ExitStack() as contexts:
            for layer, given in zip(self._layers, outputs, strict=True):
                contexts.enter_context(replacing(self.network, layer, given))
            return self._ending.logits(lambda: self.network(x), x.shape[0])


def compile_rest(
    network: nn.Module,
    example: Float[Tensor, "1 channel row col"],
    layers: Sequence[Layer],
    ending: Ending,
) -> CompiledRest:
    """Compile what follows the first of `layers`, the second being held before it.

    The network must be in evaluation mode, without gradients. Raises NotCompiledError,
    saying why, where it cannot be compiled, reads its input beside the layers, or gives
    other logits.
    """
    check_can_compile(network, example)
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn((2, *example.shape[1:]), generator=generator)
    names = [layer.name for layer in layers]
    with captured(network, names) as kept:
        network(noise.clone())
    first, *others = (kept[name] for name in names)
    outputs = (first / 2, *others)
    rest = _Rest(network, layers, ending)
    expected = rest(noise.clone(), *(each.clone() for each in outputs))

    graph, any_batch = exported(rest, (noise, *outputs))
    if not any_batch:
        raise NotCompiledError("its rest takes batches of one size only")
    session, _ = session_of(graph)
    compiled = CompiledRest(session, tuple(example.shape[1:]))
    try:
        alone = torch.cat(
            [compiled.logits([each[[k]] for each in outputs]) for k in (0, 1)]
        )
        together = compiled.logits(outputs)
    except Exception as failure:  # the runtime's errors are of many kinds
        raise NotCompiledError(
            f"compiled its rest fails on some batches: {one_line(failure)}"
        ) from None
    for logits in (alone, together):
        error = float(relative_difference(logits, expected).max())
        if not error <= ALLOWED:
            raise NotCompiledError(
                f"compiled its rest would be off by {error:.1e} of its largest number"
            )
    return compiled
