"""OpenAPI v3, as far as kubectl reads it: schemas for ``explain`` and ``apply``, paths that say who validates.

The schemas are the published ones. Paths carry only what kubectl looks for: the kind they are about, and the
``fieldValidation`` parameter, by which it leaves validation to the server.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

import orjson

from aksgpu.local.api.kinds import KINDS, Kind
from aksgpu.local.api.routes import GROUP_VERSIONS
from aksgpu.local.api.schema import REF, definitions

Object = dict[str, Any]

_VERBS = {"post": "create", "put": "update", "patch": "patch", "delete": "delete"}


def root() -> Object:
    """The answer of ``/openapi/v3``: where each group's document is, and its hash."""
    paths = {}
    for group, version in GROUP_VERSIONS:
        path = f"apis/{group}/{version}" if group else f"api/{version}"
        paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={_hash(path)}"}
    return {"paths": paths}


@cache
def _hash(path: str) -> str:
    return hashlib.sha512(document(path) or b"").hexdigest().upper()


@cache
def document(path: str) -> bytes | None:
    """The document of ``api/v1`` or ``apis/GROUP/VERSION``, or None."""
    group_version = {f"apis/{g}/{v}" if g else f"api/{v}": (g, v) for g, v in GROUP_VERSIONS}.get(path)
    if group_version is None:
        return None
    kinds = [kind for kind in KINDS if (kind.group, kind.version) == group_version]
    paths: Object = {}
    for kind in kinds:
        paths |= _paths(kind)
    return orjson.dumps(
        {
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": "unversioned"},
            "paths": paths,
            "components": {"schemas": _closure([kind.definition for kind in kinds])},
        }
    )


def _closure(names: list[str]) -> Object:
    found: Object = {}
    while names:
        name = names.pop()
        if name not in found and name in definitions():
            found[name] = definitions()[name]
            names += [part.split('"')[0] for part in orjson.dumps(found[name]).decode().split(REF)[1:]]
    return dict(sorted(found.items()))


def _paths(kind: Kind) -> Object:
    base = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    collection = f"{base}/namespaces/{{namespace}}/{kind.plural}" if kind.namespaced else f"{base}/{kind.plural}"
    on_collection, on_object = {"get": _operation(kind, "list")}, {"get": _operation(kind, "get")}
    for method, verb in _VERBS.items():
        if verb in kind.verbs:
            (on_collection if method == "post" else on_object)[method] = _operation(kind, method)
    if "get" not in kind.verbs:
        return {collection: {"post": on_collection["post"]}}
    return {collection: on_collection, f"{collection}/{{name}}": on_object}


def _operation(kind: Kind, action: str) -> Object:
    schema = {"$ref": REF + kind.definition}
    operation: Object = {
        "description": f"{action} {kind.kind}",
        "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": schema}}}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": {"group": kind.group, "kind": kind.kind, "version": kind.version},
    }
    if action in ("post", "put", "patch"):
        names = ("dryRun", "fieldManager", "fieldValidation")
        operation["parameters"] = [
            {"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}} for name in names
        ]
        body = {"schema": schema} if action != "patch" else {"schema": {"type": "object"}}
        operation["requestBody"] = {"required": True, "content": {"*/*": body}}
    return operation
