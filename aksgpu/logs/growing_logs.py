"""The logs of a Job's runs as they grow: each call returns what is new, and nothing twice."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import dataclass

from aksgpu.errors import KubernetesError, LogUnavailable, NotFound
from aksgpu.kube import pod_facts
from aksgpu.kube.client import HasKube, Object
from aksgpu.logs.container_runs import State, choose_container, observe
from aksgpu.logs.deduplication import MARGIN, Response, SeenLines, format_since, has_timestamp
from aksgpu.logs.follower import EMPTY_RESPONSES, LAST_LINES, is_missing_log, log_unavailable
from aksgpu.logs.job_logs import (
    count_ended,
    first_attempts,
    has_run,
    job_pods,
    logs_gone,
)
from aksgpu.logs.log_request import MAX_RESPONSES, PAUSE_SECONDS

__all__ = ["GrowingLogs", "Piece"]


@dataclass(frozen=True)
class Piece:
    """What is new in the log of one run of a container.

    Attributes:
        pod: name of the pod.
        index: completion index of the pod; None if the Job has no indexes.
        attempt: number of earlier runs of the same part of the Job.
        data: bytes of whole lines, but for the first and the last one. Each line begins with its time.
    """

    pod: str
    index: int | None
    attempt: int
    data: bytes


class _Run:
    """What was read of one run of a container."""

    def __init__(self, pod: Object, container: str, index: int | None, attempt: int) -> None:
        self.name = pod["metadata"]["name"]
        self.namespace = pod["metadata"]["namespace"]
        self.container = container
        self.index = index
        self.attempt = attempt
        self.complete = False
        self._seen = SeenLines()
        self._unfinished = b""
        """The last line, if it has no newline yet."""

    def state(self) -> tuple[bool, SeenLines, bytes]:
        """Return what :meth:`restore` needs."""
        return self.complete, copy.deepcopy(self._seen), self._unfinished

    def restore(self, state: tuple[bool, SeenLines, bytes]) -> None:
        """Forget what was read since :meth:`state`."""
        self.complete, self._seen, self._unfinished = state

    def read(self, aks: HasKube, *, previous: bool, ended: bool) -> Iterator[bytes]:
        """Yield what is new. What was yielded before an error is not yielded again."""
        empty = 0
        for _ in range(MAX_RESPONSES):
            since = None if ended and self._seen.remembers_all else self._seen.resume_time_with(MARGIN)
            response = Response(self._seen, since)
            yield from self._new_pieces(aks, response, previous, format_since(since))
            if not ended:
                return
            if not self._seen.lines and not self._unfinished:
                empty += 1
                if empty >= EMPTY_RESPONSES:
                    self.complete = True
                    return
            elif self._ends_there(aks, previous):
                self.complete = True
                return
            time.sleep(PAUSE_SECONDS)
        raise LogUnavailable("its responses end at another line each time", hint="Read the log again.")

    def _new_pieces(self, aks: HasKube, response: Response, previous: bool, since: str | None) -> Iterator[bytes]:
        stream = aks.kube.log(
            self.name,
            self.namespace,
            container=self.container,
            previous=previous,
            since_time=since,
            timestamps=True,
        )
        with stream:
            for raw, digest in response.new_lines(stream.lines()):
                self._seen.add(raw, digest)
                yield self._continued(raw + b"\n")
        if response.kubelet_message:
            raise log_unavailable(response.kubelet_message)
        if has_timestamp(response.unfinished):
            unfinished = response.unfinished
            yield self._continued(unfinished)
            self._unfinished = unfinished

    def _continued(self, line: bytes) -> bytes:
        """Return a line without its beginning that was yielded before."""
        before = self._unfinished
        self._unfinished = b""
        if line.startswith(before):
            return line[len(before) :]
        return b"\n" + line

    def _ends_there(self, aks: HasKube, previous: bool) -> bool:
        """Return whether the log's last lines, requested alone, are those that were read."""
        response = Response(self._seen, None)
        stream = aks.kube.log(
            self.name,
            self.namespace,
            container=self.container,
            previous=previous,
            tail_lines=LAST_LINES,
            timestamps=True,
        )
        with stream:
            for _ in response.new_lines(stream.lines()):
                return False
        if response.kubelet_message:
            raise log_unavailable(response.kubelet_message)
        unfinished = response.unfinished if has_timestamp(response.unfinished) else b""
        ends_with_last = response.ends_with_last or not self._seen.lines
        return ends_with_last and unfinished == self._unfinished


class GrowingLogs:
    """Reads the logs of all runs of a Job's program, piece by piece.

    Args:
        aks: the cluster.
        job: name of the Job.
        namespace: the Job's namespace.

    Attributes:
        pods: the Job's Pod objects when they were read last, oldest first.
        job: the Job object at that time; None before.
        pods_gone: number of pods that were removed with their logs.
    """

    def __init__(self, aks: HasKube, job: str, namespace: str) -> None:
        self._aks = aks
        self._name = job
        self._namespace = namespace
        self._runs: dict[tuple[str, int], _Run] = {}
        self._pieces: list[tuple[_Run, bytes]] = []
        """What was read before an error, and not returned yet."""
        self.pods: list[Object] = []
        self.job: Object | None = None
        self.pods_gone = 0

    def read(self) -> list[Piece]:
        """Return what is new. The bytes of a run continue where they ended in the call before.

        Raises:
            NotFound: the Job does not exist.
            LogsGone: the Job has run, and its pods are gone; nothing of its logs was read.
            LogUnavailable: a node does not serve a log. What was read of other logs comes with the next call.
            Unreachable: the API server does not answer.
        """
        job = self._aks.kube.get("Job", self._name, self._namespace)
        pods = job_pods(self._aks.kube, job)
        self.job = job
        self.pods = pods
        gone = max(count_ended(job) - sum(pod_facts.ended(pod) for pod in pods), 0)
        started = [pod for pod in pods if pod["spec"].get("nodeName")]
        if not started and has_run(job) and count_ended(job) and not self._runs:
            raise logs_gone(self._name)
        for pod, index, first in first_attempts(job, started):
            try:
                self._read_pod(pod, index, first)
            except NotFound:  # removed since the pods were listed
                gone += 1
        self.pods_gone = gone
        pieces = self._pieces
        self._pieces = []
        return _joined(pieces)

    def _read_pod(self, pod: Object, index: int | None, first: int) -> None:
        container = choose_container(pod, None)
        observed = observe(pod, container)
        if observed.run is None:
            return
        newest = observed.run.number
        for number in range(max(newest - 1, 0), newest + 1):
            key = (pod["metadata"]["uid"], number)
            run = self._runs.get(key)
            if run is None:
                run = _Run(pod, container, index, first + number)
                self._runs[key] = run
            if run.complete:
                continue
            if number < newest:
                self._read_run(run, previous=True, ended=True)
            elif observed.final or not observed.restarts_possible:
                self._read_run(run, previous=False, ended=observed.state is State.ENDED)
            else:
                self._read_restartable(run, pod, ended=observed.state is State.ENDED)

    def _read_restartable(self, run: _Run, pod: Object, *, ended: bool) -> None:
        """Read the newest run of a container that may be restarted meanwhile.

        The response may then be the log of the next run. So it counts only if the run is still the newest one after it.
        """
        state = run.state()
        count = len(self._pieces)
        is_same = False
        try:
            self._read_run(run, previous=False, ended=ended)
            again = self._aks.kube.get("Pod", pod["metadata"]["name"], self._namespace)
            now = observe(again, run.container).run
            before = observe(pod, run.container).run
            is_same = now is not None and before is not None and now.is_same(before)
        finally:
            if not is_same:
                run.restore(state)
                del self._pieces[count:]

    def _read_run(self, run: _Run, *, previous: bool, ended: bool) -> None:
        try:
            for piece in run.read(self._aks, previous=previous, ended=ended):
                self._pieces.append((run, piece))
        except KubernetesError as failed:
            if not is_missing_log(failed) or (isinstance(failed, NotFound) and not previous):
                raise
            run.complete = previous  # the node has removed it; or the container has not started


def _joined(pieces: list[tuple[_Run, bytes]]) -> list[Piece]:
    """Return one piece for each run."""
    parts: dict[int, list[bytes]] = {}
    runs: dict[int, _Run] = {}
    for run, part in pieces:
        if part:
            runs[id(run)] = run
            parts.setdefault(id(run), []).append(part)
    return [Piece(run.name, run.index, run.attempt, b"".join(parts[key])) for key, run in runs.items()]
