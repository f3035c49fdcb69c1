"""A transformer so small that everything it says can be computed again by hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

HEADS, WIDTH = 2, 16


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.proj = (
            nn.Linear(WIDTH, 3 * WIDTH),
            nn.Linear(WIDTH, WIDTH),
        )
        self.mlp = nn.Sequential(
            nn.Linear(WIDTH, 24), nn.GELU(), nn.Linear(24, WIDTH)
        )
        self.taken: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        shape = (batch, tokens, 3, HEADS, WIDTH // HEADS)
        qkv = self.qkv(self.norm1(x)).reshape(shape).permute(2, 0, 3, 1, 4)
        taken = scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        self.taken = taken.detach()
        joined = taken.transpose(1, 2).reshape(batch, tokens, WIDTH)
        x = x + self.proj(joined)
        result: Tensor = x + self.mlp(self.norm2(x))
        return result


class TinyVit(nn.Module):
    """Two blocks of two heads over 4×4 patches and a class token; five classes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patch = nn.Conv2d(3, WIDTH, 8, stride=8)
        self.cls = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.places = nn.Parameter(torch.randn(1, 17, WIDTH) / 2)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 5)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.add_(0.15 * torch.randn(parameter.shape))

    def stream(self, x: Tensor) -> Tensor:
        """The class token behind the last block, (photo, unit)."""
        patches = self.patch(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls.expand(len(x), -1, -1), patches], dim=1)
        tokens = tokens + self.places
        for block in self.blocks:
            tokens = block(tokens)
        return tokens[:, 0]

    def forward(self, x: Tensor) -> Tensor:
        return self.classes_of(self.stream(x))

    def classes_of(self, token: Tensor) -> Tensor:
        """The logits that a class token gives."""
        logits: Tensor = self.head(self.norm(token))
        return logits

    def without_write(self, x: Tensor, block: int, head: int) -> Tensor:
        """The logits without what a head of a block wrote for the class token."""
        token = self.stream(x)
        inside = self.blocks[block]
        assert isinstance(inside, Block) and inside.taken is not None
        width = WIDTH // HEADS
        own = inside.proj.weight[:, head * width : (head + 1) * width]
        write = inside.taken[:, head, 0] @ own.T
        return self.classes_of(token - write)
