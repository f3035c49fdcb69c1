"""What a map is worth: deletion, insertion, pointing, and whether it follows the weights."""

import copy
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.stats import spearmanr
from torch import Tensor, nn

from unitscope.scenes.transformer import SceneTransformer

BLUR = 10.0
"""Pixels: the deviation of the Gaussian that hides a patch."""
TOLERANCE = 15.0
"""Pixels that a map may point beside an object (Zhang et al. 2016)."""
STEPS = 8
_AT_ONCE = 128


def blurred(x: Tensor) -> Tensor:
    """Photos (photo, channel, row, column) in which hardly any shape is left."""
    reach = int(3 * BLUR)
    places = torch.arange(-reach, reach + 1, dtype=x.dtype)
    weights = torch.exp(-places.square() / (2 * BLUR**2))
    weights = (weights / weights.sum()).expand(x.shape[1], 1, 1, -1)
    padded = F.pad(x, (reach, reach, reach, reach), mode="reflect")
    rows = F.conv2d(padded, weights, groups=x.shape[1])
    return F.conv2d(rows, weights.mT, groups=x.shape[1])


@torch.no_grad()
def deletion_and_insertion(
    module: nn.Module, photo: Tensor, which: int, maps: Tensor
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each map (map, row, column) of a photo (channel, row, column) the mean probability
    of a class while its largest patches are blurred first, and while they come back first.

    Petsiuk et al., RISE, BMVC 2018. The means are areas under the curve, by trapezoids.
    """
    hidden = blurred(photo[None])[0]
    patches = maps[0].numel()
    order = maps.flatten(1).argsort(dim=1, descending=True)
    rank = order.argsort(dim=1).view(maps.shape)
    counts = torch.linspace(0, patches, STEPS + 1).round()
    is_first = rank[:, None] < counts[:, None, None]
    # Blurred are the first ones (deletion), or all but the first ones (insertion).
    is_hidden = torch.stack([is_first, ~is_first]).flatten(0, 2)
    distinct, places = torch.unique(is_hidden, dim=0, return_inverse=True)
    size = photo.shape[1:]
    probabilities = []
    for some in distinct.split(_AT_ONCE):
        mask = F.interpolate(some[:, None].to(photo.dtype), size)
        mixed = torch.where(mask > 0, hidden, photo)
        probabilities.append(module(mixed).softmax(dim=1)[:, which])
    curves = torch.cat(probabilities)[places].view(2, len(maps), STEPS + 1)
    areas = torch.trapezoid(curves.double(), counts.double() / patches)
    return areas[0].numpy(), areas[1].numpy()


def points_at(map_: NDArray[np.float32], mask: NDArray[np.bool_]) -> bool:
    """Whether a map's largest cell lies in a mask, or hardly beside it."""
    row, col = np.unravel_index(map_.argmax(), map_.shape)
    y = int((row + 0.5) * mask.shape[0] / map_.shape[0])
    x = int((col + 0.5) * mask.shape[1] / map_.shape[1])
    return bool(distance_transform_edt(~mask)[y, x] <= TOLERANCE)


def rank_correlation(
    one: NDArray[np.float32], other: NDArray[np.float32]
) -> float:
    """Spearman's, of two maps; 0 where one of them is the same everywhere."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(spearmanr(one.ravel(), other.ravel()).statistic)


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
