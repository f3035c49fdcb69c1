"""Grammar: the settings of a preprocessing, written as text."""

from __future__ import annotations

import re
from typing import Any

from unitscope.errors import PreprocessingError

_SIDE = r"[0-9]{1,6}"
_SIZE = re.compile(rf"({_SIDE})(?:x({_SIDE}))?")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]{1,2})?")


def settings_in(text: str) -> dict[str, Any]:
    """The settings in text such as "resize=144,crop=128"; raises PreprocessingError.

    See `Preprocessing.parse`.
    """
    settings: dict[str, Any] = {}
    for item in text.split(","):
        key, _, value = item.partition("=")
        key = key.strip()
        if key in settings:
            raise PreprocessingError(
                f"preprocessing {text!r} gives {key!r} twice: give each once"
            )
        try:
            settings[key] = _parsed(key, value.strip())
        except ValueError:
            raise PreprocessingError(
                f"preprocessing {item.strip()!r} cannot be read: write for instance "
                "'resize=256,crop=224' or 'resize=227x227,mean=0.5/0.5/0.5,"
                "std=0.5/0.5/0.5,interpolation=bicubic'; there are also scale=255, "
                "order=bgr, mean=FILE.npy and white=4095"
            ) from None
    if "resize" in settings:
        settings.setdefault("crop", None)
    return settings


def _parsed(key: str, value: str) -> Any:
    """The value of one setting in text; raises ValueError where it cannot be read."""
    if key in ("resize", "crop"):
        return _parsed_size(value)
    if key == "mean" and value.lower().endswith(".npy"):
        return value
    if key in ("mean", "std"):
        return tuple(_number(part) for part in value.split("/"))
    if key in ("scale", "white"):
        number = _number(value)
        return int(number) if number.is_integer() else number
    if key == "interpolation":
        return value
    if key == "order":
        return value.lower()
    raise ValueError(key)


def _parsed_size(value: str) -> int | tuple[int, int] | None:
    value = value.lower()
    if value == "none":
        return None
    match = _SIZE.fullmatch(value)
    if match is None:
        raise ValueError(value)
    rows, cols = match.groups()
    return int(rows) if cols is None else (int(rows), int(cols))


def _number(text: str) -> float:
    """A number as people write it: float() also takes nan, inf, 1_0 and foreign digits."""
    text = text.strip().lower()
    if not _NUMBER.fullmatch(text):
        raise ValueError(text)
    return float(text)
