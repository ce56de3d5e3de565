"""The first argument of the calls that need a cluster, checked before anything is sent."""

from __future__ import annotations

from aksgpu._numbers import shown
from aksgpu.errors import InvalidInput
from aksgpu.kube import Kube


def check_cluster(value: object) -> None:
    """The argument ``aks`` must be a cluster: an object with a name and a Kubernetes API.

    Raises:
        InvalidInput: says what was given, and how to get a cluster from it.
    """
    if isinstance(value, Kube):
        raise InvalidInput(
            "`aks` must be a cluster, got its Kubernetes API",
            hint="Pass the cluster itself: aks rather than aks.kube.",
        )
    # A property must not run here: it may read credentials, and an error of its own would be hidden.
    if hasattr(type(value), "kube") or isinstance(getattr(value, "__dict__", {}).get("kube"), Kube):
        return
    raise InvalidInput(
        f"`aks` must be a cluster, got {shown(value)}",
        hint='Get it with aks = cluster.get(azure, name, resource_group) or cluster.from_kubeconfig("~/.kube/config").',
    )
