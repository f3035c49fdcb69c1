"""Sources: `load` turns a specification such as "torchvision:resnet50" into a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unitscope.errors import ModelError
from unitscope.sources.schemes import SCHEMES, usages

if TYPE_CHECKING:
    from unitscope.labels import LabelsSource
    from unitscope.model import Classifier
    from unitscope.sources.request import (
        InputSize,
        PreprocessingSource,
        TemplatesSource,
        WeightsSource,
    )
    from unitscope.tracing.output_choice import OutputName

# torch is imported inside `load`: the command line's help reads the schemes without it.

__all__ = ["DEFAULT_SPEC", "SCHEMES", "load", "usages"]

DEFAULT_SPEC = "miniplaces"
"""What `load()` loads: the bundled scene network."""


def load(
    spec: str | None = None,
    *,
    weights: WeightsSource | None = None,
    labels: LabelsSource | None = None,
    arch: str | None = None,
    num_classes: int | None = None,
    input_size: InputSize | None = None,
    preprocessing: PreprocessingSource | None = None,
    output: OutputName | None = None,
    progress: bool | None = None,
    seed: int | None = None,
    base_url: str | None = None,
    scores: str | None = None,
    templates: TemplatesSource | None = None,
) -> Classifier:
    """Load a classifier by its specification: scheme and name ("torchvision:resnet50").

    Without one, load the bundled network. `weights` is a weights file, or the name of
    torchvision's or timm's own ("DEFAULT"); without it torchvision's, timm's and your
    own networks, and transformers' bare types, keep their random weights, drawn with
    `seed` (0). `labels` is a list, a dict or a file; `arch` is the specification of a
    checkpoint's network; `num_classes` is read off the weights where it is not given;
    `input_size` is a side, or (rows, cols), in pixels; `preprocessing` is a
    `Preprocessing`, any callable from PIL image to tensor, or a name of Places365's;
    `base_url` mirrors its files; `output` and `scores` are as in `wrap`.

    A network that matches photos with texts (CLIP, SigLIP) has the classes that `labels`
    name. Each label is put for the {} of every one of the `templates` ("a photo of a
    {}."), and the class is the mean of these texts.
    """
    from unitscope.sources.request import Request
    from unitscope.sources.specification import load_reloadable

    if spec is not None and not isinstance(spec, str):
        raise ModelError(
            "a model is named by a string such as 'torchvision:resnet50', not "
            f"{type(spec).__name__}: use unitscope.wrap for a network that you built"
        )
    request = Request(
        spec=DEFAULT_SPEC if spec is None else spec.strip(),
        weights=weights,
        labels=labels,
        arch=arch,
        num_classes=num_classes,
        input_size=input_size,
        preprocessing=preprocessing,
        output=output,
        progress=progress,
        seed=seed,
        base_url=base_url,
        scores=scores,
        templates=templates,
    )
    request.check_numbers()
    return load_reloadable(request)
