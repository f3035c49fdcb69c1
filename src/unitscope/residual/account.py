"""StreamAccount: the logits of some photos as sums of what was written into the stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.attribution.arrays import without_autocast
from unitscope.attribution.rounding import (
    relative_difference,
    rounding_allowance,
)
from unitscope.errors import HeadError
from unitscope.residual.grounds import (
    CLASS_TOKEN,
    OTHER_TOKENS,
    READ_DIRECTLY,
    Attention,
    Written,
)
from unitscope.residual.path import StreamPass, StreamPath
from unitscope.residual.sums import Sums, Vectors

PATCHES = "patches"
MLPS = "MLPs"
OTHER_LAYERS = "other layers"
EMBEDDING = "embedding"
BIAS = "bias"

THROUGH_HEADS = (PATCHES, CLASS_TOKEN, OTHER_TOKENS)
"""The parts that heads of attention give."""

# Heads whose maps are computed at a time, for all classes.
_MAPS_AT_ONCE = 4

_ORDER = (
    PATCHES,
    CLASS_TOKEN,
    OTHER_TOKENS,
    READ_DIRECTLY,
    MLPS,
    OTHER_LAYERS,
    EMBEDDING,
    BIAS,
)


@dataclass(frozen=True, eq=False)
class StreamAccount:
    """The logits of some photos as sums of what was written into the stream.

    `maps` are what the patches give, signed, in logits: the mean of a map is the part of
    the patches. `contributions` are what every head gives through all tokens. `parts` add
    up to the logits. `attention` is the share of its attention that each head gives to
    each patch, times the number of patches: 1 everywhere where a head attends to all
    patches alike, and to nothing else. `written` is what each MLP wrote, in their order.
    """

    maps: Float[Tensor, "photo class row col"]
    contributions: Float[Tensor, "photo class unit"]
    parts: dict[str, Float[Tensor, "photo class"]]
    attention: Float[Tensor, "photo unit row col"]
    written: tuple[Float[Tensor, "photo class"], ...] = ()

    @classmethod
    def of(cls, path: StreamPath, passed: StreamPass) -> StreamAccount:
        """The account of a pass."""
        with without_autocast(passed.logits):
            sums = path.sums(passed.read)
            heads = [sums.heads[call.index] for call in path.calls]
            return cls(
                path.patches.map_of(sums.patches),
                torch.cat(heads, dim=1).transpose(1, 2).contiguous(),
                _parts(path, sums, passed.logits),
                _attention(path, passed),
                tuple(
                    sums.written[index].sum(dim=1).expand_as(passed.logits)
                    for index in path.mlps
                ),
            )

    def check(
        self, logits: Float[Tensor, "photo class"], dtype: torch.dtype
    ) -> float:
        """How far the sum of all parts is from the logits, relative to the largest one.

        Raises HeadError where that is more than rounding in a network of this dtype.
        """
        error = relative_difference(self.total(), logits)
        if not bool((error <= self.rounding(logits, dtype)).all()):
            raise HeadError(
                f"the parts of the residual stream add up to other logits (off by "
                f"{float(error.max()):.1e} of the largest): something else contributes"
            )
        return float(error.max())

    def rounding(
        self, logits: Float[Tensor, "photo class"], dtype: torch.dtype
    ) -> Float[Tensor, " photo"]:
        """What rounding may do to the sum of all parts, relative to the largest logit."""
        return rounding_allowance(self.size, logits, dtype)

    @property
    def size(self) -> Float[Tensor, " photo"]:
        """The largest sum of the sizes of all parts, over the classes."""
        sizes = torch.stack([part.abs() for part in self.parts.values()])
        return sizes.sum(dim=0).amax(dim=1)

    def total(self) -> Float[Tensor, "photo class"]:
        """The sum of all parts: the logits, to rounding."""
        return torch.stack(list(self.parts.values())).sum(dim=0)

    def cut(self, photos: slice) -> StreamAccount:
        """The account of some of the photos."""
        return StreamAccount(
            self.maps[photos],
            self.contributions[photos],
            {name: part[photos] for name, part in self.parts.items()},
            self.attention[photos],
            tuple(each[photos] for each in self.written),
        )

    def joined(self, others: list[StreamAccount]) -> StreamAccount:
        """The account of these photos and, behind them, those of others."""
        every = [self, *others]
        return StreamAccount(
            torch.cat([each.maps for each in every]),
            torch.cat([each.contributions for each in every]),
            {
                name: torch.cat([each.parts[name] for each in every])
                for name in self.parts
            },
            torch.cat([each.attention for each in every]),
            tuple(
                torch.cat(same)
                for same in zip(*(each.written for each in every), strict=True)
            ),
        )


def _parts(
    path: StreamPath, sums: Sums, logits: Tensor
) -> dict[str, Float[Tensor, "photo class"]]:
    """The parts by name, in their order."""
    parts = {PATCHES: [part.sum(dim=1) for part in sums.patches.values()]}
    for name, part in sums.others.items():
        parts[name] = [part.sum(dim=1)]
    embedding = {
        step.index
        for step in path.steps
        if isinstance(step, Written) and step.is_embedding
    }
    mlps = path.mlps
    for index, part in sums.written.items():
        name = MLPS if index in mlps else OTHER_LAYERS
        name = EMBEDDING if index in embedding else name
        parts.setdefault(name, []).append(part.sum(dim=1))
    parts[EMBEDDING] = [*parts.get(EMBEDDING, []), *_sum_of(sums.embedding)]
    parts[BIAS] = _sum_of(sums.constant)
    return {
        name: torch.stack([each.expand_as(logits) for each in parts[name]]).sum(
            0
        )
        for name in _ORDER
        if parts.get(name)
    }


def _sum_of(part: Vectors | None) -> list[Tensor]:
    return [] if part is None else [part.sum(dim=1)]


def _attention(
    path: StreamPath, passed: StreamPass
) -> Float[Tensor, "photo unit row col"]:
    """The shares of attention on patches, of all heads; of several readings their mean."""
    by_call: dict[int, list[Tensor]] = {}
    for step, read in zip(path.steps, passed.read, strict=True):
        if not isinstance(step, Attention):
            continue
        shares = step.tokens.split(read.weights.transpose(1, 2))[0]
        map_ = path.patches.map_of({step.tokens.patches: shares})
        by_call.setdefault(step.index, []).append(map_)
    maps = [torch.stack(by_call[call.index]).mean(dim=0) for call in path.calls]
    return torch.cat(maps, dim=1)


def head_maps(
    path: StreamPath,
    passed: StreamPass,
    units: Sequence[int],
    classes: Sequence[int],
) -> Float[Tensor, "photo unit class row col"]:
    """What the patches give through single heads: a signed map whose mean is their part."""
    starts = range(0, len(units), _MAPS_AT_ONCE)
    chunks = [
        _head_maps(path, passed, units[start : start + _MAPS_AT_ONCE], classes)
        for start in starts
    ]
    if chunks:
        return torch.cat(chunks, dim=1)
    photos = len(passed.logits)
    shape = (photos, 0, len(classes), *path.patches.cells)
    return passed.logits.new_empty(shape)


def _head_maps(
    path: StreamPath,
    passed: StreamPass,
    units: Sequence[int],
    classes: Sequence[int],
) -> Float[Tensor, "photo unit class row col"]:
    of_call = {
        own.start + head: (index, head)
        for index, own in path.units_by_call.items()
        for head in range(own.stop - own.start)
    }
    where = [of_call[unit] for unit in units]
    read = []
    cells = {}
    for step, own in zip(path.steps, passed.read, strict=True):
        if isinstance(step, Attention):
            cells[step.index] = step.tokens.patches
            heads = [head for index, head in where if index == step.index]
            own = own._replace(apart=tuple(heads))
        read.append(own)
    with without_autocast(passed.logits):
        given = path.sums(read, classes).heads
        maps = [
            path.patches.map_of({cells[index]: given[(index, head)]})
            for index, head in where
        ]
    return torch.stack(maps, dim=1)
