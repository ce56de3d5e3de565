"""The Cluster object: the name and location of a cluster, and the connection to its Kubernetes API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aksgpu.azure import azure_arguments, resource_names
from aksgpu.azure.subscription import Azure
from aksgpu.common.arguments import shown
from aksgpu.common.frames import facts_html
from aksgpu.errors import InvalidInput

if TYPE_CHECKING:
    from aksgpu.kube.client import Kube

__all__ = ["Cluster", "azure_of", "check_azure_cluster", "from_resource"]


class Cluster:
    """A Kubernetes cluster. The functions of :mod:`aksgpu.cluster` return it.

    Attributes:
        name: name of the cluster; for a cluster of a kubeconfig, name of the context.
        resource_group: its resource group; empty if unknown.
        location: its Azure location; empty if unknown.
        azure: its subscription; None for a cluster of a kubeconfig.
        id: its Azure resource id; empty if unknown.
        kubernetes_version: version of its control plane when it was read; empty if unknown.
        access: who may reach its Kubernetes API (``apiServerAccessProfile``); empty for everybody.
    """

    def __init__(
        self,
        name: str,
        *,
        resource_group: str = "",
        location: str = "",
        azure: Azure | None = None,
        id: str = "",  # Azure's name for it
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
        self._kube = kube

    @property
    def has_azure(self) -> bool:
        """Whether Azure manages the cluster. A cluster of a kubeconfig has no node pools to manage."""
        return self.azure is not None

    @property
    def kube(self) -> Kube:
        """The cluster's Kubernetes API, connected on first use."""
        if self._kube is None:
            # Imported here because credentials imports this module.
            from aksgpu.cluster import credentials

            self._kube = credentials.connect(self)
        return self._kube

    def __repr__(self) -> str:
        where = f" in {self.resource_group} ({self.location})" if self.resource_group else ""
        return f"Cluster({self.name}{where})"

    def _repr_html_(self) -> str:
        facts = {
            "resource group": self.resource_group,
            "location": self.location,
            "Kubernetes": self.kubernetes_version,
            "reached through": "Azure Resource Manager" if self.azure else "a kubeconfig",
        }
        return facts_html(f"Cluster {self.name}", facts)


def azure_of(aks: Cluster) -> Azure:
    """Return the subscription of a cluster, after a check of the names that become parts of a path.

    Raises:
        InvalidInput: Azure does not manage the cluster, or a name is not valid.
    """
    if aks.azure is None:
        raise InvalidInput(
            f"`aks` must be a cluster of Azure, got {aks.name}, a cluster of a kubeconfig, "
            "which is not managed through Azure",
            hint="Change its nodes with kubectl, or with the tool that created it. capacity.nodes(aks) lists them.",
        )
    resource_names.check(resource_names.CLUSTER, aks.name, "aks.name")
    resource_names.check(resource_names.GROUP, aks.resource_group, "aks.resource_group")
    return aks.azure


def from_resource(azure: Azure, resource: Mapping[str, Any]) -> Cluster:
    """Return the object for a cluster as Resource Manager represents it."""
    properties = resource["properties"]
    version = properties.get("currentKubernetesVersion") or properties.get("kubernetesVersion") or ""
    return Cluster(
        str(resource["name"]),
        resource_group=str(resource["id"]).split("/")[4],
        location=str(resource["location"]),
        azure=azure,
        id=str(resource["id"]),
        kubernetes_version=str(version),
        access=properties.get("apiServerAccessProfile"),
    )


def check_azure_cluster(value: object) -> None:
    """Raise InvalidInput unless the argument ``aks`` is a :class:`Cluster`, which the functions for Azure need."""
    if isinstance(value, Cluster):
        return
    hint = "Get it with aks = cluster.get(azure, name, resource_group=...)."
    raise InvalidInput(f"`aks` must be a Cluster, got {shown(value)}", hint=hint)


azure_arguments.CHECKS["aks"] = check_azure_cluster
