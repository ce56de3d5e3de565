"""Health, version, discovery (aggregated and legacy) and OpenAPI v2 and v3.

The OpenAPI documents contain the published schemas, for ``kubectl explain`` and ``kubectl apply``. Their paths contain
only what kubectl looks for: the kind, and the ``fieldValidation`` parameter, which shows that the server validates.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

import orjson
from aiohttp import web

from aksgpu.local.api import openapi_v2
from aksgpu.local.api.responses import AGGREGATED_DISCOVERY, JSON, NO_CACHE, json_response, negotiate
from aksgpu.local.api.schema import REF, definitions
from aksgpu.local.kinds import KINDS, Kind, Subresource
from aksgpu.local.objects import Object

_PATHS: dict[str, list[Kind]] = {}
"""Kinds by the path of their group and version: ``api/v1`` or ``apis/GROUP/VERSION``."""
for _kind in KINDS:
    _PATHS.setdefault(f"{'apis' if _kind.group else 'api'}/{_kind.api_version}", []).append(_kind)


def serve(request: web.Request, path: str, version: str) -> web.Response:
    """Handle a request that is not about a resource.

    Args:
        request: The request.
        path: The path of the URL.
        version: The Kubernetes version that the server reports.
    """
    served_path = path.strip("/")
    parts = served_path.split("/") if request.method == "GET" else []
    document: Object | None = None
    match parts:
        case ["healthz" | "livez" | "readyz", *_]:
            return web.Response(text="ok", headers=NO_CACHE)
        case ["version"]:
            document = _version(version)
        case ["openapi", "v2"]:
            return _openapi_v2(request, version)
        case ["openapi", "v3"]:
            urls = {each: {"serverRelativeURL": f"/openapi/v3/{each}?hash={_openapi(each)[1]}"} for each in _PATHS}
            document = {"paths": urls}
        case ["openapi", "v3", *rest] if "/".join(rest) in _PATHS:
            # A URL with a hash always has the same content.
            headers = {"Cache-Control": "public, immutable"} if "hash" in request.query else {}
            return json_response(_openapi("/".join(rest))[0], headers=headers)
        case ["api" | "apis" as root] if negotiate(request).shape == AGGREGATED_DISCOVERY:
            media = f"{JSON};g=apidiscovery.k8s.io;v=v2;as={AGGREGATED_DISCOVERY}"
            return json_response(_aggregated(root), headers={"Content-Type": media, "Cache-Control": "public"})
        case ["api"]:
            addresses = [{"clientCIDR": "0.0.0.0/0", "serverAddress": request.host}]
            document = {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": addresses}
        case ["apis"]:
            groups = [_group(kinds[0]) for kinds in _PATHS.values() if kinds[0].group]
            document = {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
        case ["apis", group] if group:
            groups = [_group(kinds[0]) for kinds in _PATHS.values() if kinds[0].group == group]
            document = {"kind": "APIGroup", "apiVersion": "v1", **groups[0]} if groups else None
        case ["apis", "apiextensions.k8s.io", "v1", "customresourcedefinitions"] if "watch" not in request.query:
            # kubectl looks whether a kind that is not served is a custom one. There are none.
            metadata = {"resourceVersion": "1"}
            group_version = "apiextensions.k8s.io/v1"
            document = {"kind": "CustomResourceDefinitionList", "apiVersion": group_version, "metadata": metadata}
            document["items"] = []
        case ["api" | "apis", *_] if served_path in _PATHS:
            document = _resources(_PATHS[served_path])
    if document is not None:
        return json_response(document)
    headers = {**NO_CACHE, "X-Content-Type-Options": "nosniff"}
    return web.Response(text="404 page not found\n", status=404, headers=headers)


def _version(version: str) -> Object:
    major, minor, _ = version.split(".", 2)
    return {
        "major": major,
        "minor": minor,
        "gitVersion": f"v{version}",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "",
        "platform": "linux/amd64",
    }


def _names(kind: Kind) -> Object:
    names = {"shortNames": kind.short_names, "categories": kind.categories}
    return {key: value for key, value in names.items() if value}


def _aggregated(root: str) -> Object:
    """Return the aggregated discovery document of the core group (``api``) or of all other groups (``apis``)."""
    items: list[Object] = []
    for path, kinds in _PATHS.items():
        if path.startswith(f"{root}/"):
            resources = [_resource(kind) for kind in kinds]
            versions = [{"version": kinds[0].version, "resources": resources, "freshness": "Current"}]
            name = {"name": kinds[0].group} if kinds[0].group else {}
            items.append({"metadata": {**name, "creationTimestamp": None}, "versions": versions})
    return {"kind": AGGREGATED_DISCOVERY, "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}


def _resource(kind: Kind) -> Object:
    # An empty group and version mean those of the resource.
    own = {"group": "", "version": ""}
    subresources = [
        {
            "subresource": name,
            "responseKind": {**own, **_other_group_version(kind, part), "kind": part.kind},
            "verbs": part.verbs,
        }
        for name, part in sorted(kind.subresources.items())
    ]
    resource = {
        "resource": kind.plural,
        "responseKind": {**own, "kind": kind.kind},
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.kind.lower(),
        "verbs": kind.verbs,
        **_names(kind),
    }
    if subresources:
        resource["subresources"] = subresources
    return resource


def _other_group_version(kind: Kind, part: Subresource) -> Object:
    """Return the group and version of a subresource's kind if they differ from those of the resource."""
    return {} if part.api_version == kind.api_version else {"group": part.group, "version": part.version}


def _group(kind: Kind) -> Object:
    version = {"groupVersion": kind.api_version, "version": kind.version}
    return {"name": kind.group, "versions": [version], "preferredVersion": version}


def _resources(kinds: list[Kind]) -> Object:
    """Return the resource list of ``/api/v1`` or ``/apis/GROUP/VERSION``."""
    resources: list[Object] = []
    for kind in kinds:
        row = {"name": kind.plural, "singularName": kind.kind.lower(), "namespaced": kind.namespaced, "kind": kind.kind}
        resources.append({**row, "verbs": kind.verbs, **_names(kind)})
        for name, part in sorted(kind.subresources.items()):
            row |= {"name": f"{kind.plural}/{name}", "singularName": "", "kind": part.kind}
            resources.append({**row, "verbs": part.verbs, **_other_group_version(kind, part)})
    head = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": kinds[0].api_version}
    return {**head, "resources": resources}


def _collection_path(path: str, kind: Kind) -> str:
    """Return the path of the objects of a kind whose group and version have this path."""
    return f"/{path}/namespaces/{{namespace}}/{kind.plural}" if kind.namespaced else f"/{path}/{kind.plural}"


def _openapi_v2(request: web.Request, version: str) -> web.Response:
    """Return the OpenAPI v2 document in the first form that the client accepts."""
    media = [clause.partition(";")[0].strip() for clause in request.headers.get("Accept", "").split(",")]
    paths = {f"{_collection_path(path, kind)}/{{name}}": kind for path, kinds in _PATHS.items() for kind in kinds}
    if openapi_v2.PROTOBUF in media:
        headers = {**NO_CACHE, "Content-Type": openapi_v2.PROTOBUF_RESPONSE}
        return web.Response(body=openapi_v2.protobuf(paths, version), headers=headers)
    return json_response(openapi_v2.document(paths, definitions(), version))


@cache
def _openapi(path: str) -> tuple[bytes, str]:
    """Return the OpenAPI document of ``api/v1`` or ``apis/GROUP/VERSION``, and its hash."""
    schemas: Object = {}
    names = [kind.definition for kind in _PATHS[path]]
    paths = dict[str, Any]()
    while names:
        name = names.pop()
        if name in schemas or name not in definitions():
            continue
        schemas[name] = definitions()[name]
        references = orjson.dumps(schemas[name]).decode().split(REF)[1:]
        names += [reference.split('"')[0] for reference in references]
    parameters = [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}]
    for kind in _PATHS[path]:
        identity = {"group": kind.group, "kind": kind.kind, "version": kind.version}
        operation = {"x-kubernetes-group-version-kind": identity, "parameters": parameters, "responses": {}}
        collection = _collection_path(path, kind)
        paths[collection] = {"post": operation}
        paths[f"{collection}/{{name}}"] = {"patch": operation}
    info = {"title": "Kubernetes", "version": "unversioned"}
    components = {"schemas": schemas}
    data = orjson.dumps({"openapi": "3.0.0", "info": info, "paths": paths, "components": components})
    return data, hashlib.sha512(data).hexdigest().upper()
