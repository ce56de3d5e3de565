"""The laptop AKS is killed repeatedly under load, and its state is compared with what it has acknowledged.

Each client records its own acknowledgements. A request that was not answered because of a kill may have taken effect or
not. Everything else must be as acknowledged. ``AKSGPU_KILLS`` sets the number of kills, 50 by default.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.polling import wait_for

from aksgpu import local
from aksgpu.local import Settings
from aksgpu.local.process import own

from .test_process import GROUP, make_cluster, send

KILLS = int(os.environ.get("AKSGPU_KILLS", "50"))
FAST = Settings(time_scale=0.05)
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
JOBS = "/apis/batch/v1/namespaces/default/jobs"
PODS = "/api/v1/namespaces/default/pods"
DAEMON_SETS = "/apis/apps/v1/namespaces/default/daemonsets"
GROUPS = f"{GROUP.rpartition('/')[0]}{{}}?api-version=2021-04-01"
BROKEN = (OSError, http.client.HTTPException)
"""What a client sees of a server that was killed."""


class Client:
    """A connection to a cluster."""

    def __init__(self, url: str, token: str, trust: ssl.SSLContext) -> None:
        place, _, self._prefix = url.removeprefix("https://").partition("/")
        self.connection = http.client.HTTPSConnection(place, timeout=60, context=trust)
        self._headers = {"Authorization": f"Bearer {token}"}

    def open(
        self, method: str, path: str, body: Any = None, media: str = "application/json"
    ) -> http.client.HTTPResponse:
        data = None if body is None else json.dumps(body).encode()
        prefix = f"/{self._prefix}" if self._prefix else ""
        self.connection.request(method, prefix + path, data, {**self._headers, "Content-Type": media})
        return self.connection.getresponse()

    def send(self, method: str, path: str, body: Any = None, media: str = "application/json") -> dict[str, Any]:
        """Send a request that must succeed, and return the body."""
        response = self.open(method, path, body, media)
        answer = json.loads(response.read())
        assert response.status < 300, (method, path, response.status, answer)
        return dict(answer)


@dataclass
class Clock:
    """Every resourceVersion that a client has received, and its object."""

    highest: int = 0
    given: dict[int, str] = field(default_factory=dict)

    def saw(self, obj: dict[str, Any]) -> int:
        version = int(obj["metadata"]["resourceVersion"])
        name = f"{obj.get('kind')}/{obj['metadata']['name']}"
        assert self.given.setdefault(version, name) == name, f"{version} was given to two objects"
        self.highest = max(self.highest, version)
        return version


class Writer:
    """Creates, changes and deletes its own objects, and records each acknowledgement."""

    def __init__(self, name: str, collection: str, make: Callable[[str, str], dict[str, Any]], *, limit: int) -> None:
        self.name = name
        self.collection = collection
        self._make = make
        self._limit = limit
        self.acknowledged: dict[str, str] = {}
        """The value of each object that exists."""
        self.doubt: tuple[str, str | None] | None = None
        """The object and value of a request without a response. None means that the object is deleted."""
        self.versions: dict[str, int] = {}
        self.acknowledgements = 0
        self._number = 0
        self._chance = random.Random(name)

    def act(self, client: Client, clock: Clock) -> None:
        """Send one request."""
        known = list(self.acknowledged)
        roll = self._chance.random()
        if not known or (roll < 0.5 and len(known) < self._limit):
            self._number += 1
            self._write(client, clock, "POST", f"{self.name}-{self._number}")
        elif roll < 0.75 and len(known) < self._limit:
            self._write(client, clock, "PATCH", self._chance.choice(known))
        else:
            name = self._chance.choice(known)
            self.doubt = name, None
            client.send("DELETE", f"{self.collection}/{name}?propagationPolicy=Background")
            del self.acknowledged[name]
            self.versions.pop(name, None)
            self.doubt = None
        self.acknowledgements += 1

    def _write(self, client: Client, clock: Clock, method: str, name: str) -> None:
        value = str(self._chance.random())
        self.doubt = name, value
        if method == "POST":
            answer = client.send("POST", self.collection, self._make(name, value))
        else:
            patch = {"metadata": {"labels": {"value": value}}}
            answer = client.send("PATCH", f"{self.collection}/{name}", patch, "application/merge-patch+json")
        self.acknowledged[name] = value
        self.versions[name] = clock.saw(answer)
        self.doubt = None

    def compare(self, found: dict[str, dict[str, Any]]) -> None:
        """Check that nothing acknowledged is missing or changed, and settle requests in doubt."""
        mine = {name: obj for name, obj in found.items() if name.startswith(f"{self.name}-")}
        values = {name: obj["metadata"]["labels"]["value"] for name, obj in mine.items()}
        if self.doubt is not None:
            name, value = self.doubt
            assert values.get(name) in (value, self.acknowledged.get(name)), self.doubt
            self.acknowledged.pop(name, None)
            self.versions.pop(name, None)
            if name in values:
                self.acknowledged[name] = values[name]
            self.doubt = None
        assert values == self.acknowledged
        if self.collection == CONFIG_MAPS:  # no other client writes these
            versions = {name: int(mine[name]["metadata"]["resourceVersion"]) for name in self.versions}
            assert versions == self.versions


class Watcher:
    """Watches a collection across all kills, from its last resourceVersion or a new list after a 410."""

    def __init__(self, collection: str) -> None:
        self.collection = collection
        self.objects: dict[str, str] = {}
        self.position = self._followed = 0
        self.events = self.listed = 0

    def follow(self, client: Client, clock: Clock) -> None:
        """Watch until the connection breaks. Each event must be newer than the one before."""
        if not self.position:
            self._list(client, clock)
        response = client.open("GET", f"{self.collection}?watch=true&resourceVersion={self.position}")
        if response.status == 410:
            self.position = 0
            return
        assert response.status == 200, response.read()
        for line in response:
            event = json.loads(line)
            if event["type"] == "ERROR":
                assert event["object"]["code"] == 410, event
                self.position = 0
                return
            self.events += 1
            version = clock.saw(event["object"])
            assert version > self.position
            self.position = self._followed = version
            name = event["object"]["metadata"]["name"]
            if event["type"] == "DELETED":
                del self.objects[name]
            else:
                assert (event["type"] == "ADDED") == (name not in self.objects), event
                self.objects[name] = event["object"]["metadata"]["resourceVersion"]
        raise OSError("the watch ended")

    def _list(self, client: Client, clock: Clock) -> None:
        page = client.send("GET", self.collection)
        found = {obj["metadata"]["name"]: obj["metadata"]["resourceVersion"] for obj in page["items"]}
        # Every object that is not newer than the last event was seen in an event, so none was left out.
        followed = {name: version for name, version in found.items() if int(version) <= self._followed}
        assert followed.items() <= self.objects.items()
        self.objects = found
        self.position = self._followed = int(page["metadata"]["resourceVersion"])
        self.listed += 1
        clock.highest = max(clock.highest, self.position)


def config_map(name: str, value: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {"value": value}}, "data": {"text": value * 20}}


def pod_spec(*command: str, **more: Any) -> dict[str, Any]:
    return {"containers": [{"name": "main", "image": "busybox", "command": list(command)}], **more}


def job(name: str, value: str) -> dict[str, Any]:
    template = {"spec": pod_spec("true", restartPolicy="Never", terminationGracePeriodSeconds=0)}
    return {"metadata": {"name": name, "labels": {"value": value}}, "spec": {"template": template}}


class Arena:
    """The laptop, its cluster, and the clients."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.endpoint = local.start(home, settings=FAST)
        self.trust = ssl.create_default_context(cafile=str(self.endpoint.ca_file))
        config = yaml.safe_load(make_cluster(self.endpoint))
        self.server = config["clusters"][0]["cluster"]["server"]
        self.token = config["users"][0]["user"]["token"]
        self.clock = Clock()
        self.writers = [Writer(f"lane{number}", CONFIG_MAPS, config_map, limit=25) for number in range(5)]
        self.writers.append(Writer("job", JOBS, job, limit=4))
        self.watchers = [Watcher(CONFIG_MAPS), Watcher(CONFIG_MAPS), Watcher(PODS)]
        self.groups: set[str] = set()
        self.errors: list[BaseException] = []

    def client(self) -> Client:
        return Client(self.server, self.token, self.trust)

    def under_load(self, seconds: float) -> None:
        """Run all clients, and kill the laptop after a while."""
        pid = local.status(self.home)["pid"]
        work: list[Callable[[Client], None]] = [lambda c, w=writer: self._write(c, w) for writer in self.writers]
        work += [lambda c, w=watcher: self._watch(c, w) for watcher in self.watchers]
        threads = [threading.Thread(target=self._until_killed, args=(each,)) for each in work]
        threads.append(threading.Thread(target=self._until_killed, args=(self._make_groups,)))
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
        for thread in threads:
            thread.join(90)
            assert not thread.is_alive()
        if self.errors:
            raise self.errors[0]

    def _until_killed(self, work: Callable[[Client], None]) -> None:
        try:
            client = self.client()
            with contextlib.closing(client.connection):
                while True:
                    work(client)
        except BROKEN:
            pass
        except BaseException as error:
            self.errors.append(error)

    def _write(self, client: Client, writer: Writer) -> None:
        writer.act(client, self.clock)
        if writer.collection == JOBS:
            time.sleep(0.1)  # each creates a pod, which is a process

    def _watch(self, client: Client, watcher: Watcher) -> None:
        watcher.follow(self.client(), self.clock)

    def _make_groups(self, client: Client) -> None:
        name = f"rg{len(self.groups)}"
        path = GROUPS.format(f"/{name}")
        try:
            status, _ = send(self.endpoint, "PUT", path, document={"location": "eastus"})
        except ValueError as error:  # a partial response does not count
            raise OSError("cut short") from error
        assert status in (200, 201)
        self.groups.add(name)
        time.sleep(0.05)

    def has_been_used(self, least: int) -> bool:
        """Return whether each client has had this many acknowledgements or events."""
        acknowledgements = min(writer.acknowledgements for writer in self.writers)
        return min(acknowledgements, *(watcher.events for watcher in self.watchers)) >= least

    def kill_while_starting(self, seconds: float) -> None:
        """Start the laptop, and kill it before or soon after it can answer its first request."""
        environment = {**os.environ, **FAST.environment(), "AKSGPU_HOME": str(self.home)}
        with own(self.home) as lock:
            assert lock is not None
            command = [sys.executable, "-m", "aksgpu.local.server", str(lock)]
            process = subprocess.Popen(
                command, env=environment, pass_fds=(lock,), start_new_session=True, stderr=subprocess.DEVNULL
            )
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def compare(self) -> None:
        """Compare the state with what was acknowledged."""
        client = self.client()
        with contextlib.closing(client.connection):
            for collection in (CONFIG_MAPS, JOBS):
                page = client.send("GET", collection)
                assert int(page["metadata"]["resourceVersion"]) >= self.clock.highest
                found = {obj["metadata"]["name"]: obj for obj in page["items"]}
                for writer in self.writers:
                    if writer.collection == collection:
                        writer.compare(found)
            page = send(self.endpoint, "GET", GROUPS.format(""))[1]
            assert self.groups <= {group["name"] for group in page["value"]}

    def container(self, name: str) -> dict[str, Any] | None:
        """Return a pod's container if it is running."""
        client = self.client()
        with contextlib.closing(client.connection):
            status = client.send("GET", f"{PODS}/{name}")["status"]
        states = status.get("containerStatuses") or [{"state": {}}]
        return dict(states[0]) if "running" in states[0]["state"] else None


@pytest.fixture
def arena(tmp_path: Path) -> Iterator[Arena]:
    home = tmp_path / "home"
    try:
        yield Arena(home)
    finally:
        local.stop(home=home)


def marked(mark: str) -> list[int]:
    """Return the processes with this name."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().split(b"\0")[0] == mark.encode():
                found.append(int(path.parent.name))
    return found


@pytest.mark.timeout(60 + 10 * KILLS)
def test_the_laptop_is_killed_under_load(arena: Arena) -> None:
    chance = random.Random(7)
    mark = f"kept-{os.getpid()}"
    client = arena.client()
    survivor = pod_spec("bash", "-c", f"exec -a {mark} sleep 1000", terminationGracePeriodSeconds=0)
    client.send("POST", PODS, {"metadata": {"name": "survivor"}, "spec": survivor})
    labels = {"app": "everywhere"}
    template = {"metadata": {"labels": labels}, "spec": pod_spec("sleep", "1000", terminationGracePeriodSeconds=0)}
    daemons = {"selector": {"matchLabels": labels}, "template": template}
    client.send("POST", DAEMON_SETS, {"metadata": {"name": "everywhere"}, "spec": daemons})
    wait_for(lambda: arena.container("survivor"))
    before = arena.container("survivor")
    running = wait_for(lambda: marked(mark))  # A shell runs before, for which the container is running too.
    assert len(running) == 1

    kill = 0
    while kill < KILLS or not arena.has_been_used(min(KILLS, 20)):
        arena.under_load(chance.uniform(0.02, 0.25))
        if kill % 10 == 9:
            arena.kill_while_starting(chance.uniform(0.2, 0.6))
        assert local.start(arena.home, settings=FAST) == arena.endpoint
        arena.compare()
        assert marked(mark) == running
        kill += 1

    wait_for(lambda: arena.container("survivor"))
    assert arena.container("survivor") == before
    converge(arena)


def converge(arena: Arena) -> None:
    """Wait until all Jobs are complete with one succeeded pod each, and no pod is without an owner."""
    client = arena.client()
    wanted = next(writer for writer in arena.writers if writer.collection == JOBS).acknowledged

    def settled() -> bool:
        jobs = client.send("GET", JOBS)["items"]
        pods = client.send("GET", PODS)["items"]
        owners = [
            pod["metadata"]["ownerReferences"][0]["name"] for pod in pods if pod["metadata"]["name"] != "survivor"
        ]
        return (
            {job["metadata"]["name"] for job in jobs} == set(wanted)
            and all(job["status"].get("succeeded") == 1 for job in jobs)
            and sorted(owners) == sorted([*wanted, "everywhere"])
            and client.send("GET", f"{DAEMON_SETS}/everywhere")["status"]["numberReady"] == 1
        )

    with contextlib.closing(client.connection):
        wait_for(settled)
