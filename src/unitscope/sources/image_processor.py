"""Image processors: that of a transformers network as a preprocessing, or the usual one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unitscope.errors import ModelError, PreprocessingError, one_line
from unitscope.inputs.preprocessing import AnyPreprocessing
from unitscope.inputs.processors import of_processor, size_in_pixels


def preprocessing_of(processor: Any, note: str) -> AnyPreprocessing:
    """An image processor as a `Preprocessing`, or else as it is.

    Raises ModelError when the processor gives no picture at all.
    """
    if hasattr(processor, "data_config"):
        from unitscope.sources.timm import translated

        return translated(processor.data_config, note)
    try:
        return of_processor(processor, note)
    except PreprocessingError as error:
        raise ModelError(
            "the network takes no photo as a (channel, row, col) tensor "
            f"({one_line(error)}): unitscope explains those that do; if this one does, "
            "give a preprocessing"
        ) from None


def usual_processor(config: Any, sides: tuple[int, int] | None) -> Any:
    """The image processor that transformers takes for such networks, or None.

    `sides` (rows, cols) is the size of the input where that is known; a processor that
    crops is left as it is.
    """
    try:
        kind = _processor_class(config)
        processor = kind()
        if sides is None or getattr(processor, "do_center_crop", False):
            return processor

        rows, cols = sides
        if isinstance(size_in_pixels(processor.size), tuple):
            return kind(size={"height": rows, "width": cols})
        return kind(size={"shortest_edge": rows}) if rows == cols else processor
    except Exception:
        # Not every kind has one, and some need settings that only a trained network
        # has.
        return None


def _processor_class(config: Any) -> Any:
    """The class of image processors for a configuration."""
    from transformers.models.auto.image_processing_auto import (
        IMAGE_PROCESSOR_MAPPING,
    )

    entry = IMAGE_PROCESSOR_MAPPING[type(config)]
    # Until transformers 4 a pair of which the first is Pillow's; since then by name.
    if isinstance(entry, Mapping):
        kinds = [entry.get("torchvision"), entry.get("pil")]
    else:
        kinds = list(entry)
    return next(
        kind
        for kind in kinds
        if kind is not None and not getattr(kind, "is_dummy", False)
    )
