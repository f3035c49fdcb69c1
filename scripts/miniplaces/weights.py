"""Weights files: half-precision safetensors that carry their own labels,
preprocessing, architecture and card."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from miniplaces.augmentation import MEAN, STD
from unitscope.scenes.network import Architecture, SceneNetwork
from unitscope.scenes.transformer import (
    SceneTransformer,
    TransformerArchitecture,
    network_from,
)


@dataclass(frozen=True)
class Weights:
    """A trained network and what its file says of it."""

    network: SceneNetwork | SceneTransformer
    labels: list[str]
    card: dict[str, Any]
    preprocessing: dict[str, Any]


def preprocessing_at(size: int) -> dict[str, Any]:
    """What a photo goes through before the network: shorter side to `size`, centre
    square, mean and deviation."""
    return {
        "resize": size,
        "crop": size,
        "interpolation": "bilinear",
        "mean": list(MEAN),
        "std": list(STD),
    }


def write_weights(
    path: Path,
    values: dict[str, Tensor],
    architecture: Architecture | TransformerArchitecture,
    labels: list[str],
    card: dict[str, Any],
    size: int,
) -> None:
    """Write atomically: whoever opens the path sees the old file or the whole new one."""
    halves = {}
    for name, value in centred(values).items():
        if name.endswith("num_batches_tracked"):
            continue  # only training counts batches, and a half could not hold the number
        halves[name] = value.detach().cpu().to(torch.float16).contiguous()
        if not halves[name].isfinite().all():
            raise ValueError(
                f"{name} does not fit half precision: its largest value is "
                f"{value.abs().max():.3g}"
            )
    metadata = {
        "architecture": architecture.to_json(),
        "labels": json.dumps(labels),
        "preprocessing": json.dumps(preprocessing_at(size)),
        "card": json.dumps(card),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    save_file(halves, temporary, metadata)
    temporary.replace(path)


def centred(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same classifier with the head's weights and biases centred over the classes.

    What all logits have in common changes no probability, but it colours every class
    activation map: without it a map shows what speaks for its class rather than for
    another, not what speaks for all of them.
    """
    head = {
        name: value - value.mean(dim=0)
        for name, value in values.items()
        if name in ("fc.weight", "fc.bias", "head.weight", "head.bias")
    }
    return {**values, **head}


def read_weights(path: Path) -> Weights:
    """The network in float32, in eval mode, with what its file says of it."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        state = {name: file.get_tensor(name).float() for name in file.keys()}
    missing = {"architecture", "labels", "preprocessing", "card"} - set(
        metadata
    )
    if missing:
        raise ValueError(
            f"{path} says nothing of its {sorted(missing)[0]}: expected a file that "
            "training here wrote"
        )
    network = network_from(metadata["architecture"])
    absent, unknown = network.load_state_dict(state, strict=False)
    absent = [
        name for name in absent if not name.endswith("num_batches_tracked")
    ]
    if absent or unknown:
        raise ValueError(
            f"{path} does not fit its architecture: without {absent[:3]}, and beyond "
            f"it {unknown[:3]}"
        )
    labels, card, preprocessing = (
        json.loads(metadata[key]) for key in ("labels", "card", "preprocessing")
    )
    return Weights(network.eval(), labels, card, preprocessing)
