"""Small vision transformers in many spellings, and slow obvious twins of their accounts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Queries, keys and values (photo, head, token, unit) → (photo, token, headunit).
Spelling = Callable[[Tensor, Tensor, Tensor], Tensor]


def cases(every: Iterable[Any], *quick: Any) -> list[Any]:
    """All cases of a test, of which some run by default; the others are slow."""
    return [
        pytest.param(
            each,
            marks=[] if each in quick else pytest.mark.slow,
            id=getattr(each, "__name__", str(each)),
        )
        for each in every
    ]


def joined(heads: Tensor) -> Tensor:
    """(photo, head, token, unit) → (photo, token, headunit)."""
    return heads.transpose(1, 2).flatten(2)


def softmaxed(q: Tensor, k: Tensor) -> Tensor:
    scores = q @ k.transpose(-2, -1) * float(q.shape[-1]) ** -0.5
    weights: Tensor = scores.softmax(dim=-1)
    return weights


def merged(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    photos, heads, tokens, units = q.shape
    q, k, v = (each.reshape(-1, tokens, units) for each in (q, k, v))
    taken = torch.bmm(softmaxed(q, k), v)
    return joined(taken.view(photos, heads, tokens, units))


def merged_by_head(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    photos, heads, tokens, units = q.shape
    q, k, v = (
        each.transpose(0, 1).reshape(-1, tokens, units) for each in (q, k, v)
    )
    taken = torch.bmm(softmaxed(q, k), v)
    return joined(taken.view(heads, photos, tokens, units).transpose(0, 1))


def token_first(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """As in fairseq: (token, photo · head, unit)."""
    photos, heads, tokens, units = q.shape
    q, k, v = (
        each.permute(2, 0, 1, 3).reshape(tokens, photos * heads, units)
        for each in (q, k, v)
    )
    q, k, v = (each.transpose(0, 1) for each in (q, k, v))
    taken = torch.bmm(softmaxed(q, k), v).transpose(0, 1)
    taken = taken.reshape(tokens, photos, heads * units)
    return taken.transpose(0, 1)


def three_dimensional(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    photos, heads, tokens, units = q.shape
    q, k, v = (each.reshape(-1, tokens, units) for each in (q, k, v))
    taken = F.scaled_dot_product_attention(q, k, v)
    return joined(taken.view(photos, heads, tokens, units))


SPELLINGS: dict[str, Spelling] = {
    "weights @ values": lambda q, k, v: joined(softmaxed(q, k) @ v),
    "torch.matmul": lambda q, k, v: joined(torch.matmul(softmaxed(q, k), v)),
    "fused": lambda q, k, v: joined(F.scaled_dot_product_attention(q, k, v)),
    "fused, scaled": lambda q, k, v: joined(
        F.scaled_dot_product_attention(
            q * 2, k, v, scale=q.shape[-1] ** -0.5 / 2
        )
    ),
    "fused, three axes": three_dimensional,
    "values @ weights": lambda q, k, v: (
        (v.transpose(-2, -1) @ softmaxed(q, k).transpose(-2, -1))
        .flatten(1, 2)
        .transpose(1, 2)
    ),
    "merged photos and heads": merged,
    "merged heads and photos": merged_by_head,
    "tokens first": token_first,
    "einsum": lambda q, k, v: joined(
        torch.einsum(
            "bhqk,bhkd->bhqd",
            torch.einsum("bhqd, bhkd -> bhqk", q, k).softmax(-1),
            v,
        )
        if q.shape[-1] == 1
        else torch.einsum("bhqk,bhkd->bhqd", softmaxed(q, k), v)
    ),
    "einsum, heads behind tokens": lambda q, k, v: torch.einsum(
        "bhij,bjhc->bihc", softmaxed(q, k), v.transpose(1, 2)
    ).flatten(2),
    "einsum, values first": lambda q, k, v: joined(
        torch.einsum("...kd,...qk->...qd", v, softmaxed(q, k))
    ),
}


class Attention(nn.Module):
    """Multi-head attention, whose last step is spelled in one of many ways."""

    def __init__(
        self, units: int, heads: int, spelling: Spelling = SPELLINGS["fused"]
    ) -> None:
        super().__init__()
        self.heads, self.spelling = heads, spelling
        self.qkv = nn.Linear(units, 3 * units)
        self.proj = nn.Linear(units, units)

    @property
    def out(self) -> Tensor:
        return self.proj.weight

    def weights_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v = self.split(x)
        return softmaxed(q, k), v

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        photos, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(photos, tokens, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    def forward(self, x: Tensor) -> Tensor:
        projected: Tensor = self.proj(self.spelling(*self.split(x)))
        return projected


class Mlp(nn.Module):
    def __init__(self, units: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(units, 2 * units)
        self.fc2 = nn.Linear(2 * units, units)

    def forward(self, x: Tensor) -> Tensor:
        written: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return written


class Block(nn.Module):
    """A pre-norm block; `order` "post" normalises sums, "parallel" writes both at once."""

    def __init__(
        self,
        units: int,
        attn: Any,
        norm: Callable[[int], Any],
        order: str,
        scaled: bool,
    ) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm(units), norm(units)
        self.attn, self.mlp, self.order = attn, Mlp(units), order
        scale = torch.rand(2, units) + 0.5 if scaled else torch.ones(2, 1)
        self.scale = nn.Parameter(scale)

    def forward(self, x: Tensor) -> Tensor:
        if self.order == "post":
            x = self.norm1(x + self.scale[0] * self.attn(x))
            done: Tensor = self.norm2(x + self.scale[1] * self.mlp(x))
            return done
        if self.order == "parallel":
            y = self.norm1(x)
            taken: Tensor = self.scale[0] * self.attn(y)
            both: Tensor = x + taken + self.scale[1] * self.mlp(y)
            return both
        x = x + self.scale[0] * self.attn(self.norm1(x))
        written: Tensor = self.scale[1] * self.mlp(self.norm2(x))
        return written + x


class SmallVit(nn.Module):
    """A class token, registers and patches of 8×8; `read` makes vectors of the tokens."""

    def __init__(
        self,
        attention: Callable[[int, int], Any] = Attention,
        norm: Callable[[int], Any] = nn.LayerNorm,
        *,
        units: int = 12,
        heads: int = 3,
        depth: int = 2,
        registers: int = 0,
        order: str = "pre",
        scaled: bool = False,
        read: Callable[[Tensor], Tensor] = lambda x: x[:, 0],
        width: int | None = None,
        between: Callable[[Tensor], Tensor] = lambda x: x,
        tokens: int = 13,
    ) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, units, 8, stride=8)
        self.first = nn.Parameter(torch.randn(1, 1 + registers, units))
        self.position = nn.Parameter(
            torch.randn(1, tokens + registers, units) * 0.5
        )
        self.blocks = nn.ModuleList(
            Block(units, attention(units, heads), norm, order, scaled)
            for _ in range(depth)
        )
        self.norm = norm(units)
        self.head = nn.Linear(units if width is None else width, 5)
        self.read, self.between = read, between

    def tokens(self, x: Tensor) -> Tensor:
        patches = self.embed(x).flatten(2).transpose(1, 2)
        first = self.first.expand(len(x), -1, -1)
        tokens = torch.cat([first, patches], dim=1)
        return tokens + self.position

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.tokens(x)
        for block in self.blocks:
            tokens = self.between(block(tokens))
        logits: Tensor = self.head(self.read(self.norm(tokens)))
        return logits


def made(make: Callable[[], nn.Module], seed: int = 0) -> Any:
    """A network whose weights, biases and norms are all at work."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = make().eval()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.15)
    return network


def photos(count: int = 2, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, 24, 32, generator=generator)


@contextlib.contextmanager
def silent(attention: Any, head: int) -> Iterator[None]:
    """Inside, nothing that a head gives reaches the output projection."""
    weight = attention.out
    width = weight.shape[1] // attention.heads
    before = weight.detach().clone()
    with torch.no_grad():
        weight[:, head * width : (head + 1) * width] = 0
    yield
    with torch.no_grad():
        weight.copy_(before)


def total_without(network: Any, x: Tensor, block: int, head: int) -> Tensor:
    """The logits of a real pass without a head."""
    with torch.no_grad(), silent(network.blocks[block].attn, head):
        logits: Tensor = network(x)
    return logits


def direct_without(network: Any, x: Tensor, block: int, head: int) -> Tensor:
    """The logits of a real pass without what a head wrote; all else is as recorded."""
    writers = [
        module for each in network.blocks for module in (each.attn, each.mlp)
    ]
    seen: list[tuple[Tensor, Tensor]] = []

    def record(_module: nn.Module, inputs: Any, output: Tensor) -> None:
        seen.append((inputs[0].clone(), output.clone()))

    hooks = [each.register_forward_hook(record) for each in writers]
    with torch.no_grad():
        network(x)
    for hook in hooks:
        hook.remove()
    attention = network.blocks[block].attn
    place = writers.index(attention)
    with torch.no_grad(), silent(attention, head):
        changed = attention(seen[place][0])
    given = [output for _, output in seen]
    given[place] = changed

    hooks = [
        each.register_forward_hook(lambda *_, output=output: output)
        for each, output in zip(writers, given, strict=True)
    ]
    with torch.no_grad():
        logits: Tensor = network(x)
    for hook in hooks:
        hook.remove()
    return logits


def given_by_tokens(network: Any, x: Tensor, query: int = 0) -> Tensor:
    """What a pre-norm network's tokens give, (photo, block, head, token, class), by loops."""
    with torch.no_grad():
        tokens = network.tokens(x)
        writes = []
        for block in network.blocks:
            attention = block.attn
            weights, values = attention.weights_and_values(block.norm1(tokens))
            photos_, heads, count, width = values.shape
            written = torch.zeros(photos_, heads, count, len(attention.out))
            for head in range(heads):
                out = attention.out[:, head * width : (head + 1) * width]
                for token in range(count):
                    moved = weights[:, head, query, token, None]
                    written[:, head, token] = (
                        moved * values[:, head, token] @ out.T
                    )
            writes.append(block.scale[0] * written)
            tokens = block(tokens)
        final = network.norm
        z = tokens[:, query]
        sigma = (z.var(dim=1, unbiased=False) + 1e-5).sqrt()
        of_all = torch.stack(writes, dim=1)
        of_all = of_all - of_all.mean(dim=-1, keepdim=True)
        of_all = of_all / sigma[:, None, None, None, None] * final.weight
        given: Tensor = of_all @ network.head.weight.T
    return given
