"""The loop behind :meth:`aksgpu.kube.Kube.watch`: go on whatever the server and the network do.

A server closes every watch after a while, a broken connection delivers nothing for ever, and a position grows too old.
Here the three become one stream of changes. Who is asked, and for which objects, is the caller's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from aksgpu._kube.backoff import Backoff
from aksgpu._kube.refusals import refusal
from aksgpu._kube.wire import Stream, decode
from aksgpu.errors import Expired, Unreachable

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
        self._open, self._list, self._seconds = open, list, seconds
        self._known: dict[str, Object] = {}
        self._position: str | None = None

    def events(self, position: str | None, timeout: float | None) -> Iterator[Event]:
        """See :meth:`aksgpu.kube.Kube.watch`."""
        deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
        listed, self._position = position is None, position
        pause = Backoff(deadline)
        while time.monotonic() < deadline:
            try:
                if self._position is None:
                    yield from self._relist()
                began = time.monotonic()
                for event in self._stream(deadline):
                    pause.reset()
                    yield event
                if time.monotonic() - began < 1.0:  # never ask in a hot loop, however soon the server hangs up
                    pause.sleep()
            except Expired:
                if not listed:
                    raise
                self._position = None
                pause.sleep()
            except Unreachable:
                pause.sleep()

    def _relist(self) -> Iterator[Event]:
        """What a fresh list says against what was known."""
        objects, position = self._list()
        gone = dict(self._known)
        for obj in objects:
            before = gone.pop(_key(obj), None)
            if before is None:
                yield "ADDED", obj
            elif _version(before) != _version(obj):
                yield "MODIFIED", obj
            self._known[_key(obj)] = obj
        for key, obj in gone.items():
            del self._known[key]
            yield "DELETED", obj
        self._position = position

    def _stream(self, deadline: float) -> Iterator[Event]:
        """One request's changes, until the server ends it."""
        seconds = max(1, int(min(self._seconds, deadline - time.monotonic() + 1)))
        params = {
            "watch": True,
            "resourceVersion": self._position,
            "allowWatchBookmarks": True,
            "timeoutSeconds": seconds,
        }
        with self._open(params, {"read_timeout": seconds + GRACE, "retry": False}) as stream:
            for line in stream.lines():
                try:
                    event = decode(line)
                except ValueError:  # cut off in the middle: the next request begins with this event
                    return
                change, obj = event["type"], event["object"]
                if change == "ERROR":
                    raise refusal(obj)
                self._position = _version(obj)
                if change != "BOOKMARK":
                    self._note(change, obj)
                    yield change, obj
                if time.monotonic() >= deadline:
                    return

    def _note(self, change: str, obj: Object) -> None:
        if change == "DELETED":
            self._known.pop(_key(obj), None)
        else:
            self._known[_key(obj)] = obj


def _key(obj: Object) -> str:
    metadata = obj["metadata"]
    return str(metadata.get("uid") or f"{metadata.get('namespace')}/{metadata['name']}")


def _version(obj: Object) -> str:
    return str(obj["metadata"]["resourceVersion"])
