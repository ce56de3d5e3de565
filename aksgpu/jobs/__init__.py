"""Jobs: run a manifest or an image on the cluster's GPUs, wait for it, read its log and its numbers, delete it.

    job = jobs.apply(aks, aksgpu.manifests.mnist())
    job.wait()
    job.metrics()

A Job is a Kubernetes Job and lives in the cluster. A :class:`Job` object holds only its name and namespace: a new
kernel gets it back with :func:`get`.

``namespace=None`` means the namespace of the kubeconfig's context in every function, or ``default`` if the context has
none.
"""

from __future__ import annotations

from collections.abc import Sequence

from aksgpu.jobs.create import apply, submit
from aksgpu.jobs.executor import Executor
from aksgpu.jobs.find import attach, get, list
from aksgpu.jobs.job import Job
from aksgpu.jobs.job_status import JobStatus
from aksgpu.jobs.many_jobs import as_completed

__all__ = ["Executor", "Job", "JobStatus", "apply", "as_completed", "attach", "get", "list", "submit"]


def __dir__() -> Sequence[str]:
    return sorted(__all__)
