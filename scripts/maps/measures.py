"""What a map of patches is worth, by the library's measures, and copies with new weights."""

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unitscope.evaluation import deletion
from unitscope.evaluation.hiding import blurred
from unitscope.evaluation.likeness import likeness
from unitscope.evaluation.maps import Maps
from unitscope.evaluation.pointing import TOLERANCE
from unitscope.evaluation.pointing import points_at as points_at_cells
from unitscope.scenes.transformer import SceneTransformer

__all__ = [
    "BLUR",
    "RESETS",
    "STEPS",
    "TOLERANCE",
    "deletion_and_insertion",
    "points_at",
    "rank_correlation",
    "reset",
]

BLUR = 10.0
"""Pixels: the deviation of the Gaussian that hides a patch."""
STEPS = 8


@torch.no_grad()
def deletion_and_insertion(
    module: nn.Module, photo: Tensor, which: int, maps: Tensor
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each map (map, row, column) of a photo (channel, row, column) the mean probability
    of a class while its largest patches are blurred first, and while they come back first."""

    def score(inputs: Tensor, owners: Sequence[int]) -> NDArray[np.float64]:
        probabilities = module(inputs).softmax(dim=1)[:, which]
        return np.asarray(probabilities.double().numpy())

    shown, hidden = photo[None], blurred(photo[None], BLUR)
    places = _places(maps, (int(photo.shape[1]), int(photo.shape[2])))[None]
    return (
        deletion.areas(score, shown, hidden, places, STEPS)[0],
        deletion.areas(score, hidden, shown, places, STEPS)[0],
    )


def _places(maps: Tensor, size: tuple[int, int]) -> NDArray[np.int64]:
    """When each pixel changes: all of a patch together, the map's largest patch first."""
    order = maps.flatten(1).argsort(dim=1, descending=True)
    rank = order.argsort(dim=1).view(maps.shape).numpy()
    down, across = (
        pixels // cells
        for pixels, cells in zip(size, rank.shape[1:], strict=True)
    )
    cells = np.ones((1, down, across), np.int64)
    places: NDArray[np.int64] = np.kron(rank, cells) * down * across
    return places


def points_at(map_: NDArray[np.float32], mask: NDArray[np.bool_]) -> float:
    """Whether a map's largest cell lies in a mask, or hardly beside it."""
    values = map_.astype(np.float64)
    rows, cols = mask.shape
    down, across = Maps.tiling(values[None], (rows, cols)).centres()
    return points_at_cells(values, down, across, mask)


def rank_correlation(
    one: NDArray[np.float32], other: NDArray[np.float32]
) -> float:
    """Spearman's, of two maps; 0 where one of them is the same everywhere."""
    return float(
        likeness(one[None].astype(float), other[None].astype(float))[0]
    )


def _is_of_head(name: str) -> bool:
    return name.startswith(("head.", "norm."))


def _is_late(name: str, blocks: int) -> bool:
    late = tuple(f"blocks.{block}." for block in range(blocks // 2, blocks))
    return _is_of_head(name) or name.startswith(late)


def _is_behind_stem(name: str) -> bool:
    return not name.startswith("stem.")


RESETS: dict[str, Callable[[str, int], bool]] = {
    "head": lambda name, blocks: _is_of_head(name),
    "head and later half": _is_late,
    "all but the stem": lambda name, blocks: _is_behind_stem(name),
}
"""Which weights are drawn anew, later ones first (Adebayo et al. 2018)."""


def reset(network: SceneTransformer, which: str, seed: int) -> SceneTransformer:
    """A copy of the network in which some weights are as before any training."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        fresh = SceneTransformer(network.architecture).state_dict()
    blocks = network.architecture.blocks
    changed = copy.deepcopy(network)
    changed.load_state_dict(
        {
            name: fresh[name] if RESETS[which](name, blocks) else value
            for name, value in network.state_dict().items()
        }
    )
    return changed.eval()
