"""Kernels: the filters of a convolution as arrays to be looked at; drawn elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import UninitializedParameter

from unitscope.drawable import Drawable
from unitscope.errors import InputError, LayerError, UnitError, near_matches
from unitscope.model import Classifier
from unitscope.tracing.layers import evaluating
from unitscope.tracing.trace import kind_of

Scale = Literal["kernel", "shared"]
Kernels: TypeAlias = Float[np.ndarray, "filter channel row col"]

_INTERPOLATIONS = ("nearest", "bilinear", "bicubic")
_NEUTRAL = 0.5


@dataclass(frozen=True, eq=False)
class Filters(Drawable):
    """Kernels of one convolution, normalised to be looked at.

    `weights` are the raw kernels, (filter, channel, row, col), of the chosen `filters`
    and `channels`. `images` are the same in 0–1: (filter, row, col, 3) when `rgb`, else
    (filter, channel, row, col). A picture is (w − low) / (high − low). With the scale
    "kernel", low and high are those of the kernel shown, of all three colours together
    when `rgb`; with "shared", those of all kernels shown. `low` and `high` hold them
    for every picture. A kernel without range (all weights equal) is mid-grey, 0.5.

    `channels` number the input channels of the whole layer for an ordinary convolution.
    In a grouped convolution a filter reads only its own group: `channels` then count
    within the group, and `input_channel` translates.
    """

    layer: str
    kind: str
    filters: tuple[int, ...]
    channels: tuple[int, ...]
    weights: Kernels
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
        """The layer's input channel that a filter's kernel reads as its `channel`."""
        per_group = self.filters_in_layer // self.groups
        group = filter // per_group
        return group * self.channels_in_kernel + channel

    def enlarged(
        self,
        size: int = 50,
        interpolation: Literal["nearest", "bilinear", "bicubic"] = "nearest",
    ) -> Float[np.ndarray, "*picture row col"]:
        """The pictures enlarged to `size` pixels on the longer side.

        Channels are last when `rgb`. "nearest" shows the weights as they are;
        "bilinear" and "bicubic" smooth between them (the write-up's pictures are
        50 × 50, bilinear).
        """
        if interpolation not in _INTERPOLATIONS:
            raise InputError(
                "interpolation is 'nearest', 'bilinear' or 'bicubic', not "
                f"{interpolation!r}"
            )
        if size < 1:
            raise InputError(f"size is a positive number of pixels, not {size}")

        rows, cols = self.weights.shape[-2:]
        factor = size / max(rows, cols)
        shape = (max(1, round(cols * factor)), max(1, round(rows * factor)))
        method = Image.Resampling[interpolation.upper()]

        planes = np.moveaxis(self.images, -1, 1) if self.rgb else self.images
        enlarged = np.stack(
            [
                [_resized(plane, shape, method) for plane in kernel]
                for kernel in planes
            ]
        )
        if self.rgb:
            enlarged = np.moveaxis(enlarged, 1, -1)
        return enlarged.clip(0, 1)


def _resized(
    plane: Float[np.ndarray, "_ _"],
    shape: tuple[int, int],
    method: Image.Resampling,
) -> Float[np.ndarray, "_ _"]:
    """A picture of `shape` (width, height)."""
    picture = Image.fromarray(plane.astype(np.float32))
    return np.asarray(picture.resize(shape, method))


def filters(
    model: Classifier | nn.Module,
    layer: str | int = 0,
    *,
    filters: int | Sequence[int] | None = None,
    channels: int | Sequence[int] | Literal["rgb"] | None = None,
    scale: Scale = "kernel",
) -> Filters:
    """Show the kernels of a convolution, chosen by name or by order (0 is the first).

    `filters` chooses output channels (all by default). `channels` chooses input
    channels of the kernels: "rgb" shows three input channels as one colour picture and
    is the default where a kernel has three; otherwise all are shown, each as a picture
    of its own. A transposed convolution's kernels are shown with the filter first.
    Kernels of one-dimensional convolutions are one row high; three-dimensional ones are
    refused.

    Raises LayerError, with near matches, when there is no such convolution, UnitError
    for a filter or channel that does not exist.
    """
    module = model.network if isinstance(model, Classifier) else model
    name, convolution = find_convolution(module, layer)
    kernels = _kernels(name, convolution)
    count, depth = kernels.shape[:2]

    chosen = _chosen(filters, count, "filter", name)
    _check_scale(scale)
    rgb = _is_rgb(channels, depth, name)
    within = _chosen(None if rgb else channels, depth, "input channel", name)

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


def _check_scale(scale: str) -> None:
    if scale not in ("kernel", "shared"):
        raise InputError(f"scale is 'kernel' or 'shared', not {scale!r}")


def _is_rgb(channels: Any, depth: int, name: str) -> bool:
    """Whether three channels are shown as one colour picture."""
    if channels is None:
        return depth == 3
    if not isinstance(channels, str):
        return False
    if channels != "rgb":
        raise UnitError(f"channels are numbers or 'rgb', not {channels!r}")
    if depth != 3:
        raise UnitError(
            f"'{name}' has kernels of {depth} input channels: only three can be shown "
            "as RGB, choose channels"
        )
    return True


def normalised(
    weights: Kernels, axes: tuple[int, ...], *, shared: bool
) -> tuple[
    Kernels, Float[np.ndarray, "filter _"], Float[np.ndarray, "filter _"]
]:
    """Scale kernels to 0–1 over `axes`, or over all axes when `shared`.

    Returns the pictures, and low and high of each.
    """
    over = (0, 1, 2, 3) if shared else axes
    pictures = tuple(
        1 if axis in axes else side for axis, side in enumerate(weights.shape)
    )
    low = np.broadcast_to(weights.min(axis=over, keepdims=True), pictures)
    high = np.broadcast_to(weights.max(axis=over, keepdims=True), pictures)

    span = high - low
    flat = span == 0
    scaled = (weights - low) / np.where(flat, 1, span)
    images = np.where(flat, _NEUTRAL, scaled).astype(np.float32)
    return images, low[:, :, 0, 0], high[:, :, 0, 0]


def convolutions(module: nn.Module) -> dict[str, nn.Module]:
    """The convolutions of a network by name, in order of definition."""
    return {
        name: submodule
        for name, submodule in module.named_modules()
        if isinstance(submodule, _ConvNd)
    }


def find_convolution(
    module: nn.Module, layer: str | int
) -> tuple[str, _ConvNd]:
    """A convolution by name or by order, with its name.

    Raises LayerError, with near matches or the kind of layer that was named.
    """
    known = convolutions(module)
    names = list(known)
    if not names:
        raise LayerError(
            "the network has no convolution: there are no filters to show"
        )

    modules = dict(module.named_modules())
    if isinstance(layer, str) and layer.isdecimal() and layer not in modules:
        layer = int(layer)
    if isinstance(layer, int):
        if not 0 <= layer < len(names):
            raise LayerError(
                f"there is no convolution {layer}: the network has {len(names)}, "
                f"numbered 0 to {len(names) - 1}"
            )
        layer = names[layer]

    if not layer or layer not in known:
        raise _no_convolution(layer, modules, names)
    convolution = known[layer]
    assert isinstance(convolution, _ConvNd)
    return layer, convolution


def _no_convolution(
    layer: str, modules: dict[str, nn.Module], names: list[str]
) -> LayerError:
    """The error that says what a layer is, where it is not a convolution."""
    if not layer:
        return LayerError(
            f"no layer is named '': name a convolution, such as '{names[0]}'"
        )

    inside = [name for name in names if name.startswith(f"{layer}.")]
    if inside:
        return LayerError(
            f"layer '{layer}' is not a convolution but holds {len(inside)}: name one, "
            f"such as '{inside[0]}'"
        )

    matches = near_matches(layer, names)
    if layer in modules:
        kind = kind_of(modules[layer])
        return LayerError(
            f"layer '{layer}' is a {kind}, not a convolution{matches}"
        )
    return LayerError(
        f"there is no convolution '{layer}'{matches}: `unitscope info` lists the layers"
    )


def _kernels(name: str, convolution: _ConvNd) -> Kernels:
    # A spectral norm goes on iterating when its weight is read in training mode.
    with evaluating(convolution):
        parameter = convolution.weight
    if isinstance(parameter, UninitializedParameter):
        raise LayerError(
            f"convolution '{name}' has no weights yet: run one forward pass first"
        )

    weight = _filter_first(parameter, convolution)
    if weight.ndim == 3:
        weight = weight[:, :, None, :]
    if weight.ndim != 4:
        raise LayerError(
            f"convolution '{name}' has {weight.ndim - 2}-dimensional kernels: only one "
            "and two can be drawn"
        )

    finite = np.isfinite(weight).all(axis=(1, 2, 3))
    if not finite.all():
        broken = np.flatnonzero(~finite)
        raise LayerError(
            f"convolution '{name}' has NaN or infinite weights in {len(broken)} "
            f"filters (first: {broken[0]}): load sound weights"
        )
    return weight


def _filter_first(parameter: Tensor, convolution: _ConvNd) -> np.ndarray:
    """A copy of the weights (filter, channel, …) in float32.

    A transposed convolution keeps them as (input, filter of the group, …).
    """
    weight: np.ndarray = parameter.detach().cpu().float().numpy().copy()
    if not convolution.transposed:
        return weight

    groups = convolution.groups
    inputs, per_group, *sides = weight.shape
    split = weight.reshape(groups, inputs // groups, per_group, *sides)
    by_filter = split.swapaxes(1, 2)
    return by_filter.reshape(groups * per_group, inputs // groups, *sides)


def _chosen(which: Any, count: int, noun: str, layer: str) -> list[int]:
    """The numbers chosen among `count`, all when None; `noun` and `layer` name them."""
    if which is None:
        return list(range(count))
    several = isinstance(which, Iterable) and not isinstance(which, str)
    chosen = list(which) if several else [which]

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
