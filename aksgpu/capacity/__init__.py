"""GPUs of a cluster as DataFrames: what each node has, who uses it, and whether another Job would fit.

The numbers come from the status of the nodes, as for the scheduler: a node without a running device plugin has no GPUs,
whatever its VM size. GPUs that Kubernetes allocates through dynamic resource allocation (DRA) come from ResourceSlices.
:mod:`aksgpu.diagnose` explains why a pod is not scheduled.
"""

from __future__ import annotations

from aksgpu.capacity.advertised_gpus import advertise
from aksgpu.capacity.gpu_table import gpus, nodes
from aksgpu.capacity.gpu_usage import Usage, usage
from aksgpu.capacity.gpu_usage import holders as holders
from aksgpu.capacity.schedulable_wait import wait_schedulable
from aksgpu.capacity.smoke import smoke_test

__all__ = ["Usage", "advertise", "gpus", "nodes", "smoke_test", "usage", "wait_schedulable"]


def __dir__() -> list[str]:
    return list(__all__)
