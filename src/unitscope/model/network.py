"""Network: the user's module, run and watched without leaving a trace on it."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unitscope.attribution.probes import as_pixels
from unitscope.errors import (
    OUT_OF_MEMORY,
    HeadError,
    InternalError,
    ModelError,
    NonFiniteError,
    UnitscopeError,
    kind_and_text,
)
from unitscope.inputs.further import Further
from unitscope.model.failures import failed_on, failure, reason_of
from unitscope.model.repeatability import warn_where_they_differ
from unitscope.tracing.blame import is_ours, is_passed_on
from unitscope.tracing.calling import Calling
from unitscope.tracing.ending import Ending
from unitscope.tracing.layers import captured, evaluating, layers_of
from unitscope.tracing.output_choice import Given, OutputName, choose_output
from unitscope.tracing.outputs import OutputChoice
from unitscope.tracing.taps import CallCounter
from unitscope.tracing.trace import Trace, trace, unwatchable

Result = TypeVar("Result")


@dataclass
class _Learned:
    """What running a network has shown of it."""

    needs_pixels: bool = False
    channels: int | None = None
    output: OutputChoice | None = None


class Network:
    """The module that is run: inside DataParallel and torch.compile, which hide layers.

    `fixed` are further inputs that are the same for all photos. `wanted` is the output
    that the user wants read as logits, None where the numbers shall say it; `labels` is
    how many labels there are, where there are any.
    """

    def __init__(
        self,
        wrapped: nn.Module,
        fixed: Further | None = None,
        wanted: OutputName | None = None,
        labels: int | None = None,
    ) -> None:
        self.wrapped = wrapped
        self.fixed = fixed or Further()
        self.further = Further()
        self._given_pixels = False
        self._wanted, self._labels = wanted, labels
        # Shared with all that `given` makes.
        self._learned = _Learned()

    def wrap(self, module: nn.Module) -> None:
        """Run another module from now on."""
        self.wrapped = module
        self._learned = _Learned(output=self._learned.output)

    def given(self, further: Further, pixels: bool) -> Network:
        """The same network, given the further inputs of a batch, and uint8 pixels or not."""
        given = copy.copy(self)
        given.further = further
        given._given_pixels = pixels
        return given

    def for_photo(self, image: int) -> Network:
        """The same network, given the further inputs of one photo of the batch."""
        if not self.further:
            return self
        return self.given(self.further.rows([image]), self._given_pixels)

    @property
    def pixels(self) -> bool:
        """Whether the network is given uint8 pixels."""
        return self._given_pixels or self._learned.needs_pixels

    def learn_pixels(self, shape: tuple[int, ...]) -> bool:
        """Whether the network runs on uint8 inputs alone; it is then always given those."""
        as_pixels = self.given(self.further, pixels=True)
        floating = self.noise(shape)
        if self.runs(floating) or not as_pixels.runs(as_pixels.noise(shape)):
            return False
        self._learned.needs_pixels = True
        return True

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

    @property
    def calling(self) -> Calling:
        """How the network is called; raises ModelError where an input is missing."""
        like = self.like
        fixed, further = self.fixed.like(like), self.further.like(like)
        return Calling.of(self.module, fixed, further, self.pixels)

    @contextlib.contextmanager
    def running(self, differentiable: bool = False) -> Iterator[None]:
        """A `with` inside which the module may be run, with photos alone.

        It is in evaluation mode, records gradients or not, and is given its other inputs.
        """
        with (
            evaluating(self.module, differentiable),
            self.calling.installed(self.module),
        ):
            yield

    def key(self, shape: tuple[int, ...]) -> tuple[Any, ...]:
        """What a structure is known by: the shape of inputs, and what goes with them."""
        if not (self.further or self.pixels):
            return shape
        return (*shape, self.further.kind, self.pixels)

    @property
    def channels(self) -> int | None:
        """How many channels the first convolution takes; None where there is none."""
        for module in self.module.modules():
            weight = getattr(module, "weight", None)
            is_lazy = isinstance(weight, nn.parameter.UninitializedParameter)
            if isinstance(module, nn.Conv2d) and not is_lazy:
                return int(module.weight.shape[1]) * module.groups
        return None

    def usual_channels(self, assumed: int, size: tuple[int, int]) -> int:
        """How many channels the network takes, proved by a forward pass on noise.

        That is as many as the first convolution takes, or else those `assumed`.
        """
        wanted = self.channels
        if wanted is None or wanted == assumed:
            return assumed
        if self._learned.channels is None:
            takes = self.runs(self.noise((wanted, *size)))
            self._learned.channels = wanted if takes else assumed
        return self._learned.channels

    def runs(self, batch: Tensor) -> bool:
        """Whether a forward pass succeeds."""
        try:
            with self.running():
                self._blaming(lambda: self.module(batch.clone()), _unexplained)
        except UnitscopeError:
            return False
        return True

    def guarded(
        self, run: Callable[[], Result], shape: tuple[int, ...]
    ) -> Result:
        """Run the user's code, and turn its own errors into one line of ours.

        `shape` (channel, row, col) is the input that it runs on. Errors of unitscope, and
        interrupts, stay what they are.
        """
        return self._blaming(run, lambda error: self._explained(error, shape))

    def _blaming(
        self,
        run: Callable[[], Result],
        explain: Callable[[BaseException], ModelError],
    ) -> Result:
        """Run the user's code; what it raises becomes the error that `explain` makes."""
        try:
            return run()
        except KeyboardInterrupt:
            raise
        except torch.cuda.OutOfMemoryError:
            raise ModelError(OUT_OF_MEMORY) from None
        except (
            BaseException
        ) as error:  # it is the user's code, and may raise anything
            if is_passed_on(error):
                raise
            if is_ours(error) and not unwatchable(self.module):
                raise InternalError.of(error) from error
            raise explain(error) from error

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
    def has_output(self) -> bool:
        """Whether a trace has shown which of the network's results holds the logits."""
        return self._learned.output is not None

    @property
    def output(self) -> OutputChoice:
        """Which of the network's results holds the logits; known after the first trace."""
        assert self._learned.output is not None
        return self._learned.output

    def read_as_logits(self, wanted: OutputName | None) -> None:
        """Read another output from the next trace on; None: the numbers shall say which."""
        self._wanted, self._learned.output = wanted, None

    def traced(self, shape: tuple[int, ...]) -> tuple[Tensor, Trace]:
        """A traced forward pass on noise of a shape: the noise, and the trace.

        The first one says which output holds the logits. Raises ModelError where none can
        be told to.
        """
        example = self.noise(shape)
        traced = self.guarded(lambda: trace(self.module, example), shape)
        if self._learned.output is not None:
            # It is chosen anew where the network gives others since.
            with contextlib.suppress(HeadError):
                return example, traced.read(self._learned.output)

        given = Given(traced.result, self._result_for_two(shape), traced.makers)
        output = choose_output(given, self._wanted, self._labels)
        self._learned.output = output
        traced = traced.read(output)
        if given.two is not None and not self.further:
            alone = traced.logits
            assert alone is not None
            warn_where_they_differ(
                alone,
                output.logits(given.two, 2)[1:],
                lambda: output.logits(self.module(self.noise(shape)), 1),
            )
        return example, traced

    def _result_for_two(self, shape: tuple[int, ...]) -> Any:
        """What the network gives for two photos of noise, the second one `noise(shape)`.

        None where it takes no two.
        """
        try:
            another = self.noise(shape, photos=2)[1:]
            noise = torch.cat([another, self.noise(shape)])
            return self._blaming(lambda: self.module(noise), _unexplained)
        except UnitscopeError:  # it may take one photo at a time
            return None

    def noise(self, shape: tuple[int, ...], photos: int = 1) -> Tensor:
        """Inputs of noise, always the same for a shape; of pixels if they are taken."""
        generator = torch.Generator().manual_seed(1)
        noise = torch.randn(
            (photos, *shape),
            generator=generator,
            dtype=torch.float32,
            device="cpu",
        )
        return self.as_input(noise)

    def as_input(self, noise: Tensor) -> Tensor:
        """Noise of deviation 1 as the network takes inputs: its dtype and device, range."""
        if self.pixels:
            noise = as_pixels(noise)
        return noise.to(self.like.device, self.like.dtype)

    def check_finite(self, values: Tensor, batch: Tensor, what: str) -> None:
        """Raise NonFiniteError where `values` are not finite, naming what broke them."""
        if bool(torch.isfinite(values).all()):
            return
        numbers = chain(
            self.module.named_parameters(), self.module.named_buffers()
        )
        is_parameter = dict(self.module.named_parameters())
        for name, tensor in numbers:
            # Buffers may be infinite on purpose, as masks of attention are.
            wrong = (
                ~torch.isfinite(tensor)
                if name in is_parameter
                else torch.isnan(tensor)
            )
            if bool(wrong.any()):
                raise NonFiniteError(
                    f"{what} are NaN or infinite because the weights '{name}' "
                    "are: load sound weights"
                )
        where = self.first_layer(
            batch, lambda out: not bool(torch.isfinite(out).all())
        )
        remedy = "check the scale of the input, and that layer's weights"
        if self.like.dtype in (torch.float16, torch.bfloat16):
            remedy = "run the network in float32, module.float()"
        raise NonFiniteError(
            f"{what} are NaN or infinite, first in the output of {where}: {remedy}"
        )

    def first_layer(self, batch: Tensor, test: Callable[[Tensor], bool]) -> str:
        """The first layer whose output passes a test, in words.

        Only layers that have no layers inside are looked at.
        """
        shape = tuple(batch.shape[1:])
        with self.running():
            traced = self.guarded(lambda: trace(self.module, batch[:1]), shape)
            names = [layer.name for layer in layers_of(traced) if layer.leaf]
            with captured(self.module, names) as outputs:
                self.guarded(lambda: self.module(batch.clone()), shape)
        for name in names:
            if name in outputs and test(outputs[name]):
                return f"layer '{name}'"
        return "a function that belongs to no layer"

    def _explained(
        self, error: BaseException, shape: tuple[int, ...]
    ) -> ModelError:
        if not isinstance(error, Exception):
            return ModelError(
                f"the network ended with {error!r} instead of giving logits: take "
                "what raises it out of its forward"
            )
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
        remedy = ""
        if self.channels not in (None, shape[0]):
            remedy = (
                f"its first convolution takes {self.channels} channels: give "
                f"(batch, {self.channels}, row, col) tensors, or a preprocessing that "
                "makes such inputs"
            )
        names = {**self.fixed.values, **self.further.values}
        if names:
            listed = " and ".join(map(repr, names))
            remedy = f"check {listed}, or give its own input size"
        if not remedy:
            return failure(self.module, error, shape, self.noise)
        return ModelError(f"{failed_on(shape)}: {reason_of(error)} — {remedy}")


def _unexplained(error: BaseException) -> ModelError:
    """The error where nobody reads why: an explanation takes many forward passes."""
    return ModelError(kind_and_text(error))
