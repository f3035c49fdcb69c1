"""Heads of several parts: pools of one map or of many, whose sum is the logit, against
real forward passes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from networks import Gap, Mlp, features, seeded
from unitscope.attribution.exact_heads import ExactHead
from unitscope.attribution.readings import MAXIMUM, POWER_MEAN, Reading
from unitscope.geometry import Axis, spread_weights
from unitscope.model import wrap
from unitscope.tracing.axes import Axes
from unitscope.tracing.taps import Caught

UNITS, OTHER_UNITS, CLASSES = 6, 4, 5


class Parts(nn.Module):
    """Two branches, of which the second is coarser, and the head under test."""

    def __init__(
        self, inputs: int, head: Callable[[Parts, Tensor, Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.one = features(UNITS)
        self.other = nn.Sequential(
            features(OTHER_UNITS),
            nn.Conv2d(OTHER_UNITS, OTHER_UNITS, 3, stride=2, padding=1),
        )
        self.neck = nn.BatchNorm1d(inputs)
        nn.init.normal_(self.neck.running_mean)  # type: ignore[arg-type]
        self.norm = nn.LayerNorm(inputs)
        self.linear = nn.Linear(inputs, CLASSES)
        self.of_other = nn.Linear(OTHER_UNITS, CLASSES)
        self.power = nn.Parameter(torch.tensor(2.5))
        self.meta = nn.Parameter(torch.randn(1, 3))
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self, self.one(x), x)


def average(x: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(x, 1).flatten(1)


def maximum(x: Tensor) -> Tensor:
    return F.adaptive_max_pool2d(x, 1).flatten(1)


def gem(x: Tensor, power: Tensor) -> Tensor:
    cells = x.clamp(min=1e-6).pow(power)
    return F.avg_pool2d(cells, cells.shape[2:]).pow(1 / power).flatten(1)


def both(x: Tensor) -> Tensor:
    pools = [F.adaptive_max_pool2d(x, 1), F.adaptive_avg_pool2d(x, 1)]
    return torch.cat(pools, 1).flatten(1)


def other_logits(net: Parts, x: Tensor) -> Tensor:
    logits: Tensor = net.of_other(average(net.other(x)))
    return logits


# How many numbers the linear layer reads, and the head.
HEADS: dict[str, tuple[int, Callable[[Parts, Tensor, Tensor], Tensor]]] = {
    "maximum": (UNITS, lambda net, a, x: net.linear(a.amax((2, 3)) - 1)),
    "maximum, flattened": (
        UNITS,
        lambda net, a, x: net.linear(a.flatten(2).max(-1)[0]),
    ),
    "GeM": (UNITS, lambda net, a, x: net.linear(gem(a, net.power))),
    "average plus maximum": (
        UNITS,
        lambda net, a, x: net.linear(0.5 * (average(a) + maximum(a))),
    ),
    "average beside maximum": (
        2 * UNITS,
        lambda net, a, x: net.linear(F.dropout(net.neck(both(a)), 0.5, False)),
    ),
    "normalised together": (
        2 * UNITS,
        lambda net, a, x: net.linear(net.norm(both(a))),
    ),
    "a mean of logits": (
        UNITS,
        lambda net, a, x: torch.stack(
            [net.linear(average(a)), other_logits(net, x)]
        ).mean(0),
    ),
    "a weighted sum of logits": (
        UNITS,
        lambda net, a, x: (
            0.3 * net.linear(average(a)) - net.power * other_logits(net, x)
        ),
    ),
    "maps of two sizes": (
        UNITS + OTHER_UNITS,
        lambda net, a, x: net.linear(
            torch.cat([average(net.other(x)), average(a)], -1)
        ),
    ),
    "a constant beside units": (
        UNITS + 3,
        lambda net, a, x: net.linear(
            torch.cat([average(a), net.meta.expand(len(x), -1)], 1)
        ),
    ),
    "classes of two heads, one behind the other": (
        UNITS,
        lambda net, a, x: torch.cat(
            [net.linear(average(a)), other_logits(net, x)], 1
        ),
    ),
    "a photo and its mirror image": (
        UNITS,
        lambda net, a, x: (
            (net.linear(average(a)) + net.linear(average(net.one(x.flip(3)))))
            / 2
        ),
    ),
}


@pytest.mark.parametrize("name", HEADS)
def test_parts_add_up_and_are_switched_off_as_in_a_real_pass(name: str) -> None:
    inputs, head = HEADS[name]
    net = seeded(lambda: Parts(inputs, head)).eval()
    model = wrap(net)
    assert isinstance(model.head, ExactHead), model.head
    is_plain = name == "a constant beside units"
    assert model.head.kind == ("gap-linear" if is_plain else "pools-linear")

    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    explanation = model.explain(x)
    logits = net(x).detach()
    allowed = 1e-5 * float(logits.abs().max())
    torch.testing.assert_close(explanation.logits, logits)

    parts = explanation.parts
    assert list(parts)[-1] == "bias"
    for rebuilt in (
        torch.stack(list(parts.values())).sum(0),
        explanation.cams.mean(dim=(2, 3)) + explanation.left_out,
        explanation.contributions.sum(dim=2) + explanation.left_out,
    ):
        torch.testing.assert_close(rebuilt, logits, rtol=0, atol=allowed)

    each = explanation.ablate_each()
    for off in range(model.head.map_shape[0]):
        real = model.forward_without(x, [off])
        torch.testing.assert_close(each[:, off], real, rtol=0, atol=allowed)
    several = explanation.ablate([0, 2, 5])
    real = model.forward_without(x, [0, 2, 5])
    torch.testing.assert_close(several.logits, real, rtol=0, atol=allowed)


@pytest.mark.parametrize(
    ("inputs", "head"),
    [
        (UNITS, lambda net, a, x: net.linear(average(a)).softmax(1) / 2),
        (
            UNITS,
            lambda net, a, x: net.linear(average(a)) * other_logits(net, x),
        ),
        (
            UNITS,
            lambda net, a, x: torch.maximum(
                net.linear(average(a)), other_logits(net, x)
            ),
        ),
        (UNITS, lambda net, a, x: net.linear(average(a) * maximum(a))),
        (2 * UNITS, lambda net, a, x: net.linear(both(a).relu() ** 2)),
        (
            UNITS,
            lambda net, a, x: net.linear((a**2).mean((2, 3)) ** (1 / 3)),
        ),
    ],
)
def test_what_does_not_add_up_is_not_called_exact(
    inputs: int, head: Callable[[Parts, Tensor, Tensor], Tensor]
) -> None:
    net = seeded(lambda: Parts(inputs, head)).eval()
    model = wrap(net, scores="none")
    head_or_none, _ = model.head_or_refusal()
    assert head_or_none is None or not head_or_none.exact


def test_parts_are_named_by_their_layers_and_pools() -> None:
    inputs, head = HEADS["average beside maximum"]
    model = wrap(seeded(lambda: Parts(inputs, head)).eval())
    explanation = model.explain(torch.rand(1, 3, 16, 16))
    assert list(explanation.parts) == ["one, maximum", "one, average", "bias"]
    assert explanation.unit_maps([7]).layer == "one, maximum + one, average"
    assert (
        "maximum pool of 'one' (6×8×8) and average pool of 'one' (6×8×8)"
        in model.head.describe()
    )


@pytest.mark.parametrize("net", [Gap, Mlp])
def test_the_parts_of_one_map_are_the_map_and_the_rest(
    net: Callable[[], nn.Module],
) -> None:
    explanation = wrap(seeded(net).eval()).explain(torch.rand(2, 3, 16, 16))
    rest = "bias" if explanation.exact else "left out"
    assert list(explanation.parts) == [explanation.layer, rest]
    total = torch.stack(list(explanation.parts.values())).sum(0)
    torch.testing.assert_close(total, explanation.logits)


def test_a_mirrored_part_lies_where_the_photo_shows_it() -> None:
    inputs, head = HEADS["a photo and its mirror image"]
    model = wrap(seeded(lambda: Parts(inputs, head)).eval())
    dark = torch.zeros(1, 3, 32, 32)
    photo = dark.clone()
    photo[:, :, 8:12, 20:24] = 5
    change = model.explain(photo).feature_map - model.explain(dark).feature_map
    for part in (change[0, :UNITS], change[0, UNITS:]):
        total = part.abs().sum(0)
        row, col = divmod(int(total.argmax()), total.shape[1])
        cols = model.explain(dark).grid.cols
        assert abs(cols.start + cols.step * col - 22) <= 5
        assert abs(cols.start + cols.step * row - 10) <= 5


@given(
    st.integers(1, 9),
    st.integers(1, 20),
    st.floats(0.5, 40),
    st.floats(-40, 40),
    st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_spreading_cells_keeps_their_mean_and_their_place(
    cells: int, finer: int, step: float, start: float, mirrored: bool
) -> None:
    source = Axis(start, -step if mirrored else step)
    target = Axis(0.5, step * cells / (cells + finer))
    weights = spread_weights(source, cells, target, cells + finer)
    assert (weights >= 0).all()
    np.testing.assert_allclose(
        weights.sum(axis=0), (cells + finer) / cells, rtol=1e-6
    )


@pytest.mark.parametrize("kind", [MAXIMUM, POWER_MEAN])
def test_a_reading_is_the_derivative_times_the_map(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    map_ = torch.rand(2, 3, 4, 5, generator=generator).requires_grad_()
    power = 3.5
    if kind == MAXIMUM:
        pooled = map_.amax((2, 3))
    else:
        pooled = map_.pow(power).mean((2, 3)).pow(1 / power)
    (gradient,) = torch.autograd.grad(pooled.sum(), map_)

    reading = Reading(((1, "call"),), (kind,), Axes(), (3, 4, 5))
    numbers = map_.detach()
    read = reading.read({1: Caught(numbers, (numbers, power), {})})
    torch.testing.assert_close(read, 20 * numbers * gradient)
    torch.testing.assert_close(read.mean((2, 3)), pooled.detach())


def test_a_reading_of_zeros_is_zero() -> None:
    zeros = torch.zeros(1, 2, 3, 3)
    for kind in (MAXIMUM, POWER_MEAN):
        reading = Reading(((1, "call"),), (kind,), Axes(), (2, 3, 3))
        read = reading.read({1: Caught(zeros, (zeros, 3.0), {})})
        assert torch.equal(read, zeros)


PLACES = [(16, 16), (0, 0), (16, 0), (0, 16), (8, 8)]


def crops(x: Tensor) -> list[Tensor]:
    return [x[:, :, top : top + 16, left : left + 16] for top, left in PLACES]


@pytest.mark.parametrize("place", [(2, 2), (2, 26), (26, 2), (26, 26)])
def test_maps_of_several_crops_lie_where_the_crops_were_taken(
    place: tuple[int, int],
) -> None:
    def head(net: Parts, a: Tensor, x: Tensor) -> Tensor:
        logits = [net.linear(average(net.one(crop))) for crop in crops(x)]
        return torch.stack(logits).sum(0)

    model = wrap(seeded(lambda: Parts(UNITS, head)).eval())
    dark = torch.zeros(1, 3, 32, 32)
    bright = dark.clone()
    row, col = place
    bright[:, :, row : row + 4, col : col + 4] = 3

    lit, unlit = model.explain(bright), model.explain(dark)
    assert lit.exact and lit.feature_map.shape[1:] == (5 * UNITS, 16, 16)
    gained = (lit.feature_map - unlit.feature_map).abs().sum((0, 1))
    strongest = int(gained.argmax())
    rows, cols = lit.grid.rows.centres(16), lit.grid.cols.centres(16)
    centre = (rows[strongest // 16], cols[strongest % 16])
    # Half the patch and half a receptive field.
    assert centre == pytest.approx((row + 2, col + 2), abs=5.5)
