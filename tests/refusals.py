"""What `load` says when it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from unitscope.errors import ModelError, UnitscopeError
from unitscope.sources import load


def refusal(
    spec: Any, kind: type[UnitscopeError] = ModelError, **options: Any
) -> str:
    """The message, one line, with which a specification is refused."""
    with pytest.raises(kind) as caught:
        load(spec, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)
