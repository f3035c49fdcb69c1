"""Provenance: where a classifier came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Provenance:
    """Where a classifier came from: for reports, and to obtain the same numbers again.

    `spec` is what `load` was given ("torchvision:resnet50"), or "wrapped". `weights` says
    in words what the weights are ("IMAGENET1K_V2", "random initialisation, seed 0", the
    name of a file). `sha256` is the weights file's, where there is one. `notes` are lines
    that a reader should see: assumptions, repairs of the file, licences. `reload` loads
    the classifier once more, for another process; None where it was wrapped.
    """

    spec: str
    weights: str
    sha256: str | None = None
    notes: tuple[str, ...] = ()
    reload: Callable[[], Any] | None = field(
        default=None, repr=False, compare=False
    )

    @classmethod
    def of_module(
        cls, module: nn.Module, also: Mapping[str, Any]
    ) -> Provenance:
        """That of a user's own module, which is always given `also` beside the photos."""
        weights = f"as in the {type(module).__name__} that was wrapped"
        return cls("wrapped", weights, notes=_notes_of(also))


def _notes_of(also: Mapping[str, Any]) -> tuple[str, ...]:
    """A line for each further input that is the same for all photos."""
    notes = []
    for name, value in also.items():
        shape = getattr(value, "shape", None)
        words = (
            f"{value!r:.80}" if shape is None else f"of shape {tuple(shape)}"
        )
        notes.append(f"every photo is given the same '{name}', {words}")
    return tuple(notes)
