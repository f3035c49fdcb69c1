"""The residual stream of every spelling of a transformer, against slow obvious twins."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import unitscope
from residual.small_vits import (
    SPELLINGS,
    Attention,
    SmallVit,
    cases,
    direct_without,
    given_by_tokens,
    joined,
    made,
    photos,
    softmaxed,
    total_without,
)
from unitscope.errors import LayerError
from unitscope.residual.explanation import ResidualExplanation

THROUGH_TOKENS = ("patches", "class token", "other tokens")


def explained(network: Any, x: Tensor) -> ResidualExplanation:
    explanation = unitscope.wrap(network).explain(x)
    assert isinstance(explanation, ResidualExplanation), explanation.head
    return explanation


def assert_close(one: Tensor, other: Tensor) -> None:
    scale = float(other.abs().max())
    torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * max(scale, 1))


def total_of(parts: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(parts)).sum(dim=0)


def check_algebra(explanation: ResidualExplanation) -> None:
    """Parts add up to the logits, heads to what came through tokens, maps to `cams`."""
    parts = explanation.parts
    assert_close(total_of(parts.values()), explanation.logits)
    through = [parts[name] for name in THROUGH_TOKENS if name in parts]
    assert_close(explanation.cams.mean(dim=(2, 3)), parts["patches"])
    units = range(len(explanation.head.unit_names))
    maps = explanation.head_maps(units)
    assert_close(maps.sum(dim=1), explanation.cams)
    assert_close(explanation.contributions.sum(dim=2), total_of(through))
    own = explanation[0]
    assert isinstance(own, ResidualExplanation)
    assert_close(own.direct_logits([0], by=own), own.logits)


def check(network: Any, heads: int = 3) -> ResidualExplanation:
    """The algebra, and effects of heads against real passes with hooks."""
    x = photos()
    explanation = explained(network, x)
    assert_close(explanation.logits, network(x).detach())
    check_algebra(explanation)
    units = [1, heads]
    direct = explanation.direct_logits_each(units=units)
    total = explanation.ablate_each(units=units)
    for place, unit in enumerate(units):
        where = divmod(unit, heads)
        assert_close(direct[:, place], direct_without(network, x, *where))
        assert_close(total[:, place], total_without(network, x, *where))
        assert_close(
            explanation.ablate(unit).logits, total_without(network, x, *where)
        )
    own = explanation[0]
    assert isinstance(own, ResidualExplanation)
    assert_close(own.total_logits([1], by=own), own.logits)
    return explanation


def check_maps(
    network: Any, explanation: ResidualExplanation, query: int = 0
) -> None:
    """Contributions and maps of heads against loops over tokens."""
    given = given_by_tokens(network, photos(), query)
    by_head = given.sum(dim=3).flatten(1, 2)
    assert_close(explanation.contributions, by_head.transpose(1, 2))
    patches = given.shape[3] - 12
    maps = given[:, :, :, patches:].flatten(1, 2).transpose(2, 3)
    maps = maps.reshape(*maps.shape[:3], 3, 4) * 12
    units = range(len(explanation.head.unit_names))
    assert_close(explanation.head_maps(units), maps)
    assert_close(explanation.cams, maps.sum(dim=1))


@pytest.mark.parametrize(
    "name",
    cases(
        SPELLINGS,
        "fused",
        "merged heads and photos",
        "einsum, heads behind tokens",
    ),
)
def test_every_spelling_of_attention(name: str) -> None:
    attention = partial(Attention, spelling=SPELLINGS[name])
    network = made(lambda: SmallVit(attention))
    explanation = check(network)
    check_maps(network, explanation)
    assert explanation.head.unit_names[4] == "1.1"
    assert explanation.head.blocks == ("blocks.0.attn", "blocks.1.attn")


class Talking(Attention):
    """Heads talk to each other: weights are mixed between them after the softmax."""

    def __init__(self, units: int, heads: int) -> None:
        super().__init__(units, heads)
        self.talk = nn.Linear(heads, heads)

    def weights_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v = self.split(x)
        weights = self.talk(softmaxed(q, k).permute(0, 2, 3, 1))
        return weights.permute(0, 3, 1, 2), v

    def forward(self, x: Tensor) -> Tensor:
        weights, values = self.weights_and_values(x)
        projected: Tensor = self.proj(joined(weights @ values))
        return projected


class Normed(Attention):
    """Queries and keys are normalised, and a bias is added to the scores."""

    def weights_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v = self.split(x)
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        return (4 * q @ k.transpose(-2, -1) + self.bias(x)).softmax(-1), v

    def bias(self, x: Tensor) -> Tensor:
        count = x.shape[1]
        return torch.linspace(-1, 1, count * count).view(count, count)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        taken = F.scaled_dot_product_attention(
            q, k, v, attn_mask=self.bias(x), scale=4.0
        )
        projected: Tensor = self.proj(joined(taken))
        return projected


class Masked(Attention):
    """Some tokens are not attended to, and the fused function is told so."""

    def mask(self, x: Tensor) -> Tensor:
        count = x.shape[1]
        return torch.arange(count * count).view(count, count) % 3 != 1

    def weights_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v = self.split(x)
        scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
        return scores.masked_fill(~self.mask(x), -torch.inf).softmax(-1), v

    def forward(self, x: Tensor) -> Tensor:
        taken = F.scaled_dot_product_attention(*self.split(x), self.mask(x))
        projected: Tensor = self.proj(joined(taken))
        return projected


class Causal(Attention):
    """Tokens attend to those before them."""

    def weights_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v = self.split(x)
        scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
        later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        return scores.masked_fill(later, -torch.inf).softmax(-1), v

    def forward(self, x: Tensor) -> Tensor:
        taken = F.scaled_dot_product_attention(*self.split(x), is_causal=True)
        projected: Tensor = self.proj(joined(taken))
        return projected


class ByWeights(Attention):
    """Weights times values, however the weights are made."""

    def forward(self, x: Tensor) -> Tensor:
        weights, values = self.weights_and_values(x)
        projected: Tensor = self.proj(joined(weights @ values))
        return projected


class Sparse(ByWeights):
    """Every token attends to the four that suit it best."""

    def weights_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v = self.split(x)
        scores = q @ k.transpose(-2, -1)
        least = scores.topk(4, dim=-1).values[..., -1:]
        return scores.masked_fill(scores < least, -torch.inf).softmax(-1), v


class Rectified(ByWeights):
    """Weights without a softmax."""

    def weights_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v = self.split(x)
        return (q @ k.transpose(-2, -1)).relu() / x.shape[1], v


class ByEinsum(Attention):
    """The output projection is an einsum, too."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        taken = torch.einsum("bhqk,bhkd->bqhd", softmaxed(q, k), v)
        out = self.proj.weight.view(len(self.proj.weight), self.heads, -1)
        return torch.einsum("bqhd,ohd->bqo", taken, out) + self.proj.bias


@pytest.mark.parametrize(
    "attention",
    cases(
        [Talking, Normed, Masked, ByEinsum, Sparse, Rectified], Masked, Sparse
    ),
)
def test_attention_of_other_weights(attention: type[Attention]) -> None:
    network = made(lambda: SmallVit(attention))
    check_maps(network, check(network))


class OwnValue(Attention):
    """Every token also keeps its own value; `keep` is 0 for heads that are silent."""

    def __init__(self, units: int, heads: int) -> None:
        super().__init__(units, heads)
        self.keep = torch.ones(heads, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        taken = (softmaxed(q, k) @ v) * self.keep + v
        projected: Tensor = self.proj(joined(taken))
        return projected


def test_a_tokens_own_value_is_no_part_of_what_heads_took() -> None:
    network, x = made(lambda: SmallVit(OwnValue)), photos()
    explanation = explained(network, x)
    check_algebra(explanation)
    check_maps(network, explanation)
    assert bool((explanation.parts["other layers"].abs() > 1e-3).all())

    network.blocks[0].attn.keep[1] = 0
    with torch.no_grad():
        silent = network(x)
    network.blocks[0].attn.keep[1] = 1
    assert_close(explanation.total_logits("0.1"), silent)


class Last(SmallVit):
    """The class token is the last one; so it sees all others where these are causal."""

    def tokens(self, x: Tensor) -> Tensor:
        patches = self.embed(x).flatten(2).transpose(1, 2)
        first = self.first.expand(len(x), -1, -1)
        return torch.cat([patches, first], dim=1) + self.position


@pytest.mark.slow
def test_a_last_class_token_of_causal_attention() -> None:
    network = made(lambda: Last(Causal, read=lambda x: x[:, -1]))
    explanation = check(network)
    given = given_by_tokens(network, photos(), 12)
    maps = given[:, :, :, :12].flatten(1, 2).transpose(2, 3)
    maps = maps.reshape(*maps.shape[:3], 3, 4) * 12
    assert_close(explanation.head_maps(range(6)), maps)


@pytest.mark.slow
def test_a_patch_that_is_read_is_a_patch() -> None:
    network = made(lambda: SmallVit(read=lambda x: x[:, 7]))
    explanation = check(network)
    check_maps(network, explanation, query=7)


class Grouped(Attention):
    """Heads share keys and values, three by three."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        taken = F.scaled_dot_product_attention(
            q, k[:, :1], v[:, :1], enable_gqa=True
        )
        projected: Tensor = self.proj(joined(taken))
        return projected

    def weights_and_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v = self.split(x)
        return softmaxed(q, k[:, :1].expand_as(k)), v[:, :1].expand_as(v)


@pytest.mark.slow
def test_grouped_queries() -> None:
    network = made(lambda: SmallVit(Grouped))
    check_maps(network, check(network))


class WholeAttention(nn.Module):
    """nn.MultiheadAttention with its options."""

    def __init__(self, units: int, heads: int, **options: Any) -> None:
        super().__init__()
        self.heads = heads
        self.call = options.pop("call", {})
        self.width = options.get("kdim", units)
        self.inner = nn.MultiheadAttention(units, heads, **options)

    @property
    def out(self) -> Tensor:
        return self.inner.out_proj.weight

    def forward(self, x: Tensor) -> Tensor:
        call = dict(self.call)
        count = x.shape[1]
        if call.pop("masked", False):
            places = torch.arange(count * count).view(count, count)
            call["attn_mask"] = places % 3 == 1
        if call.pop("padded", False):
            call["key_padding_mask"] = (
                torch.arange(count).expand(len(x), -1) % 5 == 4
            )
        is_first = self.inner.batch_first
        y = x if is_first else x.transpose(0, 1)
        keys = y[..., : self.width]
        out: Tensor = self.inner(y, keys, keys, **call)[0]
        return out if is_first else out.transpose(0, 1)


WHOLE: dict[str, dict[str, Any]] = {
    "plain": {},
    "batch first": {"batch_first": True},
    "no bias": {"bias": False},
    "no weights": {"call": {"need_weights": False}},
    "weights by head": {"call": {"average_attn_weights": False}},
    "masked": {"call": {"masked": True, "need_weights": False}},
    "padded": {"batch_first": True, "call": {"padded": True}},
    "both masks": {"call": {"masked": True, "padded": True}},
    "other widths": {"kdim": 8, "vdim": 8},
    "learnt token": {"add_bias_kv": True},
    "zero token": {"add_zero_attn": True, "call": {"padded": True}},
}


@pytest.mark.parametrize("name", cases(WHOLE, "both masks"))
def test_whole_multi_head_attention(name: str) -> None:
    attention = partial(WholeAttention, **WHOLE[name])
    explanation = check(made(lambda: SmallVit(attention)))
    assert len(explanation.head.unit_names) == 6


class EncoderVit(SmallVit):
    """nn.TransformerEncoder, whose fast path takes other functions."""

    def __init__(self, **options: Any) -> None:
        super().__init__(depth=0)
        layer = nn.TransformerEncoderLayer(
            12, 3, 20, batch_first=True, **options
        )
        self.encoder = nn.TransformerEncoder(
            layer, 2, enable_nested_tensor=False
        )

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.encoder(self.tokens(x))
        logits: Tensor = self.head(self.norm(tokens)[:, 0])
        return logits


@pytest.mark.parametrize("norm_first", cases([False, True]))
def test_torchs_encoder(norm_first: bool) -> None:
    network = made(lambda: EncoderVit(norm_first=norm_first))
    x = photos()
    explanation = explained(network, x)
    check_algebra(explanation)
    with torch.no_grad():
        assert_close(explanation.logits, network(x))
    total = explanation.total_logits([4])
    with torch.no_grad():
        weight = network.encoder.layers[1].self_attn.out_proj.weight
        weight[:, 4:8] = 0
        assert_close(total, network(x))


class WrittenLayerNorm(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=-1, keepdim=True)
        variance = x.var(dim=-1, keepdim=True, unbiased=False)
        return (x - mean) / torch.sqrt(
            variance + 1e-5
        ) * self.weight + self.bias


class WrittenInSteps(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        x = x - x.mean(-1, keepdim=True)
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)
        return self.weight * x + self.bias


class ByDeviation(nn.LayerNorm):
    """As in The Annotated Transformer."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(-1, keepdim=True)
        std = x.std(-1, keepdim=True)
        return self.weight * (x - mean) / (std + 1e-3) + self.bias


class AtOnce(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, -1, correction=0, keepdim=True)
        return (x - mean) * (variance + 1e-5) ** -0.5 * self.weight + self.bias


class WrittenRootMeanSquare(nn.Module):
    def __init__(self, units: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(units))

    def forward(self, x: Tensor) -> Tensor:
        y = x.to(torch.float32)
        y = y * torch.rsqrt((y * y).mean(-1, keepdim=True) + 1e-3)
        return y.to(x.dtype) * self.weight


class OverRoot(WrittenRootMeanSquare):
    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x / (x.square().mean(-1, True) + 1e-3).sqrt())


class LucidrainsNorm(WrittenRootMeanSquare):
    def forward(self, x: Tensor) -> Tensor:
        scale = float(len(self.weight)) ** 0.5
        unit: Tensor = F.normalize(x, dim=-1)
        made: Tensor = unit * scale * self.weight
        return made


class ByLength(WrittenRootMeanSquare):
    def forward(self, x: Tensor) -> Tensor:
        length: Tensor = torch.norm(x, dim=-1, keepdim=True)
        return x / length * self.weight


NORMS: list[Callable[[int], nn.Module]] = [
    WrittenLayerNorm,
    WrittenInSteps,
    ByDeviation,
    AtOnce,
    WrittenRootMeanSquare,
    OverRoot,
    LucidrainsNorm,
    ByLength,
]


@pytest.mark.parametrize("norm", cases(NORMS, WrittenLayerNorm))
def test_divisors_of_normalisations_that_are_written_out_follow(
    norm: Callable[[int], nn.Module],
) -> None:
    network = made(lambda: SmallVit(norm=norm))
    explanation = check(network)
    assert not explanation.head.held
    if norm is WrittenLayerNorm:
        check_maps(network, explanation)


ORDERS: dict[str, dict[str, Any]] = {
    "post": {"order": "post"},
    "parallel": {"order": "parallel"},
    "scaled": {"scaled": True},
    "registers": {"registers": 3},
    "post, scaled, registers": {
        "order": "post",
        "scaled": True,
        "registers": 2,
    },
}


@pytest.mark.parametrize("name", cases(ORDERS, "post, scaled, registers"))
def test_orders_of_blocks(name: str) -> None:
    network = made(lambda: SmallVit(**ORDERS[name]))
    explanation = check(network)
    if ORDERS[name].get("order") is None:
        check_maps(network, explanation)
    assert ("other tokens" in explanation.parts) == ("registers" in name)


READS: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "class token and mean of patches": (
        lambda x: torch.cat([x[:, 0], x[:, 1:].mean(1)], dim=-1),
        24,
    ),
    "two tokens": (lambda x: (x[:, 0] + x[:, 1]) / 2, 12),
    "mean of two tokens": (lambda x: x[:, :2].mean(dim=1), 12),
    "difference of two tokens": (lambda x: x[:, 0] - x[:, 1], 12),
    "stacked": (
        lambda x: torch.stack([x[:, 0], x[:, 1]]).sum(dim=0),
        12,
    ),
}


@pytest.mark.parametrize(
    "name", cases(READS, "class token and mean of patches")
)
def test_what_is_read(name: str) -> None:
    read, width = READS[name]
    network = made(
        lambda: SmallVit(
            read=read,
            width=width,
            registers=1 * ("two" in name or "stacked" in name),
        )
    )
    x = photos()
    explanation = explained(network, x)
    assert_close(total_of(explanation.parts.values()), explanation.logits)
    assert_close(explanation.total_logits([4]), total_without(network, x, 1, 1))


def test_patching_against_hooks() -> None:
    network = made(SmallVit)
    x = photos(2)
    both = explained(network, x)
    one, other = both[0], both[1]
    assert isinstance(one, ResidualExplanation)
    assert isinstance(other, ResidualExplanation)
    proj = network.blocks[0].attn.proj
    seen: list[Tensor] = []
    hook = proj.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0])
    )
    network(x[1:])
    hook.remove()

    def put_in(_module: nn.Module, inputs: Any) -> Any:
        changed = inputs[0].clone()
        changed[..., 4:8] = seen[0][..., 4:8]
        return (changed,)

    hook = proj.register_forward_pre_hook(put_in)
    with torch.no_grad():
        patched = network(x[:1])
    hook.remove()
    assert_close(one.total_logits([1], by=other), patched)
    assert_close(one.ablate_each(units=[1], by=other)[:, 0], patched)


@pytest.mark.slow
def test_mlps_of_post_norm_blocks() -> None:
    network = made(lambda: SmallVit(order="post", scaled=True))
    explanation = explained(network, photos())
    writes = explanation.writes
    assert list(writes) == ["blocks.0.mlp", "blocks.1.mlp"]
    assert_close(total_of(writes.values()), explanation.parts["MLPs"])
    neurons = explanation.neurons("blocks.0.mlp")
    torch.testing.assert_close(explanation.neurons(0, [2]), neurons[:, :, [2]])


def test_neurons_against_loops() -> None:
    network = made(SmallVit)
    x = photos()
    explanation = explained(network, x)
    with torch.no_grad():
        tokens = network.tokens(x)
        hidden = []
        for block in network.blocks:
            middle = block.attn(block.norm1(tokens)) * block.scale[0] + tokens
            hidden.append(F.gelu(block.mlp.fc1(block.norm2(middle)))[:, 0])
            tokens = block(tokens)
        sigma = (tokens[:, 0].var(dim=1, unbiased=False) + 1e-5).sqrt()
        for place, block in enumerate(network.blocks):
            out = block.mlp.fc2.weight * block.scale[1]
            wanted = torch.zeros(2, 24, 5)
            for neuron in range(24):
                write = hidden[place][:, neuron, None] * out[:, neuron]
                write = write - write.mean(dim=1, keepdim=True)
                write = write / sigma[:, None] * network.norm.weight
                wanted[:, neuron] = write @ network.head.weight.T
            assert_close(explanation.neurons(place), wanted)
            bias = block.mlp.fc2.bias * block.scale[1]
            bias = (bias - bias.mean()) / sigma[:, None] * network.norm.weight
            write = explanation.writes[f"blocks.{place}.mlp"]
            assert_close(
                wanted.sum(dim=1) + bias @ network.head.weight.T, write
            )
    with pytest.raises(
        LayerError, match=r"no MLP 'blocks.1.mpl'.*blocks.1.mlp"
    ):
        explanation.neurons("blocks.1.mpl")
    with pytest.raises(LayerError, match="no MLP 2: 2 write"):
        explanation.neurons(2)


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(
    depth=st.integers(1, 3),
    heads=st.integers(1, 4),
    width=st.integers(2, 4),
    registers=st.integers(0, 2),
    order=st.sampled_from(["pre", "post", "parallel"]),
    scaled=st.booleans(),
    spelling=st.sampled_from(sorted(SPELLINGS)),
)
def test_the_algebra(
    depth: int,
    heads: int,
    width: int,
    registers: int,
    order: str,
    scaled: bool,
    spelling: str,
) -> None:
    attention = partial(Attention, spelling=SPELLINGS[spelling])
    network = made(
        lambda: SmallVit(
            attention,
            units=heads * width,
            heads=heads,
            depth=depth,
            registers=registers,
            order=order,
            scaled=scaled,
        )
    )
    check_algebra(explained(network, photos()))


def unfolded(x: Tensor) -> Tensor:
    windows = x.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5)
    return windows.reshape(len(x), -1, 3 * 64)


def reshaped(x: Tensor) -> Tensor:
    pieces = x.reshape(len(x), 3, 3, 8, 4, 8).permute(0, 2, 4, 1, 3, 5)
    return pieces.flatten(3).flatten(1, 2)


CUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "F.unfold": lambda x: F.unfold(x, 8, stride=8).transpose(1, 2),
    "nn.Unfold": lambda x: nn.Unfold(8, stride=8)(x).mT,
    "Tensor.unfold": unfolded,
    "reshape and permute": reshaped,
    "einsum": lambda x: torch.einsum(
        "nchpwq->nhwcpq", x.reshape(len(x), 3, 3, 8, 4, 8)
    ).reshape(len(x), 12, 3 * 64),
}


class Cut(SmallVit):
    """Patches are cut out and go through a linear layer, as a convolution would do it."""

    def __init__(self, cut: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.cut = cut

    def tokens(self, x: Tensor) -> Tensor:
        patches = F.linear(
            self.cut(x), self.embed.weight.flatten(1), self.embed.bias
        )
        first = self.first.expand(len(x), -1, -1)
        return torch.cat([first, patches], dim=1) + self.position


@pytest.mark.parametrize("name", cases(CUTS, "Tensor.unfold", "einsum"))
def test_patches_cut_in_every_spelling(name: str) -> None:
    expected = explained(made(SmallVit), photos())
    explanation = explained(made(lambda: Cut(CUTS[name])), photos())
    assert_close(explanation.logits, expected.logits)
    assert_close(explanation.cams, expected.cams)
    assert explanation.grid == expected.grid and explanation.grid.traced
