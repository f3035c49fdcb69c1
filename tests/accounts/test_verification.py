"""What `info` says of a network: the kind of its answers, and how well real forward passes bear them out."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from networks import BETWEEN, IMPOSTORS, Between, Ending, Gap, Mlp, Tokens, seeded
from unitscope.accounts import record
from unitscope.accounts.verification import Verification, ablation_error, verify
from unitscope.inputs.preprocessing import Preprocessing
from unitscope.model import wrap


def verified(module: nn.Module) -> Verification:
    return verify(wrap(module, preprocessing=Preprocessing(resize=32, crop=32)))


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (Gap, "gap-linear"),
        (lambda: Between(BETWEEN["layer norm"][0]), "gap-norm-linear"),
    ],
)
def test_an_exact_head_is_proved(make, kind: str) -> None:
    found = verified(seeded(make))
    assert (found.kind, found.exact, found.reason) == (kind, True, "")
    assert (found.layer, found.units, found.map_size, found.tried) == (
        "features",
        6,
        (16, 16),
        3,
    )
    assert found.identity_error is not None and found.identity_error <= 5e-6
    assert found.ablation_error is not None and found.ablation_error <= 1e-5
    assert found.seconds > 0 and found.forward_seconds > 0


@pytest.mark.parametrize("make", [Mlp, Tokens])
def test_a_local_answer_says_what_it_leaves_out_and_ablates_for_real(
    make: type[nn.Module],
) -> None:
    found = verified(seeded(make))
    assert (
        found.kind == "local" and not found.exact and "exact maps need" in found.reason
    )
    assert found.identity_error is not None and found.identity_error > 1e-3
    assert found.ablation_error is not None and found.ablation_error <= 1e-5


def test_what_is_refused_says_why() -> None:
    found = verified(seeded(lambda: Ending(IMPOSTORS["softmax"])))
    assert found.kind == "refused" and "ends in a softmax" in found.reason
    assert (
        found.identity_error is None
        and found.ablation_error is None
        and found.units == 0
    )
    assert record.of_verification(found)["map_size"] == [0, 0]


def test_a_difference_to_the_real_forward_pass_is_seen() -> None:
    model = wrap(seeded(Gap), preprocessing=Preprocessing(resize=32, crop=32))
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    real = [model.forward_without(x, [unit]) for unit in (0, 3)]
    assert (ablation_error(model, x, [0, 3], real) or 0) <= 1e-5
    error = ablation_error(model, x, [3, 0], real)  # the wrong way round
    assert error is not None and error > 1e-4
