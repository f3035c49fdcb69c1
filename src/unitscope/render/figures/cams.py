"""Class activation maps: where on a photo the evidence for its classes lies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from unitscope.attribution.classes import class_indices
from unitscope.attribution.explanation import Explanation
from unitscope.plurals import plural
from unitscope.render.colours import THIS_MAP, Scale, shared_over
from unitscope.render.figures.blocks import (
    Block,
    colour_bar,
    heading,
    note,
    page,
)
from unitscope.render.figures.looks import Look
from unitscope.render.figures.panels import (
    PIXELS,
    Panel,
    check_count,
    grid,
    photos_shown,
)
from unitscope.render.figures.parts import part_blocks
from unitscope.render.views import View
from unitscope.render.words import clean, number, percent, power

MapScale = Literal["shared", "photo", "map"]

_COLOURING = {
    "signed": "orange is evidence for the class, violet against it, grey is neither",
    "heat": "only evidence for the class is drawn (values below 0 are left out)",
    "contour": (
        "lines at ¼, ½ and ¾ of the scale, orange for the class and violet against it"
    ),
    "write-up": (
        "the map divided by the end of the scale, values below 0 left out, blended by "
        "its own strength as in the write-up"
    ),
    "plain": "the map alone, without the photo",
}


def cams_figure(
    explanation: Explanation,
    *,
    image: int | None = None,
    classes: int | str | Sequence[int | str] | None = None,
    top: int = 5,
    scale: MapScale | Scale | None = None,
    style: str = "signed",
    colours: str | None = None,
    columns: int | None = None,
) -> Figure:
    """Class activation maps on their photos, in logits, with the completeness error.

    `image` is one photo of the batch (all when None). `classes` are labels or indices,
    each photo's `top` classes when None. `scale` is "shared" (over all maps drawn),
    "photo" (over the maps of a photo), "map" (each map alone), or a Scale; the default
    is "shared", and "map" in the write-up's style. `style` is "signed", "heat",
    "contour", "write-up" or "plain"; `colours` is a colour map.
    """
    photos = photos_shown(len(explanation), image)
    if classes is None:
        rankings = explanation.top(top)
        shown = [[entry.index for entry in rankings[photo]] for photo in photos]
    else:
        indices = class_indices(explanation.labels, classes)
        shown = [indices for _ in photos]

    blocks = cam_blocks(
        explanation,
        photos,
        shown,
        Look(style, colours),
        scale=scale,
        columns=columns,
    )
    return page(blocks)


def cam_blocks(
    explanation: Explanation,
    photos: Sequence[int],
    classes: Sequence[Sequence[int]],
    look: Look,
    scale: MapScale | Scale | None = None,
    columns: int | None = None,
) -> list[Block]:
    """The maps of some photos, each with its own classes, as `cams_figure` shows them."""
    check_count(sum(map(len, classes)), "classes")
    if scale is None:
        scale = "map" if look.style == "write-up" else "shared"
    signed = not look.positive_only
    if scale == "shared":
        scale = cam_scale(explanation, photos, classes, signed=signed)

    blocks = []
    for photo, indices in zip(photos, classes, strict=True):
        if isinstance(scale, Scale):
            common = scale
        elif scale == "photo":
            over = f"shared over this photo's {len(indices)} maps"
            common = cam_scale(
                explanation,
                [photo],
                [indices],
                over,
                signed=signed,
            )
        else:
            common = None

        blocks += _photo_blocks(
            explanation,
            photo,
            indices,
            look,
            common=common,
            columns=columns,
        )
    return blocks


def _photo_blocks(
    explanation: Explanation,
    photo: int,
    classes: Sequence[int],
    look: Look,
    common: Scale | None,
    columns: int | None,
) -> list[Block]:
    name = explanation.subjects[photo].name
    title = heading(f"Where the evidence lies: {name}")
    panels = cam_panels(explanation, photo, classes, common, look)
    blocks = [title, *grid(panels, columns)]
    if common is not None:
        quantity = f"evidence at every place, in {explanation.scores.numbers}"
        blocks.append(colour_bar(common, quantity, look))

    over = common.over if common else "each map alone"
    style = look.style if look.style in _COLOURING else "plain"
    colouring = _COLOURING[style]
    sums = adding_up(explanation[photo], classes)
    blocks.append(note(f"Scale: {over}; {colouring}. {sums}"))
    if explanation.head.maps_are_a_part:
        # Nobody shall take the patches for the whole.
        blocks += part_blocks(explanation, photo, classes)
    return blocks


def cam_scale(
    explanation: Explanation,
    photos: Sequence[int],
    classes: Sequence[Sequence[int]],
    over: str = "",
    *,
    signed: bool = True,
) -> Scale:
    """The scale that the maps of some classes of some photos share, in logits."""
    maps = [
        explanation[photo].cams_of(list(indices)).cpu().numpy().ravel()
        for photo, indices in zip(photos, classes, strict=True)
    ]
    count = sum(map(len, classes))
    return Scale.of(
        np.concatenate(maps), over or shared_over(count), signed=signed
    )


def adding_up(explanation: Explanation, classes: Sequence[int]) -> str:
    """How the maps of one photo add up to the logits, or by how much they do not."""
    what = explanation.scores.number
    if explanation.exact:
        error = power(float(explanation.completeness_error[0]))
        return (
            f"The mean of each map + its bias = its {what}; largest error over all "
            f"{plural(len(explanation.labels), 'class')}: {error} of the largest {what}."
        )

    first = classes[0]
    if explanation.adds_up:
        return _of_patches(explanation, first)
    left_out = number(float(explanation.left_out_of([first])[0, 0]))
    logit = number(float(explanation.logits[0, first]))
    return (
        f"A local answer: gradient × activation at {clean(explanation.layer)}. The "
        f"mean of the map leaves out {left_out} of the {what} of "
        f"{clean(explanation.labels[first])}, {logit}."
    )


def _of_patches(explanation: Explanation, index: int) -> str:
    """What the maps of a residual stream are, and how much of a class they carry."""
    what = explanation.scores.number
    patches = number(float(explanation.parts["patches"][0, index]))
    logit = number(float(explanation.logits[0, index]))
    return (
        "An account of the residual stream: exact parts. The maps show what the patches gave "
        f"through attention, for {clean(explanation.labels[index])} {patches} of the {what} "
        f"{logit}."
    )


def cam_panels(
    explanation: Explanation,
    photo: int,
    classes: Sequence[int],
    common: Scale | None,
    look: Look | None = None,
    pixels: int = PIXELS,
) -> list[Panel]:
    """A panel for every class's map on one photo.

    The maps have the `common` scale, or each its own where that is None.
    """
    look = look or Look("signed")
    view = View.of(explanation.subjects[photo], explanation.input_size, pixels)
    laid = explanation.cams_on_photo(photo, list(classes), view.size)
    return [
        _panel(explanation, photo, index, view, on_photo, common, look)
        for index, on_photo in zip(classes, laid, strict=True)
    ]


def _panel(
    explanation: Explanation,
    photo: int,
    index: int,
    view: View,
    laid: Float[np.ndarray, "height width"],
    common: Scale | None,
    look: Look,
) -> Panel:
    signed = not look.positive_only
    scale = common or cam_scale(
        explanation, [photo], [[index]], THIS_MAP, signed=signed
    )
    logit = number(float(explanation.logits[photo, index]))
    shares = explanation.scores.probabilities(explanation.logits[photo])
    probability = "" if shares is None else percent(float(shares[index]))

    if not bool(explanation[photo].cams_of([index]).any()):
        words = "no evidence (all 0)"
    else:
        words = "nothing above 0" if scale.is_blank else ""
    shown = [*reversed(explanation.scores.shown(probability, logit))]
    if explanation.head.maps_are_a_part:
        patches = float(explanation.parts["patches"][photo, index])
        shown.append(f"patches {number(patches, sign=True)}")
    return Panel(
        pixels=look.overlay(view, laid, scale),
        title=explanation.labels[index],
        line=" · ".join(shown),
        bar=look.bar(scale) if common is None else None,
        note=words,
    )
