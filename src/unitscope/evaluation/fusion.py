"""Fusion: maps of several layers laid one over the other, for finer pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.attribution.methods import DEFAULT_METHOD
from unitscope.errors import HeadError
from unitscope.geometry import PIXELS, spread_weights
from unitscope.model import Classifier

PROMISE = (
    "the mean of gradient × activation at the last layer of every size of maps, on pixels: "
    "finer than the last layer alone, and noisier; adds up to nothing"
)


def fused_maps(
    model: Classifier,
    inputs: Float[Tensor, "photo channel row col"],
    classes: Sequence[int],
) -> Float[Tensor, "photo row col"]:
    """Signed maps on the pixels of the input: the mean of those of several layers.

    The last layer with maps of each size gives gradient × activation (as LayerCAM fuses
    layers, but signed and not stretched), every cell spread over the pixels that it stands
    for. What layers give are other accounts of the same logit, so their mean is a picture,
    and no account: it does not add up to the logit.

    Raises HeadError for a network of which no layer can be explained.
    """
    maps = []
    last = model.explain(inputs[:1], method=DEFAULT_METHOD).head.layer
    for name in _layers(model, last):
        try:
            maps.append(_of_layer(model, inputs, classes, name))
        except HeadError:  # nothing of it counts, as of a last block's patches
            continue
    if not maps:
        raise HeadError(
            "no layer of the network can be explained by gradients: choose another method"
        )
    return torch.stack(maps).mean(dim=0)


def _layers(model: Classifier, last: str) -> list[str]:
    """The last layer with maps of each size, up to the layer of our local answers.

    Containers follow what they contain, so that a block comes behind its branches.
    """
    maps = [layer for layer in model.layers() if layer.is_map]
    names = [layer.name for layer in maps]
    ends = {layer.cells: layer.name for layer in maps[: names.index(last) + 1]}
    return list(ends.values())


def _of_layer(
    model: Classifier, inputs: Tensor, classes: Sequence[int], name: str
) -> Float[Tensor, "photo row col"]:
    """The map of one layer on the pixels; its sum is Σ gradient · activation."""
    explanation = model.explain(inputs, layer=name, method=DEFAULT_METHOD)
    distinct = sorted(set(classes))
    places = [distinct.index(which) for which in classes]
    cams = explanation.cams_of(distinct)[range(len(inputs)), places]
    rows, cols = cams.shape[1:]
    height, width = inputs.shape[2:]
    down = spread_weights(explanation.grid.rows, rows, PIXELS, height)
    across = spread_weights(explanation.grid.cols, cols, PIXELS, width)
    laid: np.ndarray = down @ cams.double().cpu().numpy() @ across.T
    return torch.from_numpy(laid) / (height * width)
