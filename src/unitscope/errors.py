"""The exception tree: every message names value, expectation and remedy in one line."""

from __future__ import annotations

import difflib
import inspect
import traceback
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

_LONGEST_TEXT = 200
# The least likeness of a near match, from 0 to 1.
_CLOSE = 0.5


class UnitscopeError(Exception):
    """Anything that a user's input, files or network caused; its text is for users."""


class PhotoError(UnitscopeError, ValueError):
    """A photo is missing, unreadable, corrupt or of an impossible size."""


class DatasetError(UnitscopeError, ValueError):
    """A data set is missing, empty, damaged or ambiguous, or its annotations are."""


class PreprocessingError(UnitscopeError, ValueError):
    """A preprocessing cannot be applied, or its geometry cannot be measured."""


class InputError(UnitscopeError, ValueError):
    """An input or an option of a call has the wrong shape, kind or value."""


class ModelError(UnitscopeError, ValueError):
    """A specification is unknown, or the network does not behave as a classifier."""


class WeightsError(ModelError):
    """A weights file is missing, malicious or damaged, or does not fit the network."""


class LabelsError(ModelError):
    """Labels cannot be read, or are not as many as the classes."""


class DownloadError(ModelError):
    """A file could not be fetched whole, or is not the file it was the first time."""


class LayerError(UnitscopeError, ValueError):
    """A layer does not exist, has no feature map, or is ambiguous."""


class UnitError(UnitscopeError, ValueError):
    """A unit, filter or channel does not exist in its layer."""


class ClassError(UnitscopeError, ValueError):
    """A class does not exist among the labels."""


class HeadError(ModelError):
    """The network has no head that the algebra needs, or the identity does not hold."""


class NonFiniteError(UnitscopeError, ArithmeticError):
    """NaN or infinite numbers appeared in weights, inputs or activations."""


class AtlasError(UnitscopeError, ValueError):
    """An atlas is missing, damaged, in use, or belongs to another model or data set."""


class RunnerError(UnitscopeError, RuntimeError):
    """Work could not be spread over processes, or one of them died."""


class MissingError(UnitscopeError, LookupError):
    """A document or photo does not exist under the name or number, or no longer."""


class BusyError(UnitscopeError, RuntimeError):
    """More requests came at once than can be worked on."""


class OutputError(UnitscopeError, OSError):
    """A result cannot be written where it was asked for."""


class MissingExtraError(UnitscopeError, ImportError):
    """An optional dependency is not installed; the message names the pip command."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs {package}, which is not installed: pip install "
            f"'unitscope[{extra}]'"
        )
        self._parts = package, extra, purpose

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker process sends its errors to the main one.
        return MissingExtraError, self._parts


class InternalError(RuntimeError):
    """Unitscope itself failed: a bug of ours, which nothing of a user caused."""

    @classmethod
    def of(cls, error: BaseException) -> InternalError:
        """What a bug raised, with the place where it did, and whom to tell."""
        place = ""
        frames = traceback.extract_tb(error.__traceback__)
        if frames:
            place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})"
        reason = kind_and_text(error) + place
        return cls(
            f"internal error, {reason}: this is a bug of unitscope, please report it with "
            "this line and what you called"
        )


class UnitscopeWarning(UserWarning):
    """A result is right but says nothing: a map of zeros, or logits all the same."""


OUT_OF_MEMORY = (
    "the device ran out of memory: use a smaller batch_size (--batch-size), smaller "
    "inputs, or a network on another device"
)


def one_line(error: BaseException) -> str:
    """The text of another library's error on one line, cut to 200 characters.

    The kind of the error where it has no text.
    """
    words = str(error).split()
    text = " ".join(words)
    if not text:
        return type(error).__name__
    return text[:_LONGEST_TEXT]


def kind_and_text(error: BaseException) -> str:
    """The kind of an error, and its text on one line where it has one."""
    kind = type(error).__name__
    text = one_line(error)
    return kind if text == kind else f"{kind}: {text}"


def near_matches(name: str, names: Collection[str], limit: int = 3) -> str:
    """The `names` that resemble `name`, as the end of a message.

    `` (did you mean 'a' or 'b'?)``, or ``""`` where none does.
    """
    lowered = name.lower()
    likeness: dict[str, float] = {}
    for other in names:
        matcher = difflib.SequenceMatcher(None, lowered, other.lower())
        likeness[other] = matcher.ratio()

    close = [other for other in likeness if likeness[other] >= _CLOSE]
    # The sort is stable, so that equal matches keep the order of `names`.
    close.sort(key=likeness.__getitem__, reverse=True)
    if not close:
        close = [other for other in names if lowered in other.lower()]
    if not close:
        return ""
    quoted = map(repr, close[:limit])
    return f" (did you mean {' or '.join(quoted)}?)"


def warn_user(message: str) -> None:
    """Warn of something, at the line of the user's code that called unitscope."""
    frame = inspect.currentframe()
    level = 0
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if not module.startswith("unitscope."):
            break
        frame = frame.f_back
        level += 1
    warnings.warn(message, UnitscopeWarning, stacklevel=level + 1)
