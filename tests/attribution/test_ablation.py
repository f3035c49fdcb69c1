"""Ablation at any layer, against real forward passes with hooks of our own."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from networks import (
    Blocks,
    ChannelsLast,
    Dense,
    Gap,
    Mlp,
    ObjectBlock,
    OneRelu,
    Output,
    SharedConv,
    Tokens,
    TupleBlock,
    seeded,
)
from unitscope.accounts.account import Account
from unitscope.errors import LayerError, UnitError
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import Classifier, wrap
from unitscope.tracing.layers import evaluating

X = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def small(net: nn.Module) -> Classifier:
    return wrap(net, preprocessing=Preprocessing(resize=32, crop=32))


def slowly(
    net: nn.Module,
    module: str,
    units: Sequence[int],
    run: int = 1,
    axis: int = 1,
) -> tuple[Tensor, Tensor]:
    """Logits and the units' maps, from a real forward pass with a hook of our own."""
    runs, maps = 0, None

    def silence(_module: nn.Module, _inputs: object, output: Any) -> Any:
        nonlocal runs, maps
        runs += 1
        if runs != run:
            return None
        tensor = output if isinstance(output, Tensor) else output[0]
        index: list[slice | list[int]] = [slice(None)] * 4
        index[axis] = list(units)
        maps = tensor[tuple(index)].movedim(axis, 1).clone()
        changed = tensor.clone()
        changed[tuple(index)] = 0
        return changed if isinstance(output, Tensor) else (changed, *output[1:])

    handle = net.get_submodule(module).register_forward_hook(silence)
    with evaluating(net):
        logits = net(X)
    handle.remove()
    assert maps is not None
    return logits, maps


@pytest.mark.parametrize(
    ("make", "layer", "run", "axis"),
    [
        (Gap, "features.0", 1, 1),
        (Gap, "features.2", 1, 1),  # in place
        (Gap, "features", 1, 1),  # the head's own map
        (Dense, "conv0", 1, 1),
        (Dense, "norm", 1, 1),  # overwritten in place by a function
        (OneRelu, "relu", 1, 1),
        (OneRelu, "relu", 2, 1),
        (OneRelu, "relu", 3, 1),
        (SharedConv, "first", 2, 1),
        (ChannelsLast, "stem", 1, 1),
        (ChannelsLast, "mlp.0", 1, 3),
        (ChannelsLast, "last", 1, 3),
        (Mlp, "features.3", 1, 1),
        (Tokens, "patches", 1, 1),
        (lambda: Blocks(TupleBlock()), "block", 1, 1),
        (lambda: Blocks(TupleBlock()), "block.conv", 1, 1),
    ],
)
def test_ablation_at_any_layer_is_a_real_forward_pass(
    make: Callable[[], nn.Module], layer: str, run: int, axis: int
) -> None:
    net = seeded(make)
    units = [3, 1]
    name = (
        f"{layer}:{run}"
        if make in (OneRelu, SharedConv) and layer in ("relu", "first")
        else layer
    )
    found = small(net).ablate(X, name, units, batch_size=2)
    after, maps = slowly(net, layer, units, run, axis)
    with evaluating(net):
        torch.testing.assert_close(found.before, net(X), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.after, after, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.maps.maps, maps, rtol=1e-5, atol=1e-6)
    assert (
        found.units == (3, 1)
        and found.layer == name
        and len(found.subjects) == 3
    )
    assert not torch.equal(found.before, found.after)
    torch.testing.assert_close(
        small(net).units(X, name, units).maps, maps, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("make", [Gap, Dense, OneRelu, ChannelsLast])
def test_the_heads_algebra_and_the_slow_way_agree(
    make: type[nn.Module],
) -> None:
    model = small(seeded(make))
    exact = model.ablate(X, None, [2, 3])
    assert exact.exact and exact.layer == model.head.layer
    torch.testing.assert_close(
        exact.after, model.forward_without(X, [2, 3]), rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(
        model.units(X, None, [2]).maps[:, 0], model.explain(X).feature_map[:, 2]
    )
    if model.head.layer_is_map:
        by_name = model.ablate(X, model.head.layer, [2, 3])
        assert by_name.exact
        torch.testing.assert_close(by_name.after, exact.after)
        torch.testing.assert_close(
            model.units(X, model.head.layer, [2]).maps,
            model.units(X, None, [2]).maps,
        )
    else:
        assert not model.ablate(X, model.head.layer, [2, 3]).exact


def test_a_network_without_an_exact_head_can_be_ablated_by_layer() -> None:
    found = small(seeded(Mlp)).ablate(X, "features.0", 3)
    assert not found.exact and found.units == (3,)


def test_a_block_whose_result_cannot_be_rebuilt_is_refused_rather_than_left_as_it_was() -> (
    None
):
    model = small(seeded(lambda: Blocks(ObjectBlock())))
    with pytest.raises(
        LayerError,
        match="units of layer 'block' cannot be switched off, because it returns a ModelOutput",
    ):
        model.ablate(X, "block", [0])


@pytest.mark.parametrize("shape", ["dict", "list", "namedtuple"])
def test_blocks_that_return_structures_are_rebuilt(shape: str) -> None:
    class Structured(TupleBlock):
        def forward(self, x: Tensor) -> Any:
            made = super().forward(x)[0]
            return {
                "dict": OrderedDict(hidden=None, logits=made),
                "list": [made, "more"],
                "namedtuple": Output(made, None),
            }[shape]

    class Around(Blocks):
        def forward(self, x: Tensor) -> Tensor:
            made: Any = self.block(self.stem(x))
            kinds: dict[str, type[Any]] = {
                "dict": OrderedDict,
                "list": list,
                "namedtuple": Output,
            }
            assert type(made) is kinds[shape]
            tensor = made["logits"] if shape == "dict" else made[0]
            logits: Tensor = self.fc(self.last(tensor).relu().mean((2, 3)))
            return logits

    net = seeded(lambda: Around(Structured()))
    plain = seeded(lambda: Blocks(TupleBlock()))
    plain.load_state_dict(net.state_dict())
    torch.testing.assert_close(
        small(net).ablate(X, "block", [1]).after,
        small(plain).ablate(X, "block", [1]).after,
    )


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "units", [8, [0, -1], True, [1.0], "3", torch.tensor([9])]
)
@pytest.mark.parametrize("layer", ["features.0", None])
def test_what_is_no_unit_is_refused(units: Any, layer: str | None) -> None:
    model = small(seeded(Gap))
    for verb in (model.ablate, model.units):
        with pytest.raises(UnitError, match="are numbered 0 to"):
            verb(X, layer, units)


def test_a_layer_that_does_not_run_on_this_input_is_refused() -> None:
    class Sometimes(Gap):
        def __init__(self) -> None:
            super().__init__()
            self.extra, self.last = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1)

        def pooled(self, x: Tensor) -> Tensor:
            made = self.features(x)
            if float(x.mean()) < 10:
                made = self.extra(made)
            pooled: Tensor = self.last(made).mean((2, 3))
            return pooled

    model = small(seeded(Sometimes))
    assert model.units(X, "extra", [0]).maps.shape == (3, 1, 16, 16)
    for verb in (model.units, model.ablate):
        with pytest.raises(
            LayerError,
            match="layer 'extra' did not run on this input, though it did on the first",
        ):
            verb(X + 100, "extra", [0])


def test_changes_are_told_with_ranks() -> None:
    model = small(seeded(Gap))
    found = model.ablate(X, None, list(range(5)))
    for image in range(3):
        before = found.before[image].argsort(descending=True).tolist()
        after = found.after[image].argsort(descending=True).tolist()
        changes = found.changes(2, image)
        assert [change.index for change in changes] == [
            i for i in before if i in before[:2] or i in after[:2]
        ]
        for change in changes:
            assert change.rank_before == before.index(change.index) + 1
            assert change.rank_after == after.index(change.index) + 1
            assert change.logit_after == float(found.after[image, change.index])
            assert change.probability_before == pytest.approx(
                float(found.before[image].softmax(0)[change.index]), rel=1e-5
            )
        assert found.turned_over()[image] == (before[0] != after[0])


def test_ablating_nothing_changes_nothing() -> None:
    model = small(seeded(Gap))
    for layer in (None, "features.0"):
        found = model.ablate(X, layer)
        torch.testing.assert_close(
            found.after, found.before, rtol=1e-6, atol=1e-6
        )
        assert found.turned_over() == [False] * 3


def test_the_account_checks_its_identities_on_the_photo() -> None:
    for make in (Gap, Dense, OneRelu, ChannelsLast):
        model = small(seeded(make))
        told = Account.of(model, model.explain(X), top=3, unit_count=4)
        assert [check.name for check in told.checks] == [
            "maps",
            "contributions",
            "ablation",
        ]
        assert all(check.holds and check.error <= 1e-5 for check in told.checks)
        assert told.maximal and told.ablation.units == (
            model.explain(X).maximal_unit(told.predictions[0].index),
        )
        each = told.explanation.ablate_each()[0].argmax(1)
        assert told.turning == tuple(
            (each != told.explanation.logits[0].argmax())
            .nonzero()
            .flatten()
            .tolist()
        )
        assert told.sentence().startswith(told.predictions[0].label)


def test_an_account_without_ablation_says_nothing_of_it() -> None:
    model = small(seeded(Gap))
    told = Account.of(model, model.explain(X), units=[])
    assert "Without" not in told.sentence() and told.sentence().endswith(".")
