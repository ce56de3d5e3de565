"""Kubernetes' published schemas, compiled into a tree that decodes objects, sets defaults and checks values.

The schemas are in ``data/schemas-1.36.json.gz``. Rules that are only in Go's types, such as which fields are written
even if they are empty, are in ``data/rules.yaml``. A :class:`Decoder` copies an object as the API server reads it. It
finds unknown fields, checks types, makes quantities canonical, omits empty optional fields, sets defaults and checks
values.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

from aksgpu.common import quantities
from aksgpu.local import api_data
from aksgpu.local.api.cross_field_rules import VALIDATORS, Validator
from aksgpu.local.api.status_causes import Causes
from aksgpu.local.api.strategy import DEFAULTERS, Defaulter
from aksgpu.local.kinds import Kind, Type

REF = "#/components/schemas/"
_SCALARS = {"Quantity": "quantity", "Time": "time", "MicroTime": "microtime", "IntOrString": "intstr"}
"""The types of definitions that are a single value in JSON."""
_ZERO_VALUES: dict[str, Any] = {"string": "", "integer": 0, "number": 0, "boolean": False, "intstr": 0, "quantity": "0"}
"""The value that Go writes for a field that was never set, by type."""
_GO_TYPES = {"string": "string", "boolean": "bool", "number": "float64", "time": "v1.Time", "microtime": "v1.MicroTime"}
"""The Go types that error texts name, by type."""
_OMITTED_IF_EMPTY = frozenset({"array", "map", "string", "bytes"})
"""Types whose empty values Go's ``omitempty`` omits."""
_MAX_DEPTH = 64
"""Maximum nesting depth of an object."""


def definitions() -> dict[str, Any]:
    """Return the schemas by their full names, in the form of OpenAPI v3."""
    loaded: dict[str, Any] = api_data.load("schemas-1.36.json.gz")
    return loaded


class SchemaNode:
    """The schema of one field.

    ``type`` is an OpenAPI type, or one of quantity, intstr, time, microtime, bytes, map and any (an object of any
    form).
    """

    def __init__(self, kind: str) -> None:
        self.type = kind
        self.go = _GO_TYPES.get(kind, kind)
        """The Go type, for error texts."""
        self.name = ""
        """The last part of the definition's name; empty for types other than objects."""
        self.fields: dict[str, SchemaNode] = {}
        self.item: SchemaNode | None = None
        """The schema of the items of an array or the values of a map."""
        self.atomic = False
        """Whether an object or map can only have one owner as a whole."""
        self.list_type = "atomic"
        """``atomic``, ``set`` or ``map``."""
        self.keys: tuple[str, ...] = ()
        """The keys of a list of type ``map``."""
        self.merge_key = ""
        """The key for merging a list in a strategic merge patch; ``*`` for the items themselves, empty for no merge."""
        self.required: tuple[str, ...] = ()
        self.always_written: tuple[str, ...] = ()
        """Fields that are written even if they are empty."""
        self.omit_zero: frozenset[str] = frozenset()
        """Numbers and booleans that are omitted if they are 0 or false."""
        self.kept_if_empty: frozenset[str] = frozenset()
        """Fields that are kept if a client sends them empty."""
        self.defaults: Mapping[str, Any] = {}
        self.rules: Mapping[str, Any] = {}
        """Rules for the values of fields, from ``data/rules.yaml``."""
        self.set_defaults: Defaulter | None = None
        self.check: Validator | None = None


@cache
def compiled_definition(name: str) -> SchemaNode:
    """Return the compiled schema of a definition by its full name."""
    schema = definitions()[name]
    short = name.rpartition(".")[2]
    if short in _SCALARS or "properties" not in schema:
        return SchemaNode(_SCALARS.get(short, "any"))
    node = SchemaNode("object")
    node.name = short
    node.go = ".".join(name.split(".")[-2:])
    for field, each in schema["properties"].items():
        node.fields[field] = _compile(each)
    node.atomic = schema.get("x-kubernetes-map-type") == "atomic"
    rules = api_data.load("rules.yaml")["types"]
    extra = rules.get(f"{name.split('.')[-3]}.{short}") or rules.get(short, {})
    is_object = {"apiVersion", "kind", "metadata"} <= schema["properties"].keys()
    node.always_written = tuple(dict.fromkeys([*(["metadata"] if is_object else ()), *extra.get("zero", ())]))
    node.omit_zero = frozenset(extra.get("omitZero", ()))
    node.defaults = extra.get("defaults", {})
    node.rules = extra.get("rules", {})
    node.set_defaults = DEFAULTERS.get(node.name)
    node.check = VALIDATORS.get(node.name)
    required = [
        each for each in schema.get("required", ()) if each not in node.always_written and each not in node.defaults
    ]
    node.required = tuple(dict.fromkeys([*required, *extra.get("required", ())]))
    node.kept_if_empty = frozenset((*node.required, *node.always_written, *extra.get("pointers", ())))
    return node


def _compile(schema: dict[str, Any]) -> SchemaNode:
    if "$ref" in schema:
        return compiled_definition(schema["$ref"].removeprefix(REF))
    kind = schema["type"]
    if kind == "array":
        node = SchemaNode("array")
        node.item = _compile(schema["items"])
        node.go = f"[]{node.item.go}"
        node.list_type = schema.get("x-kubernetes-list-type", "atomic")
        node.keys = tuple(schema.get("x-kubernetes-list-map-keys", ()))
        if "merge" in schema.get("x-kubernetes-patch-strategy", ""):
            node.merge_key = schema.get("x-kubernetes-patch-merge-key", "") or "*"
        return node
    if kind == "object":
        if "additionalProperties" not in schema:
            return SchemaNode("any")
        node = SchemaNode("map")
        node.item = _compile(schema["additionalProperties"])
        node.go = f"map[string]{node.item.go}"
        node.atomic = schema.get("x-kubernetes-map-type") == "atomic"
        return node
    node = SchemaNode("bytes" if schema.get("format") == "byte" else kind)
    if kind == "integer":
        node.go = schema.get("format", "int64")
    return node


def schema_for(kind: Type) -> SchemaNode:
    """Return the compiled schema of a type."""
    return compiled_definition(kind.definition)


def new_status(kind: Kind) -> Any:
    """Return the status of a new object. A status that the client sent is ignored."""
    return Decoder().decode(schema_for(kind).fields["status"], {})


def zero_value(node: SchemaNode) -> Any:
    """Return the value that Go writes for a field of this type that was never set."""
    if node.type == "object":
        return {field: zero_value(node.fields[field]) for field in node.always_written}
    return _ZERO_VALUES.get(node.type)


class DecodeError(Exception):
    """The object does not match the schema of its type. The text is that of the API server."""


class Decoder:
    """Decodes one object, and collects unknown fields and invalid values."""

    def __init__(self, *, with_defaults: bool = True, previous: Mapping[str, Any] | None = None) -> None:
        self.unknown: list[str] = []
        """Paths of fields that are not in the schema."""
        self.causes = Causes()
        """Required fields that are missing, and values that break rules."""
        # Without defaults, the object is neither completed nor checked.
        self._with_defaults = with_defaults
        # A part that is identical to that of an object decoded before is not decoded again.
        self._previous = previous or {}

    def decode(
        self, node: SchemaNode, value: Any, path: str = "", go: str = "", owner: str = "", depth: int = 0
    ) -> Any:
        """Return a copy of ``value`` as the server stores it; raises DecodeError for a wrong type."""
        given = type(value)
        item = node.item
        match node.type:
            case "string" if given is str:
                return value
            case "object" if given is dict and depth <= _MAX_DEPTH:
                return self._decode_object(node, value, path, go, depth)
            case "array" if given is list and item is not None:
                return [
                    self.decode(item, zero_value(item) if each is None else each, f"{path}[{i}]", go, owner, depth + 1)
                    for i, each in enumerate(value)
                ]
            case "map" if given is dict and item is not None:
                return {
                    key: self.decode(
                        item, zero_value(item) if each is None else each, f"{path}.{key}", go, owner, depth + 1
                    )
                    for key, each in value.items()
                }
            case "any" if given is dict:
                return _copy(value, depth)
        if given is dict and node.type == "object":
            raise DecodeError("json: exceeded max depth")
        return _decode_scalar(node, value, go, owner)

    def _decode_object(self, node: SchemaNode, value: dict[str, Any], path: str, go: str, depth: int) -> dict[str, Any]:
        result: dict[str, Any] = {}
        fields = node.fields
        prefix = f"{path}." if path else ""
        go_prefix = f"{go}." if go else ""
        for key, given in value.items():
            field = fields.get(key)
            if field is None:
                self.unknown.append(prefix + key)
                continue
            if given is None:
                continue
            if not depth and self._previous.get(key) is given:
                result[key] = given
                continue
            decoded = self.decode(field, given, prefix + key, go_prefix + key, node.name, depth + 1)
            # Like Go's omitempty, omit an empty optional field.
            is_omitted = not decoded and (field.type in _OMITTED_IF_EMPTY or key in node.omit_zero)
            if key in node.kept_if_empty or not is_omitted:
                result[key] = decoded
        if self._with_defaults:
            self._complete(node, result, prefix, depth)
        return result

    def _complete(self, node: SchemaNode, result: dict[str, Any], prefix: str, depth: int) -> None:
        """Set the defaults of a decoded object in place, and check its values."""
        for key in node.required:
            if key not in result or result[key] in ("", []):
                self.causes.required(prefix + key)
        for key in node.always_written:
            if key in result:
                continue
            field = node.fields[key]
            if field.type == "object":  # The object may have defaults of its own.
                result[key] = self._decode_object(field, {}, prefix + key, "", depth + 1)
            else:
                result[key] = zero_value(field)
        for key, default in node.defaults.items():
            if key not in result:
                result[key] = dict(default) if type(default) is dict else default
        if node.set_defaults is not None:
            node.set_defaults(result)
        for key, rule in node.rules.items():
            if key in result:
                self.causes.rule(rule, result[key], prefix + key)
        if node.check is not None:
            node.check(result, prefix, self.causes)


def _copy(value: Any, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise DecodeError("json: exceeded max depth")
    if type(value) is dict:
        return {key: _copy(each, depth + 1) for key, each in value.items()}
    if type(value) is list:
        return [_copy(each, depth + 1) for each in value]
    return value


_JSON_TYPES = {str: "string", int: "number", float: "number", bool: "bool", dict: "object", list: "array"}


def _decode_scalar(node: SchemaNode, value: Any, go: str, owner: str) -> Any:
    given = type(value)
    bits = 31 if node.go in ("int32", "intstr") else 63
    is_integer = given in (int, float) and value % 1 == 0 and -(1 << bits) <= value < 1 << bits
    match node.type:
        case "integer" if is_integer:
            return int(value)
        case "boolean" if given is bool:
            return value
        case "number" if given in (int, float):
            return value
        case "intstr" if given is str or (given is int and is_integer):
            return value
        case "quantity" if given in (str, int, float):
            try:
                return quantities.canonical(value)
            except ValueError as error:
                raise DecodeError(str(error)) from None
        case "quantity":
            raise DecodeError(quantities.SYNTAX)
        case "time" | "microtime" if given is str:
            return _time(value, micro=node.type == "microtime")
        case "bytes" if given is str:
            return _base64(value)
    name = _JSON_TYPES.get(given, "value")
    shown = f"number {value}" if name == "number" and node.type == "integer" else name
    where = f"Go struct field {owner}.{go}" if go else "Go value"
    raise DecodeError(f"json: cannot unmarshal {shown} into {where} of type {node.go}")


_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)


def _time(text: str, *, micro: bool) -> str:
    if len(text) == 20 and not micro and text.endswith("Z") and _RFC3339.fullmatch(text):
        return text
    layout = "2006-01-02T15:04:05.000000Z07:00" if micro else "2006-01-02T15:04:05Z07:00"
    try:
        if not _RFC3339.fullmatch(text):
            raise ValueError
        moment = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise DecodeError(f'parsing time "{text}" as "{layout}": cannot parse "{text}" as "2006"') from None
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ")


def _base64(text: str) -> str:
    compact = text.replace("\n", "").replace("\r", "")
    try:
        base64.b64decode(compact, validate=True)
    except (binascii.Error, ValueError):
        match = re.match(r"[A-Za-z0-9+/]*={0,2}", compact)
        raise DecodeError(f"illegal base64 data at input byte {match.end() if match else 0}") from None
    return compact
