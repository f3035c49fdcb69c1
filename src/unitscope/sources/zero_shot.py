"""ZeroShotClassifier: an image tower, and vectors of classes that texts gave."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class ZeroShotClassifier(nn.Module):
    """Classifies photos by how near they lie to the texts of the classes.

    A logit is scale · ⟨u/‖u‖, t/‖t‖⟩ + bias, of the photo's vector u and the class's t.
    `image_tower` is a network of transformers' with `get_image_features`; `class_vectors`
    have the scale as their length. `made_from` says which texts and which text tower the
    vectors come from: a SHA-256.
    """

    class_vectors: Tensor
    bias: Tensor | None

    def __init__(
        self,
        image_tower: nn.Module,
        class_vectors: Float[Tensor, "class unit"],
        bias: Float[Tensor, " class"] | None,
        made_from: str,
    ) -> None:
        super().__init__()
        self.image_tower = image_tower
        self.made_from = made_from
        # Not in the state: the last bits of the vectors depend on the processor, and
        # `made_from` tells them apart everywhere (see `extra_repr`).
        self.register_buffer("class_vectors", class_vectors, persistent=False)
        self.register_buffer("bias", bias, persistent=False)

    def forward(
        self, pixel_values: Float[Tensor, "batch channel row col"]
    ) -> Float[Tensor, "batch class"]:
        """The logits of photos."""
        features = vectors_of(
            self.image_tower.get_image_features(pixel_values=pixel_values)  # type: ignore[operator]
        )
        unit = functional.normalize(features, dim=-1)
        return functional.linear(unit, self.class_vectors, self.bias)

    def extra_repr(self) -> str:
        """The classes, as a part of the network's structure."""
        return f"classes={len(self.class_vectors)}, made_from={self.made_from}"


def vectors_of(result: Any) -> Float[Tensor, "row unit"]:
    """The vectors that a tower gives: a tensor until transformers 4, since then pooled."""
    if isinstance(result, Tensor):
        return result
    vectors: Tensor = result.pooler_output
    return vectors


def kept_children(module: Any, photo: Tensor) -> frozenset[str]:
    """The names of the children of a two-tower network that see a photo."""
    ran: set[str] = set()
    hooks = [
        child.register_forward_pre_hook(lambda *_, name=name: ran.add(name))
        for name, child in module.named_children()
    ]
    try:
        with torch.no_grad():
            module.get_image_features(pixel_values=photo)
    finally:
        for hook in hooks:
            hook.remove()
    return frozenset(ran)


def strip(module: nn.Module, kept: frozenset[str]) -> None:
    """Take everything else off a network: its other tower, and its own parameters."""
    for name, _ in list(module.named_children()):
        if name not in kept:
            delattr(module, name)
    for name, _ in list(module.named_parameters(recurse=False)):
        delattr(module, name)
