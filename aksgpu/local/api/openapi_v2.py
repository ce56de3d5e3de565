"""The OpenAPI v2 document, as JSON and as the protobuf that kubectl reads.

kubectl asks for it before it reports that a kind is not served, and up to 1.28 before each ``create`` and ``apply``.
It looks for the ``fieldValidation`` parameter, which tells it that the server validates. The protobuf contains no more
than that. The JSON has the published schemas too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from aksgpu.local.api.schema import REF
from aksgpu.local.kinds import Kind

PROTOBUF = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
"""The media type that clients accept."""
PROTOBUF_RESPONSE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
"""The media type of the response. The other one has a character that Go's parser refuses."""
_TITLE = "Kubernetes"
_PARAMETER = {"name": "fieldValidation", "in": "query", "type": "string", "uniqueItems": True}
_IDENTITY = "x-kubernetes-group-version-kind"
_LENGTH_DELIMITED = 2
"""The wire type of texts and messages in protobuf."""


def document(paths: Mapping[str, Kind], schemas: Mapping[str, Any], version: str) -> bytes:
    """Return the document as JSON.

    Args:
        paths: the kinds by the path of one object.
        schemas: the published schemas by name.
        version: the Kubernetes version that the server reports.
    """
    operations = {}
    for path, kind in paths.items():
        operation = {_IDENTITY: _identity(kind), "parameters": [_PARAMETER], "responses": {}}
        operations[path] = {"patch": operation}
    info = {"title": _TITLE, "version": f"v{version}"}
    whole = {"swagger": "2.0", "info": info, "paths": operations, "definitions": schemas}
    return orjson.dumps(whole).replace(REF.encode(), b"#/definitions/")


def protobuf(paths: Mapping[str, Kind], version: str) -> bytes:
    """Return the paths of the document in protobuf, with the numbers of the fields in gnostic's OpenAPIv2.proto."""
    info = _field(1, _TITLE) + _field(2, f"v{version}")
    items = b"".join(_field(2, _field(1, path) + _field(2, _path_item(kind))) for path, kind in paths.items())
    return _field(1, "2.0") + _field(2, info) + _field(8, items) + _field(9, b"")


def _identity(kind: Kind) -> dict[str, str]:
    return {"group": kind.group, "kind": kind.kind, "version": kind.version}


def _path_item(kind: Kind) -> bytes:
    """Return a PathItem with the operation PATCH."""
    query = _field(2, "query") + _field(4, "fieldValidation") + _field(6, "string")
    parameters_item = _field(1, _field(2, _field(3, query)))
    extension = _field(1, _IDENTITY) + _field(2, _field(2, orjson.dumps(_identity(kind))))
    return _field(8, _field(8, parameters_item) + _field(13, extension))


def _field(number: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
