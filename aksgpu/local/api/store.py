"""The API server's store: SQLite for durability, memory for speed.

A write changes the memory at once, gets the next resourceVersion and is added to the open batch. One thread commits one
batch after another (WAL, ``synchronous=FULL``), so that many writers share one sync of the disk. Watchers see an event
after its commit. A caller that awaits :meth:`Store.durable` never sees a change that a crash could undo.

The store does not interpret objects: names, validation and conflicts are checked by the registry. All methods must be
called in one event loop. Only the commit runs in another thread.
"""

from __future__ import annotations

import asyncio
import gc
import sqlite3
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from itertools import chain, takewhile
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from aksgpu.local.kinds import Kind, get_kind
from aksgpu.local.status_error import StatusError, bad_request, expired

WATCH_CACHE_SIZE = 2048
"""Number of events that are kept per resource.

It limits the age of a watch or a continue token, and the backlog of a slow watcher.
"""

WATCHERS_PER_TURN = 4
"""Number of watchers that get their events in one turn of the event loop."""

Key = tuple[str, str]
"""Namespace, empty for cluster-scoped kinds, and name."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, data BLOB NOT NULL,
    UNIQUE (resource, namespace, name)
);
CREATE TABLE IF NOT EXISTS revision (id INTEGER PRIMARY KEY CHECK (id = 0), value INTEGER NOT NULL);
INSERT OR IGNORE INTO revision VALUES (0, 1);
"""
_ROWS_AT_ONCE = 256
"""Rows that one statement writes."""
_DELETE_ROW = "DELETE FROM objects WHERE resource = ? AND namespace = ? AND name = ?"


class Entry(NamedTuple):
    """One version of an object, with its JSON. It must not be changed."""

    kind: Kind
    obj: dict[str, Any]
    data: bytes
    """The JSON of ``obj``."""
    rv: int
    """The resourceVersion."""

    @property
    def key(self) -> Key:
        """Namespace and name."""
        metadata = self.obj["metadata"]
        return metadata.get("namespace", ""), metadata["name"]

    @property
    def list_item_json(self) -> bytes:
        """The object's JSON in a list: without kind and apiVersion."""
        return b"{" + self.data[len(self.kind.json_prefix) :]


class Event(NamedTuple):
    """One change. ``before`` is the old version of the object, None for ``ADDED``."""

    type: str
    entry: Entry
    before: Entry | None


def encode(kind: Kind, obj: dict[str, Any], rv: int) -> Entry:
    """Return an entry for an object, with kind and apiVersion first.

    Raises BadRequest if the object cannot be written as JSON.
    """
    ordered = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": obj["metadata"]}
    ordered |= {key: value for key, value in obj.items() if key not in ordered}
    try:
        return Entry(kind, ordered, orjson.dumps(ordered), rv)
    except orjson.JSONEncodeError as error:
        raise bad_request(f"the object cannot be written as JSON: {error}") from error


class _Batch:
    """Writes that are committed together."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.rv = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class _WatchCache:
    """Recent events of one resource. A watch can start from ``oldest_version`` or later."""

    def __init__(self, oldest_version: int) -> None:
        self.oldest_version = oldest_version
        self.events: deque[Event] = deque()

    def add(self, event: Event) -> None:
        if len(self.events) >= WATCH_CACHE_SIZE:
            self.oldest_version = self.events.popleft().entry.rv
        self.events.append(event)

    def since(self, rv: int) -> list[Event]:
        """Return the events after a version, oldest first. The cost is proportional to the number of events."""
        return list(takewhile(lambda event: event.entry.rv > rv, reversed(self.events)))[::-1]


class _Waker:
    """Wakes watchers, a few in each turn of the event loop.

    Sending an event to hundreds of watchers takes milliseconds. Responses to other requests are sent in between.
    """

    def __init__(self) -> None:
        self._waiting: deque[Subscription] = deque()

    def add(self, subscription: Subscription) -> None:
        """Wake a watcher soon."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._wake_some)
        self._waiting.append(subscription)

    def _wake_some(self) -> None:
        for _ in range(min(WATCHERS_PER_TURN, len(self._waiting))):
            self._waiting.popleft().wake()
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._wake_some)


@lru_cache(maxsize=_ROWS_AT_ONCE)
def _upsert(rows: int) -> str:
    """Return the statement that writes several rows.

    A thread that executes a statement gives up the interpreter's lock and waits to get it back, so one statement is
    faster than one for each row.
    """
    values = ", ".join(["(?, ?, ?, ?)"] * rows)
    update = "ON CONFLICT (resource, namespace, name) DO UPDATE SET data = excluded.data"
    return f"INSERT INTO objects VALUES {values} {update}"


def _final_rows(events: list[Event]) -> tuple[list[tuple[str, str, str, bytes]], list[tuple[str, str, str]]]:
    """Return the rows to write and the keys of the rows to delete: for each object, what its last event says."""
    last = {(event.entry.kind.plural, *event.entry.key): event for event in events}
    rows = [(*key, event.entry.data) for key, event in last.items() if event.type != "DELETED"]
    deleted = [key for key, event in last.items() if event.type == "DELETED"]
    return rows, deleted


class Subscription:
    """A watcher's queue of events. A watcher that falls too far behind is ended."""

    def __init__(self, store: Store, topic: tuple[str, str | None], backlog: list[Event]) -> None:
        self._store = store
        self._topic = topic
        self._queue: deque[Event] = deque(backlog)
        self._wake = asyncio.Event()
        self._ended = False
        self._error: StatusError | None = None

    def push(self, event: Event) -> None:
        """Add an event, or end the subscription if the watcher is too far behind."""
        if len(self._queue) >= 2 * WATCH_CACHE_SIZE:
            self.end(expired("The resourceVersion for the provided watch is too old."))
            return
        if not self._queue:
            self._store.waker.add(self)
        self._queue.append(event)

    def wake(self) -> None:
        """Let the watcher read the events that have arrived."""
        self._wake.set()

    def end(self, error: StatusError | None = None) -> None:
        """End the watch, or raise ``error`` in it."""
        self._ended = True
        self._error = error
        if error is not None:
            self._queue.clear()
        self._store.unsubscribe(self._topic, self)
        self._wake.set()

    async def next(self, timeout: float | None = None) -> list[Event] | None:
        """Wait for events and return those that have arrived.

        Returns an empty list after ``timeout`` seconds, and None at the end of the watch.
        """
        # The waker may wake it for events that it has already returned, or late for events that have arrived.
        while not self._queue and not self._ended:
            self._wake.clear()
            try:
                async with asyncio.timeout(timeout):
                    await self._wake.wait()
            except TimeoutError:
                break
        if self._error is not None:
            raise self._error
        if not self._queue:
            return None if self._ended else []
        events = list(self._queue)
        self._queue.clear()
        return events


class Store:
    """All objects of one cluster.

    Args:
        path: The database file. Its directory must exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.revision = 0
        """The last resourceVersion."""
        self.derived: dict[str, Any] = {}
        """Cache for results that other modules compute. It is cleared when the objects are read again."""
        self.durable_revision = 0
        """The version of the last write that is on disk and in the queues of the watchers."""
        self._objects: dict[str, dict[Key, Entry]] = defaultdict(dict)
        self._sorted: dict[str, list[Key]] = {}
        self._watch_caches: dict[str, _WatchCache] = {}
        self._oldest_version = 0
        self._open: _Batch | None = None
        self._in_flight: _Batch | None = None
        self._flusher: asyncio.Task[None] | None = None
        self.waker = _Waker()
        """Wakes the watchers after a commit."""
        self._subscribers: dict[tuple[str, str | None], dict[Subscription, None]] = defaultdict(dict)
        self._thread = ThreadPoolExecutor(1, "store")
        self._db: sqlite3.Connection | None = None

    async def open(self) -> None:
        """Open the database, creating it if necessary, and read everything into memory."""
        self._db = await asyncio.get_running_loop().run_in_executor(self._thread, self._connect)
        await self._load()

    async def close(self) -> None:
        """Commit pending writes, end all watches and close the database."""
        if self._flusher is not None:
            await self._flusher
        self._end_watches(None)
        if self._db is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._db.close)
            self._db = None
        self._thread.shutdown()

    def get(self, resource: str, key: Key) -> Entry | None:
        """Return the object as of the last write. Await :meth:`durable` before showing it to a client."""
        return self._objects[resource].get(key)

    def keys(self, resource: str, namespace: str | None = None) -> list[Key]:
        """Return all keys of a resource, or those in a namespace, in order."""
        ordered = self._sorted.get(resource)
        if ordered is None:
            ordered = self._sorted[resource] = sorted(self._objects[resource])
        if namespace is None:
            return ordered
        return ordered[bisect_left(ordered, (namespace, "")) : bisect_left(ordered, (namespace + "\0", ""))]

    def entries(self, resource: str, namespace: str | None = None) -> Iterator[Entry]:
        """Return all objects of a resource, or those in a namespace, in the order of their keys."""
        objects = self._objects[resource]
        return (objects[key] for key in self.keys(resource, namespace))

    def changes_since(self, resource: str, rv: int) -> dict[Key, Entry | None]:
        """Return the objects that have changed since a version, as they were then; None if they did not exist.

        Raises Expired if the events since that version are no longer kept.
        """
        changed: dict[Key, Entry | None] = {}
        cache = self._watch_cache(resource)
        if rv < cache.oldest_version:
            raise expired(
                "The provided continue parameter is too old to display a consistent list result. You can start a new "
                "list without the continue parameter, or use the continue token in this response to retrieve the "
                "remainder of the results. Continuing with the provided token results in an inconsistent list - "
                "objects that were created, modified, or deleted between the time the first chunk was returned and now "
                "may show up in the list."
            )
        batches = [batch.events for batch in (self._in_flight, self._open) if batch is not None]
        for event in reversed([*cache.since(rv), *chain(*batches)]):
            if event.entry.kind.plural == resource and event.entry.rv > rv:
                changed[event.entry.key] = event.before
        return changed

    def write(self, kind: Kind, obj: dict[str, Any], *, delete: bool = False) -> Entry:
        """Write or delete an object.

        It changes in memory at once, and is on disk once :meth:`durable` returns. ``obj`` is not copied; its
        ``metadata`` gets the new resourceVersion.
        """
        rv = self.revision + 1
        obj["metadata"]["resourceVersion"] = str(rv)
        entry = encode(kind, obj, rv)
        self.revision = rv
        resource = kind.plural
        key = entry.key
        objects = self._objects[resource]
        before = objects.get(key)
        if delete:
            del objects[key]
        else:
            objects[key] = entry
        if delete or before is None:
            self._sorted.pop(resource, None)
        if delete:
            event = Event("DELETED", entry, before)
        elif before is not None:
            event = Event("MODIFIED", entry, before)
        else:
            event = Event("ADDED", entry, None)
        if self._open is None:
            self._open = _Batch()
        self._open.events.append(event)
        self._open.rv = rv
        if self._flusher is None:
            self._flusher = asyncio.get_running_loop().create_task(self._flush())
        return entry

    async def durable(self, rv: int) -> None:
        """Wait until the write with this version is on disk."""
        for batch in (self._in_flight, self._open):
            if batch is not None and self.durable_revision < rv <= batch.rv:
                await asyncio.shield(batch.done)
                return

    def subscribe(self, resource: str, namespace: str | None, rv: int) -> Subscription:
        """Return the events of a resource after a version, in one namespace or all; raises Expired if it is too old."""
        cache = self._watch_cache(resource)
        if rv < cache.oldest_version:
            raise expired(f"too old resource version: {rv} ({cache.oldest_version})")
        backlog = [event for event in cache.since(rv) if namespace is None or event.entry.key[0] == namespace]
        subscription = Subscription(self, (resource, namespace), backlog)
        self._subscribers[resource, namespace][subscription] = None
        return subscription

    def unsubscribe(self, topic: tuple[str, str | None], subscription: Subscription) -> None:
        """Remove a watcher."""
        self._subscribers[topic].pop(subscription, None)
        if not self._subscribers[topic]:
            del self._subscribers[topic]

    def _watch_cache(self, resource: str) -> _WatchCache:
        return self._watch_caches.setdefault(resource, _WatchCache(self._oldest_version))

    async def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        while self._open is not None:
            batch = self._open
            self._open = None
            self._in_flight = batch
            try:
                await loop.run_in_executor(self._thread, self._commit, batch)
            except sqlite3.Error as error:
                await self._roll_back(batch, error)
                continue
            self._in_flight = None
            self.durable_revision = batch.rv
            batch.done.set_result(None)
            for event in batch.events:
                self._publish(event)
        self._flusher = None

    def _publish(self, event: Event) -> None:
        resource = event.entry.kind.plural
        self._watch_cache(resource).add(event)
        for namespace in (None, event.entry.key[0]):
            for subscription in tuple(self._subscribers.get((resource, namespace), ())):
                subscription.push(event)

    async def _roll_back(self, batch: _Batch, error: sqlite3.Error) -> None:
        """Return to the state on disk after a failed commit, and report the error to the writers."""
        # If reading fails too, every later commit will fail as well.
        with suppress(sqlite3.Error):
            await self._load()
        failed = [batch.done]
        if self._open is not None:
            failed.append(self._open.done)
        self._open = None
        self._in_flight = None
        for done in failed:
            done.set_exception(StatusError(500, "InternalError", f"Internal error occurred: {error}"))
            done.exception()  # Mark it as retrieved, in case nobody awaits it.
        self._end_watches(expired("The resourceVersion for the provided watch is too old."))

    def _end_watches(self, error: StatusError | None) -> None:
        for subscription in [each for subscribers in self._subscribers.values() for each in subscribers]:
            subscription.end(error)

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.executescript(_SCHEMA)
        return db

    def _commit(self, batch: _Batch) -> None:
        assert self._db is not None
        with self._db as db:  # Commits, or rolls back after an error.
            db.execute("BEGIN IMMEDIATE")
            rows, deleted = _final_rows(batch.events)
            for start in range(0, len(rows), _ROWS_AT_ONCE):
                part = rows[start : start + _ROWS_AT_ONCE]
                db.execute(_upsert(len(part)), list(chain.from_iterable(part)))
            db.executemany(_DELETE_ROW, deleted)
            db.execute("UPDATE revision SET value = ?", (batch.rv,))

    def _read(self) -> tuple[int, list[tuple[str, bytes]]]:
        assert self._db is not None
        (revision,) = self._db.execute("SELECT value FROM revision").fetchone()
        return revision, self._db.execute("SELECT resource, data FROM objects").fetchall()

    async def _load(self) -> None:
        revision, rows = await asyncio.get_running_loop().run_in_executor(self._thread, self._read)
        # After a failed commit, versions continue after the highest one, so that none is used twice.
        self.revision = max(self.revision, revision)
        self.durable_revision = self.revision
        self._oldest_version = self.revision
        self._objects.clear()
        self._sorted.clear()
        self._watch_caches.clear()
        self.derived.clear()
        # Plain JSON contains no cycles, but the garbage collector would take most of the time of a large load.
        collecting = gc.isenabled()
        gc.disable()
        try:
            for resource, data in rows:
                obj = orjson.loads(data)
                entry = Entry(get_kind(resource), obj, data, int(obj["metadata"]["resourceVersion"]))
                self._objects[resource][entry.key] = entry
        finally:
            if collecting:
                gc.enable()
