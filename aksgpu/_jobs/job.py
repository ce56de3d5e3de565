"""The object that stands for a Job in a notebook. Making, finding and listing Jobs is :mod:`aksgpu.jobs`' part."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aksgpu import diagnose
from aksgpu._frames import frame
from aksgpu._jobs import status as _jobstatus
from aksgpu._jobs.status import JobStatus
from aksgpu._kube import pods as _pods
from aksgpu._kube.backoff import REFUSED_PATIENCE
from aksgpu._numbers import whole
from aksgpu.errors import JobFailed, KubernetesError, NotFound, Unreachable, WaitTimeout
from aksgpu.kube import HasKube, Kube, Object
from aksgpu.logs import follow_job, job_pods
from aksgpu.logs import read as read_log
from aksgpu.waiting import wait_until

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from aksgpu.diagnose import Diagnosis

_INDEX = "batch.kubernetes.io/job-completion-index"
_PATIENCE = 120.0
"""Seconds without an answer from the API server before a wait gives up."""
_TAIL = 20
"""Lines of log that an error carries."""
_POD_COLUMNS = {
    "pod": "string",
    "state": "string",
    "message": "string",
    "node": "string",
    "restarts": "Int64",
    "exit_code": "Int64",
    "index": "Int64",
}


class Job:
    """A Job in the cluster, by name. Made by :func:`aksgpu.jobs.apply`, ``submit`` and ``attach``.

    As a notebook cell's last line it is a live view.

    Attributes:
        name: of the Job.
        namespace: that it lives in.
        cluster: that it runs on.
    """

    def __init__(self, cluster: HasKube, name: str, namespace: str) -> None:
        self.cluster, self.name, self.namespace = cluster, name, namespace

    def __repr__(self) -> str:
        return f"Job({self.name!r}, namespace={self.namespace!r})"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        from aksgpu.views import job_view

        return job_view(self)._repr_mimebundle_(include=include, exclude=exclude)

    def _object(self) -> Object:
        return self.cluster.kube.get("Job", self.name, self.namespace)

    def status(self) -> JobStatus:
        """How it stands.

        Raises:
            NotFound: it was deleted.
        """
        return self._look()[0]

    def _look(self) -> tuple[JobStatus, list[Object]]:
        """Its status, and its pods while it has not ended."""
        job = self._object()
        status = _jobstatus.of(job, ())
        if status.ended:
            return status, []
        pods = job_pods(self.cluster.kube, job)
        return _jobstatus.of(job, pods), pods

    def pods(self) -> pd.DataFrame:
        """Its pods, oldest first.

        Returns:
            One row a pod: pod, state (as kubectl's STATUS), message and node, all string; restarts, exit_code (of its
            last container that failed; NA where none did) and index (of an Indexed Job), all Int64.
        """
        rows = []
        for pod in job_pods(self.cluster.kube, self._object()):
            word, message = _pods.state(pod)
            failure = _pods.last_failure(pod)
            index = (pod["metadata"].get("annotations") or {}).get(_INDEX)
            rows.append(
                {
                    "pod": pod["metadata"]["name"],
                    "state": word,
                    "message": message,
                    "node": pod["spec"].get("nodeName"),
                    "restarts": _pods.restarts(pod),
                    "exit_code": failure["exitCode"] if failure else None,
                    "index": None if index is None else int(index),
                }
            )
        return frame(rows, _POD_COLUMNS)

    def wait(self, timeout: float = 3600, progress: bool | None = None, *, fail_fast: bool = True) -> Job:
        """Wait until it is complete. Interrupting the kernel leaves the Job running; wait again at any time.

        Args:
            timeout: seconds.
            progress: False for silence; None asks ``AKSGPU_PROGRESS``.
            fail_fast: raise as soon as its image cannot be pulled. Kubernetes itself tries again for ever.

        Returns:
            The Job itself.

        Raises:
            JobFailed: with its reason and the log's tail.
            WaitTimeout: with what is in its way.
            NotFound: it was deleted.
            Unreachable: the API server has not answered for two minutes, or has refused connections for 15 seconds.
        """
        answered = time.monotonic()
        witness = _Witness(self.cluster.kube)

        def poll() -> tuple[Job | None, str]:
            nonlocal answered
            try:
                status, pods = self._look()
                witness.look(pods)
            except Unreachable as failed:
                if time.monotonic() - answered > (REFUSED_PATIENCE if failed.refused else _PATIENCE):
                    raise
                return None, "no answer from the API server"
            answered = time.monotonic()
            if status.phase == "Complete":
                return self, ""
            hopeless = status.reason in _pods.UNPULLABLE and status.reason != "ErrImagePull"
            if status.phase == "Failed" or (fail_fast and hopeless):
                raise self._failure(status, witness)
            return None, str(status)

        try:
            return wait_until(poll, f"job {self.name}", timeout=timeout, progress=progress)
        except WaitTimeout as late:
            found = self.why()
            raise WaitTimeout(
                f"{late.message}\n{found.verdict}",
                state=late.state,
                timeout=late.timeout,
                hint=f"{found.fix} The Job lives on: job.wait() waits again.".strip(),
            ) from found.error

    def _failure(self, status: JobStatus, witness: _Witness) -> JobFailed:
        found = self.why()
        tail = dict(found.rows).get("log") or self._tail()
        message, fix = found.verdict, found.fix
        if not tail and witness.ended:
            tail = witness.tail
            message = f"Job {self.name} failed ({status.reason}): {witness.ended}"
            fix = "Correct the program, then jobs.apply(..., replace=True)."
        said = f"\nIts log ends:\n{tail}" if tail else ""
        failed = JobFailed(f"{message}{said}", reason=status.reason, log_tail=tail, hint=fix)
        failed.__cause__ = found.error
        return failed

    def _tail(self) -> str:
        try:
            return self.logs(tail=_TAIL).rstrip()
        except KubernetesError:
            return ""  # a log that cannot be had must not hide why the Job failed

    def logs(self, tail: int | None = None) -> str:
        """What it has logged until now.

        Of a Job with one pod at a time, the newest attempt's log; of one with many pods, all of theirs, by index or
        else by age.

        Args:
            tail: only so many of the last lines (of each pod).
        """
        if tail is not None:
            tail = whole("tail", tail, 0, of="lines are whole")
        job = self._object()
        chosen = _logged(job, job_pods(self.cluster.kube, job))
        return "".join(self._pod_log(pod["metadata"]["name"], tail) for pod in chosen)

    def _pod_log(self, pod: str, tail: int | None) -> str:
        try:
            text = read_log(self.cluster.kube, pod, self.namespace, tail=tail)
        except NotFound:  # deleted since it was listed
            return ""
        return text if not text or text.endswith("\n") else text + "\n"

    def follow(self) -> Iterator[str]:
        """Its log's lines as they come, from the first to the Job's end, restarts and further pods included.

        Nothing is lost and nothing comes twice, whatever the connection does. Pods that run side by side are given
        one after the other.
        """
        for _, line in follow_job(self.cluster.kube, self.name, self.namespace):
            yield line.text

    def metrics(self, *, patterns: Mapping[str, str] | Sequence[Mapping[str, str]] | None = None) -> pd.DataFrame:
        """Return the metrics in the Job's log, as :func:`aksgpu.metrics.parse` does.

        Of a Job with many pods, those of :meth:`logs`: one pod's after the other's.

        Args:
            patterns: more forms: a mapping from a metric's name to a regular expression with one group, or SageMaker's
                list of ``{"Name": ..., "Regex": ...}``.
        """
        from aksgpu import metrics

        return metrics.parse(self.logs(), patterns=patterns)

    def plot(self, *metrics: str, **options: Any) -> Figure:
        """Draw the Job's metrics. The arguments are those of :func:`aksgpu.plots.curve`.

        Example:
            >>> job.plot("loss", "val_loss", log=True)  # doctest: +SKIP
        """
        from aksgpu import plots

        options.setdefault("title", self.name)
        figure: Figure = plots.curve(self.metrics(), *metrics, **options)
        return figure

    def why(self) -> Diagnosis:
        """Why it stands where it stands, and what to do: see :mod:`aksgpu.diagnose`."""
        return diagnose.job(self.cluster, self.name, self.namespace)

    def delete(self, *, timeout: float = 300, progress: bool | None = None) -> None:
        """Delete it with its pods and their logs, and wait until they are gone. Twice is fine.

        Args:
            timeout: seconds.
            progress: False for silence; None asks ``AKSGPU_PROGRESS``.
        """
        kube = self.cluster.kube
        job = kube.find("Job", self.name, self.namespace)
        if job is None:
            return
        with contextlib.suppress(NotFound):
            kube.delete("Job", self.name, self.namespace, propagation_policy="Foreground")

        def gone() -> tuple[bool | None, str]:
            now, left = kube.find("Job", self.name, self.namespace), len(job_pods(kube, job))
            there = now is not None and now["metadata"]["uid"] == job["metadata"]["uid"]
            return (None if there or left else True), f"{left} pods left"

        wait_until(gone, f"deleting job {self.name}", timeout=timeout, interval=0.2, progress=progress)


def _logged(job: Object, pods: list[Object]) -> list[Object]:
    """The pods whose logs are the Job's: the newest attempt of each part of it."""
    spec = job["spec"]
    newest: dict[str, Object] = {}
    for pod in pods:
        index = (pod["metadata"].get("annotations") or {}).get(_INDEX)
        if index is not None:
            newest[index] = pod
    if newest:
        return [newest[index] for index in sorted(newest, key=int)]
    if (spec.get("completions") or 1) > 1 or (spec.get("parallelism") or 1) > 1:
        return pods
    started = [pod for pod in pods if pod["spec"].get("nodeName")]
    return (started or pods)[-1:]


class _Witness:
    """Remembers how containers failed, as long as their pods are there to tell.

    A Job whose pods restart in place (``OnFailure``, as the tutorial's) takes its pod away with the last failure, and
    the log with it.

    Attributes:
        ended: how the last container to fail ended, in words; empty where none failed.
        tail: the end of its log.
    """

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._seen: set[tuple[str, int]] = set()
        self.ended = self.tail = ""

    def look(self, pods: list[Object]) -> None:
        """Take note of failures that are new."""
        for pod in pods:
            failure, metadata = _pods.last_failure(pod), pod["metadata"]
            key = metadata["uid"], _pods.restarts(pod)
            if failure is None or key in self._seen:
                continue
            self._seen.add(key)
            try:
                # While the next run is on, the failed one is the previous.
                previous = _pods.state(pod).word == "Running"
                where = metadata["name"], metadata["namespace"], failure["container"]
                tail = read_log(self._kube, *where, tail=_TAIL, previous=previous)
            except KubernetesError:
                continue  # taken away between the two requests
            self.tail = tail.rstrip()
            self.ended = (
                f"its container ended with exit code {failure['exitCode']} ({failure.get('reason') or 'Error'})"
            )
