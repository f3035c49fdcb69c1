"""A small vision transformer for scenes, which begins with convolutions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from unitscope.scenes.network import (
    CLASS_COUNT,
    Architecture,
    SceneNetwork,
    Stage,
    Stages,
)


@dataclass(frozen=True)
class TransformerArchitecture:
    """The architecture of a scene transformer, as it is written into its weights file.

    `stem` and `stages` are the convolutions, as in `Architecture`; their last map has
    `side` rows and columns at the size that the network is made for. Every cell of it
    becomes a token of `width` units. `inner` are the units inside an MLP.
    """

    stem: int
    stages: tuple[Stage, ...]
    width: int
    blocks: int
    heads: int
    inner: int
    side: int = 8
    classes: int = CLASS_COUNT

    def to_json(self) -> str:
        """Write the text that a weights file's metadata holds under `architecture`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> TransformerArchitecture:
        """Read what `to_json` wrote."""
        fields: Mapping[str, object] = json.loads(text)
        try:
            stages = fields["stages"]
            assert isinstance(stages, list)
            others = {
                name: value
                for name, value in fields.items()
                if name != "stages"
            }
            assert all(isinstance(value, int) for value in others.values())
            return cls(stages=tuple(Stage(**each) for each in stages), **others)  # type: ignore[arg-type]
        except (AssertionError, KeyError, TypeError):
            raise ValueError(
                f"architecture {text!r} is not one of a scene transformer: expected a "
                "JSON object as `TransformerArchitecture.to_json` writes it"
            ) from None


BUNDLED_TRANSFORMER = TransformerArchitecture(
    stem=48,
    # The bundled network's first layers: what they see is known already, and a
    # transformer that begins with convolutions learns faster (Xiao et al. 2021).
    stages=(
        Stage(blocks=1, units=48, stride=1),
        Stage(blocks=1, units=96, stride=2),
        Stage(blocks=1, units=256, stride=2),
    ),
    width=160,
    blocks=6,
    heads=4,
    inner=320,
)
"""The transformer in the box."""


class Attention(nn.Module):
    """Every token takes from all tokens, through several heads.

    Written out, so that the shares of attention are the output of a layer: `shares`.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.shares = nn.Softmax(dim=-1)
        self.proj = nn.Linear(width, width)

    def forward(
        self, x: Float[Tensor, "batch token unit"]
    ) -> Float[Tensor, "batch token unit"]:
        """What all tokens take."""
        batch, tokens, width = x.shape
        apart = self.qkv(x).view(batch, tokens, 3, self.heads, -1)
        queries, keys, values = apart.permute(2, 0, 3, 1, 4).unbind(0)
        scores = queries @ keys.transpose(-2, -1)
        shares = self.shares(scores * queries.shape[-1] ** -0.5)
        taken = (shares.to(values.dtype) @ values).transpose(1, 2)
        output: Tensor = self.proj(taken.reshape(batch, tokens, width))
        return output


class MLP(nn.Module):
    """Two linear layers and a GELU, token by token."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, inner)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(inner, width)

    def forward(
        self, x: Float[Tensor, "batch token unit"]
    ) -> Float[Tensor, "batch token unit"]:
        """What the layer writes for every token."""
        inner = self.act(self.fc1(x))
        output: Tensor = self.fc2(inner)
        return output


class Block(nn.Module):
    """Attention and MLP, each behind a normalisation and beside a shortcut."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLP(width, inner)

    def forward(
        self, x: Float[Tensor, "batch token unit"]
    ) -> Float[Tensor, "batch token unit"]:
        """The tokens for the next block."""
        x = x + self.attn(self.norm1(x))
        output: Tensor = x + self.mlp(self.norm2(x))
        return output


class SceneTransformer(nn.Module):
    """Normalised photos → logits: convolutions, tokens, blocks, the class token, one linear layer.

    Layers are named as timm names a vision transformer's: `blocks.0` … `norm`, `head`;
    the convolutions, `stem.conv1` … `stem.layerN`, as torchvision names a ResNet's.
    """

    def __init__(
        self, architecture: TransformerArchitecture = BUNDLED_TRANSFORMER
    ) -> None:
        super().__init__()
        self.architecture = architecture
        width, side = architecture.width, architecture.side
        self.stem = Stages(architecture.stem, architecture.stages)
        self.stem.initialise()
        self.patch_embed = nn.Conv2d(architecture.stages[-1].units, width, 1)
        self.cls_token = nn.Parameter(torch.empty(width))
        self.pos_embed = nn.Parameter(torch.empty(width, side, side))
        self.blocks = nn.Sequential(
            *(
                Block(width, architecture.heads, architecture.inner)
                for _ in range(architecture.blocks)
            )
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, architecture.classes)
        self._initialise()

    def _initialise(self) -> None:
        for parameter in (self.cls_token, self.pos_embed):
            nn.init.normal_(parameter, std=0.02)
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(
        self, x: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch class"]:
        """Logits, not probabilities."""
        tokens = self.tokens(self.stem(x))
        logits: Tensor = self.head(self.norm(tokens[:, 0]))
        return logits

    def tokens(
        self, map_: Float[Tensor, "batch unit row col"]
    ) -> Float[Tensor, "batch token unit2"]:
        """The tokens behind the last block for the stem's map: the class token, then patches."""
        patches = self.patch_embed(map_) + self._positions(*map_.shape[2:])
        patches = patches.flatten(2).transpose(1, 2)
        first = self.cls_token.expand(len(patches), 1, -1).to(patches.dtype)
        tokens: Tensor = self.blocks(torch.cat([first, patches], dim=1))
        return tokens

    def _positions(self, rows: int, cols: int) -> Float[Tensor, "unit row col"]:
        """What tells a patch's place; resized where the map has another size."""
        if (rows, cols) == self.pos_embed.shape[1:]:
            return self.pos_embed
        return interpolate(
            self.pos_embed[None],
            (rows, cols),
            mode="bilinear",
            align_corners=False,
        )[0]


def network_from(text: str) -> SceneNetwork | SceneTransformer:
    """The network, untrained, of the architecture in a weights file's metadata."""
    if "width" in json.loads(text):
        return SceneTransformer(TransformerArchitecture.from_json(text))
    return SceneNetwork(Architecture.from_json(text))
