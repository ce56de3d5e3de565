"""Labels and annotations of Kubernetes, AKS and other programs that several modules read or write."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = [
    "COMPLETION_INDEX",
    "DO_NOT_EVICT",
    "FAILURE_COUNT",
    "IGNORED_FAILURE_COUNT",
    "INSTANCE_TYPE",
    "QUEUE_NAME",
    "SCALE_SET_PRIORITY",
]

COMPLETION_INDEX = "batch.kubernetes.io/job-completion-index"
"""Annotation of a pod of an Indexed Job: its index."""
FAILURE_COUNT = "batch.kubernetes.io/job-index-failure-count"
"""Annotation of a pod: how many pods of its index failed before it."""
IGNORED_FAILURE_COUNT = "batch.kubernetes.io/job-index-ignored-failure-count"
"""Annotation of a pod: how many pods of its index ended before it without counting as failed, such as evicted ones."""
DO_NOT_EVICT: Mapping[str, str] = {
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    "karpenter.sh/do-not-disrupt": "true",
}
"""Annotations of pods that keep the cluster autoscaler and node auto-provisioning (Karpenter) from evicting them."""
INSTANCE_TYPE = "node.kubernetes.io/instance-type"
"""Label of a node: its VM size."""
SCALE_SET_PRIORITY = "kubernetes.azure.com/scalesetpriority"
"""Label and taint of a node of AKS. Its value is ``spot`` for a spot VM."""
QUEUE_NAME = "kueue.x-k8s.io/queue-name"
"""Label of a Job that Kueue starts: its queue."""
