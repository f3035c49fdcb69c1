"""Everything drawn: figures, notebook fragments and the one-file report; only colour and layout are computed here."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from unitscope.accounts.account import Account
from unitscope.attribution.ablation import Ablation
from unitscope.attribution.explanation import Explanation
from unitscope.attribution.unit_maps import UnitMaps
from unitscope.errors import OutputError
from unitscope.files import make_folder, written_whole
from unitscope.kernels import Filters
from unitscope.network_facts import NetworkFacts
from unitscope.render import figures
from unitscope.render.fragments import html
from unitscope.render.report import write_report
from unitscope.render.sheets import DPI

__all__ = ["figure", "html", "make_folder", "save", "write_report"]

SUFFIXES = (".png", ".pdf", ".svg", ".jpg", ".jpeg", ".webp")


@functools.singledispatch
def figure(result: Any, **options: Any) -> Figure:
    """Draw a result as a matplotlib Figure; the options are those of the function in unitscope.render.figures.

    An Explanation takes `show`: "cams" (the default), "predictions" or "contributions".
    """
    raise TypeError(f"there is no figure of a {type(result).__name__}")


@figure.register
def _(result: Explanation, *, show: str = "cams", **options: Any) -> Figure:
    drawings: dict[str, Callable[..., Figure]] = {
        "cams": figures.cams_figure,
        "predictions": figures.predictions_figure,
        "contributions": figures.contributions_figure,
    }
    if show not in drawings:
        raise ValueError(
            f"show is one of {', '.join(map(repr, drawings))}, not {show!r}"
        )
    return drawings[show](result, **options)


figure.register(UnitMaps, figures.units_figure)
figure.register(Ablation, figures.ablation_figure)
figure.register(Filters, figures.filters_figure)
figure.register(NetworkFacts, figures.network_figure)
figure.register(Account, figures.account_figure)


def save(
    result: Any, path: str | os.PathLike[str], *, dpi: float = DPI, **options: Any
) -> Path:
    """Draw a result into a picture file of the kind that its suffix names (PNG, PDF, SVG, JPEG, WebP).

    `dpi` is dots an inch; the other options are `figure`'s. Raises OutputError when the
    file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise OutputError(
            f"cannot write '{path}': a picture's name ends in one of "
            f"{', '.join(SUFFIXES)}"
        )
    drawn = figure(result, **options)
    with written_whole(path) as temporary:
        drawn.savefig(
            temporary,
            dpi=dpi,
            format=path.suffix.lower().lstrip(".").replace("jpeg", "jpg"),
        )
    return path
