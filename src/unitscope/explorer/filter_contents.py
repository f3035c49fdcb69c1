"""Filter contents: the kernels of a convolution as pictures of a byte a weight."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from unitscope.kernels import Filters, find_convolution, normalised
from unitscope.kernels import filters as filters_of
from unitscope.model import Classifier
from unitscope.plurals import plural
from unitscope.render.words import number
from unitscope.tracing.layers import evaluating

Plain = dict[str, Any]

DOCUMENT_BYTES = 6_000_000
"""Bytes of one document before base64, which makes a third more of them."""

# The lowest and the highest weight of a kernel, as float32.
_RANGE_BYTES = 8


@dataclass(frozen=True)
class _Pictures:
    """Kernels in 0–1, with the weights that 0 and 1 stand for; `of` as in `filters`."""

    of: str
    values: np.ndarray
    low: np.ndarray
    high: np.ndarray


def filters(model: Classifier, layer: str, begin: int = 0) -> Plain:
    """The kernels of a convolution, and the least and greatest weight of each.

    A picture (`of`) is a "kernel"; a filter's three input channels as colours, "rgb";
    or, where kernels are single weights, a whole "filter" with one weight an input
    channel. `pixels` are the pictures one after the other, 0–255 from `low` to `high`
    of each (float32, little-endian), all in base64. A document of a large layer has
    `count` filters from `begin`, at most `most`; `least` and `greatest` are those of
    the whole layer.

    Raises LayerError for layers that are not convolutions or cannot be drawn, UnitError
    where there is no filter `begin`.
    """
    name, convolution = find_convolution(model.network, layer)
    total = int(convolution.out_channels)
    most = _filters_a_document(convolution)

    is_whole = total <= most and begin == 0
    part = None if is_whole else range(begin, min(begin + most, total))
    kernels = filters_of(model, name, filters=part)
    pictures = _pictures(kernels)
    if is_whole:
        least, greatest = float(pictures.low.min()), float(pictures.high.max())
    else:
        least, greatest = _extremes(convolution)

    count, _, rows, cols = kernels.weights.shape
    return {
        "layer": name,
        "kind": kernels.kind,
        "words": _words(kernels, convolution),
        "filters": kernels.filters_in_layer,
        "channels": kernels.channels_in_kernel,
        "rows": rows,
        "cols": cols,
        "groups": kernels.groups,
        "begin": begin,
        "count": count,
        "most": most,
        "of": pictures.of,
        "pixels": _base64(np.round(255 * pictures.values).astype(np.uint8)),
        "low": _base64(pictures.low.astype("<f4")),
        "high": _base64(pictures.high.astype("<f4")),
        "least": least,
        "greatest": greatest,
        "scales": _scale_words(pictures.of, least, greatest),
    }


def _filters_a_document(convolution: nn.modules.conv._ConvNd) -> int:
    channels = int(convolution.in_channels) // int(convolution.groups)
    kernel_bytes = math.prod(convolution.kernel_size) + _RANGE_BYTES
    return max(1, DOCUMENT_BYTES // max(1, channels * kernel_bytes))


def _extremes(convolution: nn.modules.conv._ConvNd) -> tuple[float, float]:
    """The least and the greatest weight of a convolution."""
    with evaluating(convolution):
        weight = convolution.weight.detach()
    return float(weight.min()), float(weight.max())


def _pictures(kernels: Filters) -> _Pictures:
    is_pointwise = kernels.weights.shape[2:] == (1, 1)
    if is_pointwise and not kernels.rgb and kernels.channels_in_kernel > 1:
        scaled = normalised(kernels.weights, (1, 2, 3), shared=False)
        return _Pictures("filter", *scaled)
    of = "rgb" if kernels.rgb else "kernel"
    return _Pictures(of, kernels.images, kernels.low, kernels.high)


def _scale_words(of: str, least: float, greatest: float) -> dict[str, str]:
    noun = "kernel" if of == "kernel" else "filter"
    extent = f"from {number(least, 4)} to {number(greatest, 4)}"
    return {
        "kernel": f"each {noun} on its own scale",
        "shared": f"all on the scale of the whole layer, weights {extent}",
    }


def _words(kernels: Filters, convolution: nn.modules.conv._ConvNd) -> str:
    """A convolution's shape and stride: "64 filters of 3 × 7 × 7 weights, stride 2"."""
    sides = (kernels.channels_in_kernel, *convolution.kernel_size)
    weights = " × ".join(map(str, sides))
    parts = [
        f"{plural(kernels.filters_in_layer, 'filter')} of {weights} weights"
    ]

    if kernels.groups > 1:
        parts.append(
            f"in {kernels.groups} groups: each filter reads "
            f"{kernels.channels_in_kernel} of the input channels"
        )
    for name in ("stride", "dilation"):
        steps = getattr(convolution, name)
        if set(steps) != {1}:
            is_square = len(set(steps)) == 1
            shown = steps[0] if is_square else " × ".join(map(str, steps))
            parts.append(f"{name} {shown}")
    if convolution.transposed:
        parts.append("transposed")
    return ", ".join(parts)


def _base64(values: np.ndarray) -> str:
    contiguous = np.ascontiguousarray(values)
    return base64.b64encode(contiguous.tobytes()).decode("ascii")
