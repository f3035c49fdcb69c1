"""Figures: results drawn with matplotlib's objects, without pyplot or global state.

One file holds one kind of picture. `FIGURES` says which pictures there are of a result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from matplotlib.figure import Figure

from unitscope.accounts.account import Account
from unitscope.attribution.ablation import Ablation
from unitscope.attribution.contrast import Contrast
from unitscope.attribution.explanation import Explanation
from unitscope.attribution.full_gradient import FullGradient
from unitscope.attribution.screening import Screening
from unitscope.attribution.unit_ablations import UnitAblations
from unitscope.attribution.unit_inputs import UnitInputs
from unitscope.attribution.unit_maps import UnitMaps
from unitscope.errors import InputError
from unitscope.evaluation.evaluation import Evaluation
from unitscope.kernels import Filters
from unitscope.network_facts import NetworkFacts
from unitscope.render.figures.ablation import ablation_figure
from unitscope.render.figures.account import ACCOUNT_FIGURES
from unitscope.render.figures.cams import cams_figure
from unitscope.render.figures.contrast import contrast_figure
from unitscope.render.figures.contributions import contributions_figure
from unitscope.render.figures.evaluation import evaluation_figure
from unitscope.render.figures.filters import filters_figure
from unitscope.render.figures.full_gradient import full_gradient_figure
from unitscope.render.figures.layers import layers_figure
from unitscope.render.figures.network import network_figure
from unitscope.render.figures.parts import parts_figure
from unitscope.render.figures.predictions import predictions_figure
from unitscope.render.figures.unit_ablations import unit_ablations_figure
from unitscope.render.figures.unit_inputs import unit_inputs_figure
from unitscope.render.figures.units import units_figure

FIGURES: Mapping[type, Mapping[str, Callable[..., Figure]]] = {
    Explanation: {
        "cams": cams_figure,
        "predictions": predictions_figure,
        "contributions": contributions_figure,
        "parts": parts_figure,
    },
    UnitMaps: {"units": units_figure},
    Ablation: {"ablation": ablation_figure},
    UnitAblations: {"ablations": unit_ablations_figure},
    Contrast: {"contrast": contrast_figure},
    Screening: {"layers": layers_figure},
    FullGradient: {"fullgrad": full_gradient_figure},
    UnitInputs: {"inputs": unit_inputs_figure},
    Filters: {"filters": filters_figure},
    NetworkFacts: {"network": network_figure},
    Evaluation: {"evaluation": evaluation_figure},
    Account: ACCOUNT_FIGURES,
}
"""The pictures of every kind of result by their names; the first is the default."""


def figure(result: Any, *, show: str | None = None, **options: Any) -> Figure:
    """Draw a result as a matplotlib Figure.

    `show` names one of its pictures in `FIGURES`; the other options are those of the
    function that draws it.

    Raises TypeError for a result without pictures, ValueError for an unknown `show`.
    """
    pictures = _pictures_of(result)
    if show is None:
        show = next(iter(pictures))
    if show not in pictures:
        known = ", ".join(map(repr, pictures))
        raise InputError(f"show is one of {known}, not {show!r}")

    draw = pictures[show]
    return draw(result, **options)


def _pictures_of(result: Any) -> Mapping[str, Callable[..., Figure]]:
    for kind, pictures in FIGURES.items():
        if isinstance(result, kind):
            return pictures
    raise TypeError(f"there is no figure of a {type(result).__name__}")
