"""The three patches that compute a new object from an old one: JSON patch, merge patch, strategic merge patch.

The fourth, server-side apply, needs managed fields: see :mod:`aksgpu.local.api.server_side_apply`. Patches never change
their arguments. The result shares parts with the old object.
"""

from __future__ import annotations

import copy
from typing import Any

import jsonpatch
import orjson

from aksgpu.local.api.schema import SchemaNode
from aksgpu.local.status_error import StatusError, bad_request

MAX_OPERATIONS = 10_000
"""Maximum number of operations in a JSON patch, as in Kubernetes."""
MAX_COPIED = 3 * 1024 * 1024
"""Maximum number of bytes that the copy operations of one JSON patch copy, as in Kubernetes."""
_MALFORMED = (AttributeError, KeyError, RecursionError, TypeError, ValueError)
"""Exceptions that jsonpatch raises for malformed operations."""
_ORDER = "$setElementOrder/"
_DELETE = "$deleteFromPrimitiveList/"
_RETAIN = "$retainKeys"
_DIRECTIVE = "$patch"


def json_patch(target: Any, operations: list[Any]) -> Any:
    """Apply a JSON patch (RFC 6902)."""
    if len(operations) > MAX_OPERATIONS:
        message = (
            f"Request entity too large: The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, "
            f"got {len(operations)}"
        )
        raise StatusError(413, "RequestEntityTooLarge", message)
    result = copy.deepcopy(target)
    copied = 0
    try:
        for operation in operations:
            # Copies of copies double in size each time, so a few operations could fill the memory.
            if operation["op"] == "copy":
                copied += len(orjson.dumps(jsonpatch.JsonPointer(operation["from"]).resolve(result)))
                if copied > MAX_COPIED:
                    raise ValueError(copied)
            result = jsonpatch.apply_patch(result, [operation], in_place=True)
        return result
    except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException, *_MALFORMED) as error:
        message = "the server rejected our request due to an error in our request"
        raise StatusError(422, "Invalid", message, {}) from error


def merge_patch(target: Any, patch: Any) -> Any:
    """Apply a JSON merge patch (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def strategic_patch(node: SchemaNode | None, target: Any, patch: Any) -> Any:
    """Apply a strategic merge patch, in which lists with a merge key are merged item by item."""
    if not isinstance(patch, dict):
        return patch
    directive = patch.get(_DIRECTIVE)
    if directive == "replace":
        return {key: value for key, value in patch.items() if key != _DIRECTIVE}
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise bad_request(f"Unrecognized patch type: {directive}")
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if key in (_DIRECTIVE, _RETAIN) or key.startswith((_ORDER, _DELETE)):
            continue
        if value is None:
            result.pop(key, None)
            continue
        field = _field(node, key)
        if isinstance(value, list) and field is not None and field.merge_key:
            result[key] = _merge_lists(field, result.get(key), value)
        elif isinstance(value, list):
            result[key] = value
        else:
            result[key] = strategic_patch(field, result.get(key), value)
    return _apply_list_directives(node, result, patch)


def _field(node: SchemaNode | None, key: str) -> SchemaNode | None:
    if node is None:
        return None
    return node.item if node.type == "map" else node.fields.get(key)


def _apply_list_directives(node: SchemaNode | None, result: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    retained = patch.get(_RETAIN)
    if isinstance(retained, list):
        kept = set(map(str, retained))
        result = {key: value for key, value in result.items() if key in kept}
    for key, value in patch.items():
        if not isinstance(value, list):
            continue
        if key.startswith(_DELETE):
            name = key.removeprefix(_DELETE)
            if isinstance(result.get(name), list):
                deleted = set(map(str, value))
                result[name] = [each for each in result[name] if str(each) not in deleted]
        elif key.startswith(_ORDER):
            name = key.removeprefix(_ORDER)
            if isinstance(result.get(name), list):
                result[name] = _ordered(_field(node, name), result[name], value)
    return result


def _identity(field: SchemaNode | None, item: Any) -> Any:
    key = field.merge_key if field else "*"
    return item.get(key) if isinstance(item, dict) else item


def _ordered(field: SchemaNode | None, items: list[Any], order: list[Any]) -> list[Any]:
    """Return the items in the patch's order. An item that is not in the order stays after its predecessor."""
    positions = {str(_identity(field, each)): position for position, each in enumerate(order)}
    position = -1
    keys: list[int] = []
    for item in items:
        position = positions.get(str(_identity(field, item)), position)
        keys.append(position)
    return [items[index] for index in sorted(range(len(items)), key=lambda index: (keys[index], index))]


def _merge_lists(field: SchemaNode, target: Any, patch: list[Any]) -> list[Any]:
    directives = [each.get(_DIRECTIVE) if isinstance(each, dict) else None for each in patch]
    if "replace" in directives:
        return [each for each in patch if not (isinstance(each, dict) and _DIRECTIVE in each)]
    names = [str(_identity(field, each)) for each in patch]
    for each in patch:
        if isinstance(each, dict) and each.get(field.merge_key) is None:
            raise bad_request(f"map: {each} does not contain declared merge key: {field.merge_key}")
    deleted = {name for name, directive in zip(names, directives, strict=True) if directive == "delete"}
    old = target if isinstance(target, list) else []
    items = [item for item in old if str(_identity(field, item)) not in deleted]
    indexes: dict[str, int] = {}
    for index, item in enumerate(items):
        indexes.setdefault(str(_identity(field, item)), index)
    for name, each, directive in zip(names, patch, directives, strict=True):
        if directive == "delete":
            continue
        if name in indexes:
            index = indexes[name]
            items[index] = strategic_patch(field.item, items[index], each)
        else:
            indexes[name] = len(items)
            items.append(strategic_patch(field.item, None, each))
    return items
