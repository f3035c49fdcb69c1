"""Frozen: the promise that a network stays as it is, and what was compiled on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from unitscope.engine.exporting import NotCompiledError
from unitscope.engine.snapshot import Snapshot
from unitscope.errors import ModelError, warn_user

Made = TypeVar("Made")

# Each compiled form holds the weights once more. The oldest is compiled again when its
# shape comes back.
_MOST_SHAPES = 4


class Frozen:
    """The compiled forms of a frozen network: one for each shape of input, as they come.

    `layers` are compiled beside the head. A network that cannot be compiled runs as it
    is, which a warning says once; where that is `required`, ModelError is raised instead.

    A change is seen before every pass: another parameter, buffer or module, a write that
    torch counts, another training flag, a hook. Not seen is a write that torch does not
    count: through `.data` or numpy, or by a fused optimizer.
    """

    def __init__(
        self,
        network: nn.Module,
        layers: tuple[str, ...] = (),
        required: bool = False,
    ) -> None:
        self.layers, self.required = layers, required
        self._network = network
        self._compiled: dict[tuple[Any, ...], Any] = {}
        self._snapshot: Snapshot | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A session cannot be copied or sent to another process: the copy compiles anew.
        return {**vars(self), "_compiled": {}, "_snapshot": None}

    def compiled(
        self,
        network: nn.Module,
        shape: tuple[Any, ...],
        compile_: Callable[[], Made],
    ) -> Made | None:
        """The network compiled for inputs of a shape; None where it cannot be compiled.

        `shape` is followed by the kinds of further inputs, where a call gives some, and by the
        layers whose rest is compiled.

        `compile_` compiles it when the shape first comes. A network that has changed is
        compiled anew, with a warning; one that cannot be compiled is not tried again.
        """
        if self._has_changed(network) and any(self._compiled.values()):
            self._compiled.clear()
            self._snapshot = None
            warn_user(
                "the frozen network has changed, and is compiled anew: call thaw() "
                "before you change it"
            )
        if shape not in self._compiled:
            if len(self._compiled) >= _MOST_SHAPES:
                del self._compiled[next(iter(self._compiled))]
            self._network = network
            self._compiled[shape] = self._compile(compile_)
            # Afterwards, since the first pass may have set something up.
            self._snapshot = Snapshot(network)
        made: Made | None = self._compiled[shape]
        return made

    def forget(self, shape: tuple[Any, ...]) -> None:
        """Compile anew when inputs of a shape come again."""
        self._compiled.pop(shape, None)

    def forget_all(self) -> None:
        """Compile anew whatever comes."""
        self._compiled.clear()

    def _has_changed(self, network: nn.Module) -> bool:
        if network is not self._network:
            return True
        return self._snapshot is not None and not self._snapshot.holds()

    def _compile(self, compile_: Callable[[], Made]) -> Made | None:
        try:
            return compile_()
        except NotCompiledError as reason:
            if self.required:
                raise ModelError(
                    f"the network cannot be compiled here, since {reason}"
                ) from None
            warn_user(f"the network runs as it is, not compiled: {reason}")
            return None
