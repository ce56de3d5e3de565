"""Sends recorded requests again, to a complete laptop AKS in which Jobs run.

The requests are sent in their order. A read is repeated until the response is the recorded one, because controllers and
node need time. For a Job, which may have progressed before it is read, earlier versions from a watch count too. Names,
uids, versions, times and addresses must be present. Intended differences are listed in ``tests/data/differences.toml``.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import recorded
from support.live_cluster import LiveCluster, new_cluster
from support.recorded import Exchange, matches_recording, normalize, recorded_body

from aksgpu.local import Endpoint

pytest_plugins = ["aksgpu.local.testing", "support.live_cluster"]

PATIENCE_SECONDS = 60.0
JOBS = "/apis/batch/v1/namespaces/default/jobs"
IMAGES = ("docker.io/local/busybox:1", "mcr.microsoft.com/azuredocs/samples-tf-mnist-demo:gpu")


@pytest.fixture(scope="module")
def player(laptop: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Player]:
    with new_cluster(laptop, "recorded", tmp_path_factory.mktemp("kubectl")) as created:
        yield Player(created)


class Player:
    """Sends recorded requests with the names, uids and versions of this cluster."""

    def __init__(self, live_cluster: LiveCluster) -> None:
        self._cluster = live_cluster
        self._pull()
        self._terms = {"localhost": self._items("/api/v1/nodes")[0]["metadata"]["name"]}
        self._start_version = json.loads(self._cluster.send("GET", JOBS).data)["metadata"]["resourceVersion"]

    def _pull(self) -> None:
        """Pull the images that the recorded node already had."""
        pods = "/api/v1/namespaces/kube-public/pods"
        for number, image in enumerate(IMAGES):
            container = {"name": "main", "image": image, "command": ["true"]}
            spec = {"containers": [container], "restartPolicy": "Never"}
            created = self._cluster.send("POST", pods, {"metadata": {"name": f"pulls-{number}"}, "spec": spec})
            assert created.status == 201
        while not all(pod["status"].get("phase") == "Succeeded" for pod in self._items(pods)):
            time.sleep(0.05)
        self._cluster.send("DELETE", f"{pods}?gracePeriodSeconds=0")
        while self._items(pods):
            time.sleep(0.05)

    def _items(self, path: str) -> list[Any]:
        return list(json.loads(self._cluster.send("GET", path).data)["items"])

    def play(self, name: str) -> int:
        """Send the requests of a recording, and return their number."""
        exchanges = [exchange for step in recorded.steps(name) for exchange in step["exchanges"]]
        for exchange in exchanges:
            self._check(exchange)
        return len(exchanges)

    def _check(self, exchange: Exchange) -> None:
        deadline = time.monotonic() + (PATIENCE_SECONDS if exchange["method"] == "GET" else 0)
        while True:
            status, body = self._send(exchange)
            if status == exchange["status"]:
                if matches_recording(body, exchange):
                    break
                if any(matches_recording(one, exchange) for one in self._past(exchange["path"], body)):
                    break
            if time.monotonic() > deadline:
                where = f"{exchange['method']} {exchange['path']}"
                assert status == exchange["status"], (where, body)
                assert normalize(body) == normalize(recorded_body(exchange)), where
            time.sleep(0.02)
        self._learn(recorded_body(exchange), body)

    def _past(self, path: str, body: Any) -> list[Any]:
        """Return the earlier versions of one Job, from the start of the recording."""
        name = re.search(rf"^{JOBS}(?:/|\?fieldSelector=metadata.name%3D)([\w-]+)", path)
        if name is None or "watch=" in path or not isinstance(body, dict):
            return []
        events = self._cluster.send(
            "GET", f"{JOBS}?watch=1&timeoutSeconds=1&resourceVersion={self._start_version}"
        ).data
        jobs = [json.loads(line)["object"] for line in events.splitlines()]
        jobs = [job for job in jobs if job["metadata"].get("name") == name[1]]
        if "items" not in body:
            return jobs
        bare = [{field: value for field, value in job.items() if field not in ("kind", "apiVersion")} for job in jobs]
        return [body | {"items": [job]} for job in bare]

    def _send(self, exchange: Exchange) -> tuple[int, Any]:
        path = re.sub(r"timeoutSeconds=\d+", "timeoutSeconds=1", exchange["path"])
        if "watch=" in path:
            path = re.sub(r"&timeoutSeconds=1|&resourceVersion=\d+", "", path) + "&timeoutSeconds=1"
        match = re.search(r"namespaces/(\w+)/pods/([\w-]+)", path)
        if match and match[2] not in self._terms:
            self._find(*match.groups())
        for theirs, ours in sorted(self._terms.items(), key=lambda term: -len(term[0])):
            path = path.replace(theirs, ours)
        kept = ("accept", "content-type")
        headers = {key: value for key, value in exchange["request_headers"].items() if key in kept}
        sent = recorded.body_bytes(exchange["request_body"]) or None
        answer = self._cluster.send(exchange["method"], path, sent, **headers)
        try:
            return answer.status, json.loads(answer.data)
        except ValueError:
            return answer.status, answer.data.decode()

    def _find(self, namespace: str, theirs: str) -> None:
        """Return the pod of this cluster that corresponds to a recorded one, of which only the name is known."""
        for name in (pod["metadata"]["name"] for pod in self._items(f"/api/v1/namespaces/{namespace}/pods")):
            if normalize(name) == normalize(theirs) and name not in self._terms.values():
                self._terms[theirs] = name

    def _learn(self, theirs: Any, ours: Any, key: str = "") -> None:
        """Remember the names and uids of this cluster that correspond to recorded ones."""
        if isinstance(theirs, dict) and isinstance(ours, dict):
            for field in theirs.keys() & ours.keys():
                self._learn(theirs[field], ours[field], field)
        elif isinstance(theirs, list) and isinstance(ours, list):
            if key in ("items", "rows"):
                theirs = sorted(theirs, key=_rank)
                ours = sorted(ours, key=_rank)
            for one, other in zip(theirs, ours, strict=False):
                self._learn(one, other)
        elif isinstance(theirs, str) and isinstance(ours, str) and "Z line" in theirs:
            lines = zip(theirs.splitlines(), ours.splitlines(), strict=False)
            self._terms |= {line.split()[0]: other.split()[0] for line, other in lines}
        elif key in ("uid", "name") and theirs != ours and isinstance(theirs, str):
            self._terms[theirs] = ours


def _rank(value: Any) -> str:
    return json.dumps(normalize(value), sort_keys=True)


def test_tutorial(player: Player) -> None:
    assert player.play("01-tutorial.json") == 59


def test_jobs(player: Player) -> None:
    assert player.play("05-job-life.json") == 42


def test_logs(player: Player) -> None:
    assert player.play("06-logs.json") == 16


def test_differences_are_documented() -> None:
    page = (Path(__file__).parents[3] / "docs" / "differences.md").read_text()
    assert [row for row in recorded.INTENDED if f"| {row['what']} | {row['why']} |" not in page] == []
