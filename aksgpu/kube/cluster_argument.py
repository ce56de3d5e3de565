"""Check the argument ``aks`` of the functions that need a cluster."""

from __future__ import annotations

import inspect

from aksgpu.errors import InvalidInput
from aksgpu.kube.client import Kube

__all__ = ["check_cluster"]


def check_cluster(aks: object) -> None:
    """Raise InvalidInput unless the argument ``aks`` is any object with a Kubernetes API. Does not connect to it."""
    if isinstance(aks, Kube):
        raise InvalidInput(
            "`aks` must be a cluster, got its Kube",
            hint="Pass the cluster itself: jobs.list(aks), not jobs.list(aks.kube).",
        )
    # A property is not evaluated here: it may read credentials.
    if inspect.getattr_static(aks, "kube", None) is not None:
        return
    kind = type(aks).__name__
    article = "an" if kind[0] in "AEIOUaeiou" else "a"
    hint = "A cluster comes from cluster.create, cluster.get or cluster.from_kubeconfig."
    if kind == "Azure":
        hint = "Get a cluster of the subscription: aks = cluster.get(azure, 'myAKSCluster', resource_group='myGroup')."
    raise InvalidInput(f"`aks` must be a cluster, got {article} {kind}", hint=hint)
