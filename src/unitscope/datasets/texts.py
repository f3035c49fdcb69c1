"""Text files as people have them, in UTF-8 or UTF-16."""

from __future__ import annotations

from pathlib import Path

from unitscope.datasets.base import EXPECTED
from unitscope.errors import DatasetError, one_line
from unitscope.files import read_at_most

_LARGEST = 1 << 30

_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def read_text(path: Path) -> str:
    """The contents of a text file; raises DatasetError."""
    try:
        data = read_at_most(path, _LARGEST)
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"'{path}' cannot be read ({one_line(error)}): check the path and its "
            "permissions"
        ) from None
    if data is None:
        raise DatasetError(
            f"'{path}' is larger than {_LARGEST >> 20} MiB, too large for a text file: "
            "give a folder, or tables in Parquet"
        )
    return decoded(data, f"'{path}'")


def decoded(data: bytes, where: str) -> str:
    """Text in UTF-8, or in UTF-16 with a byte-order mark; raises DatasetError."""
    encoding = "utf-16" if data[:2] in _UTF16_MARKS else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        raise DatasetError(
            f"{where} is not UTF-8 text: save it as UTF-8"
        ) from None
    if "\0" in text:
        raise DatasetError(f"{where} is not text: expected {EXPECTED}")
    return text
