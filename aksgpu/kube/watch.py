"""The loop behind :meth:`aksgpu.kube.Kube.watch`: go on whatever the server and the network do.

A server closes every watch after a while, a broken connection delivers nothing for ever, and a position grows too old.
Here the three become one stream of changes. Who is asked, and for which objects, is the caller's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from aksgpu import waiting
from aksgpu.errors import Expired, KubernetesError, Unreachable
from aksgpu.kube import retry_policy
from aksgpu.kube.backoff import Backoff
from aksgpu.kube.status_errors import refusal
from aksgpu.kube.transport import Stream, decode

Object = dict[str, Any]
Event = tuple[str, Object]

GRACE = 15.0
"""Seconds that the socket stays silent beyond the server's own end of the watch before it counts as dead."""


class Watch:
    """Follows a collection.

    Args:
        open: opens one watch request, given its query parameters and the wire's options.
        list: gives all objects and the position after them.
        seconds: length of one watch request.
    """

    def __init__(
        self,
        open: Callable[[dict[str, Any], dict[str, Any]], Stream],
        list: Callable[[], tuple[list[Object], str]],
        seconds: float,
    ) -> None:
        self._open = open
        self._list = list
        self._seconds = seconds
        self._known: dict[tuple[str, str], Object] = {}
        self._answered = False
        self._position: str | None = None

    def events(self, position: str | None, timeout: float | None) -> Iterator[Event]:
        """See :meth:`aksgpu.kube.Kube.watch`."""
        timer = waiting.Timer(timeout)
        listed = position is None
        self._position = position
        pause = Backoff(time.monotonic() + timer.left)
        unanswered: KubernetesError | None = None
        roles_missing_since: float | None = None
        while timer.left > 0:
            self._answered = False
            try:
                if self._position is None:
                    yield from self._relist(timer)
                began = time.monotonic()
                for event in self._stream(timer):
                    pause.reset()
                    yield event
                unanswered = roles_missing_since = None
                if time.monotonic() - began < 1.0:  # never ask in a hot loop, however soon the server hangs up
                    pause.sleep()
            except Expired:
                if not listed:
                    raise
                self._position = None
                pause.sleep()
            except KubernetesError as failed:
                if not retry_policy.is_transient(failed):
                    raise
                if not retry_policy.roles_are_missing(failed):
                    roles_missing_since = None
                elif roles_missing_since is None:
                    roles_missing_since = time.monotonic()
                elif time.monotonic() - roles_missing_since > retry_policy.ROLES_PATIENCE:
                    raise
                unanswered = None if self._answered else failed
                pause.sleep()
        if unanswered is not None:
            raise Unreachable(
                f"the watch ended after {timer.limit:g} s without an answer: {unanswered.message}",
                status=unanswered.status,
                hint=unanswered.hint,
                original=unanswered.original or unanswered,
            ) from None

    def _relist(self, timer: waiting.Timer) -> Iterator[Event]:
        """Yield what a fresh list changes: first all deletions, so that an object's successor comes after it."""
        with waiting.deadline(timer.left):
            objects, position = self._list()
        self._answered = True
        fresh = {_key(obj): obj for obj in objects}
        for key, old in [*self._known.items()]:
            if key not in fresh or _uid(fresh[key]) != _uid(old):
                del self._known[key]
                yield "DELETED", old
        for key, obj in fresh.items():
            before = self._known.get(key)
            self._known[key] = obj
            if before is None:
                yield "ADDED", obj
            elif _version(before) != _version(obj):
                yield "MODIFIED", obj
        self._position = position

    def _stream(self, timer: waiting.Timer) -> Iterator[Event]:
        """One request's changes, until the server ends it."""
        seconds = max(1, int(min(self._seconds, timer.left + 1)))
        params = {
            "watch": True,
            "resourceVersion": self._position,
            "allowWatchBookmarks": True,
            "timeoutSeconds": seconds,
        }
        with self._open(params, {"read_timeout": seconds + GRACE}) as stream:
            self._answered = True
            for line in stream.lines():
                try:
                    event = decode(line)
                except ValueError:  # cut off in the middle: the next request begins with this event
                    return
                change = event["type"]
                obj = event["object"]
                if change == "ERROR":
                    raise refusal(obj)
                if change != "BOOKMARK":
                    yield from self._changes(change, obj)
                self._position = _version(obj)
                if timer.left <= 0:
                    return

    def _changes(self, change: str, obj: Object) -> Iterator[Event]:
        """Yield an event of the server, after the deletion of an older object of the same name that was missed."""
        key = _key(obj)
        before = self._known.get(key)
        replaced = before is not None and _uid(before) != _uid(obj)
        if change == "DELETED":
            if replaced:  # the successor is known already, and so this deletion was yielded
                return
            self._known.pop(key, None)
            yield change, obj
            return
        self._known[key] = obj
        if before is not None and replaced:
            yield "DELETED", before
            change = "ADDED"
        yield change, obj


def _key(obj: Object) -> tuple[str, str]:
    metadata = obj["metadata"]
    return str(metadata.get("namespace") or ""), str(metadata["name"])


def _uid(obj: Object) -> str:
    return str(obj["metadata"].get("uid") or "")


def _version(obj: Object) -> str:
    return str(obj["metadata"]["resourceVersion"])
