"""Timestamps in the form that the Kubernetes API uses."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import lru_cache

__all__ = ["age", "now", "now_micro", "parse", "seconds"]


def now(after: int = 0) -> str:
    """Return the current time plus ``after`` seconds, in whole seconds: ``2026-11-23T10:59:03Z``."""
    return _format(int(time.time()) + after)


@lru_cache(maxsize=64)
def _format(second: int) -> str:
    """Return a time in seconds since the epoch as a timestamp."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def now_micro() -> str:
    """Return the current time with microseconds, which is the format of events and leases."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse(stamp: object) -> datetime | None:
    """Return a timestamp of an object; None if it is missing, invalid or without a time zone."""
    try:
        found = datetime.fromisoformat(str(stamp)) if stamp else None
    except ValueError:
        return None
    return found if found is not None and found.tzinfo is not None else None


def seconds(text: str | None) -> float:
    """Return a timestamp as seconds since the epoch, or 0.0 if ``text`` is None or empty."""
    return datetime.fromisoformat(text).timestamp() if text else 0.0


def age(text: str | None) -> float:
    """Return the seconds since a timestamp.

    A timestamp in whole seconds was rounded down, so the result may be up to one second too large.
    """
    return datetime.now(UTC).timestamp() - seconds(text)
