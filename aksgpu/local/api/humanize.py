"""Durations and label selectors as kubectl shows them to people."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any


def human_duration(seconds: float) -> str:
    """A duration as in kubectl's AGE column: two units at most, coarser the longer it is."""
    total = int(seconds)
    if total < -1:
        return "<invalid>"
    if total < 120:
        return f"{max(total, 0)}s"
    minutes, hours, days = total // 60, total // 3600, total // 86400
    if minutes < 10:
        return _two(minutes, "m", total % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _two(days, "d", hours % 24, "h")
    if days < 365 * 2:
        return f"{days}d"
    if days < 365 * 8:
        return _two(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"


def moment(text: str) -> datetime:
    """A timestamp of the API as a time; ValueError for anything else."""
    parsed = datetime.fromisoformat(text)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def since(text: Any, now: datetime) -> str:
    """How long ago a timestamp was; ``<unknown>`` when there is none."""
    try:
        return human_duration((now - moment(text)).total_seconds())
    except (TypeError, ValueError):
        return "<unknown>"


def labels_text(labels: Mapping[str, str] | None) -> str:
    """``a=1,b=2``, or ``<none>``."""
    return ",".join(f"{key}={labels[key]}" for key in sorted(labels)) if labels else "<none>"


def selector_text(selector: Mapping[str, Any] | None) -> str:
    """A LabelSelector as kubectl writes one: ``app=x,tier in (a,b),!old``."""
    if selector is None:
        return "<none>"
    parts = {key: f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()}
    for rule in selector.get("matchExpressions") or ():
        key, values = rule["key"], ",".join(sorted(rule.get("values") or ()))
        parts[key] = {
            "In": f"{key} in ({values})",
            "NotIn": f"{key} notin ({values})",
            "Exists": key,
            "DoesNotExist": f"!{key}",
        }.get(rule["operator"], "<error>")
    return ",".join(parts[key] for key in sorted(parts)) or "<none>"
