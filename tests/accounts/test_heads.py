"""Accounts of transformers: parts, heads by their names, direct and total effects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
import torch

from tiny_vit import HEADS, TinyVit
from unitscope.accounts.account import Account
from unitscope.accounts.parts import parts_of
from unitscope.accounts.record import of_account
from unitscope.attribution.ablation import Ablation
from unitscope.errors import InputError, UnitError
from unitscope.model import Classifier
from unitscope.residual.explanation import ResidualExplanation


@pytest.fixture
def photo(vit: Classifier, vit_account: Account) -> torch.Tensor:
    """The input that the network saw."""
    picture = vit_account.subject.picture(64)
    return cast(Callable[[Any], torch.Tensor], vit.preprocessing)(picture)[None]


def test_the_parts_of_every_class_shown_add_up_to_its_logit(
    vit_account: Account,
) -> None:
    explanation = vit_account.explanation
    for index in vit_account.classes:
        parts = parts_of(explanation, index)
        assert list(parts)[:2] == ["patches", "class token"]
        logit = float(explanation.logits[0, index])
        assert sum(parts.values()) == pytest.approx(logit, abs=1e-5)
        mean = float(explanation.cams_of(index).mean())
        assert parts["patches"] == pytest.approx(mean, abs=1e-5)


def test_effects_of_heads_are_those_of_real_passes(
    vit: Classifier, vit_account: Account, photo: torch.Tensor
) -> None:
    network, first = vit.module, vit_account.classes[0]
    assert isinstance(network, TinyVit)
    turning = []
    with torch.no_grad():
        top = int(network(photo).argmax())
        for story in vit_account.units:
            direct = network.without_write(photo, *divmod(story.unit, HEADS))
            total = vit.forward_without(photo, story.unit)
            assert story.direct_without == pytest.approx(
                float(direct[0, first]), abs=1e-5
            )
            assert story.logit_without == pytest.approx(
                float(total[0, first]), abs=1e-5
            )
            assert story.direct_without is not None
            assert abs(story.direct_without - story.logit_without) > 1e-4
            if int(direct.argmax()) != top:
                turning.append(story.unit)
    assert vit_account.turning == tuple(sorted(turning))


def test_heads_have_signed_maps_and_blocks_add_up(vit_account: Account) -> None:
    heads, explanation = vit_account.heads, vit_account.explanation
    assert heads is not None and len(vit_account.units) == 4
    assert isinstance(explanation, ResidualExplanation)
    first = vit_account.classes[0]
    given = explanation.contributions_of(first)[0, 0]
    by_block = given.reshape(2, HEADS).sum(dim=1).tolist()
    assert heads.by_block == pytest.approx(by_block, abs=1e-5)
    written = [float(each[0, first]) for each in explanation.writes.values()]
    assert heads.mlps_by_block == pytest.approx(written, abs=1e-5)
    # The maps of all heads add up to the class's map.
    maps = heads.maps.maps[0].sum(dim=0)
    assert torch.allclose(maps, explanation.cams_of(first)[0, 0], atol=1e-4)
    from_patches = [story.from_patches for story in vit_account.units]
    patches = parts_of(explanation, first)["patches"]
    assert sum(part or 0.0 for part in from_patches) == pytest.approx(
        patches, abs=1e-5
    )
    assert vit_account.ablation.maps.titles == ("head 0.1", "head 1.0")
    assert "Without heads 0.1 and 1.0 " in vit_account.sentence()


def test_every_check_holds_and_the_ablation_is_a_real_pass(
    vit_account: Account,
) -> None:
    names = [check.name for check in vit_account.checks]
    assert names == ["parts", "maps", "direct effects", "ablation"]
    assert all(check.holds for check in vit_account.checks)


def test_an_ablation_says_which_effect_it_is(
    vit: Classifier, vit_account: Account, photo: torch.Tensor
) -> None:
    explanation = vit_account.explanation
    assert isinstance(explanation, ResidualExplanation)
    total, direct = (
        vit.ablate(photo, units=1),
        vit.ablate(photo, units=1, effect="direct"),
    )
    assert (total.effect, total.exact) == ("total", False)
    assert (direct.effect, direct.exact) == ("direct", True)
    assert "direct effect" in repr(direct) and "1 head " in repr(direct)
    assert torch.allclose(total.after, vit.forward_without(photo, 1), atol=1e-5)
    network = vit.module
    assert isinstance(network, TinyVit)
    with torch.no_grad():
        real = network.without_write(photo, 0, 1)
    assert torch.allclose(direct.after, real, atol=1e-5)
    with pytest.raises(InputError, match="layer 'patch' have no direct effect"):
        vit.ablate(photo, "patch", 1, effect="direct")


@pytest.mark.usefixtures("unchecked")
def test_an_unknown_effect_is_refused(
    vit: Classifier, photo: torch.Tensor
) -> None:
    for layer in (None, "patch"):
        with pytest.raises(InputError, match="'direct' or 'total', not 'x'"):
            vit.ablate(photo, layer, 1, effect="x")  # type: ignore[arg-type]


def test_both_effects_of_an_exact_head_are_one(
    gap: Classifier, x: torch.Tensor
) -> None:
    explanation = gap.explain(x)
    one, other = (
        Ablation.of(explanation, [2], effect) for effect in ("direct", "total")
    )
    assert torch.equal(one.after, other.after) and one.effect is None
    local = gap.explain(x, method="hirescam")
    with pytest.raises(InputError, match="no direct effect"):
        Ablation.of(local, [2], "direct")


def test_heads_are_found_by_name_and_by_number(
    vit: Classifier, gap: Classifier
) -> None:
    head = vit.head
    assert [head.unit_of(name) for name in ("0.0", "1.1", "3")] == [0, 3, 3]
    assert head.unit_title(2) == "head 1.0"
    for name in ("1.2", "4", "-1", "x"):
        with pytest.raises(UnitError, match=r"named 0\.0 to 1\.1, or numbered"):
            head.unit_of(name)
    with pytest.raises(UnitError, match="6 units are numbered 0 to 5"):
        gap.head.unit_of("1.2")


def test_json_keeps_numbers_and_adds_names(vit_account: Account) -> None:
    content = of_account(vit_account)
    assert content["answer"]["unit_names"] == ["0.0", "0.1", "1.0", "1.1"]
    assert content["ablation"]["units"] == [1, 2]
    assert content["ablation"]["unit_names"] == ["0.1", "1.0"]
    assert content["ablation"]["effect"] == "total"
    assert len(content["blocks"]) == 2
    for unit in content["units"]:
        assert unit["name"] == content["answer"]["unit_names"][unit["unit"]]
        assert {"direct_logit_without", "from_patches"} <= set(unit)
    for cam in content["cams"]:
        assert cam["bias"] is None
        assert sum(cam["parts"].values()) == pytest.approx(
            cam["logit"], abs=1e-5
        )
