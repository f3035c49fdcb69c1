"""Counts: whether a value is a number of things."""

from __future__ import annotations

import operator
from typing import Any


def is_count(value: Any, least: int = 0) -> bool:
    """Whether a value is a whole number of at least `least`, Python's or numpy's."""
    if isinstance(value, bool):
        return False
    try:
        return operator.index(value) >= least
    except TypeError:
        return False
