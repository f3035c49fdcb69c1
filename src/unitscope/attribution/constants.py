"""Constants: which calls of a trace do not depend on the photo."""

from __future__ import annotations

from unitscope.tracing.calls import Call


class Constants:
    """Says whether a call does not depend on the photo; remembers what it found."""

    def __init__(self) -> None:
        self._known: dict[int, bool] = {}

    def __contains__(self, call: Call) -> bool:
        known = self._known
        # A stack instead of recursion: networks may be thousands of calls deep.
        stack = [call]
        while stack:
            top = stack[-1]
            unknown = [each for each in top.inputs if id(each) not in known]
            if unknown and id(top) not in known:
                stack += unknown
                continue
            inputs_constant = all(known[id(each)] for each in top.inputs)
            known[id(top)] = top.name != "input" and inputs_constant
            stack.pop()
        return known[id(call)]
