"""Suffix: the rest of a network after one layer, run and differentiated on its own."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unitscope.attribution.map_change import OFF, MapChange
from unitscope.attribution.rounding import relative_difference
from unitscope.attribution.stand_in import ShapesOnly, keeping_numbers
from unitscope.errors import (
    OUT_OF_MEMORY,
    HeadError,
    InternalError,
    LayerError,
    ModelError,
    kind_and_text,
    one_line,
)
from unitscope.tracing.blame import is_ours, is_passed_on
from unitscope.tracing.calling import Calling
from unitscope.tracing.ending import IN_OUTPUT, Ending
from unitscope.tracing.layers import Layer, evaluating, replacing

# As many copies of a map go through the rest of the network at a time as keep the largest
# tensor below this. On the processor it then stays in the cache, which is fastest.
_CACHE_BYTES = 16 << 20
_DEVICE_BYTES = 256 << 20


@dataclass(frozen=True, eq=False)
class Suffix:
    """The rest of a network after one layer, for some photos: feature map → logits.

    The network itself runs, on a stand-in for the photos that has no numbers, until it
    reaches the layer; there the feature map is handed over, and from there on it
    computes. Where something bypasses the layer, the output that an earlier layer had on
    these photos (`start`, `held`) is handed over first. Where that cannot be, the whole
    network runs on the photos (`inputs`). What bypasses the layer stays as it was.

    `others` are the tokens that stand beside those of the map, (batch, token, unit).
    `largest` is how many numbers the largest map from the layer on has, for one photo.
    `ending` says where the logits are in what the network gives, `calling` what the network
    is given beside the photos. Where the rest is `compiled`, that gives the logits of the
    output of the layer, and of the one held. What is `differentiable` gives logits and
    gradients that carry gradients themselves.
    """

    network: nn.Module = field(repr=False)
    layer: Layer
    input_shape: tuple[int, int, int]
    like: Tensor = field(repr=False)
    largest: int
    others: Tensor | None = field(repr=False, default=None)
    start: Layer | None = None
    held: Tensor | None = field(repr=False, default=None)
    differentiable: bool = False
    inputs: Tensor | None = field(repr=False, default=None)
    ending: Ending = IN_OUTPUT
    calling: Calling = field(repr=False, default_factory=Calling)
    compiled: Callable[[list[Tensor]], Tensor] | None = field(
        repr=False, default=None
    )

    def __getitem__(self, image: int) -> Suffix:
        """The rest of the network for one photo, as a batch of one."""
        return self._for_photos(torch.tensor([image]))

    def joined(self, rest: Sequence[Suffix]) -> Suffix:
        """The rest of the network for these photos and those of others behind them."""

        def together(name: str) -> Tensor | None:
            values = [getattr(suffix, name) for suffix in (self, *rest)]
            return None if values[0] is None else torch.cat(values)

        return dataclasses.replace(
            self,
            others=together("others"),
            held=together("held"),
            inputs=together("inputs"),
            calling=self.calling.joined([each.calling for each in rest]),
        )

    def detach(self) -> Suffix:
        """The same without gradients."""

        def alone(values: Tensor | None) -> Tensor | None:
            return None if values is None else values.detach()

        return dataclasses.replace(
            self,
            others=alone(self.others),
            held=alone(self.held),
            inputs=alone(self.inputs),
            calling=self.calling.detach(),
            differentiable=False,
        )

    def changed(self, change: MapChange, units: Sequence[int]) -> Suffix:
        """The same with units changed in the tokens beside the map as well."""
        return dataclasses.replace(
            self, others=change.of_tokens(self.others, units)
        )

    def logits(
        self, feature_map: Float[Tensor, "batch unit row col"]
    ) -> Float[Tensor, "batch class"]:
        """A real forward pass of the rest, for feature maps of these photos; float32."""
        with self._running(self.differentiable):
            return self._run(feature_map)

    def logits_of_each(
        self,
        feature_map: Float[Tensor, "unit row col"],
        logits: Float[Tensor, "class"],
        units: Sequence[int],
        change: MapChange = OFF,
    ) -> Iterator[tuple[list[int], Float[Tensor, "few class"]]]:
        """The logits of one photo with each of `units` changed in turn, by real passes.

        Some units go through at a time; one, where the network mixes what is in a batch.
        What changes nothing, as switching off a silent unit, needs no pass. No context is
        held open between two results: whoever takes them may stop at any time.
        """
        matters = change.changes_anything(feature_map, self.others)
        active = [unit for unit in units if matters[unit]]
        silent = [unit for unit in units if not matters[unit]]
        if silent:
            yield silent, logits.expand(len(silent), -1)

        at_once = self._copies()
        if at_once > 1 and len(active) > 1:
            at_once = 1 if self._mixes_batch(feature_map, logits) else at_once
        for start in range(0, len(active), at_once):
            chunk = active[start : start + at_once]
            yield chunk, self._each_changed(feature_map, chunk, change)

    def gradients(
        self,
        feature_map: Float[Tensor, "batch unit row col"],
        logits: Float[Tensor, "batch class"],
        classes: Sequence[int],
        take: Callable[[int, Tensor], None],
    ) -> None:
        """Call `take` with each class and ∂logit[c]/∂A (batch, unit, row, col).

        One forward pass of the rest for all classes, and one backward pass for each.
        """
        # Gradients flow whatever the user's contexts say; none is left on a parameter.
        with self._running(differentiable=True):
            leaf = feature_map.clone().requires_grad_()
            rerun = self._run(leaf)
            if not rerun.requires_grad:
                raise HeadError(
                    "the logits have no gradient with respect to layer "
                    f"'{self.layer.name}': the network computes them outside autograd, "
                    "and local answers need their gradients"
                )
            check_same(rerun, logits, self.like.dtype)
            for position, index in enumerate(classes):
                is_last = position == len(classes) - 1
                gradient = self._gradient(
                    rerun[:, index].sum(), leaf, keep=not is_last
                )
                take(index, _zeros_if_none(gradient, feature_map))

    def check_unchanged(self, feature_map: Tensor, logits: Tensor) -> None:
        """Raise ModelError where the rest no longer gives the logits that were explained."""
        check_same(self.logits(feature_map), logits, self.like.dtype)

    def runs_alone(
        self,
        feature_map: Float[Tensor, "batch unit row col"],
        logits: Float[Tensor, "batch class"],
    ) -> bool:
        """Whether the rest gives the logits from the map alone, without its input."""
        try:
            rerun = self.logits(feature_map)
        except ModelError:
            return False
        difference = float(relative_difference(rerun, logits).max())
        return difference <= same_enough(self.like.dtype)

    def _gradient(
        self, logit: Tensor, leaf: Tensor, keep: bool
    ) -> Tensor | None:
        try:
            (gradient,) = torch.autograd.grad(
                logit,
                leaf,
                retain_graph=self.differentiable or keep,
                create_graph=self.differentiable,
                allow_unused=True,
            )
        except torch.cuda.OutOfMemoryError:
            raise ModelError(OUT_OF_MEMORY) from None
        except RuntimeError as error:
            raise HeadError(
                f"the gradients at layer '{self.layer.name}' cannot be computed "
                f"({one_line(error)}): choose a layer after it"
            ) from error
        result: Tensor | None = gradient
        return result

    @contextlib.contextmanager
    def _running(self, differentiable: bool) -> Iterator[None]:
        with (
            evaluating(self.network, differentiable),
            self.calling.installed(self.network),
        ):
            yield

    def _for_photos(self, images: Tensor) -> Suffix:
        def rows(values: Tensor | None) -> Tensor | None:
            return None if values is None else values[images.to(values.device)]

        return dataclasses.replace(
            self,
            others=rows(self.others),
            held=rows(self.held),
            inputs=rows(self.inputs),
            calling=self.calling.rows(images.tolist()),
        )

    def _mixes_batch(self, feature_map: Tensor, logits: Tensor) -> bool:
        """Whether a map's logits depend on what else is in the batch.

        Tried on the map and a fainter copy of it.
        """
        others = None if self.others is None else self.others / 2
        faint = dataclasses.replace(self, others=others)
        alone = faint.logits(feature_map[None] / 2)
        pair = torch.stack([feature_map, feature_map / 2])
        together = self.joined([faint]).logits(pair)
        difference = relative_difference(
            together, torch.cat([logits[None], alone])
        )
        return float(difference.detach().max()) > same_enough(self.like.dtype)

    def _each_changed(
        self,
        feature_map: Tensor,
        units: Sequence[int],
        change: MapChange,
    ) -> Tensor:
        """One copy of a photo's map for each unit, with that unit changed."""
        copies = self._for_photos(torch.zeros(len(units), dtype=torch.long))
        maps = change.each_of_map(feature_map, units)
        if self.others is not None:
            others = change.each_of_tokens(self.others, units)
            copies = dataclasses.replace(copies, others=others)
        return copies.logits(maps)

    def _copies(self) -> int:
        """How many copies of a photo go through at a time."""
        size = self.largest * self.like.element_size()
        is_cpu = self.like.device.type == "cpu"
        return max(1, (_CACHE_BYTES if is_cpu else _DEVICE_BYTES) // size)

    def _run(self, feature_map: Tensor) -> Tensor:
        assert self.layer.axes is not None
        # A copy, since what follows may write into it.
        output = self.layer.axes.laid_back(feature_map, self.others).clone()
        if self.compiled is not None and not torch.is_grad_enabled():
            held = [] if self.held is None else [self.held]
            return self.compiled([output, *held])
        try:
            logits = self._run_from(output)
        except KeyboardInterrupt:
            raise
        except torch.cuda.OutOfMemoryError:
            raise ModelError(OUT_OF_MEMORY) from None
        except (
            BaseException
        ) as error:  # it is the user's code, and may raise anything
            if is_passed_on(error):
                raise
            # On a stand-in without numbers, anything may fail.
            if self.inputs is not None and is_ours(error):
                raise InternalError.of(error) from error
            raise ModelError(
                f"what follows layer '{self.layer.name}' failed: {kind_and_text(error)}: "
                "choose a layer after it"
            ) from error
        if logits.is_meta:
            raise ModelError(
                f"something bypasses layer '{self.layer.name}' on the way to the logits: "
                "choose one that everything passes through"
            )
        return logits

    def _run_from(self, output: Tensor) -> Tensor:
        """The logits when the layer's output is replaced by this one."""
        with contextlib.ExitStack() as contexts:
            contexts.enter_context(keeping_numbers(self.network))
            if self.differentiable:
                contexts.enter_context(_plain_attention())
            if self.inputs is not None:
                x = (
                    self.inputs.clone()
                )  # some networks normalise their input in place
            else:
                shape = (len(output), *self.input_shape)
                x = torch.empty(shape, device="meta", dtype=self.like.dtype)
                contexts.enter_context(ShapesOnly().on())
            if self.start is not None and self.held is not None:
                held = self.held.clone()
                contexts.enter_context(
                    replacing(self.network, self.start, held)
                )
            contexts.enter_context(replacing(self.network, self.layer, output))
            return self.ending.logits(lambda: self.network(x), len(output))


def suffix_after(
    module: nn.Module,
    layer: Layer,
    outputs: Mapping[str, Tensor],
    x: Tensor,
    start: Layer | None,
    ending: Ending,
    layers: Sequence[Layer],
    differentiable: bool = False,
) -> tuple[Float[Tensor, "batch unit row col"], Suffix]:
    """The feature map of a layer, float32, and the rest of the network for these photos.

    `outputs` holds the captured outputs of the layer and of `start`, from which the rest
    is run; without a `start` the whole network is run. `ending` says where its logits are;
    `layers` are all layers of the network.
    """
    axes, numbers = layer.axes, outputs[layer.name]
    if axes is None or not layer.is_map:
        raise LayerError(
            f"layer '{layer.name}' gives no feature map with several cells: choose a "
            "layer before it"
        )
    feature_map = axes.units_first(numbers).to(torch.float32).contiguous()
    earlier = start if start is not None and start.name != layer.name else None
    suffix = Suffix(
        network=module,
        layer=layer,
        input_shape=(int(x.shape[1]), int(x.shape[2]), int(x.shape[3])),
        like=x[:0].to(numbers.dtype),
        largest=_largest(layers, start),
        others=axes.other_tokens(numbers),
        start=earlier,
        held=outputs[earlier.name] if earlier else None,
        inputs=x.clone() if start is None else None,
        ending=ending,
        differentiable=differentiable,
    )
    return feature_map, suffix


def _largest(layers: Sequence[Layer], start: Layer | None) -> int:
    """How many numbers the largest output has, for one photo, from a layer on."""
    first = 0 if start is None else layers.index(start)
    return max(math.prod(layer.shape) for layer in layers[first:])


def _zeros_if_none(gradient: Tensor | None, like: Tensor) -> Tensor:
    """The gradient; zeros where the logit does not depend on the map at all."""
    return torch.zeros_like(like) if gradient is None else gradient


def _plain_attention() -> contextlib.AbstractContextManager[Any]:
    """Attention step by step: fused attention has no second derivatives."""
    try:
        from torch.nn.attention import SDPBackend, sdpa_kernel
    except ImportError:  # torch 2.2, which chooses by itself
        return contextlib.nullcontext()
    plain: contextlib.AbstractContextManager[Any] = sdpa_kernel(SDPBackend.MATH)
    return plain


def check_same(
    rerun: Float[Tensor, "batch class"],
    logits: Float[Tensor, "batch class"],
    dtype: torch.dtype,
) -> None:
    """Raise ModelError where a pass of a network of this dtype no longer gives the logits."""
    difference = float(
        relative_difference(rerun.detach(), logits.detach()).max()
    )
    if not difference <= same_enough(dtype):
        raise ModelError(
            "the network no longer gives the logits that were explained (off by "
            f"{difference:.1e} of the largest): it has changed since, or gives "
            "another result each time; explain again"
        )


def same_enough(dtype: torch.dtype) -> float:
    """How far two passes of the same numbers may differ, relative to the largest logit."""
    return max(1e-4, 64 * torch.finfo(dtype).eps)
