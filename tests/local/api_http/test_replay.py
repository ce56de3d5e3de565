"""Sends recorded requests again: status, reason, code, message and fields must be those of the real API server.

The requests that need neither controllers nor a node are sent in their order, with headers and protobuf bodies. Values
that differ from run to run must be present. Intended differences are listed in ``tests/data/differences.toml``.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from support import recorded
from support.polling import wait_for
from support.recorded import Exchange, matches_recording, normalize, recorded_body

from .conftest import ADMIN, DEV, Response, Server

MAPS = "/api/v1/namespaces/default/configmaps"
WITHOUT_CONTROLLERS = "/apis/batch/v1/namespaces/default/jobs/samples-tf-mnist-demo"
"""A Job whose status controllers write. It is compared in ../whole/test_replay.py."""


def send(server: Server, command: str, exchange: Exchange, terms: dict[str, str], seconds: int = 1) -> Response:
    """Send a recorded request, with this server's versions and continue tokens. A watch ends after some seconds."""
    path = re.sub(r"timeoutSeconds=\d+", f"timeoutSeconds={seconds}", exchange["path"])
    for theirs, ours in terms.items():
        path = path.replace(theirs, ours)
    headers = dict(exchange["request_headers"])
    agent = (
        "curl/8" if exchange["request_headers"].get("accept") == "*/*" else re.sub(r"^.*?kubectl", "kubectl", command)
    )
    token = {"none": None, "other": "wrong" if "wrong" in command else DEV}.get(
        exchange.get("authorization", ""), ADMIN
    )
    response = server.send(
        exchange["method"],
        path,
        recorded.body_bytes(exchange["request_body"]) or None,
        content_type=headers.get("content-type"),
        accept=headers.get("accept", "*/*"),
        token=token,
        headers={"User-Agent": agent.partition(" ")[0]},
    )
    learn(exchange, response, terms)
    return response


def learn(exchange: Exchange, response: Response, terms: dict[str, str]) -> None:
    """Remember the versions and tokens of this server that correspond to recorded ones."""
    try:
        theirs = orjson.loads(exchange["response_body"])
        ours = response.json
    except (ValueError, TypeError):
        return
    if "items" in theirs and "items" in ours:
        for field in ("continue", "resourceVersion"):
            if field in theirs["metadata"]:
                terms[f"{field}={theirs['metadata'][field]}"] = f"{field}={ours['metadata'].get(field, '')}"


def check(exchange: Exchange, response: Response) -> None:
    where = f"{exchange['method']} {exchange['path']}"
    assert response.status == exchange["status"], (where, response.body)
    if exchange["path"].startswith(WITHOUT_CONTROLLERS):
        return
    is_json = response.headers.get("Content-Type", "").startswith("application/json")
    ours = response.json if is_json else response.body.decode()
    assert matches_recording(ours, exchange) or normalize(ours) == normalize(recorded_body(exchange)), where


def check_watch(exchange: Exchange, response: Response) -> None:
    assert response.status == exchange["status"]
    wanted = [orjson.loads(line) for line in exchange["response_body"].splitlines()]
    ours = response.events
    if exchange["path"].endswith("&resourceVersion=1"):
        # The recorded cluster had older objects. The events of the recorded writes come last.
        ours = ours[-4:]
        wanted = wanted[-4:]
    assert normalize(ours) == normalize(wanted), exchange["path"]


def replay(server: Server, name: str, take: Callable[[Exchange], bool] = lambda exchange: True) -> int:
    """Send the requests of a recording, and return their number.

    A watch runs at the same time as the requests that follow it in its step, however long they take. A watch from a
    version runs after them. It gets the same events and, when its time is up, a bookmark.
    """
    terms: dict[str, str] = {}
    count = 0
    for step in recorded.steps(name):
        watching: list[tuple[threading.Thread, Exchange, list[Response]]] = []
        late: list[Exchange] = []
        for exchange in filter(take, step["exchanges"]):
            count += 1
            if "watch=" not in exchange["path"]:
                check(exchange, send(server, step["command"], exchange, terms))
                continue
            if "resourceVersion=" in exchange["path"]:
                late.append(exchange)
                continue
            answers: list[Response] = []
            arguments = (server, step["command"], exchange, terms, answers)
            thread = threading.Thread(target=lambda s, c, e, t, a: a.append(send(s, c, e, t, 600)), args=arguments)
            thread.start()
            watching.append((thread, exchange, answers))
            wait_for(lambda: server.api._watch_count, 60)
        server.end_watches()
        for thread, exchange, answers in watching:
            thread.join(60)
            check_watch(exchange, answers[0])
        for exchange in late:
            check_watch(exchange, send(server, step["command"], exchange, terms))
    return count


@pytest.fixture
def fresh(tmp_path: Any) -> Any:
    created = Server(tmp_path)
    yield created
    created.stop()


def test_errors(fresh: Server) -> None:
    assert replay(fresh, "02-errors.json") == 23


def test_lists_and_watches(fresh: Server) -> None:
    names = ("openshift-service-ca.crt", "kube-root-ca.crt", "c1", "c2", "c3", "c4", "c5")
    for name in names:
        obj = {"metadata": {"name": name}, "data": {"k": name[1:]}}
        assert fresh.send("POST", f"{MAPS}?fieldManager=kubectl-create", obj).status == 201
    for name, team in (("c1", "a"), ("c2", "a"), ("c3", "b")):
        patch = {"metadata": {"labels": {"team": team}}}
        media = "application/merge-patch+json"
        path = f"{MAPS}/{name}?fieldManager=kubectl-label"
        assert fresh.send("PATCH", path, patch, content_type=media).status == 200
    assert replay(fresh, "03-watch-and-list.json") == 22


def test_patches_and_apply(fresh: Server) -> None:
    assert replay(fresh, "04-patch-and-apply.json") == 28


def test_authorization(fresh: Server) -> None:
    assert replay(fresh, "07-access.json") == 15


def test_writes_of_the_tutorial(fresh: Server) -> None:
    """The reads of the tutorial need a node and controllers."""
    assert replay(fresh, "01-tutorial.json", lambda exchange: exchange["method"] != "GET") == 7


def test_jobs_as_created(fresh: Server) -> None:
    assert replay(fresh, "05-job-life.json", lambda exchange: exchange["method"] == "POST") == 4
