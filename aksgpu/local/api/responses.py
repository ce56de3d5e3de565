"""Responses: objects, lists, tables and errors as JSON, in the form that the Accept header asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson
from aiohttp import web

from aksgpu.local.api.store import Entry, Event
from aksgpu.local.api.tables import META_VERSION, partial_metadata, table
from aksgpu.local.kinds import Kind
from aksgpu.local.objects import Object
from aksgpu.local.status_error import StatusError, bad_request

JSON = "application/json"
AGGREGATED_DISCOVERY = "APIGroupDiscoveryList"
NO_CACHE = {"Cache-Control": "no-cache, private"}
_CONVERSIONS = {
    "Table": "v1",
    "PartialObjectMetadata": "v1",
    "PartialObjectMetadataList": "v1",
    AGGREGATED_DISCOVERY: "v2",
}
"""The API version of each kind that a response can be converted to."""


class ResponseFormat(NamedTuple):
    """The format that a response is converted to."""

    shape: str = ""
    """The kind to convert to, such as ``Table``; empty for the object itself."""
    include: str = "Metadata"
    """What a Table's rows contain besides their cells: ``None``, ``Metadata`` or ``Object``."""


def negotiate(request: web.Request) -> ResponseFormat:
    """Return the format that a client wants; raises NotAcceptable, or BadRequest for an unknown ``includeObject``."""
    for clause in (request.headers.get("Accept") or "*/*").split(","):
        media, *parameters = (part.strip() for part in clause.split(";"))
        options = dict(parameter.partition("=")[::2] for parameter in parameters)
        shape = options.get("as", "")
        if media in (JSON, "*/*", "application/*") and (not shape or _CONVERSIONS.get(shape) == options.get("v", "v1")):
            form = ResponseFormat(shape, request.query.get("includeObject") or "Metadata")
            if shape == "Table" and form.include not in ("None", "Metadata", "Object"):
                raise bad_request(f'unrecognized includeObject value: "{form.include}"')
            return form
    raise StatusError(406, "NotAcceptable", f"only the following media types are accepted: {JSON}")


def json_response(
    body: Any, status: int = 200, warnings: Sequence[str] = (), headers: Mapping[str, str] | None = None
) -> web.Response:
    """Return a response whose body is a JSON value, or bytes that are JSON already."""
    data = body if isinstance(body, bytes) else orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE)
    response = web.Response(body=data, status=status, headers={"Content-Type": JSON, **NO_CACHE, **(headers or {})})
    for text in dict.fromkeys(warnings):
        quoted = text.replace("\\", "\\\\").replace('"', '\\"')
        response.headers.add("Warning", f'299 - "{quoted}"')
    return response


def status_response(error: StatusError) -> web.Response:
    """Return a response with the Status of an error."""
    headers: dict[str, str] = {}
    if error.code == 403:
        headers["X-Content-Type-Options"] = "nosniff"
    elif error.code in (429, 504):
        headers["Retry-After"] = "1"
    return json_response(error.status, error.code, headers=headers)


def object_response(
    form: ResponseFormat, entry: Entry, status: int = 200, warnings: Sequence[str] = ()
) -> web.Response:
    """Return a response with a stored object, its metadata or a Table with one row."""
    return json_response(_encode(form, entry, [entry.obj]) + b"\n", status, warnings)


def _encode(form: ResponseFormat, entry: Entry, rows: list[Object], *, headers: bool = True) -> bytes:
    if form.shape == "Table":
        metadata = {"resourceVersion": entry.obj["metadata"].get("resourceVersion", "")}
        return orjson.dumps(table(entry.kind.plural, rows, metadata, include=form.include, headers=headers))
    if form.shape:
        return orjson.dumps(partial_metadata(entry.obj))
    return entry.data


def list_response(form: ResponseFormat, kind: Kind, entries: Iterable[Entry], metadata: Object) -> web.Response:
    """Return a response with a list. The JSON of the items is taken from the store without decoding it."""
    if form.shape == "Table":
        return json_response(table(kind.plural, (entry.obj for entry in entries), metadata, include=form.include))
    if form.shape:
        items = [partial_metadata(entry.obj) for entry in entries]
        return json_response(
            {"kind": "PartialObjectMetadataList", "apiVersion": META_VERSION, "metadata": metadata, "items": items}
        )
    head = orjson.dumps({"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": metadata})
    return json_response(head[:-1] + b',"items":[' + b",".join(entry.list_item_json for entry in entries) + b"]}\n")


def event_encoder(form: ResponseFormat) -> Callable[[Event], bytes]:
    """Return the function that encodes the objects of a watch. Only the first Table has column definitions."""
    headers = True

    def encode(event: Event) -> bytes:
        nonlocal headers
        rows = [] if event.type == "BOOKMARK" else [event.entry.obj]
        data = _encode(form, event.entry, rows, headers=headers)
        headers = False
        return data

    return encode
