"""What the server serves, as clients ask for it first: aggregated discovery (v2) and the older lists of lists."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aksgpu.local.api.kinds import KINDS, Kind, Subresource
from aksgpu.local.api.routes import GROUP_VERSIONS

Object = dict[str, Any]
AGGREGATED = "APIGroupDiscoveryList"


def aggregated(core: bool, version: str) -> Object:
    """All resources of the core group, or of all named groups, in one answer."""
    groups = [gv for gv in GROUP_VERSIONS if (gv[0] == "") is core]
    items = [
        {
            "metadata": {"name": group, "creationTimestamp": None} if group else {"creationTimestamp": None},
            "versions": [
                {"version": v, "resources": [_resource(kind) for kind in _kinds(group, v)], "freshness": "Current"}
            ],
        }
        for group, v in groups
    ]
    return {"kind": AGGREGATED, "apiVersion": f"apidiscovery.k8s.io/{version}", "metadata": {}, "items": items}


def _kinds(group: str, version: str) -> list[Kind]:
    return [kind for kind in KINDS if (kind.group, kind.version) == (group, version)]


def _resource(kind: Kind) -> Object:
    result: Object = {
        "resource": kind.plural,
        "responseKind": {"group": "", "version": "", "kind": kind.kind},
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": list(kind.verbs),
    }
    if kind.short_names:
        result["shortNames"] = list(kind.short_names)
    if kind.categories:
        result["categories"] = list(kind.categories)
    if kind.subresources:
        result["subresources"] = [
            {"subresource": part.name, "responseKind": _response_kind(kind, part), "verbs": list(part.verbs)}
            for part in _ordered(kind)
        ]
    return result


def _response_kind(kind: Kind, part: Subresource) -> Object:
    """Group and version are empty where they are the resource's own."""
    own = (part.group, part.version) == (kind.group, kind.version)
    return {"group": "" if own else part.group, "version": "" if own else part.version, "kind": part.kind}


def _ordered(kind: Kind) -> Iterable[Subresource]:
    return (kind.subresources[name] for name in sorted(kind.subresources))


def api_versions(address: str) -> Object:
    """The answer of ``/api``."""
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": _addresses(address)}


def _addresses(address: str) -> list[Object]:
    return [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]


def api_groups() -> Object:
    """The answer of ``/apis``."""
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(gv) for gv in GROUP_VERSIONS if gv[0]]}


def _group(group_version: tuple[str, str]) -> Object:
    group, version = group_version
    each = {"groupVersion": f"{group}/{version}", "version": version}
    return {"name": group, "versions": [each], "preferredVersion": each}


def api_group(group: str) -> Object | None:
    """The answer of ``/apis/GROUP``, or None."""
    found = [gv for gv in GROUP_VERSIONS if gv[0] == group and group]
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(found[0])} if found else None


def api_resources(group: str, version: str) -> Object | None:
    """The answer of ``/api/v1`` or ``/apis/GROUP/VERSION``, or None."""
    kinds = _kinds(group, version)
    if not kinds:
        return None
    resources: list[Object] = []
    for kind in kinds:
        row: Object = {
            "name": kind.plural,
            "singularName": kind.singular,
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": list(kind.verbs),
        }
        if kind.short_names:
            row["shortNames"] = list(kind.short_names)
        if kind.categories:
            row["categories"] = list(kind.categories)
        resources.append(row)
        resources.extend(_part(kind, part) for part in _ordered(kind))
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": resources,
    }


def _part(kind: Kind, part: Subresource) -> Object:
    row: Object = {
        "name": f"{kind.plural}/{part.name}",
        "singularName": "",
        "namespaced": kind.namespaced,
        "kind": part.kind,
        "verbs": list(part.verbs),
    }
    if (part.group, part.version) != (kind.group, kind.version):
        row |= {"group": part.group, "version": part.version}
    return row
