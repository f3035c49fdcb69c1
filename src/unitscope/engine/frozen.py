"""Frozen: the promise that a network stays as it is, and what was compiled on the strength of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from unitscope.engine.compiled import Compiled, NotCompiledError
from unitscope.errors import ModelError, UnitscopeWarning
from unitscope.tracing.layers import parts_of

# Each holds the weights once more; what was compiled for the least recent shape is
# compiled again when that comes back.
_KEPT = 4


class Frozen:
    """The compiled forms of a frozen network, one for each shape of input, each made when that shape first comes.

    `layers` are compiled beside the head. A network that cannot be compiled runs as it
    is, which a warning says once; where that is `required`, ModelError is raised
    instead.

    What has changed is seen before every pass: another parameter, buffer or module, a
    write that torch counts, another training flag, a hook. Not seen is a write that
    torch does not count: through `.data` or numpy, or by a fused optimizer.
    """

    def __init__(
        self, network: nn.Module, layers: tuple[str, ...] = (), required: bool = False
    ) -> None:
        self.layers, self.required = layers, required
        self._network = network
        self._compiled: dict[tuple[int, ...], Compiled | None] = {}
        self._snapshot: _Snapshot | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A session cannot be sent to another process or copied; whoever gets this
        # compiles anew.
        return {**vars(self), "_compiled": {}, "_snapshot": None}

    def compiled(
        self,
        network: nn.Module,
        shape: tuple[int, ...],
        compile_: Callable[[], Compiled],
    ) -> Compiled | None:
        """The network compiled for inputs of a shape, by `compile_` when it first comes; None where it cannot be.

        A network that has changed is compiled anew, with a warning; one that could not
        be compiled is not tried again.
        """
        changed = network is not self._network or (
            self._snapshot is not None and not self._snapshot.holds()
        )
        if changed and any(self._compiled.values()):
            self._compiled.clear()
            self._snapshot = None
            warnings.warn(
                "the frozen network has changed, and is compiled anew: call thaw() "
                "before you change it",
                UnitscopeWarning,
                stacklevel=2,
            )
        if shape not in self._compiled:
            if len(self._compiled) >= _KEPT:
                del self._compiled[next(iter(self._compiled))]
            self._network = network
            self._compiled[shape] = self._made(compile_)
            # After it: the first pass may have set something up.
            self._snapshot = _Snapshot(self._network)
        return self._compiled[shape]

    def forget(self, shape: tuple[int, ...]) -> None:
        """Compile anew when inputs of a shape come again."""
        self._compiled.pop(shape, None)

    def _made(self, compile_: Callable[[], Compiled]) -> Compiled | None:
        try:
            return compile_()
        except NotCompiledError as reason:
            if self.required:
                raise ModelError(
                    f"the network cannot be compiled here, since {reason}"
                ) from None
            warnings.warn(
                f"the network runs as it is, not compiled: {reason}",
                UnitscopeWarning,
                stacklevel=2,
            )
            return None


class _Snapshot:
    """What a network was like, as far as can be seen at little cost: its modules, tensors, versions, flags, hooks.

    It keeps them alive, so that nothing new can have the identity of something old.
    """

    def __init__(self, network: nn.Module) -> None:
        self._modules = parts_of(network)
        plain = (
            value
            for module in self._modules
            for value in vars(module).values()
            if isinstance(value, Tensor)
        )
        self._tensors = [*network.parameters(), *network.buffers(), *plain]
        self._state = self._read()

    def holds(self) -> bool:
        """Whether nothing has changed since."""
        return self._read() == self._state

    def _read(self) -> list[Any]:
        # Once for every pass: the dictionaries themselves, since torch's own walks take
        # several times as long.
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
        everywhere = torch.nn.modules.module
        hooks = (
            len(everywhere._global_forward_hooks),
            len(everywhere._global_forward_pre_hooks),
        )
        return [
            hooks,
            modules,
            [
                0 if tensor.is_inference() else tensor._version
                for tensor in self._tensors
            ],
        ]
