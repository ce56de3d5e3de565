from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from aksgpu.local.api import store as module
from aksgpu.local.api.store import Event, Store, Subscription
from aksgpu.local.kinds import get_kind
from aksgpu.local.status_error import StatusError

CONFIG = get_kind("configmaps")


def config(name: str, namespace: str = "default", **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace}, **more}


@pytest.fixture
async def store(tmp_path: Path) -> Any:
    store = Store(tmp_path / "kube.db")
    await store.open()
    yield store
    await store.close()


async def test_versions_continue_after_a_restart(tmp_path: Path) -> None:
    store = Store(tmp_path / "kube.db")
    await store.open()
    first = store.write(CONFIG, config("a"))
    store.write(CONFIG, config("b"))
    last = store.write(CONFIG, config("b"), delete=True)
    await store.durable(last.rv)
    await store.close()
    again = Store(tmp_path / "kube.db")
    await again.open()
    assert again.revision == last.rv
    found = again.get("configmaps", ("default", "a"))
    assert found is not None and found.data == first.data and found.rv == first.rv
    assert again.get("configmaps", ("default", "b")) is None
    assert again.subscribe("configmaps", None, last.rv)
    with pytest.raises(StatusError) as raised:
        again.subscribe("configmaps", None, last.rv - 1)
    assert (raised.value.code, raised.value.reason) == (410, "Expired")
    await again.close()


async def test_events_follow_the_commit_and_reach_only_matching_watches(store: Store) -> None:
    everything = store.subscribe("configmaps", None, store.revision)
    one = store.subscribe("configmaps", "other", store.revision)
    entry = store.write(CONFIG, config("a"))
    assert await everything.next(0) == []
    await store.durable(entry.rv)
    events = await everything.next(60)
    assert events is not None and [(event.type, event.entry.key) for event in events] == [("ADDED", ("default", "a"))]
    entry = store.write(CONFIG, config("b", "other"))
    await store.durable(entry.rv)
    events = await one.next(60)
    assert events is not None and [event.entry.key for event in events] == [("other", "b")]


async def test_a_watch_resumes_until_its_version_is_too_old(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WATCH_CACHE_SIZE", 4)
    entries = [store.write(CONFIG, config(f"c{i}")) for i in range(6)]
    await store.durable(entries[-1].rv)
    resumed = store.subscribe("configmaps", None, entries[1].rv)
    events = await resumed.next(60)
    assert events is not None and [event.entry.rv for event in events] == [each.rv for each in entries[2:]]
    with pytest.raises(StatusError, match="too old resource version"):
        store.subscribe("configmaps", None, entries[0].rv)


async def test_a_watcher_that_does_not_read_is_ended(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WATCH_CACHE_SIZE", 4)
    slow = store.subscribe("configmaps", None, store.revision)
    for i in range(20):
        last = store.write(CONFIG, config(f"c{i}"))
    await store.durable(last.rv)
    with pytest.raises(StatusError) as raised:
        await slow.next(60)
    assert raised.value.code == 410
    assert not store._subscribers


async def test_a_watcher_that_reads_before_it_is_woken_is_not_ended(store: Store) -> None:
    watchers = [store.subscribe("configmaps", None, store.revision) for _ in range(3 * module.WATCHERS_PER_TURN)]
    last = watchers[-1]
    first = store.write(CONFIG, config("a"))
    await store.durable(first.rv)
    events = await last.next(60)  # its turn to be woken has not come
    assert events is not None and [event.entry.key for event in events] == [first.key]
    reading = asyncio.create_task(last.next(60))
    while store.waker._waiting:
        await asyncio.sleep(0)
    second = store.write(CONFIG, config("b"))
    await store.durable(second.rv)
    events = await reading
    assert events is not None and [event.entry.key for event in events] == [second.key]


async def test_a_watcher_whose_time_is_up_returns_the_events_that_have_arrived(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store.waker, "add", lambda subscription: None)  # its turn to be woken does not come
    entry = store.write(CONFIG, config("a"))
    await store.durable(entry.rv)
    watcher = store.subscribe("configmaps", None, entry.rv)
    reading = asyncio.create_task(watcher.next(0.05))
    await asyncio.sleep(0)
    watcher.push(Event("MODIFIED", entry, entry))
    events = await reading  # a bookmark at this time would be newer than the event
    assert events is not None and [event.entry.key for event in events] == [entry.key]


async def test_a_failed_commit_is_rolled_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = store.write(CONFIG, config("kept", data={"a": "1"}))
    await store.durable(kept.rv)
    watcher = store.subscribe("configmaps", None, store.revision)

    def refuse(batch: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(store, "_commit", refuse)
        lost = store.write(CONFIG, config("lost"))
        store.write(CONFIG, config("kept", data={"a": "2"}))
        with pytest.raises(StatusError, match="disk is full") as raised:
            await store.durable(lost.rv)
    assert raised.value.code == 500
    assert store.get("configmaps", ("default", "lost")) is None
    found = store.get("configmaps", ("default", "kept"))
    assert found is not None and found.obj["data"] == {"a": "1"}
    with pytest.raises(StatusError):
        await watcher.next(60)
    later = store.write(CONFIG, config("later"))
    await store.durable(later.rv)
    assert later.rv > lost.rv


async def test_many_writers_share_commits(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = 0
    commit = store._commit

    def counted(batch: Any) -> None:
        nonlocal commits
        commits += 1
        commit(batch)

    monkeypatch.setattr(store, "_commit", counted)

    async def write(i: int) -> None:
        await store.durable(store.write(CONFIG, config(f"c{i}")).rv)

    await asyncio.gather(*(write(i) for i in range(200)))
    assert commits <= 3
    assert len(store.keys("configmaps")) == 200


async def test_one_commit_keeps_the_last_state_of_each_object(tmp_path: Path) -> None:
    store = Store(tmp_path / "kube.db")
    await store.open()
    for i in range(600):
        store.write(CONFIG, config(f"many-{i}"))
    store.write(CONFIG, config("kept"))
    store.write(CONFIG, config("kept"), delete=True)
    kept = store.write(CONFIG, config("kept", data={"a": "3"}))
    store.write(CONFIG, config("gone"))
    last = store.write(CONFIG, config("gone"), delete=True)
    await store.durable(last.rv)
    await store.close()
    again = Store(tmp_path / "kube.db")
    await again.open()
    assert again.revision == last.rv
    assert len(again.keys("configmaps")) == 601
    found = again.get("configmaps", ("default", "kept"))
    assert found is not None and found.data == kept.data
    await again.close()


async def test_a_writer_does_not_wait_for_many_watchers(store: Store) -> None:
    watchers = [store.subscribe("configmaps", None, store.revision) for _ in range(400)]
    received = 0

    async def watch(subscription: Subscription) -> None:
        nonlocal received
        events = await subscription.next(60)
        assert events is not None and len(events) == 1
        received += 1

    watching = [asyncio.create_task(watch(each)) for each in watchers]
    await asyncio.sleep(0)
    await store.durable(store.write(CONFIG, config("a")).rv)
    assert received < len(watchers) / 10
    await asyncio.gather(*watching)
    assert received == len(watchers)


async def test_closing_ends_watches(tmp_path: Path) -> None:
    store = Store(tmp_path / "kube.db")
    await store.open()
    subscription = store.subscribe("configmaps", None, store.revision)
    await store.close()
    assert await subscription.next(60) is None


async def test_list_items_have_no_kind(store: Store) -> None:
    entry = store.write(CONFIG, config("a"))
    assert entry.data.startswith(b'{"kind":"ConfigMap","apiVersion":"v1","metadata":{')
    assert entry.list_item_json.startswith(b'{"metadata":{')
