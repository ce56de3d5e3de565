"""What a real API server answered, asked again: same status, same reason and code, same message, same fields.

The recordings' exchanges that need neither controllers nor a node are sent in their order, headers and protobuf bodies
included. What differs from run to run is compared by its presence; ``tests/data/differences.toml`` lists what is meant
to differ, each with its why.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from typing import Any

import orjson
import pytest
import recorded
from recorded import Exchange, normal, same, wanted_body

from .conftest import ADMIN, DEV, Answer, Server

MAPS = "/api/v1/namespaces/default/configmaps"
WITHOUT_CONTROLLERS = "/apis/batch/v1/namespaces/default/jobs/samples-tf-mnist-demo"
"""A Job whose status only controllers would write; whole clusters are asked for it in ../whole/test_replay.py."""


def send(server: Server, command: str, exchange: Exchange, terms: dict[str, str]) -> Answer:
    """Send the recorded request; what it says of versions and pages is put in this server's terms."""
    path = re.sub(r"timeoutSeconds=\d+", "timeoutSeconds=1", exchange["path"])
    for theirs, ours in terms.items():
        path = path.replace(theirs, ours)
    headers = dict(exchange["request_headers"])
    agent = (
        "curl/8" if exchange["request_headers"].get("accept") == "*/*" else re.sub(r"^.*?kubectl", "kubectl", command)
    )
    token = {"none": None, "other": "wrong" if "wrong" in command else DEV}.get(
        exchange.get("authorization", ""), ADMIN
    )
    answer = server.send(
        exchange["method"],
        path,
        recorded.raw(exchange["request_body"]) or None,
        content_type=headers.get("content-type"),
        accept=headers.get("accept", "*/*"),
        token=token,
        headers={"User-Agent": agent.partition(" ")[0]},
    )
    learn(exchange, answer, terms)
    return answer


def learn(exchange: Exchange, answer: Answer, terms: dict[str, str]) -> None:
    """Remember which of this server's versions and tokens stand for the recorded ones."""
    try:
        theirs = orjson.loads(exchange["response_body"])
        ours = answer.json
    except (ValueError, TypeError):
        return
    if "items" in theirs and "items" in ours:
        for field in ("continue", "resourceVersion"):
            if field in theirs["metadata"]:
                terms[f"{field}={theirs['metadata'][field]}"] = f"{field}={ours['metadata'].get(field, '')}"


def check(exchange: Exchange, answer: Answer) -> None:
    where = f"{exchange['method']} {exchange['path']}"
    assert answer.status == exchange["status"], (where, answer.body)
    if exchange["path"].startswith(WITHOUT_CONTROLLERS):
        return
    is_json = answer.headers.get("Content-Type", "").startswith("application/json")
    ours = answer.json if is_json else answer.body.decode()
    assert same(ours, exchange) or normal(ours) == normal(wanted_body(exchange)), where


def check_watch(exchange: Exchange, answer: Answer) -> None:
    assert answer.status == exchange["status"]
    wanted = [orjson.loads(line) for line in exchange["response_body"].splitlines()]
    ours = answer.events
    if exchange["path"].endswith("&resourceVersion=1"):
        # Before the recording began there were other objects; its own writes end the history.
        ours = ours[-4:]
        wanted = wanted[-4:]
    assert normal(ours) == normal(wanted), exchange["path"]


def replay(server: Server, name: str, take: Callable[[Exchange], bool] = lambda exchange: True) -> int:
    """Send a recording's exchanges; a watch runs beside what follows it in its step. Returns how many there were."""
    terms: dict[str, str] = {}
    count = 0
    for step in recorded.steps(name):
        watching: list[tuple[threading.Thread, Exchange, list[Answer]]] = []
        for exchange in filter(take, step["exchanges"]):
            count += 1
            if "watch=" not in exchange["path"]:
                check(exchange, send(server, step["command"], exchange, terms))
                continue
            answers: list[Answer] = []
            arguments = (server, step["command"], exchange, terms, answers)
            thread = threading.Thread(target=lambda s, c, e, t, a: a.append(send(s, c, e, t)), args=arguments)
            thread.start()
            watching.append((thread, exchange, answers))
            while not server.api._watch_count:
                time.sleep(0.01)
        for thread, exchange, answers in watching:
            thread.join(20)
            check_watch(exchange, answers[0])
    return count


@pytest.fixture
def fresh(tmp_path: Any) -> Any:
    made = Server(tmp_path)
    yield made
    made.stop()


def test_refusals(fresh: Server) -> None:
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


def test_rights(fresh: Server) -> None:
    assert replay(fresh, "07-access.json") == 15


def test_what_the_tutorial_writes(fresh: Server) -> None:
    """The tutorial's writes; what it reads needs a node and controllers."""
    assert replay(fresh, "01-tutorial.json", lambda exchange: exchange["method"] != "GET") == 7


def test_jobs_as_created(fresh: Server) -> None:
    assert replay(fresh, "05-job-life.json", lambda exchange: exchange["method"] == "POST") == 4
