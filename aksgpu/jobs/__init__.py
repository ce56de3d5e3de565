"""Jobs: run a manifest or an image on the cluster's GPUs, wait for it, read its log and its numbers, delete it.

    job = jobs.apply(aks, aksgpu.manifests.mnist())
    job.wait()
    job.metrics()

Everything is a Kubernetes Job and lives in the cluster. A :class:`Job` here is only its name, so that a new kernel gets
it back with :func:`attach`.
"""

from __future__ import annotations

from aksgpu.jobs.create import apply, attach, list, submit
from aksgpu.jobs.job import Job
from aksgpu.jobs.job_status import JobStatus

__all__ = ["Job", "JobStatus", "apply", "attach", "list", "submit"]
