"""Class vectors: what a text tower makes of labels and templates, once."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from unitscope.errors import LabelsError, ModelError, one_line
from unitscope.sources.prompts import filled
from unitscope.sources.tokenizer import Tokenizer
from unitscope.sources.zero_shot import vectors_of

# Texts that go through the text tower at a time.
_BATCH = 256


def class_vectors(
    module: Any,
    tokenizer: Tokenizer,
    labels: Sequence[str],
    templates: Sequence[str],
    progress: bool | None = None,
) -> Float[Tensor, "class unit"]:
    """The vectors of unit length of all classes.

    Each is the mean of the unit vectors of its label in every template, brought to unit
    length again. `module` has `get_text_features`, and must be in evaluation mode.
    """
    # None: tqdm shows its bar on a terminal only.
    bar = tqdm(
        total=len(labels) * len(templates),
        desc="texts",
        disable=True if progress is False else None,
        file=sys.stderr,
        leave=False,
    )
    with bar:
        total: Tensor | None = None
        for template in templates:
            parts = []
            texts = filled(template, labels)
            for begin in range(0, len(texts), _BATCH):
                some = texts[begin : begin + _BATCH]
                parts.append(_unit_vectors(module, tokenizer.batch(some)))
                bar.update(len(some))
            vectors = torch.cat(parts)
            total = vectors if total is None else total + vectors
    assert total is not None
    return functional.normalize(total, dim=-1)


def _unit_vectors(
    module: Any, texts: dict[str, Tensor]
) -> Float[Tensor, "text unit"]:
    try:
        with torch.no_grad():
            vectors = vectors_of(module.get_text_features(**texts))
    except (
        Exception
    ) as error:  # The network and its tokenizer do not fit, often.
        raise ModelError(
            f"the text tower fails on the texts of the labels ({one_line(error)}): check "
            "that its tokenizer is the one it was trained with"
        ) from None
    return functional.normalize(vectors, dim=-1)


def read_tokens(
    tokenizer: Tokenizer, labels: Sequence[str], templates: Sequence[str]
) -> str:
    """Check the texts of labels by what the text tower reads of them; their SHA-256.

    Warns of texts that are too long. Raises LabelsError for labels that are the same to
    the text tower.
    """
    digest = hashlib.sha256()
    by_label: list[list[tuple[int, ...]]] = [[] for _ in labels]
    texts, tokens = [], []
    for template in templates:
        for begin in range(0, len(labels), _BATCH):
            some = filled(template, labels[begin : begin + _BATCH])
            texts += some
            tokens += tokenizer.tokens(some)
    for place, own in enumerate(tokens):
        digest.update(f"{own}".encode())
        by_label[place % len(labels)].append(tuple(own[: tokenizer.limit]))

    tokenizer.warn_of_cuts(texts, tokens)
    first: dict[tuple[tuple[int, ...], ...], int] = {}
    for index, key in enumerate(map(tuple, by_label)):
        other = first.setdefault(key, index)
        if other != index:
            raise LabelsError(
                f"the labels of class {other} and class {index}, '{labels[other]}' and "
                f"'{labels[index]}', are the same text to the network: give every class "
                "a text of its own"
            )
    return digest.hexdigest()
