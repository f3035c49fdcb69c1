"""Output words: what a network gave in place of logits, and the remedies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from unitscope.errors import ModelError
from unitscope.tracing.outputs import Leaf, tensors_of


def described(leaf: Leaf, batch: int) -> str:
    """A tensor by its name and shape."""
    rows, *further = leaf.tensor.shape or (None,)
    sides = ["batch" if rows == batch else str(rows), *map(str, further)]
    shape = ", ".join(sides) if leaf.tensor.ndim else "one number"
    name = f"{leaf.path!r} " if leaf.path else "one tensor "
    return f"{name}({shape})"


def in_place_of_logits(shape: Sequence[int], batch: int) -> tuple[str, str]:
    """What a tensor of a shape is in place of logits, and the remedy."""
    remedy = "wrap a module that classifies images"
    if not shape or shape[0] != batch:
        return "it has not one row for each photo", remedy
    if len(shape) == 4:
        return (
            "it has numbers for each cell or pixel, as a segmenter and a network "
            "without its head give",
            "wrap a module that gives one number a class, such as their mean over "
            "the cells",
        )
    if len(shape) == 3 and shape[1] == 1:
        return (
            "it has an axis of length 1 between photos and numbers",
            "wrap a module that leaves that axis out, such as by squeeze(1)",
        )
    if len(shape) == 3:
        return (
            f"it has {shape[1]} rows for each photo, as a detector's boxes or tokens "
            "are",
            remedy,
        )
    return "it has another number of columns for one photo than for two", remedy


def _with_article(noun: str) -> str:
    return f"an {noun}" if noun[:1].lower() in "aeiou" else f"a {noun}"


def nothing(result: Any) -> ModelError:
    """The error for a result without floating-point numbers."""
    what = f"{_with_article(type(result).__name__)}, and no tensor by name or number"
    for leaf in tensors_of(result):
        kind = str(leaf.tensor.dtype).removeprefix("torch.")
        example = "argmax" if kind.startswith("int") else "no classifier"
        what = f"only numbers of type {kind}, as {example} gives"
        if leaf.tensor.is_floating_point():
            layout = str(leaf.tensor.layout).removeprefix("torch.")
            what = f"only a tensor of the layout {layout}, not a dense one"
    return ModelError(
        f"the network gave {what}, not logits (batch, class): wrap a module that "
        "classifies images"
    )
