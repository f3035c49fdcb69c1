"""Factors: a one for every unit of every layer, whose gradient says what the unit gives.

Each layer's output is multiplied by ones, which changes no number. The gradient of a logit
with respect to the one of a unit is Σ gradient · activation over all places of its map.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unitscope.tracing.layers import Layer
from unitscope.tracing.outputs import first_tensor, with_tensor
from unitscope.tracing.taps import uncounted


@dataclass(eq=False)
class _Scaled:
    """An output that was multiplied by `ones` (batch, unit), and the name of its layer.

    `before` is the tensor before that, `after` the one after it, each with the number of
    writes that torch had counted.
    """

    name: str
    ones: Tensor
    before: Tensor
    before_version: int
    after: weakref.ref[Tensor]
    after_version: int


class Factors:
    """Multiplies the outputs of `layers` by ones: a function for `on_outputs`.

    A map that several layers return is multiplied once, and has the name of the outermost.
    `left_out` says which layers cannot be multiplied, and why. With `copies` the
    multiplied tensors are copied first, for networks that write into them later.
    """

    def __init__(
        self, layers: Sequence[Layer], photos: int, *, copies: bool = False
    ) -> None:
        self._layers = {layer.name: layer for layer in layers}
        self._photos, self._copies = photos, copies
        self._scaled: list[_Scaled] = []
        self.left_out: dict[str, str] = {}

    @property
    def ones(self) -> Mapping[str, Tensor]:
        """The ones (batch, unit) of every layer that ran, in order of execution."""
        return {scaled.name: scaled.ones for scaled in self._scaled}

    def written_later(self) -> list[str]:
        """The layers into whose own outputs the network wrote after they were multiplied.

        Such a write did not reach the multiplied tensor, which may matter.
        """
        return [
            scaled.name
            for scaled in self._scaled
            if scaled.before._version != scaled.before_version
        ]

    def __call__(self, name: str, output: Any) -> Any:
        """The output with its tensor multiplied; None where it stays as it is."""
        tensor = first_tensor(output)
        if tensor is None:
            return None
        with uncounted():
            if self._has_known(name, tensor):
                return None
            reason = self._obstacle(tensor)
            rebuilt = None if reason else self._multiplied(name, output, tensor)
        if rebuilt is None:
            kind = type(output).__name__
            self.left_out[name] = (
                reason or f"it returns a {kind} that cannot be rebuilt"
            )
        return rebuilt

    def _has_known(self, name: str, tensor: Tensor) -> bool:
        """Whether the tensor is already multiplied; an outer layer gives it its name."""
        for scaled in self._scaled:
            if scaled.after() is not tensor:
                continue
            # An operation that writes into it makes another map of it.
            if scaled.after_version != tensor._version:
                continue
            if scaled.name.startswith(f"{name.partition(':')[0]}."):
                scaled.name = name
            return True
        return False

    def _obstacle(self, tensor: Tensor) -> str:
        if not torch.is_grad_enabled():
            return "the network runs it without gradients (torch.no_grad)"
        if not tensor.is_floating_point():
            return "its numbers are not floating-point numbers"
        if tensor.shape[0] != self._photos:
            return "its output has no row for every photo"
        return ""

    def _multiplied(self, name: str, output: Any, tensor: Tensor) -> Any:
        axes = self._layers[name].axes
        assert axes is not None
        axis = 1
        if axes.order in ("units last", "tokens"):
            axis = tensor.ndim - 1
        shape = [1] * tensor.ndim
        shape[0], shape[axis] = tensor.shape[0], tensor.shape[axis]

        ones = tensor.new_ones((shape[0], shape[axis])).requires_grad_()
        source = tensor.clone() if self._copies else tensor
        product = source * ones.view(shape)
        rebuilt = with_tensor(output, tensor, product)
        if rebuilt is not None:
            # Without its history, but with its count of writes.
            before = tensor.detach()
            self._scaled.append(
                _Scaled(
                    name,
                    ones,
                    before,
                    before._version,
                    weakref.ref(product),
                    product._version,
                )
            )
        return rebuilt
