"""What multiplies a vector of the stream: an MLP's own activation, or a gate beside it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unitscope import Preprocessing, wrap

WIDTH = 16


class Block(nn.Module):
    """A class token's last block, with a gated MLP or gated attention."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.patches = nn.Conv2d(3, WIDTH, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.gate = nn.Linear(WIDTH, WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.fc1, self.fc3 = nn.Linear(WIDTH, 32), nn.Linear(WIDTH, 32)
        self.fc2 = nn.Linear(32, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, elementwise_affine=False)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1)
        normed = self.norm1(x)
        q, k, v = self.qkv(normed)[:, None].chunk(3, dim=-1)
        taken = F.scaled_dot_product_attention(q, k, v)[:, 0]
        if self.kind == "gated attention":
            taken = taken * self.gate(normed).sigmoid()
        x = x + self.out(taken)
        x = x + self.mlp(self.norm2(x))
        result: Tensor = self.head(self.norm(x)[:, 0])
        return result

    def mlp(self, x: Tensor) -> Tensor:
        hidden = self.fc1(x)
        if self.kind == "quick GELU":
            hidden = hidden * torch.sigmoid(1.702 * hidden)
        elif self.kind == "SwiGLU":
            hidden = F.silu(hidden) * self.fc3(x)
        else:
            hidden = F.gelu(hidden)
        written: Tensor = self.fc2(hidden)
        return written


@pytest.mark.parametrize("kind", ["quick GELU", "SwiGLU", "gated attention"])
def test_an_mlp_with_a_gate_inside_is_one_write(kind: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        block = Block(kind).eval()
        x = torch.randn(2, 3, 32, 32)
    model = wrap(block, preprocessing=Preprocessing(resize=None, crop=32))
    explanation = model.explain(x)

    seen: dict[str, Tensor] = {}
    layers = (block.fc2, block.norm)
    hooks = [
        layer.register_forward_hook(
            lambda _, given, out, name=name: seen.update(
                {name: out[:, 0], f"into {name}": given[0][:, 0]}
            )
        )
        for name, layer in zip(("fc2", "norm"), layers, strict=True)
    ]
    with torch.no_grad():
        block(x)
        centred = seen["into norm"].var(dim=-1, correction=0, keepdim=True)
        write = seen["fc2"] - seen["fc2"].mean(dim=-1, keepdim=True)
        expected = F.linear(
            write / (centred + block.norm.eps).sqrt(), block.head.weight
        )
    for hook in hooks:
        hook.remove()

    assert model.head.kind == "residual"
    parts = explanation.parts
    assert torch.allclose(parts["MLPs"], expected, atol=1e-5)
    assert torch.allclose(
        torch.stack(list(parts.values())).sum(dim=0),
        explanation.logits,
        atol=1e-5,
    )
    # A gate on what attention gave is held, an activation inside an MLP is no gate.
    assert model.head.as_json()["held"] == (kind == "gated attention")
    assert float(parts["patches"].abs().min()) > 0
