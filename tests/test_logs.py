from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from scripted import Request, Server

from aksgpu import logs
from aksgpu.errors import InvalidInput, NotFound
from aksgpu.kube import Kube
from aksgpu.logs import deduplication, follower
from aksgpu.logs.deduplication import LogLine, Response, SeenLines, format_since
from aksgpu.logs.job_logs import job_pods


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(follower, "STATUS_LAG_SECONDS", 0.3)


class Pod:
    """A pod's container as an API server shows it. Each log request gets the next of ``faults``, if any."""

    def __init__(self, *runs: list[str], policy: str = "OnFailure", end: str = "\n") -> None:
        self.runs = [list(run) for run in runs]
        self.ended = 0  # runs that have ended
        self.current = 0
        self.policy = policy
        self.end = end
        self.faults: list[tuple[str, int]] = []
        self.phase = "Running"
        self.deleted = False
        self.log_requests: list[dict[str, str]] = []
        self.on_log: Any = None

    def status(self) -> dict[str, Any]:
        over = self.phase in ("Succeeded", "Failed")
        state = {"terminated": {"exitCode": 0}} if self.ended > self.current else {"running": {}}
        last = {"terminated": {"exitCode": 1}} if self.current else {}
        entry = {"name": "main", "restartCount": self.current, "state": state, "lastState": last}
        if not over and self.ended > self.current:
            entry["state"]["terminated"]["exitCode"] = 1 if self.current + 1 < len(self.runs) else 0
        return {
            "metadata": {"name": "p", "namespace": "default", "uid": "1", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"containers": [{"name": "main"}], "restartPolicy": self.policy},
            "status": {"phase": self.phase, "containerStatuses": [entry]},
        }

    def __call__(self, request: Request) -> None:
        if self.deleted:
            request.refuse(404, "NotFound", 'pods "p" not found')
        elif request.route.endswith("/log"):
            self.log_requests.append(request.query)
            if self.on_log:
                self.on_log(self)
            self.log(request, **(dict([self.faults.pop(0)]) if self.faults else {}))
        else:
            request.json(self.status())

    def log(
        self,
        request: Request,
        drop: int | None = None,
        eof: int | None = None,
        silence: int | None = None,
    ) -> None:
        run = self.current - ("previous" in request.query)
        since = request.query.get("sinceTime", "")[:19]  # truncated to seconds, as servers do
        lines = [line for line in self.runs[run] if line[:19] >= since]
        cut = next((n for n in (drop, eof, silence) if n is not None), None)
        if "tailLines" in request.query:
            lines = lines[-int(request.query["tailLines"]) :]
        if request.query.get("timestamps") != "true":
            lines = texts(lines)
        content = "\n".join(lines).encode() + (self.end.encode() if lines else b"")
        request.begin()
        request.chunk(content if cut is None else content[:cut])
        if silence is not None:
            request.silence()
        elif drop is not None:
            request.drop()
        else:
            request.end()


def stamped(count: int, *, per_second: int = 7, text: str = "line", start: int = 0) -> list[str]:
    lines = []
    for i in range(count):
        second, part = divmod(i, per_second)
        moment = f"2026-11-24T10:{start + second // 60:02d}:{second % 60:02d}.{part * 1000 // per_second:03d}000000Z"
        lines.append(f"{moment} {text} {i // 2}")  # pairs of equal texts
    return lines


def texts(lines: list[str]) -> list[str]:
    return [line.split(" ", 1)[1] for line in lines]


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[Any]:
    servers: list[Server] = []

    def start(pod: Any) -> Any:
        server = Server(pod).__enter__()
        servers.append(server)
        return cluster_of(Kube.from_kubeconfig(server.kubeconfig(tmp_path)))

    yield start
    for server in servers:
        server.__exit__()


def cluster_of(kube: Kube) -> Any:
    """The parts of a cluster that the functions for logs need."""
    return SimpleNamespace(name="scripted", kube=kube)


def follow(aks: Any, read_timeout: float = 60) -> list[str]:
    return [line.text for line in logs.follow(aks, "p", read_timeout=read_timeout)]


@pytest.mark.parametrize(
    ("call", "options", "argument"),
    [
        ("read", {"tail_lines": -1}, "tail_lines"),
        ("read", {"tail_lines": "5"}, "tail_lines"),
        ("read", {"timeout": -1}, "timeout"),
        ("read_job", {"tail_lines": 1.5}, "tail_lines"),
        ("read_job", {"timeout": "soon"}, "timeout"),
        ("follow", {"read_timeout": 0}, "read_timeout"),
        ("follow_job", {"read_timeout": None}, "read_timeout"),
    ],
)
def test_wrong_arguments_are_refused_before_a_request(
    tmp_path: Path, call: str, options: dict[str, Any], argument: str
) -> None:
    with Server(Pod([])) as server:
        aks = cluster_of(Kube.from_kubeconfig(server.kubeconfig(tmp_path)))
        with pytest.raises(InvalidInput, match=rf"^`{argument}` must be .* got "):
            getattr(logs, call)(aks, "p", **options)
        with pytest.raises(InvalidInput, match="`aks` must be a cluster, got its Kube"):
            getattr(logs, call)(aks.kube, "p")
        with pytest.raises(TypeError):
            getattr(logs, call)(aks, "p", "default")
        assert server.requests == []


def test_follows_to_the_end_of_a_finished_pod(connect: Any) -> None:
    pod = Pod(stamped(30))
    pod.ended = 1
    pod.phase = "Succeeded"
    assert follow(connect(pod)) == texts(pod.runs[0])


@pytest.mark.parametrize("fault", ["drop", "eof", "silence"])
def test_a_break_inside_a_line_loses_and_repeats_nothing(connect: Any, fault: str) -> None:
    pod = Pod(stamped(40))
    pod.faults = [(fault, 333), (fault, 500), (fault, 0)]

    def finish(pod: Pod) -> None:
        if not pod.faults:
            pod.ended = 1
            pod.phase = "Succeeded"

    pod.on_log = finish
    assert follow(connect(pod), read_timeout=0.4) == texts(pod.runs[0])
    assert any("sinceTime" in query for query in pod.log_requests)


def test_a_clean_end_of_the_stream_is_not_the_end_of_the_pod(connect: Any) -> None:
    pod = Pod(stamped(5))

    def more(pod: Pod) -> None:
        if len(pod.log_requests) == 3:
            pod.runs[0] = stamped(20)
            pod.ended = 1
            pod.phase = "Succeeded"

    pod.on_log = more
    assert follow(connect(pod)) == texts(stamped(20))


def test_equal_lines_with_one_timestamp_are_all_kept_and_not_repeated(connect: Any) -> None:
    same = ["2026-11-24T10:00:00.000000001Z same"] * 6
    pod = Pod(same)
    cut = len("\n".join(same[:3])) + 4
    pod.faults = [("drop", cut), ("eof", cut)]
    pod.on_log = lambda pod: setattr(pod, "ended", int(not pod.faults))
    assert follow(connect(pod)) == ["same"] * 6


def test_a_last_line_without_a_newline_is_yielded_once(connect: Any) -> None:
    pod = Pod([*stamped(4), "2026-11-24T10:00:09.5Z Accuracy at step 490: 0.9494"], end="")
    pod.ended = 1
    pod.phase = "Succeeded"
    assert follow(connect(pod))[-1] == "Accuracy at step 490: 0.9494"
    assert len(follow(connect(pod))) == 5


def test_a_response_that_is_cut_after_the_end_is_completed(connect: Any) -> None:
    pod = Pod(stamped(20))
    pod.ended = 1
    pod.phase = "Succeeded"
    pod.faults = [("eof", 200), ("drop", 90), ("eof", 210)]
    assert follow(connect(pod)) == texts(pod.runs[0])


def test_continues_with_the_next_run_of_the_container(connect: Any) -> None:
    pod = Pod(stamped(20, text="first"), stamped(10, text="second", start=5))
    pod.faults = [("drop", 333)]

    def restart(pod: Pod) -> None:
        if not pod.faults and pod.current == 0:
            # between the break and the next read of the pod
            pod.current = 1
            pod.ended = 1
        elif len(pod.log_requests) > 3:
            pod.ended = 2
            pod.phase = "Succeeded"

    pod.on_log = restart
    assert follow(connect(pod)) == texts(pod.runs[0]) + texts(pod.runs[1])
    assert any("previous" in query for query in pod.log_requests)


def test_random_faults_lose_and_repeat_nothing(connect: Any) -> None:
    chance = random.Random(1)
    for _ in range(3):
        runs = [stamped(150, text="a"), stamped(120, text="b", start=10)]
        pod = Pod(*runs)
        kinds = ["drop"] * 5 + ["eof"] * 5 + ["silence"]
        pod.faults = [(chance.choice(kinds), chance.randrange(4000)) for _ in range(8)]

        def proceed(pod: Pod) -> None:
            if len(pod.faults) == 4 and pod.current == 0:
                pod.current = 1
                pod.ended = 1
            if not pod.faults:
                pod.ended = 2
                pod.phase = "Succeeded"

        pod.on_log = proceed
        assert follow(connect(pod), read_timeout=0.4) == texts(runs[0]) + texts(runs[1])


def test_waits_for_a_pod_that_has_not_started(connect: Any) -> None:
    pod = Pod(stamped(3))
    looks = []

    def answer(request: Request) -> None:
        looks.append(request.route)
        if len(looks) < 3:
            status = pod.status()
            status["status"] = {"phase": "Pending"}
            request.json(status)
            return
        pod.ended = 1
        pod.phase = "Succeeded"
        pod(request)

    assert follow(connect(answer)) == texts(pod.runs[0])


def test_ends_with_a_marker_if_the_pod_is_deleted(connect: Any) -> None:
    pod = Pod(stamped(10))
    pod.on_log = lambda pod: setattr(pod, "deleted", len(pod.log_requests) > 1)
    *lines, last = logs.follow(connect(pod), "p")
    assert [line.text for line in lines] == texts(pod.runs[0])
    assert last.gap is not None
    assert last.gap.since == lines[-1].timestamp
    assert last.text.startswith("[aksgpu: pod p was removed before its log was read to the end")


def test_lines_arrive_while_the_program_runs(connect: Any) -> None:
    go = threading.Event()

    def answer(request: Request) -> None:
        if not request.route.endswith("/log"):
            request.json(Pod([]).status())
            return
        request.begin()
        request.chunk(b"2026-11-24T10:00:00.1Z one\n2026-11-24T10:00:00.2Z tw")
        go.wait(60)
        request.chunk(b"o\n")
        request.silence()

    lines = logs.follow(connect(answer), "p")
    assert next(lines).text == "one"  # not delayed until the stream ends
    go.set()
    assert next(lines) == LogLine("2026-11-24T10:00:00.2Z", "two")
    lines.close()  # type: ignore[attr-defined]


class RestartingServer(Server):
    """A server whose port another socket reserves."""

    allow_reuse_port = True


def test_survives_a_restarting_server(connect: Any, tmp_path: Path) -> None:
    pod = Pod(stamped(10))
    pod.faults = [("drop", 150)]
    # The port is kept from other programs while no server listens.
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved.bind(("127.0.0.1", 0))
    server = RestartingServer(pod, reserved.getsockname()[1]).__enter__()
    aks = cluster_of(Kube.from_kubeconfig(server.kubeconfig(tmp_path)))
    lines = logs.follow(aks, "p")
    got = [line.text for line in islice(lines, 3)]
    server.__exit__()
    pod.ended = 1
    pod.phase = "Succeeded"

    def revive() -> None:
        time.sleep(0.3)
        with RestartingServer(pod, server.server_port):
            done.wait(60)

    done = threading.Event()
    reviver = threading.Thread(target=revive)
    reviver.start()
    got += [line.text for line in lines]
    done.set()
    reviver.join()
    reserved.close()
    assert got == texts(pod.runs[0])


def test_read_returns_an_empty_text_for_a_pod_that_waits(connect: Any) -> None:
    pod = Pod(["2026-11-24T10:00:00.1Z one"])
    assert logs.read(connect(pod), "p") == "one\n"

    def waiting(request: Request) -> None:
        if request.route.endswith("/log"):
            request.refuse(400, "BadRequest", 'container "main" in pod "p" is waiting to start: ContainerCreating')
        else:
            request.json(pod.status())

    assert logs.read(connect(waiting), "p") == ""


def test_wrong_names_are_refused(connect: Any) -> None:
    pod = Pod([])
    aks = connect(pod)
    with pytest.raises(InvalidInput, match=r"`container` must be .* got 'nope'"):
        logs.follow(aks, "p", container="nope")
    pod.deleted = True
    with pytest.raises(NotFound):
        logs.follow(aks, "p")


def test_continues_with_the_jobs_next_pod(connect: Any) -> None:
    pods = {name: Pod(stamped(5, text=name)) for name in ("a", "b")}
    for pod in pods.values():
        pod.ended = 1
        pod.phase = "Failed"
    job: dict[str, Any] = {
        "metadata": {"name": "j", "namespace": "default", "uid": "j"},
        "spec": {"selector": {"matchLabels": {"x": "y"}}},
        "status": {},
    }
    there = ["a"]

    def described(name: str) -> dict[str, Any]:
        status = pods[name].status()
        status["metadata"] = {**status["metadata"], "name": name, "uid": name}
        status["spec"]["nodeName"] = "n"
        return status

    def answer(request: Request) -> None:
        parts = request.route.split("/")
        if "jobs" in parts:
            request.json(job)
        elif parts[-1] == "pods":
            assert request.query["labelSelector"] == "x=y"
            request.json({"items": [described(name) for name in there], "metadata": {}})
        elif parts[-1] == "log":
            pods[parts[-2]](request)
            if parts[-2] == "a" and "b" not in there:
                there.append("b")
            elif parts[-2] == "b":
                job["status"] = {"conditions": [{"type": "Failed", "status": "True"}]}
        else:
            request.json(described(parts[-1]))

    got = [(pod, line.text) for pod, line in logs.follow_job(connect(answer), "j")]
    assert got == [(name, text) for name in ("a", "b") for text in texts(stamped(5, text=name))]


def test_attempts_of_the_same_second_are_ordered_by_the_failures_before_them(connect: Any) -> None:
    job: dict[str, Any] = {
        "metadata": {"name": "j", "namespace": "default", "uid": "j"},
        "spec": {"selector": {"matchLabels": {"x": "y"}}},
    }
    before = {"c": 0, "b": 1, "a": 2}
    pods = []
    for name, failures in before.items():
        pod = Pod([])
        pod.phase = "Failed"
        described = pod.status()
        annotations = {"batch.kubernetes.io/job-index-failure-count": str(failures)}
        described["metadata"] = {**described["metadata"], "name": name, "annotations": annotations}
        pods.append(described)
    cluster = connect(lambda request: request.json({"items": pods, "metadata": {}}))
    assert [pod["metadata"]["name"] for pod in job_pods(cluster.kube, job)] == ["c", "b", "a"]


def given(seen: SeenLines, lines: list[str]) -> list[LogLine]:
    """Return the lines that a Seen yields from a response."""
    response = Response(seen, seen.resume_time)
    return [seen.add(raw, digest) for raw, digest in response.new_lines(line.encode() + b"\n" for line in lines)]


def test_a_resumed_log_is_requested_for_a_margin_before_its_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = SeenLines()
    lines = stamped(7000)
    given(seen, lines)
    assert format_since(seen.resume_time) == "2026-11-24T09:16:39Z"
    assert given(seen, lines) == []
    monkeypatch.setattr(deduplication, "SHORT_LOG_BYTES", 1000)
    assert format_since(seen.resume_time) == "2026-11-24T10:15:39Z"


def test_old_lines_are_forgotten_and_not_requested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deduplication, "REMEMBERED_LINES", 500)
    seen = SeenLines()
    lines = stamped(7000)
    given(seen, lines)
    assert seen.lines == 7000
    assert len(seen._hashes) <= 1010
    assert not seen.remembers_all
    since = format_since(seen.resume_time)
    assert since is not None
    assert since > "2026-11-24T10:14"
    assert given(seen, [line for line in lines if line >= since]) == []


def test_a_zone_other_than_utc_is_resumed_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deduplication, "SHORT_LOG_MARGIN", 0)
    seen = SeenLines()
    given(seen, ["2026-11-24T12:30:00.123+02:00 x"])
    assert format_since(seen.resume_time) == "2026-11-24T10:30:00Z"
