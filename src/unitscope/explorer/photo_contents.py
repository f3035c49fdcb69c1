"""Photo contents: what the pages are told of one photo, as plain data, so that they can do the algebra themselves."""

from __future__ import annotations

import base64
import io
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

Plain = dict[str, Any]

LONGEST = 1024
"""Pixels of the longer side of the pictures that pages show."""

# Local answers may be asked for at layers of millions of cells; their thumbnails need
# no more than this a side.
_THUMBNAIL = 28


def head_contents(readout: Readout) -> Plain:
    """How pooled units become logits: weight (class, unit), bias (class), and the normalisation, if there is one."""
    norm = readout.norm
    return {
        "classes": len(readout.bias),
        "units": readout.weight.shape[1],
        "weight": packed(readout.weight),
        "bias": packed(readout.bias),
        "norm": None if norm is None else {"kind": norm.kind, "eps": norm.eps},
    }


def photo_contents(explanation: Explanation) -> Plain:
    """One photo's explanation: logits, where the map lies, and the map itself.

    An exact answer brings the feature map (unit, row, col) as it is; all maps,
    contributions and ablations follow from it and the head. A local answer brings it
    small, to be looked at only (see `evidence_contents`), and what it leaves out of the
    logits.
    """
    (subject,) = explanation.subjects
    feature_map = explanation.feature_map[0].detach().cpu().float()
    told = _placed(
        subject.placement(explanation.input_size),
        explanation.grid,
        feature_map.shape[1:],
    )
    told |= {
        "name": shorten(subject.name, 120),
        "exact": explanation.exact,
        "layer": explanation.layer,
        "units": len(feature_map),
        "logits": packed(explanation.logits[0]),
    }
    if explanation.exact:
        return told | {"features": packed(feature_map)}
    small = torch.nn.functional.adaptive_max_pool2d(
        feature_map, [min(side, _THUMBNAIL) for side in feature_map.shape[1:]]
    )
    return told | {
        "method": explanation.head.kind,
        "thumbnails": packed(small),
        "thumbnail": list(small.shape[1:]),
    }


def kept_photo_contents(
    layer: AtlasLayer, readout: Readout, sample: Sample, image: int, subject: Subject
) -> Plain:
    """The same of an image that an atlas kept whole in the sample of its head's layer: no network is needed.

    The means over the cells are exact; the maps are right to 0.05 % of their largest
    activation.
    """
    place = int(np.flatnonzero(sample.images == image)[0])
    pooled = torch.from_numpy(sample.means[place])
    features = torch.from_numpy(sample.maps()[place])
    assert subject.placed is not None
    return _placed(subject.placed, layer.grid, features.shape[1:]) | {
        "name": shorten(subject.name, 120),
        "exact": True,
        "layer": layer.name,
        "units": layer.units,
        "logits": packed(readout.logits(pooled[None])[0]),
        "features": packed(features),
        "pooled": packed(pooled),
    }


def evidence_contents(explanation: Explanation, which: int) -> Plain:
    """A local answer for one class: its map (row, col), every unit's contribution, and what both leave out."""
    return {
        "map": packed(explanation.cams_of(which)[0, 0]),
        "contributions": packed(explanation.contributions_of(which)[0, 0]),
        "left_out": float(explanation.left_out_of(which)[0, 0]),
    }


def picture(photo: Image.Image, longest: int = LONGEST) -> bytes:
    """A photo as JPEG, its longer side at most `longest` pixels; nothing of the file it came from is left."""
    drawn = photo.copy()
    drawn.thumbnail((longest, longest), Image.Resampling.LANCZOS, reducing_gap=3.0)
    buffer = io.BytesIO()
    drawn.save(buffer, "jpeg", quality=90)
    return buffer.getvalue()


def packed(values: torch.Tensor) -> str:
    """Numbers as base64 of little-endian float32."""
    array: Float[np.ndarray, "*any"] = values.detach().cpu().float().numpy()
    return base64.b64encode(array.astype("<f4").tobytes()).decode("ascii")


def _placed(placement: Placement, grid: Grid, cells: tuple[int, ...]) -> Plain:
    """Where the input lies on the photo, and the map's cells on the input."""
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
