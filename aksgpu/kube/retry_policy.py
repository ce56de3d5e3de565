"""The one policy for failed requests: which failures are worth another try, and for how long.

Failures that pass by themselves are no answer at all (a refused, broken, silent or cut connection), an answer that
breaks off, and the statuses 408, 429, 500, 502, 503 and 504. For some seconds after its start an API server also
answers 403 to users who have the right, because it has not read its roles yet. A 401 is answered with new credentials
by :mod:`aksgpu.kube.transport`, once. Everything else is the server's decision and is raised at once.

A read is repeated after each of these. A write is repeated in three cases: the server surely did not carry it out, a
second time changes nothing, or the caller can tell afterwards what became of the first time. The caller says which.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from aksgpu import waiting
from aksgpu.errors import Forbidden, Invalid, KubernetesError, Unreachable
from aksgpu.kube.backoff import Backoff

T = TypeVar("T")

PATIENCE = 65.0
"""Seconds that a call outside a wait goes on. An API server that is stopped gracefully refuses connections for 60."""
ROLES_PATIENCE = 20.0
"""Seconds that a 403 is believed to come from an API server that has not read its roles yet."""
TRANSIENT_STATUSES = frozenset((408, 429, 500, 502, 503, 504))
"""HTTP statuses of failures that pass by themselves."""
FIRST_PAUSE = 0.1
"""Seconds between the first two attempts; each further pause is twice as long."""
LONGEST_PAUSE = 5.0
"""Seconds between two attempts, at most."""


def is_transient(failed: KubernetesError) -> bool:
    """Whether the same request may succeed a little later."""
    if isinstance(failed, Unreachable):
        return not failed.permanent
    if isinstance(failed, Invalid):
        return False
    return (failed.code in TRANSIENT_STATUSES and not _is_ahead(failed)) or roles_are_missing(failed)


def roles_are_missing(failed: KubernetesError) -> bool:
    """Whether a 403 says that a role of the user was not found, as after the start of an API server."""
    return isinstance(failed, Forbidden) and "RBAC: " in failed.message and "not found" in failed.message


def is_unsent(failed: KubernetesError) -> bool:
    """Whether the server surely did not carry out the request."""
    if isinstance(failed, Unreachable) and failed.unsent:
        return True
    return failed.code == 429 or roles_are_missing(failed)


def call(attempt: Callable[[bool], T], what: str, *, repeat_lost: bool = True) -> T:
    """Call ``attempt`` until it succeeds, fails for good, or time is up.

    Time is that of the innermost :func:`aksgpu.waiting.deadline`, or else :data:`PATIENCE`.

    Args:
        attempt: sends the request once. Its argument says whether an earlier attempt may have been carried out.
        what: the request in words, for errors.
        repeat_lost: whether to repeat a request that the server may have carried out.

    Raises:
        KubernetesError: the server's decision.
        Unreachable: the last failure when time was up, or when a request that may have been carried out is not to be
            repeated.
    """
    with patience():
        return _call(attempt, what, repeat_lost)


@contextlib.contextmanager
def patience() -> Iterator[None]:
    """Limit what is sent within the ``with`` block to :data:`PATIENCE`, unless a deadline limits it already."""
    if waiting.time_left() is None:
        with waiting.deadline(PATIENCE):
            yield
    else:
        yield


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
                if not is_transient(failed):
                    raise
                if not is_unsent(failed):
                    lost = True
                    if not repeat_lost:
                        raise
                passed = time.monotonic() - began
                if roles_are_missing(failed) and passed > ROLES_PATIENCE:
                    raise
                if pause.over:
                    raise _given_up(failed, what, tries, passed) from None
                notice.say(f"{failed.message.splitlines()[0]}; trying again")
                wanted = failed.retry_after
            waiting.pause(wanted) if wanted is not None else pause.sleep()


def _given_up(failed: KubernetesError, what: str, tries: int, seconds: float) -> Unreachable:
    """The error when time is up: with the last failure's text, status and hint."""
    times = "once" if tries == 1 else f"{tries} times"
    return Unreachable(
        f"{failed.message}\n({what}: tried {times} in {seconds:.0f} s)",
        status=failed.status,
        hint=failed.hint,
        refused=isinstance(failed, Unreachable) and failed.refused,
        original=failed.original or failed,
    )


def _is_ahead(failed: KubernetesError) -> bool:
    """Whether the server does not know a resource version yet; asking again without one is the caller's part."""
    return failed.code == 504 and "Too large resource version" in failed.message
