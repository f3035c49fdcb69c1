"""The algebra of pooled units, with and without a normalisation, against loops and
torch's own layers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unitscope.attribution.arrays import cell_means
from unitscope.attribution.readout import Normalisation, Readout
from unitscope.attribution.rounding import completeness_error

NORMS = {
    "none": None,
    "layer": Normalisation("layer", 1e-6),
    "root mean square": Normalisation("root mean square", 1e-3),
    "length": Normalisation("length", 1e-12),
}


def by_torch(pooled: Tensor, norm: Normalisation | None) -> Tensor:
    """The normalised units, by torch's own functions."""
    if norm is None:
        return pooled
    if norm.kind == "layer":
        return F.layer_norm(pooled, pooled.shape[1:], eps=norm.eps)
    return (
        F.normalize(pooled, eps=norm.eps)
        if norm.kind == "length"
        else F.rms_norm(pooled, pooled.shape[1:], eps=norm.eps)
    )


@st.composite
def cases(draw: st.DrawFn) -> tuple[Readout, Tensor]:
    norm = NORMS[draw(st.sampled_from(sorted(NORMS)))]
    batch, units, classes = (
        draw(st.integers(low, high)) for low, high in ((1, 3), (2, 9), (1, 4))
    )
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    weight = torch.randn(classes, units, generator=generator)
    if norm is not None and norm.centred:
        weight = weight - weight.mean(1, keepdim=True)
    shift = draw(st.sampled_from([0.0, 1.0, 30.0]))
    pooled = torch.randn(batch, units, generator=generator) + shift
    pooled[:, 0] *= draw(
        st.sampled_from([1.0, 100.0, 1e7])
    )  # one unit may be nearly all of the divisor
    return Readout(
        weight, torch.randn(classes, generator=generator), norm
    ), pooled


@settings(deadline=None, max_examples=150)
@given(cases())
def test_logits_are_those_of_torchs_own_normalisation(
    case: tuple[Readout, Tensor],
) -> None:
    readout, pooled = case
    expected = by_torch(pooled, readout.norm) @ readout.weight.T + readout.bias
    largest = (
        1
        + (pooled.abs() / readout.divisor(pooled)).max()
        * readout.weight.abs().sum(1).max()
    )
    assert (
        float((readout.logits(pooled) - expected).abs().max() / largest) < 1e-5
    )


@settings(deadline=None, max_examples=150)
@given(cases())
def test_every_unit_off_in_closed_form_is_a_loop(
    case: tuple[Readout, Tensor],
) -> None:
    readout, pooled = case
    logits = readout.logits(pooled)
    each = readout.logits_without_each(pooled, logits, None)
    assert each.shape == (*pooled.shape, len(readout.bias))
    for unit in range(pooled.shape[1]):
        without = pooled.clone()
        without[:, unit] = 0
        expected = readout.logits(without)
        # Without a normalisation, relative to the logits before too: they are taken
        # from.
        terms = pooled if readout.norm is None else without
        largest = (
            1
            + (terms.abs() / readout.divisor(without)).max()
            * readout.weight.abs().sum(1).max()
        )
        assert float((each[:, unit] - expected).abs().max() / largest) < 1e-5
    chosen = readout.logits_without_each(pooled, logits, [0])
    torch.testing.assert_close(chosen, each[:, :, :1])


@settings(deadline=None, max_examples=60)
@given(cases(), st.integers(1, 4), st.integers(1, 4))
def test_maps_over_the_divisor_add_up_to_the_logit(
    case: tuple[Readout, Tensor], rows: int, cols: int
) -> None:
    readout, pooled = case
    spread = torch.randn(
        *pooled.shape, rows, cols, generator=torch.Generator().manual_seed(0)
    )
    feature_map = (
        pooled[:, :, None, None] + spread - spread.mean((2, 3), keepdim=True)
    )
    divisor = readout.divisor(feature_map.mean((2, 3)))
    maps = (
        torch.einsum("cu,buyx->bcyx", readout.weight, feature_map)
        / divisor[:, :, None, None]
    )
    logits = readout.logits(cell_means(feature_map))
    largest = (
        1 + (pooled.abs() / divisor).max() * readout.weight.abs().sum(1).max()
    )
    assert (
        float((maps.mean((2, 3)) + readout.bias - logits).abs().max() / largest)
        < 1e-4
    )
    assert completeness_error(logits, feature_map, readout).max() == 0


@pytest.mark.parametrize("kind", ["layer", "root mean square", "length"])
def test_a_photo_that_switches_everything_off_divides_by_something(
    kind: str,
) -> None:
    norm = Normalisation(kind, 1e-5)
    assert norm.divisor(torch.zeros(2, 4)).min() > 0
    assert norm.divisor_without_each(torch.tensor([[0.0, 3.0, 0.0]])).min() > 0
