"""Limits: how much the explorer's server takes from clients, and how long it waits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds in bytes and seconds that keep one client from holding up the others."""

    upload_bytes: int = 32 << 20
    """Largest photo."""

    question_bytes: int = 256 << 10
    """Largest list of units."""

    small_bytes: int = 256 << 10
    """Bodies up to this size are read at any time; larger ones wait for a place."""

    uploads_at_once: int = 8
    """Large bodies in memory at the same time, a quarter of them of one client."""

    waiting: int = 32
    """Requests that may wait for the model before more are refused with status 503."""

    grace: float = 15.0
    """Seconds for a small body, and for a place among the large ones."""

    slowest: int = 64 << 10
    """Bytes a second that a client must send after the grace period."""

    longest: float = 60.0
    """Seconds for any body, whatever its size."""

    patience: float = 20.0
    """Seconds after which a connection without traffic is closed."""
