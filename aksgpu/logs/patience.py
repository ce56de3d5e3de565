"""How long a reader of logs goes on asking, and after which answers. Sends nothing."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from aksgpu import waiting
from aksgpu.errors import Expired, Forbidden, KubernetesError, Unauthorized, Unreachable

SILENT = "silent"
"""No answer, or the answer of a server that cannot serve now."""
REFUSED = "refused"
"""Nobody listens at the address."""
DENIED = "denied"
"""Permission or login was refused by a server that may just have started."""

FIRST_PAUSE = 0.1
"""Seconds of the first pause."""
LONGEST_PAUSE = 10.0
"""Seconds of the longest pause."""
_COUNTED = 60.0
"""Seconds that one attempt may count: a computer that was suspended has not waited."""


@dataclass(frozen=True)
class Limits:
    """Seconds of failures in a row after which a reader gives up, per kind of failure."""

    silent: float
    refused: float
    denied: float


def retryable(failed: KubernetesError, *, answered: bool = False) -> str:
    """The kind of a failure that another attempt may cure; empty for one that it cannot.

    Args:
        failed: what the server answered.
        answered: whether the same question was answered before, so that the right is there.
    """
    if isinstance(failed, Unreachable):
        return REFUSED if failed.refused else SILENT
    if (
        isinstance(failed, Expired)
        or failed.http_status is None
        or failed.http_status == 429
        or failed.http_status >= 500
    ):
        return SILENT
    if isinstance(failed, Forbidden):
        # An API server that has just started has not read its roles yet.
        return DENIED if answered or "RBAC: " in failed.message else ""
    if isinstance(failed, Unauthorized):
        return DENIED
    return ""


class Patience:
    """Counts the time of failures in a row, and pauses between attempts.

    Args:
        limits: seconds after which :meth:`spent` is true.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.renew()

    def renew(self) -> None:
        """An answer came: begin again."""
        self._last = time.monotonic()
        self._waited = dict.fromkeys((SILENT, REFUSED, DENIED), 0.0)
        self._pause = FIRST_PAUSE

    def spent(self, kind: str) -> bool:
        """Count a failure. Return True when it is time to give up, or when the caller's deadline has passed."""
        if waiting.time_left() == 0:
            return True
        now = time.monotonic()
        passed = min(now - self._last, _COUNTED)
        self._last = now
        self._waited[kind] += passed
        limit: float = getattr(self._limits, kind)
        return self._waited[kind] >= limit or sum(self._waited.values()) >= self._limits.silent

    def sleep(self) -> None:
        """Pause, longer each time, with jitter."""
        waiting.pause(self._pause * (0.5 + random.random() / 2))
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
