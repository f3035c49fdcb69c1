"""Kernels: the filters of a convolution as pictures; arrays first, drawing elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import nn

from unitscope.drawable import Drawable
from unitscope.errors import LayerError, UnitError, near_matches
from unitscope.model import Classifier
from unitscope.tracing.layers import evaluating
from unitscope.tracing.trace import kind_of

Scale = Literal["kernel", "shared"]
_NEUTRAL = 0.5


@dataclass(frozen=True, eq=False)
class Filters(Drawable):
    """Kernels of one convolution, normalised to be looked at.

    `weights` are the raw kernels, (filter, channel, row, col), for the chosen `filters`
    and `channels`; `images` are the same in 0–1: (filter, row, col, 3) when `rgb`, else
    (filter, channel, row, col). A picture is (w − low) / (high − low); with scale
    "kernel" low and high are those of the kernel shown (of all three colours together
    when `rgb`), with "shared" those of everything shown. `low` and `high` give them for
    every picture. A kernel without range (all weights equal) is mid-grey, 0.5.

    `channels` number the input channels of the whole layer for an ordinary convolution.
    In a grouped convolution a filter reads only its own group: `channels` then count
    within the group, and `input_channel` translates.
    """

    layer: str
    kind: str
    filters: tuple[int, ...]
    channels: tuple[int, ...]
    weights: Float[np.ndarray, "filter channel row col"]
    images: Float[np.ndarray, "filter _ _ _"]
    low: Float[np.ndarray, "filter _"]
    high: Float[np.ndarray, "filter _"]
    scale: Scale
    rgb: bool
    groups: int
    filters_in_layer: int
    channels_in_kernel: int

    def __repr__(self) -> str:
        count, channels, rows, cols = self.weights.shape
        return (
            f"<Filters: {count} of '{self.layer}', {channels} channels of "
            f"{rows}×{cols} weights, scale {self.scale!r}>"
        )

    def input_channel(self, filter: int, channel: int) -> int:
        """The layer's input channel that a filter reads through its kernel's `channel`."""
        per_group = self.filters_in_layer // self.groups
        return (filter // per_group) * self.channels_in_kernel + channel

    def enlarged(
        self,
        size: int = 50,
        interpolation: Literal["nearest", "bilinear", "bicubic"] = "nearest",
    ) -> Float[np.ndarray, "*picture row col"]:
        """The pictures enlarged to `size` pixels on the longer side, channels last when `rgb`.

        "nearest" shows the weights as they are; "bilinear" and "bicubic" smooth between
        them (the convention of the write-up: 50 × 50, bilinear).
        """
        if interpolation not in ("nearest", "bilinear", "bicubic"):
            raise ValueError(
                "interpolation is 'nearest', 'bilinear' or 'bicubic', not "
                f"{interpolation!r}"
            )
        if size < 1:
            raise ValueError(f"size is a positive number of pixels, not {size}")
        rows, cols = self.weights.shape[-2:]
        factor = size / max(rows, cols)
        shape = (max(1, round(cols * factor)), max(1, round(rows * factor)))
        method = Image.Resampling[interpolation.upper()]
        planes = np.moveaxis(self.images, -1, 1) if self.rgb else self.images
        enlarged = np.stack(
            [
                [
                    np.asarray(
                        Image.fromarray(p.astype(np.float32)).resize(shape, method)
                    )
                    for p in k
                ]
                for k in planes
            ]
        )
        return (
            np.moveaxis(enlarged, 1, -1).clip(0, 1) if self.rgb else enlarged.clip(0, 1)
        )


def filters(
    model: Classifier | nn.Module,
    layer: str | int = 0,
    *,
    filters: int | Sequence[int] | None = None,
    channels: int | Sequence[int] | Literal["rgb"] | None = None,
    scale: Scale = "kernel",
) -> Filters:
    """Show the kernels of a convolution, chosen by name or by order (0 is the first convolution).

    `filters` chooses output channels (all by default). `channels` chooses input
    channels of the kernels: "rgb" shows three input channels as one colour picture and
    is the default where a kernel has three; otherwise all are shown, each as a picture
    of its own. A transposed convolution's kernels are shown with the filter first.
    Kernels of one-dimensional convolutions are one row high; three-dimensional ones are
    refused.

    Raises LayerError when there is no such convolution (near matches are named),
    UnitError for a filter or channel that does not exist.
    """
    module = model.network if isinstance(model, Classifier) else model
    name, convolution = find_convolution(module, layer)
    kernels = _kernels(name, convolution)
    count, depth = kernels.shape[:2]
    chosen = _chosen(filters, count, "filter", name)
    if scale not in ("kernel", "shared"):
        raise ValueError(f"scale is 'kernel' or 'shared', not {scale!r}")
    if isinstance(channels, str) and channels != "rgb":
        raise UnitError(f"channels are numbers or 'rgb', not {channels!r}")
    rgb = isinstance(channels, str) or (channels is None and depth == 3)
    if rgb and depth != 3:
        raise UnitError(
            f"'{name}' has kernels of {depth} input channels: only three can be shown "
            "as RGB, choose channels"
        )
    within = _chosen(
        None if rgb or isinstance(channels, str) else channels,
        depth,
        "input channel",
        name,
    )
    weights = kernels[np.ix_(chosen, within)]
    axes = (1, 2, 3) if rgb else (2, 3)
    images, low, high = normalised(weights, axes, shared=scale == "shared")
    if rgb:
        images = np.moveaxis(images, 1, -1)
    return Filters(
        layer=name,
        kind=kind_of(convolution),
        filters=tuple(chosen),
        channels=tuple(within),
        weights=weights,
        images=images,
        low=low,
        high=high,
        scale=scale,
        rgb=rgb,
        groups=int(convolution.groups),
        filters_in_layer=count,
        channels_in_kernel=depth,
    )


def normalised(
    weights: Float[np.ndarray, "filter channel row col"],
    axes: tuple[int, ...],
    *,
    shared: bool,
) -> tuple[
    Float[np.ndarray, "filter channel row col"],
    Float[np.ndarray, "filter _"],
    Float[np.ndarray, "filter _"],
]:
    """Scale kernels to 0–1 over `axes` (over everything when shared); returns pictures, and low and high of each."""
    over = (0, 1, 2, 3) if shared else axes
    low = np.broadcast_to(weights.min(axis=over, keepdims=True), _kept(weights, axes))
    high = np.broadcast_to(weights.max(axis=over, keepdims=True), _kept(weights, axes))
    span = high - low
    flat = span == 0
    images = np.where(flat, _NEUTRAL, (weights - low) / np.where(flat, 1, span)).astype(
        np.float32
    )
    return images, low[:, :, 0, 0], high[:, :, 0, 0]


def convolutions(module: nn.Module) -> dict[str, nn.Module]:
    """The convolutions of a network by name, in order of definition."""
    return {
        name: sub
        for name, sub in module.named_modules()
        if isinstance(sub, nn.modules.conv._ConvNd)
    }


def find_convolution(
    module: nn.Module, layer: str | int
) -> tuple[str, nn.modules.conv._ConvNd]:
    """A convolution by name, or by order; raises LayerError with near matches, or saying what the layer is instead."""
    known = convolutions(module)
    names = list(known)
    if not names:
        raise LayerError("the network has no convolution: there are no filters to show")
    if (
        isinstance(layer, str)
        and layer.isdecimal()
        and layer not in dict(module.named_modules())
    ):
        layer = int(layer)
    if isinstance(layer, int):
        if not 0 <= layer < len(names):
            raise LayerError(
                f"there is no convolution {layer}: the network has {len(names)}, "
                f"numbered 0 to {len(names) - 1}"
            )
        layer = names[layer]
    if not layer:
        raise LayerError(
            f"no layer is named '': name a convolution, such as '{names[0]}'"
        )
    if layer not in known:
        other = dict(module.named_modules()).get(layer)
        inside = [name for name in names if name.startswith(f"{layer}.")]
        if inside:
            raise LayerError(
                f"layer '{layer}' is not a convolution but holds {len(inside)}: name "
                f"one, such as '{inside[0]}'"
            )
        if other is not None:
            raise LayerError(
                f"layer '{layer}' is a {kind_of(other)}, not a "
                f"convolution{near_matches(layer, names)}"
            )
        raise LayerError(
            f"there is no convolution '{layer}'{near_matches(layer, names)}: "
            "`unitscope info` lists the layers"
        )
    found = known[layer]
    assert isinstance(found, nn.modules.conv._ConvNd)
    return layer, found


def _kernels(
    name: str, convolution: nn.modules.conv._ConvNd
) -> Float[np.ndarray, "filter channel row col"]:
    with evaluating(
        convolution
    ):  # A spectral norm goes on iterating when its weight is read in training mode.
        parameter = convolution.weight
    if isinstance(parameter, nn.parameter.UninitializedParameter):
        raise LayerError(
            f"convolution '{name}' has no weights yet: run one forward pass first"
        )
    weight = parameter.detach().cpu().float().numpy().copy()
    if convolution.transposed:
        # (in, out / groups, …) becomes (out, in / groups, …), as in an ordinary
        # convolution.
        groups = convolution.groups
        inputs, per_group = weight.shape[:2]
        split = weight.reshape(groups, inputs // groups, per_group, *weight.shape[2:])
        weight = split.swapaxes(1, 2).reshape(
            groups * per_group, inputs // groups, *weight.shape[2:]
        )
    if weight.ndim == 3:
        weight = weight[:, :, None, :]
    if weight.ndim != 4:
        raise LayerError(
            f"convolution '{name}' has {weight.ndim - 2}-dimensional kernels: only one "
            "and two can be drawn"
        )
    if not np.isfinite(weight).all():
        broken = sorted(
            {int(index) for index in np.argwhere(~np.isfinite(weight))[:, 0]}
        )
        raise LayerError(
            f"convolution '{name}' has NaN or infinite weights in {len(broken)} "
            f"filters (first: {broken[0]})"
        )
    return weight


def _chosen(which: Any, count: int, noun: str, layer: str) -> list[int]:
    if which is None:
        return list(range(count))
    chosen = (
        list(which)
        if isinstance(which, Iterable) and not isinstance(which, str)
        else [which]
    )
    for item in chosen:
        if isinstance(item, bool) or not hasattr(item, "__index__"):
            raise UnitError(
                f"{noun} {item!r} is not a number: those of '{layer}' are numbered 0 "
                f"to {count - 1}"
            )
        if not 0 <= item < count:
            raise UnitError(
                f"there is no {noun} {item} in '{layer}': there are {count}, 0 to "
                f"{count - 1}"
            )
    if not chosen:
        raise UnitError(
            f"no {noun} of '{layer}' was chosen: name at least one of 0 to {count - 1}"
        )
    return [int(item) for item in chosen]


def _kept(weights: np.ndarray, axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(1 if axis in axes else side for axis, side in enumerate(weights.shape))
