"""Times as Kubernetes writes them. Nothing here waits or schedules."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def now(after: int = 0) -> str:
    """This moment, or so many seconds ``after`` it, to the second: ``2026-11-23T10:59:03Z``."""
    return (datetime.now(UTC) + timedelta(seconds=after)).strftime("%Y-%m-%dT%H:%M:%SZ")


def now_micro() -> str:
    """This moment, to the microsecond, as events and leases have it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def seconds(text: str | None) -> float:
    """A Kubernetes time as seconds since the epoch; 0 when there is none."""
    return datetime.fromisoformat(text).timestamp() if text else 0.0


def age(text: str | None) -> float:
    """Seconds since a Kubernetes time. A time without fractions may lie up to a second too far back."""
    return datetime.now(UTC).timestamp() - seconds(text)
