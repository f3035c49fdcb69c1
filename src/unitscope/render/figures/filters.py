"""Filters: the kernels of a convolution as a grid of small pictures."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure

from unitscope.errors import InputError
from unitscope.kernels import Filters
from unitscope.render.figures.blocks import (
    INNER,
    MARGIN,
    Block,
    heading,
    note,
    page,
)
from unitscope.render.sheets import SOFT, Sheet
from unitscope.render.words import number, numbers

Interpolation = Literal["nearest", "bilinear", "bicubic"]

# Inches.
_WIDEST = 0.85
_GAP = 0.07
_NUMBERS = 0.45

_MOST_KERNELS = 4096


def filters_figure(
    filters: Filters,
    *,
    size: int = 50,
    interpolation: Interpolation = "nearest",
    columns: int | None = None,
) -> Figure:
    """A layer's filters in a grid, numbered.

    Where several channels are shown apart, the grid has a row for every filter and a
    column for every channel. `size` is the longer side in pixels that a kernel is
    enlarged to, with `interpolation`; `columns` is the number of filters in a row.
    """
    return page(filter_blocks(filters, size, interpolation, columns))


def filter_blocks(
    filters: Filters,
    size: int = 50,
    interpolation: Interpolation = "nearest",
    columns: int | None = None,
) -> list[Block]:
    """The filters of one layer; the options are those of `filters_figure`."""
    pictures = filters.enlarged(size, interpolation)
    title = f"Filters of {filters.layer}"
    if filters.rgb:
        block = _filter_grid(filters, pictures, columns)
    elif len(filters.channels) == 1:
        block = _filter_grid(filters, pictures[:, 0], columns)
    else:
        block = _channel_table(filters, pictures)
        title += " (rows: filters, columns: input channels)"
    return [heading(title), block, note(filters_words(filters, interpolation))]


def filters_words(filters: Filters, interpolation: str = "nearest") -> str:
    """What a grid of filters shows, and how weights became grey values or colours."""
    rows, cols = filters.weights.shape[-2:]
    count, total = len(filters.filters), filters.filters_in_layer
    which = f"{count} of {total} filters"
    if count == total:
        which = f"all {count} filters"

    channels = _channels_words(filters)
    scale = _scale_words(filters)
    enlargement = _enlargement_words(interpolation)
    return (
        f"{which} of {filters.layer}, {rows}×{cols}, {channels}; {scale}; "
        f"{enlargement}."
    )


def _channels_words(filters: Filters) -> str:
    if filters.rgb:
        return "input channels as red, green, blue"
    if len(filters.channels) == 1:
        return f"input channel {numbers(filters.channels)}"
    return f"input channels {numbers(filters.channels)}, a column each"


def _scale_words(filters: Filters) -> str:
    low, high = float(filters.low.min()), float(filters.high.max())
    span = f"weights from {number(low, 4)} to {number(high, 4)}"
    if filters.scale == "shared":
        return f"all on one scale, {span}"
    return f"each kernel scaled from its own smallest to its own largest weight ({span})"


def _enlargement_words(interpolation: str) -> str:
    if interpolation == "nearest":
        return "enlarged without smoothing"
    return f"enlarged with {interpolation} interpolation"


def _filter_grid(
    filters: Filters,
    pictures: Float[np.ndarray, "filter row col *rgb"],
    columns: int | None,
) -> Block:
    """One picture a filter, with its number below."""
    count = len(filters.filters)
    columns = columns or _columns(count)
    width = min(_WIDEST, (INNER - _GAP * (columns - 1)) / columns)
    height = width * pictures.shape[1] / pictures.shape[2]
    size = min(7.5, width * 16)
    step = height + (size / 72 + 0.1)

    def draw(sheet: Sheet, y: float) -> None:
        for position, index in enumerate(filters.filters):
            row, column = divmod(position, columns)
            x, top = MARGIN + column * (width + _GAP), y + row * step
            picture = _eight_bit(pictures[position])
            sheet.picture(
                x,
                top,
                width,
                height,
                picture,
                crisp=True,
            )

            baseline = top + height + size / 72 + 0.02
            sheet.text(
                x + width / 2,
                baseline,
                str(index),
                size=size,
                colour=SOFT,
                align="center",
            )

    return Block(math.ceil(count / columns) * step + 0.05, draw)


def _columns(count: int) -> int:
    """The columns of a grid, if possible without a gap in its last row."""
    for columns in (16, 15, 12, 10, 8):
        if count % columns == 0 and count >= columns:
            return columns
    return min(16, count)


def _channel_table(
    filters: Filters, pictures: Float[np.ndarray, "filter channel row col"]
) -> Block:
    """A row for every filter and a column for every channel, both numbered."""
    columns = len(filters.channels)
    if columns * len(filters.filters) > _MOST_KERNELS:
        raise InputError(
            f"a figure holds at most {_MOST_KERNELS:,} kernels: choose filters or "
            "channels"
        )
    width = min(_WIDEST, (INNER - _NUMBERS - _GAP * (columns - 1)) / columns)
    height = width * pictures.shape[-2] / pictures.shape[-1]
    step = height + _GAP
    left = MARGIN + _NUMBERS

    def draw(sheet: Sheet, y: float) -> None:
        _draw_channels(sheet, filters, left, y + 0.12, width)
        for row, index in enumerate(filters.filters):
            top = y + 0.2 + row * step
            baseline = top + height / 2 + 0.04
            sheet.text(
                left - 0.08,
                baseline,
                str(index),
                size=7,
                colour=SOFT,
                align="right",
            )
            for column in range(columns):
                x = left + column * (width + _GAP)
                picture = _eight_bit(pictures[row, column])
                sheet.picture(
                    x,
                    top,
                    width,
                    height,
                    picture,
                    crisp=True,
                )

    return Block(len(filters.filters) * step + 0.25, draw)


def _draw_channels(
    sheet: Sheet, filters: Filters, left: float, baseline: float, width: float
) -> None:
    for column, channel in enumerate(filters.channels):
        # Narrow columns have no room for a number each.
        if width <= 0.2 and column % 8:
            continue
        x = left + column * (width + _GAP) + width / 2
        sheet.text(
            x,
            baseline,
            str(channel),
            size=7,
            colour=SOFT,
            align="center",
        )


def _eight_bit(picture: np.ndarray) -> UInt8[np.ndarray, "row col 3"]:
    if picture.ndim == 2:
        picture = np.repeat(picture[..., None], 3, axis=-1)
    return np.asarray(np.round(255 * picture), np.uint8)
