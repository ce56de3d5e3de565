"""What a client sends: the body in JSON, YAML or protobuf, and the options in the query.

The texts of refusals are those of Kubernetes, which decodes with Go's libraries.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson
import yaml
from aiohttp import web

from aksgpu.local.api import protobuf
from aksgpu.local.api.kinds import KINDS, Kind
from aksgpu.local.api.registry import WriteOptions
from aksgpu.local.api.routes import generic
from aksgpu.local.objects import APPLY_PATCH, JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH
from aksgpu.local.status import StatusError, bad_request

MAX_BODY = 3 * 1024 * 1024
"""Bytes of a request body, as in Kubernetes."""
BODY_SECONDS = 60.0
"""Seconds that a body may take to arrive."""
MAX_NODES = 500_000
"""Values in a YAML body once its aliases are followed."""

PROTOBUF = "application/vnd.kubernetes.protobuf"
_OBJECTS = ("application/json", "application/yaml", PROTOBUF)
_PATCHES = (JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, APPLY_PATCH)
_INTERNAL = {"": "core", "rbac.authorization.k8s.io": "rbac", "scheduling.k8s.io": "scheduling"}
_UNKNOWN_FORMAT = "the body of the request was in an unknown format - accepted media types include: "


async def read(request: web.Request) -> bytes:
    """The body; raises RequestEntityTooLarge beyond :data:`MAX_BODY`, Timeout for one that does not arrive."""
    chunks, size = [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.content.iter_any():
                size += len(chunk)
                if size > MAX_BODY:
                    message = f"Request entity too large: limit is {MAX_BODY}"
                    raise StatusError(413, "RequestEntityTooLarge", message)
                chunks.append(chunk)
    except TimeoutError:
        message = "Timeout: request did not complete within the allotted timeout"
        raise StatusError(504, "Timeout", message) from None
    except web.RequestPayloadError as error:
        raise bad_request(f"error reading the body: {error}") from None
    return b"".join(chunks)


def _media(request: web.Request) -> str:
    return request.headers.get("Content-Type", "").partition(";")[0].strip().lower()


async def read_object(request: web.Request, kind: Kind | str, group_version: str, options: WriteOptions) -> Any:
    """The object in a body, whose kind and apiVersion are what the URL wants.

    Args:
        request: carries the body.
        kind: the kind that belongs here, a row of the table or a bare name.
        group_version: such as ``batch/v1``.
        options: say what a repeated field leads to.
    """
    body, media = await read(request), _media(request) or "application/json"
    if media not in _OBJECTS:
        raise StatusError(415, "UnsupportedMediaType", _UNKNOWN_FORMAT + ", ".join(_OBJECTS))
    name = kind if isinstance(kind, str) else kind.kind
    obj, repeated = _decode(body, media, name)
    found, api_version = obj.get("kind") or name, obj.get("apiVersion") or group_version
    if not isinstance(found, str) or not isinstance(api_version, str):
        raise _unrecognized(name, "couldn't get version/kind; kind and apiVersion must be strings", body)
    if found != name:
        raise bad_request(_mismatch(found, api_version, kind))
    if api_version != group_version:
        raise bad_request(
            f"the API version in the data ({api_version}) does not match the expected API version ({group_version})"
        )
    _report_repeated(repeated, name, group_version.rpartition("/")[2], options)
    return {**obj, "kind": name, "apiVersion": api_version}


async def read_patch(request: web.Request) -> tuple[Any, str]:
    """A patch and its media type; raises UnsupportedMediaType for any but the four that there are."""
    media = _media(request)
    if media not in _PATCHES:
        raise generic(415, "UnsupportedMediaType", "415: Unsupported Media Type")
    body = await read(request)
    try:
        patch = orjson.loads(body)
    except orjson.JSONDecodeError:
        if media != APPLY_PATCH:
            raise bad_request(f"error decoding patch: {_go_error(body)}") from None
        patch = _yaml(body, "error decoding YAML: {}")
    if not isinstance(patch, list if media == JSON_PATCH else dict):
        wanted, got = ("[]handlers.jsonPatchOp" if media == JSON_PATCH else "map[string]interface {}"), _go_kind(patch)
        raise bad_request(f"error decoding patch: json: cannot unmarshal {got} into Go value of type {wanted}")
    return patch, media


async def read_delete_options(request: web.Request) -> dict[str, Any]:
    """DeleteOptions of a DELETE: its body, or else its query."""
    options: dict[str, Any] = {}
    if request.body_exists:
        body = await read(request)
        media = _media(request) or "application/json"
        if body and media not in _OBJECTS:
            raise StatusError(415, "UnsupportedMediaType", _UNKNOWN_FORMAT + ", ".join(_OBJECTS))
        if body:
            options, _ = _decode(body, media, "DeleteOptions")
            if options.get("kind", "DeleteOptions") != "DeleteOptions":
                raise bad_request(f"decoded object cannot be converted to DeleteOptions: {options['kind']}")
            return {key: value for key, value in options.items() if key not in ("kind", "apiVersion")}
    query = request.query
    if "propagationPolicy" in query:
        options["propagationPolicy"] = query["propagationPolicy"]
    if "gracePeriodSeconds" in query:
        options["gracePeriodSeconds"] = integer(query, "gracePeriodSeconds")
    if "orphanDependents" in query:
        options["orphanDependents"] = flag(query, "orphanDependents")
    return options


def write_options(request: web.Request, name: str, *, patch: str = "") -> WriteOptions:
    """What the query asks of a write.

    Args:
        request: carries the query.
        name: the options' kind in error texts, such as ``CreateOptions``.
        patch: the media type of a patch.
    """
    query = request.query
    validation, dry_run = query.get("fieldValidation", ""), query.getall("dryRun", [])
    if validation not in ("", "Ignore", "Strict", "Warn"):
        raise _bad_option(name, "fieldValidation", validation, '"Ignore", "Strict", "Warn"')
    for value in dry_run:
        if value != "All":
            raise _bad_option(name, "dryRun", value, '"All"')
    manager = query.get("fieldManager", "")
    if len(manager) > 128:
        raise _invalid_option(name, "fieldManager", "Too long: may not be more than 128 bytes", "TooLong")
    if patch == APPLY_PATCH and not manager:
        raise _invalid_option(name, "fieldManager", "Required value: is required for apply patch", "Required")
    if patch and patch != APPLY_PATCH and "force" in query:
        raise _invalid_option(name, "force", "Forbidden: may not be specified for non-apply patch", "Forbidden")
    agent = request.headers.get("User-Agent", "").partition("/")[0][:128]
    return WriteOptions(
        manager=manager or agent or "unknown",
        field_validation=validation or "Warn",
        dry_run=bool(dry_run),
        force=flag(query, "force"),
    )


def with_dry_run(options: WriteOptions, wishes: Any) -> WriteOptions:
    """The options of a deletion, whose body may ask for a dry run as well as the query."""
    asked = wishes.get("dryRun") if isinstance(wishes, dict) else None
    if asked and asked != ["All"]:
        raise _bad_option("DeleteOptions", "dryRun", str(asked), '"All"')
    return replace(options, dry_run=True) if asked else options


def _bad_option(kind: str, field: str, value: str, supported: str) -> StatusError:
    text = f'Unsupported value: "{value}": supported values: {supported}'
    return _invalid_option(kind, field, text, "NotSupported")


def _invalid_option(kind: str, field: str, message: str, reason: str) -> StatusError:
    details = {
        "group": "meta.k8s.io",
        "kind": kind,
        "causes": [{"reason": f"FieldValue{reason}", "message": message, "field": field}],
    }
    return StatusError(422, "Invalid", f'{kind}.meta.k8s.io "" is invalid: {field}: {message}', details)


def integer(query: Mapping[str, str], key: str) -> int:
    """A number in the query, 0 where absent; raises BadRequest."""
    text = query.get(key, "") or "0"
    if not text.removeprefix("-").isascii() or not text.removeprefix("-").isdigit() or len(text) > 18:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    return int(text)


def flag(query: Mapping[str, str], key: str) -> bool:
    """A boolean in the query, which is true when it is there at all and not ``0`` or ``false``."""
    return key in query and query[key].lower() not in ("0", "false", "f")


def _decode(body: bytes, media: str, kind: str) -> tuple[dict[str, Any], list[str]]:
    """The object and the paths of its repeated fields."""
    try:
        if media == PROTOBUF:
            return protobuf.decode(body), []
        if media == "application/yaml":
            obj = _yaml(body, "couldn't get version/kind; {}")
            repeated: list[str] = []
        else:
            obj = orjson.loads(body)
            repeated = _repeated(body)
    except orjson.JSONDecodeError:
        raise _unrecognized(kind, f"couldn't get version/kind; json parse error: {_go_error(body)}", body) from None
    except ValueError as error:
        raise _unrecognized(kind, str(error), body) from None
    if not isinstance(obj, dict):
        what = 'struct { APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }'
        text = f"json: cannot unmarshal {_go_kind(obj)} into Go value of type {what}"
        raise _unrecognized(kind, f"couldn't get version/kind; json parse error: {text}", body)
    return obj, repeated


def _unrecognized(kind: str, why: str, body: bytes) -> StatusError:
    shown = body[:30].decode(errors="replace") if body[:1] == b"{" else body[:30].hex()
    summary = shown + (" ..." if len(body) > 30 else "") if body else "<empty>"
    return bad_request(f"the object provided is unrecognized (must be of type {kind}): {why} ({summary})")


def _mismatch(found: str, api_version: str, kind: Kind | str) -> str:
    group, _, version = api_version.rpartition("/")
    wanted = kind if isinstance(kind, str) else kind.kind
    if all((k.group, k.version, k.kind) != (group, version, found) for k in KINDS):
        why = (
            f'no kind "{found}" is registered for version "{api_version}" in scheme "pkg/api/legacyscheme/scheme.go:30"'
        )
    else:
        target = "core" if isinstance(kind, str) else kind.group
        short = _INTERNAL.get(target, target.partition(".")[0])
        why = f"converting ({version}.{found}) to ({short}.{wanted}): unknown conversion"
    return f'{found} in version "{version}" cannot be handled as a {wanted}: {why}'


def _report_repeated(repeated: list[str], kind: str, version: str, options: WriteOptions) -> None:
    texts = [f'duplicate field "{path}"' for path in repeated]
    if texts and options.field_validation == "Strict":
        head = f'{kind} in version "{version}" cannot be handled as a {kind}: strict decoding error: '
        raise bad_request(head + ", ".join(texts))
    if options.field_validation == "Warn":
        options.warnings.extend(texts)


def _repeated(body: bytes) -> list[str]:
    """Paths of keys that JSON objects in ``body`` hold twice."""
    doubles: list[tuple[int, str]] = []
    keep: list[dict[str, Any]] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(items)
        if len(made) < len(items):
            keep.append(made)
            counts = Counter(name for name, _ in items)
            doubles.extend((id(made), name) for name, count in counts.items() if count > 1)
        return made

    try:
        root = json.loads(body, object_pairs_hook=pairs)
    except (ValueError, RecursionError):
        return []
    if not doubles:
        return []
    paths: dict[int, str] = {}
    stack: list[tuple[str, Any]] = [("", root)]
    while stack:
        path, value = stack.pop()
        if isinstance(value, dict):
            paths[id(value)] = path
            stack.extend((f"{path}.{key}" if path else key, child) for key, child in value.items())
        elif isinstance(value, list):
            stack.extend((f"{path}[{index}]", child) for index, child in enumerate(value))
    return sorted(f"{paths[owner]}.{name}" if paths[owner] else name for owner, name in doubles if owner in paths)


_GO_TEXTS = {
    "Expecting property name enclosed in double quotes": "looking for beginning of object key string",
    "Expecting value": "looking for beginning of value",
    "Expecting ':' delimiter": "after object key",
    "Expecting ',' delimiter": "after object key:value pair",
    "Extra data": "after top-level value",
}


def _go_error(body: bytes) -> str:
    """What Go's JSON library says of bytes that are no JSON."""
    text = body.decode(errors="replace")
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        where = next((said for mine, said in _GO_TEXTS.items() if error.msg.startswith(mine)), "in literal")
        if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated"):
            return "unexpected end of JSON input"
        return f"invalid character {text[error.pos]!r} {where}"
    except RecursionError:
        return "exceeded max depth"
    return "invalid value"


def _go_kind(value: Any) -> str:
    names = {bool: "bool", str: "string", int: "number", float: "number", list: "array", dict: "object"}
    return names.get(type(value), "null")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML as JSON has it: timestamps stay text."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML's own name and shape)
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _yaml(body: bytes, text: str) -> Any:
    """The value of a YAML body as JSON would have it; ValueError and BadRequest say what is wrong."""
    try:
        return _plain(yaml.load(body, _Loader), [MAX_NODES])
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise bad_request(text.format(f"error converting YAML to JSON: yaml: {reason}")) from None


def _plain(value: Any, left: list[int], depth: int = 0) -> Any:
    """A copy without shared parts; ``left`` counts down, so that aliases cannot make a small text huge."""
    left[0] -= 1
    if left[0] < 0 or depth > 200:
        raise ValueError("document contains excessive aliasing")
    if isinstance(value, dict):
        return {str(key): _plain(child, left, depth + 1) for key, child in value.items()}
    if isinstance(value, list):
        return [_plain(child, left, depth + 1) for child in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise ValueError(f"cannot use a {type(value).__name__} here")
