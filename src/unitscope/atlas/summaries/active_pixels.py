"""Active pixels: where on the network's input units reach their thresholds."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32


def active_pixels(
    maps: Float32[np.ndarray, "unit row col"],
    thresholds: Float32[np.ndarray, " unit"],
    down: Float[np.ndarray, "height row"],
    across: Float[np.ndarray, "width col"],
) -> Bool[np.ndarray, "unit pixel"]:
    """Where each unit's map, interpolated to the input, reaches its threshold.

    `down` and `across` are the weights of every cell in every pixel
    (`geometry.interpolation_weights`). Pixels are in the order of rows. A value equal
    to the threshold is active, since thresholds are lower edges of histogram buckets.
    """
    rows = torch.from_numpy(down.astype(np.float32))
    cols = torch.from_numpy(across.astype(np.float32))
    on_input = rows @ (torch.from_numpy(maps) @ cols.T)
    limits = torch.from_numpy(thresholds)[:, None]
    active: np.ndarray = on_input.flatten(1).ge(limits).numpy()
    return active
