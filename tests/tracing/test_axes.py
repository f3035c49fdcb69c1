"""Axes: tokens put back into rows and columns, against the map they were made of."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unitscope.attribution.map_change import OFF
from unitscope.geometry import Axis
from unitscope.tracing.axis_rules import followed
from unitscope.tracing.function_call import FunctionCall
from unitscope.tracing.layers import Layer, evaluating, layers_of
from unitscope.tracing.roles import IMAGE, TracedTensor
from unitscope.tracing.trace import trace

ROWS, COLS, UNITS = 4, 6, 3
ORDER = torch.randperm(ROWS * COLS, generator=torch.Generator().manual_seed(3))
CLASS = torch.full((1, 1, UNITS), 7.0)
REGISTERS = torch.full((1, 2, UNITS), 9.0)


class Through(nn.Module):
    """Patches of 8×8 pixels, each the mean of its pixels, then a function of that map."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.patches, self.function = nn.AvgPool2d(8), nn.Identity()
        self.of = function

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.function(self.of(self.patches(x))).flatten(1)
        return logits


def tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def in_heads(x: Tensor) -> Tensor:
    heads = (
        tokens(x)
        .reshape(len(x), ROWS * COLS, 3, UNITS // 3)
        .permute(0, 2, 1, 3)
    )
    heads = F.softmax(torch.eye(ROWS * COLS) * 99, dim=-1) @ heads
    return tokens(x) + 0 * heads.transpose(1, 2).reshape(
        len(x), ROWS * COLS, UNITS
    )


def merged(x: Tensor) -> Tensor:
    x = x.permute(0, 2, 3, 1)
    x = torch.cat(
        [
            x[:, 0::2, 0::2],
            x[:, 1::2, 0::2],
            x[:, 0::2, 1::2],
            x[:, 1::2, 1::2],
        ],
        -1,
    )
    return x.view(x.shape[0], -1, x.shape[-1])


def put_first(x: Tensor) -> Tensor:
    x[:, 0] = 0.0
    return x


def qkv(x: Tensor) -> Tensor:
    three = (
        tokens(x)
        .repeat(1, 1, 3)
        .reshape(len(x), ROWS * COLS, 3, 1, UNITS)
        .permute(2, 0, 3, 1, 4)
    )
    query, key, value = three.unbind(0)
    return tokens(x) + 0 * F.scaled_dot_product_attention(
        query, key, value
    ).squeeze(1)


def put(into: Tensor, x: Tensor) -> Tensor:
    into[:, ORDER] = x
    return into


def split_off(x: Tensor) -> Tensor:
    both = torch.cat([CLASS, tokens(x)], 1)
    parts: tuple[Tensor, ...]
    parts = both.split([1, ROWS * COLS], dim=1)  # type: ignore[no-untyped-call]
    return parts[1]


def unflattened(x: Tensor) -> Tensor:
    made: Tensor = tokens(x).unflatten(1, (ROWS, COLS))  # type: ignore[no-untyped-call]
    return made


BACKWARDS = list(range(UNITS))[::-1]


def written_backwards(x: Tensor) -> Tensor:
    """The units in their opposite order, written one by one."""
    into = torch.empty_like(x)
    for unit in range(UNITS):
        into[:, unit] = x[:, UNITS - 1 - unit]
    return into


def written_by_list(x: Tensor) -> Tensor:
    into = x.clone()
    into[:, BACKWARDS] = x[:, list(range(UNITS))]
    return into


# Every one of them reverses the units, and leaves the cells where they are.
OF_UNITS: dict[str, Callable[[Tensor], Tensor]] = {
    "a list": lambda x: x[:, BACKWARDS],
    "a tensor": lambda x: x[:, torch.tensor(BACKWARDS)],
    "an array": lambda x: x[:, np.array(BACKWARDS)],
    "a tuple, with all axes": lambda x: x[:, tuple(BACKWARDS), :, :],
    "units last": lambda x: x.permute(0, 2, 3, 1)[..., BACKWARDS].permute(
        0, 3, 1, 2
    ),
    "flip": lambda x: x.flip(1),
    "flip, keyword": lambda x: torch.flip(x, dims=(-3,)),
    "fliplr": torch.fliplr,
    "index_select": lambda x: x.index_select(1, torch.tensor(BACKWARDS)),
    "gather": lambda x: x.gather(
        1, torch.tensor(BACKWARDS)[None, :, None, None].expand_as(x)
    ),
    "take_along_dim": lambda x: torch.take_along_dim(
        x, torch.tensor(BACKWARDS)[None, :, None, None], dim=1
    ),
    "unbind, stack": lambda x: torch.stack(x.unbind(1)[::-1], 1),
    "chunk, cat": lambda x: torch.cat(x.chunk(UNITS, 1)[::-1], 1),
    "slices": lambda x: torch.cat([x[:, u : u + 1] for u in BACKWARDS], 1),
    "written": written_backwards,
    "written by list": written_by_list,
}


@pytest.mark.parametrize("name", OF_UNITS)
def test_units_in_another_order_keep_their_places(name: str, x: Tensor) -> None:
    layer, output = read(OF_UNITS[name], x)
    assert torch.equal(layer.units_first(output), F.avg_pool2d(x, 8).flip(1))
    assert layer.is_map and layer.grid.traced
    assert layer.grid.rows == layer.grid.cols == Axis(4, 8)


# The place on the input, in cells, of the map's first cell and the step to the next.
MIRRORED: dict[str, tuple[Callable[[Tensor], Tensor], Axis, Axis]] = {
    "left and right": (
        lambda x: x.flip(3),
        Axis(4, 8),
        Axis(8 * COLS - 4, -8),
    ),
    "upside down": (lambda x: x.flip(-2), Axis(8 * ROWS - 4, -8), Axis(4, 8)),
    "half a turn": (
        lambda x: torch.rot90(x, 2, (2, 3)),
        Axis(8 * ROWS - 4, -8),
        Axis(8 * COLS - 4, -8),
    ),
    "tokens from behind": (
        lambda x: tokens(x).flip(1),
        Axis(8 * ROWS - 4, -8),
        Axis(8 * COLS - 4, -8),
    ),
    "twice": (lambda x: x.flip(3).flip((1, 3)), Axis(4, 8), Axis(4, 8)),
    "four quarters of a turn": (
        lambda x: torch.rot90(torch.rot90(x, 1, (2, 3)), 3, (2, 3)),
        Axis(4, 8),
        Axis(4, 8),
    ),
}


@pytest.mark.parametrize("name", MIRRORED)
def test_mirrored_cells_are_followed(name: str, x: Tensor) -> None:
    function, rows, cols = MIRRORED[name]
    layer, output = read(function, x)
    assert layer.is_map and (layer.grid.rows, layer.grid.cols) == (rows, cols)
    brightest = torch.zeros_like(x)
    brightest[:, :, 8:16, 16:24] = 1  # row 1, col 2
    layer, output = read(function, brightest)
    row, col = divmod(int(layer.units_first(output)[0, 0].argmax()), COLS)
    assert rows.start + row * rows.step == 12
    assert cols.start + col * cols.step == 20


FOLLOWED: dict[str, Callable[[Tensor], Tensor]] = {
    "the map itself": lambda x: x,
    "units last": lambda x: x.permute(0, 2, 3, 1),
    "flatten, transpose": tokens,
    "view, permute": lambda x: x.view(len(x), UNITS, -1).permute(0, 2, 1),
    "mT": lambda x: x.flatten(2).mT,
    "flattened from units last": lambda x: x.movedim(1, -1).flatten(1, 2),
    "units, tokens": lambda x: x.flatten(2),
    "a class token before": lambda x: torch.cat([CLASS, tokens(x)], 1),
    "registers behind": lambda x: torch.cat([tokens(x), REGISTERS], dim=1),
    "both": lambda x: torch.cat([CLASS, tokens(x), REGISTERS], 1) * 1,
    "both, units first": lambda x: torch.cat(
        [CLASS, tokens(x), REGISTERS], 1
    ).transpose(1, 2),
    "cut off again": lambda x: torch.cat([CLASS, tokens(x), REGISTERS], 1)[
        :, 1:-2
    ],
    "split off again": split_off,
    "narrowed": lambda x: torch.cat([CLASS, tokens(x)], 1).narrow(
        1, 1, ROWS * COLS
    ),
    "padded": lambda x: F.pad(tokens(x), (0, 0, 2, 0)),
    "tokens first and back": lambda x: (
        tokens(x).permute(1, 0, 2).relu().permute(1, 0, 2)
    ),
    "back to a map": lambda x: tokens(x).transpose(1, 2).reshape(x.shape),
    "back to units last": unflattened,
    "with a new axis and without": lambda x: tokens(x).unsqueeze(2).squeeze(2),
    "through attention": in_heads,
    "queries, keys, values": qkv,
    "mixed, with a shortcut": lambda x: (
        tokens(x) + 0 * (x.flatten(2) @ torch.ones(ROWS * COLS, ROWS * COLS)).mT
    ),
    "a class token written over": lambda x: put_first(
        torch.cat([CLASS, tokens(x)], 1)
    ),
    "gated by what was chosen": lambda x: (
        x * x.flatten(2).sort(-1).values[:, :, :1, None].pow(0)
    ),
    "stacked and taken apart": lambda x: torch.stack([tokens(x), tokens(x)], 1)[
        :, 0
    ],
    "keywords": lambda x: torch.transpose(input=x.flatten(2), dim0=1, dim1=2),
    "an empty beginning": lambda x: torch.cat([torch.tensor([]), tokens(x)], 1),
    "padded and cut": lambda x: F.pad(tokens(x), (0, 0, 2, 0))[:, 1:],
    "positions added": lambda x: tokens(x) + torch.zeros(ROWS * COLS, UNITS),
    "normalised": lambda x: F.layer_norm(tokens(x), (UNITS,)) * 0 + tokens(x),
}


def read(
    function: Callable[[Tensor], Tensor], x: Tensor
) -> tuple[Layer, Tensor]:
    """The layer behind the function, and its output."""
    net, outputs = Through(function), []
    with evaluating(net):
        layer = {layer.name: layer for layer in layers_of(trace(net, x))}[
            "function"
        ]
        net.function.register_forward_hook(
            lambda _module, _inputs, output: outputs.append(output)
        )
        net(x)
    return layer, outputs[0]


@pytest.fixture
def x() -> Tensor:
    return torch.rand(
        1, UNITS, 8 * ROWS, 8 * COLS, generator=torch.Generator().manual_seed(0)
    )


@pytest.mark.parametrize("name", FOLLOWED)
def test_every_cell_comes_back_to_its_place(name: str, x: Tensor) -> None:
    layer, output = read(FOLLOWED[name], x)
    assert (
        layer.axes is not None
        and layer.is_map
        and layer.shape == (UNITS, ROWS, COLS)
    )
    assert torch.equal(layer.units_first(output), F.avg_pool2d(x, 8))
    assert (
        layer.grid.traced
        and layer.grid.rows.start == 4
        and layer.grid.cols.step == 8
    )
    others = layer.axes.other_tokens(output)
    assert torch.equal(
        layer.axes.laid_back(layer.units_first(output), others), output
    )
    assert (others is None) == (layer.axes.others == 0)
    without = OFF.of_output(output, layer.axes, [1])
    assert not layer.units_first(without)[:, 1].any() and torch.equal(
        layer.units_first(without)[:, [0, 2]],
        layer.units_first(output)[:, [0, 2]],
    )


NOT_FOLLOWED: dict[str, Callable[[Tensor], Tensor]] = {
    "column by column": lambda x: x.transpose(2, 3).flatten(2).transpose(1, 2),
    "sorted": lambda x: tokens(x).sort(dim=1).values,
    "pruned": lambda x: tokens(x)[:, 6:],
    "pruned by value": lambda x: tokens(x).gather(
        1, tokens(x).topk(12, dim=1).indices
    ),
    "chosen by numbers": lambda x: tokens(x)[
        :, torch.arange(ROWS * COLS - 1, -1, -1)
    ],
    "mixed": lambda x: F.linear(
        x.flatten(2), torch.rand(ROWS * COLS, ROWS * COLS)
    ).transpose(1, 2),
    "mixed by a product": lambda x: (
        torch.rand(1, ROWS * COLS, ROWS * COLS) @ tokens(x)
    ),
    "latents": lambda x: F.scaled_dot_product_attention(
        torch.rand(1, ROWS * COLS, UNITS), tokens(x), tokens(x)
    ),
    "units that look like tokens": lambda x: (
        torch.rand(1, 24, UNITS) * x.mean((2, 3))[:, None]
    ),
    "a mean over units": lambda x: (
        tokens(x)
        .mean(2, keepdim=True)
        .flatten(1)[:, :, None]
        .sum(1, keepdim=True)
    ),
    "read wrongly": lambda x: x.reshape(len(x), ROWS * COLS, UNITS),
    "two sequences": lambda x: torch.cat([tokens(x), tokens(x)], 1),
    "windows": lambda x: (
        x.reshape(1, UNITS, 2, 2, 2, 3)
        .permute(0, 2, 4, 3, 5, 1)
        .reshape(1, ROWS * COLS, UNITS)
    ),
    "a Fourier transform": lambda x: torch.fft.fft2(tokens(x), dim=(1, 2)).real,
    "written in another order": lambda x: put(
        torch.empty_like(tokens(x)), tokens(x)
    ),
    "copied by index": lambda x: torch.zeros_like(tokens(x)).index_copy_(
        1, ORDER, tokens(x)
    ),
    "scattered": lambda x: torch.zeros_like(tokens(x)).scatter_(
        1, ORDER[None, :, None].expand(1, -1, 3), tokens(x)
    ),
    "embedded": lambda x: F.embedding(ORDER, tokens(x)[0])[None],
    "tokens as channels": lambda x: F.conv1d(
        tokens(x), torch.rand(ROWS * COLS, ROWS * COLS, 1)
    ),
    "multiplied from the left": lambda x: torch.mm(
        torch.rand(ROWS * COLS, ROWS * COLS), tokens(x)[0]
    )[None],
    "rolled tokens": lambda x: tokens(x).roll(1, 1),
    "summed up": lambda x: tokens(x).cumsum(1),
    "an einsum": lambda x: torch.einsum(
        "bnu,nm->bmu", tokens(x), torch.rand(ROWS * COLS, ROWS * COLS)
    ),
}


@pytest.mark.parametrize("name", NOT_FOLLOWED)
def test_what_has_lost_its_place_is_no_map(name: str, x: Tensor) -> None:
    layer, _ = read(NOT_FOLLOWED[name], x)
    assert layer.axes is None and not layer.is_map and not layer.grid.traced


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.roll(1, 3),
        lambda x: tokens(x)[:, ORDER] + 1e-3 * tokens(x),
        lambda x: torch.where(tokens(x) > 0, tokens(x)[:, ORDER], tokens(x)),
        lambda x: torch.cat([tokens(x)[:, :, :1], tokens(x)[:, ORDER, 1:]], 2),
        lambda x: F.conv_transpose2d(
            x, torch.rand(UNITS, UNITS, 4, 4), stride=2, padding=(3, 4)
        ),
    ],
)
def test_what_was_moved_about_is_said_not_to_be_traced(
    function: Callable[[Tensor], Tensor], x: Tensor
) -> None:
    layer, _ = read(function, x)
    assert layer.is_map and not layer.grid.traced


@pytest.mark.parametrize(
    ("function", "kernel", "units"),
    [
        (merged, 16, 4 * UNITS),
        (lambda x: F.pixel_unshuffle(x, 2), 16, 4 * UNITS),
        (lambda x: F.unfold(x, 2, stride=2).transpose(1, 2), 16, 4 * UNITS),
        (
            lambda x: (
                x.reshape(1, UNITS, 2, 2, 3, 2)
                .permute(0, 2, 4, 3, 5, 1)
                .reshape(1, 6, 4 * UNITS)
            ),
            16,
            4 * UNITS,
        ),
        (lambda x: F.max_pool2d(x, 2).flatten(2).mT, 16, UNITS),
        (
            lambda x: (
                x.unfold(2, 2, 2)
                .unfold(-2, size=2, step=2)
                .permute(0, 2, 3, 1, 4, 5)
                .reshape(1, 6, 4 * UNITS)
            ),
            16,
            4 * UNITS,
        ),
        (
            lambda x: torch.einsum(
                "nchpwq -> nhwpqc", x.reshape(1, UNITS, 2, 2, 3, 2)
            ).reshape(1, 6, 4 * UNITS),
            16,
            4 * UNITS,
        ),
    ],
)
def test_merged_cells_lie_in_the_middle_of_the_cells_they_merge(
    function: Callable[[Tensor], Tensor], kernel: int, units: int, x: Tensor
) -> None:
    layer, _ = read(function, x)
    assert (
        layer.shape == (units, 8 * ROWS // kernel, 8 * COLS // kernel)
        and layer.grid.traced
    )
    assert (
        layer.grid.rows.start == layer.grid.cols.start == kernel / 2
        and layer.grid.cols.step == kernel
    )


def test_branches_that_look_far_apart_are_not_claimed_to_look_between() -> None:
    image = TracedTensor(IMAGE, (1, 3, 8, 8))
    padded = followed(
        FunctionCall("pad", (None, (4, 0)), {}, [image], (1, 3, 8, 12))
    )
    parts = [image, TracedTensor(padded, (1, 3, 8, 8))]
    joined = followed(FunctionCall("cat", (None, 1), {}, parts, (1, 6, 8, 8)))
    assert (
        joined is not None
        and joined[2] == IMAGE[2]
        and joined[3] is not None
        and joined[3] != IMAGE[3]
    )
