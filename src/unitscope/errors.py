"""The exception tree: every message names the value, what was expected and the remedy, in one line."""

from __future__ import annotations

import difflib
import inspect
import warnings
from collections.abc import Collection


class UnitscopeError(Exception):
    """Anything that a user's input, files or network caused; its text is fit to be shown as it is."""


class PhotoError(UnitscopeError, ValueError):
    """A photo is missing, unreadable, corrupt or of an impossible size."""


class DatasetError(UnitscopeError, ValueError):
    """A data set is missing, empty, damaged or ambiguous, or its annotations are."""


class PreprocessingError(UnitscopeError, ValueError):
    """A preprocessing cannot be applied, or where it puts the photo cannot be measured."""


class InputError(UnitscopeError, ValueError):
    """A tensor handed to a classifier has the wrong shape, kind or values."""


class ModelError(UnitscopeError, ValueError):
    """A model specification is unknown, or the network does not behave as a classifier."""


class WeightsError(ModelError):
    """A weights file is missing, malicious, damaged, or does not fit the architecture."""


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
    """The network has no head of the kind that the algebra needs, or the identity does not hold."""


class NonFiniteError(UnitscopeError, ArithmeticError):
    """NaN or infinite numbers appeared in weights, inputs or activations."""


class AtlasError(UnitscopeError, ValueError):
    """An atlas is missing, damaged, in use, or belongs to another model or data set."""


class RunnerError(UnitscopeError, RuntimeError):
    """Work could not be spread over processes, or one of them died."""


class MissingError(UnitscopeError, LookupError):
    """Something was asked for by name or number that is not there, or not any more."""


class BusyError(UnitscopeError, RuntimeError):
    """More was asked for at once than can be worked on."""


class OutputError(UnitscopeError, OSError):
    """A result cannot be written where it was asked for."""


class MissingExtraError(UnitscopeError, ImportError):
    """An optional dependency is needed and not installed; the message names the command that installs it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs {package}, which is not installed: pip install "
            f"'unitscope[{extra}]'"
        )


class UnitscopeWarning(UserWarning):
    """A result is right but says nothing: a map that is zero everywhere, logits that are all the same."""


def one_line(error: BaseException) -> str:
    """The text of somebody else's error on one line, cut to 200 characters; its kind where it has no text."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def near_matches(name: str, names: Collection[str], limit: int = 3) -> str:
    """Say which of `names` resemble `name`, as the end of a message: `` (did you mean 'a' or 'b'?)`` or ``""``."""

    def likeness(candidate: str) -> float:
        return difflib.SequenceMatcher(None, name.lower(), candidate.lower()).ratio()

    # The sort is stable, so that equal matches keep the order of `names`.
    close = sorted(
        (candidate for candidate in dict.fromkeys(names) if likeness(candidate) >= 0.5),
        key=likeness,
        reverse=True,
    )
    close = (
        close[:limit]
        or [candidate for candidate in names if name.lower() in candidate.lower()][
            :limit
        ]
    )
    return (
        f" (did you mean {' or '.join(repr(match) for match in close)}?)"
        if close
        else ""
    )


def warn_user(message: str) -> None:
    """Warn of something, at the line of the user's code that called unitscope."""
    frame = inspect.currentframe()
    level = 0
    while frame is not None and frame.f_globals.get("__name__", "").startswith(
        "unitscope."
    ):
        frame = frame.f_back
        level += 1
    warnings.warn(message, UnitscopeWarning, stacklevel=level + 1)
