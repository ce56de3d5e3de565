"""Kubeconfig files: a cluster's address on this machine, the laptop's certificate authority, and the login.

The login is a client certificate and a bearer token, or on clusters with Entra ID the ``kubelogin`` program that
fetches a token, as on AKS. The laptop has no Entra ID. Clients always receive its own Resource Manager token, which
clusters accept as an Entra ID token.
"""

from __future__ import annotations

import base64
from ipaddress import ip_address, ip_network

import yaml

from aksgpu.local import tls
from aksgpu.local.arm import reference_data
from aksgpu.local.arm.arm_errors import refuse_if
from aksgpu.local.arm.arm_store import Document
from aksgpu.local.arm.context import Context

SERVER_ID = "6dae42f8-4368-4678-94ff-3960e28e3630"
"""The Entra ID application of the API servers of all AKS clusters."""
CLIENT_ID = "80faf920-1908-4b52-b5ef-a8e7bedfc67a"
"""The Entra ID application of kubectl."""


def uses_entra(cluster: Document) -> bool:
    """Return whether users log in to the cluster with Entra ID."""
    return bool((cluster["properties"].get("aadProfile") or {}).get("managed"))


def allows_address(cluster: Document, address: str) -> bool:
    """Return whether the cluster's API server accepts connections from this IP address."""
    access = cluster["properties"].get("apiServerAccessProfile") or {}
    if access.get("enablePrivateCluster"):
        return False
    ranges = access.get("authorizedIPRanges") or []
    return not ranges or any(ip_address(address) in ip_network(text, strict=False) for text in ranges)


def _user(context: Context, cluster: Document, credential: str, style: str) -> Document:
    if credential == "clusterAdmin" or not uses_entra(cluster):
        certificate, key = tls.client_certificate(context.ca_file.parent, cluster["id"])
        return {
            "client-certificate-data": base64.b64encode(certificate).decode(),
            "client-key-data": base64.b64encode(key).decode(),
            "token": cluster["token"],
        }
    tenant = cluster["properties"]["aadProfile"].get("tenantID") or reference_data.TENANT
    cloud = {"environment": "AzurePublicCloud"}
    ids = {"client-id": CLIENT_ID, "tenant-id": tenant}
    if style == "azure":
        return {"auth-provider": {"name": "azure", "config": cloud | {"apiserver-id": SERVER_ID} | ids}}
    options = cloud | {"server-id": SERVER_ID} | ids
    kubelogin: Document = reference_data.table("defaults")["kubelogin"]
    args = list(kubelogin["args"])
    for name, value in options.items():
        args += [f"--{name}", value]
    return {"exec": kubelogin | {"args": args}}


def kubeconfig(context: Context, base_url: str, cluster: Document, credential: str, style: str = "exec") -> str:
    """Return the kubeconfig in base64. Its entries have the names that AKS gives them.

    Args:
        context: the subscription.
        base_url: the server's address, without a slash at the end.
        cluster: the cluster.
        credential: ``clusterUser`` or ``clusterAdmin``.
        style: how a user logs in with Entra ID: ``exec`` for kubelogin, ``azure`` for the old auth provider.
    """
    refuse_if(style not in ("exec", "azure"), "format", given=style)
    name = cluster["name"]
    user = f"{credential}_{cluster['group']}_{cluster['name']}"
    authority = base64.b64encode(context.ca_file.read_bytes()).decode()
    server = {"certificate-authority-data": authority, "server": f"{base_url}/k8s/clusters/{cluster['id']}"}
    config: Document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": server}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": user}}],
        "current-context": name,
        "preferences": {},
        "users": [{"name": user, "user": _user(context, cluster, credential, style)}],
    }
    return base64.b64encode(yaml.safe_dump(config, sort_keys=False).encode()).decode()
