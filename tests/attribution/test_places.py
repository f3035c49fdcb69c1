"""Places of cells that no trace can follow: measured, and refused where they are wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from networks import Gap, seeded
from unitscope.errors import HeadError
from unitscope.model import wrap

X = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(5))


class Moved(Gap):
    """A network that first moves its input about."""

    def __init__(self, move: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._move = move

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self._move(x))


def enlarged(x: Tensor) -> Tensor:
    half = torch.tensor([[[0.5, 0, 0], [0, 0.5, 0]]]).expand(len(x), -1, -1)
    grid = F.affine_grid(half, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


MOVED: dict[str, Callable[[Tensor], Tensor]] = {
    "the middle, enlarged": enlarged,
    "two corners, added": lambda x: x[..., :16, :16] + x[..., 16:, 16:],
    "two crops, side by side": lambda x: torch.cat(
        [x[..., :16], x[..., 8:24]], 3
    ),
    "two copies, side by side": lambda x: torch.cat([x, x], 3),
    "even columns, then odd ones": lambda x: torch.cat(
        [x[..., ::2], x[..., 1::2]], 3
    ),
}


@pytest.mark.parametrize("name", MOVED)
def test_cells_that_lie_elsewhere_are_refused(name: str) -> None:
    model = wrap(seeded(lambda: Moved(MOVED[name])))
    with pytest.raises(HeadError, match="could not be followed back"):
        model.explain(X)


def test_cells_in_their_places_are_taken() -> None:
    net = seeded(
        lambda: Moved(
            lambda x: F.fold(F.unfold(x, 4, stride=4), 32, 4, stride=4)
        )
    )
    explanation = wrap(net).explain(X)
    assert explanation.exact and not explanation.grid.traced
