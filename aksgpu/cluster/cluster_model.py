"""The Cluster object: a name, where it is, and its Kubernetes API when that is wanted. Changes nothing anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aksgpu.azure import azure_arguments, resource_names
from aksgpu.azure.subscription import Azure
from aksgpu.common.frames import facts_html
from aksgpu.errors import InvalidInput

if TYPE_CHECKING:
    from aksgpu.kube.client import Kube


class Cluster:
    """A Kubernetes cluster. Made by :mod:`aksgpu.cluster`'s functions; other rooms need only its ``kube``.

    Attributes:
        name: name of the cluster; of the kubeconfig's context for one that was not made through Azure.
        resource_group: its resource group; empty when not known.
        location: its Azure location; empty when not known.
        azure: the subscription; None when it was not made through Azure.
        id: its Azure resource id; empty when not known.
        kubernetes_version: of its control plane when it was read; empty when not known.
        access: who may reach its Kubernetes API (``apiServerAccessProfile``); empty for everybody.
        life: how long after its creation this process deletes it, such as ``2 h``; empty for never.
        costs: what the nodes of each pool cost in US dollars an hour when they were last read through this object; None
            when not known.
    """

    def __init__(
        self,
        name: str,
        *,
        resource_group: str = "",
        location: str = "",
        azure: Azure | None = None,
        id: str = "",  # Azure's own word for it
        kubernetes_version: str = "",
        access: Mapping[str, Any] | None = None,
        kube: Kube | None = None,
    ) -> None:
        self.name = name
        self.resource_group = resource_group
        self.location = location
        self.azure = azure
        self.id = id
        self.kubernetes_version = kubernetes_version
        self.access: Mapping[str, Any] = access or {}
        self.life = ""
        self.costs: dict[str, float | None] = {}
        self._kube = kube

    @property
    def has_azure(self) -> bool:
        """Whether Azure manages it. False for a cluster from a kubeconfig, which ``az`` and node pools do not reach."""
        return self.azure is not None

    @property
    def kube(self) -> Kube:
        """Its Kubernetes API; connected when first used."""
        if self._kube is None:
            from aksgpu.cluster import credentials

            self._kube = credentials.connect(self)
        return self._kube

    @property
    def usd_per_hour(self) -> float | None:
        """What all its nodes cost in US dollars an hour, as far as prices are known; None when none is."""
        known = [cost for cost in self.costs.values() if cost is not None]
        return round(sum(known), 4) if known else None

    def _cost(self) -> str:
        if self.usd_per_hour is None:
            return "price unknown"
        least = "at least " if None in self.costs.values() else ""
        return f"{least}USD {self.usd_per_hour:.3f} an hour"

    def __repr__(self) -> str:
        where = f" in {self.resource_group} ({self.location})" if self.resource_group else ""
        costs = f", {self._cost()}" if self.azure and self.usd_per_hour is not None else ""
        return f"Cluster({self.name}{where}{costs}{f', deleted after {self.life}' if self.life else ''})"

    def _repr_html_(self) -> str:
        facts = {
            "resource group": self.resource_group,
            "location": self.location,
            "Kubernetes": self.kubernetes_version,
            "reached through": "Azure Resource Manager" if self.azure else "a kubeconfig",
            "costs": self._cost() if self.azure else "",
            **{
                f"of which {pool}": "price unknown" if cost is None else f"USD {cost:.3f} an hour"
                for pool, cost in sorted(self.costs.items())
            },
            "deleted after": f"{self.life}, by this process; later, cluster.leftovers shows it" if self.life else "",
        }
        return facts_html(f"Cluster {self.name}", facts)


def azure_of(aks: Cluster) -> Azure:
    """The cluster's subscription, for a cluster whose names may become parts of a path.

    Raises:
        InvalidInput: it was not made through Azure, or its names are not valid.
    """
    if aks.azure is None:
        raise InvalidInput(
            f"cluster {aks.name} is not managed through Azure: it comes from a kubeconfig",
            hint="Change its nodes where it was made, or with kubectl; capacity.nodes(aks) lists them.",
        )
    resource_names.check(resource_names.CLUSTER, aks.name, "aks.name")
    resource_names.check(resource_names.GROUP, aks.resource_group, "aks.resource_group")
    return aks.azure


def cluster_of(azure: Azure, shown: Mapping[str, Any]) -> Cluster:
    """The object for a cluster that Resource Manager shows."""
    properties = shown["properties"]
    return Cluster(
        str(shown["name"]),
        resource_group=str(shown["id"]).split("/")[4],
        location=str(shown["location"]),
        azure=azure,
        id=str(shown["id"]),
        kubernetes_version=str(properties.get("currentKubernetesVersion") or properties.get("kubernetesVersion") or ""),
        access=properties.get("apiServerAccessProfile"),
    )


def check_cluster(value: object) -> None:
    """Raise InvalidInput unless the argument ``aks`` is a cluster."""
    if isinstance(value, Cluster):
        return
    hint = "Get it with aks = cluster.get(azure, name, resource_group)."
    raise InvalidInput(f"`aks` must be a Cluster, got {resource_names.shown(value)}", hint=hint)


azure_arguments.CHECKS["aks"] = check_cluster
