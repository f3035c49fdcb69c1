"""Where the residual stream cannot be followed: right, or refused with a fitting reason."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unitscope
from residual.small_vits import (
    SPELLINGS,
    Attention,
    SmallVit,
    cases,
    joined,
    made,
    photos,
)
from residual.test_spellings import assert_close, check_algebra, explained
from unitscope.attribution.local_head import LocalHead
from unitscope.errors import HeadError

NO_STREAM = "nor can the residual stream be followed: "


class ReadThrough(SmallVit):
    """As BERT: a pooler with a tanh stands before the classes."""

    def __init__(self) -> None:
        super().__init__()
        self.pooler = nn.Linear(12, 12)
        self.read = lambda x: torch.tanh(self.pooler(x[:, 0]))


class ChannelAttention(Attention):
    """As XCiT: units attend to units."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (each.transpose(-2, -1) for each in self.split(x))
        weights = (q @ k.transpose(-2, -1)).softmax(dim=-1)
        taken = (weights @ v).permute(0, 3, 1, 2).flatten(2)
        projected: Tensor = self.proj(taken)
        return projected


class Factorised(Attention):
    """As CoaT: keys and values meet first."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        projected: Tensor = self.proj(
            joined(q @ (k.softmax(dim=2).transpose(-2, -1) @ v))
        )
        return projected


class Chosen(Attention):
    """Every token gathers the four that suit it best."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        scores, places = (q @ k.transpose(-2, -1)).topk(4, dim=-1)
        every = v[:, :, None].expand(*q.shape[:3], *v.shape[-2:])
        where = places[..., None].expand(*places.shape, v.shape[-1])
        weights = scores.softmax(dim=-1)[..., None]
        taken = (weights * every.gather(3, where)).sum(dim=-2)
        projected: Tensor = self.proj(joined(taken))
        return projected


class SortedScores(Attention):
    """Scores lose what the third best has, and the rest is no softmax."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        scores = q @ k.transpose(-2, -1)
        third = scores.sort(dim=-1).values[..., -3:-2]
        projected: Tensor = self.proj(joined((scores - third).relu() @ v))
        return projected


class MergedOwnValue(Attention):
    """Every token keeps its own value, while photos and heads share an axis."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        flat = v.flatten(0, 1)
        weights = (q @ k.transpose(-2, -1)).softmax(dim=-1).flatten(0, 1)
        taken = (torch.bmm(weights, flat) + flat).view(v.shape)
        projected: Tensor = self.proj(joined(taken))
        return projected


class AveragedValue(Attention):
    """What every token takes is changed before the output projection."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(x)
        weights = (q @ k.transpose(-2, -1)).softmax(dim=-1)
        taken = weights @ v + v.mean(dim=2, keepdim=True)
        projected: Tensor = self.proj(joined(taken))
        return projected


class OnePhoto(SmallVit):
    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 1:
            raise ValueError("one photo, please")
        return super().forward(x)


class OtherPath(SmallVit):
    """Two photos take more calls than one."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 1:
            x = (x + 1) - 1
        return super().forward(x)


class RolledMap(SmallVit):
    """The map is rolled before it becomes tokens: every patch has another's place."""

    def tokens(self, x: Tensor) -> Tensor:
        patches = self.embed(x).roll((1, 1), (2, 3)).flatten(2).transpose(1, 2)
        first = self.first.expand(len(x), -1, -1)
        return torch.cat([first, patches], dim=1) + self.position


class CutOneByOne(SmallVit):
    """Patches are slices of the photo: nothing says where a stacked tensor lay."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 64, 12)

    def tokens(self, x: Tensor) -> Tensor:
        pieces = [
            x[:, :, row : row + 8, col : col + 8].flatten(1)
            for row in range(0, 24, 8)
            for col in range(0, 32, 8)
        ]
        patches = self.linear(torch.stack(pieces, dim=1))
        first = self.first.expand(len(x), -1, -1)
        return torch.cat([first, patches], dim=1) + self.position


def pruned(x: Tensor) -> Tensor:
    """The class token, and the eight patches that are longest."""
    chosen = x[:, 1:].norm(dim=-1).topk(8, dim=1).indices.sort(dim=1).values
    kept = x[:, 1:].gather(1, chosen[..., None].expand(-1, -1, x.shape[-1]))
    return torch.cat([x[:, :1], kept], dim=1)


def merged(x: Tensor) -> Tensor:
    """Patches merged two by two."""
    return torch.cat([x[:, :1], (x[:, 1::2] + x[:, 2::2]) / 2], dim=1)


ORDER = torch.tensor([0, 7, 3, 12, 1, 9, 2, 11, 4, 10, 5, 8, 6])

REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "pooler": (ReadThrough, "'tanh' stands between the token that is read"),
    "channels": (
        lambda: SmallVit(ChannelAttention),
        "no token attends to others: its attention mixes units",
    ),
    "factorised": (
        lambda: SmallVit(Factorised),
        "no token has a weight of its own",
    ),
    "chosen": (
        lambda: SmallVit(Chosen),
        "every token chooses the tokens that it attends to, which then have no places: "
        "set the scores of all others to -inf before the softmax instead",
    ),
    "sorted scores": (
        lambda: SmallVit(SortedScores),
        "which token is which patch can be told in some blocks only",
    ),
    "merged own value": (
        lambda: SmallVit(MergedOwnValue),
        "ends at 'view': keep photos and heads on axes of their own",
    ),
    "averaged value": (
        lambda: SmallVit(AveragedValue),
        "between attention and what it writes, the way back from the logits ends at 'add'",
    ),
    "one photo": (OnePhoto, "fails with 2 photos at a time"),
    "other path": (OtherPath, "another path with two photos than with one"),
    "pruned": (
        lambda: SmallVit(between=pruned, depth=2),
        "which of the 9 tokens that are attended to are patches",
    ),
    "merged": (
        lambda: SmallVit(between=merged, depth=2),
        "which of the 7 tokens that are attended to are patches",
    ),
    "shuffled": (
        lambda: SmallVit(between=lambda x: x[:, ORDER], depth=2),
        "which of the 13 tokens that are attended to are patches",
    ),
    "rolled": (
        lambda: SmallVit(between=lambda x: x.roll(-1, 1), depth=2),
        "the way back from them ends at 'roll'",
    ),
    "rolled map": (RolledMap, "which token is which patch of the photo"),
    "flipped": (
        lambda: SmallVit(
            between=lambda x: torch.cat([x[:, :1], x[:, 1:].flip(1)], dim=1),
            depth=2,
        ),
        "blocks attend to the patches in several orders",
    ),
}


@pytest.mark.parametrize(
    "name", cases(REFUSED, "shuffled", "chosen", "averaged value")
)
def test_local_answers_say_why_there_is_no_stream(name: str) -> None:
    make, reason = REFUSED[name]
    model = unitscope.wrap(made(make))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Some layers are silent.
        head = model.explain(photos(1)).head
    assert isinstance(head, LocalHead)
    assert NO_STREAM in head.reason
    assert reason in head.reason.split(NO_STREAM)[1]


def test_patches_cut_one_by_one_are_refused_with_a_remedy() -> None:
    model = unitscope.wrap(made(CutOneByOne))
    with pytest.raises(
        HeadError, match="patches, and where these lie, cannot be told: cut the"
    ):
        model.explain(photos(1))


@pytest.mark.slow
def test_networks_without_attention_hear_nothing_of_it() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 8, stride=8), nn.Flatten(), nn.Linear(48, 6), nn.Tanh()
    )
    model = unitscope.wrap(
        made(lambda: nn.Sequential(network, nn.Linear(6, 3)))
    )
    head = model.explain(photos(1)).head
    assert isinstance(head, LocalHead)
    assert "residual" not in head.reason


@pytest.mark.slow
def test_channel_attention_beside_tokens_is_another_layer() -> None:
    """As many units as tokens do not make them tokens."""

    class Both(SmallVit):
        def __init__(self) -> None:
            super().__init__(units=13, heads=1, depth=2)
            self.blocks[0].attn = ChannelAttention(13, 1)

    explanation = explained(made(Both), photos())
    assert len(explanation.head.unit_names) == 1
    assert "other layers" in explanation.parts
    check_algebra(explanation)


def test_a_number_taken_out_of_torch_is_held() -> None:
    class Gated(SmallVit):
        def forward(self, x: Tensor) -> Tensor:
            tokens = self.blocks[0](self.tokens(x))
            tokens = tokens * (1 + 0.1 * float(x.std())) + float(x.mean())
            logits: Tensor = self.head(self.norm(tokens)[:, 0])
            return logits

    network = made(Gated)
    explanation = explained(network, photos())
    assert_close(explanation.logits, network(photos()).detach())
    check_algebra(explanation)
    assert explanation.head.held


@pytest.mark.parametrize(
    "dtype", cases([torch.float16, torch.bfloat16, torch.float64])
)
def test_other_number_types(dtype: torch.dtype) -> None:
    network = made(SmallVit).to(dtype)
    explanation = explained(network, photos())
    total: Any = sum(explanation.parts.values())
    error = (total - explanation.logits).abs().max()
    assert float(error) <= 64 * torch.finfo(dtype).eps + 1e-5


@pytest.mark.slow
def test_wrappers_and_memory_orders() -> None:
    network = made(SmallVit)
    x = photos()
    plain = explained(network, x)
    wrapped = explained(nn.DataParallel(network, device_ids=None), x)
    last = explained(
        network.to(memory_format=torch.channels_last),
        x.to(memory_format=torch.channels_last),
    )
    for other in (wrapped, last):
        assert_close(other.contributions, plain.contributions)
        assert_close(other.cams, plain.cams)


def test_a_photo_that_gives_no_numbers_is_refused() -> None:
    model = unitscope.wrap(made(SmallVit))
    x = photos()
    model.explain(x)
    x[0] = torch.nan
    with pytest.raises(unitscope.UnitscopeError):
        model.explain(x)


class BehindTheProbes(SmallVit):
    """What bright photos show is added inside a call that random numbers leave as it is."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return logits + 0.0 if x.max() < 50 else logits.sin()


class AddedByTheBrightest(SmallVit):
    """The tensor that random numbers leave at zero is not so for a bright photo."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("extra", torch.zeros(1, 12))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.tokens(x)
        for block in self.blocks:
            tokens = block(tokens)
        token = self.norm(tokens)[:, 0]
        logits: Tensor = self.head(token)
        if x.max() > 50:
            # Written where nothing watches.
            logits.data.numpy()[:] += 1.0
        return logits


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (BehindTheProbes, "another path on this input"),
        (AddedByTheBrightest, "parts of the residual stream add up to other"),
    ],
)
def test_a_photo_that_the_account_does_not_fit_is_refused_with_a_remedy(
    make: Callable[[], nn.Module], reason: str
) -> None:
    model = unitscope.wrap(made(make))
    x = photos()
    assert model.explain(x).head.kind == "residual"
    x[0, 0, 0, 0] = 100
    with pytest.raises(
        HeadError,
        match=rf"{reason}.*; ask for a local answer, method='hirescam' \(--method",
    ):
        model.explain(x)
    assert model.explain(x, method="hirescam").head.kind == "local"
    # The account of other photos is still there.
    assert model.explain(photos()).head.kind == "residual"


def test_a_network_that_was_changed_is_followed_anew() -> None:
    network = made(SmallVit)
    model = unitscope.wrap(network)
    model.explain(photos())
    network.blocks[1].attn = made(lambda: Attention(12, 3, SPELLINGS["einsum"]))
    explanation = model.explain(photos())
    assert explanation.head.kind == "residual"
    assert_close(explanation.logits, network(photos()).detach())
