"""A cluster's kubeconfig: its address on this machine, the laptop's certificate authority, and how to log in.

That is a token, or on clusters with Entra ID the program that fetches one, as AKS has it. The laptop has no Entra ID:
its own Resource Manager token is what a client gets whatever it logs in for, and so it is the Entra token as well.
"""

from __future__ import annotations

import base64
from ipaddress import ip_address, ip_network

import yaml

from aksgpu.local.arm import reference_data
from aksgpu.local.arm.arm_errors import refuse_if
from aksgpu.local.arm.arm_store import Document
from aksgpu.local.arm.context import Context

SERVER_ID = "6dae42f8-4368-4678-94ff-3960e28e3630"
"""The Entra ID application that stands for the API servers of all AKS clusters."""
CLIENT_ID = "80faf920-1908-4b52-b5ef-a8e7bedfc67a"
"""The Entra ID application that stands for kubectl."""


def uses_entra(cluster: Document) -> bool:
    """Whether people log in to the cluster with Entra ID."""
    return bool((cluster["properties"].get("aadProfile") or {}).get("managed"))


def answers(cluster: Document, address: str) -> bool:
    """Whether the cluster's API server is for callers at this address."""
    access = cluster["properties"].get("apiServerAccessProfile") or {}
    ranges = access.get("authorizedIPRanges") or []
    inside = not ranges or any(ip_address(address) in ip_network(text, strict=False) for text in ranges)
    return inside and not access.get("enablePrivateCluster")


def _user(cluster: Document, credential: str, style: str) -> Document:
    if credential == "clusterAdmin" or not uses_entra(cluster):
        return {"token": cluster["token"]}
    tenant = cluster["properties"]["aadProfile"].get("tenantID") or reference_data.TENANT
    cloud = {"environment": "AzurePublicCloud"}
    ids = {"client-id": CLIENT_ID, "tenant-id": tenant}
    if style == "azure":
        return {"auth-provider": {"name": "azure", "config": cloud | {"apiserver-id": SERVER_ID} | ids}}
    options = cloud | {"server-id": SERVER_ID} | ids
    args = [text for name, value in options.items() for text in (f"--{name}", value)]
    login: Document = reference_data.table("defaults")["kubelogin"]
    return {"exec": login | {"args": [*login["args"], *args]}}


def kubeconfig(context: Context, base_url: str, cluster: Document, credential: str, style: str = "exec") -> str:
    """The kubeconfig in base64, named as AKS names its parts.

    Args:
        context: the subscription.
        base_url: where this machine serves, without a slash at the end.
        cluster: the cluster.
        credential: ``clusterUser`` or ``clusterAdmin``.
        style: how a user logs in with Entra ID: ``exec`` for kubelogin, ``azure`` for the old auth provider.
    """
    refuse_if(style not in ("exec", "azure"), "format", given=style)
    name = cluster["name"]
    user = f"{credential}_{cluster['group']}_{cluster['name']}"
    where = name if credential == "clusterUser" else f"{name}-admin"
    authority = base64.b64encode(context.ca_file.read_bytes()).decode()
    server = {"certificate-authority-data": authority, "server": f"{base_url}/k8s/clusters/{cluster['id']}"}
    config: Document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": server}],
        "contexts": [{"name": where, "context": {"cluster": name, "user": user}}],
        "current-context": where,
        "preferences": {},
        "users": [{"name": user, "user": _user(cluster, credential, style)}],
    }
    return base64.b64encode(yaml.safe_dump(config, sort_keys=False).encode()).decode()
