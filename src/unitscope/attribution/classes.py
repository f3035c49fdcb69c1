"""Classes: find one by its label or index, and rank them."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from unitscope.attribution.scores import Scores
from unitscope.errors import ClassError, near_matches
from unitscope.labels import is_index

# Classes to choose: one, or several in the order given, each by label or by index.
Classes: TypeAlias = int | str | Sequence[int | str] | Tensor


class Prediction(NamedTuple):
    """One class of a ranking: label, index, logit and probability (0–1).

    The probability is None where the scores have none (see `Scores`).
    """

    label: str
    index: int  # type: ignore[assignment]  # the class's; it replaces tuple.index
    logit: float
    probability: float | None


def class_index(labels: Sequence[str], which: int | str) -> int:
    """The index of a class given by label or by index.

    Raises ClassError for an unknown label (with near matches), for one that several
    classes share, and for an index outside 0 … classes − 1 (negative indices are not
    counted from the end).
    """
    if isinstance(which, str):
        same = [index for index, label in enumerate(labels) if label == which]
        if len(same) > 1:
            raise ClassError(
                f"{len(same)} classes are called {which!r}: name one by its index, "
                f"{' or '.join(map(str, same))}"
            )
        if same:
            return same[0]
        if not is_index(which):
            raise ClassError(
                f"there is no class {which!r} among the {len(labels)} labels"
                f"{near_matches(which, labels)}: name a label or an index"
            )
        which = int(which)
    if isinstance(which, bool) or not hasattr(which, "__index__"):
        raise ClassError(
            f"a class is a label or an index, not {which!r}: name one of the "
            f"{len(labels)} labels, or a number"
        )
    index = operator.index(which)
    if not 0 <= index < len(labels):
        raise ClassError(
            f"there is no class {index}: the {len(labels)} classes are numbered 0 to "
            f"{len(labels) - 1}"
        )
    return index


def class_indices(labels: Sequence[str], which: Classes) -> list[int]:
    """The indices of several classes, each given by label or index; order is kept."""
    chosen: list[Any] = [which]
    if isinstance(which, Tensor):
        chosen = which.flatten().tolist()
    elif isinstance(which, Iterable) and not isinstance(which, str):
        chosen = list(which)
    return [class_index(labels, item) for item in chosen]


def ranked(
    logits: Float[Tensor, "class"],
    labels: Sequence[str],
    count: int,
    scores: Scores,
) -> list[Prediction]:
    """The `count` classes with the largest logits, best first; ties in order of index."""
    if count < 1:
        raise ClassError(
            f"the number of classes to list is at least 1, not {count}"
        )
    order = torch.argsort(logits, descending=True, stable=True)[:count].tolist()
    probabilities = scores.probabilities(logits)
    return [
        Prediction(
            labels[index],
            index,
            float(logits[index]),
            None if probabilities is None else float(probabilities[index]),
        )
        for index in order
    ]


def largest_first(
    values: Float[Tensor, " item"], names: Sequence[str], count: int
) -> list[tuple[str, float]]:
    """The names with the `count` largest values, and those values."""
    values = values.detach().cpu()
    order = torch.argsort(values, descending=True, stable=True)[:count].tolist()
    return [(names[index], float(values[index])) for index in order]


def told_apart(labels: Sequence[str], a: int, b: int) -> tuple[str, str]:
    """The labels of two classes, with their indices where both are called the same."""
    if a == b or labels[a] != labels[b]:
        return labels[a], labels[b]
    return f"{labels[a]} ({a})", f"{labels[b]} ({b})"
