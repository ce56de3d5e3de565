"""Clusters and pools as documents: made from a request with AKS' defaults, and shown as AKS shows them."""

from __future__ import annotations

import copy
import hashlib
import json
import secrets
from typing import Any

from aksgpu.local.arm import reference_data
from aksgpu.local.arm.arm_store import Document
from aksgpu.local.arm.context import CLUSTER_TYPE, cluster_id, group_id

SPOT_KEY = "kubernetes.azure.com/scalesetpriority"


def new_cluster(group: str, name: str, location: str) -> Document:
    """A cluster's document before anybody said what it shall be."""
    machines = f"MC_{group}_{name}_{location}"
    if len(machines) > 80:  # where AKS cuts; names that differ behind the cut have to stay different
        machines = f"{machines[:71]}_{_guid(machines.lower())[:8]}"
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
        | {"nodeResourceGroup": machines, "kubernetesVersion": reference_data.KUBERNETES_VERSION},
    }


def change_cluster(cluster: Document, given: Document) -> None:
    """Take over what a PUT says of the cluster itself; secrets are not kept."""
    properties = _given("cluster", given.get("properties") or {})
    for profile, secret in reference_data.table("defaults")["secret"].items():
        properties.get(profile, {}).pop(secret, None)
    network = properties.pop("networkProfile", {})
    cluster["properties"]["networkProfile"] |= {key: value for key, value in network.items() if value is not None}
    cluster["properties"] |= properties
    for field in ("tags", "identity", "sku", "kind", "extendedLocation"):
        if given.get(field) is not None:
            cluster[field] = copy.deepcopy(given[field])


def _given(kind: str, properties: Document) -> Document:
    """What a request says of the fields that are a client's to say."""
    fixed = reference_data.table("defaults")["read_only"][kind]
    return {
        key: copy.deepcopy(value) for key, value in properties.items() if key not in fixed and value not in (None, "")
    }


def new_pool(name: str, given: Document) -> Document:
    """A pool's document."""
    pool: Document = {"name": name, "power": "Running", "state": "Creating", "error": None, "next": 0}
    pool["properties"] = copy.deepcopy(reference_data.table("defaults")["pool"])
    change_pool(pool, given)
    if pool["properties"]["scaleSetPriority"] == "Spot":
        _make_spot(pool["properties"])
    return pool


def change_pool(pool: Document, given: Document) -> None:
    """Take over what a PUT says of the pool."""
    before = pool["properties"].get("nodeLabels") or {}
    pool["properties"] |= _given("pool", given)
    if not pool["properties"]["enableAutoScaling"]:
        for limit in ("minCount", "maxCount"):
            pool["properties"].pop(limit, None)
    size = reference_data.sizes().get(str(pool["properties"].get("vmSize")).lower())
    if size is not None:
        pool["properties"]["vmSize"] = size.name
    gone = set(before) - set(pool["properties"].get("nodeLabels") or {})
    pool["labelled"] = sorted({*pool.get("labelled", []), *gone})
    pool["power"] = (given.get("powerState") or {}).get("code") or pool["power"]


def _make_spot(properties: Document) -> None:
    """What AKS adds to a spot pool by itself."""
    properties.setdefault("spotMaxPrice", -1)
    properties.setdefault("scaleSetEvictionPolicy", "Delete")
    properties["nodeLabels"] = {SPOT_KEY: "spot"} | (properties.get("nodeLabels") or {})
    taint = f"{SPOT_KEY}=spot:NoSchedule"
    taints = properties.get("nodeTaints") or []
    properties["nodeTaints"] = taints if taint in taints else [*taints, taint]


def show_pool(cluster: Document, pool: Document) -> Document:
    """An agent pool, as its own address shows it."""
    return {
        "id": f"{cluster_id(cluster)}/agentPools/{pool['name']}",
        "name": pool["name"],
        "type": f"{CLUSTER_TYPE}/agentPools",
        "properties": _pool_properties(cluster, pool),
    }


def show_cluster(cluster: Document) -> Document:
    """A managed cluster."""
    properties = copy.deepcopy(cluster["properties"])
    prefix = f"{properties.get('dnsPrefix') or properties.get('fqdnSubdomain')}-{cluster['serial']}"
    properties |= {
        "provisioningState": cluster["state"],
        "powerState": {"code": cluster["power"]},
        "currentKubernetesVersion": reference_data.KUBERNETES_VERSION,
        "fqdn": f"{prefix}.hcp.{cluster['location']}.azmk8s.io",
        "azurePortalFQDN": f"{prefix}.portal.hcp.{cluster['location']}.azmk8s.io",
        "agentPoolProfiles": [
            {"name": pool["name"], **_pool_properties(cluster, pool)} for pool in cluster["pools"].values()
        ],
        "maxAgentPools": 100,
        "resourceUID": cluster["uid"],
        "identityProfile": properties.get("identityProfile") or {"kubeletidentity": _kubelet_identity(cluster)},
        **_problem(cluster),
    }
    shown: Document = {
        "id": cluster_id(cluster),
        "name": cluster["name"],
        "type": CLUSTER_TYPE,
        "location": cluster["location"],
        **({"tags": cluster["tags"]} if "tags" in cluster else {}),
        **({"identity": _identity(cluster)} if "identity" in cluster else {}),
        "sku": cluster.get("sku") or {"name": "Base", "tier": "Free"},
        "properties": properties,
    }
    return {**shown, "eTag": _etag(shown)}


def _pool_properties(cluster: Document, pool: Document) -> Document:
    shown = copy.deepcopy(pool["properties"]) | {
        "orchestratorVersion": pool["properties"].get("orchestratorVersion") or reference_data.KUBERNETES_VERSION,
        "currentOrchestratorVersion": reference_data.KUBERNETES_VERSION,
        "nodeImageVersion": reference_data.NODE_IMAGE,
        "powerState": {"code": "Stopped" if cluster["power"] == "Stopped" else pool["power"]},
        "provisioningState": pool["state"],
        **_problem(pool),
    }
    if shown["scaleSetPriority"] == "Regular":
        del shown["scaleSetPriority"]
    return {"eTag": _etag(shown), **shown}


def _problem(document: Document) -> Document:
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
