"""Answers as bytes: objects, lists, tables and refusals, in the form that was agreed on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import orjson
from aiohttp import web

from aksgpu.local.api.kinds import Kind
from aksgpu.local.api.negotiate import Form, negotiate
from aksgpu.local.api.registry import WriteOptions
from aksgpu.local.api.store import Entry, Event
from aksgpu.local.api.streams import NO_CACHE
from aksgpu.local.api.tables import META, partial, partial_list, table
from aksgpu.local.status import StatusError, bad_request

Object = dict[str, Any]


def refuse(error: StatusError, request: web.Request) -> web.Response:
    """A refusal as its Status."""
    headers = {**NO_CACHE}
    if error.code == 403:
        headers["X-Content-Type-Options"] = "nosniff"
    if error.code in (429, 504):
        headers["Retry-After"] = "1"
    try:
        form = negotiate(request)
    except StatusError:
        form = Form()
    return web.Response(body=form.dump(error.status), status=error.code, content_type=form.media, headers=headers)


def answer(form: Form, obj: Any, status: int = 200, options: WriteOptions | None = None) -> web.Response:
    """Any object."""
    return _bytes(form, form.dump(obj), status, options)


def _bytes(form: Form, body: bytes, status: int = 200, options: WriteOptions | None = None) -> web.Response:
    response = web.Response(body=body, status=status, content_type=form.media, headers=NO_CACHE)
    for text in dict.fromkeys(options.warnings if options else ()):
        quoted = text.replace("\\", "\\\\").replace('"', '\\"')
        response.headers.add("Warning", f'299 - "{quoted}"')
    return response


def one(
    request: web.Request, form: Form, entry: Entry, status: int = 200, options: WriteOptions | None = None
) -> web.Response:
    """A stored object, as itself, its metadata or a Table of one row."""
    if form.shape == "Table":
        metadata = {"resourceVersion": entry.obj["metadata"].get("resourceVersion", "")}
        return answer(form, _table(request, form, entry.kind.plural, [entry.obj], metadata), status, options)
    if form.shape:
        return answer(form, partial(entry.obj), status, options)
    if form == Form():
        return _bytes(form, entry.data + b"\n", status, options)
    return answer(form, entry.obj, status, options)


def many(request: web.Request, form: Form, kind: Kind, entries: Iterable[Entry], metadata: Object) -> web.Response:
    """A list. The JSON of its items is the store's own, not made again."""
    if form.shape == "Table":
        return answer(form, _table(request, form, kind.plural, (entry.obj for entry in entries), metadata))
    if form.shape:
        return answer(form, partial_list((entry.obj for entry in entries), metadata))
    head = {"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": metadata}
    if form == Form():
        items = b",".join(entry.item for entry in entries)
        return _bytes(form, orjson.dumps(head)[:-1] + b',"items":[' + items + b"]}\n")
    return answer(form, {**head, "items": [orjson.loads(entry.item) for entry in entries]})


def _table(
    request: web.Request, form: Form, plural: str, objects: Iterable[Object], metadata: Object, headers: bool = True
) -> Object:
    include = request.query.get("includeObject", "") or "Metadata"
    if include not in ("None", "Metadata", "Object"):
        raise bad_request(f'unrecognized includeObject value: "{include}"')
    version = META if form.version == "v1" else "meta.k8s.io/v1beta1"
    return table(plural, objects, metadata, include=include, headers=headers, api_version=version)


def encoder(request: web.Request, form: Form) -> Callable[[Event], bytes]:
    """How a watch writes its objects. The columns of a Table come with the first event only."""
    if not form.shape:
        return lambda event: event.entry.data
    if form.shape != "Table":
        return lambda event: orjson.dumps(partial(event.entry.obj))
    _table(request, form, "", [], {})
    headers = True

    def encode(event: Event) -> bytes:
        nonlocal headers
        rows = [] if event.type == "BOOKMARK" else [event.entry.obj]
        metadata = {"resourceVersion": event.entry.obj["metadata"]["resourceVersion"]}
        shown = _table(request, form, event.entry.kind.plural, rows, metadata, headers)
        headers = False
        return orjson.dumps(shown)

    return encode
