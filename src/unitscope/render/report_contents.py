"""Report contents: what the template puts on the page of one photo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from markupsafe import Markup

from unitscope.accounts.account import Account, UnitStory
from unitscope.attribution.ablation import Change
from unitscope.attribution.explanation import Explanation
from unitscope.kernels import Filters
from unitscope.render import diagram
from unitscope.render.colours import Scale
from unitscope.render.diagram_svg import svg
from unitscope.render.figures.account import account_unit_scale
from unitscope.render.figures.cams import cam_scale
from unitscope.render.figures.filters import filters_words
from unitscope.render.kernel_sheet import KernelSheet
from unitscope.render.map_views import (
    MapView,
    bar_of,
    evidence_alt,
    unit_view,
)
from unitscope.render.markup import bar, data_uri
from unitscope.render.report_contrast import contrast_view
from unitscope.render.report_heads import head_contents, views_of_heads
from unitscope.render.report_layers import layer_contents
from unitscope.render.views import View
from unitscope.render.words import (
    capitalised,
    clean,
    difference,
    listing,
    mean_of,
    number,
    percent,
    quantity,
)

# Pixels of the longer side.
_PHOTO = 1000
_LAYER = 640
_SMALL_LAYER = 420

# A unit that adds less than this share of the logit plays hardly any part in the
# prediction.
_HARDLY = 0.02

_MOST_ABLATED = 4


@dataclass(frozen=True)
class ClassRow:
    """One class's map with its logit; mean of the map + `bias` = logit.

    For a local answer `bias` is what the map leaves out.
    """

    label: str
    logit: float
    shown: str
    mean: float
    bias: float
    map: MapView

    @property
    def difference(self) -> float:
        """How far mean + bias is from the logit."""
        return self.mean + self.bias - self.logit


@dataclass(frozen=True)
class UnitRow:
    """One unit with its map, the bar of its contribution, and the classes it serves."""

    story: UnitStory
    map: MapView
    bar: Markup
    serves: str


@dataclass(frozen=True)
class FilterView:
    """A layer's filters as one picture, with the places of their numbers in pixels."""

    layer: str
    picture: str
    width: int
    height: int
    numbers: tuple[tuple[int, float, float], ...]
    words: str
    alt: str


def contents(account: Account) -> dict[str, Any]:
    """Everything that the template cannot take from the account itself."""
    explanation = account.explanation
    view = View.of(account.subject, explanation.input_size, _PHOTO)
    return {
        **_photo(account, view),
        **_predictions(account),
        **_classes(account, _layer_size(view, _LAYER)),
        **_units(account, _layer_size(view, _SMALL_LAYER)),
        **_network(account),
        "contrast": contrast_view(account, _layer_size(view, _LAYER)),
        "filters": [_filter_view(filters) for filters in account.filters],
        "layers": layer_contents(account),
        "heads": (
            None
            if account.heads is None
            else head_contents(account, _layer_size(view, _SMALL_LAYER))
        ),
    }


def _layer_size(view: View, longest: int) -> tuple[int, int]:
    factor = min(1.0, longest / max(view.size))
    width, height = view.size
    return max(2, round(width * factor)), max(2, round(height * factor))


def _photo(account: Account, view: View) -> dict[str, Any]:
    width, height = view.size
    return {
        "photo": data_uri(view.photo),
        "width": width,
        "height": height,
        "box": None if view.whole else [round(side, 1) for side in view.box],
        "photo_alt": _photo_alt(account, view),
    }


def _photo_alt(account: Account, view: View) -> str:
    first = account.predictions[0]
    size = " by ".join(map(str, account.subject.size))
    crop = (
        "all of it"
        if view.whole
        else "only the outlined part; the rest is greyed"
    )
    scores = account.explanation.scores
    shown = scores.shown(percent(first.probability), number(first.logit))
    what = "top prediction" if scores.has_probabilities else "largest output"
    return (
        f"{clean(account.subject.name)}, {size} pixels; the network saw {crop}. "
        f"The {what} is {clean(first.label)} with {shown[0]}."
    )


def _predictions(account: Account) -> dict[str, Any]:
    first = account.classes[0]
    return {
        "predictions": [
            (
                entry,
                ""
                if entry.probability is None
                else bar(entry.probability, 0, 1),
            )
            for entry in account.predictions
        ],
        "first": account.label(first),
        "first_logit": float(account.explanation.logits[0, first]),
    }


def _network(account: Account) -> dict[str, Any]:
    return {
        "diagram": svg(account.network),
        "diagram_summary": diagram.summary(account.network),
        "diagram_key": diagram.KEY,
    }


# ---- class activation maps


def _classes(account: Account, size: tuple[int, int]) -> dict[str, Any]:
    explanation = account.explanation
    scale = cam_scale(explanation, [0], [account.classes])
    error = 0.0
    if explanation.exact:
        error = float(explanation.completeness_error.max())
    return {
        "maps": _class_rows(account, scale, size),
        "map_scale": scale,
        "map_bar": bar_of(scale, "scale-classes", explanation.scores.numbers),
        "completeness": error,
    }


def _class_shown(explanation: Explanation, index: int) -> str:
    """A class's logit and probability, "logit 7.31, 31.2%"."""
    logits = explanation.logits[0]
    shares = explanation.scores.probabilities(logits)
    probability = None if shares is None else float(shares[index])
    shown = explanation.scores.shown(
        percent(probability), number(float(logits[index]))
    )
    return ", ".join(reversed(shown))


def _class_rows(
    account: Account, scale: Scale, size: tuple[int, int]
) -> list[ClassRow]:
    explanation, classes = account.explanation, list(account.classes)
    laid = explanation.cams_on_photo(0, classes, size)
    maps = explanation.cams_of(classes)[0]

    rows = []
    for index, on_photo, cells in zip(
        classes,
        laid,
        maps,
        strict=True,
    ):
        label = account.label(index)
        is_zero = not bool(cells.any())
        rows.append(
            ClassRow(
                label=label,
                logit=float(explanation.logits[0, index]),
                shown=_class_shown(explanation, index),
                mean=float(cells.mean()),
                bias=float(explanation.left_out_of(index)[0, 0]),
                map=MapView.of(
                    on_photo,
                    scale,
                    alt=_class_alt(
                        clean(label),
                        on_photo,
                        explanation.scores.numbers,
                        is_zero=is_zero,
                    ),
                    blank="no evidence (all 0)" if is_zero else "",
                ),
            )
        )
    return rows


def _class_alt(
    label: str,
    laid: Float[np.ndarray, "height width"],
    unit: str,
    *,
    is_zero: bool,
) -> str:
    if is_zero:
        return (
            f"Evidence for {label}: none anywhere, the map is 0 in every place."
        )
    return f"Evidence for {label}: {evidence_alt(laid, unit)}"


# ---- units


def _units(account: Account, size: tuple[int, int]) -> dict[str, Any]:
    contributions = [story.contribution.contribution for story in account.units]
    scale = account_unit_scale(account)
    shown = [story.unit for story in account.units]
    shown += account.ablation.units
    head = account.explanation.head
    holds = head.maps_hold(shown)
    held = quantity(holds)
    return {
        "units": _unit_rows(account, scale, size),
        "units_together": sum(contributions),
        "unit_count": account.explanation.feature_map.shape[1],
        "unit_sources": clean(head.sources_in_words()),
        "unit_quantity": held,
        "unit_mean": mean_of(holds),
        "unit_scale": scale,
        "unit_bar": bar_of(scale, "scale-units", held),
        "ablation": _ablation(account, scale, size),
    }


def _unit_rows(
    account: Account, scale: Scale, size: tuple[int, int]
) -> list[UnitRow]:
    # Where each class is a unit, all units but the class's own have the weight 0.
    stories = [
        story for story in account.units if story.contribution.contribution
    ]
    stories = stories or list(account.units[:1])
    values = [story.contribution.contribution for story in stories]
    low, high = min(values, default=0.0), max(values, default=0.0)

    rows = []
    for story, value in zip(stories, values, strict=True):
        labels = [clean(label) for label, weight in story.serves if weight > 0]
        rows.append(
            UnitRow(
                story=story,
                map=_unit_view(account, story.unit, scale, size),
                bar=bar(value, low, high),
                serves=listing(labels, 3),
            )
        )
    return rows


def _unit_view(
    account: Account, unit: int, scale: Scale, size: tuple[int, int]
) -> MapView:
    return unit_view(account.explanation.unit_maps(unit), 0, scale, size)


# ---- ablation


def _ablation(
    account: Account, scale: Scale, size: tuple[int, int]
) -> dict[str, Any]:
    ablation = account.ablation
    units = list(ablation.units)
    first = account.classes[0]
    before, after = (
        float(ablation.before[0, first]),
        float(ablation.after[0, first]),
    )
    fires = bool(ablation.maps.maps.any())
    shown = units[:_MOST_ABLATED]
    return {
        "rows": _change_rows(account),
        "maps": _views_off(account, shown, scale, size),
        "more": len(units) - len(shown),
        "units": listing([str(unit) for unit in units], 8),
        "noun": "unit" if len(units) == 1 else "units",
        "weight": float(account.explanation.weights_of(first)[0, units].sum()),
        "lost": difference(after, before).lstrip("+"),
        "fires": (
            "This unit hardly fires here"
            if fires
            else "This unit does not fire here"
        ),
        "hardly": abs(before - after) < _HARDLY * abs(before),
        "after_first": after,
        "turned": ablation.turned_over()[0],
        "after": account.label(int(ablation.after[0].argmax())),
        "turning": listing([str(unit) for unit in account.turning or ()], 12),
    }


def _views_off(
    account: Account, units: list[int], scale: Scale, size: tuple[int, int]
) -> list[tuple[str, MapView]]:
    """The units that are switched off: names and maps; of heads the signed ones."""
    if account.heads is not None:
        return views_of_heads(account, units, size)
    return [
        (f"unit {unit}", _unit_view(account, unit, scale, size))
        for unit in units
    ]


def _change_rows(account: Account) -> list[tuple[Change, Markup, Markup]]:
    """The changes of the ablation, each with bars for its logits before and after."""
    changes = account.ablation.changes(len(account.predictions))
    logits = [change.logit_before for change in changes]
    logits += [change.logit_after for change in changes]
    low, high = min(logits, default=0.0), max(logits, default=0.0)
    return [
        (
            change,
            bar(change.logit_before, low, high, "before"),
            bar(change.logit_after, low, high, "after"),
        )
        for change in changes
    ]


# ---- scales and filters


def _filter_view(filters: Filters) -> FilterView:
    sheet = KernelSheet.of(filters)
    height, width = sheet.pixels.shape[:2]
    words = capitalised(filters_words(filters))
    return FilterView(
        layer=filters.layer,
        picture=data_uri(sheet.pixels, lossless=True),
        width=width,
        height=height,
        numbers=sheet.numbers,
        words=words,
        alt=f"The filters of {clean(filters.layer)} as small pictures. {words}",
    )
