"""Network: the user's module, run and watched without leaving a trace on it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from itertools import chain
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unitscope.errors import (
    HeadError,
    ModelError,
    NonFiniteError,
    UnitscopeError,
)
from unitscope.tracing.ending import Ending
from unitscope.tracing.layers import captured, evaluating, layers_of
from unitscope.tracing.output_choice import Given, OutputName, choose_output
from unitscope.tracing.outputs import OutputChoice
from unitscope.tracing.taps import CallCounter
from unitscope.tracing.trace import Trace, trace, unwatchable

Result = TypeVar("Result")


class Network:
    """The module that is run: inside DataParallel and torch.compile, which hide layers.

    `wanted` is the output that the user wants read as logits, None where the numbers
    shall say it; `labels` is how many labels there are, where there are any.
    """

    def __init__(
        self,
        wrapped: nn.Module,
        wanted: OutputName | None = None,
        labels: int | None = None,
    ) -> None:
        self.wrapped = wrapped
        self.wanted, self._labels = wanted, labels
        self._output: OutputChoice | None = None

    @property
    def module(self) -> nn.Module:
        """The module itself, without the wrappers around it."""
        module: Any = self.wrapped
        parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
        while True:
            if isinstance(module, parallel):
                module = module.module
            elif isinstance(getattr(module, "_orig_mod", None), nn.Module):
                module = module._orig_mod
            else:
                inner: nn.Module = module
                return inner

    @property
    def like(self) -> Tensor:
        """A tensor of the dtype and on the device that the parameters have."""
        numbers = chain(self.module.parameters(), self.module.buffers())
        floating = (tensor for tensor in numbers if tensor.is_floating_point())
        return next(floating, torch.empty(0))

    def guarded(
        self, run: Callable[[], Result], shape: tuple[int, ...]
    ) -> Result:
        """Run the user's code, and turn its own errors into one line of ours.

        `shape` (channel, row, col) is the input that it runs on.
        """
        try:
            return run()
        except UnitscopeError:
            raise
        except torch.cuda.OutOfMemoryError:
            raise ModelError(
                "the device ran out of memory: use a smaller batch_size"
            ) from None
        except (
            Exception
        ) as error:  # it is the user's code, and may raise anything
            raise self._explained(error, shape) from error

    def logits(
        self,
        batch: Float[Tensor, "batch channel row col"],
        ending: Ending,
        counter: CallCounter | None = None,
    ) -> Float[Tensor, "batch class"]:
        """Logits of a forward pass as the network is, float32.

        `ending` says where they are, and `counter` watches the pass. Give it a copy: some
        networks normalise their input in place.
        """

        def forward() -> Any:
            return self.guarded(
                lambda: self.module(batch), tuple(batch.shape[1:])
            )

        return ending.logits(forward, len(batch), counter)

    @property
    def output(self) -> OutputChoice:
        """Which of the network's results holds the logits; known after the first trace."""
        assert self._output is not None
        return self._output

    def read_as_logits(self, wanted: OutputName | None) -> None:
        """Read another output from the next trace on; None: the numbers shall say which."""
        self.wanted, self._output = wanted, None

    def traced(self, shape: tuple[int, ...]) -> tuple[Tensor, Trace]:
        """A traced forward pass on noise of a shape: the noise, and the trace.

        The first one says which output holds the logits. Raises ModelError where none can
        be told to.
        """
        example = self._noise(1, shape)
        traced = self.guarded(lambda: trace(self.module, example), shape)
        if self._output is not None:
            # It is chosen anew where the network gives others since.
            with contextlib.suppress(HeadError):
                return example, traced.read(self._output)

        given = Given(traced.result, self._result_for_two(shape), traced.makers)
        self._output = choose_output(given, self.wanted, self._labels)
        return example, traced.read(self._output)

    def _result_for_two(self, shape: tuple[int, ...]) -> Any:
        """What the network gives for two photos of noise; None where it takes no two."""
        try:
            return self.module(self._noise(2, shape))
        except (
            Exception
        ):  # the user's code may take one photo at a time, and raise anything
            return None

    def _noise(self, photos: int, shape: tuple[int, ...]) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        noise = torch.randn(
            (photos, *shape),
            generator=generator,
            dtype=torch.float32,
            device="cpu",
        )
        return noise.to(self.like.device, self.like.dtype)

    def check_finite(self, values: Tensor, batch: Tensor, what: str) -> None:
        """Raise NonFiniteError where `values` are not finite, naming what broke them."""
        if bool(torch.isfinite(values).all()):
            return
        for name, parameter in self.module.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                raise NonFiniteError(
                    f"{what} are NaN or infinite because the weights '{name}' "
                    "are: load sound weights"
                )
        where = self.first_layer(
            batch, lambda out: not bool(torch.isfinite(out).all())
        )
        raise NonFiniteError(
            f"{what} are NaN or infinite, first in the output of {where}"
        )

    def first_layer(self, batch: Tensor, test: Callable[[Tensor], bool]) -> str:
        """The first layer whose output passes a test, in words.

        Only layers that have no layers inside are looked at.
        """
        with evaluating(self.module):
            layers = layers_of(trace(self.module, batch[:1]))
            names = [layer.name for layer in layers if layer.leaf]
            with captured(self.module, names) as outputs:
                self.module(batch.clone())
        for name in names:
            if name in outputs and test(outputs[name]):
                return f"layer '{name}'"
        return "a function that belongs to no layer"

    def _explained(
        self, error: Exception, shape: tuple[int, ...]
    ) -> ModelError:
        lazy = nn.parameter.UninitializedParameter
        if any(
            isinstance(parameter, lazy)
            for parameter in self.module.parameters()
        ):
            return ModelError(
                "the network has lazy modules without weights yet: run one "
                "forward pass of it first, or load its weights"
            )
        if unwatchable(self.module):
            return ModelError(unwatchable(self.module))
        reason = " ".join(str(error).split())[:300] or repr(error)
        return ModelError(
            f"the network failed on an input of {'×'.join(map(str, shape))} (channel × "
            f"row × col): {reason} — give its own preprocessing or input size"
        )
