"""Manifest: the JSON file that says what an atlas is of, and how far its scan is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unitscope.atlas.disk.arrays import write_bytes
from unitscope.atlas.disk.layout import MANIFEST
from unitscope.errors import AtlasError

SCHEMA = "unitscope-atlas/1"

# The status of an atlas whose merge has not come to its end.
MERGING = "merging"

# The share of the largest logit by which rounding on another machine may change one.
_SAME_LOGIT = 1e-3

_KEYS = (
    "status",
    "identity",
    "model",
    "data",
    "layers",
    "parameters",
    "scanned",
    "concepts",
    "ablation",
    "versions",
)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of the atlas in a folder.

    Raises AtlasError where there is none, or one of another schema.
    """
    try:
        text = (folder / MANIFEST).read_text(encoding="utf-8")
        manifest: dict[str, Any] = json.loads(text)
        schema = manifest["schema"]
    except FileNotFoundError:
        raise AtlasError(
            f"there is no atlas in '{folder}' (no {MANIFEST}): make one with "
            f"`unitscope scan SOURCE --out {folder}`"
        ) from None
    except PermissionError:
        raise AtlasError(
            f"the atlas in '{folder}' may not be read: check its permissions"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AtlasError(
            f"the atlas in '{folder}' cannot be read ({error}): scan into another "
            "folder"
        ) from None

    if schema != SCHEMA:
        raise AtlasError(
            f"the atlas in '{folder}' has the schema {schema!r}, not {SCHEMA!r}: "
            "scan again into another folder"
        )
    missing = [key for key in _KEYS if key not in manifest]
    if missing:
        raise AtlasError(
            f"the manifest in '{folder}' lacks {', '.join(missing)}: scan again "
            "into another folder"
        )
    return manifest


def unfinished_merge(folder: Path) -> AtlasError:
    """The error for a folder whose merge has not come to its end."""
    return AtlasError(
        f"'{folder}' holds a merge that was interrupted: run the same merge again, or "
        "remove the folder"
    )


def existing_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of the atlas in a folder, None where there is no atlas."""
    if not (folder / MANIFEST).exists():
        return None
    return read_manifest(folder)


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest, whole or not at all."""
    text = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False)
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError:
        # A path may contain bytes that are not characters; JSON has escapes for them.
        data = json.dumps(manifest, indent=1, allow_nan=False).encode("ascii")
    write_bytes(folder / MANIFEST, data)


def identity_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The properties that two scans must share to be the same scan."""
    # The first atlases named neither engine, scores, nor one of several outputs.
    first = {"engine": "torch", "kind of scores": "softmax", "output": None}
    return {**first, **manifest["identity"]}


def same_answers(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether the models of two manifests gave the same logits for noise.

    Small differences, as rounding makes between machines, are ignored.
    """
    first_logits = np.array(first.get("probe", []))
    second_logits = np.array(second.get("probe", []))
    if first_logits.shape != second_logits.shape:
        return False
    largest = float(np.abs(second_logits).max(initial=0))
    return np.allclose(
        first_logits,
        second_logits,
        rtol=0,
        atol=_SAME_LOGIT * largest,
    )
