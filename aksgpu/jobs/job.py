"""The Job object: a Job of the cluster, by name. :mod:`aksgpu.jobs` creates, finds and lists Jobs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from aksgpu.common.frames import frame
from aksgpu.diagnose import explain
from aksgpu.diagnose.diagnosis import Diagnosis
from aksgpu.errors import JobFailed, KubernetesError, NotFound, WaitTimeout
from aksgpu.jobs import job_arguments
from aksgpu.jobs import job_status as _jobstatus
from aksgpu.jobs.failure_record import FailureRecord, PullRecord, held_gpus
from aksgpu.jobs.job_status import JobStatus
from aksgpu.jobs.watchers import tells_watcher
from aksgpu.kube import pod_facts as _pods
from aksgpu.kube.client import HasKube, Object
from aksgpu.kube.cluster_argument import check_cluster
from aksgpu.logs.job_logs import follow_job, job_pods, read_job
from aksgpu.waiting import Interrupted, deadline, wait_until

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_INDEX = "batch.kubernetes.io/job-completion-index"
_EXPLAINING = 5.0
"""Seconds that finding a reason may take after a wait has run out of time."""
_TAIL = 20
"""Lines of log that an error carries."""
_TAIL_PATIENCE = 5.0
"""Seconds for which an error waits for those lines."""
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
    """A Job in the cluster, by name. Returned by :func:`aksgpu.jobs.apply`, ``submit`` and ``attach``.

    As a notebook cell's last line it is a live view.

    Attributes:
        name: of the Job.
        namespace: that it lives in.
        cluster: that it runs on.
    """

    def __init__(self, cluster: HasKube, name: str, namespace: str | None = None) -> None:
        check_cluster(cluster)
        self.cluster = cluster
        self.name = job_arguments.job_name(name, new=False)
        self.namespace = cluster.kube.namespace if namespace is None else job_arguments.namespace(namespace)

    def __repr__(self) -> str:
        return f"Job({self.name!r}, namespace={self.namespace!r})"

    def _ipython_display_(self) -> None:
        from aksgpu.views import job_view

        job_view(self)._ipython_display_()

    def _repr_html_(self) -> str:
        from aksgpu.views import job_view

        return job_view(self)._repr_html_()

    def _object(self) -> Object:
        return self.cluster.kube.get("Job", self.name, self.namespace)

    def status(self) -> JobStatus:
        """Return its state.

        Raises:
            NotFound: it was deleted.
        """
        return self._look()[0]

    def _look(self) -> tuple[JobStatus, list[Object]]:
        """Its status, and its pods while it has not ended."""
        job = self._object()
        status = _jobstatus.of(job, None)
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

    @tells_watcher
    def wait(self, timeout: float | None = 3600, progress: bool | None = None, *, fail_fast: bool = True) -> Job:
        """Wait until it is complete. Interrupting the kernel leaves the Job running; wait again at any time.

        Args:
            timeout: seconds; None means no limit.
            progress: False for silence; None asks ``AKSGPU_PROGRESS``.
            fail_fast: raise as soon as its image cannot be pulled. Kubernetes itself goes on trying, at least every
                five minutes, and the Job keeps its GPU. A further wait of the same process does not raise for the
                attempt that was reported already: it waits for the next one, which succeeds once the image is there.

        Returns:
            The Job itself.

        Raises:
            JobFailed: with its reason and the log's tail, or with what of it could not be found out.
            WaitTimeout: with what keeps it from ending.
            NotFound: it was deleted.
            Unreachable: time ran out while the API server gave no answer; with its last one.
            Interrupted: the user interrupted the wait. The Job goes on.
        """
        failures = FailureRecord(self.cluster)
        pulls = PullRecord()

        def poll() -> tuple[Job | None, str]:
            status, pods = self._look()
            with deadline(_EXPLAINING):
                failures.observe(pods)
            if status.phase == "Complete":
                return self, ""
            if status.phase == "Failed":
                with deadline(_EXPLAINING):
                    error = self._failure(status, failures)
                raise error
            pulls.observe(pods)
            if fail_fast and status.phase == "Pending" and pulls.is_news(pods):
                pulls.report(pods)
                with deadline(_EXPLAINING):
                    error = self._unpullable(status, pods)
                raise error
            return None, str(status)

        try:
            return wait_until(
                poll,
                f"job {self.name}",
                timeout=timeout,
                progress=progress,
                on_interrupt="The Job goes on; job.wait() waits again.",
            )
        except WaitTimeout as late:
            with deadline(_EXPLAINING):
                error = self._too_late(late)
            raise error from error.__cause__

    def _too_late(self, late: WaitTimeout) -> WaitTimeout:
        """The error of a wait that ran out of time, with what keeps the Job from ending."""
        try:
            found = self.why()
        except KubernetesError as failed:
            found = Diagnosis(f"What keeps it from ending could not be found out: {failed.message}")
        error = WaitTimeout(
            _with_unknown(f"{late.message}\n{found.verdict}", found),
            state=late.state,
            timeout=late.timeout,
            hint=f"{found.fix} The Job goes on: job.wait() waits again.".strip(),
        )
        error.__cause__ = found.error
        return error

    def _failure(self, status: JobStatus, failures: FailureRecord) -> JobFailed:
        """The error of a Job that failed. It stays JobFailed if the reason cannot be found out."""
        try:
            found = explain.explain_job(self.cluster, self._object(), failures.last)
        except KubernetesError as failed:
            found = self._remembered(status, failures.last, failed)
        tail = found.log_tail
        message = _with_unknown(found.verdict, found)
        if not tail:
            tail, problem = self._tail()
            message += problem
        if tail:
            message += f"\nIts log ends:\n{tail}"
        error = JobFailed(message, reason=status.reason, log_tail=tail, hint=found.fix)
        error.__cause__ = found.error
        return error

    def _remembered(self, status: JobStatus, last: Diagnosis | None, failed: KubernetesError) -> Diagnosis:
        """What is known of a Job that failed when the API server says nothing more."""
        head = f"Job {self.name} failed ({status.reason}): "
        unknown = (f"its present state: {failed.message}",)
        if last is not None:
            return Diagnosis(head + last.verdict, last.fix, last.rows, last.error, (*last.unknown, *unknown))
        call = f"diagnose.job(aks, {self.name!r}, {self.namespace!r})"
        verdict = f"{head}{status.message or 'the cluster gives no reason'}. Why could not be found out."
        return Diagnosis(verdict, f"Ask again later: {call}.", unknown=unknown)

    def _unpullable(self, status: JobStatus, pods: list[Object]) -> JobFailed:
        """The error of a Job whose image cannot be pulled. The Job itself goes on trying."""
        found = Diagnosis(f"{status.reason}: {status.message}")
        for pod in pods:
            if _pods.state(pod).word in _pods.UNPULLABLE:
                found = explain.explain_pod(self.cluster, pod)
        held = held_gpus(pods)
        call = f"jobs.attach(aks, {self.name!r}, {self.namespace!r}).delete()"
        goes_on = (
            f"\nKubernetes goes on trying, and the Job {f'holds {held}' if held else 'exists'} until it is deleted."
        )
        hint = (
            f"{found.fix.rstrip('.')}. Once the image is there, job.wait() goes on with the next attempt. "
            f"To give up: {call}{f' frees {held}' if held else ''}."
        )
        error = JobFailed(_with_unknown(found.verdict, found) + goes_on, reason=status.reason, hint=hint.strip())
        error.__cause__ = found.error
        return error

    def _tail(self) -> tuple[str, str]:
        """The end of its log, and words for why that could not be read."""
        try:
            text = read_job(
                self.cluster, self.name, namespace=self.namespace, tail_lines=_TAIL, patience=_TAIL_PATIENCE
            )
            return text.rstrip(), ""
        except KubernetesError as failed:
            return "", f"\nIts log could not be read: {failed.message}"

    def logs(self, *, tail_lines: int | None = None) -> str:
        """Return what it has logged until now.

        Of a Job with one pod at a time, the newest attempt's log; of one with many pods, all of theirs, by index or
        else by age.

        Args:
            tail_lines: return only this number of lines from the end (of each pod).

        Returns:
            The text. It is empty only where the Job has not started or has printed nothing.

        Raises:
            NotFound: the Job was deleted.
            LogsGone: the Job has run, and its pods are gone with their logs.
            LogUnavailable: the node did not serve the log for a minute; the message holds its last answer.
            Unreachable: the API server did not answer for a minute.
        """
        return read_job(self.cluster, self.name, namespace=self.namespace, tail_lines=tail_lines)

    def follow(self) -> Iterator[str]:
        """Give its log's lines as they come, from the first to the Job's end, restarts and further pods included.

        No line is lost or repeated, whatever the connection does. What the cluster itself has lost, such as the log
        of a pod that was removed, is given as a line ``[aksgpu: ...]`` that says what is missing. Pods that run side
        by side are given one after the other.

        Example:
            >>> for line in job.follow():
            ...     print(line)

        Raises:
            NotFound: the Job was deleted.
            LogsGone: the Job has ended, and its pods are gone with their logs.
            StreamLost: the log was not served for a quarter of an hour. ``job.follow()`` begins again.
        """
        try:
            for _, line in follow_job(self.cluster, self.name, namespace=self.namespace):
                yield line.text
        except KeyboardInterrupt:
            text = f"following job {self.name} was interrupted. The Job goes on; job.follow() begins at its first line."
            raise Interrupted(text) from None

    def metrics(self) -> pd.DataFrame:
        """Numbers in its log, as :func:`aksgpu.metrics.parse` finds them: step (int64) and accuracy (float64).

        Of a Job with many pods, those of :meth:`logs`: one pod's after the other's.
        """
        from aksgpu import metrics

        return metrics.parse(self.logs())

    def plot(self) -> Figure:
        """Its accuracy curve: :func:`aksgpu.plots.accuracy` of :meth:`metrics`."""
        from aksgpu import plots

        return plots.accuracy(self.metrics(), title=self.name)

    def why(self) -> Diagnosis:
        """Explain its current state, and what to do: see :mod:`aksgpu.diagnose`."""
        return explain.job(self.cluster, self.name, self.namespace)

    def delete(self, *, timeout: float | None = 300, progress: bool | None = None) -> None:
        """Delete it with its pods and their logs, and wait until they are gone. Twice is fine.

        Args:
            timeout: seconds; None means no limit.
            progress: False for silence; None asks ``AKSGPU_PROGRESS``.
        """
        kube = self.cluster.kube
        job: Object | None = None

        def gone() -> tuple[bool | None, str]:
            nonlocal job
            if job is None:
                found = kube.find("Job", self.name, self.namespace)
                if found is None:
                    return True, ""
                with contextlib.suppress(NotFound):
                    kube.delete("Job", self.name, self.namespace, propagation_policy="Foreground")
                job = found
            now = kube.find("Job", self.name, self.namespace)
            left = len(job_pods(kube, job))
            there = now is not None and now["metadata"]["uid"] == job["metadata"]["uid"]
            return (None if there or left else True), f"{left} pods left"

        wait_until(
            gone,
            f"deleting job {self.name}",
            timeout=timeout,
            interval=0.2,
            progress=progress,
            on_interrupt="Its deletion goes on; job.delete() waits again.",
        )


def _with_unknown(message: str, found: Diagnosis) -> str:
    """A message, with what could not be found out."""
    return "\n".join([message, *(f"Not known: {each}" for each in found.unknown)])
