"""Where the laptop's API server keeps its objects: SQLite for durability, memory for speed.

A write changes memory at once, takes the next resourceVersion and joins the open batch; one thread commits a batch
after the other (WAL, ``synchronous=FULL``), so that many writers share one sync of the disk. Watchers see an event
after its commit, and a caller who awaits :meth:`Store.durable` is never shown what a crash could take back.

Not here: what an object means. Names, validation and conflicts are the registry's business. All methods belong to
one asyncio loop; only the commit itself runs elsewhere.
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
from itertools import chain, takewhile
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from aksgpu.local.kinds import Kind, get_kind
from aksgpu.local.status_error import StatusError, bad_request, expired

WATCH_CACHE_SIZE = 2048
"""Events kept a resource: how far back a watch or a paged list can go, and how far a slow watcher may fall behind."""

Key = tuple[str, str]
"""Namespace (empty for cluster-scoped kinds) and name."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, data BLOB NOT NULL,
    UNIQUE (resource, namespace, name)
);
CREATE TABLE IF NOT EXISTS revision (id INTEGER PRIMARY KEY CHECK (id = 0), value INTEGER NOT NULL);
INSERT OR IGNORE INTO revision VALUES (0, 1);
"""
_UPSERT_ROW = (
    "INSERT INTO objects VALUES (?, ?, ?, ?) ON CONFLICT (resource, namespace, name) DO UPDATE SET data = excluded.data"
)
_DELETE_ROW = "DELETE FROM objects WHERE resource = ? AND namespace = ? AND name = ?"


class Entry(NamedTuple):
    """One version of an object, with its JSON ready to send. Frozen by convention."""

    kind: Kind
    obj: dict[str, Any]
    data: bytes
    rv: int

    @property
    def key(self) -> Key:
        """Namespace and name."""
        metadata = self.obj["metadata"]
        return metadata.get("namespace", ""), metadata["name"]

    @property
    def list_item_json(self) -> bytes:
        """The JSON as it stands in a list: without kind and apiVersion."""
        return b"{" + self.data[len(self.kind.json_prefix) :]


class Event(NamedTuple):
    """One change. ``before`` is what the object was, None for ``ADDED``."""

    type: str
    entry: Entry
    before: Entry | None


def encode(kind: Kind, obj: dict[str, Any], rv: int) -> Entry:
    """An entry of ``obj``, whose kind and apiVersion are put first; raises BadRequest for what JSON cannot say."""
    ordered = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": obj["metadata"]}
    ordered |= {key: value for key, value in obj.items() if key not in ordered}
    try:
        return Entry(kind, ordered, orjson.dumps(ordered), rv)
    except orjson.JSONEncodeError as error:
        raise bad_request(f"the object cannot be written as JSON: {error}") from error


class _Batch:
    """Writes that will be committed together."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.rv = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class _WatchCache:
    """Recent events of one resource. ``floor`` is the oldest version that can still be continued from."""

    def __init__(self, oldest_version: int) -> None:
        self.oldest_version = oldest_version
        self.events: deque[Event] = deque()

    def add(self, event: Event) -> None:
        if len(self.events) >= WATCH_CACHE_SIZE:
            self.oldest_version = self.events.popleft().entry.rv
        self.events.append(event)

    def since(self, rv: int) -> list[Event]:
        """Events after ``rv``, oldest first; walks back from the newest, so that it costs what it returns."""
        return list(takewhile(lambda event: event.entry.rv > rv, reversed(self.events)))[::-1]


class Subscription:
    """A watcher's own queue of shared events. It is cut off rather than allowed to grow without bound."""

    def __init__(self, store: Store, topic: tuple[str, str | None], backlog: list[Event]) -> None:
        self._store = store
        self._topic = topic
        self._queue: deque[Event] = deque(backlog)
        self._wake = asyncio.Event()
        self._end: StatusError | bool = False

    def push(self, event: Event) -> None:
        """Deliver, unless the watcher is too far behind."""
        if len(self._queue) >= 2 * WATCH_CACHE_SIZE:
            self.end(expired("The resourceVersion for the provided watch is too old."))
            return
        self._queue.append(event)
        self._wake.set()

    def end(self, error: StatusError | None = None) -> None:
        """No more events: close the watch, or raise ``error`` in it."""
        self._end = error or True
        if error:
            self._queue.clear()
        self._store.unsubscribe(self._topic, self)
        self._wake.set()

    async def next(self, timeout: float | None = None) -> list[Event] | None:
        """Events that have arrived, waiting for the first; empty after ``timeout`` seconds, None at the end."""
        if not self._queue and not self._end:
            self._wake.clear()
            try:
                async with asyncio.timeout(timeout):
                    await self._wake.wait()
            except TimeoutError:
                return []
        if isinstance(self._end, StatusError):
            raise self._end
        if not self._queue:
            return None
        events = list(self._queue)
        self._queue.clear()
        return events


class Store:
    """All objects of one cluster.

    Args:
        path: the database file; its folder must exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.revision = 0
        """The resourceVersion given last."""
        self.derived: dict[str, Any] = {}  # what others work out from the objects; dropped when they are read anew
        self.durable_revision = 0
        """The version of the last write that is on disk and was shown to watchers."""
        self._objects: dict[str, dict[Key, Entry]] = defaultdict(dict)
        self._sorted: dict[str, list[Key]] = {}
        self._watch_caches: dict[str, _WatchCache] = {}
        self._oldest_version = 0
        self._open: _Batch | None = None
        self._in_flight: _Batch | None = None
        self._flusher: asyncio.Task[None] | None = None
        self._subscribers: dict[tuple[str, str | None], set[Subscription]] = defaultdict(set)
        self._thread = ThreadPoolExecutor(1, "store")
        self._db: sqlite3.Connection | None = None

    async def open(self) -> None:
        """Open the database, creating it when absent, and read everything into memory."""
        self._db = await asyncio.get_running_loop().run_in_executor(self._thread, self._connect)
        await self._load()

    async def close(self) -> None:
        """Commit what is pending, end all watches, close the database."""
        if self._flusher is not None:
            await self._flusher
        self._end_watches(None)
        if self._db is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._db.close)
            self._db = None
        self._thread.shutdown()

    def get(self, resource: str, key: Key) -> Entry | None:
        """The object as of the last write, which :meth:`durable` makes safe to show."""
        return self._objects[resource].get(key)

    def keys(self, resource: str, namespace: str | None = None) -> list[Key]:
        """All keys of a resource, or of a namespace, in order."""
        ordered = self._sorted.get(resource)
        if ordered is None:
            ordered = self._sorted[resource] = sorted(self._objects[resource])
        if namespace is None:
            return ordered
        return ordered[bisect_left(ordered, (namespace, "")) : bisect_left(ordered, (namespace + "\0", ""))]

    def entries(self, resource: str, namespace: str | None = None) -> Iterator[Entry]:
        """All objects of a resource, or of a namespace, in the order of their keys."""
        objects = self._objects[resource]
        return (objects[key] for key in self.keys(resource, namespace))

    def changes_since(self, resource: str, rv: int) -> dict[Key, Entry | None]:
        """What differed at version ``rv`` from now: the older entry, or None where there was none.

        Raises Expired when the ring does not go back that far.
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
        """Put or delete an object: visible in memory at once, on disk once :meth:`durable` returns.

        ``obj`` is taken over, not copied; its ``metadata`` gets the new resourceVersion.
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
        event = Event("DELETED" if delete else "MODIFIED" if before else "ADDED", entry, before)
        if self._open is None:
            self._open = _Batch()
        self._open.events.append(event)
        self._open.rv = rv
        if self._flusher is None:
            self._flusher = asyncio.get_running_loop().create_task(self._flush())
        return entry

    async def durable(self, rv: int) -> None:
        """Wait until the write with version ``rv`` is on disk."""
        for batch in (self._in_flight, self._open):
            if batch is not None and self.durable_revision < rv <= batch.rv:
                await asyncio.shield(batch.done)
                return

    def subscribe(self, resource: str, namespace: str | None, rv: int) -> Subscription:
        """Events after version ``rv`` of a resource, in one namespace or all; raises Expired when that is too old."""
        cache = self._watch_cache(resource)
        if rv < cache.oldest_version:
            raise expired(f"too old resource version: {rv} ({cache.oldest_version})")
        backlog = [e for e in cache.since(rv) if namespace is None or e.entry.key[0] == namespace]
        subscription = Subscription(self, (resource, namespace), backlog)
        self._subscribers[resource, namespace].add(subscription)
        return subscription

    def unsubscribe(self, topic: tuple[str, str | None], subscription: Subscription) -> None:
        """Forget a watcher."""
        self._subscribers[topic].discard(subscription)
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
            for event in batch.events:
                self._publish(event)
            batch.done.set_result(None)
        self._flusher = None

    def _publish(self, event: Event) -> None:
        resource = event.entry.kind.plural
        self._watch_cache(resource).add(event)
        for namespace in (None, event.entry.key[0]):
            for subscription in tuple(self._subscribers.get((resource, namespace), ())):
                subscription.push(event)

    async def _roll_back(self, batch: _Batch, error: sqlite3.Error) -> None:
        """The disk refused: nobody was told of these writes, so go back to what is on disk and say so."""
        # Where not even reading works, every later commit is refused as well.
        with suppress(sqlite3.Error):
            await self._load()
        refused = [batch.done, *([self._open.done] if self._open is not None else [])]
        self._open = self._in_flight = None
        for done in refused:
            done.set_exception(StatusError(500, "InternalError", f"Internal error occurred: {error}"))
            done.exception()  # seen, should nobody wait for it
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
        with self._db as db:  # commits, or goes back
            db.execute("BEGIN IMMEDIATE")
            for event in batch.events:
                resource = event.entry.kind.plural
                (namespace, name) = event.entry.key
                if event.type == "DELETED":
                    db.execute(_DELETE_ROW, (resource, namespace, name))
                else:
                    db.execute(_UPSERT_ROW, (resource, namespace, name, event.entry.data))
            db.execute("UPDATE revision SET value = ?", (batch.rv,))

    def _read(self) -> tuple[int, list[tuple[str, bytes]]]:
        assert self._db is not None
        (revision,) = self._db.execute("SELECT value FROM revision").fetchone()
        return revision, self._db.execute("SELECT resource, data FROM objects").fetchall()

    async def _load(self) -> None:
        revision, rows = await asyncio.get_running_loop().run_in_executor(self._thread, self._read)
        # After a refused commit versions go on from the highest one given, so that none is ever given twice.
        self.revision = max(self.revision, revision)
        self.durable_revision = self._oldest_version = self.revision
        self._objects.clear()
        self._sorted.clear()
        self._watch_caches.clear()
        self.derived.clear()
        # The collector finds nothing in plain JSON, yet would take most of the time of a large load.
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
