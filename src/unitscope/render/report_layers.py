"""Report layers: the strip that says which layers carry the prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from unitscope.accounts.account import Account
from unitscope.attribution.screening import LayerStrength
from unitscope.render.markup import bar

_UNITS = 8


@dataclass(frozen=True)
class LayerRow:
    """One layer: what its units carry, and the bar of its strongest unit."""

    strength: LayerStrength
    bar: Markup


def layer_contents(account: Account) -> dict[str, Any] | None:
    """What the template shows of a screening; None where none was asked for."""
    screening = account.screening
    if screening is None:
        reason = account.no_screening
        return {"refusal": reason} if reason else None
    shown = screening.outline()
    rows = [row for row in screening.strengths() if row.layer in shown]
    most = max((row.largest for row in rows), default=0.0)
    top = screening.top(_UNITS)
    estimates = [each.estimate for each in top]
    return {
        "refusal": "",
        "rows": [LayerRow(row, bar(row.largest, 0.0, most)) for row in rows],
        "hidden": len(screening.layers) - len(rows),
        "units": sum(each.shape[1] for each in screening.estimates.values()),
        "layers": len(screening.layers),
        "most": most,
        "top": [
            (each, bar(each.estimate, min(estimates), max(estimates)))
            for each in top
        ],
        "left_out": screening.left_out,
    }
