"""Branches: what layers computed from the stream that they read, before they wrote to it."""

from __future__ import annotations

from collections.abc import Iterator

from unitscope.attribution.constants import Constants
from unitscope.errors import HeadError
from unitscope.residual.places import Places
from unitscope.residual.unfollowed import MIXERS, attends
from unitscope.tracing.calls import Call
from unitscope.tracing.functions import LINEAR_FUNCTIONS


class Branches:
    """Looks at branches, back to the calls of the `stream`, by identity."""

    def __init__(
        self, stream: set[int], constants: Constants, places: Places
    ) -> None:
        self._stream, self._constants, self._places = stream, constants, places

    def is_mlp(self, call: Call) -> bool:
        """Whether what a call wrote was computed from the token that is read alone.

        Raises HeadError where it took from other tokens by attention.
        """
        branch = list(self._calls(call))
        for each in branch:
            if attends(each) and not self._places.mixes_units(each):
                raise HeadError(
                    "the token that is read takes from others in a way that cannot be "
                    f"followed (by '{each.name}')"
                )
        if call.name not in LINEAR_FUNCTIONS:
            return False
        return not any(each.name in MIXERS for each in branch)

    def _calls(self, call: Call) -> Iterator[Call]:
        waiting, seen = [call], {id(call)}
        while waiting:
            call = waiting.pop()
            yield call
            for each in call.inputs:
                is_done = id(each) in seen or id(each) in self._stream
                if not is_done and each not in self._constants:
                    seen.add(id(each))
                    waiting.append(each)
