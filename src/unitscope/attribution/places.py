"""Places: whether the cells of a map lie where they are assumed to lie, measured."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

_CLEARLY = 4


def lie_in_place(
    map_of: Callable[[Tensor], Tensor], x: Tensor, slack: int
) -> bool:
    """Whether the cells of a map lie on squares that tile the input, row by row.

    `map_of` gives the feature map (batch, unit, row, col) of inputs like `x`. The square
    of the input under a cell is changed, and that cell must change most. A flip, a
    transposition, another order of cells, or a part of the input alone does not keep all
    the cells that are tried in place. With some `slack`, in cells, a cell that near may
    change most instead, and one farther away up to `_CLEARLY` times as much: attention
    mixes cells that lie in place.
    """
    before = map_of(x)
    rows, cols = before.shape[2:]
    height, width = x.shape[2:]
    tried = (
        (0, cols - 1),
        (rows - 1, 0),
        (rows // 2, cols // 3),
        (rows // 3, 2 * cols // 3),
        (2 * rows // 3, cols // 2),
        (1 % rows, 1 % cols),
    )
    for row, col in tried:
        changed = x.clone()
        down = _under(row, rows, height)
        across = _under(col, cols, width)
        square = changed[:, :, down, across]
        square.copy_(square.flip(0, 1, 2, 3) + 2)

        change = (map_of(changed) - before).square().sum(dim=(0, 1)).sqrt()
        near = change[
            max(row - slack, 0) : row + slack + 1,
            max(col - slack, 0) : col + slack + 1,
        ]
        allowed = near.max() * (_CLEARLY if slack else 1)
        # What changes nothing is not seen: the network crops or enlarges its input.
        if bool(change.max() > allowed) or not bool(change.any()):
            return False
    return True


def _under(cell: int, cells: int, pixels: int) -> slice:
    """The pixels under a cell, at least one."""
    begin = cell * pixels // cells
    return slice(begin, max(begin + 1, (cell + 1) * pixels // cells))
