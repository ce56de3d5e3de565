"""The loop of :meth:`aksgpu.kube.Kube.watch`.

A server closes each watch after a while, a broken connection may stay silent, and a position becomes too old. The loop
handles this and yields one stream of changes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from aksgpu import waiting
from aksgpu.common.kubernetes_objects import Object
from aksgpu.errors import Expired, KubernetesError, Unreachable
from aksgpu.kube import retry_policy
from aksgpu.kube.backoff import Backoff
from aksgpu.kube.decoding import decode
from aksgpu.kube.status_errors import from_status
from aksgpu.kube.transport import Stream

__all__ = ["GRACE", "Event", "Watch"]

Event = tuple[str, Object]

GRACE = 15.0
"""Seconds without a byte after the end time of a watch request until the connection counts as broken."""


SHORTEST_REQUEST = 1.0
"""Length in seconds of a watch request below which a pause follows, since a server may end each request at once."""


class Watch:
    """Follows a collection.

    Args:
        open: opens one watch request, given its query parameters and the transport's options.
        list: returns all objects, and the resourceVersion of the list.
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
        self._has_response = False
        self._position: str | None = None

    def events(self, position: str | None, timeout: waiting.Timeout) -> Iterator[Event]:
        """Yield the changes; see :meth:`aksgpu.kube.Kube.watch`."""
        timer = waiting.Timer(timeout)
        may_relist = position is None
        self._position = position
        pause = Backoff(time.monotonic() + timer.left)
        failure: KubernetesError | None = None
        roles = _MissingRoles()
        while True:
            self._has_response = False
            try:
                if self._position is None:
                    yield from self._relist(timer)
                    if timer.left <= 0:
                        return
                began = time.monotonic()
                for event in self._stream(timer):
                    pause.reset()
                    yield event
                failure = None
                roles.reset()
                if time.monotonic() - began < SHORTEST_REQUEST:
                    pause.sleep()
            except Expired:
                if not may_relist:
                    raise
                self._position = None
                pause.sleep()
            except KubernetesError as failed:
                if not retry_policy.is_transient(failed) or roles.are_missing_permanently(failed):
                    raise
                failure = None if self._has_response else failed
                pause.sleep()
            if timer.left <= 0:
                break
        if failure is not None:
            raise _no_response(failure, timer.limit) from None

    def _relist(self, timer: waiting.Timer) -> Iterator[Event]:
        """List again, and yield the differences. Deletions come first, before new objects of the same name."""
        with waiting.deadline(timer.left):
            objects, position = self._list()
        self._has_response = True
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
        """Yield the changes of one watch request."""
        seconds = max(1, int(min(self._seconds, timer.left + 1)))
        params = {
            "watch": True,
            "resourceVersion": self._position,
            "allowWatchBookmarks": True,
            "timeoutSeconds": seconds,
        }
        with self._open(params, {"read_timeout": seconds + GRACE}) as stream:
            self._has_response = True
            for line in stream.lines():
                try:
                    event = decode(line)
                except ValueError:  # an incomplete event: the next request starts with it
                    return
                change = event["type"]
                obj = event["object"]
                if change == "ERROR":
                    raise from_status(obj)
                if change != "BOOKMARK":
                    yield from self._changes(change, obj)
                self._position = _version(obj)
                if timer.left <= 0:
                    return

    def _changes(self, change: str, obj: Object) -> Iterator[Event]:
        """Yield an event. If it is about a new object of a known name, yield the old object's deletion first."""
        key = _key(obj)
        before = self._known.get(key)
        replaced = before is not None and _uid(before) != _uid(obj)
        if change == "DELETED":
            if replaced:  # the new object is known, so this deletion was yielded before
                return
            self._known.pop(key, None)
            yield change, obj
            return
        self._known[key] = obj
        if before is not None and replaced:
            yield "DELETED", before
            change = "ADDED"
        yield change, obj


class _MissingRoles:
    """Decides when a 403 is no longer caused by the start of an API server."""

    def __init__(self) -> None:
        self._since: float | None = None

    def reset(self) -> None:
        self._since = None

    def are_missing_permanently(self, failed: KubernetesError) -> bool:
        if not retry_policy.roles_are_missing(failed):
            self._since = None
            return False
        if self._since is None:
            self._since = time.monotonic()
        return time.monotonic() - self._since > retry_policy.ROLES_TIMEOUT


def _no_response(failure: KubernetesError, seconds: float) -> Unreachable:
    return Unreachable(
        f"the watch ended after {seconds:g} s without a response: {failure.message}",
        status=failure.status,
        hint=failure.hint,
        original=failure.original or failure,
    )


def _key(obj: Object) -> tuple[str, str]:
    metadata = obj["metadata"]
    return str(metadata.get("namespace") or ""), str(metadata["name"])


def _uid(obj: Object) -> str:
    return str(obj["metadata"].get("uid") or "")


def _version(obj: Object) -> str:
    return str(obj["metadata"]["resourceVersion"])
