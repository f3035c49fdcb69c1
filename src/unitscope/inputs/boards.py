"""Boards: measure where a function from photo to network input puts the photo.

A board is a checkerboard of uneven bars. It is sent through the function together with
its negative. Only the sign of the difference counts, which no monotone change of
brightness changes: clipping, contrast, gamma, or a scale of the photo's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from unitscope.errors import warn_user
from unitscope.geometry import Placement
from unitscope.inputs.bars import (
    DECIDED,
    ENOUGH_EDGES,
    Bars,
    Line,
    edges_in,
    refined,
)

# A photo becomes an input (channel, row, col) on the processor.
Transform: TypeAlias = Callable[[Image.Image], Tensor]

# Bars are at least this wide in pixels of an input that shows the whole photo.
_NARROWEST = 2.0

# Bars are made finer where the input shows few edges, or none, and coarser where they
# cannot be told apart, so many times in all.
_FINER = 3.0
_FINER_BY_FAR = 9.0
_COARSER = 2.0
_MOST_WIDTHS = 8

# Where photos are made smaller, boards are sent until they show so many edges, which
# make the result precise.
_PRECISE_EDGES = 12
_MOST_BOARDS = 5

# The share of the input's pixels away from edges that must have the sign that a
# placement foretells.
_PROVED = 0.99

# The same share for boards that were not read: lines miss their edges by a little.
_PROVED_ANEW = 0.9

# The part of the input that may repeat the photo beside it before users are warned.
_MOST_REPEATED = 0.2

# The part of a side that is frame, before and behind the board.
_FRAME = 0.2

# Stands for infinity, so that sums over an input stay finite.
_LARGE = 1e30

_DISORDER = "the photo's rows and columns are not kept in order and proportion"
# What to do about a function that is not understood.
_REMEDY = (
    "if it only resizes and crops, pass unitscope.Preprocessing(resize=…, crop=…, "
    "mean=…, std=…) (--preprocessing 'resize=…,crop=…,mean=…,std=…'); else "
    "explain the tensor that it returns, whose maps lie on the network's input"
)


class NotMeasurableError(Exception):
    """What a function does is not a resize and a crop; the message says why.

    `remedy` says what the user may do.
    """

    def __init__(self, reason: str, remedy: str = _REMEDY) -> None:
        super().__init__(reason)
        self.remedy = remedy


def measured_placement(
    transform: Transform,
    photo_size: tuple[int, int],
    input_size: tuple[int, int],
    check_borders: bool = True,
) -> Placement:
    """Where the input lies on a photo of `photo_size` (width, height).

    `input_size` (rows, cols) is only the size to expect. What is read from some boards
    is proved on others, and with `check_borders` on photos with a black and a white
    border. The result is good to a tenth of the input's pixels, or half of
    one where nothing is interpolated. Raises NotMeasurableError.
    """
    lines, boards = _read(transform, photo_size, input_size)
    across, down = (
        refined(line, [board.sides[side] for board in boards])
        for side, line in enumerate(lines)
    )
    share = boards[-1].agreement(across, down)
    if share < _PROVED:
        raise NotMeasurableError(
            f"{_DISORDER}: the best resize and crop explains {share:.0%} of the input"
        )
    _prove(transform, photo_size, boards[-1], across, down)
    _check_direction(across, down)
    if boards[-1].repeated(across, down) > _MOST_REPEATED:
        warn_user(
            "a large part of the network's input shows the photo again, beside it (a copy, or "
            "a mirrored or drawn-out edge): that counts for the logits and is in "
            "explanation.cams, but pictures show the maps on the photo once"
        )
    if check_borders:
        _check_borders(transform, boards[-1], across, down)

    rows, cols = boards[-1].difference.shape
    return Placement(
        photo_size=photo_size,
        input_size=(rows, cols),
        left=across.start,
        top=down.start,
        right=across.start + across.slope * cols,
        bottom=down.start + down.slope * rows,
    )


@dataclass(frozen=True, eq=False)
class Board:
    """A board as the input shows it.

    `difference` is the input for the board less that for its negative, in the channel
    that tells them apart best. `sides` are the bars across and down, each with their
    levels along the input's columns and rows; which of them are white is left open.
    """

    difference: Float[np.ndarray, "row col"]
    sides: tuple[
        tuple[Bars, Float[np.ndarray, " col"]],
        tuple[Bars, Float[np.ndarray, " row"]],
    ]

    @classmethod
    def sent(
        cls,
        transform: Transform,
        across: Bars,
        down: Bars,
        frame: int | None = None,
    ) -> Board:
        """Send a board and its negative through a function.

        `frame` is the level of a frame that covers their borders, if any.
        """
        white_across = across.signs(np.arange(across.extent) + 0.5) > 0
        white_down = down.signs(np.arange(down.extent) + 0.5) > 0
        is_white = white_down[:, None] == white_across
        pixels = is_white.astype(np.uint8) * np.uint8(255)
        positive = transform(_grey(pixels, frame))
        negative = transform(_grey(255 - pixels, frame))
        if positive.shape != negative.shape:
            raise NotMeasurableError(
                "the size of its result depends on what a photo shows"
            )

        difference = _difference(positive, negative)
        along_cols, along_rows = _levels(difference)
        return cls(difference, ((across, along_cols), (down, along_rows)))

    def agreement(self, across: Line, down: Line) -> float:
        """The share of the input's pixels that show what a placement foretells.

        Those near edges, beyond the photo or undecided do not count.
        """
        rows, cols = self.difference.shape
        (columns, _), (lines, _) = self.sides
        on_cols, on_rows = across.centres(cols), down.centres(rows)
        clear_cols = columns.clear(on_cols, across.slope)
        clear_rows = lines.clear(on_rows, down.slope)
        shown = self.difference[np.ix_(clear_rows, clear_cols)]
        foretold = np.outer(
            lines.signs(on_rows[clear_rows]),
            columns.signs(on_cols[clear_cols]),
        )
        sizes = np.abs(shown)
        counted = sizes > DECIDED * np.abs(self.difference).max()
        if counted.mean() < 0.1:
            return 0.0
        products = foretold * np.sign(shown)
        # A function that inverts the photo agrees as well, everywhere.
        return float(0.5 + 0.5 * abs(products[counted].mean()))

    def repeated(self, across: Line, down: Line) -> float:
        """The share of the input's pixels beyond the photo that show it again."""
        rows, cols = self.difference.shape
        (columns, _), (lines, _) = self.sides
        on_photo = np.outer(
            lines.contains(down.centres(rows), down.slope),
            columns.contains(across.centres(cols), across.slope),
        )
        beyond = np.where(on_photo, 0, self.difference)
        least = DECIDED * np.abs(self.difference).max()
        # Padding of one colour may change with a photo's brightness, all of it alike.
        signs = (beyond > least).mean(), (beyond < -least).mean()
        return float(2 * min(signs))


def _read(
    transform: Transform,
    photo_size: tuple[int, int],
    input_size: tuple[int, int],
) -> tuple[list[Line], list[Board]]:
    """The lines across and down that fit the first board and agree with all others."""
    rows, cols = input_size
    widths = [
        max(1.0, _NARROWEST * extent / count)
        for extent, count in zip(photo_size, (cols, rows), strict=True)
    ]
    is_coarser = [False, False]
    openings = []
    for _ in range(_MOST_WIDTHS):
        first = _board(transform, photo_size, widths, seed=0)
        openings.append(first)
        finer = [
            1.0 if coarser else _finer_by(bars, levels)
            for coarser, (bars, levels) in zip(
                is_coarser, first.sides, strict=True
            )
        ]
        if max(finer) > 1:
            for side in (0, 1):
                widths[side] = max(1.0, widths[side] / finer[side])
            continue

        left, boards = _agreed(transform, photo_size, widths, first)
        lines = [_only(lines) for lines in left]
        across, down = lines
        if across is not None and down is not None:
            return [across, down], boards
        for side, (bars, _) in enumerate(first.sides):
            if lines[side] is None and len(bars.edges) > 1:
                widths[side] *= _COARSER
                is_coarser[side] = True
    raise _refusal(openings)


def _agreed(
    transform: Transform,
    photo_size: tuple[int, int],
    widths: Sequence[float],
    first: Board,
) -> tuple[list[list[Line]], list[Board]]:
    """The lines across and down that fit the first board and agree with further ones.

    Boards are sent until one line of each is left, or none.
    """
    lines = [bars.fits(levels) for bars, levels in first.sides]
    boards = [first]
    for seed in range(1, _MOST_BOARDS):
        if not all(lines):
            break
        board = _board(transform, photo_size, widths, seed)
        boards.append(board)
        for side, (bars, levels) in enumerate(board.sides):
            lines[side] = [
                line for line in lines[side] if bars.agree(levels, line)
            ]
        if _are_precise(lines, boards):
            break
    return lines, boards


def _are_precise(
    lines: Sequence[Sequence[Line]], boards: Sequence[Board]
) -> bool:
    """Whether one line a side is left, with as many edges as a precise one needs."""
    for side, left in enumerate(lines):
        if len(left) != 1:
            return False
        shown = [len(edges_in(board.sides[side][1])) for board in boards]
        if abs(left[0].slope) > 1 and sum(shown) < _PRECISE_EDGES:
            return False
    return True


def _only(lines: Sequence[Line]) -> Line | None:
    """The line that is left.

    Bars on a few pixels may be symmetrical. The photo is then taken not to be mirrored.
    """
    upright = [line for line in lines if line.slope > 0]
    left = upright or lines
    return left[0] if len(left) == 1 else None


def _refusal(boards: Sequence[Board]) -> NotMeasurableError:
    """Why no resize and crop makes what the input shows of boards."""
    (across, along_cols), (down, along_rows) = boards[0].sides
    shown = [len(edges_in(levels)) for levels in (along_cols, along_rows)]
    if (
        min(shown) >= ENOUGH_EDGES
        and across.fits(along_rows)
        and down.fits(along_cols)
    ):
        return NotMeasurableError(
            "it turns the photo by 90 degrees",
            "leave that out, or turn the photos before you explain them",
        )
    for side, name in enumerate(("columns", "rows")):
        if any(
            bars.is_slight(levels)
            for bars, levels in (board.sides[side] for board in boards)
        ):
            return NotMeasurableError(
                f"the input shows too few of the photo's {name} to tell which",
                "crop the photo to a less extreme shape, or explain the tensor that "
                "it returns, whose maps lie on the network's input",
            )
    return NotMeasurableError(_DISORDER)


def _board(
    transform: Transform,
    photo_size: tuple[int, int],
    widths: Sequence[float],
    seed: int,
) -> Board:
    across, down = (
        Bars.drawn(extent, width, 2 * seed + side)
        for side, (extent, width) in enumerate(
            zip(photo_size, widths, strict=True)
        )
    )
    return Board.sent(transform, across, down)


def _finer_by(bars: Bars, levels: Float[np.ndarray, " pixel"]) -> float:
    """How much finer bars must be for the input to show enough of them, or 1."""
    shown = len(edges_in(levels))
    enough = max(2, min(ENOUGH_EDGES, len(bars.edges)))
    if bars.width <= 1 or shown >= enough:
        return 1.0
    return _FINER if shown else _FINER_BY_FAR


def _check_direction(across: Line, down: Line) -> None:
    ways = []
    if across.slope < 0:
        ways.append("left to right")
    if down.slope < 0:
        ways.append("top to bottom")
    if ways:
        raise NotMeasurableError(
            f"it mirrors the photo {' and '.join(ways)}",
            "leave that out, or mirror the photos before you explain them",
        )


def _prove(
    transform: Transform,
    photo_size: tuple[int, int],
    read: Board,
    across: Line,
    down: Line,
) -> None:
    """Raise NotMeasurableError unless lines hold on boards that they were not read from.

    A few edges may fit a wrong line by chance: boards are sent until they show enough.
    """
    widths = [bars.width for bars, _ in read.sides]
    shown = [0, 0]
    for seed in range(_MOST_BOARDS, 2 * _MOST_BOARDS):
        board = _board(transform, photo_size, widths, seed)
        share = board.agreement(across, down)
        if share < _PROVED_ANEW:
            raise NotMeasurableError(
                f"{_DISORDER}: the best resize and crop explains {share:.0%} of the "
                "input"
            )
        for side, (_, levels) in enumerate(board.sides):
            shown[side] += len(edges_in(levels))
        if min(shown) >= ENOUGH_EDGES:
            break


def _check_borders(
    transform: Transform, board: Board, across: Line, down: Line
) -> None:
    """Raise NotMeasurableError where a black or white border moves the crop."""
    (columns, _), (lines, _) = board.sides
    for frame in (0, 255):
        framed = Board.sent(transform, columns, lines, frame)
        share = framed.agreement(across, down)
        # It is 0 where the input shows little but the frame.
        if 0 < share < _PROVED_ANEW:
            raise NotMeasurableError(
                "what it crops depends on what the photo shows",
                "crop the photos before you explain them, or explain the tensor that "
                "it returns, whose maps lie on the network's input",
            )


def _grey(levels: np.ndarray, frame: int | None) -> Image.Image:
    if frame is not None:
        framed = np.full_like(levels, frame)
        rows, cols = (
            slice(round(_FRAME * side), side - round(_FRAME * side))
            for side in levels.shape
        )
        framed[rows, cols] = levels[rows, cols]
        levels = framed
    return Image.fromarray(levels).convert("RGB")


def _difference(
    positive: Tensor, negative: Tensor
) -> Float[np.ndarray, "row col"]:
    """The difference in the channel where it is largest on average."""
    difference = _finite(positive) - _finite(negative)
    sizes = difference.abs().mean(dim=(1, 2))
    channel = int(sizes.argmax())
    if not sizes[channel] > 0:
        raise NotMeasurableError(
            "a picture and its negative give the same input"
        )
    return difference[channel].numpy()


def _finite(tensor: Tensor) -> Tensor:
    """The numbers, with large ones for infinite ones and 0 for what is none."""
    wide = tensor.to(torch.float32)
    return wide.nan_to_num(nan=0.0, posinf=_LARGE, neginf=-_LARGE)


def _levels(
    difference: Float[np.ndarray, "row col"],
) -> tuple[Float[np.ndarray, " col"], Float[np.ndarray, " row"]]:
    """The levels along columns and along rows whose product the difference is.

    By power iteration: a board has rank one, and so does what a resize and a crop make
    of it.
    """
    clearest = np.abs(difference).mean(axis=1).argmax()
    along_cols = difference[clearest]
    for _ in range(4):
        along_rows = difference @ np.sign(along_cols)
        along_cols = np.sign(along_rows) @ difference
    return along_cols.astype(np.float64), along_rows.astype(np.float64)
