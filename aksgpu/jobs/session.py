"""A warm pod: functions run in one process there, one after another, and what they import stays loaded."""

from __future__ import annotations

import atexit
import contextlib
import os
import platform
import sys
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aksgpu.common.arguments import shown
from aksgpu.errors import (
    AksGpuError,
    InvalidInput,
    KubernetesError,
    NotFound,
    ResultLost,
    SessionEnded,
    Unreachable,
    WaitTimeout,
)
from aksgpu.jobs import job_outcome
from aksgpu.jobs.executor_manifest import MAIN
from aksgpu.jobs.executor_options import ExecutorOptions
from aksgpu.jobs.failure_record import PullRecord
from aksgpu.jobs.job import Job
from aksgpu.jobs.job_launch import launch
from aksgpu.jobs.job_status import JobStatus
from aksgpu.jobs.session_connection import Message, SessionConnection
from aksgpu.jobs.session_output import SessionOutput
from aksgpu.jobs.state_explanation import StateExplanation
from aksgpu.kube import pod_facts
from aksgpu.kube.client import HasKube, Object
from aksgpu.logs.job_logs import find_same_job, job_pods
from aksgpu.payload.changed_modules import ChangedModules
from aksgpu.payload.modules import find_root, project_modules
from aksgpu.payload.packing import own_python
from aksgpu.payload.records import Record
from aksgpu.payload.session_frames import RecordDecoder
from aksgpu.payload.session_packing import PackedCall, pack_cell, pack_session, pack_session_call
from aksgpu.waiting import Interrupted, Timeout, Timer, check_timeout, deadline, wait_until

__all__ = ["Session", "check_idle", "open_session"]

_HELLO_SECONDS = 0.5
"""Seconds that each attempt waits for the session's greeting. The program in the container waits longer."""
_POLL_SECONDS = 0.2
"""Seconds between two looks at the pod."""
_CLOSING_SECONDS = 10.0
"""Seconds that closing waits for the session's process."""
_EXIT_SECONDS = 5.0
"""Seconds that this process's end may be delayed by closing sessions."""
_LARGEST_IDLE = 30 * 86400
"""Seconds."""
_ANOTHER = "Open another one: gpu.session()."


class Session:
    """A pod that runs functions one after another. Returned by :meth:`Executor.session`; a context manager.

    Call it with a function and its arguments; it returns the function's value. What the function prints appears here,
    and exceptions are raised here. An interrupt raises KeyboardInterrupt in the function, and the session continues.

    Calls from several threads run one after another.

    Functions and modules of the project are sent with each call, in their present state. A module whose file has
    changed is imported again first.

    Attributes:
        job: the Job of its pod.
        idle: seconds without a call after which it ends.
        gpus: GPUs of its pod. It keeps them until it ends.
    """

    def __init__(self, job: Job, idle: float, gpus: int, root: Path | None) -> None:
        self.job = job
        self.idle = idle
        self.gpus = gpus
        self._root = root
        self._connection: SessionConnection | None = None
        self._instance = ""
        self._client = uuid.uuid4().hex
        self._is_same_python = True
        self._is_closed = False
        self._pulls = PullRecord()
        self._calling = threading.Lock()
        self._process = os.getpid()
        self._changed = ChangedModules()
        self._changed.reload(project_modules(self._directory()))
        # Registered after the first request, so that it runs before the client's own files are removed.
        atexit.register(self._abandon)

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"ends after {self.idle:g} s without a call"
        return f"Session({self.job.name!r}, {state})"

    def __call__(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Run a function in the session, and return its value.

        Args:
            fn: the function.
            args: its positional arguments.
            kwargs: its keyword arguments.

        Raises:
            Exception: the function's own exception. Its cause has the traceback in the pod.
            RemoteError: the function raised an exception that cannot be rebuilt in this process.
            SessionEnded: the session has ended: it was closed or idle, or its pod was replaced.
            JobFailed: the session's pod has failed, for example because its memory was used up.
            InvalidInput: ``fn`` is not callable, or the call cannot be sent.
            Interrupted: the wait was interrupted again, while the function did not react to the first interrupt.

        Example:
            >>> session(train, 1e-3)  # doctest: +SKIP
        """
        if not callable(fn):
            raise InvalidInput(
                f"`fn` must be a function, got {shown(fn)}",
                hint="Pass the function and its arguments, as in gpu.submit.",
            )
        root = self._directory()
        reloaded = self._changed.reload(project_modules(root))
        if reloaded:
            sys.stderr.write(f"[aksgpu] imported again, because their files have changed: {', '.join(reloaded)}\n")
        self.connect()
        packed = pack_session_call(fn, args, kwargs, root=root, is_same_python=self._is_same_python)
        return job_outcome.value_of(self._perform(packed), self.job.name, raw=False)

    def connect(self) -> None:
        """Wait until the session is ready for a call.

        Raises:
            SessionEnded: the session has ended.
            JobFailed: its pod has failed, or cannot start.
            Interrupted: the user interrupted the wait. The session continues.
        """
        with self._calling:
            self._connected()

    def run_cell(self, source: str, name: str, inputs: Mapping[str, Any], outputs: list[str]) -> Record:
        """Run a notebook cell in the session, and return its outcome. The magic ``%%gpu`` calls this.

        Args:
            source: the cell's text.
            name: its name in tracebacks.
            inputs: objects that it uses, by name.
            outputs: names to return.
        """
        self.connect()
        root = self._directory()
        return self._perform(pack_cell(name, source, inputs, outputs, root=root, is_same_python=self._is_same_python))

    def cost(self) -> float | None:
        """Return what the session has cost so far in US dollars; None if the price of its node is not known."""
        usd = self.job.facts()["usd"]
        return None if usd is None else float(usd)

    def done(self) -> bool:
        """Return whether the session has ended.

        Raises:
            Unreachable: the API server did not answer.
        """
        if self._is_closed:
            return True
        try:
            return self.job.done()
        except NotFound:
            return True

    def close(self) -> None:
        """End the session, and delete its Job. A second call does nothing.

        Raises:
            Forbidden: you may not delete Jobs.
            Unreachable: the API server did not answer. The session ends by itself when it is idle.
        """
        if self._is_closed:
            return
        connection = self._connection
        if connection is not None and not connection.is_broken:
            timer = Timer(_CLOSING_SECONDS)
            with contextlib.suppress(AksGpuError, TimeoutError):
                connection.send({"op": "close"})
                while timer.left:
                    connection.receive(timer.left)
        self._drop()
        self.job.delete()
        self._is_closed = True
        atexit.unregister(self._abandon)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _directory(self) -> Path:
        return self._root or find_root()

    def _abandon(self) -> None:
        """Delete the Job at the end of the process that opened the session. Without that, the idle time ends it."""
        if self._process == os.getpid():
            self._drop()
            with contextlib.suppress(AksGpuError), deadline(_EXIT_SECONDS):
                self.job.cluster.kube.delete("Job", self.job.name, self.job.namespace)

    # Connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self) -> SessionConnection:
        """Return the connection, after waiting for the pod if there is none.

        Raises:
            SessionEnded: the session has ended.
            JobFailed: its pod has failed.
        """
        if self._is_closed:
            raise SessionEnded("the session was closed", hint=_ANOTHER)
        if self._connection is not None and not self._connection.is_broken:
            return self._connection
        self._drop()
        waiting: list[SessionConnection] = []
        explanation = StateExplanation(self.job._explain)
        try:
            connection, hello = wait_until(
                lambda: self._poll(waiting, explanation),
                f"session {self.job.name}",
                timeout=None,
                interval=_POLL_SECONDS,
                on_interrupt="The session continues; call it again.",
            )
        except BaseException:
            if waiting:
                waiting[0].close()
            raise
        self._greet(connection, hello)
        return connection

    def _greet(self, connection: SessionConnection, hello: dict[str, Any]) -> None:
        """Use a new connection.

        Raises:
            SessionEnded: another process answers than before.
        """
        if self._instance and hello["instance"] != self._instance:
            connection.close()
            raise SessionEnded(
                f"the pod of session {self.job.name} was replaced, and its loaded state is gone",
                hint="Close it, and open another one: gpu.session().",
            )
        self._instance = hello["instance"]
        theirs = (hello["python"], hello["implementation"])
        self._is_same_python = theirs == (own_python(), platform.python_implementation())
        self._connection = connection
        connection.keep_open()

    def _poll(
        self, waiting: list[SessionConnection], explanation: StateExplanation
    ) -> tuple[tuple[SessionConnection, dict[str, Any]] | None, str]:
        """Try to connect, and return the connection and the greeting; None and the pod's state until then.

        Args:
            waiting: the connection that has not greeted yet, if there is one.
            explanation: says why no pod runs.
        """
        if waiting and waiting[0].is_broken:
            waiting.clear()
        if not waiting:
            job, pods = self._read()
            pod = next((pod for pod in reversed(pods) if pod_facts.container_runs(pod, MAIN)), None)
            if pod is None:
                return None, explanation.describe(JobStatus.from_objects(job, pods))
            connection = self._start_program(pod)
            if connection is None:
                return None, "its container starts"
            waiting.append(connection)
        try:
            message = waiting[0].receive(_HELLO_SECONDS)
        except TimeoutError:
            self._read()
            return None, "its process starts"
        return (waiting[0], message.header), ""

    def _read(self) -> tuple[Object, list[Object]]:
        """Return the Job object and its pods.

        Raises:
            SessionEnded: the session has ended.
            JobFailed: its pod has failed, or cannot start.
        """
        kube = self.job.cluster.kube
        job = kube.find("Job", self.job.name, namespace=self.job.namespace)
        if job is None:
            raise self._deleted()
        pods = job_pods(kube, job)
        status = JobStatus.from_objects(job, pods)
        if status.ended or job_outcome.was_cancelled(job) or any(map(pod_facts.ended, pods)):
            self._raise_ended(job, pods, status)
        self._pulls.observe(pods)
        if status.phase == "Pending" and self._pulls.has_new_failure(pods):
            # This raises JobFailed, unless Kubernetes has started to pull the image again.
            with contextlib.suppress(WaitTimeout):
                self.job.wait(timeout=0, progress=False)
        return job, pods

    def _raise_ended(self, job: Object, pods: list[Object], status: JobStatus) -> None:
        """Raise the error of a session whose Job or pod has ended; return if another pod will follow."""
        try:
            record = job_outcome.read_outcome(self.job.cluster, job, pods)
        except ResultLost:
            if self._is_being_deleted(job):
                raise self._deleted() from None
            raise
        if record is None and not status.ended:
            return
        if record is None and status.phase == "Failed":
            self.job.wait(timeout=0, progress=False)  # raises JobFailed with the reason and the log
        error = None if record is None else job_outcome.exception_of(record, self.job.name)
        if error is not None:
            raise error
        text = "it has ended" if record is None else str(record.header.get("text") or "it has ended")
        raise SessionEnded(f"session {self.job.name}: {text}", hint=_ANOTHER)

    def _is_being_deleted(self, job: Object) -> bool:
        """Return whether the Job is being deleted, or has been deleted since it was read."""
        now = find_same_job(self.job.cluster.kube, job)
        return now is None or "deletionTimestamp" in now["metadata"]

    def _deleted(self) -> SessionEnded:
        return SessionEnded(f"session {self.job.name} was deleted", hint=_ANOTHER)

    def _start_program(self, pod: Object) -> SessionConnection | None:
        """Start the program that joins this process with the session; None if the container is not ready for it."""
        metadata = pod["metadata"]
        main = next(container for container in pod["spec"]["containers"] if container["name"] == MAIN)
        command = [*main["command"][:-1], "connect"]
        kube = self.job.cluster.kube
        try:
            stream = kube.exec(metadata["name"], command, metadata["namespace"], container=MAIN, stdin=True)
        except NotFound:
            return None
        except KubernetesError as error:
            if error.http_status in (400, 500):
                return None
            raise
        return SessionConnection(stream)

    # Calls

    def _perform(self, packed: PackedCall) -> Record:
        """Run a call, show its output as it comes, and return its outcome.

        An interrupt is passed on to the function. A broken connection is reopened, and the output continues where it
        was.
        """
        with self._calling:
            return self._follow(_RunningCall(packed, self._client))

    def _follow(self, call: _RunningCall) -> Record:
        while True:
            try:
                connection = self._connected()
                with contextlib.suppress(Unreachable):
                    return call.follow(connection)
                self._drop()
            except KeyboardInterrupt:
                call.interrupts += 1
                if not call.may_run:
                    raise
                if call.interrupts > 1:
                    text = f"the function still runs in session {self.job.name}. session.close() ends it."
                    raise Interrupted(text) from None


class _RunningCall:
    """A call, and how much of its output has come.

    Attributes:
        interrupts: how often the user has interrupted it.
        may_run: whether it was sent.
    """

    def __init__(self, packed: PackedCall, client: str) -> None:
        self.interrupts = 0
        self.may_run = False
        self._id = uuid.uuid4().hex
        self._client = client
        self._packed = packed
        self._offset = 0
        self._records = RecordDecoder()
        self._output = SessionOutput()
        self._connection: SessionConnection | None = None
        self._passed_on = 0

    def follow(self, connection: SessionConnection) -> Record:
        """Send the call if that has not been done, and return its outcome.

        Raises:
            Unreachable: the connection broke. The call continues.
        """
        if connection is not self._connection:
            if self.may_run:
                connection.send({"op": "attach", "id": self._id, "offset": self._offset})
            else:
                self._send(connection)
            self._connection = connection
        while True:
            if self.interrupts > self._passed_on:
                connection.send({"op": "interrupt", "id": self._id})
                self._passed_on = self.interrupts
            record = self._take(connection, connection.receive())
            if record is not None:
                return record

    def _send(self, connection: SessionConnection) -> None:
        self.may_run = True
        sizes = [[name, len(content)] for name, content in self._packed.entries.items()]
        header = {**self._packed.fields, "op": "call", "id": self._id, "client": self._client, "entries": sizes}
        connection.send(header, b"".join(self._packed.entries.values()))

    def _take(self, connection: SessionConnection, message: Message) -> Record | None:
        """Take a message. Return the outcome, or None if it has not come yet."""
        header, body = message
        if header.get("id") != self._id:
            return None
        if header["op"] == "output":
            self._show(header["offset"], body)
        elif header["op"] == "unknown":
            # It did not arrive completely, so nothing ran.
            if self.interrupts:
                self.may_run = False
                raise KeyboardInterrupt
            self._send(connection)
        elif header["op"] == "outcome":
            self._output.flush()
            return Record({**header["outcome"], "where": "message"}, body)
        return None

    def _show(self, offset: int, body: bytes) -> None:
        """Show output that has not been shown. An interrupt may come in between, so the position is kept first."""
        new = body[self._offset - offset :] if offset <= self._offset else b""
        self._offset += len(new)
        for stream, data in self._records.feed(new):
            self._output.show(stream, data)


def open_session(aks: HasKube, options: ExecutorOptions, idle: Timeout) -> Session:
    """Start the pod of a session, and return the session without waiting for it.

    With ``options.name``, the session of that name is returned if it runs, unless ``options.replace`` is True.

    Args:
        aks: the cluster.
        options: the Executor's options.
        idle: how long the session waits for a call before it ends.
    """
    seconds = check_idle(idle)
    if options.packages is None:
        raise InvalidInput(
            "`packages` must be a list or a requirements file for a session, got 'auto': its functions are not known",
            hint='For example packages=["numpy==2.3.1"].',
        )
    payload = pack_session(seconds, packages=options.packages, include=options.include)
    complete = replace(options, retries=0, replace=bool(options.replace))
    job = launch(aks, payload, complete, what="session")
    if options.name and job.done():
        job.delete()
        job = launch(aks, payload, complete, what="session")
    return Session(job, seconds, options.gpus, options.root)


def check_idle(value: object) -> float:
    """Return the seconds of the argument ``idle``."""
    seconds = check_timeout(value, "idle")
    if not 0 < seconds <= _LARGEST_IDLE:
        raise InvalidInput(
            f"`idle` must be a time above 0 and at most 30 days, got {shown(value)}: an idle session costs as much as "
            "a busy one",
            hint="Ten minutes are idle='10m'.",
        )
    return seconds
