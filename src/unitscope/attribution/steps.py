"""Steps: the calls between the pooled units and the logits, and the readout they make."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from unitscope.attribution.arrays import recorded
from unitscope.attribution.readout import (
    Normalisation,
    Readout,
    added,
    scaled,
    shifted,
)
from unitscope.errors import HeadError
from unitscope.tracing.functions import SUM_SIGNS, UNIT_NORMALISATIONS
from unitscope.tracing.taps import Caught


@dataclass(frozen=True)
class Step:
    """One call between the pooled units and the logits, and the steps before it.

    `kind`: "pooled" (the units themselves), "total" (pooled by a sum: the number of cells
    times the mean), "linear", "norm", "batch norm", "shift", "scale", "divide" (by
    constants), "sum" (of two steps) or "sides" (the logits of two classes from one number,
    of which the first is `complement` − the number). `position` says which of the call's tensor
    arguments comes from the photo. A call is known by its `index` and `name`.
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


def readout_of(
    step: Step, caught: Mapping[int, Caught], feature_map: Tensor
) -> Readout:
    """The readout of a step and those before it, from the caught arguments of their calls."""
    if step.kind == "pooled":
        return _identity(feature_map)
    if step.kind == "linear" and step.before == (POOLED,):
        weight, bias = affine(step.name, caught[step.index])
        bias = torch.zeros_like(weight[:, 0]) if bias is None else bias.clone()
        return Readout(weight.clone(), bias)

    before = readout_of(step.before[0], caught, feature_map)
    if step.kind == "total":
        cells = feature_map[0, 0].numel()
        return scaled(before, torch.tensor(float(cells)))
    if step.kind == "sides":
        return _both_sides(before, step.complement)

    call = caught[step.index]
    if step.kind == "linear":
        return _composed(before, *affine(step.name, call))
    if step.kind == "norm":
        return _normalised(step.name, call, before)
    if step.kind == "batch norm":
        scale, shift = _batch_norm(call)
        return shifted(scaled(before, scale), shift)
    if step.kind == "sum":
        second = readout_of(step.before[1], caught, feature_map)
        sign = SUM_SIGNS[step.name] * _alpha(call)
        return added(before, second, sign)
    return _with_constant(step, call, before)


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


def _identity(feature_map: Tensor) -> Readout:
    units = feature_map.shape[1]
    weight = torch.eye(
        units, dtype=feature_map.dtype, device=feature_map.device
    )
    return Readout(weight, torch.zeros_like(weight[0]))


def _both_sides(before: Readout, complement: float) -> Readout:
    """The readout of two classes: `complement` − the one number, and the number."""
    weight = torch.cat([-before.weight, before.weight])
    bias = torch.cat([complement - before.bias, before.bias])
    return Readout(weight, bias, before.norm)


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


def _composed(before: Readout, weight: Tensor, bias: Tensor | None) -> Readout:
    """The readout with a linear layer behind it."""
    if _is_diagonal(before.weight):
        through = weight * before.weight.diagonal()
    else:
        through = weight @ before.weight
    if before.norm is not None and before.norm.centred:
        through = through - through.mean(dim=1, keepdim=True)

    constant = weight @ before.bias
    constant = constant if bias is None else constant + bias
    return Readout(through, constant, before.norm)


def _is_diagonal(matrix: Tensor) -> bool:
    """Whether a matrix scales and mixes nothing, as that of a normalisation does."""
    rows, cols = matrix.shape
    if rows != cols:
        return False
    everywhere = int(matrix.count_nonzero())
    on_diagonal = int(matrix.diagonal().count_nonzero())
    return everywhere == on_diagonal


def _normalised(name: str, call: Caught, before: Readout) -> Readout:
    """The readout of a normalisation: the units over one number, then scale and shift."""
    if name == "normalize":
        eps = call.argument(3, "eps")
        norm = Normalisation("length", 1e-12 if eps is None else float(eps))
        return Readout(before.weight, before.bias, norm)

    is_rms = name == "rms_norm"
    eps = call.argument(3 if is_rms else 4, "eps")
    if eps is None:
        eps = torch.finfo(call.first.dtype).eps if is_rms else 1e-5
    norm = Normalisation(UNIT_NORMALISATIONS[name], float(eps))

    readout = Readout(before.weight, before.bias, norm)
    scale = call.argument(2, "weight")
    shift = None if is_rms else call.argument(3, "bias")
    if scale is not None:
        readout = scaled(readout, scale)
    return readout if shift is None else shifted(readout, shift)


def _batch_norm(call: Caught) -> tuple[Tensor, Tensor]:
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
