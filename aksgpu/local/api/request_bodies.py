"""Decodes requests: bodies in JSON, YAML or protobuf, and options in the query.

Error texts are those of Kubernetes where clients or users are likely to see them.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import orjson
import yaml
from aiohttp import web

from aksgpu.common import yaml_loader
from aksgpu.local.api import protobuf
from aksgpu.local.api.registry import WriteOptions
from aksgpu.local.api.status_causes import Causes
from aksgpu.local.kinds import Type
from aksgpu.local.objects import APPLY_PATCH, JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, Object
from aksgpu.local.status_error import StatusError, bad_request

MAX_BODY = 3 * 1024 * 1024
"""Maximum size of a request body in bytes, as in Kubernetes."""
BODY_TIMEOUT = 60.0
"""Seconds in which a body must arrive."""

_JSON = "application/json"
_YAML = "application/yaml"
_PROTOBUF = "application/vnd.kubernetes.protobuf"
_OBJECTS = (_JSON, _YAML, _PROTOBUF)
_PATCHES = (JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, APPLY_PATCH)
_KEY_END = re.compile(rb'"\s*:')
"""The end of a key in JSON."""
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_VERSION = re.compile(r"[0-9]{1,18}")


async def read_body(request: web.Request) -> bytes:
    """Return the body of a request.

    Raises RequestEntityTooLarge beyond :data:`MAX_BODY`, and Timeout if the body does not arrive.
    """
    content = request.content
    try:
        if content.is_eof() and content.total_bytes <= MAX_BODY:  # It has arrived, so no timeout is needed.
            return await content.read()
        async with asyncio.timeout(BODY_TIMEOUT):
            await content.readexactly(MAX_BODY + 1)
    except asyncio.IncompleteReadError as end:
        return end.partial
    except TimeoutError:
        message = "Timeout: request did not complete within the allotted timeout"
        raise StatusError(504, "Timeout", message) from None
    except web.RequestPayloadError as error:
        raise bad_request(f"error reading the body: {error}") from None
    raise StatusError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {MAX_BODY}")


def _media_type(request: web.Request) -> str:
    return request.headers.get("Content-Type", "").partition(";")[0].strip().lower()


async def read_object(request: web.Request, kind: Type, options: WriteOptions) -> Object:
    """Return the object in the body of a request."""
    body = await read_body(request)
    obj = _decode_body(request, body, kind.kind)
    if options.field_validation != "Ignore" and _media_type(request) in ("", _JSON):
        options.report_field_problems(kind, duplicate_fields(body, obj))
    return obj


async def read_patch(request: web.Request) -> tuple[Any, str]:
    """Return a patch and its media type; raises UnsupportedMediaType if it is not one of the four patch types."""
    media = _media_type(request)
    if media not in _PATCHES:
        raise StatusError(415, "UnsupportedMediaType", "415: Unsupported Media Type", {})
    body = await read_body(request)
    try:
        patch = _decode_yaml(body) if media == APPLY_PATCH else orjson.loads(body)
    except ValueError as error:
        raise bad_request(f"error decoding patch: {error}") from None
    if media == JSON_PATCH and not isinstance(patch, list):
        raise bad_request("error decoding patch: it must be a list")
    if media != JSON_PATCH and not isinstance(patch, dict):
        raise bad_request("error decoding patch: it must be an object")
    return patch, media


async def read_delete_options(request: web.Request) -> tuple[Object, WriteOptions]:
    """Return the DeleteOptions of a request, from its body or its query, and its write options."""
    query = request.query
    delete_options = dict[str, Any]()
    body = await read_body(request) if request.body_exists else b""
    if body:
        delete_options = _decode_body(request, body, "DeleteOptions")
    else:
        if "propagationPolicy" in query:
            delete_options["propagationPolicy"] = query["propagationPolicy"]
        if "gracePeriodSeconds" in query:
            delete_options["gracePeriodSeconds"] = query_int(query, "gracePeriodSeconds")
        if "orphanDependents" in query:
            delete_options["orphanDependents"] = query_flag(query, "orphanDependents")
    return delete_options, with_dry_run(write_options(request, "DeleteOptions"), delete_options.get("dryRun"))


def write_options(request: web.Request, name: str, *, apply: bool = False) -> WriteOptions:
    """Return the write options in the query of a request.

    Args:
        request: The request.
        name: The kind of the options in error texts, such as ``CreateOptions``.
        apply: Whether the request is an apply patch, which must have a field manager.
    """
    query = request.query
    validation = query.get("fieldValidation") or "Warn"
    manager = query.get("fieldManager", "")
    causes = Causes()
    if validation not in ("Ignore", "Strict", "Warn"):
        causes.unsupported("fieldValidation", validation, ("Ignore", "Strict", "Warn"))
    if len(manager) > 128:
        causes.too_long("fieldManager", 128)
    if apply and not manager:
        causes.required("fieldManager", "is required for apply patch")
    if name == "PatchOptions" and not apply and "force" in query:
        causes.forbidden("force", "may not be specified for non-apply patch")
    causes.raise_if_any(Type("meta.k8s.io", "v1", name))
    agent = request.headers.get("User-Agent", "").partition("/")[0][:128]
    options = WriteOptions(
        manager=manager or agent or "unknown", field_validation=validation, force=query_flag(query, "force")
    )
    return with_dry_run(options, query.getall("dryRun", []), name)


def with_dry_run(options: WriteOptions, dry_run: Any, name: str = "DeleteOptions") -> WriteOptions:
    """Return the options as a dry run if ``dry_run``, from the query or DeleteOptions, is ``["All"]``."""
    if not dry_run:
        return options
    if dry_run != ["All"]:
        causes = Causes()
        causes.unsupported("dryRun", dry_run[0] if isinstance(dry_run, list) else dry_run, ("All",))
        causes.raise_if_any(Type("meta.k8s.io", "v1", name))
    return replace(options, dry_run=True)


def query_int(query: Mapping[str, str], key: str) -> int:
    """Return a number in the query, which may be negative, or 0 if it is absent; raises BadRequest."""
    text = query.get(key, "") or "0"
    if not _INTEGER.fullmatch(text):
        raise bad_request(f'invalid {key} "{text}": strconv.ParseInt: parsing "{text}": invalid syntax')
    return int(text)


def query_version(query: Mapping[str, str]) -> int:
    """Return the resourceVersion in the query, or 0 if it is absent; raises BadRequest."""
    text = query.get("resourceVersion", "") or "0"
    if not _VERSION.fullmatch(text):
        raise bad_request(f'invalid resourceVersion "{text}": strconv.ParseUint: parsing "{text}": invalid syntax')
    return int(text)


def wants_exact_version(query: Mapping[str, str]) -> bool:
    """Return whether a list must show exactly the requested version rather than a newer one."""
    match = query.get("resourceVersionMatch", "")
    causes = Causes()
    name = "resourceVersionMatch"
    if match not in ("", "Exact", "NotOlderThan"):
        causes.unsupported(name, match, ("Exact", "NotOlderThan", ""))
    elif match and not query.get("resourceVersion"):
        causes.forbidden(name, f"{name} is forbidden unless resourceVersion is provided")
    elif match and query.get("continue"):
        causes.forbidden(name, f"{name} is forbidden when continue is provided")
    elif match == "Exact" and query["resourceVersion"] == "0":
        causes.forbidden(name, f'{name} "exact" is forbidden for resourceVersion "0"')
    if "sendInitialEvents" in query:
        causes.forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list")
    causes.raise_if_any(Type("meta.k8s.io", "v1", "ListOptions"))
    is_version = query_version(query) > 0
    if is_version and query.get("continue"):
        raise bad_request("specifying resource version is not allowed when using continue")
    # Without a match, Kubernetes treats the version of a list with a limit as an exact one.
    return match == "Exact" or (not match and is_version and query_int(query, "limit") > 0)


def wants_initial_events(query: Mapping[str, str]) -> bool | None:
    """Return whether a watch begins with the existing objects, and a bookmark after them.

    None if the client does not say; then they are sent without a bookmark if no version is given.
    """
    match = query.get("resourceVersionMatch", "")
    is_given = "sendInitialEvents" in query
    causes = Causes()
    name = "resourceVersionMatch"
    if is_given and match != "NotOlderThan":
        causes.forbidden(name, f"sendInitialEvents requires setting {name} to NotOlderThan")
    if match and not is_given:
        causes.forbidden(name, f"{name} is forbidden for watch unless sendInitialEvents is provided")
    if match not in ("", "NotOlderThan"):
        causes.unsupported(name, match, ("NotOlderThan",))
    if match and query.get("continue"):
        causes.forbidden(name, f"{name} is forbidden when continue is provided")
    causes.raise_if_any(Type("meta.k8s.io", "v1", "ListOptions"))
    return query_flag(query, "sendInitialEvents") if is_given else None


def query_flag(query: Mapping[str, str], key: str) -> bool:
    """Return whether a flag in the query is set: present, and neither ``0`` nor ``false``."""
    return key in query and query[key].lower() not in ("0", "false", "f")


def _decode_body(request: web.Request, body: bytes, kind: str) -> Object:
    media = _media_type(request) or _JSON
    if media not in _OBJECTS:
        text = "the body of the request was in an unknown format - accepted media types include: "
        raise StatusError(415, "UnsupportedMediaType", text + ", ".join(_OBJECTS))
    decode = {_JSON: orjson.loads, _YAML: _decode_yaml, _PROTOBUF: protobuf.decode}[media]
    try:
        obj = decode(body)
        if isinstance(obj, dict):
            return obj
        why = "it is not an object"
    except orjson.JSONDecodeError as error:
        why = f"json parse error: {error}"
        if error.msg.endswith("expected a string key"):
            character = error.doc[error.pos : error.pos + 1]
            why = f"json parse error: invalid character {character!r} looking for beginning of object key string"
    except ValueError as error:
        why = str(error)
    start = body[:30].decode(errors="replace")
    head = f"the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; "
    raise bad_request(f"{head}{why} ({start})")


def _may_have_duplicates(body: bytes, obj: Object) -> bool:
    """Return False if the body certainly has no key twice in one object.

    Each key of the body ends with a quotation mark and a colon. Texts may contain them as well, so there are at least
    as many of them as keys. If the decoded object has as many keys, none was lost.
    """
    count = 0
    remaining: list[Any] = [obj]
    while remaining:
        value = remaining.pop()
        if type(value) is dict:
            count += len(value)
            remaining.extend(value.values())
        elif type(value) is list:
            remaining.extend(value)
    return count != len(_KEY_END.findall(body))


def duplicate_fields(body: bytes, obj: Object) -> list[str]:
    """Return a message for each key that occurs more than once in a JSON object of the body.

    Args:
        body: the text.
        obj: the object that was decoded from it.
    """
    if not _may_have_duplicates(body, obj):
        return []
    found: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> None:
        if len(dict(items)) < len(items):
            counts = Counter(key for key, _ in items)
            found.extend(f'duplicate field "{key}"' for key in counts if counts[key] > 1)

    with suppress(ValueError, RecursionError):  # orjson accepts numbers and nesting that json does not.
        json.loads(body, object_pairs_hook=pairs)
    return found


def _decode_yaml(body: bytes) -> Any:
    """Return the value of a YAML body. Aliases are refused, because they could expand to a huge value.

    Size and depth are checked first, because libyaml's composer is recursive. A deep document could overflow the stack,
    and a large one would block the event loop.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass  # Most bodies that are declared as YAML are JSON.
    try:
        yaml_loader.check_limits(body, aliases=False)
        value = yaml.load(body, yaml_loader.LOADER)
        return orjson.loads(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z))
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        raise ValueError(f"error converting YAML to JSON: yaml: {' '.join(str(error).split())}") from None
