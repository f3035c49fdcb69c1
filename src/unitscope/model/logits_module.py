"""LogitsModule: a copy of a network that gives logits, for other libraries to change."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence

from jaxtyping import Float
from torch import Tensor, nn

from unitscope.errors import HeadError, InputError, LayerError, kind_and_text
from unitscope.model.network import Network
from unitscope.model.structure import Structures
from unitscope.tracing.calling import Calling
from unitscope.tracing.ending import Ending
from unitscope.tracing.layers import Layer, evaluating, find_map_layer
from unitscope.tracing.trace import unwatchable


class LogitsModule(nn.Module):
    """A copy of a network, `network`, whose forward gives logits (batch, class) alone.

    Other libraries may put hooks on it, replace its layers and fill its gradients: the
    user's module sees nothing of it. `layers` are those for inputs of one shape.
    """

    def __init__(
        self,
        network: nn.Module,
        calling: Calling,
        ending: Ending,
        layers: Sequence[Layer],
    ) -> None:
        super().__init__()
        self.network = network
        self.layers = list(layers)
        self._calling, self._ending = calling, ending

    def forward(
        self, x: Float[Tensor, "batch channel row col"]
    ) -> Float[Tensor, "batch class"]:
        """Logits, float32."""
        return self._ending.logits(lambda: self.network(x), len(x))

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """A `with` inside which it runs in evaluation mode, recording gradients."""
        with (
            evaluating(self, differentiable=True),
            self._calling.installed(self.network),
        ):
            yield

    def layer(self, name: str) -> tuple[nn.Module, Layer]:
        """The copy's module of a layer with a map, and the layer.

        Raises LayerError for a layer that runs several times, HeadError for a network
        whose logits are found by counting its calls: hooks would be counted with them.
        """
        layer = find_map_layer(self.layers, name)
        modules = dict(self.network.named_modules())
        if name not in modules:
            raise LayerError(
                f"layer '{name}' is one run of a module that runs several times, which other "
                "libraries cannot tell apart: choose a method of our own"
            )
        if self._ending.call is not None:
            raise HeadError(
                "the network ends in a softmax or sigmoid, and other libraries would explain "
                "probabilities: wrap the network without it, or choose a method of our own"
            )
        return modules[name], layer


def logits_module(
    network: Network, structures: Structures, shape: tuple[int, ...]
) -> LogitsModule:
    """A copy of a network for inputs of a shape (channel, row, col)."""
    reason = unwatchable(network.module)
    if reason:
        raise HeadError(reason)
    if network.pixels:
        raise InputError(
            "the network takes uint8 pixels, which other libraries cannot mask or take "
            "gradients of: wrap the network behind the conversion"
        )
    structure = structures.at(shape)
    try:
        copied = copy.deepcopy(network.module)
    except Exception as error:  # the user's code may raise anything
        raise HeadError(
            f"the network cannot be copied ({kind_and_text(error)}), and other libraries "
            "change what they explain: choose a method of our own"
        ) from error
    for parameter in copied.parameters():
        parameter.grad = None
    return LogitsModule(
        copied, network.calling, structure.ending, structure.layers
    )
