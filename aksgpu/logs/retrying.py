"""How long a reader of logs repeats its requests, and after which failures. This module sends no requests.

:mod:`aksgpu.kube.retry_policy` defines which failures are temporary. A reader of logs adds three: 401, 410, and a 403
for a request that was allowed before. Each request is sent with :func:`aksgpu.kube.retry_policy.single_attempt`, so
that only one of the two modules repeats it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from aksgpu import waiting
from aksgpu.errors import Expired, Forbidden, KubernetesError, StreamLost, Unauthorized, Unreachable
from aksgpu.kube import retry_policy

__all__ = ["Failure", "Limits", "RetryTimer", "call", "gave_up", "kind_of_failure"]

T = TypeVar("T")


class Failure(StrEnum):
    """Kinds of failures after which another attempt may succeed."""

    SILENT = "silent"
    """There was no response, or the response of a server that is temporarily unavailable."""
    REFUSED = "refused"
    """The connection was refused."""
    DENIED = "denied"
    """A server that may have just started refused the login or the permission."""


FIRST_PAUSE = 0.1
"""Seconds of the first pause."""
LONGEST_PAUSE = 10.0
"""Seconds of the longest pause."""
LONGEST_ATTEMPT = 60.0
"""Longest time in seconds that is counted for one attempt, so that a suspended computer does not count as waiting."""


@dataclass(frozen=True)
class Limits:
    """Seconds of failures in a row after which a reader gives up, per kind of failure."""

    silent: float
    refused: float
    denied: float

    @classmethod
    def same(cls, seconds: float) -> Limits:
        """Return limits that are the same for each kind."""
        return cls(seconds, seconds, seconds)


def kind_of_failure(failed: KubernetesError, *, succeeded_before: bool = False) -> Failure | None:
    """Return the kind of a failure; None if another attempt cannot succeed.

    Args:
        failed: the failure.
        succeeded_before: whether the same request succeeded before, so that the caller has the permission.
    """
    if isinstance(failed, Unauthorized) or retry_policy.roles_are_missing(failed):
        return Failure.DENIED
    if isinstance(failed, Forbidden):
        return Failure.DENIED if succeeded_before else None
    if isinstance(failed, Expired):
        return Failure.SILENT
    if not retry_policy.is_transient(failed):
        return None
    if isinstance(failed, Unreachable) and failed.refused:
        return Failure.REFUSED
    return Failure.SILENT


class RetryTimer:
    """Counts the time of failures in a row, and pauses between attempts.

    Args:
        limits: seconds after which :meth:`is_over` returns True; 0 means after the first failure.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.reset()

    def reset(self) -> None:
        """Start again after a response."""
        self._last = time.monotonic()
        self._waited = dict.fromkeys(Failure, 0.0)
        self._pause = FIRST_PAUSE

    def is_over(self, kind: Failure) -> bool:
        """Count a failure. Return whether to give up: the limit is reached, or the caller's deadline has passed."""
        if waiting.time_left() == 0:
            return True
        now = time.monotonic()
        passed = min(now - self._last, LONGEST_ATTEMPT)
        self._last = now
        self._waited[kind] += passed
        limit: float = getattr(self._limits, kind.value)
        return self._waited[kind] >= limit or sum(self._waited.values()) >= self._limits.silent

    def sleep(self, retry_after: float | None = None) -> None:
        """Pause, longer each time, with jitter.

        Args:
            retry_after: seconds that the server asked to wait; None if it did not.
        """
        if retry_after is not None:
            waiting.pause(min(retry_after, LONGEST_ATTEMPT))
            return
        waiting.pause(self._pause * (0.5 + random.random() / 2))
        self._pause = min(self._pause * 2, LONGEST_PAUSE)


def call(send: Callable[[], T], timer: RetryTimer, what: str, *, succeeded_before: bool = True) -> T:
    """Call ``send`` until the request succeeds.

    Args:
        send: sends the request.
        timer: limits the failures in a row. It is reset first.
        what: what is requested, for the error.
        succeeded_before: whether the same request succeeded before.

    Raises:
        StreamLost: the failures lasted too long.
        KubernetesError: another attempt cannot succeed.
    """
    timer.reset()
    with waiting.Notice("the Kubernetes API server") as notice:
        while True:
            try:
                with retry_policy.single_attempt():
                    return send()
            except KubernetesError as failed:
                kind = kind_of_failure(failed, succeeded_before=succeeded_before)
                if kind is None:
                    raise
                if timer.is_over(kind):
                    raise gave_up(what, failed) from None
                notice.say(f"{failed.message.splitlines()[0]}; trying again")
                retry_after = failed.retry_after
            timer.sleep(retry_after)


def gave_up(what: str, failed: KubernetesError) -> KubernetesError:
    """Return the error for failures that lasted too long."""
    if isinstance(failed, Unauthorized | Forbidden):
        return failed
    return StreamLost(
        f"{what}: there was no response for too long; the last failure was: {failed.message}",
        status=failed.status,
        hint=f"Follow the log again; no line is lost. {failed.hint}".strip(),
        refused=isinstance(failed, Unreachable) and failed.refused,
        original=failed.original or failed,
    )
