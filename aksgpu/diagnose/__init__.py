"""Explain why a Job or pod is pending or failed: one verdict, the evidence, and the call that fixes it.

    diagnose.job(aks, "samples-tf-mnist-demo")
    job.why()

A diagnosis combines what no single object contains: the pod's state, its events, the nodes with their taints and GPUs,
who uses those GPUs, and the end of the log. It only reads. What cannot be read, because a right is missing or the API
server does not answer, is listed as unknown, and the verdict is made from the rest.

Each module answers one question:

- ``job_diagnosis``: what state is the Job in, and which of its pods explains it?
- ``pod_diagnosis``: why does the pod not run, or why did it fail?
- ``pod_scheduling``: why does no node take the pod? ``placement`` compares the pod with each node, ``scheduling_rules``
  has a named rule for each verdict, and ``scheduling_events`` reads the events of the scheduler and the autoscaler.
- ``gpu_failures``: which known GPU failure does a log show?
- ``events``: which events belong to an object?
"""

from __future__ import annotations

from aksgpu.diagnose.diagnosis import Diagnosis
from aksgpu.diagnose.job_diagnosis import job
from aksgpu.diagnose.pod_diagnosis import pod

__all__ = ["Diagnosis", "job", "pod"]


def __dir__() -> list[str]:
    return sorted(__all__)
