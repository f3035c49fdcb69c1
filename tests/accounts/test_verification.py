"""What `info` says about a network: its kind of answers, proved by forward passes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from networks import (
    BETWEEN,
    Between,
    Gap,
    Mlp,
    Tokens,
    seeded,
)
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
def test_an_exact_head_is_proved(
    make: Callable[[], nn.Module], kind: str
) -> None:
    verification = verified(seeded(make))
    assert (verification.kind, verification.exact, verification.reason) == (
        kind,
        True,
        "",
    )
    assert (
        verification.layer,
        verification.units,
        verification.map_size,
        verification.tried,
    ) == (
        "features",
        6,
        (16, 16),
        3,
    )
    assert (
        verification.identity_error is not None
        and verification.identity_error <= 5e-6
    )
    assert (
        verification.ablation_error is not None
        and verification.ablation_error <= 1e-5
    )
    assert verification.seconds > 0 and verification.forward_seconds > 0


def test_the_parts_of_a_stream_add_up_with_heads_on_and_silent() -> None:
    verification = verified(seeded(Tokens))
    assert verification.kind == "residual"
    assert verification.adds_up and not verification.exact
    assert "a token (as in ViT)" in verification.reason
    for error in (verification.identity_error, verification.ablation_error):
        assert error is not None and error <= 1e-5


def test_a_local_answer_says_what_it_leaves_out_and_ablates_for_real() -> None:
    verification = verified(seeded(Mlp))
    assert (
        verification.kind == "local"
        and not verification.exact
        and "exact maps need" in verification.reason
    )
    assert (
        verification.identity_error is not None
        and verification.identity_error > 1e-3
    )
    assert (
        verification.ablation_error is not None
        and verification.ablation_error <= 1e-5
    )


def test_a_refusal_says_why() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5))
    verification = verified(flat)
    assert (
        verification.kind == "refused"
        and "no layer with several cells" in verification.reason
    )
    assert (
        verification.identity_error is None
        and verification.ablation_error is None
        and verification.units == 0
    )
    assert record.of_verification(verification)["map_size"] == [0, 0]


def test_a_difference_to_the_real_forward_pass_shows() -> None:
    model = wrap(seeded(Gap), preprocessing=Preprocessing(resize=32, crop=32))
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    real = [model.forward_without(x, [unit]) for unit in (0, 3)]
    assert (ablation_error(model, x, [0, 3], real) or 0) <= 1e-5
    error = ablation_error(model, x, [3, 0], real)  # in the wrong order
    assert error is not None and error > 1e-4
