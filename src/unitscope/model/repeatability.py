"""Repeatability: whether a photo's logits are the same each time, in any company."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.errors import warn_user

# How far two passes of one photo may differ, relative to the largest logit: kernels
# round in another way where the batch has another size.
_SAME = 1e-3


def warn_where_they_differ(
    alone: Float[Tensor, "1 class"],
    beside_another: Float[Tensor, "1 class"],
    again: Callable[[], Float[Tensor, "1 class"]],
) -> None:
    """Warn where one photo has other logits beside another photo, or at every pass.

    `again` gives the logits of the photo alone once more.
    """
    allowed = max(_SAME, 64 * torch.finfo(alone.dtype).eps)
    by_company = _difference(alone, beside_another)
    if not by_company > allowed:  # NaN is told elsewhere
        return
    by_chance = _difference(alone, again())
    if by_chance > allowed:
        warn_user(
            "the network gives other logits each time for the same input (here by "
            f"{_share(by_chance)} of the largest), as noise or dropout in its forward do: what "
            "is said of a photo holds for one pass; let it draw nothing in evaluation mode"
        )
        return
    warn_user(
        "the network's logits for a photo depend on the photos beside it (here by "
        f"{_share(by_company)} of the largest), as with a batch normalisation without running "
        "statistics: explain photos one at a time"
    )


def _share(difference: float) -> str:
    return f"{difference:.0%}" if difference >= 0.01 else "less than 1%"


def _difference(one: Tensor, other: Tensor) -> float:
    """Relative to the larger of both: alone, a photo may have no logits but 0."""
    largest = max(float(one.abs().max()), float(other.abs().max()))
    return float((one - other).abs().max()) / largest if largest else 0.0
