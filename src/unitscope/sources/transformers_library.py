"""The library transformers: imported when first needed, and kept quiet."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

from unitscope.errors import MissingExtraError


def transformers_library() -> Any:
    """The package; raises MissingExtraError where it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import transformers
    except ImportError:
        raise MissingExtraError(
            "transformers", "transformers", "a transformers: model"
        ) from None
    return transformers


def classifier_types() -> list[str]:
    """The types of network that transformers has an image classifier for."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    )

    return sorted(MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from logging, warning and drawing bars.

    What matters comes as an error or a note.
    """
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
