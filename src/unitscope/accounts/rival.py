"""Rival: the class against which a prediction is explained, and what would let one win."""

from __future__ import annotations

from typing import NamedTuple

from unitscope.attribution.contrast import Contrast
from unitscope.attribution.explanation import Explanation
from unitscope.attribution.flip import Flip
from unitscope.attribution.scores import Scores
from unitscope.model import Classifier

# Units of a set that real passes look for: up to 24 passes, of the network or its rest.
_MOST_MEASURED = 16


class Rival(NamedTuple):
    """Why one class and not another on one photo, and what flips the prediction.

    Both are None where there is no other class, or no class at all (see `Scores.NONE`).
    """

    contrast: Contrast | None
    flip: Flip | None


def rival_of(
    model: Classifier,
    photo: Explanation,
    a: int | str | None = None,
    b: int | str | None = None,
) -> Rival:
    """The contrast of two classes on a photo, by default the top two, and the flip.

    The flip is confirmed by a real forward pass. It is to the other class of the two where
    these were asked for and one of them is first, else to any class. Where ablations are
    real passes, sets of up to 16 units are looked for. Raises ClassError for classes
    that do not exist, and for the same class twice.
    """
    is_asked = a is not None or b is not None
    has_none = len(photo.labels) < 2 or photo.scores is Scores.NONE
    if has_none and not is_asked:
        return Rival(None, None)

    contrast = photo.contrast(a, b)
    pair = contrast.pairs[0]
    first = int(photo.logits[0].argmax())
    to = None
    if is_asked and first in pair:
        to = pair.b if first == pair.a else pair.a
    most = None if photo.exact else _MOST_MEASURED
    return Rival(contrast, model.confirmed(photo.flip(to, most=most)))
