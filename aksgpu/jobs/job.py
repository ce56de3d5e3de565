"""The Job object: a Job of the cluster, by name. :mod:`aksgpu.jobs` creates, finds and lists Jobs."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from aksgpu import history, storage
from aksgpu.common.arguments import flag
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
from aksgpu.jobs import (
    gpu_samples,
    job_cancellation,
    job_outcome,
    output_claim,
    port_forwarding,
    run_record,
)
from aksgpu.jobs.failure_record import FailureRecord, PullRecord, held_gpus
from aksgpu.jobs.gpu_notes import GpuNotes, gpu_notes
from aksgpu.jobs.gpu_sample_table import joined_tables
from aksgpu.jobs.job_feed import JobFeed
from aksgpu.jobs.job_status import JobStatus
from aksgpu.jobs.live_manifest import manifest_of
from aksgpu.jobs.state_explanation import StateExplanation
from aksgpu.jobs.watchers import notifies_watcher
from aksgpu.kube import path_names, pod_facts
from aksgpu.kube.client import HasKube, Object
from aksgpu.kube.cluster_argument import check_cluster
from aksgpu.kube.label_names import COMPLETION_INDEX
from aksgpu.kube.port_forward import PortForward
from aksgpu.logs import AttemptLogs
from aksgpu.logs.job_logs import attempts_of, find_same_job, follow_job, job_pods, read_attempts, read_job
from aksgpu.payload.records import Record
from aksgpu.storage import Transfer, storage_arguments
from aksgpu.waiting import Interrupted, Timeout, Timer, deadline, wait_until

# Views, metrics and plots are imported inside the methods that need them: they load ipywidgets, pandas and matplotlib.
if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["Job"]

T = TypeVar("T")

_logger = logging.getLogger(__name__)

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
_SAVING_BEFORE_DELETION = 5.0
"""The same for a Job that is being deleted, whose user waits."""
_WAIT_INTERVAL = 0.5
"""Seconds between two checks whether the Job has ended."""
_RESULT_INTERVAL = 0.2
"""Seconds between two checks whether the result is there."""
_DELETION_INTERVAL = 0.2
"""Seconds between two checks whether a Job is gone."""
_saved_runs: dict[str, StoredRun] = {}
"""The runs that this process has saved, by the Job's uid."""
_final_runs: set[str] = set()
"""Uids of the Jobs whose runs were saved after their end. Nothing more can be added to these runs."""
_save_locks: dict[str, threading.Lock] = {}
"""By the Job's namespace and name. A run is saved by one thread at a time."""
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
        self.name = path_names.check_name("Job", name)
        self.namespace = aks.kube.namespace if namespace is None else path_names.check_namespace(namespace)
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

        def poll() -> tuple[Job | None, JobStatus]:
            status, pods = self._read()
            gpu_samples.watch(self.cluster, pods)
            with deadline(_DIAGNOSIS_TIMEOUT):
                failures.observe(pods)
            if status.ended:
                history.save_later(self._save_quietly)
                self._keep_outcome()
            if status.phase == "Complete":
                return self, status
            if status.phase == "Failed":
                raise self._failure_error(status, failures)
            if status.phase == "Suspended" and job_outcome.was_cancelled(self._object()):
                raise JobCancelled(f"job {self.name} was cancelled before its program started", reason="Cancelled")
            if fail_fast:
                self._refuse_unpullable(status, pods, pulls)
            else:
                pulls.observe(pods)
            return None, status

        return self._wait_until(poll, "job.wait()", timeout=timeout, progress=progress)

    def _wait_until(
        self,
        poll: Callable[[], tuple[T | None, JobStatus]],
        call: str,
        *,
        timeout: Timeout,
        progress: bool | None,
        interval: float = _WAIT_INTERVAL,
    ) -> T:
        """Wait as :func:`aksgpu.waiting.wait_until` does.

        The progress shows what keeps a Job from running, and a timeout error says what keeps it from ending.
        """
        explanation = StateExplanation(self._explain)
        last = ""

        def poll_and_explain() -> tuple[T | None, str]:
            nonlocal last
            result, status = poll()
            last = str(status)
            return result, "" if result is not None else explanation.describe(status)

        try:
            return wait_until(
                poll_and_explain,
                f"job {self.name}",
                timeout=timeout,
                interval=interval,
                progress=progress,
                on_interrupt=f"The Job continues; {call} waits again.",
            )
        except WaitTimeout as late:
            error = self._timeout_error(late, last)
            raise error from error.__cause__

    def _explain(self) -> Diagnosis:
        """Explain the Job's state as :meth:`why` does, without the use of its GPUs, which needs more requests."""
        return job_diagnosis.job(self.cluster, self.name, namespace=self.namespace)

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
            ResultUnpicklable: the value cannot be pickled in the pod or unpickled here.
            WaitTimeout: time ran out. The Job continues.
            NotFound: the Job was deleted.
            InvalidInput: an argument is not valid, or no Executor made the Job.

        Example:
            >>> job.result(timeout="1h")  # doctest: +SKIP
        """
        flag("raw", raw)
        record = self._outcome(timeout, progress)
        error = self._exception_of(record)
        lost = job_outcome.lost_files(record)
        if lost:
            text = (
                f"job {self.name} wrote files that are deleted with its pod: {lost}. Files in the directory AKSGPU_OUT "
                "of Executor(out=) and on the claims of Executor(volumes=) are kept."
            )
            warnings.warn(text, stacklevel=2)
        if error is not None:
            raise error
        return job_outcome.value_of(record, self.name, raw=raw)

    def _exception_of(self, record: Record) -> BaseException | None:
        """Return the exception of an outcome, with the end of the log where that explains it."""
        error = job_outcome.exception_of(record, self.name)
        if isinstance(error, JobFailed) and record.header["kind"] in job_outcome.EXPLAINED_BY_LOG:
            tail, problem = self._tail()
            error.log_tail = tail
            error.message += f"\nIts log ends:\n{tail}" if tail else problem
        return error

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
            return self._exception_of(self._outcome(timeout, progress))
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
                f"job {self.name!r} must be created by jobs.Executor, and it was created in another way",
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

        def poll() -> tuple[Record | None, JobStatus]:
            job, pods = self._read_executor_job()
            status = self._final_status(job, pods)
            if status is not None:
                return self._ended_outcome(job, pods, status, failures), status
            with deadline(_DIAGNOSIS_TIMEOUT):
                failures.observe(pods)
            status = JobStatus.from_objects(job, pods)
            self._refuse_unpullable(status, pods, pulls)
            return None, status

        return self._wait_until(poll, "job.result()", timeout=timeout, progress=progress, interval=_RESULT_INTERVAL)

    def _ended_outcome(self, job: Object, pods: list[Object], status: JobStatus, failures: FailureRecord) -> Record:
        """Return the outcome of a Job that has ended.

        Raises:
            JobFailed: the program left no outcome.
            ResultLost: the outcome is gone.
        """
        history.save_later(self._save_quietly)
        record = job_outcome.read_whole_outcome(self.cluster, job, pods)
        if record is not None:
            return record
        if status.phase == "Failed":
            raise self._failure_error(status, failures)
        raise ResultLost(
            f"job {self.name} is complete, and its result was lost with its pod",
            hint='Run the function again, and read the result soon after it ends. Executor(aks, out="runs") keeps it.',
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

    def _timeout_error(self, late: WaitTimeout, state: str) -> WaitTimeout:
        """Return the error of a wait that ran out of time, with what keeps the Job from ending.

        Args:
            late: the error of the wait. Its last state may be the verdict already.
            state: the Job's last status.
        """
        try:
            with deadline(_DIAGNOSIS_TIMEOUT):
                diagnosis = self.why()
        except KubernetesError as failed:
            diagnosis = Diagnosis(f"The reason why it has not ended could not be determined: {failed.message}")
        is_known = diagnosis.verdict == late.state
        message = late.message if is_known else f"{late.message}\n{diagnosis.verdict}"
        error = WaitTimeout(
            _with_unknown(message, diagnosis),
            state=state,
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
        with self._saved_run_in_hint():
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
            with self._saved_run_in_hint():
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
        with self._saved_run_in_hint():
            found = read_attempts(self.cluster, self.name, namespace=self.namespace)
        return _metrics_of(found, patterns)

    @contextlib.contextmanager
    def _saved_run_in_hint(self) -> Iterator[None]:
        """Add to an error about a missing Job or log how to read the log that this machine has saved."""
        try:
            yield
        except NotFound as error:
            if history.is_enabled() and history.has_log(self.name):
                error.hint = (
                    f"This machine has saved the newest log of a Job with this name: runs.get({self.name!r}).logs() "
                    "returns it, and runs.get(...).metrics() its metrics (from aksgpu import runs)."
                )
            raise

    def gpu(self) -> pd.DataFrame:
        """Return samples of the GPUs of the Job's pods.

        The pods of an :class:`Executor` sample their GPUs themselves, every five seconds for ten minutes and then in
        rows of a minute. Their samples can be read while they run and after that. In other pods, this process runs
        ``nvidia-smi``, if the image has it: in this call, and while it waits for the Job or shows it as a live view.

        Returns:
            One row for each GPU and sample, oldest first:

            - time (datetime64[ns, UTC]): when the sample was taken; of a row of several samples, the last one.
            - pod (string): name of the pod.
            - index (Int64): completion index of the pod; NA if the Job has no indexes.
            - attempt (Int64): number of earlier runs of the same part of the Job.
            - gpu (Int64): number of the GPU in the pod, from 0.
            - utilization (Float64): mean share of time in which the GPU computed, in percent.
            - utilization_min, utilization_max (Float64): its least and most, in percent. In a row of one sample they
              are equal.
            - memory_used_gb, memory_total_gb (Float64): in GB of 10^9 bytes.
            - power_w (Float64): in W.
            - temperature_c (Float64): in degrees Celsius.

            What a GPU does not report, such as the utilization of a MIG instance, is NA. ``attrs["sources"]`` says for
            each pod where its samples are from, or why there are none.

        Raises:
            NotFound: the Job was deleted. ``runs.get("NAME").gpu()`` returns what was saved.

        Example:
            >>> job.gpu().groupby("gpu")["utilization"].mean()  # doctest: +SKIP
        """
        job = self._object()
        table = gpu_samples.read_gpu(self.cluster, job, job_pods(self.cluster.kube, job))
        return joined_tables(table, self._saved_table(job, "gpu"))

    def _saved_table(self, job: Object, name: str) -> pd.DataFrame | None:
        """Return a table that this machine's history has of the Job."""
        if not history.is_enabled():
            return None
        try:
            return history.find(job["metadata"]["uid"], name)
        except (OSError, ValueError):
            return None

    def plot(self, *metrics: str, gpu: bool = False, **options: Any) -> Figure:
        """Draw the Job's metrics. The arguments are those of :func:`aksgpu.plots.curve`.

        Args:
            metrics: names of metrics.
            gpu: draw the utilization of the GPUs and the cost so far below the metrics, with a common time axis; see
                :func:`aksgpu.plots.with_gpu`, which has fewer options.
            options: further arguments of that function.

        Example:
            >>> job.plot("loss", "val_loss", log=True)  # doctest: +SKIP
            >>> job.plot("loss", gpu=True)  # doctest: +SKIP
        """
        from aksgpu import plots

        options.setdefault("title", self.name)
        figure: Figure
        if gpu:
            figure = plots.with_gpu(self.metrics(), self.gpu(), self.facts(), *metrics, **options)
        else:
            figure = plots.curve(self.metrics(), *metrics, **options)
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
        """Explain the Job's current state, and what to do: see :mod:`aksgpu.diagnose`.

        For a Job that runs, it also says whether its GPU was not used for ten minutes, and whether the program trains
        on the CPU although the Job has a GPU.
        """
        diagnosis = self._explain()
        try:
            with deadline(_DIAGNOSIS_TIMEOUT):
                job, pods = self._read_running()
                if job is None:
                    return diagnosis
                feed = JobFeed(self.cluster, self.name, self.namespace)
                feed.read()
                notes = self._gpu_notes(feed, job, pods)
        except KubernetesError as failed:
            unknown = (*diagnosis.unknown, f"the use of its GPUs: {failed.message}")
            return replace(diagnosis, unknown=unknown)
        rows = [("GPU", text) for text in (notes.line, *notes.warnings) if text]
        verdict = " ".join([diagnosis.verdict, *(f"{text}." for text in notes.warnings)])
        fix = diagnosis.fix or ("job.cancel() or job.delete() frees the GPU." if notes.warnings else "")
        return replace(diagnosis, verdict=verdict, fix=fix, rows=(*diagnosis.rows, *rows))

    def _read_running(self) -> tuple[Object | None, list[Object]]:
        """Return the Job object and its pods if a pod with a GPU runs; None if none does."""
        job = self._object()
        if JobStatus.from_objects(job, None).ended:
            return None, []
        pods = job_pods(self.cluster.kube, job)
        runs = any((pod.get("status") or {}).get("phase") == "Running" and pod_facts.gpus(pod["spec"]) for pod in pods)
        return (job, pods) if runs else (None, [])

    def _gpu_notes(self, feed: JobFeed, job: Object, pods: list[Object]) -> GpuNotes:
        """Return what is worth saying about the GPUs of the Job, which runs."""
        samples = gpu_samples.read_gpu(self.cluster, job, pods)
        facts = run_record.read_facts(self.cluster, job, pods)
        return gpu_notes(samples, facts, feed.devices, feed.table())

    def _feed(self) -> JobFeed:
        """Return what reads the Job's metrics and log while they grow."""
        return JobFeed(self.cluster, self.name, self.namespace)

    def _notes(self, feed: JobFeed) -> GpuNotes:
        """Return what is worth saying about the GPUs of the Job now; nothing if it does not run."""
        job, pods = self._read_running()
        if job is None:
            return GpuNotes()
        gpu_samples.watch(self.cluster, pods)
        return self._gpu_notes(feed, job, pods)

    def facts(self) -> dict[str, Any]:
        """Return the facts about the run that :mod:`aksgpu.runs` compares.

        Returns:
            ``phase``, ``started``, ``ended``, ``seconds``, ``image``, ``args``, ``gpu_model``, ``usd``,
            ``usd_per_hour`` and more; see
            :func:`aksgpu.jobs.run_record.read_facts`. What cannot be found out is None.

        Raises:
            NotFound: the Job was deleted.
        """
        job = self._object()
        return run_record.read_facts(self.cluster, job, job_pods(self.cluster.kube, job))

    def save(self) -> StoredRun:
        """Save the Job's log, metrics, GPU samples and facts in the history of this machine; see :mod:`aksgpu.runs`.

        ``job.wait()`` and the live view do so when the Job has ended, and ``job.delete()`` before it deletes the Job.
        What was saved before is replaced. A log that the cluster no longer has is kept.

        Returns:
            The saved run.

        Raises:
            NotFound: the Job was deleted.
            LogUnavailable: the node did not serve the log.
            OSError: the directory of the history cannot be written.
        """
        job = self._object()
        pods = job_pods(self.cluster.kube, job)
        facts = run_record.read_facts(self.cluster, job, pods)
        try:
            found = attempts_of(self.cluster.kube, job, pods)
        except LogsGone:
            return history.save(facts, None, {})
        log = "".join(each.text for each in found.logs)
        tables = {"metrics": _metrics_of(found, None)}
        if facts["gpus"]:
            with contextlib.suppress(KubernetesError):
                tables["gpu"] = self.gpu()
        run = history.save(facts, log, tables)
        uid = job["metadata"]["uid"]
        _saved_runs[uid] = run
        if JobStatus.from_objects(job, None).ended and ("gpu" in tables or not facts["gpus"]):
            _final_runs.add(uid)
        return run

    def _save_quietly(self, timeout: float = _SAVING) -> None:
        """Save the run if that is possible within some seconds. The caller's work does not depend on it."""
        if not history.is_enabled():
            return
        timer = Timer(timeout)
        lock = _save_locks.setdefault(f"{self.namespace}/{self.name}", threading.Lock())
        if not lock.acquire(timeout=timer.left):
            return
        try:
            with deadline(timer.left):
                self._save_unless_complete()
        except (KubernetesError, OSError) as failed:
            _logger.info("Job %s was not saved in the history: %s", self.name, failed)
        finally:
            lock.release()

    def _save_unless_complete(self) -> None:
        """Save the run, unless this process has saved it completely.

        A run that was saved before is complete if its Job had ended then, or if the Job is being deleted now: its pods
        may already be gone.
        """
        metadata = self._object()["metadata"]
        uid = metadata["uid"]
        saved = _saved_runs.get(uid)
        is_complete = uid in _final_runs or "deletionTimestamp" in metadata
        if saved is None or not is_complete or not history.exists(saved):
            self.save()

    def files(self, *, progress: bool | None = None) -> pd.DataFrame:
        """List the files that the function has written to ``$AKSGPU_OUT``, its directory on the claim for output.

        Args:
            progress: False shows no progress; None uses the environment variable ``AKSGPU_PROGRESS``.

        Returns:
            The columns of :func:`aksgpu.storage.ls`, one row for each file and directory. Paths begin in that
            directory. It is empty before the program starts.

        Raises:
            InvalidInput: the Job was submitted without ``Executor(out=)``.
            NotFound: the Job or the claim was deleted.
            Forbidden: you may not create Jobs or run programs in pods.

        Example:
            >>> job.files()  # doctest: +SKIP
        """
        claim = output_claim.require_output(self._object())
        return output_claim.list_output(self.cluster, claim, self.name, self.namespace, progress)

    def download(
        self,
        path: str = "",
        *,
        to: str | os.PathLike[str] | None = None,
        timeout: Timeout = None,
        progress: bool | None = None,
    ) -> Transfer:
        """Copy the files that the function has written to ``$AKSGPU_OUT`` to this machine.

        It resumes and checks as :func:`aksgpu.storage.download` does.

        Args:
            path: a file or directory in that directory; empty for all of it.
            to: path on this machine; None uses the name of what is copied, which is the Job's name for all files.
            timeout: seconds, or text such as ``"2h"``; None means no limit.
            progress: False shows no progress; None uses the environment variable ``AKSGPU_PROGRESS``.

        Returns:
            What was copied.

        Raises:
            InvalidInput: an argument is not valid, or the Job was submitted without ``Executor(out=)``.
            NotFound: the Job or the claim was deleted, or the path does not exist.
            Forbidden: you may not create Jobs or run programs in pods.

        Example:
            >>> job.download("checkpoints", to="results/")  # doctest: +SKIP
        """
        claim = output_claim.require_output(self._object())
        inner = storage_arguments.claim_path(path, "path")
        return storage.download(
            self.cluster,
            claim,
            f"{self.name}/{inner}".rstrip("/"),
            to=to,
            namespace=self.namespace,
            timeout=timeout,
            progress=progress,
        )

    def forward(
        self, port: int, *, local_port: int = 0, timeout: Timeout = 600, progress: bool | None = None
    ) -> PortForward:
        """Open a port of this machine that forwards to a port of the Job's pod, such as TensorBoard's.

        Waits until the pod runs. Each connection goes to the pod that runs at that moment, so that it also reaches a
        later attempt. The program in the pod must listen on all addresses or on its loopback address.

        Args:
            port: the port in the pod.
            local_port: the port on this machine; 0 for one that is free.
            timeout: how long to wait for the pod: seconds, or text such as ``"10m"``; None means no limit.
            progress: False shows no progress; None uses the environment variable ``AKSGPU_PROGRESS``.

        Returns:
            The open port, with ``port``, ``url`` and ``last_error``. It is a context manager that closes it.

        Raises:
            InvalidInput: an argument is not valid.
            NotFound: the Job was deleted, or has ended.
            WaitTimeout: no pod runs.
            OSError: the local port is in use.

        Example:
            >>> with job.forward(6006) as forward:  # doctest: +SKIP
            ...     print(forward.url)
        """
        return port_forwarding.forward(self.cluster, self.name, self.namespace, port, local_port, timeout, progress)

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

        def poll() -> tuple[bool | None, str]:
            nonlocal deleted
            if deleted is None:
                found = kube.find("Job", self.name, namespace=self.namespace)
                if found is None:
                    return True, ""
                self._save_quietly(_SAVING_BEFORE_DELETION)
                with contextlib.suppress(NotFound):
                    kube.delete("Job", self.name, namespace=self.namespace, propagation_policy="Foreground")
                deleted = found
            exists = find_same_job(kube, deleted) is not None
            pods_left = len(job_pods(kube, deleted))
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
    index = (pod["metadata"].get("annotations") or {}).get(COMPLETION_INDEX)
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
