"""Forward: run a network as it is, compiled while it is frozen, or in bfloat16."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.engine.compiled import Compiled, compile_network
from unitscope.engine.compiled_rest import CompiledRest, compile_rest
from unitscope.engine.exporting import NotCompiledError
from unitscope.engine.frozen import Frozen
from unitscope.engine.passes import (
    ROUNDED,
    ForwardPass,
    Watched,
    run_bfloat16,
    run_plain,
)
from unitscope.errors import warn_user
from unitscope.model.network import Network
from unitscope.model.structure import Structure, Structures
from unitscope.tracing.layers import ONE_THREAD, Layer


class Forward:
    """The forward passes of a network; `frozen` is set while the network is frozen."""

    def __init__(self, network: Network, structures: Structures) -> None:
        self._network, self._structures = network, structures
        self.frozen: Frozen | None = None

    def of(self, network: Network, structures: Structures) -> Forward:
        """The same, for the network when it is given further inputs."""
        forward = copy.copy(self)
        forward._network, forward._structures = network, structures
        return forward

    def freeze(self, layers: tuple[str, ...], required: bool = False) -> None:
        """Run compiled from now on, with the outputs of `layers` beside the head's input."""
        self.frozen = Frozen(self._network.module, layers, required)

    @contextlib.contextmanager
    def freezing(
        self, layers: tuple[str, ...], required: bool
    ) -> Iterator[None]:
        """A `with` inside which the network is frozen; the state before comes back."""
        before = self.frozen
        is_same = before is not None and before.layers == layers
        if before is None or not is_same or before.required != required:
            self.freeze(layers, required)
        try:
            yield
        finally:
            self.frozen = before

    @contextlib.contextmanager
    def thawing(self) -> Iterator[None]:
        """A `with` inside which every pass runs the network as it is."""
        before, self.frozen = self.frozen, None
        try:
            yield
        finally:
            self.frozen = before

    def forget(self, shape: tuple[int, ...]) -> None:
        """Find the structure anew, and compile anew, when a shape comes again."""
        self._structures.forget(shape)
        self.recompile(shape)

    def recompile(self, shape: tuple[int, ...]) -> None:
        """Compile anew when a shape comes again."""
        if self.frozen is not None:
            self.frozen.forget(self._network.key(shape))

    def forget_all(self) -> None:
        """Find every structure anew, and compile anew."""
        self._structures.forget_all()
        if self.frozen is not None:
            self.frozen.forget_all()

    def run(
        self,
        batch: Float[Tensor, "batch channel row col"],
        layers: tuple[str, ...] = (),
        with_head: bool = True,
        differentiable: bool = False,
    ) -> ForwardPass:
        """One forward pass with the outputs of `layers`, and the head's input.

        Compiled while the network is frozen, else of the network as it is. What is
        `differentiable` carries gradients, and is never compiled.
        """
        shape = tuple(batch.shape[1:])
        if differentiable:
            return self._run_plain(batch, layers, with_head, True)
        with contextlib.nullcontext() if self.frozen is None else ONE_THREAD:
            compiled = self.compiled(shape, layers)
            if compiled is not None:
                return compiled.run(batch)
            return self._run_plain(batch, layers, with_head, False)

    def _run_plain(
        self,
        batch: Tensor,
        layers: tuple[str, ...],
        with_head: bool,
        differentiable: bool,
    ) -> ForwardPass:
        shape = tuple(batch.shape[1:])
        structure = self._structures.at(shape)
        path = structure.path if with_head else None
        watched = Watched(path, layers, structure.ending)
        module = self._network.module
        with self._network.running(differentiable):
            return self._network.guarded(
                lambda: run_plain(module, batch, watched), shape
            )

    def compiled(
        self, shape: tuple[int, ...], layers: tuple[str, ...] = ()
    ) -> Compiled | None:
        """The frozen network compiled for a shape, where that gives these layers."""
        if self.frozen is None:
            return None
        structure = self._structures.at(shape)
        available = (*self.frozen.layers, *structure.layers_of_best_local())
        if not set(layers) <= set(available):
            return None
        names = tuple(dict.fromkeys(available))
        watched = Watched(structure.path, names, structure.ending)
        module, like = self._network.module, self._network.like

        def compile_() -> Compiled:
            self._check_can_compile()
            example = torch.zeros(
                (1, *shape), dtype=like.dtype, device=like.device
            )
            with (
                self._network.running(),
                torch.inference_mode(False),
                torch.no_grad(),
            ):
                return compile_network(module, example, watched)

        key = self._network.key(shape)
        return self.frozen.compiled(module, key, compile_)

    def compiled_rest(
        self, shape: tuple[int, ...], layers: Sequence[Layer]
    ) -> CompiledRest | None:
        """The frozen network from its first layer of `layers` on, compiled for a shape."""
        if self.frozen is None:
            return None
        ending = self._structures.at(shape).ending
        module, like = self._network.module, self._network.like

        def compile_() -> CompiledRest:
            self._check_can_compile()
            example = torch.zeros(
                (1, *shape), dtype=like.dtype, device=like.device
            )
            with (
                self._network.running(),
                torch.inference_mode(False),
                torch.no_grad(),
            ):
                return compile_rest(module, example, layers, ending)

        names = tuple(layer.name for layer in layers)
        key = (*self._network.key(shape), "rest", *names)
        with ONE_THREAD:
            return self.frozen.compiled(module, key, compile_)

    def _check_can_compile(self) -> None:
        if self._network.pixels:
            raise NotCompiledError("it takes uint8 pixels")
        if self._network.further:
            names = ", ".join(map(repr, self._network.further.values))
            raise NotCompiledError(
                f"it is given {names} with every call: what stays the same can be given "
                "to wrap(module, also=…)"
            )

    def run_bfloat16(
        self, batch: Float[Tensor, "batch channel row col"]
    ) -> tuple[ForwardPass, float]:
        """One forward pass in bfloat16, and how far it is rounded.

        That is relative to the largest logit and activation, and was measured on the
        first photos. Where bfloat16 cannot be used, the network runs in its own precision
        and a warning says why.
        """
        if batch.dtype is not torch.float32 or batch.device.type not in (
            "cpu",
            "cuda",
        ):
            warn_of_precision(
                "that needs float32 weights, on the processor or on CUDA"
            )
            return self.run(batch), 0.0

        structure = self._structures.at(tuple(batch.shape[1:]))
        if structure.rounded is None or structure.rounded <= ROUNDED:
            passed = self._run_bfloat16(batch, structure)
            if structure.rounded is None:
                # A frozen network may give more layers than were asked for here.
                exact = dataclasses.replace(self.run(batch), outputs={})
                structure.rounded = passed.difference(exact)
            if structure.rounded <= ROUNDED:
                return passed, structure.rounded
        warn_of_precision(
            f"its numbers would be off by {structure.rounded:.0%}, more than "
            f"{ROUNDED:.0%}"
        )
        return self.run(batch), 0.0

    def _run_bfloat16(self, batch: Tensor, structure: Structure) -> ForwardPass:
        watched, module = Watched(structure.path), self._network.module
        with self._network.running():
            return self._network.guarded(
                lambda: run_bfloat16(module, batch, watched),
                tuple(batch.shape[1:]),
            )


def warn_of_precision(reason: str) -> None:
    """Warn that bfloat16 was asked for and not used."""
    warn_user(
        "bfloat16 was asked for, but the network was run in its own precision: "
        + reason
    )
