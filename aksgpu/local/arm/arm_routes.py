"""The routes of Resource Manager: method, path, handler, and the schema of the body in ``fields.yaml``.

Azure's paths are case-insensitive. A placeholder such as ``{name}`` matches one segment and becomes a key of
``Call.path``.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from urllib.parse import unquote

from aksgpu.local.arm import agent_pools, catalogue, managed_clusters, operation_results, resource_groups
from aksgpu.local.arm.context import Answer, Call, Context

Handler = Callable[[Context, Call], Answer | Awaitable[Answer]]
Route = tuple[str, str, Handler, str]

_SUBSCRIPTION = "/subscriptions/{subscription}"
_GROUP = _SUBSCRIPTION + "/resourcegroups/{group}"
_PROVIDER = "/providers/Microsoft.ContainerService"
_CLUSTERS = _GROUP + _PROVIDER + "/managedClusters"
_CLUSTER = _CLUSTERS + "/{cluster}"
_POOL = _CLUSTER + "/agentPools/{pool}"
_LOCATION = _SUBSCRIPTION + _PROVIDER + "/locations/{location}"

ROUTES: tuple[Route, ...] = (
    ("GET", "/subscriptions", resource_groups.list_subscriptions, ""),
    ("GET", _SUBSCRIPTION, resource_groups.get_subscription, ""),
    ("GET", _SUBSCRIPTION + "/resourcegroups", resource_groups.list_all, ""),
    ("PUT", _GROUP, resource_groups.put, "tags"),
    ("GET", _GROUP, resource_groups.get, ""),
    ("HEAD", _GROUP, resource_groups.head, ""),
    ("PATCH", _GROUP, resource_groups.patch, "tags"),
    ("DELETE", _GROUP, resource_groups.delete, ""),
    ("GET", _GROUP + "/resources", resource_groups.list_resources, ""),
    ("GET", _SUBSCRIPTION + _PROVIDER + "/managedClusters", managed_clusters.list_all, ""),
    ("GET", _CLUSTERS, managed_clusters.list_all, ""),
    ("PUT", _CLUSTER, managed_clusters.put, "cluster"),
    ("GET", _CLUSTER, managed_clusters.get, ""),
    ("PATCH", _CLUSTER, managed_clusters.patch, "tags"),
    ("DELETE", _CLUSTER, managed_clusters.delete, ""),
    ("POST", _CLUSTER + "/stop", managed_clusters.stop, ""),
    ("POST", _CLUSTER + "/start", managed_clusters.start, ""),
    ("POST", _CLUSTER + "/abort", managed_clusters.abort, ""),
    ("POST", _CLUSTER + "/listClusterUserCredential", managed_clusters.credential("clusterUser"), ""),
    ("POST", _CLUSTER + "/listClusterAdminCredential", managed_clusters.credential("clusterAdmin"), ""),
    ("GET", _CLUSTER + "/agentPools", agent_pools.list_all, ""),
    ("PUT", _POOL, agent_pools.put, "pool"),
    ("GET", _POOL, agent_pools.get, ""),
    ("DELETE", _POOL, agent_pools.delete, ""),
    ("POST", _POOL + "/abort", managed_clusters.abort, ""),
    ("POST", _POOL + "/deleteMachines", agent_pools.delete_machines, "machines"),
    ("POST", _POOL + "/upgradeNodeImageVersion", agent_pools.upgrade, ""),
    ("GET", _POOL + "/machines", agent_pools.list_machines, ""),
    ("GET", _POOL + "/machines/{machine}", agent_pools.get_machine, ""),
    ("GET", _LOCATION + "/operations/{operation}", operation_results.get_status, ""),
    ("GET", _LOCATION + "/operationresults/{operation}", operation_results.get_result, ""),
    ("GET", _LOCATION + "/kubernetesVersions", catalogue.list_versions, ""),
    ("GET", _SUBSCRIPTION + "/providers/{namespace}", catalogue.get_provider, ""),
    ("POST", _SUBSCRIPTION + "/providers/{namespace}/register", catalogue.get_provider, ""),
    ("GET", _SUBSCRIPTION + "/providers/Microsoft.Compute/skus", catalogue.list_skus, ""),
    ("GET", _SUBSCRIPTION + "/providers/Microsoft.Compute/locations/{location}/usages", catalogue.list_usages, ""),
    ("GET", "/metadata/endpoints", catalogue.get_metadata, ""),
    ("GET", "/api/retail/prices", catalogue.list_prices, ""),
)


def _compile(path: str) -> re.Pattern[str]:
    pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path.replace(".", r"\."))
    return re.compile(pattern, re.IGNORECASE)


_PATTERNS = tuple((route, _compile(route[1])) for route in ROUTES)


def find_route(method: str, raw_path: str) -> tuple[Route | None, dict[str, str], list[str]]:
    """Find the route of a request.

    Args:
        method: the HTTP method.
        raw_path: the path, still percent-encoded, so that an encoded slash stays within its segment.

    Returns:
        The route or None, the values of the placeholders, and the methods that the path supports if not this one.
    """
    allowed: list[str] = []
    for route, pattern in _PATTERNS:
        match = pattern.fullmatch(raw_path.rstrip("/"))
        if match is None:
            continue
        if route[0] == method:
            return route, {name: unquote(value) for name, value in match.groupdict().items()}, []
        allowed.append(route[0])
    return None, {}, allowed
