"""The page docs/architectures.md: which answers which architecture gets."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch

KINDS = {
    "gap-linear": "pool → linear",
    "gap-norm-linear": "pool → normalisation → linear",
    "conv-gap": "convolution → pool",
    "pools-linear": "pools → linear",
    "gap": "pool",
    "residual": "residual stream",
    "local": "local",
    "refused": "refused",
    "failed": "does not run",
}
SOURCES = ("torchvision", "timm", "transformers")

_EXACT = ("gap-linear", "conv-gap", "gap", "pools-linear")
_ALLOWED_ERROR = 1e-5

Row = dict[str, Any]


def proved(row: Row) -> bool:
    """Whether real forward passes, and the identity, bear out what is claimed to be exact."""
    ablation = row["ablation_error"]
    if ablation is None:
        return False
    return bool(max(row["identity_error"], ablation) <= _ALLOWED_ERROR)


def page(rows: list[Row]) -> str:
    """The results as Markdown."""
    ran = [row for row in rows if row["kind"] != "failed"]
    lines = [
        "# Which answers which architecture gets",
        "",
        "Written by `python scripts/architectures.py --out docs/architectures.md`; not "
        "edited by hand. Random weights",
        "(drawn anew where a network begins with a layer of zeros),",
        "each network's own input size, float32, torch "
        f"{torch.__version__.split('+')[0]}.",
        "",
        _summary(ran),
        "",
        *_LEGEND,
        "",
        *_beside_torchcam(ran),
    ]
    for source in SOURCES:
        chosen = [row for row in rows if row["spec"].startswith(f"{source}:")]
        if chosen:
            lines += _section(chosen, source)

    failed = [row for row in rows if row["kind"] == "failed"]
    refused = [row for row in ran if row["kind"] == "refused"]
    lines += _reasons("Not run", failed)
    lines += _reasons("Refused, with the reason", refused)
    return "\n".join(lines).rstrip() + "\n"


_LEGEND = [
    "- *head*: what stands between the feature map and the logits; a *residual stream* "
    "is a sum of heads of attention,",
    "  tokens and MLPs, whose units are the heads; *local* answers are gradient × "
    "activation.",
    "- *identity error*: mean of the map + bias against the logit, relative to the "
    "largest logit, on three random",
    "  inputs; for a residual stream, the sum of all parts; for a local answer, how much "
    "of the logit the map of the first class leaves out.",
    "- *ablation error*: logits with a unit off against a real forward pass of the "
    "network with its map at zero; for a",
    "  residual stream, the parts of a real pass with a head silent against its logits.",
    "- *seconds*: processor time for finding and verifying the head, once for each "
    "network.",
]


def _summary(ran: list[Row]) -> str:
    kinds = Counter(row["kind"] for row in ran)
    exact = [row for row in ran if row["exact"]]
    borne_out = sum(map(proved, exact))
    plain = sum(kinds[kind] for kind in _EXACT)
    ablation = max(row["ablation_error"] for row in exact)
    identity = max(row["identity_error"] for row in exact)
    return (
        f"{len(ran)} networks: **{plain} exact, "
        f"{kinds['gap-norm-linear']} exact with a normalisation in the head, "
        f"{kinds['residual']} residual, {kinds['local']} local, "
        f"{kinds['refused']} refused.** "
        f"Of the {len(exact)} exact ones, {borne_out} give, for three random units "
        "switched off one by one, the logits of a real forward pass to 1e-5 of the "
        f"largest logit (largest error {ablation:.1e}); the largest identity error is "
        f"{identity:.1e}.{_of_streams(ran)}"
    )


def _of_streams(ran: list[Row]) -> str:
    rows = [row for row in ran if row["kind"] == "residual"]
    if not rows:
        return ""
    identity = max(row["identity_error"] for row in rows)
    ablation = max(row["ablation_error"] for row in rows)
    return (
        f" Of the {len(rows)} residual ones, {sum(map(proved, rows))} have parts that add "
        f"up to the logits (largest error {identity:.1e}), also in real passes with "
        f"single heads silent ({ablation:.1e})."
    )


def _section(rows: list[Row], title: str) -> list[str]:
    ran = [row for row in rows if row["kind"] != "failed"]
    largest = max(row["parameters"] for row in ran) / 1e6
    return [
        f"## {title}",
        "",
        "| architecture | million parameters | head | layer | map | identity error | "
        "ablation error | seconds | torchcam |",
        "|---|---:|---|---|---|---:|---:|---:|---|",
        *map(_table_row, sorted(ran, key=lambda row: row["spec"])),
        "",
        f"{len(ran)} networks of up to {largest:.0f} million parameters.",
        "",
    ]


def _table_row(row: Row) -> str:
    _, name = row["spec"].split(":", 1)
    cells = [
        name,
        f"{row['parameters'] / 1e6:.1f}",
        KINDS[row["kind"]],
        f"{row['layer']}",
        _map_size(row),
        _identity(row),
        "" if row["ablation_error"] is None else f"{row['ablation_error']:.0e}",
        f"{row['seconds']:.1f}",
        row.get("torchcam") or "",
    ]
    return f"| {' | '.join(cells)} |"


def _map_size(row: Row) -> str:
    if not row["units"]:
        return ""
    rows, cols = row["map_size"]
    return f"{row['units']}×{rows}×{cols}"


def _identity(row: Row) -> str:
    error = row["identity_error"]
    if error is None:
        return ""
    if row["exact"] or row["kind"] == "residual":
        return f"{error:.0e}"
    return f"leaves out {error:.0%}"


def _reasons(title: str, rows: list[Row]) -> list[str]:
    if not rows:
        return []
    reasons = [f"- `{row['spec']}`: {row['reason']}" for row in rows]
    return [f"## {title}", "", *reasons, ""]


def _beside_torchcam(ran: list[Row]) -> list[str]:
    asked = [row for row in ran if row.get("torchcam")]
    if not asked:
        return []

    exact = Counter(row["torchcam"] for row in asked if row["exact"])
    other = Counter(row["torchcam"] for row in asked if not row["exact"])
    return [
        "torchcam's `CAM(model)`, left to find its layers by itself, on the same "
        "networks: of those with an exact head "
        f"{_verdicts(exact)}; of the others {_verdicts(other)}. *Right* means that "
        "its map and the bias of its linear layer add up to the logit to 1e-4.",
        "",
    ]


def _verdicts(counts: Counter[str]) -> str:
    wrong = f"{counts['wrong']} wrong without a word"
    return f"{counts['right']} right, {wrong}, {counts['error']} errors"
