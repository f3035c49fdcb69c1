"""Loading: the model that a command's options name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from unitscope.cli.output import reserve_output
from unitscope.interrupts import Uninterrupted

if TYPE_CHECKING:
    from unitscope.model import Classifier

# Compiling takes about as long as the compiled network saves on a few hundred photos.
_FROZEN_FROM = 256


def load_model(
    options: Mapping[str, Any], photos: int = 0, layer: str | None = None
) -> Classifier:
    """The model of `model_options`, frozen where there are many photos.

    `layer` is a layer to freeze besides the head's.
    """
    # Importing torch takes seconds, for which --help must not wait. An import may drop a
    # Ctrl-C without a word.
    with Uninterrupted():
        from unitscope.residual.head import HEADS
        from unitscope.sources import load

    # Networks print what they like, for instance among the JSON of a verb.
    reserve_output()

    model = load(
        options["spec"],
        weights=options["weights"],
        arch=options["arch"],
        labels=options["labels"],
        preprocessing=options["preprocessing"],
        output=options["output"],
        scores=options["scores"],
        templates=options["templates"] or None,
    )
    # Without a fixed input size every size of photo would be compiled for itself.
    has_fixed_size = model.preprocessing.input_size is not None
    if photos >= _FROZEN_FROM and has_fixed_size:
        model.freeze(() if layer in (None, HEADS) else layer)
    return model
