"""Explain why a Job or pod is pending or failed: one verdict, the evidence, and the call that fixes it.

    diagnose.job(aks, "samples-tf-mnist-demo")
    job.why()

A diagnosis combines what no single object contains: the pod's state, its events, the nodes with their taints and GPUs,
who uses those GPUs, and the end of the log. It only reads. What cannot be read, because a right is missing or the API
server does not answer, is listed as unknown, and the verdict is made from the rest.

``diagnose.node`` and ``diagnose.cluster`` explain what is wrong with a node, or with all of them, before a Job waits.

Each module answers one question:

- ``job_diagnosis``: what state is the Job in, and which of its pods explains it? ``job_pods`` finds the pod that failed
  first, ``kueue_workloads`` reads why a queue holds the Job.
- ``pod_diagnosis``: why does the pod not run, or why did it fail? ``program_log`` reads as much of its log as it takes,
  and ``first_error`` finds the first error in it.
- ``pod_scheduling``: why does no node take the pod? ``placement`` compares the pod with each node, ``scheduling_rules``
  has a named rule for each verdict, and ``scheduling_events`` reads the events of the scheduler and the autoscaler.
  ``node_claims``, ``provisioning_requests`` and ``pod_volumes`` read what else the pod waits for.
- ``gpu_failures``: which known failure does a text show? It has the table, whose rows are in ``gpu_texts``,
  ``program_texts``, ``start_texts``, ``node_texts`` and ``scheduling_texts``. ``docs/failures.md`` is made from them.
- ``node_diagnosis`` and ``cluster_diagnosis``: what is wrong with a node, or with the cluster?
- ``events``: which events belong to an object?
"""

from __future__ import annotations

from aksgpu.diagnose.cluster_diagnosis import cluster
from aksgpu.diagnose.diagnosis import Diagnosis
from aksgpu.diagnose.job_diagnosis import job
from aksgpu.diagnose.node_diagnosis import node
from aksgpu.diagnose.pod_diagnosis import pod

__all__ = ["Diagnosis", "cluster", "job", "node", "pod"]


def __dir__() -> list[str]:
    return sorted(__all__)
