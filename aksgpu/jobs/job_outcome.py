"""Read the outcome of an Executor's run, and turn it into a value or an exception."""

from __future__ import annotations

import base64
import contextlib
import json
import pickle
import warnings
from typing import Any

from aksgpu.errors import (
    AksGpuError,
    JobCancelled,
    JobFailed,
    NotFound,
    PackageError,
    PythonMismatch,
    RemoteError,
    ResultLost,
    ResultTooLarge,
    ResultUnpicklable,
    RunTimeout,
)
from aksgpu.jobs import output_claim
from aksgpu.jobs.executor_manifest import MAIN, SIDECAR
from aksgpu.jobs.job_status import JobStatus
from aksgpu.jobs.missing_files import missing_file_note
from aksgpu.jobs.outcome_copy import keep_copy, read_copy
from aksgpu.kube import pod_facts
from aksgpu.kube.client import HasKube, Object
from aksgpu.logs.log_request import LogIncomplete, LogRequest, read_text
from aksgpu.payload import records
from aksgpu.payload.job_annotations import CANCELLED, EXECUTOR, PAYLOAD_SECRET
from aksgpu.payload.packing import own_python
from aksgpu.payload.records import BadRecord, Record

__all__ = [
    "EXPLAINED_BY_LOG",
    "RemoteTraceback",
    "exception_of",
    "is_executor_job",
    "lost_files",
    "read_outcome",
    "read_whole_outcome",
    "value_of",
    "was_cancelled",
]

EXPLAINED_BY_LOG = ("died", "exit", "exit_code", "timeout")
"""Kinds of outcomes whose reason is often in the last lines of the log."""
_TRACEBACK_LINES = 20
"""Lines of a script's traceback that the message of its error has."""

_LOG_PATIENCE = 60.0
"""Seconds for which reading the sidecar's log is repeated."""

_GPU_ADVICE = "Return CPU tensors, such as tensor.cpu()."
_MODULE_ADVICE = "Install the missing module here, or return plain data."
_LOADING_ADVICE = (
    "The image must have the modules that the function imports, or Executor(packages=) must name them. "
    "Executor(...).explain(fn) lists them."
)
_CODE_MARK = b"cloudpickle"
"""Part of each pickle that holds code by value."""

Body = dict[str, Any]
"""The fields of a failure's body."""


class RemoteTraceback(Exception):
    """The traceback of an exception in the pod, as the cause of the exception that is raised here."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


def is_executor_job(job: Object) -> bool:
    """Return whether an Executor made the Job, so that its program has an outcome."""
    return EXECUTOR in (job["metadata"].get("labels") or {})


def was_cancelled(job: Object) -> bool:
    """Return whether the Job was cancelled before its program started. Such a Job is suspended."""
    is_marked = CANCELLED in (job["metadata"].get("annotations") or {})
    return is_marked and bool(job["spec"].get("suspend"))


# Read


def read_outcome(aks: HasKube, job: Object, pods: list[Object]) -> Record | None:
    """Return the outcome of the newest pod that ended, or of the Job's own Secret; None if there is none.

    What a pod has left is copied into a Secret, because the pod disappears with its node.

    Args:
        aks: the cluster.
        job: the Job object.
        pods: its pods, oldest first.

    Raises:
        ResultLost: there is an outcome, and it cannot be read completely.
    """
    if was_cancelled(job):
        return Record({"kind": "cancelled", "where": "message"}, b"")
    key = _key(aks, job)
    ended = [pod for pod in pods if pod_facts.ended(pod)]
    succeeded = [pod for pod in ended if pod["status"]["phase"] == "Succeeded"]
    candidates = succeeded
    # The pod that completed the Job may be gone while one of an earlier attempt is still there.
    if not succeeded and JobStatus.from_objects(job, None).phase != "Complete":
        candidates = ended[-1:]
    found = next((pod for pod in reversed(candidates) if _text_of(pod)), None)
    try:
        text = _whole_text(aks, found, key) if found else ""
    except ResultLost:
        text = read_copy(aks, job)
        if not text:
            raise
    else:
        if text:
            keep_copy(aks, job, text)
        else:
            text = read_copy(aks, job)
    if not text:
        return None
    try:
        return records.decode(text, key)
    except BadRecord as error:
        raise _lost(job["metadata"]["name"], str(error)) from error


def read_whole_outcome(aks: HasKube, job: Object, pods: list[Object]) -> Record | None:
    """Return the outcome as :func:`read_outcome` does, or from the claim for output if the pod could not report it.

    Args:
        aks: the cluster.
        job: the Job object.
        pods: its pods, oldest first.

    Raises:
        ResultLost: there is an outcome, and it cannot be read completely.
    """
    if not output_claim.claim_for_output(job):
        return read_outcome(aks, job, pods)
    lost: ResultLost | None = None
    record: Record | None = None
    try:
        record = read_outcome(aks, job, pods)
    except ResultLost as error:
        lost = error
    if record is not None and record.header["where"] not in ("file", "nowhere"):
        return record
    kept = output_claim.read_kept_outcome(aks, job, _key(aks, job))
    if kept is None and lost is not None:
        raise lost
    return kept or record


def _text_of(pod: Object) -> str:
    """Return the text of the record in a pod's termination message; empty if it has none."""
    ended = pod_facts.container_state(pod, MAIN).get("terminated") or {}
    return records.record_text(str(ended.get("message") or ""))


def _whole_text(aks: HasKube, pod: Object, key: bytes) -> str:
    """Return the text of a pod's record, from the sidecar's log if that has the body.

    Raises:
        ResultLost: the text cannot be read completely.
    """
    name = pod["metadata"]["name"]
    try:
        text = _text_of(pod)
        if records.decode(text, key).header["where"] != "log":
            return text
        text = records.from_frames(_sidecar_log(aks, pod).splitlines())
        records.decode(text, key)
        return text
    except BadRecord as error:
        raise _lost(name, str(error)) from error
    except NotFound as gone:
        raise _lost(name, "the pod is gone, with its result") from gone


def _lost(name: str, why: str) -> ResultLost:
    return ResultLost(f"{name} has ended, and its result cannot be read: {why}", hint="Run the function again.")


def _sidecar_log(aks: HasKube, pod: Object) -> str:
    """Return the log of the sidecar, which holds nothing but the frames of a large result."""
    metadata = pod["metadata"]
    request = LogRequest(aks.kube, metadata["name"], metadata["namespace"], SIDECAR, None, False)
    with warnings.catch_warnings():
        # The sidecar writes at its end, so its log begins long after it.
        warnings.simplefilter("ignore", LogIncomplete)
        return read_text(request, _LOG_PATIENCE)


def _key(aks: HasKube, job: Object) -> bytes:
    """Return the key of the Job's HMACs."""
    metadata = job["metadata"]
    name = (metadata.get("annotations") or {}).get(PAYLOAD_SECRET) or ""
    try:
        secret = aks.kube.get("Secret", name, metadata["namespace"])
        return base64.b64decode(secret["data"]["key"])
    except (NotFound, KeyError) as gone:
        raise ResultLost(
            f"the Secret {name!r} of job {metadata['name']} is gone, so its result cannot be verified",
            hint="Run the function again.",
        ) from gone


# Values and exceptions


def value_of(record: Record, name: str, *, raw: bool) -> Any:
    """Return the value of an outcome, or raise its exception.

    Args:
        record: the outcome.
        name: the Job's name.
        raw: return the pickled value instead, as bytes.
    """
    error = exception_of(record, name)
    if error is not None:
        raise error
    if raw:
        return record.body
    _refuse_code_of_another_python(record, name)
    try:
        return pickle.loads(record.body)
    except Exception as failed:
        advice = _GPU_ADVICE if "CUDA" in str(failed) else _MODULE_ADVICE
        raise ResultUnpicklable(
            f"the value of job {name} cannot be unpickled here: {type(failed).__name__}: {failed}",
            hint=f"{advice} job.result(raw=True) returns its bytes.",
        ) from failed


def _refuse_code_of_another_python(record: Record, name: str) -> None:
    """Raise ResultUnpicklable for a pickle with code by another Python. Loading it could end this process."""
    python = record.header.get("python")
    if python in (None, own_python()) or _CODE_MARK not in record.body:
        return
    raise ResultUnpicklable(
        f"the value of job {name} holds functions or classes of Python {python}, and this is Python {own_python()}",
        hint="Read it with that Python, or return plain data. job.result(raw=True) returns its bytes.",
    )


def exception_of(record: Record, name: str) -> BaseException | None:
    """Return the exception of an outcome; None if the function returned a value that can be read."""
    error = _error_of(record, name)
    if error is not None and record.header["kind"] in ("exception", "script"):
        note = missing_file_note(str(_body(record).get("text") or ""))
        if note:
            error.add_note(f"[aksgpu] {note}")
    return error


def _error_of(record: Record, name: str) -> BaseException | None:
    kind = record.header["kind"]
    text = str(record.header.get("text") or "")
    if record.header["where"] == "file":
        return ResultLost(
            f"the result of job {name} was written to its claim for output, and is no longer there",
            hint="Run the function again.",
        )
    if record.header["where"] == "nowhere":
        size = record.header["size"]
        return ResultTooLarge(
            f"the value of job {name} has {size:,} bytes, and at most "
            f"{records.LARGEST_FRAMED_BODY:,} bytes come back, compressed",
            size=size,
            hint='Write it to a claim: Executor(aks, out="runs") keeps results of any size. Or return less.',
        )
    match kind:
        case "value":
            return None
        case "exception":
            return _rebuilt(record, name)
        case "unpicklable":
            return ResultUnpicklable(
                f"job {name}: {text}", hint="Return plain data, such as numbers, strings, lists and arrays."
            )
        case _:
            return _failure(kind, text, name, record)


def _failure(kind: str, text: str, name: str, record: Record) -> AksGpuError:
    """Return the error of a run whose function did not return."""
    match kind:
        case "python":
            return PythonMismatch(
                f"job {name}: {text}",
                reason="PythonMismatch",
                hint="Use an image with the Python of this kernel, or send the source: Executor(aks, mode='source').",
            )
        case "packages":
            return PackageError(f"job {name}: {text}", reason="PackageError", hint="Correct `packages`.")
        case "timeout":
            return RunTimeout(f"job {name}: {text}", reason="Timeout", hint="Raise Executor(timeout=).")
        case "cancelled":
            return JobCancelled(f"job {name} was cancelled", reason="Cancelled")
        case "exit":
            return _remote_error(_body(record), f"job {name}: {text}")
        case "script":
            return _script_error(_body(record), f"job {name}: {text}")
        case "exit_code":
            return JobFailed(f"job {name}: {text}", reason="ExitCode", hint="job.logs() has its output.")
        case "unloadable":
            return _remote_error(_body(record), f"job {name}: {text}", hint=_LOADING_ADVICE)
    return JobFailed(f"job {name}: {text}", reason="Died", hint="job.why() explains it, and job.logs() has its output.")


def _body(record: Record) -> Body:
    with contextlib.suppress(ValueError):
        return dict(json.loads(record.body))
    return {}


def _remote_error(body: Body, message: str, *, hint: str = "") -> RemoteError:
    module = body.get("module") or ""
    type_name = str(body.get("type") or "")
    if module not in ("", "builtins"):
        type_name = f"{module}.{type_name}"
    error = RemoteError(
        message,
        type_name=type_name,
        arguments=tuple(body.get("arguments") or ()),
        traceback=str(body.get("traceback") or ""),
        hint=hint,
    )
    error.__cause__ = RemoteTraceback(error.traceback)
    return error


def _script_error(body: Body, message: str) -> RemoteError:
    """Return the error of a script that raised an exception, with the end of its traceback."""
    lines = str(body.get("traceback") or "").rstrip().splitlines()
    tail = "\n".join(lines[-_TRACEBACK_LINES:])
    error = _remote_error(body, f"{message}\n{tail}")
    error.log_tail = tail
    error.__cause__ = None  # the message has the traceback
    return error


def lost_files(record: Record) -> str:
    """Return which files of the program are deleted with its pod; empty if there are none."""
    return str(record.header.get("lost") or "")


def _rebuilt(record: Record, name: str) -> BaseException:
    """Return the original exception with the remote traceback as its cause, as concurrent.futures does."""
    body = _body(record)
    content = base64.b64decode(body.get("pickle") or "")
    is_readable = record.header.get("python") in (None, own_python()) or _CODE_MARK not in content
    if content and is_readable:
        with contextlib.suppress(Exception):
            error = pickle.loads(content)
            if isinstance(error, BaseException):
                error.__cause__ = RemoteTraceback(str(body.get("traceback") or ""))
                return error
    return _remote_error(body, f"job {name} raised {body.get('text') or 'an exception'}")
