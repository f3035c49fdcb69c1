"""Steps: the calls between the pooled units and the logits, and the readout they make."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from unitscope.attribution.arrays import recorded
from unitscope.attribution.readings import Reading, slices_of
from unitscope.attribution.readout import (
    Normalisation,
    Readout,
    added,
    composed,
    embedded,
    scaled,
    shifted,
)
from unitscope.errors import HeadError
from unitscope.tracing.arguments import tensors_in
from unitscope.tracing.functions import (
    LENGTHS,
    SUM_SIGNS,
    UNIT_NORMALISATIONS,
)
from unitscope.tracing.taps import Caught


@dataclass(frozen=True)
class Step:
    """One call between the pooled units and the logits, and the steps before it.

    `kind`: "pooled" (the units themselves), "total" (pooled by a sum: the number of cells
    times the mean), "linear", "norm", "cosine", "batch norm", "shift", "scale", "divide"
    (by constants), "sum" (of two steps), "stacked sum" or "stacked mean" (of any number),
    "cat" (of steps one behind the other, each behind a step "part") or "sides" (the logits
    of two classes from one number, of which the first is `complement` − the number).
    `position` says which of the call's tensor arguments comes from the photo; of pooled
    units, which of the head's readings they are. A call is known by its `index` and
    `name`.
    """

    kind: str
    index: int = -1
    name: str = ""
    before: tuple[Step, ...] = ()
    position: int = 0
    complement: float = 0.0

    def calls(self) -> Iterator[tuple[int, str]]:
        """The calls whose arguments must be caught to compute this step."""
        if self.index >= 0:
            yield self.index, self.name
        for step in self.before:
            yield from step.calls()

    def has(self, kind: str) -> bool:
        """Whether this step or one before it is of a kind."""
        return self.kind == kind or any(step.has(kind) for step in self.before)


POOLED = Step("pooled")


@dataclass(frozen=True)
class Reader:
    """Reads steps off a forward pass: the caught arguments of their calls, and the units.

    The units of all `readings` stand one behind the other; `like` is a tensor of the
    pass, for the device.
    """

    caught: Mapping[int, Caught]
    readings: Sequence[Reading]
    like: Tensor

    def readout_of(self, step: Step) -> Readout:
        """The readout of a step and those before it."""
        if step.kind == "pooled":
            return self._among_all(self._identity(step), None, step)
        if step.kind == "linear" and step.before[0].kind == "pooled":
            weight, bias = affine(step.name, self.caught[step.index])
            return self._among_all(weight, bias, step.before[0])
        if step.kind == "cat":
            return self._concatenated(step)

        before = self.readout_of(step.before[0])
        if step.kind == "total":
            cells = self.readings[step.before[0].position].cells
            return scaled(before, torch.tensor(float(cells)))
        if step.kind == "sides":
            return _both_sides(before, step.complement)
        if step.kind in ("stacked sum", "stacked mean"):
            return self._stacked(step, before)

        call = self.caught[step.index]
        if step.kind == "linear":
            return composed(before, *affine(step.name, call))
        if step.kind == "cosine":
            return _cosine(step, call, before)
        if step.kind == "norm":
            return _normalised(step, call, before)
        if step.kind == "batch norm":
            scale, shift = batch_norm_of(call)
            return shifted(scaled(before, scale), shift)
        if step.kind == "sum":
            second = self.readout_of(step.before[1])
            sign = SUM_SIGNS[step.name] * _alpha(call)
            return added(before, second, sign)
        return _with_constant(step, call, before)

    def _identity(self, pooled: Step) -> Tensor:
        units = self.readings[pooled.position].shape[0]
        return torch.eye(units, dtype=torch.float32, device=self.like.device)

    def _among_all(
        self, weight: Tensor, bias: Tensor | None, pooled: Step
    ) -> Readout:
        """The readout of one reading's units, with weight zero for those of all others."""
        bias = torch.zeros_like(weight[:, 0]) if bias is None else bias.clone()
        if len(self.readings) == 1:
            return Readout(weight.clone(), bias)
        slices = slices_of(reading.shape[0] for reading in self.readings)
        of_all = weight.new_zeros((len(weight), slices[-1].stop))
        of_all[:, slices[pooled.position]] = weight
        return Readout(of_all, bias)

    def _concatenated(self, step: Step) -> Readout:
        """The readout of numbers put one behind the other, some of them constant."""
        call = self.caught[step.index]
        tensors = list(tensors_in((call.args, call.kwargs)))
        moving = {
            part.position: self.readout_of(part.before[0])
            for part in step.before
        }
        first = next(iter(moving.values()))
        weights, biases = [], []
        for place, tensor in enumerate(tensors):
            readout = moving.get(place)
            if readout is None:
                constant = recorded(tensor).to(first.bias).flatten(1)[0]
                weights.append(
                    first.weight.new_zeros(
                        (len(constant), len(first.weight[0]))
                    )
                )
                biases.append(constant)
                continue
            if readout.norm is not None:
                raise HeadError(
                    "numbers that were normalised are put beside others: "
                    "something other than one linear layer"
                )
            weights.append(readout.weight)
            biases.append(readout.bias)
        return Readout(torch.cat(weights), torch.cat(biases))

    def _stacked(self, step: Step, first: Readout) -> Readout:
        """The readout of the sum or mean of several, as of the networks of an ensemble."""
        total = first
        for other in step.before[1:]:
            total = added(total, self.readout_of(other))
        if step.kind == "stacked sum":
            return total
        return scaled(total, torch.tensor(1 / len(step.before)))


def affine(name: str, call: Caught) -> tuple[Tensor, Tensor | None]:
    """Weight (class, unit) and bias of a linear call, in float32."""
    bias: Tensor | None = None
    if name == "addmm":
        weight = call.argument(2, "mat2").T
        bias = call.first
    elif name in ("matmul", "__matmul__", "mm"):
        keyword = "mat2" if name == "mm" else "other"
        weight = call.argument(1, keyword).T
    else:
        weight = call.argument(1, "weight")
        bias = call.argument(2, "bias")
        if weight.ndim == 4:
            weight = weight[:, :, 0, 0]  # a 1×1 convolution
    if bias is not None:
        bias = recorded(bias).to(torch.float32)
    return recorded(weight).to(torch.float32), bias


def _both_sides(before: Readout, complement: float) -> Readout:
    """The readout of two classes: `complement` − the one number, and the number."""
    signs = before.bias.new_tensor([[-1.0], [1.0]])
    constants = before.bias.new_tensor([complement, 0.0])
    return composed(before, signs, constants)


def _with_constant(step: Step, call: Caught, before: Readout) -> Readout:
    """The readout with a constant added, subtracted, multiplied or divided by."""
    constant = _other_argument(call, step.position).to(torch.float32)
    if step.kind == "divide":
        return scaled(before, constant.reciprocal())
    if step.kind == "scale":
        return scaled(before, constant)

    sign = SUM_SIGNS[step.name]
    is_reversed = step.name in ("rsub", "__rsub__")
    if is_reversed or (sign < 0 and step.position == 1):
        negative = scaled(before, torch.tensor(-1.0))
        return shifted(negative, constant)
    offset = sign * _alpha(call) * constant
    return shifted(before, offset)


def _cosine(step: Step, call: Caught, before: Readout) -> Readout:
    """The readout of cosine similarities between numbers and the constant vectors of classes."""
    eps = call.argument(3, "eps")
    norm = Normalisation("length", 1e-8 if eps is None else float(eps))
    vectors = call.argument(1 - step.position, ("x1", "x2")[1 - step.position])
    vectors = recorded(vectors).to(torch.float32)
    weight = normalize(vectors.flatten(0, -2), dim=1, eps=norm.eps)
    return composed(_divided(before, norm, step), weight, None)


def _divided(before: Readout, norm: Normalisation, step: Step) -> Readout:
    """The readout of numbers over one of them."""
    reads_all_units = len(before.weight) == before.weight.shape[1]
    if step.before == (POOLED,) and reads_all_units:
        return Readout(before.weight, before.bias, norm)
    return embedded(before, norm)


def _normalised(step: Step, call: Caught, before: Readout) -> Readout:
    """The readout of a normalisation: numbers over one of them, then scale and shift."""
    norm = _normalisation(step.name, call)
    readout = _divided(before, norm, step)
    if norm.kind == "length":
        return readout

    scale = call.argument(2, "weight")
    shift = call.argument(3, "bias") if norm.centred else None
    if scale is not None:
        readout = scaled(readout, scale)
    return readout if shift is None else shifted(readout, shift)


def _normalisation(name: str, call: Caught) -> Normalisation:
    if name in LENGTHS:
        # Whatever keeps the quotient finite is too small to count.
        return Normalisation("length", 1e-12)
    if name == "normalize":
        eps = call.argument(3, "eps")
        return Normalisation("length", 1e-12 if eps is None else float(eps))

    is_rms = name == "rms_norm"
    eps = call.argument(3 if is_rms else 4, "eps")
    if eps is None:
        eps = torch.finfo(call.first.dtype).eps if is_rms else 1e-5
    return Normalisation(UNIT_NORMALISATIONS[name], float(eps))


def batch_norm_of(call: Caught) -> tuple[Tensor, Tensor]:
    """What batch normalisation with fixed statistics multiplies by and adds."""
    mean = call.argument(1, "running_mean")
    variance = call.argument(2, "running_var")
    if mean is None or variance is None or call.argument(5, "training"):
        raise HeadError(
            "the head normalises by the statistics of its batch, so that a "
            "photo's logits depend on the other photos: give its batch "
            "normalisation running statistics"
        )
    gain = call.argument(3, "weight")
    offset = call.argument(4, "bias")
    eps = call.argument(7, "eps")

    eps = 1e-5 if eps is None else float(eps)
    variance = variance.to(torch.float32) + eps
    scale = variance.rsqrt()
    if gain is not None:
        scale = scale * gain.to(torch.float32)
    shift = -mean.to(torch.float32) * scale
    if offset is not None:
        shift = shift + offset.to(torch.float32)
    return scale, shift


def _alpha(call: Caught) -> float:
    return float(call.kwargs.get("alpha", 1.0))


def _other_argument(call: Caught, position: int) -> Tensor:
    """The argument of a sum, product or quotient that does not come from the photo."""
    named = [
        call.kwargs[key] for key in ("input", "other") if key in call.kwargs
    ]
    both = [*call.args[:2], *named][:2]
    tensors = [value for value in both if isinstance(value, Tensor)]
    if len(tensors) == 2:
        return tensors[1 - position]
    number = next(value for value in both if not isinstance(value, Tensor))
    return torch.as_tensor(number)
