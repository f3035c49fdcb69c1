"""Image hashes: a digest of an image's bytes, and a random number from its id."""

from __future__ import annotations

import hashlib


def digest_of(data: bytes) -> str:
    """The BLAKE2b digest of an image's bytes, 128 bits, in hexadecimal."""
    digest = hashlib.blake2b(data, digest_size=16)
    return digest.hexdigest()


def hash_key_of(id_: str) -> int:
    """A random number of 64 bits from an image's id: the same in every run."""
    encoded = id_.encode("utf-8", "surrogateescape")
    digest = hashlib.blake2b(encoded, digest_size=8)
    return int.from_bytes(digest.digest(), "little")
