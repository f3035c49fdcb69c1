"""Snapshot: what a network was like, as far as a cheap look shows it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from unitscope.tracing.layers import parts_of


class Snapshot:
    """The modules, tensors, versions of tensors, training flags and hooks of a network.

    It keeps modules and tensors alive: nothing new can get the identity of something old.
    It does not see a write that torch does not count.
    """

    def __init__(self, network: nn.Module) -> None:
        self._modules = parts_of(network)
        plain = [
            value
            for module in self._modules
            for value in vars(module).values()
            if isinstance(value, Tensor)
        ]
        self._tensors = [*network.parameters(), *network.buffers(), *plain]
        self._state = self._read()

    def holds(self) -> bool:
        """Whether the network is still like this."""
        return self._read() == self._state

    def _read(self) -> list[Any]:
        # This is read before every pass. The dictionaries themselves take a fraction of
        # the time that torch's own walks over modules and parameters take.
        modules = [
            (
                module.training,
                len(module._forward_hooks),
                len(module._forward_pre_hooks),
                *map(id, module._modules.values()),
                *map(id, module._parameters.values()),
                *map(id, module._buffers.values()),
            )
            for module in self._modules
        ]
        versions = [
            0 if tensor.is_inference() else tensor._version
            for tensor in self._tensors
        ]
        everywhere = torch.nn.modules.module
        hooks = len(everywhere._global_forward_hooks)
        pre_hooks = len(everywhere._global_forward_pre_hooks)
        return [hooks, pre_hooks, modules, versions]
