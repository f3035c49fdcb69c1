"""How attention heads are asked for: by number or name, and with what beside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import unitscope
from residual.small_vits import SmallVit, made, photos
from unitscope.accounts.account import accounts
from unitscope.attribution.local_head import LocalHead
from unitscope.errors import InputError, LayerError, UnitError
from unitscope.model import Classifier
from unitscope.residual.explanation import ResidualExplanation
from unitscope.residual.head import HEADS

BY_NAME: dict[str, Callable[[ResidualExplanation, Any], Any]] = {
    "ablate": lambda e, units: e.ablate(units).logits,
    "unit maps": lambda e, units: e.unit_maps(units).maps,
    "head maps": lambda e, units: e.head_maps(units, [0]),
    "logits without": lambda e, units: e.logits_without(units, "direct"),
    "direct logits": lambda e, units: e.direct_logits(units),
    "direct logits each": lambda e, units: e.direct_logits_each(units=units),
    "total logits": lambda e, units: e.total_logits(units),
    "ablate each": lambda e, units: e.ablate_each(units=units),
    "ablations": lambda e, units: next(e.ablations(units=units))[1],
}


@pytest.fixture
def model() -> Classifier:
    """Two blocks of three heads: 1.2 is head 5."""
    return unitscope.wrap(made(SmallVit))


@pytest.fixture
def explanation(model: Classifier) -> ResidualExplanation:
    found = model.explain(photos(1))
    assert isinstance(found, ResidualExplanation)
    return found


@pytest.mark.parametrize("ask", BY_NAME.values(), ids=BY_NAME)
def test_heads_go_by_their_names(
    explanation: ResidualExplanation, ask: Callable[..., Any]
) -> None:
    assert torch.equal(ask(explanation, "1.2"), ask(explanation, 5))
    both = ask(explanation, ["1.2", 0, "5"])
    assert torch.equal(both, ask(explanation, [5, 0]))
    for wrong in ("1.3", ["0.0", "x"]):
        with pytest.raises(UnitError, match=r"named 0\.0 to 1\.2, or numbered"):
            ask(explanation, wrong)
    with pytest.raises(UnitError, match="there is no unit 6"):
        ask(explanation, ["1.2", 6])


def test_networks_switch_heads_off_by_their_names(
    model: Classifier, explanation: ResidualExplanation
) -> None:
    x = photos(1)
    expected = explanation.total_logits([5, 0])
    for layer in (None, HEADS):
        ablation = model.ablate(x, layer=layer, units=["1.2", 0])
        assert ablation.units == (5, 0)
        assert torch.equal(ablation.after, expected)
        real = model.forward_without(x, ["1.2", 0], layer)
        torch.testing.assert_close(real, expected)
        assert model.units(x, layer, "1.2").unit_names == ("1.2",)
    (account,) = accounts(model, explanation, units=["1.2"])
    assert account.ablation.units == (5,)
    assert explanation.classes_of_unit("1.2") == explanation.classes_of_unit(5)


def test_units_without_names_have_numbers(
    gap: Classifier, x: torch.Tensor
) -> None:
    with pytest.raises(UnitError, match=r"unit '1\.2' is not a number"):
        gap.explain(x).ablate(["1.2"])


def test_what_is_one_is_told_as_one(model: Classifier) -> None:
    explanation = model.explain(photos(1))
    assert "of 1 photo: 6 heads of" in repr(explanation)
    assert "1 head off" in repr(explanation.ablate("0.0"))
    assert "2 heads off" in repr(explanation.ablate(["0.0", 1]))
    assert "UnitMaps of 1 head of" in repr(explanation.unit_maps(3))
    off = model.ablate(photos(2), units=[3])
    assert "of 1 head of 'attention heads' on 2 photos" in repr(off)


def test_no_method_and_no_gradients_make_the_account_of_heads(
    model: Classifier,
) -> None:
    x = photos(1)
    with pytest.raises(
        InputError, match=r"leave out method \(--method\), or layer=.* local"
    ):
        model.explain(x, layer=HEADS, method="gradcam")
    with pytest.raises(InputError, match=r"leave out differentiable=True, or"):
        model.explain(x.requires_grad_(), layer=HEADS, differentiable=True)
    local = model.explain(photos(1), method="gradcam").head
    assert isinstance(local, LocalHead) and local.method == "gradcam"


def test_heads_are_refused_with_a_reason_where_there_are_none(
    gap: Classifier, x: torch.Tensor
) -> None:
    for ask in (
        lambda: gap.explain(x, layer=HEADS),
        lambda: gap.explain(x, layer=HEADS, method="gradcam"),
        lambda: gap.activations(x, [HEADS]),
        lambda: gap.ablate(x, layer=HEADS, units=[0]),
        lambda: gap.units(x, HEADS, 0),
    ):
        with pytest.raises(LayerError, match=r"the answer is exact.*leave out"):
            ask()


def test_local_answers_say_that_the_account_of_heads_is_there(
    model: Classifier, gap: Classifier, x: torch.Tensor
) -> None:
    local = model.explain(photos(1), method="gradcam").head
    assert isinstance(local, LocalHead)
    assert "an account of heads, tokens and MLPs" in local.instead
    of_exact = gap.explain(x, method="gradcam").head
    assert isinstance(of_exact, LocalHead)
    assert "an exact answer" in of_exact.instead
    last = torch.nn.Linear(5, 5)
    pooled = made(
        lambda: torch.nn.Sequential(SmallVit(), torch.nn.Tanh(), last)
    )
    alone = unitscope.wrap(pooled).explain(photos(1)).head
    assert isinstance(alone, LocalHead) and not alone.instead
