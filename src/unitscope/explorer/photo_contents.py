"""Photo contents: one photo's answer as plain data, from which pages do the algebra."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image

from unitscope.atlas.storage import AtlasLayer
from unitscope.atlas.summaries.sample import Sample
from unitscope.attribution.explanation import Explanation
from unitscope.attribution.readout import Readout
from unitscope.geometry import Grid, Placement
from unitscope.inputs.subjects import Subject
from unitscope.render.words import shorten
from unitscope.residual.explanation import ResidualExplanation

Plain = dict[str, Any]

LONGEST = 1024
"""Pixels of the longer side of the pictures that pages show."""

_LONGEST_NAME = 120
_JPEG_QUALITY = 90
# Local answers exist at layers of millions of cells; their thumbnails need no more cells
# than this a side.
_THUMBNAIL = 28


def head_contents(readout: Readout) -> Plain:
    """The map from pooled units to logits: weight (class, unit), bias (class), norm."""
    norm = readout.norm
    return {
        "classes": len(readout.bias),
        "units": readout.weight.shape[1],
        "weight": packed(readout.weight),
        "bias": packed(readout.bias),
        "norm": None if norm is None else {"kind": norm.kind, "eps": norm.eps},
    }


def photo_contents(explanation: Explanation) -> Plain:
    """One photo's explanation: logits, the map, and where it lies on the photo.

    An exact answer contains the feature map (unit, row, col) as it is: all maps,
    contributions and ablations follow from it and the head. Other answers contain small
    maps to look at; see `evidence_contents` for their numbers.
    """
    (subject,) = explanation.subjects
    feature_map = explanation.feature_map[0].detach().cpu().float()
    cells = feature_map.shape[1:]
    contents = {
        **_placement(
            subject.placement(explanation.input_size), explanation.grid, cells
        ),
        "name": shorten(subject.name, _LONGEST_NAME),
        "exact": explanation.head.has_table,
        "layer": explanation.layer,
        "units": len(feature_map),
        "logits": packed(explanation.logits[0]),
    }
    if explanation.head.has_table:
        units = range(len(feature_map))
        return contents | {
            "features": packed(feature_map),
            "shares": not explanation.head.gives_activations(units),
        }

    sides = [min(side, _THUMBNAIL) for side in cells]
    thumbnails = torch.nn.functional.adaptive_max_pool2d(feature_map, sides)
    contents |= {
        "method": explanation.head.kind,
        "thumbnails": packed(thumbnails),
        "thumbnail": list(thumbnails.shape[1:]),
    }
    if isinstance(explanation, ResidualExplanation):
        contents["heads"] = _heads_contents(explanation)
    return contents


def sampled_photo_contents(
    layer: AtlasLayer,
    readout: Readout,
    sample: Sample,
    image: int,
    subject: Subject,
) -> Plain:
    """The same for an image in the sample of an atlas's head layer, without a network.

    The means over the cells are exact; the maps are right to 0.05 % of their largest
    activation. The head's pools must be means: what others make of a map is not kept.
    """
    place = int(np.flatnonzero(sample.images == image)[0])
    pooled = torch.from_numpy(sample.means[place])
    features = torch.from_numpy(sample.maps()[place])
    assert subject.placed is not None
    return {
        **_placement(subject.placed, layer.grid, features.shape[1:]),
        "name": shorten(subject.name, _LONGEST_NAME),
        "exact": True,
        "layer": layer.name,
        "units": layer.units,
        "logits": packed(readout.logits(pooled[None])[0]),
        "features": packed(features),
        "shares": False,
        "pooled": packed(pooled),
    }


def evidence_contents(explanation: Explanation, index: int) -> Plain:
    """A local answer for one class: map (row, col), contributions, and the remainder."""
    return {
        "map": packed(explanation.cams_of(index)[0, 0]),
        "contributions": packed(explanation.contributions_of(index)[0, 0]),
        "left_out": float(explanation.left_out_of(index)[0, 0]),
    }


def ablated_contents(explanation: Explanation, units: Sequence[int]) -> Plain:
    """The logits without units; without heads of attention, by both of their effects."""
    if not isinstance(explanation, ResidualExplanation):
        return {"logits": packed(explanation.ablate(units).logits[0])}
    return {
        "logits": packed(explanation.total_logits(units)[0]),
        "direct": packed(explanation.direct_logits(units)[0]),
    }


def head_map_contents(
    explanation: ResidualExplanation, index: int, unit: int
) -> Plain:
    """What patches give to a class through one head (row, col), signed, in logits."""
    return {"map": packed(explanation.head_maps(unit, index)[0, 0, 0])}


def _heads_contents(explanation: ResidualExplanation) -> Plain:
    """The names of the heads, and the parts of the logits of all classes."""
    parts = explanation.parts.items()
    return {
        "names": list(explanation.head.unit_names),
        "parts": [
            {"name": name, "logits": packed(part[0])} for name, part in parts
        ],
        "held": explanation.head.held,
    }


def picture(photo: Image.Image, longest: int = LONGEST) -> bytes:
    """A photo as JPEG without metadata, its longer side at most `longest` pixels."""
    small = photo.copy()
    small.thumbnail(
        (longest, longest), Image.Resampling.LANCZOS, reducing_gap=3.0
    )
    buffer = io.BytesIO()
    small.save(buffer, "jpeg", quality=_JPEG_QUALITY)
    return buffer.getvalue()


def packed(values: torch.Tensor) -> str:
    """Numbers as base64 of little-endian float32."""
    array: Float[np.ndarray, "*any"] = values.detach().cpu().float().numpy()
    return base64.b64encode(array.astype("<f4").tobytes()).decode("ascii")


def _placement(
    placement: Placement, grid: Grid, cells: tuple[int, ...]
) -> Plain:
    """Where the input lies on the photo, and the cells of the map on the input."""
    return {
        "size": list(placement.photo_size),
        "box": list(placement.box),
        "input": list(placement.input_size),
        "map": {
            "rows": cells[0],
            "cols": cells[1],
            "down": [grid.rows.start, grid.rows.step],
            "across": [grid.cols.start, grid.cols.step],
            "traced": grid.traced,
        },
    }
