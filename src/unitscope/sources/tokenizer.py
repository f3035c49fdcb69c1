"""Tokenizer: the texts of classes as the numbers that a text tower reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unitscope.errors import ModelError, one_line, warn_user
from unitscope.sources.transformers_folder import VOCABULARIES
from unitscope.sources.transformers_library import quiet, transformers_library

_LONGEST_SHOWN = 40
# Tokenizers without a limit say a number far above this one.
_NO_LIMIT = 10**6
# What such networks were trained with, where the tokenizer does not say.
_SIGLIP_TOKENS = 64


class Tokenizer:
    """The tokenizer in a folder, used as transformers' own pipelines use it.

    `limit` is how many tokens the network reads, None where it says no number. Raises
    ModelError where the folder has none that can be read.
    """

    def __init__(self, folder: Path, config: Any) -> None:
        self._tokenizer = _read(folder)
        text = getattr(config, "text_config", None)
        limits = [
            self._tokenizer.model_max_length,
            getattr(text, "max_position_embeddings", None),
        ]
        known = [limit for limit in limits if limit and limit < _NO_LIMIT]
        self.limit: int | None = min(known, default=None)
        # SigLIP was trained on texts padded to one length, and reads the last token.
        self._pads_to_limit = "siglip" in config.model_type
        if self._pads_to_limit and self.limit is None:
            self.limit = _SIGLIP_TOKENS

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of texts that are not cut."""
        with quiet():
            made = self._tokenizer(list(texts), padding=False, truncation=False)
        tokens: list[list[int]] = made["input_ids"]
        return tokens

    def batch(self, texts: Sequence[str]) -> dict[str, Any]:
        """The arguments of the text tower: tensors (text, token), cut and padded."""
        pads_to = "max_length" if self._pads_to_limit else True
        with quiet():
            made = self._tokenizer(
                list(texts),
                padding=pads_to,
                truncation=self.limit is not None,
                max_length=self.limit,
                return_tensors="pt",
            )
        return dict(made)

    def warn_of_cuts(
        self, texts: Sequence[str], tokens: Sequence[Sequence[int]]
    ) -> None:
        """Warn of texts that are longer than what the network reads."""
        if self.limit is None:
            return
        longer = [
            (text, len(own))
            for text, own in zip(texts, tokens, strict=True)
            if len(own) > self.limit
        ]
        if not longer:
            return
        text, count = longer[0]
        more = len(longer) - 1
        others = f" (and {more} more texts)" if more else ""
        warn_user(
            f"the text '{_shown(text)}'{others} has {count} tokens, of which the network "
            f"reads {self.limit}: its end is cut off; give shorter labels or templates"
        )


def _read(folder: Path) -> Any:
    remedy = (
        "save the tokenizer that the network was trained with there, too "
        "(tokenizer.save_pretrained)"
    )
    # Without files transformers makes some tokenizers up, with an empty vocabulary.
    if not any((folder / name).is_file() for name in VOCABULARIES):
        raise ModelError(
            f"'{folder}' holds no tokenizer (tokenizer.json, vocab.json …), without "
            f"which labels are no class vectors: {remedy}"
        )
    try:
        with quiet():
            tokenizer = transformers_library().AutoTokenizer.from_pretrained(
                str(folder), trust_remote_code=False
            )
    except Exception as error:  # Every kind reads its own files.
        raise ModelError(
            f"the tokenizer in '{folder}' cannot be read ({one_line(error)}): {remedy}"
        ) from None
    return tokenizer


def _shown(text: str) -> str:
    if len(text) > _LONGEST_SHOWN:
        return text[:_LONGEST_SHOWN] + "…"
    return text
