"""What the taints of nodes mean, by their keys. A pod must tolerate those of a pool, and none of the others."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

__all__ = ["TAINTS", "TaintKind", "TaintMeaning", "is_temporary", "meaning"]


class TaintKind(StrEnum):
    """What a taint is for."""

    POOL = "pool"
    """It keeps pods that are not meant for the pool away. Pods of the pool tolerate it."""
    SYSTEM = "system"
    """It reserves the node for the system's pods."""
    STARTING = "being set up"
    """The node is being set up. The taint is removed when that is done."""
    NOT_READY = "not ready"
    """The node's kubelet or network does not work at the moment."""
    PRESSURE = "under pressure"
    """The node lacks disk, memory or process numbers."""
    REPAIRED = "being repaired"
    """The node is being repaired, upgraded or maintained."""
    LEAVING = "about to be removed"
    """The node is about to be removed."""


class TaintMeaning(NamedTuple):
    """The meaning of a taint."""

    kind: TaintKind
    text: str
    """What it says about the node, as the end of a sentence that begins with "the node"."""


TAINTS: tuple[tuple[str, TaintMeaning], ...] = (
    ("CriticalAddonsOnly", TaintMeaning(TaintKind.SYSTEM, "is reserved for the system's pods")),
    ("node-role.kubernetes.io/control-plane", TaintMeaning(TaintKind.SYSTEM, "is a control plane node")),
    ("node-role.kubernetes.io/master", TaintMeaning(TaintKind.SYSTEM, "is a control plane node")),
    ("node.cloudprovider.kubernetes.io/uninitialized", TaintMeaning(TaintKind.STARTING, "is being set up")),
    ("node.cloudprovider.kubernetes.io/shutdown", TaintMeaning(TaintKind.LEAVING, "is shut down")),
    ("node.cilium.io/agent-not-ready", TaintMeaning(TaintKind.STARTING, "is being set up: its network starts")),
    ("ignore-taint.cluster-autoscaler.kubernetes.io/", TaintMeaning(TaintKind.STARTING, "is being set up")),
    ("startup-taint.cluster-autoscaler.kubernetes.io/", TaintMeaning(TaintKind.STARTING, "is being set up")),
    ("karpenter.sh/unregistered", TaintMeaning(TaintKind.STARTING, "is being set up")),
    ("karpenter.sh/disrupted", TaintMeaning(TaintKind.LEAVING, "is about to be removed by node auto-provisioning")),
    ("karpenter.sh/disruption", TaintMeaning(TaintKind.LEAVING, "is about to be removed by node auto-provisioning")),
    ("ToBeDeletedByClusterAutoscaler", TaintMeaning(TaintKind.LEAVING, "is about to be removed by the autoscaler")),
    ("ToBeDeletedTaint", TaintMeaning(TaintKind.LEAVING, "is about to be removed by the autoscaler")),
    ("DeletionCandidate", TaintMeaning(TaintKind.LEAVING, "may soon be removed by the autoscaler")),
    ("remediator.aks.microsoft.com/", TaintMeaning(TaintKind.REPAIRED, "is being repaired by AKS")),
    ("remediator.kubernetes.azure.com/", TaintMeaning(TaintKind.REPAIRED, "is being repaired by AKS")),
    ("kubernetes.azure.com/upgrade", TaintMeaning(TaintKind.REPAIRED, "is being upgraded")),
    ("node.kubernetes.io/not-ready", TaintMeaning(TaintKind.NOT_READY, "is not ready")),
    ("node.kubernetes.io/unreachable", TaintMeaning(TaintKind.NOT_READY, "does not answer")),
    ("node.kubernetes.io/network-unavailable", TaintMeaning(TaintKind.NOT_READY, "has no network yet")),
    ("node.kubernetes.io/out-of-service", TaintMeaning(TaintKind.LEAVING, "is out of service")),
    ("node.kubernetes.io/unschedulable", TaintMeaning(TaintKind.REPAIRED, "is cordoned")),
    ("node.kubernetes.io/memory-pressure", TaintMeaning(TaintKind.PRESSURE, "has too little free memory")),
    ("node.kubernetes.io/disk-pressure", TaintMeaning(TaintKind.PRESSURE, "has too little free disk")),
    ("node.kubernetes.io/pid-pressure", TaintMeaning(TaintKind.PRESSURE, "has too many processes")),
    ("node.kubernetes.io/", TaintMeaning(TaintKind.NOT_READY, "has a condition that keeps pods away")),
    ("node.cloudprovider.kubernetes.io/", TaintMeaning(TaintKind.STARTING, "is being set up")),
)
"""Key, or its beginning, and meaning. The first row that fits counts. Other taints are those of pools."""

_POOL = TaintMeaning(TaintKind.POOL, "has a taint of its pool")


def meaning(key: str) -> TaintMeaning:
    """Return the meaning of a taint.

    Args:
        key: the taint's key.
    """
    for beginning, found in TAINTS:
        if key == beginning or (key.startswith(beginning) and beginning != "CriticalAddonsOnly"):
            return found
    return _POOL


def is_temporary(key: str) -> bool:
    """Return whether Kubernetes, AKS or an autoscaler adds and removes the taint, so that no workload tolerates it."""
    return meaning(key).kind not in (TaintKind.POOL, TaintKind.SYSTEM)
