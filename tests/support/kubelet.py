"""A scripted API server whose pods' logs follow the rules of a kubelet and of CRI log files.

- The log endpoint serves the newest run at once; the pod's status follows ``status_lag`` seconds later.
- ``previous=true`` serves the run before the newest. Older runs cannot be read.
- While a container waits for its restart, both serve the run that has ended.
- A log file has entries: a timestamp in nanoseconds, a tag (``P`` for a part of a line, ``F`` for its end), and at most
  16 KiB of text. With ``timestamps=true``, only the beginning of a line has a timestamp.
- ``sinceTime`` is truncated to seconds. It selects entries, not lines, so a response can begin inside a line.
- After a rotation, only the newest file is served. A stream with ``follow`` continues in it.
- A stream with ``follow`` ends when its run ends.

Times are those of the real clock, which can be set back for a pod.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Self

from scripted import Request, Server

PIECE = 16 * 1024
"""Bytes of one entry."""
CONTAINER = "main"
JOB_LABEL = "batch.kubernetes.io/job-name"


class Entry(NamedTuple):
    """One entry of a CRI log file."""

    at: int
    """Nanoseconds since 1970."""
    text: bytes
    """Includes the newline if the line ends in this entry."""


def stamp(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{rest:09d}Z"


def second(nanoseconds: int | None) -> str | None:
    return None if nanoseconds is None else stamp(nanoseconds)[:19] + "Z"


@dataclass
class Run:
    """One run of a container."""

    id: str
    started: int
    finished: int | None = None
    exit_code: int = 0
    entries: list[Entry] = field(default_factory=list)
    """The entries of all files."""
    rotated: int = 0
    """Number of entries in files that are no longer served."""


class Pod:
    """A pod with one container. Methods that change it are thread-safe and wake the streams with ``follow``."""

    def __init__(self, name: str = "p", *, policy: str = "OnFailure", status_lag: float = 0.0, job: str = "") -> None:
        self.name = name
        self.uid = f"uid-{name}-{time.time_ns()}"
        self.policy = policy
        self.status_lag = status_lag
        self.job = job
        self.created = second(time.time_ns())
        self.runs: list[Run] = []
        self.phase = "Pending"
        self.waiting = ""
        """The reason why the container waits for its restart; empty if it does not wait."""
        self.deleted = False
        self.changed = threading.Condition()
        self.texts: list[str] = []
        """All lines of all runs."""
        self._offset = 0
        self._last_stamp = 0
        self._history: list[tuple[float, dict[str, Any]]] = []
        self._record()

    # Change the pod

    def start(self) -> Self:
        """Start the next run of the container."""
        with self.changed:
            self.phase = "Running"
            self.waiting = ""
            self.runs.append(Run(f"containerd://{self.uid}-{len(self.runs)}", self._now()))
            self._record()
        return self

    def write(self, *lines: str, end: str = "\n") -> Self:
        """Write lines to the newest run's log."""
        with self.changed:
            for line in lines:
                self._write(line.encode() + end.encode())
                self.texts.append(line)
            self.changed.notify_all()
        return self

    def write_part(self, text: str) -> Self:
        """Write a part of a line; :meth:`write` ends it."""
        with self.changed:
            self._write(text.encode())
            self.changed.notify_all()
        return self

    def _write(self, text: bytes) -> None:
        for begin in range(0, len(text), PIECE):
            self.runs[-1].entries.append(Entry(self._now(), text[begin : begin + PIECE]))

    def end(self, exit_code: int = 0, *, over: bool | None = None) -> Self:
        """End the newest run. ``over`` says whether the pod ends too; None follows the restart policy."""
        with self.changed:
            run = self.runs[-1]
            run.finished = self._now()
            run.exit_code = exit_code
            if over is None:
                over = self.policy == "Never" or (self.policy == "OnFailure" and exit_code == 0)
            if over:
                self.phase = "Failed" if exit_code else "Succeeded"
            self._record()
        return self

    def restart(self, exit_code: int = 1) -> Self:
        """End the newest run with a failure, and start the next one at once."""
        with self.changed:
            run = self.runs[-1]
            run.finished = self._now()
            run.exit_code = exit_code
            self.runs.append(Run(f"containerd://{self.uid}-{len(self.runs)}", self._now()))
            self._record()
        return self

    def back_off(self) -> Self:
        """Let the container wait for its restart after its newest run has ended."""
        with self.changed:
            self.waiting = "CrashLoopBackOff"
            self._record()
        return self

    def create(self) -> Self:
        """Create the next container, which has not started: it counts as a restart, and has an ID."""
        with self.changed:
            self.waiting = "ContainerCreating"
            self._record()
        return self

    def fail(self) -> Self:
        """Let the pod fail, as after its deadline, while its container waits for its restart."""
        with self.changed:
            self.phase = "Failed"
            self._record()
        return self

    def rotate(self) -> Self:
        """Start a new log file. Earlier lines are no longer served."""
        with self.changed:
            run = self.runs[-1]
            run.rotated = len(run.entries)
        return self

    def delete(self) -> Self:
        """Remove the pod and its logs."""
        with self.changed:
            self.deleted = True
            if self.runs and self.runs[-1].finished is None:
                self.runs[-1].finished = self._now()
            self.changed.notify_all()
        return self

    def set_clock_back(self, seconds: float) -> Self:
        """Set the node's clock back."""
        self._offset -= int(seconds * 1e9)
        self._last_stamp = 0
        return self

    def _now(self) -> int:
        now = max(time.time_ns() + self._offset, self._last_stamp + 1)
        self._last_stamp = now
        return now

    def _record(self) -> None:
        self._history.append((time.monotonic(), self._status()))
        with self.changed:
            self.changed.notify_all()

    # Serve the pod

    def _status(self) -> dict[str, Any]:
        status: dict[str, Any] = {"phase": self.phase}
        if not self.runs:
            return status
        run = self.runs[-1]
        entry: dict[str, Any] = {
            "name": CONTAINER,
            "restartCount": len(self.runs) - 1,
            "containerID": run.id,
            "lastState": {"terminated": _terminated(self.runs[-2])} if len(self.runs) > 1 else {},
        }
        if self.waiting:
            entry["state"] = {"waiting": {"reason": self.waiting}}
            entry["lastState"] = {"terminated": _terminated(run)}
            if self.waiting == "ContainerCreating":
                entry["restartCount"] += 1
                entry["containerID"] = f"containerd://{self.uid}-{len(self.runs)}"
        elif run.finished is None:
            entry["state"] = {"running": {"startedAt": second(run.started)}}
        else:
            entry["state"] = {"terminated": _terminated(run)}
        status["containerStatuses"] = [entry]
        return status

    def document(self) -> dict[str, Any]:
        """Return the Pod object. Its status is ``status_lag`` seconds old."""
        shown = time.monotonic() - self.status_lag
        known = [status for at, status in self._history if at <= shown]
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": self.name,
                "namespace": "default",
                "uid": self.uid,
                "creationTimestamp": self.created,
                "labels": {JOB_LABEL: self.job},
            },
            "spec": {"nodeName": "n", "restartPolicy": self.policy, "containers": [{"name": CONTAINER}]},
            "status": known[-1] if known else self._history[0][1],
        }

    def log(self, query: dict[str, str]) -> tuple[int, str] | Iterator[bytes]:
        """Return the response of the log endpoint: status and message of an error, or pieces of the text."""
        container = query.get("container", CONTAINER)
        if container != CONTAINER:
            return 400, f"container {container} is not valid for pod {self.name}"
        runs = self.runs
        where = f'container "{container}" in pod "{self.name}"'
        if query.get("previous") == "true" and not self.waiting:
            if len(runs) < 2:
                return 400, f"previous terminated {where} not found"
            return self._serve(runs[-2], query)
        if not runs:
            return 400, f"{where} is waiting to start: ContainerCreating"
        return self._serve(runs[-1], query)

    def _serve(self, run: Run, query: dict[str, str]) -> Iterator[bytes]:
        since = 0
        if "sinceTime" in query:
            text = query["sinceTime"]
            since = int(datetime.fromisoformat(text[:19] + "+00:00").timestamp()) * 1_000_000_000
        stamps = query.get("timestamps") == "true"
        stays = query.get("follow") == "true"
        left = int(query.get("limitBytes", 1 << 60))
        position = run.rotated
        tail = query.get("tailLines")
        if tail is not None:
            position = max(len(run.entries) - int(tail), position)
        new_line = True
        while True:
            with self.changed:
                ended = run.finished is not None
                entries = run.entries[position:]
                if not entries and not ended and stays:
                    self.changed.wait(0.2)
                    entries = run.entries[position:]
            position += len(entries)
            shown = []
            for entry in entries:
                if entry.at >= since:
                    prefix = stamp(entry.at).encode() + b" " if stamps and new_line else b""
                    shown.append(prefix + entry.text)
                new_line = entry.text.endswith(b"\n")
            block = b"".join(shown)[:left]
            left -= len(block)
            yield block
            if not stays or ended or not left:
                return


def _is_closed(request: Request) -> bool:
    """Return whether the client has closed its side."""
    readable, _, _ = select.select([request.connection], [], [], 0)
    return bool(readable) and not request.connection.recv(1, socket.MSG_PEEK)


def _terminated(run: Run) -> dict[str, Any]:
    return {
        "exitCode": run.exit_code,
        "reason": "Error" if run.exit_code else "Completed",
        "startedAt": second(run.started),
        "finishedAt": second(run.finished),
        "containerID": run.id,
    }


class Job:
    """A Job whose pods the test creates."""

    def __init__(self, name: str = "j", **spec: Any) -> None:
        self.name = name
        self.uid = f"uid-{name}-{time.time_ns()}"
        self.spec = spec
        self.status: dict[str, Any] = {}

    def finish(self, condition: str, **counts: int) -> None:
        self.status = {**counts, "conditions": [{"type": condition, "status": "True", "reason": "X"}]}

    def document(self) -> dict[str, Any]:
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": self.name, "namespace": "default", "uid": self.uid},
            "spec": {"selector": {"matchLabels": {JOB_LABEL: self.name}}, **self.spec},
            "status": self.status,
        }


class ApiServer:
    """A context manager; serves pods and Jobs over HTTP.

    Attributes:
        before: called first with each request. It may change pods, or send the response and return True.
    """

    def __init__(self, *pods: Pod, jobs: tuple[Job, ...] = ()) -> None:
        self.pods = list(pods)
        self.jobs = list(jobs)
        self.before: Callable[[Request], bool | None] = lambda request: None
        self._server = Server(self._answer)

    @property
    def log_requests(self) -> list[dict[str, str]]:
        return [each.query for each in self._server.requests if each.route.endswith("/log")]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def kubeconfig(self, folder: Path) -> Path:
        return self._server.kubeconfig(folder)

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        for pod in self.pods:
            pod.delete()
        self._server.__exit__()

    def _answer(self, request: Request) -> None:
        if self.before(request):
            return
        parts = request.route.strip("/").split("/")
        if "jobs" in parts:
            found = [job for job in self.jobs if job.name == parts[-1]]
            self._one(request, found, f'jobs.batch "{parts[-1]}"')
        elif parts[-1] == "pods":
            wanted = request.query.get("labelSelector", "").partition("=")[2]
            pods = [pod for pod in self.pods if not pod.deleted and (not wanted or pod.job == wanted)]
            request.json({"kind": "PodList", "items": [pod.document() for pod in pods], "metadata": {}})
        elif parts[-1] == "log":
            self._log(request, parts[-2])
        else:
            self._one(request, self._named(parts[-1]), f'pods "{parts[-1]}"')

    def _named(self, name: str) -> list[Pod]:
        return [pod for pod in self.pods if pod.name == name and not pod.deleted][-1:]

    def _one(self, request: Request, found: list[Any], what: str) -> None:
        if found:
            request.json(found[0].document())
        else:
            request.refuse(404, "NotFound", f"{what} not found")

    def _log(self, request: Request, name: str) -> None:
        found = self._named(name)
        if not found:
            request.refuse(404, "NotFound", f'pods "{name}" not found')
            return
        answer = found[0].log(request.query)
        if isinstance(answer, tuple):
            request.refuse(answer[0], "BadRequest", answer[1])
            return
        request.begin()
        for block in answer:
            if self._server.stopping.is_set() or (not block and _is_closed(request)):
                request.close_connection = True
                return
            request.chunk(block)
        request.end()
