"""Documents of clusters and pools, and their representations in responses.

A document is made from a request and AKS' defaults.
"""

from __future__ import annotations

import copy
import hashlib
import json
import secrets
from typing import Any

from aksgpu.local import kubernetes_versions
from aksgpu.local.arm import reference_data
from aksgpu.local.arm.arm_store import Document
from aksgpu.local.arm.resource_ids import CLUSTER_TYPE, cluster_id, group_id

SPOT_KEY = "kubernetes.azure.com/scalesetpriority"


def new_cluster(group: str, name: str, location: str) -> Document:
    """Return the document of a new cluster with AKS' defaults."""
    node_group = f"MC_{group}_{name}_{location}"
    if len(node_group) > 80:  # AKS truncates the name here. The hash makes truncated names unique.
        node_group = f"{node_group[:71]}_{_guid(node_group.lower())[:8]}"
    return {
        "id": secrets.token_hex(6),
        "uid": secrets.token_hex(12),
        "token": secrets.token_urlsafe(32),
        "principal": _guid(group, name),
        "name": name,
        "group": group,
        "location": location,
        "serial": str(secrets.randbelow(90_000_000) + 10_000_000),
        "power": "Running",
        "state": "Creating",
        "operation": None,
        "error": None,
        "pools": {},
        "properties": copy.deepcopy(reference_data.table("defaults")["cluster"])
        | {"nodeResourceGroup": node_group, "kubernetesVersion": kubernetes_versions.DEFAULT_VERSION},
    }


def change_cluster(cluster: Document, given: Document) -> None:
    """Apply the body of a PUT to a cluster, without its pools. Secrets are not stored."""
    properties = _writable_fields("cluster", given.get("properties") or {})
    for profile, secret in reference_data.table("defaults")["secret"].items():
        properties.get(profile, {}).pop(secret, None)
    network = properties.pop("networkProfile", {})
    cluster["properties"]["networkProfile"] |= {key: value for key, value in network.items() if value is not None}
    cluster["properties"] |= properties
    for field in ("tags", "identity", "sku", "kind", "extendedLocation"):
        if given.get(field) is not None:
            cluster[field] = copy.deepcopy(given[field])


def _writable_fields(kind: str, properties: Document) -> Document:
    """Return the fields of a request that are set and that are not read-only."""
    read_only = reference_data.table("defaults")["read_only"][kind]
    return {
        key: copy.deepcopy(value)
        for key, value in properties.items()
        if key not in read_only and value not in (None, "")
    }


def new_pool(name: str, given: Document) -> Document:
    """Return the document of a new pool, made from a request and AKS' defaults."""
    pool: Document = {"name": name, "power": "Running", "state": "Creating", "error": None, "next": 0}
    pool["properties"] = copy.deepcopy(reference_data.table("defaults")["pool"])
    change_pool(pool, given)
    if pool["properties"]["scaleSetPriority"] == "Spot":
        _make_spot(pool["properties"])
    return pool


def change_pool(pool: Document, given: Document) -> None:
    """Apply the body of a PUT to a pool."""
    old_labels = pool["properties"].get("nodeLabels") or {}
    pool["properties"] |= _writable_fields("pool", given)
    if not pool["properties"]["enableAutoScaling"]:
        for limit in ("minCount", "maxCount"):
            pool["properties"].pop(limit, None)
    size = reference_data.sizes().get(str(pool["properties"].get("vmSize")).lower())
    if size is not None:
        pool["properties"]["vmSize"] = size.name
    removed = set(old_labels) - set(pool["properties"].get("nodeLabels") or {})
    pool["labelled"] = sorted({*pool.get("labelled", []), *removed})
    pool["power"] = (given.get("powerState") or {}).get("code") or pool["power"]


def _make_spot(properties: Document) -> None:
    """Set the fields that AKS adds to a spot pool."""
    properties.setdefault("spotMaxPrice", -1)
    properties.setdefault("scaleSetEvictionPolicy", "Delete")
    properties["nodeLabels"] = {SPOT_KEY: "spot"} | (properties.get("nodeLabels") or {})
    taint = f"{SPOT_KEY}=spot:NoSchedule"
    taints = properties.get("nodeTaints") or []
    properties["nodeTaints"] = taints if taint in taints else [*taints, taint]


def show_pool(cluster: Document, pool: Document) -> Document:
    """Return the representation of an agent pool."""
    return {
        "id": f"{cluster_id(cluster)}/agentPools/{pool['name']}",
        "name": pool["name"],
        "type": f"{CLUSTER_TYPE}/agentPools",
        "properties": _pool_properties(cluster, pool),
    }


def served_version(cluster: Document) -> str:
    """Return the Kubernetes version of a cluster's API server."""
    return kubernetes_versions.patch_version(cluster["properties"]["kubernetesVersion"])


def pool_version(cluster: Document, pool: Document) -> str:
    """Return the Kubernetes version of a pool's nodes: that of its cluster, unless the pool has another one."""
    own = pool["properties"].get("orchestratorVersion")
    return kubernetes_versions.patch_version(own) if own else served_version(cluster)


def show_cluster(cluster: Document) -> Document:
    """Return the representation of a managed cluster."""
    properties = copy.deepcopy(cluster["properties"])
    prefix = f"{properties.get('dnsPrefix') or properties.get('fqdnSubdomain')}-{cluster['serial']}"
    properties |= {
        "provisioningState": cluster["state"],
        "powerState": {"code": cluster["power"]},
        "currentKubernetesVersion": served_version(cluster),
        "fqdn": f"{prefix}.hcp.{cluster['location']}.azmk8s.io",
        "azurePortalFQDN": f"{prefix}.portal.hcp.{cluster['location']}.azmk8s.io",
        "agentPoolProfiles": [
            {"name": pool["name"], **_pool_properties(cluster, pool)} for pool in cluster["pools"].values()
        ],
        "maxAgentPools": 100,
        "resourceUID": cluster["uid"],
        "identityProfile": properties.get("identityProfile") or {"kubeletidentity": _kubelet_identity(cluster)},
        **_error_status(cluster),
    }
    shown: Document = {
        "id": cluster_id(cluster),
        "name": cluster["name"],
        "type": CLUSTER_TYPE,
        "location": cluster["location"],
        "sku": cluster.get("sku") or {"name": "Base", "tier": "Free"},
        "properties": properties,
    }
    if "tags" in cluster:
        shown["tags"] = cluster["tags"]
    if "identity" in cluster:
        shown["identity"] = _identity(cluster)
    return {**shown, "eTag": _etag(shown)}


def _pool_properties(cluster: Document, pool: Document) -> Document:
    version = pool_version(cluster, pool)
    shown = copy.deepcopy(pool["properties"]) | {
        "orchestratorVersion": pool["properties"].get("orchestratorVersion") or version,
        "currentOrchestratorVersion": version,
        "nodeImageVersion": reference_data.NODE_IMAGE,
        "powerState": {"code": "Stopped" if cluster["power"] == "Stopped" else pool["power"]},
        "provisioningState": pool["state"],
        **_error_status(pool),
    }
    if shown["scaleSetPriority"] == "Regular":
        del shown["scaleSetPriority"]
    return {"eTag": _etag(shown), **shown}


def _error_status(document: Document) -> Document:
    return {"status": {"provisioningError": document["error"]}} if document.get("error") else {}


def _identity(cluster: Document) -> Document:
    identity = copy.deepcopy(cluster["identity"])
    if identity.get("type") == "SystemAssigned":
        return {"type": "SystemAssigned", "principalId": cluster["principal"], "tenantId": reference_data.TENANT}
    for name in identity.get("userAssignedIdentities") or {}:
        ids = {"clientId": _guid(name, "client"), "principalId": _guid(name, "principal")}
        identity["userAssignedIdentities"][name] = ids
    return dict(identity)


def _kubelet_identity(cluster: Document) -> Document:
    group = cluster["properties"]["nodeResourceGroup"]
    name = f"{cluster['name']}-agentpool"
    return {
        "resourceId": f"{group_id(group)}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{name}",
        "clientId": _guid(group, name, "client"),
        "objectId": _guid(group, name, "object"),
    }


def _guid(*parts: str) -> str:
    digest = hashlib.sha256("/".join(parts).encode()).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}"


def _etag(shown: Any) -> str:
    return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()[:36]
