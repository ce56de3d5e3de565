"""Lists of several pages: the next page is read while the page before it is decoded."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from scripted import Request, Server
from support.polling import wait_for

from aksgpu import errors, waiting
from aksgpu.kube import Kube, list_pages, retry_policy, transport

PAGES = 4
WAIT = 60.0
"""Seconds to wait for the other side."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short pauses."""
    monkeypatch.setattr(retry_policy, "FIRST_PAUSE", 0.01)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[Callable[[Request], None]], tuple[Kube, Server]]]:
    servers: list[Server] = []

    def start(answer: Callable[[Request], None]) -> tuple[Kube, Server]:
        server = Server(answer).__enter__()
        servers.append(server)
        return Kube.from_kubeconfig(server.kubeconfig(tmp_path)), server

    yield start
    for server in servers:
        server.__exit__()


def page_number(request: Any) -> int:
    return int(request.query.get("continue", 0))


def page(number: int) -> dict[str, Any]:
    """Return a page of two objects, in the order of a kube-apiserver."""
    metadata = {"resourceVersion": "7"}
    if number + 1 < PAGES:
        metadata["continue"] = str(number + 1)
    items = [{"metadata": {"name": f"p{number}-{item}", "resourceVersion": "1"}} for item in range(2)]
    return {"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": items}


NAMES = [f"p{number}-{item}" for number in range(PAGES) for item in range(2)]


def name(pod: dict[str, Any]) -> str:
    return str(pod["metadata"]["name"])


def threads() -> list[threading.Thread]:
    """Return the threads that read a page."""
    return [thread for thread in threading.enumerate() if thread.name == "aksgpu-next-page"]


@pytest.mark.parametrize(
    ("content", "token"),
    [
        ('{"kind":"PodList","metadata":{"resourceVersion":"7","continue":"x","remainingItemCount":3},"items":[]}', "x"),
        ('{"metadata": {"continue": "x"},\n  "items": [{"metadata": {"continue": "y"}}]}', "x"),
        ('{"metadata":{"continue":"a\\"items\\"b"},"items":[]}', 'a"items"b'),
        ('{"metadata":{"resourceVersion":"7"},"items":[]}', None),
        ('{"metadata":{"continue":""},"items":[]}', None),
        ('{"metadata":{"continue":5},"items":[]}', None),
        ('{"metadata":null,"items":[]}', None),
        ('{"apiVersion":"v1","items":[{"metadata":{"continue":"x"}}],"metadata":{"continue":"y"}}', None),
        ('{"metadata":{"continue":"x","items":[]}}', None),
        ('{"first":{"metadata":{"continue":"x"},"items":[]}}', None),
        ('{"metadata":{"continue":"x"}}', None),
        ('{"items":[],"metadata":{"continue":"x"}}', None),
        ("<html>", None),
        ("", None),
    ],
)
def test_a_token_is_read_from_metadata_before_the_items_only(content: str, token: str | None) -> None:
    assert list_pages.early_token(content.encode()) == token


def test_only_the_beginning_of_a_page_is_searched_for_a_token() -> None:
    filler = "x" * list_pages.LONGEST_HEAD
    assert list_pages.early_token(f'{{"metadata":{{"note":"{filler}","continue":"x"}},"items":[]}}'.encode()) is None


def test_the_next_page_is_requested_before_a_page_is_decoded(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [threading.Event() for _ in range(PAGES + 1)]
    asked[PAGES].set()
    decoded = list_pages.decoded
    requests_at_decoding = []

    def decode_late(content: bytes, request: str) -> Any:
        following = len(requests_at_decoding) + 1
        assert asked[following].wait(WAIT), f"page {following} was not requested"
        requests_at_decoding.append(len(server.requests))
        return decoded(content, request)

    def answer(request: Request) -> None:
        asked[page_number(request)].set()
        request.json(page(page_number(request)))

    api, server = serve(answer)
    monkeypatch.setattr(list_pages, "decoded", decode_late)
    assert api.list("Pod", pick=name) == NAMES
    assert requests_at_decoding == [2, 3, 4, 4]
    assert {request.query["limit"] for request in server.requests} == {"1000"}


def test_pages_whose_metadata_comes_last_are_read_one_after_another(serve: Any) -> None:
    def answer(request: Request) -> None:
        request.json(dict(sorted(page(page_number(request)).items(), key=lambda pair: pair[0] == "metadata")))

    wait_for(lambda: not threads())  # those of other tests
    api, server = serve(answer)
    assert api.list("Pod", pick=lambda pod: (name(pod), threads())) == [(each, []) for each in NAMES]
    assert [page_number(request) for request in server.requests] == list(range(PAGES))


def test_pages_are_read_without_threads_if_none_can_be_started(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unstartable(threading.Thread):
        """As when the limit of threads is reached, or the interpreter ends."""

        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    api, server = serve(lambda request: request.json(page(page_number(request))))
    api.list("Pod")
    requests = len(server.requests)
    monkeypatch.setattr(list_pages, "threading", SimpleNamespace(Thread=Unstartable, Event=threading.Event))
    assert api.list("Pod", pick=name) == NAMES
    assert [page_number(request) for request in server.requests[requests:]] == list(range(PAGES))


def test_a_page_that_is_not_the_next_one_is_not_used(serve: Any) -> None:
    def answer(request: Request) -> None:
        content = json.dumps(page(page_number(request)))
        if page_number(request) == 0:  # of two equal keys, the last counts
            content = '{"metadata":{"continue":"3"},"items":[],' + content[1:]
        request.text(content, kind="application/json")

    api, server = serve(answer)
    assert api.list("Pod", pick=name) == NAMES
    wait_for(lambda: not threads())
    assert sorted(page_number(request) for request in server.requests) == [0, 1, 2, 3, 3]


def refuse(code: int) -> Callable[[Request], None]:
    return lambda request: request.refuse(code, "", "not now")


def end_early(request: Request) -> None:
    request.begin()
    request.chunk(b'{"metadata":')
    request.drop()


def incomplete(request: Request) -> None:
    request.text(json.dumps(page(2))[:-1], kind="application/json")


FAULTS = {"500": refuse(500), "503": refuse(503), "drop": Request.drop, "cut": end_early, "incomplete": incomplete}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_page_that_was_requested_early_is_requested_again_after_a_fault(
    serve: Any, fault: Callable[[Request], None]
) -> None:
    def answer(request: Request) -> None:
        number = page_number(request)
        if number == 2 and [page_number(each) for each in server.requests].count(2) == 1:
            fault(request)
        else:
            request.json(page(number))

    api, server = serve(answer)
    assert api.list("Pod", pick=name) == NAMES
    assert [page_number(request) for request in server.requests].count(2) == 2
    wait_for(lambda: not threads())


def test_the_error_of_a_page_is_raised_after_the_pages_before_it(serve: Any) -> None:
    refused = threading.Event()

    def answer(request: Request) -> None:
        number = page_number(request)
        if number == 1:
            request.refuse(403, "Forbidden", 'pods is forbidden: User "dev" cannot list')
            refused.set()
        else:
            request.json(page(number))

    def keep(pod: dict[str, Any]) -> None:
        assert refused.wait(WAIT)
        kept.append(name(pod))

    kept: list[str] = []
    api, server = serve(answer)
    with pytest.raises(errors.Forbidden, match="cannot list"):
        api.list("Pod", pick=keep)
    assert kept == ["p0-0", "p0-1"]
    assert [page_number(request) for request in server.requests] == [0, 1]
    wait_for(lambda: not threads())


def test_a_list_whose_second_page_has_expired_starts_again(serve: Any) -> None:
    def answer(request: Request) -> None:
        number = page_number(request)
        if number == 1 and [page_number(each) for each in server.requests].count(1) == 1:
            request.refuse(410, "Expired", "The provided continue parameter is too old")
        else:
            request.json(page(number))

    api, server = serve(answer)
    assert api.list("Pod", pick=name) == NAMES
    assert [page_number(request) for request in server.requests] == [0, 1, 0, 1, 2, 3]


def test_a_list_that_fails_gives_up_the_next_page(serve: Any) -> None:
    begun = threading.Event()
    failed = threading.Event()
    closed = threading.Event()

    def answer(request: Request) -> None:
        if page_number(request) == 0:
            request.json(page(0))
            return
        request.begin()
        request.chunk(b'{"metadata":')
        begun.set()
        assert failed.wait(WAIT)
        request.chunk(b"{},")
        with contextlib.suppress(ConnectionError):  # the client had not read everything
            assert request.rfile.read(1) == b""
        closed.set()
        request.close_connection = True

    def fail(pod: dict[str, Any]) -> None:
        assert begun.wait(WAIT)
        raise RuntimeError(name(pod))

    api, _ = serve(answer)
    with pytest.raises(RuntimeError, match="p0-0"):
        api.list("Pod", pick=fail)
    failed.set()
    assert closed.wait(WAIT)
    wait_for(lambda: not threads())


def test_a_watch_that_is_closed_early_leaves_no_thread(serve: Any) -> None:
    api, _ = serve(lambda request: request.json(page(page_number(request))))
    events = api.watch("Pod", timeout=30)
    assert name(next(events)[1]) == "p0-0"
    events.close()
    wait_for(lambda: not threads())


def test_a_deadline_ends_the_wait_for_the_next_page(serve: Any) -> None:
    def answer(request: Request) -> None:
        if page_number(request) == 0:
            request.json(page(0))
        else:
            request.silence()

    api, _ = serve(answer)
    begin = time.monotonic()
    with waiting.deadline(1.5), pytest.raises(errors.Unreachable):
        api.list("Pod")
    assert time.monotonic() - begin < 20
    wait_for(lambda: not threads())


def test_an_interrupt_ends_the_wait_for_the_next_page(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "READ_TIMEOUT", 3.0)

    def answer(request: Request) -> None:
        if page_number(request) == 0:
            request.json(page(0))
        else:
            os.kill(os.getpid(), signal.SIGINT)
            request.silence()

    api, server = serve(answer)
    with pytest.raises(KeyboardInterrupt):
        api.list("Pod")
    assert [page_number(request) for request in server.requests] == [0, 1]
    wait_for(lambda: not threads())


def test_a_silent_page_is_requested_again(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "READ_TIMEOUT", 0.3)

    def answer(request: Request) -> None:
        number = page_number(request)
        if number == 1 and [page_number(each) for each in server.requests].count(1) == 1:
            request.silence()
        else:
            request.json(page(number))

    api, server = serve(answer)
    assert api.list("Pod", pick=name) == NAMES
