"""The Job object: a Job of the cluster, by name. :mod:`aksgpu.jobs` creates, finds and lists Jobs."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aksgpu import history
from aksgpu.common.frames import frame
from aksgpu.diagnose import job_diagnosis, pod_diagnosis
from aksgpu.diagnose.diagnosis import Diagnosis
from aksgpu.errors import (
    AksGpuError,
    InvalidInput,
    JobCancelled,
    JobFailed,
    KubernetesError,
    LogsGone,
    NotFound,
    ResultError,
    ResultLost,
    WaitTimeout,
)
from aksgpu.history import StoredRun
from aksgpu.jobs import job_arguments, job_cancellation, job_outcome, run_record
from aksgpu.jobs.failure_record import FailureRecord, PullRecord, held_gpus
from aksgpu.jobs.job_status import JobStatus
from aksgpu.jobs.live_manifest import manifest_of
from aksgpu.jobs.watchers import notifies_watcher
from aksgpu.kube import pod_facts
from aksgpu.kube.client import HasKube, Object
from aksgpu.kube.cluster_argument import check_cluster
from aksgpu.logs import AttemptLogs
from aksgpu.logs.job_logs import follow_job, job_pods, read_attempts, read_job
from aksgpu.payload.records import Record
from aksgpu.waiting import Interrupted, Timeout, deadline, wait_until

# Views, metrics and plots are imported inside the methods that need them: they load ipywidgets, pandas and matplotlib.
if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["Job"]

_logger = logging.getLogger(__name__)

_INDEX = "batch.kubernetes.io/job-completion-index"
_DIAGNOSIS_TIMEOUT = 5.0
"""Seconds that the diagnosis for an error may take."""
_KEEPING = 30.0
"""Seconds that copying a function's outcome may take at the end of a wait."""
_TAIL_LINES = 20
"""Lines of the log that an error contains."""
_TAIL_TIMEOUT = 5.0
"""Seconds for which reading those lines is retried."""
_SAVING = 20.0
"""Seconds that saving a run in the history may take."""
_RESULT_INTERVAL = 0.2
"""Seconds between two checks whether the result is there."""
_DELETION_INTERVAL = 0.2
"""Seconds between two checks whether a Job is gone."""
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
    """A Job in the cluster, by name. Returned by :func:`aksgpu.jobs.apply`, ``submit`` and ``get``.

    As the last line of a notebook cell, it is shown as a live view.

    Args:
        aks: the cluster.
        name: the Job's name.
        namespace: the Job's namespace; None uses the context's namespace.

    Attributes:
        cluster: the cluster.
        name: the Job's name.
        namespace: the Job's namespace.
        applied: the other objects that :func:`aksgpu.jobs.apply` applied before the Job, such as ``Service train-svc``,
            in order; empty for a Job that was not made by this call.

    Raises:
        InvalidInput: ``aks`` is not a cluster, or a name is not valid.
    """

    def __init__(self, aks: HasKube, name: str, *, namespace: str | None = None) -> None:
        check_cluster(aks)
        self.cluster = aks
        self.name = job_arguments.job_name(name, new=False)
        self.namespace = aks.kube.namespace if namespace is None else job_arguments.namespace(namespace)
        self.applied: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Job({self.name!r}, namespace={self.namespace!r})"

    def _ipython_display_(self) -> None:
        from aksgpu.views import job_view

        job_view(self)._ipython_display_()

    def _repr_html_(self) -> str:
        from aksgpu.views import job_view

        return job_view(self)._repr_html_()

    def status(self) -> JobStatus:
        """Return the Job's state.

        Raises:
            NotFound: the Job was deleted.
        """
        status, _ = self._read()
        return status

    def _object(self) -> Object:
        return self.cluster.kube.get("Job", self.name, namespace=self.namespace)

    def _read(self) -> tuple[JobStatus, list[Object]]:
        """Return the Job's status, and its pods while it has not ended."""
        job = self._object()
        status = JobStatus.from_objects(job, None)
        if status.ended:
            return status, []
        pods = job_pods(self.cluster.kube, job)
        return JobStatus.from_objects(job, pods), pods

    def pods(self) -> pd.DataFrame:
        """Return the Job's pods, oldest first.

        Returns:
            One row for each pod:

            - pod (string): its name.
            - state (string): as kubectl's STATUS column shows it.
            - message (string): Kubernetes' message about the state; may be empty.
            - node (string): the node's name; NA if the pod has none.
            - restarts (Int64): how often its containers were started again.
            - exit_code (Int64): exit code of its container that failed last; NA if none failed.
            - index (Int64): completion index of an Indexed Job; NA for other Jobs.

        Raises:
            NotFound: the Job was deleted.
        """
        rows = [_pod_row(pod) for pod in job_pods(self.cluster.kube, self._object())]
        return frame(rows, _POD_COLUMNS)

    @notifies_watcher
    def wait(self, timeout: Timeout = 3600, *, progress: bool | None = None, fail_fast: bool = True) -> Job:
        """Wait until the Job is complete. An interrupted wait leaves the Job running; ``job.wait()`` waits again.

        Args:
            timeout: seconds, or text such as ``"2h"``; None means no limit.
            progress: False shows no progress; None uses the environment variable ``AKSGPU_PROGRESS``.
            fail_fast: raise JobFailed as soon as the image cannot be pulled. Kubernetes itself keeps trying, at least
                every five minutes, and the Job keeps its GPU. Another wait of the same process does not raise for the
                attempt that was reported already: it waits for the next attempt, which succeeds once the image exists.

        Returns:
            The Job itself.

        Raises:
            InvalidInput: the timeout is not valid.
            JobFailed: the Job failed. The error has the reason and the end of the log, or says what could not be read.
                JobCancelled, a kind of it: the Job was cancelled before its program started.
            WaitTimeout: time ran out. The error explains what keeps the Job from ending.
            NotFound: the Job was deleted.
            Unreachable: time ran out while the API server did not respond. The error has the last failure.
            Interrupted: the user interrupted the wait. The Job continues.
        """
        failures = FailureRecord(self.cluster)
        pulls = PullRecord()

        def poll() -> tuple[Job | None, str]:
            status, pods = self._read()
            with deadline(_DIAGNOSIS_TIMEOUT):
                failures.observe(pods)
            if status.ended:
                history.save_later(self._save_quietly)
                self._keep_outcome()
            if status.phase == "Complete":
                return self, ""
            if status.phase == "Failed":
                raise self._failure_error(status, failures)
            if status.phase == "Suspended" and job_outcome.was_cancelled(self._object()):
                raise JobCancelled(f"job {self.name} was cancelled before its program started", reason="Cancelled")
            if fail_fast:
                self._refuse_unpullable(status, pods, pulls)
            else:
                pulls.observe(pods)
            return None, str(status)

        try:
            return wait_until(
                poll,
                f"job {self.name}",
                timeout=timeout,
                progress=progress,
                on_interrupt="The Job continues; job.wait() waits again.",
            )
        except WaitTimeout as late:
            error = self._timeout_error(late)
            raise error from error.__cause__

    def result(self, timeout: Timeout = None, *, raw: bool = False, progress: bool | None = None) -> Any:
        """Wait for the function of :meth:`Executor.submit`, and return its value.

        Args:
            timeout: how long to wait: seconds, or text such as ``"1h"``; None means no limit. The Job continues after
                that.
            raw: return the pickled value as bytes, without unpickling it.
            progress: False shows no progress; None uses the environment variable ``AKSGPU_PROGRESS``.

        Returns:
            The function's value.

        Raises:
            Exception: the function's own exception. Its cause has the traceback in the pod.
            RemoteError: the function raised an exception that cannot be rebuilt in this process.
            JobFailed: the program ended without an outcome, for example because its memory was used up.
            PythonMismatch: the image's Python cannot run what this Python pickled.
            PackageError: packages could not be installed.
            RunTimeout: the program ran longer than the executor's limit.
            JobCancelled: the program was stopped by :meth:`cancel`.
            ResultLost: the value is gone with its pod, or arrived incomplete.
            ResultTooLarge: the value is too large.
            ResultUnpicklable: the value cannot be pickled there, or not be unpickled here.
            WaitTimeout: time ran out. The Job continues.
            NotFound: the Job was deleted.
            InvalidInput: an argument is not valid, or no Executor made the Job.

        Example:
            >>> job.result(timeout="1h")  # doctest: +SKIP
        """
        job_arguments.flag("raw", raw)
        return job_outcome.value_of(self._outcome(timeout, progress), self.name, raw=raw)

    def exception(self, timeout: Timeout = None, *, progress: bool | None = None) -> BaseException | None:
        """Wait for the function, and return the exception that :meth:`result` raises; None if it returned a value.

        Args:
            timeout: as for :meth:`result`.
            progress: as for :meth:`result`.

        Returns:
            The exception or None.

        Raises:
            WaitTimeout: time ran out. The Job continues.
            NotFound: the Job was deleted.
            InvalidInput: an argument is not valid, or no Executor made the Job.
        """
        try:
            return job_outcome.exception_of(self._outcome(timeout, progress), self.name)
        except (JobFailed, ResultError) as error:
            return error

    def done(self) -> bool:
        """Return whether the Job has ended: the function has returned, has failed for good, or was cancelled.

        Raises:
            NotFound: the Job was deleted.
        """
        job = self._object()
        return self._final_status(job, job_pods(self.cluster.kube, job)) is not None

    def running(self) -> bool:
        """Return whether a pod of the Job runs now.

        Raises:
            NotFound: the Job was deleted.
        """
        return self.status().phase == "Running" and not self.done()

    def cancelled(self) -> bool:
        """Return whether :meth:`cancel` has stopped the Job.

        Raises:
            NotFound: the Job was deleted.
            ResultLost: the Job has ended, and its outcome cannot be read.
        """
        job, pods = self._read_executor_job()
        if self._final_status(job, pods) is None:
            return False
        record = job_outcome.read_outcome(self.cluster, job, pods)
        return record is not None and record.header["kind"] == "cancelled"

    def cancel(self, *, timeout: Timeout = 120, progress: bool | None = None) -> bool:
        """Stop the function's program, and keep its log. :meth:`delete` removes the Job with its log.

        The program gets SIGTERM, and SIGKILL after 30 seconds. A Job whose program has not started is suspended, and
        never starts.

        Args:
            timeout: how long to wait for the end: seconds, or text such as ``"5m"``; None means no limit.
            progress: False shows no progress; None uses the environment variable ``AKSGPU_PROGRESS``.

        Returns:
            True if the Job was cancelled, by this call or before; False if it had ended.

        Raises:
            WaitTimeout: time ran out. The program may still end.
            Forbidden: you may not run commands in pods, or change Jobs.
            NotFound: the Job was deleted.
            InvalidInput: an argument is not valid, or no Executor made the Job.
        """
        asked: set[str] = set()

        def poll() -> tuple[bool | None, str]:
            job, pods = self._read_executor_job()
            status = self._final_status(job, pods)
            if status is not None:
                record = job_outcome.read_outcome(self.cluster, job, pods)
                return record is not None and record.header["kind"] == "cancelled", ""
            return None, job_cancellation.stop(self.cluster, job, pods, asked)

        return wait_until(poll, f"cancelling job {self.name}", timeout=timeout, progress=progress)

    def _read_executor_job(self) -> tuple[Object, list[Object]]:
        """Return the Job object and its pods.

        Raises:
            InvalidInput: no Executor made the Job.
        """
        job = self._object()
        if not job_outcome.is_executor_job(job):
            raise InvalidInput(
                f"job {self.name!r} must be made by jobs.Executor, and it was made in another way",
                hint="job.wait() waits for its end, job.logs() returns its output, and job.delete() ends it.",
            )
        return job, job_pods(self.cluster.kube, job)

    def _final_status(self, job: Object, pods: list[Object]) -> JobStatus | None:
        """Return the Job's status if no further attempt will follow; None if one runs or may follow."""
        status = JobStatus.from_objects(job, pods)
        if status.ended or job_outcome.was_cancelled(job):
            return status
        has_succeeded = any((pod.get("status") or {}).get("phase") == "Succeeded" for pod in pods)
        return status if has_succeeded else None

    @notifies_watcher
    def _outcome(self, timeout: Timeout, progress: bool | None) -> Record:
        """Wait until the function's last attempt has ended, and return its outcome."""
        failures = FailureRecord(self.cluster)
        pulls = PullRecord()

        def poll() -> tuple[Record | None, str]:
            job, pods = self._read_executor_job()
            status = self._final_status(job, pods)
            if status is not None:
                return self._ended_outcome(job, pods, status, failures), ""
            with deadline(_DIAGNOSIS_TIMEOUT):
                failures.observe(pods)
            status = JobStatus.from_objects(job, pods)
            self._refuse_unpullable(status, pods, pulls)
            return None, str(status)

        try:
            return wait_until(
                poll,
                f"job {self.name}",
                timeout=timeout,
                interval=_RESULT_INTERVAL,
                progress=progress,
                on_interrupt="The Job continues; job.result() waits again.",
            )
        except WaitTimeout as late:
            error = self._timeout_error(late)
            raise error from error.__cause__

    def _ended_outcome(self, job: Object, pods: list[Object], status: JobStatus, failures: FailureRecord) -> Record:
        """Return the outcome of a Job that has ended.

        Raises:
            JobFailed: the program left no outcome.
            ResultLost: the outcome is gone.
        """
        history.save_later(self._save_quietly)
        record = job_outcome.read_outcome(self.cluster, job, pods)
        if record is not None:
            return record
        if status.phase == "Failed":
            raise self._failure_error(status, failures)
        raise ResultLost(
            f"job {self.name} is complete, and its result is gone with its pod",
            hint="Run the function again, and call job.result() soon after its end.",
        )

    def _refuse_unpullable(self, status: JobStatus, pods: list[Object], pulls: PullRecord) -> None:
        """Raise JobFailed if the image cannot be pulled, and this process has not raised it for this attempt."""
        pulls.observe(pods)
        if status.phase == "Pending" and pulls.has_new_failure(pods):
            pulls.mark_reported(pods)
            raise self._image_error(status, pods)

    def _keep_outcome(self) -> None:
        """Copy what the function's pod has left, because the pod disappears with its node. Errors are left to later."""
        with contextlib.suppress(AksGpuError), deadline(_KEEPING):
            job = self._object()
            if job_outcome.is_executor_job(job):
                job_outcome.read_outcome(self.cluster, job, job_pods(self.cluster.kube, job))

    def _timeout_error(self, late: WaitTimeout) -> WaitTimeout:
        """Return the error of a wait that ran out of time, with what keeps the Job from ending."""
        try:
            with deadline(_DIAGNOSIS_TIMEOUT):
                diagnosis = self.why()
        except KubernetesError as failed:
            diagnosis = Diagnosis(f"The reason why it has not ended could not be determined: {failed.message}")
        error = WaitTimeout(
            _with_unknown(f"{late.message}\n{diagnosis.verdict}", diagnosis),
            state=late.state,
            timeout=late.timeout,
            hint=f"{diagnosis.fix} The Job continues: job.wait() waits again.".strip(),
        )
        error.__cause__ = diagnosis.error
        return error

    def _failure_error(self, status: JobStatus, failures: FailureRecord) -> JobFailed:
        """Return the error of a Job that failed. It is JobFailed even if the reason could not be read."""
        with deadline(_DIAGNOSIS_TIMEOUT):
            try:
                diagnosis = job_diagnosis.explain_job(self.cluster, self._object(), failures.last)
            except KubernetesError as failed:
                diagnosis = self._last_known(status, failures.last, failed)
            tail = diagnosis.log_tail
            message = _with_unknown(diagnosis.verdict, diagnosis)
            if not tail:
                tail, problem = self._tail()
                message += problem
        if tail:
            message += f"\nIts log ends:\n{tail}"
        error = JobFailed(message, reason=status.reason, log_tail=tail, hint=diagnosis.fix)
        error.__cause__ = diagnosis.error
        return error

    def _last_known(self, status: JobStatus, last: Diagnosis | None, failed: KubernetesError) -> Diagnosis:
        """Return what is known about a Job that failed, if its current state cannot be read.

        Args:
            status: the Job's status.
            last: the diagnosis of its pod that failed last; None if there was none.
            failed: why the current state cannot be read.
        """
        beginning = f"Job {self.name} failed ({status.reason}): "
        unknown = f"its current state: {failed.message}"
        if last is not None:
            return Diagnosis(beginning + last.verdict, last.fix, last.rows, last.error, (*last.unknown, unknown))
        message = status.message or "the cluster gives no reason"
        call = f"diagnose.job(aks, {self.name!r}, namespace={self.namespace!r})"
        return Diagnosis(
            f"{beginning}{message}. The reason could not be determined.",
            f"Try again later: {call}.",
            unknown=(unknown,),
        )

    def _image_error(self, status: JobStatus, pods: list[Object]) -> JobFailed:
        """Return the error of a Job whose image cannot be pulled, although Kubernetes keeps trying."""
        diagnosis = Diagnosis(f"{status.reason}: {status.message}")
        with deadline(_DIAGNOSIS_TIMEOUT):
            for pod in pods:
                if pod_facts.state(pod).word in pod_facts.UNPULLABLE:
                    diagnosis = pod_diagnosis.explain_pod(self.cluster, pod)
        held = held_gpus(pods)
        holds = f"holds {held}" if held else "exists"
        frees = f" frees {held}" if held else ""
        message = (
            f"{_with_unknown(diagnosis.verdict, diagnosis)}\n"
            f"Kubernetes keeps trying, and the Job {holds} until it is deleted."
        )
        delete = f"jobs.get(aks, {self.name!r}, namespace={self.namespace!r}).delete()"
        hint = (
            f"{diagnosis.fix.rstrip('.')}. Once the image exists, job.wait() waits for the next attempt. "
            f"To give up: {delete}{frees}."
        )
        error = JobFailed(message, reason=status.reason, hint=hint.strip())
        error.__cause__ = diagnosis.error
        return error

    def _tail(self) -> tuple[str, str]:
        """Return the end of the Job's log, and a sentence that says why it could not be read; one of them is empty."""
        try:
            text = read_job(
                self.cluster, self.name, namespace=self.namespace, tail_lines=_TAIL_LINES, timeout=_TAIL_TIMEOUT
            )
            return text.rstrip(), ""
        except KubernetesError as failed:
            return "", f"\nIts log could not be read: {failed.message}"

    def logs(self, *, tail_lines: int | None = None) -> str:
        """Return the Job's log so far.

        If the Job runs one pod at a time, this is the log of the newest pod. If it runs several pods, this is the log
        of each pod, ordered by completion index, or by age if the Job is not Indexed.

        Args:
            tail_lines: number of last lines to return, for each pod; None means all.

        Returns:
            The log as one string. It is empty only if the Job has not started or has not printed anything.

        Raises:
            NotFound: the Job was deleted.
            LogsGone: the Job has run, and its pods were deleted with their logs.
            LogUnavailable: the node did not serve the log for a minute; the message has its last response.
            Unreachable: the API server did not respond for a minute.

        Example:
            >>> print(job.logs(tail_lines=20))  # doctest: +SKIP
        """
        return read_job(self.cluster, self.name, namespace=self.namespace, tail_lines=tail_lines)

    def follow(self) -> Iterator[str]:
        """Yield the lines of the Job's log as they are written, from the first line until the Job ends.

        Restarts and further pods are included. Pods that run at the same time are followed one after the other.
        A broken connection loses no line and repeats none. If the cluster has lost a part of the log, for example
        because a pod was deleted, a line ``[aksgpu: ...]`` says what is missing.

        Yields:
            Each line without its newline.

        Raises:
            NotFound: the Job was deleted.
            LogsGone: the Job has ended, and its pods were deleted with their logs.
            StreamLost: the log was not served for 15 minutes. ``job.follow()`` starts again from the first line.
            Interrupted: the user interrupted the call. The Job continues.

        Example:
            >>> for line in job.follow():
            ...     print(line)
        """
        try:
            for _, line in follow_job(self.cluster, self.name, namespace=self.namespace):
                yield line.text
        except KeyboardInterrupt:
            message = (
                f"following job {self.name} was interrupted. The Job continues; "
                "job.follow() starts again from the first line."
            )
            raise Interrupted(message) from None

    def metrics(self, *, patterns: Mapping[str, str] | Sequence[Mapping[str, str]] | None = None) -> pd.DataFrame:
        """Return the metrics in the logs of all of the Job's runs that the cluster still has.

        Args:
            patterns: additional formats: a mapping from a metric's name to a regular expression with one group, or
                SageMaker's list of ``{"Name": ..., "Regex": ...}``.

        Returns:
            The table of :func:`aksgpu.metrics.parse`, with these columns filled:

            - time (datetime64[ns, UTC]): when the node stored the line.
            - pod (string): name of the pod.
            - index (Int64): completion index of the pod; NA if the Job has no indexes.
            - attempt (Int64): number of earlier runs of the same part of the Job. Pods that failed and restarts of
              the container count.

            ``attrs["pods_gone"]`` is the number of pods that were removed with their logs.

        Raises:
            NotFound: the Job was deleted.
            LogsGone: the Job has ended, and its pods were deleted with their logs.
            LogUnavailable: the node did not serve the log.

        Example:
            >>> job.metrics()[["step", "accuracy"]].tail()  # doctest: +SKIP
        """
        found = read_attempts(self.cluster, self.name, namespace=self.namespace)
        return _metrics_of(found, patterns)

    def plot(self, *metrics: str, **options: Any) -> Figure:
        """Draw the Job's metrics. The arguments are those of :func:`aksgpu.plots.curve`.

        Example:
            >>> job.plot("loss", "val_loss", log=True)  # doctest: +SKIP
        """
        from aksgpu import plots

        options.setdefault("title", self.name)
        figure: Figure = plots.curve(self.metrics(), *metrics, **options)
        return figure

    def manifest(self) -> Object:
        """Return the manifest with which the Job can be run again, without what the cluster added to it.

        Raises:
            NotFound: the Job was deleted.

        Example:
            >>> manifest = job.manifest()  # doctest: +SKIP
            >>> manifest["spec"]["backoffLimit"] = 3  # doctest: +SKIP
            >>> jobs.apply(aks, manifest, replace=True)  # doctest: +SKIP
        """
        return manifest_of(self._object())

    def why(self) -> Diagnosis:
        """Explain the Job's current state, and what to do: see :mod:`aksgpu.diagnose`."""
        return job_diagnosis.job(self.cluster, self.name, namespace=self.namespace)

    def facts(self) -> dict[str, Any]:
        """Return the facts about the run that :mod:`aksgpu.runs` compares.

        Returns:
            ``phase``, ``started``, ``ended``, ``seconds``, ``image``, ``args``, ``gpu_model``, ``usd`` and more; see
            :func:`aksgpu.jobs.run_record.read_facts`. What cannot be found out is None.

        Raises:
            NotFound: the Job was deleted.
        """
        job = self._object()
        return run_record.read_facts(self.cluster, job, job_pods(self.cluster.kube, job))

    def save(self) -> StoredRun:
        """Save the Job's log, metrics and facts in the history of this machine; see :mod:`aksgpu.runs`.

        ``job.wait()`` and the live view do so when the Job has ended, and ``job.delete()`` before it deletes the Job.
        What was saved before is replaced. A log that the cluster no longer has is kept.

        Returns:
            The saved run.

        Raises:
            NotFound: the Job was deleted.
            LogUnavailable: the node did not serve the log.
            OSError: the directory of the history cannot be written.
        """
        facts = self.facts()
        try:
            found = read_attempts(self.cluster, self.name, namespace=self.namespace)
        except LogsGone:
            return history.save(facts, None, {})
        log = "".join(each.text for each in found.logs)
        return history.save(facts, log, {"metrics": _metrics_of(found, None)})

    def _save_quietly(self) -> None:
        """Save the run if that is possible. The caller's work does not depend on it."""
        if not history.is_enabled():
            return
        try:
            with deadline(_SAVING):
                self.save()
        except (KubernetesError, OSError) as failed:
            _logger.info("Job %s was not saved in the history: %s", self.name, failed)

    def delete(self, *, timeout: Timeout = 300, progress: bool | None = None) -> None:
        """Delete the Job with its pods and their logs, and wait until they are gone.

        Does nothing if the Job does not exist.

        The history of this machine keeps the log and the metrics; see :mod:`aksgpu.runs`.

        Args:
            timeout: seconds, or text such as ``"10m"``; None means no limit.
            progress: False shows no progress; None uses the environment variable ``AKSGPU_PROGRESS``.

        Raises:
            InvalidInput: the timeout is not valid.
            WaitTimeout: time ran out. The error says how many pods are left.
        """
        kube = self.cluster.kube
        deleted: Object | None = None
        self._save_quietly()

        def poll() -> tuple[bool | None, str]:
            nonlocal deleted
            if deleted is None:
                found = kube.find("Job", self.name, namespace=self.namespace)
                if found is None:
                    return True, ""
                with contextlib.suppress(NotFound):
                    kube.delete("Job", self.name, namespace=self.namespace, propagation_policy="Foreground")
                deleted = found
            current = kube.find("Job", self.name, namespace=self.namespace)
            pods_left = len(job_pods(kube, deleted))
            # A Job with another uid is a new one of the same name.
            exists = current is not None and current["metadata"]["uid"] == deleted["metadata"]["uid"]
            gone = not exists and not pods_left
            return (True if gone else None), f"{pods_left} pods left"

        wait_until(
            poll,
            f"deleting job {self.name}",
            timeout=timeout,
            interval=_DELETION_INTERVAL,
            progress=progress,
            on_interrupt="The deletion continues; job.delete() waits again.",
        )


def _metrics_of(found: AttemptLogs, patterns: Mapping[str, str] | Sequence[Mapping[str, str]] | None) -> pd.DataFrame:
    """Return the metrics in the logs of a Job's runs."""
    from aksgpu.metrics import MetricsReader

    reader = MetricsReader(patterns)
    for log in found.logs:
        reader.feed(log.text, pod=log.pod, index=log.index, attempt=log.attempt)
    table = reader.frame()
    table.attrs["pods_gone"] = found.pods_gone
    return table


def _pod_row(pod: Object) -> dict[str, object]:
    """Return the row of :meth:`Job.pods` for a Pod object."""
    state = pod_facts.state(pod)
    failure = pod_facts.last_failure(pod)
    index = (pod["metadata"].get("annotations") or {}).get(_INDEX)
    return {
        "pod": pod["metadata"]["name"],
        "state": state.word,
        "message": state.message,
        "node": pod["spec"].get("nodeName"),
        "restarts": pod_facts.restarts(pod),
        "exit_code": failure["exitCode"] if failure else None,
        "index": None if index is None else int(index),
    }


def _with_unknown(message: str, diagnosis: Diagnosis) -> str:
    """Return a message, followed by what could not be read."""
    return "\n".join([message, *(f"Not known: {each}" for each in diagnosis.unknown)])
