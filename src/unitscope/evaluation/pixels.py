"""Pixels: full gradients as maps of one class for each photo."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from unitscope.model import Classifier

PROMISE = (
    "FullGrad: input · gradient and bias · gradient on pixels, signed; adds up to the logit, "
    "but for biases without a place and what curved functions leave out"
)


def pixel_maps(
    model: Classifier,
    inputs: Float[Tensor, "photo channel row col"],
    classes: Sequence[int],
) -> Float[Tensor, "photo row col"]:
    """The combined maps of `Classifier.fullgrad`, in logits a pixel."""
    distinct = sorted(set(classes))
    places = [distinct.index(which) for which in classes]
    combined = model.fullgrad(inputs, distinct).combined
    return combined[range(len(inputs)), places]
