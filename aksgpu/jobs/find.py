"""Find Jobs that exist: one by its name, or all of a namespace."""

from __future__ import annotations

import builtins
import contextlib
from typing import TYPE_CHECKING

from aksgpu.common.arguments import flag
from aksgpu.common.frames import frame
from aksgpu.diagnose.cluster_reader import ClusterReader
from aksgpu.diagnose.job_diagnosis import explain_with
from aksgpu.errors import Forbidden, InvalidInput, KubernetesError, NotFound
from aksgpu.jobs.job import Job
from aksgpu.jobs.job_status import JobStatus
from aksgpu.jobs.state_explanation import EXPLAINED_PHASES
from aksgpu.kube import path_names, pod_facts
from aksgpu.kube.client import HasKube, Object
from aksgpu.kube.cluster_argument import check_cluster
from aksgpu.waiting import deadline

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["attach", "get", "list"]

_LIST_COLUMNS = {
    "namespace": "string",
    "job": "string",
    "phase": "string",
    "reason": "string",
    "succeeded": "Int64",
    "completions": "Int64",
    "gpus": "Int64",
    "image": "string",
    "why": "string",
}
_MOST_EXPLAINED = 10
"""Jobs that are explained: the newest."""
_EXPLAINING = 20.0
"""Seconds that explaining them may take."""


def get(aks: HasKube, name: str, *, namespace: str | None = None) -> Job:
    """Return the Job of that name, no matter how it was created. ``jobs.attach`` is another name for this function.

    Args:
        aks: the cluster.
        name: the Job's name.
        namespace: the Job's namespace; None uses the context's namespace.

    Returns:
        The Job.

    Raises:
        InvalidInput: ``aks`` is not a cluster, or a name is not valid.
        NotFound: the Job does not exist; the hint lists the Jobs of the namespace.

    Example:
        >>> job = jobs.get(aks, "samples-tf-mnist-demo")  # doctest: +SKIP
    """
    job = Job(aks, name, namespace=namespace)
    if aks.kube.find("Job", job.name, namespace=job.namespace) is None:
        hint = _existing_jobs(aks, job.namespace)
        raise NotFound(f"Job {job.name!r} does not exist in namespace {job.namespace!r}", hint=hint)
    return job


attach = get


def list(aks: HasKube, *, namespace: str | None = None, all_namespaces: bool = False) -> pd.DataFrame:
    """Return the Jobs of a namespace, oldest first.

    Args:
        aks: the cluster.
        namespace: the namespace; None uses the context's namespace.
        all_namespaces: list the Jobs of all namespaces instead. This requires the permission to list them.

    Returns:
        One row for each Job:

        - namespace, job (string): its namespace and name.
        - phase, reason (string): its state, as in :class:`JobStatus`.
        - succeeded, completions (Int64): pods that succeeded, and pods that must succeed.
        - gpus (Int64): GPUs of one pod.
        - image (string): the image of the first container.
        - why (string): what keeps the Job from running, or why it failed, as in ``job.why().verdict``; NA for Jobs that
          run or are complete, and for all but the ten newest others.

    Raises:
        InvalidInput: an argument is not valid; nothing was sent.
        Forbidden: the user may not list the Jobs of that namespace, or of all namespaces.
        NotFound: the namespace does not exist.

    Example:
        >>> jobs.list(aks)  # doctest: +SKIP
    """
    check_cluster(aks)
    flag("all_namespaces", all_namespaces)
    if namespace is not None:
        path_names.check_namespace(namespace)
        if all_namespaces:
            raise InvalidInput(
                f"`namespace` must be None with `all_namespaces=True`, got {namespace!r}",
                hint=f"jobs.list(aks, namespace={namespace!r}) lists one namespace.",
            )
    if all_namespaces:
        found = aks.kube.list("Job", all_namespaces=True)
    else:
        found = _in_namespace(aks, namespace or aks.kube.namespace)
    found.sort(key=lambda job: (job["metadata"]["creationTimestamp"], job["metadata"]["name"]))
    rows = [_row(job) for job in found]
    _explain(aks, found, rows)
    return frame(rows, _LIST_COLUMNS)


def _row(job: Object) -> dict[str, object]:
    """Return the table's row for a Job object."""
    status = JobStatus.from_objects(job, None)
    pod_spec = job["spec"]["template"]["spec"]
    return {
        "namespace": job["metadata"]["namespace"],
        "job": job["metadata"]["name"],
        "phase": status.phase,
        "reason": status.reason,
        "succeeded": status.succeeded,
        "completions": status.completions,
        "gpus": sum(pod_facts.gpus(pod_spec).values()),
        "image": pod_spec["containers"][0]["image"],
        "why": None,
    }


def _explain(aks: HasKube, found: builtins.list[Object], rows: builtins.list[dict[str, object]]) -> None:
    """Add the verdicts of the newest Jobs that do not run. What cannot be found out in time stays NA."""
    waiting = [number for number, row in enumerate(rows) if row["phase"] in EXPLAINED_PHASES]
    reader = ClusterReader(aks)
    with deadline(_EXPLAINING), contextlib.suppress(KubernetesError):
        for number in reversed(waiting[-_MOST_EXPLAINED:]):
            diagnosis = explain_with(reader.for_another(), found[number])
            unknown = " (Not all of it could be read.)" if diagnosis.unknown else ""
            rows[number]["why"] = f"{diagnosis.verdict}{unknown}"


def _in_namespace(aks: HasKube, namespace: str) -> builtins.list[Object]:
    """Return the Jobs of a namespace, which must exist.

    The API server returns an empty list for a namespace that does not exist.
    """
    found = aks.kube.list("Job", namespace=namespace)
    if not found:
        # A user who has permissions only in the namespace may list its Jobs, but not read the namespace.
        with contextlib.suppress(Forbidden):
            aks.kube.get("Namespace", namespace)
    return found


def _existing_jobs(aks: HasKube, namespace: str) -> str:
    """Return a hint that lists the Jobs of a namespace, or says that they could not be read."""
    try:
        names = sorted(aks.kube.list("Job", namespace=namespace, pick=lambda job: job["metadata"]["name"]))
    except KubernetesError as error:
        return f"The namespace's Jobs could not be read: {error.message}"
    existing = f"The namespace has these Jobs: {', '.join(names)}." if names else "The namespace has no Jobs."
    return f"{existing} jobs.list(aks, all_namespaces=True) lists the Jobs of all namespaces."
