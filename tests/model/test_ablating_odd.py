"""Odd questions about what is put in place of units: answered right, or refused in a line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from networks import Gap, seeded
from tiny_vit import TinyVit
from unitscope.attribution.value import UnitMeans
from unitscope.errors import InputError, LayerError, NonFiniteError
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import Classifier, wrap

X = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
OTHER = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(2))
INNER = "features.0"

# What a user may give is not what annotations say.
pytestmark = pytest.mark.usefixtures("unchecked")


def whole(number: int) -> Any:
    return np.int64(number)


def small(net: nn.Module) -> Classifier:
    return wrap(net, preprocessing=Preprocessing(resize=32, crop=32))


class WithMeta(nn.Module):
    """A network that reads numbers beside the photo."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.last = nn.Conv2d(6, 6, 3)
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor, meta: Tensor) -> Tensor:
        maps = relu(self.last(relu(self.conv(x))))
        logits: Tensor = self.fc(maps.mean((2, 3)) + meta)
        return logits


@pytest.mark.parametrize("layer", [None, INNER])
@pytest.mark.parametrize(
    "value",
    [None, True, 2 + 1j, float("nan"), 1e39, 10**400, np.bool_(True)],
    ids=["None", "True", "complex", "nan", "1e39", "int", "bool_"],
)
def test_what_is_no_value_is_refused_in_a_line(
    value: Any, layer: str | None
) -> None:
    with pytest.raises(InputError) as error:
        small(seeded(Gap)).ablate(X, layer, [1], value=value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "value", ["dog.jpg", OTHER, np.ones(300), [OTHER]], ids=type
)
def test_an_explanation_says_where_photos_are_taken_as_values(
    value: Any,
) -> None:
    explanation = small(seeded(Gap)).explain(X)
    with pytest.raises(
        InputError, match=r"go to model\.ablate\(x, units=…, value=…\)"
    ) as error:
        explanation.ablate([1], value=value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("layer", [None, INNER])
@pytest.mark.parametrize("verb", ["ablate", "ablations"])
def test_numbers_that_overflow_are_an_error_that_names_the_value(
    verb: str, layer: str | None
) -> None:
    model = small(seeded(Gap))
    with pytest.raises(NonFiniteError, match=r"than 3e\+38"):
        getattr(model, verb)(X, layer, [0, 1, 2], value=3e38)


@pytest.mark.parametrize("layer", [None, INNER])
def test_a_value_without_units_is_for_all_units(layer: str | None) -> None:
    model = small(seeded(Gap))
    for value in (0.5, OTHER):
        found = model.ablate(X, layer, value=value)
        every = model.ablate(X, layer, None, value=value)
        assert found.units == every.units != ()
        torch.testing.assert_close(found.after, every.after)


def test_all_units_of_an_explanation_are_off_in_a_region() -> None:
    model = small(seeded(Gap))
    explanation = model.explain(X)
    off = explanation.ablate(None, region=(slice(0, 3), 1))
    want = model.ablate(X, None, None, region=(slice(0, 3), 1)).after
    torch.testing.assert_close(off.logits, want)


def test_slices_of_any_step_name_cells() -> None:
    model = small(seeded(Gap))
    rows, cols = model.explain(X).feature_map.shape[2:]
    for side in (slice(None, None, -1), slice(-2, None), slice(1, None, 2)):
        mask = torch.zeros(rows, cols)
        mask[list(range(rows))[side], 0] = 1
        found = model.ablate(X, None, region=(side, 0)).after
        want = model.ablate(X, None, region=mask).after
        torch.testing.assert_close(found, want)
    with pytest.raises(InputError, match="is no slice"):
        model.ablate(X, None, region=(slice(0.5, 2), 0))


def test_a_wrong_region_is_told_in_a_short_line() -> None:
    with pytest.raises(InputError) as error:
        small(seeded(Gap)).ablate(X, None, region=[["x" * 50] * 40] * 40)
    assert len(str(error.value)) < 300 and "\n" not in str(error.value)


def test_units_with_a_value_are_not_called_off() -> None:
    explanation = small(seeded(Gap)).explain(X)
    changed = explanation.ablate([1, 2]).ablate([2], value=3.0)
    assert (changed.off, changed.altered) == ((1,), (2,))
    assert "1 unit off, 1 unit changed" in repr(changed)
    again = changed.ablate([2])
    assert (again.off, again.altered) == ((1, 2), ())
    torch.testing.assert_close(again.logits, explanation.ablate([1, 2]).logits)


def test_a_flip_beside_other_values_is_not_confirmed_by_another_pass() -> None:
    model = small(seeded(Gap))
    found = 0
    for unit in range(model.explain(X).feature_map.shape[1]):
        flip = model.explain(X).ablate([unit], value=9.0).flip()
        found += flip.found
        assert model.confirmed(flip).confirmed is None
    assert found


@pytest.mark.parametrize("layer", [None, "conv"])
def test_the_other_photo_gets_the_further_inputs_too(layer: str | None) -> None:
    net = seeded(WithMeta)
    model = small(net)
    meta = torch.randn(1, 6)
    found = model.ablate(X, layer, [1], value=OTHER, also={"meta": meta})
    module = net.last if layer is None else net.conv
    with torch.no_grad():
        maps: dict[str, Tensor] = {}

        def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            maps["other"] = output.clone()

        handle = module.register_forward_hook(keep)
        net(OTHER, meta)
        handle.remove()

        def patch(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
            output = output.clone()
            output[:, 1] = maps["other"][:, 1]
            return output

        handle = module.register_forward_hook(patch)
        want = net(X, meta)
        handle.remove()
    torch.testing.assert_close(found.after, want, rtol=1e-5, atol=1e-6)


def test_whole_numbers_of_numpy_are_counts() -> None:
    model = small(seeded(Gap))
    screening = model.screen(X, verify=whole(2))
    assert len(screening.top(whole(3))) == 3
    inputs = model.inputs_of(X, INNER, whole(0))
    assert len(inputs.top(whole(2))) == 2
    flip = model.explain(X).flip(most=whole(1))
    assert flip.most == 1


def test_names_of_layers_and_cells_that_are_none_are_refused() -> None:
    model = small(seeded(Gap))
    layer: Any
    for layer in (3, ""):
        with pytest.raises(LayerError, match="a layer is a name, not"):
            model.ablate(X, layer, [0])
        with pytest.raises(LayerError, match="a layer is a name, not"):
            model.screen(X, layers=layer)
    with pytest.raises(InputError, match="a cell is"):
        model.inputs_of(X, INNER, 0, whole(3))


def test_what_there_is_one_of_is_told_in_the_singular() -> None:
    model = small(seeded(Gap))
    told = [
        repr(model.screen(X, layers=INNER)),
        repr(model.ablations(X, INNER, [0])),
        repr(model.inputs_of(X, INNER, 0)),
    ]
    assert "in 1 layer on 1 photo>" in told[0]
    assert "of 1 unit of" in told[1] and "1 photo," in told[1]
    assert "of 1 source and" in told[2]


def test_means_of_units_are_refused_for_heads_of_attention() -> None:
    means = UnitMeans("blocks.0", torch.zeros(8), 10)
    with pytest.raises(InputError, match=r"Atlas\.head_means\(model\)"):
        small(TinyVit()).ablate(X, None, [0], value=means)


def test_two_classes_of_one_name_are_told_apart_by_their_indices() -> None:
    net = seeded(Gap).eval()
    count = net.fc.out_features
    model = wrap(net, ["same"] * count, Preprocessing(resize=32, crop=32))
    contrast = model.explain(X).contrast(0, 1)
    assert contrast.question() == "why same (0), not same (1)"
    found = 0
    net.fc.bias.data.zero_()
    for to in range(count):
        explanation = model.explain(X)
        a = int(explanation.logits[0].argmax())
        if to != a:
            flip = explanation.flip(to)
            verb = "overtakes" if flip.found else "overtake"
            b = f"same ({to})"
            assert f"{b} {verb} same ({a})" in flip.sentence()
            found += flip.found
    assert found
