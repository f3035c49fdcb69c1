"""Filters: kernels as pictures, against loops that anyone can read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from networks import Gap, Kinds, seeded
from unitscope.errors import LayerError, UnitError
from unitscope.kernels import Scale, convolutions, filters
from unitscope.model import wrap

NET = seeded(Kinds)


def scaled(kernel: np.ndarray, low: float, high: float) -> np.ndarray:
    return (
        np.full_like(kernel, 0.5)
        if high == low
        else (kernel - low) / (high - low)
    )


def test_a_colour_kernel_is_scaled_over_its_three_channels_together() -> None:
    shown = filters(NET, "plain")
    weight = NET.plain.weight.detach().numpy()
    assert (
        shown.rgb
        and shown.images.shape == (8, 3, 5, 3)
        and shown.channels == (0, 1, 2)
    )
    for index in range(8):
        expected = scaled(
            weight[index], weight[index].min(), weight[index].max()
        )
        np.testing.assert_allclose(
            shown.images[index], np.moveaxis(expected, 0, -1), atol=1e-6
        )
        assert (
            shown.low[index, 0] == weight[index].min()
            and shown.high[index, 0] == weight[index].max()
        )
    np.testing.assert_array_equal(shown.weights, weight)


def test_one_channels_kernel_is_scaled_alone_as_in_the_write_up() -> None:
    shown = filters(NET, "plain", filters=[2, 7], channels=0)
    weight = NET.plain.weight.detach().numpy()
    assert (
        not shown.rgb
        and shown.images.shape == (2, 1, 3, 5)
        and shown.filters == (2, 7)
        and shown.channels == (0,)
    )
    for row, index in enumerate((2, 7)):
        kernel = weight[index, 0]
        np.testing.assert_allclose(
            shown.images[row, 0],
            (kernel - kernel.min()) / (kernel.max() - kernel.min()),
            atol=1e-6,
        )
        assert (shown.low[row, 0], shown.high[row, 0]) == (
            kernel.min(),
            kernel.max(),
        )


@given(
    st.lists(st.integers(0, 11), min_size=1, max_size=5),
    st.lists(st.integers(0, 1), min_size=1, max_size=3),
    st.sampled_from(["kernel", "shared"]),
)
def test_a_grid_of_channels_is_a_loop_over_kernels(
    chosen: list[int], channels: list[int], scale: Scale
) -> None:
    shown = filters(
        NET, "grouped", filters=chosen, channels=channels, scale=scale
    )
    weight = NET.grouped.weight.detach().numpy()
    everything = np.stack([[weight[f, c] for c in channels] for f in chosen])
    for row, f in enumerate(chosen):
        for col, c in enumerate(channels):
            over = everything if scale == "shared" else weight[f, c]
            np.testing.assert_allclose(
                shown.images[row, col],
                scaled(weight[f, c], over.min(), over.max()),
                atol=1e-6,
            )
            assert (shown.low[row, col], shown.high[row, col]) == (
                over.min(),
                over.max(),
            )
            # Group by group: four groups of three filters, each reading two of the
            # eight channels.
            assert shown.input_channel(f, c) == (f // 3) * 2 + c


def test_a_shared_colour_scale_spans_all_kernels() -> None:
    shown = filters(NET, "plain", scale="shared")
    weight = NET.plain.weight.detach().numpy()
    np.testing.assert_allclose(
        np.moveaxis(shown.images, -1, 1),
        scaled(weight, weight.min(), weight.max()),
        atol=1e-6,
    )
    assert shown.low.shape == (8, 1) and (shown.low == weight.min()).all()


def test_depthwise_kernels_read_one_channel_each() -> None:
    shown = filters(NET, "depthwise")
    assert shown.images.shape == (6, 1, 3, 3) and shown.groups == 6
    assert [shown.input_channel(index, 0) for index in range(6)] == [
        0,
        1,
        2,
        3,
        4,
        5,
    ]


def test_transposed_kernels_come_with_the_filter_first() -> None:
    shown = filters(NET, "transposed")
    weight = (
        NET.transposed.weight.detach().numpy()
    )  # (6 in, 4 / 2 groups, 3, 3)
    assert shown.weights.shape == (4, 3, 3, 3) and shown.rgb
    for out in range(4):
        group, within = divmod(out, 2)
        for channel in range(3):
            np.testing.assert_array_equal(
                shown.weights[out, channel], weight[group * 3 + channel, within]
            )
            assert shown.input_channel(out, channel) == group * 3 + channel
    # The proof: a bright spot in one input channel is answered with that very kernel.
    spot = torch.zeros(1, 6, 1, 1)
    spot[0, 4] = 1
    answer = (
        (NET.transposed(spot) - NET.transposed(torch.zeros_like(spot)))
        .detach()
        .numpy()[0]
    )
    for out in (2, 3):
        np.testing.assert_allclose(
            answer[out], shown.weights[out, 1], atol=1e-6
        )


def test_one_dimensional_kernels_are_one_row_high_and_three_dimensional_ones_are_refused() -> (
    None
):
    shown = filters(NET, "one")
    assert shown.images.shape == (5, 4, 1, 7) and shown.enlarged(14).shape == (
        5,
        4,
        2,
        14,
    )
    with pytest.raises(
        LayerError,
        match="'three' has 3-dimensional kernels: only one and two can be drawn",
    ):
        filters(NET, "three")


def test_a_kernel_without_range_is_mid_grey_and_nothing_is_divided_by_zero() -> (
    None
):
    flat = nn.Conv2d(4, 2, 3)
    with torch.no_grad():
        flat.weight.zero_()
        flat.weight[1] = 1e-40  # smaller than the smallest normal number
    for scale in ("kernel", "shared"):
        shown = filters(nn.Sequential(flat), 0, scale=scale)
        assert (
            np.isfinite(shown.images).all()
            and shown.images.min() >= 0
            and shown.images.max() <= 1
        )
    assert (filters(nn.Sequential(flat), 0).images == 0.5).all()
    assert (filters(nn.Sequential(nn.Conv2d(2, 2, 1)), 0).images == 0.5).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_are_refused(value: float) -> None:
    broken = nn.Sequential(nn.Conv2d(3, 4, 3))
    with torch.no_grad():
        broken.get_parameter("0.weight")[2:4, 1, 0, 0] = value
    with pytest.raises(
        LayerError,
        match=r"'0' has NaN or infinite weights in 2 filters \(first: 2\)",
    ):
        filters(broken)


def test_convolutions_are_found_by_name_and_by_order() -> None:
    names = ["plain", "grouped", "depthwise", "transposed", "one", "three"]
    assert list(convolutions(NET)) == names
    assert (
        filters(NET).layer == "plain"
        and filters(NET, 3).layer == "transposed"
        and filters(NET, "2").layer == "depthwise"
    )
    assert (
        filters(nn.Sequential(nn.ReLU(), nn.Conv2d(3, 1, 1)), "1").layer == "1"
    )  # a name before an order
    shown = filters(NET, "plain")
    assert (
        shown.kind == "Conv2d"
        and shown.filters == tuple(range(8))
        and shown.filters_in_layer == 8
    )


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (6, "there is no convolution 6: the network has 6, numbered 0 to 5"),
        (-1, "there is no convolution -1"),
        ("plane", "there is no convolution 'plane' (did you mean 'plain'"),
        ("norm", "layer 'norm' is a BatchNorm2d, not a convolution"),
    ],
)
def test_what_is_no_convolution_is_refused(
    layer: int | str, message: str
) -> None:
    with pytest.raises(LayerError) as refusal:
        filters(NET, layer)
    assert message in str(refusal.value)


def test_a_container_names_a_convolution_inside() -> None:
    with pytest.raises(
        LayerError,
        match=r"'features' is not a convolution but holds 2: name one, such as 'features\.0'",
    ):
        filters(seeded(Gap), "features")
    with pytest.raises(LayerError, match="the network has no convolution"):
        filters(nn.Sequential(nn.Linear(3, 4)))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"filters": 8},
            "there is no filter 8 in 'plain': there are 8, 0 to 7",
        ),
        ({"filters": [0, -1]}, "there is no filter -1 in 'plain'"),
        ({"filters": True}, "filter True is not a number"),
        (
            {"filters": []},
            "no filter of 'plain' was chosen: name at least one of 0 to 7",
        ),
        ({"filters": "two"}, "filter 'two' is not a number"),
        (
            {"channels": 3},
            "there is no input channel 3 in 'plain': there are 3, 0 to 2",
        ),
        ({"channels": 1.5}, "input channel 1.5 is not a number"),
        ({"channels": "red"}, "channels are numbers or 'rgb', not 'red'"),
        ({"scale": "layer"}, "scale is 'kernel' or 'shared', not 'layer'"),
    ],
)
def test_impossible_choices_are_refused(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises((UnitError, ValueError)) as refusal:
        filters(NET, "plain", **options)
    assert message in str(refusal.value)


def test_rgb_needs_three_channels() -> None:
    with pytest.raises(
        UnitError,
        match="'grouped' has kernels of 2 input channels: only three can be shown as RGB",
    ):
        filters(NET, "grouped", channels="rgb")
    assert (
        not filters(NET, "plain", channels=[0, 1, 2]).rgb
        and filters(NET, "plain", channels="rgb").rgb
    )


@pytest.mark.usefixtures("unchecked")
def test_numbers_of_numpy_choose_too() -> None:
    choices: dict[str, Any] = {
        "filters": np.int64(3),
        "channels": np.array([0, 2]),
    }
    assert filters(NET, 0, **choices).filters == (3,)
    choices = {"filters": torch.tensor([3, 1])}
    assert filters(NET, 0, **choices).filters == (3, 1)


@pytest.mark.parametrize(
    "parametrize",
    [
        nn.utils.parametrizations.weight_norm,
        nn.utils.parametrizations.spectral_norm,
    ],
)
def test_parametrised_convolutions_show_the_weights_they_use(
    parametrize: Callable[[nn.Module], nn.Module],
) -> None:
    net = nn.Sequential(parametrize(nn.Conv2d(3, 4, 3))).eval()
    shown = filters(net, "0")
    used = net.get_submodule("0").weight
    assert isinstance(used, Tensor)
    np.testing.assert_allclose(shown.weights, used.detach().numpy(), rtol=1e-6)
    assert shown.kind == "Conv2d"


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float64]
)
def test_other_dtypes_are_shown_in_float32(dtype: torch.dtype) -> None:
    shown = filters(nn.Sequential(nn.Conv2d(3, 4, 3)).to(dtype), 0)
    assert shown.weights.dtype == shown.images.dtype == np.float32


def test_the_arrays_are_the_callers_own() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3))
    shown = filters(net)
    weight = net.get_parameter("0.weight")
    before = weight.detach().clone()
    shown.weights[:] = 0
    shown.images[:] = 0
    assert torch.equal(weight, before)
    later = filters(net)
    with torch.no_grad():
        weight.zero_()
    assert later.weights.any()


def test_convolutions_without_weights_yet_are_refused() -> None:
    with pytest.raises(
        LayerError, match="has no weights yet: run one forward pass first"
    ):
        filters(nn.Sequential(nn.LazyConv2d(3, 3)), 0)


def test_a_classifier_is_as_good_as_its_module() -> None:
    net = seeded(Gap)
    assert (
        filters(wrap(net)).layer
        == filters(wrap(nn.DataParallel(net))).layer
        == "features.0"
    )


def test_enlarging_says_what_it_does_between_the_weights() -> None:
    shown = filters(NET, "plain", filters=[1], channels=0)
    nearest = shown.enlarged(50)
    assert (
        nearest.shape == (1, 1, 30, 50) and np.isin(nearest, shown.images).all()
    )
    smooth = shown.enlarged(50, "bilinear")
    slow = Image.fromarray(shown.images[0, 0]).resize(
        (50, 30), Image.Resampling.BILINEAR
    )
    np.testing.assert_allclose(smooth[0, 0], np.asarray(slow), atol=1e-6)
    assert (
        0 <= shown.enlarged(20, "bicubic").min()
        and shown.enlarged(20, "bicubic").max() <= 1
    )
    assert filters(NET, "plain").enlarged(10).shape == (8, 6, 10, 3)


@pytest.mark.usefixtures("unchecked")
def test_impossible_enlargements_are_refused() -> None:
    with pytest.raises(
        ValueError,
        match="interpolation is 'nearest', 'bilinear' or 'bicubic', not 'cubic'",
    ):
        filters(NET, "plain").enlarged(10, "cubic")  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match="size is a positive number of pixels, not 0"
    ):
        filters(NET, "plain").enlarged(0)
