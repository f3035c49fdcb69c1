"""A small transformer whose logits are read from a class token: attention as people write it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

CLASSES = 5
BLOCKS, HEADS = 2, 3
WIDTH = 12


class Block(nn.Module):
    """Attention and an MLP, each behind a normalisation, added to the stream."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(
            nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH)
        )

    def forward(self, x: Tensor) -> Tensor:
        photos, tokens, _ = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(photos, tokens, 3, HEADS, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        taken = scaled_dot_product_attention(query, key, value)
        x = x + self.proj(taken.transpose(1, 2).reshape(x.shape))
        written: Tensor = self.mlp(self.norm2(x))
        return x + written


class SmallViT(nn.Module):
    """Patches of 8 × 8 pixels become tokens; a class token is read."""

    def __init__(self, cells: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 8, stride=8)
        self.first = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.places = nn.Parameter(torch.zeros(1, cells * cells + 1, WIDTH))
        self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(len(x), -1, -1), x], 1) + self.places
        logits: Tensor = self.head(self.norm(self.blocks(x))[:, 0])
        return logits


def small_vit(seed: int = 0) -> SmallViT:
    """A small transformer with weights large enough that its heads look at something."""
    generator = torch.Generator().manual_seed(seed)
    module = SmallViT().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.5 * noise)
    return module
