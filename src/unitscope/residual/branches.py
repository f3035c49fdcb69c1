"""Branches: what layers computed from the stream that they read, before they wrote to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from unitscope.attribution.constants import Constants
from unitscope.errors import HeadError
from unitscope.residual.grounds import Written
from unitscope.residual.places import Places
from unitscope.residual.step import StreamStep
from unitscope.residual.unfollowed import MIXERS, UNITS_ONLY, attends, in_words
from unitscope.tracing.calls import Call
from unitscope.tracing.functions import LINEAR_FUNCTIONS


class Branches:
    """Looks at branches, back to the calls of the `stream`, by identity."""

    def __init__(
        self, stream: set[int], constants: Constants, places: Places
    ) -> None:
        self._stream, self._constants, self._places = stream, constants, places

    def mark(
        self, steps: list[StreamStep], made: dict[int, Call], first: int
    ) -> None:
        """Mark the steps that MLPs wrote, of those at the places `made`, by their calls.

        What was made before the call `first` is the embedding. Raises HeadError as
        `is_mlp` does.
        """
        for place, call in made.items():
            step = steps[place]
            if not isinstance(step, Written):
                continue
            is_embedding = call.index < first
            is_mlp = not is_embedding and self.is_mlp(call)
            steps[place] = replace(
                step, is_mlp=is_mlp, is_embedding=is_embedding
            )

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
        return not any(map(self._mixes, branch))

    def why(self, ends: Sequence[Call], made: Mapping[int, Call]) -> str:
        """Why a walk met no attention, in words: see `in_words`."""
        branches = [list(self._calls(call)) for call in made.values()]
        attending = [
            call for branch in branches for call in branch if attends(call)
        ]
        if attending and all(map(self._places.mixes_units, attending)):
            return UNITS_ONLY
        return in_words(ends, branches)

    def _mixes(self, call: Call) -> bool:
        """Whether a call mixes tokens, or units by weights that the photo sets."""
        if call.name in MIXERS:
            return True
        is_product = call.name in LINEAR_FUNCTIONS
        return is_product and not any(
            each in self._constants for each in call.inputs
        )

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
