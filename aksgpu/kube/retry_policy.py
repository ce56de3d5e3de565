"""Which failed requests are repeated, and for how long.

Temporary failures are a connection that is refused, broken or silent, a response that ends early, and the statuses 408,
429, 500, 502, 503 and 504. For some seconds after its start, an API server also returns 403 to users who have the
permission, because it has not read its roles yet. After a 401, :mod:`aksgpu.kube.transport` tries once
more with new credentials. All other errors are raised at once.

A read is repeated after each temporary failure. A write is repeated in three cases: the server certainly did not apply
it, a second attempt changes nothing, or the caller can check afterwards whether the first attempt was applied.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TypeVar

from aksgpu import waiting
from aksgpu.errors import Forbidden, Invalid, KubernetesError, Unreachable
from aksgpu.kube.backoff import Backoff

__all__ = [
    "DEFAULT_TIMEOUT",
    "FIRST_PAUSE",
    "LONGEST_PAUSE",
    "ROLES_TIMEOUT",
    "TRANSIENT_STATUSES",
    "call",
    "default_deadline",
    "is_transient",
    "is_unsent",
    "roles_are_missing",
    "single_attempt",
]

T = TypeVar("T")

DEFAULT_TIMEOUT = 65.0
"""Seconds for which a call outside a wait is repeated. An API server that restarts may refuse connections for 60."""
ROLES_TIMEOUT = 20.0
"""Seconds for which a 403 may come from an API server that has not read its roles yet."""
TRANSIENT_STATUSES = frozenset((408, 429, 500, 502, 503, 504))
"""HTTP statuses of temporary failures."""
FIRST_PAUSE = 0.1
"""Seconds between the first two attempts; each further pause is twice as long."""
LONGEST_PAUSE = 5.0
"""Seconds between two attempts, at most."""

_single_attempt: ContextVar[bool] = ContextVar("aksgpu_single_attempt", default=False)


def is_transient(failed: KubernetesError) -> bool:
    """Return whether the same request may succeed a little later."""
    if isinstance(failed, Unreachable):
        return not failed.permanent
    if isinstance(failed, Invalid):
        return False
    return (failed.http_status in TRANSIENT_STATUSES and not _is_ahead(failed)) or roles_are_missing(failed)


def roles_are_missing(failed: KubernetesError) -> bool:
    """Return whether a 403 says that a role was not found, which happens after the start of an API server."""
    return isinstance(failed, Forbidden) and "RBAC: " in failed.message and "not found" in failed.message


def is_unsent(failed: KubernetesError) -> bool:
    """Return whether the server certainly did not process the request."""
    if isinstance(failed, Unreachable) and failed.unsent:
        return True
    return failed.http_status == 429 or roles_are_missing(failed)


def call(attempt: Callable[[bool], T], what: str, *, repeat_lost: bool = True) -> T:
    """Call ``attempt`` until it succeeds, fails permanently, or the time is up.

    The limit is the innermost :func:`aksgpu.waiting.deadline`, or else :data:`DEFAULT_TIMEOUT`.

    Args:
        attempt: sends the request once. Its argument is whether the server may have processed an earlier attempt.
        what: a description of the request, for errors.
        repeat_lost: whether to repeat a request that the server may have processed.

    Raises:
        KubernetesError: the server's error.
        Unreachable: the last failure when the time was up, or when a request that the server may have processed must
            not be repeated.
    """
    with default_deadline():
        return _call(attempt, what, repeat_lost)


@contextlib.contextmanager
def default_deadline() -> Iterator[None]:
    """Limit the requests in a ``with`` block to :data:`DEFAULT_TIMEOUT`, unless a deadline is already set."""
    if waiting.time_left() is None:
        with waiting.deadline(DEFAULT_TIMEOUT):
            yield
    else:
        yield


@contextlib.contextmanager
def single_attempt() -> Iterator[None]:
    """Send each request within the ``with`` block once. The caller decides whether to repeat it."""
    token = _single_attempt.set(True)
    try:
        yield
    finally:
        _single_attempt.reset(token)


def _call(attempt: Callable[[bool], T], what: str, repeat_lost: bool) -> T:
    began = time.monotonic()
    left = waiting.time_left() or 0.0
    pause = Backoff(began + left, first=FIRST_PAUSE, longest=LONGEST_PAUSE)
    lost = False
    tries = 0
    with waiting.Notice("the Kubernetes API server") as notice:
        while True:
            tries += 1
            try:
                return attempt(lost)
            except KeyboardInterrupt:
                raise waiting.Interrupted(f"{what} was interrupted. It may have been carried out.") from None
            except KubernetesError as failed:
                if _single_attempt.get() or not is_transient(failed):
                    raise
                if not is_unsent(failed):
                    lost = True
                    if not repeat_lost:
                        raise
                passed = time.monotonic() - began
                if roles_are_missing(failed) and passed > ROLES_TIMEOUT:
                    raise
                if pause.over:
                    raise _given_up(failed, what, tries, passed) from None
                notice.say(f"{failed.message.splitlines()[0]}; trying again")
                retry_after = failed.retry_after
            if retry_after is not None:
                waiting.pause(retry_after)
            else:
                pause.sleep()


def _given_up(failed: KubernetesError, what: str, tries: int, seconds: float) -> Unreachable:
    """Return the error for the end of the time, with the text, status and hint of the last failure."""
    times = "once" if tries == 1 else f"{tries} times"
    return Unreachable(
        f"{failed.message}\n({what}: tried {times} in {seconds:.0f} s)",
        status=failed.status,
        hint=failed.hint,
        refused=isinstance(failed, Unreachable) and failed.refused,
        original=failed.original or failed,
    )


def _is_ahead(failed: KubernetesError) -> bool:
    """Return whether a resourceVersion is newer than the server's. The caller must list again without one."""
    return failed.http_status == 504 and "Too large resource version" in failed.message
