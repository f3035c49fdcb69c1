"""PNGs: what a PNG file says of its samples that Pillow does not pass on."""

from __future__ import annotations

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = 8
_CHECKSUM = 4


def significant_bits(data: bytes) -> int | None:
    """The significant bits of the widest band of a PNG file; None where it names none.

    Source: PNG specification, chunk sBIT.
    """
    if not data.startswith(_SIGNATURE):
        return None
    place = len(_SIGNATURE)
    while place + _HEADER <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        kind = data[place + 4 : place + _HEADER]
        content = data[place + _HEADER : place + _HEADER + length]
        if kind == b"sBIT":
            return _widest(content)
        # Pixels follow, before which the chunk has its place.
        if kind in (b"IDAT", b"PLTE"):
            return None
        place += _HEADER + length + _CHECKSUM
    return None


def _widest(content: bytes) -> int | None:
    bits = max(content, default=0)
    return bits if 1 <= bits <= 16 else None
