"""Effects: what switching units off means, where later parts of a network could react."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

from unitscope.attribution.head import Head
from unitscope.errors import InputError

Effect: TypeAlias = Literal["direct", "total"]
"""The direct effect of a unit is that of what it gives to the logits itself, all else held.
In its total effect, what comes after the unit reacts: a real forward pass."""

EFFECTS: tuple[str, ...] = get_args(Effect)


def check_effect(effect: str, head: Head | None = None) -> None:
    """Raise InputError for an unknown effect, and for one that a head does not know."""
    if effect not in EFFECTS:
        known = " or ".join(map(repr, EFFECTS))
        raise InputError(f"effect is {known}, not {effect!r}")
    if effect == "direct" and head is not None and not head.adds_up:
        raise no_direct_effect(head.layer)


def no_direct_effect(layer: str) -> InputError:
    """The error where a direct effect is asked for at a layer that gives none."""
    return InputError(
        f"units of layer '{layer}' have no direct effect on the logits, only a total one: "
        "leave out effect='direct' (--effect direct)"
    )
