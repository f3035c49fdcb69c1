"""Checks: what must hold of a forward pass before it is explained."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.attribution.methods import METHODS
from unitscope.attribution.rounding import (
    LEAST_ROUNDING,
    completeness_error,
    relative_difference,
    rounding_error,
)
from unitscope.engine.passes import ForwardPass
from unitscope.errors import HeadError, InputError, LayerError, warn_user
from unitscope.inputs.subjects import Subject
from unitscope.model.network import Network
from unitscope.tracing.layers import Layer


def check_adds_up(
    network: Network,
    passed: ForwardPass,
    batch: Tensor,
    units: Float[Tensor, "batch unit"],
) -> None:
    """Raise where a pass is not finite, or where its maps do not give its logits.

    `units` are the means of the feature map over its cells.
    """
    logits, feature_map, readout = (
        passed.logits,
        passed.feature_map,
        passed.readout,
    )
    assert feature_map is not None and readout is not None
    # One comparison covers both: the mean of numbers that are not finite is not finite,
    # and neither is the difference. Only then it is worth looking closer.
    difference = relative_difference(readout.logits(units), logits)
    if bool((difference <= LEAST_ROUNDING).all()):
        return

    network.check_finite(logits, batch, "the logits")
    network.check_finite(feature_map, batch, "the feature maps")
    error = completeness_error(logits, feature_map, readout)
    wrong = ~(error <= LEAST_ROUNDING)
    if bool(wrong.any()):
        allowed = rounding_error(logits, feature_map, readout, batch.dtype)
        wrong = ~(error <= allowed)
    if bool(wrong.any()):
        raise HeadError(
            f"the maps do not add up to the logits on this input (off by "
            f"{float(error[wrong][0]):.1e} of the largest logit): something else "
            "contributes to them; ask for a local answer, method='gradcam' "
            "(--method gradcam)"
        )


def check_ran(layer: Layer, passed: ForwardPass) -> None:
    """Raise LayerError where a layer did not run in a pass."""
    if layer.name not in passed.outputs:
        raise LayerError(
            f"layer '{layer.name}' did not run on this input, though it did on "
            "the first: choose a layer that always runs"
        )


def check_same_size(sizes: Iterable[tuple[int, int]]) -> None:
    """Raise InputError unless all inputs have the same size (rows, cols)."""
    different = list(dict.fromkeys(sizes))
    if len(different) > 1:
        listing = ", ".join(f"{rows}×{cols}" for rows, cols in different)
        raise InputError(
            f"the preprocessing gives inputs of different sizes ({listing}), which "
            "cannot "
            "share a batch: explain those photos one at a time (batch_size=1, "
            "--batch-size 1), or add a crop"
        )


def warn_of_nothing(
    network: Network,
    passed: ForwardPass,
    units: Float[Tensor, "batch unit"],
    feature_map: Float[Tensor, "batch unit row col"],
    batch: Tensor,
    subjects: tuple[Subject, ...],
) -> None:
    """Warn of photos on which no unit fires, or all classes have the same logit.

    Such an answer is right, and shows nothing.
    """
    logits = passed.logits
    differ = (logits != logits[:, :1]).any(dim=1)
    if bool((units.any(dim=1) & differ).all()):
        return
    for image, subject in enumerate(subjects):
        if not bool(feature_map[image].any()):
            photo = batch[image : image + 1]
            where = network.for_photo(image).first_layer(
                photo, lambda output: not bool(output.any())
            )
            warn_user(
                f"on {subject.name} every unit of the feature map is 0 everywhere, "
                "first "
                f"in the output of {where}: its maps show nothing"
            )
        elif logits.shape[1] > 1 and not bool(differ[image]):
            warn_user(
                f"on {subject.name} all {logits.shape[1]} classes have the logit "
                f"{float(logits[image, 0]):g}: check the weights of the last layer"
            )


def map_of(
    layer: Layer, passed: ForwardPass
) -> Float[Tensor, "batch unit row col"]:
    """The feature map of a layer from a pass, float32; LayerError where it did not run."""
    check_ran(layer, passed)
    return layer.units_first(passed.outputs[layer.name]).to(torch.float32)


def warn_of_silence(layer: Layer) -> None:
    """Warn that gradient · activation is 0 in every cell of a layer."""
    others = [
        name for name, method in METHODS.items() if not method.needs_direction
    ]
    warn_user(
        f"a normalisation reads every cell of layer '{layer.name}' by itself, so that "
        "gradient · activation is 0 in each of them: name the layer of that "
        f"normalisation, or ask for the method {' or '.join(others)}"
    )
