"""Blame: whether an error in a forward pass is the user's code's, or our own."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

# Libraries that run for whoever called them.
_TOOLS = ("torch", "numpy")

# Where torch calls the user's modules.
_CALLERS = {"torch.nn.modules.module", "torch.fx.graph_module"}


def called(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Call a torch function for the user's network: its errors are the network's."""
    return func(*args, **kwargs)


def is_passed_on(error: BaseException) -> bool:
    """Whether an error says all by itself: it is of a kind of ours, or ends the program."""
    if _room(type(error).__module__) == "unitscope":
        return True
    return not isinstance(error, Exception) and is_ours(error)


def is_ours(error: BaseException) -> bool:
    """Whether unitscope raised an error, or made torch raise it; not the network.

    The frames of a traceback tell: after the last one of unitscope come those of the
    user's code, where that was called. A torch module that is called, or a function
    that is `called`, is the network's too.
    """
    frames = [
        (frame.f_globals.get("__name__", ""), frame.f_code.co_name)
        for frame, _ in traceback.walk_tb(error.__traceback__)
    ]
    ours = [
        place
        for place, (name, _) in enumerate(frames)
        if _room(name) == "unitscope"
    ]
    if not ours:
        return False
    last = ours[-1]
    inner = [name for name, _ in frames[last + 1 :]]
    # A type checker may have wrapped the function, so that only its names stay.
    is_handed_over = frames[last] == (__name__, "called")
    if is_handed_over or not _CALLERS.isdisjoint(inner):
        return False
    return all(_room(name) in _TOOLS for name in inner)


def _room(module: str) -> str:
    return module.partition(".")[0]
