"""Grammar: the settings of a preprocessing, written as text."""

from __future__ import annotations

from typing import Any

from unitscope.errors import PreprocessingError


def settings_in(text: str) -> dict[str, Any]:
    """The settings in text such as "resize=144,crop=128"; raises PreprocessingError.

    See `Preprocessing.parse`.
    """
    settings: dict[str, Any] = {}
    if "resize" in text and "crop" not in text:
        settings["crop"] = None
    for item in text.split(","):
        key, _, value = item.partition("=")
        key = key.strip()
        try:
            settings[key] = _parsed(key, value.strip())
        except ValueError:
            raise PreprocessingError(
                f"preprocessing {item.strip()!r} cannot be read: write for instance "
                "'resize=256,crop=224' or 'resize=227x227,mean=0.5/0.5/0.5,"
                "std=0.5/0.5/0.5,interpolation=bicubic'; there are also scale=255, "
                "order=bgr, mean=FILE.npy and white=4095"
            ) from None
    return settings


def _parsed(key: str, value: str) -> Any:
    """The value of one setting in text; raises ValueError where it cannot be read."""
    if key in ("resize", "crop"):
        return _parsed_size(value)
    if key == "mean" and value.lower().endswith(".npy"):
        return value
    if key in ("mean", "std"):
        return tuple(float(number) for number in value.split("/"))
    if key in ("scale", "white"):
        number = float(value)
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
    rows, *others = (int(side) for side in value.split("x"))
    return (rows, others[0]) if others else rows
